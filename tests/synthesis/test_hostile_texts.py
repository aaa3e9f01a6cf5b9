"""Texts that make speech models ramble: a part of them at toy size (`hostile_texts.py` speaks all of them)."""

import json
from pathlib import Path

import pytest

from serve_app.config import PreprocessConfig, SynthesisConfig
from serve_app.model.checkpoint import Checkpoint
from serve_app.preprocess.preprocessor import Preprocessor
from serve_app.synthesis.engine import StreamingEngine
from tests.synthesis.hostile_texts import FACTOR, hostile_texts, main, speak


def test_hostile_texts_end_in_time(toy_checkpoint: Path, checkpoint: Checkpoint) -> None:
    texts = [text for text in hostile_texts(64) if len(text) <= 30]
    assert len(texts) >= 24
    preprocessor = Preprocessor(toy_checkpoint, PreprocessConfig())
    outcomes = speak(preprocessor, StreamingEngine(checkpoint, SynthesisConfig(max_streams=8)), texts, 16)
    assert sum(outcome.refused for outcome in outcomes) >= 3, "signs alone are nothing to speak"
    assert sum(outcome.num_speech > 0 for outcome in outcomes) >= 16
    assert max(outcome.worst for outcome in outcomes) <= FACTOR


def test_four_thousand_letters_without_a_break_become_sentences_that_fit(
    toy_checkpoint: Path, checkpoint: Checkpoint
) -> None:
    (text,) = [text for text in hostile_texts(8) if len(text) == 4000]
    preprocessor = Preprocessor(toy_checkpoint, PreprocessConfig(max_utterance_tokens=200))
    engine = StreamingEngine(
        checkpoint, SynthesisConfig(max_streams=8, min_token_text_ratio=0, max_token_text_ratio=0.1)
    )
    (outcome,) = speak(preprocessor, engine, [text], 1)
    assert outcome.num_text > 1000 and outcome.num_speech > 0 and outcome.worst < 0.1


def test_the_command_speaks_a_part_and_says_how_far_it_is(
    toy_checkpoint: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--checkpoint", str(toy_checkpoint), "--texts", "16", "--offset", "9", "--count", "2"]) == 0
    *_, last = capsys.readouterr().out.splitlines()
    figures = json.loads(last)
    assert (figures["texts"], figures["offset"]) == (2, 9)
    assert figures["refused"] == 1 and figures["speech_s"] > 0
