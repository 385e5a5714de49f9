"""Calibration: from a response's highest logit to evidence, on rows the model was not trained on.

A class-balanced logistic regression (Platt, "Probabilistic outputs for support vector
machines", 1999) on the highest logit over a response's units: at a prior of one half its
log-odds are the log likelihood ratio. The quantised model is calibrated, as it is shipped,
on whole responses cut as at runtime.

This module does not know torch, or which rows the model has seen: pass validation rows.
"""

from __future__ import annotations

import math
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from tqdm import tqdm

from guard.categories import CATEGORIES
from guard.training.data import HEADS
from guard.training.examples import response_units

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

    from guard.detectors.classifier import Classifier
    from guard.training.data import Row

WORKERS: Final = 2
"""Rows scored side by side; the model's session runs one thread each."""

UNITS: Final = 12
"""Units of a response that calibration looks at; longer ones are cut there."""

MAXIMUM_EVIDENCE: Final = 8.0

EXPERIMENTAL_EVIDENCE: Final = 1.5
"""Bound for an experimental category: too little to reach a limit of any built-in class."""

_UNCERTAIN: Final = (0.3, 0.7)
"""Soft labels in between say neither; they are left out."""

FEWEST: Final = 20
"""Rows of either side below which a category is experimental."""

LOWEST_AUROC: Final = 0.80
"""Validation AUROC below which a category is experimental."""


def response_logits(classifier: Classifier, rows: Iterable[Row]) -> NDArray[np.float64]:
    """Return the highest logit per label over each row's units, shape (rows, labels).

    Labels of the other side than the text judged are NaN.
    """
    given = list(rows)
    with ThreadPoolExecutor(WORKERS) as pool:
        scored = pool.map(partial(_row_logits, classifier), given)
        return np.stack(list(tqdm(scored, "scoring", len(given), unit="row", mininterval=10)))


def calibrate(logits: NDArray[np.float64], rows: list[Row]) -> dict[str, Any]:
    """Return `calibration.json`: slope, intercept, bound and figures per label."""
    labels: dict[str, Any] = {}
    for index, head in enumerate(HEADS):
        known = [
            i for i, row in enumerate(rows) if head in row.labels and not np.isnan(logits[i, index])
        ]
        known = [i for i in known if not _UNCERTAIN[0] < rows[i].labels[head] < _UNCERTAIN[1]]
        scores = np.array([logits[i, index] for i in known])
        truth = np.array([rows[i].labels[head] >= 0.5 for i in known], bool)
        labels[head] = _fit(scores, truth)
    return bounded({"format": 1, "aggregate": "max", "method": "platt-balanced", "labels": labels})


def bounded(calibration: dict[str, Any]) -> dict[str, Any]:
    """Return the calibration with the evidence of experimental categories bounded."""
    labels = {
        head: entry | {"maximum": min(entry["maximum"], EXPERIMENTAL_EVIDENCE)}
        for head, entry in calibration["labels"].items()
        if head in experimental(calibration)
    }
    return calibration | {"labels": calibration["labels"] | labels}


def experimental(calibration: dict[str, Any]) -> dict[str, str]:
    """Return the categories whose evidence is not good enough to act on, and why."""
    reasons = {}
    for head, entry in calibration["labels"].items():
        if CATEGORIES[head].auxiliary:
            continue
        if min(entry["positives"], entry["negatives"]) < FEWEST:
            sides = f"{entry['positives']} positive and {entry['negatives']} negative"
            reasons[head] = f"only {sides} validation rows"
        elif entry["auroc"] < LOWEST_AUROC:
            reasons[head] = f"validation AUROC {entry['auroc']:.3f} is below {LOWEST_AUROC}"
    return reasons


def _row_logits(classifier: Classifier, row: Row) -> NDArray[np.float64]:
    out = np.full(len(HEADS), np.nan)
    texts = response_units(row.response, UNITS) if row.response.strip() else []
    if texts:
        best = np.max([classifier.logits(row.prompt, text) for text in texts], axis=0)
        _fill(out, best, "response")
    if row.prompt.strip() and any(CATEGORIES[head].side == "prompt" for head in row.labels):
        _fill(out, classifier.logits("", row.prompt, "prompt"), "prompt")
    return out


def _fill(out: NDArray[np.float64], logits: Any, side: str) -> None:
    for index, head in enumerate(HEADS):
        if CATEGORIES[head].side == side:
            out[index] = logits[index]


def _fit(scores: NDArray[np.float64], truth: NDArray[np.bool_]) -> dict[str, Any]:
    positives, negatives = int(truth.sum()), int((~truth).sum())
    entry: dict[str, Any] = {"positives": positives, "negatives": negatives}
    if positives < 2 or negatives < 2:
        # Nothing to fit: the logit counts for little, either way.
        return entry | {
            "slope": 0.5,
            "intercept": 0.0,
            "maximum": 1.0,
            "auroc": None,
            "interval": None,
        }
    model = LogisticRegression(class_weight="balanced", C=10.0).fit(scores[:, None], truth)
    auroc = float(roc_auc_score(truth, scores))
    slope = max(float(model.coef_[0, 0]), 1e-3)
    # No claim beyond what the rows can bear: a ratio of at most the number of negatives.
    maximum = min(MAXIMUM_EVIDENCE, math.log(negatives + 1))
    return entry | {
        "slope": slope,
        "intercept": float(model.intercept_[0]),
        "maximum": maximum,
        "auroc": auroc,
        "interval": auroc_interval(auroc, positives, negatives),
    }


def auroc_interval(auroc: float, positives: int, negatives: int) -> list[float]:
    """Return the 95 % interval of an AUROC (Hanley and McNeil, Radiology 143, 1982)."""
    q1, q2 = auroc / (2 - auroc), 2 * auroc**2 / (1 + auroc)
    spread = (
        auroc * (1 - auroc) + (positives - 1) * (q1 - auroc**2) + (negatives - 1) * (q2 - auroc**2)
    )
    half = 1.96 * math.sqrt(max(0.0, spread) / (positives * negatives))
    return [max(0.0, auroc - half), min(1.0, auroc + half)]
