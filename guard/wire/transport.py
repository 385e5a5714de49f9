"""Guarding transports for httpx2: they sit under any SDK and leave its types alone.

A transport sends the request on as it is, judges what comes back, and hands the SDK bytes of the
same format. Whole responses and streams, SDKs of both vendors and everything built on them go
through this one place.

What cannot be guarded (other endpoints that answer with a model's text) is refused, unless the
caller lets it pass.

This module does not know any SDK, and not how a text is judged.
"""

from __future__ import annotations

import json
from contextlib import aclosing, closing
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Literal

from guard.errors import InputError, MissingExtraError
from guard.wire.detail import DEFAULT_STYLE
from guard.wire.formats import Call, format_of, is_open
from guard.wire.parts import BodyError, written

try:
    import httpx2
    import tenacity
except ImportError as error:  # pragma: no cover  # the extras' test removes them
    raise MissingExtraError(error.name or "httpx2", "openai") from error

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Callable, Generator, Iterator

    from guard.engine import Guard
    from guard.steps import Steps
    from guard.verdict import Verdict
    from guard.wire.body import Body
    from guard.wire.detail import Style
    from guard.wire.parts import Json
    from guard.wire.relay import Relay

Unguarded = Literal["refuse", "pass"]
"""What is done with requests that cannot be guarded."""

_HOP: Final = ("content-length", "content-encoding", "transfer-encoding", "connection")
"""Headers that say how the backend's bytes were sent, which ours are not."""

_STREAM: Final = "text/event-stream"

_PAUSE: Final = 0.1
"""Seconds before the backend is asked again, at first and at most on average."""

_LONGEST_PAUSE: Final = 2.0
"""Seconds that a pause may grow to."""


@dataclass(frozen=True, slots=True)
class Options:
    """What may be chosen about a guarding transport.

    Attributes:
        style: how a withheld choice is refused.
        unguarded: what is done with requests that cannot be guarded.
        broken: whether a stream that the backend breaks off raises the HTTP client's error, or
            ends with the format's error event, for readers on the other side of a connection.
        on_verdict: called with the verdict on every exchange that was seen to its end.
    """

    style: Style = DEFAULT_STYLE
    unguarded: Unguarded = "refuse"
    broken: Literal["raise", "tell"] = "raise"
    on_verdict: Callable[[Verdict], None] = field(default=lambda _: None)

    def __post_init__(self) -> None:
        """Refuse words that are not known."""
        if self.unguarded not in ("refuse", "pass"):
            raise InputError(f"`unguarded` must be `refuse` or `pass`, not `{self.unguarded}`")


DEFAULT_OPTIONS: Final = Options()
"""Refuse what cannot be guarded, and raise what breaks."""


class Unguardable(InputError):  # noqa: N818  # reads as `except Unguardable`
    """A request whose answer cannot be guarded."""

    def __init__(self, method: str, path: str) -> None:
        """Say what was asked, and how to go on."""
        super().__init__(
            f"{method} {path} cannot be guarded: use chat completions, responses or messages over "
            "HTTP, or allow it with `unguarded='pass'`"
        )


class _Rules:
    """What both transports share."""

    def __init__(self, guard: Guard, options: Options) -> None:
        self._guard = guard
        self._options = options

    def _call(self, request: httpx2.Request, content: bytes) -> Call | None:
        """Return the way of a request through the guard, `None` where it may just pass."""
        method, path = request.method, request.url.path
        form = format_of(method, path)
        if form is not None:
            return Call(self._guard, form, _document(content), self._options.style)
        if self._options.unguarded == "refuse" and not is_open(method, path):
            raise Unguardable(method, path)
        return None

    def _response(self, answer: _Answer, attempts: _Attempts) -> httpx2.Response:
        if answer.body is not None:
            self._options.on_verdict(answer.body.session.verdict())
        return attempts.response(answer)

    def _told(self, relay: Relay) -> None:
        if relay.finished:
            self._options.on_verdict(relay.session.verdict())

    def _breaks(self, error: httpx2.TransportError, relay: Relay) -> Steps:
        """Return what a stream ends with that the backend broke off."""
        if self._options.broken == "raise":
            raise error
        return relay.break_off("the backend broke off its answer")


