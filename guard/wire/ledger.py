"""The ledger of one exchange: which piece of which text stands where, and what of it may leave.

It opens a channel with the first piece of a text, closes it where another text of the same
choice begins, and knows for every piece what may stand in its place. Some texts leave only
with the end of their choice (*gated*): tool calls, since half a call cannot be taken back;
structured answers, since half a document is none; and a text that goes on after others came
between, which is judged anew from its start, so that nothing hides in the seams.

This module does not know any format, and not how a text is judged (`guard.session`).
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from guard.steps import Release
from guard.text.units import CONTEXT
from guard.verdict import delivers

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Generator

    from guard.exchange import Channel, ChannelKind
    from guard.session import Session
    from guard.steps import Judge, Keep, Outcome, Steps
    from guard.wire.parts import Part

TEXT_LIMIT: Final = 4 * 2**20
"""Characters of all texts of one exchange, 4 Mi; the session keeps them for its journal row."""

_KNOWN_LIMIT: Final = 1024
"""Lone texts that are remembered, so that one that comes with every event is judged once."""


GATED: Final[frozenset[ChannelKind]] = frozenset({"tool_call"})
"""Kinds of text that always leave only with the end of their choice."""


@dataclass(frozen=True, slots=True)
class Piece:
    """One piece of a channel.

    Attributes:
        channel: the channel's name.
        choice: the choice that it belongs to.
        start: where the piece begins in the channel's text, zero-based.
        text: the piece.
        put: writes another text in its place.
    """

    channel: str
    choice: int
    start: int
    text: str
    put: Callable[[str], None]

    @property
    def end(self) -> int:
        """Where the piece ends in the channel's text, exclusive."""
        return self.start + len(self.text)


