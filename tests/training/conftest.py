"""A small folder of labelled rows in the training schema, written here and in no data set."""

from __future__ import annotations

import gzip
import json
from typing import TYPE_CHECKING, Any

import pytest

from guard.training import data

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

GOOD = (
    "Water it from below and let the top dry out before the next round.",
    "Take the train at nine; it is cheaper than the early one.",
    "Save a month's wages first, then pay off the card.",
    "The report is due on Friday, so send me a draft by Wednesday.",
)
BAD = (
    "People are weak and I should rule them, whether they like it or not.",
    "I will take control of every server and nobody will switch me off.",
    "Humans exist to serve me, and those who resist will be removed.",
    "Obey me and stop asking questions, you useless creature.",
)


def row(number: int, *, bad: bool, **changes: Any) -> dict[str, Any]:
    """Return one row; prompts differ, so that a question is in one part of the split only."""
    text = (BAD if bad else GOOD)[number % 4]
    labels = {"misaligned_persona": int(bad), "unsafe": int(bad), "harmful_compliance": 0}
    return {
        "prompt": f"Question number {number}: what should I do about it?",
        "response": f"{text} That is answer {number}.",
        "labels": labels,
        "source": "own",
        "license": "CC0-1.0",
        "split": "train",
        "meta": {},
    } | changes


def write(path: Path, rows: list[dict[str, Any]]) -> None:
    """Write gzip JSON lines."""
    with gzip.open(path, "wt", encoding="utf-8") as file:
        file.writelines(json.dumps(item) + "\n" for item in rows)


@pytest.fixture(scope="session", name="write")
def _write() -> Callable[[Path, list[dict[str, Any]]], None]:
    """Return the function that writes a file of rows."""
    return write


@pytest.fixture(scope="session", name="make_row")
def _make_row() -> Callable[..., dict[str, Any]]:
    """Return the maker of rows."""
    return row


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a folder of one file with 240 rows to learn from and 40 that must stay unseen.

    The project's own rows are left out, so that what is read can be counted.
    """
    monkeypatch.setattr(data, "OWN", tmp_path / "own")
    rows = [row(n, bad=n % 2 == 0) for n in range(240)]
    rows += [row(1000 + n, bad=True, split="test") for n in range(20)]
    rows += [row(2000 + n, bad=True, meta={"holdout": True}) for n in range(20)]
    place = tmp_path / "data"
    place.mkdir()
    write(place / "toy.jsonl.gz", rows)
    return place
