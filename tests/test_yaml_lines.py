"""YAML as it is read here: plain values, the line of each, and every problem at once."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from guard import yaml_lines
from guard.yaml_lines import SIZE_LIMIT, Document

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    Read = Callable[[str | bytes], Document]


@pytest.fixture(scope="module")
def read(tmp_path_factory: pytest.TempPathFactory) -> Read:
    """Return a function that reads a text, or bytes, as a file."""
    path = tmp_path_factory.mktemp("yaml") / "file.yaml"

    def read_text(content: str | bytes) -> Document:
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return yaml_lines.read(path)

    return read_text


class TestValues:
    """Words mean what they look like."""

    @pytest.mark.parametrize(
        ("text", "value"),
        [
            ("true", True),
            ("False", False),
            ("null", None),
            ("~", None),
            ("", None),
            ("0", 0),
            ("-7", -7),
            ("+12", 12),
            ("0.25", 0.25),
            (".5", 0.5),
            ("3.", 3.0),
            ("1e-3", 0.001),
            ("2.5E2", 250.0),
            ("-.inf", -math.inf),
            ("'0.3'", "0.3"),
            ('"true"', "true"),
            ("|\n  two\n  lines\n", "two\nlines\n"),
        ],
    )
    def test_plain_values(self, read: Read, text: str, value: Any) -> None:
        """Numbers, booleans, null and text are told apart as in YAML 1.2."""
        document = read(f"key: {text}")
        assert document.problems == []
        assert document.value == {"key": value}
        assert type(document.value["key"]) is type(value)

    def test_not_a_number_is_read_as_such(self, read: Read) -> None:
        """`.nan` is a float, so that whoever checks numbers can refuse it."""
        assert math.isnan(read("key: .nan").value["key"])

    @pytest.mark.parametrize(
        "word",
        [
            "no",
            "yes",
            "on",
            "off",
            "y",
            "N",
            "1:30",
            "190:20:30",
            "010",
            "0x1F",
            "0b11",
            "1_000",
            "2001-01-01",
            "2001-99-99",
            "=",
            "<<",
            "nan",
            "inf",
            "1e",
            ".",
            "+",
            "9999999999999999999",
        ],
    )
    def test_what_yaml_1_1_takes_for_something_else_is_text(self, read: Read, word: str) -> None:
        """Booleans by another name, sexagesimals, octals and dates stay text."""
        assert read(f"key: {word}").value == {"key": word}

    @pytest.mark.parametrize("key", ["no", "1", "~", "true", "0.5", ".nan", "2001-01-01", "<<"])
    def test_keys_are_text(self, read: Read, key: str) -> None:
        """A key is the word that stands there, whatever it looks like."""
        assert read(f"{key}: 1").value == {key: 1}

    @pytest.mark.parametrize("text", ["", "# only a comment\n", "---\n", "~"])
    def test_an_empty_document_is_nothing(self, read: Read, text: str) -> None:
        """An empty document has no value and no problem."""
        document = read(text)
        assert (document.value, document.problems) == (None, [])

    def test_a_byte_order_mark_is_passed_over(self, read: Read) -> None:
        """Files saved by editors that write a mark are read like others."""
        assert read(b"\xef\xbb\xbfkey: 1").value == {"key": 1}


class TestLines:
    """Where each value stands."""

    TEXT = """\
# a comment
one: 1
many:
  - first

  - name: second
    deep: {a: 1,
           b: 2}
