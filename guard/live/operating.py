"""How a detector sees risk at one threshold, and what that leaves open.

An exchange whose evidence reaches the threshold is an *exceedance*. Exceedances come from risky
answers, seen with the sensitivity, and from others, with the false-positive rate. Both are known
from validation rows only, so that the rate of exceedances that goes with a tolerated rate of
risky answers is itself uncertain.

That uncertainty is carried into the tests instead of being cut off by one confidence bound. The
false-positive rate f ranges over cells from 0 to 1. Under each f, the chance u of as few false
positives as were seen gives a factor k * u**(k - 1), whose mean is at most 1 where f is true
(a calibrator of Vovk and Wang, Annals of Statistics 49, 2021): the further f lies above what
was seen, the larger the factor, and the less the live stream has to add to rule f out. An alarm
needs every cell ruled out.

This module does not know exchanges or alarms.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from guard.errors import ConfigurationError
from guard.live.binomial import at_most, highest_rate

if TYPE_CHECKING:
    from guard.calibration import Confusion

_FEW: Final = 7_000
_CELLS: Final = 12
_PRECISION: Final = 1e-7
"""Relative; what is left goes to the safe side."""


@dataclass(frozen=True, slots=True)
class Operating:
    """What a threshold on the evidence gets right and wrong on validation rows.

    Attributes:
        threshold: evidence (log likelihood ratio, nats) from which an exchange counts.
        true_positives: risky rows that reach it.
        positives: all risky rows, at least 1.
        false_positives: other rows that reach it.
        negatives: all other rows, at least 1.

    Raises:
        ConfigurationError: counts that cannot be.
    """

    threshold: float
    true_positives: int
    positives: int
    false_positives: int
    negatives: int

    def __post_init__(self) -> None:
        """Refuse counts that cannot be."""
        problems = []
        if not math.isfinite(self.threshold):
            problems.append(f"`threshold` must be a finite number, not {self.threshold!r}")
        for part, whole in (("true_positives", "positives"), ("false_positives", "negatives")):
            some, total = getattr(self, part), getattr(self, whole)
            if not (isinstance(some, int) and isinstance(total, int) and 0 <= some <= total > 0):
                problems.append(f"`{part}` must be from 0 to `{whole}`, not {some!r} of {total!r}")
        if problems:
            raise ConfigurationError(problems)

    @classmethod
    def of(cls, confusion: Confusion) -> Operating:
        """Return the counts of a calibration's confusion."""
        return cls(
            confusion.threshold,
            confusion.true_positives,
            confusion.true_positives + confusion.false_negatives,
            confusion.false_positives,
            confusion.false_positives + confusion.true_negatives,
        )

    @property
    def sensitivity(self) -> float:
        """The share of risky rows that reach the threshold."""
        return self.true_positives / self.positives

    @property
    def false_rate(self) -> float:
        """The share of the other rows that do."""
        return self.false_positives / self.negatives

    def exceedance_rate(self, risky: float) -> float:
        """Return the rate of exceedances where a fraction `risky` of answers is risky."""
        return self.false_rate + risky * (self.sensitivity - self.false_rate)


@dataclass(frozen=True, slots=True)
class Null:
    """One cell of what may be true while all is well.

    Attributes:
        rate: the highest rate of exceedances in it, in (0, 1).
        factor: log of how much validation speaks against it already.
    """

    rate: float
    factor: float


def nulls(operating: Operating, tolerated: float, *, alpha: float, seen: float) -> tuple[Null, ...]:
    """Return what must be ruled out before the rate of risky answers exceeds `tolerated`.

    Args:
        operating: what validation showed.
        tolerated: the tolerated fraction of risky answers.
        alpha: the smallest level of a test; cells that validation rules out at it are left out.
        seen: chance that the sensitivity lies above the bound that is taken for it.
    """
    bound = highest_rate(operating.true_positives, operating.positives, seen)
    power = _power(operating.negatives)
    least = math.log(power)
    half = least + (1 - power) * math.log(2)
    top = -math.log(alpha)
    factors = [least, *(half + (top - half) * cell / _CELLS for cell in range(_CELLS + 1))]
    rates = [_rate_of(factor, power, operating) for factor in factors[1:]]
    return tuple(
        Null(rate + tolerated * max(0.0, bound - rate), factor)
        for rate, factor in zip(rates, factors[:-1], strict=True)
    )


def _power(rows: int) -> float:
    """Return the calibrator's k in (0, 1): the fewer rows, the more factors spread with u."""
    return 1 / (1 + math.sqrt(_FEW / rows))


def _rate_of(factor: float, power: float, operating: Operating) -> float:
    """Return the false-positive rate that validation speaks against with `factor`."""
    chance = math.exp((factor - math.log(power)) / (power - 1))
    low, high = 0.0, 1.0
    while high - low > _PRECISION * high:
        middle = (low + high) / 2
        if at_most(operating.false_positives, operating.negatives, middle) < chance:
            high = middle
        else:
            low = middle
    return high
