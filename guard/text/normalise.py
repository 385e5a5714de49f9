"""Normalisation of text for judging, with an offset map back to the original.

The base form undoes what hides text from a reader of bytes but not from a person: NFKC
(Unicode Standard Annex #15), removal of characters that do not show (default-ignorable,
tags, bidi controls), and look-alike letters of other scripts in words that mix scripts
(Unicode Technical Standard #39, the single characters whose skeleton is one ASCII letter).
`deobfuscate` also undoes common leet spelling, letters set apart and neighbouring letters
swapped, where the result reads as known words.

This module does not know what text means, which detector reads it, or how it was cut. It
knows English words only; words written wholly in look-alikes of another script are left
alone, since they cannot be told from that script's own words.
"""

from __future__ import annotations

import json
import re
import unicodedata
from bisect import bisect_left
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files
from itertools import product
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

_IGNORABLE: Final = re.compile(
    "[\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u202a-\u202e"
    "\u2060-\u206f\u3164\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufff8"
    "\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff]+"
)
"""Unicode's default-ignorable characters and the bidi controls."""

_UNWRITABLE: Final = re.compile("[\x00\ud800-\udfff]")
"""What does not encode to UTF-8 or breaks tools on the way; becomes U+FFFD."""

_OTHER: Final = re.compile(r"[^\x00-\x7f]+")
_WORD: Final = re.compile(r"[^\W\d_](?:[^\W\d_]|[\u0300-\u036f])*")
"""Letters, with the marks that may compose with an ASCII letter: all in one block."""

_ASCII_LETTER: Final = re.compile(r"[A-Za-z]")

# Starters that compose with the character before them (Unicode's composition pairs).
_COMPOSING: Final = frozenset(
    "\u09be\u09d7\u0b3e\u0b56\u0b57\u0bbe\u0bd7\u0cc2\u0cd5\u0cd6\u0d3e\u0d57\u0dcf\u0ddf\u102e"
    "\u1b35\U00011127\U0001133e\U00011357\U000114b0\U000114ba\U000114bd\U000115af\U00011930"
) | {chr(code) for code in (*range(0x1161, 0x1176), *range(0x11A8, 0x11C3))}

_LEET: Final = {
    "0": "o",
    "1": "il",
    "3": "e",
    "4": "a",
    "5": "s",
    "7": "t",
    "8": "b",
    "9": "g",
    "@": "a",
    "$": "s",
    "!": "i",
}
_LEET_WORD: Final = re.compile(
    r"(?<![\w@$!.])(?=[@$!\d]*[A-Za-z])(?=[A-Za-z]*[@$!\d])[\w@$][\w@$!]{2,22}[\w@$](?![\w@$])"
)
_ORDINARY: Final = re.compile(r"\$?\d+[A-Za-z]{1,4}")
"""Quantities such as 10am, 1st or 500kg, whatever letters follow."""

_SPACED: Final = re.compile(
    r"(?<![\w.])[A-Za-z0-9@$!](?P<sep>[ .\-_*|/])(?:[A-Za-z0-9@$!](?P=sep)){2,62}[A-Za-z0-9@$!]"
    r"(?![\w@$])"
)
_CLUSTER_LIMIT: Final = 32
"""Characters of one cluster that count; to order more marks takes time that grows quadratically.

Unicode's stream-safe text format allows 30 marks (Unicode Standard Annex #15)."""

_LEET_TOKEN: Final = re.compile(r"(?<![\w@$!.])(?=[A-Za-z]*[@$!\d])[\w@$!]{0,23}[\w@$](?![\w@$])")
"""Any word with a digit or sign in it: what a text that is leet throughout is read from."""

_SWAPPED: Final = re.compile(r"(?<![\w'@.$-])[A-Za-z]{4,18}(?![\w@$])")
"""Words that may be misspelt: no parts of names, addresses or compounds."""

_LEET_MINIMUM: Final = 4
_SWAPPED_MINIMUM: Final = 5
"""Letters of a word that is read by itself; shorter ones have too many neighbours."""

_THROUGHOUT: Final = 3
"""Words hidden in one way from which a text counts as hidden so throughout: in such a text the
short and ambiguous ones are read too."""

_AMBIGUOUS_LIMIT: Final = 4
_WORD_MAXIMUM: Final = 12
_SHORT_WORDS: Final = frozenset(
    "a i an as at be by do go he hi if in is it me my no of ok on or so to up us we".split()  # noqa: SIM905  # reads best
)


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


