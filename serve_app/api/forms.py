"""Forms: urlencoded or multipart, in the body of any method, read whole and bounded."""

from dataclasses import dataclass, field

from starlette.datastructures import Headers, UploadFile
from starlette.formparsers import FormParser, MultiPartException, MultiPartParser
from starlette.requests import Request
from starlette.types import Message, Receive, Scope

from serve_app.api.access import is_welcome_origin
from serve_app.api.body import read_body
from serve_app.api.error_table import HTTP_ROWS, ApiError, invalid_field
from serve_app.config import ApiConfig

MAX_FIELDS = 32
FORM_OVERHEAD_BYTES = 64 * 1024
"""Room for the names, borders and texts around an upload."""


@dataclass(frozen=True, slots=True)
class Form:
    """What was filled in: the last value of each field, and the bytes of each file."""

    fields: dict[str, str] = field(default_factory=dict)
    files: dict[str, bytes] = field(default_factory=dict)

    def text(self, name: str, max_characters: int) -> str:
        """A field, or "". Errors: `ApiError` 400 when it is too long."""
        value = self.fields.get(name, "")
        if len(value) > max_characters:
            raise invalid_field(name, f"Invalid '{name}': it has more than {max_characters} characters.")
        return value

    def file(self, name: str, max_bytes: int) -> bytes:
        """A file's bytes. Errors: `ApiError` 400 when it is missing, 413 when it is too large."""
        if name not in self.files:
            raise invalid_field(name, f"Invalid '{name}': a file is required.")
        if len(self.files[name]) > max_bytes:
            raise ApiError(HTTP_ROWS[413], f"'{name}' is larger than the service accepts.")
        return self.files[name]


async def read_form(scope: Scope, receive: Receive, config: ApiConfig) -> Form:
    """Fields of the query string too, under those of the body.

    Errors: `ApiError` 400, 403, 408, 413, 415; `ClientLeft`.
    """
    if not is_welcome_origin(scope, config):
        # a page may post forms anywhere without asking first; JSON and DELETE it may not
        raise ApiError(HTTP_ROWS[403], "Pages of this origin may not post forms here.")
    max_bytes = config.max_reference_bytes + FORM_OVERHEAD_BYTES
    body = await read_body(scope, receive, max_bytes, config.body_timeout_s)
    form = Form(fields=dict(Request(scope).query_params))
    if not body:
        return form

    async def replay() -> Message:
        return {"type": "http.request", "body": body, "more_body": False}

    stream = Request(scope, replay).stream()
    stated = Headers(scope=scope).get("content-type", "").partition(";")[0].strip().lower()
    if stated == "multipart/form-data":
        # its files stay in memory: the body is, and is bounded
        parser = MultiPartParser(Headers(scope=scope), stream, max_files=4, max_fields=MAX_FIELDS)
        parser.spool_max_size = max_bytes
        try:
            parsed = await parser.parse()
        except (MultiPartException, KeyError):
            raise invalid_field(None, "The body is not a valid multipart form.") from None
    elif stated == "application/x-www-form-urlencoded":
        parsed = await FormParser(Headers(scope=scope), stream).parse()
    else:
        raise ApiError(HTTP_ROWS[415], "The body must be a form: multipart/form-data or urlencoded.")
    for name, value in parsed.multi_items():
        if isinstance(value, UploadFile):
            form.files[name] = await value.read()
        else:
            form.fields[name] = value
    await parsed.close()
    return form
