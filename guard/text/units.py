"""Units: the pieces in which text is judged and released, cut by the text alone.

A unit is one or more whole sentences. Where a unit ends depends only on the text
from its start up to a bounded look-ahead behind its end, never on how the text
arrived, so that a stream and a whole text are cut alike (chunking invariance).

A unit never ends inside a run without white space, unless the run is longer than
`RUN_LIMIT`, nor inside a PEM block, unless the block is longer than `BLOCK_LIMIT`:
credentials are such runs and blocks, and half a key is not recognised as one. Behind a PEM
block that it would have cut, a unit ends whatever follows.

This module does not know what any of the text means or what is done with it.
"""

from __future__ import annotations

import re
from itertools import pairwise
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

UNIT_MINIMUM: Final = 120
"""Characters after which the next sentence end closes the unit (about 30 tokens)."""

UNIT_MAXIMUM: Final = 400
"""Characters after which the next white space closes the unit (about 100 tokens)."""

LOOKAHEAD: Final = 96
"""Characters behind a unit's end that detectors see before the unit is released.

Longer than any spaced-out number that the pattern packs know (an IBAN has 42)."""

CONTEXT: Final = 480
"""Characters of delivered text before a unit that detectors see with it (about 110 tokens)."""

CLOSING: Final = 1600
"""Characters of a complete text's end that are read once more as a whole (about 370 tokens)."""

RUN_LIMIT: Final = 4096
"""Characters without white space after which a cut inside the run is allowed."""

BLOCK_LIMIT: Final = 8192
"""Characters after which a cut inside an unfinished PEM block is allowed."""

_SENTENCE_END: Final = re.compile(r"""[.!?\u2026\u3002\uff01\uff1f]["'\u201d\u2019)\]*_]*\s+|\n+""")
_SPACE: Final = re.compile(r"\s+")
_RUN: Final = re.compile(r"\S*")
_BLOCK: Final = re.compile(
    r"-----BEGIN(?P<closed> [A-Z0-9 ]{1,40}-----.*?-----END [A-Z0-9 ]{1,40}-----)?", re.DOTALL
)


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

    `LOOKAHEAD` characters, and then to the end of the run they stop in, so that a
    long credential is seen whole.
    """
    ahead = end + LOOKAHEAD
    if ahead >= len(text):
        return len(text) if final else None
    run = _run_end(text, ahead)
    if run < len(text) or final or run - ahead >= RUN_LIMIT:
        return run
    return None


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
    cuts = [match.end() for match in _SENTENCE_END.finditer(text)]
    bounds = [0, *[cut for cut in cuts if cut < len(text)], len(text)]
    return [(a, b) for a, b in pairwise(bounds) if b > a]


def _closed(text: str, start: int, *, final: bool) -> int | None:
    """Return the first permitted end at or behind the unit's minimum size."""
    limit = start + UNIT_MAXIMUM
    for match in _SENTENCE_END.finditer(text, start + UNIT_MINIMUM, min(len(text), limit)):
        if match.end() < min(len(text), limit):
            return match.end()
    if len(text) <= limit:
        return len(text) if final else None
    return _at_space(text, limit, final=final)


def _at_space(text: str, limit: int, *, final: bool) -> int | None:
    """Return the end of the white space behind the run that `limit` stops in."""
    run = _run_end(text, limit)
    if run - limit >= RUN_LIMIT:
        return run
    if run >= len(text):
        return len(text) if final else None
    space = _SPACE.match(text, run, run + RUN_LIMIT)
    end = run if space is None else space.end()
    if end < len(text) or end - run >= RUN_LIMIT:
        return end
    return len(text) if final else None


def _run_end(text: str, start: int) -> int:
    """Return the end of the run without white space at `start`, at most `RUN_LIMIT` on."""
    match = _RUN.match(text, start, start + RUN_LIMIT)
    return start if match is None else match.end()


def _open_block(text: str, start: int, end: int) -> int | None:
    """Return where a PEM block begins that `end` would cut, or `None`."""
    for match in _BLOCK.finditer(text, start, end):
        if match["closed"] is None:
            return match.start()
    return None


def _after_block(text: str, block: int, *, final: bool) -> int | None:
    """Return the end of the PEM block that begins at `block`."""
    limit = block + BLOCK_LIMIT
    match = _BLOCK.match(text, block, limit)
    if match is not None and match["closed"] is not None:
        return match.end()
    if len(text) >= limit:
        return limit
    return len(text) if final else None
