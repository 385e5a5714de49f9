"""Puts a benchmark's tables into docs/live.md, between the marks that carry its name."""

from __future__ import annotations

import json
import os
import platform
import time
from pathlib import Path
from typing import Any, Final

ROOT: Final = Path(__file__).parent.parent
PAGE: Final = ROOT / "docs" / "live.md"
FIGURES: Final = ROOT / "docs" / "live.json"


def publish(name: str, text: str, facts: dict[str, Any]) -> None:
    """Write `text` into the page and `facts` into the figures."""
    begin, end = f"<!-- {name}: begin -->", f"<!-- {name}: end -->"
    page = PAGE.read_text("utf-8")
    if begin not in page or end not in page:
        raise ValueError(f"{PAGE} has no marks `{begin}` and `{end}`: put them where it belongs")
    before, _, rest = page.partition(begin)
    _, _, behind = rest.partition(end)
    PAGE.write_text(f"{before}{begin}\n{text.strip()}\n{end}{behind}", "utf-8")
    figures = json.loads(FIGURES.read_text("utf-8")) if FIGURES.exists() else {}
    figures[name] = facts
    FIGURES.write_text(json.dumps(figures, indent=1, sort_keys=True) + "\n", "utf-8")


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
