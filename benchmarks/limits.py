"""What each limit of a class does on validation rows: how the built-in limits were chosen.

    python benchmarks/limits.py --data FOLDER --class public
    python benchmarks/limits.py --data FOLDER --class public --share 0.003

Scores the validation rows (cut from train by question; the model was calibrated on them, but
not trained) with the bundled model, adds their units up as the runtime does, and prints per
category: the share of risky rows that reach the `act` limit; of those with several units the same,
and the share that reach it before the last unit, where a stream would stop; the share of the
category's own negatives, and how many *ordinary* rows do (ordinary answers of assistants, and
answers that sound alarming and are fine). Rows marked `test` or `meta.holdout` are never read.
Scoring takes minutes: `--cache FILE` keeps it for the next class.

With `--share` it prints instead what evidence each category must reach so that together they act
on that share of ordinary rows. So few rows come near a limit that counting them says little: the
tail is extrapolated. Above its 98th percentile the evidence of ordinary rows is taken to follow a
generalised Pareto distribution (peaks over threshold; Pickands, Annals of Statistics 3, 1975), its
shape from probability-weighted moments (Hosking and Wallis, Technometrics 29, 1987) and held
between a tail that ends and an exponential one: evidence is bounded. `harmful_compliance`, what
most risky requests aim at, gets a third of the share; the other categories that the class acts on
get equal parts of the rest. Ordinary answers are judged twice, with their prompt and without it: a
guard is not always told what was asked. Where more ordinary rows reach a limit than the share all
the same, tails are heavier than was taken: the share that is fitted for is lowered until no more
do. Behind it stands how many rows reach a limit that was fitted to the other files alone: what
users write is like none of these files, so that this is nearer to what a limit will cost.
"""

from __future__ import annotations

import argparse
import math
import random
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np

from guard.assess import live_risk
from guard.calibration import wilson
from guard.categories import CATEGORIES
from guard.detectors.classifier import Classifier
from guard.detectors.model_directory import Head, read
from guard.detectors.pooling import Scored
from guard.loading import BUNDLED_MODEL
from guard.policy import load_class
from guard.text.units import CONTEXT
from guard.text.units import units as cut
from guard.training.aggregate import row_logits
from guard.training.data import HEADS, load

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from guard.security_class import SecurityClass
    from guard.training.data import Row

SEED: Final = 13
"""That of the bundled model's training: of large files the sample that it was calibrated on."""

ORDINARY: Final = ("own_hard_benign", "own_benign_chat", "own_multi_turn", "orbench_responses")

TAIL: Final = 0.02
"""Share of ordinary rows that counts as the tail."""

FOREMOST: Final = ("harmful_compliance", 1 / 3)
"""The category that gets more than others of the share, and how much."""

_STEP: Final = 0.95
"""By how much a share that is fitted for is lowered at a time."""

SHAPES: Final = (-0.5, 0.0)
"""Shapes that a tail may have: from one that ends soon to an exponential one."""

PROMPTS: Final = 700
"""Prompts of ordinary answers that the table of inputs looks at."""


def ordinary(row: Row) -> bool:
    """Return whether a row is an answer to an unseen question that should pass in every class."""
    return row.file.startswith(("benign_", *ORDINARY))


def judged(rows: list[Row]) -> list[Row]:
    """Return the rows that limits are chosen on: the ordinary ones with and without a prompt."""
    asked = [row for row in rows if ordinary(row) and row.response.strip() and row.prompt.strip()]
    return [*rows, *(replace(row, prompt="") for row in asked)]


