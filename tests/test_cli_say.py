"""`cosyserve say` against the real HTTP edge over a service in memory."""

import os
import pty
import signal
import struct
import subprocess
import sys
import time
import types
import wave
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

import av
import httpx
import pytest
from typer.testing import CliRunner, Result

from serve_app.api.routes import create_api
from serve_app.cli import app
from serve_app.config import ApiConfig
from serve_app.errors import GenerationFailed, Overloaded
from serve_app.sound_output import state_wav_sizes
from tests.fakes import FakeService, tone
from tests.loopback import serving, unused_address

COSYSERVE = [sys.executable, "-m", "serve_app.cli"]


@pytest.fixture
def service() -> FakeService:
    return FakeService()


@pytest.fixture
def url(service: FakeService) -> Iterator[str]:
    with serving(create_api(service, ApiConfig())) as address:
        yield address


def run(*arguments: str, stdin: str | bytes | None = None) -> Result:
    return CliRunner().invoke(app, list(arguments), input=stdin)


def say(url: str, *arguments: str, stdin: str | bytes | None = None) -> Result:
    return run("say", "--url", url, *arguments, stdin=stdin)


def expected_pcm(url: str) -> bytes:
    """What a client without any of our code gets."""
    body = {"input": "Hello.", "response_format": "pcm"}
    return httpx.post(f"{url}/v1/audio/speech", json=body, trust_env=False).raise_for_status().content


def test_a_wav_has_true_sizes_and_nothing_else_is_left(url: str, service: FakeService, tmp_path: Path) -> None:
    target = tmp_path / "hello.wav"
    target.write_bytes(b"an older take")
    ended = say(url, "Hello there.", "-o", str(target))
    assert (ended.exit_code, ended.stdout, ended.stderr) == (0, "", "")  # no terminal, no progress
    content = target.read_bytes()
    assert struct.unpack_from("<I", content, 4)[0] == len(content) - 8
    with wave.open(str(target)) as opened:
        assert (opened.getframerate(), opened.getnframes()) == (24_000, len(service.samples))
    assert list(tmp_path.iterdir()) == [target]
    assert service.requests[0].text == "Hello there."


@pytest.mark.parametrize(("suffix", "codec"), [("mp3", "mp3"), ("ogg", "opus"), ("flac", "flac"), ("aac", "aac")])
def test_the_ending_chooses_the_format(url: str, tmp_path: Path, suffix: str, codec: str) -> None:
    target = tmp_path / f"hello.{suffix}"
    assert say(url, "Hello.", "-o", str(target)).exit_code == 0
    with av.open(str(target)) as opened:
        assert opened.streams.audio[0].codec_context.name.startswith(codec)


def test_every_option_reaches_the_service(url: str, service: FakeService, tmp_path: Path) -> None:
    clip = tmp_path / "clip.wav"
    clip.write_bytes(b"RIFF and so on")
    options = ["--voice", "Ünal", "--speed", "1.5", "--seed", "7", "--instructions", "softly"]
    options += ["--ref-audio", str(clip), "--ref-text", "the words", "--sample-rate", "8000", "--format", "pcm"]
    ended = say(url, "Hello.", *options, "-o", str(tmp_path / "take"))
    assert ended.exit_code == 0, ended.stderr
    request = service.requests[0]
    assert (request.voice, request.speed, request.seed, request.instructions) == ("Ünal", 1.5, 7, "softly")
    assert request.reference is not None
    assert (request.reference.audio, request.reference.transcript) == (clip.read_bytes(), "the words")
    assert abs((tmp_path / "take").stat().st_size - len(service.samples) * 2 / 3) < 100  # 8 kHz


def test_text_comes_from_a_file_or_a_pipe(url: str, service: FakeService, tmp_path: Path) -> None:
    source = tmp_path / "text.txt"
    source.write_text("\ufeffGrüß Gott.", encoding="utf-8")
    assert say(url, "--file", str(source), "-o", "/dev/null").exit_code == 0
    assert say(url, "-", "-o", "/dev/null", stdin="From a pipe.\n").exit_code == 0
    assert [request.text.strip() for request in service.requests] == ["Grüß Gott.", "From a pipe."]
    ended = say(url, "-", "-o", "/dev/null", stdin=b"\xff\xfe")
    assert (ended.exit_code, ended.stderr) == (1, "cosyserve: standard input is not UTF-8 text\n")


