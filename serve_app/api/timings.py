"""When each sentence of a text is heard: counted from the samples of its utterance, not estimated."""

from dataclasses import dataclass

from serve_app.messages import SAMPLE_RATE_HZ, AudioChunk, PreparedSpeech


@dataclass(frozen=True, slots=True)
class Timing:
    """One utterance: a sentence, a part of a long one, or several that are too short to be spoken alone.

    text: [text_start:text_end] of what the client wrote, in code points. start_s, end_s: seconds of the answer's audio;
    pauses that were asked for belong to no utterance.
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
        self._started_at = 0
        self._finished: list[Timing] = []

    def begin(self, said: Said) -> None:
        """The chunks that follow belong to it."""
        self._said, self._utterance = said, None

    def add(self, chunk: AudioChunk) -> None:
        """The next chunk: it ends the utterance before, if it belongs to another."""
        if chunk.utterance != self._utterance:
            self._finish(self._num_samples)
            assert self._said is not None
            self._utterance = chunk.utterance
            pause_s = self._said.prepared.utterances[chunk.utterance].pause_before_s
            self._started_at = self._num_samples + round(pause_s * SAMPLE_RATE_HZ)
        self._num_samples += len(chunk.samples)

    def end(self) -> None:
        """No chunk follows; the silence after the last utterance is not its."""
        assert self._said is not None
        self._finish(self._num_samples - round(self._said.prepared.pause_after_s * SAMPLE_RATE_HZ))
        self._utterance = None

    def take(self) -> list[Timing]:
        """The utterances that have ended since the last call."""
        taken, self._finished = self._finished, []
        return taken

    def _finish(self, ended_at: int) -> None:
        if self._said is None or self._utterance is None:
            return
        utterance = self._said.prepared.utterances[self._utterance]
        written = self._said.text[utterance.text_start : utterance.text_end]
        text = written.strip()
        start = self._said.offset + utterance.text_start + len(written) - len(written.lstrip())
        seconds = (round(self._started_at / SAMPLE_RATE_HZ, 3), round(ended_at / SAMPLE_RATE_HZ, 3))
        self._finished.append(Timing(self._num_timings, start, start + len(text), text, *seconds))
        self._num_timings += 1
