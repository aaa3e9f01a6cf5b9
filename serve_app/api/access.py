"""Who may ask: API keys, their share of the streams, and the pages of other origins.

Pure ASGI, for HTTP and WebSockets alike. Without configured keys everybody may do everything.
"""

import hashlib
import hmac
import os
from collections import Counter
from urllib.parse import parse_qs, urlsplit

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from serve_app.api.error_table import HTTP_ROWS, ApiError
from serve_app.config import ApiConfig
from serve_app.errors import Overloaded

OPEN_PATHS = {"/", "/health", "/ready", "/docs", "/openapi.json"}
OPEN_PREFIX = "/studio/"
LISTINGS = ("/v1/models", "/v1/audio/models", "/v1/audio/voices")
TOKEN_PROTOCOLS = ("openai-insecure-api-key.", "bearer.")
"""Prefixes of a WebSocket subprotocol that carries a key: browsers cannot set headers."""

POLICY_VIOLATION = 1008
TRY_AGAIN_LATER = 1013


def load_keys(config: ApiConfig) -> frozenset[str]:
    """The configured keys; empty where none are configured.

    Errors: ValueError where a file or variable is named that holds none, or voices are to belong to keys and there are
    none: a typing error must not open the door.
    """
    keys: set[str] = set()
    if config.api_keys_file is not None:
        lines = config.api_keys_file.read_text(encoding="utf-8").splitlines()
        found = {line.partition("#")[0].strip() for line in lines} - {""}
        if not found:
            raise ValueError("api_keys_file holds no key")
        keys |= found
    if config.api_keys_variable is not None:
        found = set(os.environ.get(config.api_keys_variable, "").replace(",", " ").split())
        if not found:
            raise ValueError("the variable named by api_keys_variable holds no key")
        keys |= found
    if config.voices_per_key and not keys:
        raise ValueError("voices_per_key needs keys: api_keys_file or api_keys_variable")
    return frozenset(keys)


def voice_owner(scope: Scope) -> str:
    """Whose voices a request may use beside everybody's: a name for its key; empty unless voices belong to keys."""
    owner: str = scope["state"].get("voice_owner", "")
    return owner


class Access:
    """Lets a request through, or answers 401, 429, or for a WebSocket 1008, 1013. Notes whose voices it may use.

    keys: may be empty. Only digests are kept, all of one length, and each is compared in constant time.
    """

    def __init__(self, app: ASGIApp, keys: frozenset[str], config: ApiConfig) -> None:
        self.app = app
        self.digests = [hashlib.sha256(key.encode()).digest() for key in keys]
        self.config = config
        self.open_requests: Counter[bytes] = Counter()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self.app(scope, receive, send)
            return
        if scope["type"] == "websocket" and not is_welcome_origin(scope, self.config):
            await refuse_socket(scope, receive, send, POLICY_VIOLATION, "This origin is not allowed.")
            return
        if not self.digests:
            await self.app(scope, receive, send)
            return
        digest = self.matching(presented_key(scope))
        if digest is not None and self.config.voices_per_key:
            # Not the key's digest itself: this travels, and is stored beside the voice.
            scope["state"]["voice_owner"] = hashlib.sha256(b"owner of voices" + digest).hexdigest()
        if self.is_open(scope):
            await self.app(scope, receive, send)
            return
        if digest is None:
            if scope["type"] == "websocket":
                await refuse_socket(scope, receive, send, POLICY_VIOLATION, "Invalid API key.")
                return
            raise ApiError(HTTP_ROWS[401], "A valid API key is needed: Authorization: Bearer KEY.")
        limit = self.config.max_streams_per_key
        if limit is not None and self.open_requests[digest] >= limit:
            if scope["type"] == "websocket":
                await refuse_socket(scope, receive, send, TRY_AGAIN_LATER, "Too many open requests with this key.")
                return
            raise Overloaded("This key has as many open requests as it may have.")
        self.open_requests[digest] += 1
        try:
            await self.app(scope, receive, send)
        finally:
            self.open_requests[digest] -= 1

    def is_open(self, scope: Scope) -> bool:
        """Whether a request needs no key. A listing is open to readers only."""
        path = scope["path"]
        if path in OPEN_PATHS or path.startswith(OPEN_PREFIX):
            return True
        reading = scope["type"] == "http" and scope["method"] in ("GET", "HEAD")
        listed = any(path == listing or path.startswith(listing + "/") for listing in LISTINGS)
        return reading and listed and not self.config.listings_need_key

    def matching(self, key: str) -> bytes | None:
        """The digest of the configured key that equals `key`; all are looked at, whichever matches."""
        offered = hashlib.sha256(key.encode("utf-8", "replace")).digest()
        matches = [digest for digest in self.digests if hmac.compare_digest(digest, offered)]
        return matches[0] if matches else None


def is_welcome_origin(scope: Scope, config: ApiConfig) -> bool:
    """Browsers ask nobody before they open a WebSocket, or post a form, to another site: the server has to look."""
    headers = Headers(scope=scope)
    origin = headers.get("origin")
    if origin is None or origin in config.cors_allow_origins or "*" in config.cors_allow_origins:
        return True
    return urlsplit(origin).netloc == headers.get("host")


def presented_key(scope: Scope) -> str:
    """From the header, else from `?token=`, else from a WebSocket subprotocol; empty if there is none."""
    scheme, _, credentials = Headers(scope=scope).get("authorization", "").partition(" ")
    if scheme.lower() == "bearer" and credentials.strip():
        return credentials.strip()
    tokens: list[str] | None = parse_qs(scope["query_string"].decode("latin-1")).get("token")
    if tokens:
        return tokens[0]
    for protocol in scope.get("subprotocols", ()):
        for prefix in TOKEN_PROTOCOLS:
            if protocol.startswith(prefix):
                return str(protocol).removeprefix(prefix)
    return ""


def accepted_subprotocol(scope: Scope) -> str | None:
    """What to answer to a client that offers subprotocols: browsers drop a connection that selects none of them."""
    offered: list[str] = list(scope.get("subprotocols", ()))
    plain = [protocol for protocol in offered if not protocol.startswith(TOKEN_PROTOCOLS)]
    return next(iter(plain or offered), None)


async def refuse_socket(scope: Scope, receive: Receive, send: Send, code: int, reason: str) -> None:
    """Accept and close: a browser learns the code of a closed connection, and nothing of one that never opened."""
    await receive()
    await send({"type": "websocket.accept", "subprotocol": accepted_subprotocol(scope)})
    await send({"type": "websocket.close", "code": code, "reason": reason})
