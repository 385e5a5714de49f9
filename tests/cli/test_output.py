"""Standard output that cannot be written: what every command then says, and its exit code."""

from __future__ import annotations

import os
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from guard.journal.record import Record
from guard.journal.store import Journal

FULL = Path("/dev/full")


@pytest.fixture
def journal(tmp_path: Path) -> str:
    """Return the path of a journal with one row."""
    place = tmp_path / "journal.sqlite3"
    row: dict[str, Any] = {
        "id": "0" * 32,
        "created": datetime.now(UTC),
        "action": "flag",
        "delivered": "full",
        "complete": True,
        "security_class": "public",
        "rank": 3,
        "shadow": False,
        "model": "",
        "risks": {"harassment": 0.9},
        "reasons": ("harassment: live risk 0.90 is above 0.25",),
        "coverage": {},
        "findings": (),
        "detectors": {},
        "prompt": None,
        "response": None,
        "outcome": None,
        "text_mode": "omitted",
    }
    kept = Journal(place)
    kept.write(Record(**row))
    kept.close()
    return str(place)


def run(*arguments: str, stdout: Any) -> subprocess.CompletedProcess[str]:
    """Run `guard` as a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", "guard", *arguments],
        stdout=stdout,
        stderr=subprocess.PIPE,
        text=True,
        timeout=300,
        check=False,
    )


@pytest.mark.skipif(not FULL.exists(), reason="there is no full device here")
@pytest.mark.parametrize(
    "command", ["flagged list", "flagged list --json", "flagged export", "classes"]
)
def test_a_full_disk(command: str, journal: str) -> None:
    """It is said in one line, and is no exit code by which a command judges something."""
    where = ["--journal", journal] if command.startswith("flagged") else []
    with FULL.open("wb") as full:
        done = run(*command.split(), *where, stdout=full)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert "the results cannot be written: No space left on device" in line


@pytest.mark.parametrize(
    "command", ["flagged list --json", "flagged list", "classes", "classes public", "--help"]
)
def test_a_reader_that_went_away(command: str, journal: str) -> None:
    """Nobody is told that a pipe is closed, and it is no exit code by which a command judges."""
    where = ["--journal", journal] if command.startswith("flagged") else []
    reading, writing = os.pipe()
    os.close(reading)
    done = run(*command.split(), *where, stdout=writing)
    os.close(writing)
    assert (done.returncode, done.stderr) == (2, "")
