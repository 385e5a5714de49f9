"""What goes wrong on the way, systematically: at every byte, every event, every unit, every row.

Whatever it is, nothing leaves that was not judged, nothing stays open, and the journal says what
has left. Cuts are made below the transport by a stream in memory, everything else is real.
"""

from __future__ import annotations

import asyncio
import json
import threading
import time
from contextlib import closing
from typing import TYPE_CHECKING, Any, Final

import httpx2
import pytest

from guard.detectors.base import Finding
from guard.errors import JournalError
from guard.exchange import Choice, ToolCall
from guard.journal.store import Journal
from guard.server.scripted import Delivery, Reply
from guard.text.units import units
from guard.wire.transport import (
    DEFAULT_OPTIONS,
    AsyncGuardTransport,
    GuardTransport,
    Options,
)
from tests.adapters.shared import FORMS, PROMPT, VENDOR_OF, Side

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator
    from pathlib import Path

    from guard.detectors.base import Passage
    from guard.engine import Guard
    from guard.journal.record import Record
    from guard.server.scripted import ScriptedApp

BED: Final = (
    "The {} bed by the wall has ferns and ivy, which both like the shade and want some water "
    "every other morning of a {} summer. "
)
UNITS: Final = (
    BED.format("first", "warm"),
    BED.format("second", "zflag"),
    BED.format("third", "zredact"),
    BED.format("fourth", "zblock"),
    BED.format("last", "cold"),
)
TEXT: Final = "".join(UNITS)
REDACTED: Final = "[redacted: to redact]"
PATHS: Final = {
    "chat": "/v1/chat/completions",
    "responses": "/v1/responses",
    "messages": "/v1/messages",
}
ASKED: Final[dict[str, dict[str, Any]]] = {
    "chat": {"model": "m", "messages": [{"role": "user", "content": PROMPT}]},
    "responses": {"model": "m", "input": PROMPT},
    "messages": {"model": "m", "max_tokens": 9, "messages": [{"role": "user", "content": PROMPT}]},
}

forms = pytest.mark.parametrize("form", FORMS)


def test_units() -> None:
    """Each of the texts above is one unit, so that tests know where the units are."""
    assert [TEXT[start:end] for start, end in units(TEXT)] == list(UNITS)


STREAM: Final = {"content-type": "text/event-stream"}


class Upstream(httpx2.BaseTransport, httpx2.AsyncBaseTransport):
    """Sends some bytes of a stream, then breaks off, and knows whether it was closed."""

    def __init__(self, data: bytes, *, breaks: bool = True) -> None:
        """Take what is sent."""
        self.data = data
        self.breaks = breaks
        self.closed = 0

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:  # noqa: ARG002
        """Answer with the stream."""
        return httpx2.Response(200, headers=STREAM, stream=_Bytes(self))

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:  # noqa: ARG002
        """Answer with the stream."""
        return httpx2.Response(200, headers=STREAM, stream=_Bytes(self))


class _Bytes(httpx2.SyncByteStream, httpx2.AsyncByteStream):
    """The stream of an `Upstream`."""

    def __init__(self, upstream: Upstream) -> None:
        self.upstream = upstream

    def __iter__(self) -> Iterator[bytes]:
        yield self.upstream.data
        if self.upstream.breaks:
            raise httpx2.RemoteProtocolError("cut")

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for piece in self:
            yield piece

    def close(self) -> None:
        self.upstream.closed += 1

    async def aclose(self) -> None:
        self.close()


def read(
    guard: Guard, form: str, upstream: Upstream, options: Options = DEFAULT_OPTIONS
) -> tuple[bytes, Exception | None]:
    """Return what a reader gets of a stream, and the error that ends it."""
    received: list[bytes] = []
    transport = GuardTransport(guard, upstream, options)
    request = httpx2.Request("POST", f"http://a{PATHS[form]}", json=asked(form))
    try:
        with closing(transport.handle_request(request)) as answer:
            received.extend(answer.iter_raw())
    except httpx2.RemoteProtocolError as error:
        return b"".join(received), error
    return b"".join(received), None


