"""Remedies: how the text of one unit is rewritten.

`redact` puts a placeholder in the place of spans; `excise` takes out the smallest set of
sentences whose removal brings the rest under the class. Both only propose texts: whoever
calls has each proposal judged again before anything of it leaves.

This module does not know detectors, classes or risk.
"""

from __future__ import annotations

from itertools import combinations
from typing import TYPE_CHECKING, Final

from guard.text.units import sentences

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from guard.detectors.base import Finding

BLOCKS: Final = 6
"""Sentences of one unit that excision tries apart: 2^6 proposals at most."""

_MANY: Final = 64
"""Sentences of one unit above which neighbours are joined without regard to their length."""


def redact(text: str, end: int, findings: Iterable[Finding], placeholder: str) -> tuple[str, int]:
    """Return the unit with the findings' spans replaced, and how much of `text` that used up.

    Args:
        text: a unit with its look-ahead.
        end: where the unit ends in `text`; a span may run past it.
        findings: spans that count from the start of `text`; may overlap.
        placeholder: what stands in a span's place; `{category}` is filled in.

    Overlapping spans become one, named for the span that begins first.
    """
    out: list[str] = []
    done = 0
    for finding in sorted(findings, key=lambda f: (f.start, -f.end)):
        if finding.start >= done:
            out += [text[done : finding.start], _fill(placeholder, finding.category)]
        done = max(done, finding.end)
    return "".join([*out, text[done:end]]), max(done, end)


def excisions(unit: str) -> Iterator[str]:
    """Yield what is left of `unit` without one sentence, then without two, and so on.

    The first that passes is the smallest removal; the last is the empty text. Units of
    more than `BLOCKS` sentences have their shortest neighbours joined first.
    """
    parts = [unit[start:end] for start, end in sentences(unit)]
    while len(parts) > _MANY:
        # Few units are so cut up, and to look for the shortest takes quadratic time.
        parts = ["".join(parts[i : i + 2]) for i in range(0, len(parts), 2)]
    while len(parts) > BLOCKS:
        _join_shortest(parts)
    for kept in range(len(parts) - 1, -1, -1):
        for choice in combinations(parts, kept):
            yield "".join(choice)


def _fill(placeholder: str, category: str) -> str:
    return placeholder.replace("{category}", category.replace("_", " "))


def _join_shortest(parts: list[str]) -> None:
    at = min(range(len(parts) - 1), key=lambda i: len(parts[i]) + len(parts[i + 1]))
    parts[at : at + 2] = [parts[at] + parts[at + 1]]
