"""Calibration: from a response's pooled logit to evidence, on rows the model was not trained on.

The quantised model is calibrated (`guard.calibration`), as it is shipped, on whole responses cut
as at runtime. Beside each label's line stands how far it can be believed, measured on rows that
the line was not fitted to: calibration error, reliability and confusion.

This module does not know torch, or which rows the model has seen: pass validation rows.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from guard.calibration import (
    REFERENCE_PRIOR,
    auroc,
    auroc_interval,
    fit,
    held_out,
    summary,
)
from guard.categories import CATEGORIES
from guard.detectors.pooling import ALONE
from guard.training.data import HEADS

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from guard.detectors.pooling import Pooling
    from guard.training.data import Row

MAXIMUM_EVIDENCE: Final = 8.0

EXPERIMENTAL_EVIDENCE: Final = 1.5
"""Bound for an experimental category: too little to reach a limit of any built-in class."""

_UNCERTAIN: Final = (0.3, 0.7)
"""Soft labels in between say neither; they are left out."""

FEWEST: Final = 30
"""Rows of either side below which a category is experimental."""

LOWEST_AUROC: Final = 0.80
"""Validation AUROC below which a category is experimental."""


def calibrate(
    logits: NDArray[np.float64], rows: list[Row], poolings: Mapping[str, Pooling] | None = None
) -> dict[str, Any]:
    """Return `calibration.json`: slope, intercept, bound, pooling and figures per label.

    Args:
        logits: each row's pooled logit per label, shape (rows, labels); NaN where not judged.
        rows: which they are.
        poolings: how the logits of a row's units were pooled.
    """
    known = {head: _known(logits[:, index], rows, head) for index, head in enumerate(HEADS)}
    labels = {
        head: _fit(scores, truth, (poolings or {}).get(head, ALONE))
        for head, (scores, truth, _) in known.items()
    }
    found = bounded(
        {"format": 1, "method": "platt-balanced", "prior": REFERENCE_PRIOR, "labels": labels}
    )
    measured = {
        head: entry | _figures(entry, *known[head]) for head, entry in found["labels"].items()
    }
    return found | {"labels": measured}


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


def _known(
    logits: NDArray[np.float64], rows: list[Row], head: str
) -> tuple[NDArray[np.float64], NDArray[np.bool_], list[str]]:
    """Return logit, truth and digest of the rows that say something certain about `head`."""
    known = [
        i
        for i, row in enumerate(rows)
        if head in row.labels
        and not math.isnan(logits[i])
        and not _UNCERTAIN[0] < row.labels[head] < _UNCERTAIN[1]
    ]
    truth = np.array([rows[i].labels[head] >= 0.5 for i in known], bool)
    return logits[known], truth, [_digest(rows[i]) for i in known]


def _digest(row: Row) -> str:
    return hashlib.sha256(f"{row.prompt}\0{row.response}".encode("utf-8", "replace")).hexdigest()


def _fit(scores: NDArray[np.float64], truth: NDArray[np.bool_], pooling: Pooling) -> dict[str, Any]:
    positives, negatives = int(truth.sum()), int((~truth).sum())
    entry: dict[str, Any] = {"positives": positives, "negatives": negatives}
    if positives < 2 or negatives < 2:
        # Nothing to fit: the logit counts for little, either way.
        return entry | {
            "slope": 0.5,
            "intercept": 0.0,
            "maximum": 1.0,
            "pooling": _scaled(pooling, 0.5),
            "auroc": None,
            "interval": None,
        }
    line = fit(scores, truth)
    area = auroc(scores, truth)
    return entry | {
        "slope": line.slope,
        "intercept": line.intercept,
        # No claim beyond what the rows can bear: a ratio of at most the number of negatives.
        "maximum": min(MAXIMUM_EVIDENCE, math.log(negatives + 1)),
        # On the scale of evidence, which units are pooled on at runtime.
        "pooling": _scaled(pooling, line.slope),
        "auroc": area,
        "interval": auroc_interval(area, positives, negatives),
    }


def _scaled(pooling: Pooling, slope: float) -> dict[str, float]:
    """Return a pooling of logits as one of the evidence that `slope` makes of them."""
    return asdict(pooling.scaled(slope))


def _figures(
    entry: dict[str, Any],
    scores: NDArray[np.float64],
    truth: NDArray[np.bool_],
    digests: list[str],
) -> dict[str, Any]:
    contents = [{d for d, t in zip(digests, truth, strict=True) if t == side} for side in (0, 1)]
    if entry["auroc"] is None or min(map(len, contents)) < 2:
        # A line needs both sides, and no copy of the row that it is to judge.
        return {}
    evidence = held_out(scores, truth, digests, fit)
    return summary(np.clip(evidence, -entry["maximum"], entry["maximum"]), truth)
