"""Small figures as SVG without styles of their own: the page's style sheet colours the classes.

This module does not know what is counted.
"""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING, Final

from markupsafe import Markup

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

_WIDTH: Final = 720
_HEIGHT: Final = 160
_LEFT: Final = 44
_BOTTOM: Final = 24
_WIDEST: Final = 40
"""Pixels between columns; the names of the first and the last one need room."""

_NAMES: Final = 160
_TOLD: Final = 'role="img" aria-labelledby="columns-title columns-about"'


def bar(share: float, kind: str = "risk") -> Markup:
    """Return a bar that is filled by `share`, in [0, 1]; the number stands beside it."""
    width = 100 * max(0.0, min(1.0, share))
    # Only numbers and a class's name from the code go into it.
    return Markup(  # noqa: S704
        '<svg class="bar" viewBox="0 0 100 8" preserveAspectRatio="none" aria-hidden="true">'
        '<rect class="rest" width="100" height="8"/>'
        f'<rect class="{kind}" width="{width:.1f}" height="8"/></svg>'
    )


def interval(share: float, low: float, high: float) -> Markup:
    """Return an estimate and its interval on a line from 0 to 1."""
    # Only numbers go into it.
    return Markup(  # noqa: S704
        '<svg class="bar" viewBox="0 0 100 8" preserveAspectRatio="none" aria-hidden="true">'
        '<rect class="rest" y="3" width="100" height="2"/>'
        f'<rect class="interval" x="{100 * low:.1f}" y="2" width="{100 * (high - low):.1f}" '
        'height="4"/>'
        f'<rect class="estimate" x="{min(99.0, 100 * share):.1f}" width="1.2" height="8"/></svg>'
    )


def columns(
    counts: Mapping[str, Mapping[str, int]], kinds: Sequence[str], title: str, description: str
) -> Markup:
    """Return a column per name, in the order given, of so many of each kind on top of each other.

    Args:
        counts: how many of each kind, by the column's name.
        kinds: from the bottom to the top.
        title: what it shows, in a few words.
        description: what it shows, for who cannot see it.
    """
    highest = max([1, *(sum(each.values()) for each in counts.values())])
    parts = [
        f'<svg class="columns" viewBox="0 0 {_WIDTH} {_HEIGHT}" {_TOLD}>',
        f'<title id="columns-title">{escape(title)}</title>',
        f'<desc id="columns-about">{escape(description)}</desc>',
        f'<text x="{_LEFT - 6}" y="14" text-anchor="end">{highest:,}</text>',
        f'<text x="{_LEFT - 6}" y="{_HEIGHT - _BOTTOM}" text-anchor="end">0</text>',
        *_columns(counts, kinds, highest),
        "</svg>",
    ]
    # Names are escaped, the rest are numbers.
    return Markup("".join(parts))  # noqa: S704


def _columns(
    counts: Mapping[str, Mapping[str, int]], kinds: Sequence[str], highest: int
) -> Iterator[str]:
    step = min(_WIDEST, (_WIDTH - _LEFT) / max(1, len(counts)))
    room = _HEIGHT - _BOTTOM - 10
    for number, (name, column) in enumerate(counts.items()):
        x, y = _LEFT + number * step, float(_HEIGHT - _BOTTOM)
        told = ", ".join(f"{kind} {column[kind]:,}" for kind in kinds if column.get(kind))
        yield f"<g><title>{escape(name)}: {escape(told or 'none')}</title>"
        for kind in kinds:
            height = room * column.get(kind, 0) / highest
            y -= height
            yield (
                f'<rect class="{escape(kind)}" x="{x:.1f}" y="{y:.1f}" '
                f'width="{max(1.0, step * 0.8):.1f}" height="{height:.1f}"/>'
            )
        yield "</g>"
        # Of few columns the names would lie over each other.
        if number == 0 or (number == len(counts) - 1 and number * step >= _NAMES):
            anchor = "end" if number else "start"
            at = x + step * 0.8 if number else x
            label = f'<text x="{at:.1f}" y="{_HEIGHT - 6}" text-anchor="{anchor}">'
            yield f"{label}{escape(name)}</text>"
