"""The HTTP edge under abuse: raw bytes on a real socket, bodies of every wrong kind, addresses that must stay unasked.

The service behind the edge is the fake one: what is attacked is the server, the parsers and the answers.
"""

import asyncio
import json
import random
from collections.abc import Awaitable, Callable
from typing import TypeVar

import httpx
from websockets.asyncio.client import connect
from websockets.exceptions import WebSocketException

from serve_app.api.routes import create_api
from serve_app.config import ApiConfig
from tests.api.live import listening
from tests.chaos.hostile_text import nasty_name, nasty_ssml, nasty_text
from tests.fakes import FakeService, tone

Case = TypeVar("Case")
Outcomes = list[tuple[str, str]]
PATIENCE_S = 20.0
DRIP_S = 0.1
MAX_DRIPS = 30
SPEECH = "/v1/audio/speech"
GOOD = b'{"input":"Hi.","response_format":"pcm"}'


async def abused_api(number: int, seed: int, base: str | None = None) -> dict[str, Outcomes]:
    """Every family, by name. base: the URL of a real service; else the edge over a fake one."""
    draw = random.Random(seed)
    if base is not None:
        return await families(base, number, draw, None)
    service = FakeService(samples=tone(2_400))
    config = ApiConfig(body_timeout_s=1.0, socket_idle_s=1.0)
    async with listening(create_api(service, config)) as port:
        return await families(f"http://127.0.0.1:{port}", number, draw, service)


