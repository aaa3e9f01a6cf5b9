"""The seam behind which the engines are: ours (`engine.py`), and the yardstick (`reference.py`)."""

from typing import Protocol

from serve_app.messages import Int32Array, PreparedSpeech
from serve_app.synthesis.scheduler import Playback
from serve_app.synthesis.settings import LiveSettings
from serve_app.synthesis.stream import StreamEvent


class Engine(Protocol):
    """What a replica needs of an engine. Synchronous: one thread calls all of it but `admits`."""

    def open(self, stream_id: int, speech: PreparedSpeech, index: int, playback: Playback) -> None:
        """Starts utterance number `index` of a request.

        playback: of the listener, shared by all utterances of the request. Raises Overloaded, InputTooLong or
        InvalidRequest; then nothing is held.
        """
        ...

    def feed(self, stream_id: int, text_ids: Int32Array) -> None:
        """More text of an utterance that was opened with `PreparedSpeech.fed`: int32 [T], T >= 0.

        Ignored when the stream is gone, was not opened as fed, or its end was declared: its owner learns of a stream
        that failed from its event. Text that outgrows the model ends this stream with InputTooLong.
        """
        ...

    def end(self, stream_id: int) -> None:
        """Declares that no text will follow for a fed utterance. Idempotent; ignored when the stream is gone."""
        ...

    def close(self, stream_id: int) -> None:
        """Frees all that a stream holds. Idempotent; an unknown id is ignored."""
        ...

    def step(self) -> list[StreamEvent]:
        """Runs one batch and reports what it made; [] when it made no sound or no stream can go on."""
        ...

    def check(self) -> None:
        """Raises AssertionError unless free and used resources add up to what there is."""
        ...

    def num_spare(self) -> int:
        """Listeners that could still be taken without making others run dry."""
        ...

    def admits(self, num_listeners: int) -> bool:
        """Whether there is time for one more beside so many. From any thread, also in the middle of a step: who is
        refused need not wait for its end.
        """
        ...

    def prefix_counts(self) -> tuple[int, int]:
        """How many utterances found their voice's flow prefix, and for how many it had to be computed."""
        ...

    def adjust(self, settings: LiveSettings) -> None:
        """Other settings from the next step on; open streams go on."""
        ...

    def wait_s(self) -> float | None:
        """Seconds until `step` has something to do: 0 for now, None when nothing can be done before a stream is opened,
        fed or ended."""
        ...
