"""When each sentence of a text is heard: counted from the samples of its utterance, not estimated."""

from dataclasses import dataclass

import numpy as np

from serve_app.messages import SAMPLE_RATE_HZ, AudioChunk, PreparedSpeech

_AUDIBLE = 10 ** (-45 / 20)


@dataclass(frozen=True, slots=True)
class Timing:
    """One utterance: a sentence, a part of a long one, or several that are too short to be spoken alone.

    text: [text_start:text_end] of what the client wrote, in code points. start_s, end_s: seconds of the answer's audio,
    from its first to its last sound above -45 dBFS.
    """

    index: int
    text_start: int
    text_end: int
    text: str
    start_s: float
    end_s: float


@dataclass(slots=True)
class Said:
    """What is being said, and where that was written.

    prepared: its utterances' places are places in `text`, of which more may come. offset: where `text` begins in all
    that the client wrote.
    """

    prepared: PreparedSpeech
    text: str
    offset: int = 0


class Timeline:
    """Counts the samples of one answer, utterance by utterance."""

    def __init__(self) -> None:
        self._num_timings = 0
        self._num_samples = 0
        self._said: Said | None = None
        self._utterance: int | None = None
        self._sound: tuple[int, int] | None = None
        self._finished: list[Timing] = []

    def begin(self, said: Said) -> None:
        """The chunks that follow belong to it."""
        self._said, self._utterance, self._sound = said, None, None

    def add(self, chunk: AudioChunk) -> None:
        """The next chunk: it ends the utterance before, if it belongs to another."""
        if chunk.utterance != self._utterance:
            self._finish()
            self._utterance = chunk.utterance
        loud = np.flatnonzero(np.abs(chunk.samples) > _AUDIBLE)
        if len(loud):
            first, last = self._num_samples + int(loud[0]), self._num_samples + int(loud[-1]) + 1
            self._sound = (self._sound[0] if self._sound else first, last)
        self._num_samples += len(chunk.samples)

    def end(self) -> None:
        """No chunk follows."""
        self._finish()
        self._utterance = None

    def take(self) -> list[Timing]:
        """The utterances that have ended since the last call."""
        taken, self._finished = self._finished, []
        return taken

    def _finish(self) -> None:
        if self._said is None or self._utterance is None:
            return
        started_at, ended_at = self._sound or (self._num_samples, self._num_samples)
        self._sound = None
        utterance = self._said.prepared.utterances[self._utterance]
        written = self._said.text[utterance.text_start : utterance.text_end]
        text = written.strip()
        start = self._said.offset + utterance.text_start + len(written) - len(written.lstrip())
        seconds = (round(started_at / SAMPLE_RATE_HZ, 3), round(ended_at / SAMPLE_RATE_HZ, 3))
        self._finished.append(Timing(self._num_timings, start, start + len(text), text, *seconds))
        self._num_timings += 1
