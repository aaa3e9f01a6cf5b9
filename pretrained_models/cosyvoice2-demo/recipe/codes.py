"""The speech codes: 6561 k-means centroids of 40 ms (two mel frames) of the normalised voice.

Writes WORK/codebook.npy, float32 [6561, 160].

    python codes.py --work WORK
"""

import argparse
import random
from pathlib import Path

import features
import numpy as np
import torch
from hibari import Hibari
from numpy.typing import NDArray
from teacher import NORMAL, Teacher, render

NUM_CODES = 6561
SAMPLES_PER_CODE = 2 * features.HOP
FLOOR = -9.0  # log mel values below it are noise or digital silence and would waste codes
NUM_ROUNDS = 10
HOURS = 1.0


def patches(samples: NDArray[np.float32]) -> torch.Tensor:
    """24 kHz samples of the normalised voice -> its 40 ms patches. Shape [N // 960, 160]."""
    num_codes = len(samples) // SAMPLES_PER_CODE
    mel = features.flow_mel(torch.from_numpy(samples[: num_codes * SAMPLES_PER_CODE])[None])[0]
    return mel.T.clamp(min=FLOOR).reshape(num_codes, 160)


def nearest(points: torch.Tensor, codebook: torch.Tensor) -> torch.Tensor:
    """Index of each point's nearest centroid. [N, 160], [K, 160] -> [N]."""
    bias = codebook.square().sum(1)
    return torch.cat([torch.addmm(bias, part, codebook.T, alpha=-2).argmin(1) for part in points.split(4096)])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, required=True)
    work: Path = parser.parse_args().work
    torch.set_num_threads(1)
    torch.manual_seed(11)
    teacher, g2p = Teacher(), Hibari()
    lines = (work / "texts/train.txt").read_text().splitlines()
    random.Random(11).shuffle(lines)
    collected: list[torch.Tensor] = []
    seconds = 0.0
    for seed, text in enumerate(lines):
        prediction = teacher.predict(" ".join(g2p.phonemize(text)), speed=random.Random(seed).uniform(0.95, 1.05))
        collected.append(patches(render(prediction, NORMAL, seed)))
        seconds += len(collected[-1]) / 25
        if seconds > HOURS * 3600:
            break
    points = torch.cat(collected)
    codebook = points[torch.randperm(len(points))[:NUM_CODES]].clone()
    for number in range(NUM_ROUNDS):
        assigned = nearest(points, codebook)
        counts = torch.bincount(assigned, minlength=NUM_CODES)
        sums = torch.zeros_like(codebook).index_add_(0, assigned, points)
        fresh = points[torch.randint(len(points), (NUM_CODES,))]
        codebook = torch.where(counts[:, None] > 0, sums / counts.clamp(min=1)[:, None], fresh)
        error = (points - codebook[assigned]).abs().mean()
        print(f"round {number}: L1 {error:.4f}, {int((counts == 0).sum())} empty", flush=True)
    np.save(work / "codebook.npy", codebook.numpy())


if __name__ == "__main__":
    main()
