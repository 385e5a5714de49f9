"""An application's own endpoints: which are guarded, what they answer with, one answer's way.

    routes = {
        "/v1/chat/completions": Wire("chat"),
        "/answer": Fields("answer", prompt="question"),
        "/chats/{id}/stream": Text(prompt="message"),
    }

An answer that is none of what its route says (another type of content, packed, a part of a
range, a file that the server would send by itself, larger than the limit) is replaced by the
class's message, and the log says why (`guard.unguardable`).

This module does not know ASGI or WSGI (`guard.adapters.asgi`, `guard.adapters.wsgi`), and not how
a body is judged (`guard.adapters.web_bodies`).
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import cached_property
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import parse_qs

from guard.adapters.web_bodies import (
    Events,
    EventStream,
    FieldsBody,
    FieldsRelay,
    JsonEvents,
    Lines,
    TextBody,
    TextEvents,
    TextStream,
    Whole,
    released,
    sent,
    told,
    utf_8,
)
from guard.errors import ConfigurationError, InputError, did_you_mean
from guard.exchange import Exchange, Message
from guard.log import Log
from guard.request_text import text_of
from guard.steps import Release
from guard.wire.asked import Asked
from guard.wire.detail import DEFAULT_STYLE, detail
from guard.wire.formats import FORMATS, Call
from guard.wire.parts import BodyError, parse, written
from guard.wire.request import UnreadError, document_of
from guard.wire.sse import Event

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from guard.adapters.web_bodies import Path, Walk
    from guard.engine import Guard
    from guard.steps import Outcome, Steps
    from guard.verdict import Verdict
    from guard.wire.detail import Style
    from guard.wire.parts import Json

Headers = list[tuple[str, str]]
"""Headers in their order; names in any case."""

BODY_LIMIT: Final = 4 * 2**20
"""Bytes of one request's or answer's body, 4 MiB."""

JSON: Final = "application/json"
EVENTS: Final = "text/event-stream"
TEXT: Final = "text/plain"
LINES: Final = ("application/x-ndjson", "application/ndjson", "application/jsonl")

_UTF_8: Final = ("", "utf-8", "utf8", "us-ascii", "ascii")

_OF_THE_BYTES: Final = frozenset(
    {
        "accept-ranges",
        "content-digest",
        "content-length",
        "content-md5",
        "content-range",
        "digest",
        "etag",
        "repr-digest",
    }
)
"""Headers that say what the application's bytes were, which ours are not."""

NOT_ASKED_FOR: Final = frozenset({"accept-encoding", "range", "if-range"})
"""Headers of a request that the application does not see: packed or in parts, no answer is read."""

_ASKING: Final = frozenset({"POST", "PUT", "PATCH"})
"""Methods whose requests have a prompt."""

_log = Log()


@dataclass(frozen=True)
class Request:
    """A request to a guarded endpoint.

    Attributes:
        method: its method, in capitals.
        query: its query, as it came.
        accept: its header `accept`.
        body: its body.
    """

    method: str
    query: str
    accept: str
    body: bytes

    @cached_property
    def document(self) -> Json | None:
        """Its JSON, `None` where it has none that is the same to every reader."""
        try:
            document, same = parse(self.body)
        except BodyError:
            return None
        return document if same else None

    @cached_property
    def vendors(self) -> Json:
        """Its JSON in a vendor's format, empty where applications may read it in another way."""
        try:
            return document_of(self.body)
        except UnreadError:
            return {}

    def texts(self, path: Path) -> Iterator[str]:
        """Yield what stands at `path` in its JSON and, under that name, in its query."""
        yield from parse_qs(self.query).get(".".join(path), ())
        yield from _texts(self.document, path)


def _texts(value: Any, path: Path) -> Iterator[str]:
    if not path:
        # In a list, nothing counts as the model's own call, which is judged elsewhere.
        yield text_of([value])
        return
    listed = list(enumerate(value)) if isinstance(value, list) else []
    for key, inner in value.items() if isinstance(value, dict) else listed:
        if path[0] in (str(key), "*"):
            yield from _texts(inner, path[1:])


