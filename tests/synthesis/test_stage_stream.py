"""Which work of the render stage runs on its stream: all of flow and vocoder, and the copy of the samples."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import torch

from serve_app.config import SynthesisConfig
from serve_app.model.checkpoint import Checkpoint
from serve_app.model.fixed_windows import FixedWindows
from serve_app.model.paged_chunks import FixedCall, PagedChunks
from serve_app.synthesis.networks import Networks
from serve_app.synthesis.render_stage import FlowPrefixCache, RenderStage
from serve_app.synthesis.scheduler import Playback, Progress
from serve_app.synthesis.stage_stream import stage_stream
from serve_app.synthesis.stream import SpeechStream
from tests.synthesis.conftest import make_utterance, make_voice


class Watched:
    """A stream that knows whether work is asked for within it, and of which calls."""

    def __init__(self) -> None:
        self.is_current = False
        self.calls: list[bool] = []

    @contextmanager
    def __call__(self) -> Iterator[None]:
        self.is_current = True
        yield
        self.is_current = False

    def wrap(self, call: FixedCall) -> Callable[..., tuple[torch.Tensor, ...]]:
        def watched(*inputs: torch.Tensor) -> tuple[torch.Tensor, ...]:
            self.calls.append(self.is_current)
            return call(*inputs)

        return watched


def test_on_a_cpu_there_is_nothing_to_overlap() -> None:
    on_stream = stage_stream(torch.device("cpu"))
    with on_stream(), on_stream():
        assert torch.ones(1).item() == 1


@torch.inference_mode()
def test_every_call_of_flow_and_vocoder_runs_on_the_stages_stream(checkpoint: Checkpoint) -> None:
    stream = Watched()
    networks = Networks.load(checkpoint, SynthesisConfig(max_streams=1, max_positions=256), 2)
    flow, vocoder = networks.flow, networks.vocoder
    flow.chunks = PagedChunks(flow, 8, stream.wrap)
    vocoder.windows = FixedWindows(vocoder, flow.dims.chunk_frames, stream.wrap)
    prefixes = FlowPrefixCache(flow, 2**30, 12)
    stage = RenderStage(flow, vocoder, prefixes, on_stream=stream)
    voice = make_voice(1, num_tokens=40)
    utterance = make_utterance(voice, 1)
    speech = SpeechStream(voice, utterance, 1, 1.0, Progress(0, Playback(0.0), 0), min_tokens=0, max_tokens=100)
    stage.open(speech)
    speech.tokens = np.random.default_rng(1).integers(0, 6561, 40).tolist()
    speech.progress.generated = True
    sizes: list[tuple[int, bool]] = []
    while not (sizes and sizes[-1][1]):
        sizes += [(len(samples), last) for samples, last in stage.render([speech])()]
    assert sum(size for size, _ in sizes) == 40 * 960
    num_rendered = len(stream.calls)
    assert num_rendered >= 4
    stage.rehearse(1, 25)
    assert len(stream.calls) > num_rendered
    assert all(stream.calls)
    stage.close(speech)
