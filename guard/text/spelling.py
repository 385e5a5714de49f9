"""Misspellings that hide words from a filter and not from a person, undone.

Leet, letters set apart, neighbouring letters swapped, words parted by a sign, signs in place of
spaces, no spaces at all, signs strewn between words: each only where the result reads as known
words, or where a text is written so throughout.

This module does not know what text means or which detector reads it. It knows English words only.
"""

from __future__ import annotations

import re
from functools import cache
from importlib.resources import files
from itertools import accumulate, groupby, pairwise, product
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

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
    r"(?<![\w.])[A-Za-z0-9@$!](?P<sep>[ .\-_*|/])(?:[A-Za-z0-9@$!](?P=sep)){2,}[A-Za-z0-9@$!]"
    r"(?![\w@$])"
)
_LEET_TOKEN: Final = re.compile(r"(?<![\w@$!.])(?=[A-Za-z]*[@$!\d])[\w@$!]{0,23}[\w@$](?![\w@$])")
"""Any word with a digit or sign in it: what a text that is leet throughout is read from."""

_SWAPPED: Final = re.compile(r"(?<![\w'@.$-])[A-Za-z]{4,18}(?![\w@$])")
"""Words that may be misspelt: no parts of names, addresses or compounds."""

_DASHES: Final = "\u2010-\u2015\u2212\u00b7\u2022"
"""Of Unicode, and dots in the middle, as a class of a pattern has them."""

_FILLER: Final = re.compile(rf"(?<=[^\W_])[.,;:!?_\-+/*|~=#\\^&%<>{_DASHES}]+(?=[^\W_])")
"""Signs between two words of one token; of a sentence's end the first may stay."""

_FILLERS_MINIMUM: Final = 4
"""Signs in a token from which it may be a text with signs for spaces."""

_LITTLE: Final = frozenset(
    "a an and can do for from how i in is it me my of on or that the this to what you".split()  # noqa: SIM905  # reads best
)
"""Words that hold a sentence together: of names and lists of words few have two of them."""

_RUN: Final = re.compile(r"(?<![\w@./\\#$])[A-Za-z\d'\u2019]{6,}(?![\w@/\\(=])")
"""What may be words without spaces: no parts of names, addresses or code."""

_HUMP: Final = re.compile(r"[A-Z]?[a-z'\u2019]+|[A-Z]+(?=[A-Z][a-z'\u2019])|[A-Z]+|\d+")
"""A word in such a run, where capitals tell them apart."""

_RUN_MINIMUM: Final = 12
_RUN_WORDS: Final = 4
"""Letters and words of a run that is read by itself; names and compounds have fewer."""

_LITTLE_WORDS: Final = 2
_LITTLE_WORDS_UNMARKED: Final = 3
"""Words that hold a sentence together in a run, and in one whose words no capital tells apart."""

_MARK: Final = re.compile(r"(?<=\S)[ \t]+([!-/:-@\[-`{-~]{1,8})(?=\s|$)")
"""Signs that stand alone, with the white space before them; not where a line begins."""

_ORDINARY_MARKS: Final = frozenset(
    re.findall(
        r"\S+",
        r"""( ) [ ] { } " ' ` , . ; : ! ? - & + * / = < > | % $ @ _ == != <= >= => && || += -= *= /=
        := ++ << >> === !== ?? ?. `` ``` ); }; ]; }) () [] {} {{ }} {% %} \( \) \[ \] %>% |>
        \\\\ \\""",
    )
)
_ORDINARY_FORMS: Final = re.compile(
    r"[:;=]['-]?[()\[\]|/\\*<>]+|[-^>][_.]?[-^<]|\*+|\.+|[.-]+|<?[-=]+>?"
    r"|\(?\\[()\[\]][).,;:]*"
)
"""Smileys, words that were left out, dots and dashes, arrows, formulas."""

_MARKS_MINIMUM: Final = 3
_WORDS_PER_MARK: Final = 6
"""A stretch is strewn with signs that has so many, each at most so many words from the next."""

_PARTED: Final = re.compile(
    rf"(?<![\w@.$/?=&-])(?<!\w')[A-Za-z]{{1,18}}(?:[\-_*|~+#^=:{_DASHES}]{{1,2}}[A-Za-z]{{1,18}}){{1,7}}"
    r"(?![\w@$/]|[-_*|~+][A-Za-z])"
)
_PARTS: Final = re.compile(r"[A-Za-z]+")
_PARTED_MINIMUM: Final = 4
"""Letters of a word that is read with a sign inside."""

_TOKEN: Final = re.compile(r"\S+")
_PLAIN_WORD: Final = re.compile(r"[^\W_]+")
_ADDRESS: Final = re.compile("://|@")
_PUNCTUATION: Final = ",.;:!?\"'()"

