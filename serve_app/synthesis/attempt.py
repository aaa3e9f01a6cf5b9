"""Batches as the engine runs them: what those cost that succeed, and who is at fault when one fails."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from serve_app.errors import SpeechError
from serve_app.synthesis.failures import Failures, Mark, is_out_of_memory
from serve_app.synthesis.scheduler import Batch, Work
from serve_app.synthesis.step_times import StepTimes
from serve_app.synthesis.stream import SpeechStream, StreamEvent


@dataclass(slots=True, eq=False)
class Attempt:
    """A batch, and what must be known when it has ended.

    kind: what its time counts as. marks: of those who will hear of it if it fails.
    under_way: it was begun, and goes on while the engine does something else.
    """

    batch: Batch
    streams: Sequence[SpeechStream]
    kind: Work
    started_s: float
    marks: list[Mark] = field(init=False)
    under_way: bool = False

    def __post_init__(self) -> None:
        self.marks = [Mark(self.batch.work, stream) for stream in self.streams]

    def narrow(self, streams: Sequence[SpeechStream]) -> None:
        """Only these will hear what becomes of it."""
        self.marks = [mark for mark in self.marks if mark.stream in streams]


Part = Callable[[Attempt], list[StreamEvent]]
"""Runs a batch, begins it, or ends it."""


class Attempts:
    """Whatever a batch raises, streams that took no part in it go on."""

    def __init__(
        self,
        failures: Failures,
        times: StepTimes,
        end: Callable[[SpeechStream, SpeechError], StreamEvent],
        is_open: Callable[[SpeechStream], bool],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """end: ends a stream that failed."""
        self._failures = failures
        self._times = times
        self._end = end
        self._is_open = is_open
        self._clock = clock

    def __call__(self, attempt: Attempt, part: Part) -> list[StreamEvent]:
        """Raises the batch's error when the engine itself is at fault."""
        try:
            events = part(attempt)
        except Exception as error:  # noqa: BLE001 - whatever it is, streams that took no part must go on
            return self._one_by_one(attempt, part, error)
        if not attempt.under_way:
            self._failures.note_success()
            self._times.note(attempt.kind, attempt.streams, self._clock() - attempt.started_s)
        return events

    def _one_by_one(self, attempt: Attempt, part: Part, error: Exception) -> list[StreamEvent]:
        """After a batch failed: each of its streams takes the step again alone, where that is safe, so that none ends
        but for a failure of its own.
        """
        batch, marks = attempt.batch, attempt.marks
        self._failures.note(batch, error)
        events: list[StreamEvent] = []
        unharmed: list[SpeechStream] = []
        for mark in marks:
            own_error = error
            if len(marks) > 1 and mark.rewind():
                own = replace(batch, stream_ids=(mark.stream.stream_id,))
                try:
                    events += part(Attempt(own, [mark.stream], attempt.kind, attempt.started_s))
                    unharmed.append(mark.stream)
                    continue
                except Exception as again:  # noqa: BLE001 - as above
                    self._failures.note(own, again)
                    own_error = again
            events.append(self._end(mark.stream, self._failures.answer(own_error)))
        self._failures.judge(error, num_unharmed=len(unharmed))
        were_too_many = is_out_of_memory(error) and len(unharmed) == len(marks)
        if were_too_many and unharmed and self._is_open(unharmed[-1]):
            # Together they are too many: one less from here on, or every step would fail first.
            events.append(self._end(unharmed[-1], self._failures.answer(error)))
        return events
