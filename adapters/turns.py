"""One answer of a framework's model on its way through the guard: a whole one, or its chunks.

An adapter says which texts stand in a chunk and how it is built with others in their places: a
`Draft`. Drafts keep their order and leave once their texts were judged, tool calls only whole.
Where the answer is withheld, what was judged before leaves, then the class's message, and of the
rest nothing but what carries no text. Several texts of one kind are one text to their readers,
so that they are one here.

This module does not know any framework, and not how a text is judged (`guard.session`).
"""

from __future__ import annotations

import json
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from pydantic_core import to_jsonable_python

from guard.exchange import Channel
from guard.wire.detail import detail
from guard.wire.ledger import GATED, Ledger
from guard.wire.parts import Part, nowhere, others

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator

    from guard.exchange import ChannelKind
    from guard.session import Session
    from guard.steps import Steps
    from guard.verdict import Verdict
    from guard.wire.ledger import Piece
    from guard.wire.parts import Json

_T = TypeVar("_T")


def _nothing() -> Iterable[Any]:
    """Return what stays of most drafts whose answer is withheld."""
    return ()


@dataclass(slots=True)
class Draft(Generic[_T]):
    """A piece of an answer that waits until all text in it was judged.

    Attributes:
        parts: its texts.
        made: builds it from what stands in their places now; called with whether that is
            anything else than what came.
        bare: builds what stays of it where the answer is withheld.
        ends: whether it says that the answer ends, so that a refusal has to stand before it.
    """

    parts: Iterable[Part]
    made: Callable[[bool], Iterable[_T]]
    bare: Callable[[], Iterable[_T]] = _nothing
    ends: bool = False


@dataclass(slots=True)
class _Held(Generic[_T]):
    """A draft that was judged as far as it goes.

    Attributes:
        draft: the draft.
        pieces: its texts that belong to a channel.
        tainted: whether a text that was judged by itself did not pass.
    """

    draft: Draft[_T]
    pieces: list[Piece] = field(default_factory=list)
    tainted: bool = False


class _Turn(Generic[_T]):
    """What whole answers and streams share."""

    def __init__(self, session: Session, gated: Collection[ChannelKind] = GATED) -> None:
        """Judge nothing yet.

        Args:
            session: the exchange's state.
            gated: kinds of text that leave whole or not at all.
        """
        self.session = session
        self.ledger = Ledger(session, gated)
        self._channels: set[str] = set()

    @property
    def verdict(self) -> Verdict:
        """The verdict, behind the end."""
        return self.session.verdict()

    @property
    def entry(self) -> Json:
        """What the answer's metadata should say beside their own: nothing where nothing was done.

        Only behind the end.
        """
        untouched = self.verdict.action == "allow" or self.verdict.shadow
        return {} if untouched else {"guard": detail(self.verdict)}

    def refuses(self, choice: int = 0) -> bool:
        """Return whether the class's message is a refusal, unless it is an answer.

        Whoever wanted a document is refused by any message.
        """
        withheld = self.session.withheld(choice)
        return withheld and (self.session.step_of(choice) == "block" or self.ledger.structured)

    def altered(self, kind: ChannelKind, choice: int = 0) -> bool:
        """Return whether the texts of a kind read otherwise than they came."""
        runs = [self.session.run(name) for name in self._channels]
        return not self.session.shadow and any(
            run.edits and run.channel.kind == kind and run.channel.choice == choice for run in runs
        )

    def _take(self, draft: Draft[_T]) -> Any:
        held = _Held(draft)
        for part in draft.parts:
            piece = yield from (self.ledger.echo(part) if part.echo else self.ledger.take(part))
            if piece is not None:
                held.pieces.append(piece)
                self._channels.add(piece.channel)
            elif self.session.withheld(part.channel.choice):
                held.tainted = True
        return held

    def _filled(self, held: _Held[_T]) -> Iterable[_T]:
        """Return what leaves in the place of a draft."""
        changed = False
        for piece in held.pieces:
            if (text := self.ledger.leave(piece)) != piece.given:
                piece.put(text)
                changed = True
        return held.draft.made(changed)


class WholeTurn(_Turn[_T]):
    """A whole answer, with one draft per choice; `judge`, then `delivered`."""

    def __init__(self, session: Session, gated: Collection[ChannelKind] = GATED) -> None:
        """Judge nothing yet."""
        super().__init__(session, gated)
        self._held: list[_Held[_T]] = []

    def judge(self, drafts: Iterable[Draft[_T]]) -> Steps:
        """Judge every text; the drafts stand in the order of their choices."""
        for draft in drafts:
            self._held.append((yield from self._take(draft)))
        yield from self.ledger.finish()

    def delivered(self, choice: int = 0) -> Iterable[_T] | None:
        """Return what may be delivered of a choice, `None` where it is withheld."""
        return None if self.session.withheld(choice) else self._filled(self._held[choice])


