"""`cosyserve voices` against a small service that keeps to the contract of `/v1/audio/voices`."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse
from starlette.routing import Route
from typer.testing import CliRunner, Result

from serve_app.api.routes import create_api
from serve_app.cli import app
from serve_app.config import ApiConfig
from tests.fakes import FakeService
from tests.loopback import serving

BUILTIN = {"id": "clara", "name": "clara", "object": "audio.voice", "type": "builtin", "language": "en"}
WARNING = "There is a mains hum of 50 Hz."
QUALITY = {"speech_s": 3.25, "snr_db": 12.0, "denoised": True, "warnings": [WARNING]}


class VoiceService:
    """Keeps what was posted."""

    def __init__(self) -> None:
        self.voices: dict[str, dict[str, Any]] = {"clara": BUILTIN}
        self.forms: list[dict[str, object]] = []

    async def list(self, request: Request) -> JSONResponse:
        voices = list(self.voices.values())
        return JSONResponse({"object": "list", "voices": voices, "data": voices})

    async def add(self, request: Request) -> JSONResponse:
        async with request.form() as form:
            clip = form["audio_sample"]
            assert not isinstance(clip, str)
            self.forms.append({**form, "audio_sample": await clip.read()})
        name = str(self.forms[-1]["name"])
        if name in self.voices:
            return refusal(409, "That name is taken.")
        self.voices[name] = {"id": f"voice_{len(self.voices)}", "name": name, "type": "audio_sample", "language": ""}
        return JSONResponse({**self.voices[name], "quality": QUALITY})

    async def remove(self, request: Request) -> JSONResponse:
        name = request.path_params["voice"]
        if name not in self.voices:
            return refusal(404, "No voice of that id or name.")
        if self.voices[name]["type"] == "builtin":
            return refusal(403, "A built-in voice cannot be deleted.")
        del self.voices[name]
        return JSONResponse({"deleted": True})


def refusal(status: int, message: str) -> JSONResponse:
    error = {"message": message, "type": "invalid_request_error", "param": None, "code": None}
    return JSONResponse({"error": error}, status)


@pytest.fixture
def service() -> VoiceService:
    return VoiceService()


@pytest.fixture
def url(service: VoiceService) -> Iterator[str]:
    routes = [
        Route("/v1/audio/voices", service.list, methods=["GET"]),
        Route("/v1/audio/voices", service.add, methods=["POST"]),
        Route("/v1/audio/voices/{voice}", service.remove, methods=["DELETE"]),
    ]
    with serving(Starlette(routes=routes)) as address:
        yield address


def voices(url: str, *arguments: str) -> Result:
    return CliRunner().invoke(app, ["voices", *arguments, "--url", url])


def test_a_voice_comes_and_goes(url: str, service: VoiceService, tmp_path: Path) -> None:
    clip = tmp_path / "clip.wav"
    clip.write_bytes(b"a clip")
    added = voices(url, "add", "Anna Ünal", str(clip), "--ref-text", "Some words.", "--language", "de")
    assert (added.exit_code, added.stdout) == (0, "voice_1\n")
    assert added.stderr.splitlines() == [
        "3.2 s of speech, 12 dB above its noise, denoised",
        f"warning: {WARNING}",
    ]
    assert service.forms == [
        {
            **{"name": "Anna Ünal", "ref_text": "Some words.", "language": "de", "denoise": "auto"},
            "audio_sample": b"a clip",
        }
    ]
    assert voices(url, "list").stdout == "clara\tclara\tbuiltin\ten\nvoice_1\tAnna Ünal\taudio_sample\t\n"
    assert json.loads(voices(url, "list", "--json").stdout) == list(service.voices.values())
    removed = voices(url, "rm", "Anna Ünal")
    assert (removed.exit_code, removed.output) == (0, "")
    assert list(service.voices) == ["clara"]


def test_refusals_are_the_services_own_words(url: str, tmp_path: Path) -> None:
    clip = tmp_path / "clip.wav"
    clip.write_bytes(b"a clip")
    ended = voices(url, "add", "clara", str(clip))
    assert (ended.exit_code, ended.stdout, ended.stderr) == (1, "", "cosyserve: That name is taken.\n")
    ended = voices(url, "rm", "a/b?c", "clara")
    assert (ended.exit_code, ended.stderr) == (
        1,
        "cosyserve: a/b?c: http answers\n".replace(
            "http answers", f"{url} answers with HTTP 404, and not as this service does"
        ),
    )
    ended = voices(url, "rm", "clara")
    assert (ended.exit_code, ended.stderr) == (1, "cosyserve: clara: A built-in voice cannot be deleted.\n")
    ended = voices(url, "add", "anna", str(tmp_path / "nowhere.wav"))
    assert ended.exit_code == 1 and ended.stderr.endswith("nowhere.wav: No such file or directory\n")


def test_the_real_edge_understands_it(tmp_path: Path) -> None:
    clip = tmp_path / "clip.wav"
    clip.write_bytes(b"a clip")
    service = FakeService()
    with serving(create_api(service, ApiConfig())) as url:
        before = voices(url, "list").stdout.splitlines()
        added = voices(url, "add", "Anna Ünal", str(clip), "--ref-text", "Some words.", "--denoise", "off")
        assert added.exit_code == 0, added.stderr
        identity = added.stdout.strip()
        assert f"{identity}\tAnna Ünal\taudio_sample\t" in voices(url, "list").stdout.splitlines()
        assert voices(url, "rm", identity).exit_code == 0
        assert voices(url, "list").stdout.splitlines() == before
        ended = voices(url, "rm", identity)
        assert ended.exit_code == 1 and ended.stderr.startswith(f"cosyserve: {identity}: No ")


@pytest.mark.parametrize("answer", ["<html>", "[]", '{"voices": ["clara"]}'])
def test_another_server_is_told_from_the_service(answer: str) -> None:
    async def other(request: Request) -> PlainTextResponse:
        return PlainTextResponse(answer)

    with serving(Starlette(routes=[Route("/v1/audio/voices", other)])) as url:
        ended = voices(url, "list")
        assert ended.exit_code == 1 and ended.stderr.startswith(f"cosyserve: {url} answers with something that is")
