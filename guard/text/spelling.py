"""Misspellings that hide words from a filter and not from a person, undone.

Leet, letters set apart, neighbouring letters swapped, words parted by a sign, signs in place of
spaces, signs strewn between words: each only where the result reads as known words, or where a
text is written so throughout.

This module does not know what text means or which detector reads it. It knows English words only.
"""

from __future__ import annotations

import re
from functools import cache
from importlib.resources import files
from itertools import product
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from guard.text.draft import Draft, Edit

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
_LEET_TOKEN: Final = re.compile(r"(?<![\w@$!.])(?=[A-Za-z]*[@$!\d])[\w@$!]{0,23}[\w@$](?![\w@$])")
"""Any word with a digit or sign in it: what a text that is leet throughout is read from."""

_SWAPPED: Final = re.compile(r"(?<![\w'@.$-])[A-Za-z]{4,18}(?![\w@$])")
"""Words that may be misspelt: no parts of names, addresses or compounds."""

_FILLERS: Final = "_.-+/*|~="
"""Signs that may stand in the place of spaces."""

_FILLED: Final = 4
"""So many words next to signs in the place of spaces are the fewest that are read as a text."""

_MARK: Final = re.compile(r"(?<=\S)[ \t]+([!-/:-@\[-`{-~]{1,3})(?=\s|$)")
"""Signs alone between two words, or behind the last one of a line."""

_ORDINARY_MARKS: Final = frozenset(
    re.findall(
        r"\S+",
        r"""( ) [ ] { } " ' ` , . ; : ! ? - & + * / = < > | % $ @ _ .. ... -- --- == != <= >= -> =>
        <- && || += -= *= /= := ++ << >> ** === !== ?? ?. `` ``` ); }; ]; }) () [] {} :) :( ;)
        {{ }} {% %} \( \) \[ \]""",
    )
)
"""Signs that ordinary prose, code and tables set between spaces."""

_MARKS_MINIMUM: Final = 4
_WORDS_PER_MARK: Final = 6
"""A text with at least so many other signs, and one or more for so many words, is strewn with
them."""

_PARTED: Final = re.compile(
    r"(?<![\w'@.$/-])[A-Za-z]{1,18}(?:[\-_*|~+][A-Za-z]{1,18}){1,3}(?![\w@$/-])"
)
_PARTS: Final = re.compile(r"[A-Za-z]+")
_PARTED_MINIMUM: Final = 4
"""Letters of a word that is read with a sign inside."""

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


def respelt(draft: Draft) -> Draft:
    """Return the draft with its hidden words written as they are known."""
    draft = _whole(_spaced_again(_swept(draft)))
    return _unswapped(_joined(_unleeted(draft)))


def _swept(draft: Draft) -> Draft:
    """Take out the signs with which a text is strewn."""
    marks = [m for m in _MARK.finditer(draft.text) if m[1] not in _ORDINARY_MARKS]
    if len(marks) < _MARKS_MINIMUM:
        return draft
    words = len(draft.text.split()) - len(marks)
    if words > _WORDS_PER_MARK * len(marks):
        return draft
    return draft.replaced([(*m.span(), "", []) for m in marks])


def _spaced_again(draft: Draft) -> Draft:
    """Write a space for the sign that stands between a text's words in its place."""
    text = draft.text
    spaces = sum(map(str.isspace, text))
    for filler in _FILLERS:
        # To count first is far quicker than to look at words.
        if text.count(filler) < max(_FILLED, 2 * spaces):
            continue
        parts = [part for word in text.split() for part in word.split(filler)]
        words = [part.strip(",.;:!?\"'()").lower() for part in parts]
        words = [word for word in words if word]
        if len(words) >= _FILLED and 2 * sum(map(_known, words)) > len(words):
            between = re.finditer(rf"(?<=[^\s{re.escape(filler)}]){re.escape(filler)}(?=\w)", text)
            return draft.replaced([(*m.span(), " ", None) for m in between])
    return draft


def _whole(draft: Draft) -> Draft:
    """Write words that a sign parts as one, where no hyphen belongs."""
    found = [
        (m, [part[0].lower() for part in _PARTS.finditer(m[0])])
        for m in _PARTED.finditer(draft.text)
    ]
    found = [(m, parts) for m, parts in found if _long(parts) and "".join(parts) in _words()]
    sure = [not all(map(_known, parts)) for _, parts in found]
    throughout = sum(sure) >= _THROUGHOUT
    edits: list[Edit] = []
    for (match, _), known in zip(found, sure, strict=True):
        if known or throughout:
            start, end = match.span()
            sources = [at for at in range(start, end) if draft.text[at].isalpha()]
            edits.append((start, end, "".join(draft.text[at] for at in sources), sources))
    return draft.replaced(edits)


def _long(parts: Sequence[str]) -> bool:
    """Return whether the parts of a word are no initials, and long enough to be read."""
    return max(map(len, parts)) > 1 and sum(map(len, parts)) >= _PARTED_MINIMUM


def _unleeted(draft: Draft) -> Draft:
    """Write leet words as the words they stand for."""
    return draft.replaced(_leet_throughout(draft.text) or _leet_words(draft.text))


def _leet_words(text: str) -> list[Edit]:
    """Return the edits that write leet words, each known by itself."""
    edits: list[Edit] = []
    for match in _LEET_WORD.finditer(text):
        new = _read_leet(match[0])
        if new is not None:
            edits.append((*match.span(), new, list(range(*match.span()))))
    return edits


def _leet_throughout(text: str) -> list[Edit]:
    """Return the edits for a text most of whose words with digits are leet; else none."""
    words = [m for m in _LEET_TOKEN.finditer(text) if m[0].isascii()]
    long = [m[0] for m in words if len(m[0]) >= _LEET_MINIMUM and not m[0].isdigit()]
    read = sum(_read_leet(word) is not None for word in long)
    if read < _THROUGHOUT or 2 * read < len(long):
        return []
    edits: list[Edit] = []
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


def _unswapped(draft: Draft) -> Draft:
    """Write words in which two neighbouring letters were swapped as the words they stand for."""
    read = [(match, _swapped_at(match[0])) for match in _SWAPPED.finditer(draft.text)]
    found = [(match, at) for match, at in read if at is not None]
    throughout = sum(len(m[0]) >= _SWAPPED_MINIMUM for m, _ in found) >= _THROUGHOUT
    edits: list[Edit] = []
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


def _joined(draft: Draft) -> Draft:
    """Join letters that were set apart where they read as words."""
    edits: list[Edit] = []
    for match in _SPACED.finditer(draft.text):
        letters = match[0][::2].lower()
        reading = _first_reading(letters, lambda r: bool(_split(r)))
        if reading is not None:
            edits.append(_respaced(match.start(), match.end(), _split(reading)))
    return draft.replaced(edits)


def _respaced(start: int, end: int, words: list[str]) -> Edit:
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
