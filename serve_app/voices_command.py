"""`cosyserve voices list | add | rm`. Only light imports above the functions, so that `--help` answers at once."""

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
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

COLUMNS = ("id", "name", "type", "language")

voices = typer.Typer(
    name="voices",
    help=f"Lists, adds and removes the voices of a running service.\n\n{EXIT_CODES}",
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
