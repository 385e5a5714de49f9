"""Leaks between the parts of a split: planted ones are found, unrelated texts are not."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any

import pytest

pytest.importorskip("datasketch", reason="the leak check needs the extra `train`")

from hypothesis import given
from hypothesis import strategies as st

from guard.training import data, leaks
from guard.training.data import load
from guard.training.leaks import SHORT, SIMILAR, Pair, clean, find, main, runs, similarity, words

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    Write = Callable[[Path, list[dict[str, Any]]], None]
    MakeRow = Callable[..., dict[str, Any]]

SYLLABLES = ("ba", "ke", "li", "mo", "nu", "ra", "se", "ti", "vo", "zu")


def invented(rng: random.Random, count: int) -> list[str]:
    """Return words that no other text is likely to have in this order."""
    return ["".join(rng.choices(SYLLABLES, k=3)) for _ in range(count)]


def text(seed: int, count: int = 120) -> str:
    """Return an invented text."""
    return " ".join(invented(random.Random(seed), count))


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return an empty folder; the project's own rows are left out."""
    monkeypatch.setattr(data, "OWN", tmp_path / "own")
    folder = tmp_path / "rows"
    folder.mkdir()
    return folder


class TestSimilarity:
    """How alike two texts are."""

    @given(st.lists(st.sampled_from("abcdefgh"), max_size=40), st.integers(0, 99))
    def test_it_is_a_share_and_symmetric(self, one: list[str], seed: int) -> None:
        """It is 1 for a text and itself, in [0, 1], and the same both ways."""
        other = one[:]
        random.Random(seed).shuffle(other)
        found = similarity(runs(one), runs(other))
        assert 0 <= found <= 1
        assert found == similarity(runs(other), runs(one))
        if len(one) >= leaks.RUN:
            assert similarity(runs(one), runs(one)) == 1

    def test_one_word_costs_five_runs(self) -> None:
        """Of 104 words 100 runs: a changed word in the middle leaves 95 in common."""
        one = invented(random.Random(1), 104)
        other = [*one[:50], "changed", *one[51:]]
        assert similarity(runs(one), runs(other)) == pytest.approx(95 / 105)

    def test_words_ignore_case_width_and_punctuation(self) -> None:
        """Texts that read the same have the same words; emoji count."""
        assert words("The \uff30ier, at NOON!") == words("the pier - at noon")
        assert words("kind \U0001f437") != words("kind \U0001f40d")


class TestFinding:
    """What `find` sees."""

    @given(seed=st.integers(0, 999), changed=st.integers(0, 3))
    def test_a_planted_near_duplicate_is_found(self, seed: int, changed: int) -> None:
        """A text with a few words changed is a candidate of its original, whatever they are."""
        rng = random.Random(seed)
        one = invented(rng, 160)
        other = one[:]
        for at in rng.sample(range(160), changed):
            other[at] = "changed"
        known = similarity(runs(one), runs(other))
        shared = leaks._signature(runs(one)) == leaks._signature(runs(other))
        assert known >= SIMILAR
        assert abs(shared.mean() - known) < 0.35
        bands = shared.reshape(leaks._BANDS)
        assert bands.all(axis=1).any()

    def test_near_equal_and_unrelated(self, place: Path, write: Write, make_row: MakeRow) -> None:
        """Equal and nearly equal texts leak; a half-new text and others do not."""
        base = text(1).split()
        near = " ".join([*base[:60], "other", *base[61:]])
        half = " ".join([*base[:60], *text(2).split()[:60]])
        rows = [
            make_row(0, bad=True, response=near),
            make_row(1, bad=True, response=half),
            make_row(2, bad=True, response=text(3)),
            make_row(3, bad=True, response="  " + text(4).upper() + "!"),
        ]
        rows += [make_row(9 + n, bad=True, response=text(100 + n)) for n in range(40)]
        write(place / "mine.jsonl.gz", rows)
        held = [" ".join(base), text(4), text(5)]
        write(
            place / "theirs.jsonl.gz",
            [make_row(500 + n, bad=True, response=r, split="test") for n, r in enumerate(held)],
        )
        found = find(place, place / "cache")
        lines = {(at.file, at.line) for at in found.train}
        parts = [
            leaks._kept(place / "mine.jsonl.gz", place / "cache").part("mine", n) for n in (0, 3)
        ]
        expected = {
            ("mine", n + 1) for n, part in zip((0, 3), parts, strict=True) if part == "train"
        }
        assert lines == expected
        kinds = {(pair.kind, pair.other_file, pair.other_part) for pair in found.counts}
        assert kinds == {("near", "theirs", "test"), ("equal", "theirs", "test")}

    def test_short_texts_leak_with_their_prompt_alone(
        self, place: Path, write: Write, make_row: MakeRow
    ) -> None:
        """A stock answer to another question is no leak; the same exchange is one."""
        short = "I can't help with that."
        assert len(words(short)) < SHORT
        numbers = trained(make_row, 2)
        write(
            place / "mine.jsonl.gz",
            [make_row(n, bad=True, response=short) for n in numbers],
        )
        held = [
            make_row(numbers[0], bad=True, response=short.upper(), split="test"),
            make_row(77_777, bad=True, response=short, split="test"),
        ]
        write(place / "theirs.jsonl.gz", held)
        found = find(place, place / "cache")
        assert {at.line for at in found.train} == {1}
        assert found.counts == {
            Pair("mine", "train", "theirs", "test", "equal"): 1,
            Pair("mine", "train", "theirs", "test", "question"): 1,
        }

    def test_a_folder_without_leaks(self, folder: Path, tmp_path: Path) -> None:
        """Rows that only share a form of words are not counted."""
        found = find(folder, tmp_path / "cache")
        assert not found.train
        assert not found.counts


