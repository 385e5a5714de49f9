"""Evidence and prior become a live risk: exact cases, order, bounds, extremes."""

from __future__ import annotations

import math
import sys
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from guard.assess import live_risk, log_odds, strongest
from guard.detectors.base import Finding

SMALLEST = sys.float_info.min
NEAREST = math.nextafter(1.0, 0.0)
PRIORS = st.floats(SMALLEST, NEAREST)
EVIDENCE = st.floats(allow_nan=False)


def finding(category: str, evidence: float) -> Finding:
    """Return a finding of which only category and evidence matter."""
    return Finding(category, evidence, 0, 1, "test", "1")


class TestLiveRisk:
    """The formula."""

    @pytest.mark.parametrize("prior", [0.005, 0.02, 0.5, 0.97])
    def test_no_evidence_leaves_the_prior(self, prior: float) -> None:
        """Evidence of 0 says nothing, so that the live risk is the prior."""
        assert live_risk(0.0, prior) == pytest.approx(prior, rel=1e-12)

    @pytest.mark.parametrize(
        ("ratio", "prior", "risk"),
        [
            (1, 0.5, 0.5),
            (9, 0.5, 0.9),
            # Odds of 1 : 49 times 49 are even.
            (49, 0.02, 0.5),
            (441, 0.02, 0.9),
            (1 / 9, 0.5, 0.1),
            # Odds of 1 : 199 times 199 * 3 are 3 : 1.
            (597, 0.005, 0.75),
        ],
    )
    def test_it_is_the_rule_of_bayes(self, ratio: float, prior: float, risk: float) -> None:
        """The posterior odds are the prior odds times the likelihood ratio."""
        assert live_risk(math.log(ratio), prior) == pytest.approx(risk, rel=1e-12)

    @given(EVIDENCE, PRIORS)
    def test_it_is_a_probability(self, evidence: float, prior: float) -> None:
        """Whatever the evidence, the live risk is in [0, 1], and nothing overflows."""
        assert 0.0 <= live_risk(evidence, prior) <= 1.0

    @given(EVIDENCE, EVIDENCE, PRIORS)
    def test_more_evidence_is_never_less_risk(self, one: float, two: float, prior: float) -> None:
        """The live risk grows with the evidence."""
        low, high = sorted([one, two])
        assert live_risk(low, prior) <= live_risk(high, prior)

    @given(st.floats(-50, 50), PRIORS, PRIORS)
    def test_a_higher_prior_is_never_less_risk(
        self, evidence: float, one: float, two: float
    ) -> None:
        """The live risk grows with the prior."""
        low, high = sorted([one, two])
        # The logarithm of neighbouring priors may round either way.
        assert live_risk(evidence, low) <= live_risk(evidence, high) + 1e-12

    @given(st.floats(-30, 30), st.floats(0.001, 0.999))
    def test_evidence_for_and_against_mirror_each_other(
        self, evidence: float, prior: float
    ) -> None:
        """The risk of one thing is one minus the risk of its opposite."""
        opposite = live_risk(-evidence, 1 - prior)
        assert live_risk(evidence, prior) == pytest.approx(1 - opposite, abs=1e-9)

    @pytest.mark.parametrize("prior", [SMALLEST, 0.02, NEAREST])
    @pytest.mark.parametrize(("evidence", "risk"), [(1e308, 1.0), (-1e308, 0.0)])
    def test_huge_evidence_decides(self, evidence: float, risk: float, prior: float) -> None:
        """Evidence at the edge of what a number can hold gives certainty and no error."""
        assert live_risk(evidence, prior) == risk

    @pytest.mark.parametrize(("evidence", "risk"), [(math.inf, 1.0), (-math.inf, 0.0)])
    def test_infinite_evidence_decides(self, evidence: float, risk: float) -> None:
        """Infinite evidence gives certainty."""
        assert live_risk(evidence, 0.02) == risk

    def test_what_is_no_number_counts_as_the_worst(self) -> None:
        """NaN is not an all-clear: the live risk is 1."""
        assert live_risk(math.nan, 0.02) == 1.0


class TestLogOdds:
    """The prior's side of the sum."""

    def test_even_odds_are_zero(self) -> None:
        """A probability of one half has log-odds of 0."""
        assert log_odds(0.5) == 0.0

    def test_odds_of_one_to_nine(self) -> None:
        """A probability of 0.1 has odds of 1 : 9."""
        assert log_odds(0.1) == pytest.approx(-math.log(9), rel=1e-12)

    @given(st.lists(PRIORS, min_size=2))
    def test_order_is_kept(self, priors: list[float]) -> None:
        """Log-odds are finite and grow with the probability."""
        values = [log_odds(prior) for prior in sorted(priors)]
        assert all(map(math.isfinite, values))
        assert all(a <= b or math.isclose(a, b) for a, b in pairwise(values))

    @pytest.mark.parametrize("certain", [0.0, 1.0])
    def test_certainty_has_none(self, certain: float) -> None:
        """A prior of 0 or 1 could never be moved, and is an error."""
        with pytest.raises(ValueError):  # noqa: PT011  # the message is the library's
            log_odds(certain)


class TestStrongest:
    """Several findings of one category."""

    def test_nothing_found_is_no_evidence(self) -> None:
        """Without findings there is no category."""
        assert strongest([]) == {}

    def test_the_highest_counts_once(self) -> None:
        """Findings of one category do not add up, and categories do not mix."""
        found = [finding("a", 2.0), finding("b", -1.0), finding("a", 3.0), finding("a", 3.0)]
        assert strongest(found) == {"a": 3.0, "b": -1.0}

    def test_evidence_against_counts_too(self) -> None:
        """Where all evidence is against, the least negative counts."""
        assert strongest([finding("a", -4.0), finding("a", -2.0)]) == {"a": -2.0}

    @pytest.mark.parametrize("order", [(math.nan, 1.0), (1.0, math.nan)])
    def test_what_is_no_number_is_not_lost(self, order: tuple[float, float]) -> None:
        """NaN counts as infinite evidence, wherever it stands."""
        assert strongest(finding("a", evidence) for evidence in order) == {"a": math.inf}
