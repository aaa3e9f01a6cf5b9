"""Train the two front-end models and write them as ONNX: the speech tokenizer and the speaker encoder.

The speech tokenizer (whisper log-mel of any voice -> codes of the normalised voice) regresses the code's point and
picks the nearest code. The speaker encoder (fbank -> 192 numbers) regresses a virtual speaker's parameters and maps
them as `speaker.py` does. State: WORK/state/{tokenizer,campplus}.pt; models:
WORK/onnx/{speech_tokenizer_v2,campplus}.onnx.

    python frontend.py --work WORK --model tokenizer --minutes 15
    python frontend.py --work WORK --model campplus --minutes 6
"""

import argparse
import os
import time
from collections.abc import Callable
from pathlib import Path

import features
import numpy as np
import onnx
import shards
import speaker
import torch
import torch.nn.functional as F
from language import Codebook
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from torch import nn

CHANNELS = 192
OPSET = 17
NUM_SHARDS = 3  # of those with audio


class Block(nn.Module):
    """Residual convolution over time, told the mean over all of it."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv1d(CHANNELS, CHANNELS, 5, padding=2)
        self.context = nn.Conv1d(CHANNELS, CHANNELS, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + F.relu(self.conv(x) + self.context(x.mean(2, keepdim=True)))


class Trunk(nn.Module):
    """[B, bins, T] at 100 Hz -> [B, outputs, T // 4] at 25 Hz."""

    def __init__(self, bins: int, outputs: int, num_blocks: int) -> None:
        super().__init__()
        self.down1 = nn.Conv1d(bins, CHANNELS, 5, stride=2, padding=2)
        self.down2 = nn.Conv1d(CHANNELS, CHANNELS, 4, stride=2, padding=1)
        self.blocks = nn.ModuleList(Block() for _ in range(num_blocks))
        self.out = nn.Conv1d(CHANNELS, outputs, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.relu(self.down2(F.relu(self.down1(x))))
        for block in self.blocks:
            x = block(x)
        return self.out(x)


def cached(
    work: Path, kind: str, name: str, compute: Callable[[torch.Tensor], torch.Tensor]
) -> list[NDArray[np.float16]]:
    """A feature at 100 Hz for each sentence of a shard with audio, [T, bins], T = 4 frames a code."""
    path = work / f"corpus/{name}.{kind}.npy"
    sentences = shards.load_audio(work, name)
    if not path.exists():
        parts = []
        for sentence in sentences:
            assert sentence.pcm is not None
            value = compute(features.to_16k(sentence.pcm.astype(np.float32) / 32767))[: 4 * len(sentence.codes)]
            parts.append(F.pad(value, (0, 0, 0, 4 * len(sentence.codes) - len(value))).numpy().astype(np.float16))
        temporary = path.with_suffix(f".{os.getpid()}.tmp")
        with temporary.open("wb") as file:
            np.save(file, np.concatenate(parts))
        temporary.rename(path)
    whole = np.load(path, mmap_mode="r")
    ends = np.cumsum([4 * len(s.codes) for s in sentences])
    return [whole[end - 4 * len(s.codes) : end] for end, s in zip(ends, sentences, strict=True)]


def whisper_frames(samples: torch.Tensor) -> torch.Tensor:
    return features.whisper_mel(samples).T


class Trainer:
    """Model, optimiser and file of one front-end model."""

    def __init__(self, work: Path, name: str, model: nn.Module) -> None:
        self.model, self.path = model, work / f"state/{name}.pt"
        self.optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.01)
        self.step = 0
        if self.path.exists():
            state = torch.load(self.path, weights_only=True)
            model.load_state_dict(state["model"])
            if state["optimizer"]:  # none after restart.py
                self.optimizer.load_state_dict(state["optimizer"])
            self.step = state["step"]

    def update(self, loss: torch.Tensor, rate: float) -> None:
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        self.step += 1

    def save(self) -> None:
        shards.save_state(
            self.path, {"model": self.model.state_dict(), "optimizer": self.optimizer.state_dict(), "step": self.step}
        )


def train_tokenizer(work: Path, minutes: float, rate: float) -> None:
    codebook = Codebook.load(work)
    targets = (codebook.points - codebook.points.mean(0)) / codebook.points.std()
    model = Trunk(128, 160, 5)
    trainer = Trainer(work, "tokenizer", model)
    rng = np.random.default_rng(trainer.step)
    names = shards.shard_names(work)[:NUM_SHARDS]
    mels = [mel for name in names for mel in cached(work, "whisper", name, whisper_frames)]
    spoken = [s.codes.astype(np.int64) for name in names for s in shards.load_audio(work, name)]
    held = cached(work, "whisper", shards.HELDOUT, whisper_frames)[:60]
    held_codes = [s.codes.astype(np.int64) for s in shards.load_audio(work, shards.HELDOUT)[:60]]
    half = targets.square().sum(1) / 2
    started, total = time.process_time(), 0.0
    while (progress := (time.process_time() - started) / (minutes * 60)) < 1:
        xs, ys = [], []
        for index in rng.integers(len(mels), size=16):
            length = min(len(spoken[index]), 50)
            start = int(rng.integers(0, len(spoken[index]) - length + 1))
            x = torch.from_numpy(mels[index][4 * start : 4 * (start + length)].astype(np.float32))
            x = torch.maximum(x, x.max() - float(rng.uniform(0.9, 2.0))) + 0.02 * torch.randn_like(x) * float(
                rng.random()
            )
            xs.append(F.pad(x, (0, 0, 0, 200 - len(x))))
            ys.append(F.pad(torch.from_numpy(spoken[index][start : start + length]), (0, 50 - length), value=-1))
        made = model(torch.stack(xs).transpose(1, 2)).transpose(1, 2)
        label = torch.stack(ys)
        made, label = made[label >= 0], label[label >= 0]
        logits = (made @ targets.T - half) * 0.3
        loss = (made - targets[label]).square().mean() + 0.05 * F.cross_entropy(logits, label)
        trainer.update(loss, rate * (1 - 0.95 * progress) * min(1, (trainer.step + 1) / 100))
        total += loss.item()
        if trainer.step % 100 == 0:
            with torch.no_grad():
                guesses = [model(torch.from_numpy(m.astype(np.float32)).T[None])[0].T for m in held]
                right = float(
                    np.mean(
                        [
                            float(((g @ targets.T - half).argmax(1) == torch.from_numpy(c)).float().mean())
                            for g, c in zip(guesses, held_codes, strict=True)
                        ]
                    )
                )
                error = float(
                    np.mean(
                        [
                            float((codebook.pieces[(g @ targets.T - half).argmax(1)] - codebook.pieces[c]).abs().mean())
                            for g, c in zip(guesses, held_codes, strict=True)
                        ]
                    )
                )
            print(
                f"step {trainer.step} loss {total / 100:.4f} held out: {right:.1%} exact, mel L1 {error:.3f}",
                flush=True,
            )
            total = 0.0
            trainer.save()
    trainer.save()
    write_tokenizer(model, targets, work / "onnx/speech_tokenizer_v2.onnx")


def train_campplus(work: Path, minutes: float, rate: float) -> None:
    model = Trunk(80, 2 * speaker.NUM_PARAMETERS, 3)
    trainer = Trainer(work, "campplus", model)
    rng = np.random.default_rng(trainer.step)
    names = shards.shard_names(work)[:NUM_SHARDS]
    banks = [bank for name in names for bank in cached(work, "fbank", name, features.kaldi_fbank)]
    wanted = [s.speaker for name in names for s in shards.load_audio(work, name)]
    held = cached(work, "fbank", shards.HELDOUT, features.kaldi_fbank)
    held_wanted = torch.stack(
        [torch.from_numpy(s.speaker) for s in shards.load_audio(work, shards.HELDOUT) if s.speaker is not None]
    )
    started, total = time.process_time(), 0.0
    while (progress := (time.process_time() - started) / (minutes * 60)) < 1:
        xs, ys = [], []
        while len(xs) < 16:
            index = int(rng.integers(len(banks)))
            length = int(rng.integers(150, 300))
            bank = banks[index]
            if len(bank) < 300:
                continue
            start = int(rng.integers(0, len(bank) - length + 1))
            x = torch.from_numpy(bank[start : start + length].astype(np.float32))
            x = torch.maximum(x, x.max() - float(rng.uniform(7, 16))) + 0.3 * torch.randn_like(x) * float(rng.random())
            x = x - x.mean(0)
            xs.append(x.repeat(2, 1)[:300])
            ys.append(torch.from_numpy(wanted[index]))
        made = read_parameters(model(torch.stack(xs).transpose(1, 2)))
        loss = F.smooth_l1_loss(made, torch.stack(ys), beta=0.1)
        trainer.update(loss, rate * (1 - 0.95 * progress) * min(1, (trainer.step + 1) / 100))
        total += loss.item()
        if trainer.step % 100 == 0:
            with torch.no_grad():
                guesses = torch.cat(
                    [read_parameters(model(torch.from_numpy(b.astype(np.float32)).T[None])) for b in held]
                )
            errors = " ".join(f"{e:.3f}" for e in (guesses - held_wanted).abs().mean(0))
            print(f"step {trainer.step} loss {total / 100:.4f} held-out error {errors}", flush=True)
            total = 0.0
            trainer.save()
    trainer.save()
    write_campplus(model, work / "onnx/campplus.onnx")


def read_parameters(out: torch.Tensor) -> torch.Tensor:
    """Values weighted over time. [B, 10, T] -> [B, 5]."""
    value, weight = out.chunk(2, 1)
    return (value * weight.softmax(2)).sum(2)


class Graph:
    """Collects ONNX nodes and half-precision constants."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []

    def constant(self, value: torch.Tensor | NDArray[np.generic], half: bool = True) -> str:
        array = value.detach().numpy() if isinstance(value, torch.Tensor) else value
        name = f"constant{len(self.constants)}"
        if half and array.dtype == np.float32:
            self.constants.append(numpy_helper.from_array(array.astype(np.float16), name))
            return self.add("Cast", name, to=TensorProto.FLOAT)
        self.constants.append(numpy_helper.from_array(array, name))
        return name

    def add(self, kind: str, *inputs: str, **attributes: object) -> str:
        name = f"value{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, list(inputs), [name], **attributes))
        return name

    def conv(self, x: str, conv: nn.Conv1d) -> str:
        weight, bias = self.constant(conv.weight), self.constant(conv.bias)  # type: ignore[arg-type]
        pad = int(conv.padding[0])
        return self.add(
            "Conv", x, weight, bias, strides=list(conv.stride), pads=[pad, pad], kernel_shape=list(conv.kernel_size)
        )

    def trunk(self, x: str, model: Trunk) -> str:
        x = self.add("Relu", self.conv(x, model.down1))
        x = self.add("Relu", self.conv(x, model.down2))
        for block in model.blocks:
            context = self.conv(self.add("ReduceMean", x, axes=[2], keepdims=1), block.context)
            x = self.add("Add", x, self.add("Relu", self.add("Add", self.conv(x, block.conv), context)))
        return self.conv(x, model.out)

    def save(self, path: Path, inputs: list[onnx.ValueInfoProto], result: str, kind: int, shape: list[object]) -> None:
        self.nodes.append(helper.make_node("Identity", [result], ["output"]))
        graph = helper.make_graph(
            self.nodes, path.stem, inputs, [helper.make_tensor_value_info("output", kind, shape)], self.constants
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=9)
        onnx.checker.check_model(model)
        path.parent.mkdir(exist_ok=True)
        onnx.save(model, path)


def write_tokenizer(model: Trunk, targets: torch.Tensor, path: Path) -> None:
    """feats [1, 128, T], feats_length [1] -> indices [1, min(T, feats_length) // 4]."""
    graph = Graph()
    length = graph.add("Cast", "feats_length", to=TensorProto.INT64)
    zero, two = graph.constant(np.array([0])), graph.constant(np.array([2]))
    x = graph.add("Slice", "feats", zero, length, two)
    made = graph.add("Transpose", graph.trunk(x, model), perm=[0, 2, 1])
    rounded = targets.half().float()
    scores = graph.add("MatMul", made, graph.constant(rounded.T.contiguous()))
    scores = graph.add("Sub", scores, graph.constant(rounded.square().sum(1) / 2, half=False))
    indices = graph.add("Cast", graph.add("ArgMax", scores, axis=2, keepdims=0), to=TensorProto.INT32)
    inputs = [
        helper.make_tensor_value_info("feats", TensorProto.FLOAT, [1, 128, "T"]),
        helper.make_tensor_value_info("feats_length", TensorProto.INT32, [1]),
    ]
    graph.save(path, inputs, indices, TensorProto.INT32, [1, "N"])


def write_campplus(model: Trunk, path: Path) -> None:
    """fbank [1, T, 80] -> [1, 192]."""
    graph = Graph()
    out = graph.trunk(graph.add("Transpose", "input", perm=[0, 2, 1]), model)
    split = graph.constant(np.array([speaker.NUM_PARAMETERS] * 2))
    graph.nodes.append(helper.make_node("Split", [out, split], ["value", "weight"], axis=1))
    axes = graph.constant(np.array([2]))
    parameters = graph.add(
        "ReduceSum", graph.add("Mul", "value", graph.add("Softmax", "weight", axis=2)), axes, keepdims=0
    )
    angle = graph.add("MatMul", parameters, graph.constant(speaker.FREQUENCIES, half=False))
    result = graph.add("Concat", graph.add("Cos", angle), graph.add("Sin", angle), axis=1)
    inputs = [helper.make_tensor_value_info("input", TensorProto.FLOAT, [1, "T", 80])]
    graph.save(path, inputs, result, TensorProto.FLOAT, [1, speaker.DIMENSION])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--model", choices=["tokenizer", "campplus"], required=True)
    parser.add_argument("--minutes", type=float, required=True, help="of CPU time")
    parser.add_argument("--rate", type=float, default=1e-3)
    args = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    train = train_tokenizer if args.model == "tokenizer" else train_campplus
    train(args.work, args.minutes, args.rate)


if __name__ == "__main__":
    main()
