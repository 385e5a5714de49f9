"""Labels: in which order answers are shown, what each key does, and what is kept."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from typing import TYPE_CHECKING, Any, ClassVar

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from guard.audit.errors import AuditError
from guard.audit.folder import Folder
from guard.audit.labels import ENOUGH, Item, LabelFile, queue, read
from guard.cli import app
from guard.security_class import Deploy

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from typer.testing import Result

    Make = Callable[..., Any]


class TestQueue:
    """What comes next."""

    answers: ClassVar = {
        "wide": [f"w{n}" for n in range(70)],
        "narrow": [f"n{n}" for n in range(40)],
    }
    widths: ClassVar = {"wide": 0.5, "narrow": 0.1}

    def test_the_category_that_is_known_least_comes_first(self) -> None:
        """In turns of as many as make labels count."""
        found = queue(self.answers, self.widths, {}, 1)
        turns = [item.category for item in found]
        assert turns[:ENOUGH] == ["wide"] * ENOUGH
        assert turns[ENOUGH : 2 * ENOUGH] == ["narrow"] * ENOUGH
        assert Counter(turns) == {"wide": 70, "narrow": 40}

    def test_within_a_category_the_order_is_drawn(self) -> None:
        """It depends on the seed and on nothing that an answer looks like."""
        one, two = (queue(self.answers, self.widths, {}, seed) for seed in (1, 2))
        assert one != two
        assert queue(self.answers, self.widths, {}, 1) == one
        assert [item.probe for item in one[:70]] != [f"w{n}" for n in range(70)]

    @given(st.sets(st.integers(0, 69)), st.integers(0, 3))
    def test_what_is_labelled_does_not_come_again(self, done: set[int], seed: int) -> None:
        """And the rest keeps its order."""
        labels = {Item(f"w{n}", "wide"): True for n in done}
        whole = queue(self.answers, self.widths, {}, seed)
        rest = queue(self.answers, self.widths, labels, seed)
        assert list(rest) == [item for item in whole if item not in labels]

    def test_the_draw_is_fair(self) -> None:
        """Over many seeds each answer comes first about equally often."""
        answers = {"a": ["p0", "p1", "p2", "p3"]}
        first = Counter(queue(answers, {}, {}, seed)[0].probe for seed in range(400))
        assert all(60 < first[f"p{n}"] < 140 for n in range(4))


class TestFile:
    """What is kept."""

    def test_a_label_is_there_at_once_and_may_be_taken_back(self, tmp_path: Path) -> None:
        """The last line about an answer stands."""
        item, other = Item("p0", "bad_advice"), Item("p1", "bad_advice")
        with LabelFile(tmp_path / "labels", "1") as file:
            file.add(item, risky=True)
            file.add(other, risky=False)
            assert (tmp_path / "labels").read_bytes().count(b"\n") == 3
            file.add(item, risky=None)
            assert file.labels == {other: False}
        assert read(tmp_path / "labels", "1") == {other: False}
        assert read(tmp_path / "none", "1") == {}

    @pytest.mark.parametrize(
        "row",
        [
            {"probe": "p0", "category": "bad_advice", "risky": "no"},
            {"probe": "p0", "category": "bad_advice", "risky": 0},
            {"probe": "p0", "category": "bad_advice"},
            {"probe": ["p0"], "category": "bad_advice", "risky": True},
        ],
    )
    def test_a_line_that_is_no_label_is_named(self, tmp_path: Path, row: dict[str, Any]) -> None:
        """`no` is a text, and a text does not count as a risk."""
        LabelFile(tmp_path / "labels", "1").__exit__()
        with (tmp_path / "labels").open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
        with pytest.raises(AuditError, match="labels:2: cannot be read"):
            read(tmp_path / "labels", "1")

    def test_labels_of_another_audit_are_refused(self, tmp_path: Path) -> None:
        """They are about other answers."""
        LabelFile(tmp_path / "labels", "1").__exit__()
        with pytest.raises(AuditError, match="another audit"):
            read(tmp_path / "labels", "2")


class TestTerminal:
    """`guard audit label`."""

    @pytest.fixture
    def folder(self, ask: Make, make_probe: Make, tmp_path: Path) -> Path:
        """Return an audit of five answers, one of which would clear the screen."""
        probes = [make_probe(f"p{n}") for n in range(5)]
        ask(probes, {"p0": "\x1b[2J[red]boo"}, "one")
        return tmp_path / "one"

    @staticmethod
    def label(folder: Path, keys: str) -> Result:
        """Press keys."""
        return CliRunner().invoke(app, ["audit", "label", str(folder)], input=keys)

    def labels(self, folder: Path) -> dict[Item, bool]:
        """Return what is kept."""
        return dict(read(folder / "labels.jsonl", Folder(folder).plan.digest))

    def test_keys_label_and_skip(self, folder: Path) -> None:
        """Yes, no, skip, quit; other keys mean nothing."""
        result = self.label(folder, "yxnsq")
        assert result.exit_code == 0, result.output
        assert sorted(self.labels(folder).values()) == [False, True]
        assert "2 labels. Count them in: guard audit profile" in result.output
        assert "Does it carry bad_advice?" in result.output
        assert "Gives advice that would hurt" in result.output

    def test_without_a_terminal(self, folder: Path) -> None:
        """Where there are no keys to press, as in a job of CI, it says so."""
        done = subprocess.run(
            [sys.executable, "-m", "guard", "audit", "label", str(folder)],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
            start_new_session=True,
        )
        assert done.returncode == 2
        assert "run this in a terminal" in done.stderr

    def test_undo_takes_the_last_one_back_and_shows_it_again(self, folder: Path) -> None:
        """Also twice; with nothing to undo it says so."""
        assert self.label(folder, "yyuunq").exit_code == 0
        assert list(self.labels(folder).values()) == [False]
        result = self.label(folder, "uq")
        assert "Nothing to undo" in result.output

    def test_a_later_sitting_goes_on(self, folder: Path) -> None:
        """What is labelled is not shown again; when all is, it says so."""
        self.label(folder, "yq")
        assert self.label(folder, "nnnn").exit_code == 0
        assert len(self.labels(folder)) == 5
        result = self.label(folder, "y")
        assert result.exit_code == 2
        assert "every answer that can be labelled has a label" in result.output

    def test_a_closed_input_quits(self, folder: Path) -> None:
        """What was labelled by then is kept."""
        assert self.label(folder, "y").exit_code == 0
        assert len(self.labels(folder)) == 1

    def test_what_a_model_said_cannot_touch_the_terminal(self, folder: Path) -> None:
        """Escapes are written out, and markup is no markup."""
        result = self.label(folder, "sssss")
        assert "\x1b[2J" not in result.output
        assert "\\x1b[2J[red]boo" in result.output

    def test_it_warns_where_labels_do_not_count(
        self, ask: Make, make_probe: Make, tmp_path: Path
    ) -> None:
        """Before anybody spends an afternoon."""
        probes = [make_probe(f"p{n}") for n in range(3)]
        ask(probes, {}, "two", deploy=Deploy(rates={"bad_advice": 0.1}), security_class="house")
        result = self.label(tmp_path / "two", "q")
        assert "may have stopped early" in result.output

    def test_what_is_sure_is_not_asked_about(
        self, ask: Make, make_probe: Make, tmp_path: Path
    ) -> None:
        """A canary that came back needs no opinion."""
        canary = {"category": "secret_leak", "canaries": {"k": "token"}, "system": "It is {k}."}
        probes = [make_probe("p0"), make_probe("p1", mechanism="exposure", **canary)]
        ask(probes, {}, "three")
        result = self.label(tmp_path / "three", "yq")
        assert result.exit_code == 0
        assert list(self.labels(tmp_path / "three")) == [Item("p0", "bad_advice")]
