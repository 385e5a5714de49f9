"""How a response's units add up: what is trained, and on what."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("tqdm", reason="training needs the extra `train`")

from guard.detectors.pooling import ALONE, Pooling, Scored
from guard.training import aggregate
from guard.training.data import HEADS, Row

HEAD = "violence"
INDEX = HEADS.index(HEAD)


def units(*logits: float, index: int = INDEX, closing: float | None = None) -> Scored:
    """Return the logits of a row's units and of its closing read, of one head alone."""
    table = np.full((len(logits), len(HEADS)), np.nan, np.float32)
    table[:, index] = logits
    end = None if closing is None else np.full(len(HEADS), closing, np.float32)
    return Scored(table, end)


def row(number: int, label: float, head: str = HEAD) -> Row:
    """Return a row with one label."""
    return Row(f"question {number}", "an answer", {head: label}, "made_up", "CC0-1.0", 1.0)


def noisy(head: str = HEAD) -> tuple[list[Scored], list[Row]]:
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


class TestClosing:
    """What the closing read counts."""

    @staticmethod
    def telling(head: str) -> tuple[list[Scored], list[Row]]:
        """Return rows whose units say next to nothing, and whose closing read says it all."""
        rng = np.random.default_rng(4)
        given, rows = [], []
        for number in range(400):
            label = number % 2
            ends = rng.normal(3.0 if label else -3.0, 1.0)
            logits = rng.normal(0.2 * label, 2.0, 6)
            given.append(units(*logits, index=HEADS.index(head), closing=float(ends)))
            rows.append(row(number, label, head))
        return given, rows

    def test_counts_where_it_tells_more_than_units(self) -> None:
        """Of what an answer is, units may lose what the closing read makes up for."""
        found = aggregate.fit(*self.telling("sycophancy"))["sycophancy"]
        assert found.closing > 0
        assert found.reserve > 0

    def test_what_stands_in_the_text_waits_for_it_with_little(self) -> None:
        """A stream must stop there: however much the end tells, units lose half a logit at most."""
        text = aggregate.fit(*self.telling(HEAD))
        assert text[HEAD].closing > 0
        assert text[HEAD].reserve <= 0.5
        answer = aggregate.fit(*self.telling("sycophancy"))
        assert answer["sycophancy"].reserve > 0.5

    def test_a_category_without_rows_takes_what_served_its_kind(self) -> None:
        """Of what an answer is as a whole from such ones, of what stands in the text likewise."""
        text = aggregate.fit(*self.telling(HEAD))
        assert text["sexual"] == text[HEAD]
        assert text["power_seeking"].closing == 0
        answer = aggregate.fit(*self.telling("sycophancy"))
        assert answer["power_seeking"].closing == answer["sycophancy"].closing
        assert answer["sexual"].closing == 0

    def test_never_what_is_taken_out_by_sentence(self) -> None:
        """The last sentence must not go for what the whole answer says."""
        found = aggregate.fit(*self.telling("bad_advice"))
        assert all(found[head] == ALONE for head in aggregate.BY_SENTENCE)

    def test_rows_without_one_stay_as_they_were(self) -> None:
        """Answers of one unit have no closing read, and nothing is taken off them."""
        given = [units(4.0 if n % 2 else -4.0) for n in range(200)]
        assert aggregate.fit(given, [row(n, n % 2) for n in range(200)])[HEAD].closing == 0


class TestScored:
    """A response's score."""

    def test_is_the_highest_running_value(self) -> None:
        """As at runtime, unit by unit; units of the other side are left out."""
        pooling = Pooling(0.5, 0.3, 2.0)
        expected = pooling.running(np.array([1.0, -2.0, 3.0])).max()
        given = units(1.0, float("nan"), -2.0, 3.0)
        assert given.evidence(INDEX, pooling) == pytest.approx(expected)
        assert np.isnan(units(float("nan")).evidence(INDEX, pooling))

    def test_takes_in_the_closing_read(self) -> None:
        """Mixed with the highest unit, or that unit less the reserve."""
        pooling = Pooling(closing=0.5, reserve=1.0)
        assert units(2.0, 1.0, closing=4.0).evidence(INDEX, pooling) == 3.0
        assert units(2.0, 1.0, closing=-8.0).evidence(INDEX, pooling) == 1.0
        assert units(2.0).evidence(INDEX, pooling) == 2.0

    @pytest.mark.parametrize("pooling", [Pooling(0.5, 0.4, 1.0), Pooling(0.7, 0.4, 1.0, 0.3, 2.0)])
    def test_what_is_fitted_is_what_is_scored(self, pooling: Pooling) -> None:
        """All rows at once, as the fit has them, give what each gives by itself."""
        rng = np.random.default_rng(5)
        lengths = [1, 2, 5, 9] * 5
        ends = [None if n == 1 else float(rng.normal(0, 3)) for n in lengths]
        given = [
            units(*rng.normal(0, 3, n), closing=end) for n, end in zip(lengths, ends, strict=True)
        ]
        known = aggregate._known(HEAD, given, [row(n, n % 2) for n in range(len(given))])
        expected = [each.evidence(INDEX, pooling) for each in given]
        assert known.scores(pooling) == pytest.approx(expected)

    def test_pools_evidence_where_a_line_makes_it(self) -> None:
        """Units and closing read alike."""
        pooling = Pooling(closing=0.5)
        found = units(2.0, 1.0, closing=4.0).evidence(INDEX, pooling, lambda logit: logit / 2 - 1)
        assert found == pytest.approx(0.5)

    def test_scores_per_label(self) -> None:
        """Each label has the pooling that is its own, or none."""
        scores = aggregate.response_scores([units(1.0, 3.0)], {HEAD: Pooling(0.5, lone=9.0)})
        assert scores.shape == (1, len(HEADS))
        assert scores[0, INDEX] == pytest.approx(2.5)
        assert np.isnan(np.delete(scores[0], INDEX)).all()
