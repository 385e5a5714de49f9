"""The audit's estimates: intervals that hold, small cases exactly, input that cannot be."""

from __future__ import annotations

import itertools
import math
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from guard.audit.statistics import (
    Counts,
    benjamini_hochberg,
    difference,
    effect,
    holm,
    paired_p_value,
    prediction_powered,
    rate,
    rate_of_questions,
    unpaired_p_value,
    worth,
)
from guard.audit.statistics.binomial import clopper_pearson, log_choose
from guard.calibration import Confusion, Share, wilson
from guard.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from numpy.typing import NDArray

    from guard.audit.statistics import Estimate

COUNT = st.integers(0, 400)
SURE = Confusion(0.0, 10**12, 0, 10**12, 0)
"""A classifier that never erred on very many rows."""


@st.composite
def confusions(draw: st.DrawFn) -> Confusion:
    """Return any confusion, of an empty calibration and of useless classifiers too."""
    return Confusion(0.0, draw(COUNT), draw(COUNT), draw(COUNT), draw(COUNT))


@st.composite
def useful_confusions(draw: st.DrawFn) -> Confusion:
    """Return the confusion of a classifier that tells risky answers from others."""
    found = draw(confusions())
    assume(found.true_positives + found.false_negatives > 0)
    assume(found.true_negatives + found.false_positives > 0)
    assume(found.sensitivity.value + found.specificity.value > 1)
    return found


@st.composite
def hits_of(draw: st.DrawFn) -> tuple[int, int]:
    """Return hits and answers, also none."""
    total = draw(COUNT)
    return draw(st.integers(0, total)), total


@st.composite
def counts(draw: st.DrawFn, *, questions: int | None = None, asked: int | None = None) -> Counts:
    """Return answers of up to a dozen questions, each asked up to six times."""
    number = draw(st.integers(1, 12)) if questions is None else questions
    totals = [draw(st.integers(1, 6)) if asked is None else asked for _ in range(number)]
    return Counts([draw(st.integers(0, total)) for total in totals], totals)


@st.composite
def pairs(draw: st.DrawFn) -> tuple[Counts, Counts]:
    """Return the same questions under two conditions."""
    number = draw(st.integers(1, 12))
    return draw(counts(questions=number)), draw(counts(questions=number))


def swapped(confusion: Confusion) -> Confusion:
    """Return the confusion of a classifier of fine answers."""
    return Confusion(
        0.0,
        confusion.true_negatives,
        confusion.false_negatives,
        confusion.true_positives,
        confusion.false_positives,
    )


def chance(hits: int, total: int, share: float) -> float:
    """Return the chance of `hits`."""
    return math.comb(total, hits) * share**hits * (1 - share) ** (total - hits)


def held(outcomes: Iterable[tuple[float, Estimate]], truth: float) -> float:
    """Return the chance that an interval holds the truth, over all outcomes with their chances."""
    return sum(p for p, found in outcomes if found.low - 1e-12 <= truth <= found.high + 1e-12)


def check_range(found: Estimate, least: float) -> None:
    """Check that an estimate is within its interval, and the interval within its range."""
    assert least <= found.low <= found.value <= found.high <= 1


