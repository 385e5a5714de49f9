"""The simulation of an audit's intervals."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import pytest

import audit_intervals
from audit_intervals import Edges
from audit_regimes import STRICT, Kind, Regime
from audit_tables import Row
from guard.audit.sequences import RateSequence
from guard.audit.statistics import rate

if TYPE_CHECKING:
    from pathlib import Path


class TestRun:
    """Counting what the intervals miss."""

    def test_misses_are_counted_on_their_side(self) -> None:
        """Of intervals that end below, hold and begin above the truth in turn."""
        turns = iter([(0.1, 0.4), (0.4, 0.6), (0.6, 0.9), (0.5, 0.5)])
        regime = Regime("rate", "in turn", 0.5, lambda _: {"ours": next(turns)})
        (row,) = audit_intervals.run(regime, 4)
        assert (row.held, row.under, row.over) == (0.5, 0.25, 0.25)
        assert row.width == pytest.approx(0.2)

    @pytest.mark.parametrize(
        ("share", "word"), [(0.93, "**too narrow**"), (0.95, "inside"), (0.98, "conservative")]
    )
    def test_a_share_has_its_word(self, share: float, word: str) -> None:
        """Too narrow, inside or conservative."""
        assert Row("any", "ours", share, 0, 0, 0).word == word


class TestSequences:
    """The vectorised sequence is the product's."""

    @pytest.mark.parametrize("kind", [None, STRICT])
    def test_it_decides_when_the_product_does(self, kind: Kind | None) -> None:
        """Up to the few answers that the product's grid costs."""
        confusion = kind.expected() if kind else None
        rng = np.random.default_rng(2)
        for share in (0.0, 0.3):
            answers = rng.random((1, 800)) < share
            below, above, unflagged = (
                audit_intervals.confused(confusion, 0.05) if confusion else (0.05, 0.05, 0.05)
            )
            edges = Edges(
                np.full((1, 1), below),
                np.full((1, 1), above),
                np.full((1, 1), unflagged),
                -math.log(0.025 if kind else 0.05),
            )
            found = np.minimum(*audit_intervals.first_outside(answers, edges))
            sequence = RateSequence(confusion)
            for answer in answers[0].tolist():
                if sequence.decided(0.05) is None:
                    sequence.add(answer)
            assert 0 <= sequence.estimate().n - int(found[0]) <= 5


class TestFixedSize:
    """How many answers an audit of a fixed size needs."""

    def test_it_has_the_power_that_it_is_planned_for(self) -> None:
        """So many answers clear nine in ten models at half the limit."""
        number = audit_intervals.fixed_size(0.05, None)
        hits = np.random.default_rng(1).binomial(number, 0.025, 4000)
        cleared = np.mean([rate(int(each), number).high <= 0.05 for each in hits])
        assert cleared == pytest.approx(0.9, abs=0.03)


def test_a_short_run_writes_the_page(tmp_path: Path) -> None:
    """Every section has its table, and the page says what it rests on."""
    page = tmp_path / "page.md"
    audit_intervals.main(["--runs", "3", "--out", str(page)])
    text = page.read_text("utf-8")
    assert "3 simulated audits a row" in text
    for title in ("Rate", "Corrected", "Labelled", "Misfits", "What stopping early saves"):
        assert f"\n## {title}\n" in text
    assert text.count("| 400 answers, 2% risky |") == 1
