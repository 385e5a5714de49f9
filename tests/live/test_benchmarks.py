"""The benchmarks of live risk run, and their tables stand where the page wants them."""

from __future__ import annotations

import itertools
import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

import live_alarms
import live_cost
import live_prior
import live_prior_rows
import live_report
import live_scores
import live_tell
from guard.engine import Guard
from guard.live import LiveSettings, MemoryStore

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(scope="module")
def alarms() -> dict[str, object]:
    """Return figures of a handful of lives."""
    return live_alarms.measured(live_alarms.Scale(lives=60, delays=20, tuning=1))


class TestAlarms:
    """`live_alarms.py`."""

    def test_reports_every_rate(self, alarms: dict[str, object]) -> None:
        """Each drift has a row with its bound, and each set of validation rows a column."""
        text = live_alarms.report(alarms)

        assert all(f"| {drift:.1%} |" in text for drift in live_alarms.DRIFTS)
        assert all(name in text for name in live_alarms.ROWS)
        json.dumps(alarms)

    def test_draws_a_plot(self, alarms: dict[str, object]) -> None:
        """The bound and every line that has figures are in it."""
        picture = live_alarms.plot(alarms)

        assert picture.startswith("<svg")
        assert "bound" in picture


class TestPrior:
    """`live_prior.py`."""

    def test_talking_down_stops_at_the_bound(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """However many benign exchanges there are, no more than `fall` is lost."""
        monkeypatch.setattr(live_prior, "_ATTACKS", 3)
        facts = live_prior.measured(2000, 1)

        most = [row["most"] for row in facts["talked down"]]
        assert most[0] == 0.0
        assert max(most) == pytest.approx(0.5)
        assert "bounded by 0.5 nats" in live_prior.report(facts)


@pytest.fixture(scope="module")
def streams() -> dict[str, Any]:
    """Return figures of a few short streams."""
    rng = np.random.default_rng(1)
    clean = rng.normal(-4.0, 2.0, (2, 200))
    given = live_prior_rows.Rows(clean[0], clean[1], rng.normal(1.0, 2.0, 100))
    deployment = live_prior_rows.Deployment(0.02, LiveSettings())
    return live_prior_rows.measured(given, deployment, 400, 4)


class TestPriorRows:
    """`live_prior_rows.py`, with made-up figures in place of a classifier's."""

    def test_the_prior_buys_recall_for_false_alarms(self, streams: dict[str, Any]) -> None:
        """Where half of the answers are risky more of them are above the limit, and of others."""
        found = {name: value[0] for name, value in streams["figures"].items()}
        assert found["0.5, False, live"] > found["0.5, False, fixed prior"]
        assert found["0.5, False, live, others"] > found["0.5, False, fixed prior, others"]
        assert found["500, most"] <= LiveSettings().fall + 1e-9
        assert found["500, recall"] <= found["0, recall"]

    def test_it_reports_every_share(self, streams: dict[str, Any]) -> None:
        """Each share of risky answers has its rows, and the plot its lines."""
        text = live_prior_rows.report(streams)
        assert text.count("in bad conversations") == 2 * len(live_prior_rows.DRIFTS)
        assert live_prior_rows.plot(streams).startswith("<svg")
        json.dumps(streams)


class TestTelling:
    """`live_tell.py`."""

    def test_the_wealth_is_that_of_a_fair_game(self) -> None:
        """Over all ways in which a few fair pairs may fall its mean is 1."""
        ways = np.array(list(itertools.product([False, True], repeat=8)))
        for pairs in (1, 3, 8):
            ends = [np.exp(live_tell.log_wealth(way)[pairs - 1]) for way in ways]
            assert np.mean(ends) == pytest.approx(1.0)

    def test_it_is_exact_where_every_pair_is_won(self) -> None:
        """The integral of `(2 p)^n` over the upper half, times two."""
        wealth = np.exp(live_tell.log_wealth(np.ones(9, dtype=bool)))
        assert wealth[8] == pytest.approx((2**10 - 1) / 10)

    def test_it_tells_what_differs(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """A model that is flagged far more often is told apart soon, its twin is not."""
        monkeypatch.setattr(live_tell, "_AGAIN", 5)
        rng = np.random.default_rng(0)
        often, seldom = np.arange(100) < 40, np.arange(100) < 2
        found = live_tell.told(rng, often, seldom, runs=40)
        assert 10 < found.low <= found.high < 100
        assert found.median <= found.most < 200
        assert live_tell.told(rng, seldom, seldom, runs=40).share < 0.2


class TestScores:
    """`live_scores.py`."""

    def test_what_is_cached_is_not_judged_again(
        self,
        tmp_path: Path,
        make_class: Any,
        word_detector: Any,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        """Not in another order, and not after a run that was cut off."""

        class Counting(word_detector):  # type: ignore[misc]
            asked = 0

            def __call__(self, passage: Any) -> Any:
                Counting.asked += 1
                return super().__call__(passage)

        guard = Guard(make_class(), [Counting()])
        monkeypatch.setattr(live_scores, "CATEGORY", "to_flag")
        rows = [{"prompt": "Well?", "response": f"Fern {number}."} for number in range(4)]
        cache = tmp_path / "scores.jsonl"
        first = live_scores.scored(guard, rows[:3], "", cache)
        assert (len(first), Counting.asked) == (3, 3)
        live_scores.scored(guard, rows[::-1], "", cache)
        assert Counting.asked == 4


def test_cost_is_a_time() -> None:
    """Following an exchange takes some microseconds."""
    took = live_cost.microseconds(MemoryStore, live_cost.exchanges(50), "c", rounds=1)

    assert 1 < took < 100_000


class TestPage:
    """`live_report.py`."""

    def test_holds_tables_between_its_marks(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """What stood there is replaced; the rest of the page is left alone."""
        page, figures = tmp_path / "live.md", tmp_path / "live.json"
        page.write_text("a\n<!-- x: begin -->\nold\n<!-- x: end -->\nb\n", encoding="utf-8")
        monkeypatch.setattr(live_report, "PAGE", page)
        monkeypatch.setattr(live_report, "FIGURES", figures)

        live_report.publish("x", "new", {"one": 1})

        text = page.read_text("utf-8")
        assert text == "a\n<!-- x: begin -->\nnew\n<!-- x: end -->\nb\n"
        assert json.loads(figures.read_text("utf-8")) == {"x": {"one": 1}}
        with pytest.raises(ValueError, match="no marks"):
            live_report.publish("y", "new", {})

    def test_has_a_place_for_every_script(self) -> None:
        """The page in the repository has the marks that the scripts look for."""
        page = live_report.PAGE.read_text("utf-8")

        for name in ("live_alarms", "live_prior", "live_cost"):
            assert f"<!-- {name}: begin -->" in page
            assert f"<!-- {name}: end -->" in page
