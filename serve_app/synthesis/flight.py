"""A render that the device is at while the engine does something else."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from serve_app.messages import Float32Array
from serve_app.synthesis.attempt import Attempt
from serve_app.synthesis.render_stage import Rendered
from serve_app.synthesis.stream import SpeechStream

LOOK_S = 0.0005
"""Between two looks at a render while there is nothing else to do. CUDA tells nobody that it is done, and an engine
that waited for it in a step would keep newcomers waiting as long."""
OVERDUE_S = 1.0
"""Longer than any render lasts: then the engine waits for its end in a step, and if that does not come, the watchdog
sees a step that hangs."""


@dataclass(slots=True, eq=False)
class Flight:
    """A render that was asked for and may not have ended. There is one at most, and until it lands no other is begun.

    What its streams are is settled when it begins, since the device does things in the order in which it was asked:
    decoding and the text that is fed go on as if its chunks had been rendered. Only what they hold must stay.
    streams: whose chunks it renders. gone: of them those that were closed since; they hear nothing of it, and slot and
    memory are given back when it lands.
    """

    attempt: Attempt
    streams: Sequence[SpeechStream]
    rendered: Rendered
    gone: list[SpeechStream] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.attempt.under_way = True

    def is_over(self, now_s: float) -> bool:
        """Whether to land it now; it may have to be waited for."""
        return self.rendered.is_there() or now_s - self.attempt.started_s > OVERDUE_S

    def keeps(self, stream: SpeechStream) -> bool:
        """Whether a stream that is closed must hold what it has until this lands."""
        if stream not in self.streams:
            return False
        self.gone.append(stream)
        self.attempt.narrow([other for other in self.streams if other not in self.gone])
        return True

    def land(self) -> list[tuple[SpeechStream, Float32Array, bool]]:
        """The samples of those who are still there, and whether they are their last. Waits; raises what went wrong."""
        self.attempt.under_way = False
        heard = zip(self.streams, self.rendered(), strict=True)
        return [(stream, samples, last) for stream, (samples, last) in heard if stream not in self.gone]
