"""A text with spans marked in it, as HTML that says nothing but what the text says.

Everything is escaped, and what hides or reorders text is written out. Marks never overlap: where
spans do, the text is cut at their ends, and each piece names all that it belongs to.

This module does not know what a span is about.
"""

from __future__ import annotations

import re
from collections import Counter
from html import escape
from itertools import groupby
from typing import TYPE_CHECKING, Final, NamedTuple

from markupsafe import Markup

from guard.text.visible import escape_of, plain

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

# As in `guard.text.visible`, and what means something in HTML.
_SPECIAL: Final = re.compile(r"[^\n\t\x20-\x7e]|[&<>\"']")


class Span(NamedTuple):
    """A stretch of a text.

    Attributes:
        start: zero-based.
        end: exclusive.
        name: what it is called.
    """

    start: int
    end: int
    name: str


def marked(text: str, spans: Iterable[Span] = ()) -> Markup:
    """Return a text as HTML, with `<mark>` around every stretch that a span covers.

    Args:
        text: any string.
        spans: in any order; what lies outside of the text is left out. The time grows with the
            text and with their number, not with the product.
    """
    pieces = _pieces(len(text), [each for each in spans if 0 <= each.start < each.end <= len(text)])
    return Markup("").join(_piece(text, *piece) for piece in pieces)


def _pieces(length: int, spans: Sequence[Span]) -> Iterator[tuple[int, int, tuple[str, ...]]]:
    """Yield the stretches of a text with the names of the spans that cover each."""
    changes = sorted(
        [
            *((span.start, 1, span.name) for span in spans),
            *((span.end, -1, span.name) for span in spans),
        ]
    )
    now: Counter[str] = Counter()
    begun = 0
    names: tuple[str, ...] = ()
    for place, group in groupby(changes, key=lambda change: change[0]):
        for _, step, name in group:
            now[name] += step
        current = tuple(sorted(name for name, count in now.items() if count))
        if current != names:
            yield begun, place, names
            begun, names = place, current
    yield begun, length, names


def _piece(text: str, start: int, end: int, names: tuple[str, ...]) -> Markup:
    part = text[start:end]
    # A line break of two characters is one, also where a span ends between them.
    if part.endswith("\r") and text[end : end + 1] == "\n":
        part = part[:-1]
    # Every character that could be markup is escaped.
    inner = Markup(_SPECIAL.sub(_shown, part.replace("\r\n", "\n")))  # noqa: S704
    if not names or not inner:
        return inner
    title = plain(", ".join(names))
    depth = "several" if len(names) > 1 else "one"
    return Markup('<mark class="{}" title="{}">{}</mark>').format(depth, title, inner)


def _shown(match: re.Match[str]) -> str:
    written = escape_of(match[0])
    return escape(match[0]) if written is None else f'<span class="escape">{written}</span>'
