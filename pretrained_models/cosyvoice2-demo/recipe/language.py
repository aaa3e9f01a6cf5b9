"""Train the language model: text tokens in, speech codes out, with attention guided by the teacher's durations.

Upstream's sequence: sos, text, task, codes, eos. An item is one to three sentences in a row, which is what a zero-
shot prompt looks like to the model; one in twenty starts with an unspoken instruction and <|endofprompt|>; one in eight
is laid out for text that arrives while it is spoken: 5 text tokens, then 15 codes, and so on. Input codes are disturbed
so that the model learns to recover from its own choices. Code embeddings and the output layer are a shared function of
what they stand for plus a correction for each code, so that rare codes learn from their neighbours. State:
WORK/state/language.pt, with a running average of the weights, which is what gets exported.

    python language.py --work WORK --minutes 60 --rate 1.5e-3 --final-rate 1.5e-3
"""

import argparse
import time
from dataclasses import dataclass
from pathlib import Path

import dims
import numpy as np
import shards
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from tokenizers import Tokenizer
from torch import nn

HIDDEN, HEADS, KV_HEADS = dims.LM["hidden_size"], dims.LM["num_attention_heads"], dims.LM["num_key_value_heads"]
HEAD_DIM = HIDDEN // HEADS
EOS = dims.NUM_CODES
FILL = dims.NUM_CODES + 2
TEXT_BLOCK, SPEECH_BLOCK = 5, 15
INTERLEAVED = 0.12
NUM_OUTPUTS = dims.NUM_CODES + 3
END_OF_PROMPT = 1603
GUIDED_LAYER, GUIDED_HEADS = 1, 2
GUIDE_WEIGHT = 0.3
NEIGHBOURS, SOFT_SHARE = 8, 0.3
DISTURBED, RANDOM = 0.15, 0.02
BATCH_POSITIONS = 2200
AVERAGE = 0.998


