"""Judges a whole JSON response and writes what may be delivered of it in its place.

This module does not know any one format (`guard.wire.chat`, `responses`, `messages`).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, ClassVar, TypeGuard

from guard.wire.detail import DEFAULT_STYLE
from guard.wire.ledger import GATED, Ledger
from guard.wire.parts import BodyError, parse, written

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence

    from guard.exchange import ChannelKind
    from guard.session import Session
    from guard.steps import Steps
    from guard.wire.detail import Style
    from guard.wire.ledger import Piece
    from guard.wire.parts import Json, Part


class Body(ABC):
    """One whole response on its way through the guard.

    Args:
        data: the response's bytes.
        session: the exchange's state, for a whole response.
        style: how a withheld choice is refused.
        gated: kinds of text that are delivered whole or not at all.
        repeats: texts of the request that a response may repeat beside its answer.

    Attributes:
        marked: whether texts may stand side by side; see `Ledger`.

    Raises:
        BodyError: the bytes are no JSON object.
    """

    marked: ClassVar[bool] = False

    def __init__(
        self,
        data: bytes,
        session: Session,
        style: Style = DEFAULT_STYLE,
        *,
        gated: Collection[ChannelKind] = GATED,
        repeats: Collection[str] = (),
    ) -> None:
        """Judge nothing yet."""
        self.session = session
        self.style = style
        self.repeats = repeats
        self.ledger = Ledger(session, gated, marked=self.marked)
        self._data = data
        self.document, self._exact = parse(data)
        self._pieces: list[Piece] = []

    @property
    def regenerate(self) -> bool:
        """Whether the class would have the backend asked again."""
        return any(self.session.step_of(c) == "regenerate" for c in self.ledger.choices())

    def judge(self) -> Steps:
        """Judge every text.

        Raises:
            BodyError: there are too many.
        """
        altered = self.prepare()
        self._exact = self.session.shadow or (self._exact and not altered)
        for part in self.parts():
            try:
                piece = yield from (self.ledger.echo(part) if part.echo else self.ledger.take(part))
            except BodyError:
                yield from self.session.abandon()
                raise
            if piece is not None:
                self._pieces.append(piece)
        yield from self.ledger.finish()

    @property
    def usage(self) -> Json:
        """What the response cost, as the backend counts it."""
        usage = self.document.get("usage")
        return usage if isinstance(usage, dict) else {}

    def delivered(self, earlier: Sequence[Json] = ()) -> bytes:
        """Return what may be delivered: the very bytes that came, if nothing was changed.

        Args:
            earlier: the usage of answers that were withdrawn, which is added.
        """
        withheld = [c for c in sorted(self.ledger.choices()) if self.session.withheld(c)]
        changed = bool(withheld or earlier)
        for usage in earlier:
            self.document["usage"] = added(self.usage, usage)
        for piece in self._pieces:
            if piece.choice not in withheld and (t := self.ledger.visible(piece)) != piece.given:
                piece.put(t)
                changed = True
        for choice in withheld:
            self.refuse(choice)
        if self._exact and not changed:
            return self._data
        return written(self.document).encode()

    # What a format says.

    @abstractmethod
    def prepare(self) -> bool:
        """Look at the document before its texts are judged; return whether it was altered."""

    @abstractmethod
    def parts(self) -> Iterable[Part]:
        """Yield the texts of the document."""

    @abstractmethod
    def refuse(self, choice: int) -> None:
        """Write the class's message in the place of a choice that is withheld."""


def added(one: Json, other: Json) -> Json:
    """Return the sum of two counts of usage, number by number."""
    total = dict(one)
    for key, value in other.items():
        known = total.get(key)
        if isinstance(value, dict):
            total[key] = added(known if isinstance(known, dict) else {}, value)
        elif _is_number(value):
            total[key] = value + (known if _is_number(known) else 0)
        else:
            total.setdefault(key, value)
    return total


def _is_number(value: object) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool)
