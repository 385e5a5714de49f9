"""False alarms over clean lives, and how soon drift is seen: tables for docs/live.md.

    python benchmarks/live_alarms.py            writes docs/live.md, docs/live.json, a plot
    python benchmarks/live_alarms.py --smoke    a minute's worth, writes nothing

Exceedances are drawn at known rates. The bound is log(1/alpha) over the information that an
exchange carries at the detector's operating point, KL(drifted rate, highest tolerated rate). Beside
it stands what could be had at best without knowing when drift begins: a CUSUM that is told both
rates and whose height is tuned to the same false alarms. With `river` installed (in an
environment of its own: `pip install river`), ADWIN and Page-Hinkley are tuned and measured, too.
"""

from __future__ import annotations

import argparse
import math
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from rich.progress import Progress

from guard.live.operating import Operating
from guard.live.replay import NEVER, FirstAlarms, first_alarms_at
from guard.live.watch import Watch, divergence, watch
from live_report import ROOT, publish, stamp, table
from quality_plots import Axis, lines_svg

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from numpy.typing import NDArray

    Times = NDArray[np.int64]
    Alarm = Callable[[NDArray[np.bool_]], int]

SEED: Final = 6
ALPHA: Final = 0.01
HORIZON: Final = 10_000
TOLERATED: Final = 0.001
DRIFTS: Final = (0.005, 0.01, 0.02, 0.05, 0.1)
CLEAN: Final = 2_000
"""Clean exchanges before drift begins."""

LONGEST: Final = 40_000
"""Exchanges after which drift counts as not seen."""

_PART: Final = 5_000
"""Lives that are simulated at once."""

FALSE_RATE, SENSITIVITY = 0.002, 0.75
ROWS: Final = {"known exactly": 10_000_000, "20,000 rows": 20_000, "2,000 rows": 2_000}
"""Validation rows of either kind from which the rates are known."""


@dataclass(frozen=True, slots=True)
class Scale:
    """How much is simulated."""

    lives: int
    delays: int
    tuning: int


FULL: Final = Scale(lives=20_000, delays=1_000, tuning=400)
SMOKE: Final = Scale(lives=500, delays=60, tuning=20)


def operating(rows: int) -> Operating:
    """Return the operating point as `rows` validation rows of either kind show it."""
    return Operating(4.0, round(SENSITIVITY * rows), rows, round(FALSE_RATE * rows), rows)


def watch_of(rows: int, alpha: float) -> Watch:
    """Return the tests of a detector that is known from `rows` validation rows."""
    found = watch(operating(rows), TOLERATED, alpha, HORIZON)
    if found is None:
        raise RuntimeError(f"{rows} rows are too few")
    return found


def times(rng: np.random.Generator, rate: float, length: int, count: int) -> Times:
    """Return when exceedances fall in `count` streams of `length` exchanges."""
    most = int(length * rate + 8 * math.sqrt(length * rate) + 20)
    found = np.cumsum(rng.geometric(rate, (count, most)), axis=1)
    found[found > length] = NEVER
    return found[:, : int((found != NEVER).sum(axis=1).max(initial=1))]


def drifting(rng: np.random.Generator, clean: int, rate: float, length: int, count: int) -> Times:
    """Return exceedances of streams that are clean for `clean` exchanges, then come at `rate`."""
    behind = times(rng, rate, length, count)
    behind[behind != NEVER] += clean
    if not clean:
        return behind
    joined = np.concatenate([times(rng, FALSE_RATE, clean, count), behind], axis=1)
    joined.sort(axis=1)
    return joined


def false_alarms(rng: np.random.Generator, found: Watch, rate: float, lives: int) -> dict[str, Any]:
    """Return the share of lives with an alarm."""
    parts = [
        first_alarms_at(found, times(rng, rate, HORIZON, min(_PART, lives - done)))
        for done in range(0, lives, _PART)
    ]
    each = FirstAlarms(
        *(np.concatenate([getattr(p, k) for p in parts]) for k in ("life", "change"))
    )
    return {
        "life": float((each.life != NEVER).mean()),
        "change": float((each.change != NEVER).mean()),
        "either": float((each.either != NEVER).mean()),
        "lives": lives,
    }


