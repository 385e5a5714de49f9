"""The guarding reverse proxy: every path that is not the service's own.

A request goes to the backend byte for byte (unless the settings name another model), and its
answer comes back through the guard. What cannot be guarded is refused, unless the settings let
it pass. A request whose body backends may read in different ways is refused. A client that goes
away takes its request at the backend with it.

While an alarm asks for a `fallback`, what is guarded goes to the backend that stands in. Neither
gets anything that could be the other's key: of a client's headers only a few harmless ones go to
the stand-in, and nothing of the query.

The service's own paths are never sent on, whatever the method: those of probes need no client key
and have no limits.

A path that servers read in different ways is refused, and headers by which some backends take
another method or path than those of the request line stay here: what is checked is what is sent.

This module does not know any vendor's format.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final
from urllib.parse import quote

import httpx2
from fastapi import Request  # noqa: TC002  # FastAPI reads it
from starlette.exceptions import HTTPException
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from guard.server.edge import route_of
from guard.server.errors import Refused
from guard.server.keys import caller_of
from guard.wire.formats import endpoint_of, format_of, is_open, path_of
from guard.wire.transport import AsyncGuardTransport, Options, Unguardable, made_here

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fastapi import FastAPI
    from pydantic import SecretStr
    from starlette.types import Receive, Scope, Send

    from guard.engine import Guard
    from guard.server.metrics import BackendName
    from guard.server.service import Service

_HOP: Final = frozenset(
    {
        "connection",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authorization",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
        "host",
        "content-length",
        "accept-encoding",
        "x-guard-key",
    }
)
"""Headers that are about one connection, or for this server alone (RFC 9110, section 7.6.1)."""

_OTHER_REQUEST: Final = frozenset(
    {
        "x-http-method",
        "x-http-method-override",
        "x-method-override",
        "x-original-url",
        "x-rewrite-url",
    }
)
"""Headers by which some backends serve another method or path."""

_CREDENTIALS: Final = ("authorization", "x-api-key")

_HARMLESS: Final = frozenset(
    {
        "accept",
        "anthropic-beta",
        "anthropic-version",
        "content-encoding",
        "content-type",
        "openai-beta",
        "traceparent",
        "tracestate",
        "user-agent",
        "x-request-id",
    }
)
"""Headers of a client that go to a backend which it did not ask, and hold no key."""

_NO_FORMAT: Final = (
    "this path cannot be guarded: use chat completions, responses or messages, or set "
    "`other_paths: pass`"
)
_NO_PATH: Final = (
    "the path cannot be read: write it without empty segments, `.`, `..`, and encoded slashes"
)

_METHODS: Final = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"]

_CONNECT_SECONDS: Final = 10.0


def add_routes(app: FastAPI, service: Service, backend: httpx2.AsyncBaseTransport) -> None:
    """Add the proxy to `app`; it takes every path that is left.

    Args:
        app: the app, with all other routes.
        service: the settings, the guards, the numbers.
        backend: sends requests on; whoever made it closes it.
    """
    forward = _Proxy(service, backend, _own(app)).forward
    app.add_api_route("/{path:path}", forward, methods=_METHODS, include_in_schema=False)


def _own(app: FastAPI) -> dict[str, str]:
    """Return the methods of each path that the service itself answers, as `Allow` writes them."""
    methods: dict[str, set[str]] = {}
    for route in app.routes:
        if isinstance(route, Route):
            methods.setdefault(route.path, set()).update(route.methods or ())
    return {path: ", ".join(sorted(there)) for path, there in methods.items()}


@dataclass(frozen=True, slots=True)
class _Backend:
    """Where requests go.

    Attributes:
        name: which of the two it is.
        base: its URL.
        key: sent to it; `None` for what the client sent, which is never for the fallback.
    """

    name: BackendName
    base: str
    key: SecretStr | None

    def __str__(self) -> str:
        return "the backend" if self.name == "primary" else "the fallback backend"


class _Proxy:
    """Sends requests on and their answers back."""

    def __init__(
        self, service: Service, transport: httpx2.AsyncBaseTransport, own: Mapping[str, str]
    ) -> None:
        self._service = service
        self._inner = transport
        self._own = own
        settings = service.settings
        base, other = settings.upstream or "", settings.fallback_upstream or ""
        self._primary = _Backend("primary", base.rstrip("/"), settings.upstream_key)
        self._fallback = _Backend("fallback", other.rstrip("/"), settings.fallback_key)
        seconds = service.settings.upstream_seconds
        timeout = httpx2.Timeout(seconds, connect=min(_CONNECT_SECONDS, seconds))
        self._extensions = {"timeout": timeout.as_dict()}

    async def forward(self, request: Request) -> Response:
        """Return the backend's answer to a request, guarded.

        Raises:
            Refused: it cannot be guarded, or the backend does not answer.
            HTTPException: the path is the service's own, which takes other methods.
        """
        if allowed := self._own.get(request.scope["path"]):
            raise HTTPException(405, headers={"allow": allowed})
        method, path = request.method, path_of(_raw(request))
        if path is None:
            raise Refused(400, _NO_PATH, "invalid_path")
        settings = self._service.settings
        guarded = format_of(method, path) is not None
        if not guarded and settings.other_paths == "refuse" and not is_open(method, path):
            raise Refused(403, _NO_FORMAT, "unguardable")
        endpoint = endpoint_of(method, path)
        judges = self._service.judges(request, endpoint)
        stand_in = judges.standing_in if guarded else None
        backend = self._primary if stand_in is None else self._fallback
        sent = await self._sent(request, backend)
        model = self._model(request, backend, endpoint)
        transport = self._transport(request, stand_in or judges.guard, model)
        try:
            answer = await transport.handle_async_request(sent)
        except Unguardable:
            # The backend's own address is a part of what is sent.
            raise Refused(403, f"no such path of {backend} can be guarded", "unguardable") from None
        except httpx2.TimeoutException:
            raise Refused(504, f"{backend} did not answer in time", "upstream_timeout") from None
        except httpx2.ConnectError:
            raise Refused(502, f"{backend} cannot be reached", "upstream_unreachable") from None
        except httpx2.RequestError:
            raise Refused(502, f"{backend} broke off its answer", "upstream_broken") from None
        return _response(answer) if made_here(answer) else self._answered(answer, backend)

    def _answered(self, answer: httpx2.Response, backend: _Backend) -> Response:
        """Return a backend's answer as it goes to the client, counted and named."""
        self._service.metrics.answer(backend.name)
        response = _response(answer)
        if backend is self._fallback:
            response.raw_headers.append((b"x-guard-backend", b"fallback"))
        return response

    def _model(self, request: Request, backend: _Backend, endpoint: str | None) -> str | None:
        """Return the model that a request is sent to, `None` for what it asks for."""
        own = self._service.settings.stand_in_model if backend is self._fallback else None
        return own or self._service.upstream_model(request, endpoint)

    def _transport(self, request: Request, guard: Guard, model: str | None) -> AsyncGuardTransport:
        route = route_of(request.scope)
        metrics = self._service.metrics
        options = Options(
            unguarded=self._service.settings.other_paths,
            broken="tell",
            on_verdict=lambda verdict: metrics.decision(verdict, route),
            model=model,
        )
        return AsyncGuardTransport(guard, self._inner, options)

    async def _sent(self, request: Request, backend: _Backend) -> httpx2.Request:
        """Return the request as it goes to the backend."""
        content = await request.body()
        return httpx2.Request(
            request.method,
            self._url(request, backend),
            headers=self._headers(request, backend),
            content=content or None,
            extensions=self._extensions,
        )

    def _url(self, request: Request, backend: _Backend) -> httpx2.URL:
        """Return where a request goes: to the backend, whatever its target looks like.

        Raises:
            Refused: the target cannot be read.
        """
        own = backend is self._primary and request.url.query
        query = f"?{request.url.query}" if own else ""
        with contextlib.suppress(httpx2.InvalidURL, UnicodeDecodeError):
            return httpx2.URL(f"{backend.base}{_raw(request).decode('ascii')}{query}")
        raise Refused(400, "the path cannot be read", "invalid_path")

    def _headers(self, request: Request, backend: _Backend) -> list[tuple[bytes, bytes]]:
        """Return what of a request's headers goes to a backend, with its key."""
        own = caller_of(request.scope).header
        dropped = _HOP | _OTHER_REQUEST | {own} | _named(request.headers.get("connection", ""))
        key = backend.key
        if backend is self._fallback:
            dropped |= set(request.headers) - _HARMLESS
        # A client may show its key here twice.
        shown = request.headers.get(own, "").rpartition(" ")[2] if own else ""
        dropped |= {
            name
            for name in _CREDENTIALS
            if key is not None or (shown and shown in request.headers.get(name, ""))
        }
        kept = [
            (name, value)
            for name, value in request.headers.raw
            if name.decode("latin-1").lower() not in dropped
        ]
        kept.append((b"accept-encoding", b"identity"))
        if key is not None:
            secret = key.get_secret_value().encode()
            kept += [(b"authorization", b"Bearer " + secret), (b"x-api-key", secret)]
        return kept


