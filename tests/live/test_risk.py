"""`LiveRisk`: alarms are raised and stand; a person clears them; everybody is told."""

from __future__ import annotations

import json
import math
import subprocess
import sys
import threading
import time
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from structlog.testing import capture_logs

from guard.errors import ConfigurationError, InputError
from guard.live import LiveRisk, LiveSettings, MemoryStore, Operating, Transition
from guard.live.replay import NEVER, first_alarms
from guard.live.sqlite_store import SQLiteStore
from guard.live.watch import watches

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    Stream = Callable[..., Iterator[dict[str, float]]]
    Make = Callable[..., LiveRisk]


class TestAlarm:
    """Raising one."""

    def test_is_raised_by_drift(self, make_live: Make, stream: Stream) -> None:
        """A tenth of risky answers behind clean traffic raises one alarm, which stands."""
        live = make_live(action="tighten")

        found = [t for e in stream(2000, 0.1, clean=1000) for t in live.observe(e)]

        assert [(t.kind, t.alarm.category) for t in found] == [("raised", "bad_advice")]
        assert (found[0].before, found[0].after) == ("normal", "tighten")
        assert live.posture == "tighten"
        assert live.alarms["bad_advice"] == found[0].alarm
        assert 1000 < found[0].alarm.exchanges < 1300

    def test_is_not_raised_by_clean_traffic(self, make_live: Make, stream: Stream) -> None:
        """The false positives that validation promised raise none."""
        live = make_live()

        assert not any(live.observe(e) for e in stream(5000))
        assert live.posture == "normal"

    def test_of_the_worst_action_is_the_posture(self, make_live: Make) -> None:
        """Of several alarms the most severe decides; a notification alone changes nothing."""
        live = make_live(action_of={"bad_advice": "notify", "violence": "quarantine"})

        for _ in range(20):
            live.observe({"bad_advice": 9.0})
        postures = [live.posture]
        assert live.alarms.keys() == {"bad_advice"}
        for _ in range(20):
            live.observe({"violence": 9.0})
        postures.append(live.posture)
        assert postures == ["normal", "quarantine"]

    @pytest.mark.parametrize("unsure", [math.nan, math.inf])
    def test_is_raised_by_what_is_no_number(self, make_live: Make, unsure: float) -> None:
        """Evidence that nobody knows counts as the worst."""
        live = make_live()

        assert any(live.observe({"bad_advice": unsure}) for _ in range(30))

    def test_says_what_nobody_could_judge(self, make_live: Make) -> None:
        """Alarm, log, history and state tell exceedances of answers from those of detectors."""
        live = make_live()
        with capture_logs() as events:
            found: tuple[Transition, ...] = live.observe({"bad_advice": 9.0})
            while not found:
                found = live.observe({"bad_advice": math.nan, "violence": 9.0})

        (alarm, reason), count = (found[0].alarm, found[0].reason), found[0].alarm.exceedances
        assert alarm.category == "bad_advice"
        assert alarm.unjudged == count - 1 == events[0]["unjudged"] > 0
        assert reason.endswith(f"exchanges, {count - 1} of them with a detector that failed")
        assert Transition.from_dict(json.loads(json.dumps(found[0].as_dict()))) == found[0]
        watched = {n: e.evidence for n, e in live.state().categories.items() if e.evidence}
        assert {n: e.unjudged for n, e in watched.items()} == {
            "bad_advice": count - 1,
            "violence": 0,
        }

        live.clear("all", by="ada", reason="detectors repaired")
        assert not any(e.evidence and e.evidence.unjudged for e in live.state().categories.values())

    def test_never_goes_by_itself(self, make_live: Make, stream: Stream) -> None:
        """However clean the traffic is from then on, it stands."""
        live = make_live(action="quarantine")
        for _ in range(30):
            live.observe({"bad_advice": 9.0})

        later = [t for e in stream(20_000, seed=1) for t in live.observe(e)]
        assert later == []
        assert live.posture == "quarantine"

    def test_refuses_categories_without_a_prior(self, make_live: Make) -> None:
        """Evidence that could not be followed is an error and no silence; nothing is counted."""
        live = make_live()

        with pytest.raises(InputError, match="`harm`"):
            live.observe({"harm": 1.0, "violence": 9.0})
        assert live.state().exchanges == 0