@dataclass(frozen=True, slots=True)
class Content:
    """What an answer's headers say about its body.

    Attributes:
        kind: the type of its content, in small letters, without parameters.
        known: whether its length was given, so that it is there as a whole.
    """

    kind: str
    known: bool


class Form(ABC):
    """What an endpoint answers with."""

    @abstractmethod
    def asked(self, request: Request) -> Asked:
        """Return what a request asks for."""

    @abstractmethod
    def walk(self, guard: Guard, request: Request, content: Content) -> Walk | None:
        """Return what judges a successful answer, `None` where that is none of this form."""

    @abstractmethod
    def refusal(self, request: Request, message: str, own: Json) -> tuple[str, bytes]:
        """Return the type and the bytes of an answer that says a message.

        Args:
            request: what is answered.
            message: what the end user reads.
            own: what a machine should know, where the form has a place for it.
        """


class Wire(Form):
    """One of the vendors' formats: JSON, and server-sent events.

    Args:
        name: `chat` (chat completions), `responses` or `messages`.
        style: how a withheld choice is refused.

    Raises:
        InputError: nobody here knows a format of that name.
    """

    def __init__(self, name: str, *, style: Style = DEFAULT_STYLE) -> None:
        """Find the format."""
        known = {form.name: form for form in FORMATS}
        if name not in known:
            hint = did_you_mean(name, known)
            raise InputError(f"no format is called `{name}`{hint}: use one of {', '.join(known)}")
        self._form = known[name]
        self._style = style

    def asked(self, request: Request) -> Asked:
        """Return what a request asks for."""
        return self._form.asked(request.vendors)

    def walk(self, guard: Guard, request: Request, content: Content) -> Walk | None:
        """Return what judges a successful answer, `None` where that is none of this form."""
        call = Call(guard, self._form, request.vendors, self._style)
        if content.kind == JSON:
            return Whole(lambda data: call.body(utf_8(data)))
        if content.kind == EVENTS:
            return EventStream(call.relay(), Events(), own=False)
        return None

    def refusal(self, request: Request, message: str, own: Json) -> tuple[str, bytes]:
        """Return the answer to a request, whole or a stream as it asked for."""
        asked = self.asked(request)
        return EVENTS if asked.stream else JSON, self._form.refusal(asked, message, own)


class _Own(Form):
    """A form of the application's own.

    Args:
        prompt: where the user's message stands in a request's JSON, or its name in the query;
            `""` if nobody can say.
    """

    def __init__(self, prompt: str) -> None:
        """Read the path."""
        self.prompt = path_of(prompt) if prompt else ()

    def asked(self, request: Request) -> Asked:
        """Return what a request asks for."""
        texts = [text for text in request.texts(self.prompt) if text] if self.prompt else []
        message = Message("user", "\n".join(texts))
        return Asked(Exchange((), (message,) if texts else ()))


class Text(_Own):
    """Plain text, or server-sent events whose data are plain text.

    Args:
        prompt: where the user's message stands in a request's JSON, or its name in the query.
    """

    def __init__(self, *, prompt: str = "") -> None:
        """Take the path."""
        super().__init__(prompt)

    def walk(self, guard: Guard, request: Request, content: Content) -> Walk | None:
        """Return what judges a successful answer, `None` where that is none of this form."""
        exchange = self.asked(request).exchange
        if content.kind == EVENTS:
            relay = FieldsRelay(guard.session(exchange, stream=True), TextEvents.PATHS)
            return EventStream(relay, TextEvents(), own=True)
        if content.kind != TEXT:
            return None
        if content.known:
            return Whole(lambda data: TextBody(data, guard.session(exchange, stream=False)))
        return TextStream(guard.session(exchange, stream=True))

    def refusal(self, request: Request, message: str, own: Json) -> tuple[str, bytes]:
        """Return the message as a text, or as an event if the reader wants events."""
        del own
        if EVENTS in request.accept:
            return EVENTS, Event(message).text().encode()
        return f"{TEXT}; charset=utf-8", message.encode()


