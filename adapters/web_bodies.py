"""The bodies that an application's own endpoints answer with, judged: text, JSON, events, lines.

JSON is judged by *fields*: the application says where the texts of its answers stand, by paths
such as `answer` or `messages.*.text`. Each of them is one text, however it comes; every other
string is judged by itself and must pass as it is.

What a body lets go is bytes, one character of a `Release` each (latin-1), since that is what the
server sends.

This module does not know ASGI or WSGI, and not how a text is judged (`guard.session`).
"""

from __future__ import annotations

import codecs
import json
import re
from typing import TYPE_CHECKING, Any, Final, Protocol

from guard.exchange import Channel
from guard.session import CONTENT
from guard.steps import Release
from guard.wire.body import Body
from guard.wire.detail import detail
from guard.wire.ledger import quietly
from guard.wire.parts import BodyError, Part, counts, others, setter, written
from guard.wire.relay import Relay
from guard.wire.sse import COMMENT, Event, Parser, StreamError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from guard.session import Session
    from guard.steps import Outcome, Steps
    from guard.wire.parts import Json
    from guard.wire.relay import Held

Path = tuple[str, ...]
"""Where a text stands: keys, places in lists, and `*` for any of them."""

_OTHER: Final = Channel("choices[0].other", "content", 0, "")

_NO_TEXT: Final = re.compile("[\udc80-\udcff]")
"""What bytes that are no UTF-8 are read as."""

_NAME: Final = re.compile(r"[A-Za-z0-9_$./-]{1,64}")
"""The name of an event that says nothing to a reader."""

_DATA: Final = b"data: "

_WRITTEN: Final = re.compile(r"(?:event: (?P<name>.*)\n)?data: (?P<data>.*)\n\n")
"""An event as relays write it."""


def released(data: bytes) -> Release:
    """Return a step that lets bytes go."""
    return Release(data.decode("latin-1"))


def sent(text: str) -> bytes:
    """Return the bytes that a step let go."""
    return text.encode("latin-1")


def as_bytes(steps: Steps, write: Callable[[str], bytes] = str.encode) -> Steps:
    """Run `steps`, whose texts are let go as bytes."""
    answer: Outcome | None = None
    try:
        while True:
            step = steps.send(answer)
            if isinstance(step, Release):
                data, answer = write(step.text), None
                if data:
                    yield released(data)
            else:
                answer = yield step
    except StopIteration:
        return


def utf_8(data: bytes) -> bytes:
    """Return the bytes of a JSON document, which every reader reads alike.

    Raises:
        BodyError: a parser would take them for another encoding than UTF-8.
    """
    if not json.detect_encoding(data).startswith("utf-8"):
        raise BodyError("the answer is no UTF-8")
    return data


# Fields.


def parts(document: Json, paths: Iterable[Path]) -> Iterator[Part]:
    """Yield the texts of a document, those that stand at `paths` as texts of their own."""
    yield from _below(document, frozenset(paths), "choices[0]")


def _below(holder: Any, paths: frozenset[Path], place: str) -> Iterator[Part]:
    listed = isinstance(holder, list)
    for key, value in list(enumerate(holder) if listed else holder.items()):
        rest = frozenset(path[1:] for path in paths if path and path[0] in (str(key), "*"))
        at = f"{place}[{key}]" if listed else f"{place}.{key}"
        if () in rest and isinstance(value, str):
            channel = Channel(at, "content", 0, "")
            yield Part(channel, value, setter(holder, key))
        elif rest - {()} and isinstance(value, dict | list):
            yield from _below(value, rest, at)
        else:
            yield from others(value if listed else {key: value}, _OTHER)
            continue
        yield from () if listed else others({key: None}, _OTHER)


def told(document: Json, path: Path, text: str) -> Json:
    """Return what stays of a document that is withheld, with a text at `path`."""
    kept: Json = {key: value for key, value in counts(document).items() if value is not None}
    value: Any = text
    for key in reversed(path):
        value = [value] if key == "*" or key.isdigit() else {key: value}
    return {**kept, **value}


