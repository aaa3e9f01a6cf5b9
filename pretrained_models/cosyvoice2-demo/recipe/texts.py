"""Sentences for the demo checkpoint: WordNet's example sentences and the fortunes collection, both Debian packages.

Writes WORK/texts/train.txt and WORK/texts/heldout.txt, one sentence a line, no sentence in both.

    apt-get install wordnet-base fortunes scowl
    python texts.py --work WORK
"""

import argparse
import random
import re
from collections.abc import Iterator
from pathlib import Path

WORDNET = Path("/usr/share/wordnet")
FORTUNES = Path("/usr/share/games/fortunes")
PLAIN = re.compile(r"[A-Za-z ,'\-?!;.:]+")
NUM_HELDOUT = 600
MAX_CHARACTERS = 110


def wordnet_sentences() -> Iterator[str]:
    """The quoted usage examples of WordNet's glosses, made into sentences."""
    for path in sorted(WORDNET.glob("data.*")):
        for line in path.read_text(errors="ignore").splitlines():
            for quote in re.findall(r'"([^"]+)"', line.split("|", 1)[-1]):
                text = re.sub(r"\s+", " ", quote).strip()
                if len(text.split()) >= 4 and PLAIN.fullmatch(text):
                    text = text[0].upper() + text[1:]
                    yield text if text[-1] in ".?!" else text.rstrip(",;:") + "."


def fortune_sentences() -> Iterator[str]:
    """Whole sentences of the fortunes collection, without the attributions."""
    for path in sorted(FORTUNES.iterdir()):
        if "." in path.name:
            continue
        for paragraph in re.split(r"\n%\n", path.read_text(errors="ignore")):
            body = re.sub(r"\n\s*--.*", "", paragraph, flags=re.S)
            for text in re.split(r"(?<=[.?!])\s+", re.sub(r"\s+", " ", body).strip()):
                plain = PLAIN.fullmatch(text) and text[-1] in ".?!" and not re.search(r"[A-Z]{2,}", text)
                if plain and 4 <= len(text.split()) <= 22:
                    yield text


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, required=True)
    work: Path = parser.parse_args().work
    sentences = sorted({*wordnet_sentences(), *fortune_sentences()})
    sentences = [text for text in sentences if 15 <= len(text) <= MAX_CHARACTERS]
    random.Random(0).shuffle(sentences)
    folder = work / "texts"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "heldout.txt").write_text("\n".join(sentences[:NUM_HELDOUT]) + "\n")
    (folder / "train.txt").write_text("\n".join(sentences[NUM_HELDOUT:]) + "\n")
    print(f"{len(sentences)} sentences, {NUM_HELDOUT} held out")


if __name__ == "__main__":
    main()