_PREFIXES: Final = frozenset("anti co de e non pre re sub un".split())  # noqa: SIM905  # reads best
"""What is written with a hyphen as well as without."""

_LEET_MINIMUM: Final = 4
_SWAPPED_MINIMUM: Final = 5
"""Letters of a word that is read by itself; shorter ones have too many neighbours."""

_THROUGHOUT: Final = 3
"""Words hidden in one way from which a text counts as hidden so throughout: in such a text the
short and ambiguous ones are read too."""

_NO_WORD: Final = 2
"""What a letter in no word costs, where a word costs 1."""

_AMBIGUOUS_LIMIT: Final = 4
_WORD_MAXIMUM: Final = 12
_SHORT_WORDS: Final = frozenset(
    "a i an as at be by do go he hi if in is it me my no of ok on or so to up us we".split()  # noqa: SIM905  # reads best
)


def respelt(draft: Draft) -> Draft:
    """Return the draft with its hidden words written as they are known."""
    draft = _unparted(_unjoined(_unfilled(_unstrewn(draft))))
    return _unswapped(_joined(_unleeted(draft)))


def _unstrewn(draft: Draft) -> Draft:
    """Take out the signs with which a stretch of words is strewn.

    Signs that belong where they are stay, and those of lines that are mostly no known words.
    """
    edits: list[Edit] = []
    stretch: list[re.Match[str]] = []
    for mark in _MARK.finditer(draft.text):
        if mark[1] in _ORDINARY_MARKS or _ORDINARY_FORMS.fullmatch(mark[1]):
            continue
        if stretch and not _is_near(draft.text[stretch[-1].end() : mark.start()]):
            edits += _strewn(draft.text, stretch)
            stretch = []
        stretch.append(mark)
    return draft.replaced(edits + _strewn(draft.text, stretch))


def _is_near(between: str) -> bool:
    """Return whether two signs with this text between them are of one stretch."""
    return "\n" not in between and len(between.split()) <= _WORDS_PER_MARK


def _strewn(text: str, marks: list[re.Match[str]]) -> list[Edit]:
    """Return the edits that take out the signs of a stretch; none if it is ordinary."""
    if len(marks) < _MARKS_MINIMUM:
        return []
    between = [text[a.end() : b.start()] for a, b in pairwise(marks)]
    words = [word.strip(_PUNCTUATION).lower() for part in between for word in part.split()]
    if 2 * sum(map(_known, words)) <= len(words):
        return []
    return [(*mark.span(), "", []) for mark in marks]


def _unfilled(draft: Draft) -> Draft:
    """Write spaces for the signs that stand between words in their place.

    Of each token that has at least `_FILLERS_MINIMUM`, is made of known words, and has at least
    two that hold a sentence together; addresses and paths stay.
    """
    edits: list[Edit] = []
    for token in _TOKEN.finditer(draft.text):
        signs = list(_FILLER.finditer(draft.text, *token.span()))
        if len(signs) < _FILLERS_MINIMUM or token[0][0] == "/" or _ADDRESS.search(token[0]):
            continue
        words = [word.lower() for word in _PLAIN_WORD.findall(token[0])]
        if _little(words) >= _LITTLE_WORDS and 5 * sum(map(_known, words)) >= 4 * len(words):
            edits += [(*m.span(), _space_for(m[0]), None) for m in signs]
    return draft.replaced(edits)


def _space_for(signs: str) -> str:
    """Return a space, behind the sign that ends a sentence or a part of it, if there is one."""
    return f"{signs[0]} " if len(signs) > 1 and signs[0] in _PUNCTUATION else " "


def _unjoined(draft: Draft) -> Draft:
    """Set words apart that have no space between them, whether capitals tell them apart or not.

    Of runs of at least `_RUN_WORDS` known words, two of which hold a sentence together. Where at
    least `_THROUGHOUT` runs of the text read so, of shorter ones with capitals too.
    """
    read = [(run, _words_of(run[0])) for run in _RUN.finditer(draft.text)]
    certain = [_is_sentence(run[0], words) for run, words in read]
    throughout = sum(certain) >= _THROUGHOUT
    edits: list[Edit] = []
    for (run, words), sure in zip(read, certain, strict=True):
        if sure or (throughout and are_known(words)):
            at = run.start()
            for word in words[:-1]:
                at += len(word)
                edits.append((at, at + 1, f" {draft.text[at]}", [at - 1, at]))
    return draft.replaced(edits)


def _words_of(run: str) -> list[str]:
    """Return the words that a run without spaces spells, as they are written in it."""
    return [word for hump in _HUMP.findall(run) for word in _words_of_hump(hump)]


