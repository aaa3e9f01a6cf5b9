"""The training corpus, in shards: every sentence's tokens and alignment, and its mel in the normalised voice; for the
first shards also other speakers' audio.

A shard WORK/corpus/NNN.npz holds, for its sentences end to end: `tokens` (text), `alignment` (25 Hz: for each code the
index of the text token being spoken), `normal` (50 Hz: the log mel [2N, 80] of the normalised voice), `phones` (50 Hz:
the teacher's symbol being spoken), and where the shard has audio: `speakers` [n, 5], `pcm` (int16, 24 kHz; 960 samples
a code) and `f0_hz` (50 Hz). `num_tokens`, `num_codes` give the lengths. The held-out sentences are shard "heldout".
The speech codes come from `codes.py --stage label`.

    python corpus.py --work WORK --name heldout
    python corpus.py --work WORK --start 0 --stop 6 --audio
    python corpus.py --work WORK --start 6 --stop 48
"""

import argparse
import json
import os
import zlib
from pathlib import Path

import features
import numpy as np
import torch
import units
from numpy.typing import NDArray
from teacher import NORMAL, SPECTRUM_HZ, VOICES, Speaker, Teacher, pitch_hz, random_speaker, render
from tokenizer import Pronouncer
from tokenizers import Tokenizer

SENTENCES_A_SHARD = 1000
SAMPLES_PER_CODE = 2 * features.HOP
SHARE_OF_VOICES = 0.4  # of the sentences with audio: the built-in voices; the others get a random speaker
MAX_PHONEMES = 390


def align(
    unit_string: str, tokenizer: Tokenizer, durations: NDArray[np.int64], num_codes: int
) -> tuple[NDArray[np.int16], NDArray[np.int16]]:
    """Text tokens, and the index of the token spoken in the middle of each code."""
    encoding = tokenizer.encode(unit_string)
    # Teacher symbols and unit characters correspond one to one but for spaces before pauses and at the front.
    symbol_owner = [0]
    for index, (start, stop) in enumerate(encoding.offsets):
        for position in range(start, stop):
            glued = unit_string[position] == " " and (position == 0 or unit_string[position + 1] in units.PAUSES)
            if not glued:
                symbol_owner.append(index)
    symbol_owner.append(len(encoding.ids) - 1)
    if len(symbol_owner) != len(durations):
        raise ValueError(f"{len(symbol_owner)} symbols, {len(durations)} durations: {unit_string!r}")
    owner_by_frame = np.repeat(np.array(symbol_owner), durations)
    frame = ((np.arange(num_codes) + 0.5) * SPECTRUM_HZ / 25).astype(int)
    alignment = owner_by_frame[np.minimum(frame, len(owner_by_frame) - 1)]
    return np.array(encoding.ids, np.int16), alignment.astype(np.int16)


def draw_speaker(rng: np.random.Generator) -> Speaker:
    """A speaker for a training sentence."""
    if rng.random() < SHARE_OF_VOICES:
        return list(VOICES.values())[rng.integers(len(VOICES))]
    return random_speaker(rng)


def build_shard(work: Path, name: str, sentences: list[str], with_audio: bool, group: int = 1) -> None:
    """Speak the sentences and write WORK/corpus/NAME.npz; `group` sentences in a row share a speaker."""
    teacher = Teacher()
    tokenizer = Tokenizer.from_file(str(work / "bpe.json"))
    pronounce = Pronouncer(json.loads((work / "lexicon.json").read_text()))
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    speaker = NORMAL
    columns: dict[str, list[NDArray[np.generic]]] = {"tokens": [], "alignment": [], "normal": [], "phones": []}
    if with_audio:
        columns |= {"speakers": [], "pcm": [], "f0_hz": []}
    for seed, text in enumerate(sentences):
        unit_string = pronounce(text)
        phonemes = units.to_teacher(unit_string)
        if not 5 < len(phonemes) < MAX_PHONEMES:
            continue
        prediction = teacher.predict(phonemes)
        normal = render(prediction, NORMAL, seed)
        num_codes = len(normal) // SAMPLES_PER_CODE
        tokens, alignment = align(unit_string, tokenizer, prediction.durations, num_codes)
        mel = features.flow_mel(torch.from_numpy(normal[: num_codes * SAMPLES_PER_CODE])[None])[0].T
        frame = ((np.arange(2 * num_codes) + 0.5) * SPECTRUM_HZ / 50).astype(int)
        symbols = np.repeat(prediction.ids, prediction.durations)
        row: dict[str, NDArray[np.generic]] = {
            "tokens": tokens,
            "alignment": alignment,
            "normal": mel.numpy().astype(np.float16),
            "phones": symbols[np.minimum(frame, len(symbols) - 1)].astype(np.int16),
        }
        if with_audio:
            if len(columns["speakers"]) % group == 0:
                speaker = draw_speaker(rng)
            samples = render(prediction, speaker, seed + 1)[: num_codes * SAMPLES_PER_CODE]
            f0_hz = pitch_hz(prediction, speaker)
            row["speakers"] = speaker.parameters()[None]
            row["pcm"] = (samples * 32767).astype(np.int16)
            row["f0_hz"] = f0_hz[np.minimum(frame, len(f0_hz) - 1)].astype(np.float16)
        for key, value in row.items():
            columns[key].append(value)
    arrays = {key: np.concatenate(values) for key, values in columns.items()}
    arrays["num_tokens"] = np.array([len(v) for v in columns["tokens"]], np.int32)
    arrays["num_codes"] = np.array([len(v) for v in columns["alignment"]], np.int32)
    path = work / "corpus" / f"{name}.npz"
    path.parent.mkdir(exist_ok=True)
    temporary = path.with_suffix(f".{os.getpid()}.tmp")
    with temporary.open("wb") as file:
        np.savez(file, **arrays)
    temporary.rename(path)
    print(f"{name}: {len(arrays['num_codes'])} sentences, {arrays['num_codes'].sum() / 90000:.2f} h", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--name", choices=["heldout"])
    parser.add_argument("--start", type=int, default=0)
    parser.add_argument("--stop", type=int, default=0)
    parser.add_argument("--audio", action="store_true")
    parser.add_argument("--group", type=int, default=1, help="sentences in a row by one speaker")
    args = parser.parse_args()
    torch.set_num_threads(1)
    train = (args.work / "texts/train.txt").read_text().splitlines()
    if args.name == "heldout":
        build_shard(args.work, "heldout", (args.work / "texts/heldout.txt").read_text().splitlines()[:300], True)
    for number in range(args.start, args.stop):
        sentences = train[number * SENTENCES_A_SHARD : (number + 1) * SENTENCES_A_SHARD]
        if sentences and not (args.work / f"corpus/{number:03d}.npz").exists():
            build_shard(args.work, f"{number:03d}", sentences, args.audio, args.group)


if __name__ == "__main__":
    main()
