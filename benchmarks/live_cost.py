"""What following live risk costs per exchange: a table for docs/live.md.

    python benchmarks/live_cost.py            writes docs/live.md and docs/live.json
    python benchmarks/live_cost.py --smoke    a few seconds' worth, writes nothing

An exchange is one call of `priors` and one of `observe`, with evidence for every category. The
least of several rounds counts, since a busy machine only ever makes it slower. As a yardstick that
travels between machines, the same time is given as a share of judging one unit with the
bundled classifier.
"""

from __future__ import annotations

import argparse
import random
import shutil
import subprocess
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from rich.progress import track

from guard.detectors.base import Passage
from guard.detectors.classifier import Classifier
from guard.live import LiveRisk, LiveSettings, MemoryStore, Operating
from guard.live.opening import open_store
from guard.loading import BUNDLED_MODEL
from live_report import publish, stamp, table

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from guard.live import Store

SEED: Final = 8
WATCHED: Final = 16
GOAL: Final = 30.0
"""Microseconds per exchange in memory."""

SHARP: Final = Operating(4.0, 900, 1000, 40, 20_000)
UNIT: Final = (
    "Water the basil from below, let the pot drain, and turn it a little every day so that it "
    "does not lean towards the window."
)


def exchanges(count: int) -> list[dict[str, float]]:
    """Return made-up evidence with exceedances at the false-positive rate."""
    rng = random.Random(SEED)
    return [{f"c{n}": rng.gauss(-3.0, 2.4) for n in range(WATCHED)} for _ in range(count)]


def live_of(store: Store) -> LiveRisk:
    """Return what follows every category."""
    names = [f"c{n}" for n in range(WATCHED)]
    return LiveRisk(
        LiveSettings(),
        dict.fromkeys(names, 0.02),
        confusion=dict.fromkeys(names, SHARP),
        store=store,
    )


def microseconds(
    make: Callable[[], Store], stream: list[dict[str, float]], conversation: str | None, rounds: int
) -> float:
    """Return the time per exchange, of the quickest of several rounds."""
    best = float("inf")
    for number in range(rounds):
        store = make()
        store.name = f"cost{number}"
        live = live_of(store)
        begin = time.perf_counter()
        for evidence in stream:
            live.priors(conversation)
            live.observe(evidence, conversation=conversation)
        best = min(best, time.perf_counter() - begin)
        live.close()
    return best / len(stream) * 1e6


def unit_microseconds(rounds: int) -> float:
    """Return the time to judge one unit with the bundled classifier."""
    classifier, passage = Classifier(BUNDLED_MODEL), Passage(UNIT, 0, len(UNIT))
    best = float("inf")
    for _ in range(rounds * 10):
        begin = time.perf_counter()
        classifier(passage)
        best = min(best, time.perf_counter() - begin)
    return best * 1e6


def measured(count: int, rounds: int) -> dict[str, Any]:
    """Return all figures."""
    stream = exchanges(count)
    facts: dict[str, Any] = {"unit": unit_microseconds(rounds), "watched": WATCHED, "rows": {}}
    with tempfile.TemporaryDirectory() as folder:
        server, url = _redis(Path(folder))
        kinds: list[tuple[str, Callable[[], Store], str | None]] = [
            ("memory", MemoryStore, None),
            ("memory, in a conversation", MemoryStore, "c"),
            ("SQLite, with its spool", lambda: open_store(Path(folder) / "a.sqlite3"), None),
        ]
        if server is not None:
            kinds += [
                ("Redis", lambda: open_store(url), None),
                ("Redis, with a spool", lambda: open_store(url, spool=f"{folder}/spool"), None),
            ]
        try:
            for name, make, conversation in track(kinds, "cost"):
                facts["rows"][name] = microseconds(make, stream, conversation, rounds)
        finally:
            if server is not None:
                server.kill()
                server.wait()
    return facts


def _redis(folder: Path) -> tuple[subprocess.Popen[bytes] | None, str]:
    """Start a Redis on loopback where there is one."""
    if shutil.which("redis-server") is None:
        return None, ""
    port = 17_379
    server = subprocess.Popen(
        ["redis-server", "--port", str(port), "--bind", "127.0.0.1", "--dir", str(folder)],
        stdout=subprocess.DEVNULL,
    )
    time.sleep(1)
    return server, f"redis://127.0.0.1:{port}/0"


def report(facts: dict[str, Any]) -> str:
    """Return the table as Markdown."""
    rows = [
        [name, f"{value:.1f}", f"{value / facts['unit']:.2%}"]
        for name, value in facts["rows"].items()
    ]
    return "\n\n".join(
        [
            stamp("live_cost.py"),
            (
                f"Per exchange with {facts['watched']} categories, all of them watched; the goal "
                f"is {GOAL:g} µs in memory. Judging one unit takes {facts['unit']:,.0f} µs here; "
                "other jobs ran on the machine."
            ),
            table(["store", "µs per exchange", "of one unit"], rows),
        ]
    )


def main(arguments: Iterable[str] | None = None) -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--smoke", action="store_true", help="a few seconds; writes nothing")
    given = parser.parse_args(None if arguments is None else list(arguments))
    facts = measured(500, 1) if given.smoke else measured(5_000, 7)
    if given.smoke:
        print(report(facts))
        return
    publish("live_cost", report(facts), facts)


if __name__ == "__main__":
    main()
