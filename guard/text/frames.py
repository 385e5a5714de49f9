r"""Text out of the format that it stands in: escapes, tags, keys, times and numbers of lines.

`{"step": 1, "text": "Don\u2019t"}`, `<li><b>Don&rsquo;t</b></li>` and the lines of a log or of
subtitles say what the plain words say. A model that was trained on those spends its window on the
signs, and does not know the words that escapes are stuck to.

What comes out is a reading beside the text and never in its place. A word is left out only where it
is one that formats are made of (`text`, `div`, `INFO`): behind `"never"` or `Avoid:` the same words
mean something else. There is a reading only where enough of a text is such signs and the rest reads
as known English words, so that prose, lists and code have none.

This module does not know what a text is meant as, or who reads it.
"""

from __future__ import annotations

import html
import re
from bisect import bisect_left
from html.entities import html5
from typing import TYPE_CHECKING, Final

from guard.text.draft import Draft
from guard.text.spelling import are_known

if TYPE_CHECKING:
    from collections.abc import Sequence

    from guard.text.draft import Edit

LEAST: Final = 0.08
"""Share of a text that must be signs of its format; a few tags in prose are less."""

_CODE: Final = 0.04
"""Signs of code per letter from which on what is left is no prose."""

_WORDS: Final = 5
"""Words below which nothing is read as prose."""

_LINES: Final = 3
"""Lines that begin alike from which on the beginning may be of a format."""

_BEGINNING: Final = 80
"""Characters of a line in which its beginning is sought."""

_SIGNS: Final = re.compile(
    # The first sign alone, so that the engine seeks it as quickly as it can.
    r"[\x1b&<\\\"{\[,](?:"
    r"(?P<colour>(?<=\x1b)\[[0-9;:?]{0,16}[@-~])"
    r"|(?<=&)(?:(?P<number>#[0-9]{1,7}|#[xX][0-9A-Fa-f]{1,6})|(?P<name>[A-Za-z][A-Za-z0-9]{1,31}));"
    r"|(?<=<)/?(?P<tag>[A-Za-z][\w:.-]{0,31})(?:\s[^<>]{0,200})?/?>"
    r"|(?<=\\)(?:u(?P<unit>[0-9A-Fa-f]{4})|(?P<sign>[nrt\"/]))"
    r"|(?P<key>(?<=[{\[,])\s{0,40}[{\[]?\s{0,40}\"[^\"\\\n]{1,40}\"\s{0,4}:\s{0,4}"
    r"(?:\"|(?:-?[0-9.]{1,20}|true|false|null)(?=\s{0,40}[,}\]]))?)"
    r"|(?P<end>(?<=\")\s{0,40}[,}\]]+))"
)
_MEANT: Final = {"n": "\n", "r": " ", "t": " ", '"': '"', "/": "/"}

_WITHIN: Final = frozenset(
    "a abbr b bdi big cite code em font i ins kbd mark q samp small span strong sub sup tt u "  # noqa: SIM905  # reads best
    "wbr".split()
)
"""Names of tags that part no words."""

_SAYS_NOTHING: Final = frozenset(
    "answer article aside assistant author blockquote body br button "  # noqa: SIM905  # reads best
    "caption category chapter class code col colgroup content count "
    "created data date dd description detail details dialog div dl dt "
    "entry field figcaption figure footer form format h1 h2 h3 h4 h5 h6 "
    "head header heading hr html id img index input instruction "
    "instructions item items key kind label lang language legend level "
    "li line lines link list main message messages meta model name nav "
    "note number ol option order output p page paragraph paragraphs "
    "part picture position pre reply response result results role row "
    "script section select sentence sentences source speaker status "
    "step steps style subtitle summary table tag tags task tbody td "
    "text texts tfoot th thead time timestamp title token tr type ul "
    "url user value values version video xml".split()
)
"""Tags and keys by whose names nothing is said of what stands in them."""

_TIMES: Final = re.compile(
    r"(?m)^(?:\d{1,6}\r?\n)?[0-9:.,]{5,16} --> [0-9:.,]{5,16}[^\n]{0,80}(?:\n|\Z)"
)
"""When a subtitle is shown, with its number."""

_LINE: Final = re.compile(r"(?m)^[^\S\n]*+\S[^\n]*")
_PIECE: Final = re.compile(r"\d+|[^\W\d_]+|.")
_MARK: Final = re.compile(
    # Signs and numbers, a moment as ISO 8601 writes it, how grave a line is, and who wrote it.
    r"(?:[\s!-/:-@\[-`{-~\u2500-\u257f0]|(?<=0)(?:T(?=0)|Z(?=[\s\]),])))*"
    r"(?:(?:TRACE|DEBUG|INFO|NOTICE|WARN(?:ING)?|ERROR|FATAL|CRITICAL)\b[\s\]:|-]*)?"
    r"(?:[^\W\d_]+(?:\.[^\W\d_]+)+:?\s+)?"
)
"""What a log, a chat or a listing puts before a line, any number written as 0; a word never."""

