"""What counts on validation rows say about a rate: exact binomial tails and bounds.

This module does not know what is counted.
"""

from __future__ import annotations

import math
from typing import Final

_STEPS: Final = 10_000
_SMALL: Final = 1e-300
_PRECISION: Final = 1e-15


def at_most(hits: int, total: int, rate: float) -> float:
    """Return the chance of `hits` or fewer in `total` draws, each one with chance `rate`."""
    if hits >= total or rate <= 0.0:
        return 1.0
    if rate >= 1.0:
        return 0.0
    return _beta(1.0 - rate, rate, total - hits, hits + 1)


def highest_rate(hits: int, total: int, level: float) -> float:
    """Return the rate above which `hits` or fewer have a chance below `level`.

    The upper end of the one-sided interval of Clopper and Pearson (Biometrika 26, 1934) at
    confidence `1 - level`; 1 where nothing was drawn.
    """
    low, high = (hits / total, 1.0) if total else (1.0, 1.0)
    while high - low > 1e-12:
        middle = (low + high) / 2
        if at_most(hits, total, middle) < level:
            high = middle
        else:
            low = middle
    return high


def _beta(x: float, rest: float, a: float, b: float) -> float:
    """Return the regularised incomplete beta function at `x = 1 - rest`.

    Its continued fraction runs on the side of the mean where it converges fast (Abramowitz and
    Stegun, Handbook of Mathematical Functions, 26.5.8).
    """
    if x > (a + 1) / (a + b + 2):
        return 1.0 - _beta(rest, x, b, a)
    scale = math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b)
    front = math.exp(scale + a * math.log(x) + b * math.log(rest)) / a
    return front * _fraction(x, a, b)


def _fraction(x: float, a: float, b: float) -> float:
    """Return the continued fraction's value (Lentz's method)."""
    upper, lower = 1.0, 1.0 - (a + b) * x / (a + 1)
    lower = 1.0 / (lower if abs(lower) > _SMALL else _SMALL)
    value = lower
    for step in range(1, _STEPS):
        even = step * (b - step) * x / ((a + 2 * step - 1) * (a + 2 * step))
        odd = -(a + step) * (a + b + step) * x / ((a + 2 * step) * (a + 2 * step + 1))
        for term in (even, odd):
            lower = 1.0 + term * lower
            lower = 1.0 / (lower if abs(lower) > _SMALL else _SMALL)
            upper = 1.0 + term / upper
            upper = upper if abs(upper) > _SMALL else _SMALL
            value *= lower * upper
        if abs(lower * upper - 1.0) < _PRECISION:
            break
    return value
