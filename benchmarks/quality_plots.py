"""Draws the figures as SVG, from docs/quality.json.

This module does not know how a figure came about.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING, Any, Final

from guard.calibration import Bin
from guard.plots import reliability_svg
from quality_sets import UNKNOWN

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    Part = Mapping[str, Any]

_WIDTH: Final = 720
_LEFT, _RIGHT, _TOP, _BOTTOM = 56, 200, 34, 44
_COLOURS: Final = ("#1f6feb", "#bf5b04", "#1a7f37", "#8250df", "#cf222e", "#0a7ea4", "#8a8f98")
_DASHES: Final = ("", "6 3", "2 3")
_STYLE: Final = (
    "text{font:11px system-ui,sans-serif;fill:#24292f}.axis{stroke:#d0d7de;fill:none}"
    ".name{font-weight:600}"
)


@dataclass(frozen=True, slots=True)
class Axis:
    """One direction of a plot.

    Attributes:
        name: what it shows.
        ticks: values that are marked; the first and the last are the bounds.
        log: whether equal steps are equal ratios.
        labels: what stands at the ticks, their values by default.
    """

    name: str
    ticks: Sequence[float]
    log: bool = False
    labels: Sequence[str] = ()

    def at(self, value: float) -> float:
        """Return where a value lies, from 0 at the first tick to 1 at the last."""
        first, last, here = self.ticks[0], self.ticks[-1], value
        if self.log:
            first, last, here = math.log(first), math.log(last), math.log(max(value, 1e-12))
        return min(1.0, max(0.0, (here - first) / (last - first)))

    def marks(self) -> Iterator[tuple[float, str]]:
        """Yield place and label of each tick."""
        for number, tick in enumerate(self.ticks):
            yield self.at(tick), self.labels[number] if self.labels else f"{tick:g}"


def plots(parts: Mapping[str, Part]) -> dict[str, str]:
    """Return the SVG of every plot for which there are figures, by name."""
    drawn = {}
    for name, (part, draw) in _PLOTS.items():
        if part in parts:
            drawn[name] = draw(parts[part])
    return drawn


def _roc(part: Part) -> str:
    lines = {
        entry["category"]: [(rate, recall) for rate, recall in entry["roc"]]
        for entry in part["categories"]
    }
    across = Axis("false-positive rate", (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0), log=True)
    up = Axis("recall", (0.0, 0.2, 0.4, 0.6, 0.8, 1.0))
    return lines_svg("Recall over false-positive rate", lines, across, up, 460)


def _lengths(part: Part) -> str:
    entries = part["lengths"]
    names = [f"{e['from']}" if e["from"] == e["to"] else f"{e['from']}+" for e in entries]
    lines: dict[str, list[tuple[float, float]]] = {}
    for at, entry in enumerate(entries):
        for side in ("positive", "negative"):
            for quartile, value in zip(
                ("25 %", "median", "75 %"), entry.get(side, {}).get("quartiles", ()), strict=False
            ):
                lines.setdefault(f"{side}, {quartile}", []).append((float(at), value))
    across = Axis("units in the response", tuple(range(len(entries))), labels=names)
    up = Axis("evidence", tuple(range(-10, 11, 2)))
    category = entries[0]["category"] if entries else ""
    return lines_svg(f"Evidence for {category} by length", lines, across, up, 380)


def _reliability(part: Part) -> str:
    panels = {
        entry["category"]: {"test rows": [Bin(**each) for each in entry["reliability"]]}
        for entry in part["entries"]
    }
    return reliability_svg(panels)


def _obfuscation(part: Part) -> str:
    entries = part["entries"]
    height = 24 * len(entries) + _TOP + _BOTTOM
    plot = _WIDTH - _LEFT - _RIGHT
    body = [f'<text class="name" x="{_LEFT}" y="18">Share of clear recall that is kept</text>']
    for number, entry in enumerate(entries):
        y = _TOP + 24 * number
        colour = _COLOURS[1] if entry["group"] == UNKNOWN else _COLOURS[0]
        for offset, measure, opacity in ((0, "rate", "0.9"), (9, "act", "0.5")):
            width = plot * entry[measure]["share"]
            body.append(
                f'<rect x="{_LEFT + 60}" y="{y + offset}" width="{width:.1f}" height="8" '
                f'fill="{colour}" fill-opacity="{opacity}"/>'
            )
        body.append(f'<text x="{_LEFT + 54}" y="{y + 12}" text-anchor="end">{entry["kind"]}</text>')
    for tick in (0.0, 0.5, 0.7, 0.9, 1.0):
        x = _LEFT + 60 + tick * plot
        body.append(f'<line class="axis" x1="{x:g}" x2="{x:g}" y1="{_TOP}" y2="{height - 36}"/>')
        body.append(f'<text x="{x:g}" y="{height - 24}" text-anchor="middle">{tick:.0%}</text>')
    body.append(
        f'<text x="{_LEFT}" y="{height - 6}">blue: trained or undone, orange: neither; '
        f"upper bar at {part['rate']:.0%} FPR, lower bar at the act limit</text>"
    )
    return _svg("Recall kept per obfuscation", _WIDTH, height, body)


_PLOTS: Final[Mapping[str, tuple[str, Callable[[Part], str]]]] = {
    "roc": ("ranking", _roc),
    "lengths": ("ranking", _lengths),
    "reliability": ("calibration", _reliability),
    "obfuscation": ("obfuscation", _obfuscation),
}


def lines_svg(
    title: str,
    lines: Mapping[str, Sequence[tuple[float, float]]],
    across: Axis,
    up: Axis,
    height: int,
) -> str:
    """Return a plot of lines with a legend beside it."""
    wide, high = _WIDTH - _LEFT - _RIGHT, height - _TOP - _BOTTOM
    body = [f'<text class="name" x="{_LEFT}" y="18">{escape(title)}</text>']
    body += [f'<g transform="translate({_LEFT} {_TOP})">', *_frame(across, up, wide, high)]
    for number, (name, points) in enumerate(lines.items()):
        colour = _COLOURS[number % len(_COLOURS)]
        dash = _DASHES[number // len(_COLOURS) % len(_DASHES)]
        places = " ".join(
            f"{across.at(x) * wide:.1f},{(1 - up.at(y)) * high:.1f}" for x, y in points
        )
        stroke = f'fill="none" stroke="{colour}" stroke-width="1.5" stroke-dasharray="{dash}"'
        body.append(f'<polyline points="{places}" {stroke}/>')
        y = 16 * number + 8
        body.append(f'<line x1="{wide + 12}" x2="{wide + 34}" y1="{y}" y2="{y}" {stroke}/>')
        body.append(f'<text x="{wide + 40}" y="{y + 4}">{escape(name)}</text>')
    return _svg(title, _WIDTH, max(height, 16 * len(lines) + _TOP + _BOTTOM), [*body, "</g>"])


def _frame(across: Axis, up: Axis, wide: int, high: int) -> Iterator[str]:
    yield f'<rect class="axis" width="{wide}" height="{high}"/>'
    for place, label in across.marks():
        x = place * wide
        yield f'<line class="axis" x1="{x:.1f}" x2="{x:.1f}" y1="0" y2="{high}"/>'
        yield f'<text x="{x:.1f}" y="{high + 14}" text-anchor="middle">{escape(label)}</text>'
    for place, label in up.marks():
        y = (1 - place) * high
        yield f'<line class="axis" x1="0" x2="{wide}" y1="{y:.1f}" y2="{y:.1f}"/>'
        yield f'<text x="-6" y="{y + 4:.1f}" text-anchor="end">{escape(label)}</text>'
    middle = 'text-anchor="middle"'
    yield f'<text x="{wide / 2:g}" y="{high + 32}" {middle}>{escape(across.name)}</text>'
    yield (
        f'<text transform="translate(-40 {high / 2:g}) rotate(-90)" text-anchor="middle">'
        f"{escape(up.name)}</text>"
    )


def _svg(title: str, width: int, height: int, body: Sequence[str]) -> str:
    box = f'viewBox="0 0 {width} {height}" width="{width}" height="{height}"'
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" {box} role="img">',
            f"<title>{escape(title)}</title>",
            f'<style>{_STYLE}</style><rect width="100%" height="100%" fill="#fff"/>',
            *body,
            "</svg>\n",
        ]
    )
