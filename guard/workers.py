"""A small pool of daemon threads that runs detectors under a deadline.

The standard library's thread pool joins its threads at exit, so that one detector that
hangs would keep the process alive for ever; these threads are daemons. A thread whose
job overran its deadline is given up and replaced, so that others keep their turn.

This module does not know what it runs.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import os
import queue
import threading
import time
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

_MINIMUM_THREADS: Final = 2


class Job:
    """One call that runs in a worker thread; `abandoned` asks it to stop early."""

    __slots__ = ("_call", "_context", "_done", "_watchers", "abandoned", "replaced", "started")

    def __init__(self, call: Callable[[Job], None]) -> None:
        """Keep `call`, which gets the job itself so that it can look at `abandoned`."""
        self._call = call
        self._context = contextvars.copy_context()
        self._done = threading.Event()
        self._watchers: list[Callable[[], None]] = []
        self.abandoned = False
        self.replaced = False
        self.started: float | None = None

    def run(self) -> None:
        """Run the call, unless it was given up before its turn came."""
        self.started = time.monotonic()
        try:
            if not self.abandoned:
                self._context.run(self._call, self)
        finally:
            self._done.set()
            for watcher in self._watchers:
                watcher()

    def watch(self, watcher: Callable[[], None]) -> None:
        """Have `watcher` called (from the worker thread) when the job is done."""
        self._watchers.append(watcher)
        if self._done.is_set():
            watcher()

    def remaining(self, timeout: float) -> float:
        """Return the seconds left of `timeout`, which counts from the job's start."""
        if self.started is None:
            return timeout
        return timeout - (time.monotonic() - self.started)

    @property
    def done(self) -> bool:
        """Whether the call has ended."""
        return self._done.is_set()

    def wait(self, timeout: float) -> bool:
        """Wait until done, at most `timeout` seconds from the job's start; say if it is done."""
        while not self._done.is_set():
            left = self.remaining(timeout)
            if left <= 0:
                return self._done.is_set()
            self._done.wait(left)
        return True


class Workers:
    """Runs jobs on at most `size` threads at a time. Survives `os.fork`."""

    def __init__(self, size: int | None = None) -> None:
        """Start no thread yet; `size` defaults to the number of usable cores."""
        self._size = size or max(_MINIMUM_THREADS, len(_usable_cores()))
        self._lock = threading.Lock()
        self._reset()

    def submit(self, call: Callable[[Job], None]) -> Job:
        """Queue `call` and return its job."""
        job = Job(call)
        with self._lock:
            if self._pid != os.getpid():
                self._reset()
            if self._threads < self._size:
                self._spawn()
        self._queue.put(job)
        return job

    def run(self, call: Callable[[Job], None], timeout: float) -> bool:
        """Run `call` and wait; `False` if it overran `timeout` seconds and was given up."""
        job = self.submit(call)
        return job.wait(timeout) or self._give_up(job)

    async def arun(self, call: Callable[[Job], None], timeout: float) -> bool:  # noqa: ASYNC109
        """As `run`, without blocking the event loop."""
        loop = asyncio.get_running_loop()
        finished = asyncio.Event()
        job = self.submit(call)
        job.watch(lambda: _wake(loop, finished))
        try:
            while not job.done and (left := job.remaining(timeout)) > 0:
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(finished.wait(), left)
        except asyncio.CancelledError:
            job.abandoned = True
            raise
        return job.done or self._give_up(job)

    def _give_up(self, job: Job) -> bool:
        job.abandoned = job.replaced = True
        with self._lock:
            self._spawn()
        return False

    def _reset(self) -> None:
        self._pid = os.getpid()
        self._queue: queue.SimpleQueue[Job] = queue.SimpleQueue()
        self._threads = 0

    def _spawn(self) -> None:
        self._threads += 1
        name = f"guard-worker-{self._threads}"
        threading.Thread(target=self._work, args=(self._queue,), name=name, daemon=True).start()

    @staticmethod
    def _work(jobs: queue.SimpleQueue[Job]) -> None:
        while True:
            job = jobs.get()
            # A call reports by its own means; even `SystemExit` must not cost a thread.
            with contextlib.suppress(BaseException):
                job.run()
            if job.replaced:
                return


def _usable_cores() -> set[int] | range:
    if hasattr(os, "sched_getaffinity"):
        return os.sched_getaffinity(0)
    return range(os.cpu_count() or 1)


def _wake(loop: asyncio.AbstractEventLoop, finished: asyncio.Event) -> None:
    if not loop.is_closed():
        loop.call_soon_threadsafe(finished.set)
