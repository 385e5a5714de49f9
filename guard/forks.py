"""What a forked process must not share with its parent: connections to databases.

Nor what another thread left unfinished in one when the process forked. SQLite and drivers have
locks of their own, and what another thread holds nobody lets go of in the child: its first call
would never return. So a fork waits for calls under way, and calls wait for a fork.

This module does not know what is asked of a database.
"""

from __future__ import annotations

import logging  # noqa: F401  # registered before us, it locks behind us: calls under way may log
import os
import threading
from collections import Counter
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Final
from weakref import WeakSet

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy import Engine
    from sqlalchemy.pool import Pool

PATIENCE: Final = 5.0
"""Seconds that a fork waits for calls under way; who takes longer waits for a server or a file."""


def forget_at_fork(engine: Engine) -> Engine:
    """Return `engine`; a forked process leaves its connections alone and opens its own."""
    _inherited.add(engine)
    return engine


@contextmanager
def undivided() -> Iterator[None]:
    """Have a fork on another thread wait until the block ends; a block may hold others."""
    _calls.begin()
    try:
        yield
    finally:
        _calls.end()


class _Calls:
    """Which threads are in a database, and who wants to fork."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._threads: Counter[int] = Counter()
        self._forks = 0

    def begin(self) -> None:
        own = threading.get_ident()
        with self._changed:
            # A fork waits for who is in a block already: he must not wait for the fork.
            while self._forks and own not in self._threads:
                self._changed.wait()
            self._threads[own] += 1

    def end(self) -> None:
        own = threading.get_ident()
        with self._changed:
            self._threads[own] -= 1
            if not self._threads[own]:
                del self._threads[own]
            self._changed.notify_all()

    def hold(self) -> None:
        """Wait for calls of other threads, and keep all out until `let_go`."""
        own = {threading.get_ident()}
        self._changed.acquire()
        self._forks += 1
        self._changed.wait_for(lambda: self._threads.keys() <= own, PATIENCE)

    def let_go(self) -> None:
        self._forks -= 1
        self._changed.notify_all()
        self._changed.release()

    def forget(self) -> None:
        """Begin anew in a forked process, whose only thread is the one that forked."""
        own = threading.get_ident()
        self._changed = threading.Condition()
        self._threads = Counter({own: self._threads[own]} if own in self._threads else ())
        self._forks = 0


def _begin_forked() -> None:
    _calls.forget()
    for engine in _inherited:
        _keep_for_good(engine.pool)
        engine.dispose(close=False)


def _keep_for_good(pool: Pool) -> None:
    """Have no one collect a pool, not even the interpreter's end, which would close what is in it.

    To close a SQLite connection is as unsafe as to use it anywhere but where it was opened.
    """
    import ctypes  # noqa: PLC0415  # nobody needs it who does not fork

    # Only CPython has it.
    with suppress(AttributeError):
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(pool))


_inherited: Final[WeakSet[Engine]] = WeakSet()
_calls: Final = _Calls()

if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=_calls.hold, after_in_parent=_calls.let_go, after_in_child=_begin_forked
    )
