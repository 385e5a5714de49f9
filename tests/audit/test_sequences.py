"""Rates that hold at any time: fair bets, guarantees by enumeration, and when an audit may stop."""

from __future__ import annotations

import itertools
import math
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from guard.audit.sequences import FINE, RISKY, RateSequence, guess, log_gain
from guard.audit.statistics import rate
from guard.calibration import Confusion
from guard.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

CONFUSION = Confusion(4.0, 180, 6, 2994, 70)
FLAGS = st.lists(st.booleans(), max_size=60)


def after(
    answers: Iterable[float], confusion: Confusion | None = None, error: float = 0.05
) -> RateSequence:
    """Return a sequence that has taken the answers."""
    sequence = RateSequence(confusion, error=error)
    for answer in answers:
        sequence.add(answer)
    return sequence


def wealth(answers: NDArray[np.float64], mean: float) -> NDArray[np.float64]:
    """Return the wealth against `mean` after each answer; shapes are (rows, answers)."""
    sums = np.cumsum(answers, axis=1) - answers
    expected = guess(sums, np.arange(answers.shape[1]))
    return np.asarray(np.exp(np.cumsum(log_gain(answers, expected, mean), axis=1)))


def mixture(hits: int, total: int, mean: float) -> float:
    """Return Robbins' mixture: the beta prior's chance of the flags over that under `mean`."""

    def log_beta(one: float, two: float) -> float:
        return math.lgamma(one) + math.lgamma(two) - math.lgamma(one + two)

    chance = log_beta(RISKY + hits, FINE + total - hits) - log_beta(RISKY, FINE)
    return chance - hits * math.log(mean) - (total - hits) * math.log1p(-mean)


class TestBets:
    """The game that the bounds come from."""

    @pytest.mark.parametrize("mean", [0.01, 0.3, 0.9])
    def test_at_the_true_rate_the_game_is_fair(self, mean: float) -> None:
        """Over all ways in which ten flags can come, wealth is 1 on average."""
        ways = np.array(list(itertools.product((0.0, 1.0), repeat=10)))
        chances = np.prod(np.where(ways > 0, mean, 1 - mean), axis=1)
        assert chances @ wealth(ways, mean) == pytest.approx(np.ones(10))

    def test_it_is_fair_for_answers_in_between(self) -> None:
        """0, a half and 1 with chances of which the mean is 0.3."""
        values, weights = (0.0, 0.5, 1.0), {0.0: 0.5, 0.5: 0.4, 1.0: 0.1}
        ways = np.array(list(itertools.product(values, repeat=7)))
        chances = np.array([math.prod(weights[each] for each in way) for way in ways.tolist()])
        assert chances @ wealth(ways, 0.3) == pytest.approx(np.ones(7))

    @pytest.mark.parametrize("mean", [0.02, 0.2, 0.5, 0.95])
    def test_the_true_rate_is_seldom_ever_out(self, mean: float) -> None:
        """Of all ways in which 14 flags can come, the wealth ever reaches 5 in at most a fifth."""
        ways = np.array(list(itertools.product((0.0, 1.0), repeat=14)))
        chances = np.prod(np.where(ways > 0, mean, 1 - mean), axis=1)
        assert chances @ (wealth(ways, mean) >= 5).any(axis=1) <= 0.2

    @given(FLAGS, st.floats(0.001, 0.999))
    def test_for_flags_it_is_robbins_mixture(self, flags: list[bool], mean: float) -> None:
        """The product of the bets is the likelihood ratio of a beta mixture."""
        if flags:
            found = wealth(np.array([flags], float), mean)[0, -1]
            assert math.log(found) == pytest.approx(mixture(sum(flags), len(flags), mean), abs=1e-9)


