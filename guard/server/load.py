"""How many requests are served at a time, how many wait, and how the server stops.

This module does not know what a request is about.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Final

from guard.server.errors import Refused

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from guard.server.settings import ServerSettings

CLOSE: Final = {"connection": "close"}
"""The header of an answer after which the connection is of no use."""


class Load:
    """How busy the server is; one per app, used on its event loop alone.

    Attributes:
        in_flight: requests that are being served.
        waiting: requests that are read or wait for their turn.
        held: bytes of bodies in memory.
        draining: whether the server stops and takes nothing new.
    """

    def __init__(self, settings: ServerSettings) -> None:
        """Begin idle."""
        self.in_flight = 0
        self.waiting = 0
        self.held = 0
        self.draining = False
        self._settings = settings
        self._turns = asyncio.Semaphore(settings.max_in_flight)

    @property
    def idle(self) -> bool:
        """Whether no request is being served or waits."""
        return not self.in_flight and not self.waiting

    @contextlib.contextmanager
    def room(self) -> Iterator[None]:
        """Hold a place among those that are served or wait.

        Raises:
            Refused: there is none, or the server stops.
        """
        if self.draining:
            raise stopping()
        if self.in_flight + self.waiting >= self._settings.max_in_flight + self._settings.max_queue:
            raise _overloaded()
        self.waiting += 1
        try:
            yield
        finally:
            self.waiting -= 1

    @contextlib.asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """Wait for one's turn and have it; the place in the queue is free meanwhile.

        Raises:
            Refused: it did not come in time.
        """
        try:
            async with asyncio.timeout(self._settings.queue_seconds):
                await self._turns.acquire()
        except TimeoutError:
            raise _overloaded() from None
        self.waiting -= 1
        self.in_flight += 1
        try:
            yield
        finally:
            self.in_flight -= 1
            self.waiting += 1
            self._turns.release()

    def hold(self, size: int) -> None:
        """Count `size` more bytes of bodies in memory.

        Raises:
            Refused: there is no room for them.
        """
        if self.held + size > self._settings.max_buffer_bytes:
            raise _overloaded()
        self.held += size

    def drop(self, size: int) -> None:
        """Count `size` bytes less."""
        self.held -= size


def stopping() -> Refused:
    """Return the refusal of a request that comes too late, or takes too long to end in time."""
    return Refused(503, "the server is stopping: try again", "draining", CLOSE)


def _overloaded() -> Refused:
    return Refused(503, "the server is busy: try again", "overloaded")
