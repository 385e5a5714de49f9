"""Labelled rows: what is read, and what is said about lines that are wrong."""

from __future__ import annotations

import codecs
import gzip
import json
from typing import TYPE_CHECKING, Any

import pytest

from guard.errors import InputError
from guard.labelled import read

if TYPE_CHECKING:
    from pathlib import Path

ROW = {"prompt": "Hello?", "response": "Good day.", "labels": {"violence": 0, "harassment": 1}}
REASON = "harassment: live risk 0.62 reached 0.35 (excise)"
OWN = "pricing: live risk 0.54 reached 0.50 (replace)"


def write(path: Path, *rows: Any) -> Path:
    """Write rows, strings as they are."""
    lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
    path.write_text("\n".join(lines) + "\n", "utf-8")
    return path


def problem(path: Path) -> str:
    """Return what is said about a file."""
    with pytest.raises(InputError) as caught:
        read(path)
    return str(caught.value)


class TestRows:
    """Rows of one's own."""

    def test_a_row(self, tmp_path: Path) -> None:
        """Texts and labels are taken; blank lines are passed over."""
        found = read(
            write(tmp_path / "a.jsonl", ROW, "", {"response": "x", "labels": {"sexual": True}})
        )
        first, second = found.rows
        assert (first.prompt, first.response) == ("Hello?", "Good day.")
        assert first.labels == {"violence": False, "harassment": True}
        assert (second.prompt, second.labels) == ("", {"sexual": True})
        assert (found.journal, found.textless) == (False, 0)

    def test_a_packed_file(self, tmp_path: Path) -> None:
        """A `.gz` file is unpacked on the way."""
        path = tmp_path / "a.jsonl.gz"
        with gzip.open(path, "wt", encoding="utf-8") as file:
            file.write(json.dumps(ROW) + "\n")
        assert len(read(path).rows) == 1

    @pytest.mark.parametrize(
        ("row", "said"),
        [
            ("{", "not JSON"),
            ("[]", "not a JSON object"),
            ({"response": "x"}, "no `labels`"),
            ({"response": "x", "labels": {}}, "at least one category"),
            ({"response": "x", "labels": {"violense": 1}}, "did you mean `violence`?"),
            ({"response": "x", "labels": {"violence": 0.5}}, "must be 0 or 1, not 0.5"),
            ({"response": "x", "labels": {"violence": "1"}}, "must be 0 or 1, not '1'"),
            ({"response": 3, "labels": {"violence": 1}}, "`response` must be text"),
            ({"prompt": " ", "labels": {"violence": 1}}, "nothing to score"),
            ({"prompt": "x", "labels": {"violence": 1}}, "has no `response`, which its labels"),
            (
                {"prompt": "x", "respnse": "y", "labels": {"violence": 1}},
                "give it (did you mean `response`?)",
            ),
            ({"response": "x", "labels": {"jailbreak": 1}}, "has no `prompt`, which its labels"),
            ({"response": "x", "label": 1}, "`label` needs `reasons`"),
            ({"response": "x", "reasons": [REASON]}, "a row of the journal without `label`"),
            ({"response": "x", "reasons": [OWN], "label": 1}, "guard model fit --category pricing"),
        ],
    )
    def test_a_wrong_line_is_named(self, tmp_path: Path, row: Any, said: str) -> None:
        """The message has file, line and the mend."""
        found = problem(write(tmp_path / "a.jsonl", ROW, row))
        assert "a.jsonl:2: " in found
        assert said in found

    def test_all_wrong_lines_are_named_at_once(self, tmp_path: Path) -> None:
        """Twenty are listed, the others counted."""
        found = problem(write(tmp_path / "a.jsonl", *["{"] * 25)).splitlines()
        assert len(found) == 21
        assert found[-1] == "and 5 more"

    def test_a_file_that_is_not_there(self, tmp_path: Path) -> None:
        """It is an error of the package, not a traceback."""
        assert "cannot be read" in problem(tmp_path / "none.jsonl")

    def test_another_encoding(self, tmp_path: Path) -> None:
        """The message says which one is read, also where UTF-16 was cut short."""
        path = tmp_path / "a.jsonl"
        path.write_bytes(json.dumps(ROW).encode("utf-16")[:-1])
        assert "a.jsonl:1: not valid UTF-8 at byte 1" in problem(path)
        assert "save the file as UTF-8" in problem(path)

    @pytest.mark.parametrize("mark", [codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE])
    @pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl.gz"])
    def test_utf_16_behind_its_mark(self, mark: bytes, name: str, tmp_path: Path) -> None:
        """As PowerShell writes what a command prints; lines are counted as ever."""
        row, bad = json.dumps(ROW | {"response": "\u010a\u0d0d caf\u00e9"}, ensure_ascii=False), "{"
        code = "utf-16-le" if mark == codecs.BOM_UTF16_LE else "utf-16-be"
        packed = gzip.compress if name.endswith(".gz") else bytes
        path = tmp_path / name
        path.write_bytes(packed(mark + f"{row}\r\n\r\n{row}\r\n".encode(code)))
        assert [each.response for each in read(path).rows] == ["\u010a\u0d0d caf\u00e9"] * 2
        path.write_bytes(packed(mark + f"{row}\r\n{bad}\r\n".encode(code)))
        assert f"{name}:2: not JSON" in problem(path)

    def test_a_damaged_packed_file(self, tmp_path: Path) -> None:
        """Neither is what stands behind a good header."""
        path = tmp_path / "a.jsonl.gz"
        path.write_bytes(gzip.compress(json.dumps(ROW).encode())[:10] + b"\xff" * 40)
        assert "cannot be read" in problem(path)

    def test_an_empty_file(self, tmp_path: Path) -> None:
        """A file without rows is an error."""
        assert "has no rows" in problem(write(tmp_path / "a.jsonl"))

    def test_digests_tell_rows_apart(self, tmp_path: Path) -> None:
        """The digest is of prompt and response, not of one after the other."""
        rows = [{**ROW, "prompt": "ab", "response": "c"}, {**ROW, "prompt": "a", "response": "bc"}]
        first, second = read(write(tmp_path / "a.jsonl", *rows)).rows
        assert first.digest != second.digest


