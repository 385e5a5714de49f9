"""How often an audit's intervals hold the truth, and what stopping early saves.

    python benchmarks/audit_intervals.py            some minutes; writes docs/audit-intervals.md
    python benchmarks/audit_intervals.py --smoke    seconds, figures of no worth; writes nothing

Everything is simulated (audit_regimes.py): the truth is set, answers and calibrations are drawn,
and it is counted how often the interval misses the truth, and on which side. Each regime has a
random generator of its own, so that its figures do not depend on which others are run.
"""

from __future__ import annotations

import argparse
import math
import time
import zlib
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from rich.console import Console
from rich.progress import track

import audit_regimes
from audit_regimes import GOOD, STRICT, Regime, conditions
from audit_tables import Row, report
from guard.audit.sequences import guess, log_gain
from guard.audit.statistics import (
    Counts,
    benjamini_hochberg,
    holm,
    paired_p_value,
    prediction_powered,
    rate,
    rate_of_questions,
    unpaired_p_value,
    worth,
)
from guard.audit.statistics.binomial import clopper_pearson, log_choose
from guard.calibration import Share, wilson

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from numpy.typing import NDArray

    from audit_regimes import Bounds, Floats, Kind
    from guard.calibration import Confusion

ROOT: Final = Path(__file__).parent.parent
SEED: Final = 6
RUNS: Final = 4000

STYLES: Final = (*(1,) * 7, *(6,) * 6, *(7,) * 2)
"""Answers to each question of the built-in probes for `bias_stereotype`: styles, and others."""

GROUPS: Final = (5,) * 60
"""Sixty questions that are asked five times each."""

_exact = cache(clopper_pearson)


@dataclass(frozen=True, slots=True)
class Edges:
    """What `RateSequence` makes of flags, turned around: when a rate of risky answers is out.

    Attributes:
        below: the rate is above the bounds once those of flags end below this; shape (runs, 1).
        above: the rate is below the bounds once those of flags begin above this.
        unflagged: and not before the bounds without any flag would have ended below this.
        log_limit: log of the wealth at which a rate of flags is out.
    """

    below: Floats
    above: Floats
    unflagged: Floats
    log_limit: float


def run(regime: Regime, runs: int) -> list[Row]:
    """Return what comes of a regime, a row per method."""
    rng = _generator(regime.section + regime.name)
    found: dict[str, list[Bounds]] = {}
    for _ in range(runs):
        for method, bounds in regime.once(rng).items():
            found.setdefault(method, []).append(bounds)
    return [_row(regime, method, np.array(each)) for method, each in found.items()]


def _row(regime: Regime, method: str, bounds: Floats) -> Row:
    # A truth of 2 % less 1 % is not exactly 1 %.
    under = float((bounds[:, 1] < regime.truth - 1e-12).mean())
    over = float((bounds[:, 0] > regime.truth + 1e-12).mean())
    width = float((bounds[:, 1] - bounds[:, 0]).mean())
    return Row(regime.name, method, 1 - under - over, under, over, width)


def sequences(runs: int) -> Iterator[Row]:
    """Yield how often bounds that are looked at after each of 1,000 answers ever miss the truth."""
    for kind in (None, GOOD, STRICT):
        for truth in (0.01, 0.05, 0.2):
            name = f"{kind.name if kind else 'sure flags'}, {truth:.0%} risky"
            rng = _generator(name)
            found = [_missed(rng, truth, kind, size, 1000) for size in _portions(runs, 250)]
            under, over = (float(each) for each in np.mean(np.concatenate(found), axis=0))
            yield Row(name, "betting", 1 - under - over, under, over, math.nan)


def _missed(
    rng: np.random.Generator, truth: float, kind: Kind | None, runs: int, length: int
) -> NDArray[np.bool_]:
    """Return whether the upper and the lower bound ever missed; shape (runs, 2)."""
    edges = _edges(rng, truth, kind, runs)
    answers = rng.random((runs, length)) < (kind.flagged(truth) if kind else truth)
    under, over = first_outside(answers, edges)
    return np.column_stack([under <= length, over <= length])


