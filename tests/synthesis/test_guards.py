"""The guard ends what is stuck and nothing that could be speech."""

import random

import pytest

from serve_app.synthesis.guards import LengthRule, stuck_from

SPEECH = random.Random(0).choices(range(6561), k=400)


@pytest.mark.parametrize("length", range(0, 400, 10))
def test_speech_is_never_stuck(length: int) -> None:
    assert stuck_from(SPEECH[:length]) is None


@pytest.mark.parametrize("pause", [10, 25, 40])
def test_a_pause_inside_a_sentence_is_speech(pause: int) -> None:
    tokens = SPEECH[:100] + [7] * pause + SPEECH[100:160]
    assert all(stuck_from(tokens[:length]) is None for length in range(len(tokens) + 1))


def test_a_drone_and_a_wavering_silence_are_stuck() -> None:
    wavering = random.Random(1).choices([3, 4, 5, 6], k=60)
    assert stuck_from(SPEECH[:100] + [7] * 60) == 100
    assert stuck_from(SPEECH[:100] + wavering) == 100


@pytest.mark.parametrize("cycle", [5, 17, 33, 74])
def test_a_phrase_said_again_and_again_is_stuck(cycle: int) -> None:
    tokens = SPEECH[:50] + SPEECH[100 : 100 + cycle] * 20
    caught = [length for length in range(len(tokens) + 1) if stuck_from(tokens[:length]) is not None]
    assert caught and caught[0] <= 50 + max(3 * cycle, 50) + 10
    assert stuck_from(tokens[: caught[0]]) == 50 + cycle, "said once it is speech"


def test_a_phrase_said_twice_is_speech() -> None:
    assert stuck_from(SPEECH[:20] + SPEECH[100:140] * 2) is None


def test_bounds_follow_the_text_and_let_at_least_one_token_be_said() -> None:
    rule = LengthRule(2, 20)
    assert (rule.bounds(7), rule.bounds(0)) == ((14, 140), (0, 1))
    assert rule.is_said(21, 7) and not rule.is_said(20, 7)
