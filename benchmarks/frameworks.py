"""What an adapter adds to one call of a framework: a table for docs/benchmarks.md.

    python benchmarks/frameworks.py              writes its rows of docs/benchmarks.md
    python benchmarks/frameworks.py --smoke      one round, writes nothing

Every framework that is installed in the environment is timed (`frameworks_cases.py`); the rows
of those that are not stay as another environment measured them. Needs the extra `server`, too.

Models are scripted and answer at once, so that a call without a guard is nothing but the
framework: ratios to it are large where it does little. What an adapter costs beyond the judging
is in *added / check*: the time that it adds, beside one `guard.check` of the same text.

    own            the framework's own middleware or guardrail, with one rule about addresses
    packs          guarded by everything but the classifier
    all            guarded by the class `public` with the bundled model

The ways take turns within one run. Times are medians; how noisy the machine was is in each row:
the 95th percentile of one and the same loop, by its median.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import statistics
import time
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import structlog
from rich.progress import Progress

from frameworks_cases import PROMPT, Case, cases
from live_report import stamp, table, write
from wire import judges_of, noise, said

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from guard.engine import Guard

PAGE: Final = Path(__file__).parent.parent / "docs" / "benchmarks.md"
NAME: Final = "frameworks"

TOKENS: Final = 128
"""Tokens of an answer."""

HEAD: Final = [
    *("framework", "call", "unguarded ms", "own guard", "own / unguarded"),
    *("packs / unguarded", "packs / own", "packs added / check"),
    *("all / unguarded", "all added / check", "noise", "measured"),
]

MOST: Final = 1000
"""Ratios are not told apart above it: what they are ratios to is next to nothing."""

WARM: Final = 1
"""Rounds that are not counted."""


@dataclass
class Timed:
    """What was measured of one case.

    Attributes:
        case: the case.
        seconds: of each way, every counted round.
    """

    case: Case
    seconds: dict[str, list[float]] = field(default_factory=dict)

    def median(self, way: str) -> float:
        """Return the median of a way, in seconds."""
        return statistics.median(self.seconds[way])

    def ratio(self, way: str, other: str = "unguarded") -> str:
        """Return a way's time by another's, `""` where one was not measured."""
        if not {way, other} <= self.seconds.keys():
            return ""
        found = self.median(way) / self.median(other)
        if found >= MOST:
            return f"> {MOST}"
        return f"{found:.2f}" if found < 100 else f"{found:.0f}"

    def added(self, way: str) -> str:
        """Return what a guard adds, by one check of the same text."""
        more = self.median(way) - self.median("unguarded")
        return f"{more / self.median(f'check, {way}'):.2f}"

    def row(self, noisy: float, when: str) -> list[str]:
        """Return the row of the table."""
        case = self.case
        own = case.own if "own" in self.seconds else ""
        return [
            *(case.framework, case.call, f"{1000 * self.median('unguarded'):.2f}", own),
            *(self.ratio("own"), self.ratio("packs"), self.ratio("packs", "own")),
            *(self.added("packs"), self.ratio("all"), self.added("all"), f"{noisy:.2f}", when),
        ]


def ways_of(
    case: Case, guards: Mapping[str, Guard], text: str, runner: asyncio.Runner
) -> dict[str, Callable[[], Any]]:
    """Return what is timed for a case, by its name."""
    ways = {"unguarded": _waited(case, case.make(None), runner)}
    if case.make_own is not None:
        ways["own"] = _waited(case, case.make_own(), runner)
    for name, guard in guards.items():
        ways[name] = _waited(case, case.make(guard), runner)
        ways[f"check, {name}"] = partial(guard.check, text, prompt=PROMPT)
    return ways


def _waited(case: Case, call: Callable[[], Any], runner: asyncio.Runner) -> Callable[[], Any]:
    """Return a call that waits for what it gives."""
    return (lambda: runner.run(call())) if case.waits else call


def timed(case: Case, ways: Mapping[str, Callable[[], Any]], rounds: int) -> Timed:
    """Time a case: the ways take turns, each round in another order."""
    result, names = Timed(case), list(ways)
    for turn in range(WARM + rounds):
        first = turn % len(names)
        for name in (*names[first:], *names[:first]):
            began = time.perf_counter()
            ways[name]()
            took = time.perf_counter() - began
            if turn >= WARM:
                result.seconds.setdefault(name, []).append(took)
    return result


def merged(page: str, measured: Iterable[list[str]]) -> list[list[str]]:
    """Return all rows: those that were measured now, and of other environments those published."""
    rows = {tuple(row[:2]): row for row in published(page)} | {
        tuple(row[:2]): row for row in measured
    }
    return [rows[key] for key in sorted(rows)]


def published(page: str) -> list[list[str]]:
    """Return the rows of the table that a page has."""
    part = page.partition(f"<!-- {NAME}: begin -->")[2].partition(f"<!-- {NAME}: end -->")[0]
    lines = [line for line in part.splitlines() if line.startswith("| ")]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return [row for row in cells if len(row) == len(HEAD) and row != HEAD and row[0] != "---"]


def publish(rows: Iterable[list[str]]) -> None:
    """Write what was measured into the page, beside what others have.

    Raises:
        ValueError: the page has no place for it.
    """
    every = merged(PAGE.read_text("utf-8"), rows)
    write("\n\n".join([stamp("frameworks.py"), table(HEAD, every)]), NAME, PAGE)


def main() -> None:
    """Measure, print, publish."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=7, help="turns of each way")
    parser.add_argument("--only", nargs="*", default=[""], help="frameworks whose names begin so")
    parser.add_argument("--smoke", action="store_true", help="one round; write nothing")
    given = parser.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    text = said(TOKENS).strip()
    chosen = [case for case in cases(text) if case.framework.startswith(tuple(given.only))]
    guards = {name: judges_of(name).guard for name in ("packs", "all")}
    when, rows = time.strftime("%Y-%m-%d", time.gmtime()), []
    with Progress() as bar, asyncio.Runner() as runner:
        for case in bar.track(chosen):
            rounds = 1 if given.smoke else given.rounds
            result = timed(case, ways_of(case, guards, text, runner), rounds)
            rows.append(result.row(noise(), when))
    print(table(HEAD, rows))
    if not given.smoke:
        publish(rows)


if __name__ == "__main__":
    main()
