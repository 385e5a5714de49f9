"""Kills and restarts, of processes and of a real Redis: nothing is lost, nothing counts twice."""

from __future__ import annotations

import json
import random
import shutil
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest
from redis import Redis
from structlog.testing import capture_logs

from guard.errors import LiveStoreError
from guard.live import read_state
from guard.live.opening import clear_alarms, open_store
from guard.live.redis_store import RedisStore
from guard.live.spool import Spool
from guard.live.sqlite_store import SQLiteStore

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from guard.live import LiveRisk
    from guard.live.state import LiveState

    Make = Callable[..., LiveRisk]

PATIENCE = 20.0
"""Seconds after which what should happen within a second has not."""

WORKER = """
import random, sys
import structlog
structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
from guard.live import LiveRisk, LiveSettings, Operating
from guard.live.opening import open_store

place, name, spool, count = sys.argv[1:]
sharp = Operating(4.0, 900, 1000, 20, 10_000)
live = LiveRisk(
    LiveSettings(), {"harm": 0.02, "leak": 0.01}, confusion={"harm": sharp, "leak": sharp},
    store=open_store(place, name, spool=spool or None), clock=lambda: 1.0,
)
rng = random.Random(3)
stream = [(rng.gauss(-1, 2.6), rng.gauss(-2, 2)) for _ in range(int(count))]
done = live.state().exchanges
print("begin", done, flush=True)
for number, (harm, leak) in enumerate(stream[done:], done + 1):
    live.observe({"harm": harm, "leak": leak})
    if number % 10 == 0:
        print(number, flush=True)
live.close()
print("end", flush=True)
"""