class Fields(_Own):
    """A JSON object, server-sent events with JSON, or lines of JSON, with texts at known places.

    Args:
        names: where the texts stand: paths such as `answer`, `message.text` or `parts.*.text`.
            The class's message is written to the first one. What stands elsewhere is judged by
            itself and must pass as it is.
        prompt: where the user's message stands in a request's JSON, or its name in the query.

    Raises:
        InputError: no name is given, or one is no path.
    """

    def __init__(self, *names: str, prompt: str = "") -> None:
        """Read the paths."""
        super().__init__(prompt)
        if not names:
            raise InputError("`Fields` needs the name of the field that holds the answer's text")
        self.paths = tuple(path_of(name) for name in names)

    def walk(self, guard: Guard, request: Request, content: Content) -> Walk | None:
        """Return what judges a successful answer, `None` where that is none of this form."""
        exchange, paths = self.asked(request).exchange, self.paths
        if content.kind == JSON:
            return _whole_json(guard, exchange, paths)
        if content.kind == EVENTS or content.kind in LINES:
            relay = FieldsRelay(guard.session(exchange, stream=True), paths)
            return EventStream(relay, JsonEvents() if content.kind == EVENTS else Lines(), own=True)
        return None

    def refusal(self, request: Request, message: str, own: Json) -> tuple[str, bytes]:
        """Return the message in its field: as JSON, or as the stream that the reader wants."""
        said = written(told({}, self.paths[0], message) | own)
        kind = next((kind for kind in (EVENTS, *LINES) if kind in request.accept), JSON)
        if kind == JSON and request.document and request.document.get("stream") is True:
            kind = EVENTS
        if kind == EVENTS:
            return kind, Event(said).text().encode()
        return kind, f"{said}\n".encode() if kind in LINES else said.encode()


def path_of(name: str) -> Path:
    """Return the path that a name with dots stands for.

    Raises:
        InputError: it is none, or does not begin with a key.
    """
    path = tuple(name.split(".")) if isinstance(name, str) else ()
    if not path or not all(path) or path[0] == "*" or path[0].isdigit():
        raise InputError(f"`{name}` is no path: write keys with dots, such as `message.text`")
    return path


def _whole_json(guard: Guard, exchange: Exchange, paths: tuple[Path, ...]) -> Whole:
    def judged(data: bytes) -> FieldsBody:
        return FieldsBody(utf_8(data), guard.session(exchange, stream=False), paths)

    return Whole(judged)


_ERROR: Final = (("error",),)
"""Where the class's message stands in an error that is withheld."""


def _error(guard: Guard, exchange: Exchange, content: Content) -> Walk | None:
    """Return what judges an answer that is no model's: it may quote what must not leave."""
    if content.kind == JSON or content.kind.endswith("+json"):
        return _whole_json(guard, exchange, _ERROR)
    if content.kind == TEXT:
        return Whole(lambda data: TextBody(data, guard.session(exchange, stream=False)))
    return None


@dataclass(frozen=True, slots=True)
class Route:
    """A guarded endpoint: its path as it was given, and its form."""

    path: str
    form: Form


@dataclass(frozen=True, slots=True)
class Head:
    """What an answer begins with."""

    status: int
    headers: Headers


