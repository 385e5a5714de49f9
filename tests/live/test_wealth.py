"""The test over the whole life: a fair game under every null, exact against enumeration."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from guard.live.operating import Null
from guard.live.wealth import Wealth


class TestFairness:
    """Nobody grows rich while all is well."""

    @given(
        st.floats(0.01, 0.6), st.lists(st.floats(0, 1), min_size=7, max_size=7), st.integers(0, 7)
    )
    def test_mean_wealth_is_one_at_most(
        self, rate: float, shares: list[float], length: int
    ) -> None:
        """Over every sequence, with any rates up to the null's, it adds up to 1 or less."""
        wealth = Wealth([Null(rate, 0.0)], 0.01)
        mean = 0.0
        for sequence in itertools.product((0, 1), repeat=length):
            chance = 1.0
            for hit, share in zip(sequence, shares, strict=False):
                chance *= rate * share if hit else 1 - rate * share
            mean += chance * math.exp(wealth.log(sum(sequence), length))

        assert mean <= 1 + 1e-9

    def test_the_hardest_null_counts(self) -> None:
        """Against several nulls the wealth is that where the gambler fares worst."""
        easy, hard = Null(0.001, 0.0), Null(0.01, 0.0)
        both = Wealth([easy, hard], 0.01)

        assert both.log(30, 1000) == pytest.approx(Wealth([hard], 0.01).log(30, 1000))
        assert Wealth([easy], 0.01).log(30, 1000) > both.log(30, 1000)

    def test_what_validation_rules_out_is_no_hindrance(self) -> None:
        """A null whose factor is enough for an alarm alone need not be played against."""
        far = Null(0.3, 5.0)

        assert Wealth([Null(0.01, 0.0), far], 0.01).log(30, 1000) == pytest.approx(
            Wealth([Null(0.01, 0.0)], 0.01).log(30, 1000)
        )


class TestAlarm:
    """When it is enough."""

    @given(st.integers(0, 200), st.integers(0, 5_000))
    def test_asks_every_null(self, exceedances: int, quiet: int) -> None:
        """The short cut over the hardest null says what the whole says, whatever came before."""
        nulls = [Null(0.002, -0.5), Null(0.004, 0.5), Null(0.01, 2.0)]
        wealth = Wealth(nulls, 0.004)
        wealth.reached(50, 200)

        exchanges = exceedances + quiet
        enough = wealth.log(exceedances, exchanges) >= wealth.needed
        assert wealth.reached(exceedances, exchanges) == enough

    @given(st.integers(1, 500), st.integers(0, 5_000))
    def test_more_exceedances_never_say_less(self, exceedances: int, quiet: int) -> None:
        """An exceedance in the place of a quiet exchange adds evidence."""
        wealth = Wealth([Null(0.003, 0.0), Null(0.008, 1.0)], 0.004)
        exchanges = exceedances + quiet

        less = wealth.log(exceedances - 1, exchanges)
        assert wealth.log(exceedances, exchanges) >= less

    def test_arrays_say_the_same(self) -> None:
        """Many counts at once give what they give one by one."""
        wealth = Wealth([Null(0.003, 0.2), Null(0.6, 0.4)], 0.004)
        hits, total = np.array([0, 3, 40]), np.array([10, 500, 900])

        one_by_one = [wealth.log(int(k), int(n)) for k, n in zip(hits, total, strict=True)]
        assert wealth.logs(hits, total) == pytest.approx(one_by_one)