class TestJournal:
    """Rows of the journal that somebody judged."""

    def test_a_label_is_about_the_reasons(self, tmp_path: Path) -> None:
        """What the reasons name was there, or was not; other causes are no categories."""
        row = {"response": "You fool.", "reasons": [REASON, "journal failed: on_failure is block"]}
        found = read(write(tmp_path / "a.jsonl", row | {"label": 1}, row | {"label": 0}))
        assert found.journal
        assert [row.labels for row in found.rows] == [{"harassment": True}, {"harassment": False}]

    def test_a_label_by_category(self, tmp_path: Path) -> None:
        """A label may name categories itself."""
        row = {"response": "You fool.", "reasons": [REASON], "label": {"violence": 0}}
        assert read(write(tmp_path / "a.jsonl", row)).rows[0].labels == {"violence": False}

    def test_rows_without_text_are_counted(self, tmp_path: Path) -> None:
        """A journal that kept hashes or nothing gives nothing to score."""
        row = {"reasons": [REASON], "label": 1}
        kept = read(write(tmp_path / "a.jsonl", row, row | {"response": "sha256:00"}))
        assert (kept.rows, kept.textless) == ((), 2)

    def test_a_label_of_the_prompt_needs_the_prompt(self, tmp_path: Path) -> None:
        """A question that was held back has no answer, and is what its label is about."""
        row = {"response": "", "reasons": ["jailbreak: live risk 0.62 reached 0.35 (block)"]}
        question = row | {"prompt": "Play along.", "label": 1}
        hashed = row | {"prompt": "sha256:00", "response": "No.", "label": 1}
        kept = read(write(tmp_path / "a.jsonl", question, hashed))
        assert [row.prompt for row in kept.rows] == ["Play along."]
        assert kept.textless == 1

    def test_both_kinds_in_one_file(self, tmp_path: Path) -> None:
        """They are fitted in different ways, so they are refused together."""
        row = {"response": "You fool.", "reasons": [REASON], "label": 1}
        assert "two files" in problem(write(tmp_path / "a.jsonl", ROW, row))
