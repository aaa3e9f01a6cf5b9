"""Whether the places where two chunks of a stream meet can be heard.

The statistic: roughness of a place is the largest absolute second difference of the samples around it (a step there
shows at its full height), over the root mean square of the second differences within 5 ms of it. Chunks meet at borders
of vocoder frames, so the joins are compared with all other frame borders of the same signals: if joins are like the
others, one in a hundred of them is above the others' 99th percentile.
"""

from dataclasses import dataclass, field

import numpy as np

from serve_app.messages import Float32Array

FRAME = 480
"""Samples of a vocoder frame."""
_REACH, _AROUND = 2, 120
_QUIET = 1e-5
"""Second differences at -100 dBFS are not heard: below, nothing counts as rough."""


@dataclass(slots=True)
class JoinStatistic:
    """Collects roughness at joins and elsewhere over many signals."""

    at_joins: list[float] = field(default_factory=list)
    elsewhere: list[float] = field(default_factory=list)

    def add(self, samples: Float32Array, joins: tuple[int, ...]) -> None:
        """samples: float32 [S]. joins: where chunks but the first begin."""
        if not joins:
            return
        phase, known = joins[0] % FRAME, set(joins)
        self.at_joins += roughness(samples, list(joins))
        others = range(phase, len(samples), FRAME)
        self.elsewhere += roughness(samples, [place for place in others if place not in known])

    @property
    def above_p99(self) -> float | None:
        """Share of the joins that are rougher than 99 % of the other frame borders: 0.01 if joins are like the rest."""
        if not self.at_joins or not self.elsewhere:
            return None
        return float(np.mean(np.asarray(self.at_joins) > np.percentile(self.elsewhere, 99)))

    @property
    def worst(self) -> float | None:
        """The roughest join over the roughest other frame border: above 1, a join stands out from everything else."""
        if not self.at_joins or not self.elsewhere:
            return None
        return max(self.at_joins) / max(self.elsewhere)

    @property
    def clicks(self) -> bool:
        """Whether more joins are rough than chance explains (three standard deviations)."""
        share, count = self.above_p99, len(self.at_joins)
        return share is not None and share > 0.01 + 3 * float(np.sqrt(0.01 * 0.99 / count)) + 1 / count


def roughness(samples: Float32Array, places: list[int]) -> list[float]:
    """Of each place that has enough samples around it."""
    bends = np.abs(np.diff(samples.astype(np.float64), 2))  # bends[i] is around sample i + 1
    found = []
    for place in places:
        middle = place - 1
        if middle - _AROUND < 0 or middle + _AROUND > len(bends):
            continue
        level = float(np.sqrt(np.mean(bends[middle - _AROUND : middle + _AROUND] ** 2)))
        found.append(float(bends[middle - _REACH : middle + _REACH].max()) / max(level, _QUIET))
    return found
