"""What a client reads where its request cannot be served, in the form that its SDK expects.

Paths of OpenAI's and of our own answer in OpenAI's form, `/v1/messages` in Anthropic's,
`/api/...` in that of the FMS detectors. SDKs try again on 429 and 5xx: what a client must
change is a 4xx, what passes by itself a 503 with `Retry-After`.

No message quotes a value of a request, which may be a secret.

This module does not know why a request was refused.
"""

from __future__ import annotations

import json
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final

from fastapi import HTTPException
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel
from starlette.exceptions import HTTPException as StarletteHTTPException
from starlette.responses import Response

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fastapi import FastAPI
    from starlette.requests import Request
    from starlette.types import Scope

REQUEST_ID: Final = "guard.request_id"
"""Where a request's scope holds its id."""

_RETRY_SECONDS: Final = "1"
_SHOWN: Final = 10
"""Problems that a message lists."""

_NOWHERE: Final = (
    "there is nothing at this path: /openapi.json lists what is; a backend's paths are there "
    "where the server was started with `--upstream` or `--demo`"
)

_ANTHROPIC_TYPES: Final = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    500: "api_error",
    503: "overloaded_error",
    504: "timeout_error",
}


class Refused(HTTPException):
    """A request that is not served.

    Args:
        status: the HTTP status.
        message: what is wrong and how to mend it; it quotes nothing of the request.
        code: a constant that programs can go by.
        headers: further headers of the answer.
    """

    def __init__(
        self, status: int, message: str, code: str, headers: Mapping[str, str] | None = None
    ) -> None:
        """Have a client that is told to come back know when."""
        retry = {"retry-after": _RETRY_SECONDS} if status == HTTPStatus.SERVICE_UNAVAILABLE else {}
        super().__init__(status, message, {**retry, **(headers or {})})
        self.code = code


class ErrorDetail(BaseModel):
    """What went wrong.

    Attributes:
        message: what is wrong and how to mend it.
        type: OpenAI's kind of the error.
        param: the parameter that is wrong, where that is known.
        code: a constant that programs can go by.
    """

    message: str
    type: str
    param: str | None = None
    code: str | None = None


class ErrorBody(BaseModel):
    """An error in OpenAI's form."""

    error: ErrorDetail


class DetectorErrorBody(BaseModel):
    """An error in the form of the FMS detectors.

    Attributes:
        code: the HTTP status.
        message: what is wrong and how to mend it.
    """

    code: int
    message: str


class Json(Response):
    """JSON in ASCII: what a request held is echoed even where UTF-8 cannot write it."""

    media_type = "application/json"

    def render(self, content: Any) -> bytes:
        """Return `content` as JSON."""
        return json.dumps(content, separators=(",", ":"), allow_nan=False).encode("ascii")


def respond(scope: Scope, error: Refused) -> Response:
    """Return the answer to a request that is refused."""
    path, request_id = scope.get("path", ""), scope.get(REQUEST_ID, "")
    content = body(path, error.status_code, str(error.detail), error.code, request_id)
    return Json(content, error.status_code, error.headers)


def body(path: str, status: int, message: str, code: str, request_id: str) -> dict[str, Any]:
    """Return an error's body as the SDKs that call `path` expect it."""
    if path == "/v1/messages" or path.startswith("/v1/messages/"):
        kind = _ANTHROPIC_TYPES.get(status, _kind(status, "api_error"))
        error = {"type": kind, "message": message}
        return {"type": "error", "error": error, "request_id": request_id}
    if path.startswith("/api/"):
        return {"code": status, "message": message}
    kind = _kind(status, "server_error")
    return {"error": {"message": message, "type": kind, "param": None, "code": code}}


def add_handlers(app: FastAPI) -> None:
    """Have every error of `app` answered in these forms."""
    app.add_exception_handler(StarletteHTTPException, _on_http)
    app.add_exception_handler(RequestValidationError, _on_invalid)


async def _on_http(request: Request, error: Exception) -> Response:
    """Answer a refusal, an unknown path, a wrong method or an unreadable body."""
    if isinstance(error, Refused):
        return respond(request.scope, error)
    status = error.status_code if isinstance(error, StarletteHTTPException) else 500
    headers = error.headers if isinstance(error, StarletteHTTPException) else None
    known = {
        404: (_NOWHERE, "not_found"),
        405: ("this path does not take that method: see `Allow`", "method_not_allowed"),
        400: ("the body is not JSON that can be read", "invalid_json"),
    }
    message, code = known.get(status, (HTTPStatus(status).phrase.lower(), "error"))
    return respond(request.scope, Refused(status, message, code, headers))


async def _on_invalid(request: Request, error: Exception) -> Response:
    """Answer a body that is no JSON or not of the right form."""
    found = error.errors() if isinstance(error, RequestValidationError) else []
    sentences = [_sentence(each) for each in found[:_SHOWN]]
    if len(found) > _SHOWN:
        sentences.append(f"and {len(found) - _SHOWN} more")
    status = 422 if request.url.path.startswith("/api/") else 400
    return respond(request.scope, Refused(status, "; ".join(sentences), "invalid_request"))


def _sentence(error: Mapping[str, Any]) -> str:
    """Return one of pydantic's errors without the value, which is the client's own text."""
    if error["type"] == "json_invalid":
        return f"the body is not JSON: {error['ctx']['error']} at character {error['loc'][-1] + 1}"
    location = [part for part in error["loc"] if part != "body"]
    parts = [f"[{part}]" if isinstance(part, int) else f".{part}" for part in location]
    place = "".join(parts).removeprefix(".") or "body"
    message = str(error["msg"]).removeprefix("Value error, ")
    return f"`{place}`: {message[:1].lower()}{message[1:]}"


def _kind(status: int, otherwise: str) -> str:
    is_the_clients = HTTPStatus.BAD_REQUEST <= status < HTTPStatus.INTERNAL_SERVER_ERROR
    return "invalid_request_error" if is_the_clients else otherwise
