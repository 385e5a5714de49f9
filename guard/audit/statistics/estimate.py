"""What every estimator returns, and the counts that some of them take.

This module does not know how an estimate comes about.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from guard.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

LEVEL: Final = 0.95
"""How often an interval holds the true value."""

Z: Final = 1.959964
"""Normal quantile of a two-sided interval at `LEVEL`."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """A figure with its interval.

    Attributes:
        value: the estimate; in [0, 1] for a rate, in [-1, 1] for a difference. The middle of
            the range where nothing is known.
        low: the interval's lower bound, at most `value`.
        high: its upper bound, at least `value`.
        n: answers that it rests on; questions, where they are what was drawn.
        method: how estimate and interval come about, such as `rogan-gladen`.
        reason: why the interval is wider than the counts suggest, with the mend; mostly empty.
    """

    value: float
    low: float
    high: float
    n: int
    method: str
    reason: str = ""


@dataclass(frozen=True, slots=True, eq=False)
class Counts:
    """Answers of each question under one condition.

    Attributes:
        flagged: how many of a question's answers were flagged; shape (questions,).
        asked: how many of its answers were judged, at least 1; shape (questions,).

    Raises:
        InputError: the shapes differ, or a count is impossible.
    """

    flagged: NDArray[np.float64]
    asked: NDArray[np.float64]

    def __init__(
        self, flagged: Sequence[int] | NDArray[Any], asked: Sequence[int] | NDArray[Any]
    ) -> None:
        """Check and keep the counts."""
        hits, totals = np.asarray(flagged, np.float64), np.asarray(asked, np.float64)
        if hits.ndim != 1 or hits.shape != totals.shape:
            raise InputError(
                f"`flagged` has the shape {hits.shape} and `asked` {totals.shape}: give one number "
                "per question in both"
            )
        whole = (hits == np.floor(hits)) & (totals == np.floor(totals))  # NaN is not
        if not (whole & (hits >= 0) & (hits <= totals) & (totals >= 1) & (totals < np.inf)).all():
            raise InputError(
                "a question's `flagged` must be a whole number from 0 to its `asked`, which must "
                "be 1 or more: leave out questions without an answer"
            )
        object.__setattr__(self, "flagged", hits)
        object.__setattr__(self, "asked", totals)

    def weighted(self, weights: NDArray[np.float64]) -> Counts:
        """Return the counts where each question's flags count for less.

        For `rate_of_questions` and `effect`, where flags come from several classifiers; tests
        want whole numbers.

        Args:
            weights: what a flag of each question counts for, in [0, 1]; shape (questions,).

        Raises:
            InputError: a weight is out of range, or there are more or fewer than questions.
        """
        given = np.asarray(weights, np.float64)
        if given.shape != self.asked.shape or not ((given >= 0) & (given <= 1)).all():
            raise InputError("`weights` must hold a number from 0 to 1 per question")
        found = object.__new__(Counts)
        object.__setattr__(found, "flagged", self.flagged * given)
        object.__setattr__(found, "asked", self.asked)
        return found

    @property
    def shares(self) -> NDArray[np.float64]:
        """Return the share of flagged answers of each question; shape (questions,)."""
        return np.asarray(self.flagged / self.asked, np.float64)

    @property
    def questions(self) -> int:
        """Return how many questions there are."""
        return len(self.asked)


def check_counts(hits: float, total: float) -> None:
    """Refuse counts that cannot be.

    Raises:
        InputError: a count is negative or not a number, or there are more hits than answers.
    """
    if not (0 <= hits <= total < math.inf):  # so NaN is refused too
        raise InputError(
            f"{hits:g} of {total:g} answers cannot be: give hits and the number of answers they "
            "are among, none of them negative"
        )
