"""Rates, and what a classifier's errors do to them.

A flagged answer is not a risky one. With sensitivity `s` and false-alarm rate `f` a rate `r` of
risky answers shows as `p = r s + (1 - r) f` of flagged ones, so `r = (p - f) / (s - f)` (Rogan and
Gladen, American Journal of Epidemiology 107, 1978). All three are counted and therefore uncertain.

The interval holds each rate that the three counts do not contradict: the difference
`p - r s - (1 - r) f` must be 0 within a spread to which each part gives the distance from its share
to its own Wilson bound (recovered variances: Zou and Donner, Statistics in Medicine 27, 2008; set
in like Fieller's, so that it opens wherever the classifier may tell nothing). Both bounds are roots
of a quadratic. The interval of Lang and Reiczigel (Preventive Veterinary Medicine 113, 2014) is as
good for good classifiers and fails for poor ones; see docs/audit-intervals.md.

This module does not know where the counts come from. Where a classifier gives fewer false alarms on
them than in its calibration, too much is taken off and a bad model looks good: flag at a threshold
that hardly anything harmless reaches, so that there is hardly anything to take off.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

import numpy as np

from guard.audit.statistics.estimate import Estimate, Z, check_counts
from guard.calibration import Share, wilson
from guard.errors import InputError

if TYPE_CHECKING:
    from guard.audit.statistics.estimate import Counts
    from guard.calibration import Confusion

NO_ANSWERS: Final = "there are no answers: ask some"
BLIND: Final = (
    "the classifier cannot tell risky answers from others at this threshold (sensitivity + "
    "specificity is not above 1): use a lower threshold, calibrate it anew, or label answers"
)
TOO_FEW: Final = (
    "fewer answers are flagged than its false alarms alone explain: the calibration does not fit "
    "these answers; label some of them"
)
TOO_MANY: Final = (
    "more answers are flagged than its sensitivity explains: the calibration does not fit these "
    "answers; label some of them"
)


def rate(hits: float, total: float, confusion: Confusion | None = None) -> Estimate:
    """Return how often answers are risky, in [0, 1].

    Both bounds and the value rise with `hits`. To call flagged answers fine and fine ones flagged
    (in the counts and in the confusion) turns the interval around.

    Args:
        hits: flagged answers, from 0 to `total`; a fraction where they count for less.
        total: answers that were judged, independently of one another; 0 gives [0, 1].
        confusion: of the classifier at the threshold that flagged them; `None` for hits that are
            sure, which gives Wilson's interval with half a hit's caution.

    Raises:
        InputError: a count is negative or not a number, or there are more hits than answers.
    """
    check_counts(hits, total)
    if confusion is None:
        return _sure(hits, total)
    flagged = wilson(hits, total)
    sensitivity, alarms = errors(confusion)
    if not total or sensitivity.value <= alarms.value:
        reason = BLIND if total else NO_ANSWERS
        return Estimate(0.5, 0.0, 1.0, math.floor(total), "rogan-gladen", reason)
    low, high = _corrected(flagged, sensitivity, alarms)
    # n answers cannot show less than n answers without a single flag would.
    unseen = wilson(0, total).high
    high = max(high, min(1.0, unseen / sensitivity.low) if sensitivity.low else 1.0)
    low = min(low, 1.0 - min(1.0, unseen / (1.0 - alarms.high)) if alarms.high < 1 else 0.0)
    value = (flagged.value - alarms.value) / (sensitivity.value - alarms.value)
    value = max(low, min(high, value))
    reason = contradiction(flagged, sensitivity, alarms)
    return Estimate(value, low, high, math.floor(total), "rogan-gladen", reason)


def rate_of_questions(counts: Counts, confusion: Confusion | None = None) -> Estimate:
    """Return how often answers are risky where questions were asked several times.

    Answers to one question are alike, so they count for fewer: for as many independent ones as
    would give the mean over questions the spread that it has (effective sample size; Korn and
    Graubard, Survey Methodology 24, 1998), with one more question, half of it always flagged and
    half never. The rate is the mean over questions. Where each was asked once this is `rate`.

    Args:
        counts: flagged and judged answers of each question.
        confusion: as of `rate`.
    """
    if not counts.questions:
        return rate(0, 0, confusion)
    total = _effective(counts)
    found = rate(float(counts.shares.mean()) * total, total, confusion)
    method = f"{found.method}, by question"
    return Estimate(found.value, found.low, found.high, counts.questions, method, found.reason)


def worth(share: Share, most: float) -> tuple[float, float]:
    """Return the (hits, answers) of sure, independent answers that a rate is worth.

    So many that Wilson's interval of them would be as wide. Whatever made it wide (questions that
    were asked several times, a classifier's errors, bounds that hold at any time) makes them few,
    so that tests of counts can be told of it by the interval alone.

    Args:
        share: the rate with its 95 % interval; one from 0 to 1 is worth no answer.
        most: how many answers there were at most.

    Raises:
        InputError: bounds are not in order or not in [0, 1], or `most` is negative.
    """
    if not (0 <= share.low <= share.value <= share.high <= 1 and most >= 0):
        raise InputError("give a share between its bounds, all in [0, 1], and a number of answers")
    # With t = Z**2 / n half of Wilson's width, h, solves h**2 (1 + t)**2 = p (1 - p) t + t**2 / 4.
    squared = ((share.high - share.low) / 2) ** 2
    if not squared:
        return share.value * most, most
    middle = share.value * (1 - share.value) - 2 * squared
    root = math.sqrt(max(0.0, middle**2 + (1 - 4 * squared) * squared))
    total = min(most, Z**2 * max(0.0, middle + root) / (2 * squared))
    return share.value * total, total


def errors(confusion: Confusion) -> tuple[Share, Share]:
    """Return sensitivity and false-alarm rate, each with its 95 % interval.

    Raises:
        InputError: a count is negative or not a number.
    """
    positives = confusion.true_positives + confusion.false_negatives
    negatives = confusion.false_positives + confusion.true_negatives
    check_counts(confusion.true_positives, positives)
    check_counts(confusion.false_positives, negatives)
    return confusion.sensitivity, wilson(confusion.false_positives, negatives)


def contradiction(flagged: Share, sensitivity: Share, alarms: Share) -> str:
    """Return why a share of flagged answers does not fit the classifier's errors, "" if it does."""
    if flagged.high < alarms.low:
        return TOO_FEW
    return TOO_MANY if flagged.low > sensitivity.high else ""


