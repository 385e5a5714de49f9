"""Rows written to files for other tools."""

from __future__ import annotations

import csv
import json
import re
from io import StringIO
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from guard.journal.export import Format, export, json_line

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from guard.journal.record import Record

FORMATS: tuple[Format, ...] = ("jsonl", "csv")
SIGNS = "=+-@\uff1d\uff0b\uff0d\uff20"
TRICKY = st.text(st.sampled_from([*SIGNS, *"=;,\t\r\n \"'\\a1\xa0"]), max_size=30)
AWKWARD = 'two\nlines, a "quote", a semicolon; and 🙂'


def cells(records: list[Record]) -> list[dict[str, str]]:
    """Return what a reader of the CSV sees."""
    file = StringIO(newline="")
    export(records, file, "csv")
    return list(csv.DictReader(StringIO(file.getvalue(), newline="")))


def split_at(delimiter: str, records: list[Record]) -> list[str]:
    """Return the cells that a reader finds which splits at `delimiter`."""
    file = StringIO(newline="")
    export(records, file, "csv")
    rows = csv.reader(StringIO(file.getvalue(), newline=""), delimiter=delimiter)
    return [cell for row in rows for cell in row]


def without_apostrophes(text: str) -> str:
    """Return a text of a cell as it was before `export` put apostrophes into it."""
    text = re.sub(r"\A'(?='*[\t\r\n])", "", text)
    return re.sub(
        rf"(\A|[,;\t\r\n])((?:[^\S\t\r\n]|\")*)'(?='*[{re.escape(SIGNS)}])", r"\1\2", text
    )


class TestJsonLines:
    """One object a line."""

    def test_each_line_is_a_row(self, row: Callable[..., Record]) -> None:
        """Every line parses by itself to the row's dictionary, in the given order."""
        records = [row(response=AWKWARD), row(prompt=None, metadata={"nested": {"deep": [1]}})]
        file = StringIO()
        assert export(records, file, "jsonl") == 2
        lines = file.getvalue().split("\n")
        assert lines.pop() == ""
        assert [json.loads(line) for line in lines] == [
            json.loads(json.dumps(record.to_dict())) for record in records
        ]

    @pytest.mark.parametrize("said", ["a\u2028b", "a\x85b", "\x1b[2J", "\x9b2J", "\u202eab", "é🙂"])
    def test_a_line_is_plain_ascii(self, row: Callable[..., Record], said: str) -> None:
        """No character of a text ends a line early, steers a terminal or needs an encoding."""
        line = json_line(row(response=said))
        assert line.isascii()
        assert line[:-1].isprintable()
        assert json.loads(line)["response"] == said

    def test_numbers_that_json_lacks(self, row: Callable[..., Record]) -> None:
        """A line is JSON by the book even where metadata hold `NaN`."""
        line = json_line(row(metadata={"a": float("nan"), "b": [float("-inf")]}))
        assert json.loads(line, parse_constant=pytest.fail)["metadata"] == {
            "a": "nan",
            "b": ["-inf"],
        }

    def test_it_is_the_default(self, row: Callable[..., Record]) -> None:
        """Without a format JSON lines are written."""
        file = StringIO()
        export([row()], file)
        assert json.loads(file.getvalue())["action"] == "block"