class FieldsBody(Body):
    """A JSON object of the application's own.

    Args:
        data: its bytes.
        session: the exchange's state, for a whole response.
        paths: where its texts stand; the class's message is written to the first of them.
    """

    def __init__(self, data: bytes, session: Session, paths: tuple[Path, ...]) -> None:
        """Judge nothing yet."""
        super().__init__(data, session)
        self._paths = paths

    def prepare(self) -> bool:
        """Leave the document as it is."""
        return False

    def parts(self) -> Iterable[Part]:
        """Yield the texts of the document."""
        return parts(self.document, self._paths)

    def refuse(self, choice: int) -> None:
        """Write the class's message in the place of the document's text."""
        text = self.session.notice(choice)
        kept = told(self.document, self._paths[0], text)
        self.document.clear()
        self.document |= kept | {"guard": detail(self.session.verdict())}


class FieldsRelay(Relay):
    """A stream of events whose data are JSON objects of the application's own.

    Args:
        session: the exchange's state, for a stream.
        paths: where the texts of an event stand; the class's message is written to the first.
    """

    def __init__(self, session: Session, paths: tuple[Path, ...]) -> None:
        """Begin at the start of a stream."""
        super().__init__(session)
        self._paths = paths
        self._latest: Json = {}
        self._name = ""

    def prepare(self, document: Json) -> bool:  # noqa: ARG002  # `name_of` looks at it
        """Leave an event as it is."""
        return False

    def name_of(self, event: Event, document: Json) -> str:
        """Return an event's name, if it says nothing to a reader; keep what own ones are like."""
        name = event.name if _NAME.fullmatch(event.name) else ""
        if any(not part.lone for part in parts(document, self._paths[:1])):
            self._latest, self._name = told(document, self._paths[0], ""), name
        return name

    def parts(self, document: Json) -> Iterable[Part]:
        """Yield the texts of an event."""
        return parts(document, self._paths)

    def ends(self, document: Json) -> Iterable[int]:  # noqa: ARG002  # none says so
        """Yield nothing: the answer ends with its stream."""
        return ()

    def reduce(self, held: Held) -> Iterable[Event]:
        """Yield an event as far as it was judged before the answer was withheld."""
        if self.refused:
            return
        if not held.tainted:
            if all(map(self.ledger.passed, held.pieces)):
                yield self.filled(held)
                return
            if said := "".join(map(self.ledger.leave, held.pieces)):
                yield self._saying(said)
        yield from self.refusal(0)

    def refuse(self, choice: int) -> Iterable[Event]:
        """Yield the class's message, in the place of an event's text."""
        before = "\n\n" if self.ledger.left(choice) else ""
        own = {"guard": detail(self.session.verdict())}
        yield self._saying(before + self.session.notice(choice), own)

    def failure(self, message: str) -> Event:  # noqa: ARG002  # an end user has no use for it
        """Return the class's message as an event."""
        return self._saying(self.session.deployment.messages.blocked)

    def _saying(self, text: str, own: Json | None = None) -> Event:
        document = told(self._latest, self._paths[0], text) | (own or {})
        return Event(written(document), self._name)


# How events are written.


class Events:
    """Server-sent events of a vendor, which are what relays read and write."""

    def read(self, data: bytes) -> Iterator[bytes]:
        """Yield bytes as they come."""
        yield data

    def rest(self) -> bytes:
        """Return what the end of the stream completes: nothing."""
        return b""

    def write(self, text: str) -> bytes:
        """Return what is sent for a relay's text."""
        return text.encode()


class JsonEvents(Events):
    """Server-sent events of the application's own, one after another."""

    def __init__(self) -> None:
        """Begin at the start of a stream."""
        self._parser = Parser()

    def read(self, data: bytes) -> Iterator[bytes]:
        """Yield events.

        Raises:
            StreamError: an event is too large or no UTF-8; those before it were yielded.
        """
        for event in self._parser.feed(data):
            text = COMMENT if event is None else self.coded(event).text()
            yield text.encode()

    def coded(self, event: Event) -> Event:
        """Return an event as relays read it."""
        return event