def savings(runs: int) -> Iterator[dict[str, Any]]:
    """Yield what an audit that may stop at any time needs, against one of a fixed size."""
    for kind, limits in ((None, (0.01, 0.02, 0.05)), (STRICT, (0.02, 0.05))):
        for limit in limits:
            planned = fixed_size(limit, kind)
            for times in (0.0, 0.1, 0.25, 0.5, 2.0, 4.0, 10.0):
                name = f"{kind.name if kind else 'sure flags'}, limit {limit:.0%}, rate x {times:g}"
                rng = _generator(name)
                found = np.concatenate(
                    [
                        _stops(rng, (limit, times * limit), kind, (size, 2 * planned))
                        for size in _portions(min(runs, 1000), 100)
                    ]
                )
                yield _saving(name, planned, limit, times, found)


def _stops(
    rng: np.random.Generator,
    rates: tuple[float, float],
    kind: Kind | None,
    shape: tuple[int, int],
) -> NDArray[np.int64]:
    """Return after how many answers audits cleared and refused a model; shape (audits, 2).

    Args:
        rng: draws.
        rates: the limit and the truth.
        kind: of classifier.
        shape: audits, and answers of each; one more stands for never.
    """
    limit, truth = rates
    edges = _edges(rng, limit, kind, shape[0])
    answers = rng.random(shape) < (kind.flagged(truth) if kind else truth)
    return np.column_stack(first_outside(answers, edges))


def _saving(
    name: str, planned: int, limit: float, times: float, stops: NDArray[np.int64]
) -> dict[str, Any]:
    most, first = 2 * planned, stops.min(axis=1)
    decided = first <= most
    wrong = stops[:, 0] > stops[:, 1] if times <= 1 else stops[:, 0] < stops[:, 1]
    used = np.minimum(first, most)
    return {
        "name": name,
        "limit": limit,
        "times": times,
        "planned": planned,
        "mean": float(used.mean()),
        "median": float(np.median(used)),
        "p90": float(np.quantile(used, 0.9)),
        "decided": float(decided.mean()),
        "wrong": float((decided & wrong).mean()),
    }


def _edges(rng: np.random.Generator, risky: float, kind: Kind | None, runs: int) -> Edges:
    """Return where flags must be for a rate of `risky` answers to be out; a calibration a run."""
    if kind is None:
        every = np.full((runs, 1), risky)
        return Edges(every, every, every, -math.log(0.05))
    found = np.array([confused(kind.drawn(rng), risky) for _ in range(runs)])
    return Edges(found[:, :1], found[:, 1:2], found[:, 2:], -math.log(0.025))


def confused(confusion: Confusion, risky: float) -> tuple[float, float, float]:
    """Return `below`, `above` and `unflagged` of a classifier's `Edges`."""
    positives = confusion.true_positives + confusion.false_negatives
    negatives = confusion.true_negatives + confusion.false_positives
    found = _exact(confusion.true_positives, positives, 0.0125)
    wrong = _exact(confusion.false_positives, negatives, 0.0125)
    low, high = (risky * found[side] + (1 - risky) * wrong[side] for side in (0, 1))
    return low, high, risky * found[0]


