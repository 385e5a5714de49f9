"""Guarding transports for httpx2: they sit under any SDK and leave its types alone.

A transport sends the request on as it is, judges what comes back, and hands the SDK bytes of the
same format. Whole responses and streams, SDKs of both vendors and everything built on them go
through this one place.

What cannot be guarded (other endpoints that answer with a model's text) is refused, unless the
caller lets it pass. Paths that servers read in different ways are always refused: what is checked
is what is sent.

What a request says must be the same to every reader (`guard.wire.request`): where it is not, a 400
in the vendor's form is the answer, and nothing is sent.

Answers that are no success keep their status and headers; of their bodies only what is found bad
is taken out (`guard.wire.failure`).

This module does not know any SDK, and not how a text is judged.
"""

from __future__ import annotations

import re
import time
from contextlib import aclosing, closing
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Literal

from guard.errors import InputError, MissingExtraError
from guard.wire.detail import DEFAULT_STYLE
from guard.wire.failure import FailureBody
from guard.wire.formats import Call, format_of, is_open, path_of
from guard.wire.parts import BodyError, written
from guard.wire.request import UnreadError, document_of

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
    from guard.wire.formats import Format
    from guard.wire.parts import Json
    from guard.wire.relay import Relay

Unguarded = Literal["refuse", "pass"]
"""What is done with requests that cannot be guarded."""

_HOP: Final = ("content-length", "content-encoding", "transfer-encoding", "connection")
"""Headers that say how the backend's bytes were sent, which ours are not."""

_STREAM: Final = "text/event-stream"
_JSON: Final = "application/json"

_SAID_TO_BE_JSON: Final = re.compile(
    r"application/json\s*(;\s*charset\s*=\s*\"?utf-?8\"?\s*)?;?", re.IGNORECASE
)
"""Content types under which every backend reads a body as JSON in UTF-8."""

_MADE_HERE: Final = "guard_made_here"
"""The extension of a response that no backend gave."""

_PAUSE: Final = 0.1
"""Seconds before the backend is asked again, at first and at most on average."""

_LONGEST_PAUSE: Final = 2.0
"""Seconds that a pause may grow to."""

_LEAST: Final = 0.001
"""Seconds of the shortest timeout."""


_NO_FORMAT: Final = (
    "use chat completions, responses or messages over HTTP, or allow it with `unguarded='pass'`"
)
_NO_PATH: Final = (
    "servers differ in how they read such a path; write it without empty segments, `.`, `..`, and "
    "encoded slashes"
)


class Unguardable(InputError):  # noqa: N818  # reads as `except Unguardable`
    """A request whose answer cannot be guarded."""

    def __init__(self, method: str, path: str, how: str = _NO_FORMAT) -> None:
        """Say what was asked, and how to go on."""
        super().__init__(f"{method} {path} cannot be guarded: {how}")


@dataclass(frozen=True, slots=True)
class Options:
    """What may be chosen about a guarding transport.

    Attributes:
        style: how a withheld choice is refused.
        unguarded: what is done with requests that cannot be guarded.
        broken: whether a stream that the backend breaks off raises the HTTP client's error, or
            ends with the format's error event, for readers on the other side of a connection.
        on_verdict: called with the verdict on every exchange that was seen to its end.
        model: the model that what is guarded is sent to, whichever it asks for; `None` for that
            one.
        unguardable: what is raised where a request is refused; SDKs hide errors that are none of
            their own.
    """

    style: Style = DEFAULT_STYLE
    unguarded: Unguarded = "refuse"
    broken: Literal["raise", "tell"] = "raise"
    on_verdict: Callable[[Verdict], None] = field(default=lambda _: None)
    model: str | None = None
    unguardable: type[Unguardable] = Unguardable

    def __post_init__(self) -> None:
        """Refuse words that are not known."""
        if self.unguarded not in ("refuse", "pass"):
            raise InputError(f"`unguarded` must be `refuse` or `pass`, not `{self.unguarded}`")