class TextEvents(JsonEvents):
    """Server-sent events whose data are text."""

    PATHS: Final = (("data",),)

    def coded(self, event: Event) -> Event:
        """Return an event with its text as JSON."""
        return Event(written({"data": event.data}), event.name)

    def write(self, text: str) -> bytes:
        """Return the event that a relay's text stands for."""
        event = _WRITTEN.fullmatch(text)
        if event is None:
            return text.encode()
        return Event(json.loads(event["data"])["data"], event["name"] or "").text().encode()


class Lines(Events):
    """Lines of JSON (NDJSON, JSON Lines)."""

    def __init__(self) -> None:
        """Begin at the start of a stream."""
        self._pending = bytearray()

    def read(self, data: bytes) -> Iterator[bytes]:
        """Yield whole lines as events."""
        *whole, last = data.split(b"\n")
        for line in whole:
            yield _as_event(self._pending + line)
            self._pending.clear()
        self._pending += last

    def rest(self) -> bytes:
        """Return a last line without its end, as an event."""
        return _as_event(self._pending)

    def write(self, text: str) -> bytes:
        """Return the line that a relay's event stands for; comments are none."""
        data = text.encode()
        return data.removeprefix(_DATA).removesuffix(b"\n") if data.startswith(_DATA) else b""


def _as_event(line: bytes | bytearray) -> bytes:
    # A carriage return can only be white space here, and would end an event's line.
    plain = bytes(line).replace(b"\r", b" ").strip(b" \t")
    return _DATA + plain + b"\n\n" if plain else b""


# What takes a body's bytes.


class Walk(Protocol):
    """One body on its way.

    Attributes:
        session: the exchange's state, `None` before there is one.
        streams: whether text leaves while more is coming.
    """

    @property
    def session(self) -> Session | None:
        """The exchange's state, `None` before there is one."""
        ...

    @property
    def over(self) -> bool:
        """Whether no more of the application's body is wanted."""
        ...

    streams: bool

    def feed(self, data: bytes) -> Steps:
        """Take bytes of the body."""
        ...

    def finish(self) -> Steps:
        """Take the end of the body.

        Raises:
            BodyError: it cannot be read; nothing has left.
        """
        ...

    def break_off(self, why: str) -> Steps:
        """End a stream that cannot be judged further; what was judged has left."""
        ...

    def abandon(self) -> Steps:
        """Close the journal's row of a body whose reader or writer went away."""
        ...


class Judged(Protocol):
    """A whole body, to be judged."""

    session: Session

    def judge(self) -> Steps:
        """Judge every text."""
        ...

    def delivered(self) -> bytes:
        """Return what may be delivered."""
        ...


class Whole:
    """A body that is collected and judged whole.

    Args:
        judged: makes what judges the bytes; it may raise `BodyError`.
    """

    streams = False
    over = False

    def __init__(self, judged: Callable[[bytes], Judged]) -> None:
        """Collect nothing yet."""
        self._judged = judged
        self._data = bytearray()
        self._body: Judged | None = None

    @property
    def session(self) -> Session | None:
        """The exchange's state, `None` before the body is whole."""
        return None if self._body is None else self._body.session

    @property
    def data(self) -> bytes:
        """What was collected."""
        return bytes(self._data)

    def feed(self, data: bytes) -> Steps:
        """Collect bytes."""
        self._data += data
        yield from ()

    def finish(self) -> Steps:
        """Judge what was collected, and let go of it what may leave."""
        self._body = self._judged(self.data)
        yield from quietly(self._body.judge())
        yield released(self._body.delivered())

    def break_off(self, why: str) -> Steps:
        """Judge nothing."""
        del why
        yield from ()

    def abandon(self) -> Steps:
        """Close the journal's row."""
        if self._body is not None:
            yield from self._body.session.abandon()