class GuardTransport(_Rules, httpx2.BaseTransport):
    """Guards what comes through another transport.

    Args:
        guard: judges.
        inner: sends the requests; `httpx2.HTTPTransport` by default.
        options: what may be chosen.
        owner: kept alive as long as the transport is.

    Raises:
        Unguardable: (when a request is sent) it cannot be guarded.
    """

    def __init__(
        self,
        guard: Guard,
        inner: httpx2.BaseTransport | None = None,
        options: Options = DEFAULT_OPTIONS,
        *,
        owner: object = None,
    ) -> None:
        """Send nothing yet."""
        super().__init__(guard, options)
        self._inner = httpx2.HTTPTransport() if inner is None else inner
        self._owner = owner

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        """Send a request and return the guarded response."""
        content = request.read()
        call = self._call(request, content)
        if call is None:
            return self._inner.handle_request(request)
        if call.judges_input:
            verdict = self._guard.check_input(call.asked.exchange)
            if verdict.message:
                self._options.on_verdict(verdict)
                return _not_sent(call, verdict)
        attempts = _Attempts(call, content)
        retrying = tenacity.Retrying(**attempts.rules())
        answer: _Answer = retrying(lambda: self._attempt(call, request, attempts))
        return self._response(answer, attempts)

    def close(self) -> None:
        """Close the transport below."""
        self._inner.close()

    def _attempt(self, call: Call, request: httpx2.Request, attempts: _Attempts) -> _Answer:
        sent = _forwarded(request, attempts.next())
        response = self._inner.handle_request(sent)
        kind = _kind(response)
        if kind == "other":
            return _Answer(response)
        if kind == "stream":
            relay = call.relay(patient=attempts.more)
            texts = self._texts(response, relay)
            first = next(texts, b"")
            if relay.regenerate:
                texts.close()
                return _Answer(response, regenerate=True)
            return _Answer(_streamed(response, call, _Stream(first, texts)))
        with closing(response):
            data = response.read()
        try:
            body = call.body(data)
        except BodyError as error:
            return _Answer(_broken(call, error))
        self._guard.driver.run(body.judge())
        return _Answer(response, body, regenerate=body.regenerate)

    def _texts(self, response: httpx2.Response, relay: Relay) -> Generator[bytes, None, None]:
        driver = self._guard.driver
        try:
            with closing(response):
                try:
                    for piece in response.iter_bytes():
                        steps = relay.feed(piece)
                        while (text := driver.advance(steps)) is not None:
                            yield text.encode()
                        if relay.stopped:
                            break
                    steps = relay.finish()
                except httpx2.TransportError as error:
                    steps = self._breaks(error, relay)
                while (text := driver.advance(steps)) is not None:
                    yield text.encode()
            self._told(relay)
        finally:
            driver.run(relay.abandon())


class AsyncGuardTransport(_Rules, httpx2.AsyncBaseTransport):
    """As `GuardTransport`, for asynchronous clients."""

    def __init__(
        self,
        guard: Guard,
        inner: httpx2.AsyncBaseTransport | None = None,
        options: Options = DEFAULT_OPTIONS,
        *,
        owner: object = None,
    ) -> None:
        """Send nothing yet."""
        super().__init__(guard, options)
        self._inner = httpx2.AsyncHTTPTransport() if inner is None else inner
        self._owner = owner

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        """Send a request and return the guarded response."""
        content = await request.aread()
        call = self._call(request, content)
        if call is None:
            return await self._inner.handle_async_request(request)
        if call.judges_input:
            verdict = await self._guard.acheck_input(call.asked.exchange)
            if verdict.message:
                self._options.on_verdict(verdict)
                return _not_sent(call, verdict)
        attempts = _Attempts(call, content)
        retrying = tenacity.AsyncRetrying(**attempts.rules())
        answer: _Answer = await retrying(self._attempt, call, request, attempts)
        return self._response(answer, attempts)

    async def aclose(self) -> None:
        """Close the transport below."""
        await self._inner.aclose()

    async def _attempt(self, call: Call, request: httpx2.Request, attempts: _Attempts) -> _Answer:
        sent = _forwarded(request, attempts.next())
        response = await self._inner.handle_async_request(sent)
        kind = _kind(response)
        if kind == "other":
            return _Answer(response)
        if kind == "stream":
            relay = call.relay(patient=attempts.more)
            texts = self._texts(response, relay)
            first = await anext(texts, b"")
            if relay.regenerate:
                await texts.aclose()
                return _Answer(response, regenerate=True)
            return _Answer(_streamed(response, call, _AsyncStream(first, texts)))
        async with aclosing(response):
            data = await response.aread()
        try:
            body = call.body(data)
        except BodyError as error:
            return _Answer(_broken(call, error))
        await self._guard.driver.arun(body.judge())
        return _Answer(response, body, regenerate=body.regenerate)

    async def _texts(self, response: httpx2.Response, relay: Relay) -> AsyncGenerator[bytes, None]:
        driver = self._guard.driver
        try:
            async with aclosing(response):
                try:
                    async for piece in response.aiter_bytes():
                        steps = relay.feed(piece)
                        while (text := await driver.aadvance(steps)) is not None:
                            yield text.encode()
                        if relay.stopped:
                            break
                    steps = relay.finish()
                except httpx2.TransportError as error:
                    steps = self._breaks(error, relay)
                while (text := await driver.aadvance(steps)) is not None:
                    yield text.encode()
            self._told(relay)
        finally:
            await driver.arun(relay.abandon())


@dataclass(slots=True)
class _Answer:
    """What one attempt gave: a response that is ready, or one that is still to be written.

    Attributes:
        response: the backend's, or ours.
        body: the judged body, where it is whole.
        regenerate: whether the backend should be asked again.
    """

    response: httpx2.Response
    body: Body | None = None
    regenerate: bool = False