class Desk:
    """Everything that a guarded application's answers have in common.

    Args:
        guard: judges.
        routes: forms by path; `{name}` stands for one segment of a path, `{name:path}` for any.
            A slash at the end makes no difference. With a method before it (`POST /chat`) other
            methods are not guarded; `GET` stands for `HEAD` too.
        limit: bytes of a request's or answer's body.
        on_verdict: called with the verdict on every answer that was seen to its end.

    Raises:
        ConfigurationError: the routes are none, or do not fit the class; all at once.
    """

    def __init__(
        self,
        guard: Guard,
        routes: Mapping[str, Form],
        limit: int = BODY_LIMIT,
        on_verdict: Callable[[Verdict], None] | None = None,
    ) -> None:
        """Read the routes."""
        if problems := list(_problems(guard, routes)):
            raise ConfigurationError(problems)
        self.guard = guard
        self.limit = limit
        self.on_verdict = on_verdict or (lambda _: None)
        self._routes = [(*_expressions(path), Route(path, form)) for path, form in routes.items()]

    def route(self, method: str, *paths: str) -> Route | None:
        """Return the route of a request that its server and its application name by `paths`."""
        named = {method.upper()} | ({"GET"} if method.upper() == "HEAD" else set())
        spelled = {each for path in paths for each in _spellings(path)}
        found = (
            route
            for methods, expression, route in self._routes
            if any(map(methods.fullmatch, named)) and any(map(expression.fullmatch, spelled))
        )
        return next(found, None)

    def refuse_upgrade(self, route: Route) -> None:
        """Log that a websocket was refused."""
        _log.error("guard.unguardable", path=route.path, why="a websocket cannot be judged")


def _problems(guard: Guard, routes: Mapping[str, Form]) -> Iterator[str]:
    if not routes:
        yield (
            "no routes: say what the guarded paths answer with, such as "
            "`routes={'/chat': Text(prompt='message')}`; see `guard.adapters.asgi.GuardASGI` and "
            "`guard.adapters.wsgi.GuardWSGI`"
        )
    for path, form in routes.items():
        if not _ROUTE.fullmatch(path):
            yield f"`{path}` is no path: write it as `/chat` or, for one method, `POST /chat`"
        elif _BRACKETS.search(_PARAMETER.sub("", path)):
            # It would stand for itself, and nothing that the application serves would match.
            yield (
                f"`{path}` has a parameter that nobody here knows: write `{{name}}` for one "
                "segment of the path, `{name:path}` for any number of them"
            )
        if not isinstance(form, Form):
            yield f"`{path}`: {form!r} is no form: use `Wire`, `Text` or `Fields`"
        elif isinstance(form, _Own) and not form.prompt and guard.security_class.input_limits:
            yield (
                f"`{path}`: class `{guard.security_class.name}` judges what a model is given: say "
                "where it stands (`prompt=`)"
            )


_ROUTE: Final = re.compile(r"(?:([A-Z]+) )?(/.*)")
"""A path, perhaps with a method before it."""

_PARAMETER: Final = re.compile(r"\{\w*(?::(?:str|int|float|uuid|(path)))?\}")
"""What stands for a part of a path, as Starlette writes it; whatever its type, any text fits."""

_BRACKETS: Final = re.compile(r"[{}<>]")
"""What parameters are written with; `<name>` is Flask's way."""


def _expressions(route: str) -> tuple[re.Pattern[str], re.Pattern[str]]:
    """Return what the methods and the paths of a route look like."""
    found = _ROUTE.fullmatch(route)
    method, path = found.groups() if found else (None, route)
    parts = _PARAMETER.split(f"/{path.strip('/')}")
    segments = (".*" if kind else "[^/]+" for kind in parts[1::2])
    texts = map(re.escape, parts[0::2])
    expression = "".join(text + next(segments, "") for text in texts)
    return re.compile(method or ".*"), re.compile(expression, re.DOTALL)


def _spellings(path: str) -> Iterator[str]:
    """Yield what an application may read a path as; it is guarded if one of them is.

    Some collapse slashes, others let a parameter between two slashes be empty. Starlette's
    expressions end with `$`, which matches before a line break too.
    """
    given = path if path.startswith("/") else f"/{path}"
    for each in (given, re.sub("/+", "/", given)):
        for ended in (each, each.removesuffix("\n"), each.rstrip("/\n")):
            yield ended
            yield ended.rstrip("/") or "/"


def charset_of(value: str) -> str:
    """Return the character set that a content type names, in small letters."""
    found = re.search(r";\s*charset\s*=\s*\"?([^\s\";]+)", value, re.IGNORECASE)
    return found[1].lower() if found else ""