class Ledger:
    """Feeds a session with the parts of documents and keeps account of them.

    Args:
        session: the exchange's state; its channels are opened here.
        gated: kinds of text that leave only with the end of their choice.
    """

    def __init__(self, session: Session, gated: Collection[ChannelKind] = GATED) -> None:
        """Begin with nothing."""
        self.session = session
        self._gated = frozenset(gated)
        self._lengths: dict[str, int] = {}
        self._current: dict[int, str] = {}
        self._reopened: dict[str, tuple[int, str]] = {}
        self._content: dict[int, str] = {}
        self._ended: set[int] = set()
        self._known: dict[str, bool] = {}
        self._lone = 0
        self._total = 0

    @property
    def structured(self) -> bool:
        """Whether content leaves only as a whole, since it is a document."""
        return "content" in self._gated

    def left(self, choice: int) -> bool:
        """Return whether some content of a choice has left, or may leave."""
        runs = [self.session.run(name) for name in self._of(choice) if not self.gates(name)]
        return any(run.channel.kind == "content" and run.text for run in runs)

    def take(self, part: Part) -> Generator[Judge | Keep | Release, Outcome | None, Piece | None]:
        """Have a part judged; return its piece, `None` for a lone part."""
        self._total += len(part.text)
        if self._total > TEXT_LIMIT:
            self.withhold(part.channel)
        if part.lone:
            yield from self._judge_alone(part)
            return None
        name = part.channel.name
        if not part.text and name not in self._lengths and part.channel.kind != "tool_call":
            # Many a stream begins with an empty text that is not the first to be written.
            return None
        start = self._lengths.get(name, 0)
        piece = Piece(name, part.channel.choice, start, part.text, part.put)
        if part.text or name not in self._lengths:
            yield from self._continue(part.channel, part.text)
        self._lengths[name] = start + len(part.text)
        return piece

    def echo(self, part: Part) -> Generator[Judge | Keep | Release, Outcome | None, Piece | None]:
        """Take a part that repeats its channel, or brings the text that no piece brought."""
        name = part.channel.name
        if not self._lengths.get(name):
            return (yield from self.take(part))
        return Piece(name, part.channel.choice, 0, part.text, part.put)

    def end(self, choice: int) -> Steps:
        """Take the end of a choice."""
        for name in self._of(choice):
            yield from quietly(self.session.close(name))
        self._ended.add(choice)
        for name in self._of(choice):
            if not self._stays_whole(name):
                self.withhold(self.session.run(name).channel)
        for name, (length, left) in self._reopened.items():
            run = self.session.run(name)
            if run.channel.choice == choice and run.visible(0, run.received[:length]) != left:
                # What had left reads otherwise now, so that the rest would not join.
                self.withhold(run.channel)

    def finish(self) -> Steps:
        """Take the end of the exchange."""
        for choice in self.choices() - self._ended:
            yield from self.end(choice)
        for choice in self.choices():
            self._retract(choice)
        yield from quietly(self.session.finish())

    def choices(self) -> set[int]:
        """Return the choices that some text came for."""
        return {self.session.run(name).channel.choice for name in self._lengths}

    def ended(self, choice: int) -> bool:
        """Return whether a choice has ended."""
        return choice in self._ended

    def ready(self, piece: Piece) -> bool:
        """Return whether it is decided what stands in the place of a piece."""
        if self.session.withheld(piece.choice):
            return True
        if self.gates(piece.channel) and piece.choice not in self._ended:
            return False
        return self.session.run(piece.channel).position >= piece.end

    def passed(self, piece: Piece) -> bool:
        """Return whether a piece may leave to its end, perhaps in other words."""
        if self.gates(piece.channel) and self.session.withheld(piece.choice):
            return False
        return self.session.run(piece.channel).position >= piece.end

    def gates(self, channel: str) -> bool:
        """Return whether a channel leaves only with the end of its choice."""
        kind = self.session.run(channel).channel.kind
        return kind in self._gated or channel in self._reopened

    def visible(self, piece: Piece) -> str:
        """Return what may stand in the place of a piece."""
        withheld = self.session.withheld(piece.choice)
        if withheld and self.gates(piece.channel):
            return ""
        return self.session.run(piece.channel).visible(piece.start, piece.text)

    def withhold(self, channel: Channel) -> None:
        """Let nothing more of a channel's choice leave."""
        if channel.name not in self._lengths:
            self.session.open(channel)
            self._lengths[channel.name] = 0
        self.session.run(channel.name).cut("block")
        self.session.note_escalation("block")

    def _of(self, choice: int) -> list[str]:
        """Return the channels of a choice."""
        return [n for n in self._lengths if self.session.run(n).channel.choice == choice]

    def _stays_whole(self, name: str) -> bool:
        """Return whether a structured answer is still a document after a rewrite."""
        run = self.session.run(name)
        if run.channel.kind != "content" or not self.structured or not run.edits:
            return True
        return not is_json(run.received) or is_json(run.text)

    def _retract(self, choice: int) -> None:
        """Note of a withheld choice that what leaves with its end has not left."""
        if self.session.withheld(choice):
            for name in self._of(choice):
                if self.gates(name):
                    self.session.run(name).retract()

    def _continue(self, channel: Channel, text: str) -> Steps:
        """Feed a channel; the one before it in the same choice has come to its end."""
        name, choice = channel.name, channel.choice
        self._ended.discard(choice)
        if self._current.get(choice) != name:
            yield from self._close(choice)
            self._current[choice] = name
        if name not in self._lengths:
            self.session.open(replace(channel, lead=channel.lead or self._lead(channel)))
        elif self.session.run(name).stopped and not self.session.withheld(choice):
            run = self.session.run(name)
            before = run.received
            self._reopened[name] = (len(before), run.visible(0, before))
            yield from quietly(self.session.reopen(name))
        if channel.kind == "content":
            self._content[choice] = (self._content.get(choice, "") + text)[-CONTEXT:]
        yield from quietly(self.session.feed(text, name))

    def _close(self, choice: int) -> Steps:
        name = self._current.get(choice)
        if name is not None and name not in self._reopened:
            yield from quietly(self.session.close(name))

    def _lead(self, channel: Channel) -> str:
        """Return what stands before a text: as in `Exchange.channels`."""
        content = self._content.get(channel.choice, "")
        if channel.kind == "tool_call":
            return f"{content}\n{channel.tool}("
        return f"{content}\n\n" if content and channel.kind == "content" else ""

    def _judge_alone(self, part: Part) -> Steps:
        """Judge a text by itself; unless it passes as it is, its choice is withheld."""
        if self.session.withheld(part.channel.choice):
            return
        passed = self._known.get(part.text)
        if passed is None:
            self._lone += 1
            channel = replace(part.channel, name=f"{part.channel.name}#{self._lone}")
            self.session.open(channel)
            yield from quietly(self.session.feed(part.text, channel.name))
            yield from quietly(self.session.close(channel.name))
            run = self.session.run(channel.name)
            passed = delivers(run.step) and not run.edits
            if len(self._known) < _KNOWN_LIMIT:
                self._known[part.text] = passed
        if not passed:
            self.withhold(part.channel)


def is_json(text: str) -> bool:
    """Return whether a text is one JSON value."""
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True


def quietly(steps: Steps) -> Steps:
    """Run `steps`, without what they release: the ledger says what may leave."""
    answer: Outcome | None = None
    try:
        while True:
            step = steps.send(answer)
            answer = None if isinstance(step, Release) else (yield step)
    except StopIteration:
        return