_FORMAT: Final = re.compile(r"0.*0|0\]|0\s*[|\u2500-\u257f]", re.DOTALL)
_ORDINARY: Final = re.compile(
    r"\s*(?:[-*+\u2022]\s+)?[(\[]?0(?:[.:/-]0)*[\]).:]?\s*[-\u2013\u2014:]?\s*"
)
"""How an item of a list begins, or a line of a timetable."""

_AROUND: Final = ' \t\r\n{["'
_NO_LETTER: Final = re.compile(r"[\W_]+")
_WORD: Final = re.compile(r"[^\W\d_]+(?:['\u2019][^\W\d_]+)?")
_SIGN_OF_CODE: Final = re.compile(r"[{}\[\]<>=$\\|@^~`_]|(?<=\w)\(")


def unframed(text: str, start: int = 0) -> tuple[str, int] | None:
    """Return a text without its format, and where `start` is in that; `None` where it has none.

    Takes time linear in the length.

    Args:
        text: the text, which may begin and end anywhere in its format.
        start: a place in it, zero-based; something must be left behind it.
    """
    draft = Draft(text, range(len(text)), range(1, len(text) + 1))
    draft = draft.replaced([(*m.span(), _said(m), None) for m in _SIGNS.finditer(text)])
    draft = draft.replaced([(*m.span(), "", []) for m in _TIMES.finditer(draft.text)])
    draft = draft.replaced(_beginnings(draft.text))
    if len(text) - len(draft.text) < LEAST * len(text) or not _is_prose(draft.text):
        return None
    begin = bisect_left(draft.starts, start)
    return (draft.text, begin) if _WORD.search(draft.text, begin) else None


def _said(match: re.Match[str]) -> str:
    """Return what a sign of a format says."""
    kind = match.lastgroup or ""
    value = match[kind]
    if kind == "unit":
        return chr(int(value, 16))
    if kind == "sign":
        return _MEANT[value]
    if kind == "number":
        return html.unescape(match[0])
    if kind == "name":
        return html5.get(f"{value};", match[0])
    if kind in ("tag", "key"):
        return _said_by(value, opens=not match[0].startswith("</"))
    return "" if kind == "colour" else " "


def _said_by(sign: str, *, opens: bool) -> str:
    """Return what a tag's or a key's name says of what stands in it."""
    name, quoted, value = sign.strip(_AROUND).partition('"')
    name = name.lower()
    if name in _WITHIN:
        return ""
    if name in _SAYS_NOTHING or not opens:
        return " "
    # A number or `false` beside a key is part of what it says.
    return f" {_NO_LETTER.sub(' ', name)}: {value.strip(': ')} " if quoted else f" {name}: "


def _beginnings(text: str) -> list[Edit]:
    """Return the edits that take out what all lines begin with.

    The first line may be the end of one, or a heading.
    """
    lines = [(match.start(), _pieces(match[0])) for match in _LINE.finditer(text)]
    shared = _shared([pieces for _, pieces in lines[1:]])
    count = len(shared)
    # Of figures alone nothing would be left.
    if not count or not all(_WORD.search("".join(pieces[count:])) for _, pieces in lines[1:]):
        return []
    alike = [(at, "".join(p[:count])) for at, p in lines if _shape(p[:count]) == shared]
    return [(at, at + len(begun), "", []) for at, begun in alike]


def _pieces(line: str) -> list[str]:
    return _PIECE.findall(line[:_BEGINNING])


def _shape(pieces: Sequence[str]) -> list[str]:
    """Return pieces with any number like any other."""
    return ["0" if piece[0].isdigit() else piece for piece in pieces]


def _shared(lines: Sequence[Sequence[str]]) -> list[str]:
    """Return the shape of what a format puts before each line; nothing for that of prose."""
    if len(lines) < _LINES:
        return []
    shared: list[str] = []
    for pieces in zip(*map(_shape, lines), strict=False):
        if len(set(pieces)) > 1:
            break
        shared.append(pieces[0])
    found = _MARK.match("".join(shared))
    mark = found[0] if found else ""
    while len("".join(shared)) > len(mark):
        shared.pop()
    mark = "".join(shared)
    return shared if _FORMAT.search(mark) and not _ORDINARY.fullmatch(mark) else []


def _is_prose(text: str) -> bool:
    """Return whether a text is words, most of them known, and hardly any signs of code."""
    words = _WORD.findall(text)
    signs = len(_SIGN_OF_CODE.findall(text))
    return len(words) >= _WORDS and signs <= _CODE * sum(map(len, words)) and are_known(words)
