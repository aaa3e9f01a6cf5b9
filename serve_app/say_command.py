"""`cosyserve say`. Only light imports above the functions, so that `--help` answers at once."""

import base64
import contextlib
import sys
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from serve_app.terminal import EXIT_CODES, err, fail

if TYPE_CHECKING:
    from serve_app.client import Client
    from serve_app.sound_output import SoundOutput

Url = Annotated[
    str, typer.Option(envvar="COSYSERVE_URL", show_envvar=True, help="The service.", rich_help_panel="Service")
]
ApiKey = Annotated[
    str,
    typer.Option(
        envvar="COSYSERVE_API_KEY", show_envvar=True, show_default=False, help="If it asks.", rich_help_panel="Service"
    ),
]
Timeout = Annotated[
    float, typer.Option(min=0.1, help="Seconds in which it may send nothing.", rich_help_panel="Service")
]
DEFAULT_URL = "http://127.0.0.1:8000"
VOICE, OUTPUT = "How it sounds", "Where it goes"


class AudioFormat(str, Enum):
    """What the service can send."""

    wav = "wav"
    mp3 = "mp3"
    opus = "opus"
    aac = "aac"
    flac = "flac"
    pcm = "pcm"


_SUFFIXES = {f".{known.value}": known for known in AudioFormat} | {".ogg": AudioFormat.opus, ".raw": AudioFormat.pcm}


def say(
    text: Annotated[str | None, typer.Argument(help="What to say; `-` or nothing reads standard input.")] = None,
    file: Annotated[Path | None, typer.Option("--file", "-f", help="Say what this UTF-8 file holds.")] = None,
    output: Annotated[
        str | None, typer.Option("--output", "-o", help="A file; `-` is standard output.", rich_help_panel=OUTPUT)
    ] = None,
    play: Annotated[bool, typer.Option("--play", help="The loudspeaker.", rich_help_panel=OUTPUT)] = False,
    audio_format: Annotated[
        AudioFormat | None,
        typer.Option("--format", help="By the file's ending if not given; wav in a pipe.", rich_help_panel=OUTPUT),
    ] = None,
    sample_rate: Annotated[int | None, typer.Option(help="8000 to 48000 Hz.", rich_help_panel=OUTPUT)] = None,
    voice: Annotated[
        str | None, typer.Option("--voice", "-v", help="Name or id of a voice.", rich_help_panel=VOICE)
    ] = None,
    speed: Annotated[float | None, typer.Option(help="0.25 to 4.", rich_help_panel=VOICE)] = None,
    seed: Annotated[int | None, typer.Option(help="The same seed says it the same way.", rich_help_panel=VOICE)] = None,
    instructions: Annotated[str | None, typer.Option(help="How to speak, in words.", rich_help_panel=VOICE)] = None,
    ref_audio: Annotated[
        Path | None, typer.Option(help="A clip to clone for this once.", rich_help_panel=VOICE)
    ] = None,
    ref_text: Annotated[str | None, typer.Option(help="The words spoken in it.", rich_help_panel=VOICE)] = None,
    url: Url = DEFAULT_URL,
    api_key: ApiKey = "",
    timeout: Timeout = 120.0,
) -> None:
    from serve_app.client import Client  # noqa: PLC0415 - see the top

    if play and output is not None:
        raise typer.BadParameter("--play and --output exclude each other")
    if not play and output is None and sys.stdout.isatty():
        raise typer.BadParameter("where to? -o hello.wav, --play, or a pipe")
    target = None if play or output in (None, "-") else Path(str(output))
    chosen = choose_format(audio_format, target, play)
    body: dict[str, object] = {"input": read_text(text, file), "response_format": chosen.value}
    given = {"voice": voice, "speed": speed, "seed": seed, "instructions": instructions, "ref_text": ref_text}
    body.update({name: value for name, value in given.items() if value is not None})
    if sample_rate is not None:
        body["sample_rate"] = sample_rate
    if ref_audio is not None:
        body["ref_audio"] = base64.b64encode(read_file(ref_audio)).decode()
    destination = open_destination(target, play, sample_rate or 24_000)
    with Client(url, api_key, timeout) as client:
        receive(client, body, destination, target)


say.__doc__ = f"""Says a text, or sends its sound into a file or a pipe as it is made.

A file has its name only once it is whole: if the stream breaks, what arrived is kept as NAME.partial.EXT. A WAV in a
file has its true sizes; in a pipe they are unknown (0xFFFFFFFF), which players take.

Examples:

cosyserve say "Hello there." -o hello.wav --voice clara

echo "Hello there." | cosyserve say --format mp3 | ffplay -nodisp -autoexit -

cosyserve say --file chapter.txt --play

{EXIT_CODES}
"""


