"""What the networks cost on a device, with no engine around them: steps, chunks, rounding, the device's ceilings."""

import platform
import shutil
import statistics
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from serve_app.messages import VoicePrompt
from serve_app.model.checkpoint import Checkpoint
from serve_app.model.flow import Flow
from serve_app.model.paged_chunks import page_bytes
from serve_app.synthesis.cuda_graphs import Graphs
from serve_app.synthesis.fixed_decode import FixedDecode, Turn
from serve_app.synthesis.made_up import BenchSettings
from serve_app.synthesis.networks import Networks
from serve_app.synthesis.sampling import Sampler

DECODE_BATCHES = (1, 64)
RENDER_BATCHES = (1, 16)
_CONTEXT_TOKENS = 150
_MAX_POSITIONS = 512
_MEMORY_MIB = 8192
"""Beside an engine's own: enough for the largest batch of chunks."""
_RENDERED_TOKENS = 200
"""More say nothing new of rounding: a chunk's depends on no token count."""
_REPEATS = 5
_MATRIX, _COPY_BYTES = 2048, 2**28
_CUDA_MATRIX, _CUDA_COPY_BYTES = 8192, 2**32
"""What a GPU does in less than a millisecond is mostly the launch."""


def describe(device: torch.device) -> dict[str, str]:
    """The device and what drives it."""
    if device.type == "cuda":
        driver = f"CUDA {torch.version.cuda}, driver {_cuda_driver()}"
        return {"device": torch.cuda.get_device_name(device), "driver": driver}
    return {"device": platform.processor() or platform.machine(), "driver": f"{torch.get_num_threads()} threads"}


def _cuda_driver() -> str:
    """Its version, which torch does not know."""
    command = shutil.which("nvidia-smi")
    if command is None:
        return "unknown"
    query = [command, "--query-gpu=driver_version", "--format=csv,noheader"]
    answer = subprocess.run(query, capture_output=True, text=True, check=False, timeout=30)
    return answer.stdout.partition("\n")[0].strip() or "unknown"


def median_s(call: Callable[[], object], device: torch.device) -> float:
    """Seconds of one call, what it started on a GPU included; the first one does not count."""
    durations = []
    for _ in range(_REPEATS + 1):
        started = time.perf_counter()
        call()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        durations.append(time.perf_counter() - started)
    return statistics.median(durations[1:])