class TestIdleReplica:
    """A replica that nobody asked anything yet."""

    def test_hears_of_alarms(self, make_live: Make, tmp_path: Path) -> None:
        """Its first exchange is under the quarantine that another one raised meanwhile."""
        busy, idle = (
            make_live(store=SQLiteStore(tmp_path / "live.sqlite3"), action="quarantine")
            for _ in range(2)
        )
        for _ in range(30):
            busy.observe({"bad_advice": 9.0})
        busy.flush()

        ends = time.monotonic() + 60
        while idle.posture == "normal" and time.monotonic() < ends:
            time.sleep(0.02)
        assert idle.posture == "quarantine"
        assert idle.state().exchanges == 30


class TestClosed:
    """What was closed has given its place to others."""

    def test_counts_nothing_more(self, make_live: Make, tmp_path: Path) -> None:
        """It says so, and what the next owner of its slot sees is counted whole."""
        first = make_live(store=SQLiteStore(tmp_path / "live.sqlite3"))
        first.observe({"bad_advice": -1.0})
        first.close()
        second = make_live(store=SQLiteStore(tmp_path / "live.sqlite3"))
        with pytest.raises(InputError, match=r"was closed: make another"):
            first.observe({"bad_advice": -1.0})
        with pytest.raises(InputError, match="was closed"):
            first.flush()
        with pytest.raises(InputError, match="was closed"):
            first.clear("all", by="ada", reason="prompt repaired")
        assert first.posture == "normal"
        first.close()
        second.observe({"bad_advice": -1.0})
        second.flush()
        assert second.store.read(second.profile.digest).state.exchanges == 2


class TestClearing:
    """Only a person does it."""

    def test_begins_a_new_life(self, make_live: Make) -> None:
        """The tests begin anew, and a second alarm can be raised; priors go on."""
        live = make_live(action="fallback")
        for _ in range(30):
            live.observe({"bad_advice": 9.0})
        prior = live.priors()["bad_advice"]

        (gone,) = live.clear("bad_advice", by="ada", reason="prompt repaired")

        assert (gone.kind, gone.by, gone.reason) == ("cleared", "ada", "prompt repaired")
        assert (gone.before, gone.after) == ("fallback", "normal")
        assert live.posture == "normal"
        evidence = live.state().categories["bad_advice"].evidence
        assert evidence is not None
        assert (evidence.exchanges, evidence.exceedances, evidence.nearness) == (0, 0, 0.0)
        assert live.priors()["bad_advice"] == pytest.approx(prior, rel=1e-5)
        again = [t for _ in range(30) for t in live.observe({"bad_advice": 9.0})]
        assert [t.alarm.life for t in again] == [1]
        assert again[0].id != gone.id

    def test_elsewhere_is_heard_of_where_nothing_is_observed(
        self, make_live: Make, tmp_path: Path
    ) -> None:
        """While another backend answers there is no exchange; not after a restart either."""
        first = make_live(store=SQLiteStore(tmp_path / "live.sqlite3"), action="fallback")
        while not first.observe({"bad_advice": 9.0}):
            pass
        first.close()
        restarted = make_live(store=SQLiteStore(tmp_path / "live.sqlite3"), action="fallback")
        assert restarted.posture == "fallback"
        elsewhere = make_live(store=SQLiteStore(tmp_path / "live.sqlite3"), action="fallback")
        elsewhere.clear("all", by="ada", reason="repaired")
        ends = time.monotonic() + 30
        while restarted.alarms:
            assert time.monotonic() < ends
            time.sleep(0.02)

    def test_takes_who_and_why(self, make_live: Make) -> None:
        """Without a name or a reason the alarm stands."""
        live = make_live(action="fallback")
        for _ in range(30):
            live.observe({"bad_advice": 9.0})

        for by, reason in (("", "because"), ("ada", " ")):
            with pytest.raises(InputError, match="who, and why"):
                live.clear("bad_advice", by=by, reason=reason)
        assert live.posture == "fallback"

    @pytest.mark.parametrize("category", ["violence", "all", "unheard"])
    def test_of_what_does_not_stand_is_an_error(self, make_live: Make, category: str) -> None:
        """Nothing is cleared by mistake or in advance."""
        with pytest.raises(InputError, match="nothing to clear"):
            make_live().clear(category, by="ada", reason="just in case")

    def test_of_all_clears_each(self, make_live: Make) -> None:
        """`all` takes every alarm, and the posture with the last."""
        live = make_live(action_of={"violence": "tighten"})
        for _ in range(30):
            live.observe({"bad_advice": 9.0, "violence": 9.0})

        gone = live.clear("all", by="ada", reason="new model")

        assert {t.alarm.category for t in gone} == {"bad_advice", "violence"}
        assert live.alarms == {}
        assert gone[-1].after == "normal"


