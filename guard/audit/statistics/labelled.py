"""Predictions joined with labels: a few answers that a person judged mend what all of them show.

This module does not know what is predicted, and takes for granted that the labelled answers were
drawn at random from all of them. Labels of the answers that looked worst would mislead it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np

from guard.audit.statistics.estimate import Estimate
from guard.calibration import wilson
from guard.errors import InputError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

METHOD: Final = "ppi++"
NO_LABELS: Final = "no answer is labelled: label some, drawn at random"


def prediction_powered(
    others: NDArray[Any], labelled: NDArray[Any], truth: NDArray[np.bool_]
) -> Estimate:
    """Return how often answers are risky, by prediction-powered inference, in [0, 1].

    The labelled answers' mean plus `power` times (mean prediction of the others - mean prediction
    of the labelled ones). It is right however wrong the predictions are; the better they are, the
    narrower it gets (Angelopoulos et al., Science 382, 2023). `power` is the one with the least
    variance, so that bad predictions do no harm (PPI++, Angelopoulos, Duchi and Zrnic, 2023).

    The interval is Wilson's for as many labels as would give the same variance, with one labelled
    answer more, half of it missed and half a false alarm: the usual normal interval closes where
    no labelled answer happens to be risky. Without predictions of others it is Wilson's.

    Args:
        others: the predictions of answers without a label, each in [0, 1], as flags or as
            probabilities; shape (others,).
        labelled: the predictions of those with one; shape (labelled,).
        truth: whether each of them is risky; shape (labelled,).

    Raises:
        InputError: shapes differ, or a prediction is not in [0, 1].
    """
    others, labelled = _predictions(others, "others"), _predictions(labelled, "labelled")
    truth = np.asarray(truth)
    if truth.shape != labelled.shape or truth.dtype != np.bool_:
        raise InputError(
            f"`truth` must hold one boolean for each of the {len(labelled)} labelled answers"
        )
    number = len(truth)
    if not number:
        return Estimate(0.5, 0.0, 1.0, 0, METHOD, NO_LABELS)
    hits = truth.astype(np.float64)
    power = _power(others, labelled, hits)
    shift = float(others.mean()) if len(others) else 0.0
    value = float(hits.mean()) + power * (shift - float(labelled.mean()))
    value = min(1.0, max(0.0, value))
    total = _worth(others, labelled, hits, power)
    found = wilson(value * total, total)
    return Estimate(found.value, found.low, found.high, number, METHOD)


def _predictions(values: NDArray[Any], name: str) -> Floats:
    found = np.asarray(values, np.float64)
    if found.ndim != 1 or not ((found >= 0) & (found <= 1)).all():
        raise InputError(f"`{name}` must be a flat array of predictions in [0, 1]")
    return found


def _power(others: Floats, labelled: Floats, hits: Floats) -> float:
    """Return the share of the predictions' shift that is believed, in [0, 1]."""
    number = len(hits)
    spread = float(np.concatenate([others, labelled]).var())
    if number < 2 or not len(others) or spread < 1e-12:  # rounding alone gives more than 0
        return 0.0
    together = float(((hits - hits.mean()) * (labelled - labelled.mean())).sum()) / (number - 1)
    return min(1.0, max(0.0, together / spread / (1 + number / len(others))))


def _worth(others: Floats, labelled: Floats, hits: Floats, power: float) -> float:
    """Return how many labels alone would be worth as much."""
    number = len(hits)
    rest = hits - power * labelled
    mean = (float(rest.sum()) + 0.5 * (1 - power)) / (number + 1)
    variance = (float((rest**2).sum()) + 0.5 * (1 + power**2)) / (number + 1) - mean**2
    shift = float(others.mean()) - (float(labelled.sum()) + 0.5) / (number + 1) if power else 0.0
    middle = (float(hits.sum()) + 0.5) / (number + 1) + power * shift
    edge = 0.5 / (number + 1)
    middle = min(1 - edge, max(edge, middle))
    spread = variance / number + (power**2 * float(others.var()) / len(others) if power else 0.0)
    return min(middle * (1 - middle) / spread, float(number + len(others)))
