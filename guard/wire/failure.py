"""The body of a response that is no success: an error, a redirection, a gateway's page.

It holds no answer, but it may quote what a model wrote (`failed_generation`) or was told. Every
text of it is judged like a text of an answer. Where nothing is found it stays as it came, byte for
byte; what a class redacts is redacted in an error's message or a page, and otherwise the vendor's
error with the class's message takes its place. Status and headers are the backend's.

A body that is no JSON is judged as it is written and once more as it is shown, without markup and
escapes. What readers may decode in another way cannot be judged and is withheld.

An error is no answer: unless something is found in it, it is neither told nor learnt from.

This module does not know HTTP clients, any one format, and not how a text is judged.
"""

from __future__ import annotations

import codecs
import html
import re
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from guard.exchange import Channel
from guard.wire.detail import detail
from guard.wire.ledger import Ledger
from guard.wire.parts import BodyError, Part, nowhere, others, parse_value, setter, written

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from guard.session import Session
    from guard.steps import Steps
    from guard.wire.ledger import Piece
    from guard.wire.parts import Json

_CODECS: Final = {
    "utf-8": "utf-8-sig",
    "ascii": "utf-8-sig",
    "iso8859-1": "cp1252",
    "cp1252": "cp1252",
}
"""How declared encodings are read: as clients and browsers read them."""

_SHIFTS: Final = re.compile(r"[\0\x0e\x0f\x1b]")
"""Characters that no page needs, and by which another encoding may look like this one."""

_PLACE: Final = "body"

_MESSAGES: Final = frozenset(
    {_PLACE, "body.message", "body.detail", "body.error", "body.error.message"}
)
"""Where an error says in words what is wrong."""

_MARKUP: Final = re.compile(r"<[^<>]*>")
_ESCAPE: Final = re.compile(r"\\u([0-9a-fA-F]{4})")


class FailureBody:
    """The body of one response that is no success, on its way through the guard.

    Args:
        data: its bytes.
        charset: the encoding that the response declares, `None` where it declares none.
        session: the exchange's state, for a whole response.
        error: makes the JSON of an error from a message and a code.

    Attributes:
        regenerate: never: nobody asks again for another error.
        usage: none.
    """

    regenerate: Final = False

    def __init__(
        self,
        data: bytes,
        charset: str | None,
        session: Session,
        error: Callable[[str, str], Json],
    ) -> None:
        """Judge nothing yet."""
        self.session = session
        self.usage: Json = {}
        self._data = data
        self._error = error
        self._ledger = Ledger(session, ())
        self._pieces: list[Piece] = []
        self._codec = _codec(charset)
        self._text = _decoded(data, self._codec)
        self._value, self._exact, self._is_json = _read(self._text)

    @property
    def replaced(self) -> bool:
        """Whether JSON of ours stands in the place of the body."""
        return self.session.withheld(0)

    def judge(self) -> Steps:
        """Judge every text.

        Raises:
            BodyError: there are too many.
        """
        if self._text is None:
            self._ledger.withhold(Channel(_PLACE, "content", 0, ""))
        for part in self._parts():
            piece = yield from self._ledger.take(part)
            if piece is not None:
                self._pieces.append(piece)
        yield from self._ledger.end_all()
        if not self._is_json and self._pieces:
            yield from self._judge_shown(self._ledger.visible(self._pieces[0]))
        if self.session.verdict().intended != "allow":
            yield from self._ledger.finish()

    def delivered(self, earlier: object = ()) -> bytes:  # noqa: ARG002  # an error costs nothing
        """Return what may be delivered: the very bytes that came, if nothing was changed."""
        if self.replaced:
            told = self._error(self.session.notice(0), "content_filter")
            return written(told | {"guard": detail(self.session.verdict())}).encode()
        changed = False
        for piece in self._pieces:
            if (text := self._ledger.visible(piece)) != piece.given:
                piece.put(text)
                changed = True
        if not changed and (self._exact or self.session.shadow):
            return self._data
        value = self._value[_PLACE]
        text = written(value) if self._is_json else value
        return text.encode(self._codec.removesuffix("-sig"), "xmlcharrefreplace")

    def _parts(self) -> Iterator[Part]:
        if not self._is_json:
            if text := self._value[_PLACE]:
                yield Part(Channel(_PLACE, "content", 0, ""), text, setter(self._value, _PLACE))
            return
        place = Channel(_PLACE, "content", 0, "")
        for part in others(self._value[_PLACE], place, (), self._value, _PLACE):
            said = part.channel.name in _MESSAGES and part.put is not nowhere
            yield replace(part, lone=False) if said else part

    def _judge_shown(self, text: str) -> Steps:
        """Judge a page as its readers see it, where that differs from how it is written."""
        plain = _ESCAPE.sub(lambda at: chr(int(at[1], 16)), text)
        # Some characters are written as two escapes.
        plain = plain.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
        plain = html.unescape(_MARKUP.sub("", plain))
        if plain != text:
            shown = Channel(f"{_PLACE}.shown", "content", 0, "")
            yield from self._ledger.take(Part(shown, plain, nowhere, lone=True))


def _codec(charset: str | None) -> str:
    """Return how a body of a declared encoding is read, `""` for one that may not be judged."""
    try:
        return _CODECS.get(codecs.lookup(charset or "utf-8").name, "")
    except (LookupError, ValueError):
        return ""


def _decoded(data: bytes, codec: str) -> str | None:
    """Return a body as text, `None` where readers may see another."""
    try:
        text = data.decode(codec) if codec else None
    except UnicodeDecodeError:
        return None
    return None if text is None or _SHIFTS.search(text) else text


def _read(text: str | None) -> tuple[dict[str, Any], bool, bool]:
    """Return a holder of a body's value, whether all readers read it alike, whether it is JSON."""
    try:
        value, exact = parse_value(text or "")
    except BodyError:
        return {_PLACE: text or ""}, True, False
    return {_PLACE: value}, exact, True