def _sure(hits: float, total: float) -> Estimate:
    """Return Wilson's interval; the bound nearer to 0 (or 1) begins up to half a hit later.

    That bound alone is what makes Wilson's interval too narrow for rates near 0 or 1, for the
    chance of a few hits is skewed there.
    """
    if not total:
        return Estimate(0.5, 0.0, 1.0, 0, "wilson", NO_ANSWERS)
    skew = 0.5 - hits / total
    low = wilson(max(0.0, hits - max(0.0, skew)), total).low
    high = wilson(min(total, hits + max(0.0, -skew)), total).high
    return Estimate(hits / total, low, high, math.floor(total), "wilson")


def _corrected(flagged: Share, sensitivity: Share, alarms: Share) -> tuple[float, float]:
    """Return both bounds; the upper one is the lower one of the share of fine answers."""
    low = _at_least(flagged, sensitivity, alarms)
    return low, 1.0 - _at_least(_rest(flagged), _rest(alarms), _rest(sensitivity))


def _at_least(flagged: Share, sensitivity: Share, alarms: Share) -> float:
    """Return the lowest rate that the counts do not contradict, in [0, 1]."""
    excess = flagged.value - alarms.value
    power = sensitivity.value - alarms.value
    a = (flagged.value - flagged.low) ** 2
    b = (sensitivity.high - sensitivity.value) ** 2
    c = (alarms.high - alarms.value) ** 2
    # The lowest r at which excess - r power <= sqrt(a + b r**2 + c (1 - r)**2).
    beyond = excess**2 - a - c
    if excess <= 0 or beyond <= 0:
        return 0.0
    half = excess * power - c
    root = half + math.sqrt(max(0.0, half**2 - (power**2 - b - c) * beyond))
    return min(1.0, beyond / root) if root > 0 else 1.0


def _rest(share: Share) -> Share:
    return Share(1.0 - share.value, 1.0 - share.high, 1.0 - share.low)


def _effective(counts: Counts) -> float:
    """Return how many independent answers the answers are worth."""
    shares, number = counts.shares, counts.questions
    mean = (float(shares.sum()) + 0.5) / (number + 1)
    apart = float(((shares - mean) ** 2).sum()) + 0.5 * ((1 - mean) ** 2 + mean**2)
    independent = number**2 / float((1 / counts.asked).sum())
    return float(np.clip(number * mean * (1 - mean) / (apart / number), number, independent))