def rotate(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """Rotary positions, halves paired as in Qwen2. x [B, H, T, D], cos and sin [T, D]."""
    left, right = x.chunk(2, -1)
    return x * cos + torch.cat([-right, left], -1) * sin


class Norm(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(HIDDEN))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.rms_norm(x, (HIDDEN,), self.weight, 1e-6)


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.q_proj = nn.Linear(HIDDEN, HIDDEN)
        self.k_proj = nn.Linear(HIDDEN, KV_HEADS * HEAD_DIM)
        self.v_proj = nn.Linear(HIDDEN, KV_HEADS * HEAD_DIM)
        self.o_proj = nn.Linear(HIDDEN, HIDDEN, bias=False)

    def forward(
        self, x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """[B, T, C] -> output [B, T, C], and queries and keys [B, H, T, D]."""
        B, T, _ = x.shape
        q = rotate(self.q_proj(x).view(B, T, HEADS, HEAD_DIM).transpose(1, 2), cos, sin)
        k = rotate(self.k_proj(x).view(B, T, KV_HEADS, HEAD_DIM).transpose(1, 2), cos, sin)
        v = self.v_proj(x).view(B, T, KV_HEADS, HEAD_DIM).transpose(1, 2)
        k, v = (y.repeat_interleave(HEADS // KV_HEADS, 1) for y in (k, v))
        out = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        return self.o_proj(out.transpose(1, 2).reshape(B, T, HIDDEN)), q, k


class Mlp(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        inner = dims.LM["intermediate_size"]
        self.gate_proj = nn.Linear(HIDDEN, inner, bias=False)
        self.up_proj = nn.Linear(HIDDEN, inner, bias=False)
        self.down_proj = nn.Linear(inner, HIDDEN, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))


class Layer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.self_attn, self.mlp = Attention(), Mlp()
        self.input_layernorm, self.post_attention_layernorm = Norm(), Norm()

    def forward(
        self, x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        out, q, k = self.self_attn(self.input_layernorm(x), cos, sin)
        x = x + out
        return x + self.mlp(self.post_attention_layernorm(x)), q, k


@dataclass(frozen=True)
class Codebook:
    """What `codes.py` learnt of each code: its point [6561, 160] and the mean of the mels it stands for [6561, 160]."""

    points: torch.Tensor
    pieces: torch.Tensor

    @classmethod
    def load(cls, work: Path) -> "Codebook":
        with np.load(work / "codebook.npz") as file:
            return cls(torch.from_numpy(file["points"]), torch.from_numpy(file["pieces"]))


def whiten(values: torch.Tensor) -> torch.Tensor:
    """Principal components of unit variance, clipped. [K, D] -> [K, D]."""
    centred = values - values.mean(0)
    basis, scale, _ = torch.linalg.svd(centred.T @ centred / len(centred))
    return (centred @ basis / (scale.sqrt() + 0.05)).clamp(-4, 4)


def code_features(codebook: Codebook) -> torch.Tensor:
    """What code embeddings share: whitened mels and points, random waves over the first. [6561, 416]."""
    white = whiten(codebook.pieces)
    generator = torch.Generator().manual_seed(5)
    waves = torch.randn(40, 96, generator=generator) * 0.35
    phases = torch.rand(96, generator=generator) * 2 * torch.pi
    return torch.cat([white, torch.cos(white[:, :40] @ waves + phases) * 1.4, whiten(codebook.points)], 1) / 8


def token_features(bpe: Tokenizer) -> torch.Tensor:
    """What text embeddings share: which characters they hold, and where. [text vocabulary, 6 * characters]."""
    pieces = {number: piece for piece, number in bpe.get_vocab().items()}
    alphabet = {c: number for number, c in enumerate(sorted({c for piece in pieces.values() for c in piece}))}
    table = torch.zeros(dims.TEXT_VOCABULARY, 6, len(alphabet))
    for number, piece in pieces.items():
        for place, c in enumerate(piece):
            table[number, 0, alphabet[c]] = 1
            table[number, place + 1, alphabet[c]] = 1
    return table.flatten(1)


class LanguageModel(nn.Module):
    """Upstream's Qwen2LM in training form; `export_state` gives its tensors."""

    def __init__(self, codebook: Codebook, bpe: Tokenizer) -> None:
        super().__init__()
        self.register_buffer("token_features", token_features(bpe), persistent=False)
        self.text_map = nn.Parameter(torch.randn(self.token_features.shape[1], HIDDEN) * 0.03)
        self.text_rows = nn.Parameter(torch.randn(dims.TEXT_VOCABULARY, HIDDEN) * 0.01)
        self.layers = nn.ModuleList(Layer() for _ in range(dims.LM["num_hidden_layers"]))
        self.norm = Norm()
        self.llm_embedding = nn.Embedding(2, HIDDEN)
        self.register_buffer("features", code_features(codebook), persistent=False)
        self.in_map, self.out_map = (nn.Parameter(torch.randn(self.features.shape[1], HIDDEN) * 0.04) for _ in range(2))
        self.in_rows, self.out_rows = (nn.Parameter(torch.zeros(NUM_OUTPUTS, HIDDEN)) for _ in range(2))
        self.out_bias = nn.Parameter(torch.zeros(NUM_OUTPUTS))
        nn.init.normal_(self.llm_embedding.weight, std=0.1)
        for name, parameter in self.layers.named_parameters():
            if parameter.dim() == 2:
                nn.init.normal_(parameter, std=0.03)
            elif name.endswith("bias"):
                nn.init.zeros_(parameter)
        for layer in self.layers:
            nn.init.normal_(layer.self_attn.o_proj.weight, std=0.006)
            nn.init.normal_(layer.mlp.down_proj.weight, std=0.006)

    def tables(self) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """The text embedding [text vocabulary, C], speech_embedding [6564, C] and llm_decoder [6564, C]."""
        text = self.token_features @ self.text_map + self.text_rows
        pad = (0, 0, 0, 3)
        spoken = F.pad(self.features @ self.in_map, pad) + self.in_rows
        return text, spoken, F.pad(self.features @ self.out_map, pad) + self.out_rows

    def hidden(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Embedded sequence [B, T, C] -> normed states [B, T, C], queries and keys of the guided layer."""
        T = x.shape[1]
        frequency = dims.LM["rope_theta"] ** (-torch.arange(0, HEAD_DIM, 2) / HEAD_DIM)
        angle = torch.arange(T)[:, None] * frequency
        cos, sin = torch.cat([angle, angle], -1).cos(), torch.cat([angle, angle], -1).sin()
        guided: tuple[torch.Tensor, ...] = ()
        for number, layer in enumerate(self.layers):
            x, q, k = layer(x, cos, sin)
            if number == GUIDED_LAYER:
                guided = q[:, :GUIDED_HEADS], k[:, :GUIDED_HEADS]
        return self.norm(x), *guided

    def export_state(self) -> dict[str, torch.Tensor]:
        """The tensors under upstream's names."""
        state = {
            f"llm.model.model.{name}": value
            for name, value in self.state_dict().items()
            if name.startswith(("layers.", "norm."))
        }
        text, speech_embedding, decoder = self.tables()
        return {
            **state,
            "llm.model.model.embed_tokens.weight": text,
            "llm.model.lm_head.weight": text,
            "llm_embedding.weight": self.llm_embedding.weight,
            "speech_embedding.weight": speech_embedding,
            "llm_decoder.weight": decoder,
            "llm_decoder.bias": self.out_bias,
        }


class Items:
    """Sequences of one to three sentences, in batches of about equal length."""

    def __init__(self, work: Path, seed: int) -> None:
        self._work, self._known = work, set[str]()
        self._sentences: list[shards.Sentence] = []
        self._rng = np.random.default_rng(seed)
        self._batches: list[list[tuple[NDArray[np.int64], ...]]] = []

    def _item(self) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
        rng = self._rng
        tokens, spoken, alignment = [], [], []
        offset = 0
        if rng.random() < 0.05:
            instruction = self._sentences[rng.integers(len(self._sentences))].tokens
            tokens.append(np.append(instruction, END_OF_PROMPT))
            offset = len(instruction) + 1
        count = rng.choice([1, 2, 3], p=[0.4, 0.5, 0.1])
        for number in range(count):
            s = self._sentences[rng.integers(len(self._sentences))]
            # The silence around a sentence varies where two meet.
            head = int(rng.integers(0, 4)) if number else 0
            tail = len(s.codes) - (int(rng.integers(0, 8)) if number < count - 1 else 0)
            tokens.append(s.tokens)
            spoken.append(s.codes[head:tail])
            alignment.append(s.alignment[head:tail] + offset)
            offset += len(s.tokens)
        return tuple(np.concatenate(x).astype(np.int64) for x in (tokens, spoken, alignment))  # type: ignore[return-value]

    def draw(self) -> list[tuple[NDArray[np.int64], ...]]:
        if not self._batches:
            for name in shards.shard_names(self._work):
                if name not in self._known and shards.codes_path(self._work, name).exists():
                    self._known.add(name)
                    self._sentences += shards.load_text(self._work, name)
            print(f"{len(self._sentences)} sentences", flush=True)
            items = sorted((self._item() for _ in range(1600)), key=lambda item: len(item[0]) + len(item[1]))
            while items:
                size = max(1, BATCH_POSITIONS // (len(items[-1][0]) + len(items[-1][1]) + 2))
                self._batches.append(items[-size:])
                del items[-size:]
            self._rng.shuffle(self._batches)  # type: ignore[arg-type]
        return self._batches.pop()


class Loss:
    """Cross-entropy with targets softened over neighbouring codes, plus the attention guide."""

    def __init__(self, codebook: Codebook, seed: int) -> None:
        distance = torch.cdist(codebook.points, codebook.points).square()
        near, self._near = distance.topk(NEIGHBOURS + 1, largest=False)
        self._weights = torch.softmax(-near / near[:, 1].median(), 1)
        self._generator = torch.Generator().manual_seed(seed)

    def _disturb(self, spoken: torch.Tensor) -> torch.Tensor:
        chance = torch.rand(spoken.shape, generator=self._generator)
        pick = torch.randint(1, NEIGHBOURS + 1, spoken.shape, generator=self._generator)
        other = torch.randint(dims.NUM_CODES, spoken.shape, generator=self._generator)
        spoken = torch.where(chance < DISTURBED, self._near[spoken, pick], spoken)
        return torch.where(chance > 1 - RANDOM, other, spoken)

    def __call__(
        self, model: LanguageModel, batch: list[tuple[NDArray[np.int64], ...]], training: bool
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Total loss, hard cross-entropy, and the mean attention on the right token."""
        text_table, embedding, decoder = model.tables()
        rows, targets, wanted = [], [], []
        for tokens_, spoken_, alignment_ in batch:
            tokens, spoken, alignment = (torch.from_numpy(x) for x in (tokens_, spoken_, alignment_))
            fed = self._disturb(spoken) if training else spoken
            start, task = model.llm_embedding.weight[:1], model.llm_embedding.weight[1:]
            text, speech = F.embedding(tokens, text_table), F.embedding(fed, embedding)
            blocks = 0
            if training and float(torch.rand((), generator=self._generator)) < INTERLEAVED:
                blocks = min(len(tokens) // TEXT_BLOCK, (len(spoken) - 1) // SPEECH_BLOCK)
            row, target, goal = [start], [-1], [-1]
            places = torch.arange(len(tokens)) + 1
            for block in range(blocks):
                here = slice(block * SPEECH_BLOCK, (block + 1) * SPEECH_BLOCK)
                row += [text[block * TEXT_BLOCK : (block + 1) * TEXT_BLOCK], speech[here]]
                target += [*([-1] * (TEXT_BLOCK - 1)), *spoken[here].tolist(), FILL]
                goal += [*([-1] * (TEXT_BLOCK - 1)), *alignment[here].tolist(), -1]
                places[(block + 1) * TEXT_BLOCK :] += SPEECH_BLOCK
            row += [text[blocks * TEXT_BLOCK :], task, speech[blocks * SPEECH_BLOCK :]]
            rest = len(tokens) - blocks * TEXT_BLOCK
            target += [*([-1] * rest), *spoken[blocks * SPEECH_BLOCK :].tolist(), EOS]
            goal += [*([-1] * rest), *alignment[blocks * SPEECH_BLOCK :].tolist(), len(tokens) - 1]
            rows.append(torch.cat(row))
            targets.append(torch.tensor(target))
            goals = torch.tensor(goal)
            goals = torch.where(goals < 0, -1, places[goals])
            # Where speech runs ahead of the text that has arrived there is nothing to look at.
            wanted.append(torch.where(goals > torch.arange(len(goals)), -1, goals))
        x = nn.utils.rnn.pad_sequence(rows, batch_first=True)
        target = nn.utils.rnn.pad_sequence(targets, batch_first=True, padding_value=-1)
        goal = nn.utils.rnn.pad_sequence(wanted, batch_first=True, padding_value=-1)
        states, q, k = model.hidden(x)
        here = target >= 0
        logs = F.log_softmax(F.linear(states[here], decoder, model.out_bias), -1)
        labels = target[here]
        hard = -logs.gather(1, labels[:, None]).mean()
        ordinary = labels < dims.NUM_CODES
        near, weights = self._near[labels[ordinary]], self._weights[labels[ordinary]]
        soft = -(logs[ordinary].gather(1, near) * weights).sum(1).mean()
        causal = torch.ones(x.shape[1], x.shape[1], dtype=torch.bool).triu(1)
        scores = (q @ k.transpose(-1, -2) * HEAD_DIM**-0.5).masked_fill(causal, -1e9).log_softmax(-1)
        seen = goal >= 0
        row, position = seen.nonzero(as_tuple=True)
        guide = scores[row, :, position, goal[seen]]
        total = (1 - SOFT_SHARE) * hard + SOFT_SHARE * soft - GUIDE_WEIGHT * guide.mean()
        return total, hard.detach(), guide.detach().exp().mean()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--minutes", type=float, required=True)
    parser.add_argument("--rate", type=float, default=1.5e-3)
    parser.add_argument("--final-rate", type=float, default=1.5e-3)
    args = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    codebook = Codebook.load(args.work)
    bpe = Tokenizer.from_file(str(args.work / "bpe.json"))
    model, average = LanguageModel(codebook, bpe), LanguageModel(codebook, bpe)
    rows = [p for n, p in model.named_parameters() if "rows" in n]
    decayed = [p for n, p in model.named_parameters() if p.dim() == 2 and "rows" not in n]
    others = [p for n, p in model.named_parameters() if p.dim() != 2]
    groups = [
        {"params": decayed, "weight_decay": 0.05, "share": 1.0},
        {"params": others, "weight_decay": 0.0, "share": 1.0},
        {"params": rows, "weight_decay": 0.0, "share": 0.3},
    ]
    optimizer = torch.optim.AdamW(groups, lr=args.rate, betas=(0.9, 0.98))
    path = args.work / "state/language.pt"
    step, cpu_s = 0, 0.0
    average.load_state_dict(model.state_dict())
    if path.exists():
        state = torch.load(path, weights_only=True)
        model.load_state_dict(state["model"])
        average.load_state_dict(state["average"])
        if state["optimizer"]:  # none after restart.py
            optimizer.load_state_dict(state["optimizer"])
        step, cpu_s = state["step"], state["cpu_s"]
    items, loss = Items(args.work, seed=step), Loss(codebook, seed=step)
    heldout = [
        tuple(x.astype(np.int64) for x in (s.tokens, s.codes, s.alignment))
        for s in shards.load_text(args.work, shards.HELDOUT)[:40]
    ]
    print(f"{sum(p.numel() for p in model.parameters()) / 1e6:.1f} M parameters, from step {step}", flush=True)

    def save() -> None:
        used_s = cpu_s + time.process_time() - first
        shards.save_state(
            path,
            {
                "model": model.state_dict(),
                "average": average.state_dict(),
                "optimizer": optimizer.state_dict(),
                "step": step,
                "cpu_s": used_s,
            },
        )

    started, first = time.monotonic(), time.process_time()
    sums, positions = torch.zeros(2), 0
    while (progress := (time.monotonic() - started) / (args.minutes * 60)) < 1:
        rate = args.rate + (args.final_rate - args.rate) * progress
        for group in optimizer.param_groups:
            group["lr"] = rate * group["share"] * min(1, (step + 1) / 100)
        batch = items.draw()
        total, hard, guide = loss(model, batch, training=True)
        optimizer.zero_grad()
        total.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        step += 1
        keep = min(AVERAGE, step / (step + 10))
        with torch.no_grad():
            torch._foreach_lerp_(list(average.parameters()), list(model.parameters()), 1 - keep)
        sums += torch.stack([hard, guide])
        positions += sum(len(spoken) for _, spoken, _ in batch)
        if step % 100 == 0:
            with torch.no_grad():
                _, held, held_guide = loss(average, heldout, training=False)
            used_s = cpu_s + time.process_time() - first
            ce, attention = (sums / 100).tolist()
            print(
                f"step {step} cpu {used_s:.0f} s, {positions / 90000:.1f} h, ce {ce:.3f} on token {attention:.2f}; "
                f"held out {held:.3f} {held_guide:.2f}",
                flush=True,
            )
            sums.zero_()
            save()
    save()


if __name__ == "__main__":
    main()
