"""The files of the page: served with the right types and headers, complete, and free of foreign addresses."""

import re
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

import serve_app
from tests.web.server import StudioServer

WEB = Path(serve_app.__file__).parent / "web"
NAMES = sorted(path.name for path in WEB.iterdir() if path.is_file())


@pytest.fixture
async def client() -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(StudioServer().app())
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        yield client


async def test_the_page_says_what_it_is_and_forbids_everything_foreign(client: httpx.AsyncClient) -> None:
    reply = await client.get("/")
    assert reply.status_code == 200 and reply.headers["content-type"] == "text/html; charset=utf-8"
    assert reply.text.startswith("<!doctype html>")
    policy = reply.headers["content-security-policy"]
    assert "default-src 'none'" in policy and "unsafe" not in policy and "http" not in policy
    for directive in ("base-uri 'none'", "form-action 'none'", "frame-ancestors 'none'", "connect-src 'self'"):
        assert directive in policy
    assert reply.headers["referrer-policy"] == "no-referrer"
    assert reply.headers["cross-origin-resource-policy"] == "same-origin"
    assert reply.headers["x-content-type-options"] == "nosniff"
    assert reply.headers["cache-control"] == "no-cache"


async def test_a_client_that_has_a_file_is_told_so_and_one_with_an_old_file_gets_the_new(
    client: httpx.AsyncClient,
) -> None:
    first = await client.get("/studio/main.js")
    tag = first.headers["etag"]
    for offered in (tag, f"W/{tag}", f'"old", {tag}'):
        again = await client.get("/studio/main.js", headers={"if-none-match": offered})
        assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", tag)
    changed = await client.get("/studio/main.js", headers={"if-none-match": '"old"'})
    assert changed.status_code == 200 and changed.content == first.content


@pytest.mark.parametrize("name", ["nothing.js", "..%2fpage.py", "%2e%2e/page.py", "__init__.py", ""])
async def test_only_the_files_of_the_page_are_served(client: httpx.AsyncClient, name: str) -> None:
    reply = await client.get(f"/studio/{name}")
    assert reply.status_code == 404 and reply.json()["error"]["code"] == "not_found"


async def test_scripts_are_scripts_and_nothing_can_be_written(client: httpx.AsyncClient) -> None:
    types = {"js": "text/javascript; charset=utf-8", "css": "text/css; charset=utf-8", "svg": "image/svg+xml"}
    for name in NAMES:
        if name != "index.html":
            assert (await client.get(f"/studio/{name}")).headers["content-type"] == types[name.rpartition(".")[2]]
    assert (await client.post("/studio/main.js")).status_code == 405


def test_every_file_is_used_and_every_import_exists() -> None:
    texts = {name: (WEB / name).read_text(encoding="utf-8") for name in NAMES}
    wanted = set()
    for name, text in texts.items():
        if name.endswith(".js"):
            wanted.update(re.findall(r'from "\./([\w.]+)"', text) + re.findall(r'URL\("([\w.]+\.js)"', text))
    wanted.update(re.findall(r'(?:src|href)="studio/([\w.]+)"', texts["index.html"]))
    assert wanted | {"index.html"} == set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_no_file_names_another_host(name: str) -> None:
    text = (WEB / name).read_text(encoding="utf-8").replace("http://www.w3.org/2000/svg", "")
    assert not re.search(r"(https?:)?//[\w-]+\.[\w.-]+", re.sub(r"^\s*(//|\*).*$", "", text, flags=re.MULTILINE))
