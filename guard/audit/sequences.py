"""Rates that hold at any time: an audit may stop as soon as it has seen enough.

A fixed-size interval is wrong once somebody looks at it again and again and stops when it pleases.
A confidence sequence holds the true rate after every answer at once. It comes from betting
(Waudby-Smith and Ramdas, "Estimating means of bounded random variables by betting", JRSS B 86,
2024): against each possible rate `m` a gambler stakes on every answer; at the true rate the game
is fair, so that the wealth there ever grows twentyfold with a chance of at most 1/20 (Ville, 1939).
Rates against which the wealth has grown that far are out.

The stakes come from a guess `g` at the next answer `x`, made of the answers before it: wealth is
multiplied by `x g / m + (1 - x) (1 - g) / (1 - m)`. For flags this is Robbins' mixture of
likelihoods with a beta prior (Annals of Mathematical Statistics 41, 1970), the same in any order.

Answers must come in an order that says nothing about them: shuffle the probes beforehand. This
module does not know probes or classes, and cannot see whether the order was honest.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final, Literal

import numpy as np

from guard.audit.statistics.binomial import clopper_pearson
from guard.audit.statistics.estimate import LEVEL, Estimate
from guard.audit.statistics.rates import BLIND, NO_ANSWERS, TOO_FEW, TOO_MANY
from guard.calibration import Share
from guard.errors import InputError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from guard.calibration import Confusion

    Floats = NDArray[np.float64]

Side = Literal["below", "above"]

RISKY: Final = 0.25
"""Flagged answers that the first guess has seen, as it were."""

FINE: Final = 5.0
"""And answers that were not. Most audited rates are small; a guess near them decides soonest."""

_POINTS: Final = 2000
_GRID: Final = np.sin(np.pi * (np.arange(_POINTS) + 0.5) / (2 * _POINTS)) ** 2
"""Rates that are bet against; as much closer at the ends as rates are better known there."""


class RateSequence:
    """The rate of risky answers, with bounds that hold after every answer at once.

    Takes `O(len(_GRID))` steps an answer, whatever came before it; deterministic.
    """

    def __init__(self, confusion: Confusion | None = None, *, error: float = 1 - LEVEL) -> None:
        """Begin without any answer.

        Args:
            confusion: of the classifier at the threshold that flags answers; `None` for flags
                that are sure. Half of `error` is then spent on its sensitivity and specificity
                (Clopper and Pearson), half on the sequence.
            error: the chance that the bounds ever miss the rate, in (0, 1). For several rates
                that must hold together divide it by their number.

        Raises:
            InputError: `error` is not in (0, 1), or a count is negative.
        """
        if not 0 < error < 1:
            raise InputError(f"`error` is {error!r}: give a chance between 0 and 1, such as 0.05")
        self._errors = _errors(confusion, error / 2) if confusion else None
        self._limit = -math.log(error / 2 if confusion else error)
        self._wealth = np.zeros(_POINTS)
        self._count = 0
        self._sum = 0.0

    def add(self, value: float) -> None:
        """Take the next answer.

        Args:
            value: whether it is flagged, or anything in between: 0 to 1.

        Raises:
            InputError: `value` is not in [0, 1].
        """
        if not 0 <= value <= 1:
            raise InputError(
                f"an answer counts {value!r}: give a number from 0 (fine) to 1 (flagged)"
            )
        self._wealth += log_gain(float(value), guess(self._sum, self._count), _GRID)
        self._count += 1
        self._sum += float(value)

    @property
    def bounds(self) -> tuple[float, float]:
        """Return the bounds of the rate of *flagged* answers, in [0, 1]."""
        inside = np.flatnonzero(self._wealth < self._limit)
        if not len(inside):
            # Every rate is out: no rate was constant, so that nothing is known of one.
            return 0.0, 1.0
        # A rate between an excluded and an included one may be either: it stays.
        first, last = int(inside[0]), int(inside[-1])
        low = float(_GRID[first - 1]) if first else 0.0
        return low, float(_GRID[last + 1]) if last + 1 < _POINTS else 1.0

    def estimate(self) -> Estimate:
        """Return the rate of *risky* answers so far, with bounds that hold at any time."""
        low, high = self.bounds
        mean = self._sum / self._count if self._count else 0.5
        reason = "" if self._count else NO_ANSWERS
        if self._errors is None:
            value = max(low, min(high, mean))
            return Estimate(value, low, high, self._count, "betting", reason)
        sensitivity, alarms = self._errors
        method = "betting, corrected"
        if not self._count or sensitivity.low <= alarms.high:
            return Estimate(0.5, 0.0, 1.0, self._count, method, reason or BLIND)
        if high < alarms.low:
            reason = TOO_FEW
        elif low > sensitivity.high:
            reason = TOO_MANY
        value = _risky(mean, sensitivity.value, alarms.value)
        low, high = self._corrected(low, high, sensitivity, alarms)
        return Estimate(max(low, min(high, value)), low, high, self._count, method, reason)

    def decided(self, limit: float) -> Side | None:
        """Return on which side of `limit` the rate of risky answers lies, `None` if it is open.

        Whoever stops at the first answer is wrong with a chance of at most `error`, whatever the
        limit, and however many limits of one rate are asked about.

        Args:
            limit: a class's deploy limit, in [0, 1]; "below" when the upper bound is up to it.

        Raises:
            InputError: `limit` is not in [0, 1].
        """
        if not 0 <= limit <= 1:
            raise InputError(f"the limit is {limit!r}: give a rate from 0 to 1")
        found = self.estimate()
        if found.high <= limit:
            return "below"
        return "above" if found.low > limit else None

    def _corrected(
        self, low: float, high: float, sensitivity: Share, alarms: Share
    ) -> tuple[float, float]:
        """Return bounds of the rate of risky answers from those of flagged ones."""
        # As for `rate`: never less than answers without a single flag would show.
        none = self._unseen(RISKY, FINE) / sensitivity.low
        every = self._unseen(FINE, RISKY) / (1 - alarms.high)
        low = min(_risky(low, sensitivity.high, alarms.high), 1 - min(1.0, every))
        return low, max(_risky(high, sensitivity.low, alarms.low), min(1.0, none))

    def _unseen(self, ours: float, others: float) -> float:
        """Return the upper bound of a rate of which no answer has been an instance.

        Args:
            ours: instances that the first guess has seen, as it were.
            others: other answers that it has seen.
        """
        shrunk = math.lgamma(others + self._count) + math.lgamma(ours + others)
        shrunk -= math.lgamma(others) + math.lgamma(ours + others + self._count)
        return -math.expm1(-(self._limit - shrunk) / self._count)


def guess(total: Floats | float, count: NDArray[np.int64] | int) -> Floats:
    """Return the guess at the next answer, in (0, 1).

    Args:
        total: the sum of the answers so far.
        count: their number; shapes are broadcast.
    """
    return np.asarray((RISKY + total) / (RISKY + FINE + count), np.float64)


def log_gain(value: Floats | float, expected: Floats | float, mean: Floats | float) -> Floats:
    """Return the log of what an answer multiplies the wealth by; shapes are broadcast.

    Args:
        value: the answer, in [0, 1].
        expected: the guess at it, in (0, 1), made before it was seen.
        mean: the rate that is bet against, in (0, 1).
    """
    gain = value * expected / mean + (1 - value) * (1 - expected) / (1 - mean)
    return np.asarray(np.log(gain), np.float64)


def _errors(confusion: Confusion, error: float) -> tuple[Share, Share]:
    """Return sensitivity and false-alarm rate; both are within bounds with chance 1 - `error`."""
    positives = confusion.true_positives + confusion.false_negatives
    negatives = confusion.false_positives + confusion.true_negatives
    return (
        _exact(confusion.true_positives, positives, error / 2),
        _exact(confusion.false_positives, negatives, error / 2),
    )


def _exact(hits: int, total: int, error: float) -> Share:
    low, high = clopper_pearson(hits, total, error)
    return Share(hits / total if total else 0.5, low, high)


def _risky(flagged: float, sensitivity: float, alarms: float) -> float:
    """Return the rate of risky answers behind one of flagged ones (Rogan and Gladen), in [0, 1]."""
    return max(0.0, min(1.0, (flagged - alarms) / (sensitivity - alarms)))