def test_a_pipe_carries_sound_and_nothing_else(url: str) -> None:
    command = [*COSYSERVE, "say", "--url", url, "--format", "pcm"]
    ended = subprocess.run(command, input=b"Hello.", capture_output=True, check=False, timeout=60)
    assert (ended.returncode, ended.stderr) == (0, b"")
    assert ended.stdout == expected_pcm(url)


def test_a_reader_that_has_heard_enough_ends_it_quietly(url: str, service: FakeService) -> None:
    service.samples = tone(24_000 * 60)  # far more than a pipe holds
    command = [*COSYSERVE, "say", "--url", url, "Hello.", "-o", "-"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, bufsize=0) as process:
        assert process.stdout is not None and process.stderr is not None
        assert process.stdout.read(4) == b"RIFF"
        process.stdout.close()
        assert process.wait(60) == 1
        assert process.stderr.read() == b""


def test_a_broken_stream_is_an_error_and_its_beginning_says_what_it_is(
    url: str, service: FakeService, tmp_path: Path
) -> None:
    service.speak_error, service.error_after = GenerationFailed("It did not end."), 1
    ended = say(url, "Hello.", "-o", str(tmp_path / "hello.wav"))
    partial = tmp_path / "hello.partial.wav"
    assert ended.exit_code == 1
    assert ended.stderr.startswith(f"cosyserve: the connection to {url} broke off: ")
    assert ended.stderr.endswith(f"; what arrived is in {partial}\n") and ended.stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == [partial]
    with wave.open(str(partial)) as opened:
        assert 0 < opened.getnframes() <= service.chunk_samples
        assert len(opened.readframes(1_000_000)) == 2 * opened.getnframes()


def test_refusals_are_the_services_own_words_and_leave_no_file(url: str, service: FakeService, tmp_path: Path) -> None:
    target = str(tmp_path / "hello.wav")
    ended = say(url, "Hello.", "--voice", "nobody", "-o", target)
    assert (ended.exit_code, ended.stderr) == (1, "cosyserve: No voice of that id or name.\n")
    service.prepare_error = Overloaded("Too many listeners.")
    ended = say(url, "Hello.", "-o", target)
    assert (ended.exit_code, ended.stderr) == (1, "cosyserve: Too many listeners. Try again in 2 s.\n")
    assert list(tmp_path.iterdir()) == []


def test_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KEYS_OF_TEST", "right")
    with serving(create_api(FakeService(), ApiConfig(api_keys_variable="KEYS_OF_TEST"))) as url:
        ended = say(url, "Hello.", "-o", "/dev/null", "--api-key", "wrong")
        assert ended.exit_code == 1 and "COSYSERVE_API_KEY" in ended.stderr
        monkeypatch.setenv("COSYSERVE_API_KEY", "right")
        assert say(url + "/v1/", "Hello.", "-o", "/dev/null").exit_code == 0


def test_no_service_and_no_address() -> None:
    ended = say(unused_address(), "Hello.", "-o", "/dev/null")
    assert ended.exit_code == 1 and "is the service running?" in ended.stderr
    for address in ("speech", "ftp://127.0.0.1"):
        ended = say(address, "Hello.", "-o", "/dev/null")
        assert ended.exit_code == 1 and "is no address of a service" in ended.stderr


def test_wrong_usage_has_its_own_status(tmp_path: Path) -> None:
    wrong = [["--play", "-o", "a.wav"], ["-o", str(tmp_path / "a.xyz")], ["--file", "a", "-o", "a.wav"]]
    wrong += [["--play", "--format", "mp3"], ["--format", "midi"]]
    for arguments in wrong:
        assert run("say", "Hello.", *arguments).exit_code == 2, arguments


def test_what_cannot_be_read_or_written_is_named(url: str, tmp_path: Path) -> None:
    nowhere = tmp_path / "nowhere"
    ended = say(url, "--file", str(nowhere), "-o", "/dev/null")
    assert (ended.exit_code, ended.stderr) == (1, f"cosyserve: cannot read {nowhere}: No such file or directory\n")
    ended = say(url, "Hello.", "-o", str(nowhere / "a.wav"))
    assert ended.exit_code == 1 and f"there is no folder {nowhere}" in ended.stderr
    ended = say(url, "Hello.", "-o", "/dev/full")
    assert (ended.exit_code, ended.stderr) == (1, "cosyserve: cannot write /dev/full: No space left on device\n")