@torch.inference_mode()
def ceilings(device: torch.device, dtype: torch.dtype) -> dict[str, float]:
    """Measured: TFLOP/s of a large product, and GB/s of a copy, read and written."""
    cuda = device.type == "cuda"
    size, num_bytes = (_CUDA_MATRIX, _CUDA_COPY_BYTES) if cuda else (_MATRIX, _COPY_BYTES)
    # A product of ones draws less power than any other, and is faster for it.
    matrix = torch.randn((size, size), device=device).to(dtype)
    source = torch.zeros(num_bytes, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    return {
        "tflops": 2 * size**3 / median_s(lambda: matrix @ matrix, device) / 1e12,
        "gb_per_s": 2 * num_bytes / median_s(lambda: target.copy_(source), device) / 1e9,
    }


@torch.inference_mode()
def step_figures(
    checkpoint: Checkpoint,
    config: BenchSettings,
    voice: VoicePrompt,
    decode_batches: Sequence[int] = DECODE_BATCHES,
    render_batches: Sequence[int] = RENDER_BATCHES,
) -> dict[str, float]:
    """Milliseconds of a decode step and of a chunk, by batch, and the share of the device's ceilings they reach.

    A decode step reads every weight once, and the keys and values of each stream. A chunk's products are counted as two
    operations for each weight and frame, Euler step and row, and for each pair of query and key, of keys and values.
    """
    small = replace(config, max_positions=_MAX_POSITIONS, memory_mib=config.memory_mib or _MEMORY_MIB)
    networks = Networks.load(checkpoint, small, max(decode_batches))
    graphs = networks.graphs or Graphs(None)
    with graphs.capturing():
        return _measure(checkpoint, networks, voice, decode_batches, render_batches)


def _measure(
    checkpoint: Checkpoint,
    networks: Networks,
    voice: VoicePrompt,
    decode_batches: Sequence[int],
    render_batches: Sequence[int],
) -> dict[str, float]:
    device, model = networks.cache.keys.device, networks.language_model
    top = ceilings(device, networks.cache.keys.dtype)
    figures = {f"ceiling_{name}": value for name, value in top.items()}
    weights = sum(p.nbytes for p in model.parameters()) - model.text_embedding.nbytes
    sampler = Sampler(checkpoint.dims.sampling)
    fixed = None if networks.graphs is None else FixedDecode(model, networks.cache, sampler, networks.graphs)
    cache = networks.cache
    # Of one stream: of each layer the keys and the values that its next token looks at.
    attention_bytes = 2 * _CONTEXT_TOKENS * cache.keys[:, 0, :, 0].numel() * cache.keys.element_size()
    taken = torch.tensor([networks.cache.take() for _ in range(max(decode_batches))])
    for batch in decode_batches:

        def decode(batch: int = batch) -> object:
            slots = taken[:batch]
            if fixed is None:
                ids, at = torch.zeros(batch, dtype=torch.int64), torch.full((batch,), _CONTEXT_TOKENS)
                return model.decode(ids, networks.cache, slots, at)
            # The same turn again and again: each call launches one step and reads that of the call before.
            turns = [Turn(slot, _CONTEXT_TOKENS, 1, 0, (True, True, True)) for slot in slots.tolist()]
            return fixed(turns, turns, [[0]] * batch)

        seconds = median_s(decode, device)
        figures[f"decode_{batch}_ms"] = 1000 * seconds
        num_bytes = weights + batch * attention_bytes
        figures[f"decode_{batch}_mb"] = num_bytes / 1e6
        figures[f"decode_{batch}_bandwidth_share"] = num_bytes / seconds / 1e9 / top["gb_per_s"]
    flow, dims = networks.flow, checkpoint.dims.flow
    rows = flow.estimator.context_shape.rows
    products = sum(p.numel() for p in flow.estimator.parameters()) * dims.num_steps * rows
    products += sum(p.numel() for p in flow.encoder.parameters()) - flow.encoder.embedding.numel()
    ids = torch.from_numpy(voice.speech_ids).long()
    prefix = flow.open(torch.from_numpy(voice.speaker), ids, torch.from_numpy(voice.mel))
    window = torch.zeros(dims.chunk_tokens + dims.lookahead, dtype=torch.int64)
    attention = _attention_operations(flow, prefix.num_tokens)
    for batch in render_batches:

        def chunk(batch: int = batch) -> None:
            states = [prefix.clone() for _ in range(batch)]
            flow.render(states, [window] * batch)
            for state in states:
                state.close()

        seconds = median_s(chunk, device)
        figures[f"chunk_{batch}_ms"] = 1000 * seconds
        operations = batch * (2 * products * dims.chunk_frames + attention)
        figures[f"chunk_{batch}_gflop"] = operations / 1e9
        figures[f"chunk_{batch}_compute_share"] = operations / seconds / 1e12 / top["tflops"]
        figures[f"vocoder_{batch}_ms"] = 1000 * _vocoder_s(networks, dims.chunk_frames, batch)
    figures["chunk_bytes"] = page_bytes(flow)
    return {name: round(value, 4) for name, value in figures.items()}


def _vocoder_s(networks: Networks, num_frames: int, batch: int) -> float:
    """Seconds in which the mel of one chunk of each stream becomes samples, in the middle of an utterance."""
    vocoder = networks.vocoder
    mels = [vocoder.source.weight.new_zeros((num_frames, vocoder.dims.in_channels))] * batch
    states = [vocoder.open(seed) for seed in range(batch)]
    for _ in range(2):
        vocoder.render(states, mels, [False] * batch)
    ongoing = [False] * batch
    # A state is never written in place, so a copy of its fields goes on from the same place again.
    return median_s(lambda: vocoder.render([replace(s) for s in states], mels, ongoing), mels[0].device)


def _attention_operations(flow: Flow, num_past_tokens: int) -> int:
    """Of one chunk of one stream behind so many tokens: two for each number of each query and each key or value."""
    dims = flow.dims
    num_chunks = num_past_tokens // dims.chunk_tokens + 1
    shapes = (flow.encoder.token_shape, flow.encoder.frame_shape, flow.estimator.context_shape)
    pairs = [
        shape.layers * shape.steps * shape.rows * shape.heads * shape.head_dim * num_chunks * shape.chunk**2
        for shape in shapes
    ]
    return 2 * 2 * sum(pairs)


@torch.inference_mode()
def deviations(
    checkpoint: Checkpoint, voice: VoicePrompt, left_context: int | None, device: str, num_steps: int = 200
) -> dict[str, float]:
    """bf16 against fp32, and a bounded left context against all of it, on the same tokens, eager.

    num_steps: teacher-forced decode steps, of which top1 is the share that choose alike; the flow renders the first 200
        of the tokens. mel_max is relative to the largest |mel| of fp32, mel_max_absolute is not.
    """
    dims = checkpoint.dims
    tokens = torch.randint(0, dims.flow.vocab, (num_steps,), generator=torch.Generator().manual_seed(0))

    eager = BenchSettings(device=device, fixed_shapes=False, max_positions=max(256, num_steps + 32))

    def speak(config: BenchSettings) -> tuple[Tensor, Tensor]:
        networks = Networks.load(checkpoint, config, 1)
        model, cache, flow = networks.language_model, networks.cache, networks.flow
        prefix, slot = model.embed_prefix(tokens[:20] % 100, tokens[:0]), cache.take()
        model.prefill(prefix, cache, slot, 0)
        choices = [
            model.decode(token[None], cache, torch.tensor([slot]), torch.tensor([len(prefix) + step]))[0].argmax()
            for step, token in enumerate(tokens)
        ]
        ids = torch.cat((torch.from_numpy(voice.speech_ids).long(), tokens[:_RENDERED_TOKENS]))
        state = flow.open(torch.from_numpy(voice.speaker), ids[: len(voice.speech_ids)], torch.from_numpy(voice.mel))
        window, mels = dims.flow.chunk_tokens + dims.flow.lookahead, []
        while state.num_tokens < len(ids):
            mels += flow.render([state], [ids[state.num_tokens : state.num_tokens + window]])
        return torch.stack(choices).cpu(), torch.cat(mels).cpu()

    exact_choices, exact_mel = speak(replace(eager, precision="fp32"))
    choices, mel = speak(replace(eager, precision="bf16"))
    peak = exact_mel.abs().max()
    figures = {
        "bf16_mel_max": float((mel - exact_mel).abs().max() / peak),
        "bf16_mel_max_absolute": float((mel - exact_mel).abs().max()),
        "steps": float(num_steps),
        "bf16_top1": float((choices == exact_choices).float().mean()),
    }
    if left_context is not None:
        _, bounded = speak(replace(eager, precision="fp32", flow_left_context_chunks=left_context))
        figures["left_context_mel_max"] = float((bounded - exact_mel).abs().max() / peak)
        figures["left_context_mel_rms"] = float((bounded - exact_mel).norm() / exact_mel.norm())
    return {name: round(value, 6) for name, value in figures.items()}
