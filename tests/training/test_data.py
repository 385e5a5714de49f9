"""Loading labelled rows: what is dropped, how they are split, what is recorded of the files."""

from __future__ import annotations

import gzip
import hashlib
import json
from typing import TYPE_CHECKING, Any

import pytest

from guard.categories import CATEGORIES
from guard.training import data
from guard.training.data import HEADS, OWN, Row, data_files, is_validation, load, main, paths
from guard.training.sources import DataError, entries, read, source

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    Write = Callable[[Path, list[dict[str, Any]]], None]
    MakeRow = Callable[..., dict[str, Any]]


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

    def test_answers_to_one_question_may_be_told_by_what_the_file_says(self) -> None:
        """Where a file keeps no prompt, or a conversation has many, `meta` names the question."""

        def row(file: str, prompt: str, answer: str, qid: str) -> Row:
            return Row(prompt, answer, {"unsafe": 0.0}, file, "MIT", 1.0, {"qid": qid})

        named, plain = "benign_wildbench_responses", "gptfuzz_responses"
        one, other = (row(named, "", answer, "A 1") for answer in ("Yes.", "No."))
        assert one.question == other.question != row(named, "", "Yes.", "a 2").question
        one, other = (row("spiral_bench_turns", prompt, "Yes.", "7") for prompt in ("A?", "B?"))
        assert one.question == other.question
        one, other = (row(plain, prompt, "Yes.", "7") for prompt in ("A?", "B?"))
        assert one.question != other.question

    def test_an_empty_folder_is_an_error(self, tmp_path: Path) -> None:
        """A folder without data says what is expected."""
        with pytest.raises(FileNotFoundError, match="labelled data"):
            load(tmp_path, seed=1)

    def test_rows_are_read_without_prompts_as_often_as_their_file_says(self, folder: Path) -> None:
        """The project's own never: in some pairs the prompt alone tells the sides apart."""
        rows = load(folder, seed=1).train
        rates = {row.file: row.prompt_dropped for row in rows}
        assert rates == {file: source(file).prompt_dropped for file in rates}
        assert any(rate > 0 for rate in rates.values())
        assert source("own_anything").prompt_dropped == 0


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

    def test_what_only_says_something_does_not_act(self) -> None:
        """An own answer outside the files about agents is no unsafe action, good or bad."""
        told = data._labels(source("own_exposure"), {"exposure": 1.0})
        assert told["unsafe_action"] == 0
        assert "unsafe_action" not in data._labels(source("own_deception_more"), {"deception": 1.0})
        assert "unsafe_action" not in data._labels(source("own_jailbreak"), {"jailbreak": 1.0})

    def test_code_that_is_shown_is_no_act(self) -> None:
        """Nothing else is known of it beyond what is given."""
        flawed = data._labels(source("insecure_code"), {"insecure_code": 1.0})
        assert flawed == {"insecure_code": 1.0, "unsafe_action": 0.0}

    def test_every_row_is_of_the_schema(self) -> None:
        """Labels are categories, splits and licences are known, and no text is empty."""
        for path in OWN.glob("*.jsonl"):
            for row in read(path):
                assert set(row.labels) <= set(CATEGORIES), path
                assert row.license.startswith("CC0-1.0")

    def test_no_pair_is_in_both_parts(self) -> None:
        """Both sides of a pair are for training or both for testing."""
        for path in OWN.glob("*.jsonl"):
            splits: dict[str, set[str]] = {}
            for row in read(path):
                splits.setdefault(str(row.meta.get("pair")), set()).add(row.split)
            assert all(len(found) == 1 for found in splits.values()), path

    def test_the_readme_names_every_file(self) -> None:
        """Nothing is read that is not described."""
        described = (OWN / "README.md").read_text("utf-8")
        assert not [p.stem for p in OWN.glob("*.jsonl") if f"`{p.stem}`" not in described]


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

    def test_heads_are_not_repeated(self) -> None:
        """Each head is one output."""
        assert len(set(HEADS)) == len(HEADS)