DEFAULT_OPTIONS: Final = Options()
"""Refuse what cannot be guarded, and raise what breaks."""


class _Rules:
    """What both transports share."""

    def __init__(self, guard: Guard, options: Options) -> None:
        self._guard = guard
        self._options = options

    def _call(self, request: httpx2.Request, content: bytes) -> Call | httpx2.Response | None:
        """Return the way of a request through the guard.

        It is the answer itself where the request cannot be read, `None` where it may just pass.
        """
        target = request.extensions.get("target", request.url.raw_path)
        method, path = request.method, path_of(target)
        if path is None:
            raise self._options.unguardable(method, request.url.path, _NO_PATH)
        # Some backends know their paths in any case.
        form = format_of(method, path) or format_of(method, path.lower())
        if form is not None:
            return self._read(form, request, content)
        if self._options.unguarded == "refuse" and not is_open(method, path):
            raise self._options.unguardable(method, path)
        return None

    def _read(
        self, form: Format, request: httpx2.Request, content: bytes
    ) -> Call | httpx2.Response:
        encodings = request.headers.get_list("content-encoding", split_commas=True)
        try:
            document = document_of(content, encodings)
        except UnreadError as error:
            return _own_error(400, form, str(error), "invalid_request")
        if self._rewrites(content):
            document = document | {"model": self._options.model}
        return Call(self._guard, form, document, self._options.style)

    def _attempts(self, call: Call, request: httpx2.Request, content: bytes) -> _Attempts:
        """Return the attempts to have a request answered."""
        rewritten = self._rewrites(content)
        return _Attempts(call, request, call.content() if rewritten else content)

    def _rewrites(self, content: bytes) -> bool:
        """Return whether a body goes on with another model, and not byte for byte."""
        return bool(content) and self._options.model is not None

    def _ready(self, answer: _Answer, attempts: _Attempts) -> httpx2.Response:
        if answer.body is None:
            return answer.response
        if answer.body.session.finished:
            self._options.on_verdict(answer.body.session.verdict())
        return _whole(answer.response, attempts.call, answer.body, attempts.usages(answer))

    def _told(self, relay: Relay) -> None:
        if relay.finished:
            self._options.on_verdict(relay.session.verdict())

    def _breaks(self, error: httpx2.RequestError, relay: Relay, *, left: bool) -> Steps:
        """Return what a stream ends with that the backend broke off, perhaps before any `left`."""
        if self._options.broken == "raise" or not left:
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
        if isinstance(call, httpx2.Response):
            return call
        if call.judges_input:
            verdict = self._guard.check_input(call.asked.exchange)
            if verdict.message:
                self._options.on_verdict(verdict)
                return _not_sent(call, verdict)
        attempts = self._attempts(call, request, content)
        if not call.asks_again:
            return self._response(self._attempt(attempts), attempts)
        retrying = tenacity.Retrying(**attempts.rules())
        try:
            answer: _Answer = retrying(self._attempt, attempts)
            return self._response(answer, attempts)
        finally:
            self._guard.driver.run(attempts.abandon())

    def close(self) -> None:
        """Close the transport below."""
        self._inner.close()

    def _attempt(self, attempts: _Attempts) -> _Answer:
        """Ask the backend; where it fails when asked again, go back to what was withdrawn."""
        try:
            answer = self._ask(attempts)
        except httpx2.RequestError:
            if attempts.withdrawn is None:
                raise
            return attempts.withdrawn
        if attempts.withdrawn is None or answer.response.is_success:
            return answer
        answer.response.close()
        return attempts.withdrawn

    def _ask(self, attempts: _Attempts) -> _Answer:
        response = self._inner.handle_request(attempts.request())
        kind = _kind(response)
        if kind == "failure" and attempts.withdrawn is not None:
            # It takes the place of nothing.
            return _Answer(response)
        if kind == "stream":
            relay = attempts.relay()
            texts = self._texts(response, relay)
            stream = _Stream(next(texts, b""), texts)
            return _Answer(_streamed(response, attempts.call, stream), relay=relay)
        with closing(response):
            data = response.read()
        if kind == "failure" and not data:
            return _Answer(response)
        try:
            body = _body(response, attempts.call, data)
            self._guard.driver.run(body.judge())
        except BodyError as error:
            return _Answer(_broken(attempts.call, error))
        return _Answer(response, body)

    def _response(self, answer: _Answer, attempts: _Attempts) -> httpx2.Response:
        relay = answer.relay
        if relay is None or not relay.regenerate:
            return self._ready(answer, attempts)
        return _ended(answer.response, self._last_words(relay))

    def _texts(self, response: httpx2.Response, relay: Relay) -> Generator[bytes, None, None]:
        driver, left = self._guard.driver, False
        try:
            with closing(response):
                try:
                    for piece in response.iter_bytes():
                        steps = relay.feed(piece)
                        while (text := driver.advance(steps)) is not None:
                            left = True
                            yield text.encode()
                        if relay.stopped:
                            break
                    steps = relay.finish()
                except httpx2.RequestError as error:
                    steps = self._breaks(error, relay, left=left)
                while (text := driver.advance(steps)) is not None:
                    yield text.encode()
            self._told(relay)
        finally:
            if not relay.regenerate:
                driver.run(relay.abandon())

    def _last_words(self, relay: Relay) -> bytes:
        """Return what a stream ends with that is not asked for again."""
        relay.give_up()
        steps, texts = relay.finish(), []
        while (text := self._guard.driver.advance(steps)) is not None:
            texts.append(text)
        self._told(relay)
        return "".join(texts).encode()


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
        if isinstance(call, httpx2.Response):
            return call
        if call.judges_input:
            verdict = await self._guard.acheck_input(call.asked.exchange)
            if verdict.message:
                self._options.on_verdict(verdict)
                return _not_sent(call, verdict)
        attempts = self._attempts(call, request, content)
        if not call.asks_again:
            return await self._response(await self._attempt(attempts), attempts)
        retrying = tenacity.AsyncRetrying(**attempts.rules())
        try:
            answer: _Answer = await retrying(self._attempt, attempts)
            return await self._response(answer, attempts)
        finally:
            await self._guard.driver.arun(attempts.abandon())

    async def aclose(self) -> None:
        """Close the transport below."""
        await self._inner.aclose()

    async def _attempt(self, attempts: _Attempts) -> _Answer:
        """Ask the backend; where it fails when asked again, go back to what was withdrawn."""
        try:
            answer = await self._ask(attempts)
        except httpx2.RequestError:
            if attempts.withdrawn is None:
                raise
            return attempts.withdrawn
        if attempts.withdrawn is None or answer.response.is_success:
            return answer
        await answer.response.aclose()
        return attempts.withdrawn

    async def _ask(self, attempts: _Attempts) -> _Answer:
        response = await self._inner.handle_async_request(attempts.request())
        kind = _kind(response)
        if kind == "failure" and attempts.withdrawn is not None:
            # It takes the place of nothing.
            return _Answer(response)
        if kind == "stream":
            relay = attempts.relay()
            texts = self._texts(response, relay)
            stream = _AsyncStream(await anext(texts, b""), texts)
            return _Answer(_streamed(response, attempts.call, stream), relay=relay)
        async with aclosing(response):
            data = await response.aread()
        if kind == "failure" and not data:
            return _Answer(response)
        try:
            body = _body(response, attempts.call, data)
            await self._guard.driver.arun(body.judge())
        except BodyError as error:
            return _Answer(_broken(attempts.call, error))
        return _Answer(response, body)

    async def _response(self, answer: _Answer, attempts: _Attempts) -> httpx2.Response:
        relay = answer.relay
        if relay is None or not relay.regenerate:
            return self._ready(answer, attempts)
        return _ended(answer.response, await self._last_words(relay))

    async def _texts(self, response: httpx2.Response, relay: Relay) -> AsyncGenerator[bytes, None]:
        driver, left = self._guard.driver, False
        try:
            async with aclosing(response), aclosing(response.aiter_bytes()) as pieces:
                try:
                    async for piece in pieces:
                        steps = relay.feed(piece)
                        while (text := await driver.aadvance(steps)) is not None:
                            left = True
                            yield text.encode()
                        if relay.stopped:
                            break
                    steps = relay.finish()
                except httpx2.RequestError as error:
                    steps = self._breaks(error, relay, left=left)
                while (text := await driver.aadvance(steps)) is not None:
                    yield text.encode()
            self._told(relay)
        finally:
            if not relay.regenerate:
                await driver.arun(relay.abandon())

    async def _last_words(self, relay: Relay) -> bytes:
        """Return what a stream ends with that is not asked for again."""
        relay.give_up()
        steps, texts = relay.finish(), []
        while (text := await self._guard.driver.aadvance(steps)) is not None:
            texts.append(text)
        self._told(relay)
        return "".join(texts).encode()


