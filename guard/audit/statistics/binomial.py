"""Exact binomial arithmetic, where an approximation would void a guarantee.

This module does not know what is counted.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import TYPE_CHECKING, Final

import numpy as np

from guard.audit.statistics.estimate import check_counts

if TYPE_CHECKING:
    from numpy.typing import NDArray

_HALVINGS: Final = 60


@lru_cache(maxsize=16)
def log_factorials(number: int) -> NDArray[np.float64]:
    """Return log 0!, log 1!, ..., log `number`!; shape (number + 1,), not to be written to."""
    found = np.concatenate([[0.0], np.cumsum(np.log(np.arange(1, number + 1)))])
    found.flags.writeable = False
    return found


def log_choose(number: int) -> NDArray[np.float64]:
    """Return the logs of how many ways there are to choose 0, 1, ..., `number` of `number`."""
    logs = log_factorials(number)
    return np.asarray(logs[number] - logs - logs[::-1], np.float64)


def clopper_pearson(hits: int, total: int, error: float) -> tuple[float, float]:
    """Return an interval that misses a share on either side with a chance of at most `error` / 2.

    Clopper and Pearson (Biometrika 26, 1934); (0, 1) of nothing.

    Args:
        hits: from 0 to `total`.
        total: trials, 0 or more.
        error: how often the interval may miss the share, in (0, 1).

    Raises:
        InputError: the counts cannot be.
    """
    check_counts(hits, total)
    low = _least(hits, total, error / 2) if hits else 0.0
    high = 1.0 - _least(total - hits, total, error / 2) if hits < total else 1.0
    return low, high


def _least(hits: int, total: int, error: float) -> float:
    """Return the share at which `hits` or more have the chance `error`, or just below it."""
    ways, counts = log_choose(total)[hits:], np.arange(hits, total + 1)
    low, high = 0.0, hits / total
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        if middle in {low, high}:
            break
        terms = ways + counts * math.log(middle) + (total - counts) * math.log1p(-middle)
        chance = float(np.exp(terms).sum())
        low, high = (middle, high) if chance <= error else (low, middle)
    return low