class TestRate:
    """Rates of flagged and of risky answers."""

    @given(hits_of(), st.none() | confusions())
    def test_the_value_is_in_the_interval_and_both_are_shares(
        self, flagged: tuple[int, int], confusion: Confusion | None
    ) -> None:
        """Whatever was counted."""
        check_range(rate(*flagged, confusion), 0)

    @given(st.integers(1, 400), st.none() | confusions(), st.data())
    def test_more_hits_never_make_a_model_look_better(
        self, total: int, confusion: Confusion | None, data: st.DataObject
    ) -> None:
        """Value and both bounds rise with the hits, whole or in fractions."""
        less = data.draw(st.floats(0, total))
        more = data.draw(st.floats(less, total))
        before, after = rate(less, total, confusion), rate(more, total, confusion)
        assert before.low <= after.low + 1e-12
        assert before.value <= after.value + 1e-12
        assert before.high <= after.high + 1e-12

    @given(hits_of(), confusions())
    def test_to_call_risky_fine_turns_the_interval_around(
        self, flagged: tuple[int, int], confusion: Confusion
    ) -> None:
        """The share of fine answers is 1 less the share of risky ones, bounds and all."""
        hits, total = flagged
        found = rate(hits, total, confusion)
        other = rate(total - hits, total, swapped(confusion))
        assert (other.low, other.high) == pytest.approx((1 - found.high, 1 - found.low), abs=1e-9)
        assert other.value == pytest.approx(1 - found.value, abs=1e-9)

    @given(hits_of())
    def test_sure_hits_turn_around_too(self, flagged: tuple[int, int]) -> None:
        """Without a classifier as well."""
        hits, total = flagged
        found, other = rate(hits, total), rate(total - hits, total)
        assert (other.low, other.high) == pytest.approx((1 - found.high, 1 - found.low), abs=1e-9)

    @given(st.none() | confusions())
    def test_of_no_answers_nothing_is_known(self, confusion: Confusion | None) -> None:
        """The interval is [0, 1], and it says why."""
        found = rate(0, 0, confusion)
        assert (found.low, found.high, found.n) == (0, 1, 0)
        assert "ask some" in found.reason

    @given(hits_of())
    def test_sure_hits_have_an_interval_hardly_wider_than_wilsons(
        self, flagged: tuple[int, int]
    ) -> None:
        """It holds Wilson's, of which only the bound nearer to 0 or 1 moves, by half a hit."""
        hits, total = flagged
        assume(total)
        found, wilsons = rate(hits, total), wilson(hits, total)
        assert found.low <= wilsons.low
        assert found.high >= wilsons.high
        if hits * 2 <= total:
            assert found.high == wilsons.high
            assert found.low >= wilson(max(0.0, hits - 0.5), total).low

    @given(hits_of())
    def test_a_classifier_that_never_errs_leaves_wilsons_interval(
        self, flagged: tuple[int, int]
    ) -> None:
        """Nothing is corrected where there is nothing to correct."""
        assume(flagged[1])
        found, wilsons = rate(*flagged, SURE), wilson(*flagged)
        assert (found.low, found.value, found.high) == pytest.approx(
            (wilsons.low, wilsons.value, wilsons.high), abs=1e-4
        )

    @pytest.mark.parametrize(
        "confusion",
        [
            Confusion(2.0, 0, 0, 1993, 26),
            Confusion(0.0, 5, 50, 50, 5),
            Confusion(0.0, 10, 90, 10, 90),
            Confusion(0.0, 0, 0, 0, 0),
        ],
    )
    def test_a_blind_classifier_shows_nothing(self, confusion: Confusion) -> None:
        """Where sensitivity + specificity is up to 1 the interval is [0, 1], and it says why."""
        for hits in (0, 20, 400):
            found = rate(hits, 400, confusion)
            assert (found.low, found.high) == (0, 1)
            assert "cannot tell" in found.reason

    def test_without_risky_rows_the_upper_bound_is_open(self) -> None:
        """A sensitivity that nobody measured rules out no rate; false alarms alone are known."""
        found = rate(200, 400, Confusion(0.0, 0, 10, 1990, 0))
        assert found.high == 1
        assert found.low > 0.3

    @given(useful_confusions(), st.integers(1, 400), st.data())
    def test_it_holds_every_rate_that_the_counts_allow(
        self, confusion: Confusion, total: int, data: st.DataObject
    ) -> None:
        """A rate is in it if flagged - rate * sensitivity - (1 - rate) * alarms may be 0."""
        flagged = wilson(data.draw(st.integers(0, total)), total)
        positives = confusion.sensitivity
        alarms = wilson(
            confusion.false_positives, confusion.false_positives + confusion.true_negatives
        )
        found = rate(flagged.value * total, total, confusion)
        for each in np.linspace(0, 1, 101).tolist():
            left = flagged.value - each * positives.value - (1 - each) * alarms.value
            if left > 0:
                parts = (
                    flagged.value - flagged.low,
                    each * (positives.high - positives.value),
                    (1 - each) * (alarms.high - alarms.value),
                )
            else:
                parts = (
                    flagged.high - flagged.value,
                    each * (positives.value - positives.low),
                    (1 - each) * (alarms.value - alarms.low),
                )
            if abs(left) <= math.hypot(*parts):
                assert found.low - 1e-6 <= each <= found.high + 1e-6

    @given(useful_confusions(), hits_of())
    def test_answers_never_show_less_than_as_many_without_a_flag(
        self, confusion: Confusion, flagged: tuple[int, int]
    ) -> None:
        """However few are flagged, the upper bound leaves what n answers cannot rule out."""
        hits, total = flagged
        assume(total)
        found = rate(hits, total, confusion)
        assert found.high >= min(1, wilson(0, total).high) - 1e-12
        assert found.low <= wilson(total, total).low + 1e-12

    def test_counts_that_contradict_the_calibration_say_so(self) -> None:
        """Fewer flags than false alarms alone give, or more than sensitivity does, are told."""
        confusion = Confusion(0.0, 200, 240, 2160, 50)
        assert "fewer" in rate(2, 1000, confusion).reason
        assert rate(100, 1000, confusion).reason == ""
        assert "more" in rate(950, 1000, confusion).reason

    def test_a_larger_calibration_narrows_it(self) -> None:
        """Up to what the answers themselves leave open."""
        widths = []
        for size in (1, 10, 1000, 10**6):
            found = rate(60, 400, Confusion(0.0, 45 * size, 5 * size, 95 * size, 5 * size))
            widths.append(found.high - found.low)
        sure = wilson(60, 400)
        assert widths == sorted(widths, reverse=True)
        assert widths[-1] == pytest.approx((sure.high - sure.low) / 0.85, rel=0.01)

    @pytest.mark.parametrize("truth", [0.003, 0.01, 0.03, 0.1, 0.25, 0.5, 0.8, 0.99])
    @pytest.mark.parametrize("total", [30, 100, 250])
    def test_by_enumeration_sure_hits_hold_the_truth(self, total: int, truth: float) -> None:
        """Of all outcomes, weighted by their chances, at least 93 % hold it at every rate."""
        outcomes = ((chance(hits, total, truth), rate(hits, total)) for hits in range(total + 1))
        assert held(outcomes, truth) > 0.93

    @pytest.mark.parametrize("truth", [0.0, 0.1, 0.3, 0.5, 0.9])
    def test_by_enumeration_corrected_rates_hold_the_truth(self, truth: float) -> None:
        """Of all outcomes of 20 answers and a calibration of 12 and 15 rows."""
        sensitivity, alarms, total = 0.8, 0.1, 20
        flagged = truth * sensitivity + (1 - truth) * alarms
        outcomes = (
            (
                chance(hits, total, flagged)
                * chance(found, 12, sensitivity)
                * chance(wrong, 15, alarms),
                rate(hits, total, Confusion(0.0, found, wrong, 15 - wrong, 12 - found)),
            )
            for hits in range(total + 1)
            for found in range(13)
            for wrong in range(16)
        )
        assert held(outcomes, truth) > 0.94

    @pytest.mark.parametrize("flagged", [(-1, 10), (11, 10), (math.nan, 10), (1, math.nan)])
    def test_impossible_counts_are_refused(self, flagged: tuple[float, float]) -> None:
        """With the mend."""
        with pytest.raises(InputError, match="give hits and the number of answers"):
            rate(*flagged)

    @pytest.mark.parametrize(
        "confusion", [Confusion(0.0, -1, 0, 5, 5), Confusion(0.0, 1, -2, 5, 5)]
    )
    def test_impossible_confusions_are_refused(self, confusion: Confusion) -> None:
        """A calibration cannot have negative counts."""
        with pytest.raises(InputError, match="none of them negative"):
            rate(1, 10, confusion)


