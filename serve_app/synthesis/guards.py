"""How long an utterance may be, and when the language model is stuck: droning, silent, or repeating itself."""

from collections.abc import Sequence
from dataclasses import dataclass

WINDOW_TOKENS = 50
"""Two seconds: longer than any pause or sound inside a sentence."""
MAX_DRONE_SOUNDS = 4
"""A window of so few different tokens is a drone or a silence; speech has dozens."""
NUM_CYCLES = 3
MAX_CYCLE_TOKENS = 75
"""Three exact repetitions of up to three seconds: sampling never does that with speech."""
CHECK_EVERY = 10


@dataclass(frozen=True, slots=True)
class LengthRule:
    """Speech tokens for each text token, upstream's `min_token_text_ratio` and `max_token_text_ratio`."""

    min_ratio: float
    max_ratio: float

    def bounds(self, num_text_tokens: int) -> tuple[int, int]:
        """Fewest and most speech tokens of an utterance; at least one may be said."""
        return int(self.min_ratio * num_text_tokens), max(1, int(self.max_ratio * num_text_tokens))


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
