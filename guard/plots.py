"""Figures as self-contained SVG, built from strings: nothing to install and nothing to load.

This module does not know what is drawn beyond numbers and names.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from html import escape
from typing import TYPE_CHECKING, Final

from guard.percent import percent

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

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


# Forest plots: a line per figure, with its interval.

_ROW: Final = 26
_LABELS: Final = 250
_LETTER: Final = 7.2
"""Pixels that a letter of a label takes at most, on average."""

_PLOT: Final = 420
_FIGURES: Final = 170
_HEAD: Final = 34

_LIGHT: Final = (
    "{0} text{{font:12px system-ui,sans-serif;fill:#1f2328}}{0} .grid{{stroke:#d0d7de}}"
    "{0} .zero{{stroke:#57606a}}{0} .bar{{stroke:#0a53be;stroke-width:3}}{0} .dot{{fill:#0a53be}}"
    "{0} .mark{{stroke:#b3261e;stroke-width:2}}{0} .number{{fill:#b3261e;font-size:10px}}"
    "{0} .tick{{fill:#57606a;font-size:11px}}"
)
_DARK: Final = (
    "@media screen and (prefers-color-scheme:dark){{{0} text{{fill:#e6edf3}}"
    "{0} .grid{{stroke:#3a434e}}{0} .zero{{stroke:#9da7b3}}{0} .bar{{stroke:#7cb7ff}}"
    "{0} .dot{{fill:#7cb7ff}}{0} .mark{{stroke:#ff8a80}}{0} .number{{fill:#ff8a80}}"
    "{0} .tick{{fill:#9da7b3}}}}"
)


@dataclass(frozen=True, slots=True)
class Line:
    """One line of a forest plot.

    Attributes:
        label: what it is.
        value: the estimate.
        low: the interval's lower bound.
        high: its upper bound.
        marks: limits on the upper bound, each by a name of few characters.
    """

    label: str
    value: float
    low: float
    high: float
    marks: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Scale:
    """What a forest plot is drawn along.

    Attributes:
        low: its left end.
        high: its right end.
        ticks: where it is labelled.
        root: whether small values get more room, as a square root gives them; `low` must be 0.
    """

    low: float
    high: float
    ticks: tuple[float, ...]
    root: bool = False

    def at(self, value: float) -> float:
        """Return where a value lies, in pixels; what is beyond an end lies at the end."""
        share = (min(self.high, max(self.low, value)) - self.low) / (self.high - self.low)
        return float(share**0.5 if self.root else share) * _PLOT


RATES: Final = Scale(0.0, 1.0, (0.0, 0.01, 0.05, 0.1, 0.25, 0.5, 1.0), root=True)
"""From 0 to 1, with room for small rates."""

DIFFERENCES: Final = Scale(-1.0, 1.0, (-1.0, -0.5, 0.0, 0.5, 1.0))
"""From -1 to 1."""


def forest_svg(
    lines: Sequence[Line], *, name: str, title: str, description: str, scale: Scale = RATES
) -> str:
    """Return a forest plot: each figure's estimate and interval, a line each.

    It may stand alone or in a page, light or dark, and says in words what it shows.

    Args:
        lines: from top to bottom.
        name: unique in the page; letters, digits and `-`.
        title: what it shows, in a few words.
        description: what it shows, for who cannot see it.
        scale: what it is drawn along.
    """
    left = _room(_LABELS, (line.label for line in lines))
    width = left + _PLOT + _room(_FIGURES, map(_figures, lines))
    height = _HEAD + _ROW * len(lines) + 30
    box = f'id="{name}" viewBox="0 0 {width} {height}" width="100%"'
    label = f'role="img" aria-labelledby="{name}-title {name}-desc"'
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" {box} {label}>',
        f'<title id="{name}-title">{escape(title)}</title>',
        f'<desc id="{name}-desc">{escape(description)}</desc>',
        f"<style>{_LIGHT.format(f'#{name}')}{_DARK.format(f'#{name}')}</style>",
        *_ticks(scale, left, height),
    ]
    for number, line in enumerate(lines):
        y = _HEAD + _ROW * number + _ROW / 2
        parts.append(f'<g transform="translate({left} {y:g})">')
        parts += _line(line, scale)
        parts.append("</g>")
    return "\n".join([*parts, "</svg>"]) + "\n"


def _room(least: int, texts: Iterable[str]) -> int:
    """Return the pixels that the widest of some texts takes, with its margins."""
    return max([least, *(28 + round(_LETTER * len(text)) for text in texts)])


def _figures(line: Line) -> str:
    return f"{percent(line.value)} [{percent(line.low)}, {percent(line.high)}]"


def _ticks(scale: Scale, left: int, height: int) -> Iterator[str]:
    for tick in scale.ticks:
        x = left + scale.at(tick)
        kind = "zero" if tick == 0 else "grid"
        yield f'<line class="{kind}" x1="{x:.1f}" y1="{_HEAD}" x2="{x:.1f}" y2="{height - 24}"/>'
        yield (
            f'<text class="tick" x="{x:.1f}" y="{height - 8}" text-anchor="middle">'
            f"{tick * 100:g} %</text>"
        )


def _line(line: Line, scale: Scale) -> Iterator[str]:
    yield f'<text x="-12" y="4" text-anchor="end">{escape(line.label)}</text>'
    yield (
        f'<line class="bar" x1="{scale.at(line.low):.1f}" y1="0" '
        f'x2="{scale.at(line.high):.1f}" y2="0"/>'
    )
    yield f'<circle class="dot" cx="{scale.at(line.value):.1f}" cy="0" r="5"/>'
    for limit in sorted(set(line.marks.values())):
        x = scale.at(limit)
        mark = ", ".join(name for name, own in line.marks.items() if own == limit)
        yield f'<line class="mark" x1="{x:.1f}" y1="-7" x2="{x:.1f}" y2="7"/>'
        yield f'<text class="number" x="{x + 3:.1f}" y="-5">{escape(mark)}</text>'
    yield f'<text x="{_PLOT + 14}" y="4">{_figures(line)}</text>'


# Histograms.

_BAR: Final = 34
_BARS: Final = 120

_BAR_LIGHT: Final = (
    "{0} text{{font:11px system-ui,sans-serif;fill:#1f2328}}{0} .bar{{fill:#0a53be}}"
    "{0} .axis{{stroke:#d0d7de}}"
)
_BAR_DARK: Final = (
    "@media screen and (prefers-color-scheme:dark){{{0} text{{fill:#e6edf3}}"
    "{0} .bar{{fill:#7cb7ff}}{0} .axis{{stroke:#3a434e}}}}"
)


def histogram_svg(counts: Sequence[int], *, name: str, title: str) -> str:
    """Return a histogram over [0, 1] in equal bins; heights grow with the logarithm of a count.

    Args:
        counts: of each bin, from the left.
        name: unique in the page; letters, digits and `-`.
        title: what it shows, in a few words.
    """
    width, height = _BAR * len(counts) + 20, _BARS + 46
    box = f'id="{name}" viewBox="0 0 {width} {height}" width="{width}" height="{height}"'
    label = f'role="img" aria-labelledby="{name}-title {name}-desc"'
    said = ", ".join(map(str, counts))
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" {box} {label}>',
        f'<title id="{name}-title">{escape(title)}</title>',
        f'<desc id="{name}-desc">From the left, {len(counts)} bins over 0 to 1: {said}</desc>',
        f"<style>{_BAR_LIGHT.format(f'#{name}')}{_BAR_DARK.format(f'#{name}')}</style>",
        *_columns(counts),
        f'<line class="axis" x1="10" x2="{width - 10}" y1="{_BARS + 20}" y2="{_BARS + 20}"/>',
        f'<text x="10" y="{height - 8}">0</text>',
        f'<text x="{width - 10}" y="{height - 8}" text-anchor="end">1</text>',
    ]
    return "\n".join([*parts, "</svg>"]) + "\n"


def _columns(counts: Sequence[int]) -> Iterator[str]:
    tallest = math.log1p(max(counts, default=0)) or 1.0
    for place, count in enumerate(counts):
        height = math.log1p(count) / tallest * _BARS
        x, y = 10 + _BAR * place, _BARS + 20 - height
        yield (
            f'<rect class="bar" x="{x + 2}" y="{y:.1f}" width="{_BAR - 4}" height="{height:.1f}"/>'
        )
        yield f'<text x="{x + _BAR / 2:g}" y="{y - 4:.1f}" text-anchor="middle">{count}</text>'
