"""The real service over real HTTP: Ray Serve, all three deployments, the toy checkpoint."""

import asyncio
import base64
import io
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import wave
from pathlib import Path

import httpx
import numpy as np
import pytest
import soundfile

from tests.conftest import ROOT, Service, environment, free_port, local_settings, start_service

pytestmark = pytest.mark.service

SENTENCE = "The train leaves the station at half past seven every morning."


def body(voice: str = "default", **more: object) -> dict[str, object]:
    return {"input": SENTENCE, "voice": voice, "response_format": "pcm", "seed": 7, **more}


def voices(service: Service) -> list[str]:
    listed = httpx.get(service.url + "/v1/audio/voices").json()["data"]
    return [voice["name"] for voice in listed]


def test_the_first_byte_comes_well_before_the_last(service: Service) -> None:
    text = " ".join([SENTENCE] * 6)
    started = time.monotonic()
    arrivals = []
    with httpx.stream("POST", service.url + "/v1/audio/speech", json=body() | {"input": text}, timeout=120) as response:
        assert response.status_code == 200 and "content-length" not in response.headers
        for part in response.iter_raw():
            arrivals.append((time.monotonic() - started, len(part)))
    assert len(arrivals) >= 6, "sent in parts as it was made"
    assert arrivals[0][0] < 0.5 * arrivals[-1][0]
    assert sum(size for _, size in arrivals) % 2 == 0


