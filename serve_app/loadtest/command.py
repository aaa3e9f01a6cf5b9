"""The commands `loadtest` and `loadtest-compare`, for `cosyserve` to add:

app.command("loadtest")(loadtest)
app.command("loadtest-compare")(loadtest_compare)

Only light imports above the functions, so that `--help` answers at once.
"""

import asyncio
from enum import Enum
from pathlib import Path
from typing import Annotated, NoReturn

import typer
from rich.console import Console

from serve_app.loadtest.faults import LoadTestError
from serve_app.loadtest.options import Options


class AudioFormat(str, Enum):
    """Formats whose samples can be counted as they arrive."""

    pcm = "pcm"
    wav = "wav"


class Preset(str, Enum):
    """Scenarios with a name."""

    article = "article"


class Prebuffer(str, Enum):
    """Milliseconds that the chosen player holds before it starts."""

    none = "0"
    short = "100"
    long = "200"


LOAD, ASKED, ANSWERS, REPORT = "Load", "What is asked", "What is expected", "Report"


def loadtest(
    url: Annotated[str, typer.Argument(help="Root, OpenAI base URL (…/v1) or speech endpoint of the server.")],
    clients: Annotated[
        int | None, typer.Option(min=1, help="Closed loop: so many listeners (default 1).", rich_help_panel=LOAD)
    ] = None,
    rate: Annotated[
        float | None,
        typer.Option(help="Open loop: so many requests a second, Poisson unless shaped.", rich_help_panel=LOAD),
    ] = None,
    burst: Annotated[
        int | None, typer.Option(min=1, help="With --rate: so many at once.", rich_help_panel=LOAD)
    ] = None,
    ramp_to: Annotated[
        float | None, typer.Option(help="With --rate: its value at the end of --seconds.", rich_help_panel=LOAD)
    ] = None,
    replay: Annotated[
        Path | None, typer.Option(help="Open loop: arrivals from a CSV of seconds[,text].", rich_help_panel=LOAD)
    ] = None,
    requests: Annotated[
        int | None,
        typer.Option("--requests", "-n", min=1, help="At most so many (default 1000).", rich_help_panel=LOAD),
    ] = None,
    seconds: Annotated[
        float | None, typer.Option(help="Begin none after this (default 30).", rich_help_panel=LOAD)
    ] = None,
    warmup: Annotated[int, typer.Option(min=0, help="Requests before, not counted.", rich_help_panel=LOAD)] = 0,
    arrival_seed: Annotated[int, typer.Option(help="Of the random arrivals.", rich_help_panel=LOAD)] = 0,
    preset: Annotated[
        Preset | None,
        typer.Option(help="article: 100 short requests with a 5 s clip, then two clients.", rich_help_panel=LOAD),
    ] = None,
    text: Annotated[str | None, typer.Option(help="The same for every request.", rich_help_panel=ASKED)] = None,
    text_file: Annotated[Path | None, typer.Option(help="A text a line, taken in turn.", rich_help_panel=ASKED)] = None,
    model: Annotated[str, typer.Option(rich_help_panel=ASKED)] = "tts-1",
    voice: Annotated[
        str | None, typer.Option(help="Not sent unless given; many servers need one.", rich_help_panel=ASKED)
    ] = None,
    instructions: Annotated[str, typer.Option(help="Style, if the server knows it.", rich_help_panel=ASKED)] = "",
    audio_format: Annotated[AudioFormat, typer.Option("--format", rich_help_panel=ASKED)] = AudioFormat.pcm,
    sample_rate: Annotated[
        int, typer.Option(min=1000, help="Of pcm whose answer does not state it.", rich_help_panel=ASKED)
    ] = 24_000,
    ref_audio: Annotated[
        Path | None, typer.Option(help="A clip to clone, sent with every request.", rich_help_panel=ASKED)
    ] = None,
    ref_text: Annotated[str, typer.Option(help="Transcript of --ref-audio.", rich_help_panel=ASKED)] = "",
    api_key: Annotated[
        str, typer.Option(envvar="COSYSERVE_API_KEY", show_envvar=True, show_default=False, rich_help_panel=ASKED)
    ] = "",
    timeout: Annotated[float, typer.Option(min=0.1, help="Seconds for a request.", rich_help_panel=ASKED)] = 30.0,
    goal: Annotated[
        str | None,
        typer.Option(help="'p95 ttfa < 300ms, continuity >= 99%'; exit status 1 if missed.", rich_help_panel=ANSWERS),
    ] = None,
    search: Annotated[
        bool,
        typer.Option("--search", help="Find the most --clients or --rate that holds it.", rich_help_panel=ANSWERS),
    ] = False,
    prebuffer_ms: Annotated[
        Prebuffer, typer.Option(help="Player that continuity is judged by.", rich_help_panel=ANSWERS)
    ] = Prebuffer.none,
    json: Annotated[
        bool, typer.Option("--json", help="One JSON line on stdout, tables on stderr.", rich_help_panel=REPORT)
    ] = False,
    csv: Annotated[Path | None, typer.Option(help="A file: a line per request.", rich_help_panel=REPORT)] = None,
    plots: Annotated[Path | None, typer.Option(help="A folder for PNG plots.", rich_help_panel=REPORT)] = None,
) -> None:
    """Loads a text-to-speech server over HTTP and reports what its listeners would have heard.

    Any OpenAI-compatible /v1/audio/speech that streams pcm or wav. Latency counts from the moment a request was due, so
    a slow server cannot hide. TTFP: first playable sound. TTFA: the first 20 ms window above -45 dBFS is heard.
    Continuity: share of requests heard whole, without a gap.

    Examples:

    cosyserve loadtest http://127.0.0.1:8000 --clients 4 --voice clara

    cosyserve loadtest http://127.0.0.1:8000 --rate 2 --goal "p95 ttfa < 300ms, continuity >= 99%" --search
    """
    from serve_app.loadtest.dispatch import execute, json_line  # noqa: PLC0415 - see the top

    console = Console(stderr=json, highlight=False)
    try:
        options = Options(
            url=url,
            clients=clients,
            rate=rate,
            burst=burst,
            ramp_to=ramp_to,
            replay=replay,
            requests=requests,
            seconds=seconds,
            warmup=warmup,
            arrival_seed=arrival_seed,
            goal=goal,
            search=search,
            preset=preset.value if preset else None,
            text=text,
            text_file=text_file,
            model=model,
            voice=voice,
            instructions=instructions,
            audio_format=audio_format.value,
            sample_rate=sample_rate,
            ref_audio=ref_audio,
            ref_text=ref_text,
            api_key=api_key,
            timeout=timeout,
            prebuffer_ms=int(prebuffer_ms.value),
            csv=csv,
            plots=plots,
        )
        outcome = asyncio.run(execute(options, console))
    except LoadTestError as error:
        fail(str(error))
    if json:
        typer.echo(json_line(outcome.report))
    if not outcome.held:
        raise typer.Exit(1)


def loadtest_compare(
    before: Annotated[Path, typer.Argument(help="What `cosyserve loadtest --json` printed.")],
    after: Annotated[Path, typer.Argument(help="The same, later.")],
) -> None:
    """Puts two load tests side by side.

    Example: cosyserve loadtest-compare monday.json tuesday.json
    """
    from serve_app.loadtest.compare import comparison_table, read_run  # noqa: PLC0415 - see the top

    try:
        table = comparison_table(read_run(before), read_run(after))
    except LoadTestError as error:
        fail(str(error))
    Console(highlight=False).print(table)


def fail(message: str) -> NoReturn:
    """One line on stderr and exit status 1."""
    Console(stderr=True, highlight=False).print(f"cosyserve: {message}", style="red", markup=False, soft_wrap=True)
    raise typer.Exit(1)