@dataclass(slots=True)
class _Answer:
    """What one attempt gave: a response that is ready, or one that is still to be written.

    Attributes:
        response: the backend's, or ours.
        body: the judged body, where it is whole.
        relay: what guards it, where it is a stream.
    """

    response: httpx2.Response
    body: Body | FailureBody | None = None
    relay: Relay | None = None

    @property
    def regenerate(self) -> bool:
        """Whether the class would have the backend asked again."""
        judged = self.relay or self.body
        return judged is not None and judged.regenerate


class _Attempts:
    """How often a backend is asked one thing, what that cost, and what came of it.

    Attributes:
        call: the way of the request through the guard.
        withdrawn: the last answer in whose place another was asked for.
    """

    def __init__(self, call: Call, request: httpx2.Request, content: bytes) -> None:
        self.call = call
        self.withdrawn: _Answer | None = None
        self._request = request
        self._content = content
        self._made = 0
        self._began = time.monotonic()
        self._usages: list[Json] = []
        self._relays: list[Relay] = []
        settings = call.guard.security_class.regenerate
        self._allowed = 1 + (settings.attempts if call.asks_again else 0)
        self._seconds = settings.seconds

    def rules(self) -> dict[str, Any]:
        """Return when to ask again, and when to give up into the class's message."""
        return {
            "retry": tenacity.retry_if_result(self._wanted),
            "stop": tenacity.stop_after_attempt(self._allowed)
            | tenacity.stop_before_delay(self._seconds),
            "wait": tenacity.wait_random_exponential(multiplier=_PAUSE, max=_LONGEST_PAUSE),
            "retry_error_callback": lambda state: state.outcome.result(),
        }

    def request(self) -> httpx2.Request:
        """Return the next request; a further one must be answered in the time that is left."""
        self._made += 1
        if self._made == 1:
            return _forwarded(self._request, self._content)
        sent = _forwarded(self._request, self.call.corrected())
        given = sent.extensions.get("timeout") or {}
        left = max(_LEAST, self._began + self._seconds - time.monotonic())
        kinds = ("connect", "read", "write", "pool")
        short = {kind: min(given.get(kind) or left, left) for kind in kinds}
        sent.extensions = {**sent.extensions, "timeout": short}
        return sent

    def relay(self) -> Relay:
        """Return what guards a stream that answers the request."""
        relay = self.call.relay(patient=self._made < self._allowed)
        self._relays.append(relay)
        return relay

    def usages(self, answer: _Answer) -> list[Json]:
        """Return what the answers before this one cost."""
        own = answer.body.usage if answer.body is not None else None
        return [usage for usage in self._usages if usage is not own]

    def abandon(self) -> Steps:
        """Close the journal's rows of the streams that were withdrawn."""
        for relay in self._relays:
            if relay.regenerate:
                yield from relay.abandon()

    def _wanted(self, answer: _Answer) -> bool:
        """Return whether to ask again: not where an attempt gave back what was withdrawn."""
        if answer is self.withdrawn or not answer.regenerate:
            return False
        self.withdrawn = answer
        if answer.body is not None:
            self._usages.append(answer.body.usage)
        return True


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


