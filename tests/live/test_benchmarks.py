"""The benchmarks of live risk run, and their tables stand where the page wants them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

import live_alarms
import live_cost
import live_prior
import live_report
from guard.live import MemoryStore

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
