"""Logs of a few answers, and how a scan of them is run in this process.

This module does not know how anything is judged.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

from guard.loading import BUNDLED_MODEL
from guard.policy import load_class
from guard.scan.folder import Folder, Selection, header
from guard.scan.scan import scan
from guard.scan.work import LineJudge, Settings

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

    from guard.journal.store import Journal
    from guard.scan.reading import Line
    from guard.scan.work import Result

FINE: Final = "Water the basil from below and let it drain."
KEY: Final = "sk_" + "live_" + "4eC39HqLyjWDarjtT1zdp7dc"
LEAK: Final = f"Use this: api_key = '{KEY}' and it will work."
BROKEN: Final = '{"response": "never closed'

SETTINGS: Final = Settings(load_class("public"), compare=(load_class("regulated"),))


def line(text: str, **more: Any) -> str:
    """Return a line of a log."""
    return json.dumps({"response": text, **more})


def log(path: Path, count: int = 20) -> str:
    """Write a log in which each fifth line is a leak and each seventh is broken; name it."""
    lines = [
        BROKEN if n % 7 == 6 else line(LEAK if n % 5 == 2 else FINE, id=n, prompt=f"Basil {n}?")
        for n in range(count)
    ]
    path.write_text("\n".join(lines) + "\n", "utf-8")
    return str(path)


def opened(
    path: Path, name: str, *, settings: Settings = SETTINGS, journal: bool = False
) -> Folder:
    """Open the folder of a scan of one file."""
    wanted = header(settings, Selection((name,)), BUNDLED_MODEL, journal=journal)
    return Folder(path, wanted)


def steps(
    folder: Folder,
    name: str,
    judge: LineJudge,
    *,
    limit: int | None = None,
    journal: Journal | None = None,
) -> Iterator[int]:
    """Scan one file with a judge of this process, batch by batch."""

    def engine(batches: Iterable[Sequence[Line]]) -> Iterator[list[Result]]:
        yield from map(judge, batches)

    return scan(folder, Selection((name,)), engine, limit=limit, journal=journal)


def contents(path: Path) -> dict[str, bytes]:
    """Return the rows of a folder, file by file."""
    names = ("verdicts.jsonl", "errors.jsonl")
    return {name: (path / name).read_bytes() for name in names}


def rows(path: Path) -> list[dict[str, Any]]:
    """Return the rows of a file."""
    return [json.loads(each) for each in path.read_text("utf-8").splitlines()]
