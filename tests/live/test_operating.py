"""What validation leaves open: cells and the factors that speak against them."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from guard.calibration import Confusion
from guard.errors import ConfigurationError
from guard.live.operating import Operating, nulls


def factor_at(operating: Operating, rate: float) -> float:
    """Return the factor of the cell in which a false-positive rate lies, `inf` beyond all."""
    for null in nulls(operating, 1e-12, alpha=1e-4, seen=1e-4):
        if rate <= null.rate:
            return math.exp(null.factor)
    return math.inf


class TestOperating:
    """The counts."""

    def test_is_read_from_a_confusion(self) -> None:
        """A calibration's confusion gives all of it."""
        found = Operating.of(Confusion(3.0, 40, 5, 995, 10))

        assert found == Operating(3.0, 40, 50, 5, 1000)
        assert found.sensitivity == 0.8
        assert found.false_rate == 0.005
        assert found.exceedance_rate(0.1) == pytest.approx(0.9 * 0.005 + 0.1 * 0.8)

    @pytest.mark.parametrize(
        "counts", [(1.0, 5, 4, 0, 9), (1.0, 0, 0, 0, 9), (1.0, 1, 2, -1, 9), (math.nan, 1, 2, 0, 9)]
    )
    def test_refuses_what_cannot_be(self, counts: tuple[float, int, int, int, int]) -> None:
        """More hits than rows, no rows, negative counts and no threshold are errors."""
        with pytest.raises(ConfigurationError):
            Operating(*counts)


class TestNulls:
    """The cells."""

    @settings(max_examples=15)
    @given(st.integers(5, 30), st.floats(0.001, 0.6))
    def test_factors_have_a_mean_of_one_at_most(self, rows: int, rate: float) -> None:
        """Whatever the true false-positive rate, validation rarely speaks against it."""
        mean = 0.0
        for seen in range(rows + 1):
            chance = math.comb(rows, seen) * rate**seen * (1 - rate) ** (rows - seen)
            # Beyond all cells the alarm is free, as at the smallest level.
            factor = min(factor_at(Operating(1.0, 1, 2, seen, rows), rate), 1e4)
            mean += chance * factor

        assert mean <= 1 + 1e-9

    @given(st.integers(0, 30), st.integers(100, 50_000))
    def test_rise_with_the_rate(self, seen: int, rows: int) -> None:
        """Cells lie side by side, and the further off a rate, the more speaks against it."""
        found = nulls(Operating(1.0, 80, 100, seen, rows), 0.001, alpha=0.001, seen=0.001)

        assert [null.rate for null in found] == sorted(null.rate for null in found)
        assert [null.factor for null in found] == sorted(null.factor for null in found)

    def test_more_rows_leave_less_open(self) -> None:
        """The last cell's rate comes down to what was seen as rows grow."""
        highest = [
            nulls(Operating(1.0, 80, 100, rows // 500, rows), 0.001, alpha=0.001, seen=0.001)[
                -1
            ].rate
            for rows in (1_000, 10_000, 1_000_000)
        ]

        assert highest == sorted(highest, reverse=True)
        assert highest[-1] < 0.004

    def test_tolerated_answers_are_allowed_for(self) -> None:
        """Tolerating more raises every cell by no more than what is tolerated."""
        operating = Operating(1.0, 80, 100, 2, 1000)
        strict = nulls(operating, 0.001, alpha=0.001, seen=0.001)
        lax = nulls(operating, 0.01, alpha=0.001, seen=0.001)

        for one, other in zip(strict, lax, strict=True):
            assert one.rate < other.rate <= one.rate + 0.009