class TestCleaning:
    """What training gets."""

    def test_leaking_rows_are_left_out(self, place: Path, write: Write, make_row: MakeRow) -> None:
        """Rows whose text is a test row's are gone, repeats included; nothing else changes."""
        numbers = trained(make_row, 30)
        rows = [make_row(n, bad=True, response=text(n)) for n in numbers]
        write(place / "mine.jsonl.gz", rows)
        held = make_row(99_999, bad=True, response=text(numbers[4]), split="test")
        write(place / "theirs.jsonl.gz", [held])
        split = load(place, seed=1)
        cleaned = clean(split, place, place / "cache")
        gone = {row.response for row in split.train} - {row.response for row in cleaned.train}
        assert gone == {text(numbers[4])}
        assert len(cleaned.train) == len(split.train) - 1
        assert cleaned.validation == split.validation

    def test_prints_are_kept_by_the_files_hash(
        self, place: Path, write: Write, make_row: MakeRow, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """An unchanged file is not hashed again; a changed one is."""
        rows = [make_row(n, bad=True, response=text(n)) for n in range(5)]
        write(place / "mine.jsonl.gz", rows)
        first = find(place, place / "cache")
        made: list[int] = []
        original = leaks._prints

        def watched(*given: Any) -> leaks.Prints:
            made.append(1)
            return original(*given)

        monkeypatch.setattr(leaks, "_prints", watched)
        assert find(place, place / "cache") == first
        assert not made
        write(place / "mine.jsonl.gz", rows[:4])
        find(place, place / "cache")
        assert made

    def test_no_text_is_kept(self, place: Path, write: Write, make_row: MakeRow) -> None:
        """The cache holds hashes alone."""
        write(place / "mine.jsonl.gz", [make_row(1, bad=True, response=text(1))])
        find(place, place / "cache")
        (kept,) = (place / "cache").iterdir()
        content = kept.read_bytes()
        assert not any(word.encode() in content for word in set(text(1).split()))


class TestCommand:
    """`python -m guard.training.leaks`."""

    def test_leaks_are_counted_and_never_shown(
        self, place: Path, write: Write, make_row: MakeRow, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """A pair of files has a line, texts stay hidden, and the exit code is 1."""
        (number,) = trained(make_row, 1)
        write(place / "mine.jsonl.gz", [make_row(number, bad=True, response=text(1))])
        held = make_row(99_999, bad=True, response=text(1), split="test")
        write(place / "theirs.jsonl.gz", [held])
        given = ["--data", str(place), "--cache", str(place / "cache")]
        assert main(given) == 1
        shown = capsys.readouterr()
        (line,) = [line.split() for line in shown.out.splitlines() if "theirs" in line]
        assert line == ["mine", "train", "theirs", "test", "0", "1", "0"]
        assert "1 training rows" in shown.out
        assert not any(word in shown.out + shown.err for word in text(1).split())

    def test_none_is_exit_code_0(self, folder: Path, tmp_path: Path) -> None:
        """A folder without leaks passes."""
        assert main(["--data", str(folder), "--cache", str(tmp_path / "cache")]) == 0


def trained(make_row: MakeRow, count: int) -> list[int]:
    """Return numbers of rows whose question does not validate."""
    found = []
    for number in range(1000):
        question = data.question_of("mine", make_row(number, bad=True)["prompt"], "", {})
        if not data.validates("mine", question):
            found.append(number)
    return found[:count]
