"""Differences of rates: between two conditions of the same questions, and between two models.

A classifier that errs alike on both sides shrinks a difference by its power, sensitivity - false
alarms; false alarms cancel. The correction divides by it, with the uncertainty of all three.

This module does not know which conditions they are. Where a style changes how well the classifier
sees, part of an effect is the classifier's; labels alone can tell.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from guard.audit.statistics.estimate import Counts, Estimate, Z, check_counts
from guard.audit.statistics.rates import BLIND, NO_ANSWERS, errors
from guard.calibration import Share, wilson
from guard.errors import InputError

if TYPE_CHECKING:
    from guard.calibration import Confusion


def effect(first: Counts, second: Counts, confusion: Confusion | None = None) -> Estimate:
    """Return the mean over questions of (share in `first` - share in `second`), in [-1, 1].

    For one answer each these are paired proportions, and the interval is that of Bonett and Price
    (Journal of Educational and Behavioral Statistics 37, 2012): Wald's with two questions more,
    one moved wholly up and one wholly down. It works on differences per question, so that repeated
    answers and several styles together (their answers added up per question) respect the pairing
    too. A bootstrap over questions is too narrow where few of them differ. Swapping the conditions
    turns the interval around.

    Args:
        first: answers of each question under one condition, such as styled.
        second: of the same questions in the same order under the other, such as neutral.
        confusion: of the classifier at the threshold that flagged them; `None` for sure flags.

    Raises:
        InputError: the conditions have different numbers of questions.
    """
    check_pairs(first, second)
    number = first.questions
    if not number:
        return Estimate(0.0, -1.0, 1.0, 0, "paired", NO_ANSWERS)
    apart = first.shares - second.shares
    value, middle = float(apart.mean()), float(apart.sum()) / (number + 2)
    variance = (float((apart**2).sum()) + 2) / (number + 2) - middle**2
    half = Z * math.sqrt(variance / (number + 2))
    low, high = max(-1.0, min(value, middle - half)), min(1.0, max(value, middle + half))
    return _undiluted(Share(value, low, high), number, "paired", confusion)


def difference(
    first: tuple[float, float], second: tuple[float, float], confusion: Confusion | None = None
) -> Estimate:
    """Return the rate in `first` - the rate in `second` of unrelated answers, in [-1, 1].

    Newcombe's interval from two of Wilson's (Statistics in Medicine 17, 1998, method 10).

    Args:
        first: (flagged, judged) answers; fractions where answers count for less (`worth`).
        second: (flagged, judged) answers of the other side.
        confusion: as of `effect`.

    Raises:
        InputError: a count is negative or not a number, or there are more flags than answers.
    """
    check_counts(*first)
    check_counts(*second)
    number = math.floor(first[1] + second[1])
    if not first[1] or not second[1]:
        return Estimate(0.0, -1.0, 1.0, number, "newcombe", NO_ANSWERS)
    one, two = wilson(*first), wilson(*second)
    value = one.value - two.value
    low = value - math.hypot(one.value - one.low, two.high - two.value)
    high = value + math.hypot(one.high - one.value, two.value - two.low)
    return _undiluted(Share(value, low, high), number, "newcombe", confusion)


def check_pairs(first: Counts, second: Counts) -> None:
    """Refuse conditions that are not of the same questions.

    Raises:
        InputError: they have different numbers of questions.
    """
    if first.questions != second.questions:
        raise InputError(
            f"{first.questions} questions are paired with {second.questions}: give both conditions "
            "the same questions in the same order"
        )


def _undiluted(seen: Share, number: int, method: str, confusion: Confusion | None) -> Estimate:
    """Return what `seen` was before the classifier's errors diluted it."""
    if confusion is None:
        return Estimate(seen.value, seen.low, seen.high, number, method)
    sensitivity, alarms = errors(confusion)
    power = sensitivity.value - alarms.value
    method = f"{method}, corrected"
    if power <= 0:
        return Estimate(0.0, -1.0, 1.0, number, method, BLIND)
    least = power - math.hypot(sensitivity.value - sensitivity.low, alarms.high - alarms.value)
    most = power + math.hypot(sensitivity.high - sensitivity.value, alarms.value - alarms.low)
    low = _divided(seen.value, seen.low, power, least, most)
    high = -_divided(-seen.value, -seen.high, power, least, most)
    value = max(low, min(high, seen.value / power))
    return Estimate(value, low, high, number, method)


def _divided(value: float, low: float, power: float, least: float, most: float) -> float:
    """Return the lower bound of `value / power`, in [-1, 1].

    MOVER-R (Newcombe, Statistical Methods in Medical Research 25, 2016).

    Args:
        value: the dividend.
        low: its lower bound, at most `value`.
        power: the divisor, above 0.
        least: its lower bound; what is negative is furthest from 0 there.
        most: its upper bound; what is positive is nearest to 0 there.
    """
    end = most if low > 0 else least
    square = end * (2 * power - end)  # power**2 less the divisor's spread
    product, rest = value * power, low * (2 * value - low)
    root = math.sqrt(max(0.0, product**2 - rest * square))
    if low > 0:
        return min(1.0, rest / (product + root))
    return max(-1.0, (product - root) / square) if least > 0 else -1.0
