"""Uploads over HTTP, as a voice or with a request, to the real intake: one clear 400, soon, in little memory."""

import asyncio
import base64
import resource
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from serve_app.config import PreprocessConfig
from serve_app.errors import AudioTooLong, AudioTooShort, InvalidAudio
from serve_app.messages import ClipPreview, NewVoice, PreparedSpeech, ReferenceClip, RegisteredVoice, SpeechRequest
from serve_app.preprocess.preprocessor import Preprocessor
from tests.api.live import assert_error, client_of
from tests.fakes import FakeService
from tests.preprocess.sounds import encoded, speech_like
from tests.preprocess.test_reference_audio import BAD_FILES

CODES = {InvalidAudio: "invalid_audio", AudioTooShort: "audio_too_short", AudioTooLong: "audio_too_long"}
MAX_S = 3.0
MAX_KIB = 160 * 1024
"""The largest of the files has 8 MB, which is held as a body, as base64 and as bytes."""


@dataclass
class IntakeService(FakeService):
    """The service with real preprocessing, in this process."""

    preprocessor: Preprocessor | None = None

    async def prepare(self, request: SpeechRequest) -> PreparedSpeech:
        assert self.preprocessor is not None
        return await asyncio.to_thread(self.preprocessor.prepare, request)

    async def register_voice(self, new: NewVoice) -> RegisteredVoice:
        assert self.preprocessor is not None
        return await asyncio.to_thread(self.preprocessor.register_voice, new)

    async def preview_clip(self, reference: ReferenceClip) -> ClipPreview:
        assert self.preprocessor is not None
        return await asyncio.to_thread(self.preprocessor.preview, reference)


@pytest.fixture(scope="module")
def service(frontend: Path, tmp_path_factory: pytest.TempPathFactory) -> IntakeService:
    folder = tmp_path_factory.mktemp("service")
    config = PreprocessConfig(voices_dir=folder, voice_store=str(folder / "voices"))
    return IntakeService(preprocessor=Preprocessor(frontend, config))


def peak_kib() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


@pytest.mark.parametrize(("data", "error"), [(d, e) for _, d, e in BAD_FILES], ids=[name for name, _, _ in BAD_FILES])
async def test_bad_uploads(service: IntakeService, data: bytes, error: type[InvalidAudio]) -> None:
    started, before = time.process_time(), peak_kib()
    body = {"input": "Hello.", "ref_audio": "data:audio/wav;base64," + base64.b64encode(data).decode()}
    async with client_of(service) as client:
        form = {"audio_sample": ("voice.wav", data, "audio/wav")}
        registered = await client.post("/v1/audio/voices", data={"name": "Zoë"}, files=form)
        previewed = await client.post("/v1/audio/voices/preview", files=form)
        spoken = await client.post("/v1/audio/speech", json=body)
    told = assert_error(registered, 400, CODES[error], "audio_sample")
    assert previewed.json() == registered.json() and previewed.status_code == 400
    assert_error(spoken, 400, CODES[error], "ref_audio")
    assert told["message"].endswith(".")
    assert time.process_time() - started < MAX_S
    assert peak_kib() - before < MAX_KIB


@pytest.mark.parametrize(
    ("rate_hz", "subtype", "channels"),
    [(24_000, "PCM_U8", 1), (48_000, "FLOAT", 2), (192_000, "PCM_24", 2), (8_000, "ULAW", 1), (44_100, "DOUBLE", 1)],
)
async def test_unusual_uploads_that_are_sound(
    service: IntakeService, rate_hz: int, subtype: str, channels: int
) -> None:
    data = encoded(np.stack([speech_like(1.0, rate_hz)] * channels, axis=1), rate_hz, subtype=subtype)
    async with client_of(service) as client:
        form = {"audio_sample": ("voice.wav", data, "audio/wav")}
        registered = await client.post("/v1/audio/voices", data={"name": f"{subtype} {rate_hz}"}, files=form)
    assert registered.status_code == 200, registered.text
    assert registered.json()["quality"]["duration_s"] == pytest.approx(1.0)
