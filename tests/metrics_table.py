"""The table of metrics in `configs/grafana/README.md`, made from the one list. As a program it writes it there."""

from serve_app.metrics import ALL
from tests.conftest import ROOT

README = ROOT / "configs/grafana/README.md"
BEGIN, END = "<!-- metrics: python -m tests.metrics_table writes this -->\n", "<!-- end of metrics -->"


def table() -> str:
    rows = ["| metric | kind | labels | meaning |", "|---|---|---|---|"]
    for metric in ALL:
        name = metric.series[0].removesuffix("_bucket")
        labels = ", ".join(f"`{label}`" for label in metric.labels)
        rows.append(f"| `{name}` | {metric.kind} | {labels} | {metric.help} |")
    return "\n".join(rows) + "\n"


def written() -> str:
    """The table that is in the file."""
    return README.read_text().partition(BEGIN)[2].partition(END)[0]


if __name__ == "__main__":
    before, _, rest = README.read_text().partition(BEGIN)
    README.write_text(before + BEGIN + table() + END + rest.partition(END)[2])