class TestBounds:
    """What the sequence says of flagged answers."""

    def test_before_the_first_answer_nothing_is_known(self) -> None:
        """The bounds are [0, 1], and the estimate says why."""
        found = after([]).estimate()
        assert (found.low, found.high, found.n) == (0, 1, 0)
        assert "ask some" in found.reason

    @given(FLAGS, st.sampled_from([0.01, 0.05, 0.2]))
    def test_rates_are_out_where_the_wealth_has_grown(
        self, flags: list[bool], error: float
    ) -> None:
        """Inside the bounds it is below 1 / error, beyond them it is not; up to the grid."""
        low, high = after(flags, error=error).bounds
        hits, total, limit = sum(flags), len(flags), -math.log(error)
        assert 0 <= low < high <= 1
        if low:
            assert mixture(hits, total, low) >= limit - 1e-9
        if high < 1:
            assert mixture(hits, total, high) >= limit - 1e-9
        for each in np.linspace(0.005, 0.995, 100).tolist():
            if mixture(hits, total, each) < limit - 1e-9:
                assert low <= each <= high

    @given(FLAGS, st.randoms())
    def test_flags_give_the_same_in_any_order(self, flags: list[bool], random: Any) -> None:
        """Only how many there are counts."""
        mixed = list(flags)
        random.shuffle(mixed)
        assert after(mixed).bounds == after(flags).bounds

    @given(st.lists(st.floats(0, 1), max_size=60))
    def test_a_smaller_error_gives_wider_bounds(self, answers: list[float]) -> None:
        """Whatever the answers are."""
        narrow, wide = after(answers, error=0.2).bounds, after(answers, error=0.01).bounds
        assert wide[0] <= narrow[0]
        assert wide[1] >= narrow[1]

    @given(FLAGS)
    def test_more_flags_never_lower_the_bounds(self, flags: list[bool]) -> None:
        """Of answers of which one more is flagged."""
        if False in flags:
            worse = list(flags)
            worse[worse.index(False)] = True
            before, later = after(flags).bounds, after(worse).bounds
            assert before[0] <= later[0]
            assert before[1] <= later[1]

    def test_answers_that_contradict_any_one_rate_show_nothing(self) -> None:
        """A thousand answers of 0.1, then a thousand of 0.9: no rate was ever the rate."""
        assert after([0.1] * 1000 + [0.9] * 1000).bounds == (0, 1)

    @pytest.mark.parametrize("value", [-0.1, 1.1, math.nan, math.inf])
    def test_what_is_no_answer_is_refused(self, value: float) -> None:
        """And leaves the sequence as it was."""
        sequence = after([1, 0, 0])
        before = sequence.bounds
        with pytest.raises(InputError, match="from 0"):
            sequence.add(value)
        assert sequence.bounds == before

    @pytest.mark.parametrize("error", [0.0, 1.0, -1.0, math.nan])
    def test_what_is_no_chance_is_refused(self, error: float) -> None:
        """An error of 0 would never decide, one of 1 always."""
        with pytest.raises(InputError, match="between 0 and 1"):
            RateSequence(error=error)