class TestRateOfQuestions:
    """Questions that were asked several times."""

    @given(hits_of(), st.none() | confusions())
    def test_questions_asked_once_are_answers(
        self, flagged: tuple[int, int], confusion: Confusion | None
    ) -> None:
        """Bounds and value are those of `rate`."""
        hits, total = flagged
        found = rate_of_questions(Counts([1] * hits + [0] * (total - hits), [1] * total), confusion)
        plain = rate(hits, total, confusion)
        assert (found.low, found.value, found.high) == pytest.approx(
            (plain.low, plain.value, plain.high), abs=1e-12
        )
        assert found.n == total

    @given(st.lists(st.booleans(), min_size=1, max_size=30), st.integers(1, 9))
    def test_asking_again_for_the_same_answer_shows_nothing_new(
        self, risky: list[bool], times: int
    ) -> None:
        """Questions that always get the same answer count once each."""
        asked = Counts([times * one for one in risky], [times] * len(risky))
        found, plain = rate_of_questions(asked), rate(sum(risky), len(risky))
        assert (found.low, found.high) == pytest.approx((plain.low, plain.high), abs=1e-12)

    @given(counts())
    def test_it_is_as_wide_as_one_answer_a_question_at_most(self, asked: Counts) -> None:
        """And as narrow as independent answers at least."""
        found = rate_of_questions(asked)
        share, most = float(asked.shares.mean()), int(asked.asked.sum())
        once, all_of_them = rate(share * asked.questions, asked.questions), rate(share * most, most)
        assert once.low - 1e-9 <= found.low <= all_of_them.low + 1e-9
        assert all_of_them.high - 1e-9 <= found.high <= once.high + 1e-9
        check_range(found, 0)

    @given(counts(), st.randoms())
    def test_the_order_does_not_matter(self, asked: Counts, random: Any) -> None:
        """Questions are a set."""
        order = list(range(asked.questions))
        random.shuffle(order)
        found = rate_of_questions(asked)
        again = rate_of_questions(Counts(asked.flagged[order], asked.asked[order]))
        assert (again.low, again.high) == pytest.approx((found.low, found.high), abs=1e-12)

    @pytest.mark.parametrize(
        ("flagged", "asked"), [([1, 2], [1, 1]), ([0], [0]), ([-1], [2]), ([0.5], [1]), ([1], [])]
    )
    def test_impossible_counts_are_refused(
        self, flagged: Sequence[int], asked: Sequence[int]
    ) -> None:
        """A question without an answer is none; each has both numbers."""
        with pytest.raises(InputError, match="question"):
            Counts(flagged, asked)


class TestWeighted:
    """Questions whose flags count for less."""

    @given(counts(), st.floats(0, 1))
    def test_lighter_flags_are_a_lower_rate(self, asked: Counts, weight: float) -> None:
        """Each share is multiplied by its weight, and the interval is still one of shares."""
        found = rate_of_questions(asked.weighted(np.full(asked.questions, weight)))
        assert found.value == pytest.approx(float(asked.shares.mean()) * weight)
        check_range(found, 0)

    @pytest.mark.parametrize("weights", [[1.0], [1.0, 1.5], [1.0, -0.1], [1.0, math.nan]])
    def test_what_is_no_weight_is_refused(self, weights: list[float]) -> None:
        """One in [0, 1] per question."""
        with pytest.raises(InputError, match="from 0 to 1 per question"):
            Counts([1, 0], [1, 1]).weighted(np.array(weights))

    def test_tests_want_whole_flags(self) -> None:
        """A weighted difference cannot be turned around by counting."""
        side = Counts([1, 0], [1, 1])
        with pytest.raises(InputError, match="not weighted"):
            paired_p_value(side.weighted(np.array([0.5, 1.0])), side)


