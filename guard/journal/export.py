"""Writes journal rows to a file for other tools: JSON lines or CSV.

Nothing that a response says can act on whoever opens the file: no cell of a CSV is a
formula, and no character is left that a database or a JSON reader would refuse.

This module does not know the database.
"""

from __future__ import annotations

import csv
import json
from dataclasses import fields
from typing import TYPE_CHECKING, Any, Final, Literal, TextIO

from guard.journal.record import Record

if TYPE_CHECKING:
    from collections.abc import Iterable

Format = Literal["jsonl", "csv"]
"""`jsonl`: one object a line, exact. `csv`: for spreadsheets; nested values as JSON."""

# With these a spreadsheet takes a cell for a formula, the full-width ones in Japanese settings.
_FORMULA: Final = ("=", "+", "-", "@", "\t", "\r", "\n", "\uff1d", "\uff0b", "\uff0d", "\uff20")


def export(records: Iterable[Record], file: TextIO, form: Format = "jsonl") -> int:
    """Write `records` to `file`, one after the other as they come; return how many."""
    return _write_csv(records, file) if form == "csv" else _write_jsonl(records, file)


def json_line(record: Record) -> str:
    """Return `record` as one line of JSON.

    ASCII only: it reads the same in every encoding, no reader takes a character in it for
    the end of the line, and no terminal takes one for a command.
    """
    return json.dumps(record.to_dict(), allow_nan=False) + "\n"


def _write_jsonl(records: Iterable[Record], file: TextIO) -> int:
    count = 0
    for record in records:
        file.write(json_line(record))
        count += 1
    return count


def _write_csv(records: Iterable[Record], file: TextIO) -> int:
    writer = csv.DictWriter(file, [field.name for field in fields(Record)])
    writer.writeheader()
    count = 0
    for record in records:
        writer.writerow({name: _cell(value) for name, value in record.to_dict().items()})
        count += 1
    return count


def _cell(value: Any) -> Any:
    if isinstance(value, dict | list):
        return json.dumps(value)
    if isinstance(value, str) and value.startswith(_FORMULA):
        return "'" + value
    return value
