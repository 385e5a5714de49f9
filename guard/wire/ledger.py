"""The ledger of one exchange: which piece of which text stands where, and what of it may leave.

It opens a channel with the first piece of a text, closes it where another text of the same
choice begins, and knows for every piece what may stand in its place. Some texts leave only
with the end of their choice (*gated*): tool calls, since half a call cannot be taken back;
structured answers, since half a document is none; and a text that goes on after others came
between, which is judged anew from its start, so that nothing hides in the seams.

This module does not know any format, and not how a text is judged (`guard.session`).
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final, TypeVar

from guard.exchange import is_json, unescaped
from guard.steps import Release
from guard.text.units import CONTEXT, LOOKAHEAD, shown_end
from guard.wire.lone import LoneTexts
from guard.wire.parts import BodyError, Part, nowhere

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Generator

    from guard.channel_run import ChannelRun
    from guard.exchange import Channel, ChannelKind
    from guard.session import Session
    from guard.steps import Ask, Outcome, Steps
    from guard.wire.lone import Mark

_T = TypeVar("_T")

TEXT_LIMIT: Final = 4 * 2**20
"""Characters of all texts of one exchange, 4 Mi; the session keeps them for its journal row."""

CHANNEL_LIMIT: Final = 1024
"""Texts of one exchange; every one is kept, and judged by itself."""

_TOO_MANY: Final = f"the backend's answer has more than {CHANNEL_LIMIT} texts"

_STEP: Final = re.compile(r"[.\[]")
"""Where the name of a channel goes one level down."""

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
        given: what stands in its place now; an echo may not be what the channel brought.
        leads: whether it leaves only with some text behind it; see `Part`.
    """

    channel: str
    choice: int
    start: int
    text: str
    put: Callable[[str], None]
    given: str
    leads: bool = False

    @property
    def end(self) -> int:
        """Where the piece ends in the channel's text, exclusive."""
        return self.start + len(self.text)


