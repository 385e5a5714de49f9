"""Shares as people read them, in per cent.

This module does not know what a share is of.
"""

from __future__ import annotations

import math
from typing import Final

_PLACES: Final = 4
"""Decimals of the finest figure; what is smaller is noise of its arithmetic."""


def percent(share: float, sign: str = "") -> str:
    """Return a share with one decimal, or as many more as it takes not to read as none or all.

    Args:
        share: in [-1, 1].
        sign: `+` to write it before what is positive, too.
    """
    exact = round(share, _PLACES + 2) + 0.0
    texts = [f"{exact:{sign}.{places}%}" for places in range(1, _PLACES + 1)]
    plain = exact in {-1.0, 0.0, 1.0}
    return next((text for text in texts if plain or not _is_bound(text)), texts[0])


def reached(share: float) -> str:
    """Return how much of a whole there is, in whole per cent: 100 % only where all of it is."""
    return f"{math.floor(100 * share)}%"


def _is_bound(text: str) -> bool:
    return abs(float(text.removesuffix("%"))) in {0.0, 100.0}