def receive(client: "Client", body: dict[str, object], destination: "SoundOutput", target: Path | None) -> None:
    """Carries the answer to its destination, with a line on stderr if that is a terminal."""
    from serve_app.client import ServiceFault  # noqa: PLC0415 - see the top
    from serve_app.speech_progress import SpeechProgress  # noqa: PLC0415

    progress = SpeechProgress(str(body["response_format"]))
    try:
        with err.status("asking") as status, client.speak(body) as speech:
            progress.sample_rate_hz = speech.sample_rate_hz
            for chunk in speech.chunks:
                destination.write(chunk)
                progress.add(len(chunk))
                status.update(progress.line(progress.heard_s))
        destination.finish()
    except ServiceFault as fault:
        kept = destination.abandon()
        fail(f"{fault}; {kept}" if kept else str(fault))
    except BrokenPipeError:  # the reader has heard enough; typer ends quietly, with exit status 1
        raise
    except OSError as error:
        with contextlib.suppress(OSError):  # the same again
            destination.abandon()
        fail(f"cannot write {target or 'the sound'}: {error.strerror or error}")
    except KeyboardInterrupt:
        kept = destination.abandon()
        if kept:
            err.print(f"interrupted; {kept}", soft_wrap=True, markup=False)
        raise
    if err.is_terminal:
        heard_s = progress.heard_s
        if heard_s is None and target is not None:
            heard_s = duration_s(target)
        err.print(f"{progress.line(heard_s)}{f' -> {target}' if target else ''}", soft_wrap=True, markup=False)


def choose_format(asked: AudioFormat | None, target: Path | None, play: bool) -> AudioFormat:
    """What was asked for, else what the file's ending says, else wav; a loudspeaker takes pcm."""
    if play:
        if asked not in (None, AudioFormat.pcm):
            raise typer.BadParameter("--play takes pcm only")
        return AudioFormat.pcm
    if asked is not None:
        return asked
    if target is None or (target.exists() and not target.is_file()):
        return AudioFormat.wav
    if target.suffix.lower() not in _SUFFIXES:
        raise typer.BadParameter(f"the ending of {target.name} says no format; give one with --format")
    return _SUFFIXES[target.suffix.lower()]


def read_text(text: str | None, file: Path | None) -> str:
    """From the argument, the file, or standard input."""
    if file is not None:
        if text is not None:
            raise typer.BadParameter("a text and --file exclude each other")
        raw, source = read_file(file), str(file)
    elif text not in (None, "-"):
        return str(text)
    elif sys.stdin.isatty() and text is None:
        raise typer.BadParameter("what to say? A text, --file, or a pipe")
    else:
        raw, source = sys.stdin.buffer.read(), "standard input"
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError:
        fail(f"{source} is not UTF-8 text")


def read_file(path: Path) -> bytes:
    """Its content; ends with one clear line otherwise."""
    try:
        return path.read_bytes()
    except OSError as error:
        fail(f"cannot read {path}: {error.strerror}")


def open_destination(target: Path | None, play: bool, sample_rate_hz: int) -> "SoundOutput":
    """Ends with one clear line when it cannot be had, before anything is asked of the service."""
    from serve_app.sound_output import PipeOutput, PlayerOutput, open_output  # noqa: PLC0415 - see the top

    other_way = "pipe it instead: cosyserve say ... | ffplay -nodisp -autoexit -"
    try:
        if play:
            return PlayerOutput(sample_rate_hz)
        if target is None:
            return PipeOutput(sys.stdout.buffer)
        if not target.parent.is_dir():
            fail(f"cannot write {target}: there is no folder {target.parent}")
        return open_output(target)
    except ImportError:
        fail(f"--play needs the extra: pip install 'cosyvoice-serve[play]'; or {other_way}")
    except OSError as error:
        fail(f"no loudspeaker: {error}; {other_way}" if play else f"cannot write {target}: {error.strerror}")


def duration_s(path: Path) -> float | None:
    """Seconds of sound in a compressed file, by decoding it: some of these formats state no length."""
    import av  # noqa: PLC0415 - see the top

    try:
        with av.open(str(path)) as container:
            return float(sum(frame.samples / frame.sample_rate for frame in container.decode(audio=0)))
    except (av.FFmpegError, OSError):
        return None