class Ledger:
    """Feeds a session with the parts of documents and keeps account of them.

    Args:
        session: the exchange's state; its channels are opened here.
        gated: kinds of text that leave only with the end of their choice.
        marked: whether the format says where a text ends (`complete`), so that texts may come
            side by side and a gated one leaves with its own end. Otherwise a text ends where
            another of its choice begins.
    """

    def __init__(
        self,
        session: Session,
        gated: Collection[ChannelKind] = GATED,
        *,
        marked: bool = False,
    ) -> None:
        """Begin with nothing."""
        self.session = session
        self._gated = frozenset(gated)
        self._marked = marked
        self._complete: set[str] = set()
        self._lengths: dict[str, int] = {}
        self._names: dict[int, list[str]] = {}
        self._below: dict[str, list[str]] = {}
        self._ends: dict[str, str] = {}
        self._current: dict[int, str] = {}
        self._reopened: dict[str, ChannelRun] = {}
        self._content: dict[int, str] = {}
        self._ended: set[int] = set()
        self._left: dict[str, int] = {}
        self._said: set[int] = set()
        self.lone = LoneTexts()
        self._first: dict[str, Piece] = {}
        self._total = 0

    @property
    def structured(self) -> bool:
        """Whether content leaves only as a whole, since it is a document."""
        return "content" in self._gated

    @property
    def speaks(self) -> bool:
        """Whether it is decided of some text what stands in its place.

        Of each channel the first text is decided first, so that no other is looked at.
        """
        return any(map(self.ready, self._first.values()))

    def left(self, choice: int) -> bool:
        """Return whether some content of a choice has left."""
        return choice in self._said

    def take(self, part: Part) -> Generator[Ask, Outcome | None, Piece | None]:
        """Have a part judged; return its piece, `None` for a lone part.

        Raises:
            BodyError: it is one text too many; a shadow class lets it pass and takes note.
        """
        self._total += len(part.text)
        if self._total > TEXT_LIMIT:
            self.withhold(part.channel)
        name = part.channel.name
        if part.lone or name in self.lone:
            yield from self._judge_alone(part)
            return None
        waits = part.leads or self._waits(part.channel.kind)
        if not part.text and name not in self._lengths and not waits:
            # Many a stream begins with an empty text that is not the first to be written.
            return None
        if self._full(name):
            if not self.session.shadow:
                raise BodyError(_TOO_MANY)
            self.session.note_escalation("block")
            return None
        yield from self._pair(part)
        start = self._lengths.get(name, 0)
        leads = part.leads and not part.text
        piece = Piece(name, part.channel.choice, start, part.text, part.put, part.text, leads)
        if part.text or name not in self._lengths:
            yield from self._continue(part.channel, part.text)
        if part.text:
            self._first.setdefault(name, piece)
        self._lengths[name] = start + len(part.text)
        self._ends[name] = shown_end(self._ends.get(name, "") + part.text, CONTEXT)
        return piece

    def echo(self, part: Part) -> Generator[Ask, Outcome | None, Piece | None]:
        """Take a part that repeats its channel, or brings the text that no piece brought."""
        name = part.channel.name
        if not self._lengths.get(name):
            return (yield from self.take(part))
        received = self.session.run(name).received
        return Piece(name, part.channel.choice, 0, received, part.put, part.text)

    def complete(self, place: str) -> Steps:
        """Take the end of a text, or of all texts below a place, such as an item's.

        One that went on after others or after its end still leaves with its choice.
        """
        for name in tuple(self._below.get(place, ())):
            if name in self._reopened:
                continue
            yield from quietly(self.session.close(name))
            yield from self._judge_whole(name)
            if not self.session.withheld(self.session.run(name).channel.choice):
                self._complete.add(name)
        self.lone.complete(place, self.session.withheld)

    def end(self, choice: int) -> Steps:
        """Take the end of a choice."""
        for name in self._of(choice):
            yield from quietly(self.session.close(name))
        self._ended.add(choice)
        for name in self._of(choice):
            if name not in self._complete:
                yield from self._judge_whole(name)
        for name in self._of(choice):
            run, earlier = self.session.run(name), self._reopened.get(name)
            if earlier is not None and run.visible(0, earlier.received) != earlier.text:
                # What had left reads otherwise now, so that the rest would not join.
                self.withhold(run.channel)
        if not self.session.withheld(choice):
            self.lone.end(choice)

    def end_all(self) -> Steps:
        """Take the end of every choice."""
        for choice in (self.choices() - self._ended) | self.lone.choices():
            yield from self.end(choice)

    def finish(self) -> Steps:
        """Take the end of the exchange."""
        yield from self.end_all()
        yield from quietly(self.session.finish())

    def account(self) -> None:
        """Note of every text how much has left of it; what was held back has not."""
        if self.session.shadow:
            return
        for name in self._lengths:
            run, left = self.session.run(name), self._left.get(name, 0)
            if run.position < left:
                # It was judged anew, and did not come as far as it had left.
                run.keep(self._reopened[name])
            run.retract(left)

    def choices(self) -> set[int]:
        """Return the choices that some text came for."""
        return set(self._names)

    def ready(self, piece: Piece) -> bool:
        """Return whether it is decided what stands in the place of a piece."""
        if self.session.withheld(piece.choice):
            return True
        if self.gates(piece.channel) and piece.choice not in self._ended:
            return False
        return self._reached(piece)

    def passed(self, piece: Piece) -> bool:
        """Return whether a piece may leave to its end, perhaps in other words."""
        if self.gates(piece.channel) and self.session.withheld(piece.choice):
            return False
        return self._reached(piece)

    def marks(self, part: Part) -> list[Mark]:
        """Return where the texts end that wait for more behind a part."""
        names = (part.channel.name, *part.also)
        marks = (self.lone.mark(replace(part.channel, name=name)) for name in names)
        return [mark for mark in marks if mark is not None]

    def settled(self, mark: Mark) -> bool:
        """Return whether a lone piece may leave; one that does not is dropped with its choice."""
        return self.session.shadow or self.lone.settled(mark)

    def gates(self, channel: str) -> bool:
        """Return whether a channel leaves only with the end of its choice."""
        if self.session.shadow:
            return False
        kind = self.session.run(channel).channel.kind
        waits = kind in self._gated and channel not in self._complete
        return waits or channel in self._reopened

    def visible(self, piece: Piece) -> str:
        """Return what may stand in the place of a piece."""
        if self.session.shadow:
            return piece.given
        withheld = self.session.withheld(piece.choice)
        if withheld and self.gates(piece.channel):
            return ""
        return self.session.run(piece.channel).visible(piece.start, piece.text)

    def leave(self, piece: Piece) -> str:
        """Return what stands in the place of a piece, and note that it leaves."""
        text, run = self.visible(piece), self.session.run(piece.channel)
        if not (self.gates(piece.channel) and self.session.withheld(piece.choice)):
            left = min(piece.end, run.position)
            self._left[piece.channel] = max(left, self._left.get(piece.channel, 0))
            if text and run.channel.kind == "content":
                self._said.add(piece.choice)
        return text

    def withhold(self, channel: Channel) -> None:
        """Let nothing more of a channel's choice leave."""
        self.session.note_escalation("block")
        if self.session.shadow:
            return
        name = channel.name
        if self._full(name) and (known := self._of(channel.choice)):
            # One text of a choice withholds it as well as another.
            name = known[0]
        elif name not in self._lengths:
            self._open(channel)
            self._lengths[name] = 0
        self.session.run(name).cut("block")

    def _reached(self, piece: Piece) -> bool:
        run = self.session.run(piece.channel)
        if piece.leads and not run.complete:
            return run.position > piece.start
        return run.position >= piece.end

    def _waits(self, kind: ChannelKind) -> bool:
        """Return whether even the empty beginning of a text waits for the rest."""
        return kind == "tool_call" or (self._marked and kind in self._gated)

    def _of(self, choice: int) -> list[str]:
        """Return the channels of a choice."""
        return list(self._names.get(choice, ()))

    def _full(self, name: str) -> bool:
        """Return whether a channel would be one too many."""
        return name not in self._lengths and len(self._lengths) >= CHANNEL_LIMIT

    def _open(self, channel: Channel) -> None:
        """Open a channel, to be found by its choice and by every place that it is below."""
        name = channel.name
        if self._full(name):
            raise BodyError(_TOO_MANY)
        self.session.open(channel)
        self._names.setdefault(channel.choice, []).append(name)
        for end in (*(at.start() for at in _STEP.finditer(name)), len(name)):
            self._below.setdefault(name[:end], []).append(name)

    def _judge_whole(self, name: str) -> Steps:
        """See to it that a document is still one after a rewrite, and hides nothing in escapes."""
        run = self.session.run(name)
        if run.channel.kind == "tool_call" or run.channel.kind not in self._gated:
            # The session sees to calls.
            return
        if run.edits and is_json(run.received) and not is_json(run.text):
            self.withhold(run.channel)
        elif (plain := unescaped(run.text)) is not None:
            channel = replace(run.channel, name=f"{name}.unescaped")
            yield from self._judge_alone(Part(channel, plain, nowhere, lone=True))

    def _pair(self, part: Part) -> Steps:
        """See to it that texts which a part stands for, too, are its own text from the start."""
        for name in part.also:
            known, other = self.lone.tail(name), replace(part.channel, name=name)
            before = self._ends.get(name, "") if known is None else known
            if self._ends.get(part.channel.name, "").endswith(before):
                self.lone.follow(other, shown_end(before + part.text, CONTEXT))
            else:
                yield from self._judge_alone(replace(part, channel=other))

    def _continue(self, channel: Channel, text: str) -> Steps:
        """Feed a channel; the one before it in the same choice may have come to its end."""
        name, choice = channel.name, channel.choice
        self._ended.discard(choice)
        if not self._marked and self._current.get(choice) != name:
            yield from self._close(choice)
            self._current[choice] = name
        if name not in self._lengths:
            self._open(self._led(channel))
        elif self.session.run(name).stopped and not self.session.withheld(choice):
            self._reopened[name] = self.session.run(name)
            yield from quietly(self.session.reopen(name))
        if channel.kind == "content":
            self._content[choice] = shown_end(self._content.get(choice, "") + text, CONTEXT)
        yield from quietly(self.session.feed(text, name))

    def _close(self, choice: int) -> Steps:
        name = self._current.get(choice)
        if name is not None and name not in self._reopened:
            yield from quietly(self.session.close(name))

    def _led(self, channel: Channel) -> Channel:
        """Return a channel with what stands before it: as in `Exchange.channels`."""
        content = self._content.get(channel.choice, "")
        if channel.kind == "tool_call":
            return replace(channel, lead=f"{content}\n{channel.tool}(")
        if channel.kind == "content":
            # Readers join the texts of an answer.
            return replace(channel, lead=content, seam=len(shown_end(content, LOOKAHEAD)))
        return channel

    def _judge_alone(self, part: Part) -> Steps:
        """Judge a text by itself; unless it passes as it is, its choice is withheld.

        It may go on with those before it, or be a text of its own to readers: both are judged.
        """
        if self.session.passes_over(part.channel.choice):
            return
        for text in dict.fromkeys((part.text, self.lone.take(part.channel, part.text))):
            channel = replace(part.channel, text=text)
            passed = yield from quietly(self.session.alone(channel))
            if not passed:
                self.withhold(part.channel)
                return
        self.lone.passed(part.channel.name)


def quietly(steps: Generator[Ask, Outcome | None, _T]) -> Generator[Ask, Outcome | None, _T]:
    """Run `steps`, without what they release: the ledger says what may leave."""
    answer: Outcome | None = None
    try:
        while True:
            step = steps.send(answer)
            answer = None if isinstance(step, Release) else (yield step)
    except StopIteration as end:
        result: _T = end.value
        return result
