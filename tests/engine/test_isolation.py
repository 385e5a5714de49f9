"""Isolation: exchanges that share a guard share nothing else, whatever happens to one of them."""

from __future__ import annotations

import asyncio
import copy
import gc
import json
import os
import pickle
import re
import sqlite3
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing, closing, suppress
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from structlog.testing import capture_logs

from guard.errors import InputError, JournalError
from guard.exchange import Channel, Choice, Exchange, ToolCall
from guard.journal.store import Journal

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator
    from pathlib import Path

    from guard.detectors.base import Finding, Passage
    from guard.engine import Guard
    from guard.journal.record import Record
    from guard.verdict import Verdict

# A process that ends with three exchanges under way, in each of which flagged text has left.
ENDING = """
import asyncio, sys
from guard.detectors.base import Finding
from guard.engine import Guard
from guard.exchange import Channel, Exchange
from guard.journal.store import Journal
from guard.security_class import SecurityClass

class Words:
    name, version, categories = "words", "1", ("to_flag",)

    def __call__(self, passage):
        at = passage.text.find("zflag", passage.start, passage.end)
        return [] if at < 0 else [Finding("to_flag", 9.0, at, at + 5, "words", "1", "zflag")]

def pieces():
    while True:
        yield "It was zflag that day. "

async def apieces():
    for piece in pieces():
        yield piece

async def read(stream):
    while not left[-1]:
        left[-1] += await anext(stream)

policy = {
    "name": "test",
    "rank": 1,
    "timeout_seconds": 60,
    "limits": {"to_flag": {"flag": 0.5}},
    "journal": {"text": "omitted"},
    "messages": {"en": {"blocked": "[blocked]", "replaced": "[replaced]"}},
}
guard = Guard(SecurityClass.model_validate(policy), [Words()], journal=Journal(sys.argv[1]))
left = ["", "", ""]
stream = guard.stream(pieces())
left[0] = next(stream)
following = guard.follow(Exchange(()))
following.open(Channel("c", "content", 0, ""))
while not left[1]:
    left[1] = following.feed("c", next(pieces()))
astream = guard.astream(apieces())
loop = asyncio.new_event_loop()
loop.run_until_complete(read(astream))
loop.close()
print(sorted(map(len, left)), flush=True)
"""
THREADS = 32
TASKS = 200
MARKER = re.compile(r"own\d{4}x")


def text_of(number: int) -> str:
    """Return a text full of one exchange's own marker, with a word of every mild remedy."""
    own = f"own{number:04d}x"
    return "".join(
        (
            f"The berth of {own} lies behind the mill and stays free until the evening. " * 3,
            f"Then {own} was zflag by the clerk. ",
            f"Nobody knew that zredact was the word of {own} for the tide. " * 2,
            f"Here {own} met zexcise! And {own} went home. ",
        )
    )


def pieces_of(number: int) -> Iterator[str]:
    """Yield the text in pieces of a size of its own."""
    text, size = text_of(number), number % 17 + 1
    yield from (text[i : i + size] for i in range(0, len(text), size))


async def apieces_of(number: int) -> AsyncIterator[str]:
    """As `pieces_of`, and let other tasks run in between."""
    for piece in pieces_of(number):
        await asyncio.sleep(0)
        yield piece


def strangers(number: int, *values: object) -> set[str]:
    """Return the markers in `values` that belong to another exchange."""
    return set(MARKER.findall(repr(values))) - {f"own{number:04d}x"}


def assert_own(number: int, delivered: str, verdict: Verdict, expected: Verdict) -> None:
    """Fail where anything of another exchange shows, or anything of its own is missing."""
    assert not strangers(number, delivered, verdict)
    assert delivered == expected.streamed
    assert verdict == expected


def ending(script: str, path: Path) -> subprocess.CompletedProcess[str]:
    """Run `script` in a process in which every warning is an error."""
    command = [sys.executable, "-W", "error", "-c", script, str(path)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)


