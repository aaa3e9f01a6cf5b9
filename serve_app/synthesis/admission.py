"""Whether one more utterance may be opened: room in the model, a free slot, time for everybody's playback, memory."""

from serve_app.errors import InputTooLong, Overloaded
from serve_app.synthesis.capacity import DEFAULT_MAX_LOAD, Capacity, StepCosts
from serve_app.synthesis.language_stage import LanguageStage
from serve_app.synthesis.render_stage import RenderStage
from serve_app.synthesis.scheduler import Limits
from serve_app.synthesis.settings import EngineSettings, LiveSettings
from serve_app.synthesis.stream import SpeechStream
from serve_app.synthesis.stream_memory import StreamMemory


class Admission:
    """Takes slot and memory of a stream together, or neither.

    capacity: what the engine can keep in sound, by `costs`.
    """

    def __init__(
        self, config: EngineSettings, language: LanguageStage, render: RenderStage, memory: StreamMemory
    ) -> None:
        """memory: of the flow."""
        self._config = config
        self._language = language
        self._render = render
        self._memory = memory
        self.costs = StepCosts()
        self.adjust(config, Limits())

    def adjust(self, settings: LiveSettings, limits: Limits) -> None:
        """Other settings; who is open stays."""
        self._max_load = settings.max_load
        self.capacity = Capacity(self.costs, limits, settings.max_load or DEFAULT_MAX_LOAD)

    def open(self, stream: SpeechStream, num_listeners: int) -> None:
        """num_listeners: before this stream. Raises Overloaded or InputTooLong; then nothing is held."""
        if not self._language.fits(stream):
            raise InputTooLong("the reference clip and one sentence of the text together are too long for the model")
        if self._language.num_free_slots == 0:
            raise Overloaded("every stream of this replica is taken")
        is_new = stream.progress.utterance == 0
        if is_new and not self.admits(num_listeners):
            raise Overloaded("one more listener would make those that are playing run dry")
        self._take_memory(stream)
        self._language.open(stream)

    def admits(self, num_listeners: int) -> bool:
        """Whether there is time for one more beside so many, by the costs measured until now."""
        return self._max_load is None or self.capacity.admits(num_listeners)

    def _take_memory(self, stream: SpeechStream) -> None:
        if not self._memory.fits_alone(stream):
            raise InputTooLong("the reference clip and one sentence of the text together need too much memory")
        if not self._memory.take(stream):
            raise Overloaded("the memory of this replica is taken")

    def close(self, stream: SpeechStream) -> None:
        """Gives back what `open` took, and what the stages keep of the stream. Idempotent."""
        self._language.close(stream)
        self._render.close(stream)
        self._memory.give_back(stream)

    def spare(self, num_listeners: int) -> int:
        """Listeners that could still be taken beside so many without making one run dry."""
        return min(self._config.max_streams - num_listeners, self.capacity.spare(num_listeners))

    @property
    def stream_ids(self) -> set[int]:
        """Who holds memory."""
        return self._memory.stream_ids