def worker(place: str, name: str, spool: Path | None, count: int) -> subprocess.Popen[str]:
    """Start a process that observes `count` exchanges, from where the store says it was."""
    return subprocess.Popen(
        [sys.executable, "-c", WORKER, place, name, str(spool or ""), str(count)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )


def finish(process: subprocess.Popen[str]) -> list[str]:
    """Return what a process printed to its end."""
    printed, _ = process.communicate(timeout=120)
    assert process.returncode == 0
    return printed.split("\n")


def kill_after(process: subprocess.Popen[str], lines: int) -> tuple[int, int]:
    """Kill a process after so many lines; return where it began and what it observed for sure."""
    assert process.stdout is not None
    begin = int(process.stdout.readline().split()[1])
    observed = begin
    for _ in range(lines):
        line = process.stdout.readline().strip()
        observed = int(line) if line.isdecimal() else observed
    process.kill()
    for line in process.stdout:
        observed = int(line) if line.strip().isdecimal() else observed
    process.wait()
    process.stdout.close()
    return begin, observed


def evidence_of(place: str, name: str) -> dict[str, Any]:
    """Return what a store holds of exchanges and evidence, priors to a millionth."""
    state = read_state(open_store(place, name))
    assert state is not None
    values = {
        "exchanges": state.exchanges,
        "alarms": {key: (a.test, a.exchanges, a.exceedances) for key, a in state.alarms.items()},
    }
    for name_, each in state.categories.items():
        assert each.evidence is not None
        values[name_] = (
            each.evidence.exceedances,
            each.evidence.log_wealth,
            each.evidence.nearness,
        )
    return values


def eventually(condition: Callable[[], bool]) -> bool:
    """Return whether `condition` comes true in good time."""
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(0.02)
    return False


class TestKilledProcess:
    """A process that is killed at any moment and started again."""

    @pytest.mark.parametrize("kind", ["sqlite", "redis"])
    def test_ends_with_the_evidence_of_one_that_was_not(
        self, kind: str, request: pytest.FixtureRequest, tmp_path: Path
    ) -> None:
        """Whatever had been observed for sure is there again, and the end is the same."""
        if kind == "redis":
            place, spool = request.getfixturevalue("redis_server").url, tmp_path / "spool"
        else:
            place, spool = str(tmp_path / "live.sqlite3"), None
        count, rng = 3000, random.Random(1)
        assert finish(worker(place, "whole", spool, count))[0] == "begin 0"

        before = 0
        for _ in range(4):
            process = worker(place, "killed", spool, count)
            begin, observed = kill_after(process, rng.randrange(5, 60))
            assert begin >= before
            before = observed
        assert int(finish(worker(place, "killed", spool, count))[0].split()[1]) >= before

        assert evidence_of(place, "killed") == evidence_of(place, "whole")
        assert evidence_of(place, "killed")["alarms"].keys() >= {"harm"}


class TestKilledRedis:
    """A Redis that is killed under load and comes back."""

    def test_costs_nothing(self, redis_server: Any, tmp_path: Path) -> None:
        """A process that goes on meanwhile ends with the evidence of one that was not disturbed."""
        count = 30_000
        disturbed = worker(redis_server.url, "disturbed", tmp_path / "spool", count)
        assert disturbed.stdout is not None
        for _ in range(3):
            for _ in range(150):
                disturbed.stdout.readline()
            redis_server.kill()
            for _ in range(150):
                disturbed.stdout.readline()
            redis_server.start()
        # The last delivery may find Redis away once more, and the process fails: a restart
        # delivers what it left.
        disturbed.communicate(timeout=120)
        finish(worker(redis_server.url, "disturbed", tmp_path / "spool", count))
        finish(worker(redis_server.url, "whole", None, count))

        whole = evidence_of(redis_server.url, "whole")
        assert evidence_of(redis_server.url, "disturbed") == whole
        assert whole["exchanges"] == count

    def test_stops_no_judgement(self, make_live: Make, redis_server: Any) -> None:
        """While it is away alarms are raised and stand here; then everybody hears of them."""
        live = make_live(store=RedisStore(redis_server.url), action="quarantine")
        other = make_live(store=RedisStore(redis_server.url))
        live.observe({"bad_advice": -3.0})
        live.flush()
        redis_server.kill()
        with capture_logs() as events:
            for _ in range(50):
                live.observe({"bad_advice": 9.0})
            assert live.posture == "quarantine"
            with pytest.raises(LiveStoreError, match="Check that it runs"):
                live.flush()
            with pytest.raises(LiveStoreError):
                live.clear("bad_advice", by="ada", reason="cannot reach it")
            assert live.posture == "quarantine"
            assert eventually(lambda: any(e["event"] == "guard.live.store_away" for e in events))
            redis_server.start()
            assert eventually(lambda: any(e["event"] == "guard.live.store_back" for e in events))

        # What was seen while the first batch waited may be a batch of its own.
        live.flush()
        other.flush()
        assert other.posture == "quarantine"
        assert other.state().exchanges == 51

    def test_that_lost_its_alarms_gets_them_back(self, make_live: Make, tmp_path: Path) -> None:
        """What was raised and not cleared stands again at the next start, and nothing else."""
        path = tmp_path / "live.sqlite3"
        first = make_live(store=SQLiteStore(path), action="quarantine")
        for _ in range(30):
            first.observe({"bad_advice": 9.0, "violence": 9.0})
        first.clear("violence", by="ada", reason="prompt repaired")
        first.close()
        with closing(sqlite3.connect(path)) as connection:
            connection.execute("DROP TABLE live_alarm")

        with capture_logs() as events:
            second = make_live(store=SQLiteStore(path), action="quarantine")
        assert (second.posture, second.alarms) == ("quarantine", first.alarms)
        told = [e["category"] for e in events if e["event"] == "guard.live.alarm_restored"]
        assert told == ["bad_advice"]
        second.flush()
        assert second.store.read("").alarms == first.alarms

    def test_that_lost_everything_is_told_of(self, make_live: Make, tmp_path: Path) -> None:
        """Where nobody ran who could restore it, the log says so."""
        path = tmp_path / "live.sqlite3"
        first = make_live(store=SQLiteStore(path))
        first.observe({"bad_advice": 1.0})
        first.close()
        path.unlink()

        with capture_logs() as events:
            make_live(store=SQLiteStore(path))
        told = [e for e in events if e["event"] == "guard.live.store_forgot"]
        assert [(e["log_level"], e["delivered"]) for e in told] == [("error", 1)]

    def test_put_back_from_an_older_copy_is_told_of(self, make_live: Make, tmp_path: Path) -> None:
        """What it counted behind the copy is gone, and with it an alarm: the log says so."""
        path, copy = tmp_path / "live.sqlite3", tmp_path / "copy.sqlite3"
        for evidence in (-1.0, 9.0):
            live = make_live(store=SQLiteStore(path), action="quarantine")
            for _ in range(20):
                live.observe({"bad_advice": evidence})
            live.close()
            if not copy.exists():
                shutil.copy(path, copy)
        assert live.posture == "quarantine"
        shutil.copy(copy, path)

        with capture_logs() as events:
            again = make_live(store=SQLiteStore(path), action="quarantine")
        assert again.posture == "normal"
        told = [e for e in events if e["event"] == "guard.live.store_forgot"]
        assert [e["log_level"] for e in told] == ["error"]
        assert 0 < told[0]["counted"] < told[0]["delivered"]

        again.observe({"bad_advice": -1.0})
        again.close()
        with capture_logs() as events:
            make_live(store=SQLiteStore(path))
        assert "guard.live.store_forgot" not in {e["event"] for e in events}

    def test_that_is_empty_is_told_of(self, make_live: Make, redis_server: Any) -> None:
        """Without a spool nobody knows whether it was flushed: each empty one is told of, once."""

        def told() -> list[str]:
            with capture_logs() as events:
                make_live(store=RedisStore(redis_server.url)).close()
            return [e["log_level"] for e in events if e["event"] == "guard.live.store_empty"]

        assert [told(), told()] == [["warning"], []]
        Redis.from_url(redis_server.url).flushall()
        assert told() == ["warning"]

    def test_that_forgot_everything_learns_what_stands(
        self, make_live: Make, redis_server: Any
    ) -> None:
        """An alarm does not go because a database did."""
        live = make_live(store=RedisStore(redis_server.url), action="tighten")
        for _ in range(50):
            live.observe({"bad_advice": 9.0})
        live.flush()
        live._store._client.flushall()  # type: ignore[attr-defined]

        live.flush()
        live.flush()

        assert live.posture == "tighten"
        assert RedisStore(redis_server.url).read("any").alarms.keys() == {"bad_advice"}

    def test_that_forgot_everything_can_be_read_and_cleared(
        self, make_live: Make, redis_server: Any
    ) -> None:
        """A person sees there what stands, and may clear it, while the process goes on."""
        live = make_live(store=RedisStore(redis_server.url), action="tighten")
        for _ in range(50):
            live.observe({"bad_advice": 9.0})
        live.flush()
        live._store._client.flushall()  # type: ignore[attr-defined]
        live.flush()
        live.flush()

        store = RedisStore(redis_server.url)
        state = read_state(store)
        assert state is not None
        assert state.alarms.keys() == {"bad_advice"}
        clear_alarms(store, state.alarms, "all", time=1.7e9, by="ada", reason="repaired")
        live.flush()
        assert live.posture == "normal"


class TestEnd:
    """A process that ends without `close`."""

    @pytest.mark.parametrize("kind", ["sqlite", "redis"])
    def test_delivers_what_waits(
        self, kind: str, request: pytest.FixtureRequest, tmp_path: Path
    ) -> None:
        """What it saw last is counted in the store, alarms included, with no spool either."""
        place = str(tmp_path / "live.sqlite3")
        if kind == "redis":
            place = request.getfixturevalue("redis_server").url
        script = """
import sys
from guard.live import LiveRisk, LiveSettings, Operating
from guard.live.opening import open_store

live = LiveRisk(
    LiveSettings(action="tighten"),
    {"bad_advice": 0.02},
    confusion={"bad_advice": Operating(4.0, 900, 1000, 20, 10_000)},
    store=open_store(sys.argv[1]),
)
live._start_delivering = lambda: None  # the end comes before the next delivery
for _ in range(20):
    live.observe({"bad_advice": 9.0})
"""
        subprocess.run([sys.executable, "-c", script, place], timeout=60, check=True)
        state = read_state(open_store(place))
        assert state is not None
        assert (state.exchanges, state.posture) == (20, "tighten")


class TestFleet:
    """Several replicas at once."""

    def test_agrees_within_a_flush(self, make_live: Make, redis_server: Any) -> None:
        """What one sees, all know soon; what they see together raises the alarm of all."""
        replicas = [
            make_live(store=RedisStore(redis_server.url), action="tighten") for _ in range(3)
        ]
        # Fewer each than any one of them would raise an alarm for.
        for live in replicas:
            for _ in range(3):
                live.observe({"bad_advice": 9.0})

        assert eventually(lambda: all(live.posture == "tighten" for live in replicas))
        assert eventually(lambda: {live.state().exchanges for live in replicas} == {9})
        states = [live.state() for live in replicas]
        assert len({json.dumps(_shared(state)) for state in states}) == 1

    def test_hears_of_a_clearing(self, make_live: Make, redis_server: Any) -> None:
        """One person clears it once, for all; late deliveries do not bring it back."""
        one, other = (
            make_live(store=RedisStore(redis_server.url), action="tighten") for _ in range(2)
        )
        for _ in range(50):
            one.observe({"bad_advice": 9.0})
            other.observe({"bad_advice": 9.0})
        assert eventually(lambda: other.posture == one.posture == "tighten")

        one.clear("bad_advice", by="ada", reason="prompt repaired")

        assert eventually(lambda: other.posture == "normal")
        other.observe({"bad_advice": -3.0})
        one.flush()
        other.flush()
        assert one.posture == other.posture == "normal"

    def test_calls_one_script_per_interval(self, make_live: Make, redis_server: Any) -> None:
        """A replica under load calls no more than one script per 50 ms."""
        store = RedisStore(redis_server.url)
        live = make_live(store=store)
        begin = time.monotonic()
        while time.monotonic() - begin < 1.0:
            live.observe({"bad_advice": -3.0})
        live.close()
        took = time.monotonic() - begin

        stats = store._client.info("commandstats")
        calls = stats["cmdstat_evalsha"]["calls"]
        assert 2 <= calls <= took / 0.05 + 2


def _shared(state: LiveState) -> dict[str, Any]:
    """Return what replicas must agree on: all but what each remembers by itself."""
    values = state.as_dict()
    for name in ("points", "transitions"):
        del values[name]
    # Each may have raised it at the same moment; the store keeps the first.
    values["alarms"] = sorted(values["alarms"])
    for each in values["categories"].values():
        del each["alarm"]
    return values


def _stop_delivering(live: LiveRisk) -> None:
    """Have nobody deliver from now on, as if the process were killed before its next delivery."""
    assert live._thread is not None
    live._ends.set()
    live._thread.join()


class TestSpool:
    """What a process leaves."""

    def test_is_delivered_by_the_next(self, make_live: Make, tmp_path: Path) -> None:
        """A process that could not close leaves its batch, its log and its alarms."""
        live = make_live(store=SQLiteStore(tmp_path / "live.sqlite3"), action="tighten")
        _stop_delivering(live)
        for _ in range(50):
            live.observe({"bad_advice": 9.0})
        assert live._spool is not None
        live._spool.close()
        live._spool = None

        heir = make_live(store=SQLiteStore(tmp_path / "live.sqlite3"))
        assert heir.state().exchanges == 50
        assert heir.posture == "tighten"
        # What it left in its memory was delivered already.
        live._open = live._new_batch()

    def test_is_given_back_by_what_nobody_closed(self, tmp_path: Path) -> None:
        """A live risk that is dropped without `close` leaves its slot and what waits to others."""
        script = """
import gc, os, sys
from guard.live import LiveRisk, LiveSettings, Operating
from guard.live.sqlite_store import SQLiteStore

def made():
    live = LiveRisk(
        LiveSettings(),
        {"bad_advice": 0.02},
        confusion={"bad_advice": Operating(4.0, 900, 1000, 20, 10_000)},
        store=SQLiteStore(sys.argv[1]),
    )
    live._start_delivering = lambda: None  # nobody delivers
    return live

for _ in range(5):
    live = made()
    live.observe({"bad_advice": 1.0})
    del live
    gc.collect()
live = made()
print(live.state().exchanges, len(os.listdir(sys.argv[1] + "-spool/default")))
os._exit(0)
"""
        place = str(tmp_path / "live.sqlite3")
        command = [sys.executable, "-c", script, place]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        assert done.stdout.split() == ["5", "1"], done.stderr

    def test_is_one_slot_each(self, make_live: Make, tmp_path: Path) -> None:
        """Two processes at a time do not share one."""
        one = make_live(store=SQLiteStore(tmp_path / "live.sqlite3"))
        two = make_live(store=SQLiteStore(tmp_path / "live.sqlite3"))

        assert one._replica != two._replica
        first = one._replica
        one.observe({"bad_advice": 1.0})
        one.close()
        three = make_live(store=SQLiteStore(tmp_path / "live.sqlite3"))
        assert three._replica == first

    def test_stays_small_while_the_store_is_away(
        self, make_live: Make, redis_server: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A log that grows long becomes the batch that it makes."""
        monkeypatch.setattr("guard.live.spool._LONG", 3000)
        spool = tmp_path / "spool"
        live = make_live(store=RedisStore(redis_server.url, spool=spool))
        live.observe({"violence": 9.0})
        live.flush()
        redis_server.kill()
        for number in range(2000):
            live.observe({"violence": 9.0 if number % 2 else -1.0})
            if number % 200 == 0:
                with pytest.raises(LiveStoreError):
                    live.flush()

        # An exchange takes 27 bytes here.
        assert sum(path.stat().st_size for path in spool.rglob("log-*")) < 12_000
        # A kill now, and a process that finds Redis again.
        assert live._spool is not None
        live._ends.set()
        live._spool.close()
        live._spool = None
        redis_server.start()
        heir = make_live(store=RedisStore(redis_server.url, spool=spool))
        evidence = heir.state().categories["violence"].evidence
        assert evidence is not None
        assert (heir.state().exchanges, evidence.exceedances) == (2001, 1001)
        live._open, live._sealed = live._new_batch(), None

    def test_survives_a_record_that_was_cut_off(self, make_live: Make, tmp_path: Path) -> None:
        """Half an exchange at the end of a log is none."""
        live = make_live(store=SQLiteStore(tmp_path / "live.sqlite3"))
        _stop_delivering(live)
        for _ in range(7):
            live.observe({"bad_advice": 9.0})
        assert live._spool is not None
        live._spool.close()
        live._spool = None
        live._open = live._new_batch()
        (log,) = tmp_path.rglob("log-*")
        log.write_bytes(log.read_bytes()[:-5])

        heir = make_live(store=SQLiteStore(tmp_path / "live.sqlite3"))
        assert heir.state().exchanges == 6

    @pytest.mark.parametrize("room", range(0, 1200, 100))
    def test_that_had_no_room_for_a_while_goes_on(self, tmp_path: Path, room: int) -> None:
        """What is seen after a full disk has room again survives a kill, alarms included."""
        script = """
import os, resource, sys
from pathlib import Path
from guard.live.spool import Spool

header = {"digest": "d", "names": ["bad_advice"], "slopes": {"bad_advice": [3]}, "decay": 0.5}
spool = Spool(Path(sys.argv[1]), "chat", header)
spool.turn({})
_, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]), hard))

