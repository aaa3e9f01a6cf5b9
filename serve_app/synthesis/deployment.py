"""What Ray runs of the engine: the class that `app.py` makes a deployment of."""

import asyncio
import os
from collections.abc import AsyncGenerator
from contextlib import aclosing, suppress
from typing import Any

import torch
from ray import serve
from ray.serve import metrics

from serve_app.config import AppConfig
from serve_app.errors import NotReady, Overloaded
from serve_app.figures import SynthesisFigures
from serve_app.messages import AudioChunk, Int32Array, PreparedSpeech, SpeakingReplica
from serve_app.metrics import OF_SYNTHESIS, Instruments
from serve_app.refusals import yields_refusals
from serve_app.synthesis.autoscaling import Refusals
from serve_app.synthesis.engine import load_engine
from serve_app.synthesis.engine_thread import EngineThread
from serve_app.synthesis.meter import Meter
from serve_app.synthesis.reference import load_reference_engine
from serve_app.synthesis.seam import Engine
from serve_app.synthesis.warm_up import warm_up

SPARE_TIMEOUT_S = 0.5
HANGS_AFTER_STEPS = 1000
"""Reading a long prompt is one step too: hundreds of times a usual one, which is the decoding of a token."""


class Synthesis:
    """Speaks prepared requests. Ready once its engine has spoken a warm-up utterance in this very process."""

    def __init__(self, config: AppConfig) -> None:
        """Raises CheckpointError when the checkpoint cannot be loaded."""
        settings = config.synthesis
        torch.set_num_threads(min(settings.threads, os.cpu_count() or 1))
        engine: Engine
        if settings.engine == "reference":
            engine = load_reference_engine(config.checkpoint, settings)
        else:
            engine = load_engine(config.checkpoint, settings)
        max_step_s = max(settings.max_step_s, HANGS_AFTER_STEPS * warm_up(engine))
        self._meter = Meter(Instruments(metrics, OF_SYNTHESIS), engine)
        self._num_spare = settings.max_streams
        self._settings = settings
        self._refusals = Refusals()
        replica_id = serve.get_replica_context().replica_id.unique_id
        self._thread = EngineThread(engine, settings.max_streams, replica_id, max_step_s=max_step_s)

    async def reconfigure(self, user_config: dict[str, Any]) -> None:
        """Ray calls it when the YAML's `user_config` has changed; streams go on. Raises ValidationError."""
        await self._thread.adjust(self._settings.with_live(user_config))

    @yields_refusals
    async def speak(
        self, speech: PreparedSpeech, num_turned_away: int = 0
    ) -> AsyncGenerator[AudioChunk | SpeakingReplica, None]:
        """The samples of a request as they are made; before those of a fed one, where its text is to be sent.

        num_turned_away: requests that whoever calls refused by itself since it was refused here.
        Raises NotReady or GenerationFailed; Overloaded and InputTooLong are the last item.
        """
        self._refusals.add(num_turned_away)
        try:
            async with aclosing(self._meter.spoken(speech, self._thread.speak(speech))) as items:
                async for item in items:
                    yield item
        except Overloaded:
            self._refusals.add()
            raise

    async def feed(self, request_id: str, text_ids: Int32Array) -> None:
        """More text, int32 [T], for a fed request that this replica speaks; ignored if it does not (any more)."""
        self._thread.feed(request_id, text_ids)

    async def end_text(self, request_id: str) -> None:
        """A fed request's text is complete; ignored if this replica does not speak it (any more)."""
        self._thread.end(request_id)

    async def ready(self) -> bool:
        """A replica takes calls only after its constructor, warm-up included: whether it still works."""
        return self._thread.fault() is None

    async def check_engine(self) -> int:
        """Requests open now. Raises AssertionError if the engine has lost track of a slot."""
        await self._thread.check()
        return self._thread.num_streams

    async def figures(self) -> SynthesisFigures:
        """What this replica is doing. In the middle of a long step the spare streams are those of before it."""
        await self._ask_for_spare()
        replica_id = serve.get_replica_context().replica_id.unique_id
        return SynthesisFigures(replica_id, self._thread.num_streams, self._num_spare)

    async def prefix_counts(self) -> tuple[int, int]:
        """Utterances that found their voice's flow prefix here, and those that did not."""
        return await self._thread.prefix_counts()

    async def record_autoscaling_stats(self) -> dict[str, float]:
        """What `autoscaling.SpareStreams` scales by; Ray collects it from every replica."""
        spare = await self._thread.num_spare()
        return {"streams": self._thread.num_streams, "spare": spare, "refused": self._refusals.count()}

    async def _ask_for_spare(self) -> None:
        with suppress(asyncio.TimeoutError):
            self._num_spare = await asyncio.wait_for(self._thread.num_spare(), SPARE_TIMEOUT_S)

    async def check_health(self) -> None:
        """Ray replaces the replica when this raises; it calls it every second, which is when gauges are set."""
        fault = self._thread.fault()
        if fault is None:
            await self._ask_for_spare()
        self._meter.refresh(self._thread.num_streams, self._num_spare, works=fault is None)
        if fault is not None:
            raise NotReady(fault)

    def __del__(self) -> None:
        thread = getattr(self, "_thread", None)
        if thread is not None:
            thread.stop()
