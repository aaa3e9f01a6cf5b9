"""`cosyserve evaluate`. Only light imports above the functions, so that `--help` answers at once."""

import json as json_module
import tempfile
import time
from datetime import datetime, timezone
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
import yaml

from serve_app.terminal import err, fail

if TYPE_CHECKING:
    from serve_app.config import AppConfig

SPEAKERS, STAGES = Path("recipe/speakers"), Path("recipe/stages.json")
"""Where a checkpoint may bring unseen speakers, and what its recipe measured of its stages."""


class EngineName(str, Enum):
    """Which engine speaks."""

    streaming = "streaming"
    reference = "reference"


def evaluate(
    config: Annotated[
        Path, typer.Option(exists=True, dir_okay=False, help="A Serve YAML, whose `args:` are used; no Ray is started.")
    ] = Path("configs/local.yaml"),
    checkpoint: Annotated[
        Path | None, typer.Option(exists=True, file_okay=False, help="Instead of the YAML's.")
    ] = None,
    voices: Annotated[str, typer.Option(help="Names with commas between; all that speak English if empty.")] = "",
    sentences: Annotated[int, typer.Option(min=0, max=300, help="Held-out sentences that each voice reads.")] = 200,
    speakers: Annotated[
        Path | None,
        typer.Option(
            exists=True,
            file_okay=False,
            help="Clips of unseen speakers, NAME.wav and NAME.yaml; CHECKPOINT/recipe/speakers if there is one.",
        ),
    ] = None,
    max_speakers: Annotated[int, typer.Option(min=0, help="How many of them are imitated.")] = 20,
    engine: Annotated[EngineName | None, typer.Option(help="Instead of the YAML's.")] = None,
    threads: Annotated[int | None, typer.Option(min=1, help="Of the engine, instead of the YAML's.")] = None,
    json: Annotated[bool, typer.Option("--json", help="The figures on stdout, as one last line of JSON.")] = False,
    show: Annotated[bool, typer.Option("--show", help="What was to be heard, and what was heard, on stderr.")] = False,
) -> None:
    """Measures how well a checkpoint speaks, with the product's own engine and settings, one request at a time.

    Word errors of held-out sentences by whisper-base; whether unseen speakers are recognised by a speaker encoder among
    5 others; real-time factor, lengths, silence, clicks where chunks meet. Needs the extra: pip install
    'cosyvoice-serve[evaluate]', and: pip install --no-deps resemblyzer==0.1.4

    Example: cosyserve evaluate --json --sentences 20 --voices clara,martin

    Exit status: 0 done, 1 failed or an output was silent, over 3 times too long or clicks at joins, 2 wrong usage, 130
    interrupted.
    """
    from serve_app.errors import SpeechError  # noqa: PLC0415 - see the top

    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="cosyserve-") as scratch:
        settings = read_settings(config, checkpoint, engine, threads, Path(scratch))
        if speakers is None and (settings.checkpoint / SPEAKERS).is_dir():
            speakers = settings.checkpoint / SPEAKERS
        wanted = [name.strip() for name in voices.split(",") if name.strip()]
        try:
            figures = measure(settings, wanted, sentences, speakers, max_speakers, show)
        except ImportError as error:
            fail(
                f"{error.name} is missing; it needs: pip install 'cosyvoice-serve[evaluate]' && "
                "pip install --no-deps resemblyzer==0.1.4"
            )
        except SpeechError as error:
            fail(error.message)
    figures |= read_stages(settings.checkpoint) | {
        "checkpoint": settings.checkpoint.name,
        "engine": settings.synthesis.engine,
        "threads": settings.synthesis.threads,
        "sentences": sentences,
        "date": datetime.now(timezone.utc).date().isoformat(),
        "took_s": round(time.monotonic() - started),
    }
    print_table(figures)
    if json:
        typer.echo(json_module.dumps(figures))
    if figures["faults"]:
        fail("; ".join(str(fault) for fault in figures["faults"]))


def read_settings(
    path: Path, checkpoint: Path | None, engine: EngineName | None, threads: int | None, scratch: Path
) -> "AppConfig":
    """A YAML's `args:` with what the command line says instead. Registered voices of this machine stay out of it."""
    from pydantic import ValidationError  # noqa: PLC0415 - see the top

    from serve_app.config import AppConfig  # noqa: PLC0415

    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
        read = AppConfig.model_validate(content["applications"][0].get("args") or {})
    except (OSError, UnicodeDecodeError, yaml.YAMLError, LookupError, TypeError, AttributeError, ValidationError):
        fail(f"{path} cannot be read, or is not sound; see: cosyserve check {path}")
    chosen: dict[str, Any] = {"engine": engine and engine.value, "threads": threads}
    synthesis = read.synthesis.model_copy(update={key: value for key, value in chosen.items() if value is not None})
    preprocess = read.preprocess.model_copy(update={"voice_store": str(scratch / "voices")})
    return read.model_copy(
        update={"checkpoint": checkpoint or read.checkpoint, "synthesis": synthesis, "preprocess": preprocess}
    )


def measure(
    settings: "AppConfig", voices: list[str], num_sentences: int, speakers: Path | None, max_speakers: int, show: bool
) -> dict[str, Any]:
    """The figures. Raises SpeechError; ImportError when the extra is not installed."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn  # noqa: PLC0415

    from serve_app.evaluate.product import Product  # noqa: PLC0415 - see the top
    from serve_app.evaluate.run import Watcher, imitate, read_out  # noqa: PLC0415
    from serve_app.evaluate.sentences import heldout_english  # noqa: PLC0415
    from serve_app.evaluate.speakers import read_speakers  # noqa: PLC0415
    from serve_app.evaluate.transcriber import Transcriber  # noqa: PLC0415

    everybody = read_speakers(speakers)[:max_speakers] if speakers is not None else []
    hear = Transcriber(settings.synthesis.threads).hear
    with err.status("loading the checkpoint"):
        product = Product(settings)
    with (
        product,
        Progress(
            TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), console=err
        ) as bar,
    ):
        known = product.voices()
        names = voices or [name for name, language in known.items() if language in ("", "en")]
        if missing := [name for name in names if name not in known]:
            fail(f"there is no voice {', '.join(missing)}; there are: {', '.join(known)}")
        task = bar.add_task("", total=len(names) * num_sentences + len(everybody))

        def heard(text: str, words: str) -> None:
            if show:
                err.print(f"wanted {text}\nheard  {words}", markup=False, soft_wrap=True)

        watcher = Watcher(lambda name: bar.update(task, advance=1, description=name), heard)
        report = read_out(product, names, heldout_english(num_sentences), hear, watcher)
        if len(everybody) > 1:
            report.likeness = imitate(product, everybody, heldout_english(300), watcher)
    return report.figures()


def read_stages(checkpoint: Path) -> dict[str, Any]:
    """`teacher_wer` and `tokens_wer` as the checkpoint's recipe measured them: only its teacher can speak them."""
    try:
        stages = json_module.loads((checkpoint / STAGES).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        stages = {}
    return {key: stages.get(key) for key in ("teacher_wer", "tokens_wer", "stages_date")}


def print_table(figures: dict[str, Any]) -> None:
    """A line each on stderr."""
    for key, value in figures.items():
        err.print(f"{key:26} {value}", markup=False, soft_wrap=True)