def asked(form: str) -> dict[str, Any]:
    """Return a request for a stream."""
    return ASKED[form] | {"stream": True}


def text_of(stream: bytes) -> str:
    """Return the answer's text that a stream of any format brings."""
    lines = [line[6:] for line in stream.decode().split("\n") if line.startswith("data: {")]
    return "".join(piece for line in lines for piece in pieces(json.loads(line)))


def pieces(event: dict[str, Any]) -> Iterator[str]:
    """Yield the pieces of the answer's text that an event brings."""
    for choice in event.get("choices", ()):
        yield choice["delta"].get("content") or ""
    delta = event.get("delta", "")
    if event.get("type") != "response.refusal.delta":
        yield delta if isinstance(delta, str) else delta.get("text", "")


@pytest.fixture
def stream_of(backend: ScriptedApp) -> Callable[..., bytes]:
    """Return a function that fetches a whole stream from the backend, unguarded."""

    def fetch(form: str, said: str | Choice, piece: int = 40) -> bytes:
        choice = Choice(said) if isinstance(said, str) else said
        backend.script(PROMPT, Reply((choice,), delivery=Delivery(piece=piece)))
        url = f"{backend.url}{PATHS[form]}"
        return httpx2.post(url, json=asked(form), timeout=20).content

    return fetch


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    """Return a journal."""
    with closing(Journal(tmp_path / "journal.db")) as opened:
        yield opened


def original(delivered: str) -> int:
    """Return how many characters of `TEXT` a delivered beginning of it stands for."""
    changed = len(REDACTED) - len("zredact")
    return len(delivered) - changed * delivered.count(REDACTED)


class TestCut:
    """The backend's stream ends in the middle."""

    @forms
    def test_at_every_byte(
        self, make_guard: Callable[..., Guard], stream_of: Callable[..., bytes], form: str
    ) -> None:
        """What leaves is the beginning of what may leave; the error is raised, all is closed."""
        guard, text = make_guard(), "".join(UNITS[2:4])
        expected = guard.check(text).streamed.removesuffix("\n\n[blocked]")
        data = stream_of(form, text, piece=80)
        longest, left = 0, ""
        for at in range(len(data)):
            upstream = Upstream(data[:at])
            received, error = read(guard, form, upstream)
            left = text_of(received).removesuffix("\n\n[blocked]")
            assert expected.startswith(left), at
            assert b"zblock" not in received, at
            assert b"zredact" not in received, at
            assert len(left) >= longest, at
            longest = len(left)
            assert (error is None) == (b"[DONE]" in received), at
            assert upstream.closed, at
        assert left == expected

    @forms
    @pytest.mark.parametrize("ends", ["breaks", "ends"])
    def test_journal_at_every_event(
        self,
        make_guard: Callable[..., Guard],
        stream_of: Callable[..., bytes],
        tmp_path: Path,
        form: str,
        ends: str,
    ) -> None:
        """The row says how much had left, to the character, and whether the end was seen."""
        data = stream_of(form, "".join(UNITS[:3]))
        events = data.split(b"\n\n")
        for count in range(len(events)):
            upstream = Upstream(
                b"".join(e + b"\n\n" for e in events[:count]), breaks=ends != "ends"
            )
            with closing(Journal(tmp_path / f"{count}.db")) as journal:
                received, _ = read(make_guard(journal=journal), form, upstream)
                rows = list(journal.list())
            delivered = text_of(received)
            assert bool(rows) or "zflag" not in delivered
            for row in rows:
                assert row.released == original(delivered), count
                assert (row.outcome or "").endswith(delivered), count
                whole = ends == "ends" or b"[DONE]" in received
                assert row.complete == whole, count
                assert row.action in ("flag", "rewrite")

    @forms
    def test_calls_are_not_counted_before_they_leave(
        self,
        make_guard: Callable[..., Guard],
        stream_of: Callable[..., bytes],
        tmp_path: Path,
        form: str,
    ) -> None:
        """A tool call that was judged and held back when the stream broke has not left."""
        query = f"{UNITS[1]}{UNITS[0]}{UNITS[4]}"
        call = ToolCall("look_up", json.dumps({"query": query}))
        data = stream_of(form, Choice(tool_calls=(call,)))
        events = data.split(b"\n\n")
        seen: set[tuple[bool, bool]] = set()
        for count in range(len(events)):
            upstream = Upstream(b"".join(e + b"\n\n" for e in events[:count]))
            with closing(Journal(tmp_path / f"{count}.db")) as journal:
                received, _ = read(make_guard(journal=journal), form, upstream)
                rows = list(journal.list())
            whole = b"zflag" in received
            seen.update((row.released > 0, whole) for row in rows)
            assert all((row.released > 0) == whole for row in rows), count
        assert seen == {(False, False), (True, True)}

    @forms
    async def test_async(
        self, make_guard: Callable[..., Guard], stream_of: Callable[..., bytes], form: str
    ) -> None:
        """The asynchronous transport lets as much leave, cut at every event."""
        guard = make_guard()
        events = stream_of(form, TEXT).split(b"\n\n")
        for count in range(len(events)):
            data = b"".join(event + b"\n\n" for event in events[:count])
            upstream, received = Upstream(data), []
            async with httpx2.AsyncClient(transport=AsyncGuardTransport(guard, upstream)) as client:
                url = f"http://a{PATHS[form]}"
                try:
                    async with client.stream("POST", url, json=asked(form)) as answer:
                        received = [piece async for piece in answer.aiter_raw()]
                except httpx2.RemoteProtocolError:
                    pass
            assert upstream.closed
            assert received == [] or b"zblock" not in b"".join(received)
        assert await alone()


