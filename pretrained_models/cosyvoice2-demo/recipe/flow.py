"""Train the flow in two stages: the encoder to give the normalised voice's mel, then the estimator to give any
speaker's. A third stage writes the flow's own mels of training sentences, for the vocoder to learn from.

The encoder comes from `codes.py`, which trains it together with the codes; the first stage goes on with the codes as
they are and a free embedding of each. Its upsampled layers stay the identity (their output projections are zero), so
the mel it gives depends on a few neighbouring codes only. The estimator is a velocity field that
ends at one mel whatever the noise; it learns which, under the streaming mask. State: WORK/state/flow.pt (upstream's
CausalMaskedDiffWithXvec), with a running average of the
weights.

    python flow.py --work WORK --stage encoder --minutes 10
    python flow.py --work WORK --stage estimator --minutes 40 --rate 7e-4 --final-rate 1e-4
    python flow.py --work WORK --stage mels --minutes 8
"""

import argparse
import itertools
import math
import time
from pathlib import Path
from typing import Any

import dims
import numpy as np
import shards
import torch
import torch.nn.functional as F
from cosyvoice.flow.flow import CausalMaskedDiffWithXvec
from numpy.typing import NDArray
from speaker import NUM_PARAMETERS, embed_parameters

AVERAGE = 0.998
ESTIMATOR_NAMES = ("decoder.", "spk_embed_affine_layer.")
ENCODER_BATCH, ENCODER_TOKENS, ENCODER_SHARDS = 8, 250, 10
ESTIMATOR_FRAMES = 1600  # a batch's size
GAIN = 5.0  # of the velocity field, see initialise_estimator
PATH_RATE = 0.03  # learning rate of the path's parameters, as a share
SOLVER_STEPS, FIRST_TRAINED_STEP = 10, 6
NUM_UNDER_WAY = 16
DISTURBED, NEIGHBOURS = 0.1, 6
SPEAKER_NOISE = torch.tensor([0.12, 0.12, 0.3, 0.35, 0.35])  # about the errors of campplus.onnx


class _FastMish(torch.autograd.Function):
    """Mish whose backward pass is vectorised on CPUs; torch's own takes a quarter of the training time."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
        e = x.clamp(max=20).exp()
        n = e * (e + 2)
        gate = n / (n + 2)
        ctx.save_for_backward(gate + x * 4 * e * (e + 1) / (n + 2).square())
        return x * gate

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> torch.Tensor:
        return gradients[0] * ctx.saved_tensors[0]


class FastMish(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return _FastMish.apply(x)


def use_fast_mish(module: torch.nn.Module) -> None:
    """Replace every nn.Mish below `module`."""
    for name, child in module.named_children():
        if isinstance(child, torch.nn.Mish):
            setattr(module, name, FastMish())
        else:
            use_fast_mish(child)


def initialise(flow: CausalMaskedDiffWithXvec, codebook: torch.Tensor) -> None:
    """Embeddings from the codes' points; identity layers; speaker vector at a useful scale."""
    encoder = flow.encoder
    with torch.no_grad():
        white = (codebook - codebook.mean(0)) / codebook.std(0)
        frame = torch.linalg.qr(torch.randn(512, 160))[0]
        flow.input_embedding.weight.copy_(
            white @ frame.T * math.sqrt(512 / 160) + 0.02 * torch.randn(dims.NUM_CODES, 512)
        )
        for linear in (encoder.embed.out[0], encoder.up_embed.out[0]):
            linear.weight.copy_(torch.eye(512) + 0.01 * torch.randn(512, 512))
            linear.bias.normal_(0, 0.3)
        encoder.up_layer.conv.weight.mul_(0.3)
        encoder.up_layer.conv.weight[:, :, 4] += 0.5 * torch.eye(512)
        for layer in encoder.up_encoders:
            for linear in (layer.self_attn.linear_out, layer.feed_forward.w_2):
                linear.weight.zero_()
                linear.bias.zero_()
        flow.spk_embed_affine_layer.weight.mul_(8)


