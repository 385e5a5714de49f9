"""Trains how a response's units add up: `guard.detectors.pooling`, three numbers per category.

For each category the pooling is taken from a grid by the class-balanced log loss of a
logistic calibration on the response's score, cross-validated by question. Units standing
alone are kept unless another pooling is better by more than its standard error over folds,
and a category with few long rows gets the pooling that is best over all categories.

This module does not know how a unit was scored.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import product
from typing import TYPE_CHECKING, Final

import numpy as np
from tqdm import tqdm

from guard import calibration
from guard.categories import CATEGORIES
from guard.detectors.pooling import ALONE, Pooling
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

BY_SENTENCE: Final = ("bad_advice", "bias_stereotype", "harassment")
"""What classes mend by taking sentences out: units stand for themselves, so that it is the
risky sentence that goes and not its neighbour."""

FOLDS: Final = 5
FEWEST_LONG: Final = 40
"""Positive rows of several units below which a category gets the common pooling."""


def unit_logits(classifier: Classifier, rows: Iterable[Row]) -> list[NDArray[np.float32]]:
    """Return the logits of each row's units, each of shape (units, labels).

    Labels of the other side than the text judged are NaN.
    """
    given = list(rows)
    with ThreadPoolExecutor(WORKERS) as pool:
        scored = pool.map(partial(_row_logits, classifier), given)
        return list(tqdm(scored, "scoring", len(given), unit="row", mininterval=10))


def response_scores(
    units: Sequence[NDArray[np.float32]], poolings: Mapping[str, Pooling]
) -> NDArray[np.float64]:
    """Return each row's highest pooled logit per label, shape (rows, labels)."""
    columns = [poolings.get(head, ALONE) for head in HEADS]
    return np.array(
        [[score(row[:, i], pooling) for i, pooling in enumerate(columns)] for row in units]
    )


def score(logits: NDArray[np.float32], pooling: Pooling) -> float:
    """Return the highest running value of one label; NaN where the label was not judged."""
    if np.isnan(logits).any():
        # A row that was judged on both sides has the label in some of its texts only.
        logits = logits[~np.isnan(logits)]
    return float(pooling.running(logits.astype(float)).max()) if len(logits) else float("nan")


def fit(units: Sequence[NDArray[np.float32]], rows: Sequence[Row]) -> dict[str, Pooling]:
    """Return the pooling of each head on the response's side."""
    heads = [n for n in HEADS if CATEGORIES[n].side == "response" and n not in BY_SENTENCE]
    losses: dict[str, NDArray[np.float64]] = {}
    for head in tqdm(heads, "pooling", unit="category"):
        known = _known(head, units, rows)
        if (known.truth & (known.counts > 1)).sum() >= FEWEST_LONG:
            losses[head] = np.stack([_losses(known, pooling) for pooling in GRID])
    common = _choice(np.concatenate(list(losses.values()), axis=1)) if losses else ALONE
    found = {head: _choice(losses[head]) if head in losses else common for head in heads}
    return found | dict.fromkeys(BY_SENTENCE, ALONE)


def _choice(losses: NDArray[np.float64]) -> Pooling:
    """Return the pooling of least loss; losses have the shape (poolings, folds)."""
    best = int(losses.mean(axis=1).argmin())
    gain = losses[GRID.index(ALONE)] - losses[best]
    sure = gain.mean() > gain.std() / np.sqrt(len(gain))
    return GRID[best] if sure else ALONE


@dataclass(frozen=True, slots=True)
class _Known:
    """The rows with a clear label of one head.

    Attributes:
        logits: of their units, shape (rows, longest); behind a row's last unit -inf.
        counts: how many units each has, shape (rows,).
        truth: whether each is risky, shape (rows,).
        folds: which fold each belongs to, shape (rows,).
    """

    logits: NDArray[np.float64]
    counts: NDArray[np.int64]
    truth: NDArray[np.bool_]
    folds: NDArray[np.int64]

    def scores(self, pooling: Pooling) -> NDArray[np.float64]:
        """Return each row's highest running value, shape (rows,)."""
        there = np.isfinite(self.logits)
        running = pooling.running(np.where(there, self.logits, 0.0))
        return np.asarray(np.where(there, running, -np.inf).max(axis=1))


def _known(head: str, units: Sequence[NDArray[np.float32]], rows: Sequence[Row]) -> _Known:
    index = HEADS.index(head)
    found, truth, folds = [], [], []
    for logits, row in zip(units, rows, strict=True):
        label = row.labels.get(head)
        judged = logits[~np.isnan(logits[:, index]), index]
        # A label in between says neither.
        if label is not None and len(judged) and not 0.3 < label < 0.7:
            found.append(judged)
            truth.append(label >= 0.5)
            folds.append(int(row.question[-4:], 16) % FOLDS)
    table = np.full((len(found), max(map(len, found), default=1)), -np.inf)
    for line, judged in zip(table, found, strict=True):
        line[: len(judged)] = judged
    counts = np.array([len(judged) for judged in found], np.int64)
    return _Known(table, counts, np.array(truth, bool), np.array(folds, np.int64))


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


def _row_logits(classifier: Classifier, row: Row) -> NDArray[np.float32]:
    out = [
        _sided(classifier.logits(row.prompt, unit.text, start=unit.start), "response")
        for unit in (response_units(row.response, UNITS) if row.response.strip() else [])
    ]
    if row.prompt.strip() and any(CATEGORIES[head].side == "prompt" for head in row.labels):
        out.append(_sided(classifier.logits("", row.prompt, "prompt"), "prompt"))
    return np.stack(out) if out else np.full((1, len(HEADS)), np.nan, np.float32)


def _sided(logits: NDArray[np.float32], side: str) -> NDArray[np.float32]:
    of_side = np.array([CATEGORIES[head].side == side for head in HEADS])
    return np.where(of_side, logits, np.float32("nan"))