def rows(path: Path) -> list[Record]:
    """Return the journal's rows as another process would read them."""
    return list(Journal(path).list())


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Return where the journal is."""
    return tmp_path / "journal.sqlite3"


@pytest.fixture
def guard(path: Path, make_pack_guard: Callable[..., Guard]) -> Guard:
    """Return a guard with a journal on disk."""
    return make_pack_guard(journal=Journal(path))


class TestManyAtOnce:
    """Many exchanges at one time over one guard."""

    def test_threads(self, guard: Guard, pack_guard: Guard, path: Path) -> None:
        """32 threads stream and check; none sees another's text, rows included."""
        expected = [pack_guard.check(text_of(number)) for number in range(THREADS)]
        begin = threading.Barrier(THREADS)

        def work(number: int) -> tuple[str, Verdict, Verdict]:
            begin.wait()
            stream = guard.stream(pieces_of(number))
            return "".join(stream), stream.verdict, guard.check(text_of(number))

        with ThreadPoolExecutor(THREADS) as pool:
            results = list(pool.map(work, range(THREADS)))
        for number, (delivered, verdict, whole) in enumerate(results):
            assert_own(number, delivered, verdict, expected[number])
            assert whole == expected[number]
        self.check_rows(rows(path), 2 * THREADS)

    async def test_tasks(self, guard: Guard, pack_guard: Guard, path: Path) -> None:
        """200 tasks stream at once; none sees another's text, rows included."""
        expected = [await pack_guard.acheck(text_of(number)) for number in range(TASKS)]

        async def work(number: int) -> tuple[str, Verdict]:
            stream = guard.astream(apieces_of(number))
            return "".join([text async for text in stream]), stream.verdict

        results = await asyncio.gather(*(work(number) for number in range(TASKS)))
        for number, (delivered, verdict) in enumerate(results):
            assert_own(number, delivered, verdict, expected[number])
        self.check_rows(rows(path), TASKS)

    def test_choices_and_channels_keep_to_themselves(self, guard: Guard) -> None:
        """Each choice and each channel of one exchange is judged and mended on its own."""
        choices = tuple(
            Choice(
                content=text_of(n),
                reasoning=text_of(n + 1),
                tool_calls=(ToolCall("note", text_of(n + 2).replace("zexcise", "")),),
            )
            for n in (0, 3, 6)
        )
        verdict = guard.check(Exchange(choices))
        for n, choice in zip((0, 3, 6), verdict.choices, strict=True):
            assert choice is not None
            assert not strangers(n, choice.content)
            assert not strangers(n + 1, choice.reasoning)
            assert not strangers(n + 2, choice.tool_calls[0].arguments)

    @staticmethod
    def check_rows(found: list[Record], count: int) -> None:
        """Fail unless there are `count` complete rows, each of one exchange alone."""
        assert len(found) == count
        for row in found:
            own = set(MARKER.findall(f"{row.response}"))
            assert len(own) == 1
            assert set(MARKER.findall(f"{row}")) == own
            assert row.complete


class TestCopies:
    """A guard never changes, so that one is enough for a process."""

    def test_it_is_its_own_copy(self, guard: Guard) -> None:
        """Whatever holds a guard can be copied, however deep, and holds the same."""
        assert copy.copy(guard) is guard
        (again,) = copy.deepcopy([guard])
        assert again is guard
        assert again.check("zblock").action == "block"

    def test_it_stays_in_its_process(self, guard: Guard) -> None:
        """To send it to another is refused, with the mend."""
        with pytest.raises(TypeError, match=r"load one there, once, with `Guard.load`"):
            pickle.dumps(guard)


