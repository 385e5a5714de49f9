"""Relays a stream of server-sent events: an event leaves once all text in it was judged.

Events keep their order and wait in a queue. One whose texts passed as they were leaves with
the very data it came with; where a text was rewritten, the new words stand in the place of the
old ones. Where a choice is withheld, what was judged before leaves, then the format's own way
of refusing, and the rest of the choice is dropped while its usage and its end go out.

A relay is a generator of steps like a session: `guard.driver` answers it, in threads or on an
event loop. What it releases is text of the stream, to be encoded as UTF-8.

This module does not know any one format (`guard.wire.chat`, `responses`, `messages`).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar, Final

from guard.steps import Release
from guard.wire.detail import DEFAULT_STYLE
from guard.wire.ledger import GATED, Ledger
from guard.wire.parts import BodyError, parse, written
from guard.wire.sse import COMMENT, Event, Parser, StreamError

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from guard.exchange import ChannelKind
    from guard.session import Session
    from guard.steps import Steps
    from guard.wire.detail import Style
    from guard.wire.ledger import Piece
    from guard.wire.lone import Mark
    from guard.wire.parts import Json, Part

QUEUE_LIMIT: Final = 16 * 2**20
"""Characters of events that wait, 16 Mi; a stream that needs more is withheld."""


@dataclass(slots=True)
class Held:
    """An event that waits.

    Attributes:
        event: as it came.
        document: its JSON.
        exact: whether its data may leave as they came.
        pieces: the texts in it.
        lone: where the texts in it end that were judged by themselves.
        tainted: choices with such a text that did not pass.
    """

    event: Event
    document: Json
    exact: bool
    pieces: list[Piece] = field(default_factory=list)
    lone: list[Mark] = field(default_factory=list)
    tainted: set[int] = field(default_factory=set)


class Relay(ABC):
    """One stream on its way through the guard.

    Args:
        session: the exchange's state, for a stream.
        style: how a withheld choice is refused.
        gated: kinds of text that leave only with the end of their choice.
        patient: whether nothing leaves before some text was judged, so that the backend can
            be asked again where the first text is bad.
        repeats: texts of the request that a response may repeat beside its answer.

    Attributes:
        marked: whether the format says where each text ends (`completes`).
    """

    marked: ClassVar[bool] = False

    def __init__(
        self,
        session: Session,
        style: Style = DEFAULT_STYLE,
        *,
        gated: Collection[ChannelKind] = GATED,
        patient: bool = False,
        repeats: Collection[str] = (),
    ) -> None:
        """Begin at the start of a stream."""
        self.session = session
        self.style = style
        self.repeats = repeats
        self.ledger = Ledger(session, gated, marked=self.marked)
        self.refused: set[int] = set()
        self._parser = Parser()
        self._queue: deque[Held] = deque()
        self._waiting = 0
        self._patient = patient
        self._tainted = False
        self._finished = False

    @property
    def regenerate(self) -> bool:
        """Whether nothing has left and the class would have the backend asked again."""
        return self._patient and any(
            self.session.step_of(choice) == "regenerate" for choice in self.ledger.choices()
        )

    @property
    def stopped(self) -> bool:
        """Whether no more of the backend's stream is wanted."""
        return self.regenerate or self._finished

    @property
    def finished(self) -> bool:
        """Whether the stream was seen to its end, so that there is a verdict."""
        return self.session.finished

    def feed(self, piece: bytes) -> Steps:
        """Take bytes of the backend's stream."""
        try:
            for event in self._parser.feed(piece):
                if self.stopped:
                    return
                if event is not None:
                    yield from self._take(event)
                elif not self._patient:
                    yield Release(COMMENT)
        except StreamError as error:
            yield from self.break_off(str(error))

    def finish(self) -> Steps:
        """Take the end of the backend's stream."""
        if not self._finished:
            yield from self._end(None)

    def give_up(self) -> None:
        """Do not ask the backend again: `finish` ends the stream with the class's message."""
        self._patient = False

    def abandon(self) -> Steps:
        """Close the journal's row of a stream whose reader or backend went away."""
        self._finished = True
        self.ledger.account()
        yield from self.session.abandon()

    # What a format says.

    @abstractmethod
    def parts(self, document: Json) -> Iterable[Part]:
        """Yield the texts of an event."""

    @abstractmethod
    def ends(self, document: Json) -> Iterable[int]:
        """Yield the choices that end with an event."""

    @abstractmethod
    def reduce(self, held: Held) -> Iterable[Event]:
        """Yield what leaves in the place of an event with a choice that is withheld."""

    @abstractmethod
    def refuse(self, choice: int) -> Iterable[Event]:
        """Yield what tells the reader that a choice is withheld, once, behind what had left."""

    @abstractmethod
    def failure(self, message: str) -> Event:
        """Return the format's event for an error."""

    @abstractmethod
    def prepare(self, document: Json) -> bool:
        """Look at an event before its texts are judged; return whether it was altered.

        Raises:
            BodyError: the event does not fit those before it.
        """

    def completes(self, document: Json) -> Iterable[str]:  # noqa: ARG002  # most formats' answer
        """Yield the places whose texts end with an event (`Ledger.complete`)."""
        return ()

    def conclude(self) -> Iterable[Event]:
        """Yield what closes a stream with a choice that is withheld, unless it has left."""
        return ()

    def is_end(self, event: Event) -> bool:
        """Return whether an event without JSON marks the end of the stream."""
        return event.data.strip() == "[DONE]"

    def name_of(self, event: Event, document: Json) -> str:
        """Return the name under which an event may leave: the vendors repeat it in its data."""
        return event.name if event.name == document.get("type") else ""

    # The walk.

    def _take(self, event: Event) -> Steps:
        if self.is_end(event):
            yield from self._end(event)
            return
        try:
            document, same = parse(event.data)
            altered = self.prepare(document)
        except BodyError as error:
            yield from self.break_off(str(error))
            return
        name = self.name_of(event, document)
        exact = self.session.shadow or (same and not altered and "\n" not in event.data)
        held = Held(Event(event.data, name), document, exact)
        try:
            yield from self._judge(held)
        except BodyError as error:
            yield from self.break_off(str(error))
            return
        for place in self.completes(document):
            yield from self.ledger.complete(place)
        for choice in self.ends(document):
            yield from self.ledger.end(choice)
        yield from self._enqueue(held)

    def _judge(self, held: Held) -> Steps:
        spoke: set[int] = set()
        for part in self.parts(held.document):
            spoke.add(part.channel.choice)
            piece = yield from (self.ledger.echo(part) if part.echo else self.ledger.take(part))
            if piece is not None:
                held.pieces.append(piece)
            elif self.session.withheld(part.channel.choice):
                held.tainted.add(part.channel.choice)
            held.lone += self.ledger.marks(part)
        self.ledger.lone.step(spoke, self.session.withheld)

    def _enqueue(self, held: Held) -> Steps:
        self._queue.append(held)
        self._tainted |= bool(held.tainted)
        self._waiting += len(held.event.data)
        yield from self._flush()
        while self._waiting > QUEUE_LIMIT:
            self._patient = False
            for piece in self._queue[0].pieces:
                if not self.ledger.ready(piece):
                    self.ledger.withhold(self.session.run(piece.channel).channel)
            for mark in self._queue[0].lone:
                if not self.ledger.settled(mark):
                    self.ledger.withhold(mark.channel)
            yield from self._leave()
            yield from self._flush()

    def _end(self, mark: Event | None) -> Steps:
        yield from self.ledger.end_all()
        if self.regenerate:
            return
        self._finished = True
        yield from self._rest()
        # The row says what has left, so that it is closed behind the last of it.
        self.ledger.account()
        yield from self.ledger.finish()
        if mark is not None:
            yield Release(Event("[DONE]").text())

    def _rest(self) -> Steps:
        self._patient = False
        yield from self._flush()
        for choice in sorted(self.ledger.choices()):
            if self.session.withheld(choice):
                yield from self._release(self.refusal(choice))
        if self.refused:
            yield from self._release(self.conclude())
        if self._queue:
            self._queue.clear()
            yield from self._release([self.failure("a part of the answer could not be judged")])

    def _flush(self) -> Steps:
        if self._patient:
            if not (self._tainted or self.ledger.speaks) or self.regenerate:
                return
            self._patient = False
        while self._queue and self._ready(self._queue[0]):
            yield from self._leave()

    def _ready(self, held: Held) -> bool:
        """Return whether it is decided what leaves in the place of an event."""
        lone = (mark for mark in held.lone if not self.session.withheld(mark.channel.choice))
        return all(map(self.ledger.ready, held.pieces)) and all(map(self.ledger.settled, lone))

    def _leave(self) -> Steps:
        """Let the first event leave."""
        held = self._queue.popleft()
        self._waiting -= len(held.event.data)
        for mark in held.lone:
            if not self.ledger.settled(mark):
                held.tainted.add(mark.channel.choice)
        yield from self._release(self._emitted(held))

    def _emitted(self, held: Held) -> Iterable[Event]:
        if any(self.session.withheld(choice) for choice in self.ledger.choices()):
            return self.reduce(held)
        return [self.filled(held)]

    def filled(self, held: Held) -> Event:
        """Return an event with what may leave in the place of each text."""
        changed = self.fill(held)
        if held.exact and not changed:
            return held.event
        return Event(written(held.document), held.event.name)

    def fill(self, held: Held, without: Collection[int] = ()) -> bool:
        """Write what leaves in the place of each text; return whether that is another text.

        Args:
            held: the event.
            without: choices of which nothing leaves with this event.
        """
        changed = False
        for piece in held.pieces:
            if piece.choice not in without and (t := self.ledger.leave(piece)) != piece.given:
                piece.put(t)
                changed = True
        return changed

    def refusal(self, choice: int) -> Iterable[Event]:
        """Yield the refusal of a choice, unless it was given."""
        if choice not in self.refused:
            self.refused.add(choice)
            yield from self.refuse(choice)

    def _release(self, events: Iterable[Event]) -> Steps:
        for event in events:
            yield Release(event.text())

    def break_off(self, message: str) -> Steps:
        """End a stream that cannot be read on: what was judged has left, the rest is dropped."""
        self._queue.clear()
        yield from self.abandon()
        told = self.refused and self.refused >= self.ledger.choices()
        yield from self._release(self.conclude() if told else [self.failure(message)])
