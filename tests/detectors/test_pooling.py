"""How the evidence of units adds up to that of a response."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from guard.assess import live_risk
from guard.detectors.base import Finding
from guard.detectors.model_directory import read
from guard.detectors.pooling import ALONE, CLOSING, Pool, Pooling
from guard.loading import BUNDLED_MODEL
from guard.policy import load_class

EVIDENCE = st.lists(st.floats(-8, 8), min_size=1, max_size=30)
POOLINGS = st.builds(Pooling, st.floats(0.01, 1), st.floats(0, 2), st.floats(0, 4))
CLOSED = st.builds(
    Pooling,
    st.floats(0.01, 1),
    st.floats(0, 2),
    st.floats(0, 4),
    st.floats(0.01, 1),
    st.floats(0, 3),
)


def finding(
    evidence: float, detector: str = "model", category: str = "violence", label: str = ""
) -> Finding:
    """Return a finding over a unit."""
    return Finding(category, evidence, 0, 1, detector, "1", label, localised=False)


def whole(evidence: list[float], closing: float, pooling: Pooling) -> float:
    """Return what a pool makes of a response of several units with its closing read."""
    pool = Pool({"model": {"violence": pooling}})
    found: list[Finding] = []
    for value in evidence[:-1]:
        found += pool.pooled([finding(value)])
        pool = pool.after([finding(value)])
    found += pool.pooled([finding(evidence[-1]), finding(closing, label=CLOSING)], last=True)
    return max(item.evidence for item in found)


def run(evidence: list[float], pooling: Pooling) -> list[float]:
    """Return what a pool makes of units one by one."""
    pool, out = Pool({"model": {"violence": pooling}}), []
    for value in evidence:
        (pooled,) = pool.pooled([finding(value)])
        out.append(pooled.evidence)
        pool = pool.after([finding(value)])
    return out


class TestPooling:
    """The formula."""

    @given(EVIDENCE, POOLINGS)
    def test_unit_by_unit_is_the_same_as_at_once(
        self, evidence: list[float], pooling: Pooling
    ) -> None:
        """What the guard does in a stream is what training did on the whole."""
        assert run(evidence, pooling) == pytest.approx(
            list(pooling.running(np.array(evidence))), abs=1e-9
        )

    @given(EVIDENCE, POOLINGS, st.data())
    def test_never_falls_where_a_unit_rises(
        self, evidence: list[float], pooling: Pooling, data: st.DataObject
    ) -> None:
        """More evidence in any unit never makes any later value lower."""
        at = data.draw(st.integers(0, len(evidence) - 1))
        more = [*evidence]
        more[at] += data.draw(st.floats(0, 8))
        before, after = run(evidence, pooling), run(more, pooling)
        assert all(b >= a - 1e-9 for a, b in zip(before, after, strict=True))

    @given(EVIDENCE)
    def test_alone_changes_nothing(self, evidence: list[float]) -> None:
        """Without a pooling of its own a unit's evidence is what it was."""
        assert run(evidence, ALONE) == pytest.approx(evidence)

    def test_what_runs_through_adds_up_and_what_is_odd_once_does_not(self) -> None:
        """Ten suspicious units weigh more than one among nine plain ones."""
        pooling = Pooling(own=0.5, toll=0.1, lone=2.0)
        through = max(run([1.0] * 10, pooling))
        once = max(run([-3.0] * 9 + [1.0], pooling))
        assert through > once

    def test_one_bad_sentence_counts_in_a_long_good_answer(self) -> None:
        """Strong evidence in one unit loses no more than `lone`, wherever it stands."""
        pooling = Pooling(own=0.35, toll=0.4, lone=2.0)
        for at in (0, 20, 39):
            evidence = [-6.0] * 40
            evidence[at] = 7.0
            assert max(run(evidence, pooling)) >= 5.0

    def test_a_hundred_faintly_odd_units_do_not(self) -> None:
        """Odd by chance here and there, a long answer stays below what one odd unit reaches."""
        pooling = Pooling(own=0.5, toll=0.3, lone=2.0)
        assert max(run([-2.0, 1.0] * 50, pooling)) < max(run([1.0], pooling))

    @pytest.mark.parametrize(
        ("own", "toll", "lone"),
        [
            *[(0, 0, 0), (1.1, 0, 0), (1, -0.1, 0), (1, math.inf, 0), (1, 0, -1), (1, 0, math.nan)],
            *[(10**400, 0, 0), (1, 10**400, 0), (1, 0, 10**400)],
        ],
    )
    def test_refuses_what_would_not_be_monotone(self, own: float, toll: float, lone: float) -> None:
        """Parameters out of their range are an error."""
        with pytest.raises(ValueError, match="must be"):
            Pooling(own, toll, lone)


