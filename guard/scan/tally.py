"""What all results of a scan show together, counted row by row.

This module does not know where rows are kept or how they are shown.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from typing import TYPE_CHECKING, Any, Final

from guard.calibration import wilson

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

ACTIONS: Final = ("allow", "flag", "rewrite", "block")
"""From mild to severe."""

BINS: Final = 10
"""Bins of a histogram of live risk, over [0, 1]."""

_MOST: Final = 50
"""Models and days that are told apart; the rest is counted together."""

_REST: Final = "(others)"
_UNSAID: Final = "(not said)"


class Tally:
    """Counts of rows, see `summary` for what they are."""

    def __init__(self) -> None:
        """Count nothing yet."""
        self.actions: Counter[str] = Counter()
        self.bad = 0
        self.failed = 0
        self.reached: dict[str, Counter[str]] = defaultdict(Counter)
        self.risks: dict[str, list[int]] = defaultdict(lambda: [0] * BINS)
        self.failures: Counter[tuple[str, str]] = Counter()
        self.models: dict[str, Counter[str]] = defaultdict(Counter)
        self.days: dict[str, Counter[str]] = defaultdict(Counter)
        self.compared: dict[str, Counter[tuple[str, str]]] = defaultdict(Counter)

    def take(self, row: Mapping[str, Any]) -> None:
        """Count a row."""
        if "error" in row:
            self.bad += 1
            return
        action = row["action"]
        self.actions[action] += 1
        for category, limit in row["reached"].items():
            self.reached[category][limit] += 1
        for category, risk in row["risks"].items():
            self.risks[category][min(BINS - 1, int(risk * BINS))] += 1
        self._take_coverage(row["coverage"])
        self.models[row.get("model", "")][action] += 1
        self.days[row.get("day", "")][action] += 1
        for other, its in row.get("compare", {}).items():
            self.compared[other][action, its] += 1

    def _take_coverage(self, coverage: Mapping[str, Any]) -> None:
        self.failed += bool(coverage["failures"])
        failed = {(each["detector"], each["status"]) for each in coverage["failures"]}
        self.failures.update(failed)

    @property
    def judged(self) -> int:
        """How many exchanges were judged."""
        return self.actions.total()

    def summary(self) -> dict[str, Any]:
        """Return what was counted, as JSON-able values; intervals are Wilson's, of 95 %."""
        return {
            "exchanges": self.judged,
            "bad": self.bad,
            "actions": shares(self.actions),
            "categories": {
                name: {
                    "flag": _share(counts.total(), self.judged),
                    "act": _share(counts["act"], self.judged),
                }
                for name, counts in self._worst_first()
            },
            "risks": {name: self.risks[name] for name in sorted(self.risks)},
            "models": _groups(self.models, by_name=False),
            "days": _groups(self.days, by_name=True),
            "coverage": {
                "failed": self.failed,
                "failures": [
                    {"detector": detector, "status": status, "exchanges": count}
                    for (detector, status), count in sorted(self.failures.items())
                ],
            },
            "compare": {name: _compared(pairs) for name, pairs in self.compared.items()},
        }

    def _worst_first(self) -> list[tuple[str, Counter[str]]]:
        return sorted(
            self.reached.items(), key=lambda item: (-item[1]["act"], -item[1].total(), item[0])
        )


def tally(rows: Iterable[Mapping[str, Any]]) -> Tally:
    """Return the counts of all rows."""
    found = Tally()
    for row in rows:
        found.take(row)
    return found


def shares(counts: Mapping[str, int]) -> dict[str, dict[str, float]]:
    """Return count, share and interval of every action."""
    total = sum(counts.values())
    return {action: _share(counts.get(action, 0), total) for action in ACTIONS}


def _share(count: int, total: int) -> dict[str, float]:
    found = wilson(count, total)
    ends = {"share": found.value if total else 0.0, "low": found.low, "high": found.high}
    return {"count": count, **{name: round(value, 6) for name, value in ends.items()}}


def _groups(groups: Mapping[str, Counter[str]], *, by_name: bool) -> dict[str, dict[str, int]]:
    """Return the actions of each group, the largest ones; none where no row names any."""
    if not any(groups):
        return {}
    sizes = sorted(groups, key=lambda name: (-groups[name].total(), name))
    kept: Sequence[str] = sorted(sizes[:_MOST]) if by_name else sizes[:_MOST]
    found: dict[str, Counter[str]] = defaultdict(Counter)
    for name in kept:
        # A line may call its model so, too.
        found[name or _UNSAID] += groups[name]
    rest: Counter[str] = sum((groups[name] for name in sizes[_MOST:]), Counter())
    if rest:
        found[_REST] += rest
    return {name: _plain(counts) for name, counts in found.items()}


def _plain(counts: Mapping[str, int]) -> dict[str, int]:
    return {action: counts.get(action, 0) for action in ACTIONS}


def _compared(pairs: Counter[tuple[str, str]]) -> dict[str, Any]:
    actions: Counter[str] = Counter()
    for (_, action), count in pairs.items():
        actions[action] += count
    order = ACTIONS.index
    stricter = sum(count for (own, its), count in pairs.items() if order(its) > order(own))
    milder = sum(count for (own, its), count in pairs.items() if order(its) < order(own))
    return {"actions": shares(actions), "stricter": stricter, "milder": milder}
