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
LEAST_SPEECH = 3


@dataclass(frozen=True, slots=True)
class LengthRule:
    """Speech tokens for each text token, upstream's `min_token_text_ratio` and `max_token_text_ratio`."""

    min_ratio: float
    max_ratio: float

    def is_said(self, num_speech_tokens: int, num_text_tokens: int) -> bool:
        """Whether so much speech can be the whole text: three tokens for each of the text's, as in CosyVoice2's
        interleaving (5 to 15), is the least that it was trained on."""
        return num_speech_tokens >= LEAST_SPEECH * num_text_tokens

    def bounds(self, num_text_tokens: int) -> tuple[int, int]:
        """Fewest and most speech tokens of an utterance; at least one may be said."""
        return int(self.min_ratio * num_text_tokens), max(1, int(self.max_ratio * num_text_tokens))


def stuck_from(tokens: Sequence[int]) -> int | None:
    """Where the end of an utterance's speech tokens stopped being speech; None while it is speech.

    Looks only at every tenth length, so that it costs nothing beside a decode step.
    """
    if len(tokens) < WINDOW_TOKENS or len(tokens) % CHECK_EVERY:
        return None
    if len(set(tokens[-WINDOW_TOKENS:])) <= MAX_DRONE_SOUNDS:
        return _start_of_drone(tokens)
    return _start_of_repetition(tokens)


def _start_of_drone(tokens: Sequence[int]) -> int:
    sounds = set(tokens[-WINDOW_TOKENS // 2 :])  # its first half may hold the end of the speech
    start = len(tokens)
    while start > 0 and tokens[start - 1] in sounds:
        start -= 1
    return start


def _start_of_repetition(tokens: Sequence[int]) -> int | None:
    """Where the second saying begins, if the end is one cycle said NUM_CYCLES times, and for a window at least."""
    for cycle in range(1, MAX_CYCLE_TOKENS + 1):
        span = max(NUM_CYCLES * cycle, WINDOW_TOKENS)
        if span > len(tokens) or tokens[-1] != tokens[-1 - cycle]:
            continue
        start = len(tokens)
        while start > cycle and tokens[start - 1] == tokens[start - 1 - cycle]:
            start -= 1
        if len(tokens) - start >= span - cycle:
            return start
    return None
