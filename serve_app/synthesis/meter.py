"""What a synthesis replica tells of its work: metrics, and one line in the log for each request."""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from time import monotonic
from typing import TypeVar

from serve_app import metrics
from serve_app.listener import Listener
from serve_app.messages import AudioChunk, PreparedSpeech
from serve_app.metrics import Recorder
from serve_app.outcome import outcome
from serve_app.stage_log import log_stage
from serve_app.synthesis.engine import StreamingEngine
from serve_app.synthesis.render_stage import FlowPrefixCache
from serve_app.synthesis.scheduler import Work
from serve_app.synthesis.seam import Engine

Item = TypeVar("Item")


class Meter:
    """One event loop owns it; `step` alone is called in the engine's thread."""

    def __init__(self, recorder: Recorder, engine: Engine) -> None:
        """engine: warmed up; what it did before is not counted."""
        self._recorder = recorder
        self._prefixes: FlowPrefixCache | None = None
        self._hits = 0
        self._misses = 0
        if isinstance(engine, StreamingEngine):
            engine.costs.watch = self.step
            self._prefixes = engine.prefixes
            self._hits, self._misses = engine.prefixes.hits, engine.prefixes.misses

    def step(self, work: Work, num_streams: int, seconds: float) -> None:
        """One step of the engine."""
        self._recorder.observe(metrics.STEP, seconds, work=work.value)
        self._recorder.observe(metrics.BATCH, num_streams, work=work.value)

    def refresh(self, num_streams: int, num_spare: int, *, works: bool) -> None:
        """What is true now; called every second."""
        self._recorder.set(metrics.STREAMS, num_streams)
        self._recorder.set(metrics.SPARE_STREAMS, num_spare)
        self._recorder.set(metrics.ENGINE_UP, works)
        if self._prefixes is not None:
            hits, misses = self._prefixes.hits, self._prefixes.misses
            self._recorder.add(metrics.PREFIX_CACHE, hits - self._hits, result="hit")
            self._recorder.add(metrics.PREFIX_CACHE, misses - self._misses, result="miss")
            self._hits, self._misses = hits, misses

    async def spoken(self, speech: PreparedSpeech, items: AsyncGenerator[Item, None]) -> AsyncGenerator[Item, None]:
        """The same items."""
        listener = Listener(asked_at_s=monotonic())
        num_tokens, end, reason = 0, "spoken", None
        try:
            async with aclosing(items):
                listener.wait(monotonic())
                async for item in items:
                    if isinstance(item, AudioChunk):
                        unheard = listener.ttfa_s is None
                        listener.hear(item.samples, monotonic())
                        num_tokens += item.num_speech_tokens
                        if unheard and listener.ttfa_s is not None:
                            self._recorder.observe(metrics.STAGES, listener.ttfa_s, stage="speak_work")
                    yield item
                    listener.wait(monotonic())
        except BaseException as error:
            end, reason = outcome(error, heard=listener.ttfa_s is not None), type(error).__name__
            raise
        finally:
            log_stage(
                "synthesis",
                speech.request_id,
                end,
                reason=reason if end != "left" else None,
                first_sound_s=listener.ttfa_s,
                audio_s=listener.audio_s,
                rtf=listener.rtf,
                underruns=listener.num_underruns,
                speech_tokens=num_tokens,
            )
