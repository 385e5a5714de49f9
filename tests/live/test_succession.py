"""Live risks through changes of what they are counted under."""

from __future__ import annotations

import contextlib
import gc
import time
from typing import TYPE_CHECKING, Any

import pytest

from guard.errors import LiveStoreError
from guard.live import LiveRisk, LiveSettings, Operating
from guard.live.profile import Profile
from guard.live.succession import Succession

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

KEY = "policy.yaml"
WORST = {"bad_advice": 50.0}


class Teller:
    """Tells a live risk of exchanges, as a guard's driver does."""


@pytest.fixture
def profile(sharp: Operating) -> Callable[..., Profile]:
    """Return the maker of profiles whose alarms are a quarantine."""

    def make(**settings: Any) -> Profile:
        given: dict[str, Any] = {"action": "quarantine", **settings}
        return Profile(LiveSettings(**given), {"bad_advice": 0.02}, {"bad_advice": sharp})

    return make


@pytest.fixture
def succession() -> Iterator[Succession]:
    """Return live risks in memory."""
    kept = Succession(None)
    yield kept
    kept.close()


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """Return a place for a SQLite file."""
    return tmp_path / "live.sqlite3"


@pytest.fixture
def on_file(place: Path) -> Iterator[Succession]:
    """Return live risks in that file."""
    kept = Succession(place)
    yield kept
    kept.close()


def follow(succession: Succession, profile: Profile, teller: object = None) -> LiveRisk:
    """Return what follows under `profile` from now on."""
    with succession.change() as change:
        live = change.follow(KEY, "ours", profile)
        change.told_by(KEY, teller or live)
    return live


def alarm(live: LiveRisk) -> None:
    """Have a live risk see what it cannot tolerate."""
    for _ in range(200):
        if live.observe(WORST):
            return
    pytest.fail("no alarm was raised")


def until(holds: Callable[[], bool]) -> None:
    """Wait until something holds; fail if it never does."""
    ends = time.monotonic() + 15
    while not holds():
        assert time.monotonic() < ends
        time.sleep(0.02)


def fail(succession: Succession, profile: Profile) -> None:
    """Have a change come to nothing once everything is opened."""
    with contextlib.suppress(ZeroDivisionError), succession.change() as change:
        assert change.follow(KEY, "ours", profile).profile == profile
        raise ZeroDivisionError


class TestChange:
    """What a change that holds leaves."""

    def test_of_nothing_keeps_the_live_risk(
        self, succession: Succession, profile: Callable[..., Profile]
    ) -> None:
        """Where the profile is the same, nothing is replaced."""
        assert follow(succession, profile()) is follow(succession, profile())

    def test_alarms_stand_across_it(
        self, succession: Succession, profile: Callable[..., Profile]
    ) -> None:
        """Those that were raised before it, whoever kept them to themselves."""
        before = follow(succession, profile())
        alarm(before)
        after = follow(succession, profile(alpha=0.02))
        assert after is not before
        assert after.posture == "quarantine"

    def test_an_exchange_under_way_raises_the_alarm_that_serves(
        self, succession: Succession, profile: Callable[..., Profile]
    ) -> None:
        """An exchange that began before it and ends after it; at once, over two changes, too."""
        first = follow(succession, profile())
        second = follow(succession, profile(alpha=0.02))
        third = follow(succession, profile(alpha=0.03))
        assert third.posture == "normal"
        alarm(first)
        assert (first.posture, second.posture, third.posture) == ("quarantine",) * 3

    def test_counts_of_both_add_up(
        self, succession: Succession, profile: Callable[..., Profile]
    ) -> None:
        """What an alarm does changes no count: either's exchanges speak for the same alarm."""
        before = follow(succession, profile())
        after = follow(succession, profile(rise=3.0))
        assert after is not before
        seen = 0
        while not after.alarms and seen < 200:
            (before if seen % 2 else after).observe(WORST)
            seen += 1
        assert after.posture == "quarantine"
        assert seen == next(iter(after.alarms.values())).exchanges

    def test_a_person_clears_it_for_both(
        self, succession: Succession, profile: Callable[..., Profile]
    ) -> None:
        """A replaced one that still stands raises nothing again."""
        before = follow(succession, profile())
        alarm(before)
        after = follow(succession, profile(alpha=0.02))
        after.clear("all", by="ada", reason="repaired")
        before.observe({})
        assert (before.posture, after.posture) == ("normal", "normal")

    def test_a_file_is_adopted_from_soon(
        self, on_file: Succession, profile: Callable[..., Profile]
    ) -> None:
        """By the replaced one's next delivery, though the one that serves sees no traffic."""
        before = follow(on_file, profile())
        after = follow(on_file, profile(alpha=0.02))
        alarm(before)
        until(lambda: after.posture == "quarantine")


