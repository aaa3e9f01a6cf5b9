"""The figures of one evaluation."""

from dataclasses import dataclass, field

import numpy as np

from serve_app.evaluate.joins import JoinStatistic
from serve_app.evaluate.product import Spoken
from serve_app.evaluate.sentences import Sentence
from serve_app.evaluate.transcriber import WordCount
from serve_app.messages import SAMPLE_RATE_HZ, Float32Array

MAX_LENGTH_RATIO = 3.0
_AUDIBLE, _WINDOW = 10 ** (-45 / 20), SAMPLE_RATE_HZ // 50
_NO_MANDARIN = "not measured: there are no Mandarin sentences to read yet, and the demo checkpoint speaks none"


def is_silent(samples: Float32Array) -> bool:
    """Whether no window of 20 ms is above -45 dBFS."""
    windows = samples[: len(samples) // _WINDOW * _WINDOW].reshape(-1, _WINDOW)
    return not bool((np.sqrt(np.mean(windows**2, axis=1)) > _AUDIBLE).any())


@dataclass(slots=True)
class Report:
    """Collects what was measured.

    likeness: for each unseen speaker, whether the output is closest to its own reference: among 5 others, and of all.
    """

    word_counts: dict[str, WordCount] = field(default_factory=dict)
    length_ratios: list[float] = field(default_factory=list)
    num_silent: int = 0
    joins: JoinStatistic = field(default_factory=JoinStatistic)
    audio_s: float = 0.0
    wall_s: float = 0.0
    cpu_s: float = 0.0
    likeness: list[tuple[bool, bool]] = field(default_factory=list)

    def add(self, sentence: Sentence, spoken: Spoken) -> None:
        """One sentence that was read out."""
        self.length_ratios.append(spoken.duration_s / sentence.expected_s)
        self.num_silent += is_silent(spoken.samples)
        self.joins.add(spoken.samples, spoken.joins)
        self.audio_s += spoken.duration_s
        self.wall_s += spoken.wall_s
        self.cpu_s += spoken.cpu_s

    def faults(self) -> list[str]:
        """What no checkpoint should do, in plain words."""
        too_long = sum(ratio > MAX_LENGTH_RATIO for ratio in self.length_ratios)
        found = []
        if too_long:
            found.append(f"{too_long} outputs are over {MAX_LENGTH_RATIO:g} times as long as expected")
        if self.num_silent:
            found.append(f"{self.num_silent} outputs are silent")
        if self.joins.clicks:
            share = self.joins.above_p99 or 0.0
            found.append(f"{share:.1%} of the chunk joins are rougher than 99% of other places: they may be heard")
        return found

    def figures(self) -> dict[str, object]:
        """For JSON. Rates are shares, 0..1; None is "not measured"."""
        total = sum(self.word_counts.values(), WordCount())
        near, nearest = (
            [float(np.mean(column)) for column in zip(*self.likeness, strict=True)] if self.likeness else (None, None)
        )
        return {
            "wer_en": _rounded(total.rate),
            "wer_en_by_voice": {name: _rounded(count.rate) for name, count in self.word_counts.items()},
            "words": total.total,
            "per_zh": None,
            "per_zh_note": _NO_MANDARIN,
            "conditioning_top1": _rounded(near),
            "conditioning_top1_of_all": _rounded(nearest),
            "conditioning_speakers": len(self.likeness),
            "rtf": _rounded(self.wall_s / self.audio_s) if self.audio_s else None,
            "rtf_cpu": _rounded(self.cpu_s / self.audio_s) if self.audio_s else None,
            "audio_s": round(self.audio_s, 1),
            "max_length_ratio": _rounded(max(self.length_ratios, default=None)),
            "mean_length_ratio": _rounded(float(np.mean(self.length_ratios))) if self.length_ratios else None,
            "silent": self.num_silent,
            "join_click": {
                "joins": len(self.joins.at_joins),
                "above_p99": _rounded(self.joins.above_p99),
                "worst": _rounded(self.joins.worst),
            },
            "faults": self.faults(),
        }


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 4)
