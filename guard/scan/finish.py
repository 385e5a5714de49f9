"""The end of a scan: summary and report, made of what is in its folder.

This module does not know how lines were judged.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from itertools import islice
from typing import TYPE_CHECKING, Any, Final

from guard.scan.folder import best_examples, read_header, rows_of
from guard.scan.report import page
from guard.scan.tally import tally

if TYPE_CHECKING:
    from guard.scan.folder import Folder

_ERRORS: Final = 20
"""Lines that could not be judged which a report names."""


@dataclass(frozen=True, slots=True)
class Speed:
    """How fast the last run was.

    Attributes:
        engine: what judged.
        workers: processes or actors.
        exchanges: lines that it judged, bad ones included.
        seconds: that it took.
    """

    engine: str
    workers: int
    exchanges: int
    seconds: float

    @property
    def rate(self) -> float:
        """Lines per second, 0 where none was judged."""
        return self.exchanges / self.seconds if self.exchanges and self.seconds else 0.0


def finish(folder: Folder, speed: Speed) -> dict[str, Any]:
    """Write `summary.json` and `report.html`; return the summary.

    Raises:
        ScanError: they cannot be written.
    """
    there = read_header(folder.path)
    summary = {
        "class": there["class"]["name"],
        "class_digest": there["class"]["digest"],
        **{key: there[key] for key in ("version", "model", "files", "sample")},
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
        **tally(folder.rows()).summary(),
        "speed": asdict(speed) | {"rate": round(speed.rate, 3)},
    }
    errors = islice(rows_of(folder.path / "errors.jsonl"), _ERRORS)
    examples = best_examples(folder.path / "examples.jsonl")
    folder.write("summary.json", json.dumps(summary, indent=2) + "\n")
    folder.write("report.html", page(summary, examples, errors))
    return summary