class TestEffect:
    """The same questions under two conditions."""

    @given(pairs(), st.none() | confusions())
    def test_the_value_is_in_the_interval_and_both_are_differences(
        self, sides: tuple[Counts, Counts], confusion: Confusion | None
    ) -> None:
        """Whatever was counted."""
        check_range(effect(*sides, confusion), -1)

    @given(pairs(), st.none() | confusions())
    def test_swapping_the_conditions_turns_it_around(
        self, sides: tuple[Counts, Counts], confusion: Confusion | None
    ) -> None:
        """An effect of a style is minus the effect of leaving it."""
        found, back = effect(*sides, confusion), effect(sides[1], sides[0], confusion)
        assert (back.low, back.value, back.high) == pytest.approx(
            (-found.high, -found.value, -found.low), abs=1e-9
        )

    @given(counts())
    def test_nothing_that_differs_is_not_nothing_that_can_differ(self, side: Counts) -> None:
        """Equal sides have the effect 0, with bounds on either side of it."""
        found = effect(side, side)
        assert found.value == 0
        assert found.low < 0 < found.high

    @given(st.integers(0, 40), st.integers(0, 40), st.integers(0, 40))
    def test_for_one_answer_each_it_is_that_of_bonett_and_price(
        self, worse: int, better: int, same: int
    ) -> None:
        """Their formula, from the discordant pairs."""
        number = worse + better + same
        assume(number)
        first = Counts([1] * worse + [0] * (better + same), [1] * number)
        second = Counts([0] * worse + [1] * better + [0] * same, [1] * number)
        up, down = (worse + 1) / (number + 2), (better + 1) / (number + 2)
        half = 1.959964 * math.sqrt((up + down - (up - down) ** 2) / (number + 2))
        found = effect(first, second)
        assert found.value == pytest.approx((worse - better) / number)
        assert found.low == pytest.approx(max(-1, min(found.value, up - down - half)))
        assert found.high == pytest.approx(min(1, max(found.value, up - down + half)))

    @given(pairs(), useful_confusions())
    def test_the_correction_holds_every_quotient_that_the_counts_allow(
        self, sides: tuple[Counts, Counts], confusion: Confusion
    ) -> None:
        """A true effect is in it if seen - effect * power may be 0."""
        seen, found = effect(*sides), effect(*sides, confusion)
        good, right = confusion.sensitivity, confusion.specificity
        power = good.value + right.value - 1
        more = math.hypot(good.high - good.value, right.high - right.value)
        less = math.hypot(good.value - good.low, right.value - right.low)
        for each in np.linspace(-1, 1, 101).tolist():
            left = seen.value - each * power
            one = seen.value - seen.low if left > 0 else seen.high - seen.value
            # The power that brings effect * power nearer to what was seen.
            two = abs(each) * (more if (left > 0) == (each > 0) else less)
            if abs(left) <= math.hypot(one, two) - 1e-9:
                assert found.low - 1e-6 <= each <= found.high + 1e-6

    @given(pairs())
    def test_a_classifier_that_never_errs_changes_nothing(
        self, sides: tuple[Counts, Counts]
    ) -> None:
        """Nothing is corrected where there is nothing to correct."""
        found, plain = effect(*sides, SURE), effect(*sides)
        assert (found.low, found.high) == pytest.approx((plain.low, plain.high), abs=1e-5)

    @pytest.mark.parametrize("truth", [(0.0, 0.0), (0.1, 0.02), (0.3, 0.3), (0.6, 0.1)])
    def test_by_enumeration_it_holds_the_truth(self, truth: tuple[float, float]) -> None:
        """Of all outcomes of 25 pairs, by the chances of worse, better and same."""
        number, (worse, better) = 25, truth
        outcomes = []
        for up in range(number + 1):
            for down in range(number - up + 1):
                ways = math.comb(number, up) * math.comb(number - up, down)
                weight = worse**up * better**down * (1 - worse - better) ** (number - up - down)
                first = Counts([1] * up + [0] * (number - up), [1] * number)
                second = Counts([0] * up + [1] * down + [0] * (number - up - down), [1] * number)
                outcomes.append((ways * weight, effect(first, second)))
        assert held(outcomes, worse - better) > 0.94

    def test_of_no_questions_nothing_is_known(self) -> None:
        """The interval is [-1, 1]."""
        found = effect(Counts([], []), Counts([], []))
        assert (found.low, found.high, found.n) == (-1, 1, 0)
        assert "ask some" in found.reason

    def test_a_blind_classifier_shows_nothing(self) -> None:
        """The interval is [-1, 1], and it says why."""
        side = Counts([1, 0, 1], [1, 1, 1])
        found = effect(side, side, Confusion(0.0, 5, 50, 50, 5))
        assert (found.low, found.high) == (-1, 1)
        assert "cannot tell" in found.reason

    def test_other_questions_are_no_pairs(self) -> None:
        """Both conditions have the same questions."""
        with pytest.raises(InputError, match="the same questions in the same order"):
            effect(Counts([1], [1]), Counts([1, 0], [1, 1]))


class TestDifference:
    """Two models on different questions."""

    @given(hits_of(), hits_of(), st.none() | confusions())
    def test_it_is_a_difference_and_turns_around(
        self, first: tuple[int, int], second: tuple[int, int], confusion: Confusion | None
    ) -> None:
        """In [-1, 1], and minus the difference the other way."""
        found, back = difference(first, second, confusion), difference(second, first, confusion)
        check_range(found, -1)
        assert (back.low, back.high) == pytest.approx((-found.high, -found.low), abs=1e-9)

    @pytest.mark.parametrize(
        ("first", "second", "bounds"),
        [((56, 70), (48, 80), (0.0524, 0.3339)), ((9, 10), (3, 10), (0.1705, 0.8090))],
    )
    def test_it_is_what_newcombe_published(
        self, first: tuple[int, int], second: tuple[int, int], bounds: tuple[float, float]
    ) -> None:
        """Examples (a) and (c) of method 10 in his paper."""
        found = difference(first, second)
        assert (found.low, found.high) == pytest.approx(bounds, abs=5e-5)

    def test_of_no_answers_nothing_is_known(self) -> None:
        """On either side."""
        found = difference((0, 0), (5, 10))
        assert (found.low, found.high) == (-1, 1)

    def test_impossible_counts_are_refused(self) -> None:
        """More hits than answers."""
        with pytest.raises(InputError, match="cannot be"):
            difference((3, 10), (11, 10))


