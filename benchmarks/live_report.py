"""Puts a benchmark's tables into a page of docs, between the marks that carry its name."""

from __future__ import annotations

import json
import os
import platform
import time
from pathlib import Path
from typing import Any, Final

ROOT: Final = Path(__file__).parent.parent
PAGE: Final = ROOT / "docs" / "live.md"
REPLAY: Final = ROOT / "docs" / "live-replay.md"
"""The page about recorded answers of real models."""

FIGURES: Final = ROOT / "docs" / "live.json"


def publish(name: str, text: str, facts: dict[str, Any], place: Path | None = None) -> None:
    """Write `text` into a page, by default docs/live.md, and `facts` into the figures."""
    write(text, name, PAGE if place is None else place)
    figures = json.loads(FIGURES.read_text("utf-8")) if FIGURES.exists() else {}
    figures[name] = facts
    FIGURES.write_text(json.dumps(figures, indent=1, sort_keys=True) + "\n", "utf-8")


def write(text: str, name: str, place: Path) -> None:
    """Write `text` between the marks `name` of a page."""
    begin, end = f"<!-- {name}: begin -->", f"<!-- {name}: end -->"
    page = place.read_text("utf-8")
    if begin not in page or end not in page:
        raise ValueError(f"{place} has no marks `{begin}` and `{end}`: put them where it belongs")
    before, _, rest = page.partition(begin)
    _, _, behind = rest.partition(end)
    place.write_text(f"{before}{begin}\n{text.strip()}\n{end}{behind}", "utf-8")


def table(head: list[str], rows: list[list[str]]) -> str:
    """Return a Markdown table; the first column is text, the others are figures."""
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def stamp(script: str) -> str:
    """Return who wrote the tables, when and on what."""
    return (
        f"Written by `benchmarks/{script}` on {time.strftime('%Y-%m-%d', time.gmtime())} "
        f"(Python {platform.python_version()}, {os.cpu_count()} cores, {platform.machine()})."
    )
