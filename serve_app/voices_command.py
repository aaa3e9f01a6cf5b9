"""`cosyserve voices list | check | add | rm`. Only light imports above the functions: `--help` answers at once."""

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from serve_app.say_command import DEFAULT_URL, ApiKey, Timeout, Url
from serve_app.terminal import EXIT_CODES, err, fail

if TYPE_CHECKING:
    from serve_app.client import Client
    from serve_app.messages import Denoise as ChoiceOfDenoise

COLUMNS = ("id", "name", "type", "language")

voices = typer.Typer(
    name="voices",
    help=f"Lists, adds and removes the voices of a running service, and checks clips without one.\n\n{EXIT_CODES}",
    no_args_is_help=True,
)


class Denoise(str, Enum):
    """Whether noise is taken out of the clip."""

    auto = "auto"
    on = "on"
    off = "off"


@voices.command("list")
def list_voices(
    as_json: Annotated[bool, typer.Option("--json", help="The service's own JSON.")] = False,
    url: Url = DEFAULT_URL,
    api_key: ApiKey = "",
    timeout: Timeout = 30.0,
) -> None:
    """Lists every voice: a table on a terminal, a line with tabs for each voice in a pipe.

    Example: cosyserve voices list | cut -f2
    """
    with service(url, api_key, timeout) as client:
        listed = client.voices()
    if as_json:
        typer.echo(json.dumps(listed, ensure_ascii=False))
    elif sys.stdout.isatty():
        table = Table(*COLUMNS)
        for voice in listed:
            table.add_row(*fields(voice))
        Console(highlight=False, markup=False).print(table)
    else:
        for voice in listed:
            typer.echo("\t".join(fields(voice)))


@voices.command()
def check(
    clips: Annotated[list[Path], typer.Argument(metavar="CLIP...", help="Recordings of one speaker; - is stdin.")],
    transcript: Annotated[
        str,
        typer.Option("--transcript", "--ref-text", help="The words spoken in the clip, to compare with its length."),
    ] = "",
    denoise: Annotated[Denoise, typer.Option(help="auto: if the clip is noisy.")] = Denoise.auto,
    as_json: Annotated[bool, typer.Option("--json", help="One line of JSON for each clip.")] = False,
    strict: Annotated[bool, typer.Option(help="Fail on a warning, too.")] = False,
) -> None:
    """Says how good a voice a clip would make, and what is wrong with it; needs no service.

    Example: cosyserve voices check anna.wav --transcript "The words spoken in it."

    Example: for f in *.wav; do cosyserve voices check --strict "$f" >/dev/null && echo "$f"; done

    Exit status: 0 usable, 1 a clip cannot be used (or has a warning, with --strict), 2 wrong usage.
    """
    if transcript and len(clips) > 1:
        raise typer.BadParameter("a transcript is of one clip", param_hint="--transcript")
    num_bad = num_warned = 0
    for clip in clips:
        report = clip_report(clip, transcript, denoise.value)
        num_bad += "error" in report
        num_warned += bool(report.get("warnings"))
        if as_json:
            typer.echo(json.dumps({"clip": str(clip), **report}, ensure_ascii=False))
        elif "error" in report:
            err.print(f"cosyserve: {clip}: {report['error']}", style="red", markup=False, soft_wrap=True)
        else:
            for line in quality_lines(report) + ([] if report["warnings"] else ["no faults found"]):
                typer.echo(f"{clip}: {line}" if len(clips) > 1 else line)
    if num_bad or (strict and num_warned):
        raise typer.Exit(1)


