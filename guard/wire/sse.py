"""Server-sent events, incrementally: bytes in any pieces to events, and events to bytes.

After the WHATWG's HTML standard, section 9.2 (event stream interpretation): lines end with LF,
CRLF or CR; a blank line ends an event; lines of `data` are joined by LF; comments and unknown
fields are passed over; an event without its blank line at the end of the stream does not count.

`id` and `retry` are passed over too: the formats here use neither, and whatever is not written
by this module cannot carry a text past the guard.

This module does not know what an event means.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from guard.errors import GuardError

EVENT_LIMIT: Final = 16 * 2**20
"""Bytes of one event, 16 MiB: a response object that closes a stream repeats all of it."""

_SLICE: Final = 2**16
"""Bytes that are looked at together: to cut lines off a buffer takes time in its length."""

_MARK: Final = b"\xef\xbb\xbf"
"""The byte order mark that a stream may begin with."""


class StreamError(GuardError):
    """A backend's stream is broken; the message never quotes it."""


@dataclass(frozen=True, slots=True)
class Event:
    """One event.

    Attributes:
        data: its data, lines joined by LF.
        name: its type, `""` where it has none.
    """

    data: str
    name: str = ""

    def text(self) -> str:
        """Return the event as it is written to a stream."""
        name = f"event: {self.name}\n" if self.name else ""
        lines = "".join(f"data: {line}\n" for line in self.data.split("\n"))
        return f"{name}{lines}\n"


COMMENT: Final = ":\n\n"
"""Keeps a connection alive and says nothing."""


class Parser:
    """Cuts a stream of bytes into events; what comes out does not depend on how bytes arrive."""

    def __init__(self) -> None:
        """Begin at the start of a stream."""
        self._pending = bytearray()
        self._searched = 0
        self._begun = False
        self._data: list[str] = []
        self._name = ""
        self._size = 0
        self._spoke = False

    def feed(self, piece: bytes) -> list[Event | None]:
        """Take bytes; return the events that they complete, `None` for an empty one.

        Raises:
            StreamError: an event is larger than `EVENT_LIMIT`, or is not UTF-8.
        """
        events: list[Event | None] = []
        for start in range(0, len(piece), _SLICE):
            events += self._feed(piece[start : start + _SLICE])
        return events

    def _feed(self, piece: bytes) -> list[Event | None]:
        self._pending += piece
        events: list[Event | None] = []
        while (line := self._line()) is not None:
            if line:
                self._field(line)
            else:
                events += self._dispatch()
        if self._size + len(self._pending) > EVENT_LIMIT:
            raise StreamError(f"the backend sent an event of more than {EVENT_LIMIT} bytes")
        return events

    def _line(self) -> bytes | None:
        """Return the next whole line without its end, `None` if there is none yet."""
        if not self._begun:
            if len(self._pending) < len(_MARK) and _MARK.startswith(self._pending):
                return None
            if self._pending.startswith(_MARK):
                del self._pending[: len(_MARK)]
            self._begun = True
        end = _first(self._pending, self._searched)
        if end is None:
            self._searched = len(self._pending)
            return None
        width = 1
        if self._pending[end] == ord("\r"):
            if end + 1 == len(self._pending):
                # Whether a LF follows is not known yet.
                self._searched = end
                return None
            width = 2 if self._pending[end + 1] == ord("\n") else 1
        line = bytes(self._pending[:end])
        del self._pending[: end + width]
        self._searched = 0
        return line

    def _field(self, line: bytes) -> None:
        self._spoke = True
        self._size += len(line)
        name, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        try:
            if name == b"data":
                self._data.append(value.decode())
            elif name == b"event":
                self._name = value.decode()
        except UnicodeDecodeError as error:
            raise StreamError("the backend sent an event that is not UTF-8") from error

    def _dispatch(self) -> list[Event | None]:
        event = Event("\n".join(self._data), self._name) if self._data else None
        spoke = self._spoke
        self._data, self._name, self._size, self._spoke = [], "", 0, False
        return [event] if event is not None or spoke else []


def _first(pending: bytearray, start: int) -> int | None:
    """Return where the first line end is."""
    found = [at for at in (pending.find(b"\n", start), pending.find(b"\r", start)) if at >= 0]
    return min(found, default=None)
