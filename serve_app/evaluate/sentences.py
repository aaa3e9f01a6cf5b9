"""The sentences that are read out, and how long each should take."""

from dataclasses import dataclass
from pathlib import Path

_HELDOUT_EN = Path(__file__).with_name("heldout_en.tsv")


@dataclass(frozen=True, slots=True)
class Sentence:
    """text, and the seconds that a plain reading of it takes."""

    text: str
    expected_s: float


def heldout_english(count: int) -> list[Sentence]:
    """The first so many of the held-out sentences, in their fixed order; fewer if there are not so many."""
    lines = _HELDOUT_EN.read_text(encoding="utf-8").splitlines()
    rows = [line.split("\t") for line in lines if not line.startswith("#")]
    return [Sentence(text, float(seconds)) for seconds, text in rows[:count]]
