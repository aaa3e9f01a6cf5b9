"""Whole requests through the toy front end: the four modes, seeds, and work that is done once."""

import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from serve_app.config import PreprocessConfig
from serve_app.errors import AudioTooLong, AudioTooShort, CheckpointError, EmptyInput, InvalidAudio, VoiceNotFound
from serve_app.messages import NewVoice, PreparedSpeech, ReferenceClip, SpeechRequest
from serve_app.preprocess.preprocessor import Preprocessor
from serve_app.preprocess.tokenizer import Tokenizer
from serve_app.preprocess.voice_prompt import VoicePromptBuilder
from tests.preprocess.sounds import encoded, speech_like
from tests.preprocess.spoiled import VOICES
from tests.preprocess.test_voices import write_voice

NO_IDS = np.zeros(0, np.int32)
TEXT = "Hello there, this is a test of the service."


@pytest.fixture(scope="module")
def voices_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("voices")
    write_voice(folder, "anna", seed=1, transcript="hello from anna")
    write_voice(folder, "mute", seed=2, transcript="")
    return folder


@pytest.fixture(scope="module")
def preprocessor(frontend: Path, voices_dir: Path) -> Preprocessor:
    return Preprocessor(frontend, PreprocessConfig(voices_dir=voices_dir))


@pytest.fixture(scope="module")
def tokenizer(frontend: Path) -> Tokenizer:
    return Tokenizer.from_checkpoint(frontend)


def request(text: str = TEXT, **fields: object) -> SpeechRequest:
    return SpeechRequest("r", text, **fields)  # type: ignore[arg-type]


def test_zero_shot_continues_the_clip(preprocessor: Preprocessor, tokenizer: Tokenizer) -> None:
    prepared = preprocessor.prepare(request(voice="anna", speed=1.5))
    assert prepared.request_id == "r"
    assert prepared.speed == 1.5
    assert len(prepared.voice.speech_ids) == 25
    assert prepared.voice.mel.shape == (50, 80)
    (utterance,) = prepared.utterances
    assert utterance.text_ids.tolist() == tokenizer.encode(TEXT).tolist()
    assert utterance.prefix_ids.tolist() == tokenizer.encode("hello from anna.").tolist()
    assert utterance.speech_prefix_ids is prepared.voice.speech_ids
    assert (utterance.text_start, utterance.text_end) == (0, len(TEXT))


def test_cross_lingual_gives_the_language_model_nothing_of_the_clip(preprocessor: Preprocessor) -> None:
    prepared = preprocessor.prepare(request(voice="mute"))
    assert len(prepared.voice.speech_ids) == 25
    assert all(len(u.prefix_ids) == len(u.speech_prefix_ids) == 0 for u in prepared.utterances)


@pytest.mark.parametrize("instructions", ["speak happily", "speak happily<|endofprompt|>", " speak happily\n"])
def test_instruct_ends_the_instruction_exactly_once(
    preprocessor: Preprocessor, tokenizer: Tokenizer, instructions: str
) -> None:
    for voice in ("anna", "mute"):
        (utterance,) = preprocessor.prepare(request(voice=voice, instructions=instructions)).utterances
        assert utterance.prefix_ids.tolist() == tokenizer.encode("speak happily<|endofprompt|>").tolist()
        assert utterance.prefix_ids.tolist().count(tokenizer.end_of_prompt_id) == 1
        assert len(utterance.speech_prefix_ids) == 0


def test_sft_is_a_speaker_vector_alone(frontend: Path, voices_dir: Path, tmp_path: Path) -> None:
    for path in frontend.iterdir():
        (tmp_path / path.name).symlink_to(path)
    np.savez(tmp_path / "spk2info.npz", lin=np.full(192, 0.5, np.float32))
    prepared = Preprocessor(tmp_path, PreprocessConfig(voices_dir=voices_dir)).prepare(request(voice="lin"))
    voice, (utterance,) = prepared.voice, prepared.utterances
    assert (voice.mel.shape, voice.speech_ids.shape, voice.transcript_ids.shape) == ((0, 80), (0,), (0,))
    assert np.array_equal(voice.speaker, np.full(192, 0.5, np.float32))
    assert len(utterance.prefix_ids) == len(utterance.speech_prefix_ids) == 0


