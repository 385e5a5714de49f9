"""Judges a whole JSON response and writes what may be delivered of it in its place.

This module does not know any one format (`guard.wire.chat`, `responses`, `messages`).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

from guard.wire.detail import DEFAULT_STYLE
from guard.wire.ledger import GATED, Ledger
from guard.wire.parts import parse, written

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from guard.exchange import ChannelKind
    from guard.session import Session
    from guard.steps import Steps
    from guard.wire.detail import Style
    from guard.wire.ledger import Piece
    from guard.wire.parts import Part


class Body(ABC):
    """One whole response on its way through the guard.

    Args:
        data: the response's bytes.
        session: the exchange's state, for a whole response.
        style: how a withheld choice is refused.
        gated: kinds of text that are delivered whole or not at all.

    Raises:
        BodyError: the bytes are no JSON object.
    """

    def __init__(
        self,
        data: bytes,
        session: Session,
        style: Style = DEFAULT_STYLE,
        *,
        gated: Collection[ChannelKind] = GATED,
    ) -> None:
        """Judge nothing yet."""
        self.session = session
        self.style = style
        self.ledger = Ledger(session, gated)
        self._data = data
        self.document, self._exact = parse(data)
        self._pieces: list[Piece] = []

    @property
    def regenerate(self) -> bool:
        """Whether the class would have the backend asked again."""
        return any(self.session.step_of(c) == "regenerate" for c in self.ledger.choices())

    def judge(self) -> Steps:
        """Judge every text."""
        self._exact = not self.prepare() and self._exact
        for part in self.parts():
            piece = yield from (self.ledger.echo(part) if part.echo else self.ledger.take(part))
            if piece is not None:
                self._pieces.append(piece)
        yield from self.ledger.finish()

    def delivered(self) -> bytes:
        """Return what may be delivered: the very bytes that came, if nothing was changed."""
        withheld = [c for c in sorted(self.ledger.choices()) if self.session.withheld(c)]
        changed = bool(withheld)
        for piece in self._pieces:
            if piece.choice not in withheld and (t := self.ledger.visible(piece)) != piece.text:
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
