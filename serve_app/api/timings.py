"""When each sentence of a text is heard: counted from the samples of its utterance, not estimated."""

from dataclasses import dataclass

from serve_app.messages import SAMPLE_RATE_HZ, AudioChunk, PreparedSpeech


@dataclass(frozen=True, slots=True)
class Timing:
    """One utterance: a sentence, a part of a long one, or several that are too short to be spoken alone.

    text: request's text [text_start:text_end], in code points. start_s, end_s: seconds of the answer's audio at the
    rate it is heard; pauses that were asked for belong to no utterance.
    """

    index: int
    text_start: int
    text_end: int
    text: str
    start_s: float
    end_s: float


class Timeline:
    """Counts the samples of one answer, utterance by utterance."""

    def __init__(self, text: str) -> None:
        """text: what the places of the utterances refer to."""
        self._text = text
        self._num_timings = 0
        self._num_samples = 0
        self._prepared: PreparedSpeech | None = None
        self._utterance: int | None = None
        self._text_offset = 0
        self._started_at = 0
        self._finished: list[Timing] = []

    def begin(self, prepared: PreparedSpeech, text_offset: int = 0) -> None:
        """The chunks that follow belong to it. text_offset: where in the text its own begins."""
        self._prepared, self._utterance, self._text_offset = prepared, None, text_offset

    def add(self, chunk: AudioChunk) -> None:
        """The next chunk: it ends the utterance before, if it belongs to another."""
        if chunk.utterance != self._utterance:
            self._finish(self._num_samples)
            assert self._prepared is not None
            self._utterance = chunk.utterance
            pause_s = self._prepared.utterances[chunk.utterance].pause_before_s
            self._started_at = self._num_samples + round(pause_s * SAMPLE_RATE_HZ)
        self._num_samples += len(chunk.samples)

    def end(self) -> None:
        """No chunk follows; the silence after the last utterance is not its."""
        assert self._prepared is not None
        self._finish(self._num_samples - round(self._prepared.pause_after_s * SAMPLE_RATE_HZ))
        self._utterance = None

    def take(self) -> list[Timing]:
        """The utterances that have ended since the last call."""
        taken, self._finished = self._finished, []
        return taken

    def _finish(self, ended_at: int) -> None:
        if self._prepared is None or self._utterance is None:
            return
        utterance = self._prepared.utterances[self._utterance]
        start, end = self._text_offset + utterance.text_start, self._text_offset + utterance.text_end
        seconds = (round(self._started_at / SAMPLE_RATE_HZ, 3), round(ended_at / SAMPLE_RATE_HZ, 3))
        self._finished.append(Timing(self._num_timings, start, end, self._text[start:end], *seconds))
        self._num_timings += 1
