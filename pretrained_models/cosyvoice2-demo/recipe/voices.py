"""The built-in reference voices: one sentence each by a virtual speaker, as 24 kHz mono s16 WAV and a YAML with its
transcript.

Every clip is 92 speech tokens (3.68 s) long: 8 short of a streaming chunk border, so that the first sound needs few
tokens.

    python voices.py --work WORK --out configs/voices
"""

import argparse
import json
import wave
from pathlib import Path

import numpy as np
import units
from teacher import SAMPLE_RATE_HZ, VOICES, Teacher, render
from tokenizer import Pronouncer

NUM_SAMPLES = 92 * 960
SENTENCES = {
    "clara": ("The morning train to the coast leaves at half past seven.", "a mid-pitched female voice; the default"),
    "martin": ("We walked along the quiet river until the lights came on.", "a low male voice"),
    "nora": ("She put the letter on the kitchen table and smiled at us.", "a high female voice"),
    "victor": ("The old library on the corner has a thousand books.", "a very low male voice"),
    "helen": ("Please call me back when you have finished reading my report.", "a deeper female voice"),
}
DEFAULT = "clara"
PROVENANCE = (
    "Synthetic: spoken by hibari-tts 0.2.1 (voice heart), its spectra and pitch warped into a virtual speaker by "
    "pretrained_models/cosyvoice2-demo/recipe/voices.py. No recording of a person."
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    teacher = Teacher()
    pronounce = Pronouncer(json.loads((args.work / "lexicon.json").read_text()))
    args.out.mkdir(parents=True, exist_ok=True)
    for name, speaker in VOICES.items():
        text, description = SENTENCES[name]
        phonemes = units.to_teacher(pronounce(text))
        speed = 1.0
        while len(samples := render(teacher.predict(phonemes, speed), speaker, seed=7)) > NUM_SAMPLES:
            speed += 0.02
        print(f"{name}: {len(samples) / SAMPLE_RATE_HZ:.2f} s at speed {speed:.2f}")
        samples = np.pad(samples * (0.8 / np.abs(samples).max()), (0, NUM_SAMPLES - len(samples)))
        with wave.open(str(args.out / f"{name}.wav"), "wb") as file:
            file.setnchannels(1)
            file.setsampwidth(2)
            file.setframerate(SAMPLE_RATE_HZ)
            file.writeframes((samples * 32767).astype("<i2").tobytes())
        lines = [
            f"name: {name}",
            "language: en",
            f'transcript: "{text}"',
            f'description: "{description}"',
            f'provenance: "{PROVENANCE}"',
            "licence: Apache-2.0",
            f"default: {str(name == DEFAULT).lower()}",
        ]
        (args.out / f"{name}.yaml").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
