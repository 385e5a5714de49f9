"""Shares in per cent: what rounding may not say."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from guard.percent import percent, reached


@pytest.mark.parametrize(
    ("share", "text"),
    [
        (0.0, "0.0%"),
        (-0.0, "0.0%"),
        (1.0, "100.0%"),
        (0.123, "12.3%"),
        (0.0004, "0.04%"),
        (0.00013, "0.01%"),
        (-0.00004, "-0.004%"),
        (0.9996, "99.96%"),
        (0.999999, "99.9999%"),
        (1e-18, "0.0%"),
        (1 - 1e-12, "100.0%"),
    ],
)
def test_a_share_has_as_many_decimals_as_it_needs(share: float, text: str) -> None:
    """One, or more where one would say none or all; noise of arithmetic is none."""
    assert percent(share) == text


def test_a_change_may_have_its_sign() -> None:
    """What is positive as well as what is negative."""
    assert percent(0.0004, "+") == "+0.04%"
    assert percent(-0.5, "+") == "-50.0%"
    assert percent(0.0, "+") == "+0.0%"


@given(st.floats(-1, 1))
def test_only_none_and_all_read_so(share: float) -> None:
    """And what is read back is off by less than what one decimal leaves out."""
    read = float(percent(share).removesuffix("%")) / 100
    assert read == pytest.approx(share, abs=0.00051)
    if 1e-6 < abs(share) < 1 - 1e-6:
        assert read not in {-1.0, 0.0, 1.0}


@pytest.mark.parametrize(("share", "text"), [(0, "0%"), (0.996, "99%"), (1, "100%")])
def test_what_is_not_there_yet_is_not_reached(share: float, text: str) -> None:
    """Rounded up, an alarm would seem to stand."""
    assert reached(share) == text