SHARES = st.lists(st.floats(0, 1), max_size=30)


class TestPredictionPowered:
    """A few labels beside many predictions."""

    @given(SHARES, st.lists(st.tuples(st.floats(0, 1), st.booleans()), max_size=30))
    def test_it_is_a_share_whatever_is_predicted(
        self, others: list[float], labelled: list[tuple[float, bool]]
    ) -> None:
        """Also of nothing."""
        known = np.array([each for each, _ in labelled])
        found = prediction_powered(np.array(others), known, truths(labelled))
        check_range(found, 0)
        assert found.n == len(labelled)

    @given(SHARES, st.lists(st.tuples(st.floats(0, 1), st.booleans()), max_size=30))
    def test_to_call_risky_fine_turns_it_around(
        self, others: list[float], labelled: list[tuple[float, bool]]
    ) -> None:
        """Predictions and labels of fine answers give the share of fine answers."""
        known, rest = np.array([each for each, _ in labelled]), np.array(others)
        truth = truths(labelled)
        found = prediction_powered(rest, known, truth)
        other = prediction_powered(1 - rest, 1 - known, ~truth)
        assert (other.low, other.high) == pytest.approx((1 - found.high, 1 - found.low), abs=1e-6)

    @given(hits_of(), st.floats(0, 1))
    def test_predictions_that_say_nothing_leave_the_labels(
        self, flagged: tuple[int, int], constant: float
    ) -> None:
        """Without others, or with one and the same prediction, it is Wilson's of the labels."""
        hits, total = flagged
        assume(total)
        truth = np.arange(total) < hits
        for others in (np.empty(0), np.full(50, constant)):
            found = prediction_powered(others, np.full(total, constant), truth)
            wilsons = wilson(hits, total)
            assert (found.low, found.high) == pytest.approx((wilsons.low, wilsons.high), abs=1e-9)

    def test_good_predictions_narrow_it_and_bad_ones_do_no_harm(self) -> None:
        """Against the labels alone: right, random and opposite predictions of 2,000 answers."""
        rng = np.random.default_rng(3)
        risky = rng.random(2000) < 0.3
        truth = risky[:200]
        wilsons = wilson(int(truth.sum()), 200)
        alone = wilsons.high - wilsons.low
        widths = {}
        for name, seen in (
            ("right", risky.astype(float)),
            ("random", rng.random(2000)),
            ("opposite", 1.0 - risky),
        ):
            found = prediction_powered(seen[200:], seen[:200], truth)
            widths[name] = found.high - found.low
        assert widths["right"] < alone / 2
        assert widths["random"] < alone * 1.02
        assert widths["opposite"] < alone * 1.02

    def test_biased_predictions_do_not_bias_it(self) -> None:
        """Predictions that are twice too high on the mean leave the estimate where labels are."""
        rng = np.random.default_rng(4)
        found = []
        for _ in range(300):
            risky = rng.random(1100) < 0.2
            seen = np.where(risky, 0.9, 0.4)
            found.append(prediction_powered(seen[100:], seen[:100], risky[:100]).value)
        assert np.mean(found) == pytest.approx(0.2, abs=0.005)

    def test_right_predictions_of_what_never_happened_are_not_certain(self) -> None:
        """A hundred labels without a risky one leave room for what they cannot rule out."""
        found = prediction_powered(np.zeros(5000), np.zeros(100), np.zeros(100, bool))
        assert found.low == 0
        assert found.high == pytest.approx(wilson(0, 100).high)

    def test_without_labels_nothing_is_known(self) -> None:
        """The interval is [0, 1], and it says why."""
        found = prediction_powered(np.ones(9), np.empty(0), np.empty(0, bool))
        assert (found.low, found.high) == (0, 1)
        assert "label some" in found.reason

    @pytest.mark.parametrize(
        ("others", "labelled", "truth"),
        [
            (np.array([1.5]), np.array([0.5]), np.array([True])),
            (np.array([math.nan]), np.array([0.5]), np.array([True])),
            (np.array([[0.5]]), np.array([0.5]), np.array([True])),
            (np.array([0.5]), np.array([-0.5]), np.array([True])),
            (np.array([0.5]), np.array([0.5]), np.array([True, False])),
            (np.array([0.5]), np.array([0.5]), np.array([1.0])),
        ],
    )
    def test_what_is_no_prediction_or_label_is_refused(
        self, others: NDArray[Any], labelled: NDArray[Any], truth: NDArray[Any]
    ) -> None:
        """Values outside [0, 1], other shapes, labels that are no booleans."""
        with pytest.raises(InputError, match="must"):
            prediction_powered(others, labelled, truth)


ANSWERS = st.lists(
    st.tuples(st.floats(0, 1), st.booleans(), st.booleans(), st.integers(0, 5)), max_size=30
)
"""Answers: prediction, whether risky, whether labelled, and the question that each belongs to."""

STYLES = (*(1,) * 7, *(6,) * 6, *(7,) * 2)
"""How many answers the built-in probes ask for per question about stereotypes."""


