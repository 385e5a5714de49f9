"""How fast `guard scan` judges beside `guard check`: a table for docs/benchmarks.md.

    python benchmarks/scan.py              writes its table of docs/benchmarks.md
    python benchmarks/scan.py --smoke      few lines, writes nothing

Needs the extra `ray` for the rows of Ray, which are left out without it.

    guard check          one process, threads (what `Guard.check_many` does)
    local, n workers     processes of `guard scan`
    ray, n workers       actors of `guard scan --engine ray`

All ways judge the same lines, of answers of 128 tokens, under the class `public` with the bundled
model, one behind another in one run. What is timed begins when all workers have judged some
lines, so that their start is not in it. Only ratios are published, and the memory of a worker; how
noisy the machine was is the 95th percentile of one and the same loop, by its median.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Final

from guard.engine import Guard
from guard.policy import load_class
from guard.scan.local import AHEAD, judged
from guard.scan.reading import Line, item
from guard.scan.scan import LINES, batches
from guard.scan.work import Settings
from live_report import stamp, table, write
from wire import noise, said

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from guard.scan.scan import Engine

PAGE: Final = Path(__file__).parent.parent / "docs" / "benchmarks.md"
NAME: Final = "scan"

TOKENS: Final = 128
"""Tokens of an answer."""

WORKERS: Final = (1, 2)

HEAD: Final = [
    *("way", "exchanges per second / guard check", "/ local, same workers"),
    "MiB of a worker (PSS)",
]


def log(count: int) -> list[Line]:
    """Return lines of answers that differ in their beginning."""
    text = said(TOKENS).strip()
    rows = ({"id": n, "prompt": "How do I keep basil?", "response": text} for n in range(count))
    return [Line("log.jsonl", n, json.dumps(row).encode()) for n, row in enumerate(rows, 1)]


def by_check(lines: Sequence[Line]) -> float:
    """Return how many lines a second `Guard.check_many` judges."""
    guard = Guard.load("public", journal=None)
    exchanges = [found.exchange for line in lines if (found := item(line)).exchange]
    list(guard.check_many(exchanges[:LINES]))
    began = time.perf_counter()
    count = sum(1 for _ in guard.check_many(exchanges))
    return count / (time.perf_counter() - began)


def by_engine(
    engine: Engine, workers: int, lines: Sequence[Line], pids: Callable[[], Iterable[int]]
) -> tuple[float, float]:
    """Return how many lines a second an engine judges, and the MiB of its median worker."""
    warm = 2 * AHEAD * workers
    results = engine(batches([*lines[: warm * LINES], *lines]))
    for _ in range(warm):
        next(results)
    began, count, memory = time.perf_counter(), 0, 0.0
    for each in results:
        count += len(each)
        memory = memory or statistics.median(map(proportional, pids()))
    return count / (time.perf_counter() - began), memory


def proportional(pid: int) -> float:
    """Return the MiB of a process, of what it shares only its part."""
    text = Path(f"/proc/{pid}/smaps_rollup").read_text("utf-8")
    return (
        next(int(line.split()[1]) for line in text.splitlines() if line.startswith("Pss:")) / 1024
    )


def workers_of(name: str) -> Iterator[int]:
    """Yield the processes of workers by a part of their command, those that this one started."""
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            command = path.read_bytes()
        except OSError:
            continue
        if name.encode() in command and is_ours(int(path.parent.name)):
            yield int(path.parent.name)


def is_ours(pid: int) -> bool:
    """Return whether a process was started by this one, or by what this one started."""
    while pid > 1 and pid != os.getpid():
        stat = Path(f"/proc/{pid}/stat").read_text("utf-8")
        pid = int(stat.rpartition(")")[2].split()[1])
    return pid == os.getpid()


def rows(lines: Sequence[Line]) -> list[list[str]]:
    """Measure all ways; return a row for each."""
    base = by_check(lines)
    found, local = [["guard check", "1.00", "", ""]], {}
    settings = Settings(load_class("public"))
    for workers in WORKERS:
        engine: Engine = partial(judged, settings=settings, workers=workers)
        rate, memory = by_engine(engine, workers, lines, partial(workers_of, "spawn_main"))
        local[workers] = rate
        found.append([_name("local", workers), f"{rate / base:.2f}", "1.00", f"{memory:.0f}"])
    if find_spec("ray") is None:
        return found
    from guard.adapters.ray import judged as by_ray  # noqa: PLC0415  # it need not be there

    for workers in WORKERS:
        engine = partial(by_ray, settings=settings, workers=workers)
        rate, memory = by_engine(engine, workers, lines, partial(workers_of, "ray::_Actor"))
        ratios = [f"{rate / base:.2f}", f"{rate / local[workers]:.2f}"]
        found.append([_name("ray", workers), *ratios, f"{memory:.0f}"])
    return found


def meaning(found: Sequence[Sequence[str]], loud: float) -> str:
    """Return what the ratios of a table do not say, since noise alone may make them."""
    ratios = {float(cell) for _, *cells, _ in found for cell in cells if cell} - {1.0}
    drowned = [ratio for ratio in ratios if 1 / loud <= ratio <= loud]
    if len(drowned) < len(ratios):
        return f"Ratios from {1 / loud:.2f} to {loud:.2f} lie within the noise." if drowned else ""
    return "All ratios lie within the noise: this run does not say which way is faster."


def _name(engine: str, workers: int) -> str:
    return f"{engine}, {workers} worker{'s' if workers > 1 else ''}"


def main() -> None:
    """Measure, print, publish."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--lines", type=int, default=600, help="lines that each way judges")
    parser.add_argument("--smoke", action="store_true", help="few lines; write nothing")
    given = parser.parse_args()
    count = 4 * AHEAD * LINES if given.smoke else given.lines
    found = rows(log(count))
    text, loud = table(HEAD, found), noise()
    noisy = f"{count} lines each; noise {loud:.2f}. {meaning(found, loud)}".strip()
    print(text, noisy, sep="\n\n")
    if not given.smoke:
        write("\n\n".join([stamp("scan.py"), text, noisy]), NAME, PAGE)


if __name__ == "__main__":
    main()
