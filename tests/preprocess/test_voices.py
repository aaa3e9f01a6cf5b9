"""Built-in voices, and the cache that makes each prompt once."""

import threading
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import yaml

from serve_app.errors import CheckpointError, InvalidAudio, VoiceNotFound
from serve_app.messages import VoicePrompt
from serve_app.preprocess.prompt_cache import PromptCache
from serve_app.preprocess.voices import ClipVoice, SpeakerVoice, Voices
from tests.preprocess.sounds import encoded, speech_like


def write_voice(folder: Path, stem: str, seed: int = 0, **card: object) -> None:
    full = {"name": stem, "language": "en", "transcript": "hello", "provenance": "made", "licence": "CC0-1.0", **card}
    (folder / f"{stem}.yaml").write_text(yaml.safe_dump(full), encoding="utf-8")
    (folder / f"{stem}.wav").write_bytes(encoded(speech_like(1.0, seed=seed), 24_000))


def prompt(key: str) -> VoicePrompt:
    none = np.zeros(0, np.int32)
    return VoicePrompt(key, none, none, np.zeros((0, 80), np.float32), np.zeros(192, np.float32))


def test_voices_are_found_by_id_and_name(tmp_path: Path) -> None:
    write_voice(tmp_path, "anna", name="Anna B.", language="de")
    write_voice(tmp_path, "zoe", transcript="")
    voices = Voices(tmp_path, tmp_path)
    assert [(i.id, i.name, i.builtin, i.language) for i in voices.infos()] == [
        ("anna", "Anna B.", True, "de"),
        ("zoe", "zoe", True, "en"),
    ]
    assert voices.find("anna") is voices.find("Anna B.") is voices.find("default")
    with pytest.raises(VoiceNotFound):
        voices.find("nobody")
    zoe = voices.find("zoe")
    assert isinstance(zoe, ClipVoice)
    assert zoe.transcript == ""


def test_the_default_voice_may_be_marked_or_called_so(tmp_path: Path) -> None:
    write_voice(tmp_path, "anna")
    write_voice(tmp_path, "zoe", default=True)
    assert Voices(tmp_path, tmp_path).find("default").info.id == "zoe"
    write_voice(tmp_path, "default")
    assert Voices(tmp_path, tmp_path).find("default").info.id == "default"


def test_no_voices_at_all(tmp_path: Path) -> None:
    voices = Voices(tmp_path / "missing", tmp_path)
    assert voices.infos() == ()
    with pytest.raises(VoiceNotFound):
        voices.find("default")


def test_speaker_vectors_of_a_checkpoint(tmp_path: Path) -> None:
    vector = np.arange(192, dtype=np.float32)
    np.savez(tmp_path / "spk2info.npz", 中文女=vector[None])
    voice = Voices(tmp_path, tmp_path).find("中文女")
    assert isinstance(voice, SpeakerVoice)
    assert np.array_equal(voice.speaker, vector)
    np.savez(tmp_path / "spk2info.npz", bad=np.zeros(7))
    with pytest.raises(CheckpointError, match="bad"):
        Voices(tmp_path, tmp_path)


def test_faulty_voices_are_named(tmp_path: Path) -> None:
    write_voice(tmp_path, "anna")
    (tmp_path / "anna.wav").unlink()
    with pytest.raises(CheckpointError, match=r"no anna\.wav"):
        Voices(tmp_path, tmp_path)
    write_voice(tmp_path, "anna")
    (tmp_path / "anna.yaml").write_text("name: anna\nlanguage: en\n")
    with pytest.raises(CheckpointError, match="lacks transcript, provenance, licence"):
        Voices(tmp_path, tmp_path)
    (tmp_path / "anna.yaml").write_text("{")
    with pytest.raises(CheckpointError, match="cannot be read"):
        Voices(tmp_path, tmp_path)
    write_voice(tmp_path, "anna")
    write_voice(tmp_path, "zoe", name="anna")
    with pytest.raises(CheckpointError, match="Two built-in voices are called anna"):
        Voices(tmp_path, tmp_path)


def test_a_prompt_is_made_once_for_all_who_want_it_at_once() -> None:
    cache: PromptCache[VoicePrompt] = PromptCache(8)
    made: Counter[str] = Counter()
    got: list[VoicePrompt] = []

    def want(key: str) -> None:
        def make() -> VoicePrompt:
            made[key] += 1
            time.sleep(0.05)
            return prompt(key)

        got.append(cache.get(key, make))

    threads = [threading.Thread(target=want, args=(f"k{i % 3}",)) for i in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert made == {"k0": 1, "k1": 1, "k2": 1}
    assert len({id(p) for p in got}) == 3


def test_the_cache_forgets_the_one_used_longest_ago() -> None:
    cache: PromptCache[VoicePrompt] = PromptCache(2)
    made: list[str] = []

    def want(key: str) -> None:
        cache.get(key, lambda: made.append(key) or prompt(key))  # type: ignore[func-returns-value]

    for key in "abacab":
        want(key)
    assert made == ["a", "b", "c", "b"]


def test_a_failure_reaches_everyone_and_is_not_kept() -> None:
    cache: PromptCache[VoicePrompt] = PromptCache(2)
    errors: list[str] = []
    started = threading.Event()

    def fail() -> VoicePrompt:
        started.set()
        time.sleep(0.05)
        raise InvalidAudio("broken")

    def want() -> None:
        try:
            cache.get("k", fail)
        except InvalidAudio as error:
            errors.append(error.message)

    threads = [threading.Thread(target=want) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == ["broken"] * 3
    assert cache.get("k", lambda: prompt("k")).key == "k"