class TestUpstreamDies:
    """An upstream that raises while it is read."""

    def test_its_reader_gets_the_error(self, guard: Guard, path: Path) -> None:
        """The error reaches the reader behind what had left, and the row is closed."""
        error = ConnectionError("the line went dead")

        def source() -> Iterator[str]:
            yield from pieces_of(1)
            raise error

        stream = guard.stream(source())
        left: list[str] = []
        with pytest.raises(ConnectionError) as caught:
            left.extend(stream)
        assert caught.value is error
        assert left
        (row,) = rows(path)
        assert not row.complete
        assert row.outcome == "".join(left)
        assert 0 < row.released < len(text_of(1))
        with pytest.raises(InputError, match="to its end"):
            _ = stream.verdict

    async def test_others_go_on(self, guard: Guard, pack_guard: Guard, path: Path) -> None:
        """Of many streams every third one's upstream dies; the rest are as if alone."""

        async def source(number: int) -> AsyncIterator[str]:
            async for piece in apieces_of(number):
                yield piece
            if number % 3 == 0:
                raise ConnectionError(number)

        async def work(number: int) -> tuple[str, Verdict]:
            stream = guard.astream(source(number))
            return "".join([text async for text in stream]), stream.verdict

        numbers = range(30)
        results = await asyncio.gather(*map(work, numbers), return_exceptions=True)
        for number, result in zip(numbers, results, strict=True):
            if number % 3 == 0:
                assert isinstance(result, ConnectionError)
                assert result.args == (number,)
            else:
                assert not isinstance(result, BaseException)
                assert_own(number, *result, pack_guard.check(text_of(number)))
        closed = [row for row in rows(path) if not row.complete]
        assert len(closed) == len([n for n in numbers if n % 3 == 0])

    def test_before_anything_was_flagged_there_is_no_row(self, guard: Guard, path: Path) -> None:
        """A stream that dies while nothing was found leaves no trace."""

        def source() -> Iterator[str]:
            yield "All is well. " * 40
            raise ConnectionError

        with pytest.raises(ConnectionError):
            list(guard.stream(source()))
        assert rows(path) == []


class TestReaderLeaves:
    """A reader that stops early."""

    def test_close(self, guard: Guard, path: Path) -> None:
        """`close` drops what was held back, closes the row and the upstream."""
        closed: list[int] = []
        with closing(guard.stream(watched(closed))) as stream:
            delivered = next(stream) + next(stream) + next(stream)
        assert closed == [1]
        (row,) = rows(path)
        assert (row.complete, row.outcome) == (False, delivered)
        assert list(stream) == []

    def test_close_before_the_first_piece(self, guard: Guard, path: Path) -> None:
        """A stream that was never read closes its upstream all the same."""
        upstream = Closable()
        guard.stream(upstream).close()
        assert upstream.closed == 1
        assert rows(path) == []

    def test_break_and_forget(self, guard: Guard, path: Path) -> None:
        """A stream that is merely dropped is closed at once, without the garbage collector."""
        gc.disable()
        try:
            closed: list[int] = []
            for text in guard.stream(watched(closed)):
                if "zflag" in text:
                    break
            (row,) = rows(path)
            assert not row.complete
            assert closed == [1]
        finally:
            gc.enable()

    def test_the_process_ends(self, path: Path) -> None:
        """Where a process ends with half-read streams, it ends well, and rows say what had left."""
        ended = ending(ENDING, path)
        assert ended.returncode == 0, ended.stderr
        assert "Exception ignored" not in ended.stderr
        left = [(row.complete, row.released) for row in rows(path)]
        assert sorted(left) == [(False, size) for size in json.loads(ended.stdout)]

    @pytest.mark.skipif(not hasattr(os, "fork"), reason="no `fork` on this system")
    def test_a_forked_process_ends(self, path: Path) -> None:
        """A child leaves the rows of what goes on in its parent alone, and ends well."""
        script = f"""{ENDING}
import os, warnings
warnings.simplefilter("ignore", DeprecationWarning)  # the guard's threads rest
before = [row.released for row in Journal(sys.argv[1]).list()]
child = os.fork()
if child:
    assert os.waitpid(child, 0)[1] == 0
    assert [row.released for row in Journal(sys.argv[1]).list()] == before
"""
        ended = ending(script, path)
        assert ended.returncode == 0, ended.stderr
        left = [(row.complete, row.released) for row in rows(path)]
        assert sorted(left) == [(False, size) for size in json.loads(ended.stdout)]

    async def test_aclose(self, guard: Guard, path: Path) -> None:
        """`aclose` does what `close` does."""
        closed: list[int] = []
        async with aclosing(guard.astream(awatched(closed))) as stream:
            delivered = await anext(stream) + await anext(stream) + await anext(stream)
        assert closed == [1]
        (row,) = rows(path)
        assert (row.complete, row.outcome) == (False, delivered)
        assert [text async for text in stream] == []

    async def test_aclose_before_the_first_piece(self, guard: Guard) -> None:
        """An asynchronous stream that was never read closes its upstream all the same."""
        upstream = Closable()
        await guard.astream(upstream).aclose()
        assert upstream.closed == 1

    async def test_async_break_and_forget(self, guard: Guard, path: Path) -> None:
        """An asynchronous stream that is dropped is closed by the event loop soon after."""
        closed: list[int] = []
        async for text in guard.astream(awatched(closed)):
            if "zflag" in text:
                break
        for _ in range(500):
            await asyncio.sleep(0.01)
            if closed:
                break
        (row,) = rows(path)
        assert not row.complete
        assert closed == [1]

    def test_the_event_is_logged(self, guard: Guard, path: Path) -> None:
        """An exchange that broke off behind flagged text is logged once, like any other."""
        stream = guard.stream(pieces_of(1))
        with capture_logs() as logs:
            while "zflag" not in next(stream):
                pass
            assert logs == []
            stream.close()
        (row,) = rows(path)
        (event,) = logs
        assert (event["record"], event["complete"]) == (row.id, False)