def bound_of(drift: float) -> float:
    """Return log(1/alpha) over the information of an exchange at known rates."""
    known = operating(10**7)
    information = divergence(known.exceedance_rate(drift), known.exceedance_rate(TOLERATED))
    return -math.log(ALPHA) / information


def delays(
    rng: np.random.Generator, found: Watch, drift: float, clean: int, count: int
) -> dict[str, float]:
    """Return how many exchanges behind the beginning of drift the alarm comes."""
    rate = operating(10**7).exceedance_rate(drift)
    length = int(min(LONGEST, max(1_000, 12 * bound_of(drift))))
    first = first_alarms_at(found, drifting(rng, clean, rate, length, count)).either
    return _summary(first[first > clean], clean)


def _summary(first: Times, clean: int) -> dict[str, float]:
    behind = np.where(first == NEVER, np.inf, first.astype(float) - clean)
    return {
        "median": float(np.quantile(behind, 0.5, method="lower")),
        "p95": float(np.quantile(behind, 0.95, method="lower")),
    }


def best_possible(rng: np.random.Generator, drift: float, scale: Scale) -> dict[str, float]:
    """Return the delay of a CUSUM that is told both rates and tuned to the same false alarms."""
    known = operating(10**7)
    low, high = known.exceedance_rate(TOLERATED), known.exceedance_rate(drift)
    gain, loss = math.log(high / low), math.log1p(-low) - math.log1p(-high)

    def walked(found: Times) -> tuple[NDArray[np.float64], Times]:
        heights = np.zeros(found.shape)
        height, before = np.zeros(len(found)), np.zeros(len(found))
        for number in range(found.shape[1]):
            now = found[:, number].astype(float)
            height = np.maximum(0.0, height - loss * (now - before - 1)) + gain
            heights[:, number] = np.where(found[:, number] == NEVER, 0.0, height)
            before = now
        return heights, found

    lives, _ = walked(times(rng, low, HORIZON, min(scale.lives, 10_000)))
    needed = float(np.quantile(lives.max(axis=1), 1 - ALPHA))
    heights, found = walked(drifting(rng, CLEAN, high, int(12 * bound_of(drift)), scale.delays))
    first = np.where(heights > needed, found, NEVER).min(axis=1)
    return _summary(first[first > CLEAN], CLEAN)


def tuned_likewise(rng: np.random.Generator, scale: Scale) -> dict[str, Any]:
    """Return what our tests do once tuned on clean lives, as the others are."""
    for alpha in (0.49, 0.4, 0.3, 0.2, 0.15, 0.1, 0.07, 0.05, 0.03, 0.02, ALPHA):
        found = watch_of(10**7, alpha)
        share = false_alarms(rng, found, FALSE_RATE, scale.lives)["either"]
        if share <= ALPHA:
            break
    return {
        "setting": alpha,
        "false alarms": share,
        "delays": {str(drift): delays(rng, found, drift, CLEAN, scale.delays) for drift in DRIFTS},
    }


def others(rng: np.random.Generator, scale: Scale, progress: Progress) -> dict[str, Any]:
    """Return what ADWIN and Page-Hinkley do once tuned on clean lives; nothing without river."""
    try:
        from river import drift  # type: ignore[import-not-found,unused-ignore]  # noqa: PLC0415
    except ImportError:
        return {}
    makers: dict[str, tuple[Callable[[float], Any], Sequence[float]]] = {
        # From the mildest to the strictest; the first whose false alarms are rare enough is taken.
        "ADWIN": (
            lambda value: drift.ADWIN(delta=value),
            [0.95, 0.8, 0.6, 0.4, 0.2, 0.1, 0.03, 0.01, 0.002],
        ),
        "Page-Hinkley": (
            lambda value: drift.PageHinkley(threshold=value, mode="up"),
            [2, 3, 3.5, 4, 4.2, 4.4, 4.6, 4.8, 5, 6, 8, 10],
        ),
    }
    clean = [rng.random(HORIZON) < FALSE_RATE for _ in range(scale.tuning)]
    found = {"ours, tuned likewise": tuned_likewise(rng, scale)}
    for name, (make, values) in makers.items():
        task = progress.add_task(f"tuning {name}", total=len(values))
        for value in values:
            share = float(np.mean([_first(make(value), life) > 0 for life in clean]))
            progress.advance(task)
            if share <= ALPHA:
                break
        found[name] = {
            "setting": value,
            "false alarms": share,
            "delays": {
                str(rate): _delays_of(rng, partial(make, value), rate, scale) for rate in DRIFTS
            },
        }
    return found