@pytest.fixture
def lone_client(new_client: Callable[..., Any], kind: str) -> Callable[[str], Any]:
    """Return the maker of clients with one connection, which waits for ever for none."""

    def make(form: str) -> Any:
        maker: Any = httpx2.Client if kind == "sync" else httpx2.AsyncClient
        limits = httpx2.Limits(max_connections=1)
        timeout = httpx2.Timeout(20.0, pool=5.0)
        http = maker(limits=limits, timeout=timeout, verify=CERTIFICATES)
        return new_client(VENDOR_OF[form], http_client=http)

    return make


CERTIFICATES: Final = httpx2.create_ssl_context()


async def opened(side: Side, form: str) -> Any:
    """Return a stream of an SDK's events."""
    client = side.client
    if form == "chat":
        return await side.settled(client.chat.completions.create(**asked(form)))
    api = client.responses if form == "responses" else client.messages
    return await side.settled(api.create(**asked(form)))


async def one(events: Any) -> Any:
    """Return the next event, `None` at the end."""
    if hasattr(events, "__anext__"):
        return await anext(events, None)
    return next(events, None)


async def alone() -> bool:
    """Return whether no other task is left, once those that are done had a turn to end."""
    for _ in range(100):
        if len(asyncio.all_tasks()) == 1:
            return True
        await asyncio.sleep(0)
    return False


def said(events: list[Any]) -> str:
    """Return the answer's text that an SDK's events bring."""
    return "".join(piece for event in events for piece in pieces(event.to_dict()))