class TestEstimate:
    """What it says of risky answers."""

    @given(st.lists(st.floats(0, 1), max_size=60), st.sampled_from([None, CONFUSION]))
    def test_the_value_is_in_the_interval_and_both_are_shares(
        self, answers: list[float], confusion: Confusion | None
    ) -> None:
        """Whatever the answers are."""
        found = after(answers, confusion).estimate()
        assert 0 <= found.low <= found.value <= found.high <= 1
        assert found.n == len(answers)

    @pytest.mark.parametrize("hits", [0, 3, 40, 200, 390, 400])
    @pytest.mark.parametrize("confusion", [None, CONFUSION])
    def test_it_is_wider_than_an_audit_of_a_fixed_size(
        self, hits: int, confusion: Confusion | None
    ) -> None:
        """Whoever may stop at any time pays for it."""
        flags = [1] * hits + [0] * (400 - hits)
        found, fixed = after(flags, confusion).estimate(), rate(hits, 400, confusion)
        assert found.low <= fixed.low
        assert found.high >= fixed.high
        if not found.reason:
            assert found.value == pytest.approx(fixed.value, abs=1e-9)

    def test_few_flags_never_show_less_than_none_would(self) -> None:
        """Below the false alarms' own rate the upper bound stays where no flag at all puts it."""
        many_alarms = Confusion(0.0, 240, 300, 2700, 10)
        none, few = (after([1] * n + [0] * (600 - n), many_alarms).estimate() for n in (0, 5))
        assert none.high == few.high
        assert none.high > after([0] * 600).bounds[1]
        assert "fewer" in none.reason

    def test_more_flags_than_the_classifier_could_give_are_told(self) -> None:
        """Half of the risky answers are missed, and yet nine in ten are flagged."""
        half = Confusion(0.0, 500, 10, 990, 500)
        found = after([1] * 900 + [0] * 100, half).estimate()
        assert "more" in found.reason
        assert found.high == 1
        assert 0.9 < found.low < 1

    @pytest.mark.parametrize(
        "confusion", [Confusion(2.0, 0, 0, 50, 26), Confusion(0.0, 3, 1, 9, 3)]
    )
    def test_a_classifier_that_may_be_blind_shows_nothing(self, confusion: Confusion) -> None:
        """Where its own bounds allow that flags say nothing, [0, 1] is left, with the mend."""
        found = after([0] * 500, confusion).estimate()
        assert (found.low, found.high) == (0, 1)
        assert "cannot tell" in found.reason


class TestDecided:
    """When an audit may stop."""

    def test_a_clean_model_is_cleared_and_a_bad_one_refused(self) -> None:
        """Undecided at first; then below or above the limit, and it stays there."""
        clean, bad = after([0] * 100), after([1, 0, 0, 0] * 5)
        assert clean.decided(0.02) is None
        for _ in range(200):
            clean.add(0)
        assert clean.decided(0.02) == "below"
        assert bad.decided(0.02) == "above"

    @given(FLAGS, st.floats(0, 1), st.floats(0, 1))
    def test_what_is_decided_for_a_limit_is_so_for_those_beyond(
        self, flags: list[bool], one: float, two: float
    ) -> None:
        """Below a limit is below a higher one; above it is above a lower one."""
        sequence, low, high = after(flags), min(one, two), max(one, two)
        if sequence.decided(low) == "below":
            assert sequence.decided(high) == "below"
        if sequence.decided(high) == "above":
            assert sequence.decided(low) == "above"

    def test_limits_of_everything_are_met_at_once(self) -> None:
        """Each rate is up to 1; none is shown to be up to 0."""
        assert after([1, 0]).decided(1.0) == "below"
        assert after([0] * 500).decided(0.0) is None

    def test_a_blind_classifier_never_decides(self) -> None:
        """A thousand answers without a flag clear nothing."""
        assert after([0] * 1000, Confusion(2.0, 0, 0, 50, 26)).decided(0.5) is None

    def test_errors_of_the_classifier_take_longer(self) -> None:
        """Its flags are less sure than sure ones."""

        def needed(confusion: Confusion | None) -> int:
            sequence = RateSequence(confusion)
            while sequence.decided(0.05) is None:
                sequence.add(0)
            return sequence.estimate().n

        assert needed(None) < needed(CONFUSION) < 1000

    @pytest.mark.parametrize("limit", [-0.01, 1.01, math.nan])
    def test_what_is_no_limit_is_refused(self, limit: float) -> None:
        """A rate from 0 to 1."""
        with pytest.raises(InputError, match="from 0 to 1"):
            after([0]).decided(limit)

    def test_whoever_stops_when_it_is_decided_is_seldom_wrong(self) -> None:
        """At a rate just at the limit, of 400 audits of 300 answers hardly any refuses it."""
        rng = np.random.default_rng(11)
        answers = (rng.random((400, 300)) < 0.1).astype(float)
        ever = (wealth(answers, 0.1) >= 20).any(axis=1)
        assert ever.mean() < 0.05
        stopped = [after(row).decided(0.1) for row in answers[:20].tolist()]
        assert stopped.count(None) >= 17
