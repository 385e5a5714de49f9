"""Loading labelled rows: what is dropped, how they are split, what is recorded of the files."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import pytest

from guard.categories import CATEGORIES
from guard.training import data
from guard.training.data import HEADS, OWN, SOURCES, data_files, is_validation, load

if TYPE_CHECKING:
    from pathlib import Path


class TestSplit:
    """Rows to learn from and rows to validate on."""

    def test_unseen_rows_stay_unseen(self, folder: Path) -> None:
        """Nothing marked `test` or `meta.holdout` is in either part."""
        split = load(folder, seed=1)
        numbers = {int(r.prompt.split()[2].rstrip(":")) for r in [*split.train, *split.validation]}
        assert len(numbers) == 240
        assert max(numbers) < 240

    def test_no_question_is_in_both_parts(self, folder: Path) -> None:
        """The split is by question."""
        split = load(folder, seed=1)
        validation = {row.question for row in split.validation}
        assert validation
        assert not validation & {row.question for row in split.train}

    def test_the_seed_decides_the_order_alone(self, folder: Path) -> None:
        """Another seed shuffles, but the same questions validate."""
        first, second = load(folder, seed=1), load(folder, seed=2)
        assert {r.question for r in first.validation} == {r.question for r in second.validation}
        assert [r.question for r in first.train] != [r.question for r in second.train]
        assert first == load(folder, seed=1)

    def test_questions_ignore_case_and_space(self, folder: Path) -> None:
        """Rows whose prompts differ in case and white space alone share a question."""
        row = load(folder, seed=1).train[0]
        shouted = type(row)(
            **{
                **{name: getattr(row, name) for name in row.__slots__},
                "prompt": "  " + row.prompt.upper() + "\n",
            }
        )
        assert shouted.question == row.question
        assert is_validation(shouted) == is_validation(row)

    def test_an_empty_folder_is_an_error(self, tmp_path: Path) -> None:
        """A folder without data says what is expected."""
        with pytest.raises(FileNotFoundError, match="labelled data"):
            load(tmp_path, seed=1)


class TestOwnRows:
    """Rows written for the project."""

    def test_they_are_read_beside_the_folder(
        self, folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """What lies beside the module is read too, several times, and its test rows are not."""
        plain = {row.file for row in load(folder, seed=1).train}
        monkeypatch.setattr(data, "OWN", OWN)
        both = load(folder, seed=1).train
        own = [row for row in both if row.file.startswith("own_")]
        assert plain == {"toy"}
        assert len({row.file for row in own}) > 10
        assert all(row.licence.startswith("CC0") for row in own)

    def test_a_harmless_side_is_harmless_in_every_way(self) -> None:
        """The good side of a pair teaches every harm, the bad one that it is unsafe."""
        assert data._own_labels({"violence": 0.0})["hate_toxicity"] == 0
        assert data._own_labels({"violence": 1.0}) == {"violence": 1.0, "unsafe": 1.0}
        assert data._own_labels({"sycophancy": 1.0}) == {"sycophancy": 1.0}
        assert data._own_labels({"jailbreak": 0.0}) == {"jailbreak": 0.0}

    def test_every_row_is_of_the_schema(self) -> None:
        """Labels are categories, splits and licences are known, and no text is empty."""
        for path in OWN.glob("*.jsonl"):
            for row in data._read(path):
                assert set(row["labels"]) <= set(CATEGORIES), path
                assert row["split"] in ("train", "test")
                assert row["license"].startswith("CC0-1.0")
                assert row["prompt"] or row["response"]

    def test_no_pair_is_in_both_parts(self) -> None:
        """Both sides of a pair are for training or both for testing."""
        for path in OWN.glob("*.jsonl"):
            splits: dict[str, set[str]] = {}
            for row in data._read(path):
                splits.setdefault(str(row["meta"].get("pair")), set()).add(row["split"])
            assert all(len(found) == 1 for found in splits.values()), path


class TestFacts:
    """What goes into a model's manifest."""

    def test_files_are_named_with_hash_and_licence(self, folder: Path) -> None:
        """Each file has its SHA-256, its size and its rows' licences."""
        content = (folder / "toy.jsonl.gz").read_bytes()
        assert data_files(folder) == {
            "toy.jsonl.gz": {
                "sha256": hashlib.sha256(content).hexdigest(),
                "bytes": len(content),
                "licences": ["CC0-1.0"],
            }
        }

    def test_settings_are_sane(self) -> None:
        """Caps and weights are positive and heads are not repeated."""
        assert len(set(HEADS)) == len(HEADS)
        assert all(source.cap > 0 and 0 < source.weight <= 1 for source in SOURCES.values())
