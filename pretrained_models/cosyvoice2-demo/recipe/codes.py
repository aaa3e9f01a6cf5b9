"""The speech codes: 6561 points that say what the normalised voice does in 40 ms, learnt together with a decoder.

A code stands for a point of 160 numbers: the piece's two mel frames (whitened) plus what a small network adds from
some 0.4 s on either side. The points start as k-means centroids of the bare pieces; then the network, the points (by
running averages) and the decoder, which is the flow's own encoder and sees three codes ahead, are trained to give the
normalised voice's mel and, at its last layer, the phoneme being spoken. In silence nothing is added, so silence has one
code. Reads the corpus (`corpus.py`); writes WORK/kmeans.npy, WORK/state/codes.pt, WORK/state/flow.pt (its encoder
only), and with the last stage WORK/codebook.npz and WORK/corpus/NAME.codes.npy.

    python codes.py --work WORK --stage kmeans
    python codes.py --work WORK --stage learn --minutes 25
    python codes.py --work WORK --stage label
"""

import argparse
import math
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dims
import flow as flow_recipe
import numpy as np
import shards
import torch
import torch.nn.functional as F
from torch import nn

PIECE = 160  # two mel frames of 80 bins
FLOOR = -9.0  # log mel values below it are noise or digital silence and would waste codes
CHANNELS = 192
NUM_ROUNDS, KMEANS_HOURS = 10, 1.0
NUM_SYMBOLS = 200  # more than the teacher has
BATCH, TOKENS = 4, 160
POOL_SHARDS = 10
DECAY = 0.98  # of the points' running averages, a use
UNUSED_STEPS, MOVING_SHARE = 300, 0.6  # a point unused for so long moves, in this share of the training
COMMIT, PHONES = 0.25, 0.1  # weights of these losses
STEADY_SHARE, END_RATE = 0.3, 0.05


def pieces(mel: torch.Tensor) -> torch.Tensor:
    """Log mel [..., 2N, 80] -> its 40 ms pieces [..., N, 160], without what lies below the floor."""
    return mel.clamp(min=FLOOR).unflatten(-2, (-1, 2)).flatten(-2)


def nearest(points: torch.Tensor, codebook: torch.Tensor) -> torch.Tensor:
    """Index of each point's nearest code. [..., D], [K, D] -> [...]."""
    bias = codebook.square().sum(1)
    flat = points.flatten(0, -2)
    found = torch.cat([torch.addmm(bias, part, codebook.T, alpha=-2).argmin(1) for part in flat.split(4096)])
    return found.view(points.shape[:-1])