def powered(
    predicted: NDArray[Any], risky: NDArray[Any], known: NDArray[Any], question: NDArray[Any]
) -> Estimate:
    """Return the estimate of answers of which `known` ones have a label."""
    questions = np.concatenate([question[~known], question[known]])
    return prediction_powered(predicted[~known], predicted[known], risky[known], questions)


def alike(
    rng: np.random.Generator, sizes: Sequence[int], copied: float
) -> tuple[NDArray[np.bool_], NDArray[np.int64]]:
    """Return answers of which 30 % are risky, a part of them copies of their question's first."""
    question = np.repeat(np.arange(len(sizes)), sizes)
    first, own = rng.random(len(sizes)) < 0.3, rng.random(len(question)) < 0.3
    return np.where(rng.random(len(question)) < copied, first[question], own), question


class TestPredictionPoweredByQuestion:
    """Labels where several answers belong to one question."""

    @given(SHARES, st.lists(st.tuples(st.floats(0, 1), st.booleans()), min_size=1, max_size=30))
    def test_one_answer_each_is_as_without_questions(
        self, others: list[float], labelled: list[tuple[float, bool]]
    ) -> None:
        """And by the same name."""
        known = np.array([each for each, _ in labelled])
        plain = prediction_powered(np.array(others), known, truths(labelled))
        names = np.array([f"q{n:02}" for n in range(len(others) + len(known))])
        assert prediction_powered(np.array(others), known, truths(labelled), names) == plain

    def test_one_answer_each_is_what_it_was_before_there_were_questions(self) -> None:
        """Figures of the first version, which knew independent answers alone."""
        truth = np.arange(40) % 5 == 0
        known = np.where(truth, 0.8, 0.1) + 0.02 * (np.arange(40) % 4)
        found = prediction_powered(np.linspace(0, 1, 120) ** 3, known, truth)
        assert (found.value, found.low, found.high) == pytest.approx(
            (0.18210084033613444, 0.11603203726675494, 0.2741232488944239), abs=1e-12
        )

    @given(st.lists(st.booleans(), min_size=1, max_size=20), st.integers(2, 6))
    def test_labelling_the_same_answer_again_shows_nothing_new(
        self, risky: list[bool], times: int
    ) -> None:
        """Questions that always get the same answer count once each, or less where few."""
        truth = np.repeat(np.array(risky), times)
        question = np.repeat(np.arange(len(risky)), times)
        found = prediction_powered(np.empty(0), truth.astype(float), truth, question)
        few = (1 + 1 / len(risky)) / (1 + 1 / len(truth))
        wilsons = wilson(sum(risky) / few, len(risky) / few)
        assert (found.low, found.high) == pytest.approx((wilsons.low, wilsons.high), abs=1e-9)
        assert (found.n, found.method) == (len(risky), "ppi++, by question")

    @given(counts())
    def test_the_rate_is_the_mean_over_questions(self, asked: Counts) -> None:
        """As without labels: a question does not count for more because it was asked more often."""
        question = np.repeat(np.arange(asked.questions), asked.asked.astype(int))
        place = np.concatenate([np.arange(each) for each in asked.asked])
        truth = place < asked.flagged[question]
        found = prediction_powered(np.empty(0), np.zeros(len(truth)), truth, question)
        assert found.value == pytest.approx(rate_of_questions(asked).value)

    @given(ANSWERS, st.randoms(use_true_random=False))
    def test_it_is_a_share_that_turns_around_and_knows_no_order(
        self, answers: list[tuple[float, bool, bool, int]], random: Any
    ) -> None:
        """Whichever answers of a question are labelled, none of them included."""
        order = random.sample(range(len(answers)), len(answers))
        predicted = np.array([each[0] for each in answers])
        risky, known = (np.array([each[at] for each in answers], bool) for at in (1, 2))
        question = np.array([each[3] for each in answers], int)
        found = powered(predicted, risky, known, question)
        check_range(found, 0)
        turned = powered(1 - predicted, ~risky, known, question)
        bounds = (found.low, found.high)
        assert (1 - turned.high, 1 - turned.low) == pytest.approx(bounds, abs=1e-6)
        again = powered(predicted[order], risky[order], known[order], 9 - question[order])
        assert (again.low, again.high) == pytest.approx(bounds, abs=1e-6)

    @pytest.mark.parametrize("copied", [0.85, 0.5, 0.0])
    @pytest.mark.parametrize(("sizes", "labels"), [(STYLES, 57), (STYLES, 30), ((5,) * 60, 100)])
    def test_the_interval_holds_the_truth_however_alike_answers_are(
        self, sizes: tuple[int, ...], labels: int, copied: float
    ) -> None:
        """In about 95 of 100 audits; as if all answers were independent it was in 61 at worst."""
        rng, runs = np.random.default_rng(7), 400
        inside = 0
        for _ in range(runs):
            risky, question = alike(rng, sizes, copied)
            known = rng.permutation(len(risky)) < labels
            predicted = np.where(rng.random(len(risky)) < 0.9, risky, ~risky).astype(float)
            found = powered(predicted, risky, known, question)
            inside += found.low <= 0.3 <= found.high
        assert inside >= 0.92 * runs

    def test_where_answers_are_not_alike_it_is_hardly_wider(self) -> None:
        """On average over audits, against the same answers as questions of their own."""
        rng = np.random.default_rng(8)
        widths = []
        for _ in range(100):
            risky, question = alike(rng, (5,) * 60, 0.0)
            known = rng.permutation(300) < 100
            predicted = np.where(rng.random(300) < 0.9, risky, ~risky).astype(float)
            ways = (powered(predicted, risky, known, each) for each in (question, np.arange(300)))
            widths.append([found.high - found.low for found in ways])
        ours, independent = np.mean(widths, axis=0)
        assert independent < ours < 1.12 * independent

    def test_questions_must_fit_the_answers(self) -> None:
        """One for each, labelled or not."""
        with pytest.raises(InputError, match="for each of the 3 answers"):
            prediction_powered(np.zeros(1), np.zeros(2), np.zeros(2, bool), np.arange(2))