class _Draft:
    """A text on its way, with the original span of every character."""

    __slots__ = ("ends", "starts", "text")

    def __init__(self, text: str, starts: Sequence[int], ends: Sequence[int]) -> None:
        self.text = text
        self.starts = starts
        self.ends = ends

    def replaced(self, edits: list[tuple[int, int, str, list[int] | None]]) -> _Draft:
        """Return the draft with `(start, end, new, sources)` edits made, in order.

        `sources` names, for each new character, the character of this draft that it came
        from; without it every new character came from the whole edited span.
        """
        if not edits:
            return self
        texts: list[str] = []
        starts: list[int] = []
        ends: list[int] = []
        done = 0
        for start, end, new, sources in edits:
            texts += [self.text[done:start], new]
            starts += self.starts[done:start]
            ends += self.ends[done:start]
            if sources is None:
                starts += [self.starts[start]] * len(new)
                ends += [self.ends[end - 1]] * len(new)
            else:
                starts += [self.starts[i] for i in sources]
                ends += [self.ends[i] for i in sources]
            done = end
        texts.append(self.text[done:])
        starts += self.starts[done:]
        ends += self.ends[done:]
        return _Draft("".join(texts), starts, ends)


def normalise(text: str, *, deobfuscate: bool = False) -> Normalised:
    """Return `text` in the form in which detectors read it.

    Args:
        text: any string, lone surrogates and NUL included (they become U+FFFD).
        deobfuscate: also undo leet spelling and letters set apart, for the classifier.
            Pattern detectors must not: it would change digits of numbers and keys.

    The base form of ASCII text without NUL is the text itself, and the base form of a base
    form is unchanged. Takes time linear in the length.
    """
    plain = text.isascii() and "\x00" not in text
    draft = _Draft(text, range(len(text)), range(1, len(text) + 1))
    if not plain:
        draft = _base(draft)
    if deobfuscate:
        draft = _unswapped(_joined(_unleeted(draft)))
    if draft.text == text:
        same = range(0)
        return Normalised(text, text, same, same)
    return Normalised(draft.text, text, draft.starts, draft.ends)


def _base(draft: _Draft) -> _Draft:
    draft = draft.replaced([(*m.span(), "\ufffd", None) for m in _UNWRITABLE.finditer(draft.text)])
    draft = _composed(_shown(draft))
    # A look-alike that became a letter may compose with the mark behind it.
    return _composed(draft.replaced(_look_alikes(draft.text)))


def _shown(draft: _Draft) -> _Draft:
    """Take out what does not show."""
    return draft.replaced([(*m.span(), "", []) for m in _IGNORABLE.finditer(draft.text)])


def _composed(draft: _Draft) -> _Draft:
    """Bring the draft to NFKC, cluster by cluster, so that every span stays known.

    What is beyond the limit of a cluster that is not in that form yet is left out.
    """
    if unicodedata.is_normalized("NFKC", draft.text):
        return draft
    edits: list[tuple[int, int, str, list[int] | None]] = []
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


def _look_alikes(text: str) -> list[tuple[int, int, str, list[int] | None]]:
    """Return the edits that write words of mixed script in ASCII."""
    table = _confusables()
    edits: list[tuple[int, int, str, list[int] | None]] = []
    for match in _WORD.finditer(text):
        word = match[0]
        if word.isascii() or not _ASCII_LETTER.search(word):
            continue
        new = word.translate(table)
        if new != word:
            # One character for one: the table holds nothing else.
            edits.append((*match.span(), new, list(range(*match.span()))))
    return edits


def _unleeted(draft: _Draft) -> _Draft:
    """Write leet words as the words they stand for."""
    return draft.replaced(_leet_throughout(draft.text) or _leet_words(draft.text))


def _leet_words(text: str) -> list[tuple[int, int, str, list[int] | None]]:
    """Return the edits that write leet words, each known by itself."""
    edits: list[tuple[int, int, str, list[int] | None]] = []
    for match in _LEET_WORD.finditer(text):
        new = _read_leet(match[0])
        if new is not None:
            edits.append((*match.span(), new, list(range(*match.span()))))
    return edits


def _leet_throughout(text: str) -> list[tuple[int, int, str, list[int] | None]]:
    """Return the edits for a text most of whose words with digits are leet; else none."""
    words = [m for m in _LEET_TOKEN.finditer(text) if m[0].isascii()]
    long = [m[0] for m in words if len(m[0]) >= _LEET_MINIMUM and not m[0].isdigit()]
    read = sum(_read_leet(word) is not None for word in long)
    if read < _THROUGHOUT or 2 * read < len(long):
        return []
    edits: list[tuple[int, int, str, list[int] | None]] = []
    for match in words:
        new = _read_leet(match[0]) or _read_short_leet(match[0].lower())
        if new is not None:
            edits.append((*match.span(), new, list(range(*match.span()))))
    return edits


