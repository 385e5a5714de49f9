"""Worker processes on this machine, each with a guard of its own and one thread to judge with.

They start afresh (`spawn`), so that no thread or connection of the parent is in them. Few batches
are under way at a time, and results come in the order of the lines.

This module does not know how a line is judged, or where results go.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import threading
from collections import deque
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from guard.scan.errors import ScanError
from guard.scan.work import LineJudge

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from concurrent.futures import Future

    from guard.scan.reading import Line
    from guard.scan.work import Result, Settings

AHEAD: Final = 4
"""Batches under way per worker, its own included."""

_SINGLE: Final = {
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "TOKENIZERS_PARALLELISM": "false",
}
"""What keeps libraries from starting a thread for each core in each process."""

_settings: Settings | None = None
_judge: LineJudge | None = None


def judged(
    batches: Iterable[Sequence[Line]], settings: Settings, workers: int
) -> Iterator[list[Result]]:
    """Yield the results of each batch, in their order; read only few batches ahead.

    Closed early, it ends its workers at once.

    Args:
        batches: lines.
        settings: how they are judged.
        workers: processes, at least 1.

    Raises:
        GuardError: class or model cannot be used.
        ScanError: a worker process died.
    """
    waiting: deque[tuple[Sequence[Line], Future[list[Result]]]] = deque()
    with _pool(settings, workers) as pool:
        for batch in batches:
            waiting.append((batch, _submitted(pool, batch)))
            if len(waiting) >= AHEAD * workers:
                yield _result(*waiting.popleft())
        while waiting:
            yield _result(*waiting.popleft())


def inline(
    batches: Iterable[Sequence[Line]], settings: Settings, workers: int = 1
) -> Iterator[list[Result]]:
    """As `judged`, in this process, whatever `workers` is."""
    del workers
    judge = LineJudge(settings)
    yield from map(judge, batches)


def died(batch: Sequence[Line]) -> ScanError:
    """Return the error of a worker that ended before it had judged a batch."""
    first = batch[0]
    return ScanError(
        f"a worker died (killed, or out of memory) while lines from `{first.source}:"
        f"{first.number}` on were judged. What was judged by then is kept: the same command goes "
        "on behind it; take fewer workers (`--workers`) where memory is short"
    )


@contextmanager
def _pool(settings: Settings, workers: int) -> Iterator[ProcessPoolExecutor]:
    others = set(multiprocessing.active_children())
    context = multiprocessing.get_context("spawn")
    with _single_threads():
        pool = ProcessPoolExecutor(
            workers, mp_context=context, initializer=_begin, initargs=(settings,)
        )
        try:
            yield pool
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            for process in set(multiprocessing.active_children()) - others:
                process.terminate()
            raise
        pool.shutdown()


@contextmanager
def _single_threads() -> Iterator[None]:
    """Set what children must find when they start."""
    before = {name: os.environ.get(name) for name in _SINGLE}
    os.environ.update(_SINGLE)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _submitted(pool: ProcessPoolExecutor, batch: Sequence[Line]) -> Future[list[Result]]:
    try:
        with _without_interrupts():
            return pool.submit(_judged, batch)
    except BrokenProcessPool:
        raise died(batch) from None


@contextmanager
def _without_interrupts() -> Iterator[None]:
    """Have a child that is started meanwhile hear no Ctrl-C; one of now is heard afterwards."""
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _result(batch: Sequence[Line], future: Future[list[Result]]) -> list[Result]:
    try:
        return future.result()
    except BrokenProcessPool:
        raise died(batch) from None


# In the worker.


def _begin(settings: Settings) -> None:
    """Keep the settings; what they name is loaded with the first batch, which can say an error."""
    global _settings  # noqa: PLW0603  # a process has one
    _settings = settings
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    quiet()
    threading.Thread(target=_follow_parent, daemon=True).start()


def quiet() -> None:
    """Log errors only: the results say what was found."""
    logging.getLogger("guard").setLevel(logging.ERROR)


def _follow_parent() -> None:
    """End with the parent, however it ends: without it the queue would be waited for for ever."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _judged(batch: Sequence[Line]) -> list[Result]:
    global _judge  # noqa: PLW0603  # a process loads one
    if _judge is None:
        assert _settings is not None  # noqa: S101  # `_begin` ran before
        _judge = LineJudge(_settings)
    return _judge(batch)