class TestCancelled:
    """A task that is cancelled while its text is judged or kept."""

    async def test_while_judging(
        self, make_pack_guard: Callable[..., Guard], path: Path, gate: Gate
    ) -> None:
        """The row of what had left is closed, the task is cancelled, and no thread is lost."""
        guard = make_pack_guard(gate, journal=Journal(path))
        left: list[str] = []

        async def work() -> None:
            async for text in guard.astream(apieces_of(1)):
                left.append(text)
                gate.closed = "zflag" in text

        task = asyncio.create_task(work())
        await asyncio.to_thread(gate.reached.wait, 60)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        (row,) = rows(path)
        assert (row.complete, row.outcome) == (False, "".join(left))
        gate.open()
        assert (await guard.acheck(text_of(2))).action == "rewrite"

    async def test_at_any_moment(self, guard: Guard, path: Path) -> None:
        """Wherever a cancellation strikes, the row says in the end what had left."""
        seen: set[str] = set()
        for moment in range(0, 60, 3):
            left: list[str] = []
            with suppress(TimeoutError):
                async with asyncio.timeout(moment / 1000):
                    async with aclosing(guard.astream(apieces_of(1))) as stream:
                        async for text in stream:
                            left.append(text)  # noqa: PERF401  # a comprehension would be lost
            found = [row for row in rows(path) if row.id not in seen]
            assert len(found) == 1 or not (found or "zflag" in "".join(left))
            assert all(row.outcome == "".join(left) for row in found)
            seen |= {row.id for row in found}

    async def test_while_the_row_is_written(
        self, make_pack_guard: Callable[..., Guard], path: Path
    ) -> None:
        """However often it is cancelled, a task leaves only when its row is safe and closed."""
        journal = Announced(path)
        guard = make_pack_guard(journal=journal)
        left: list[str] = []

        async def work() -> None:
            async for text in guard.astream(apieces_of(1)):
                left.append(text)  # noqa: PERF401  # a comprehension would be lost

        with closing(sqlite3.connect(path, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            task = asyncio.create_task(work())
            await asyncio.to_thread(journal.reached.wait, 60)
            for _ in range(5):
                task.cancel()
                await asyncio.sleep(0.01)
            assert not task.done()
            other.execute("ROLLBACK")
        with pytest.raises(asyncio.CancelledError):
            await task
        (row,) = rows(path)
        assert (row.complete, row.outcome) == (False, "".join(left))
        assert "zflag" not in "".join(left)

    async def test_a_cancelled_check(
        self, make_guard: Callable[..., Guard], path: Path, gate: Gate
    ) -> None:
        """A whole text whose reader went away is neither delivered nor journalled."""
        guard = make_guard(gate, limits={"nothing": {"flag": 0.5}}, journal=Journal(path))
        gate.closed = True
        task = asyncio.create_task(guard.acheck(text_of(1)))
        await asyncio.to_thread(gate.reached.wait, 60)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert rows(path) == []

    async def test_a_cancelled_feed(self, make_pack_guard: Callable[..., Guard]) -> None:
        """Wherever a cancellation strikes what is followed, nothing of it is lost or left out."""
        text = text_of(1) * 3
        expected = make_pack_guard().check(text)
        for moment in range(0, 40, 4):
            with closing(Slow("sqlite://")) as journal:
                following = make_pack_guard(Dozing(), journal=journal).follow(Exchange(()))
                following.open(Channel("c", "content", 0, ""))
                left = ""
                for start in range(0, len(text), 400):
                    with suppress(TimeoutError):
                        async with asyncio.timeout(moment / 1000):
                            left += await following.afeed("c", text[start : start + 400])
                with suppress(TimeoutError):
                    async with asyncio.timeout(moment / 1000):
                        left += await following.aclose("c")
                left += await following.aclose("c")
                with suppress(TimeoutError):
                    async with asyncio.timeout(moment / 1000):
                        await following.afinish()
                verdict = await following.afinish()
                (row,) = journal.list()
            assert left == expected.text == verdict.text
            assert verdict.findings == tuple(replace(f, channel="c") for f in expected.findings)
            assert verdict.coverage.complete
            assert verdict.coverage.judged == {"c": len(text)}
            assert (row.complete, row.outcome) == (True, f"[c]\n{left}")

    async def test_a_row_that_is_not_known_to_be_written(
        self, make_guard: Callable[..., Guard], path: Path
    ) -> None:
        """Text that is to be journalled leaves only behind a row that is known to be there."""
        journal = Failing(path)
        guard = make_guard(journal=journal)
        following = guard.follow(Exchange(()))
        following.open(Channel("c", "content", 0, ""))
        task = asyncio.create_task(following.afeed("c", f"One zflag. {FILLER}"))
        await asyncio.to_thread(journal.reached.wait, 60)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await following.afeed("c", FILLER) + await following.aclose("c") == ""
        assert following.withheld()
        assert (await following.afinish()).action == "block"


FILLER = "The berth lies behind the mill and stays free until the evening. " * 8


class Dozing:
    """A detector that finds nothing, after a while."""

    name = "dozing"
    version = "1"
    categories = ("nothing",)

    def __call__(self, _: Passage) -> list[Finding]:
        """Take a while."""
        time.sleep(0.002)
        return []


class Slow(Journal):
    """A journal that takes a while."""

    def write(self, record: Record) -> None:
        """Write, in a while."""
        time.sleep(0.006)
        super().write(record)

    def update(self, record: Record) -> None:
        """Update, in a while."""
        time.sleep(0.006)
        super().update(record)


class Failing(Journal):
    """A journal that cannot write, and tells when it is about to."""

    def __init__(self, path: Path) -> None:
        """Open it."""
        super().__init__(path)
        self.reached = threading.Event()

    def write(self, record: Record) -> None:
        """Fail, in a while."""
        self.reached.set()
        time.sleep(0.05)
        raise JournalError(f"no place for {record.id}")


class Announced(Journal):
    """A journal that tells when it is about to write."""

    def __init__(self, path: Path) -> None:
        """Open it."""
        super().__init__(path)
        self.reached = threading.Event()

    def write(self, record: Record) -> None:
        """Tell, then write."""
        self.reached.set()
        super().write(record)


class Gate:
    """A detector that finds nothing, and does not answer while it is closed."""

    name = "gate"
    version = "1"
    categories = ("nothing",)

    def __init__(self) -> None:
        """Be open."""
        self.closed = False
        self.reached = threading.Event()
        self._opened = threading.Event()

    def __call__(self, _: Passage) -> list[Finding]:
        """Wait at a closed gate."""
        if self.closed:
            self.reached.set()
            self._opened.wait(60)
        return []

    def open(self) -> None:
        """Let everybody pass."""
        self.closed = False
        self._opened.set()


@pytest.fixture
def gate() -> Iterator[Gate]:
    """Yield a gate; nobody waits at it for ever."""
    gate = Gate()
    yield gate
    gate.open()


class Closable:
    """An upstream that counts how often it was closed."""

    def __init__(self) -> None:
        """Be open."""
        self.closed = 0

    def __iter__(self) -> Iterator[str]:
        return pieces_of(1)

    def __aiter__(self) -> AsyncIterator[str]:
        return apieces_of(1)

    def close(self) -> None:
        """Count."""
        self.closed += 1

    async def aclose(self) -> None:
        """Count."""
        self.closed += 1


def watched(closed: list[int]) -> Iterator[str]:
    """Yield an exchange's pieces; note when the generator was closed."""
    try:
        yield from pieces_of(1)
    finally:
        closed.append(1)


async def awatched(closed: list[int]) -> AsyncIterator[str]:
    """As `watched`."""
    try:
        async for piece in apieces_of(1):
            yield piece
    finally:
        closed.append(1)