def main() -> None:
    """Print one table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="folder of labelled rows")
    parser.add_argument("--class", dest="name", default="public", help="security class")
    parser.add_argument("--cache", type=Path, help="where units' logits are kept")
    parser.add_argument("--share", type=float, help="of ordinary rows to act on: print evidence")
    given = parser.parse_args()
    security_class = load_class(given.name)
    rows = judged(load(given.data, seed=SEED).validation)
    random.Random(0).shuffle(rows)
    units = cached(rows, given.cache)
    heads = {head.category: head for head in read(BUNDLED_MODEL, None, verify=True).heads}
    if given.share is not None:
        if not 0 < given.share < TAIL:
            parser.error(f"--share must be between 0 and {TAIL}")
        _choose(given.share, security_class, heads, units, rows)
        return
    print("| category | act | risky that reach it | long risky | before the end |", end="")
    print(" own negatives | ordinary |\n|---|---|---|---|---|---|---|")
    for name in HEADS:
        limit = security_class.limit(name)
        if limit is None or limit.act is None or CATEGORIES[name].side == "prompt":
            continue
        prior, head = security_class.prior_of(name), heads[name]
        reached, early = (
            np.array([live_risk(found(head, row), prior) for row in units]) >= limit.act
            for found in (evidence, evidence_before_end)
        )
        print(_row(name, limit.act, (reached, early), units, rows))
    if security_class.input_limits:
        _inputs(security_class, heads, units, rows)


def _choose(
    share: float,
    security_class: SecurityClass,
    heads: dict[str, Head],
    units: list[Scored],
    rows: list[Row],
) -> None:
    """Print the evidence that lets a share of ordinary rows reach a limit, and what it catches."""
    usual = np.array([ordinary(row) and bool(row.response.strip()) for row in rows])
    experimental = read(BUNDLED_MODEL, None, verify=True).experimental
    names = [
        name
        for name in HEADS
        if CATEGORIES[name].side == "response"
        and security_class.limit(name) is not None
        and name not in experimental
    ]
    acted = [
        name
        for name, limit in security_class.limits.items()
        if name in names and limit.act is not None
    ]
    found_of = {name: np.array([evidence(heads[name], row) for row in units]) for name in names}
    parts = [(part(name, acted), found_of[name][usual]) for name in acted]
    fitted = fitted_share(share, parts)
    files = np.array([row.file for row, ordinary in zip(rows, usual, strict=True) if ordinary])
    cost = wilson(reached_unseen(share, parts, files), len(files))
    print(f"Fitted for {fitted:.2%}. Of files that were left out, limits that were fitted to the")
    print(f"others would act on {cost.value:.2%} ({cost.low:.2%}-{cost.high:.2%}).\n")
    print("| category | evidence | limit | ordinary above it | risky above it |")
    print("|---|---|---|---|---|")
    for name in names:
        found = found_of[name]
        least = exceeded_by(fitted * part(name, acted), found[usual])
        risky = np.array([row.labels.get(name, -1.0) >= 0.5 for row in rows])
        limit = live_risk(least, security_class.prior_of(name))
        print(
            f"| {name} | {least:.1f} | {limit:.2g} | {(found[usual] >= least).sum()} of "
            f"{usual.sum()} | {(found[risky] >= least).mean():.1%} of {risky.sum()} |"
        )


def fitted_share(share: float, categories: list[tuple[float, NDArray[np.float64]]]) -> float:
    """Return the share to fit tails for so that no more of the same rows reach any limit.

    Args:
        share: of rows that may reach one, below `TAIL`.
        categories: of each that is acted on, its part of the share and its evidence, shape (rows,).

    Raises:
        ValueError: more rows than the share have evidence beyond any limit.
    """
    fitted = share
    while fitted > share / 1000:
        reached = [values >= exceeded_by(fitted * part, values) for part, values in categories]
        if np.any(reached, axis=0).mean() <= share:
            return fitted
        fitted *= _STEP
    raise ValueError(f"no limits keep {share:.2%} of these rows")


def reached_unseen(
    share: float, categories: list[tuple[float, NDArray[np.float64]]], files: NDArray[np.str_]
) -> int:
    """Return how many rows reach any limit that was fitted to the rows of the other files.

    Args:
        share: as of `fitted_share`.
        categories: likewise.
        files: where each row is from, shape (rows,).
    """
    reached = 0
    for file in np.unique(files):
        at = files == file
        fitted = fitted_share(share, [(part, values[~at]) for part, values in categories])
        over = [v[at] >= exceeded_by(fitted * part, v[~at]) for part, v in categories]
        reached += int(np.any(over, axis=0).sum())
    return reached


def part(name: str, acted: list[str]) -> float:
    """Return which part of a share one category gets, of those that a class acts on."""
    first, most = FOREMOST
    if name == first:
        return most
    rest = 1 - most if first in acted else 1.0
    return rest / max(1, len(set(acted) - {first}))


def exceeded_by(share: float, values: NDArray[np.float64]) -> float:
    """Return what a share of such values exceeds, if their tail is a generalised Pareto one.

    Args:
        share: below `TAIL`.
        values: a sample, shape (values,).
    """
    bound = float(np.quantile(values, 1 - TAIL))
    above = np.sort(values[values > bound]) - bound
    mean = float(above.mean())
    # The mean of the excesses, each weighted by the share of the others that are larger.
    rank = (np.arange(len(above)) + 0.65) / len(above)
    weighted = float((above * (1 - rank)).mean())
    shape = min(SHAPES[1], max(SHAPES[0], 2 - mean / (mean - 2 * weighted)))
    scale, ratio = mean * (1 - shape), TAIL / share
    if abs(shape) < 1e-6:
        return bound + scale * math.log(ratio)
    return bound + scale / shape * (math.pow(ratio, shape) - 1)


def _inputs(
    security_class: SecurityClass,
    heads: dict[str, Head],
    units: list[Scored],
    rows: list[Row],
) -> None:
    """Print the table of what a model is given, beside the prompts of ordinary answers."""
    usual = [row.prompt for row in rows if ordinary(row) and row.prompt.strip()][:PROMPTS]
    classifier = Classifier(BUNDLED_MODEL)
    prompts = [_prompt_logits(classifier, text) for text in usual]
    print(
        "\n| input | act | risky that reach it | own negatives | ordinary |\n|---|---|---|---|---|"
    )
    for name, limit in security_class.input_limits.items():
        if limit.act is None or name not in heads:
            continue
        head, prior = heads[name], security_class.prior_of(name)
        reached, passing = (
            np.array([live_risk(evidence(head, each), prior) for each in scored]) >= limit.act
            for scored in (units, prompts)
        )
        risky = np.array([row.labels.get(name, -1.0) >= 0.5 for row in rows])
        fine = np.array([0 <= row.labels.get(name, -1.0) < 0.5 for row in rows])
        print(
            f"| {name} | {limit.act} | {reached[risky].mean():.1%} of {risky.sum()} "
            f"| {reached[fine].mean():.2%} of {fine.sum()} | {passing.sum()} of {len(passing)} |"
        )


def _prompt_logits(classifier: Classifier, prompt: str) -> Scored:
    """Return the logits of a prompt's units, as at runtime."""
    starts = [(max(0, start - CONTEXT), start, end) for start, end in cut(prompt)]
    found = [classifier.logits("", prompt[a:end], "prompt", start - a) for a, start, end in starts]
    return Scored(np.array(found))


