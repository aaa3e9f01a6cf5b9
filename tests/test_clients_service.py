"""Programs that people already use, unchanged, against the real service: the SDKs, and the readers of audio files."""

import base64
import json
import shutil
import subprocess
import threading
import warnings
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from tests.conftest import Service

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import dashscope
    import openai
    from dashscope.audio import tts_v2
    from dashscope.common.error import InvalidTask, RequestFailure

pytestmark = pytest.mark.service

SENTENCE = "Good morning, everybody."
FORMATS = ("mp3", "opus", "aac", "flac", "wav", "pcm")
RAW = ["-t", "raw", "-r", "24000", "-e", "signed", "-b", "16", "-c", "1"]
"""What sox has to be told about PCM."""


@pytest.fixture
def sdk(service: Service) -> Iterator[Any]:
    options: dict[str, Any] = {"api_key": "any", "max_retries": 0, "http_client": httpx.Client(trust_env=False)}
    with openai.OpenAI(base_url=service.url + "/v1", **options) as client:
        yield client


def ask(**more: object) -> dict[str, object]:
    return {
        "model": "tts-1",
        "voice": "nova",
        "input": SENTENCE,
        "response_format": "pcm",
        "extra_body": {"seed": 7},
        **more,
    }


def test_openai_plain_streaming_and_events_are_the_same_speech(sdk: Any, tmp_path: Path) -> None:
    plain = sdk.audio.speech.create(**ask()).content
    assert np.abs(np.frombuffer(plain, np.int16)).max() > 100
    streaming = sdk.audio.speech.with_streaming_response
    with streaming.create(**ask()) as response:
        response.stream_to_file(tmp_path / "speech.pcm")
    assert (tmp_path / "speech.pcm").read_bytes() == plain
    with streaming.create(**ask(stream_format="sse")) as response:
        events = list(openai.Stream[Any](cast_to=object, response=response.http_response, client=sdk))
    *deltas, done = events
    # How many they are depends on how soon the service and its reader are ready for the next.
    assert deltas and done["type"] == "speech.audio.done"
    assert b"".join(base64.b64decode(delta["audio"]) for delta in deltas) == plain


@pytest.mark.parametrize(
    ("change", "error", "code"),
    [
        ({"input": ""}, openai.BadRequestError, "empty_input"),
        ({"voice": "nobody"}, openai.BadRequestError, "voice_not_found"),
        ({"model": "whisper-1"}, openai.NotFoundError, "model_not_found"),
        ({"speed": 9}, openai.BadRequestError, "invalid_value"),
    ],
)
def test_openai_errors(sdk: Any, change: dict[str, object], error: type[openai.APIStatusError], code: str) -> None:
    with pytest.raises(error) as caught:
        sdk.audio.speech.create(**ask(**change))
    assert caught.value.code == code
    assert caught.value.request_id


def test_openai_lists_the_model(sdk: Any) -> None:
    assert [model.id for model in sdk.models.list()] == ["cosyvoice2-0.5b"]


class Listener(tts_v2.ResultCallback):
    """Keeps the sound and what went wrong."""

    def __init__(self) -> None:
        self.audio = b""
        self.errors: list[str] = []
        self.failed = threading.Event()

    def on_data(self, data: bytes) -> None:
        self.audio += data

    def on_error(self, message: Any) -> None:
        self.errors.append(str(message))
        self.failed.set()


def synthesizer(service: Service, **more: Any) -> Any:
    dashscope.api_key = "any"
    url = service.url.replace("http", "ws") + "/api-ws/v1/inference"
    pcm = tts_v2.AudioFormat.PCM_24000HZ_MONO_16BIT
    return tts_v2.SpeechSynthesizer(model="cosyvoice-v2", url=url, **{"voice": "default", "format": pcm, **more})


def test_dashscope_call_and_word_by_word(service: Service) -> None:
    spoken = synthesizer(service).call(SENTENCE)
    assert len(spoken) % 2 == 0 and np.abs(np.frombuffer(spoken, np.int16)).max() > 100
    listener = Listener()
    live = synthesizer(service, callback=listener)
    for word in SENTENCE.split():
        live.streaming_call(word + " ")
    live.streaming_complete()
    assert not listener.errors
    assert len(listener.audio) % 2 == 0 and np.abs(np.frombuffer(listener.audio, np.int16)).max() > 100


def test_dashscope_hears_that_a_voice_is_unknown(service: Service) -> None:
    listener = Listener()
    unknown = synthesizer(service, voice="nobody", callback=listener)
    with suppress(ConnectionError, RequestFailure, InvalidTask):  # raised where the failure was heard of in time
        unknown.call(SENTENCE)
    assert listener.failed.wait(60)
    told = json.loads(listener.errors[0])["header"]
    assert (told["event"], told["error_code"]) == ("task-failed", "InvalidParameter")
    assert "no voice of that id" in told["error_message"]
    assert not listener.audio


@pytest.fixture(scope="module")
def spoken(service: Service) -> dict[str, bytes]:
    """The same sentence in every format."""
    asked = {"input": SENTENCE, "seed": 7}
    return {
        name: httpx.post(f"{service.url}/v1/audio/speech", json={**asked, "response_format": name}, timeout=120).content
        for name in FORMATS
    }


@pytest.mark.parametrize(
    ("program", "name"),
    [("ffmpeg", name) for name in FORMATS] + [("sox", name) for name in ("mp3", "flac", "wav", "pcm")],
)
def test_readers_of_files(spoken: dict[str, bytes], tmp_path: Path, program: str, name: str) -> None:
    """sox knows neither AAC nor, as Debian builds it, Opus."""
    assert shutil.which(program), f"{program} is needed (apt-get install {program} libsox-fmt-mp3)"
    path = tmp_path / f"speech.{name}"
    path.write_bytes(spoken[name])
    if program == "ffmpeg":
        raw = ["-f", "s16le", "-ar", "24000", "-ac", "1"]
        command = ["ffmpeg", "-v", "error", *(raw if name == "pcm" else []), "-i", str(path), *raw, "-"]
    else:
        command = ["sox", "-V1", "--ignore-length", *(RAW if name == "pcm" else []), str(path), *RAW, "-"]
    heard = np.frombuffer(subprocess.run(command, check=True, capture_output=True, timeout=60).stdout, np.int16)
    original = np.frombuffer(spoken["pcm"], np.int16)
    assert abs(len(heard) - len(original)) < 0.05 * 24_000
    loudness = [float(np.sqrt(np.mean(np.square(samples, dtype=np.float64)))) for samples in (heard, original)]
    assert loudness[0] == pytest.approx(loudness[1], rel=0.25)  # the lossy ones drop some of a toy voice's noise
