"""A small pool of daemon threads that runs jobs under a deadline.

The standard library's thread pool joins its threads at exit, so that one detector that
hangs would keep the process alive for ever; these threads are daemons. A thread whose
job overran its deadline is given up and replaced, so that others keep their turn; where
too many hang, jobs are given up unrun, and never run late or wait for ever.

The interpreter ends daemons where they stand, and one that comes back from native code just
then (a model's pass) aborts the whole process. So at exit jobs under way are asked to stop, and
waited for, at most `EXIT_SECONDS`. One that is still in native code after that is left to its
fate: whoever knows the exit code may call `finish` and leave by `os._exit`.

This module does not know what it runs.
"""

from __future__ import annotations

import atexit
import contextlib
import contextvars
import os
import threading
import time
import weakref
from queue import SimpleQueue
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

STUCK_LIMIT: Final = 64
"""Hanging threads that are replaced; memory is bounded where a detector hangs for good."""

EXIT_SECONDS: Final = 3.0
"""What jobs under way at the interpreter's exit get; a pass of a model takes far less."""

_MINIMUM_THREADS: Final = 2


class Job:
    """One call that runs in a worker thread; `abandoned` asks it to stop early.

    Args:
        call: gets the job itself, so that it can look at `abandoned`.
        timeout: seconds that it may take, counted from its start and not from its queueing.
    """

    __slots__ = (
        "_call",
        "_context",
        "_done",
        "_queued",
        "_started",
        "_thread",
        "_timeout",
        "_watcher",
        "abandoned",
    )

    def __init__(self, call: Callable[[Job], None], timeout: float) -> None:
        """Keep the caller's context variables for the call."""
        self._call = call
        self._timeout = timeout
        self._context = contextvars.copy_context()
        self._done = threading.Event()
        self._watcher: Callable[[], None] | None = None
        self._queued = time.monotonic()
        self._started: float | None = None
        self._thread = 0
        self.abandoned = False

    def run(self) -> None:
        """Run the call, unless it was given up before its turn came."""
        self._started = time.monotonic()
        self._thread = threading.get_ident()
        try:
            if not self.abandoned:
                self._context.run(self._call, self)
        finally:
            self._done.set()
            if self._watcher is not None:
                self._watcher()

    def watch(self, watcher: Callable[[], None]) -> None:
        """Have `watcher` called, perhaps twice and from any thread, when the job is done."""
        self._watcher = watcher
        if self.done:
            watcher()

    def interrupt(self) -> None:
        """Have the call raise `SystemExit` as soon as it is back in Python; only for the exit.

        A detector may make many passes for one passage, and knows nothing of `abandoned`.
        """
        import ctypes  # noqa: PLC0415  # nobody needs it until something hangs

        self.abandoned = True
        # Only CPython has it; elsewhere the call goes on to its end.
        with contextlib.suppress(AttributeError):
            raising = ctypes.pythonapi.PyThreadState_SetAsyncExc
            raising(ctypes.c_ulong(self._thread), ctypes.py_object(SystemExit))

    def remaining(self) -> float:
        """Return the seconds left, all of them before the job's start."""
        if self._started is None:
            return self._timeout
        return self._timeout - (time.monotonic() - self._started)

    def wait(self, seconds: float) -> None:
        """Wait until done, or so many seconds."""
        self._done.wait(seconds)

    @property
    def done(self) -> bool:
        """Whether the call has ended."""
        return self._done.is_set()

    @property
    def late(self) -> bool:
        """Whether it has waited longer for its start than it may take."""
        return self._started is None and time.monotonic() - self._queued >= self._timeout


class Workers:
    """Runs jobs on at most `size` threads at a time; those that hang do not count.

    Threads start with the first jobs and end with the instance. Survives `os.fork`.
    """

    def __init__(self, size: int | None = None) -> None:
        """Start no thread yet; `size` defaults to the number of usable cores."""
        self._size = size or max(_MINIMUM_THREADS, _usable_cores())
        self._begin()
        _all.add(self)
        # The last to register goes first: before whatever the models' runtimes take down.
        atexit.unregister(finish)
        atexit.register(finish)

    def run(self, call: Callable[[Job], None], timeout: float) -> bool:
        """Run `call` and wait; `False` if it overran `timeout` seconds and was given up."""
        pool = self._pool
        job = pool.submit(call, timeout)
        try:
            while pool.awaits(job):
                job.wait(job.remaining())
        finally:
            pool.leave(job)
        return job.done

    async def arun(self, call: Callable[[Job], None], timeout: float) -> bool:  # noqa: ASYNC109
        """As `run`, without blocking the event loop."""
        import asyncio  # noqa: PLC0415  # whoever has no event loop need not have its memory

        pool = self._pool
        loop = asyncio.get_running_loop()
        finished = asyncio.Event()
        job = pool.submit(call, timeout)
        job.watch(lambda: _wake(loop, finished))
        try:
            while pool.awaits(job):
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(job.remaining()):
                        await finished.wait()
        finally:
            pool.leave(job)
        return job.done

    def restart(self) -> None:
        """Begin anew without threads, as a forked child must: it has none of them."""
        self._closing.detach()
        self._begin()

    def _begin(self) -> None:
        self._pool = _Pool(self._size)
        _pools.add(self._pool)
        # Threads know the pool alone, so that they do not keep this instance alive.
        self._closing = weakref.finalize(self, self._pool.close)
        self._closing.atexit = False


