"""Normalisation of text for judging, with an offset map back to the original.

The base form undoes what hides text from a reader of bytes but not from a person: NFKC
(Unicode Standard Annex #15), removal of characters that do not show (default-ignorable,
tags, control characters), and look-alike letters of other scripts in words that mix scripts
(Unicode Technical Standard #39, the single characters whose skeleton is one ASCII letter).
`deobfuscate` also undoes misspellings that hide words (`spelling`) and characters written as their
numbers (`escapes`), `unescape` what is written in escapes (`escapes`), `unwrap` line ends within
a key (`wrapped`).

This module does not know what text means, which detector reads it, or how it was cut. Words
written wholly in look-alikes of another script are left alone, since they cannot be told from
that script's own words.
"""

from __future__ import annotations

import json
import re
import unicodedata
from bisect import bisect_left
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files
from itertools import chain
from typing import TYPE_CHECKING, Final

from guard.text.draft import Draft
from guard.text.escapes import decoded, unescaped
from guard.text.spelling import respelt
from guard.text.wrapped import unwrapped

if TYPE_CHECKING:
    from collections.abc import Sequence

    from guard.text.draft import Edit

IGNORABLE: Final = (
    "\x00-\x08\x0e-\x1f\x7f-\x84\x86-\x9f\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u202a-\u202e"
    "\u2060-\u206f\u3164\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufffb"
    "\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff"
)
"""Unicode's default-ignorable characters and the controls, but for white space, as in a class of
a regular expression."""

_IGNORABLE: Final = re.compile(f"[{IGNORABLE}]+")

_CONTROL: Final = re.compile(r"[\x00-\x08\x0e-\x1f\x7f]")

_HALVES: Final = re.compile("[\ud800-\udbff][\udc00-\udfff]")
"""Surrogates of UTF-16 that stand for one character together, as a stream may cut it."""

_UNWRITABLE: Final = re.compile("[\ud800-\udfff]")
"""What does not encode to UTF-8; becomes U+FFFD."""

_OTHER: Final = re.compile(r"[^\x00-\x7f]+")
_WORD: Final = re.compile(r"[^\W\d_](?:[^\W\d_]|[\u0300-\u036f])*")
"""Letters, with the marks that may compose with an ASCII letter: all in one block."""

_ASCII_LETTER: Final = re.compile(r"[A-Za-z]")

_COMPATIBLE: Final = ((0x80, 0x3400), (0xA640, 0xAC00), (0xF900, 0x10800), (0x1D400, 0x20000))
"""Where all characters are that NFKC writes as one in ASCII; to try all takes much longer."""

# Starters that compose with the character before them (Unicode's composition pairs).
_COMPOSING: Final = frozenset(
    "\u09be\u09d7\u0b3e\u0b56\u0b57\u0bbe\u0bd7\u0cc2\u0cd5\u0cd6\u0d3e\u0d57\u0dcf\u0ddf\u102e"
    "\u1b35\U00011127\U0001133e\U00011357\U000114b0\U000114ba\U000114bd\U000115af\U00011930"
) | {chr(code) for code in (*range(0x1161, 0x1176), *range(0x11A8, 0x11C3))}

_CLUSTER_LIMIT: Final = 32
"""Characters of one cluster that count; to order more marks takes time that grows quadratically.

Unicode's stream-safe text format allows 30 marks (Unicode Standard Annex #15)."""


_REPEATS: Final = 64
_REPEATED: Final = re.compile(rf"(.)\1{{{_REPEATS},}}", re.DOTALL)
"""One character more often than anybody needs."""


@dataclass(frozen=True, slots=True)
class Normalised:
    """A normalised text that knows where each of its characters came from.

    Attributes:
        text: the normalised text; always encodes to UTF-8.
        original: what it was made from.
    """

    text: str
    original: str
    _starts: Sequence[int] = field(repr=False)
    _ends: Sequence[int] = field(repr=False)

    def span(self, start: int, end: int) -> tuple[int, int]:
        """Return the smallest span of the original that covers `text[start:end]`.

        Spans are zero-based and end-exclusive.
        """
        if self._starts is self._ends:
            return start, end
        if start >= end:
            at = self._starts[start] if start < len(self._starts) else len(self.original)
            return at, at
        return self._starts[start], max(self._ends[start:end])

    def at(self, position: int) -> int:
        """Return where the original's `position` lies in `text`; never decreases."""
        if self._starts is self._ends:
            return position
        return bisect_left(self._starts, position)