class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(1, CHANNELS)
        self.wide = nn.Conv1d(CHANNELS, CHANNELS, 5, padding=2)
        self.mix = nn.Conv1d(CHANNELS, CHANNELS, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.mix(F.gelu(self.wide(self.norm(x))))


class Surroundings(nn.Module):
    """Log mel [B, 2N, 80] -> what is added to each piece [B, N, 160]; nothing before training."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv1d(80, CHANNELS, 5, padding=2)
        self.frames = nn.Sequential(Residual(), Residual())
        self.halve = nn.Conv1d(CHANNELS, CHANNELS, 4, stride=2, padding=1)
        self.pieces = nn.Sequential(Residual(), Residual(), Residual())
        self.last = nn.Conv1d(CHANNELS, PIECE, 1)
        nn.init.zeros_(self.last.weight)
        nn.init.zeros_(self.last.bias)

    def forward(self, mel: torch.Tensor) -> torch.Tensor:
        x = self.frames(self.first((mel.clamp(min=FLOOR).transpose(1, 2) + 5) / 3))
        return self.last(self.pieces(self.halve(x))).transpose(1, 2)


class Codes(nn.Module):
    """The points and the network before them."""

    centre: torch.Tensor
    scale: torch.Tensor
    points: torch.Tensor
    unused: torch.Tensor

    def __init__(self, centroids: torch.Tensor) -> None:
        super().__init__()
        self.register_buffer("centre", centroids.mean(0))
        self.register_buffer("scale", centroids.std(0))
        self.register_buffer("points", (centroids - self.centre) / self.scale)
        self.register_buffer("unused", torch.zeros(dims.NUM_CODES))
        self.surroundings = Surroundings()

    def place(self, mel: torch.Tensor) -> torch.Tensor:
        """Log mel [B, 2N, 80] -> points [B, N, 160]."""
        piece = pieces(mel)
        return (piece - self.centre) / self.scale + self._loudness(piece) * self.surroundings(mel)

    @staticmethod
    def _loudness(piece: torch.Tensor) -> torch.Tensor:
        return ((piece.mean(-1, keepdim=True) + 8.8) / 0.8).clamp(0, 1)

    @torch.no_grad()
    def follow(self, mel: torch.Tensor, points: torch.Tensor, codes: torch.Tensor, moving: bool) -> None:
        """Move the used codes towards their points, and long unused ones to places where there is speech."""
        flat, index = points.flatten(0, 1), codes.flatten()
        uses = torch.bincount(index, minlength=dims.NUM_CODES).float()
        used = uses > 0
        mean = torch.zeros_like(self.points).index_add_(0, index, flat)[used] / uses[used, None]
        keep = DECAY ** uses[used]
        self.points[used] = keep[:, None] * self.points[used] + (1 - keep)[:, None] * mean
        self.unused += 1
        self.unused[used] = 0
        lost = (self.unused > UNUSED_STEPS).nonzero()[:, 0]
        loud = (self._loudness(pieces(mel)) > 0.9).flatten().nonzero()[:, 0]
        if moving and len(lost) and len(loud):
            self.points[lost] = flat[loud[torch.randint(len(loud), (len(lost),))]]
            self.unused[lost] = 0


def load_codes(work: Path) -> Codes:
    """As learnt so far."""
    codes = Codes(torch.from_numpy(np.load(work / "kmeans.npy")))
    path = work / "state/codes.pt"
    if path.exists():
        codes.load_state_dict(torch.load(path, weights_only=True)["codes"])
    return codes


def decode(flow: Any, embedded: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """`flow.encode` on embedded codes [B, N, 512]: the mel [B, 2N, 80] and the state before it [B, 2N, 512]."""
    encoder = flow.encoder
    x = encoder.pre_lookahead_layer(encoder.embed.out(embedded) * math.sqrt(512))
    x, _ = encoder.up_layer(x.transpose(1, 2), torch.zeros(1))
    state = encoder.after_norm(encoder.up_embed.out(x.transpose(1, 2)) * math.sqrt(512))
    return flow.encoder_proj(state), state


def kmeans(work: Path) -> None:
    """Centroids of an hour's pieces."""
    collected: list[torch.Tensor] = []
    for name in shards.shard_names(work):
        collected += [pieces(torch.from_numpy(s.mel.astype(np.float32))) for s in shards.load_normal(work, name)]
        if sum(len(part) for part in collected) > KMEANS_HOURS * 90000:
            break
    points = torch.cat(collected)
    codebook = points[torch.randperm(len(points))[: dims.NUM_CODES]].clone()
    for number in range(NUM_ROUNDS):
        assigned = nearest(points, codebook)
        counts = torch.bincount(assigned, minlength=dims.NUM_CODES)
        sums = torch.zeros_like(codebook).index_add_(0, assigned, points)
        fresh = points[torch.randint(len(points), (dims.NUM_CODES,))]
        codebook = torch.where(counts[:, None] > 0, sums / counts.clamp(min=1)[:, None], fresh)
        error = (points - codebook[assigned]).abs().mean()
        print(f"round {number}: L1 {error:.4f}, {int((counts == 0).sum())} empty", flush=True)
    np.save(work / "kmeans.npy", codebook.numpy())


class Learning:
    """Codes, decoder, phoneme classifier and their file."""

    def __init__(self, work: Path) -> None:
        self._path, self._work = work / "state/codes.pt", work
        self.codes = load_codes(work)
        self.flow = dims.build_flow().eval()
        flow_recipe.initialise(self.flow, self.codes.points)
        flow_path = work / "state/flow.pt"
        if flow_path.exists():
            self.flow.load_state_dict(torch.load(flow_path, weights_only=True)["average"])
        # The embedding is a linear map of the point while points move; it becomes a table at the end.
        self.embed = nn.Linear(PIECE, 512)
        known = torch.cat([self.codes.points, torch.ones(dims.NUM_CODES, 1)], 1)
        solution = torch.linalg.lstsq(known, self.flow.input_embedding.weight.detach()).solution
        self.embed.weight.data, self.embed.bias.data = solution[:PIECE].T.contiguous(), solution[PIECE]
        self.phones = nn.Linear(512, NUM_SYMBOLS)
        self.step = 0
        if self._path.exists():
            state = torch.load(self._path, weights_only=True)
            self.step = state["step"]
            for name, part in self._decoder_parts().items():
                if name in state:  # not after restart.py
                    part.load_state_dict(state[name])

    def _decoder_parts(self) -> dict[str, nn.Module]:
        return {"flow": self.flow, "embed": self.embed, "phones": self.phones}

    def parameters(self) -> list[nn.Parameter]:
        fixed = ("decoder.", "spk_embed_affine_layer.", "input_embedding.", "encoder.up_encoders.")
        decoder = [p for n, p in self.flow.named_parameters() if not n.startswith(fixed)]
        return [*self.codes.parameters(), *self.embed.parameters(), *self.phones.parameters(), *decoder]

    def losses(
        self, mel: torch.Tensor, phones: torch.Tensor, moving: bool
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Of the mel, the phonemes, and the distance to the codes. mel [B, 2N, 80], phones [B, 2N]."""
        points = self.codes.place(mel)
        with torch.no_grad():
            found = nearest(points, self.codes.points)
        self.codes.follow(mel, points.detach(), found, moving)
        chosen = self.codes.points[found]
        made, state = decode(self.flow, self.embed(points + (chosen - points).detach()))
        error = (made - mel) * flow_recipe.audibility(mel)
        mel_loss = error.abs().mean() + 0.1 * error.square().mean()
        phone_loss = F.cross_entropy(self.phones(state).flatten(0, 1), phones.flatten())
        return mel_loss, phone_loss, (points - chosen).square().mean()

    @torch.no_grad()
    def report(self, mel: torch.Tensor, phones: torch.Tensor) -> str:
        """On held-out frames."""
        found = nearest(self.codes.place(mel[None]), self.codes.points)
        made, state = decode(self.flow, self.embed(self.codes.points[found]))
        shares = torch.bincount(found.flatten(), minlength=dims.NUM_CODES) / found.numel()
        entropy = -(shares * shares.clamp(min=1e-9).log()).sum()
        right = (self.phones(state)[0].argmax(1) == phones).float().mean()
        return f"L1 {(made[0] - mel).abs().mean():.4f}, phonemes {right:.1%}, entropy {entropy:.2f}"

    def save(self) -> None:
        parts = {"codes": self.codes, **self._decoder_parts()}
        shards.save_state(self._path, {**{name: part.state_dict() for name, part in parts.items()}, "step": self.step})

    @torch.no_grad()
    def finish(self) -> None:
        """The decoder becomes the flow's encoder; what was labelled with other codes goes."""
        self.flow.input_embedding.weight.copy_(self.embed(self.codes.points))
        flow_recipe.replace_encoder(self._work, self.flow)
        for path in [self._work / "codebook.npz", *(self._work / "corpus").glob("*.codes.npy")]:
            path.unlink(missing_ok=True)


def batches(work: Path, seed: int) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Random cuts of the normalised voice: mel [B, 2N, 80] and phonemes [B, 2N]."""
    rng = np.random.default_rng(seed)
    rows = [shards.load_normal(work, name) for name in shards.shard_names(work)[:POOL_SHARDS]]
    mel = np.concatenate([s.mel for row in rows for s in row])
    phones = np.concatenate([s.phones for row in rows for s in row])
    while True:
        cuts = [slice(2 * s, 2 * (s + TOKENS)) for s in rng.integers(len(phones) // 2 - TOKENS, size=BATCH)]
        yield (
            torch.from_numpy(np.stack([mel[cut] for cut in cuts]).astype(np.float32)),
            torch.from_numpy(np.stack([phones[cut] for cut in cuts]).astype(np.int64)),
        )


def learn(work: Path, minutes: float, rate: float) -> None:
    learning = Learning(work)
    parameters = learning.parameters()
    optimizer = torch.optim.AdamW(parameters, lr=rate, betas=(0.9, 0.98), weight_decay=0.0)
    sentences = shards.load_normal(work, shards.HELDOUT)
    held = torch.from_numpy(np.concatenate([s.mel for s in sentences]).astype(np.float32))[:12000]
    held_phones = torch.from_numpy(np.concatenate([s.phones for s in sentences]).astype(np.int64))[:12000]
    print(f"from step {learning.step}: {learning.report(held, held_phones)}", flush=True)
    started, sums = time.process_time(), torch.zeros(3)
    for number, (mel, phones) in enumerate(batches(work, seed=learning.step)):
        progress = (time.process_time() - started) / (minutes * 60)
        if progress >= 1:
            break
        slow = END_RATE ** max(0.0, (progress - STEADY_SHARE) / (1 - STEADY_SHARE))
        for group in optimizer.param_groups:
            group["lr"] = rate * slow * min(1, (number + 1) / 100)
        losses = learning.losses(mel, phones, moving=progress < MOVING_SHARE)
        optimizer.zero_grad()
        (losses[0] + PHONES * losses[1] + COMMIT * losses[2]).backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        learning.step += 1
        sums += torch.stack([loss.detach() for loss in losses])
        if learning.step % 100 == 0:
            mel_loss, phone_loss, distance = (sums / 100).tolist()
            print(
                f"step {learning.step} cpu {time.process_time() - started:.0f} s mel {mel_loss:.4f} phonemes "
                f"{phone_loss:.3f} distance {distance:.3f}; held out {learning.report(held, held_phones)}",
                flush=True,
            )
            sums.zero_()
            learning.save()
    learning.save()
    learning.finish()


@torch.inference_mode()
def label(work: Path) -> None:
    """Write the codes of every shard that has none, and once what the codes stand for."""
    codes = load_codes(work)
    sums, uses = torch.zeros(dims.NUM_CODES, PIECE), torch.zeros(dims.NUM_CODES)
    book = work / "codebook.npz"
    names = shards.shard_names(work)
    for name in [*names[:POOL_SHARDS], shards.HELDOUT, *names[POOL_SHARDS:]]:
        if not shards.codes_path(work, name).exists():
            _label_shard(work, name, codes)
        if not book.exists():
            found = torch.from_numpy(np.load(shards.codes_path(work, name)).astype(np.int64))
            mel = np.concatenate([s.mel for s in shards.load_normal(work, name)]).astype(np.float32)
            sums.index_add_(0, found, pieces(torch.from_numpy(mel)))
            uses += torch.bincount(found, minlength=dims.NUM_CODES)
            if name == names[:POOL_SHARDS][-1]:
                bare = codes.points * codes.scale + codes.centre
                means = torch.where(uses[:, None] > 0, sums / uses.clamp(min=1)[:, None], bare)
                np.savez(book, points=codes.points.numpy(), pieces=means.numpy())
                print(f"{int((uses == 0).sum())} codes unused", flush=True)


def _label_shard(work: Path, name: str, codes: Codes) -> None:
    path = shards.codes_path(work, name)
    found = [
        nearest(codes.place(torch.from_numpy(s.mel.astype(np.float32))[None])[0], codes.points)
        for s in shards.load_normal(work, name)
    ]
    temporary = path.with_suffix(f".{os.getpid()}.tmp")
    with temporary.open("wb") as file:
        np.save(file, torch.cat(found).numpy().astype(np.int16))
    temporary.rename(path)
    print(f"{name}: {sum(map(len, found))} codes", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--stage", choices=["kmeans", "learn", "label"], required=True)
    parser.add_argument("--minutes", type=float, default=25, help="of CPU time, for `learn`")
    parser.add_argument("--rate", type=float, default=7e-4)
    args = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(11)
    if args.stage == "kmeans":
        kmeans(args.work)
    elif args.stage == "learn":
        learn(args.work, args.minutes, args.rate)
    else:
        label(args.work)


if __name__ == "__main__":
    main()
