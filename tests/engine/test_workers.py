"""Worker threads: deadlines, hanging jobs, cancelled waiters, forks and the end of a pool."""

from __future__ import annotations

import asyncio
import contextvars
import os
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

import guard.workers
from guard.workers import Workers

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from guard.workers import Job

LONG = 60.0


def nothing(_: Job) -> None:
    """Do nothing."""


def until(over: threading.Event) -> Callable[[Job], None]:
    """Return a call that hangs until `over` is set."""

    def hang(_: Job) -> None:
        over.wait(LONG)

    return hang


class Census:
    """Counts the worker threads that came since it was made: other pools come and go too."""

    def __init__(self) -> None:
        """Remember who was there before."""
        self._before = set(threading.enumerate())

    def count(self) -> int:
        """Return how many of the new ones are alive."""
        new = set(threading.enumerate()) - self._before
        return sum(thread.name == "guard-worker" for thread in new)


def settled(condition: Callable[[], bool]) -> bool:
    """Return whether `condition` comes true before long."""
    for _ in range(1000):
        if condition():
            return True
        time.sleep(0.01)
    return False


@pytest.fixture
def over() -> Iterator[threading.Event]:
    """Yield an event that hanging jobs wait for; set when the test is over."""
    event = threading.Event()
    yield event
    event.set()


class TestRun:
    """A job and whoever waits for it."""

    def test_it_runs_on_another_thread(self) -> None:
        """The call runs on a worker, and `run` returns when it is done."""
        seen: list[str] = []
        assert Workers().run(lambda _: seen.append(threading.current_thread().name), LONG)
        assert seen == ["guard-worker"]

    async def test_arun(self) -> None:
        """`arun` does the same and lets the event loop go on."""
        loop_went_on = threading.Event()
        asyncio.get_running_loop().call_soon(loop_went_on.set)
        seen: list[bool] = []
        assert await Workers().arun(lambda _: seen.append(loop_went_on.wait(LONG)), LONG)
        assert seen == [True]

    def test_context_variables(self) -> None:
        """The call sees its caller's context variables, each caller's its own."""
        variable = contextvars.ContextVar("variable", default="")
        workers, seen = Workers(1), []
        for value in ("one", "two"):
            variable.set(value)
            assert workers.run(lambda _: seen.append(variable.get()), LONG)
        assert seen == ["one", "two"]

    @pytest.mark.parametrize("error", [ValueError(), SystemExit(1), KeyboardInterrupt()])
    def test_an_error_costs_no_thread(self, error: BaseException) -> None:
        """Whatever a call raises, its thread goes on, and the job counts as done."""
        workers = Workers(1)

        def fail(_: Job) -> None:
            raise error

        for _ in range(3):
            assert workers.run(fail, LONG)
        assert workers.run(nothing, LONG)

    def test_at_most_so_many_at_a_time(self) -> None:
        """However many callers there are, no more than `size` jobs run at once."""
        workers = Workers(3)
        lock, running, most = threading.Lock(), 0, 0

        def work(_: Job) -> None:
            nonlocal running, most
            with lock:
                running += 1
                most = max(most, running)
            time.sleep(0.005)
            with lock:
                running -= 1

        with ThreadPoolExecutor(16) as pool:
            assert all(pool.map(lambda _: workers.run(work, LONG), range(48)))
        assert most == 3

    def test_waiting_in_the_queue_is_not_running(self) -> None:
        """The time that a job waits for its turn does not count against its deadline."""
        workers = Workers(1)
        with ThreadPoolExecutor(8) as pool:
            done = list(pool.map(lambda _: workers.run(lambda _: time.sleep(0.2), 1.0), range(8)))
        assert done == [True] * 8