class FakeLoudspeaker:
    """What `PlayerOutput` uses of sounddevice."""

    heard = BytesIO()
    calls: list[str]

    def __init__(self, samplerate: int, channels: int, dtype: str) -> None:
        self.calls = FakeLoudspeaker.calls = [f"{samplerate} {channels} {dtype}"]
        FakeLoudspeaker.heard = BytesIO()

    def write(self, data: bytes) -> None:
        assert len(data) % 2 == 0
        self.heard.write(data)

    def __getattr__(self, name: str) -> object:
        return lambda: self.calls.append(name)


def test_play(url: str, service: FakeService, monkeypatch: pytest.MonkeyPatch) -> None:
    sounddevice = types.ModuleType("sounddevice")
    vars(sounddevice).update(RawOutputStream=FakeLoudspeaker, PortAudioError=RuntimeError)
    monkeypatch.setitem(sys.modules, "sounddevice", sounddevice)
    ended = say(url, "Hello.", "--play")
    assert ended.exit_code == 0, ended.stderr
    assert FakeLoudspeaker.heard.getvalue() == expected_pcm(url)
    assert FakeLoudspeaker.calls == ["24000 1 int16", "start", "stop", "close"]
    service.speak_error, service.error_after = GenerationFailed("It did not end."), 1
    assert say(url, "Hello.", "--play").exit_code == 1
    assert FakeLoudspeaker.calls == ["24000 1 int16", "start", "abort", "close"]


def test_play_without_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sounddevice", None)
    ended = say(unused_address(), "Hello.", "--play")
    assert ended.exit_code == 1 and "cosyvoice-serve[play]" in ended.stderr


def test_ctrl_c_keeps_what_arrived(url: str, service: FakeService, tmp_path: Path) -> None:
    service.stall_after = 1
    command = [*COSYSERVE, "say", "--url", url, "Hello.", "-o", str(tmp_path / "hello.wav")]
    partial = tmp_path / "hello.partial.wav"
    with subprocess.Popen(command, stderr=subprocess.PIPE) as process:
        deadline = time.monotonic() + 60
        while not (partial.exists() and partial.stat().st_size > 44):
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.02)
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 130
        assert (
            process.stderr is not None
            and process.stderr.read() == f"interrupted; what arrived is in {partial}\n".encode()
        )
    with wave.open(str(partial)) as opened:
        assert len(opened.readframes(1_000_000)) == 2 * opened.getnframes() > 0


def test_a_terminal_sees_how_it_went(url: str, service: FakeService, tmp_path: Path) -> None:
    ours, theirs = pty.openpty()
    command = [*COSYSERVE, "say", "--url", url, "Hello.", "-o", str(tmp_path / "hello.mp3")]
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "200"}
    ended = subprocess.run(command, stderr=theirs, check=False, timeout=60, env=environment)
    os.close(theirs)
    shown = b""
    while True:
        try:
            shown += os.read(ours, 65536)
        except OSError:  # everything was read, and nobody writes any more
            break
    os.close(ours)
    assert ended.returncode == 0
    last = shown.decode().splitlines()[-1]
    assert f"{len(service.samples) / 24_000:.1f} s of speech, first sound after " in last
    assert ", real-time factor " in last


def test_only_a_canonical_wav_is_touched() -> None:
    for content in (b"", b"RIFF", b"x" * 100, b"RIFF\xff\xff\xff\xffWAVEfmt " + b"x" * 100):
        file = BytesIO(content)
        state_wav_sizes(file)
        assert file.getvalue() == content


def test_every_command_has_an_example() -> None:
    commands = [["say"], ["voices", "list"], ["voices", "add"], ["voices", "rm"], ["check"], ["download"], ["serve"]]
    for command in [*commands, ["loadtest"], ["loadtest-compare"], ["toy-checkpoint"]]:
        ended = run(*command, "--help")
        assert ended.exit_code == 0 and f"cosyserve {' '.join(command)} " in ended.stdout, command
