"""What the tests of live risk share: settings, a detector's figures, makers of `LiveRisk`."""

from __future__ import annotations

import contextlib
import random
import shutil
import socket
import subprocess
import time
from typing import TYPE_CHECKING, Any

import pytest
import redis
from redis.exceptions import RedisError

from guard.errors import LiveStoreError
from guard.live import LiveRisk, LiveSettings, Operating

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

SHARP = Operating(4.0, 900, 1000, 20, 10_000)
"""Sees nine of ten risky answers and takes two in a thousand others for one."""

START = {"bad_advice": 0.02, "violence": 0.01, "exposure": 0.03}
"""Priors; `exposure` is followed and not watched."""


def exchanges(
    count: int, drift: float = 0.0, seed: int = 0, clean: int = 0
) -> Iterator[dict[str, float]]:
    """Yield made-up evidence; behind `clean` exchanges a fraction `drift` is bad advice."""
    rng = random.Random(seed)
    for number in range(count):
        risky = number >= clean and rng.random() < drift
        yield {
            "bad_advice": rng.gauss(5.5, 1.0) if risky else rng.gauss(-3.0, 2.4),
            "violence": rng.gauss(-3.0, 2.0),
        }


@pytest.fixture
def make_live() -> Iterator[Callable[..., LiveRisk]]:
    """Return the maker of `LiveRisk` with two watched categories; closes what it made."""
    made: list[LiveRisk] = []

    def make(*, store: Any = None, notify: Any = (), clock: Any = None, **changes: Any) -> LiveRisk:
        live = LiveRisk(
            LiveSettings(**changes),
            START,
            confusion={"bad_advice": SHARP, "violence": SHARP},
            store=store,
            notify=notify,
            clock=clock or (lambda: 1_700_000_000.0),
        )
        made.append(live)
        return live

    yield make
    for live in made:
        # A test may have killed its store.
        with contextlib.suppress(LiveStoreError):
            live.close()


@pytest.fixture(scope="session")
def stream() -> Callable[..., Iterator[dict[str, float]]]:
    """Return the maker of made-up evidence."""
    return exchanges


@pytest.fixture(scope="session")
def sharp() -> Operating:
    """Return a detector's figures on validation rows."""
    return SHARP


class RedisServer:
    """A Redis of this machine on loopback, which keeps what it acknowledged over a kill."""

    def __init__(self, folder: Path) -> None:
        """Find a free port."""
        self.folder = folder
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = int(probe.getsockname()[1])
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it and wait until it answers."""
        options = {
            "port": str(self.port),
            "bind": "127.0.0.1",
            "dir": str(self.folder),
            "appendonly": "yes",
            "save": "",
            "daemonize": "no",
        }
        arguments = [part for key, value in options.items() for part in (f"--{key}", value)]
        self._process = subprocess.Popen(
            ["redis-server", *arguments], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        client = redis.Redis(port=self.port, host="127.0.0.1")
        for _ in range(200):
            try:
                client.ping()
                break
            except RedisError:
                time.sleep(0.05)
        else:
            raise RuntimeError("redis-server does not answer")
        client.close()

    def kill(self) -> None:
        """Kill it without a warning."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None


@pytest.fixture
def redis_server(tmp_path: Path) -> Iterator[RedisServer]:
    """Return a running Redis of the test's own; skip where there is none on this machine."""
    if shutil.which("redis-server") is None:
        pytest.skip("no `redis-server` here: install the package `redis-server`")
    server = RedisServer(tmp_path)
    server.start()
    yield server
    server.kill()