class TestHanging:
    """Jobs that do not end."""

    def test_it_is_given_up(self, over: threading.Event) -> None:
        """A job that overruns is given up, told so, and its thread is replaced."""
        workers = Workers(1)
        jobs: list[Job] = []

        def hang(job: Job) -> None:
            jobs.append(job)
            over.wait(LONG)

        assert not workers.run(hang, 0.05)
        assert jobs[0].abandoned
        assert workers.run(nothing, LONG)

    async def test_more_than_there_are_threads(self, over: threading.Event) -> None:
        """Jobs that hang keep nobody else from their turn."""
        workers = Workers(2)
        hanging = [workers.arun(until(over), 0.2) for _ in range(6)]
        assert await asyncio.gather(*hanging) == [False] * 6
        assert await workers.arun(nothing, LONG)

    def test_threads_that_come_back_are_not_too_many(self, over: threading.Event) -> None:
        """When hanging jobs end, their threads end too, and the pool has its size again."""
        census = Census()
        workers = Workers(2)
        for _ in range(5):
            assert not workers.run(until(over), 0.02)
        assert census.count() == 7
        over.set()
        assert settled(lambda: census.count() == 2)
        assert workers.run(nothing, LONG)

    def test_they_do_not_pile_up_for_ever(
        self, over: threading.Event, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Past a limit nothing is replaced; jobs are then given up unrun, and later ones run."""
        monkeypatch.setattr(guard.workers, "STUCK_LIMIT", 3)
        census = Census()
        workers = Workers(1)
        for _ in range(10):
            assert not workers.run(until(over), 0.02)
        assert census.count() <= 4
        ran: list[int] = []
        assert not workers.run(lambda _: ran.append(1), 0.05)
        over.set()
        assert settled(lambda: workers.run(nothing, 0.5))
        assert ran == []

    async def test_past_the_limit_without_blocking(
        self, over: threading.Event, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """`arun` gives up past the limit as well."""
        monkeypatch.setattr(guard.workers, "STUCK_LIMIT", 0)
        workers = Workers(1)
        assert not await workers.arun(until(over), 0.02)
        assert not await workers.arun(nothing, 0.02)

    def test_no_thread_can_be_started(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Where the system has no thread left, the job is given up; it is no error."""

        def start(_: threading.Thread) -> None:
            raise RuntimeError("can't start new thread")

        workers = Workers(1)
        with monkeypatch.context() as patch:
            patch.setattr(threading.Thread, "start", start)
            assert not workers.run(nothing, 0.05)
        assert workers.run(nothing, LONG)


class TestCancelled:
    """Waiters that go away."""

    async def test_it_is_told(self, over: threading.Event) -> None:
        """A job whose waiter was cancelled is asked to stop, and no thread is lost."""
        workers, begun = Workers(1), threading.Event()
        jobs: list[Job] = []

        def hang(job: Job) -> None:
            jobs.append(job)
            begun.set()
            over.wait(LONG)

        task = asyncio.create_task(workers.arun(hang, 0.3))
        await asyncio.to_thread(begun.wait, LONG)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert jobs[0].abandoned
        # The job hangs on behind its deadline: whoever comes next replaces its thread.
        assert await workers.arun(nothing, 0.3)

    async def test_one_that_waits_for_its_turn_never_runs(self, over: threading.Event) -> None:
        """A job that is cancelled in the queue is left out."""
        workers = Workers(1)
        ran: list[int] = []
        first = asyncio.create_task(workers.arun(until(over), LONG))
        second = asyncio.create_task(workers.arun(lambda _: ran.append(1), LONG))
        await asyncio.sleep(0.05)
        second.cancel()
        with pytest.raises(asyncio.CancelledError):
            await second
        over.set()
        assert await first
        assert await workers.arun(nothing, LONG)
        assert ran == []

    async def test_many_do_not_make_threads(self) -> None:
        """Cancelling over and over starts no thread beyond the pool's size."""
        census = Census()
        workers = Workers(2)
        for _ in range(50):
            task = asyncio.create_task(workers.arun(lambda _: time.sleep(0.001), LONG))
            await asyncio.sleep(0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        assert census.count() <= 2
        assert await workers.arun(nothing, LONG)


class TestEnd:
    """A pool that nobody needs any more."""

    def test_threads_end_with_the_instance(self) -> None:
        """Guards that come and go leave no thread behind."""
        census = Census()
        for _ in range(20):
            assert Workers(2).run(nothing, LONG)
        assert settled(lambda: census.count() == 0)

    def test_a_loop_that_is_gone(self, over: threading.Event) -> None:
        """A job that ends after its event loop was closed harms nobody."""
        workers, begun = Workers(1), threading.Event()

        def hang(_: Job) -> None:
            begun.set()
            over.wait(LONG)

        async def leave() -> None:
            task = asyncio.create_task(workers.arun(hang, LONG))
            await asyncio.to_thread(begun.wait, LONG)
            task.cancel()

        asyncio.run(leave())
        over.set()
        assert workers.run(nothing, LONG)

    def test_a_hanging_detector_does_not_keep_the_process(self) -> None:
        """The interpreter ends although a worker hangs."""
        script = (
            "import time\n"
            "from guard.workers import Workers\n"
            "print(Workers().run(lambda job: time.sleep(600), 0.1))"
        )
        assert run(script) == "False"

    def test_what_was_given_up_is_ended_before_the_interpreter(self) -> None:
        """At exit a job under way is stopped where it is next in Python, and cleans up there."""
        script = """
import time
from guard.workers import Workers
def passes(job):
    try:
        while True:
            time.sleep(0.05)
    finally:
        print("ended")
workers = Workers()
print(workers.run(passes, 0.02))
del workers
"""
        assert run(script).split() == ["False", "ended"]

    def test_what_never_ends_is_told(self) -> None:
        """`finish` says whether all jobs have ended, and waits no longer than it may."""
        script = """
import threading
from guard.workers import Workers, finish
workers, over = Workers(), threading.Event()
print(finish(60))
workers.run(lambda job: over.wait(), 0.02)
print(finish(0.1))
over.set()
print(finish(60))
"""
        assert run(script).split() == ["True", "False", "True"]

    @pytest.mark.parametrize(("seconds", "left"), [(600, ""), (0, "taken down")])
    def test_the_command_line_keeps_its_exit_code(self, seconds: int, left: str) -> None:
        """Where a detector hangs for good, `guard` leaves with its code and its output."""
        script = f"""
import atexit, sys, time
from guard.cli import main
from guard.workers import Workers
atexit.register(print, "taken down")
workers = Workers()
workers.run(lambda job: time.sleep({seconds}), 0.1)
sys.argv = ["guard", "classes", "publik"]
main()
"""
        done = interpreted(script)
        assert (done.returncode, done.stdout.strip()) == (2, left)
        assert "publik" in done.stderr


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
class TestFork:
    """Processes that are split off, as servers do with their workers."""

    def test_the_child_has_threads_of_its_own(self) -> None:
        """A pool that has run works on in parent and child, even if split while it was busy."""
        script = """
import os, threading, time
from guard.workers import Workers
workers = Workers(2)
assert workers.run(lambda job: None, 60)
stop = threading.Event()
def churn():
    while not stop.is_set():
        workers.run(lambda job: None, 60)
threads = [threading.Thread(target=churn) for _ in range(4)]
for thread in threads: thread.start()
children = []
for _ in range(20):
    child = os.fork()
    if child == 0:
        os._exit(0 if all(workers.run(lambda job: None, 60) for _ in range(5)) else 1)
    children.append(child)
    time.sleep(0.01)
codes = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
stop.set()
for thread in threads: thread.join()
assert workers.run(lambda job: None, 60)
print(sorted(set(codes)))
"""
        assert run(script) == "[0]"

    def test_a_guard_in_several_processes(self, tmp_path: Path) -> None:
        """One guard, split into three processes, judges and journals in each."""
        script = f"""
import os, structlog
structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(50))
from guard import Guard
guard = Guard.load("public", journal={str(tmp_path / "journal.sqlite3")!r})
key = "AKIA" + "Q7WZ3FJ5LM2NXK4B"
text = "The machine's key is " + key + " and nobody must know."
first = guard.check(text)
assert first.record
children = []
for _ in range(3):
    child = os.fork()
    if child == 0:
        code = 1
        try:
            mine = [guard.check(text) for _ in range(3)]
            code = 0 if all(v == first and v.record for v in mine) else 2
        finally:
            os._exit(code)
    children.append(child)
codes = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
assert guard.check(text) == first
print(codes, guard.journal.count())
"""
        assert run(script) == "[0, 0, 0] 11"


def run(script: str) -> str:
    """Run `script` in a fresh interpreter; return what it printed."""
    done = interpreted(script)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def interpreted(script: str) -> subprocess.CompletedProcess[str]:
    """Run `script` in a fresh interpreter to its end."""
    return subprocess.run(
        [sys.executable, "-W", "ignore::DeprecationWarning", "-c", script],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
