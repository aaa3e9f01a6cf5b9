"""The networks of a checkpoint on the engine's device: precision, memory, fixed shapes."""

from dataclasses import dataclass, replace

import torch

from serve_app.errors import CheckpointError
from serve_app.model.checkpoint import Checkpoint
from serve_app.model.first_step import FirstStep
from serve_app.model.fixed_windows import FixedWindows
from serve_app.model.flow import Flow
from serve_app.model.int8 import use_int8
from serve_app.model.kv_cache import KVCache
from serve_app.model.language_model import LanguageModel
from serve_app.model.paged_chunks import PagedChunks, page_bytes
from serve_app.model.ragged_chunks import RaggedChunks
from serve_app.model.vocoder import Vocoder
from serve_app.synthesis.cuda_graphs import Graphs
from serve_app.synthesis.settings import EngineSettings

_WORKING_SHARE = 0.25
"""Of a GPU's memory that is free after loading: left for what a step computes, and for captured graphs."""


@dataclass(frozen=True, slots=True, eq=False)
class Networks:
    """cache: with a slot for each stream, and one more where shapes are fixed.

    graphs: of the calls of fixed shapes; None where shapes follow the streams.
    stream_bytes: what all open streams together may keep in the flow; None: no limit.
    """

    language_model: LanguageModel
    cache: KVCache
    flow: Flow
    vocoder: Vocoder
    graphs: Graphs | None
    stream_bytes: int | None

    @classmethod
    def load(cls, checkpoint: Checkpoint, config: EngineSettings, num_slots: int) -> "Networks":
        """Raises CheckpointError for a device that is not there, that has no room for a single stream, or that has no
        arithmetic of the wanted precision."""
        dims, device = checkpoint.dims, resolve_device(config.device)
        if device.type == "cuda" and config.gpu_memory_share is not None:
            torch.cuda.set_per_process_memory_fraction(config.gpu_memory_share)
        dtype = resolve_precision(config.precision, device)
        fixed = device.type == "cuda" if config.fixed_shapes is None else config.fixed_shapes
        model = LanguageModel.from_tensors(dims.language_model, checkpoint.language_model).to(device).reduce(dtype)
        if config.language_precision == "int8":
            if device.type != "cpu" or dtype is not torch.float32:
                raise CheckpointError("language_precision: int8 is for a CPU, and for precision: fp32")
            use_int8(model)
        cache = KVCache.allocate(dims.language_model, num_slots + fixed, config.max_positions, dtype, device)
        flow_dims = replace(dims.flow, num_steps=config.flow_steps or dims.flow.num_steps)
        flow = Flow.from_tensors(flow_dims, checkpoint.flow).to(device)
        flow.estimator.to(dtype)
        flow.left_context_chunks = config.flow_left_context_chunks
        vocoder = Vocoder.from_tensors(dims.vocoder, checkpoint.vocoder).to(device)
        limit = _stream_bytes(config, device, flow)
        if isinstance(flow.chunks, RaggedChunks) and limit is not None:
            # What ended streams leave may be roomier than what the next one has reserved.
            flow.chunks.spare.max_bytes = 0
        if not fixed:
            return cls(model, cache, flow, vocoder, None, limit)
        graphs = Graphs.on(device)
        limit = limit if limit is not None else _DEFAULT_PAGES_BYTES
        num_pages = (limit + config.flow_cache_mib * 2**20) // page_bytes(flow)
        if num_pages < 1:
            raise CheckpointError("the memory for streams does not hold a second of speech")
        flow.chunks = PagedChunks(flow, num_pages, graphs.wrap)
        vocoder.windows = FixedWindows(vocoder, dims.flow.chunk_frames, graphs.wrap)
        return cls(model, cache, flow, vocoder, graphs, limit)


_DEFAULT_PAGES_BYTES = 2 * 2**30
"""On a CPU, where pages are for tests and comparison."""


def _stream_bytes(config: EngineSettings, device: torch.device, flow: Flow) -> int | None:
    """What is set, or what a GPU has left beside weights, prefixes of voices, what all streams share of their first
    Euler step, and working memory."""
    if config.memory_mib is not None:
        return config.memory_mib * 2**20
    if device.type != "cuda":
        return None
    free, total = torch.cuda.mem_get_info(device)
    share = config.gpu_memory_share or 1.0
    left = min(free, int(share * total) - torch.cuda.memory_reserved(device))
    first_step = FirstStep.chunk_bytes(flow.estimator) * (config.max_positions // flow.dims.chunk_tokens + 1)
    return max(0, int((1 - _WORKING_SHARE) * left) - config.flow_cache_mib * 2**20 - first_step)


def resolve_device(wanted: str) -> torch.device:
    """ "auto" is the first GPU where there is one, else the CPU. Raises CheckpointError for a GPU that is not there."""
    if wanted == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if wanted == "cuda" and not torch.cuda.is_available():
        raise CheckpointError("device: cuda was asked for, but this replica sees no GPU")
    return torch.device(wanted)


def resolve_precision(wanted: str, device: torch.device) -> torch.dtype:
    """ "auto" is bf16 on a GPU and fp32 on a CPU, most of which are slower in bf16."""
    if wanted == "auto":
        wanted = "bf16" if device.type == "cuda" else "fp32"
    return torch.bfloat16 if wanted == "bf16" else torch.float32
