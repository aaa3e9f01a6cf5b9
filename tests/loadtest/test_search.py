"""Doubling, then bisection, against services whose limit is known."""

import pytest

from serve_app.loadtest.search import MAX_PROBES, SearchResult, find_highest


async def search(capacity: float, first: float, limit: float, *, whole: bool) -> SearchResult:
    async def holds(level: float) -> bool:
        return level <= capacity

    return await find_highest(holds, first, limit, whole=whole)


@pytest.mark.parametrize("capacity", [1, 2, 7, 8, 9, 100])
async def test_clients_are_found_exactly(capacity: int) -> None:
    result = await search(capacity, 1, 900, whole=True)
    assert (result.highest, result.broke) == (capacity, capacity + 1)
    assert all(probe.level == int(probe.level) and probe.held == (probe.level <= capacity) for probe in result.probes)
    assert len({probe.level for probe in result.probes}) == len(result.probes)


async def test_rates_are_found_to_a_tenth() -> None:
    result = await search(13.7, 1.0, 10_000, whole=False)
    assert result.highest is not None and result.broke is not None
    assert result.highest <= 13.7 < result.broke <= result.highest * 1.1


@pytest.mark.parametrize("whole", [True, False])
async def test_a_first_level_that_breaks_sends_the_search_down(whole: bool) -> None:
    result = await search(3, 64, 900, whole=whole)
    assert result.highest == pytest.approx(3, rel=0.1)


async def test_nothing_may_hold() -> None:
    result = await search(0, 8, 900, whole=True)
    assert result.highest is None
    assert [probe.level for probe in result.probes] == [8, 4, 2, 1]
    assert len((await search(0, 8, 900, whole=False)).probes) == MAX_PROBES


async def test_the_limit_ends_the_search() -> None:
    result = await search(1e9, 5, 30, whole=True)
    assert (result.highest, result.broke) == (30, None)
    assert [probe.level for probe in result.probes] == [5, 10, 20, 30]


async def test_an_interrupted_search_keeps_what_it_has() -> None:
    async def holds(level: float) -> bool | None:
        return True if level < 4 else None

    result = await find_highest(holds, 1, 900, whole=True)
    assert (result.highest, [probe.level for probe in result.probes]) == (2, [1, 2])