def initialise_estimator(estimator: torch.nn.Module) -> list[torch.nn.Parameter]:
    """Make the untrained estimator compute `gain * (mu - x)`; returns the parameters of that path.

    The first 80 channels carry mu - x through every residual convolution, eight more carry a constant that keeps the
    last layer norm nearly linear, and all other branches start at zero. Integrated from t = 0 to 1 such a velocity ends
    at mu whatever the noise was; training only has to move that end to the speaker's mel.
    """
    width, bins, constants, level = dims.ESTIMATOR["channels"][0], 80, 8, 12.0
    ((resnet, transformers, down),) = estimator.down_blocks
    ((last_resnet, last_transformers, up),) = estimator.up_blocks
    middle = list(estimator.mid_blocks)
    final_conv, _, final_norm = estimator.final_block.block[:3]
    with torch.no_grad():
        for block in (resnet, last_resnet, *[r for r, _ in middle]):
            block.block2.block[2].weight.zero_()
        for transformer in (*transformers, *last_transformers, *[t for _, ts in middle for t in ts]):
            for linear in (transformer.attn1.to_out[0], transformer.ff.net[-1]):
                linear.weight.zero_()
                linear.bias.zero_()
        straight = [down, *[r.res_conv for r, _ in middle], up, final_conv]
        for conv in (resnet.res_conv, last_resnet.res_conv, *straight):
            conv.weight.zero_()
            conv.bias.zero_()
        diagonal = torch.arange(width)
        for conv in straight:
            conv.weight[diagonal, diagonal, -1] = 1
        for half in (0, width):
            last_resnet.res_conv.weight[diagonal, diagonal + half, 0] = 0.5
        row = torch.arange(bins)
        resnet.res_conv.weight[row, row, 0] = -1
        resnet.res_conv.weight[row, row + bins, 0] = 1
        resnet.res_conv.bias[-constants:] = level * torch.tensor([1.0, -1.0]).repeat(constants // 2)
        final_norm.weight.fill_(0.5)
        final_norm.bias.fill_(1.5)
        mish_slope = float(F.mish(torch.tensor(1.75)) - F.mish(torch.tensor(1.25))) / 0.5
        scale = GAIN * level * math.sqrt(constants / width) / (0.5 * mish_slope)
        estimator.final_proj.weight.zero_()
        estimator.final_proj.bias.zero_()
        estimator.final_proj.weight[row, row, 0] = scale
        empty = width - bins - constants
        estimator.final_proj.weight[:, bins:-constants, 0] -= scale / empty
    path = (resnet.res_conv, last_resnet.res_conv, *straight, estimator.final_proj)
    return [parameter for module in path for parameter in module.parameters()]


def replace_encoder(work: Path, trained: CausalMaskedDiffWithXvec) -> None:
    """Put everything before the estimator into WORK/state/flow.pt, in the model and in its average."""
    path = work / "state/flow.pt"
    state: dict[str, Any] = {"steps": {"encoder": 0, "estimator": 0}, "cpu_s": {"encoder": 0.0, "estimator": 0.0}}
    if path.exists():
        state = torch.load(path, weights_only=True)
    before = {n: v for n, v in trained.state_dict().items() if not n.startswith(ESTIMATOR_NAMES)}
    for kind in ("model", "average"):
        state[kind] = trained.state_dict() | state.get(kind, {}) | before
    shards.save_state(path, state | {"stage": "codes", "optimizer": {}})


def encode(flow: CausalMaskedDiffWithXvec, codes: torch.Tensor) -> torch.Tensor:
    """Upstream's encoder with its identity layers left out. codes [B, N] -> mu [B, 2N, 80]."""
    encoder = flow.encoder
    x = encoder.embed.out(flow.input_embedding(codes)) * math.sqrt(512)
    x = encoder.pre_lookahead_layer(x)
    x, _ = encoder.up_layer(x.transpose(1, 2), torch.zeros(1))
    x = encoder.up_embed.out(x.transpose(1, 2)) * math.sqrt(512)
    return flow.encoder_proj(encoder.after_norm(x))


class Training:
    """The model, its average, the optimiser of one stage and their file."""

    def __init__(self, work: Path, stage: str, rate: float) -> None:
        self.path = work / "state/flow.pt"
        with np.load(work / "codebook.npz") as file:
            self.points = torch.from_numpy(file["points"])
        self.model, self.average = dims.build_flow().eval(), dims.build_flow().eval()
        use_fast_mish(self.model)
        path = {id(p) for p in initialise_estimator(self.model.decoder.estimator)}
        self.steps: dict[str, int] = {"encoder": 0, "estimator": 0}
        self.cpu_s: dict[str, float] = {"encoder": 0.0, "estimator": 0.0}
        self.stage = stage
        trained = self._trained(self.model)
        for parameter in self.model.parameters():
            parameter.requires_grad_(False)
        for parameter in trained:
            parameter.requires_grad_(True)
        groups = [
            {"params": [p for p in trained if id(p) not in path], "share": 1.0},
            {"params": [p for p in trained if id(p) in path], "share": PATH_RATE},
        ]
        self.optimizer = torch.optim.AdamW(
            [g for g in groups if g["params"]], lr=rate, betas=(0.9, 0.98), weight_decay=0.0
        )
        state = torch.load(self.path, weights_only=True)
        self.steps, self.cpu_s = state["steps"], state["cpu_s"]
        fresh = {n: v.clone() for n, v in self.model.state_dict().items() if n.startswith("decoder.")}
        started = fresh if stage == "estimator" and not self.steps["estimator"] else {}
        self.model.load_state_dict(state["model"] | started)
        self.average.load_state_dict(state["average"] | started)
        if state["stage"] == stage:
            self.optimizer.load_state_dict(state["optimizer"])
        self._began_cpu_s, self._first = self.cpu_s[stage], time.process_time()

    def _trained(self, flow: CausalMaskedDiffWithXvec) -> list[torch.nn.Parameter]:
        chosen = [p for n, p in flow.named_parameters() if n.startswith(ESTIMATOR_NAMES) == (self.stage == "estimator")]
        fixed = {id(p) for p in flow.encoder.up_encoders.parameters()}
        return [p for p in chosen if id(p) not in fixed]

    def update(self, loss: torch.Tensor, rate: float) -> int:
        """One optimiser step; returns the stage's step count."""
        step = self.steps[self.stage] = self.steps[self.stage] + 1
        for group in self.optimizer.param_groups:
            group["lr"] = rate * group["share"] * min(1, step / 100)
        self.optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_([p for p in self.model.parameters() if p.requires_grad], 1.0)
        self.optimizer.step()
        keep = min(AVERAGE, step / (step + 10))
        with torch.no_grad():
            torch._foreach_lerp_(self._trained(self.average), self._trained(self.model), 1 - keep)
        self.cpu_s[self.stage] = self._began_cpu_s + time.process_time() - self._first
        return step

    def save(self) -> None:
        state: dict[str, Any] = {
            "model": self.model.state_dict(),
            "average": self.average.state_dict(),
            "stage": self.stage,
            "optimizer": self.optimizer.state_dict(),
            "steps": self.steps,
            "cpu_s": self.cpu_s,
        }
        shards.save_state(self.path, state)


def audibility(mel: torch.Tensor) -> torch.Tensor:
    """How much errors of a log mel count: the teacher's noise in quiet bins cannot be foretold and is not heard."""
    return 0.35 + 0.85 * torch.sigmoid((mel + 8) * 1.5)


def neighbours(points: torch.Tensor) -> torch.Tensor:
    """Each code's nearest others. [6561, NEIGHBOURS]."""
    return torch.cdist(points, points).topk(NEIGHBOURS + 1, largest=False).indices[:, 1:]


def disturb(codes: torch.Tensor, near: torch.Tensor, share: float) -> torch.Tensor:
    """Replace a share of the codes by a neighbour."""
    picked = near[codes, torch.randint(NEIGHBOURS, codes.shape)]
    return torch.where(torch.rand(codes.shape) < share, picked, codes)


def train_encoder(training: Training, work: Path, minutes: float, rate: float, final_rate: float) -> None:
    """Regress the normalised voice's mel."""
    names = shards.shard_names(work)[:ENCODER_SHARDS]
    codes = torch.from_numpy(np.concatenate([np.load(shards.codes_path(work, n)) for n in names]).astype(np.int64))
    rows = [s.mel for name in names for s in shards.load_normal(work, name)]
    mel = torch.from_numpy(np.concatenate(rows))
    edge = len(codes) - 3000
    near = neighbours(training.points)
    print(f"{len(codes) / 90000:.1f} h", flush=True)
    started, total = time.monotonic(), 0.0
    while (progress := (time.monotonic() - started) / (minutes * 60)) < 1:
        starts = torch.randint(edge - ENCODER_TOKENS, (ENCODER_BATCH,))
        fed = torch.stack([codes[s : s + ENCODER_TOKENS] for s in starts])
        target = torch.stack([mel[2 * s : 2 * (s + ENCODER_TOKENS)] for s in starts]).float()
        made = encode(training.model, disturb(fed, near, DISTURBED))
        error = (made - target) * audibility(target)
        loss = error.abs().mean() + 0.1 * error.square().mean()
        step = training.update(loss, rate * (final_rate / rate) ** progress)
        total += loss.item()
        if step % 50 == 0:
            with torch.no_grad():
                held = (encode(training.average, codes[None, edge:])[0] - mel[2 * edge :]).abs().mean()
            cpu_s = training.cpu_s["encoder"]
            print(f"encoder step {step} cpu {cpu_s:.0f} s loss {total / 50:.4f} held-out L1 {held:.4f}", flush=True)
            total = 0.0
            training.save()
    training.save()


class Items:
    """Sequences with their mu: single sentences, and rows of sentences by one built-in or repeated speaker."""

    def __init__(self, training: Training, work: Path, seed: int) -> None:
        self._rng = np.random.default_rng(seed)
        self._near = neighbours(training.points)
        self._flow = training.average
        self._sentences = [s for name in shards.shard_names(work) for s in shards.load_audio(work, name)]
        self._by_speaker: dict[bytes, list[int]] = {}
        for index, sentence in enumerate(self._sentences):
            assert sentence.speaker is not None
            self._by_speaker.setdefault(sentence.speaker.tobytes(), []).append(index)
        self._batches: list[list[tuple[torch.Tensor, torch.Tensor, torch.Tensor]]] = []
        print(f"{len(self._sentences)} sentences, {len(self._by_speaker)} speakers", flush=True)

    def _item(self) -> tuple[NDArray[np.int64], torch.Tensor, torch.Tensor]:
        """codes [N], mel [2N, 80], speaker parameters [5]."""
        rng = self._rng
        first = self._sentences[rng.integers(len(self._sentences))]
        assert first.speaker is not None
        chosen = [first]
        others = self._by_speaker[first.speaker.tobytes()]
        if len(others) > 1:
            count = rng.choice([0, 1, 2, 3], p=[0.2, 0.45, 0.25, 0.1])
            chosen += [self._sentences[i] for i in rng.choice(others, size=min(count, len(others) - 1))]
        mel = torch.from_numpy(np.concatenate([np.asarray(s.mel) for s in chosen]).astype(np.float32))
        return np.concatenate([s.codes for s in chosen]).astype(np.int64), mel, torch.from_numpy(first.speaker)

    def draw(self) -> list[tuple[torch.Tensor, torch.Tensor, torch.Tensor]]:
        """A batch of (mu [T, 80], mel [T, 80], speaker [5])."""
        if not self._batches:
            items = sorted((self._item() for _ in range(192)), key=lambda item: len(item[0]))
            # One long row is encoded faster than many short ones; where two items meet, a few frames see the other.
            row = torch.from_numpy(np.concatenate([codes for codes, _, _ in items]))
            with torch.no_grad():
                mu = encode(self._flow, disturb(row, self._near, DISTURBED / 2)[None])[0]
            parts = mu.split([2 * len(codes) for codes, _, _ in items])
            ready = [(part, mel, parameters) for part, (_, mel, parameters) in zip(parts, items, strict=True)]
            while ready:
                size = max(1, ESTIMATOR_FRAMES // len(ready[-1][1]))
                self._batches.append(ready[-size:])
                del ready[-size:]
            self._rng.shuffle(self._batches)  # type: ignore[arg-type]
        return self._batches.pop()


def solver_times() -> torch.Tensor:
    """The moments of the ten steps that are taken when speaking, and their end. [11]."""
    return 1 - torch.cos(torch.linspace(0, 1, SOLVER_STEPS + 1) * 0.5 * torch.pi)


class Trajectory:
    """A batch on its way through the solver, with random prompts and the streaming mask.

    The field is trained where the solver really comes by, at the end of its way: what the first steps land on is
    forgotten (each step moves the state by GAIN * dt of the distance), and a field trained on states around mu drifts
    when it is applied to its own results (L1 0.36 after one step, 0.78 after ten).
    """

    def __init__(
        self, flow: CausalMaskedDiffWithXvec, batch: list[tuple[torch.Tensor, torch.Tensor, torch.Tensor]]
    ) -> None:
        lengths = torch.tensor([len(mel) for _, mel, _ in batch])
        self._mu, mel = (
            torch.nn.utils.rnn.pad_sequence([item[i] for item in batch], batch_first=True).transpose(1, 2)
            for i in (0, 1)
        )
        size, _, length = mel.shape
        position = torch.arange(length)
        self._mask = (position < lengths[:, None]).float()[:, None]
        prompt = (torch.rand(size) * 0.6 * lengths).long() * (torch.rand(size) < 0.85)
        prompt = torch.minimum(prompt, torch.tensor(250)) // 2 * 2
        gain = torch.where(prompt > 50, torch.empty(size).uniform_(math.log(0.6), math.log(1.3)), 0.0)[:, None, None]
        self._mel = (mel + gain).clamp(min=math.log(1e-5))
        in_prompt = (position < prompt[:, None])[:, None]
        parameters = torch.stack([p for _, _, p in batch]) + SPEAKER_NOISE * torch.randn(size, NUM_PARAMETERS)
        self._speaker = F.normalize(embed_parameters(parameters), dim=1)
        self._given = self._mel * in_prompt
        # Formants and low harmonics, which are loudest, make the words and the voice.
        heard = audibility(self._mel) + torch.sigmoid(self._mel + 2)
        self._weight = self._mask * torch.where(in_prompt, 0.2, 1.0) * heard
        self._times = solver_times()
        self._state, self._step = torch.randn_like(mel), 0
        with torch.no_grad():
            while self._step < FIRST_TRAINED_STEP:
                self._move(self._velocity(flow))

    @property
    def is_over(self) -> bool:
        return self._step == SOLVER_STEPS

    def loss(self, flow: CausalMaskedDiffWithXvec) -> torch.Tensor:
        """Weighted L1 between the mel and where the field points now; then takes the step."""
        velocity = self._velocity(flow)
        landed = self._state + velocity / GAIN
        self._move(velocity.detach())
        return ((landed - self._mel).abs() * self._weight).sum() / self._weight.sum()

    def _velocity(self, flow: CausalMaskedDiffWithXvec) -> torch.Tensor:
        time_ = self._times[self._step].expand(len(self._mu))
        speaker = flow.spk_embed_affine_layer(self._speaker)
        velocity: torch.Tensor = flow.decoder.estimator(
            self._state, self._mask, self._mu, time_, speaker, self._given, streaming=True
        )
        return velocity

    def _move(self, velocity: torch.Tensor) -> None:
        self._state = self._state + (self._times[self._step + 1] - self._times[self._step]) * velocity
        self._step += 1


def train_estimator(training: Training, work: Path, minutes: float, rate: float, final_rate: float) -> None:
    """Learn the field's end point on the averaged encoder's mu; several batches are under way in turn."""
    items = Items(training, work, seed=training.steps["estimator"])
    under_way: list[Trajectory] = []
    started, total, frames = time.monotonic(), 0.0, 0
    while (progress := (time.monotonic() - started) / (minutes * 60)) < 1:
        while len(under_way) < NUM_UNDER_WAY:
            batch = items.draw()
            frames += sum(len(mel) for _, mel, _ in batch)
            under_way.append(Trajectory(training.model, batch))
        index = int(torch.randint(NUM_UNDER_WAY, ()))
        loss = under_way[index].loss(training.model)
        if under_way[index].is_over:
            del under_way[index]
        step = training.update(loss, rate * (final_rate / rate) ** progress)
        total += loss.item()
        if step % 100 == 0:
            cpu_s = training.cpu_s["estimator"]
            print(
                f"estimator step {step} cpu {cpu_s:.0f} s, {frames / 180000:.1f} h, loss {total / 100:.4f}", flush=True
            )
            total = 0.0
            training.save()
    training.save()


@torch.inference_mode()
def rendered(flow: CausalMaskedDiffWithXvec, prompt: shards.Sentence, sentence: shards.Sentence) -> torch.Tensor:
    """The mel of a sentence by the prompt's speaker, as it is made when speaking. [2N, 80]."""
    assert prompt.mel is not None and prompt.speaker is not None
    codes = torch.from_numpy(np.concatenate([prompt.codes, sentence.codes]).astype(np.int64))
    mu = encode(flow, codes[None]).transpose(1, 2)
    given = torch.zeros_like(mu)
    given[0, :, : len(prompt.mel)] = torch.from_numpy(prompt.mel.astype(np.float32)).T
    parameters = torch.from_numpy(prompt.speaker)[None] + SPEAKER_NOISE * torch.randn(1, NUM_PARAMETERS)
    speaker = flow.spk_embed_affine_layer(F.normalize(embed_parameters(parameters), dim=1))
    x, mask = torch.randn_like(mu), torch.ones_like(mu[:, :1])
    times = solver_times()
    for start, end in itertools.pairwise(times):
        x = x + (end - start) * flow.decoder.estimator(x, mask, mu, start[None], speaker, given, streaming=True)
    return x[0, :, len(prompt.mel) :].T


def write_mels(flow: CausalMaskedDiffWithXvec, work: Path, minutes: float) -> None:
    """Mels of the sentences that have another one by the same speaker, shard by shard, until the time is over."""
    rng = np.random.default_rng(0)
    started = time.monotonic()
    audio = {name: sentences for name in shards.shard_names(work) if (sentences := shards.load_audio(work, name))}
    by_speaker: dict[bytes, list[shards.Sentence]] = {}
    for sentence in (s for sentences in audio.values() for s in sentences):
        assert sentence.speaker is not None
        by_speaker.setdefault(sentence.speaker.tobytes(), []).append(sentence)
    for number, (name, sentences) in enumerate(audio.items()):
        end_s = started + minutes * 60 * (number + 1) / len(audio)
        made: dict[int, NDArray[np.float16]] = {}
        for index, sentence in enumerate(sentences):
            assert sentence.speaker is not None
            others = [s for s in by_speaker[sentence.speaker.tobytes()] if s is not sentence and len(s.codes) > 40]
            if others and time.monotonic() < end_s:
                prompt = others[rng.integers(len(others))]
                made[index] = rendered(flow, prompt, sentence).numpy().astype(np.float16)
        shards.save_flow_mels(work, name, made)
        frames = sum(len(mel) for mel in made.values())
        near = np.mean([np.abs(mel - np.asarray(sentences[i].mel)).mean() for i, mel in made.items()])
        print(f"{name}: {len(made)} sentences, {frames / 180000:.2f} h, L1 {near:.3f}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--stage", choices=["encoder", "estimator", "mels"], required=True)
    parser.add_argument("--minutes", type=float, required=True)
    parser.add_argument("--rate", type=float, default=1e-3)
    parser.add_argument("--final-rate", type=float, default=1e-3)
    args = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    if args.stage == "mels":
        flow = dims.build_flow().eval()
        flow.load_state_dict(torch.load(args.work / "state/flow.pt", weights_only=True)["average"])
        write_mels(flow, args.work, args.minutes)
        return
    training = Training(args.work, args.stage, args.rate)
    torch.manual_seed(training.steps[args.stage])
    train = train_encoder if args.stage == "encoder" else train_estimator
    train(training, args.work, args.minutes, args.rate, args.final_rate)


if __name__ == "__main__":
    main()