class TextBody:
    """A whole plain text."""

    def __init__(self, data: bytes, session: Session) -> None:
        """Judge nothing yet."""
        self.session = session
        self._data = data
        self._bad = False

    def judge(self) -> Steps:
        """Judge the text; bytes that are no text are withheld."""
        self.session.open(Channel(CONTENT, "content", 0, ""))
        text = self._data.decode("utf-8", "surrogateescape")
        if _NO_TEXT.search(text):
            _withhold(self.session)
        else:
            yield from self.session.feed(text)
        yield from self.session.finish()

    def delivered(self) -> bytes:
        """Return the text that may be delivered: the very bytes, if nothing was changed."""
        if self.session.shadow:
            return self._data
        return self.session.verdict().delivered.encode()


class TextStream:
    """A plain text that leaves as it is judged."""

    streams = True

    def __init__(self, session: Session) -> None:
        """Begin at the start of a text."""
        self.session = session
        session.open(Channel(CONTENT, "content", 0, ""))
        self._decoder = codecs.getincrementaldecoder("utf-8")("surrogateescape")

    @property
    def over(self) -> bool:
        """Whether the text is withheld."""
        return self.session.withheld(0)

    def feed(self, data: bytes) -> Steps:
        """Take bytes of the text."""
        yield from self._read(data, self._decoder.decode(data))

    def finish(self) -> Steps:
        """Take the end of the text."""
        yield from self._read(b"", self._decoder.decode(b"", final=True))
        if not self.session.finished:
            yield from self._let_go(self.session.finish())

    def break_off(self, why: str) -> Steps:
        """End with the class's message."""
        del why
        if not self.over:
            _withhold(self.session)
            run = self.session.run(CONTENT)
            yield released(run.streamed[len(run.text) :].encode())
        yield from quietly(self.session.finish())

    def abandon(self) -> Steps:
        """Close the journal's row."""
        yield from self.session.abandon()

    def _read(self, data: bytes, text: str) -> Steps:
        if self.session.shadow and data:
            yield released(data)
        good, bad = _until(text)
        if good:
            yield from self._let_go(self.session.feed(good))
        if bad and not self.session.shadow:
            yield from self.break_off("the text is no UTF-8")

    def _let_go(self, steps: Steps) -> Steps:
        return quietly(steps) if self.session.shadow else as_bytes(steps)


def _until(text: str) -> tuple[str, bool]:
    """Return a text up to the first byte that is none, and whether there is one."""
    found = _NO_TEXT.search(text)
    return (text, False) if found is None else (text[: found.start()], True)


def _withhold(session: Session) -> None:
    """Let nothing more of an answer leave, since it cannot be judged."""
    session.note_escalation("block")
    if not session.shadow:
        session.run(CONTENT).cut("block")


class EventStream:
    """A stream of events on its way through a relay.

    Args:
        relay: judges them.
        events: how they are written.
        own: whether the format is the application's own, so that a stream that is withheld may
            just end. A vendor's goes on to its usage and its end.
    """

    streams = True

    def __init__(self, relay: Relay, events: Events, *, own: bool) -> None:
        """Begin at the start of a stream."""
        self._relay = relay
        self._events = events
        self._own = own

    @property
    def session(self) -> Session:
        """The exchange's state."""
        return self._relay.session

    @property
    def over(self) -> bool:
        """Whether the stream has ended, or may end where it is."""
        return self._own and (self._relay.stopped or self.session.withheld(0))

    def feed(self, data: bytes) -> Steps:
        """Take bytes of the stream."""
        try:
            for piece in self._events.read(data):
                if self.over:
                    return
                yield from self._written(self._relay.feed(piece))
        except StreamError as error:
            yield from self.break_off(str(error))

    def finish(self) -> Steps:
        """Take the end of the stream."""
        yield from self._written(self._relay.feed(self._events.rest()))
        yield from self._written(self._relay.finish())

    def break_off(self, why: str) -> Steps:
        """End with what tells the reader so."""
        if not self._relay.stopped:
            yield from self._written(self._relay.break_off(why))

    def abandon(self) -> Steps:
        """Close the journal's row."""
        yield from self._relay.abandon()

    def _written(self, steps: Steps) -> Steps:
        return as_bytes(steps, self._events.write)
