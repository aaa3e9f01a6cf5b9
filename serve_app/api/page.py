"""The studio: one page at `/`, its files under `/studio/`. All of it is read once, and nothing comes from elsewhere."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

MEDIA_TYPES = {
    "css": "text/css; charset=utf-8",
    "html": "text/html; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "svg": "image/svg+xml",
}

HEADERS = {
    # blob: is what a decoded clip and a download are; everything else must come from this server
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
        "media-src 'self' blob:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "microphone=(self)",
    "referrer-policy": "no-referrer",
    # names do not change with content, so a browser asks each time and is told 304
    "cache-control": "no-cache",
}


@dataclass(frozen=True, slots=True)
class PageFile:
    """One file of the page. etag: quoted, as the header holds it."""

    content: bytes
    media_type: str
    etag: str


def page_routes() -> list[BaseRoute]:
    """`GET /` and `GET /studio/{name}`."""
    pages = page_files()

    async def page(request: Request) -> Response:
        return answer(request, pages["index.html"])

    async def part(request: Request) -> Response:
        """Errors: `HTTPException` 404."""
        name = request.path_params["name"]
        if name not in pages:
            raise HTTPException(404)
        return answer(request, pages[name])

    return [Route("/", page, include_in_schema=False), Route("/studio/{name}", part, include_in_schema=False)]


def page_files() -> Mapping[str, PageFile]:
    """Every file of `serve_app/web`, by name."""
    found = {}
    for file in files("serve_app").joinpath("web").iterdir():
        media_type = MEDIA_TYPES.get(file.name.rpartition(".")[2])
        if media_type is not None:
            content = file.read_bytes()
            found[file.name] = PageFile(content, media_type, f'"{hashlib.sha256(content).hexdigest()[:32]}"')
    return found


def answer(request: Request, file: PageFile) -> Response:
    """The file, or 304 to a client that has it."""
    headers = {**HEADERS, "etag": file.etag}
    known = [tag.strip().removeprefix("W/") for tag in request.headers.get("if-none-match", "").split(",")]
    if file.etag in known:
        return Response(status_code=304, headers=headers)
    return Response(file.content, headers=headers, media_type=file.media_type)
