"""Reference clips of 20 virtual speakers that nothing was trained on, for `cosyserve evaluate --speakers`.

The speakers come from the same range as the training speakers, by a seed of their own: none is nearer than
MIN_DISTANCE to a built-in voice or to another of the 20, in units of `Speaker.parameters`. Sentences are held-out ones.
Written as Ogg Opus (about 15 kB each) with a YAML that holds the transcript and the speaker.

    python speakers.py --work WORK --out pretrained_models/cosyvoice2-demo/recipe/speakers
"""

import argparse
import dataclasses
import json
import subprocess
from pathlib import Path

import numpy as np
import units
import yaml
from teacher import SAMPLE_RATE_HZ, VOICES, Speaker, Teacher, random_speaker, render
from tokenizer import Pronouncer

SEED = 20_261_122
COUNT = 20
MIN_DISTANCE = 0.6
MIN_S, MAX_S = 3.0, 5.0


def draw() -> list[Speaker]:
    """Speakers that can be told apart, and are none of the built-in voices."""
    rng = np.random.default_rng(SEED)
    taken, drawn = [voice.parameters() for voice in VOICES.values()], []
    while len(drawn) < COUNT:
        speaker = random_speaker(rng)
        if min(float(np.linalg.norm(speaker.parameters() - other)) for other in taken) >= MIN_DISTANCE:
            taken.append(speaker.parameters())
            drawn.append(speaker)
    return drawn


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    teacher = Teacher()
    pronounce = Pronouncer(json.loads((args.work / "lexicon.json").read_text()))
    # From the end of the held-out sentences: `cosyserve evaluate` reads others.
    texts = (args.work / "texts/heldout.txt").read_text().splitlines()[300:]
    speakers = iter(enumerate(draw(), 1))
    number, speaker = next(speakers)
    for text in texts:
        samples = render(teacher.predict(units.to_teacher(pronounce(text))), speaker, seed=SEED + number)
        if not MIN_S <= len(samples) / SAMPLE_RATE_HZ <= MAX_S:
            continue
        samples = samples * (0.8 / np.abs(samples).max())
        raw = (samples * 32767).astype("<i2").tobytes()
        path = args.out / f"speaker{number:02d}.ogg"
        source = ["-f", "s16le", "-ar", str(SAMPLE_RATE_HZ), "-ac", "1", "-i", "pipe:0"]
        codec = ["-c:a", "libopus", "-b:a", "32k", "-map_metadata", "-1", "-fflags", "+bitexact"]
        subprocess.run(["ffmpeg", "-v", "error", "-y", *source, *codec, str(path)], input=raw, check=True)
        card = {
            "transcript": text,
            "provenance": "Synthetic: hibari-tts 0.2.1 (voice heart), warped by speakers.py. No recording of a person.",
            "licence": "Apache-2.0",
            "speaker": {key: round(float(value), 3) for key, value in dataclasses.asdict(speaker).items()},
        }
        path.with_suffix(".yaml").write_text(yaml.safe_dump(card, sort_keys=False, width=120))
        if (following := next(speakers, None)) is None:
            return
        number, speaker = following
    raise SystemExit("too few held-out sentences of that length")


if __name__ == "__main__":
    main()
