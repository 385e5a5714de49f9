"""How a response's units add up: what is trained, and on what."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

pytest.importorskip("tqdm", reason="training needs the extra `train`")

from guard.detectors.pooling import ALONE, Pooling
from guard.training import aggregate
from guard.training.data import HEADS, Row

if TYPE_CHECKING:
    from numpy.typing import NDArray

HEAD = "violence"
INDEX = HEADS.index(HEAD)


def units(*logits: float, index: int = INDEX) -> NDArray[np.float32]:
    """Return the logits of a row's units, of one head alone."""
    table = np.full((len(logits), len(HEADS)), np.nan, np.float32)
    table[:, index] = logits
    return table


def row(number: int, label: float, head: str = HEAD) -> Row:
    """Return a row with one label."""
    return Row(f"question {number}", "an answer", {head: label}, "made_up", "CC0-1.0", 1.0)


def noisy(head: str = HEAD) -> tuple[list[NDArray[np.float32]], list[Row]]:
    """Return rows whose units run high or low throughout, and are odd now and then."""
    rng = np.random.default_rng(3)
    given, rows = [], []
    for number in range(400):
        label = number % 2
        middle = 1.0 if label else -1.0
        logits = rng.normal(middle, 3.0, 10)
        given.append(units(*logits, index=HEADS.index(head)))
        rows.append(row(number, label, head))
    return given, rows


class TestFit:
    """Which pooling a category gets."""

    def test_what_runs_through_is_averaged(self) -> None:
        """Where single units mislead and the mean does not, the mean gets weight."""
        found = aggregate.fit(*noisy())
        assert found[HEAD].own < 1
        # A category without rows of its own takes what served the others.
        assert found["power_seeking"] == found[HEAD]

    def test_units_that_say_it_all_stay_alone(self) -> None:
        """Without a sure gain nothing is pooled."""
        given = [units(4.0 if n % 2 else -4.0) for n in range(200)]
        assert aggregate.fit(given, [row(n, n % 2) for n in range(200)])[HEAD] == ALONE

    def test_what_is_taken_out_by_sentence_is_never_pooled(self) -> None:
        """A neighbour of a risky sentence must not go in its place."""
        found = aggregate.fit(*noisy("bad_advice"))
        assert all(found[head] == ALONE for head in aggregate.BY_SENTENCE)

    def test_rows_that_were_not_judged_do_not_count(self) -> None:
        """A label without a single logit, or one that says neither, is left out."""
        given, rows = noisy()
        more = [*given, units(float("nan")), units(9.0)]
        assert aggregate.fit(more, [*rows, row(900, 1.0), row(901, 0.5)]) == aggregate.fit(
            given, rows
        )


class TestScore:
    """A response's score."""

    def test_is_the_highest_running_value(self) -> None:
        """As at runtime, unit by unit; units of the other side are left out."""
        pooling = Pooling(0.5, 0.3, 2.0)
        logits = np.array([1.0, np.nan, -2.0, 3.0], np.float32)
        expected = pooling.running(np.array([1.0, -2.0, 3.0])).max()
        assert aggregate.score(logits, pooling) == pytest.approx(expected)
        assert np.isnan(aggregate.score(np.array([np.nan], np.float32), pooling))

    def test_scores_per_label(self) -> None:
        """Each label has the pooling that is its own, or none."""
        scores = aggregate.response_scores([units(1.0, 3.0)], {HEAD: Pooling(0.5, lone=9.0)})
        assert scores.shape == (1, len(HEADS))
        assert scores[0, INDEX] == pytest.approx(2.5)
        assert np.isnan(np.delete(scores[0], INDEX)).all()
