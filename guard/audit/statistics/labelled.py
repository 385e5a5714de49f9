"""Predictions joined with labels: a few answers that a person judged mend what all of them show.

Where questions have several answers, the question is what was drawn: answers to one question are
alike, whether a person judged them or not, so each weighs as its part of the question, and spreads
are taken over questions. A question may be labelled in part.

This module does not know what is predicted, and takes for granted that the labelled answers were
drawn at random from all of them. Labels of the answers that looked worst would mislead it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
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


@dataclass(frozen=True, slots=True, eq=False)
class _Part:
    """Answers with a label, or those without one.

    Attributes:
        weights: each answer's part of its question, in (0, 1]; shape (answers,).
        question: number of the question that it belongs to; shape (answers,).
        questions: how many questions there are, those of other answers included.
    """

    weights: Floats
    question: NDArray[np.intp]
    questions: int

    @property
    def total(self) -> float:
        """How many whole questions the answers make up."""
        return float(self.weights.sum())

    def sum(self, values: Floats) -> float:
        """Return the weighted sum of a value per answer."""
        return float((self.weights * values).sum())

    def mean(self, values: Floats) -> float:
        """Return their weighted mean; 0 of no answers."""
        return self.sum(values) / self.total if len(values) else 0.0

    def by_question(self, values: Floats) -> Floats:
        """Return the weighted sum within each question; shape (questions,)."""
        found = np.bincount(self.question, self.weights * values, self.questions)
        return np.asarray(found, np.float64)

    @property
    def typical(self) -> float:
        """What part of a question one that has such answers holds, as an answer meets it."""
        parts = self.by_question(np.ones_like(self.weights))
        return float((parts**2).sum()) / self.total


def prediction_powered(
    others: NDArray[Any],
    labelled: NDArray[Any],
    truth: NDArray[np.bool_],
    questions: NDArray[Any] | None = None,
) -> Estimate:
    """Return how often answers are risky, by prediction-powered inference, in [0, 1].

    The labelled answers' mean plus `power` times (mean prediction of the others - mean prediction
    of the labelled ones). It is right however wrong the predictions are; the better they are, the
    narrower it gets (Angelopoulos et al., Science 382, 2023). `power` is the one with the least
    variance, so that bad predictions do no harm (PPI++, Angelopoulos, Duchi and Zrnic, 2023).

    With `questions` the rate is the mean over questions, as that of `rate_of_questions`. Each mean
    is weighted, and the variance sums what each question, with all of its answers, moves the
    result (clusters: Liang and Zeger, Biometrika 73, 1986), however its answers correlate.

    The interval is Wilson's for as many labels as would give the same variance, with one labelled
    answer more, half of it missed and half a false alarm: the usual normal interval closes where
    no labelled answer happens to be risky. (With `questions` it is one labelled question more, as
    large a part of it as is usual.) Without predictions of others it is Wilson's.

    Args:
        others: the predictions of answers without a label, each in [0, 1], as flags or as
            probabilities; shape (others,).
        labelled: the predictions of those with one; shape (labelled,).
        truth: whether each of them is risky; shape (labelled,).
        questions: number or name of the question that each answer belongs to, `others` first;
            shape (others + labelled,). `None` where each answers a question of its own.

    Raises:
        InputError: shapes differ, or a prediction is not in [0, 1].
    """
    others, labelled = _predictions(others, "others"), _predictions(labelled, "labelled")
    truth = np.asarray(truth)
    if truth.shape != labelled.shape or truth.dtype != np.bool_:
        raise InputError(
            f"`truth` must hold one boolean for each of the {len(labelled)} labelled answers"
        )
    rest, known, independent = _parts(len(others), len(truth), questions)
    if not len(truth):
        return Estimate(0.5, 0.0, 1.0, 0, METHOD, NO_LABELS)
    hits = truth.astype(np.float64)
    power = _power((rest, others), (known, labelled), hits)
    value = known.mean(hits) + power * (rest.mean(others) - known.mean(labelled))
    value = min(1.0, max(0.0, value))
    total = min(_worth((rest, others), (known, labelled), hits, power), independent)
    found = wilson(value * total, total)
    several = known.questions < len(others) + len(truth)
    method = f"{METHOD}, by question" if several else METHOD
    return Estimate(found.value, found.low, found.high, len(np.unique(known.question)), method)


def _predictions(values: NDArray[Any], name: str) -> Floats:
    found = np.asarray(values, np.float64)
    if found.ndim != 1 or not ((found >= 0) & (found <= 1)).all():
        raise InputError(f"`{name}` must be a flat array of predictions in [0, 1]")
    return found


def _parts(
    others: int, labelled: int, questions: NDArray[Any] | None
) -> tuple[_Part, _Part, float]:
    """Return both parts, and how many answers all are worth if none are alike."""
    number = others + labelled
    given = np.arange(number) if questions is None else np.asarray(questions)
    if given.shape != (number,):
        raise InputError(f"`questions` must name one question for each of the {number} answers")
    _, question, sizes = np.unique(given, return_inverse=True, return_counts=True)
    weights = np.asarray(1 / sizes[question], np.float64)
    rest = _Part(weights[:others], question[:others], len(sizes))
    known = _Part(weights[others:], question[others:], len(sizes))
    return rest, known, len(sizes) ** 2 / float((1 / sizes).sum()) if number else 0.0


def _power(rest: tuple[_Part, Floats], known: tuple[_Part, Floats], hits: Floats) -> float:
    """Return the share of the predictions' shift that is believed, in [0, 1].

    Which answers have a label is drawn answer by answer, whatever question they belong to. So it
    is the spread of single answers that a shift comes from, and not that of questions.
    """
    (unknown, others), (part, labelled) = rest, known
    number = len(hits)
    weights, values = (
        np.concatenate(both) for both in ((unknown.weights, part.weights), (others, labelled))
    )
    middle = float((weights * values).sum() / weights.sum())
    spread = float(((weights * (values - middle)) ** 2).mean())
    if number < 2 or not len(others) or spread < 1e-12:  # rounding alone gives more than 0
        return 0.0
    apart = (hits - part.mean(hits)) * (labelled - part.mean(labelled))
    together = float((part.weights**2 * apart).sum()) / (number - 1)
    return min(1.0, max(0.0, together / spread / (1 + number / len(others))))


def _worth(
    rest: tuple[_Part, Floats], known: tuple[_Part, Floats], hits: Floats, power: float
) -> float:
    """Return how many labels alone, of a question each, would be worth as much."""
    (unknown, others), (part, labelled) = rest, known
    total, one = part.total, part.typical
    more = total + one  # with the one that is added for caution
    left = hits - power * labelled
    mean = (part.sum(left) + 0.5 * (1 - power) * one) / more
    moved = part.by_question(left - mean) / math.sqrt(total * more)
    shift = 0.0
    if power:
        away = others - unknown.mean(others)
        moved += power * unknown.by_question(away) / unknown.total
        shift = unknown.mean(others) - (part.sum(labelled) + 0.5 * one) / more
    added = 0.5 * ((1 - mean) ** 2 + (power + mean) ** 2) * one**2 / (total * more)
    edge = 0.5 * one / more
    middle = (part.sum(hits) + 0.5 * one) / more + power * shift
    middle = min(1 - edge, max(edge, middle))
    spread = float((moved**2).sum()) + added
    # Few questions show too little of their spread: one of them more, as in `rate_of_questions`.
    # It is 1 where each has one answer, whose caution is in `added`.
    few = (1 + 1 / part.questions) / (1 + 1 / (len(hits) + len(others)))
    return middle * (1 - middle) / (spread * few)
