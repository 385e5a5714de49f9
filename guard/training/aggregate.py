"""Trains how a response's units add up: `guard.detectors.pooling`, a few numbers per category.

For each category the pooling is taken from a grid by the class-balanced log loss of a
logistic calibration on the response's score, cross-validated by question; behind it, from a
second grid, what the closing read of a whole answer counts, and how much of the units' evidence
waits for it: little of what stands in the text itself, more of what an answer is as a whole. Units
standing alone, and no closing read, are kept unless another choice is better by more than its
standard error over folds, and a category with few long rows gets what is best over all of its kind.

This module does not know how a unit was scored.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from itertools import product
from typing import TYPE_CHECKING, Final

import numpy as np
from tqdm import tqdm

from guard import calibration
from guard.categories import CATEGORIES
from guard.detectors.pooling import ALONE, Pooling, Scored
from guard.text.units import CLOSING
from guard.training.data import HEADS
from guard.training.examples import response_units

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from numpy.typing import NDArray

    from guard.detectors.classifier import Classifier
    from guard.training.data import Row

WORKERS: Final = 2
"""Rows scored side by side; the model's session runs one thread each."""

UNITS: Final = 12
"""Units of a response that calibration looks at; longer ones are cut there."""

GRID: Final = (
    ALONE,
    *map(Pooling, *zip(*product((0.85, 0.7, 0.5, 0.35), (0.0, 0.4), (1.0, 2.0)), strict=True)),
)
"""In logits. A lone unit never loses more than 2: rows with one bad sentence among many good ones
are rare in the data, and must count all the same."""

OF_ANSWERS: Final = (
    "misaligned_persona",
    "power_seeking",
    "deception",
    "sycophancy",
    "refusal",
    "unsafe",
)
"""What an answer is as a whole, and seldom in a sentence."""

_WEIGHTS: Final = (0.3, 0.5, 0.7)

CLOSINGS: Final = tuple(product(_WEIGHTS, (0.0, 0.5)))
"""Weights of the closing read, and reserves in logits. What stands in the text itself keeps nearly
all of its evidence before a closing read comes: a stream must stop there."""

CLOSINGS_OF_ANSWERS: Final = tuple(product(_WEIGHTS, (0.0, 1.0, 2.0, 3.0)))
"""The same for what an answer is as a whole: its end may be waited for, but a unit that is certain
still stops a stream."""

BY_SENTENCE: Final = ("bad_advice", "bias_stereotype", "harassment")
"""What classes mend by taking sentences out: units stand for themselves, so that it is the
risky sentence that goes and not its neighbour or the last one."""

FOLDS: Final = 5
FEWEST_LONG: Final = 40
"""Positive rows of several units below which a category gets the common pooling."""


def row_logits(classifier: Classifier, rows: Iterable[Row]) -> list[Scored]:
    """Return the logits of each row's units, and of its closing read."""
    given = list(rows)
    with ThreadPoolExecutor(WORKERS) as pool:
        scored = pool.map(partial(_row_logits, classifier), given)
        return list(tqdm(scored, "scoring", len(given), unit="row", mininterval=10))


def response_scores(
    scored: Sequence[Scored], poolings: Mapping[str, Pooling]
) -> NDArray[np.float64]:
    """Return each row's pooled logit per label, shape (rows, labels)."""
    columns = [poolings.get(head, ALONE) for head in HEADS]
    return np.array(
        [[row.evidence(i, pooling) for i, pooling in enumerate(columns)] for row in scored]
    )


def fit(scored: Sequence[Scored], rows: Sequence[Row]) -> dict[str, Pooling]:
    """Return the pooling of each head on the response's side."""
    heads = [n for n in HEADS if CATEGORIES[n].side == "response" and n not in BY_SENTENCE]
    known = {head: _known(head, scored, rows) for head in heads}
    units = _best(known, dict.fromkeys(heads, GRID))
    answers = [head for head in heads if head in OF_ANSWERS]
    texts = [head for head in heads if head not in OF_ANSWERS]
    found = dict.fromkeys(BY_SENTENCE, ALONE)
    for kind, closings in ((texts, CLOSINGS), (answers, CLOSINGS_OF_ANSWERS)):
        grids = {head: _closed(units[head], closings) for head in kind}
        found |= _best({head: known[head] for head in kind}, grids)
    return found


def _closed(pooling: Pooling, closings: Iterable[tuple[float, float]]) -> tuple[Pooling, ...]:
    """Return a pooling without a closing read, and with each that it may have."""
    return (pooling, *(replace(pooling, closing=c, reserve=r) for c, r in closings))