def clip_report(clip: Path, transcript: str, denoise: "ChoiceOfDenoise") -> dict[str, Any]:
    """The quality of a clip as a registration would report it; or `error`, why it would be refused."""
    from serve_app.config import ApiConfig  # noqa: PLC0415 - see the top
    from serve_app.errors import SpeechError  # noqa: PLC0415
    from serve_app.preprocess.intake import inspect  # noqa: PLC0415

    limit = ApiConfig().max_reference_bytes
    try:
        if str(clip) == "-":
            audio = sys.stdin.buffer.read(limit + 1)
        else:
            with clip.open("rb") as file:
                audio = file.read(limit + 1)
    except OSError as error:
        return {"error": f"cannot be read: {error.strerror}"}
    if len(audio) > limit:
        return {"error": f"The reference clip is larger than {limit // 2**20} MiB."}
    try:
        quality = inspect(audio, transcript, denoise)
    except SpeechError as error:
        return {"error": error.message}
    return {**asdict(quality), "warnings": list(quality.warnings)}


@voices.command()
def add(
    name: Annotated[str, typer.Argument(help="What to call it: letters, digits, spaces and -_.")],
    clip: Annotated[Path, typer.Argument(help="3 to 10 seconds of one speaker (wav, flac, mp3, ogg, m4a).")],
    ref_text: Annotated[str, typer.Option(help="The words spoken in the clip: the voice is better for them.")] = "",
    language: Annotated[str, typer.Option(help="A tag such as en or zh-Hans.")] = "",
    denoise: Annotated[Denoise, typer.Option(help="auto: if the clip is noisy.")] = Denoise.auto,
    consent: Annotated[str, typer.Option(help="Who agreed that this voice may be used, and how.")] = "",
    url: Url = DEFAULT_URL,
    api_key: ApiKey = "",
    timeout: Timeout = 120.0,
) -> None:
    """Registers a clip as a voice; prints its id, and on stderr what is wrong with the clip, if anything.

    Example: cosyserve voices add anna anna.wav --ref-text "The words spoken in it." --language en
    """
    given = {"name": name, "ref_text": ref_text, "language": language, "denoise": denoise.value, "consent": consent}
    with service(url, api_key, timeout) as client, err.status(f"registering {clip.name}"):
        try:
            voice = client.add_voice(clip, {key: value for key, value in given.items() if value})
        except OSError as error:
            fail(f"cannot read {clip}: {error.strerror}")
    typer.echo(str(voice.get("id", "")))
    quality = voice.get("quality")
    for line in quality_lines(quality if isinstance(quality, dict) else {}):
        err.print(line, soft_wrap=True, markup=False)


@voices.command()
def rm(
    names: Annotated[list[str], typer.Argument(metavar="VOICE...", help="Names or ids.")],
    url: Url = DEFAULT_URL,
    api_key: ApiKey = "",
    timeout: Timeout = 30.0,
) -> None:
    """Removes voices; built-in ones cannot be removed. Stops at the first that cannot.

    Example: cosyserve voices rm anna
    """
    for name in names:
        with service(url, api_key, timeout, about=f"{name}: ") as client:
            client.remove_voice(name)


@contextmanager
def service(url: str, api_key: str, timeout_s: float, about: str = "") -> "Iterator[Client]":
    """A client whose failures end the command with one clear line."""
    from serve_app.client import Client, ServiceFault  # noqa: PLC0415 - see the top

    try:
        with Client(url, api_key, timeout_s) as client:
            yield client
    except ServiceFault as fault:
        fail(f"{about}{fault}")


def fields(voice: dict[str, Any]) -> list[str]:
    """The shown ones, each on one line."""
    return [" ".join(str(voice.get(column) or "").split()) for column in COLUMNS]


def quality_lines(quality: dict[str, Any]) -> list[str]:
    """What the report on a clip says: its figures in one line, then each warning."""
    shown = (
        ("speech_s", "{:.1f} s of speech"),
        ("snr_db", "{:.0f} dB above its noise"),
        ("loudness_db", "{:.0f} dBFS"),
        ("used_s", "{:.1f} s used"),
    )
    figures = [form.format(quality[key]) for key, form in shown if isinstance(quality.get(key), int | float)]
    if quality.get("denoised"):
        figures.append("denoised")
    warnings = quality.get("warnings")
    return [
        *([", ".join(figures)] if figures else []),
        *(f"warning: {warning}" for warning in (warnings if isinstance(warnings, list) else [])),
    ]
