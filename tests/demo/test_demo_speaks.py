"""The demo checkpoint, as it is served, says what it is asked to say.

A small `cosyserve evaluate`: the same engine, settings, sentences and judges.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from serve_app.evaluate.command import read_settings
from serve_app.evaluate.product import Product, Spoken
from serve_app.evaluate.report import MAX_LENGTH_RATIO, is_silent
from serve_app.evaluate.sentences import Sentence, heldout_english
from serve_app.evaluate.transcriber import Transcriber, count_errors
from serve_app.messages import SpeechRequest

ROOT = Path(__file__).parents[2]
VOICES = ("clara", "martin")
MAX_WORD_ERRORS = 0.5


@dataclass(frozen=True, slots=True)
class Read:
    """A sentence and how a voice read it."""

    sentence: Sentence
    spoken: Spoken


@pytest.fixture(scope="module")
def readings(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, list[Read]]]:
    """Four sentences by each of two voices."""
    settings = read_settings(ROOT / "configs/local.yaml", None, None, None, tmp_path_factory.mktemp("demo"))
    preprocess = settings.preprocess.model_copy(update={"voices_dir": ROOT / settings.preprocess.voices_dir})
    settings = settings.model_copy(update={"checkpoint": ROOT / settings.checkpoint, "preprocess": preprocess})
    with Product(settings) as product:
        yield {
            voice: [
                Read(sentence, product.speak(SpeechRequest("test", sentence.text, voice, seed=seed)))
                for seed, sentence in enumerate(heldout_english(4))
            ]
            for voice in VOICES
        }


def test_whisper_understands_it(readings: dict[str, list[Read]]) -> None:
    clips = [(read.sentence.text, read.spoken.samples) for voice in VOICES for read in readings[voice]]
    heard: list[tuple[str, str]] = []
    count = count_errors(clips, Transcriber().hear, lambda wanted, got: heard.append((wanted, got)))
    assert count.total > 60
    assert count.rate is not None and count.rate <= MAX_WORD_ERRORS, heard


def test_every_sentence_is_sound_of_about_its_length(readings: dict[str, list[Read]]) -> None:
    for read in readings["clara"] + readings["martin"]:
        assert not is_silent(read.spoken.samples), read.sentence
        assert np.isfinite(read.spoken.samples).all()
        ratio = read.spoken.duration_s / read.sentence.expected_s
        assert 1 / MAX_LENGTH_RATIO < ratio < MAX_LENGTH_RATIO, read.sentence
        assert read.spoken.joins, "it came in one piece: nothing was streamed"