def _best(
    known: Mapping[str, _Known], grids: Mapping[str, tuple[Pooling, ...]]
) -> dict[str, Pooling]:
    """Return each head's choice from its grid, whose first stands unless another is surely better.

    A head with few long rows takes the place in the grid that is best over the others together.
    """
    losses = {
        head: np.stack([_losses(rows, pooling) for pooling in grids[head]])
        for head, rows in tqdm(known.items(), "pooling", unit="category")
        if (rows.truth & (rows.counts > 1)).sum() >= FEWEST_LONG
    }
    shared = _choice(np.concatenate(list(losses.values()), axis=1)) if losses else 0
    return {
        head: grid[_choice(losses[head]) if head in losses else shared]
        for head, grid in grids.items()
    }


def _choice(losses: NDArray[np.float64]) -> int:
    """Return the place of the least loss; losses have the shape (poolings, folds)."""
    best = int(losses.mean(axis=1).argmin())
    gain = losses[0] - losses[best]
    sure = gain.mean() > gain.std() / np.sqrt(len(gain))
    return best if sure else 0


@dataclass(frozen=True, slots=True)
class _Known:
    """The rows with a clear label of one head.

    Attributes:
        logits: of their units, shape (rows, longest); behind a row's last unit -inf.
        closing: of their closing reads, shape (rows,); NaN where a row has none.
        counts: how many units each has, shape (rows,).
        truth: whether each is risky, shape (rows,).
        folds: which fold each belongs to, shape (rows,).
    """

    logits: NDArray[np.float64]
    closing: NDArray[np.float64]
    counts: NDArray[np.int64]
    truth: NDArray[np.bool_]
    folds: NDArray[np.int64]

    def scores(self, pooling: Pooling) -> NDArray[np.float64]:
        """Return each row's pooled value, shape (rows,)."""
        there = np.isfinite(self.logits)
        running = pooling.running(np.where(there, self.logits, 0.0))
        highest = np.where(there, running, -np.inf).max(axis=1)
        if not pooling.closing:
            return np.asarray(highest)
        closed = (1 - pooling.closing) * highest + pooling.closing * self.closing
        whole = np.maximum(highest - pooling.reserve, closed)
        return np.asarray(np.where(np.isnan(self.closing), highest, whole))


def _known(head: str, scored: Sequence[Scored], rows: Sequence[Row]) -> _Known:
    index = HEADS.index(head)
    found, truth, folds, closing = [], [], [], []
    for given, row in zip(scored, rows, strict=True):
        label = row.labels.get(head)
        judged = given.units[~np.isnan(given.units[:, index]), index]
        # A label in between says neither.
        if label is not None and len(judged) and not 0.3 < label < 0.7:
            found.append(judged)
            truth.append(label >= 0.5)
            folds.append(int(row.question[-4:], 16) % FOLDS)
            closing.append(np.nan if given.closing is None else given.closing[index])
    table = np.full((len(found), max(map(len, found), default=1)), -np.inf)
    for line, judged in zip(table, found, strict=True):
        line[: len(judged)] = judged
    counts = np.array([len(judged) for judged in found], np.int64)
    ends = np.array(closing, np.float64)
    return _Known(table, ends, counts, np.array(truth, bool), np.array(folds, np.int64))


def _losses(known: _Known, pooling: Pooling) -> NDArray[np.float64]:
    """Return the balanced log loss on each fold of a calibration on the others, shape (folds,)."""
    scores, truth = known.scores(pooling), known.truth
    out = []
    for fold in range(FOLDS):
        at = known.folds == fold
        # A fold without one side says nothing of the balance.
        if truth[at].all() or not truth[at].any() or truth[~at].all() or not truth[~at].any():
            continue
        line = calibration.fit(scores[~at], truth[~at])
        evidence = line.slope * scores[at] + line.intercept
        missed, alarmed = -evidence[truth[at]], evidence[~truth[at]]
        # ln(1 + e^x) is minus the log of the chance that is given to what was so.
        out.append(sum(np.logaddexp(0, x).mean() for x in (missed, alarmed)) / 2)
    return np.array(out)


def _row_logits(classifier: Classifier, row: Row) -> Scored:
    passages = response_units(row.response, UNITS) if row.response.strip() else []
    out = [
        _sided(classifier.logits(row.prompt, unit.text, start=unit.start), "response")
        for unit in passages
    ]
    closing = classifier.closing(row.prompt, row.response[-CLOSING:]) if passages[1:] else None
    if row.prompt.strip() and any(CATEGORIES[head].side == "prompt" for head in row.labels):
        out.append(_sided(classifier.logits("", row.prompt, "prompt"), "prompt"))
    units = np.stack(out) if out else np.full((1, len(HEADS)), np.nan, np.float32)
    return Scored(units, None if closing is None else _sided(closing, "response"))


def _sided(logits: NDArray[np.float32], side: str) -> NDArray[np.float32]:
    of_side = np.array([CATEGORIES[head].side == side for head in HEADS])
    return np.where(of_side, logits, np.float32("nan"))
