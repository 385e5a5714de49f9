"""Every store follows the same rules: once each, alarms stand, what happened is kept."""

from __future__ import annotations

import json
import socket
import subprocess
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from redis import Redis

from guard.errors import ConfigurationError, LiveStoreError
from guard.live import LiveSettings, MemoryStore, Operating
from guard.live.alarms import Alarm, Transition, cleared, raised
from guard.live.open_batch import OpenBatch
from guard.live.opening import open_store
from guard.live.profile import Profile
from guard.live.redis_store import RedisStore
from guard.live.sqlite_store import SQLiteStore

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from guard.live.ledger import Batch
    from guard.live.stores import Store

SLOPES = {"harm": (40, 9, 3), "leak": (12,)}
STREAM = st.lists(st.sets(st.sampled_from(sorted(SLOPES))), max_size=25)


def batch_of(
    stream: Iterable[Iterable[str]],
    lives: dict[str, int] | None = None,
    raising: Transition | None = None,
) -> Batch:
    """Return the batch of a stream of exceedances."""
    batch = OpenBatch(("harm", "leak", "more"), SLOPES, 0.993)
    for number, exceeded in enumerate(stream):
        unjudged = sorted(exceeded) if number % 2 else ()
        batch.count([0.02, 0.011, 0.3], sorted(exceeded), unjudged)
        batch.points.append({"at": number, "time": 1.7e9 + 0.123456789, "category": "harm"})
    if raising is not None:
        batch.raised.append(raising.as_dict())
    return batch.sealed("digest", lives or {})


def alarm_of(category: str, life: int = 0) -> Alarm:
    """Return an alarm."""
    return Alarm(category, "tighten", "life", 1_700_000_000.123456, life, 90, 9, 5.25, 0.5)


def open_kind(kind: str, request: pytest.FixtureRequest, folder: Path) -> Store:
    """Return an empty store."""
    if kind == "memory":
        return MemoryStore("chat")
    if kind == "sqlite":
        return SQLiteStore(folder / "live.sqlite3", "chat")
    return RedisStore(request.getfixturevalue("redis_server").url, "chat")


def answered(port: int) -> None:
    """Wait until a server takes connections."""
    until = time.monotonic() + 60
    while time.monotonic() < until:
        with suppress(OSError), socket.create_connection(("127.0.0.1", port)):
            return
        time.sleep(0.02)
    raise RuntimeError("the server does not answer")


@pytest.fixture(params=["sqlite", "redis"])
def shared_store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    """Return an empty store of each kind that processes can share."""
    return open_kind(request.param, request, tmp_path)