class TestWorth:
    """What an interval says of the answers behind it."""

    @given(st.floats(0, 1), st.floats(0.5, 5000))
    def test_wilsons_interval_is_worth_its_counts(self, share: float, total: float) -> None:
        """Back from the bounds to what they came from."""
        hits, answers = worth(wilson(share * total, total), 1e9)
        assert answers == pytest.approx(total, rel=1e-6)
        assert hits == pytest.approx(share * total, rel=1e-6)

    @given(hits_of(), confusions())
    def test_a_rate_is_worth_no_more_than_its_answers(
        self, flagged: tuple[int, int], confusion: Confusion
    ) -> None:
        """And no less than none; its value stays."""
        found = rate(*flagged, confusion)
        share = Share(found.value, found.low, found.high)
        hits, answers = worth(share, flagged[1])
        assert 0 <= hits <= answers <= flagged[1]
        assert hits == pytest.approx(found.value * answers)

    def test_what_is_wide_open_is_worth_nothing_and_what_is_closed_all(self) -> None:
        """An interval from 0 to 1, and one of no width, as some other tool may write."""
        assert worth(Share(0.5, 0.0, 1.0), 100) == (0, 0)
        assert worth(Share(0.25, 0.25, 0.25), 100) == (25, 100)
        assert worth(Share(0.0, 0.0, 0.0), 100) == (0, 100)

    @pytest.mark.parametrize("share", [Share(0.5, 0.6, 1.0), Share(0.5, 0.0, 1.1)])
    def test_bounds_that_cannot_be_are_refused(self, share: Share) -> None:
        """Out of order, or out of range."""
        with pytest.raises(InputError, match="between its bounds"):
            worth(share, 10)


def truths(labelled: list[tuple[float, bool]]) -> NDArray[np.bool_]:
    """Return the labels."""
    return np.array([each for _, each in labelled], bool)


def mid_p(weights: Sequence[Fraction], seen: int) -> float:
    """Return the two-sided mid-p by its definition, from exact chances."""
    total = sum(weights)
    below = sum(weights[:seen], Fraction(0)) + weights[seen] / 2
    above = sum(weights[seen + 1 :], Fraction(0)) + weights[seen] / 2
    return float(min(Fraction(1), 2 * min(below, above) / total))


class TestPairedPValue:
    """The same questions, asked of two models."""

    @given(st.integers(1, 9), st.integers(1, 4), st.data())
    def test_it_is_what_turning_every_question_around_gives(
        self, number: int, asked: int, data: st.DataObject
    ) -> None:
        """All 2^n ways, counted."""
        first = data.draw(counts(questions=number, asked=asked))
        second = data.draw(counts(questions=number, asked=asked))
        apart = (first.flagged - second.flagged).astype(int).tolist()
        sums = [
            sum(s * d for s, d in zip(signs, apart, strict=True))
            for signs in itertools.product((1, -1), repeat=number)
        ]
        values = sorted(set(sums) | {sum(apart)})
        weights = [Fraction(sums.count(value)) for value in values]
        expected = mid_p(weights, values.index(sum(apart)))
        assert paired_p_value(first, second) == pytest.approx(expected, abs=1e-12)

    def test_for_one_answer_each_it_is_mcnemars(self) -> None:
        """Twelve against two of the pairs that differ."""
        first = Counts([1] * 12 + [0] * 30, [1] * 42)
        second = Counts([0] * 12 + [1] * 2 + [0] * 28, [1] * 42)
        tail = sum(math.comb(14, k) for k in range(2)) + math.comb(14, 2) / 2
        assert paired_p_value(first, second) == pytest.approx(2 * tail / 2**14)

    @given(pairs())
    def test_sides_asked_unequally_are_refused(self, sides: tuple[Counts, Counts]) -> None:
        """Their differences would not be as likely the other way around."""
        first, second = sides
        if np.array_equal(first.asked, second.asked):
            assert 0 < paired_p_value(first, second) <= 1
            assert paired_p_value(first, second) == pytest.approx(paired_p_value(second, first))
        else:
            with pytest.raises(InputError, match="equally often"):
                paired_p_value(first, second)

    def test_many_questions_do_not_overflow(self) -> None:
        """Two thousand questions that all moved leave a tiny chance, not an error."""
        every = [1] * 2000
        assert paired_p_value(Counts(every, every), Counts([0] * 2000, every)) < 1e-300

    def test_of_no_questions_nothing_is_surprising(self) -> None:
        """The p-value is 1."""
        assert paired_p_value(Counts([], []), Counts([], [])) == 1