def first_outside(
    answers: NDArray[np.bool_], edges: Edges
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return at which answer bounds first ended below a rate, and first began above it.

    Where they never did: one more than there are answers.
    """
    values = answers.astype(np.float64)
    after = np.cumsum(values, axis=1)
    numbers = np.arange(values.shape[1])
    expected, mean = guess(after - values, numbers), after / (numbers + 1)
    unflagged = np.cumsum(log_gain(0.0, guess(0.0, numbers), edges.unflagged), axis=1)
    sides = (
        (edges.below, (mean < edges.below) & (unflagged >= edges.log_limit)),
        (edges.above, mean > edges.above),
    )
    found = []
    for edge, side in sides:
        wealth = np.cumsum(log_gain(values, expected, edge), axis=1)
        out = (wealth >= edges.log_limit) & side
        found.append(np.where(out.any(axis=1), out.argmax(axis=1) + 1, values.shape[1] + 1))
    return found[0], found[1]


def fixed_size(limit: float, kind: Kind | None) -> int:
    """Return how many answers clear a model at half the limit with a chance of 90 %."""
    confusion = kind.expected() if kind else None
    share = kind.flagged(limit / 2) if kind else limit / 2
    number = 100
    while _power(number, share, limit, confusion) < 0.9:
        number = math.ceil(number * 1.03)
    return number


def _power(number: int, share: float, limit: float, confusion: Confusion | None) -> float:
    """Return the chance that a fixed-size audit's upper bound meets the limit."""
    low, high = -1, number  # the bound rises with the hits
    while high - low > 1:
        middle = (low + high) // 2
        met = rate(middle, number, confusion).high <= limit
        low, high = (middle, high) if met else (low, middle)
    hits = np.arange(low + 1)
    logs = log_choose(number)[: low + 1]
    logs = logs + hits * math.log(share) + (number - hits) * math.log1p(-share)
    return float(np.exp(logs).sum())


def exact() -> Iterator[dict[str, Any]]:
    """Yield, by enumeration, how seldom `rate` holds a rate from 0.1 % to 50 % at worst."""
    truths = np.geomspace(0.001, 0.5, 300)[:, None]
    for number in (100, 400, 1000, 3000):
        hits = np.arange(number + 1)
        logs = log_choose(number) + hits * np.log(truths) + (number - hits) * np.log1p(-truths)
        chances = np.exp(logs)
        entry: dict[str, Any] = {"number": number}
        for name, interval in (("ours", rate), ("wilson", wilson)):
            found = [interval(each, number) for each in hits.tolist()]
            low, high = np.array([each.low for each in found]), np.array([e.high for e in found])
            held = (chances * ((low <= truths) & (truths <= high))).sum(axis=1)
            entry[name] = (float(held.min()), float(held.mean()))
        yield entry


def claims(runs: int) -> Iterator[dict[str, Any]]:
    """Yield how often a diff of 40 figures claims what is not so, and finds what is."""
    for name, moved in (("nothing moved", 0), ("5 of 40 moved", 5)):
        rng = _generator(name)
        after = np.where(np.arange(40) < moved, 0.1, 0.02)
        counts: dict[str, list[tuple[bool, float, float]]] = {}
        for _ in range(max(20, runs // 4)):
            first, second = rng.binomial(400, 0.02, 40), rng.binomial(400, after)
            pairs = zip(first.tolist(), second.tolist(), strict=True)
            raw = [unpaired_p_value((one, 400), (two, 400)) for one, two in pairs]
            ways = {"each by itself": raw, "Holm": holm(raw)}
            for way, values in (ways | {"Benjamini-Hochberg": benjamini_hochberg(raw)}).items():
                made = np.array(values) <= 0.05
                false, found = int(made[moved:].sum()), int(made[:moved].sum())
                share = false / max(1, false + found)
                counts.setdefault(way, []).append((false > 0, share, found / max(1, moved)))
        for way, each in counts.items():
            some, share, hit = (float(value) for value in np.mean(np.array(each, float), axis=0))
            yield {"name": name, "way": way, "any": some, "share": share, "found": hit}


def labelled_questions() -> Iterator[Regime]:
    """Yield regimes of labels where several answers belong to one question."""
    for asked, labels in ((STYLES, 57), (STYLES, 30), (GROUPS, 300), (GROUPS, 100)):
        for alike in (0.0, 0.25, 0.72):
            for truth in (0.05, 0.3):

                def once(
                    rng: np.random.Generator,
                    asked: tuple[int, ...] = asked,
                    labels: int = labels,
                    drawn: tuple[float, float] = (truth, alike),
                ) -> dict[str, Bounds]:
                    risky, question = answered(rng, asked, *drawn)
                    return _labelled(rng, risky, question, labels, drawn[0])

                name = f"{labels} labels of {_named(asked)}, alike {alike:g}, {truth:.0%} risky"
                yield Regime("questions", name, truth, once)


def answered(
    rng: np.random.Generator, asked: tuple[int, ...], truth: float, alike: float
) -> tuple[NDArray[np.bool_], NDArray[np.int64]]:
    """Return whether each answer is risky, and to which question it belongs; shapes (answers,).

    Args:
        rng: draws.
        asked: answers to each question.
        truth: the mean over questions, which have rates of their own.
        alike: how strongly answers to one question correlate.
    """
    own = np.full(len(asked), truth)
    if alike:
        spread = (1 - alike) / alike
        own = rng.beta(truth * spread, (1 - truth) * spread, len(asked))
    question = np.repeat(np.arange(len(asked)), asked)
    return rng.random(len(question)) < own[question], question


def _labelled(
    rng: np.random.Generator,
    risky: NDArray[np.bool_],
    question: NDArray[np.int64],
    labels: int,
    truth: float,
) -> dict[str, Bounds]:
    """Return the bounds where so many answers, drawn at random, have a label."""
    evidence = rng.normal(np.where(risky, 2.0, -2.0), 2.0)
    seen = 1 / (1 + (1 - truth) / truth * np.exp(-evidence))
    order = rng.permutation(len(risky))
    known, rest = order[:labels], order[labels:]
    given = seen[rest], seen[known], risky[known]
    ours = prediction_powered(*given, question[[*rest, *known]])
    plain = prediction_powered(*given)
    return {"ours": (ours.low, ours.high), "as if independent": (plain.low, plain.high)}


def _named(asked: tuple[int, ...]) -> str:
    return f"{sum(asked)} answers to {len(asked)} questions"


def sizes(runs: int) -> Iterator[dict[str, Any]]:
    """Yield how often each test calls equal sides different at 5 %."""
    for number, truth in ((100, 0.02), (400, 0.02), (100, 0.2), (400, 0.2)):
        rng = _generator(f"size {number} {truth}")
        hits = rng.binomial(number, truth, (runs, 2)).tolist()
        alone = np.mean([unpaired_p_value((a, number), (b, number)) <= 0.05 for a, b in hits])
        pairs = (conditions(rng, (truth, truth), (number, 1, 1)) for _ in range(runs))
        paired = np.mean([paired_p_value(*sides) <= 0.05 for sides in pairs])
        yield {
            "name": f"{number} answers each, {truth:.0%} risky",
            "unpaired": float(alone),
            "paired": float(paired),
        }
    for asked, alike in ((STYLES, 0.25), (STYLES, 0.72), (GROUPS, 0.25), (GROUPS, 0.72)):
        name = f"{_named(asked)} each, alike {alike:g}, 30% risky"
        rng = _generator(name)
        sides = [[_counts(rng, asked, 0.3, alike) for _ in range(2)] for _ in range(runs)]
        values = [[_worth(side) for side in both] for both in sides]
        yield {
            "name": name,
            "unpaired": float(np.mean([unpaired_p_value(*both) <= 0.05 for both in values])),
            "paired": float(np.mean([paired_p_value(*both) <= 0.05 for both in sides])),
        }


def _counts(rng: np.random.Generator, asked: tuple[int, ...], truth: float, alike: float) -> Counts:
    risky, question = answered(rng, asked, truth, alike)
    return Counts(np.bincount(question, risky, len(asked)), asked)


def _worth(counts: Counts) -> tuple[float, float]:
    """Return what `guard audit diff` compares where it has profiles alone."""
    found = rate_of_questions(counts)
    return worth(Share(found.value, found.low, found.high), float(counts.asked.sum()))


def sections() -> dict[str, list[Regime]]:
    """Return all regimes by section, in the order of the page."""
    makers = (
        audit_regimes.rates,
        audit_regimes.corrected,
        lambda: (*audit_regimes.questions(), *labelled_questions()),
        audit_regimes.effects,
        audit_regimes.corrected_effects,
        audit_regimes.differences,
        audit_regimes.labelled,
        audit_regimes.misfits,
    )
    return {(found := list(maker()))[0].section: found for maker in makers}


def measured(runs: int) -> dict[str, Any]:
    """Return every figure of the page."""
    regimes = [regime for each in sections().values() for regime in each]
    rows: dict[str, list[list[Row]]] = {}
    console = Console(stderr=True)
    for regime in track(regimes, "intervals", console=console):
        rows.setdefault(regime.section, []).append(run(regime, runs))
    steps = {"sequences": sequences, "savings": savings, "claims": claims, "sizes": sizes}
    found = {
        name: list(step(runs))
        for name, step in track(steps.items(), "sequences and tests", console=console)
    }
    date = time.strftime("%Y-%m-%d", time.gmtime())
    return {"rows": rows, "exact": list(exact()), "runs": runs, "seed": SEED, "date": date} | found


def _portions(runs: int, size: int) -> list[int]:
    """Return runs in portions that fit into memory."""
    return [min(size, runs - start) for start in range(0, runs, size)]


def _generator(name: str) -> np.random.Generator:
    return np.random.default_rng([SEED, zlib.crc32(name.encode())])


def main(arguments: Iterable[str] | None = None) -> None:
    """Simulate and write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--runs", type=int, default=RUNS, help="simulated audits a row")
    parser.add_argument("--smoke", action="store_true", help="20 runs, printed and not written")
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "audit-intervals.md")
    given = parser.parse_args(None if arguments is None else list(arguments))
    if given.runs < 1:
        parser.error("--runs must be 1 or more")
    page = report(measured(20 if given.smoke else given.runs))
    if given.smoke:
        print(page)
    else:
        given.out.write_text(page, encoding="utf-8")


if __name__ == "__main__":
    main()