def cached(rows: list[Row], cache: Path | None) -> list[Scored]:
    """Return the logits of each row's units, and of its closing read."""
    kept = np.load(cache) if cache is not None and cache.is_file() else {}
    if "closing" not in kept:
        scored = row_logits(Classifier(BUNDLED_MODEL), rows)
        if cache is not None:
            _keep(scored, cache)
        return scored
    units = np.split(kept["logits"], np.cumsum(kept["lengths"])[:-1])
    ends = [None if np.isnan(end).all() else end for end in kept["closing"]]
    return [Scored(*each) for each in zip(units, ends, strict=True)]


def _keep(scored: list[Scored], cache: Path) -> None:
    none = np.full(len(HEADS), np.nan, np.float32)
    np.savez_compressed(
        cache,
        logits=np.concatenate([each.units for each in scored]),
        lengths=[len(each.units) for each in scored],
        closing=np.stack([none if each.closing is None else each.closing for each in scored]),
    )


def evidence(head: Head, scored: Scored) -> float:
    """Return a response's pooled evidence, as at runtime."""
    found = scored.evidence(head.index, head.pooling, head.calibration.evidence)
    return -np.inf if np.isnan(found) else found


def evidence_before_end(head: Head, scored: Scored) -> float:
    """Return the highest evidence of the units before the last, as a stream has it."""
    lines = [head.calibration.evidence(float(logit)) for logit in scored.units[:-1, head.index]]
    found = np.array([value for value in lines if not math.isnan(value)])
    if not len(found):
        return -np.inf
    reserve = 0.0 if scored.closing is None else head.pooling.reserve
    return float(head.pooling.running(found).max()) - reserve


def _row(
    name: str,
    act: float,
    where: tuple[NDArray[np.bool_], NDArray[np.bool_]],
    units: list[Scored],
    rows: list[Row],
) -> str:
    """Return a line of the table; `where` says which rows reach the limit, at all and early."""
    reached, early = where
    risky = np.array([row.labels.get(name, -1.0) >= 0.5 for row in rows])
    fine = np.array([0 <= row.labels.get(name, -1.0) < 0.5 for row in rows])
    usual = np.array([ordinary(row) and bool(row.response.strip()) for row in rows])
    streamed = risky & np.array([len(row.units) > 1 for row in units])
    return (
        f"| {name} | {act} | {reached[risky].mean():.1%} of {risky.sum()} "
        f"| {reached[streamed].mean():.1%} of {streamed.sum()} | {early[streamed].mean():.1%} "
        f"| {reached[fine].mean():.2%} of {fine.sum()} "
        f"| {reached[usual].sum()} of {usual.sum()} |"
    )


if __name__ == "__main__":
    main()
