"""What steps cost, noted for capacity and metrics."""

from collections.abc import Sequence

from serve_app.synthesis.capacity import StepCosts
from serve_app.synthesis.render_stage import RenderStage
from serve_app.synthesis.scheduler import Work
from serve_app.synthesis.stream import SpeechStream


class StepTimes:
    """Turns the times of steps into costs. Prompts are taken in piece by piece, by model and flow: of these the whole
    is noted."""

    def __init__(self, costs: StepCosts, render: RenderStage) -> None:
        self._costs = costs
        self._render = render

    def kind(self, work: Work, streams: Sequence[SpeechStream]) -> Work:
        """What a batch that is about to run counts as: the flow's prefix of an unknown voice is part of its prompt."""
        introducing = work is Work.RENDER and all(map(self._introduces, streams))
        return Work.PREFILL if introducing else work

    def note(self, kind: Work, streams: Sequence[SpeechStream], elapsed_s: float) -> None:
        """A batch that succeeded. kind: what it counted as before it ran."""
        if kind is not Work.PREFILL:
            self._costs.observe(kind, len(streams), elapsed_s)
            return
        for stream in streams:
            if stream.reading_s is None:
                continue  # fed text: a few positions
            stream.reading_s += elapsed_s / len(streams)
            if stream.outputs and not self._introduces(stream):
                self._costs.observe(kind, 1, stream.reading_s)
                stream.reading_s = None

    def _introduces(self, stream: SpeechStream) -> bool:
        """Whether the next chunk is part of the flow's prefix of an unknown voice."""
        return stream.flow is not None and self._render.in_prefix(stream)