def tried(action):
    try:
        action()
    except OSError:
        return 0
    return 1

raising = {"name": "chat", "alarm": {"category": "bad_advice"}, "reason": "x" * 300}
kept = sum(tried(lambda: spool.note([0.1], ["bad_advice"])) for _ in range(10))
alarms = sum(tried(lambda: spool.note_raised(raising)) for _ in range(5))
resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
kept += sum(tried(lambda: spool.note([0.1], [])) for _ in range(7))
alarms += tried(lambda: spool.note_raised(raising))
print(kept, alarms, flush=True)
os._exit(0)
"""
        command = [sys.executable, "-c", script, str(tmp_path), str(room)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
        kept, alarms = map(int, done.stdout.split())
        header = {"digest": "d", "names": ["bad_advice"], "slopes": {}, "decay": 0.5}
        spool = Spool(tmp_path, "chat", header)
        ((_, batch),) = spool.recovered()
        spool.close()
        assert kept >= 7
        assert (batch.exchanges, len(batch.raised)) == (kept, alarms)

    def test_that_is_damaged_is_an_error_with_its_mend(
        self, make_live: Make, tmp_path: Path
    ) -> None:
        """What cannot be read is not passed over in silence."""
        live = make_live(store=SQLiteStore(tmp_path / "live.sqlite3"))
        live.observe({"bad_advice": 1.0})
        live.close()
        (sealed,) = tmp_path.rglob("sealed.json")
        sealed.write_text("{", encoding="utf-8")

        with pytest.raises(LiveStoreError, match="remove it"):
            make_live(store=SQLiteStore(tmp_path / "live.sqlite3"))

    def test_that_fails_stops_no_judgement(self, make_live: Make, tmp_path: Path) -> None:
        """Where the folder goes away, counts, alarms and deliveries go on."""
        live = make_live(store=SQLiteStore(tmp_path / "live.sqlite3"), action="tighten")
        shutil.rmtree(tmp_path / "live.sqlite3-spool")
        with capture_logs() as events:
            for _ in range(30):
                live.observe({"bad_advice": 9.0})
            live.flush()

        assert live.posture == "tighten"
        assert SQLiteStore(tmp_path / "live.sqlite3").read("any").alarms.keys() == {"bad_advice"}
        assert "guard.live.spool_failed" in {e["event"] for e in events}
