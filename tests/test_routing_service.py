"""Two synthesis replicas in the real service: a voice stays where it is known, a crowd spreads, text finds its way."""

import ast
import asyncio
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from websockets.asyncio.client import connect

from tests.conftest import Service, local_settings, start_service

pytestmark = pytest.mark.service

SENTENCE = "the sun and the rain and the wind and the snow and the clouds and the stars over all the hills"


@pytest.fixture(scope="module")
def service(toy_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    settings = local_settings(toy_checkpoint)
    settings["logging_config"]["enable_access_log"] = True
    (synthesis,) = (d for d in settings["applications"][0]["deployments"] if d["name"] == "Synthesis")
    synthesis["num_replicas"] = 2
    synthesis["ray_actor_options"]["num_cpus"] = 0.2
    running = start_service(tmp_path_factory.mktemp("two"), settings)
    try:
        running.wait_until_ready()
        yield running
    finally:
        running.stop()


def calls(service: Service, kind: str, num_expected: int) -> dict[str, int]:
    """How many calls of a kind each replica has answered, once these are `num_expected` altogether."""
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        logs = Path(service.ray_folder).glob("**/session_2*/logs/serve/replica_*Synthesis*.log")
        counts = {log.name: log.read_text().count(f"CALL {kind} OK") for log in logs}
        if sum(counts.values()) >= num_expected:
            break
        time.sleep(0.1)
    assert sum(counts.values()) == num_expected and len(counts) == 2, counts
    return counts


def body(voice: str) -> dict[str, Any]:
    return {"input": "Hello there.", "voice": voice, "response_format": "pcm", "seed": 1}


class Crowd:
    """Sentences that are written word by word, and whose last words wait until each of them has been heard."""

    def __init__(self, size: int) -> None:
        self.size, self.num_heard = size, 0
        self.heard = asyncio.Condition()

    async def gather(self, service: Service) -> list[int]:
        """One after another, each once the one before is heard -> the bytes of everyone's sound.

        Of requests that come at the same moment a router may not know yet how many a replica has.
        """
        speaking = []
        for number in range(self.size):
            speaking.append(asyncio.create_task(self.speak(service)))
            await self.until_heard(number + 1)
        return await asyncio.gather(*speaking)

    async def speak(self, service: Service) -> int:
        """One of them -> the bytes of its sound."""
        url = service.url.replace("http", "ws") + "/v1/audio/speech/stream"
        words = [json.dumps({"type": "input.text", "text": word + " "}) for word in SENTENCE.split()]
        num_bytes = 0
        async with connect(url, proxy=None) as socket:
            for word in words[:-2]:
                await socket.send(word)
            frame: str | bytes = b""
            while isinstance(frame, bytes) or json.loads(frame)["type"] != "audio.done":
                frame = await asyncio.wait_for(socket.recv(), 60)
                if isinstance(frame, bytes):
                    if num_bytes == 0:
                        await self.hear()
                        for last in (*words[-2:], '{"type": "input.flush"}'):
                            await socket.send(last)
                    num_bytes += len(frame)
        return num_bytes

    async def hear(self) -> None:
        async with self.heard:
            self.num_heard += 1
            self.heard.notify_all()
        await self.until_heard(self.size)

    async def until_heard(self, count: int) -> None:
        async with self.heard:
            await asyncio.wait_for(self.heard.wait_for(lambda: self.num_heard >= count), 60)


def prefix_counts(service: Service) -> list[tuple[int, int]]:
    """Of each replica: utterances that found their voice's flow prefix, and those that did not."""
    question = (
        "import ray; from ray import serve;"
        f"ray.init({service.ray_address()!r}, namespace='serve', logging_level='error');"
        "handle = serve.get_deployment_handle('Synthesis', 'speech');"
        "print('counts', handle.broadcast('prefix_counts').results(timeout_s=30))"
    )
    answer = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", question],
        check=True,
        env=service.ray_environment(),
        capture_output=True,
        text=True,
        timeout=120,
    )
    counts: list[tuple[int, int]] = ast.literal_eval(answer.stdout.split("counts")[-1].strip())
    return counts


async def test_routing(service: Service) -> None:
    spoken = 0
    warmed_up = sum(misses for _, misses in await asyncio.to_thread(prefix_counts, service))
    async with httpx.AsyncClient(base_url=service.url, timeout=120) as client:
        before = calls(service, "speak", 0)
        for voice in ("clara", "helen", "martin", "nora"):
            for _ in range(3):
                reply = await client.post("/v1/audio/speech", json=body(voice))
                assert reply.status_code == 200
            spoken += 3
            after = calls(service, "speak", spoken)
            assert sorted(after[name] - before[name] for name in after) == [0, 3], "a voice stays with one replica"
            before = after

        counts = await asyncio.to_thread(prefix_counts, service)
        # an utterance may be spoken in more than one piece, but every voice was computed once in the whole service
        assert sum(misses for _, misses in counts) - warmed_up == 4
        assert sum(hits for hits, _ in counts) >= 8

        crowds = 0
        while min(after[name] - before[name] for name in after) == 0:
            crowds += 1
            assert crowds <= 10, "a crowd with one voice spreads"
            replies = await asyncio.gather(*(client.post("/v1/audio/speech", json=body("default")) for _ in range(6)))
            assert [reply.status_code for reply in replies] == [200] * 6
            spoken += 6
            after = calls(service, "speak", spoken)
        before = after

    assert min(await Crowd(4).gather(service)) > 48_000
    after = calls(service, "speak", spoken + 4)
    assert min(after[name] - before[name] for name in after) >= 1, "both were fed, each its own"
    ends = calls(service, "end_text", 4)
    assert {name: after[name] - before[name] for name in after} == ends
