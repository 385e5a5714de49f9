"""Whose what lies in a spool is: of which life of a category, and of which deployment."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any

import pytest
from structlog.testing import capture_logs

from guard.errors import LiveStoreError
from guard.live.spool_slot import folder_of
from guard.live.sqlite_store import SQLiteStore

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from guard.live import LiveRisk

    Make = Callable[..., LiveRisk]
    Open = Callable[..., LiveRisk]

RISKY = {"bad_advice": 9.0}


@pytest.fixture
def opened(make_live: Make, tmp_path: Path) -> Open:
    """Return the maker of `LiveRisk` on one file, which delivers only when it is told to."""

    def make(name: str = "default") -> LiveRisk:
        store = SQLiteStore(tmp_path / "live.sqlite3", name)
        store.seconds = 3600.0
        return make_live(store=store, action="tighten")

    return make


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """Return where deployments have their folders."""
    return tmp_path / "live.sqlite3-spool"


def kill(live: LiveRisk) -> None:
    """Leave everything as a killed process would."""
    assert live._spool is not None
    live._spool.close()
    live._spool = None
    live._open, live._sealed = live._new_batch(), None


def counted(live: LiveRisk) -> tuple[int, int]:
    """Return exchanges and exceedances of the present life."""
    evidence = live.state().categories["bad_advice"].evidence
    assert evidence is not None
    return evidence.exchanges, evidence.exceedances


def leave(live: LiveRisk, count: int = 2) -> None:
    """Observe what raises no alarm, and be killed."""
    for _ in range(count):
        live.observe(RISKY)
    assert not live.alarms
    kill(live)


def grow_old(slot: Path) -> None:
    """Write a slot's files as they were before they had the deployment's name in them."""
    for path in (slot / "sealed.json", *slot.glob("log-*")):
        if path.exists():
            first, end, rest = path.read_bytes().partition(b"\n")
            values = json.loads(first)
            del values["name"]
            path.write_bytes(json.dumps(values).encode() + end + rest)


def test_tells_what_nobody_could_judge(opened: Open) -> None:
    """Also of exchanges that a killed process left, it is known where a detector failed."""
    live = opened()
    live.observe(RISKY)
    live.observe({"bad_advice": math.nan})
    kill(live)

    again = opened()
    evidence = again.state().categories["bad_advice"].evidence
    assert evidence is not None
    assert (evidence.exceedances, evidence.unjudged) == (2, 1)


def left_lines(events: list[Any]) -> list[tuple[str, str]]:
    """Return whom the log told that something was left, and whose it is."""
    return [(e["name"], e["owner"]) for e in events if e["event"] == "guard.live.spool_left"]


class TestLives:
    """What is seen behind a clearing counts to the life that began with it."""

    def test_of_one_who_cleared(self, opened: Open) -> None:
        """A clearing delivers first, so that nothing is open when the new life begins."""
        live = opened()
        while not live.alarms:
            live.observe(RISKY)
        live.clear("bad_advice", by="ada", reason="prompt repaired")
        for _ in range(3):
            live.observe(RISKY)
        assert counted(live) == (3, 3)
        kill(live)

        assert counted(opened()) == (3, 3)

    def test_of_one_who_heard_of_it(self, opened: Open) -> None:
        """A clearing that another replica made begins a life here, too."""
        one, other = opened(), opened()
        while not one.alarms:
            one.observe(RISKY)
        one.flush()
        other.flush()
        one.clear("bad_advice", by="ada", reason="prompt repaired")
        other.flush()
        assert not other.alarms
        for _ in range(3):
            other.observe(RISKY)
        assert counted(other) == (3, 3)
        kill(other)

        assert counted(opened()) == (3, 3)

    def test_what_was_open_stays_with_the_old_one(self, opened: Open) -> None:
        """An exchange that was observed before this replica heard of the clearing."""
        one, other = opened(), opened()
        while not one.alarms:
            one.observe(RISKY)
        one.flush()
        other.flush()
        one.clear("bad_advice", by="ada", reason="prompt repaired")
        other.observe(RISKY)
        other._adopt(other._store.read(other._profile.digest, other._replica))
        other.observe(RISKY)
        alive, exchanges = counted(other), other.state().exchanges
        assert alive == (1, 1)
        kill(other)

        heir = opened()
        assert (counted(heir), heir.state().exchanges) == (alive, exchanges)


class TestFolders:
    """Each deployment has its own."""

    @pytest.mark.parametrize(
        ("name", "folder"),
        [
            ("gpt-4.1_x@eu+2", "gpt-4.1_x@eu+2"),
            ("team/chat", "team%2fchat"),
            ("Qwen:7b", "%51wen%3a7b"),
            ("..", "%2e."),
            ("é", "%c3%a9"),
        ],
    )
    def test_are_named_as_deployments_are(self, name: str, folder: str) -> None:
        """In characters that no file system changes; `..` is not the folder above."""
        assert folder_of(name) == folder

    def test_fit_a_file_system(self, opened: Open) -> None:
        """Names of 128 characters, of which every one takes many, still differ."""
        one, two = "語" * 127 + "一", "語" * 127 + "二"
        assert len(folder_of(one)) <= 255
        leave(opened(one))
        assert counted(opened(two)) == (0, 0)
        assert counted(opened(one)) == (2, 2)

    @pytest.mark.parametrize(
        ("one", "other"), [("team/chat", "team_chat"), ("a/b_c", "a_b/c"), ("Chat", "chat")]
    )
    def test_are_not_shared(self, opened: Open, place: Path, one: str, other: str) -> None:
        """Counts and alarms stay with the deployment, whichever comes back first."""
        live = opened(one)
        while not live.alarms:
            live.observe(RISKY)
        seen = counted(live)
        kill(live)

        stranger = opened(other)
        assert (counted(stranger), stranger.posture) == ((0, 0), "normal")
        heir = opened(one)
        assert (counted(heir), heir.posture) == (seen, "tighten")
        names = [path.name for path in place.iterdir()]
        assert len({name.lower() for name in names}) == 2

    def test_of_another_are_refused(self, opened: Open, place: Path) -> None:
        """A folder that somebody moved does not make its counts another's."""
        leave(opened("first"))
        (place / "first").rename(place / "second")

        with capture_logs() as events:
            stranger = opened("second")
        assert counted(stranger) == (0, 0)
        assert left_lines(events) == [("second", "first")]
        assert (place / "second" / "slot-1").exists()

        stranger.close()
        (place / "second").rename(place / "first")
        assert counted(opened("first")) == (2, 2)