class TestUnpairedPValue:
    """Two models on different questions."""

    @given(st.integers(0, 25), st.integers(0, 25), st.data())
    def test_it_is_what_counting_every_table_gives(
        self, one: int, two: int, data: st.DataObject
    ) -> None:
        """Fisher's test from exact chances, the same when sides or outcomes are swapped."""
        a, b = data.draw(st.integers(0, one)), data.draw(st.integers(0, two))
        start, end = max(0, a + b - two), min(one, a + b)
        weights = [
            Fraction(math.comb(one, k) * math.comb(two, a + b - k)) for k in range(start, end + 1)
        ]
        found = unpaired_p_value((a, one), (b, two))
        assert found == pytest.approx(mid_p(weights, a - start), abs=1e-10)
        assert found == pytest.approx(unpaired_p_value((b, two), (a, one)), abs=1e-10)
        assert found == pytest.approx(unpaired_p_value((one - a, one), (two - b, two)), abs=1e-10)

    def test_large_counts_are_no_trouble(self) -> None:
        """Thousands of answers, of which twice as many are flagged on one side."""
        assert unpaired_p_value((200, 5000), (400, 5000)) < 1e-15
        assert unpaired_p_value((200, 5000), (201, 5000)) > 0.9

    def test_fractions_are_made_whole_with_fewer_answers(self) -> None:
        """The nearest share of them; of less than one answer nothing is surprising."""
        assert unpaired_p_value((3.6, 10.8), (9, 10)) == unpaired_p_value((3, 10), (9, 10))
        assert unpaired_p_value((0.9, 0.9), (0, 10)) == 1

    def test_impossible_counts_are_refused(self) -> None:
        """Negative ones."""
        with pytest.raises(InputError, match="cannot be"):
            unpaired_p_value((-1, 10), (1, 10))


P_VALUES = st.lists(st.floats(0, 1), max_size=8)


class TestMultiplicity:
    """Many comparisons at once."""

    @given(st.lists(st.floats(0, 1), max_size=6))
    def test_holm_is_what_testing_every_intersection_gives(self, values: list[float]) -> None:
        """Closed testing: a claim stands if every set of comparisons that holds it is refuted."""
        expected = [
            max(
                min(1.0, len(group) * min(values[i] for i in group))
                for size in range(1, len(values) + 1)
                for group in itertools.combinations(range(len(values)), size)
                if each in group
            )
            for each in range(len(values))
        ]
        assert holm(values) == pytest.approx(expected)

    @given(P_VALUES, st.floats(0.001, 0.999))
    def test_benjamini_hochberg_claims_what_stepping_up_does(
        self, values: list[float], level: float
    ) -> None:
        """At any level: the largest k of which the k-th is up to level * k / n, and all below."""
        ordered = sorted(values)
        count = len(values)  # rounded as the method rounds: `level` may be a value itself
        steps = [k for k in range(1, count + 1) if ordered[k - 1] * (count / k) <= level]
        claimed = set(ordered[: max(steps, default=0)])
        adjusted = benjamini_hochberg(values)
        for value, each in zip(values, adjusted, strict=True):
            assert (each <= level) == (value in claimed)

    @given(P_VALUES, st.randoms(), st.sampled_from([holm, benjamini_hochberg]))
    def test_order_is_kept_and_nothing_becomes_surer(
        self, values: list[float], random: Any, method: Callable[[list[float]], list[float]]
    ) -> None:
        """Adjusted values are in [0, 1], no less than before and go with their comparison."""
        adjusted = method(values)
        assert all(a >= v for a, v in zip(adjusted, values, strict=True))
        assert all(0 <= a <= 1 for a in adjusted)
        order = list(range(len(values)))
        random.shuffle(order)
        assert method([values[i] for i in order]) == pytest.approx([adjusted[i] for i in order])

    @pytest.mark.parametrize("method", [holm, benjamini_hochberg])
    @pytest.mark.parametrize("values", [[1.5], [-0.1], [math.nan], [[0.5]]])
    def test_what_is_no_chance_is_refused(
        self, method: Callable[[Any], list[float]], values: list[Any]
    ) -> None:
        """Only numbers in [0, 1]."""
        with pytest.raises(InputError, match="p-values"):
            method(values)


class TestClopperPearson:
    """Exact intervals of a share."""

    @given(st.integers(0, 40), st.sampled_from([0.01, 0.05, 0.2]), st.data())
    def test_beyond_its_bounds_the_counts_are_too_unlikely(
        self, total: int, error: float, data: st.DataObject
    ) -> None:
        """At a bound what was seen, or more extreme, has the chance error / 2, not more."""
        hits = data.draw(st.integers(0, total))
        low, high = clopper_pearson(hits, total, error)
        assert 0 <= low <= (hits / total if total else 1) <= max(high, hits == 0) <= 1
        if hits:
            tail = sum(chance(k, total, low) for k in range(hits, total + 1))
            assert tail == pytest.approx(error / 2, rel=1e-6)
        if hits < total:
            tail = sum(chance(k, total, high) for k in range(hits + 1))
            assert tail == pytest.approx(error / 2, rel=1e-6)

    @pytest.mark.parametrize("truth", [0.001, 0.05, 0.3, 0.5, 0.97])
    def test_by_enumeration_it_never_misses_more_often(self, truth: float) -> None:
        """Over all outcomes of 40 trials."""
        bounds = [clopper_pearson(hits, 40, 0.05) for hits in range(41)]
        weights = [chance(hits, 40, truth) for hits in range(41)]
        missed = sum(
            weight
            for weight, (low, high) in zip(weights, bounds, strict=True)
            if not low <= truth <= high
        )
        assert missed <= 0.05

    def test_ways_to_choose_are_exact(self) -> None:
        """Logs of binomial coefficients."""
        assert np.exp(log_choose(12)) == pytest.approx([math.comb(12, k) for k in range(13)])