class TestLeaves:
    """The reader goes away in the middle."""

    @forms
    async def test_at_every_event(
        self,
        lone_client: Callable[[str], Any],
        make_guard: Callable[..., Guard],
        backend: ScriptedApp,
        tmp_path: Path,
        form: str,
    ) -> None:
        """The backend's stream ends with it, the connection is free, the row says what it had."""
        backend.script(PROMPT, Reply((Choice(TEXT),), delivery=Delivery(piece=40)))
        plain, count, whole, rows = lone_client(form), 0, False, []
        while not whole:
            with closing(Journal(tmp_path / f"{count}.db")) as journal:
                side = Side(make_guard(journal=journal).wrap(plain))
                stream = await opened(side, form)
                got = [event for _ in range(count) if (event := await one(stream))]
                whole = len(got) < count
                await side.settled(stream.close())
                rows = list(journal.list())
            backend.wait_idle()
            delivered = said(got).removesuffix("\n\n[blocked]")
            assert bool(rows) or "zflag" not in delivered
            for row in rows:
                assert row.released == original(delivered), count
                assert row.complete or not whole
            count += 1
        assert [(row.complete, row.action) for row in rows] == [(True, "block")]
        assert await alone()

    @forms
    @pytest.mark.parametrize("kind", ["async"])
    async def test_cancelled_at_every_piece(
        self,
        lone_client: Callable[[str], Any],
        make_guard: Callable[..., Guard],
        backend: ScriptedApp,
        tmp_path: Path,
        form: str,
    ) -> None:
        """A task that is cancelled while the backend is silent takes its request with it."""
        plain = lone_client(form)
        for held in range(len(TEXT) // 40 + 2):
            delivery = Delivery(piece=40, holds_after=held)
            backend.script(PROMPT, Reply((Choice(TEXT),), delivery=delivery))
            backend.requests.clear()
            got: list[Any] = []
            with closing(Journal(tmp_path / f"{held}.db")) as journal:
                side = Side(make_guard(journal=journal).wrap(plain))
                await cancelled(asyncio.create_task(collect(side, form, got)), backend, got)
                rows = list(journal.list())
            backend.wait_idle()
            assert backend.requests[-1].outcome == "left", held
            delivered = said(got).removesuffix("\n\n[blocked]")
            assert bool(rows) or "zflag" not in delivered
            for row in rows:
                assert (row.complete, row.released) == (False, original(delivered)), held
            assert await alone()

    @forms
    @pytest.mark.parametrize("kind", ["async"])
    async def test_cancelled_while_it_is_judged(
        self,
        lone_client: Callable[[str], Any],
        make_guard: Callable[..., Guard],
        backend: ScriptedApp,
        form: str,
    ) -> None:
        """A task that is cancelled while a detector works waits for nobody, whichever the unit."""
        backend.script(PROMPT, "".join(CLEAN))
        plain = lone_client(form)
        for at in range(len(CLEAN)):
            release = threading.Event()
            detector = Failing(at, waits_for(release))
            side = Side(make_guard(detector, limits=LIMITS).wrap(plain))
            got: list[Any] = []
            task = asyncio.create_task(collect(side, form, got))
            while detector.calls <= at:  # noqa: ASYNC110  # it counts in another thread
                await asyncio.sleep(0.005)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert said(got).rstrip() == "".join(CLEAN[:at]).rstrip()
            release.set()
            backend.wait_idle()
            assert await alone()


async def collect(side: Side, form: str, got: list[Any]) -> None:
    """Read a stream as it should be read."""
    async with await opened(side, form) as stream:
        async for event in stream:
            got.append(event)  # noqa: PERF401  # it is looked at meanwhile


async def cancelled(task: asyncio.Task[None], backend: ScriptedApp, got: list[Any]) -> None:
    """Cancel a task once nothing happens any more."""
    before: Any = None
    while True:
        now = [(request.sent, len(got)) for request in backend.requests]
        if now and now == before:
            break
        before = now
        await asyncio.sleep(0.03)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


CLEAN: Final = tuple(BED.format(name, "mild") for name in ("first", "second", "third", "last"))
LIMITS: Final = {"to_fail": {"flag": 0.5, "act": 0.9}}


class Failing:
    """A detector that finds nothing, and has a fault at one of its calls."""

    name = "failing"
    version = "1"
    categories = ("to_fail",)

    def __init__(self, at: int, fault: Callable[[Passage], Any]) -> None:
        """Count no call yet."""
        self.at = at
        self.fault = fault
        self.calls = 0

    def __call__(self, passage: Passage) -> list[Finding]:
        """Find nothing, or have the fault."""
        self.calls += 1
        if self.calls - 1 == self.at:
            found: list[Finding] = self.fault(passage)
            return found
        return []


def waits_for(release: threading.Event) -> Callable[[Passage], Any]:
    """Return what comes back once it is let go."""
    return lambda _: [] if release.wait(60) else None


def raises(_: Passage) -> Any:
    """Fail as code does."""
    raise RuntimeError


def exits(_: Passage) -> Any:
    """Fail as no code should."""
    raise SystemExit(1)


def says_nan(passage: Passage) -> list[Finding]:
    """Find something of which nobody knows how bad it is."""
    return [Finding("to_fail", float("nan"), passage.start, passage.end, "failing", "1", "a")]


def says_nonsense(_: Passage) -> Any:
    """Find something that is no finding."""
    return [None]


@pytest.fixture(params=FORMS)
def clean(request: pytest.FixtureRequest, stream_of: Callable[..., bytes]) -> tuple[str, bytes]:
    """Return a format and its stream of `CLEAN`."""
    return request.param, stream_of(request.param, "".join(CLEAN))


FAULTS: Final = [raises, exits, says_nan, says_nonsense]


class TestDetector:
    """A detector fails at one unit."""

    @pytest.mark.parametrize("fault", FAULTS)
    @pytest.mark.parametrize("rule", ["block", "replace", "flag"])
    def test_at_every_unit(
        self,
        make_guard: Callable[..., Guard],
        clean: tuple[str, bytes],
        tmp_path: Path,
        fault: Callable[[Passage], Any],
        rule: str,
    ) -> None:
        """What was judged before has left, nothing else does, unless the class lets it."""
        form, data = clean
        for at in range(len(CLEAN)):
            with closing(Journal(tmp_path / f"{at}.db")) as journal:
                options = {"journal": journal, "limits": LIMITS, "on_failure": rule}
                guard = make_guard(Failing(at, fault), **options)
                received, _ = read(guard, form, Upstream(data, breaks=False))
                (row,) = journal.list()
            check(received, row, at, rule)

    def test_hangs_at_every_unit(
        self, make_guard: Callable[..., Guard], clean: tuple[str, bytes], tmp_path: Path
    ) -> None:
        """One that does not come back is not waited for longer than the class says."""
        form, data = clean
        for at in range(len(CLEAN)):
            release = threading.Event()
            with closing(Journal(tmp_path / f"{at}.db")) as journal:
                options = {"journal": journal, "limits": LIMITS, "timeout_seconds": 0.5}
                guard = make_guard(Failing(at, waits_for(release)), **options)
                received, _ = read(guard, form, Upstream(data, breaks=False))
                (row,) = journal.list()
            release.set()
            check(received, row, at, "block")

    @forms
    @pytest.mark.parametrize("fault", FAULTS)
    def test_whole(
        self,
        make_guard: Callable[..., Guard],
        backend: ScriptedApp,
        fault: Callable[[Passage], Any],
        form: str,
    ) -> None:
        """Of a whole answer nothing is delivered, whichever unit it was."""
        backend.script(PROMPT, "".join(CLEAN))
        for at in range(len(CLEAN)):
            guard = make_guard(Failing(at, fault), limits=LIMITS)
            with httpx2.Client(transport=GuardTransport(guard)) as client:
                done = client.post(f"{backend.url}{PATHS[form]}", json=ASKED[form])
            assert "bed by the wall" not in done.text
            assert "[blocked]" in done.text
            assert done.headers["x-guard-action"] == "block"

    def test_threads(self, make_guard: Callable[..., Guard], clean: tuple[str, bytes]) -> None:
        """Threads end with the guard, those of detectors that hung once they come back."""
        before = set(threading.enumerate())
        form, data = clean
        release = threading.Event()
        detector = Failing(1, waits_for(release))
        guard = make_guard(detector, limits=LIMITS, timeout_seconds=0.2)
        read(guard, form, Upstream(data, breaks=False))
        assert guard_threads(before)
        release.set()
        del guard
        for _ in range(500):
            if not guard_threads(before):
                return
            time.sleep(0.01)
        pytest.fail(f"still running: {guard_threads(before)}")


def guard_threads(before: set[threading.Thread]) -> list[threading.Thread]:
    """Return the guard's threads that were not there before."""
    new = set(threading.enumerate()) - before
    return [thread for thread in new if thread.name == "guard-worker"]


def check(received: bytes, row: Record, at: int, rule: str) -> None:
    """See that a stream ended as its class says about a failure at a unit."""
    delivered = text_of(received)
    if rule == "flag":
        assert delivered == "".join(CLEAN)
        assert (row.action, row.delivered, row.complete) == ("flag", "full", True)
        return
    notice = {"block": "[blocked]", "replace": "[replaced]"}[rule]
    assert notice.encode() in received
    before = "".join(CLEAN[:at])
    assert delivered.removesuffix(notice).removesuffix("\n\n") == before.removesuffix("\n\n")
    assert row.action == {"block": "block", "replace": "rewrite"}[rule]
    assert (row.complete, row.released) == (True, len(before))
    assert row.delivered == ("part" if at else "none")
    assert any("failing" in reason for reason in row.reasons)


class FailingJournal(Journal):
    """A journal that fails at one of its calls."""

    def __init__(self, path: Path, at: int) -> None:
        """Open a real one."""
        super().__init__(path)
        self.at = at
        self.calls = 0

    def write(self, record: Record) -> None:
        """Keep a row, or fail."""
        self._count()
        super().write(record)

    def update(self, record: Record) -> None:
        """Keep a row anew, or fail."""
        self._count()
        super().update(record)

    def _count(self) -> None:
        self.calls += 1
        if self.calls - 1 == self.at:
            raise JournalError("the disk is full")


class TestJournal:
    """The journal cannot keep a row."""

    @forms
    @pytest.mark.parametrize("at", range(4))
    def test_at_every_call(
        self,
        make_guard: Callable[..., Guard],
        stream_of: Callable[..., bytes],
        tmp_path: Path,
        form: str,
        at: int,
    ) -> None:
        """Flagged text does not leave before its row is durable; a later one says what has left."""
        data = stream_of(form, TEXT)
        with closing(FailingJournal(tmp_path / "journal.db", at)) as journal:
            received, _ = read(make_guard(journal=journal), form, Upstream(data, breaks=False))
            (row,) = journal.list()
        delivered = text_of(received).removesuffix("\n\n[blocked]")
        kept = UNITS[: min(at + 1, 3)]
        assert delivered == "".join(kept).replace("zredact", REDACTED)
        assert b"[blocked]" in received
        # The last call says that the end was seen.
        assert row.complete == (at != 3)
        if at != 3:
            assert (row.action, row.released) == ("block", len("".join(kept)))

    @forms
    @pytest.mark.parametrize("rule", ["block", "replace", "flag"])
    def test_whole(
        self,
        make_guard: Callable[..., Guard],
        backend: ScriptedApp,
        tmp_path: Path,
        form: str,
        rule: str,
    ) -> None:
        """Of a whole answer nothing is delivered that should have a row, unless the class says."""
        backend.script(PROMPT, "Say zflag.")
        with closing(FailingJournal(tmp_path / "journal.db", 0)) as journal:
            guard = make_guard(journal=journal, on_failure=rule)
            with httpx2.Client(transport=GuardTransport(guard)) as client:
                done = client.post(f"{backend.url}{PATHS[form]}", json=ASKED[form])
        assert ("zflag" in done.text) == (rule == "flag")
        notice = {"block": "[blocked]", "replace": "[replaced]"}.get(rule, "zflag")
        assert notice in done.text


class TestBreaksOff:
    """A stream that ends with the format's error event, as the proxy's do."""

    @forms
    def test_at_every_event(
        self, make_guard: Callable[..., Guard], stream_of: Callable[..., bytes], form: str
    ) -> None:
        """Whatever had come, what leaves is the same beginning, and then the error."""
        guard = make_guard()
        expected = guard.check(TEXT).streamed.removesuffix("\n\n[blocked]")
        events = stream_of(form, TEXT).split(b"\n\n")
        for count in range(1, len(events) - 1):
            data = b"".join(event + b"\n\n" for event in events[:count])
            received, error = read(guard, form, Upstream(data), Options(broken="tell"))
            left = text_of(received).removesuffix("\n\n[blocked]")
            assert error is None
            assert expected.startswith(left), count
            assert b"zblock" not in received
            refused = b"[blocked]" in received
            assert (b"broke off" in received) != refused, count
