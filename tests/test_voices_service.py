"""Registered voices in the real service: two replicas that prepare, a restart on the same store, HTTP throughout."""

import time
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.conftest import Service, local_settings, start_service
from tests.preprocess.sounds import encoded, speech_like

pytestmark = pytest.mark.service

WORDS = "the same words for everybody"


def settings(checkpoint: Path, store: Path) -> dict[str, Any]:
    """The service with `store` and two replicas that prepare, which write a line for each call."""
    made = local_settings(checkpoint)
    made["logging_config"]["enable_access_log"] = True
    made["applications"][0]["args"]["preprocess"]["voice_store"] = str(store)
    (preprocess,) = (d for d in made["applications"][0]["deployments"] if d["name"] == "Preprocess")
    preprocess["num_replicas"] = 2
    return made


def register(service: Service, name: str, seed: int, rate_hz: int = 24_000) -> httpx.Response:
    clip = encoded(speech_like(3.0, rate_hz, seed=seed), rate_hz)
    form = {"name": name, "ref_text": WORDS, "language": "en"}
    return httpx.post(service.url + "/v1/audio/voices", data=form, files={"audio_sample": clip}, timeout=60)


def speech(service: Service, voice: str) -> httpx.Response:
    body = {"input": "Hello there.", "voice": voice, "response_format": "pcm", "seed": 7}
    return httpx.post(service.url + "/v1/audio/speech", json=body, timeout=60)


def names(service: Service) -> list[str]:
    listed = httpx.get(service.url + "/v1/audio/voices", timeout=60).json()["data"]
    return [voice["name"] for voice in listed if voice["type"] == "audio_sample"]


def calls(service: Service) -> list[int]:
    """How many requests each replica has prepared."""
    logs = Path(service.ray_folder).glob("**/session_2*/logs/serve/replica_*Preprocess*.log")
    return [log.read_text().count("CALL prepare OK") for log in logs]


def speech_of_both_replicas(service: Service, voice: str) -> bytes:
    """What the voice says, whoever prepares it: asked until each of two fresh replicas has done so."""
    said = set()
    deadline = time.monotonic() + 60
    while sum(count > 0 for count in calls(service)) < 2:
        assert time.monotonic() < deadline, f"calls of the replicas: {calls(service)}"
        reply = speech(service, voice)
        assert reply.status_code == 200, reply.text
        said.add(reply.content)
    (sound,) = said
    assert len(sound) > 4_800
    return sound


def test_a_voice_is_the_same_in_every_replica_and_after_a_restart(toy_checkpoint: Path, tmp_path: Path) -> None:
    store = tmp_path / "voices"
    first = start_service(tmp_path, settings(toy_checkpoint, store))
    try:
        first.wait_until_ready()
        registered = register(first, "Anna", seed=1)
        assert registered.status_code == 200, registered.text
        anna = registered.json()
        assert anna["id"].startswith("voice_") and anna["quality"]["duration_s"] == pytest.approx(3.0, abs=0.01)
        sound = speech_of_both_replicas(first, "Anna")
        # 192 kHz: too large for a message between replicas
        assert register(first, "Bob", seed=2, rate_hz=192_000).status_code == 200
        taken = register(first, "ANNA", seed=3)
        assert (taken.status_code, taken.json()["error"]["code"]) == (409, "voice_exists")
        assert names(first) == ["Anna", "Bob"]
        other_sound = speech(first, "Bob").content
        assert other_sound != sound, "the same words, another voice"
    finally:
        first.stop()

    second = start_service(tmp_path, settings(toy_checkpoint, store))
    try:
        second.wait_until_ready()
        assert names(second) == ["Anna", "Bob"]
        assert speech(second, "Anna").content == speech(second, anna["id"]).content == sound
        assert speech(second, "Bob").content == other_sound
        assert httpx.delete(f"{second.url}/v1/audio/voices/Anna", timeout=60).status_code == 200
        assert names(second) == ["Bob"]
        time.sleep(1)  # by then every replica knows
        for _ in range(6):
            gone = speech(second, "Anna")
            assert (gone.status_code, gone.json()["error"]["code"]) == (400, "voice_not_found")
        assert speech(second, "Bob").content == other_sound
    finally:
        second.stop()
    assert len(list((store / "data").iterdir())) == 1, "nothing of the deleted voice is left"
