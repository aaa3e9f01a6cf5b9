"""`cosyserve download`. Only light imports above the functions, so that `--help` answers at once."""

import os
from dataclasses import replace
from enum import Enum
from pathlib import Path
from typing import Annotated

import typer
from rich.progress import BarColumn, DownloadColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from serve_app.terminal import EXIT_CODES, err, fail


class HubName(str, Enum):
    """Where to download from."""

    huggingface = "huggingface"
    modelscope = "modelscope"


def download(
    hub: Annotated[
        HubName | None,
        typer.Option(help="huggingface (the default): FunAudioLLM/CosyVoice2-0.5B. modelscope: iic/CosyVoice2-0.5B."),
    ] = None,
    revision: Annotated[str | None, typer.Option(help="Branch, tag or commit; the newest if not given.")] = None,
    to: Annotated[Path, typer.Option(help="The folder.")] = Path("pretrained_models/CosyVoice2-0.5B"),
    endpoint: Annotated[
        str | None, typer.Option(help="A mirror's address; HF_ENDPOINT is honoured too.", metavar="URL")
    ] = None,
) -> None:
    from serve_app.download import download as fetch  # noqa: PLC0415 - see the top
    from serve_app.download import verified  # noqa: PLC0415
    from serve_app.hubs import OFFICIAL, DownloadFault, HuggingFace, ModelScope  # noqa: PLC0415

    with Bars() as bars:
        num_files = verified(to, bars, hub.value if hub else None, revision)
        if num_files is None:
            source = (
                ModelScope() if hub is HubName.modelscope else HuggingFace(os.environ.get("HF_ENDPOINT") or OFFICIAL)
            )
            where = (endpoint or source.endpoint).rstrip("/")
            source = replace(source, endpoint=where, revision=revision or source.revision)
            try:
                done = fetch(source, to, bars)
            except DownloadFault as fault:
                fail(str(fault))
            summary = f"{done.num_files} files, {done.num_fetched} fetched, all verified"
        else:
            summary = f"{num_files} files, verified"
    err.print(f"{to} is complete: {summary}", markup=False, soft_wrap=True)


download.__doc__ = f"""Downloads CosyVoice2-0.5B: the files that are used, about 2.5 GB.

Goes on where it was interrupted; every file is compared with the hub's size and hash before it gets its name. If all is
there already it says so without the network.

Examples:

cosyserve download

cosyserve download --hub modelscope --to /models/CosyVoice2-0.5B

{EXIT_CODES}
"""


class Bars:
    """A bar for each file on a terminal, a line for each elsewhere."""

    def __init__(self) -> None:
        self._progress = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            DownloadColumn(),
            TimeRemainingColumn(),
            console=err,
            disable=not err.is_terminal,
        )
        self._task: TaskID | None = None
        self._checked: TaskID | None = None

    def __enter__(self) -> "Bars":
        self._progress.start()
        return self

    def __exit__(self, *raised: object) -> None:
        self._end_of_checking()
        self._progress.stop()

    def checking(self, path: str) -> None:
        if self._checked is None:
            self._checked = self._progress.add_task("", total=None)
        self._progress.update(self._checked, description=f"checking {path}")

    def _end_of_checking(self) -> None:
        if self._checked is not None:
            self._progress.remove_task(self._checked)
            self._checked = None

    def begin(self, path: str, num_bytes: int, have: int) -> None:
        self._end_of_checking()
        if not err.is_terminal:
            err.print(f"fetching {path} ({num_bytes} bytes)", markup=False, soft_wrap=True)
        self._task = self._progress.add_task(path, total=num_bytes, completed=have)

    def advance(self, num_bytes: int) -> None:
        if self._task is not None:
            self._progress.advance(self._task, num_bytes)