"""

    def test_every_key_and_item_has_its_line(self, read: Read) -> None:
        """Lines count from one, comments and empty lines included."""
        assert read(self.TEXT).lines == {
            (): 2,
            ("one",): 2,
            ("many",): 3,
            ("many", 0): 4,
            ("many", 1): 6,
            ("many", 1, "name"): 6,
            ("many", 1, "deep"): 7,
            ("many", 1, "deep", "a"): 7,
            ("many", 1, "deep", "b"): 8,
        }

    @pytest.mark.parametrize(
        ("location", "line"),
        [
            (("many", 1, "deep", "b"), 8),
            (("many", 1, "missing"), 6),
            (("many", 7, "name"), 3),
            (("nowhere", "at", "all"), 2),
        ],
    )
    def test_what_is_not_there_has_the_line_of_its_parent(
        self, read: Read, location: yaml_lines.Location, line: int
    ) -> None:
        """A missing key is reported where it should stand."""
        assert read(self.TEXT).line(location) == line

    def test_an_empty_document_has_one_line(self) -> None:
        """Without any location everything is on line 1."""
        assert Document().line(("a", 0)) == 1


class TestProblems:
    """What is refused, and where."""

    @pytest.mark.parametrize(
        ("text", "line", "at", "says"),
        [
            ("a: 1\nb: 2\na: 3", 3, ("a",), "twice"),
            ("x:\n  - {b: 1, b: 2}", 2, ("x", 0, "b"), "twice"),
            ("no: 1\n'no': 2", 2, ("no",), "twice"),
            ("a: &x 1", 1, ("a",), "`&x` is an anchor"),
            ("a: 1\nb: *x", 2, ("b",), "`*x` is an alias"),
            ("a: 1\nb: !!str 3", 2, ("b",), "`!!str` is a tag"),
            ("a: !own {b: 1}", 1, ("a",), "`!own` is a tag"),
            ("a: !!python/object/apply:os.getcwd []", 1, ("a",), "is a tag"),
            ("a: 1\n? [x, y]\n: 2", 2, (), "a key must be a plain word"),
            ("? &k a\n: 1", 1, ("a",), "`&k` is an anchor"),
        ],
    )
    def test_it_is_named_with_its_place(
        self, read: Read, text: str, line: int, at: yaml_lines.Location, says: str
    ) -> None:
        """Duplicate keys, anchors, aliases, tags and other keys than words are refused."""
        ((found_line, found_at, found),) = read(text).problems
        assert (found_line, found_at) == (line, at)
        assert says in found

    def test_all_are_named_at_once(self, read: Read) -> None:
        """One read finds everything, in the document's order."""
        text = "a: &x 1\nb: *x\nc: !t 2\nc: 3\n"
        assert [line for line, _, _ in read(text).problems] == [1, 2, 3, 4]

    def test_an_alias_is_never_followed(self, read: Read) -> None:
        """A document that would grow without bounds is read at once, with a problem each."""
        levels = [f"l{n}: &l{n} [{', '.join([f'*l{n - 1}'] * 9)}]" for n in range(1, 30)]
        document = read("l0: &l0 x\n" + "\n".join(levels))
        assert document.value["l29"] == [None] * 9
        assert len(document.problems) == 30 + 29 * 9

    @pytest.mark.parametrize(
        ("content", "line"),
        [
            (b"a: [1,\nb: 2", 2),
            (b"a: 1\n\tb: 2", 2),
            (b"a: 1\n---\nb: 2", 2),
            (b"a: 1\nb: '", 2),
            (b"a: \x00", 1),
            (b"a: b: c", 1),
        ],
    )
    def test_what_is_no_yaml_says_where(self, read: Read, content: bytes, line: int) -> None:
        """A syntax error is one problem with its line, and there is no value."""
        document = read(content)
        ((found, _, text),) = document.problems
        assert text.startswith("not valid YAML: ")
        assert (found, document.value) == (line, None)

    @pytest.mark.parametrize("code", ["utf-16-le", "utf-16-be"])
    def test_utf_16_behind_its_mark(self, read: Read, code: str) -> None:
        """Its mark says so for sure; what was cut short is refused."""
        content = "\ufeffa: 1\r\nb: caf\u00e9\r\n".encode(code)
        assert read(content).value == {"a": 1, "b": "caf\u00e9"}
        assert read(content[:-1]).problems == [(1, (), "not valid UTF-8: save the file as UTF-8")]

    def test_other_encodings_are_refused_with_the_line(self, read: Read) -> None:
        """Bytes that are no UTF-8 are named by line."""
        assert read(b"a: 1\nb: caf\xe9\n").problems == [
            (2, (), "not valid UTF-8: save the file as UTF-8")
        ]

    @pytest.mark.parametrize("text", ["[" * 5000, "{a: " * 5000, "- " * 5000 + "x"])
    def test_endless_nesting_is_refused(self, read: Read, text: str) -> None:
        """Nesting beyond any policy is a problem and not a crash."""
        assert len(read(text).problems) == 1

    def test_a_file_that_is_too_large_is_not_parsed(self, read: Read) -> None:
        """A file beyond the limit is named as such."""
        ((_, _, text),) = read(b"a: " + b"x" * SIZE_LIMIT).problems
        assert "larger than" in text

    @pytest.mark.parametrize("name", ["missing.yaml", "", "with\x00nul.yaml", "x" * 5000])
    def test_what_cannot_be_opened_is_a_problem(self, tmp_path: Path, name: str) -> None:
        """A missing file, a folder and impossible names are problems and not exceptions."""
        ((line, _, text),) = yaml_lines.read(tmp_path / name).problems
        assert line == 1
        assert text.startswith("cannot be read: ")


class TestAnything:
    """Whatever a file holds."""

    @given(st.binary(max_size=60) | st.text("ab:-[]{}&*!?|>'\"#%@ \n\t,1.~", max_size=60))
    def test_it_is_read_or_refused(self, read: Read, content: str | bytes) -> None:
        """No content raises, and without a problem there are lines for all that was read."""
        document = read(content)
        assert document.problems or document.value is None or () in document.lines
