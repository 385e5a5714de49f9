"""Units: the pieces in which text is judged and released, cut by the text alone.

A unit is one or more whole sentences. Where a unit ends depends only on the text
from its start up to a bounded look-ahead behind its end, never on how the text
arrived, so that a stream and a whole text are cut alike (chunking invariance).

A unit never ends inside a run, unless the run is longer than `RUN_LIMIT`, nor inside a block,
unless the block is longer than `BLOCK_LIMIT`: credentials are such runs and blocks, and half a key
is not recognised as one. A run has no white space and no full-width sentence end in it but behind
it, since Chinese and Japanese put no white space there. A block is what PEM or RFC 4716 puts
between two signs, or a key file of PuTTY's. Behind a block that it would have cut, a unit ends
whatever follows.

Detectors read text without the characters that do not show (`guard.text.normalise`), so that
these may stand anywhere in a block's signs, and the look-ahead, what is seen before a unit
and both limits count what shows. Only up to `HIDDEN_LIMIT` of them, since nobody could wait for
a flood's end: a unit with more of them may be cut anywhere, and must not pass for judged
(`flooded`). Detectors read look-alikes as ASCII, so that a block's signs may be made up of
those.

This module does not know what any of the text means or what is done with it.
"""

from __future__ import annotations

import re
from itertools import pairwise
from typing import TYPE_CHECKING, Final

from guard.text.normalise import IGNORABLE, folded
from guard.text.wrapped import BREAK, NO_BREAK

if TYPE_CHECKING:
    from collections.abc import Iterator

UNIT_MINIMUM: Final = 120
"""Characters after which the next sentence end closes the unit (about 30 tokens)."""

UNIT_MAXIMUM: Final = 400
"""Characters after which the next white space closes the unit (about 100 tokens)."""

LOOKAHEAD: Final = 96
"""Characters that show behind a unit's end and that detectors see before it is released.

Longer than any spaced-out number that the pattern packs know (an IBAN has 42)."""

CONTEXT: Final = 480
"""Characters that show of delivered text before a unit, which detectors see with it.

About 110 tokens."""

CLOSING: Final = 1600
"""Characters that show of a complete text's end, which is read once more as a whole.

About 370 tokens."""

RUN_LIMIT: Final = 4096
"""Characters that show without white space after which a cut inside the run is allowed."""

BLOCK_LIMIT: Final = 8192
"""Characters that show after which a cut inside an unfinished block is allowed."""

HIDDEN_LIMIT: Final = 4096
"""Characters that do not show after which a look-ahead, a run or a block may be cut.

Far more than words need: a flag of a part of a country has six, a joined emoji fewer."""

# Half of what a stream cut in two may be of what does not show.
_HIDDEN: Final = f"{IGNORABLE}\ud800-\udfff"
_UNSEEN: Final = re.compile(f"[{_HIDDEN}]+")

_CONTROLS: Final = bytes(code for code in range(128) if _UNSEEN.match(chr(code)))

# These separators are white space for `re` and do not show, so that they part nothing.
_UNSEEN_SPACE: Final = r"\x1c-\x1f"
_SPACE: Final = re.compile(rf"[^\S{_UNSEEN_SPACE}]+")
_RUN: Final = re.compile(rf"\S*+(?:(?:[{_UNSEEN_SPACE}]|{BREAK}[ \t]*+)\S*+)*+")

# Chinese and Japanese put no white space behind a sentence. What of their signs is read as
# ASCII's too may stand in a key, so that it ends one only beside one of their letters.
_FULL_WIDTH: Final = r"\u3001-\u30ff\u3400-\u9fff\uac00-\ud7a3\U00020000-\U0003ffff"
_MARKS: Final = r"[.!?\u2026\u3002\uff01\uff1f]"
_CLOSERS: Final = (
    r"""["'\u201d\u2019)\]*_\u3009\u300b\u300d\u300f\u3011\u3015\uff09\uff3d\uff02\uff07]"""
)
_CLOSE: Final = f"{_MARKS}*+{_CLOSERS}*+"
# Of many marks the first alone looks ahead: from each of them it would take quadratic time.
_FULL_STOP: Final = re.compile(
    rf"(?:\u3002|(?<=[{_FULL_WIDTH}])[\uff01\uff1f\u2026]"
    rf"|(?<!{_MARKS})[\uff01\uff1f](?={_CLOSE}[{_FULL_WIDTH}]))"
    rf"{_CLOSE}"
)
_SENTENCE: Final = re.compile(
    rf"{_FULL_STOP.pattern}(?:{_SPACE.pattern})?"
    rf"""|[.!?\u2026\uff01\uff1f]["'\u201d\u2019)\]*_]*{_SPACE.pattern}|{NO_BREAK}\n*"""
)


