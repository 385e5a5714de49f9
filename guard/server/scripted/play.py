"""An answer on its way through one connection: pauses, cuts, faults, and a client that leaves.

This module does not know any vendor's format, nor which answer it plays.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal

if TYPE_CHECKING:
    import threading
    from collections.abc import Iterable
    from types import TracebackType
    from typing import Self

    from guard.server.scripted.formats import Event
    from guard.server.scripted.script import Delivery

Message = MutableMapping[str, Any]
"""An ASGI message."""

Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

Outcome = Literal["open", "finished", "died", "left"]
"""How a request went: still being answered, answered, cut by a fault, given up by the client."""

_POLL: Final = 0.002
"""Seconds between two looks at whether a held stream may go on."""

_KEEP_ALIVE: Final = ": keep-alive"


class DiedError(Exception):
    """The script closes the connection here."""


class LeftError(Exception):
    """The client has closed the connection."""


@dataclass(slots=True)
class Recorded:
    """One request as it came, and how it went.

    Attributes:
        method: HTTP method.
        path: path without the query.
        query: query string, `""` where there is none.
        headers: by lower-case name; the last one where a name comes twice.
        body: raw bytes.
        sent: bytes of the answer's body that were given to the network so far.
        outcome: how it went.
    """

    method: str
    path: str
    query: str
    headers: Mapping[str, str]
    body: bytes = b""
    sent: int = 0
    outcome: Outcome = "open"

    def json(self) -> Any:
        """Return the body read as JSON."""
        return json.loads(self.body)


class Player:
    """Sends one answer; a context that watches for the client to leave.

    Args:
        receive: the server's; the request's body must have been read.
        send: the server's.
        record: gets what was sent.
        delivery: how the answer travels.
        released: set when held streams may go on.
    """

    def __init__(
        self,
        receive: Receive,
        send: Send,
        record: Recorded,
        delivery: Delivery,
        released: threading.Event,
    ) -> None:
        """Send nothing yet."""
        self._receive = receive
        self._send = send
        self._record = record
        self._delivery = delivery
        self._released = released
        self._held = b""
        self._written = 0

    async def __aenter__(self) -> Self:
        self._gone = asyncio.ensure_future(self._receive())
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._gone.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._gone

    async def start(self, status: int, headers: Mapping[str, str]) -> None:
        """Send status and headers."""
        pairs = [(name.encode(), value.encode()) for name, value in headers.items()]
        await self._send({"type": "http.response.start", "status": status, "headers": pairs})

    async def whole(self, body: bytes) -> None:
        """Send the body of a JSON answer, of which `start` told the length."""
        if self._delivery.dies_after is not None:
            await self._write(body[: len(body) // 2])
            await self._die()
        await self._write(body)
        await self._finish()

    async def wait(self) -> None:
        """Wait as long as the delivery says before an answer that is not a stream."""
        await self._pause()
        if self._delivery.holds_after is not None:
            await self._hold()

    async def stream(self, events: Iterable[Event], error_event: Callable[[int], Event]) -> None:
        """Send a stream's events with the delivery's faults."""
        pieces, passed = 0, -1
        for number, event in enumerate(events):
            # Once per count of pieces: right behind the last of them.
            if pieces != passed and (event.piece or pieces):
                passed = pieces
                if await self._incident(pieces):
                    await self._event(error_event(number))
                    break
            if event.piece:
                await self._pause()
            await self._event(event)
            pieces += event.piece
        await self._finish()

    async def _incident(self, pieces: int) -> bool:
        """Do what the delivery says after so many `pieces`; return whether an error ends all."""
        delivery = self._delivery
        if pieces in delivery.inserts:
            await self._write(delivery.inserts[pieces])
        if delivery.holds_after == pieces:
            await self._hold()
        if delivery.dies_after == pieces:
            await self._die()
        return delivery.errors_after == pieces

    async def _event(self, event: Event) -> None:
        newline = self._delivery.newline
        comment = (_KEEP_ALIVE + 2 * newline).encode() if self._delivery.comments else b""
        await self._write(comment + event.encode(newline))

    async def _pause(self) -> None:
        if self._delivery.pause:
            await asyncio.wait([self._gone], timeout=self._delivery.pause)
        self._check()

    async def _hold(self) -> None:
        await self._flush()
        while not self._released.is_set():
            await asyncio.wait([self._gone], timeout=_POLL)
            self._check()

    async def _write(self, data: bytes) -> None:
        """Send `data` in chunks of the delivery's size; what is left over waits for more."""
        limit = self._delivery.dies_at_byte
        room = len(data) + 1 if limit is None else limit - self._written
        self._held += data[:room]
        self._written += len(data[:room])
        size = self._delivery.chunk or len(self._held)
        while self._held and len(self._held) >= size:
            chunk, self._held = self._held[:size], self._held[size:]
            await self._put(chunk)
        if room <= len(data):
            await self._die()

    async def _flush(self) -> None:
        held, self._held = self._held, b""
        if held:
            await self._put(held)

    async def _die(self) -> None:
        await self._flush()
        raise DiedError

    async def _finish(self) -> None:
        await self._flush()
        await self._send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _put(self, data: bytes) -> None:
        self._check()
        await self._send({"type": "http.response.body", "body": data, "more_body": True})
        self._record.sent += len(data)
        # The loop must run for the server to see that a client left.
        await asyncio.sleep(0)

    def _check(self) -> None:
        if self._gone.done():
            raise LeftError
