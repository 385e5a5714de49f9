"""Exact tails and bounds of what is counted."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from guard.live.binomial import at_most, highest_rate


def enumerated(hits: int, total: int, rate: float) -> float:
    """Return the tail by adding up every term."""
    return math.fsum(
        math.comb(total, k) * rate**k * (1 - rate) ** (total - k) for k in range(hits + 1)
    )


class TestTail:
    """`at_most`."""

    @given(st.integers(1, 60), st.data(), st.floats(0.001, 0.999))
    def test_equals_the_sum_of_its_terms(
        self, total: int, data: st.DataObject, rate: float
    ) -> None:
        """The continued fraction gives what adding up gives."""
        hits = data.draw(st.integers(0, total))

        assert at_most(hits, total, rate) == pytest.approx(enumerated(hits, total, rate), abs=1e-12)

    @given(st.integers(0, 50), st.integers(51, 100_000), st.floats(0, 1), st.floats(0, 1))
    def test_falls_as_the_rate_rises(self, hits: int, total: int, one: float, two: float) -> None:
        """The more frequent something is, the less likely is it to be seen so rarely."""
        low, high = sorted((one, two))

        assert at_most(hits, total, high) <= at_most(hits, total, low) + 1e-12

    def test_knows_the_ends(self) -> None:
        """Rates of 0 and 1 and full counts need no fraction."""
        assert at_most(0, 10, 0.0) == 1.0
        assert at_most(3, 10, 1.0) == 0.0
        assert at_most(10, 10, 0.5) == 1.0

    def test_holds_for_millions_of_rows(self) -> None:
        """A count at its mean has a chance of about one half, however many rows there are."""
        assert at_most(20_000, 10_000_000, 0.002) == pytest.approx(0.5, abs=0.01)


class TestBound:
    """`highest_rate`."""

    def test_is_known_where_nothing_was_seen(self) -> None:
        """Without a hit the bound solves (1 - p)^n = level."""
        assert highest_rate(0, 500, 0.05) == pytest.approx(1 - 0.05 ** (1 / 500), abs=1e-9)

    @given(st.integers(1, 40), st.data(), st.sampled_from([0.3, 0.05, 0.001]))
    def test_is_where_the_tail_is_the_level(
        self, total: int, data: st.DataObject, level: float
    ) -> None:
        """At the bound so few hits have exactly the level's chance."""
        hits = data.draw(st.integers(0, total - 1))

        bound = highest_rate(hits, total, level)

        assert enumerated(hits, total, bound) == pytest.approx(level, rel=1e-6)

    def test_knows_nothing_of_no_rows(self) -> None:
        """Where nothing was drawn every rate is possible."""
        assert highest_rate(0, 0, 0.05) == 1.0