class _Pool:
    """What the threads share; one lock guards whatever changes."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._lock = threading.Lock()
        self._queue: SimpleQueue[Job | None] = SimpleQueue()
        self._running: set[Job] = set()
        self._stuck: set[Job] = set()
        self._serving = 0
        self._closed = False

    def submit(self, call: Callable[[Job], None], timeout: float) -> Job:
        """Queue `call` and return its job."""
        job = Job(call, timeout)
        with self._lock:
            if self._serving < self._size:
                self._spawn()
        self._queue.put(job)
        return job

    def awaits(self, job: Job) -> bool:
        """Return whether it is worth to wait for `job`; see to it that its turn can come."""
        if job.done or job.remaining() <= 0:
            return False
        self._replace_stuck()
        return self._serving > 0 or not job.late

    def leave(self, job: Job) -> None:
        """Wait for `job` no more."""
        if not job.done:
            job.abandoned = True
            self._replace_stuck()

    def close(self) -> None:
        """Have every thread end behind the jobs that are queued."""
        with self._lock:
            self._closed = True
            for _ in range(self._serving):
                self._queue.put(None)

    def under_way(self) -> list[Job]:
        """Return the jobs that have begun and not ended, those that were given up included."""
        with self._lock:
            return [job for job in (*self._running, *self._stuck) if not job.done]

    def _replace_stuck(self) -> None:
        """Start a thread for each one whose job overran its time."""
        with self._lock:
            for job in [job for job in self._running if job.remaining() <= 0]:
                self._running.discard(job)
                self._serving -= 1
                self._stuck.add(job)
                self._spawn()

    def _spawn(self) -> None:
        if len(self._stuck) > STUCK_LIMIT:
            return
        # Where the system has no thread left, jobs wait for those that serve.
        with contextlib.suppress(RuntimeError):
            threading.Thread(target=self._work, name="guard-worker", daemon=True).start()
            self._serving += 1

    def _work(self) -> None:
        while (job := self._queue.get()) is not None:
            with self._lock:
                self._running.add(job)
            # A call reports by its own means; even `SystemExit` must not cost a thread.
            with contextlib.suppress(BaseException):
                job.run()
            if not self._goes_on(job):
                return

    def _goes_on(self, job: Job) -> bool:
        """Return whether the thread that ran `job` is still needed."""
        with self._lock:
            if job in self._running:
                self._running.remove(job)
                return True
            self._stuck.discard(job)
            if self._closed or self._serving >= self._size:
                return False
            self._serving += 1
            return True


_all: Final[weakref.WeakSet[Workers]] = weakref.WeakSet()
_pools: Final[weakref.WeakSet[_Pool]] = weakref.WeakSet()
"""Those whose instance is gone as well, as long as one of their threads hangs."""


def finish(seconds: float = EXIT_SECONDS) -> bool:
    """Stop all jobs under way, and wait for them; for the end of the process alone.

    Args:
        seconds: how long to wait for all of them together.

    Returns:
        Whether all have ended. Where not, a normal exit of the interpreter may abort.
    """
    until = time.monotonic() + seconds
    jobs = [job for pool in list(_pools) for job in pool.under_way()]
    for job in jobs:
        job.interrupt()
    for job in jobs:
        job.wait(max(0.0, until - time.monotonic()))
    return all(job.done for job in jobs)


def _restart_all() -> None:
    # Of the parent's threads none is in the child, so that none of their jobs will end.
    _pools.clear()
    for workers in list(_all):
        workers.restart()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_restart_all)


def _wake(loop: asyncio.AbstractEventLoop, finished: asyncio.Event) -> None:
    with contextlib.suppress(RuntimeError):  # the loop may be closed by now
        loop.call_soon_threadsafe(finished.set)


def _usable_cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