@pytest.fixture(params=["memory", "sqlite", "redis"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    """Return an empty store of each kind."""
    return open_kind(request.param, request, tmp_path)


class TestCounting:
    """Batches become a state."""

    @settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(st.lists(st.tuples(st.sampled_from("ab"), STREAM), max_size=6))
    def test_is_the_same_in_every_store(
        self, shared_store: Store, batches: list[tuple[str, list[set[str]]]]
    ) -> None:
        """Whatever replicas deliver, a file and Redis hold what memory holds."""
        shared_store.name = uuid4().hex
        memory = MemoryStore(shared_store.name)
        sequences = {"a": 0, "b": 0}
        for replica, stream in batches:
            sequences[replica] += 1
            name, number = f"{shared_store.name}{replica}", sequences[replica]
            batch = batch_of(stream, {"harm": 1} if len(stream) % 3 == 2 else {})
            assert shared_store.merge(name, number, batch) == memory.merge(name, number, batch)

        assert shared_store.read("digest", "a") == memory.read("digest", "a")

    def test_happens_once(self, store: Store) -> None:
        """A batch that is delivered again, or late, changes nothing."""
        first = store.merge("a", 1, batch_of([{"harm"}, set()]))
        second = store.merge("a", 2, batch_of([{"leak"}]))

        assert store.merge("a", 2, batch_of([{"leak"}])) == second
        assert store.merge("a", 1, batch_of([{"harm"}, set()])) == second
        assert (first.sequence, second.sequence) == (1, 2)
        assert second.state.exchanges == 3

    def test_tells_what_nobody_could_judge(self, store: Store) -> None:
        """Of the exceedances it holds how many are ones in which a detector failed."""
        store.merge("a", 1, batch_of([{"harm"}, {"harm", "leak"}]))
        state = store.merge("a", 2, batch_of([{"leak"}])).state

        counts = {name: (each.exceedances, each.unjudged) for name, each in state.tallies.items()}
        assert counts == {"harm": (2, 1), "leak": (2, 1)}
        assert "unjudged" not in json.dumps(batch_of([{"harm"}]).as_dict())

    def test_keeps_profiles_apart(self, store: Store) -> None:
        """Counts under another profile are others."""
        store.merge("a", 1, batch_of([{"harm"}]))

        assert store.read("another").state.exchanges == 0


class TestAlarms:
    """What stands."""

    def test_stand_until_cleared(self, store: Store) -> None:
        """An alarm comes with a batch and goes by a clearing, and both are kept."""
        up = raised("chat", alarm_of("harm"), {})
        store.merge("a", 1, batch_of([{"harm"}], raising=up))
        store.merge("b", 1, batch_of([set()] * 9))

        assert store.read("digest").alarms == {"harm": up.alarm}
        down = cleared(
            "chat", up.alarm, {"harm": up.alarm}, time=1_700_000_009.5, by="ada", reason="é"
        )
        assert store.clear(down)
        found = store.read("digest")
        assert (found.alarms, found.lives) == ({}, {"harm": 1})
        assert found.state.tallies["harm"].exceedances == 0
        assert store.history("digest").transitions == (up, down)

    def test_of_another_life_do_not_stand(self, store: Store) -> None:
        """What was raised before a clearing, and arrives behind it, is not raised again."""
        up = raised("chat", alarm_of("harm"), {})
        store.merge("a", 1, batch_of([{"harm"}], raising=up))
        down = cleared("chat", up.alarm, {"harm": up.alarm}, time=2.0, by="ada", reason="why")
        store.clear(down)

        found = store.merge("b", 1, batch_of([{"harm"}], raising=up))

        assert found.alarms == {}
        assert found.state.tallies["harm"].exceedances == 0
        assert not store.clear(down)

    def test_are_raised_once(self, store: Store) -> None:
        """The first to raise one is the one that stands."""
        one = raised("chat", alarm_of("harm"), {})
        store.merge("a", 1, batch_of([set()], raising=one))
        other = raised("chat", Alarm("harm", "notify", "change", 5.0, 0, 1, 1, 0.0, 1.0), {})
        found = store.merge("b", 1, batch_of([set()], raising=other))

        assert found.alarms == {"harm": one.alarm}
        assert store.history("digest").transitions == (one,)

    def test_stand_across_profiles_and_restarts_of_the_count(self, store: Store) -> None:
        """A new profile begins to count anew and finds the alarm standing."""
        up = raised("chat", alarm_of("harm"), {})
        store.merge("a", 1, batch_of([set()], raising=up))

        assert store.read("another").alarms == {"harm": up.alarm}


class TestFile:
    """The SQLite file while it is open."""

    def test_that_was_taken_away_counts_nothing(self, tmp_path: Path) -> None:
        """Nothing is delivered to a file that nobody would find again; once it is back, it is."""
        path, away = tmp_path / "live.sqlite3", tmp_path / "away.sqlite3"
        store = SQLiteStore(path, "chat")
        store.merge("one", 1, batch_of([["harm"]]))
        path.rename(away)
        with pytest.raises(LiveStoreError, match=r"removed or replaced.*start again"):
            store.merge("one", 2, batch_of([["harm"]]))
        assert not path.exists()
        away.rename(path)
        assert store.merge("one", 2, batch_of([["harm"]])).state.exchanges == 2

    def test_dropped_unclosed(self, tmp_path: Path) -> None:
        """A store that is merely dropped closes its file at once, as `close` does."""
        store = SQLiteStore(tmp_path / "live.sqlite3", "chat")
        store.merge("one", 1, batch_of([["harm"]]))
        assert len(list(tmp_path.iterdir())) == 3  # with the log and its index
        del store
        assert [path.name for path in tmp_path.iterdir()] == ["live.sqlite3"]


class TestHistory:
    """What is kept."""

    def test_is_bounded(self, store: Store) -> None:
        """Of points over time the latest thousand are kept, digit by digit."""
        for number in range(1, 13):
            store.merge("a", number, batch_of([{"harm"}] * 100))

        points = store.history("digest").points
        assert len(points) == 1000
        assert points[-1] == {"at": 99, "time": 1.7e9 + 0.123456789, "category": "harm"}

    def test_the_profile_opened_last_is_shown_whatever_the_clocks_say(
        self, store: Store, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A replica whose clock is an hour ahead, or one that is set back, hides no later one."""
        first, second = (
            Profile(LiveSettings(alpha=alpha), {"harm": 0.02}, {}) for alpha in (0.01, 0.02)
        )
        now = time.time()
        monkeypatch.setattr(time, "time", lambda: now + 3600)
        store.open(first)
        monkeypatch.setattr(time, "time", lambda: now)
        for profile in (second, first, second):
            store.open(profile)
            assert store.profile() == profile

    def test_knows_the_profile_that_was_opened_last(self, store: Store) -> None:
        """Readers find out what counts mean without knowing the deployment's settings."""
        operating = Operating(2.0, 80, 100, 4, 3000)
        first = Profile(LiveSettings(), {"harm": 0.02}, {"harm": operating})
        second = Profile(LiveSettings(tolerated=0.01), {"harm": 0.02}, {"harm": operating})

        assert store.profile() is None
        for profile in (first, second, first):
            store.open(profile)
        assert store.profile() == first
        assert first.digest != second.digest


class TestOpening:
    """From what a person writes."""

    def test_tells_files_from_redis(self, tmp_path: Path) -> None:
        """A URL of Redis opens Redis, what is no URL is a path; passwords are not shown."""
        assert isinstance(open_store(tmp_path / "a" / "live.sqlite3"), SQLiteStore)
        redis = open_store("redis://user:hidden@127.0.0.1:1/0", "chat")
        assert isinstance(redis, RedisStore)
        assert "hidden" not in repr(redis)
        with pytest.raises(LiveStoreError) as error:
            redis.read("digest")
        assert "hidden" not in str(error.value)

    def test_tells_of_a_replica_that_may_only_be_read(self, redis_server: Any) -> None:
        """The address of the primary is asked for; the scheme may be in capitals."""
        with Redis.from_url(redis_server.url) as client:
            client.replicaof("127.0.0.1", "1")
        store = open_store(redis_server.url.replace("redis", "REDIS"), "chat")
        with pytest.raises(LiveStoreError, match="name the address of the primary"):
            store.open(Profile(LiveSettings(), {"harm": 0.01}, {}))

    def test_tells_of_a_sentinel(self, tmp_path: Path) -> None:
        """It knows no commands for data; where to point instead is said."""
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = int(probe.getsockname()[1])
        settings_file = tmp_path / "sentinel.conf"
        settings_file.write_text(f"port {port}\nbind 127.0.0.1\ndir {tmp_path}\n")
        command = ["redis-server", str(settings_file), "--sentinel"]
        with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
            try:
                answered(port)
                with pytest.raises(LiveStoreError, match="such as a Sentinel: name the address"):
                    RedisStore(f"redis://127.0.0.1:{port}", "chat").profile()
            finally:
                process.kill()

    @pytest.mark.parametrize(
        "scheme", ["redis+sentinel", "redis+cluster", "valkey", "postgresql", "sqlite", "http"]
    )
    def test_refuses_urls_of_other_things(
        self, scheme: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """No file is made of one, in a folder that is named by its password."""
        monkeypatch.chdir(tmp_path)
        with pytest.raises(ConfigurationError, match="`redis://`") as error:
            open_store(f"{scheme}://user:hidden@host:26379/main")
        assert "hidden" not in str(error.value)
        assert not list(tmp_path.iterdir())

    @pytest.mark.parametrize("name", ["", "two words", "{brace}", "x" * 200])
    def test_refuses_names_that_keys_cannot_hold(self, name: str) -> None:
        """A name is plain text without braces or spaces."""
        with pytest.raises(ConfigurationError, match="no name"):
            MemoryStore(name)

    def test_refuses_a_url_that_is_none(self) -> None:
        """A URL that cannot be read is an error which does not repeat it."""
        with pytest.raises(ConfigurationError, match="cannot be understood") as error:
            open_store("redis://:secret@host:port:9/0")
        assert "secret" not in str(error.value)

    @pytest.mark.parametrize(
        "url",
        ["redis://:SENTINEL#x@host/0", "redis://:SENTINEL/x@host/0", "redis://:SENTINEL@[host/0"],
    )
    def test_shows_no_password_of_such_a_url(self, url: str) -> None:
        """Neither the error nor what a log prints of its causes has any part of it."""
        with pytest.raises(ConfigurationError, match="percent-encoded") as error:
            open_store(url)
        assert "SENTINEL" not in repr(error.value.__cause__) + repr(error.value)
        assert error.value.__cause__ is None
        assert error.value.__suppress_context__

    def test_makes_files_for_their_owner_alone(self, tmp_path: Path) -> None:
        """Nobody else may read what was seen."""
        SQLiteStore(tmp_path / "live.sqlite3")

        assert (tmp_path / "live.sqlite3").stat().st_mode & 0o077 == 0
