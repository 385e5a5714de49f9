"""The figures and their intervals, from scores and truth.

Intervals are 95 %: Hanley and McNeil (Radiology 143, 1982) for AUROC, Wilson (JASA 22, 1927) for
shares (both of `guard.calibration`), percentile bootstrap for the rest.

This module does not know where scores come from.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np

from guard.calibration import auroc, auroc_interval, wilson

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    Measure = Callable[[NDArray[np.float64], NDArray[np.bool_]], float]

SEED: Final = 20
BOOTSTRAPS: Final = 300
ROC_RATES: Final = tuple(float(x) for x in np.logspace(-3, 0, 31))


def average_precision(scores: NDArray[np.float64], truth: NDArray[np.bool_]) -> float:
    """Return the area under precision over recall as a sum of steps; ties are one step."""
    order = np.argsort(-scores, kind="stable")
    ranked, hits = scores[order], np.cumsum(truth[order])
    last = np.append(np.flatnonzero(np.diff(ranked)), len(ranked) - 1)
    precision = hits[last] / (last + 1)
    steps = np.diff(np.append(0, hits[last])) / hits[-1]
    return float((precision * steps).sum())


def threshold(negatives: NDArray[np.float64], rate: float) -> float:
    """Return the score that `rate` of the negatives exceed."""
    return float(np.quantile(negatives, 1 - rate))


def recall_at(scores: NDArray[np.float64], truth: NDArray[np.bool_], rate: float) -> float:
    """Return the share of positives above the score that `rate` of the negatives exceed."""
    return float((scores[truth] > threshold(scores[~truth], rate)).mean())


def roc(scores: NDArray[np.float64], truth: NDArray[np.bool_]) -> list[list[float]]:
    """Return `[false-positive rate, recall]` at fixed rates that the negatives can resolve."""
    least = 1 / int((~truth).sum())
    rates = [rate for rate in ROC_RATES if rate >= least]
    return [[round(rate, 5), round(recall_at(scores, truth, rate), 4)] for rate in rates]


def bootstrapped(
    scores: NDArray[np.float64], truth: NDArray[np.bool_], measure: Measure
) -> list[float]:
    """Return the percentile interval of a measure over rows drawn again."""
    rng = np.random.default_rng(SEED)
    again = []
    for _ in range(BOOTSTRAPS):
        pick = rng.integers(0, len(truth), len(truth))
        if truth[pick].any() and not truth[pick].all():
            again.append(measure(scores[pick], truth[pick]))
    return [float(np.quantile(again, q)) for q in (0.025, 0.975)] if again else [0.0, 1.0]


def area(scores: NDArray[np.float64], truth: NDArray[np.bool_]) -> dict[str, Any]:
    """Return counts, and the AUROC with its interval where both sides are there."""
    positives, negatives = int(truth.sum()), int((~truth).sum())
    entry: dict[str, Any] = {"positive": positives, "negative": negatives}
    if positives and negatives:
        value = auroc(scores, truth)
        entry |= {"auroc": value, "auroc_interval": auroc_interval(value, positives, negatives)}
    return entry


def share(hits: int, total: int) -> dict[str, Any]:
    """Return a share with its interval and counts."""
    found = wilson(hits, total)
    return {
        "hits": hits,
        "rows": total,
        "share": found.value if total else 0.0,
        "interval": [found.low, found.high],
    }
