"""Tells when the language model is stuck: droning, silent, or saying the same thing again and again."""

from collections.abc import Sequence

WINDOW_TOKENS = 50
"""Two seconds: longer than any pause or sound inside a sentence."""
MAX_DRONE_SOUNDS = 4
"""A window of so few different tokens is a drone or a silence; speech has dozens."""
NUM_CYCLES = 3
MAX_CYCLE_TOKENS = 75
"""Three exact repetitions of up to three seconds: sampling never does that with speech."""
CHECK_EVERY = 10


def is_stuck(tokens: Sequence[int]) -> bool:
    """Whether the newest of an utterance's speech tokens show that no speech will follow.

    Looks only at every tenth length, so that it costs nothing beside a decode step.
    """
    if len(tokens) < WINDOW_TOKENS or len(tokens) % CHECK_EVERY:
        return False
    return len(set(tokens[-WINDOW_TOKENS:])) <= MAX_DRONE_SOUNDS or _repeats_itself(tokens)


def _repeats_itself(tokens: Sequence[int]) -> bool:
    """Whether the end is one cycle said NUM_CYCLES times, and for a whole window at least."""
    for cycle in range(1, MAX_CYCLE_TOKENS + 1):
        span = max(NUM_CYCLES * cycle, WINDOW_TOKENS)
        if span > len(tokens):
            continue
        if tokens[-1] == tokens[-1 - cycle] and list(tokens[-span:-cycle]) == list(tokens[cycle - span :]):
            return True
    return False