def _delays_of(
    rng: np.random.Generator, make: Callable[[], Any], drift: float, scale: Scale
) -> dict[str, float]:
    rate = operating(10**7).exceedance_rate(drift)
    length = int(min(LONGEST, max(1_000, 6 * bound_of(drift))))
    first = []
    for _ in range(max(20, scale.delays // 10)):
        stream = np.concatenate([rng.random(CLEAN) < FALSE_RATE, rng.random(length) < rate])
        at = _first(make(), stream)
        first.append(at or NEVER)
    late = np.array([at for at in first if at > CLEAN])
    return _summary(late, CLEAN)


def _first(detector: Any, stream: Iterable[bool]) -> int:
    """Return at which exchange a detector of river speaks first, 0 for never."""
    for number, exceeds in enumerate(stream, 1):
        detector.update(int(exceeds))
        if detector.drift_detected:
            return number
    return 0


def measured(scale: Scale) -> dict[str, Any]:
    """Return all figures."""
    rng = np.random.default_rng(SEED)
    facts: dict[str, Any] = {"alpha": ALPHA, "horizon": HORIZON, "validation": {}}
    with Progress() as progress:
        task = progress.add_task("alarms", total=len(ROWS) * (2 + 2 * len(DRIFTS)) + len(DRIFTS))
        for name, rows in ROWS.items():
            found = watch_of(rows, ALPHA)
            entry: dict[str, Any] = {}
            for kind, rate in (
                ("clean", FALSE_RATE),
                ("tolerated", operating(10**7).exceedance_rate(TOLERATED)),
            ):
                entry[kind] = false_alarms(rng, found, rate, scale.lives)
                progress.advance(task)
            for kind, clean in (("from the start", 0), ("behind clean", CLEAN)):
                entry[kind] = {}
                for drift in DRIFTS:
                    entry[kind][str(drift)] = delays(rng, found, drift, clean, scale.delays)
                    progress.advance(task)
            facts["validation"][name] = entry
        facts["best"] = {}
        for drift in DRIFTS:
            facts["best"][str(drift)] = best_possible(rng, drift, scale)
            progress.advance(task)
        facts["bound"] = {str(drift): bound_of(drift) for drift in DRIFTS}
        facts["others"] = others(rng, scale, progress)
    return facts


def report(facts: dict[str, Any]) -> str:
    """Return the tables as Markdown."""
    lives = next(iter(facts["validation"].values()))["clean"]["lives"]
    parts = [
        stamp("live_alarms.py"),
        (
            f"One category, alpha {ALPHA:.0%}, horizon {HORIZON:,} exchanges, tolerated rate "
            f"{TOLERATED:.1%}. The detector sees {SENSITIVITY:.0%} of risky answers and takes "
            f"{FALSE_RATE:.1%} of others for one."
        ),
        (
            f"**False alarms**: share of {lives:,} lives of {HORIZON:,} exchanges with an alarm. "
            "*Tolerated* is the worst case that is within the limit."
        ),
        _false_table(facts),
        (
            "**Delay**: exchanges from the beginning of drift to the alarm, median (95th "
            "percentile), and the median as a multiple of the bound; from the first exchange on, "
            f"and behind {CLEAN:,} clean exchanges. *Best* is a CUSUM that is told both rates and "
            f"tuned to {ALPHA:.0%} of false alarms at the tolerated rate: no test that does not "
            "know when drift begins does much better."
        ),
        _delay_table(facts, "from the start"),
        _delay_table(facts, "behind clean"),
    ]
    if facts["others"]:
        parts += [_others_note(facts), _others_table(facts)]
    return "\n\n".join(parts)


def _false_table(facts: dict[str, Any]) -> str:
    rows = [
        [
            name,
            *(
                f"{entry[kind][test]:.2%}"
                for kind in ("clean", "tolerated")
                for test in ("life", "change", "either")
            ),
        ]
        for name, entry in facts["validation"].items()
    ]
    head = ["rates from", "clean: life", "change", "either", "tolerated: life", "change", "either"]
    return table(head, rows)


def _delay_table(facts: dict[str, Any], kind: str) -> str:
    names = list(facts["validation"])
    head = [f"drift {kind}", "bound", *([] if kind == "from the start" else ["best"]), *names]
    rows = []
    for drift in map(str, DRIFTS):
        bound = facts["bound"][drift]
        best = [] if kind == "from the start" else [_shown(facts["best"][drift], bound)]
        mine = [_shown(facts["validation"][name][kind][drift], bound) for name in names]
        rows.append([f"{float(drift):.1%}", f"{bound:,.0f}", *best, *mine])
    return table(head, rows)


def _shown(entry: dict[str, float], bound: float) -> str:
    if math.isinf(entry["median"]):
        return f"not within {LONGEST:,}"
    late = "-" if math.isinf(entry["p95"]) else f"{entry['p95']:,.0f}"
    return f"{entry['median']:,.0f} ({late}), {entry['median'] / bound:.2f}x"


def _others_note(facts: dict[str, Any]) -> str:
    tuned = ", ".join(
        f"{name} at {entry['setting']:g} ({entry['false alarms']:.2%})"
        for name, entry in facts["others"].items()
    )
    return (
        "**Others**: ADWIN and Page-Hinkley of river, tuned on simulated clean lives to at most "
        f"{ALPHA:.0%} of false alarms: {tuned}. They are told the clean rate that way, which a "
        "deployment does not know, and promise nothing at the tolerated rate; *ours, tuned "
        "likewise* takes a larger alpha."
    )


def _others_table(facts: dict[str, Any]) -> str:
    names = list(facts["others"])
    rows = [
        [
            f"{float(drift):.1%}",
            _shown(facts["validation"]["known exactly"]["behind clean"][drift], bound),
            _shown(facts["validation"]["20,000 rows"]["behind clean"][drift], bound),
            *(_shown(facts["others"][name]["delays"][drift], bound) for name in names),
        ]
        for drift, bound in facts["bound"].items()
    ]
    return table(["drift behind clean", "ours, known exactly", "ours, 20,000 rows", *names], rows)


def plot(facts: dict[str, Any]) -> str:
    """Return the delays behind clean traffic as SVG."""

    def line(entry: dict[str, dict[str, float]]) -> list[tuple[float, float]]:
        return [
            (float(drift), each["median"])
            for drift, each in entry.items()
            if math.isfinite(each["median"])
        ]

    lines = {"bound": [(float(d), b) for d, b in facts["bound"].items()]}
    lines["best without the time"] = line(facts["best"])
    for name, entry in facts["validation"].items():
        lines[f"ours, {name}"] = line(entry["behind clean"])
    for name, entry in facts["others"].items():
        lines[name] = line(entry["delays"])
    across = Axis("risky answers", DRIFTS, log=True, labels=[f"{d:.1%}" for d in DRIFTS])
    up = Axis("exchanges to the alarm (median)", (10, 100, 1_000, 10_000, 40_000), log=True)
    return lines_svg("How soon drift is seen behind clean traffic", lines, across, up, 420)


def main(arguments: Iterable[str] | None = None) -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--smoke", action="store_true", help="a minute's worth; writes nothing")
    given = parser.parse_args(None if arguments is None else list(arguments))
    facts = measured(SMOKE if given.smoke else FULL)
    if given.smoke:
        print(report(facts))
        return
    publish("live_alarms", report(facts), facts)
    (ROOT / "docs" / "live-delays.svg").write_text(plot(facts), "utf-8")


if __name__ == "__main__":
    main()