def normalise(
    text: str, *, deobfuscate: bool = False, unescape: bool = False, unwrap: bool = False
) -> Normalised:
    r"""Return `text` in the form in which detectors read it.

    Args:
        text: any string, lone surrogates included (they become U+FFFD).
        deobfuscate: also undo misspellings that hide words, write characters for their numbers
            (`\u0041`, `&#65;`), and leave out most of one character over and over, for the
            classifier.
            Pattern detectors must not: it would change digits of numbers and keys.
        unescape: as it shows where HTML, Markdown, an address or JSON is read: escapes, tags and
            typographic dashes undone. A reading beside the text, for what is not shown so is
            changed too.
        unwrap: without the line ends that were put into keys and base64. A reading beside the
            text, for two of them may as well have been one below the other.

    The base form of ASCII text without control characters is the text itself, and the base form
    of a base form is unchanged. Takes time linear in the length.
    """
    draft = Draft(text, range(len(text)), range(1, len(text) + 1))
    if unescape:
        draft = unescaped(draft)
    if deobfuscate:
        draft = decoded(draft)
    plain = draft.text.isascii() and not _CONTROL.search(draft.text)
    if deobfuscate:
        draft = _shortened(draft)
    if not plain:
        draft = _base(draft)
    if deobfuscate:
        draft = respelt(draft)
    if unwrap:
        draft = unwrapped(draft)
    if draft.text == text:
        same = range(0)
        return Normalised(text, text, same, same)
    return Normalised(draft.text, text, draft.starts, draft.ends)


def folded(text: str) -> str:
    """Return `text`, of the same length, with ASCII for each character that looks like one of it.

    For signs that are sought at their places. Unlike in the base form, look-alikes count in every
    word, and what only together stands for ASCII does not. A half of a character stands for it,
    with one behind it that does not show.
    """
    if text.isascii():
        return text
    return _HALVES.sub(lambda halves: f"{_whole(halves[0])}\u200b", text).translate(_likenesses())


def _shortened(draft: Draft) -> Draft:
    """Leave out all but the last of one character over and over.

    They say no more than a few do, and one may stand for as many words as it fills a window with.
    """
    found = _REPEATED.finditer(draft.text)
    return draft.replaced([(m.start(), m.end() - _REPEATS, "", []) for m in found])


def _base(draft: Draft) -> Draft:
    draft = draft.replaced([(*m.span(), _whole(m[0]), None) for m in _HALVES.finditer(draft.text)])
    draft = draft.replaced([(*m.span(), "\ufffd", None) for m in _UNWRITABLE.finditer(draft.text)])
    draft = _composed(_shown(draft))
    # A look-alike that became a letter may compose with the mark behind it.
    return _composed(draft.replaced(_look_alikes(draft.text)))


def _whole(halves: str) -> str:
    """Return the character that two surrogates stand for."""
    return halves.encode("utf-16", "surrogatepass").decode("utf-16")


def _shown(draft: Draft) -> Draft:
    """Take out what does not show."""
    return draft.replaced([(*m.span(), "", []) for m in _IGNORABLE.finditer(draft.text)])


def _composed(draft: Draft) -> Draft:
    """Bring the draft to NFKC, cluster by cluster, so that every span stays known.

    What is beyond the limit of a cluster that is not in that form yet is left out.
    """
    if unicodedata.is_normalized("NFKC", draft.text):
        return draft
    edits: list[Edit] = []
    for match in _OTHER.finditer(draft.text):
        start, end = match.span()
        # A mark at the beginning belongs to the ASCII letter before it.
        start -= 1 if start and _continues(draft.text[start]) else 0
        while start < end:
            stop = start + 1
            while stop < end and _continues(draft.text[stop]):
                stop += 1
            limit = min(stop, start + _CLUSTER_LIMIT)
            new = unicodedata.normalize("NFKC", draft.text[start:limit])
            if new != draft.text[start:stop]:
                edits.append((start, stop, new, None))
            start = stop
    return draft.replaced(edits)


@cache
def _continues(character: str) -> bool:
    """Return whether a character may compose with the one before it."""
    first = unicodedata.normalize("NFKD", character)[0]
    return unicodedata.combining(first) != 0 or first in _COMPOSING


def _look_alikes(text: str) -> list[Edit]:
    """Return the edits that write words of mixed script in ASCII."""
    edits: list[Edit] = []
    for match in _WORD.finditer(text):
        word = match[0]
        if word.isascii() or not _ASCII_LETTER.search(word):
            continue
        new = word.translate(_confusables(capital=word == word.upper()))
        if new != word:
            # One character for one: the table holds nothing else.
            edits.append((*match.span(), new, list(range(*match.span()))))
    return edits


@cache
def _likenesses() -> dict[int, str]:
    """Return the characters that look like one of ASCII, with that one."""
    # The signs that are sought so are in capitals.
    table = _confusables(capital=True)
    plain = dict(table)
    for code in chain(*(range(*bounds) for bounds in _COMPATIBLE)):
        one = unicodedata.normalize("NFKC", chr(code))
        one = one.translate(table)
        if len(one) == 1 and one.isascii():
            plain[code] = one
    return plain


@cache
def _confusables(*, capital: bool = False) -> dict[int, str]:
    """Return the look-alikes of ASCII, with what they look like.

    Args:
        capital: whether they stand among capitals, where a stroke is no small `l` but an `I`.
    """
    table = json.loads(files("guard.text").joinpath("confusables.json").read_text("utf-8"))
    if capital:
        table = {sign: "I" if like == "l" else like for sign, like in table.items()}
    return str.maketrans(table)
