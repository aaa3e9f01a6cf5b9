"""The application with an engine that breaks when a request asks for it by its seed: faults for the real service."""

import time

import torch
from ray import serve
from ray.serve import Application

import serve_app.app as real
from serve_app.config import AppConfig
from serve_app.synthesis.attempt import Attempt
from serve_app.synthesis.deployment import Synthesis
from serve_app.synthesis.engine import StreamingEngine
from serve_app.synthesis.sampling import utterance_seed
from serve_app.synthesis.stream import StreamEvent
from tests.chaos.fault_seeds import BUG, HANG, OUT_OF_MEMORY

AFTER_TOKENS = 60
"""A fault strikes when its stream has spoken so many tokens: in the middle of its sound."""


class FaultySynthesis(Synthesis):
    """The real deployment; in its engine each batch is looked at before it runs."""

    def __init__(self, config: AppConfig) -> None:
        super().__init__(config)
        engine = self._thread._loop._engine
        assert isinstance(engine, StreamingEngine)
        run = engine._run

        def run_or_break(attempt: Attempt) -> list[StreamEvent]:
            for stream in attempt.streams:
                if len(stream.tokens) >= AFTER_TOKENS:
                    break_as_asked(stream.seed)
            return run(attempt)

        engine._run = run_or_break  # type: ignore[method-assign]


def break_as_asked(seed: int) -> None:
    """The fault that this seed stands for, if any."""
    if seed == utterance_seed(HANG, 0):
        time.sleep(3600)
    if seed == utterance_seed(OUT_OF_MEMORY, 0):
        raise torch.OutOfMemoryError("injected: the device is out of memory")
    if seed == utterance_seed(BUG, 0):
        raise RuntimeError("injected: a bug")


def build(config: AppConfig) -> Application:
    """As `serve_app.app:build`."""
    options = {"max_ongoing_requests": 64, "request_router_config": real._routing, **real._HEALTH}
    real._synthesis = serve.deployment(name="Synthesis", **options)(FaultySynthesis)
    return real.build(config)