class TestTelling:
    """Who hears of it."""

    def test_reaches_every_notifier_and_the_log(self, make_live: Make) -> None:
        """Each transition is told once, in order, and logged under a constant name."""
        told: list[Transition] = []
        live = make_live(notify=(told.append,))
        with capture_logs() as events:
            for _ in range(30):
                live.observe({"bad_advice": 9.0})
            live.clear("bad_advice", by="ada", reason="tried")

        assert [t.kind for t in told] == ["raised", "cleared"]
        names = [e["event"] for e in events]
        assert names == ["guard.live.alarm_raised", "guard.live.alarm_cleared"]
        assert events[1]["by"] == "ada"
        json.dumps([t.as_dict() for t in told])
        assert Transition.from_dict(told[0].as_dict()) == told[0]

    def test_of_what_was_cleared_elsewhere(self, make_live: Make, tmp_path: Path) -> None:
        """Whoever cleared it there may have had nobody to tell; who, and why, come along."""
        told: list[Transition] = []
        here = make_live(store=SQLiteStore(tmp_path / "live.sqlite3"), notify=[told.append])
        while not here.observe({"bad_advice": 9.0}):
            pass
        here.flush()
        there = make_live(store=SQLiteStore(tmp_path / "live.sqlite3"))
        there.clear("bad_advice", by="ada", reason="repaired")
        here.flush()
        here.flush()
        assert [(each.kind, each.by, each.reason) for each in told[1:]] == [
            ("cleared", "ada", "repaired")
        ]
        assert here.state().transitions[-1].kind == "cleared"

    def test_survives_a_notifier_that_fails(self, make_live: Make) -> None:
        """The next one is told all the same, and judging goes on."""
        told: list[Transition] = []

        def broken(_: Transition) -> None:
            raise RuntimeError("no route")

        live = make_live(notify=(broken, told.append))
        with capture_logs() as events:
            for _ in range(30):
                live.observe({"bad_advice": 9.0})

        assert len(told) == 1
        failed = [e for e in events if e["event"] == "guard.live.notifier_failed"]
        assert failed[0]["error"] == "RuntimeError: no route"


class TestDeterminism:
    """The same exchanges give the same evidence."""

    def test_does_not_hang_on_the_clock(self, make_live: Make, stream: Stream) -> None:
        """Two runs with other clocks differ in dates alone."""
        states = []
        for clock in (lambda: 1.0, iter(range(10**9)).__next__):
            live = make_live(clock=clock)
            for evidence in stream(1500, 0.05, clean=500):
                live.observe(evidence, conversation="c")
            states.append((live.state(), live.priors("c")))

        (one, priors), (other, same) = states
        assert one.categories["violence"] == other.categories["violence"]
        assert one.categories["bad_advice"].evidence == other.categories["bad_advice"].evidence
        assert priors == same

    def test_holds_under_threads(self, make_live: Make) -> None:
        """Nothing is lost where many threads observe at once."""
        live = make_live()

        def work() -> None:
            for _ in range(500):
                live.observe({"bad_advice": -3.0, "violence": 9.0})
                live.priors()

        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

        evidence = live.state().categories["violence"].evidence
        assert evidence is not None
        assert (live.state().exchanges, evidence.exceedances) == (2000, 2000)

    @pytest.mark.parametrize("seed", range(6))
    def test_agrees_with_the_replay(
        self, make_live: Make, stream: Stream, sharp: Operating, seed: int
    ) -> None:
        """Recorded evidence gives the alarm at the exchange at which `observe` raised it."""
        recorded = list(stream(1500, 0.03 + 0.03 * seed, seed=seed, clean=300))
        live = make_live()
        at = next((n for n, e in enumerate(recorded, 1) if live.observe(e)), NEVER)

        settings = LiveSettings()
        watch = watches({"bad_advice": sharp, "violence": sharp}, settings)["bad_advice"]
        evidence = np.array([[each["bad_advice"] for each in recorded]])
        assert first_alarms(watch, evidence).either[0] == at


