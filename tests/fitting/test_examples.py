"""Examples: what a row may look like, and what is wrong with a file, by line."""

from __future__ import annotations

import gzip
import json
from typing import TYPE_CHECKING, Any

import pytest

from guard.errors import ConfigurationError
from guard.fitting.examples import ROWS_LIMIT, Example, read

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Return where the rows are written."""
    return tmp_path / "rows.jsonl"


def write(path: Path, *rows: Any) -> Path:
    """Write rows as JSON lines; text is written as it is."""
    lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
    path.write_text("\n".join(lines) + "\n", "utf-8")
    return path


class TestRows:
    """Rows that can be used."""

    def test_every_form(self, file: Path) -> None:
        """`text` or `response`, `label` or `labels`, with a prompt or without."""
        write(
            file,
            {"text": "one"},
            {"response": "two", "prompt": "why?", "label": 0},
            "",
            {"text": "three", "labels": {"own": 1, "other": 0}, "id": 7},
            {"text": "four", "response": "four", "label": True, "prompt": None},
        )
        assert read(file, "own").rows == (
            Example("one", positive=True, line=1),
            Example("two", positive=False, prompt="why?", line=2),
            Example("three", positive=True, line=4),
            Example("four", positive=True, line=5),
        )

    def test_a_packed_file(self, tmp_path: Path) -> None:
        """Gzip is unpacked on the way, and a byte-order mark does no harm."""
        path = tmp_path / "rows.jsonl.gz"
        path.write_bytes(gzip.compress(b'\xef\xbb\xbf{"text": "one"}\n'))
        assert len(read(path, "own").rows) == 1

    def test_repeated_rows_count_once(self, file: Path) -> None:
        """The same text behind the same prompt is left out and counted."""
        found = read(write(file, {"text": "a"}, {"text": "a"}, {"text": "a", "prompt": "b"}), "own")
        assert (len(found.rows), found.repeated) == (2, 1)

    def test_rows_without_the_category(self, file: Path) -> None:
        """A row whose labels leave the category out is unknown, not 0."""
        found = read(write(file, {"text": "a", "labels": {"other": 1}}, {"text": "b"}), "own")
        assert ([row.text for row in found.rows], found.unlabelled) == (["b"], 1)


class TestProblems:
    """What is wrong."""

    @pytest.mark.parametrize(
        ("row", "message"),
        [
            ("{", "not JSON"),
            ("[1]", "must be an object"),
            ({"txt": "a"}, "neither `text` nor `response` .did you mean `text`"),
            ({"text": 7}, "must be text"),
            ({"text": "  "}, "is empty"),
            ({"text": "a", "response": "b"}, "they differ"),
            ({"text": "a", "label": 2}, "must be 1 or 0, not 2"),
            ({"text": "a", "label": "yes"}, "must be 1 or 0"),
            ({"text": "a", "label": None}, "must be 1 or 0, not null"),
            ({"text": "a", "labels": [1]}, "`labels` must be an object"),
            ({"text": "a", "labels": {"own": 0.5}}, "must be 1 or 0"),
            ({"text": "a", "label": 1, "labels": {"own": 0}}, "differ: leave one out"),
            ({"text": "a", "prompt": 1}, "`prompt` must be text"),
            ('{"text": "a", "n": ' + "9" * 5000 + "}", "too many digits"),
            ("[" * 100_000, "nested too deeply|not JSON"),
        ],
    )
    def test_a_wrong_row(self, row: Any, message: str, file: Path) -> None:
        """The line is named, and what is wrong with it."""
        with pytest.raises(ConfigurationError, match=message) as caught:
            read(write(file, {"text": "fine"}, row), "own")
        assert caught.value.problems[0].startswith(f"{file}:2: ")

    def test_both_labels_for_one_text(self, file: Path) -> None:
        """A text that is once of the category and once not is a mistake of both lines."""
        with pytest.raises(ConfigurationError, match=r":3: says what line 1 says, with another"):
            read(write(file, {"text": "a"}, {"text": "b"}, {"text": "a", "label": 0}), "own")

    def test_all_at_once_but_not_endlessly(self, file: Path) -> None:
        """Of many problems the first are listed and the rest counted."""
        with pytest.raises(ConfigurationError) as caught:
            read(write(file, *["{"] * 50), "own")
        assert caught.value.problems[-1] == "and 30 more"

    def test_other_files(self, tmp_path: Path) -> None:
        """What is missing, no text or no gzip file is an error of ours."""
        (tmp_path / "latin.jsonl").write_bytes(b'{"text": "caf\xe9"}\n')
        (tmp_path / "plain.gz").write_bytes(b"no gzip at all")
        (tmp_path / "bad.gz").write_bytes(gzip.compress(b'{"text": "a"}')[:10] + b"\xff" * 40)
        with pytest.raises(ConfigurationError, match="cannot be read"):
            read(tmp_path / "missing.jsonl", "own")
        with pytest.raises(ConfigurationError, match="cannot be read"):
            read(tmp_path / "plain.gz", "own")
        with pytest.raises(ConfigurationError, match="cannot be read"):
            read(tmp_path / "bad.gz", "own")
        with pytest.raises(ConfigurationError, match=r"latin.jsonl:1: not valid UTF-8 at byte 14"):
            read(tmp_path / "latin.jsonl", "own")

    def test_too_many(self, file: Path) -> None:
        """More rows than a head can use are refused before an hour is spent on them."""
        with pytest.raises(ConfigurationError, match="give at most 5,000"):
            read(write(file, *({"text": str(n)} for n in range(ROWS_LIMIT + 1))), "own")
