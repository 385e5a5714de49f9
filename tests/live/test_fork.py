"""Servers that load the guard and then fork: each process is a replica of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from guard.live.opening import open_store
from guard.live.state import read_state

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="no `fork` on this system")

PATIENCE = 60

BEGIN = """
import os, sys
from guard.live import LiveRisk, LiveSettings, MemoryStore, Operating
from guard.live.opening import open_store

place, spool = sys.argv[1], sys.argv[2] or None
live = LiveRisk(
    LiveSettings(action="tighten"),
    {"bad_advice": 0.02},
    confusion={"bad_advice": Operating(4.0, 900, 1000, 20, 10_000)},
    store=open_store(place, spool=spool) if place else MemoryStore(),
)

def forked(work):
    child = os.fork()
    if not child:
        try:
            work()
        finally:
            sys.stdout.flush()
            os._exit(0)
    os.waitpid(child, 0)
"""


def run(script: str, *arguments: object) -> list[str]:
    """Return the lines that a script of its own process prints."""
    command = [sys.executable, "-c", BEGIN + script, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert done.returncode == 0, done.stderr
    return [line for line in done.stdout.splitlines() if line.startswith("said ")]


class TestForkedProcess:
    """A process that was forked from one that follows a live risk."""

    @pytest.mark.parametrize("kind", ["sqlite", "redis"])
    def test_counts_and_is_heard(
        self, kind: str, request: pytest.FixtureRequest, tmp_path: Path
    ) -> None:
        """What parent and children see adds up, each exchange once, and all hear of alarms."""
        place: Any = tmp_path / "live.sqlite3"
        if kind == "redis":
            place = request.getfixturevalue("redis_server").url
        said = run(
            """
live.observe({"bad_advice": -1.0})  # waits in the parent, its thread runs

def work():
    for _ in range(20):
        live.observe({"bad_advice": 9.0})
    live.close()

forked(work)
forked(lambda: print("said", live.posture))
forked(work)
live.flush()
print("said", live.posture)
live.close()
""",
            place,
            tmp_path / "spool",
        )
        assert said == ["said tighten"] * 2
        state = read_state(open_store(place))
        assert state is not None
        assert state.exchanges == 41

    def test_while_other_threads_deliver(self, tmp_path: Path) -> None:
        """Forked in the middle of a delivery it delivers too, and each exchange counts once."""
        place = tmp_path / "live.sqlite3"
        said = run(
            """
import signal, threading
ends = threading.Event()

def keep_delivering():
    while not ends.is_set():
        live.observe({"bad_advice": -1.0})
        seen.append(1)
        live.flush()

seen, failed = [], 0
threads = [threading.Thread(target=keep_delivering) for _ in range(2)]
for thread in threads:
    thread.start()
for _ in range(4):
    child = os.fork()
    if not child:
        signal.alarm(20)  # ends who waits for a lock that nobody lets go of
        live.observe({"bad_advice": -1.0})
        live.close()
        os._exit(0)
    seen.append(1)
    failed += os.waitpid(child, 0)[1] != 0
ends.set()
for thread in threads:
    thread.join()
live.close()
print("said", failed, len(seen))
""",
            place,
            "",
        )
        state = read_state(open_store(place))
        assert state is not None
        assert said == [f"said 0 {state.exchanges}"]

    def test_leaves_what_it_saw_to_the_next(self, tmp_path: Path) -> None:
        """Where it is killed, what it had in its own slot is delivered by who comes then."""
        place = tmp_path / "live.sqlite3"
        run(
            """
def work():
    live._start_delivering = lambda: None  # nobody delivers
    for _ in range(5):
        live.observe({"bad_advice": -1.0})

forked(work)  # ends without a word
os._exit(0)
""",
            place,
            "",
        )
        # One of them finds the parent's slot, the other one the child's.
        run("forked(lambda: live.posture)", place, "")
        state = read_state(open_store(place))
        assert state is not None
        assert state.exchanges == 5

    def test_goes_on_while_the_store_is_away(self, redis_server: Any, tmp_path: Path) -> None:
        """It judges with what its parent knew, and delivers once the store is back."""
        said = run(
            """
import signal
for _ in range(20):
    live.observe({"bad_advice": 9.0})
live.flush()

def work():
    print("said", live.posture)
    live.observe({"bad_advice": 9.0})
    os.kill(int(sys.argv[3]), signal.SIGCONT)
    live.close()

os.kill(int(sys.argv[3]), signal.SIGSTOP)
forked(work)
""",
            redis_server.url,
            tmp_path / "spool",
            redis_server._process.pid,
        )
        assert said == ["said tighten"]
        state = read_state(open_store(redis_server.url))
        assert state is not None
        assert state.exchanges == 21

    def test_begins_while_another_thread_logs(self, tmp_path: Path) -> None:
        """A fork waits for whoever writes the log meanwhile, and no one waits for the fork."""
        said = run(
            """
import logging, threading
inside, forking = threading.Event(), threading.Event()

def clock():
    inside.set()
    forking.wait()
    for _ in range(100_000):
        logging.getLogger("guard")
    return 0.0

live._clock = clock
threading.Thread(target=lambda: live.observe({"bad_advice": 9.0})).start()
inside.wait()
os.register_at_fork(before=forking.set)
forked(lambda: print("said", live.posture))
""",
            tmp_path / "live.sqlite3",
            tmp_path / "spool",
        )
        assert said == ["said normal"]

    def test_in_memory_is_alone(self) -> None:
        """Without a store it goes on from a copy of what its parent had."""
        said = run(
            """
live.observe({"bad_advice": -1.0})

def work():
    live.observe({"bad_advice": -1.0})
    live.flush()
    print("said", live.state().exchanges)

forked(work)
print("said", live.state().exchanges)
""",
            "",
            "",
        )
        assert said == ["said 2", "said 1"]