class TestRefusal:
    """What a change that comes to nothing leaves."""

    def test_changes_nothing(self, succession: Succession, profile: Callable[..., Profile]) -> None:
        """What served serves, and its alarms outlive the next good change."""
        served = follow(succession, profile())
        fail(succession, profile(alpha=0.02))
        assert served.store.profile() == served.profile
        alarm(served)
        assert follow(succession, profile()) is served
        assert follow(succession, profile(alpha=0.02)).posture == "quarantine"

    def test_closes_what_it_opened(
        self, on_file: Succession, place: Path, profile: Callable[..., Profile]
    ) -> None:
        """Spools are free again, and the store that serves is not closed."""
        served = follow(on_file, profile())
        for _ in range(3):
            fail(on_file, profile(alpha=0.02))
        assert slots(place) == ["slot-0", "slot-1"]
        served.observe({})
        served.flush()
        assert served.state().exchanges == 1

    def test_of_the_first_one_leaves_nothing(
        self, on_file: Succession, place: Path, profile: Callable[..., Profile]
    ) -> None:
        """Where nothing served before it."""
        fail(on_file, profile())
        follow(on_file, profile())
        assert slots(place) == ["slot-0"]

    def test_of_a_store_gives_the_spool_back(
        self, on_file: Succession, place: Path, profile: Callable[..., Profile]
    ) -> None:
        """However often it is tried while the store is away."""
        served = follow(on_file, profile())
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(type(served.store), "read", away)
            for _ in range(3):
                with pytest.raises(LiveStoreError):
                    follow(on_file, profile(alpha=0.02))
        assert slots(place) == ["slot-0", "slot-1"]


class TestReplaced:
    """How long replaced ones are kept."""

    def test_until_nobody_tells_them_anything(
        self, on_file: Succession, place: Path, profile: Callable[..., Profile]
    ) -> None:
        """Then the next change closes them."""
        teller = Teller()
        before = follow(on_file, profile(), teller)
        follow(on_file, profile(alpha=0.02))
        follow(on_file, profile(alpha=0.02))
        assert before._spool is not None
        del teller
        gc.collect()
        follow(on_file, profile(alpha=0.02))
        assert before._spool is None
        follow(on_file, profile(alpha=0.03))
        assert slots(place) == ["slot-0", "slot-1"]

    def test_until_what_they_saw_is_delivered(
        self, on_file: Succession, profile: Callable[..., Profile]
    ) -> None:
        """A store that is away then refuses nothing."""
        before = follow(on_file, profile(), Teller())
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(type(before.store), "merge", away)
            before.observe({})
            after = follow(on_file, profile(rise=3.0))
            assert on_file._replaced
        follow(on_file, profile(rise=3.0))
        assert not on_file._replaced
        assert after.state().exchanges == 1

    def test_until_the_end(self, place: Path, profile: Callable[..., Profile]) -> None:
        """Closing delivers what they saw, and lets go of them, too."""
        succession, teller = Succession(place), Teller()
        before = follow(succession, profile(), teller)
        after = follow(succession, profile(rise=3.0))
        before.observe({})
        succession.close()
        assert (before._spool, after._spool) == (None, None)
        again = Succession(place)
        assert follow(again, profile()).state().exchanges == 1
        again.close()


def away(*_: object) -> None:
    """Be a store that nobody can reach."""
    raise LiveStoreError("away")


def slots(place: Path) -> list[str]:
    """Return the spool's slots; as many as were ever in use at a time."""
    return sorted(path.name for path in (place.parent / f"{place.name}-spool" / "ours").iterdir())
