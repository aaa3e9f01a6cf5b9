"""The real service with keys: who gets in, whose voices they see, and whether a key is written down anywhere."""

import asyncio
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
    """Every way in, with each key and with none."""
    async with client_for(service.url) as client:
        registered = await register(client, {"authorization": f"Bearer {ann}"})
        assert registered.status_code == 200, registered.text
        voice = registered.json()["id"]
        for whose, key in (("its owner's key", ann), ("another key", ben), ("a wrong key", wrong), ("no key", "")):
            headers = {"authorization": f"Bearer {key}"} if key else {}
            listed = (await client.get("/v1/audio/voices", headers=headers)).json()["voices"]
            table.add("GET voices", whose, "listed" if voice in {v["id"] for v in listed} else "not listed")
            for path in (f"/v1/audio/voices/{voice}", f"/v1/audio/voices/{voice}?token={key}"):
                table.add("GET the voice", whose, (await client.get(path, headers=headers)).status_code)
            body = speech_body("Good morning.", voice=voice)
            answer = await client.post("/v1/audio/speech", json=body, headers=headers)
            table.add("speak with it", whose, answer.status_code)
            table.add("speak on a WebSocket", whose, await close_code(service.url, key))
        for whose, key in (("a wrong key", wrong), ("no key", ""), ("another key", ben), ("its owner's key", ann)):
            headers = {"authorization": f"Bearer {key}"} if key else {}
            deleted = await client.delete(f"/v1/audio/voices/{voice}", headers=headers)
            table.add("DELETE the voice", whose, deleted.status_code)


async def close_code(url: str, key: str) -> str:
    """A WebSocket with the key in its address, as browsers must send it: welcome, or its close code."""
    async with connect(f"{url.replace('http', 'ws')}{LIVE}?token={key}", proxy=None) as socket:
        try:
            await socket.send('{"type":"session.close"}')
            await asyncio.wait_for(socket.recv(), 10)
        except ConnectionClosed:
            return str(socket.close_code)
    return "welcome"


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
    table.remarks.append(f"Files of logs, sessions and voices that hold a key: {', '.join(found) or 'none'}.")
