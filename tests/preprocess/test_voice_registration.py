"""Registered voices through two front ends that share a store, as two replicas do: the toy networks, real clips."""

from pathlib import Path

import numpy as np
import pytest

from serve_app.config import AppConfig, PreprocessConfig
from serve_app.errors import (
    AudioTooShort,
    BuiltinVoice,
    InvalidAudio,
    InvalidVoiceName,
    VoiceExists,
    VoiceNotFound,
)
from serve_app.messages import NewVoice, ReferenceClip, SpeechRequest, VoicePrompt
from serve_app.preprocess.preprocessor import Preprocessor
from serve_app.preprocess.toy_frontend import write_frontend
from serve_app.preprocess.voice_prompt import VoicePromptBuilder
from tests.preprocess.sounds import encoded, speech_like
from tests.preprocess.stored_voices import same
from tests.preprocess.test_voices import write_voice

WORDS = "the same words for everybody"


@pytest.fixture
def config(tmp_path: Path) -> PreprocessConfig:
    (tmp_path / "builtin").mkdir()
    write_voice(tmp_path / "builtin", "helen", name="Helen K.")
    return PreprocessConfig(voices_dir=tmp_path / "builtin", voice_store=str(tmp_path / "store"))


def clip(seed: int, duration_s: float = 1.0) -> bytes:
    return encoded(speech_like(duration_s, seed=seed), 24_000)


def prompt(preprocessor: Preprocessor, name: str) -> VoicePrompt:
    return preprocessor.prepare(SpeechRequest("r", "Hello there.", voice=name)).voice


def refuse_to_build(self: VoicePromptBuilder, *arguments: object) -> VoicePrompt:
    raise AssertionError("a stored prompt was built again")


def test_a_voice_registered_through_one_replica_is_used_through_another_and_after_a_restart(
    frontend: Path, config: PreprocessConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = Preprocessor(frontend, config), Preprocessor(frontend, config)
    registered = first.register_voice(NewVoice("Ünal", clip(1), f" {WORDS}\n", "en"))
    info = registered.voice
    assert (info.name, info.builtin, info.language) == ("Ünal", False, "en")
    assert registered.quality.duration_s == pytest.approx(1.0, abs=0.01)
    made = prompt(first, "Ünal")
    restarted = Preprocessor(frontend, config)
    monkeypatch.setattr(VoicePromptBuilder, "build", refuse_to_build)
    for replica in (second, restarted):
        assert [voice.name for voice in replica.voices()] == ["Helen K.", "Ünal"]
        assert replica.voices()[-1] == info
        assert same(prompt(replica, "Ünal"), made)
        assert same(prompt(replica, info.id), made)
    second.delete_voice("Ünal")
    assert [voice.name for voice in first.voices()] == ["Helen K."]
    with pytest.raises(VoiceNotFound):
        second.delete_voice("Ünal")


def test_a_registered_voice_is_what_the_same_clip_is_when_sent_with_a_request(
    frontend: Path, config: PreprocessConfig
) -> None:
    registering, sending = Preprocessor(frontend, config), Preprocessor(frontend, config)
    registering.register_voice(NewVoice("Anna", clip(1), WORDS))
    sent = sending.prepare(SpeechRequest("r", "Hello there.", reference=ReferenceClip(clip(1), WORDS))).voice
    assert same(prompt(registering, "Anna"), sent)


def test_two_voices_with_the_same_transcript_never_mix(frontend: Path, config: PreprocessConfig) -> None:
    first, second = Preprocessor(frontend, config), Preprocessor(frontend, config)
    for seed, name in ((1, "Anna"), (2, "Bob")):
        first.register_voice(NewVoice(name, clip(seed), WORDS))
    for replica in (second, first, second):
        anna, bob = prompt(replica, "Anna"), prompt(replica, "Bob")
        assert anna.key != bob.key
        assert np.array_equal(anna.transcript_ids, bob.transcript_ids)
        assert not np.array_equal(anna.mel, bob.mel)
        assert not np.array_equal(anna.speaker, bob.speaker)
    assert same(prompt(first, "Anna"), prompt(second, "Anna"))


def test_another_checkpoint_makes_its_own_prompt_once(
    frontend: Path, config: PreprocessConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Preprocessor(frontend, config).register_voice(NewVoice("Anna", clip(1), WORDS))
    other = tmp_path / "other"
    write_frontend(other, "toy", seed=5)
    old, new = prompt(Preprocessor(frontend, config), "Anna"), prompt(Preprocessor(other, config), "Anna")
    assert old.key != new.key
    assert not np.array_equal(old.speaker, new.speaker)
    again = Preprocessor(other, config), Preprocessor(frontend, config)
    monkeypatch.setattr(VoicePromptBuilder, "build", refuse_to_build)
    assert same(prompt(again[0], "Anna"), new)
    assert same(prompt(again[1], "Anna"), old)


def test_a_damaged_prompt_is_made_again_and_a_damaged_voice_is_not_found(
    frontend: Path, config: PreprocessConfig, tmp_path: Path
) -> None:
    first = Preprocessor(frontend, config)
    info = first.register_voice(NewVoice("Anna", clip(1), WORDS)).voice
    (path,) = (tmp_path / "store/data" / info.id).glob("prompt-*")
    whole = path.read_bytes()
    path.write_bytes(whole[:-1])
    assert same(prompt(Preprocessor(frontend, config), "Anna"), prompt(first, "Anna"))
    assert path.read_bytes() == whole
    path.unlink()
    (tmp_path / "store/data" / info.id / "clip.bin").write_bytes(b"RIFF")
    other = Preprocessor(frontend, config)
    with pytest.raises(VoiceNotFound, match="damaged"):
        prompt(other, "Anna")
    assert [voice.name for voice in other.voices()] == ["Helen K."]


def test_built_in_names_are_taken_and_cannot_be_deleted(frontend: Path, config: PreprocessConfig) -> None:
    preprocessor = Preprocessor(frontend, config)
    for name in ("helen", "HELEN", "Helen K.", "helen k.", "default"):
        with pytest.raises(VoiceExists):
            preprocessor.register_voice(NewVoice(name, clip(1)))
    for name in ("helen", "Helen K.", "default"):
        with pytest.raises(BuiltinVoice):
            preprocessor.delete_voice(name)


def test_what_cannot_be_registered_leaves_no_trace(frontend: Path, config: PreprocessConfig, tmp_path: Path) -> None:
    preprocessor = Preprocessor(frontend, config)
    for new, error in (
        (NewVoice("../x", clip(1)), InvalidVoiceName),
        (NewVoice("x", b"no sound"), InvalidAudio),
        (NewVoice("x", clip(1, 0.3)), AudioTooShort),
    ):
        with pytest.raises(error):
            preprocessor.register_voice(new)
    assert not (tmp_path / "store").exists()
    preprocessor.register_voice(NewVoice("x", clip(1)))
    with pytest.raises(VoiceExists):
        preprocessor.register_voice(NewVoice("X", b"never looked at"))


def test_the_store_is_outside_the_working_directory_unless_told_otherwise(tmp_path: Path) -> None:
    located = AppConfig(checkpoint=tmp_path).located().preprocess.voice_store
    assert Path(located).is_absolute()
    assert Path(located).is_relative_to(Path.home())
    bucket = PreprocessConfig(voice_store="s3://bucket/voices")
    assert AppConfig(checkpoint=tmp_path, preprocess=bucket).located().preprocess.voice_store == "s3://bucket/voices"