class TestClosing:
    """What is read once more as a whole."""

    @given(st.lists(st.floats(-8, 8), min_size=2, max_size=30), st.floats(-8, 8), CLOSED)
    def test_unit_by_unit_is_the_same_as_at_once(
        self, evidence: list[float], closing: float, pooling: Pooling
    ) -> None:
        """What the guard does in a stream is what training did on the whole."""
        expected = pooling.response(np.array(evidence), closing)
        assert whole(evidence, closing, pooling) == pytest.approx(expected, abs=1e-9)

    @given(st.lists(st.floats(-8, 8), min_size=2, max_size=30), st.floats(-8, 8), CLOSED, st.data())
    def test_never_falls_where_evidence_rises(
        self, evidence: list[float], closing: float, pooling: Pooling, data: st.DataObject
    ) -> None:
        """More evidence in any unit or in the whole never makes the response's lower."""
        at = data.draw(st.integers(0, len(evidence)))
        more = [*evidence, closing]
        more[at] += data.draw(st.floats(0, 8))
        before, after = whole(evidence, closing, pooling), whole(more[:-1], more[-1], pooling)
        assert after >= before - 1e-9

    @given(st.lists(st.floats(-8, 8), min_size=2, max_size=9), CLOSED)
    def test_scaling_scales_everything(self, evidence: list[float], pooling: Pooling) -> None:
        """As a refitted line does with evidence."""
        doubled = pooling.scaled(2.0).response(2 * np.array(evidence), 2 * evidence[0])
        expected = 2 * pooling.response(np.array(evidence), evidence[0])
        assert doubled == pytest.approx(expected, abs=1e-9)

    def test_takes_nothing_off_the_only_unit(self) -> None:
        """No closing read will come that could make up for it."""
        pool = Pool({"model": {"violence": Pooling(closing=0.5, reserve=2.0)}})
        assert pool.pooled([finding(3.0)], last=True)[0].evidence == 3.0
        assert pool.pooled([finding(3.0)])[0].evidence == 1.0

    def test_gives_back_what_no_read_makes_up_for(self) -> None:
        """Where a text ends without a closing read, what was taken off its units counts again."""
        pool = Pool({"model": {"violence": Pooling(closing=0.5, reserve=2.0)}})
        pool = pool.after([finding(3.0)])
        assert pool.pooled([finding(-3.0)], last=True)[0].evidence == 3.0
        assert pool.pooled([finding(-3.0)])[0].evidence == -5.0

    def test_without_a_read_the_units_decide(self) -> None:
        """A detector that gives none is pooled as before."""
        assert Pooling(0.5, closing=0.5).response(np.array([2.0, 1.0])) == 2.0

    def test_certain_units_stay_certain(self) -> None:
        """Infinite evidence has no mean with anything."""
        pool = Pool({"model": {"violence": Pooling(closing=0.5)}})
        found = pool.pooled([finding(math.inf), finding(2.0, label=CLOSING)])
        assert [item.evidence for item in found] == [math.inf, 2.0]

    @pytest.mark.parametrize(("closing", "reserve"), [(1.1, 0), (-0.1, 0), (0, 1), (0.5, -1)])
    def test_refuses_what_would_not_be_made_up_for(self, closing: float, reserve: float) -> None:
        """A reserve needs a closing read."""
        with pytest.raises(ValueError, match="must be"):
            Pooling(closing=closing, reserve=reserve)


class TestPool:
    """Whose evidence adds up."""

    def test_leaves_other_detectors_and_categories_alone(self) -> None:
        """Only what is named is pooled."""
        pool = Pool({"model": {"violence": Pooling(0.5, lone=9.0)}})
        pool = pool.after([finding(-8.0), finding(-8.0, "other"), finding(-8.0, category="sexual")])
        given_ = [finding(4.0), finding(4.0, "other"), finding(4.0, category="sexual")]
        assert [f.evidence for f in pool.pooled(given_)] == [1.0, 4.0, 4.0]

    def test_infinite_evidence_stays_and_is_no_part_of_a_mean(self) -> None:
        """What is certain is not diluted, and does not taint what follows."""
        pool = Pool({"model": {"violence": Pooling(0.5, lone=9.0)}})
        assert pool.pooled([finding(math.inf)])[0].evidence == math.inf
        assert pool.after([finding(math.inf)]).pooled([finding(2.0)])[0].evidence == 2.0

    def test_states_are_independent(self) -> None:
        """A unit that is judged twice counts once."""
        pool = Pool({"model": {"violence": Pooling(0.5, lone=9.0)}})
        pool.after([finding(8.0)])
        assert pool.pooled([finding(2.0)])[0].evidence == 2.0


@pytest.mark.parametrize("name", ["public", "regulated", "critical"])
def test_a_certain_unit_stops_a_stream_in_the_built_in_classes(name: str) -> None:
    """Whatever of the bundled model's evidence waits for the end, enough of it is left."""
    own, acted = load_class(name), set()
    for head in read(BUNDLED_MODEL, None, verify=True).heads:
        limit = own.limit(head.category)
        if limit is None or limit.act is None or head.calibration.maximum < 2:
            continue
        acted.add(head.category)
        left = head.calibration.maximum - head.pooling.reserve
        assert live_risk(left, own.prior_of(head.category)) >= limit.act
    # What may not be acted on is experimental, and bounded below any limit.
    assert {"harmful_compliance", "misaligned_persona", "power_seeking"} <= acted