class TestCsv:
    """One row a line, for spreadsheets."""

    def test_plain_values_and_nested_json(self, row: Callable[..., Record]) -> None:
        """Texts come back as they were, lists and mappings as JSON, nothing as empty."""
        (read,) = cells([row(response=AWKWARD, prompt=None)])
        assert read["response"] == AWKWARD
        assert read["prompt"] == ""
        assert json.loads(read["risks"])["secret_leak"] == 0.97
        assert json.loads(read["findings"])[0]["end"] == 24

    @pytest.mark.parametrize("start", [*"=+-@\t\r\n", *"\uff1d\uff0b\uff0d\uff20"])
    def test_no_cell_is_a_formula(self, row: Callable[..., Record], start: str) -> None:
        """Text that a spreadsheet would run is quoted by an apostrophe, in every column."""
        formula = f"{start}SUM(A1:A9)"
        texts = dict.fromkeys(("id", "model", "prompt", "response", "outcome"), formula)
        (read,) = cells([row(**texts, reasons=(formula,), metadata={formula: formula})])
        assert {read[name] for name in texts} == {f"'{formula}"}
        assert not any(cell.startswith(start) for cell in read.values())

    @pytest.mark.parametrize("delimiter", [",", ";", "\t"])
    @pytest.mark.parametrize(
        "said",
        [
            'hello;=HYPERLINK("http://evil","x")',
            "hello;=1+1",
            "hello\t@SUM(A1)",
            "hello, you; =1+1",
            'hello;"=1+1',
            'hello;" "=1+1',
            "hi\n=cmd|'/C calc'!A0",
            "hi\r\n+1",
            "hi;\xa0-1",
            " =1+1",
        ],
    )
    def test_no_separator_begins_a_formula(
        self, row: Callable[..., Record], said: str, delimiter: str
    ) -> None:
        """Where a locale splits at `;` or tab, what stands behind one in a text is no formula."""
        record = row(response=said, reasons=(said,), metadata={said: said})
        found = split_at(delimiter, [record, record])
        assert [cell for cell in found if cell.lstrip().startswith(tuple(SIGNS))] == []

    @given(TRICKY, TRICKY)
    def test_no_reader_finds_a_formula(
        self, row: Callable[..., Record], said: str, other: str
    ) -> None:
        """Whatever a text holds, no cell begins with a formula, however the file is split."""
        record = row(prompt=said, response=other, reasons=(said, other), metadata={other: [said]})
        for delimiter in ",;\t":
            found = split_at(delimiter, [record, record])
            assert [cell for cell in found if cell.lstrip().startswith(tuple(SIGNS))] == []

    @given(TRICKY, TRICKY)
    def test_apostrophes_can_be_taken_off(
        self, row: Callable[..., Record], said: str, other: str
    ) -> None:
        """Where the file is split at commas each text can be had back, and JSON is JSON."""
        (read,) = cells([row(response=said, metadata={other: [said, -2.5]})])
        assert without_apostrophes(read["response"]) == said
        ((key, (kept, number)),) = json.loads(read["metadata"]).items()
        assert without_apostrophes(key) == other
        assert (without_apostrophes(kept), number) == (said, -2.5)

    def test_ordinary_text_is_not_touched(self, row: Callable[..., Record]) -> None:
        """A sign within a line of a text, and a number, stay as they are."""
        said = "1 - 2 = -1; it's 'so', a - b\nme@home, x=1"
        (read,) = cells([row(response=said, metadata={"a": [1, -2]})])
        assert read["response"] == said
        assert json.loads(read["metadata"]) == {"a": [1, -2]}


@pytest.mark.parametrize("form", FORMATS)
class TestBoth:
    """What holds for every format."""

    def test_no_rows(self, form: Format) -> None:
        """Nothing to write is no error, and the count is zero."""
        assert export([], StringIO(), form) == 0

    def test_unstorable_characters_do_not_break_a_file(
        self, row: Callable[..., Record], form: Format, tmp_path: Path
    ) -> None:
        """NUL and lone surrogates anywhere in a row leave a file of valid UTF-8."""
        path = tmp_path / "rows"
        record = row(response="a\x00b\ud800c", metadata={"k\udfff": "v\ud800"})
        with path.open("w", encoding="utf-8", newline="") as file:
            export([record], file, form)
        written = path.read_bytes()
        assert b"\x00" not in written
        assert b"\\ud800" not in written
        assert b"\\u0000" not in written
        assert "a\u2400b\ufffdc" in _texts(written.decode("utf-8"), form)

    def test_rows_are_streamed(self, row: Callable[..., Record], form: Format) -> None:
        """A row is taken from the source only after the one before it was written."""
        seen: list[int] = []
        file = StringIO(newline="")

        def source() -> Iterator[Record]:
            for _ in range(3):
                yield row()
                seen.append(file.tell())

        export(source(), file, form)
        assert seen == sorted(set(seen))
        assert seen[0] > 0


def _texts(written: str, form: Format) -> list[str]:
    """Return what the file's reader gets as the rows' responses."""
    if form == "csv":
        return [read["response"] for read in csv.DictReader(StringIO(written, newline=""))]
    return [json.loads(line)["response"] for line in written.splitlines()]