def made_here(response: httpx2.Response) -> bool:
    """Return whether a guarding transport made a response itself: no backend gave it."""
    return _MADE_HERE in response.extensions


def _forwarded(request: httpx2.Request, content: bytes) -> httpx2.Request:
    """Return the request as it is sent: unpacked answers are asked for.

    A body is said to be the JSON that it was read as. Some backends read it as a form, or in
    another encoding, where its type says so.
    """
    headers = httpx2.Headers(request.headers)
    headers["accept-encoding"] = "identity"
    kind = headers.get("content-type", _JSON)
    if content and not _SAID_TO_BE_JSON.fullmatch(kind.strip()):
        headers["content-type"] = _JSON
    for name in ("content-length", "transfer-encoding"):
        headers.pop(name, None)
    return httpx2.Request(
        request.method,
        request.url,
        headers=headers,
        content=content or None,
        extensions=request.extensions,
    )


def _kind(response: httpx2.Response) -> Literal["failure", "stream", "whole"]:
    """Return what a response is: only successful ones hold an answer."""
    if not response.is_success:
        return "failure"
    kind = response.headers.get("content-type", "").partition(";")[0].strip().lower()
    return "stream" if kind == _STREAM else "whole"


def _body(response: httpx2.Response, call: Call, data: bytes) -> Body | FailureBody:
    """Return what guards a whole body.

    Raises:
        BodyError: it is that of a success and no JSON object.
    """
    if response.is_success:
        return call.body(data)
    return call.failure(data, response.charset_encoding)


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


