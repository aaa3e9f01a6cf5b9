"""What each error means over HTTP: the one mapping from `SpeechError` classes to status, type, code and param.

Every error body, whoever raised it, has OpenAI's shape:
`{"error": {"message": str, "type": str, "param": str | null, "code": str | null}}`.
"""

from dataclasses import dataclass

from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse

from serve_app import errors

INVALID_REQUEST = "invalid_request_error"
AUTHENTICATION = "authentication_error"
PERMISSION = "permission_error"
RATE_LIMIT = "rate_limit_error"
SERVER = "server_error"


@dataclass(frozen=True, slots=True)
class ErrorRow:
    """One row of the table. message replaces the error's own text where that was not written for clients."""

    status: int
    type: str
    code: str | None
    param: str | None = None
    headers: tuple[tuple[str, str], ...] = ()
    message: str | None = None


class ApiError(Exception):
    """An error that only this edge knows of: it names its own row. The message never contains the offending input."""

    def __init__(self, row: ErrorRow, message: str) -> None:
        super().__init__(message)
        self.row = row
        self.message = message


class ClientLeft(Exception):
    """The client closed its connection: there is nobody left to answer."""


INTERNAL = ErrorRow(500, SERVER, "internal_error", message="The server failed to handle this request.")

TABLE: dict[type[errors.SpeechError], ErrorRow] = {
    errors.InvalidRequest: ErrorRow(400, INVALID_REQUEST, "invalid_value"),
    errors.EmptyInput: ErrorRow(400, INVALID_REQUEST, "empty_input", "input"),
    errors.InputTooLong: ErrorRow(400, INVALID_REQUEST, "string_above_max_length", "input"),
    errors.VoiceNotFound: ErrorRow(400, INVALID_REQUEST, "voice_not_found", "voice"),
    errors.InvalidVoiceName: ErrorRow(400, INVALID_REQUEST, "invalid_name", "name"),
    errors.InvalidAudio: ErrorRow(400, INVALID_REQUEST, "invalid_audio", "ref_audio"),
    errors.AudioTooShort: ErrorRow(400, INVALID_REQUEST, "audio_too_short", "ref_audio"),
    errors.AudioTooLong: ErrorRow(400, INVALID_REQUEST, "audio_too_long", "ref_audio"),
    # Without the header, OpenAI's SDKs retry a 409 twice.
    errors.VoiceExists: ErrorRow(409, INVALID_REQUEST, "voice_exists", "name", (("x-should-retry", "false"),)),
    errors.BuiltinVoice: ErrorRow(403, PERMISSION, "builtin_voice"),
    errors.Overloaded: ErrorRow(429, RATE_LIMIT, "overloaded", headers=(("retry-after", "2"),)),
    errors.NotReady: ErrorRow(503, SERVER, "not_ready", headers=(("retry-after", "5"),)),
    errors.StorageFull: ErrorRow(507, SERVER, "storage_full"),
    errors.SpeechError: INTERNAL,
}

NOT_FOUND = ErrorRow(404, INVALID_REQUEST, "not_found")
HTTP_ROWS: dict[int, ErrorRow] = {
    400: ErrorRow(400, INVALID_REQUEST, "invalid_value"),
    401: ErrorRow(401, AUTHENTICATION, "invalid_api_key"),
    403: ErrorRow(403, PERMISSION, None),
    404: ErrorRow(404, INVALID_REQUEST, "not_found", message="No such route."),
    405: ErrorRow(405, INVALID_REQUEST, "method_not_allowed", message="This route does not take that method."),
    408: ErrorRow(408, INVALID_REQUEST, "request_timeout"),
    413: ErrorRow(413, INVALID_REQUEST, "request_too_large"),
    415: ErrorRow(415, INVALID_REQUEST, "unsupported_media_type"),
}
"""Rows for what the framework or the body reader refuses, by status."""


def invalid_field(param: str | None, message: str) -> ApiError:
    """A 400 that names the field at fault."""
    return ApiError(ErrorRow(400, INVALID_REQUEST, "invalid_value", param), message)


def row_of(error: Exception) -> ErrorRow:
    """The row of any exception; a class without its own row has that of its nearest base."""
    if isinstance(error, ApiError):
        return error.row
    if isinstance(error, HTTPException):
        headers = tuple((error.headers or {}).items())
        row = HTTP_ROWS.get(error.status_code, ErrorRow(error.status_code, INVALID_REQUEST, None))
        return ErrorRow(row.status, row.type, row.code, row.param, headers, row.message)
    for cls in type(error).__mro__:
        if cls in TABLE:
            return TABLE[cls]
    return INTERNAL


def message_of(error: Exception, row: ErrorRow) -> str:
    """The text a client may see."""
    if isinstance(error, ApiError):
        return error.message
    if row.message is not None:
        return row.message
    if isinstance(error, HTTPException):
        return error.detail
    return error.message if isinstance(error, errors.SpeechError) else str(INTERNAL.message)


def error_body(error: Exception) -> dict[str, dict[str, str | None]]:
    """The JSON object that describes `error` to a client."""
    row = row_of(error)
    body = {"message": message_of(error, row), "type": row.type, "param": row.param, "code": row.code}
    return {"error": body}


def error_response(error: Exception) -> JSONResponse:
    """The whole answer to a request that failed before its first byte of audio."""
    row = row_of(error)
    return JSONResponse(error_body(error), status_code=row.status, headers=dict(row.headers))