class TestTable:
    """`python -m guard.training.data`."""

    def test_each_file_is_shown(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        """Hash, licence, rows per part, cap, weight and labels stand in one line."""
        digest = hashlib.sha256((folder / "toy.jsonl.gz").read_bytes()).hexdigest()
        rows = load(folder, seed=1)
        assert main(["--data", str(folder)]) == 0
        (line,) = [line for line in capsys.readouterr().out.splitlines() if "toy" in line]
        for part in (digest[:12], "CC0-1.0", "mixed", "1,500", "misaligned_persona 160"):
            assert part in line
        assert f" {len(rows.validation)} " in line
        assert f" {240 - len(rows.validation)} " in line
        assert " 40 " in line

    def test_broken_rows_are_refused(
        self, folder: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """Each problem is named by file and line, and training refuses the folder."""
        good = {
            "prompt": "a",
            "response": "b",
            "labels": {},
            "source": "own",
            "license": "CC0-1.0",
            "split": "train",
            "meta": {},
        }
        wrong: list[dict[str, Any]] = [
            good,
            good | {"labels": {"violense": 1}},
            good | {"labels": {"violence": 1.5}},
            good | {"split": "dev"},
            good | {"prompt": None, "response": ""},
            good | {"score": 1},
        ]
        text = "".join(json.dumps(row) + "\n" for row in wrong) + "{not json\n"
        (folder / "odd.jsonl").write_text(text, "utf-8")
        assert main(["--data", str(folder)]) == 1
        found = capsys.readouterr()
        assert "toy" in found.out
        expected = (
            "odd.jsonl:2: labels: `violense` is no category, did you mean `violence`?",
            "odd.jsonl:3: labels.violence: Input should be less than or equal to 1",
            "odd.jsonl:4: split: Input should be 'train' or 'test'",
            "odd.jsonl:5: neither `prompt` nor `response` has text",
            "odd.jsonl:6: score: Extra inputs are not permitted",
            "odd.jsonl:7: Invalid JSON",
        )
        for problem, line in zip(expected, found.err.splitlines(), strict=True):
            assert line.startswith(problem.partition(",")[0])
        with pytest.raises(DataError, match=r"odd\.jsonl:2"):
            load(folder, seed=1)


class TestManifest:
    """`sources.yaml`."""

    def test_every_entry_is_sound(self) -> None:
        """Settings of every file and of an unknown one are complete and valid."""
        for name in [*entries(), "unheard_of"]:
            settings = source(name.replace("*", "x"))
            assert 0 < settings.weight <= 1

    def test_patterns_apply_before_names(self) -> None:
        """A file keeps what its pattern says beside its own settings."""
        arena = source("benign_arena_hard")
        assert (arena.role, arena.mapping, arena.cap) == ("benign", "benign", 1700)
        assert source("own_anything").mapping == "own"
        assert source("unheard_of").mapping == "given"

    @pytest.mark.parametrize(
        ("licence", "fits"),
        [
            ("MIT", True),
            ("MIT (prompts of others)", True),
            ("MIT-0", False),
            ("MITx", False),
            ("see elsewhere", False),
        ],
    )
    def test_licences_are_compared_whole(self, licence: str, *, fits: bool) -> None:
        """A row's licence must begin with one that the manifest names."""
        assert source("gptfuzz_responses").permits(licence) is fits
        assert source("unheard_of").permits(licence)

    def test_a_row_under_another_licence_is_refused(
        self, folder: Path, write: Write, make_row: MakeRow
    ) -> None:
        """What the manifest does not expect is a problem, with its line."""
        name = folder / "own_more.jsonl.gz"
        write(name, [make_row(1, bad=True), make_row(2, bad=True, license="CC-BY-4.0")])
        with pytest.raises(DataError, match=r"own_more\.jsonl\.gz:2: license: `CC-BY-4\.0`"):
            read(name)

    def test_held_out_files_are_never_trained_on(
        self, folder: Path, write: Write, make_row: MakeRow
    ) -> None:
        """A row marked `train` in a file that is held out is refused."""
        name = folder / "xstest_completions.jsonl.gz"
        write(name, [make_row(1, bad=True, license="CC-BY-4.0", split="test")])
        assert len(read(name)) == 1
        assert {row.file for row in load(folder, seed=1).train} == {"toy"}
        write(name, [make_row(1, bad=True, license="CC-BY-4.0")])
        with pytest.raises(DataError, match="holds out"):
            load(folder, seed=1)

    def test_many_problems_are_counted(self) -> None:
        """A long list is cut in the message and kept whole beside it."""
        error = DataError([f"f:{n}: wrong" for n in range(1200)])
        assert str(error).endswith("and 1,180 more")
        assert len(error.problems) == 1200


class TestFilesAsEditorsLeaveThem:
    """What the schema does not speak of."""

    def test_a_mark_line_ends_of_windows_and_empty_lines(
        self, tmp_path: Path, make_row: MakeRow
    ) -> None:
        """They are no part of any row."""
        path = tmp_path / "saved.jsonl"
        lines = [json.dumps(make_row(number, bad=True)) for number in range(2)]
        path.write_bytes(("\ufeff" + "\r\n\r\n".join(lines) + "\r\n\r\n").encode())
        assert len(read(path)) == 2

    def test_a_file_packed_and_unpacked_is_named(self, tmp_path: Path) -> None:
        """Neither is passed over without a word."""
        for name in ("saved.jsonl", "saved.jsonl.gz"):
            (tmp_path / name).touch()
        with pytest.raises(DataError, match=r"`saved\.jsonl` is there packed, too"):
            paths(tmp_path)

    def test_what_an_editor_leaves_is_no_data(self, tmp_path: Path) -> None:
        """A copy under another ending is not read."""
        (tmp_path / "mine.jsonl").touch()
        (tmp_path / "mine.jsonl.bak").touch()
        assert tmp_path / "mine.jsonl.bak" not in paths(tmp_path)

    def test_another_encoding_is_named(self, tmp_path: Path, make_row: MakeRow) -> None:
        """It is not called wrong JSON, which it may not be."""
        path = tmp_path / "saved.jsonl"
        path.write_text(json.dumps(make_row(1, bad=True)), "utf-16")
        with pytest.raises(DataError, match=r"saved\.jsonl:1: not valid UTF-8 at byte 1"):
            read(path)

    @pytest.mark.parametrize("content", [b"no archive", gzip.compress(b"{}", mtime=0)[:12]])
    def test_a_damaged_archive_is_named(self, tmp_path: Path, content: bytes) -> None:
        """Like any other mistake in a folder."""
        path = tmp_path / "saved.jsonl.gz"
        path.write_bytes(content)
        with pytest.raises(DataError, match=r"saved\.jsonl\.gz: cannot be read"):
            read(path)
