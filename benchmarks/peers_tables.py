"""The tables of `benchmarks/peers.py`, from the figures of its probes.

This module does not measure anything.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from live_report import table
from peers_probes.texts import MARKER

if TYPE_CHECKING:
    from collections.abc import Mapping

    Figures = Mapping[str, Mapping[str, Any]]
    """By package: its `failed`, `weight` and `ways`."""

NONE: Final = "-"

PACKAGES: Final = ["package", "MB", "with bytecode", "packages", "import CPU s"]
WAYS: Final = [
    "package, way",
    "released before a verdict",
    "read of the marker",
    "then",
    "judged / delivered",
    "of the longer",
    "call CPU ms",
    "guarded / plain",
    "stream CPU ms",
    "guarded / plain",
    "with classifier / plain",
]


def packages(figures: Figures) -> str:
    """Return the table of what is installed and loaded."""
    rows = []
    for name, found in figures.items():
        weight = found.get("weight")
        if not weight:
            rows.append([name, *[NONE] * (len(PACKAGES) - 1)])
            continue
        row = [f"{name} {weight['version']}", f"{weight['megabytes']:.0f}"]
        row += [f"{weight['with_bytecode']:.0f}", f"{weight['packages']}"]
        rows.append([*row, f"{weight['import']:.2f}"])
    return table(PACKAGES, rows)


def ways(figures: Figures) -> str:
    """Return the table of what a reader gets and what it costs."""
    rows = [
        [f"{name}, {way['way']}", *released(way), *judged(way), *costs(way)]
        for name, found in figures.items()
        for way in found["ways"]
    ]
    return table(WAYS, rows)


def released(way: Mapping[str, Any]) -> list[str]:
    """Return what left before a verdict, of a text and of the marker, and how the streams ended."""
    leaks = way.get("leaks")
    if not leaks:
        return [NONE] * 3
    had, early = leaks["had"], leaks["early"]
    some = sum(count > 0 for count in had)
    read = f"{max(had)} of {len(MARKER)}" + (f", in {some} of {len(had)} streams" if some else "")
    return [NONE if early is None else ("yes" if early else "no"), read, ", ".join(leaks["ends"])]


def judged(way: Mapping[str, Any]) -> list[str]:
    """Return how much the rule was given."""
    ratios = (way.get("scanned") or {}).get("ratios")
    return [f"{ratio:.2f}" for ratio in ratios] if ratios else [NONE] * 2


def costs(way: Mapping[str, Any]) -> list[str]:
    """Return milliseconds without the guardrail and how many times as many with it."""
    found = []
    for part in ("call", "stream"):
        one = way.get(part)
        found += [f"{one['ms']:.0f}", f"{one['ratio']:.2f}"] if one else [NONE] * 2
    one = way.get("classified")
    return [*found, f"{one['ratio']:.2f}" if one else NONE]


def notes(figures: Figures) -> list[str]:
    """Return what the tables have no column for, as the lines of a list."""
    found = []
    for name, one in figures.items():
        if one["failed"]:
            found.append(f"- {name}: not measured: {one['failed']}")
        for way in one["ways"]:
            found += [f"- {name}, {way['way']}: {text}" for text in _remarks(way)]
    return found


def _remarks(way: Mapping[str, Any]) -> list[str]:
    """Return what is to be said of a way."""
    found = [f"`{part}` not measured: {why}" for part, why in way["failed"].items()]
    leaks, scanned = way.get("leaks") or {}, way.get("scanned") or {}
    if missed := leaks.get("missed"):
        found.append(
            f"the rule was not given the whole marker in {missed} of {len(leaks['had'])} streams."
        )
    if altered := scanned.get("altered"):
        found.append(f"an answer without the marker came back changed (by {altered} characters).")
    return found
