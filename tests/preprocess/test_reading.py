"""The preview of a text: the same words that would be spoken, beside the places that they stand for."""

from pathlib import Path

import pytest

from serve_app.config import PreprocessConfig
from serve_app.errors import EmptyInput
from serve_app.messages import SpeechRequest
from serve_app.preprocess.preprocessor import Preprocessor
from serve_app.preprocess.tokenizer import Tokenizer
from tests.preprocess.test_voices import write_voice


@pytest.fixture(scope="module")
def preprocessor(frontend: Path, tmp_path_factory: pytest.TempPathFactory) -> Preprocessor:
    return Preprocessor(frontend, PreprocessConfig(voices_dir=tmp_path_factory.mktemp("none")))


def changes(preprocessor: Preprocessor, text: str) -> list[tuple[str, str]]:
    parts = [part for piece in preprocessor.reading(text, True).pieces for part in piece.parts]
    return [(part.written, part.spoken) for part in parts if part.written != part.spoken]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("It costs $3.50 now.", [("$3.50", "three dollars and fifty cents")]),
        ("He came 3rd of 12.", [("3rd", "third"), ("12", "twelve")]),
        ("Nothing to change here.", []),
        ("我有3个苹果。", [("3", "三")]),
        ("A fine 😀 day", [("", ".")]),
        (
            "Salt & oil, \u0065\u0301t\u0065\u0301 2025.",
            [("&", "and"), ("e\u0301te\u0301", "été"), ("2025", "twenty twenty-five")],
        ),
    ],
)
def test_what_is_said_otherwise_than_written(
    preprocessor: Preprocessor, text: str, expected: list[tuple[str, str]]
) -> None:
    assert changes(preprocessor, text) == expected


TEXT = "<speak>Dr. Smith paid $1.50.</speak> [pause:2s] 😀 **Then** he left at 5:30 p.m.[pause:1s]"


def test_parts_cover_what_is_spoken_and_name_their_places(preprocessor: Preprocessor, frontend: Path) -> None:
    tokenizer = Tokenizer.from_checkpoint(frontend)
    speech = (TEXT + " And so on, for some time, and more. ") * 6
    reading = preprocessor.reading(speech, True)
    assert len(reading.pieces) > 6
    for piece in reading.pieces:
        places = [(part.text_start, part.text_end) for part in piece.parts]
        assert places == sorted(places)
        assert all(speech[part.text_start : part.text_end] == part.written for part in piece.parts)
        assert all(part.spoken for part in piece.parts)
    spoken = ["".join(part.spoken for part in piece.parts) for piece in reading.pieces]
    assert "Doctor Smith paid one dollar and fifty cents." in spoken[0]
    assert not any(sign in "".join(spoken) for sign in "<>*$😀[")
    prompt = preprocessor.reading("A pause stands [pause:250ms] here.[pause:1s]", True)
    assert [piece.pause_before_s for piece in prompt.pieces] == [0.0, 0.25]
    assert prompt.pause_after_s == 1.0
    assert tokenizer.encode(spoken[0]).size > 0


def test_normalize_false_reads_as_written(preprocessor: Preprocessor) -> None:
    [piece] = preprocessor.reading("It costs $3.50.", False).pieces
    assert [(part.written, part.spoken) for part in piece.parts] == [("It costs $3.50.", "It costs $3.50.")]


def test_it_is_what_a_request_says(frontend: Path, tmp_path: Path) -> None:
    write_voice(tmp_path, "anna", seed=1, transcript="hello from anna")
    preprocessor = Preprocessor(frontend, PreprocessConfig(voices_dir=tmp_path))
    tokenizer = Tokenizer.from_checkpoint(frontend)
    text = TEXT * 5
    prepared = preprocessor.prepare(SpeechRequest("r", text, voice="anna"))
    reading = preprocessor.reading(text, True)
    spoken = [tokenizer.encode("".join(part.spoken for part in piece.parts)).tolist() for piece in reading.pieces]
    assert [utterance.text_ids.tolist() for utterance in prepared.utterances] == spoken
    assert reading.warnings == prepared.warnings
    with pytest.raises(EmptyInput):
        preprocessor.reading("[pause:1s]", True)