class _Attempts:
    """How often a backend was asked, and what it cost."""

    def __init__(self, call: Call, content: bytes) -> None:
        self._call = call
        self._content = content
        self._made = 0
        self._usages: list[Json] = []
        settings = call.guard.security_class.regenerate
        self._allowed = 1 + (settings.attempts if call.asks_again else 0)
        self._seconds = settings.seconds

    @property
    def more(self) -> bool:
        """Whether the backend may be asked once more."""
        return self._made < self._allowed

    def rules(self) -> dict[str, Any]:
        """Return when to ask again, and when to give up into the class's message."""
        return {
            "retry": tenacity.retry_if_result(self._wanted),
            "stop": tenacity.stop_after_attempt(self._allowed)
            | tenacity.stop_after_delay(self._seconds),
            "wait": tenacity.wait_random_exponential(multiplier=_PAUSE, max=_LONGEST_PAUSE),
            "retry_error_callback": lambda state: state.outcome.result(),
        }

    def next(self) -> bytes:
        """Return the content of the next request."""
        self._made += 1
        return self._content if self._made == 1 else self._call.corrected()

    def response(self, answer: _Answer) -> httpx2.Response:
        """Return the response to the request."""
        if answer.body is None:
            return answer.response
        usages = [usage for usage in self._usages if usage is not answer.body.usage]
        return _whole(answer.response, self._call, answer.body, usages)

    def _wanted(self, answer: _Answer) -> bool:
        if answer.regenerate and answer.body is not None:
            self._usages.append(answer.body.usage)
        return answer.regenerate


class _Stream(httpx2.SyncByteStream):
    """A guarded stream, of which the first text is there already."""

    def __init__(self, first: bytes, texts: Generator[bytes, None, None]) -> None:
        self._first = first
        self._texts = texts

    def __iter__(self) -> Iterator[bytes]:
        yield self._first
        yield from self._texts

    def close(self) -> None:
        self._texts.close()


class _AsyncStream(httpx2.AsyncByteStream):
    """As `_Stream`, asynchronous."""

    def __init__(self, first: bytes, texts: AsyncGenerator[bytes, None]) -> None:
        self._first = first
        self._texts = texts

    async def __aiter__(self) -> AsyncIterator[bytes]:
        yield self._first
        async for text in self._texts:
            yield text

    async def aclose(self) -> None:
        await self._texts.aclose()


def _document(content: bytes) -> Json:
    """Return a request's JSON, empty where it is none: the backend will say so."""
    try:
        document = json.loads(content)
    except (ValueError, RecursionError):
        return {}
    return document if isinstance(document, dict) else {}


def _forwarded(request: httpx2.Request, content: bytes) -> httpx2.Request:
    """Return the request as it is sent: unpacked answers are asked for."""
    headers = httpx2.Headers(request.headers)
    headers["accept-encoding"] = "identity"
    for name in ("content-length", "transfer-encoding"):
        headers.pop(name, None)
    return httpx2.Request(
        request.method,
        request.url,
        headers=headers,
        content=content or None,
        extensions=request.extensions,
    )


def _kind(response: httpx2.Response) -> Literal["other", "stream", "whole"]:
    """Return what a response is: only successful ones hold an answer."""
    if not response.is_success:
        return "other"
    kind = response.headers.get("content-type", "").partition(";")[0].strip().lower()
    return "stream" if kind == _STREAM else "whole"


def _headers(response: httpx2.Response, call: Call) -> httpx2.Headers:
    headers = httpx2.Headers(response.headers)
    for name in _HOP:
        headers.pop(name, None)
    headers["x-guard-class"] = call.guard.security_class.name
    return headers


def _streamed(
    response: httpx2.Response, call: Call, stream: _Stream | _AsyncStream
) -> httpx2.Response:
    return httpx2.Response(
        response.status_code,
        headers=_headers(response, call),
        stream=stream,
        extensions=response.extensions,
    )


def _whole(
    response: httpx2.Response, call: Call, body: Body, usages: list[Json]
) -> httpx2.Response:
    headers = _headers(response, call)
    verdict = body.session.verdict()
    headers["x-guard-action"] = verdict.action
    if verdict.record is not None:
        headers["x-guard-record"] = verdict.record
    return httpx2.Response(
        response.status_code,
        headers=headers,
        content=body.delivered(usages),
        extensions={k: v for k, v in response.extensions.items() if k != "network_stream"},
    )


def _not_sent(call: Call, verdict: Verdict) -> httpx2.Response:
    kind = _STREAM if call.asked.stream else "application/json"
    headers = {
        "content-type": kind,
        "x-guard-class": call.guard.security_class.name,
        "x-guard-action": "block",
    }
    return httpx2.Response(200, headers=headers, content=call.refusal(verdict))


def _broken(call: Call, error: BodyError) -> httpx2.Response:
    """Return the response where the backend's cannot be read: SDKs ask again."""
    document = call.form.error(str(error), "upstream_error")
    headers = {"content-type": "application/json"}
    return httpx2.Response(502, headers=headers, content=written(document).encode())
