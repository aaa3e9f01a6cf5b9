"""The highest load that still holds a goal: doubling until it breaks, then bisection. Bounded in probes."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

MAX_PROBES = 14
RESOLUTION = 0.1
"""A rate is found once the lowest that broke is within this share of the highest that held."""


@dataclass(frozen=True, slots=True)
class Probe:
    """One trial. level: requests a second, or clients."""

    level: float
    held: bool


@dataclass(frozen=True, slots=True)
class SearchResult:
    """highest: the highest level that held, None if not even the lowest did. broke: the lowest that did not, None if
    the limit was reached first. Probes are in the order they were made."""

    highest: float | None
    broke: float | None
    probes: tuple[Probe, ...]


async def find_highest(
    holds: Callable[[float], Awaitable[bool | None]], first: float, limit: float, *, whole: bool
) -> SearchResult:
    """Search between 0 and `limit`, starting at `first`.

    whole: levels are whole numbers (clients), found exactly; otherwise rates, found to `RESOLUTION`. If `first` itself
    breaks, the search goes down by halves. `holds` may answer None: then the search ends with what it has. A level is
    tried once: a service near its limit may answer differently the next time, so the result is as certain as one run.
    """
    probes: list[Probe] = []
    held: float | None = None
    broke: float | None = None
    level = first
    while len(probes) < MAX_PROBES:
        is_held = await holds(level)
        if is_held is None:
            break
        probes.append(Probe(level, is_held))
        if is_held:
            held = level
        else:
            broke = level
        following = next_level(held, broke, limit, whole=whole)
        if following is None:
            break
        level = following
    return SearchResult(held, broke, tuple(probes))


def next_level(held: float | None, broke: float | None, limit: float, *, whole: bool) -> float | None:
    """The level to try next, or None when the search is over. held < broke, where both are known."""
    if broke is None:
        return None if held is None or held >= limit else min(limit, 2 * held)
    if held is None:
        if not whole:
            return broke / 2
        return broke // 2 if broke > 1 else None
    if whole:
        return (held + broke) // 2 if broke - held > 1 else None
    return (held + broke) / 2 if broke > held * (1 + RESOLUTION) else None