def _words_of_hump(hump: str) -> list[str]:
    """Return the words that a run without capitals inside spells; itself if it may be one."""
    words = _spelt(hump.lower()) if len(hump) >= _RUN_MINIMUM and hump.isalpha() else []
    if _little(words) < _LITTLE_WORDS_UNMARKED:
        return [hump]
    ends = accumulate(map(len, words), initial=0)
    return [hump[a:b] for a, b in pairwise(ends)]


def _is_sentence(run: str, words: Sequence[str]) -> bool:
    """Return whether the words of a run are surely a sentence's."""
    long = len(run) >= _RUN_MINIMUM and len(words) >= _RUN_WORDS
    return long and _little(words) >= _LITTLE_WORDS and are_known(words)


def _little(words: Iterable[str]) -> int:
    """Return how many of the words hold a sentence together."""
    return sum(_stem(word) in _LITTLE for word in words)


def are_known(words: Sequence[str]) -> bool:
    """Return whether four of five words are known; figures count on neither side."""
    plain = [_stem(word) for word in words if not word.isdigit()]
    return 5 * sum(map(_known, plain)) >= 4 * len(plain) > 0


def _stem(word: str) -> str:
    """Return a word in lower case without what follows its apostrophe."""
    return word.lower().replace("\u2019", "'").split("'")[0]


def _unparted(draft: Draft) -> Draft:
    """Write words that signs part as one.

    Where the parts are not all words themselves, or where at least `_THROUGHOUT` others of the
    text were read so. What has a hyphen as well as not (`co-operate`) stays.
    """
    found = [(m, [part.lower() for part in _PARTS.findall(m[0])]) for m in _parted(draft.text)]
    certain = {"".join(parts) for _, parts in found if _is_hidden(parts)}
    throughout = len(certain) >= _THROUGHOUT
    edits: list[Edit] = []
    for match, parts in found:
        if throughout or _is_hidden(parts):
            start, end = match.span()
            sources = [at for at in range(start, end) if draft.text[at].isalpha()]
            edits.append((start, end, "".join(draft.text[at] for at in sources), sources))
    return draft.replaced(edits)


def _parted(text: str) -> Iterator[re.Match[str]]:
    """Yield what signs part and spells a known word without them."""
    for match in _PARTED.finditer(text):
        parts = _PARTS.findall(match[0])
        # A name in code often begins with one letter.
        is_name = "_" in match[0] and len(parts[0]) == 1
        if _long(parts) and not is_name and "".join(parts).lower() in _words():
            yield match


def _is_hidden(parts: Sequence[str]) -> bool:
    """Return whether the parts of a known word are no words that one may write with a hyphen."""
    if parts[0] in _PREFIXES and _known("".join(parts[1:])):
        return False
    return not all(map(_known, parts))


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
        words = _spelt(match[0][::2].lower())
        if words:
            edits.append(_respaced(match.start(), match.end(), words))
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


def _spelt(letters: str) -> list[str]:
    """Return the words that `letters` spell, leet ones read, and what is no word between them.

    As few as possible, in time linear in the letters. Initials and enumerations are left alone:
    at least half of the letters must be in known words of three or more, and where some are in no
    word, two thirds, in `_THROUGHOUT` different ones.
    """
    # For each end of a part: what it costs to come so far, where its last word begins, the word.
    costs, steps = [0], [(0, "")]
    for end in range(1, len(letters) + 1):
        cost, step = costs[end - 1] + _NO_WORD, (end - 1, "")
        for start in range(max(0, end - _WORD_MAXIMUM), end):
            if costs[start] + 1 < cost and (word := _read(letters[start:end])):
                cost, step = costs[start] + 1, (start, word)
        costs.append(cost)
        steps.append(step)
    found: list[tuple[bool, str]] = []
    end = len(letters)
    while end:
        start, word = steps[end]
        found.append((bool(word), word or letters[start:end]))
        end = start
    long = [word for known, word in found if known and len(word) > 2]
    read, whole = sum(map(len, long)), all(known for known, _ in found)
    if 2 * read < len(letters):
        return []
    if not whole and (3 * read < 2 * len(letters) or len(set(long)) < _THROUGHOUT):
        return []
    # Letters that are in no word stand together.
    parts = groupby(reversed(found), key=lambda part: part[0])
    return [
        word
        for known, group in parts
        for word in ([w for _, w in group] if known else ["".join(w for _, w in group)])
    ]


def _read(letters: str) -> str | None:
    """Return the known word that letters spell, in leet or not."""
    if letters.isalpha():
        return letters if _known(letters) else None
    return _first_reading(letters, _known, least=1)


def _known(word: str) -> bool:
    """Return whether a lower-case word is known; of short ones only the commonest are."""
    return word in _words() or word in _SHORT_WORDS


@cache
def _words() -> frozenset[str]:
    return frozenset(files("guard.text").joinpath("words.txt").read_text("utf-8").split())
