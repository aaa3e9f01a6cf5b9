"""A model hub in memory that speaks both protocols, as far as a download needs them, and cuts, damages and lies."""

import hashlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response, StreamingResponse
from starlette.routing import Route

from serve_app.hubs import HuggingFace, ModelScope

COMMIT = "c" * 40


@dataclass
class FakeHub:
    """files: content by path. Faults by path: cuts: the body breaks after so many bytes, once for each number;
    damaged: other bytes of the same size; stated: another size in the listing; busy: so many answers of 503.
    """

    files: dict[str, bytes]
    cuts: dict[str, list[int]] = field(default_factory=dict)
    damaged: set[str] = field(default_factory=set)
    stated: dict[str, int] = field(default_factory=dict)
    busy: dict[str, int] = field(default_factory=dict)
    takes_ranges: bool = True
    requests: list[tuple[str, str]] = field(default_factory=list)
    """Path and range of each file that was asked for."""
    num_listings: int = 0

    def app(self) -> Starlette:
        face, scope = HuggingFace().repository, ModelScope().repository
        return Starlette(
            routes=[
                Route(f"/api/models/{face}/revision/{{revision}}", self.face_listing),
                Route(f"/{face}/resolve/{COMMIT}/{{path:path}}", self.redirect),
                Route(f"/api/v1/models/{scope}/repo/files", self.scope_listing),
                Route(f"/api/v1/models/{scope}/repo", self.scope_file),
                Route("/content/{path:path}", self.face_file),
            ]
        )

    async def face_listing(self, request: Request) -> Response:
        self.num_listings += 1
        if request.path_params["revision"] != "main":
            return JSONResponse({"error": "Invalid rev id"}, 404)
        return JSONResponse({"sha": COMMIT, "siblings": [self.face_entry(path) for path in self.files]})

    def face_entry(self, path: str) -> dict[str, Any]:
        """Small text files are in git itself, the others in LFS."""
        content = self.files[path]
        entry: dict[str, Any] = {"rfilename": path, "size": self.stated.get(path, len(content))}
        if path.endswith((".json", ".yaml", ".txt")):
            return {**entry, "blobId": hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()}
        sha256 = hashlib.sha256(content).hexdigest()
        return {**entry, "blobId": "0" * 40, "lfs": {"sha256": sha256, "size": len(content), "pointerSize": 135}}

    async def scope_listing(self, request: Request) -> Response:
        self.num_listings += 1
        if request.query_params["Revision"] != "master":
            return JSONResponse({"Code": 10010205001, "Message": "no such revision", "Data": None})
        folder = {"Path": "CosyVoice-BlankEN", "Type": "tree", "Size": 0, "Sha256": ""}
        return JSONResponse({"Code": 200, "Data": {"Files": [folder, *map(self.scope_entry, self.files)]}})

    def scope_entry(self, path: str) -> dict[str, Any]:
        content = self.files[path]
        digest = hashlib.sha256(content).hexdigest()
        return {"Path": path, "Type": "blob", "Size": self.stated.get(path, len(content)), "Sha256": digest}

    async def redirect(self, request: Request) -> Response:
        return RedirectResponse(f"/content/{request.path_params['path']}", 302)

    async def face_file(self, request: Request) -> Response:
        return self.file(request, request.path_params["path"])

    async def scope_file(self, request: Request) -> Response:
        assert request.query_params["Revision"] == "master"
        return self.file(request, request.query_params["FilePath"])

    def file(self, request: Request, path: str) -> Response:
        asked = request.headers.get("range", "")
        self.requests.append((path, asked))
        if self.busy.get(path, 0):
            self.busy[path] -= 1
            return Response(status_code=503)
        content = self.files[path]
        if path in self.damaged:
            content = bytes(255 - byte for byte in content)
        start = int(asked.removeprefix("bytes=").removesuffix("-")) if asked and self.takes_ranges else 0
        headers = {"content-length": str(len(content) - start)}
        if start:
            headers["content-range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
        cut = self.cuts[path].pop(0) if self.cuts.get(path) else None

        async def body() -> AsyncIterator[bytes]:
            yield content[start : None if cut is None else start + cut]
            if cut is not None:
                raise ConnectionError("cut")

        return StreamingResponse(body(), 206 if start else 200, headers)