def _shown(count: int) -> re.Pattern[str]:
    """Return what matches so many characters that show, with those before them that do not."""
    return re.compile(f"(?:[{_HIDDEN}]*+[^{_HIDDEN}]){{{count}}}+")


def _block(gap: str) -> re.Pattern[str]:
    """Return what matches the beginning of a block, and with a named group all of a closed one.

    Args:
        gap: what may stand between any two characters of its signs.
    """

    def sign(text: str) -> str:
        return gap.join(map(re.escape, text))

    name = rf"(?:{gap}[A-Z0-9 ]){{1,40}}{gap}"
    pem = rf"{gap} {name}{sign('-----')}.*?{sign('-----END')}{gap} {name}{sign('-----')}"
    ssh2 = rf"{name}{sign('----')}.*?{sign('---- END SSH2')}{name}{sign('----')}"
    mac = rf".*?{sign('Private-')}(?:{sign('MAC')}|{sign('Hash')}){gap}:{gap} (?:{gap}[a-f0-9])"
    kinds = (
        rf"{sign('-----BEGIN')}(?P<pem>{pem})?",
        rf"{sign('---- BEGIN SSH2')}(?P<ssh2>{ssh2})?",
        rf"{sign('PuTTY-User-Key-File-3')}(?P<ppk3>{mac}{{64}})?",
        rf"{sign('PuTTY-User-Key-File-')}{gap}[12](?P<ppk>{mac}{{40}})?",
        rf"{sign('Private-Lines:')}(?P<lines>{mac}{{40}})?",
    )
    return re.compile("|".join(kinds), re.DOTALL)


_SHOWN: Final = {
    count: _shown(count) for count in (LOOKAHEAD, CONTEXT, CLOSING, RUN_LIMIT, BLOCK_LIMIT)
}
_BLOCK: Final = _block("")
# Possessive, or what is not found would be sought in every part of a gap.
_SPACED_BLOCK: Final = _block(f"[{_HIDDEN}]*+")

_SIGN_BEGUN: Final = re.compile(r"(?<!\S)\S{0,9}---- (?:BEGIN )?\Z")
_SIGN_SPACES: Final = 2
"""White spaces in the one sign that has some: no unit ends there."""

_SIGN: Final = 64
"""Characters, hidden ones included, in which such a beginning is sought."""


def unit_end(text: str, start: int, *, final: bool) -> int | None:
    """Return where the unit that begins at `start` ends, or `None` if that is not certain yet.

    Args:
        text: the text so far.
        start: where the unit begins, zero-based.
        final: whether the text is complete.

    The answer for a text is the answer for each longer text: it is given only once
    every character that could change it is there.
    """
    end = _closed(text, start, final=final)
    block = None if end is None else _open_block(text, start, end)
    return end if block is None else _after_block(text, block, final=final)


def seen_end(text: str, end: int, *, final: bool) -> int | None:
    """Return how far detectors look behind a unit that ends at `end`; `None` if not there yet.

    `LOOKAHEAD` characters that show, and then to the end of the run they stop in, so that a
    long credential is seen whole.
    """
    ahead = _counted(text, end, LOOKAHEAD)
    if ahead >= len(text):
        return len(text) if final else None
    run, cut = _run_end(text, ahead)
    return run if cut or final or run < len(text) else None


def shown_end(text: str, count: int) -> str:
    """Return the end of a text that has `count` characters that show, or all of a shorter one.

    It has up to `HIDDEN_LIMIT` more, which do not show. To take the end of an end and more text
    gives what the whole text would.

    Args:
        text: the text.
        count: a key of `_SHOWN`.
    """
    if _plain(text, max(0, len(text) - count), len(text)):
        return text[-count:]
    end = text[-count - HIDDEN_LIMIT :]
    match = _SHOWN[count].match(end[::-1])
    return end if match is None else end[-match.end() :]


def flooded(text: str) -> bool:
    """Return whether a unit with its look-ahead has so much hidden that it may be cut anywhere."""
    if len(text) <= HIDDEN_LIMIT:
        return False
    return sum(len(match[0]) for match in _UNSEEN.finditer(text)) > HIDDEN_LIMIT


def shows(text: str) -> bool:
    """Return whether there is anything in a text that shows, white space included."""
    return bool(text) and _UNSEEN.fullmatch(text) is None


def units(text: str) -> Iterator[tuple[int, int]]:
    """Yield the units of a complete text as `(start, end)`, without gaps."""
    start = 0
    while start < len(text):
        end = unit_end(text, start, final=True)
        if end is None:  # pragma: no cover  # a complete text always has an answer
            end = len(text)
        yield start, end
        start = end


