"""Lone texts: what streams under keys that nobody knows, piece by piece.

Each piece is judged with those before it. It may leave once so much follows that no secret can
have begun in it unseen, once no more comes under its key, or once its key turns out to bring the
same with every event, as names of servers and versions do.

This module judges nothing, and does not know any format.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from guard.text.units import CONTEXT, LOOKAHEAD, shown_end

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from guard.exchange import Channel

KNOWN_LIMIT: Final = 1024
"""Keys whose texts are remembered, since more of them may come."""

_ABSENT: Final = 3
"""Events of a choice without a key from which on its text is taken to be over."""

_LATER: Final = 4
"""How many times as many it takes each time that a text which was taken to be over went on."""

_SAME: Final = 8
"""Times in a row that a text comes again until it is none that goes on, if others came before."""

_NUMBER: Final = re.compile(r"\n-?\d+\n")
"""A number stands on a line of its own (`guard.wire.parts`): none is a piece of a text."""


@dataclass(frozen=True, slots=True)
class Mark:
    """Where a lone piece ends.

    Attributes:
        channel: what it belongs to.
        end: characters of its key's text up to its end.
    """

    channel: Channel
    end: int


@dataclass(slots=True)
class _Text:
    """What came under one key.

    Attributes:
        choice: the choice that it belongs to.
        tail: its end.
        latest: its last piece.
        repeats: times in a row that this came again.
        total: characters that came.
        settled: characters that may leave.
        now: its pieces in this event.
        before: its pieces in the last event with any.
        varied: whether not every event brought the same.
        same: events in a row that brought the same.
        absent: events in a row of its choice that brought nothing.
        patience: how many of these it takes until it is taken to be over.
    """

    choice: int
    tail: str = ""
    latest: str = ""
    repeats: int = 0
    total: int = 0
    settled: int = 0
    now: list[str] = field(default_factory=list)
    before: list[str] = field(default_factory=list)
    varied: bool = False
    same: int = 0
    absent: int = 0
    patience: int = _ABSENT

    def take(self, text: str) -> str:
        """Take a piece; return it behind those that it may go on."""
        before, self.tail = self.tail, shown_end(self.tail + text, CONTEXT)
        if self.absent >= self.patience:
            self.absent, self.patience = 0, _LATER * self.patience
        self.repeats = self.repeats + 1 if text == self.latest else 0
        self.latest = text
        self.total += len(text)
        self.now.append(text)
        return text if self.repeats >= self._enough() else before + text

    def passed(self) -> None:
        """Take in that all of it so far passed."""
        certain = self.total - len(self.tail) + _certain(self.tail)
        if self.settled == self.total - len(self.latest) and _NUMBER.fullmatch(self.latest):
            certain = self.total
        self.settled = max(self.settled, certain)

    def step(self, *, spoke: bool) -> None:
        """Take the end of an event; `spoke` says whether it brought anything of the choice."""
        if self.now:
            again = self.now == self.before
            self.varied |= bool(self.before) and not again
            self.same, self.absent = self.same + 1 if again else 0, 0
            self.before, self.now = self.now, []
        else:
            self.absent += spoke
        if self.same >= self._enough() or self.absent >= self.patience:
            self.settled = self.total

    def _enough(self) -> int:
        return _SAME if self.varied else 1


class LoneTexts:
    """All lone texts of one exchange."""

    def __init__(self) -> None:
        """Begin with none."""
        self._texts: dict[str, _Text] = {}
        self._waiting: dict[str, _Text] = {}

    def __contains__(self, name: str) -> bool:
        """Return whether some text came under a name."""
        return name in self._texts

    def tail(self, name: str) -> str | None:
        """Return the end of a text, `None` where there is none."""
        return self._texts[name].tail if name in self._texts else None

    def follow(self, channel: Channel, tail: str) -> None:
        """Take note that a text, which is judged elsewhere, ends with `tail`."""
        self._text(channel).tail = tail

    def take(self, channel: Channel, text: str) -> str:
        """Take a piece; return it behind those that it may go on."""
        known = self._waiting[channel.name] = self._text(channel)
        return known.take(text)

    def passed(self, name: str) -> None:
        """Take in that a text passed with its last piece."""
        self._waiting[name].passed()

    def mark(self, channel: Channel) -> Mark | None:
        """Return where the last piece of a text ends, `None` where none waits."""
        known = self._waiting.get(channel.name)
        return None if known is None else Mark(channel, known.total)

    def settled(self, mark: Mark) -> bool:
        """Return whether a piece may leave as far as its own text goes."""
        known = self._waiting.get(mark.channel.name)
        return known is None or mark.end <= known.settled

    def step(self, spoke: Collection[int], withheld: Callable[[int], bool]) -> None:
        """Take the end of an event.

        Args:
            spoke: the choices of which it brought anything.
            withheld: says of a choice whether nothing more of it may leave.
        """
        for name, text in tuple(self._waiting.items()):
            if withheld(text.choice):
                continue
            text.step(spoke=text.choice in spoke)
            if text.settled == text.total:
                del self._waiting[name]

    def end(self, choice: int) -> None:
        """Take the end of a choice that is not withheld."""
        for name, text in tuple(self._waiting.items()):
            if text.choice == choice:
                del self._waiting[name]

    def complete(self, place: str, withheld: Callable[[int], bool]) -> None:
        """Take the end of all texts at a place and below it."""
        for name, text in tuple(self._waiting.items()):
            if f"{name}.".startswith(f"{place}.") and not withheld(text.choice):
                del self._waiting[name]

    def choices(self) -> set[int]:
        """Return the choices of which some text waits."""
        return {text.choice for text in self._waiting.values()}

    def _text(self, channel: Channel) -> _Text:
        waiting = self._waiting.get(channel.name)
        known = waiting or self._texts.get(channel.name) or _Text(channel.choice)
        if len(self._texts) < KNOWN_LIMIT:
            self._texts[channel.name] = known
        return known


def _certain(tail: str) -> int:
    """Return how many characters of a text's end nothing that follows can alter.

    What stands before a word that is still seen whole is certain, but not a part of it.
    """
    ahead = len(tail) - LOOKAHEAD
    if ahead <= 0:
        return 0
    spaces = [at for at in range(ahead) if tail[at].isspace()]
    return spaces[-1] + 1 if spaces else ahead