class TestOlder:
    """What a version left that wrote no names and made `/` to `_`."""

    def test_is_taken_where_the_folder_says_whose_it_is(self, opened: Open, place: Path) -> None:
        """Without `_` in it, it is the deployment's name."""
        leave(opened("Chat"))
        (place / "%43hat").rename(place / "Chat")
        grow_old(place / "Chat" / "slot-0")

        assert counted(opened("Chat")) == (2, 2)

    def test_is_taken_where_an_alarm_says_whose_it_is(self, opened: Open, place: Path) -> None:
        """The twin, which has that very folder now, takes another slot meanwhile."""
        live = opened("team/chat")
        while not live.alarms:
            live.observe(RISKY)
        seen = counted(live)
        kill(live)
        (place / "team%2fchat").rename(place / "team_chat")
        grow_old(place / "team_chat" / "slot-0")

        with capture_logs() as events:
            twin = opened("team_chat")
        assert (counted(twin), twin.posture) == ((0, 0), "normal")
        assert left_lines(events) == [("team_chat", "team/chat")]
        heir = opened("team/chat")
        assert (counted(heir), heir.posture) == (seen, "tighten")

        # It goes on in that slot, so what it leaves there says whose it is.
        heir.observe(RISKY)
        kill(heir)
        assert counted(opened("team_chat")) == (0, 0)
        assert counted(opened("team/chat")) == (seen[0] + 1, seen[1] + 1)

    @pytest.mark.parametrize("name", ["team/chat", "team_chat"])
    def test_stays_where_nobody_can_know(self, opened: Open, place: Path, name: str) -> None:
        """It might be the other's; the log says that it is there."""
        leave(opened("team_chat"))
        slot = place / "team_chat" / "slot-0"
        grow_old(slot)
        before = {path.name: path.read_bytes() for path in slot.iterdir()}

        with capture_logs() as events:
            live = opened(name)
        live.observe(RISKY)
        live.flush()

        assert counted(live) == (1, 1)
        assert left_lines(events) == [(name, "unknown")]
        assert {path.name: path.read_bytes() for path in slot.iterdir()} == before

    def test_with_nothing_in_it_is_anybodys(self, opened: Open, place: Path) -> None:
        """A slot that its process gave back in good order is used again."""
        opened("team_chat").close()
        grow_old(place / "team_chat" / "slot-0")
        with capture_logs() as events:
            opened("team_chat")
        assert not left_lines(events)
        assert [path.name for path in (place / "team_chat").iterdir()] == ["slot-0"]

    def test_that_is_damaged_stops_its_own_deployment_alone(
        self, opened: Open, place: Path
    ) -> None:
        """Whose folder it was once, too, goes on, with a line in the log."""
        live = opened("team_chat")
        live.observe(RISKY)
        live.close()
        (place / "team_chat" / "slot-0" / "sealed.json").write_text("{", encoding="utf-8")

        with capture_logs() as events:
            opened("team/chat")
        assert "guard.live.spool_left" in {e["event"] for e in events}
        for _ in range(2):
            # The slot is given back, so that a second try finds the same.
            with pytest.raises(LiveStoreError, match="remove it"):
                opened("team_chat")