def test_every_reader_opens_the_wav_whole(service: Service, tmp_path: Path) -> None:
    reply = httpx.post(service.url + "/v1/audio/speech", json=body() | {"response_format": "wav"}, timeout=120)
    assert reply.status_code == 200 and reply.headers["content-type"].startswith("audio/wav")
    num_samples = (len(reply.content) - 44) // 2
    assert num_samples > 24_000
    with wave.open(io.BytesIO(reply.content)) as opened:
        assert (opened.getnchannels(), opened.getsampwidth(), opened.getframerate()) == (1, 2, 24_000)
        assert len(opened.readframes(2**31 // 2 - 1)) == 2 * num_samples
    samples, rate = soundfile.read(io.BytesIO(reply.content))
    assert (len(samples), rate) == (num_samples, 24_000)
    path = tmp_path / "speech.wav"
    path.write_bytes(reply.content)
    for command in (
        ["ffmpeg", "-v", "error", "-i", str(path), "-f", "s16le", "-"],
        ["sox", "-V1", "--ignore-length", str(path), "-t", "raw", "-e", "signed", "-b", "16", "-"],
    ):
        assert shutil.which(command[0]), f"{command[0]} is needed (apt-get install {command[0]})"
        decoded = subprocess.run(command, check=True, capture_output=True).stdout
        assert len(decoded) == 2 * num_samples, command[0]


@pytest.mark.parametrize("name", ["mp3", "opus", "aac", "flac", "wav", "pcm"])
def test_a_player_hears_every_format_at_its_length(service: Service, tmp_path: Path, name: str) -> None:
    assert shutil.which("mpv"), "mpv is needed (apt-get install mpv)"
    spoken = httpx.post(service.url + "/v1/audio/speech", json=body(), timeout=120).content
    reply = httpx.post(service.url + "/v1/audio/speech", json=body() | {"response_format": name}, timeout=120)
    path, heard = tmp_path / f"speech.{name}", tmp_path / "heard.wav"
    path.write_bytes(reply.content)
    raw = ["--demuxer=rawaudio", "--demuxer-rawaudio-rate=24000", "--demuxer-rawaudio-format=s16le"]
    raw.append("--demuxer-rawaudio-channels=1")
    command = ["mpv", "--no-config", "--no-video", "--ao=pcm", f"--ao-pcm-file={heard}"]
    subprocess.run([*command, *(raw if name == "pcm" else []), str(path)], check=True, capture_output=True, timeout=60)
    found = soundfile.info(heard)
    assert abs(found.frames / found.samplerate - len(spoken) / 48_000) < 0.05


async def test_simultaneous_requests_with_different_voices_give_what_each_gives_alone(service: Service) -> None:
    names = voices(service)[:2]
    assert len(names) == 2 and names[0] != names[1]
    async with httpx.AsyncClient(base_url=service.url, timeout=120) as client:

        async def speak(voice: str) -> np.ndarray[tuple[int], np.dtype[np.int16]]:
            reply = await client.post("/v1/audio/speech", json=body(voice))
            assert reply.status_code == 200, reply.text
            return np.frombuffer(reply.content, dtype="<i2")

        alone = [await speak(name) for name in names]
        together = await asyncio.gather(*(speak(name) for name in names))
    for one, other in zip(alone, together, strict=True):
        assert len(one) == len(other)
        assert np.abs(one.astype(int) - other).max() <= 4  # 1e-4 of full scale, in steps of 16 bits
    assert len(alone[0]) != len(alone[1]) or np.abs(alone[0].astype(int) - alone[1]).max() > 100


async def test_fifty_abandoned_requests_leave_no_open_stream(service: Service) -> None:
    text = " ".join([SENTENCE] * 20)
    async with httpx.AsyncClient(base_url=service.url, timeout=120) as client:

        async def abandon(parts: int) -> None:
            """Leaves after so many parts; tries again if those who just left have not made room yet."""
            async with client.stream("POST", "/v1/audio/speech", json=body() | {"input": text}) as response:
                if response.status_code == 200:
                    received = response.aiter_raw()
                    for _ in range(parts):
                        await anext(received)
                    return
                assert response.status_code == 429
            await asyncio.sleep(0.2)
            await abandon(parts)

        for start in range(0, 50, 5):
            await asyncio.gather(*(abandon((start + offset) % 3) for offset in range(5)))
    assert await asyncio.to_thread(service.num_open_streams) == 0


def test_an_uploaded_clip_is_spoken_with_and_a_bad_one_is_refused(service: Service) -> None:
    rate = 16_000
    clip = io.BytesIO()
    tone = 0.3 * np.sin(2 * np.pi * 150 * np.arange(3 * rate) / rate) * np.hanning(3 * rate)
    soundfile.write(clip, tone, rate, format="FLAC")
    encoded = base64.b64encode(clip.getvalue()).decode()
    reply = httpx.post(
        service.url + "/v1/audio/speech", json=body() | {"ref_audio": encoded, "ref_text": "ah"}, timeout=60
    )
    assert reply.status_code == 200 and len(reply.content) > 24_000
    reply = httpx.post(service.url + "/v1/audio/speech", json=body() | {"ref_audio": "AAAA"}, timeout=60)
    assert reply.status_code == 400 and reply.json()["error"]["code"] == "invalid_audio"


def test_instructions_are_accepted(service: Service) -> None:
    reply = httpx.post(service.url + "/v1/audio/speech", json=body() | {"instructions": "Speak slowly."}, timeout=60)
    assert reply.status_code == 200 and len(reply.content) > 0


def test_unknown_voices_and_empty_texts_are_named(service: Service) -> None:
    reply = httpx.post(service.url + "/v1/audio/speech", json=body("nobody"), timeout=60)
    assert (reply.status_code, reply.json()["error"]["code"]) == (400, "voice_not_found")
    reply = httpx.post(service.url + "/v1/audio/speech", json=body() | {"input": " ... "}, timeout=60)
    assert (reply.status_code, reply.json()["error"]["code"]) == (400, "empty_input")
    assert "VoiceNotFound:" not in service.log.read_text(), "a mistake of a client's is not worth a traceback"


def test_the_readme_commands_start_speak_and_end_with_ctrl_c(tmp_path: Path) -> None:
    serve, curl = readme_commands()
    assert serve.startswith("make serve")
    port = free_port()
    log = tmp_path / "log"
    with log.open("wb") as output:
        make = subprocess.Popen(
            ["make", "serve", f"PORT={port}"],
            cwd=ROOT,
            env=environment(),
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    running = Service(f"http://127.0.0.1:{port}", make, log, ray_folder="")
    try:
        running.wait_until_ready()
        printed = next(line for line in wait_for_lines(log, "curl") if "curl" in line)
        for number, command in enumerate((curl.replace("8000", str(port)), printed)):
            folder = tmp_path / str(number)
            folder.mkdir()
            subprocess.run(command, shell=True, check=True, cwd=folder, timeout=60)
            samples, rate = soundfile.read(folder / "hello.wav")
            assert rate == 24_000 and len(samples) > 12_000
        assert len(processes_of_session(make.pid)) > 3
    finally:
        os.killpg(make.pid, signal.SIGINT)  # what a terminal does on Ctrl-C
        make.wait(timeout=60)
    deadline = time.monotonic() + 30
    while processes_of_session(make.pid) and time.monotonic() < deadline:
        time.sleep(0.2)
    assert processes_of_session(make.pid) == []


def readme_commands() -> tuple[str, str]:
    """The README's first command, and its curl line."""
    blocks = re.findall(r"```sh\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    return blocks[0].strip(), next(block for block in blocks if block.startswith("curl"))


def wait_for_lines(log: Path, word: str) -> list[str]:
    """The log's lines, once one of them holds `word`."""
    deadline = time.monotonic() + 30
    while word not in log.read_text() and time.monotonic() < deadline:
        time.sleep(0.2)
    return log.read_text().splitlines()


def processes_of_session(session: int) -> list[str]:
    """Command lines of every living process that `cosyserve serve` started, its own included."""
    listed = subprocess.run(["ps", "-eo", "sid=,stat=,args="], check=True, capture_output=True, text=True).stdout
    rows = [line.split(None, 2) for line in listed.splitlines()]
    return [row[2] for row in rows if int(row[0]) == session and not row[1].startswith("Z")]


def test_a_taken_port_is_one_clear_line(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", free_port()))
        taken.listen()
        port = str(taken.getsockname()[1])
        command = [sys.executable, "-m", "serve_app.cli", "serve", "configs/local.yaml", "--port", port]
        ended = subprocess.run(command, check=False, capture_output=True, text=True, timeout=60, cwd=ROOT)
    assert ended.returncode == 1 and ended.stderr.startswith("cosyserve: cannot listen on 127.0.0.1")


def test_a_checkpoint_that_cannot_be_loaded_ends_the_start_with_its_fault(tmp_path: Path) -> None:
    running = start_service(tmp_path, local_settings(tmp_path / "nowhere"))
    try:
        assert running.process.wait(timeout=180) == 1
        assert "nowhere" in running.log.read_text()
    finally:
        running.stop()
