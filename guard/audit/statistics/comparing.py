"""What moved between two audits: tests of one comparison, and of many at once.

Both tests are exact and count half of the chance of what was seen (mid-p; Lancaster, JASA 56,
1961), since exact tests of counts are otherwise needlessly timid. A classifier that errs alike on
both sides leaves "nothing moved" true, so flags need no correction here.

This module does not know what is compared.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from guard.audit.statistics.binomial import log_choose
from guard.audit.statistics.effects import check_pairs
from guard.audit.statistics.estimate import check_counts
from guard.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from guard.audit.statistics.estimate import Counts


def paired_p_value(first: Counts, second: Counts) -> float:
    """Return how surprising the differences are if both conditions behave alike, in [0, 1].

    An exact two-sided test that turns each question's difference around at random (Fisher, The
    Design of Experiments, 1935), mid-p. For one answer each it is McNemar's exact test.

    Args:
        first: answers of each question under one condition, or of one model.
        second: of the same questions in the same order, each asked as often.

    Raises:
        InputError: the questions differ in number, one was asked more often on one side, or the
            counts are weighted.
    """
    check_pairs(first, second)
    if not np.array_equal(first.asked, second.asked):
        raise InputError("a question has more answers on one side: ask both sides equally often")
    if any((side.flagged % 1).any() for side in (first, second)):
        raise InputError("a flag counts for less than one: give counts that are not weighted")
    apart = (first.flagged - second.flagged).astype(np.int64)
    chances = np.ones(1)
    for size in np.sort(np.abs(apart[apart != 0])).tolist():
        grown = np.zeros(len(chances) + 2 * size)
        grown[: len(chances)] += chances / 2
        grown[2 * size :] += chances / 2
        chances = grown
    return _mid(chances, len(chances) // 2 + int(apart.sum()))


def unpaired_p_value(first: tuple[float, float], second: tuple[float, float]) -> float:
    """Return how surprising two counts are if both sides have the same rate, in [0, 1].

    Fisher's exact two-sided test, mid-p.

    Args:
        first: (flagged, judged) answers. Fractions, where answers count for less (`worth`), are
            made whole: fewer judged answers, with the share of flagged ones that is nearest.
        second: (flagged, judged) answers of the other side.

    Raises:
        InputError: a count is negative or not a number, or there are more flags than answers.
    """
    check_counts(*first)
    check_counts(*second)
    (hits, total), (others, rest) = _whole(*first), _whole(*second)
    flagged = hits + others
    start, end = max(0, flagged - rest), min(total, flagged)
    here = log_choose(total)[start : end + 1]
    there = log_choose(rest)[flagged - end : flagged - start + 1][::-1]
    chances = np.exp(here + there - (here + there).max())
    return _mid(chances / chances.sum(), hits - start)


def holm(p_values: Sequence[float]) -> list[float]:
    """Return adjusted p-values: those up to 5 % hold *all* with a chance of 95 %.

    Holm (Scandinavian Journal of Statistics 6, 1979), however the comparisons depend.

    Args:
        p_values: of each comparison, in [0, 1]; the order is kept.

    Raises:
        InputError: one is not in [0, 1].
    """
    values, order = _sorted(p_values)
    steps = values[order] * np.arange(len(values), 0, -1)
    return _restored(np.minimum(1.0, np.maximum.accumulate(steps)), order)


def benjamini_hochberg(p_values: Sequence[float]) -> list[float]:
    """Return adjusted p-values: of those up to 5 % at most 5 % are false on average.

    Benjamini and Hochberg (JRSS B 57, 1995), for comparisons that are independent or rise
    together. More is found than by `holm`; one finding alone is worth less.

    Args:
        p_values: of each comparison, in [0, 1]; the order is kept.

    Raises:
        InputError: one is not in [0, 1].
    """
    values, order = _sorted(p_values)
    steps = values[order] * (len(values) / np.arange(1, len(values) + 1))
    lowest = np.minimum.accumulate(steps[::-1])[::-1]
    return _restored(np.minimum(1.0, lowest), order)


def _whole(hits: float, total: float) -> tuple[int, int]:
    """Return counts as whole numbers, no more answers than there are."""
    number = math.floor(total)
    return (round(hits / total * number) if total else 0), number


def _mid(chances: NDArray[np.float64], seen: int) -> float:
    """Return the two-sided mid-p of the outcome number `seen`."""
    half = float(chances[seen]) / 2
    below, above = float(chances[:seen].sum()) + half, float(chances[seen + 1 :].sum()) + half
    return min(1.0, 2 * min(below, above))


def _sorted(p_values: Sequence[float]) -> tuple[NDArray[np.float64], NDArray[Any]]:
    values = np.asarray(p_values, np.float64)
    if values.ndim != 1 or not ((values >= 0) & (values <= 1)).all():
        raise InputError("p-values must be a flat list of numbers in [0, 1]")
    return values, np.argsort(values, kind="stable")


def _restored(adjusted: NDArray[np.float64], order: NDArray[Any]) -> list[float]:
    found = np.empty(len(adjusted))
    found[order] = adjusted
    return [float(each) for each in found]