def _ended(response: httpx2.Response, texts: bytes) -> httpx2.Response:
    """Return the response of a stream that was given up, with the texts that it ends with."""
    return httpx2.Response(
        response.status_code,
        headers=response.headers,
        content=texts,
        extensions=_without_network(response),
    )


def _whole(
    response: httpx2.Response, call: Call, body: Body | FailureBody, usages: list[Json]
) -> httpx2.Response:
    headers = _headers(response, call)
    if isinstance(body, FailureBody) and body.replaced:
        headers["content-type"] = _JSON
    verdict = body.session.verdict()
    headers["x-guard-action"] = verdict.action
    if verdict.record is not None:
        headers["x-guard-record"] = verdict.record
    return httpx2.Response(
        response.status_code,
        headers=headers,
        content=body.delivered(usages),
        extensions=_without_network(response),
    )


def _without_network(response: httpx2.Response) -> dict[str, Any]:
    """Return a response's extensions without its connection, which is another's by now."""
    return {key: value for key, value in response.extensions.items() if key != "network_stream"}


def _not_sent(call: Call, verdict: Verdict) -> httpx2.Response:
    headers = {
        "content-type": _STREAM if call.asked.stream else _JSON,
        "x-guard-class": call.guard.security_class.name,
        "x-guard-action": "block",
    }
    return _own(200, headers, call.refusal(verdict))


def _broken(call: Call, error: BodyError) -> httpx2.Response:
    """Return the response where the backend's cannot be read: SDKs ask again."""
    return _own_error(502, call.form, str(error), "upstream_error")


def _own_error(status: int, form: Format, message: str, code: str) -> httpx2.Response:
    document = form.error(message, code)
    return _own(status, {"content-type": _JSON}, written(document).encode())


def _own(status: int, headers: dict[str, str], content: bytes) -> httpx2.Response:
    """Return a response that no backend gave."""
    return httpx2.Response(status, headers=headers, content=content, extensions={_MADE_HERE: True})