def _raw(request: Request) -> bytes:
    """Return a request's path as it is sent on, percent-encoded and without its query."""
    return request.scope.get("raw_path") or quote(request.scope["path"]).encode()


def _response(answer: httpx2.Response) -> Response:
    """Return the backend's answer as it goes to the client."""
    dropped = (_HOP - {"content-length"}) | _named(answer.headers.get("connection", ""))
    response: Response
    if answer.is_closed:
        # It was made here, whole.
        response = Response(answer.content, answer.status_code)
    else:
        response = _Relayed(answer)
    response.raw_headers = [
        (name.lower(), value)
        for name, value in answer.headers.raw
        if name.decode("latin-1").lower() not in dropped
    ]
    response.raw_headers.append((b"x-accel-buffering", b"no"))
    return response


class _Relayed(StreamingResponse):
    """A backend's answer as it comes; whatever ends this ends the backend's, too."""

    def __init__(self, answer: httpx2.Response) -> None:
        self._answer = answer
        self._pieces = answer.aiter_raw()
        super().__init__(self._pieces, answer.status_code)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            # Where sending was cut off they wait at a piece, and nobody else would end them soon.
            await self._pieces.aclose()
            await self._answer.aclose()


def _named(connection: str) -> set[str]:
    """Return the headers that a `Connection` header names as being about one connection."""
    return {name.strip().lower() for name in connection.split(",") if name.strip()}