def _read_short_leet(word: str) -> str | None:
    """Return the short word that a word stands for in a text that is leet throughout."""
    return None if len(word) >= _LEET_MINIMUM else _first_reading(word, _known, least=1)


def _read_leet(word: str) -> str | None:
    """Return the known word that a leet word stands for, in lower case."""
    if not word.isascii() or _ORDINARY.fullmatch(word) or word.isdigit():
        return None
    return _first_reading(word.lower(), lambda reading: reading in _words())


def _first_reading(
    word: str, known: Callable[[str], bool], least: int = _LEET_MINIMUM
) -> str | None:
    """Return the first way to read a leet word's characters that `known` accepts.

    Words of fewer than `least` characters are not read.
    """
    options = [_LEET.get(character, character) for character in word]
    if len(word) < least or sum(len(o) > 1 for o in options) > _AMBIGUOUS_LIMIT:
        return None
    readings = ("".join(letters) for letters in product(*options))
    return next((r for r in readings if r.isalpha() and known(r)), None)


def _unswapped(draft: _Draft) -> _Draft:
    """Write words in which two neighbouring letters were swapped as the words they stand for."""
    read = [(match, _swapped_at(match[0])) for match in _SWAPPED.finditer(draft.text)]
    found = [(match, at) for match, at in read if at is not None]
    throughout = sum(len(m[0]) >= _SWAPPED_MINIMUM for m, _ in found) >= _THROUGHOUT
    edits: list[tuple[int, int, str, list[int] | None]] = []
    for match, at in found:
        if throughout or len(match[0]) >= _SWAPPED_MINIMUM:
            start = match.start() + at
            edits.append((start, start + 2, draft.text[start : start + 2][::-1], None))
    return draft.replaced(edits)


def _swapped_at(word: str) -> int | None:
    """Return where two letters of an unknown word must be swapped to make it one known word.

    The first letter is where it belongs: readers notice when it is not.
    """
    letters = word.lower()
    if letters in _words():
        return None
    found = {
        at
        for at in range(1, len(letters) - 1)
        if letters[:at] + letters[at + 1] + letters[at] + letters[at + 2 :] in _words()
    }
    return found.pop() if len(found) == 1 else None


def _joined(draft: _Draft) -> _Draft:
    """Join letters that were set apart where they read as words."""
    edits: list[tuple[int, int, str, list[int] | None]] = []
    for match in _SPACED.finditer(draft.text):
        letters = match[0][::2].lower()
        reading = _first_reading(letters, lambda r: bool(_split(r)))
        if reading is not None:
            edits.append(_respaced(match.start(), match.end(), _split(reading)))
    return draft.replaced(edits)


def _respaced(start: int, end: int, words: list[str]) -> tuple[int, int, str, list[int]]:
    """Return the edit that writes `words` in the place of letters set apart."""
    sources: list[int] = []
    at = start
    for number, word in enumerate(words):
        if number:
            sources.append(at - 1)
        sources += range(at, at + 2 * len(word), 2)
        at += 2 * len(word)
    return start, end, " ".join(words), sources


def _split(letters: str) -> list[str]:
    """Return known words that spell `letters`, as few as possible; empty if there are none.

    A single word must have four letters, and at least half of the letters must be in words
    of three or more, so that initials and enumerations are left alone.
    """
    best: list[list[str] | None] = [[]] + [None] * len(letters)
    for end in range(1, len(letters) + 1):
        for start in range(max(0, end - _WORD_MAXIMUM), end):
            before, word = best[start], letters[start:end]
            if before is None or not _known(word):
                continue
            known = best[end]
            if known is None or len(before) + 1 < len(known):
                best[end] = [*before, word]
    found = best[-1] or []
    long = sum(len(word) for word in found if len(word) > 2)
    return found if 2 * long >= len(letters) else []


def _known(word: str) -> bool:
    return word in _words() or word in _SHORT_WORDS


@cache
def _words() -> frozenset[str]:
    return frozenset(files("guard.text").joinpath("words.txt").read_text("utf-8").split())


@cache
def _confusables() -> dict[int, str]:
    table = json.loads(files("guard.text").joinpath("confusables.json").read_text("utf-8"))
    return str.maketrans(table)
