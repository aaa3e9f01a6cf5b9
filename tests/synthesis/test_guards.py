"""The guard ends what is stuck and nothing that could be speech."""

import random

import pytest

from serve_app.synthesis.guards import is_stuck

SPEECH = random.Random(0).choices(range(6561), k=400)


@pytest.mark.parametrize("length", range(0, 400, 10))
def test_speech_is_never_stuck(length: int) -> None:
    assert not is_stuck(SPEECH[:length])


@pytest.mark.parametrize("pause", [10, 25, 40])
def test_a_pause_inside_a_sentence_is_speech(pause: int) -> None:
    tokens = SPEECH[:100] + [7] * pause + SPEECH[100:160]
    assert not any(is_stuck(tokens[:length]) for length in range(len(tokens) + 1))


def test_a_drone_and_a_wavering_silence_are_stuck() -> None:
    wavering = random.Random(1).choices([3, 4, 5, 6], k=60)
    assert is_stuck(SPEECH[:100] + [7] * 60)
    assert is_stuck(SPEECH[:100] + wavering)


@pytest.mark.parametrize("cycle", [5, 17, 33, 74])
def test_a_phrase_said_again_and_again_is_stuck(cycle: int) -> None:
    tokens = SPEECH[:50] + SPEECH[100 : 100 + cycle] * 20
    caught = [length for length in range(len(tokens) + 1) if is_stuck(tokens[:length])]
    assert caught and caught[0] <= 50 + max(3 * cycle, 50) + 10


def test_a_phrase_said_twice_is_speech() -> None:
    assert not is_stuck(SPEECH[:20] + SPEECH[100:140] * 2)
