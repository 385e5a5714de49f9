"""Length and labels: what length alone tells, and that balancing takes it away."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import pytest

pytest.importorskip("sklearn", reason="training needs the extra `train`")

from hypothesis import given
from hypothesis import strategies as st

from guard.training.balance import LARGEST, balanced, lengths, main
from guard.training.data import Row

if TYPE_CHECKING:
    from pathlib import Path

HEAD = "violence"


def row(length: int, *, bad: bool, prompt: str = "", weight: float = 1.0) -> Row:
    """Return a row of some length."""
    return Row(prompt, "x" * length, {HEAD: float(bad)}, "toy", "CC0-1.0", weight)


def lopsided(count: int = 400, seed: int = 1) -> list[Row]:
    """Return rows whose positives tend to be short."""
    rng = random.Random(seed)
    rows = [row(int(rng.lognormvariate(4.5, 0.8)) + 1, bad=True) for _ in range(count)]
    return rows + [row(int(rng.lognormvariate(5.5, 0.8)) + 1, bad=False) for _ in range(count)]


class TestReport:
    """What is measured."""

    def test_length_that_says_all(self) -> None:
        """Where every positive is longer, length alone ranks perfectly; shorter, it is 0."""
        rows = [row(10 + n, bad=False) for n in range(5)] + [
            row(50 + n, bad=True) for n in range(5)
        ]
        found = lengths(rows, HEAD)
        assert (found.positives, found.negatives, found.auroc) == (5, 5, 1.0)
        assert (found.positive_mean, found.negative_mean) == (52, 12)
        flipped = [row(len(r.response), bad=r.labels[HEAD] == 0) for r in rows]
        assert lengths(flipped, HEAD).auroc == 0.0

    def test_one_side_alone_has_no_figure(self) -> None:
        """Without negatives there is nothing to rank."""
        assert lengths([row(9, bad=True)] * 5, HEAD).auroc is None
        assert lengths([], HEAD).positives == 0

    def test_each_head_is_measured_on_its_own_text(self) -> None:
        """A category of the prompt side is measured on prompts."""
        rows = [
            Row("x" * n, "y" * (100 - n), {"jailbreak": float(n > 5)}, "toy", "CC0-1.0", 1.0)
            for n in range(1, 10)
        ]
        assert lengths(rows, "jailbreak").auroc == 1.0

    def test_the_command_shows_both(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        """Each head has a line; unknown ones have no figure."""
        assert main(["--data", str(folder)]) == 0
        lines = {line.split()[0]: line.split() for line in capsys.readouterr().out.splitlines()}
        assert 0 <= float(lines["misaligned_persona"][-1]) <= 1
        assert lines["sexual"][-2:] == ["-", "-"]


class TestBalanced:
    """What is done about it."""

    def test_length_says_little_afterwards(self) -> None:
        """The AUROC of length alone comes close to .5."""
        rows = lopsided()
        before, after = lengths(rows, HEAD).auroc, lengths(balanced(rows), HEAD).auroc
        assert before is not None
        assert after is not None
        assert before < 0.25
        assert abs(after - 0.5) < 0.06

    @given(st.integers(0, 99), st.integers(2, 60))
    def test_factors_are_bounded_and_average_to_one(self, seed: int, count: int) -> None:
        """No row counts for more than a few, and each side as a whole as much as before."""
        rows = lopsided(count, seed)
        factors = [found.emphasis[HEAD] for found in balanced(rows)]
        assert all(1 / LARGEST <= factor <= LARGEST for factor in factors)
        for side in (factors[:count], factors[count:]):
            assert sum(side) / count == pytest.approx(1, abs=0.25)

    def test_nothing_else_changes(self) -> None:
        """Rows keep their order, text and labels; heads that are not named keep their weight."""
        rows = lopsided(20)
        after = balanced(rows, [])
        assert after == rows
        assert [found.response for found in balanced(rows)] == [r.response for r in rows]

    def test_unknown_labels_and_empty_texts_are_left_alone(self) -> None:
        """A row without the label, or without the text, gets no factor."""
        rows = [*lopsided(20), Row("", "text", {"sexual": 1.0}, "toy", "CC0-1.0", 1.0)]
        rows.append(Row("prompt", "", {HEAD: 1.0}, "toy", "CC0-1.0", 1.0))
        assert [dict(found.emphasis) for found in balanced(rows)[-2:]] == [{}, {}]
