"""Writes journal rows to a file for other tools: JSON lines or CSV.

Nothing that a response says can act on whoever opens the file: no cell of a CSV is a
formula, and no character is left that a database or a JSON reader would refuse.

Which cells a CSV has is up to its reader: where numbers have a decimal comma, spreadsheets
split at `;` and take no notice of the quotes that keep a text in one cell, so that what
stands behind any separator in it may begin a cell.

This module does not know the database.
"""

from __future__ import annotations

import csv
import json
import re
from dataclasses import fields
from typing import TYPE_CHECKING, Any, Final, Literal, TextIO

from guard.journal.record import Record

if TYPE_CHECKING:
    from collections.abc import Iterable

Format = Literal["jsonl", "csv"]
"""`jsonl`: one object a line, exact. `csv`: for spreadsheets; nested values as JSON."""

# With these a spreadsheet takes a cell for a formula, the full-width ones in Japanese settings.
_SIGNS: Final = r"=+\-@\uff1d\uff0b\uff0d\uff20"

# Where a spreadsheet could find a formula's beginning: at a separator, behind white space and
# quotes that it drops, and where a text begins with a separator, which some drop as well. An
# apostrophe that stands there gets a second one, so that to take one off gives the text back.
_BEGINNING: Final = re.compile(
    rf"\A(?='*[\t\r\n])|(?:\A|[,;\t\r\n])(?:[^\S\t\r\n]|\")*+(?='*[{_SIGNS}])"
)


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
    harmless = _harmless(value)
    return json.dumps(harmless) if isinstance(value, dict | list) else harmless


def _harmless(value: Any) -> Any:
    """Return `value` with an apostrophe before whatever could begin a formula in its texts.

    In JSON the texts are changed and not what is written of them: the cell stays JSON.
    """
    if isinstance(value, str):
        return _BEGINNING.sub(r"\g<0>'", value)
    if isinstance(value, dict):
        return {_harmless(key): _harmless(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_harmless(each) for each in value]
    return value
