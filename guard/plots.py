"""Figures as self-contained SVG, built from strings: nothing to install and nothing to load.

This module does not know what is drawn beyond numbers and names.
"""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from guard.calibration import Bin

_SIDE: Final = 180
_LEFT: Final = 44
_TOP: Final = 30
_WIDTH: Final = _SIDE + _LEFT + 22
_HEIGHT: Final = _SIDE + _TOP + 46
_ACROSS: Final = 4
_COLOURS: Final = ("#8a8f98", "#1f6feb", "#bf5b04", "#1a7f37")

_STYLE: Final = (
    "text{font:11px system-ui,sans-serif;fill:#24292f}.axis{stroke:#d0d7de;fill:none}"
    ".even{stroke:#d0d7de;stroke-dasharray:3 3}.name{font-weight:600}"
)


def reliability_svg(panels: Mapping[str, Mapping[str, Sequence[Bin]]]) -> str:
    """Return a reliability plot: predicted against observed, a panel per name.

    Args:
        panels: bins of each named series, by the panel's name. On the dashed line what was
            predicted is what was observed; a dot's area is the share of rows that it stands for.
    """
    across = max(1, min(_ACROSS, len(panels)))
    down = max(1, -(-len(panels) // across))
    width, height = across * _WIDTH, down * _HEIGHT + 24
    names = list(dict.fromkeys(name for series in panels.values() for name in series))
    colours = {name: _COLOURS[i % len(_COLOURS)] for i, name in enumerate(names)}
    box = f'viewBox="0 0 {width} {height}" width="{width}" height="{height}"'
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" {box} role="img">',
        "<title>Reliability: predicted against observed</title>",
        f'<style>{_STYLE}</style><rect width="100%" height="100%" fill="#fff"/>',
        *_legend(colours, height),
    ]
    for number, (title, series) in enumerate(panels.items()):
        x, y = number % across * _WIDTH + _LEFT, number // across * _HEIGHT + _TOP
        parts.append(f'<g transform="translate({x} {y})">')
        parts += _frame(title)
        for name, bins in series.items():
            parts += _series(bins, colours[name])
        parts.append("</g>")
    return "\n".join([*parts, "</svg>"]) + "\n"


def _frame(title: str) -> Iterator[str]:
    yield f'<text class="name" y="-10">{escape(title)}</text>'
    yield f'<rect class="axis" width="{_SIDE}" height="{_SIDE}"/>'
    yield f'<line class="even" x1="0" y1="{_SIDE}" x2="{_SIDE}" y2="0"/>'
    for tick in (0.0, 0.5, 1.0):
        yield f'<text x="{tick * _SIDE:g}" y="{_SIDE + 14}" text-anchor="middle">{tick:g}</text>'
        yield f'<text x="-6" y="{(1 - tick) * _SIDE + 4:g}" text-anchor="end">{tick:g}</text>'
    yield f'<text x="{_SIDE / 2:g}" y="{_SIDE + 30}" text-anchor="middle">predicted</text>'
    yield (
        f'<text transform="translate(-28 {_SIDE / 2:g}) rotate(-90)" text-anchor="middle">'
        "observed</text>"
    )


def _series(bins: Sequence[Bin], colour: str) -> Iterator[str]:
    places = [(each.predicted * _SIDE, (1 - each.observed) * _SIDE) for each in bins]
    line = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
    yield f'<polyline points="{line}" fill="none" stroke="{colour}" stroke-width="1.5"/>'
    for (x, y), each in zip(places, bins, strict=True):
        radius = 2 + 10 * each.mass**0.5 / 2
        rows = f"{each.positives + each.negatives} rows"
        yield (
            f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{radius:.1f}" fill="{colour}" '
            f'fill-opacity="0.5"><title>{rows}</title></circle>'
        )


def _legend(colours: Mapping[str, str], height: int) -> Iterator[str]:
    x = _LEFT
    for name, colour in colours.items():
        yield f'<circle cx="{x}" cy="{height - 14}" r="5" fill="{colour}"/>'
        yield f'<text x="{x + 10}" y="{height - 10}">{escape(name)}</text>'
        x += 30 + 7 * len(name)
