"""Two runs side by side, from the JSON that `--json` printed."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.table import Table
from rich.text import Text

from serve_app.loadtest.faults import LoadTestError

LOWER_IS_BETTER = (
    "ttfp_ms.mean",
    "ttfp_ms.p50",
    "ttfp_ms.p95",
    "ttfp_ms.p99",
    "audible_ttfa_ms.mean",
    "audible_ttfa_ms.p50",
    "audible_ttfa_ms.p95",
    "audible_ttfa_ms.p99",
    "underruns",
    "rtf",
    "errors",
    "cpu_peak",
)
HIGHER_IS_BETTER = ("continuity", "audio_s_per_s")
NEITHER = ("requests", "client_lag_ms.p99")


@dataclass(frozen=True, slots=True)
class Difference:
    """One figure of two runs. None where a run has none. better: None if equal, unknown or a matter of taste."""

    name: str
    before: float | None
    after: float | None
    better: bool | None

    @property
    def change(self) -> float | None:
        """As a share of `before`."""
        if self.before is None or self.after is None or self.before == 0:
            return None
        return self.after / self.before - 1


def read_run(path: Path) -> dict[str, Any]:
    """The JSON of a run. Errors: `LoadTestError`."""
    try:
        run = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise LoadTestError(f"cannot read {path}: {error.strerror}") from error
    except ValueError as error:
        raise LoadTestError(f"{path} is not JSON: {error}") from error
    if not isinstance(run, dict):
        raise LoadTestError(f"{path} is not the JSON of a run")
    for name in (*NEITHER, *LOWER_IS_BETTER, *HIGHER_IS_BETTER):
        if name.split(".")[0] not in run:
            raise LoadTestError(f"{path} is not the JSON of a run: it has no {name.split('.')[0]!r}")
    return run


def differences(before: dict[str, Any], after: dict[str, Any]) -> list[Difference]:
    """Of two runs that `read_run` read."""
    found: list[Difference] = []
    for name in (*NEITHER, *LOWER_IS_BETTER, *HIGHER_IS_BETTER):
        old, new = _figure(before, name), _figure(after, name)
        better: bool | None = None
        if name not in NEITHER and old is not None and new is not None and old != new:
            better = (new < old) == (name in LOWER_IS_BETTER)
        found.append(Difference(name, old, new, better))
    return found


def comparison_table(before: dict[str, Any], after: dict[str, Any]) -> Table:
    table = Table("", title="before and after", title_justify="left")
    for heading in ("before", "after", "change"):
        table.add_column(heading, justify="right")
    for row in differences(before, after):
        change = "" if row.change is None else f"{row.change:+.1%}"
        style = "" if row.better is None else "green" if row.better else "red"
        table.add_row(row.name, _cell(row.before), _cell(row.after), Text(change, style))
    return table


def _figure(run: dict[str, Any], name: str) -> float | None:
    """Errors: `LoadTestError` if it is there but no number."""
    value: Any = run
    for part in name.split("."):
        value = value.get(part) if isinstance(value, dict) else value
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise LoadTestError(f"{name} is no number in the JSON of a run")
    return float(value)


def _cell(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"