async def families(base: str, number: int, draw: random.Random, service: FakeService | None) -> dict[str, Outcomes]:
    found = {
        "request smuggling and broken HTTP": await each(raw_requests(draw), number, lambda raw: send_raw(base, raw)),
        "JSON bodies: NaN, surrogates, wrong types": await each(bodies(draw), number, lambda body: post(base, body)),
        "names in paths: traversal, unicode": await each(
            [nasty_name(draw) for _ in range(max(20, number))], number, lambda name: ask_by_name(base, name)
        ),
        "WebSocket frames": await each(frames(draw), max(10, number // 4), lambda frame: send_frame(base, frame)),
        "addresses (SSRF)": await ssrf(base, number),
        "bodies that come a byte at a time": await slow_bodies(base, max(10, number // 4)),
    }
    if service is not None:
        try:
            await service.until_open(0, timeout_s=10)
        except (TimeoutError, asyncio.TimeoutError):
            found["streams left open"] = [("after everything", "leak")]
    return found


async def each(cases: list[Case], number: int, act: Callable[[Case], Awaitable[str]]) -> Outcomes:
    """So many cases, over and over, four at a time; a case that takes too long hangs."""
    places = asyncio.Semaphore(4)

    async def one(case: Case) -> tuple[str, str]:
        async with places:
            try:
                return repr(case), await asyncio.wait_for(act(case), PATIENCE_S)
            except (asyncio.TimeoutError, TimeoutError):
                return repr(case), "hang"

    return list(await asyncio.gather(*(one(cases[index % len(cases)]) for index in range(number))))


def raw_requests(draw: random.Random) -> list[bytes]:
    """Whole requests as bytes: two lengths, length and chunks, broken chunks, folded, huge and forbidden headers."""
    head = b"POST /v1/audio/speech HTTP/1.1\r\nhost: t\r\ncontent-type: application/json\r\n"
    length = b"content-length: %d\r\n" % len(GOOD)
    smuggled = b"GET /v1/models HTTP/1.1\r\nhost: t\r\n\r\n"
    shapes = [
        head + length + b"transfer-encoding: chunked\r\n\r\n0\r\n\r\n" + smuggled,
        head + length + b"content-length: 5\r\n\r\n" + GOOD,
        head + b"content-length: 39, 5\r\n\r\n" + GOOD,
        head + b"content-length: +39\r\n\r\n" + GOOD,
        head + b"content-length: -1\r\n\r\n" + GOOD,
        head + b"content-length: 0x27\r\n\r\n" + GOOD,
        head + b"content-length: 99999999999999999999\r\n\r\n" + GOOD,
        head + b"transfer-encoding: chunked\r\ntransfer-encoding: identity\r\n\r\n0\r\n\r\n" + smuggled,
        head + b"transfer-encoding: xchunked\r\n\r\n27\r\n" + GOOD + b"\r\n0\r\n\r\n",
        head + b"transfer-encoding : chunked\r\n\r\n0\r\n\r\n" + smuggled,
        head + b"transfer-encoding: \x0bchunked\r\n\r\n0\r\n\r\n" + smuggled,
        head + b"transfer-encoding: chunked\r\n\r\nffffffffffffffff\r\n" + GOOD,
        head + b"transfer-encoding: chunked\r\n\r\n-1\r\n" + GOOD,
        head + b"transfer-encoding: chunked\r\n\r\n27;" + b"a" * 100_000 + b"\r\n" + GOOD + b"\r\n0\r\n\r\n",
        head + b"x-fold: a\r\n b\r\n" + length + b"\r\n" + GOOD,
        head + b"x-null: \x00\r\n" + length + b"\r\n" + GOOD,
        head + b"x-huge: " + b"a" * 1_000_000 + b"\r\n" + length + b"\r\n" + GOOD,
        head + b"x-many: 1\r\n" * 5_000 + length + b"\r\n" + GOOD,
        b"POST " + b"/" + b"a" * 200_000 + b" HTTP/1.1\r\nhost: t\r\n\r\n",
        b"GET http://elsewhere.example/ HTTP/1.1\r\nhost: t\r\n\r\n",
        b"GET /../../etc/passwd HTTP/1.1\r\nhost: t\r\n\r\n",
        b"GET /studio/..%2f..%2fconfig.py HTTP/1.1\r\nhost: t\r\n\r\n",
        b"GET /%00 HTTP/1.1\r\nhost: t\r\n\r\n",
        b"GET / HTTP/9.9\r\nhost: t\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"\r\n\r\n\r\n",
        head + length + b"expect: 100-continue\r\n\r\n" + GOOD,
        head + b"content-length: 1000\r\n\r\n" + GOOD,  # the rest never comes
        head + length + b"\r\n" + GOOD + smuggled,  # two requests at once: allowed
    ]
    whole = head + length + b"\r\n" + GOOD
    for _ in range(20):
        mutant = bytearray(whole)
        for _ in range(draw.randint(1, 6)):
            mutant[draw.randrange(len(mutant))] = draw.randrange(256)
        shapes.append(bytes(mutant))
    return shapes


async def send_raw(base: str, raw: bytes) -> str:
    """The status of the first answer, or how the connection ended; half of the connection is closed by us."""
    url = httpx.URL(base)
    reader, writer = await asyncio.open_connection(url.host, url.port)
    try:
        writer.write(raw)
        await writer.drain()
        first = await asyncio.wait_for(reader.readline(), 5)
        if not first:
            return "closed without an answer"
        status = first.split(b" ")[1][:3].decode("latin-1")
        return f"5xx: {status}" if status.startswith("5") and status not in ("501", "503", "505", "507") else status
    except (asyncio.TimeoutError, TimeoutError):
        return "waits for more"  # ends when we leave: nothing was complete
    except (ConnectionError, IndexError):
        return "closed without an answer"
    finally:
        writer.transport.abort()


def bodies(draw: random.Random) -> list[bytes]:
    """JSON that is nearly right."""
    values: list[object] = [None, True, 0, -1, 1e308, 2**70, "", "x" * 5000, [], {}, [[]], {"id": {"id": 1}}, "\u0000"]
    names = ("input", "voice", "speed", "seed", "response_format", "sample_rate", "ref_audio", "instructions", "model")
    made = [json.dumps({"input": "Hi.", name: value}).encode() for name in names for value in values]
    made += [b'{"input":"Hi.","speed":%s}' % word for word in (b"NaN", b"Infinity", b"-Infinity", b"1e999", b"1" * 400)]
    made += [b'{"input":"\\ud800"}', b'{"input":"\\udc00\\ud800"}', b'{"input":"\xed\xa0\x80"}', b'{"input":"\xff"}']
    made += [
        b"[" * 100_000,
        b'{"a":' * 50_000,
        b"",
        b"null",
        b'"x"',
        b"\xef\xbb\xbf{}",
        b'{"input":"a","input":1}',
        b"{" * 9,
    ]
    for _ in range(60):
        text = nasty_ssml(draw) if draw.random() < 0.5 else nasty_text(draw)
        made.append(json.dumps({"input": text, "voice": nasty_name(draw)}).encode())
    draw.shuffle(made)
    return made


async def post(base: str, body: bytes) -> str:
    async with httpx.AsyncClient(base_url=base, trust_env=False, timeout=PATIENCE_S) as client:
        return verdict(await client.post(SPEECH, content=body, headers={"content-type": "application/json"}))


async def ask_by_name(base: str, name: str) -> str:
    """GET and DELETE of a voice, a model and a file of the page."""
    worst = ""
    encoded = "".join(f"%{byte:02x}" for byte in name.encode("utf-8", "surrogatepass"))
    async with httpx.AsyncClient(base_url=base, trust_env=False, timeout=PATIENCE_S) as client:
        for method, folder in (("GET", "/v1/audio/voices/"), ("DELETE", "/v1/audio/voices/"), ("GET", "/v1/models/")):
            worst = max(worst, verdict(await client.request(method, folder + encoded)))
        response = await client.get("/studio/" + encoded)
        if b"root:" in response.content or b"import " in response.content:
            return "escaped: a file outside"
        return max(worst, verdict(response))


def verdict(response: httpx.Response) -> str:
    """The status; a 5xx that is not deliberate, and an error that is not in our shape, are named as such."""
    status = response.status_code
    if status >= 500 and status not in (503, 507):
        return f"5xx: {status}"
    if status >= 400 and response.headers.get("content-type", "").startswith("application/json"):
        assert set(response.json()["error"]) == {"message", "type", "param", "code"}
    return str(status)


def frames(draw: random.Random) -> list[bytes]:
    """Frames for both sockets, as text where they are UTF-8."""
    kinds = ("session.config", "input.text", "input.flush", "input.cancel", "nothing", "", None, 7)
    made = [
        json.dumps({"type": kind, "text": nasty_text(draw), "voice": nasty_name(draw)}).encode() for kind in kinds * 3
    ]
    actions = ("run-task", "continue-task", "finish-task", "x")
    for action in actions * 3:
        payload = {"input": {"text": nasty_ssml(draw)}, "parameters": {"voice": nasty_name(draw), "rate": 1e308}}
        made.append(json.dumps({"header": {"action": action, "task_id": "t"}, "payload": payload}).encode())
    made += [b"", b"[]", b"{" * 1000, b"\xff\xfe", b'{"type":"input.text","text":"\\ud800"}', b"a" * 300_000]
    return made


async def send_frame(base: str, frame: bytes) -> str:
    """One frame on each socket, as binary and as text, and then a sane one: the server answers or closes."""
    worst = "answered or closed"
    for path in ("/v1/audio/speech/stream", "/api-ws/v1/inference"):
        try:
            async with connect(base.replace("http", "ws") + path, proxy=None, max_size=None) as socket:
                await socket.send(frame)
                await socket.send(frame.decode("utf-8", "replace"))
                await socket.send('{"type":"session.close"}')
                answer = await asyncio.wait_for(socket.recv(), 5)
                if "internal_error" in str(answer):
                    worst = "5xx: internal_error"
        except (asyncio.TimeoutError, TimeoutError):
            worst = "hang"
        except (WebSocketException, OSError):
            continue
    return worst


async def ssrf(base: str, number: int) -> Outcomes:
    """Addresses in every field that could be one; a listener counts who comes."""
    visits = 0

    async def visited(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal visits
        visits += 1
        writer.close()

    server = await asyncio.start_server(visited, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    targets = [
        f"http://127.0.0.1:{port}/x.wav",
        f"https://127.0.0.1:{port}/",
        f"//127.0.0.1:{port}/",
        "file:///etc/passwd",
    ]
    targets += [
        f"data:text/uri-list,http://127.0.0.1:{port}/",
        f"tcp://127.0.0.1:{port}",
        f"concat:http://127.0.0.1:{port}/",
    ]
    outcomes: Outcomes = []
    async with server:
        for index in range(max(number // 4, 28)):
            target = targets[index % len(targets)]
            field = ("ref_audio", "voice", "model", "input")[index // len(targets) % 4]
            before = visits
            answer = await post(base, json.dumps({"input": "Hi.", field: target}).encode())
            outcomes.append((f"{field} {target}", "escaped: an address was asked" if visits > before else answer))
    return outcomes


async def slow_bodies(base: str, number: int) -> Outcomes:
    """So many at once whose bodies hardly move; beside them an ordinary request is answered as ever."""
    dripping = [asyncio.create_task(drip(base, DRIP_S * (1 + index % 3))) for index in range(number)]
    await asyncio.sleep(DRIP_S)
    try:
        beside = await asyncio.wait_for(post(base, GOOD), PATIENCE_S)
    except (asyncio.TimeoutError, TimeoutError):
        beside = "hang"
    outcomes = [("a slow body", outcome) for outcome in await asyncio.gather(*dripping)]
    return [*outcomes, ("an ordinary request beside them", beside)]


async def drip(base: str, pause_s: float) -> str:
    """A byte, a pause, a byte; the answer's status, or that we left before there was one."""
    url = httpx.URL(base)
    reader, writer = await asyncio.open_connection(url.host, url.port)
    answered = asyncio.create_task(reader.readline())
    try:
        writer.write(b"POST %s HTTP/1.1\r\nhost: t\r\ncontent-length: 1000\r\n\r\n" % SPEECH.encode())
        for _ in range(MAX_DRIPS):
            writer.write(b" ")
            await asyncio.wait([answered], timeout=pause_s)
            if answered.done():
                break
        else:
            return "left while still waited for"
        status = answered.result().split(b" ")[1:2]
        return status[0].decode("latin-1") if status else "closed without an answer"
    except ConnectionError:
        return "closed without an answer"
    finally:
        answered.cancel()
        writer.transport.abort()