class StreamedTurn(_Turn[_T]):
    """A stream of one answer: `feed` and `ready` for each draft, then `finish` and `rest`.

    Args:
        session: the exchange's state, for a stream.
        say: builds what says a text in the stream.
        gated: kinds of text that leave only with the end.
    """

    def __init__(
        self,
        session: Session,
        say: Callable[[str], Iterable[_T]],
        gated: Collection[ChannelKind] = GATED,
    ) -> None:
        """Begin at the start of a stream."""
        super().__init__(session, gated)
        self._say = say
        self._queue: deque[_Held[_T]] = deque()
        self._refused = False
        self._rest: list[_T] = []

    def feed(self, draft: Draft[_T]) -> Steps:
        """Take the next draft."""
        self._queue.append((yield from self._take(draft)))

    def ready(self) -> Iterator[_T]:
        """Yield what may leave by now."""
        while self._queue and all(map(self.ledger.ready, self._queue[0].pieces)):
            if self._queue[0].draft.ends:
                return
            yield from self._emitted(self._queue.popleft())

    def finish(self) -> Steps:
        """Take the end of the stream; what is left of it waits in `rest`."""
        yield from self.ledger.end_all()
        while self._queue:
            self._rest += self._emitted(self._queue.popleft())
        if self.session.withheld(0):
            self._rest += self._refusal()
        # The row says what has left, so that it is closed behind the last of it.
        self.ledger.account()
        yield from self.ledger.finish()

    def rest(self) -> list[_T]:
        """Return what leaves behind the end."""
        return self._rest

    def abandon(self) -> Steps:
        """Close the journal's row of a stream whose reader or backend went away."""
        self.ledger.account()
        yield from self.session.abandon()

    def _emitted(self, held: _Held[_T]) -> Iterator[_T]:
        passed = all(map(self.ledger.passed, held.pieces))
        over = self._refused or held.tainted or held.draft.ends
        if not self.session.withheld(0) or (passed and not over):
            yield from self._filled(held)
            return
        if not self._refused:
            if not held.tainted and (said := self._said(held)):
                yield from self._say(said)
            yield from self._refusal()
        yield from held.draft.bare()

    def _said(self, held: _Held[_T]) -> str:
        """Return what of a draft's content leaves before it is broken off."""
        pieces = [piece for piece in held.pieces if self._kind(piece) == "content"]
        return "".join(map(self.ledger.leave, pieces))

    def _kind(self, piece: Piece) -> ChannelKind:
        return self.session.run(piece.channel).channel.kind

    def _refusal(self) -> Iterator[_T]:
        """Yield the class's message once, behind what had left."""
        if not self._refused:
            self._refused = True
            before = "\n\n" if self.ledger.left(0) else ""
            yield from self._say(before + self.session.notice(0))


def text_part(kind: ChannelKind, text: str, put: Callable[[str], None], choice: int = 0) -> Part:
    """Return a piece of the one text of its kind."""
    return Part(Channel(f"choices[{choice}].{kind}", kind, choice, ""), text, put)


def call_part(
    place: object, tool: str, text: str, put: Callable[[str], None], choice: int = 0
) -> Part:
    """Return a piece of a tool call's arguments.

    Args:
        place: what the call is known by in its answer.
        tool: the tool's name, as far as it is known.
        text: the piece.
        put: writes another text in its place.
        choice: which of the answers it is in.
    """
    name = f"choices[{choice}].tool_calls[{place}].arguments"
    return Part(Channel(name, "tool_call", choice, "", tool=tool), text, put)


def object_part(
    place: object, tool: str, value: Any, put: Callable[[Any], None], choice: int = 0
) -> Part:
    """Return a whole tool call whose arguments are an object; `put` is given another one."""

    def read(text: str) -> None:
        # The ledger has seen that it is a document still.
        put(json.loads(text))

    return call_part(place, tool, json.dumps(plain(value), ensure_ascii=False), read, choice)


def lone_parts(value: Any, known: Collection[str] = (), choice: int = 0) -> Iterator[Part]:
    """Yield every string in a value that has no channel, keys of `known` left out.

    Each is judged by itself: unless it passes as it is, the answer is withheld.
    """
    channel = Channel(f"choices[{choice}].other", "content", choice, "")
    shown = plain(value)
    if isinstance(shown, str):
        yield from [Part(channel, shown, nowhere, lone=True)] if shown else []
    else:
        yield from others(shown, channel, known)


def plain(value: Any) -> Any:
    """Return any value as JSON would show it."""
    return to_jsonable_python(
        value, fallback=repr, bytes_mode="base64", inf_nan_mode="constants", serialize_unknown=True
    )
