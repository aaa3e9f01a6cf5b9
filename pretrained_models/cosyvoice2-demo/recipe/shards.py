"""Reading the corpus: sentences as views into the shards, mels computed once and kept beside them; training state on
disk."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import features
import numpy as np
import torch
from numpy.typing import NDArray

HELDOUT = "heldout"


@dataclass(frozen=True)
class Sentence:
    """One sentence: tokens [L]; codes, alignment [N]; with audio speaker [5], mel [2N, 80], pcm [960N], f0_hz [2N]."""

    tokens: NDArray[np.int16]
    codes: NDArray[np.int16]
    alignment: NDArray[np.int16]
    speaker: NDArray[np.float32] | None = None
    mel: NDArray[np.float16] | None = None
    pcm: NDArray[np.int16] | None = None
    f0_hz: NDArray[np.float16] | None = None


def shard_names(work: Path) -> list[str]:
    """Names of the finished training shards."""
    return sorted(path.stem for path in (work / "corpus").glob("[0-9][0-9][0-9].npz"))


@dataclass(frozen=True)
class NormalSpeech:
    """One sentence in the normalised voice: log mel [2N, 80], and the teacher's symbol being spoken [2N]."""

    mel: NDArray[np.float16]
    phones: NDArray[np.int16]


def _cuts(lengths: NDArray[np.int32]) -> list[slice]:
    ends = np.cumsum(lengths)
    return [slice(int(end - length), int(end)) for end, length in zip(ends, lengths, strict=True)]


def codes_path(work: Path, name: str) -> Path:
    """Where `codes.py --stage label` keeps a shard's codes, end to end."""
    return work / f"corpus/{name}.codes.npy"


def load_normal(work: Path, name: str) -> list[NormalSpeech]:
    """A shard's sentences in the normalised voice."""
    with np.load(work / f"corpus/{name}.npz") as file:
        mel, phones, cuts = file["normal"], file["phones"], _cuts(2 * file["num_codes"])
    return [NormalSpeech(mel[cut], phones[cut]) for cut in cuts]


def load_text(work: Path, name: str) -> list[Sentence]:
    """A labelled shard's sentences without audio."""
    codes = np.load(codes_path(work, name))
    with np.load(work / f"corpus/{name}.npz") as file:
        tokens, alignment = file["tokens"], file["alignment"]
        pairs = zip(_cuts(file["num_tokens"]), _cuts(file["num_codes"]), strict=True)
        return [Sentence(tokens[t], codes[c], alignment[c]) for t, c in pairs]


def _mel(work: Path, name: str, pcm: NDArray[np.int16], cuts: list[slice]) -> NDArray[np.float16]:
    path = work / f"corpus/{name}.mel.npy"
    if not path.exists():
        parts = [
            torch.from_numpy(pcm[cut.start * 960 : cut.stop * 960].astype(np.float32) / 32767)[None] for cut in cuts
        ]
        mel = np.concatenate([features.flow_mel(part)[0].T.numpy().astype(np.float16) for part in parts])
        temporary = path.with_suffix(f".{os.getpid()}.tmp")
        with temporary.open("wb") as file:
            np.save(file, mel)
        temporary.rename(path)
    return np.load(path, mmap_mode="r")


def load_audio(work: Path, name: str) -> list[Sentence]:
    """A labelled shard's sentences with a speaker's mel, samples and pitch; empty for a shard made without audio."""
    with np.load(work / f"corpus/{name}.npz") as file:
        if "pcm" not in file:
            return []
        arrays = {key: file[key] for key in ("tokens", "alignment", "speakers", "pcm", "f0_hz")}
        arrays["codes"] = np.load(codes_path(work, name))
        token_cuts, cuts = _cuts(file["num_tokens"]), _cuts(file["num_codes"])
    mel = _mel(work, name, arrays["pcm"], cuts)
    return [
        Sentence(
            tokens=arrays["tokens"][t],
            codes=arrays["codes"][c],
            alignment=arrays["alignment"][c],
            speaker=arrays["speakers"][number],
            mel=mel[2 * c.start : 2 * c.stop],
            pcm=arrays["pcm"][960 * c.start : 960 * c.stop],
            f0_hz=arrays["f0_hz"][2 * c.start : 2 * c.stop],
        )
        for number, (t, c) in enumerate(zip(token_cuts, cuts, strict=True))
    ]


def save_flow_mels(work: Path, name: str, mels: dict[int, NDArray[np.float16]]) -> None:
    """Keep the mels that the flow makes of a shard's sentences, by their index, beside the shard."""
    path = work / f"corpus/{name}.flow.npz"
    temporary = path.with_suffix(f".{os.getpid()}.tmp")
    with temporary.open("wb") as file:
        np.savez(file, **{str(index): mel for index, mel in mels.items()})
    temporary.rename(path)


def load_flow_mels(work: Path, name: str) -> dict[int, NDArray[np.float16]]:
    """What `save_flow_mels` kept; empty where it kept nothing."""
    path = work / f"corpus/{name}.flow.npz"
    if not path.exists():
        return {}
    with np.load(path) as file:
        return {int(index): file[index] for index in file.files}


def save_state(path: Path, state: dict[str, Any]) -> None:
    """Write a training state so that a crash leaves the old one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(f".{os.getpid()}.tmp")
    torch.save(state, temporary)
    temporary.rename(path)
