"""The real service with keys: who gets in, whose voices they see, and whether a key is written down anywhere."""

import asyncio
import json
import secrets
import tempfile
from pathlib import Path

import httpx
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from tests.chaos.listeners import client_for, speech_body
from tests.chaos.results import Table
from tests.chaos.target import running
from tests.conftest import ROOT, Service

COLUMNS = ("asked", "with", "answer")
CLIP = ROOT / "configs/voices/clara.wav"
LIVE = "/v1/audio/speech/stream"


async def register(client: httpx.AsyncClient, headers: dict[str, str]) -> httpx.Response:
    files = {"audio_sample": ("clip.wav", CLIP.read_bytes(), "audio/wav")}
    return await client.post("/v1/audio/voices", data={"name": "Secret"}, files=files, headers=headers)


async def ask_all(service: Service, ann: str, ben: str, wrong: str, table: Table) -> None:
    """Every way in, with each key and with none: strangers learn nothing, and of a voice only its owner."""

    def expect(asked: str, whose: str, answer: object, *allowed: object) -> None:
        table.add(asked, whose, answer)
        table.require(answer in allowed, f"{asked}, {whose}: {answer}")

    keys = {"its owner's key": ann, "another key": ben, "a wrong key": wrong, "no key": ""}
    async with client_for(service.url) as client:
        registered = await register(client, bearer(ann))
        assert registered.status_code == 200, registered.text
        voice = registered.json()["id"]
        for whose, key in keys.items():
            is_owner, is_known = key == ann, key in (ann, ben)
            listed = await client.get("/v1/audio/voices", headers=bearer(key))
            seen = voice in {one["id"] for one in listed.json().get("voices", ())}
            told = listed.status_code if not is_known else "listed" if seen else "not listed"
            expect("GET voices", whose, told, "listed" if is_owner else "not listed" if is_known else 401)
            path = f"/v1/audio/voices/{voice}"
            hidden = 200 if is_owner else 404 if is_known else 401
            expect("GET the voice", whose, (await client.get(path, headers=bearer(key))).status_code, hidden)
            by_address = (await client.get(path, params={"token": key})).status_code
            expect("GET the voice, key in the address", whose, by_address, hidden)
            body = speech_body("Good morning.", voice=voice)
            spoken = await client.post("/v1/audio/speech", json=body, headers=bearer(key))
            expect("speak with it", whose, spoken.status_code, 200 if is_owner else 400 if is_known else 401)
            on_socket = await spoken_on_socket(service.url, key, voice)
            allowed = "audio.start" if is_owner else "error voice_not_found" if is_known else "closed 1008"
            expect("speak with it on a WebSocket", whose, on_socket, allowed)
            status = (await client.get("/v1/status", headers=bearer(key))).status_code
            expect("GET status", whose, status, 200 if is_known else 401)
            health = (await client.get("/health", headers=bearer(key))).status_code
            expect("GET health", whose, health, 200)
        for whose in reversed(keys):
            deleted = (await client.delete(f"/v1/audio/voices/{voice}", headers=bearer(keys[whose]))).status_code
            expected = {"its owner's key": 200, "another key": 404}.get(whose, 401)
            expect("DELETE the voice", whose, deleted, expected)


def bearer(key: str) -> dict[str, str]:
    return {"authorization": f"Bearer {key}"} if key else {}


async def spoken_on_socket(url: str, key: str, voice: str) -> str:
    """What a WebSocket with the key in its address, as browsers must send it, hears first, or how it is closed."""
    async with connect(f"{url.replace('http', 'ws')}{LIVE}?token={key}", proxy=None) as socket:
        try:
            for frame in ({"type": "session.config", "voice": voice}, {"type": "input.text", "text": "Hi."}):
                await socket.send(json.dumps(frame))
            await socket.send('{"type":"input.flush"}')
            event = json.loads(await asyncio.wait_for(socket.recv(), 30))
        except ConnectionClosed:
            return f"closed {socket.close_code}"
    return f"{event['type']} {event['error']['code']}" if event["type"] == "error" else str(event["type"])


def files_with(folder: Path, words: list[str]) -> list[str]:
    """Files below a folder, sockets and the like aside, that hold one of the words."""
    found = []
    for path in folder.rglob("*"):
        if path.is_file() and not path.is_symlink():
            content = path.read_bytes()
            found += [path.name for word in words if word.encode() in content]
    return found


def access_table() -> Table:
    """The empty table."""
    return Table("Access", "python -m tests.chaos access", COLUMNS)


def run_access(checkpoint: Path, table: Table) -> None:
    """Two keys, `voices_per_key`, and afterwards a search of every log of the service and of its Ray."""
    ann, ben, wrong = (secrets.token_hex(16) for _ in range(3))
    with tempfile.TemporaryDirectory(prefix="chaos-") as scratch:
        keys = Path(scratch) / "keys"
        keys.write_text(f"{ann}\n{ben}\n")
        with running(checkpoint=checkpoint, api={"api_keys_file": str(keys), "voices_per_key": True}) as service:
            asyncio.run(ask_all(service, ann, ben, wrong, table))
            found = files_with(Path(service.ray_folder), [ann, ben, wrong]) + files_with(
                service.log.parent, [ann, ben, wrong]
            )
    table.require(not found, "no file holds a key")
    table.remarks.append(f"Files of logs, sessions and voices that hold a key: {', '.join(found) or 'none'}.")