class TestState:
    """What can be read."""

    def test_is_json(self, make_live: Make, stream: Stream) -> None:
        """Everything in it goes through JSON."""
        live = make_live()
        for evidence in stream(500, 0.2):
            live.observe(evidence)

        values = json.loads(json.dumps(live.state().as_dict()))

        assert values["exchanges"] == 500
        assert values["categories"]["exposure"]["evidence"] is None
        assert values["alarms"]["bad_advice"]["test"] in ("life", "change")
        assert values["points"][0].keys() >= {"at", "category", "log_wealth", "nearness", "prior"}

    def test_priors_are_those_for_the_next_exchange(self, make_live: Make, stream: Stream) -> None:
        """State and snapshot say the same."""
        live = make_live()
        for evidence in stream(300, 0.2):
            live.observe(evidence)

        for name, each in live.state().categories.items():
            assert each.prior == pytest.approx(live.priors()[name], rel=1e-5)

    def test_of_memory_is_bounded(self, make_live: Make) -> None:
        """What is kept of the evidence over time does not grow for ever."""
        live = make_live()
        for _ in range(1500):
            live.observe({"bad_advice": 9.0, "violence": 9.0})

        assert len(live.state().points) == 1000


class TestSetUp:
    """What cannot be followed is refused, all of it at once."""

    def test_names_every_problem(self, sharp: Operating) -> None:
        """Priors out of range and thresholds without a prior come in one error."""
        with pytest.raises(ConfigurationError) as error:
            LiveRisk(LiveSettings(), {"harm": 1.0, "leak": 0.0}, confusion={"other": sharp})

        assert len(error.value.problems) == 3

    def test_refuses_what_cannot_be_watched(self) -> None:
        """Too few validation rows for any alarm is an error with its mend."""
        few = Operating(2.0, 5, 8, 4, 9)
        with pytest.raises(ConfigurationError, match="validate on more rows"):
            LiveRisk(LiveSettings(), {"harm": 0.02}, confusion={"harm": few})

    def test_settings_name_every_problem(self) -> None:
        """Each value out of its range is named."""
        with pytest.raises(ConfigurationError) as error:
            LiveSettings(
                rise=-1,
                alpha=0.7,
                horizon=0,
                tolerated_of={"harm": 2.0},
                action="panic",  # type: ignore[arg-type]
            )

        text = str(error.value)
        assert all(name in text for name in ("rise", "alpha", "horizon", "harm", "panic"))
        assert len(error.value.problems) == 5

    def test_settings_come_back_from_json(self) -> None:
        """`as_dict` holds all that makes them."""
        settings = LiveSettings(alpha=0.02, tolerated_of={"a": 0.1}, action_of={"a": "tighten"})

        assert LiveSettings(**json.loads(json.dumps(settings.as_dict()))) == settings

    def test_a_store_in_memory_can_be_shared(self, make_live: Make) -> None:
        """Two objects on one store know of each other after a flush."""
        store = MemoryStore()
        one, other = make_live(store=store, action="tighten"), make_live(store=store)
        for _ in range(30):
            one.observe({"bad_advice": 9.0})
        one.flush()
        other.flush()

        assert other.posture == "tighten"
        assert other.state().exchanges == 30

    def test_importing_loads_nothing_heavy(self) -> None:
        """Neither numpy nor a database, Redis or HTTP comes with the names."""
        heavy = ("numpy", "sqlalchemy", "redis", "httpx2")
        code = f"import sys, guard.live; print([m for m in {heavy!r} if m in sys.modules])"
        run = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True
        )

        assert run.stdout.strip() == "[]"


def test_a_failing_store_is_no_start(tmp_path: Any) -> None:
    """Where the store cannot be read nobody knows what stands, so that nothing begins."""
    from guard.errors import LiveStoreError
    from guard.live.sqlite_store import SQLiteStore

    path = tmp_path / "live.sqlite3"
    path.write_bytes(b"this is no database, whatever its name says" * 100)
    with pytest.raises(LiveStoreError, match=r"live\.sqlite3"):
        SQLiteStore(path)