class Answer:
    """One answer on its way: `begin` with its head, `feed` its body, then `finish`.

    What leaves of the body are the steps' releases, each to be turned into bytes by `sent`;
    `head` is what goes before the first of them, or before the end.

    Attributes:
        head: what the answer begins with, `None` while that depends on its body.
        over: whether no more of the application's body is wanted.
        silent: whether it has no body at all.
    """

    def __init__(self, desk: Desk, route: Route, request: Request) -> None:
        """Expect an answer to a request."""
        self.head: Head | None = None
        self.over = False
        self.asked = route.form.asked(request)
        self._desk = desk
        self._route = route
        self._request = request
        self._status = 0
        self._headers: Headers = []
        self._walk: Walk | None = None
        self._why = ""
        self._size = 0
        self._raw = False
        self.silent = request.method == "HEAD"

    @property
    def judges_input(self) -> bool:
        """Whether the class has the request judged before the application sees it."""
        judges = bool(self._desk.guard.security_class.input_limits)
        return judges and (bool(self.asked.exchange.messages) or self._request.method in _ASKING)

    def unheard(self) -> bool:
        """Return whether the request's prompt was not found, so that nobody can judge it."""
        if self.asked.exchange.messages or self._shadow:
            return False
        _log.error("guard.unguardable", path=self._route.path, why="no prompt in the request")
        return True

    def refusal(self, verdict: Verdict | None = None) -> tuple[Head, bytes]:
        """Return the answer to a request that the application does not see."""
        return self._said(200, [], verdict)

    def too_large(self) -> tuple[Head, bytes]:
        """Return the answer to a request whose body is larger than the limit."""
        text = f"the request is larger than {self._desk.limit} bytes".encode()
        return Head(413, [("content-type", TEXT), ("content-length", str(len(text)))]), text

    def begin(self, status: int, headers: Headers) -> None:
        """Take the head; a second one takes the place of the first."""
        self.head, self._walk, self._why = None, None, ""
        self._status, self._headers = status, headers
        self.silent = self._request.method == "HEAD" or status < 200 or status in (204, 304)
        if self.silent:
            self.head = Head(status, headers)
            return
        self._walk = self._walk_of(status)
        if self._walk is not None and self._walk.streams:
            self.head = Head(status, _without(headers, _OF_THE_BYTES))

    def feed(self, data: bytes) -> Steps:
        """Take bytes of the body.

        Raises:
            InputError: there was no head.
        """
        self._require_head()
        if not data or self.silent or self.over:
            return
        if self._raw:
            yield released(data)
            return
        walk, fits = self._walk, self._fitting(data)
        self._size += len(data)
        if walk is not None:
            yield from walk.feed(data[:fits])
            if walk.over:
                yield from self.finish()
                return
        if walk is None or fits < len(data):
            why = self._why or f"more than {self._desk.limit} bytes"
            yield from self._give_up(why, data[fits:])

    def finish(self) -> Steps:
        """Take the end of the body.

        Raises:
            InputError: there was no head.
        """
        self._require_head()
        if self.over:
            return
        self.over = True
        walk = self._walk
        if self.silent or self._raw or not self._size:
            self.head = self.head or Head(self._status, self._headers)
        elif isinstance(walk, Whole):
            yield from self._finish_whole(walk)
        elif walk is not None:
            yield from walk.finish()
        session = None if walk is None else walk.session
        if session is not None and session.finished:
            self._desk.on_verdict(session.verdict())

    def refuse(self, why: str) -> Steps:
        """Refuse a body that the application would have sent in another way than by bytes."""
        if not self.over and not self.silent:
            yield from self._give_up(why, b"")

    def abandon(self) -> Steps:
        """Close the journal's row of an answer whose reader or writer went away."""
        if self._walk is not None:
            yield from self._walk.abandon()

    def _require_head(self) -> None:
        if not self._status:
            raise InputError("the application sends a body before its status and headers")

    @property
    def _shadow(self) -> bool:
        return self._desk.guard.security_class.shadow

    def _fitting(self, data: bytes) -> int:
        """Return how many of further bytes are judged; in shadow, however long a stream is."""
        if self._walk is None:
            return 0
        if self._shadow and self._walk.streams:
            return len(data)
        return max(0, min(len(data), self._desk.limit - self._size))

    def _walk_of(self, status: int) -> Walk | None:
        """Return what judges the body; `None`, with the reason, where nothing can."""
        values = [value for name, value in self._headers if name.lower() == "content-type"]
        value = values[0] if values else ""
        kind = value.partition(";")[0].strip().lower()
        known = any(name.lower() == "content-length" for name, _ in self._headers)
        packed = [v for n, v in self._headers if n.lower() == "content-encoding"]
        guard, content = self._desk.guard, Content(kind, known)
        if status == HTTPStatus.PARTIAL_CONTENT:
            self._why = "a part of a range"
        elif any(each.strip().lower() not in ("", "identity") for each in packed):
            self._why = "a packed body (`content-encoding`): put the guard below what packs it"
        elif len(values) > 1 or charset_of(value) not in _UTF_8:
            self._why = f"content type `{', '.join(values)}`"
        else:
            success = HTTPStatus.OK <= status < HTTPStatus.MULTIPLE_CHOICES
            if success and self._request.method != "OPTIONS":
                walk = self._route.form.walk(guard, self._request, content)
            else:
                walk = _error(guard, self.asked.exchange, content)
            self._why = f"content type `{kind}`" if walk is None else ""
            return walk
        return None

    def _finish_whole(self, walk: Whole) -> Steps:
        data = walk.data
        try:
            yield from self._headed(walk.finish(), data)
        except BodyError as error:
            yield from self._give_up(str(error), b"")

    def _headed(self, steps: Steps, given: bytes) -> Steps:
        """Run a whole body's steps; its head depends on whether other bytes leave."""
        answer: Outcome | None = None
        try:
            while True:
                step = steps.send(answer)
                if isinstance(step, Release):
                    data = sent(step.text)
                    self.head = self._head_of(data, changed=data != given)
                answer = yield step
        except StopIteration:
            return

    def _head_of(self, data: bytes, *, changed: bool) -> Head:
        if not changed:
            return Head(self._status, self._headers)
        kept = _without(self._headers, _OF_THE_BYTES)
        return Head(self._status, [*kept, ("content-length", str(len(data)))])

    def _give_up(self, why: str, data: bytes) -> Steps:
        """Replace what is left by the class's message; in shadow nothing is replaced."""
        _log.error("guard.unguardable", path=self._route.path, why=why)
        walk = self._walk
        if self._shadow:
            self._raw = True
            self.head = self.head or Head(self._status, self._headers)
            before = walk.data if isinstance(walk, Whole) else b""
            yield released(before + data)
            return
        self.over = True
        if walk is not None and walk.streams:
            yield from walk.break_off(why)
            return
        self.head, body = self._said(self._status, self._headers, None)
        yield released(body)

    def _said(self, status: int, headers: Headers, verdict: Verdict | None) -> tuple[Head, bytes]:
        """Return an answer that says the class's message."""
        guard = self._desk.guard
        if verdict is None:
            session = guard.session(self.asked.exchange, stream=False)
            message = session.deployment.messages.blocked
            own = _UNREAD | {"security_class": guard.security_class.name}
        else:
            message, own = verdict.message, detail(verdict)
        kind, body = self._route.form.refusal(self._request, message, {"guard": own})
        dropped = _OF_THE_BYTES | {"content-type", "content-encoding"}
        whole = status if status != HTTPStatus.PARTIAL_CONTENT else HTTPStatus.OK
        given = [("content-type", kind), ("content-length", str(len(body)))]
        return Head(int(whole), [*_without(headers, dropped), *given]), body


_UNREAD: Final[Json] = {"action": "block", "reasons": ["unguardable"], "record": None}
"""What a machine is told of an answer that nobody can read."""


def _without(headers: Headers, names: frozenset[str]) -> Headers:
    return [(name, value) for name, value in headers if name.lower() not in names]