def test_a_clip_in_the_request_wins_over_the_voice(preprocessor: Preprocessor, tokenizer: Tokenizer) -> None:
    audio = encoded(speech_like(0.8, seed=9), 24_000, "FLAC")
    prepared = preprocessor.prepare(request(voice="nobody", reference=ReferenceClip(audio, "good day no. 5")))
    assert len(prepared.voice.speech_ids) == 20
    assert prepared.utterances[0].prefix_ids.tolist() == tokenizer.encode("good day number five.").tolist()
    without = preprocessor.prepare(request(reference=ReferenceClip(audio)))
    assert len(without.utterances[0].prefix_ids) == 0
    assert without.voice.key != prepared.voice.key


def test_the_same_clip_is_processed_once(frontend: Path, voices_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    preprocessor = Preprocessor(frontend, PreprocessConfig(voices_dir=voices_dir))
    calls: list[str] = []
    original = VoicePromptBuilder.build

    def counting(self: VoicePromptBuilder, clip: object, ids: object, key: str) -> object:
        calls.append(key)
        return original(self, clip, ids, key)  # type: ignore[arg-type]

    monkeypatch.setattr(VoicePromptBuilder, "build", counting)
    clips = [encoded(speech_like(0.8, seed=s), 24_000) for s in (11, 12)]
    prepared: list[PreparedSpeech] = []

    def work(index: int) -> None:
        prepared.append(preprocessor.prepare(request(reference=ReferenceClip(clips[index % 2], "words"))))

    threads = [threading.Thread(target=work, args=(i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    preprocessor.prepare(request(voice="anna"))
    assert len(calls) == 2
    assert len({id(p.voice) for p in prepared}) == 2


def test_a_clip_is_taken_in_once_by_requests_and_registrations_at_the_same_time(
    frontend: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    preprocessor = Preprocessor(frontend, PreprocessConfig(voices_dir=tmp_path, voice_store=str(tmp_path / "store")))
    work: list[str] = []
    started = threading.Event()
    for owner, name in ((Preprocessor, "_take_in"), (VoicePromptBuilder, "build")):
        original = getattr(owner, name)

        def counting(*arguments: object, original: Any = original, name: str = name) -> object:
            work.append(name)
            started.set()
            return original(*arguments)

        monkeypatch.setattr(owner, name, counting)
    audio = encoded(speech_like(0.8, seed=21), 24_000)
    reference = ReferenceClip(audio, "words")
    qualities: list[object] = []
    first = threading.Thread(target=lambda: preprocessor.prepare(request(reference=reference)))
    first.start()
    assert started.wait(10)
    others = [
        threading.Thread(
            target=lambda n=n: qualities.append(preprocessor.register_voice(NewVoice(f"v{n}", audio, "words")).quality)
        )
        for n in range(4)
    ]
    for thread in others:
        thread.start()
    for thread in (first, *others):
        thread.join()
    preprocessor.prepare(request(voice="v1"))
    assert work == ["_take_in", "build"]
    assert len(qualities) == 4
    assert len(set(map(id, qualities))) == 1


def test_seeds(preprocessor: Preprocessor) -> None:
    assert preprocessor.prepare(request(seed=7)).seed == 7
    assert preprocessor.prepare(request(seed=-1)).seed == 2**63 - 1
    drawn = {preprocessor.prepare(request()).seed for _ in range(5)}
    assert len(drawn) == 5
    assert all(0 <= seed < 2**63 for seed in drawn)


def test_long_texts_become_pieces_within_the_limit(preprocessor: Preprocessor) -> None:
    text = "This is a sentence of a long story. " * 30
    prepared = preprocessor.prepare(request(text))
    assert len(prepared.utterances) > 5
    assert all(1 <= len(u.text_ids) <= 80 for u in prepared.utterances)
    spoken = [text[u.text_start : u.text_end] for u in prepared.utterances]
    assert " ".join(spoken) == text.strip()


def test_a_registered_clip_is_the_voice_that_a_request_would_make(preprocessor: Preprocessor) -> None:
    reference = ReferenceClip((VOICES / "nora.wav").read_bytes(), "She put the letter on the kitchen table.", "on")
    prompt, quality = preprocessor.make_voice(reference)
    assert preprocessor.prepare(request(reference=reference)).voice is prompt
    assert preprocessor.check(reference) == quality
    assert quality.denoised
    assert len(prompt.speech_ids) == pytest.approx(25 * quality.used_s, abs=1)
    other = preprocessor.prepare(request(reference=ReferenceClip(reference.audio, reference.transcript, "off"))).voice
    assert other.key != prompt.key


def test_pauses_belong_to_the_piece_that_follows(preprocessor: Preprocessor) -> None:
    text = "[pause:250ms]One sentence stands here for all. [pause:1.5s]Another sentence follows it. And more.[pause:2s]"
    prepared = preprocessor.prepare(request(text))
    pauses = [u.pause_before_s for u in prepared.utterances]
    assert pauses[0] == 0.25
    assert pauses.count(1.5) == 1
    assert sum(pauses) == 1.75
    assert prepared.pause_after_s == 2.0
    with pytest.raises(EmptyInput):
        preprocessor.prepare(request("[pause:1s] ... [pause:1s]"))


def test_what_the_tokenizer_has_no_tokens_for_is_left_out(
    preprocessor: Preprocessor, tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A checkpoint for one language may drop other scripts: its tokenizer gives no ids for them."""
    encode = Tokenizer.encode
    monkeypatch.setattr(Tokenizer, "encode", lambda self, text: encode(self, text) if text.isascii() else NO_IDS)
    text = "One sentence stands here for all. [pause:1s]你好世界。[pause:0.5s]And so does this one."
    utterances = preprocessor.prepare(request(text)).utterances
    assert [u.pause_before_s for u in utterances] == [0.0, 1.5]
    with pytest.raises(EmptyInput):
        preprocessor.prepare(request("你好世界。"))


def test_text_is_put_into_words_unless_asked_not_to(preprocessor: Preprocessor, tokenizer: Tokenizer) -> None:
    text = "It costs $3.50 😀."
    (utterance,) = preprocessor.prepare(request(text)).utterances
    assert tokenizer.decode(utterance.text_ids) == "It costs three dollars and fifty cents."
    assert text[utterance.text_start : utterance.text_end] == text
    (utterance,) = preprocessor.prepare(request(text, normalize=False)).utterances
    assert tokenizer.decode(utterance.text_ids) == text


def test_markup_that_was_left_out_is_reported(preprocessor: Preprocessor) -> None:
    prepared = preprocessor.prepare(request("<speak>Hello <prosody rate='slow'>there</prosody>.</speak>"))
    assert len(prepared.warnings) == 1
    assert "prosody" in prepared.warnings[0]


def test_errors(preprocessor: Preprocessor) -> None:
    with pytest.raises(EmptyInput):
        preprocessor.prepare(request(" \u200b... "))
    with pytest.raises(VoiceNotFound):
        preprocessor.prepare(request(voice="nobody"))
    for audio, error in (
        (b"no", InvalidAudio),
        (encoded(speech_like(0.3), 24_000), AudioTooShort),
        (encoded(speech_like(31.0, 8_000), 8_000), AudioTooLong),
    ):
        with pytest.raises(error):
            preprocessor.prepare(request(reference=ReferenceClip(audio)))


def test_a_broken_default_voice_stops_the_replica(frontend: Path, tmp_path: Path) -> None:
    write_voice(tmp_path, "anna")
    (tmp_path / "anna.wav").write_bytes(b"RIFF")
    with pytest.raises(CheckpointError, match="default voice"):
        Preprocessor(frontend, PreprocessConfig(voices_dir=tmp_path))


def test_the_voices_of_this_repository_can_be_spoken_with(frontend: Path) -> None:
    preprocessor = Preprocessor(frontend, PreprocessConfig(voices_dir=VOICES))
    infos = preprocessor.voices()
    assert len(infos) >= 4
    for name in ("default", *(info.id for info in infos)):
        prepared = preprocessor.prepare(request(voice=name))
        assert len(prepared.voice.transcript_ids) > 0