def sentences(text: str) -> list[tuple[int, int]]:
    """Return the sentences of a unit as `(start, end)`, white space with the sentence before."""
    cuts = [match.end() for match in _SENTENCE.finditer(text)]
    bounds = [0, *[cut for cut in cuts if cut < len(text)], len(text)]
    return [(a, b) for a, b in pairwise(bounds) if b > a]


def _closed(text: str, start: int, *, final: bool) -> int | None:
    """Return the first permitted end at or behind the unit's minimum size."""
    limit = start + UNIT_MAXIMUM
    for match in _SENTENCE.finditer(text, start + UNIT_MINIMUM, min(len(text), limit)):
        if match.end() < min(len(text), limit):
            return match.end()
    if len(text) <= limit:
        return len(text) if final else None
    end = _at_space(text, limit, final=final)
    for _ in range(_SIGN_SPACES):
        if end is not None and _SIGN_BEGUN.search(_read(text, max(start, end - _SIGN), end)):
            end = _at_space(text, end, final=final)
    return end


def _at_space(text: str, limit: int, *, final: bool) -> int | None:
    """Return the end of the run that `limit` stops in, with the white space behind it."""
    run, cut = _run_end(text, limit)
    if cut:
        return run
    if run >= len(text):
        return len(text) if final else None
    space = _SPACE.match(text, run, run + RUN_LIMIT)
    end = run if space is None else space.end()
    if end < len(text) or end - run >= RUN_LIMIT:
        return end
    return len(text) if final else None


def _run_end(text: str, start: int) -> tuple[int, bool]:
    """Return the end of the run at `start`, and whether it was cut there."""
    end, cut = _run_within(text, start, start + RUN_LIMIT)
    # Only so long a run is worth counting.
    return _run_within(text, start, _counted(text, start, RUN_LIMIT)) if cut else (end, cut)


def _run_within(text: str, start: int, limit: int) -> tuple[int, bool]:
    """Return the same of a run that is cut at `limit`."""
    end = _stop(_RUN, text, start, limit)
    stop = None if text[start:end].isascii() else _FULL_STOP.search(text, start, end)
    # A sign at the end may not be the sentence's last one, or be none.
    if stop is not None and stop.end() < end:
        return stop.end(), False
    return end, end == limit


def _stop(expression: re.Pattern[str], text: str, start: int, limit: int) -> int:
    """Return where a match at `start` ends, `start` where there is none."""
    match = expression.match(text, start, limit)
    return start if match is None else match.end()


def _counted(text: str, start: int, count: int) -> int:
    """Return where `count` characters that show end, perhaps behind the end of the text.

    Those that do not show are passed over, up to `HIDDEN_LIMIT`. Where the answer lies in the
    text, it is the answer for each longer text.

    Args:
        text: the text so far.
        start: where counting begins, zero-based.
        count: a key of `_SHOWN`.
    """
    if _plain(text, start, start + count):
        return start + count
    limit = start + count + HIDDEN_LIMIT
    match = _SHOWN[count].match(text, start, limit)
    return limit if match is None else match.end()


def _plain(text: str, start: int, end: int) -> bool:
    """Return whether a piece is ASCII and all of it shows; quick, and true of most text."""
    piece = text[start:end]
    return piece.isascii() and len(piece.encode().translate(None, _CONTROLS)) == len(piece)


def _open_block(text: str, start: int, end: int) -> int | None:
    """Return where a block begins that `end` would cut, or `None`."""
    expression, piece = _sought(text, start, end)
    for match in expression.finditer(piece):
        if match.lastgroup is None:
            return start + match.start()
    return None


def _read(text: str, start: int, end: int) -> str:
    """Return what shows of a piece, with ASCII for what looks like it."""
    return _UNSEEN.sub("", folded(text[start:end]))


def _sought(text: str, start: int, end: int) -> tuple[re.Pattern[str], str]:
    """Return what finds blocks in a piece, and the piece as it is to be searched.

    Both are quicker where nothing in it is hidden or looks like what it is not.
    """
    expression = _BLOCK if _plain(text, start, end) else _SPACED_BLOCK
    return expression, folded(text[start:end])


def _after_block(text: str, block: int, *, final: bool) -> int | None:
    """Return the end of the block that begins at `block`."""
    limit = _counted(text, block, BLOCK_LIMIT)
    expression, piece = _sought(text, block, limit)
    match = expression.match(piece)
    if match is not None and match.lastgroup is not None:
        return block + match.end()
    if len(text) >= limit:
        return limit
    return len(text) if final else None
