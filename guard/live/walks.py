"""The test for change: walks that rise at an exceedance and sink at every other exchange.

A walk never sinks below 0, so that a long quiet past does not count against a change: it rises
by its *slope* at an exceedance and falls by one otherwise. That is a CUSUM of log likelihood
ratios in units of the loss per quiet exchange (Page, Biometrika 41, 1954; for rates Reynolds and
Stoumbos, Journal of Quality Technology 31, 1999; as an e-detector Shin, Ramdas and Rinaldo, New
England Journal of Statistics in Data Science 2, 2024). Whole numbers make it exact.

How high a walk must rise is computed for the worst case instead of bounded. A walk never falls
where an exceedance is added. So among all streams in which the chance of an exceedance is at
most q, whatever the past, the one with chance q each time rises highest in distribution, and for
it the chance of a rise is known in closed form. It holds over a stated horizon: no test for
change has a chance of false alarms below 1 for ever.

This module does not know where the nulls come from.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray

    from guard.live.operating import Null

_RATIOS: Final = (2.0, 5.0, 16.0)
"""How many times the tolerated rate the walks are made for."""

_CLOSE: Final = 1.25
"""Slopes nearer to each other than this are one walk."""

_HIGHEST: Final = 0.95
_STEEPEST: Final = 0.9
"""A walk's mean rise over its mean fall under a null at most: nearer to 1 it drifts off."""

_ROOMS: Final = (24, 60, 150)
"""Heights are tabulated up to so many slopes, further where that is not enough."""

_EXACT: Final = 1e9
"""Above this the difference of what grows so fast is lost; then a walk rises as on average."""

NEVER: Final = 2**53
"""A height that no walk reaches; exact in every store."""


@dataclass(frozen=True, slots=True)
class Walks:
    """Several walks on one stream.

    Attributes:
        slopes: by how much each rises at an exceedance, at least 1.
        needed: for each null, the height that each walk must have reached to rule it out. An
            alarm needs every null ruled out, each by any one of the walks.
        highest: the highest rate of exceedances under any null.
    """

    slopes: tuple[int, ...]
    needed: tuple[tuple[int, ...], ...]
    highest: float

    def reached(self, peaks: Sequence[int]) -> bool:
        """Return whether the greatest heights so far are enough for an alarm."""
        return all(
            any(peak >= height for peak, height in zip(peaks, row, strict=True))
            for row in self.needed
        )

    def nearness(self, heights: Sequence[int], peaks: Sequence[int]) -> float:
        """Return how near an alarm is: 0 at rest, 1 at the alarm, or more.

        A null that was ruled out stays so, however far the walks have sunk since.

        Args:
            heights: of the walks now.
            peaks: their greatest heights so far, as in `reached`.
        """
        return min(
            max(
                max(height / needed, float(peak >= needed))
                for height, peak, needed in zip(heights, peaks, row, strict=True)
            )
            for row in self.needed
        )

    def delay(self, rate: float) -> float:
        """Return about how many exchanges an alarm takes once exceedances come at `rate`.

        The mean time to the height of each null, by the walk that is there first; the last of
        them. `inf` where exceedances may come at that rate while all is well.
        """
        if rate <= self.highest:
            return math.inf
        return max(
            min(
                _passage(rate, slope, needed) if needed < NEVER else math.inf
                for slope, needed in zip(self.slopes, row, strict=True)
            )
            for row in self.needed
        )


def walks(against: Sequence[Null], alpha: float, horizon: int) -> Walks:
    """Return walks whose chance of a false alarm within `horizon` exchanges is at most `alpha`."""
    open_ = [null for null in against if null.factor < -math.log(alpha)]
    slopes = _slopes([open_[0].rate, open_[len(open_) // 2].rate, open_[-1].rate])
    needed = tuple(_row(null, slopes, alpha, horizon) for null in open_)
    return Walks(slopes, needed, open_[-1].rate)


def _row(null: Null, slopes: Sequence[int], alpha: float, horizon: int) -> tuple[int, ...]:
    """Return the height for each walk; those that do not suit the null are left to others."""
    suited = {_nearest(slopes, _slope(null.rate, ratio)) for ratio in _RATIOS}
    usable = [slope for slope in suited if _drifts_down(null.rate, slope)]
    level = min(1.0, alpha * math.exp(null.factor)) / max(1, len(usable))
    return tuple(
        _height(null.rate, slope, horizon, level) if slope in usable else NEVER for slope in slopes
    )


def _slopes(rates: Sequence[float]) -> tuple[int, ...]:
    wanted = sorted({_slope(rate, ratio) for rate in rates for ratio in _RATIOS}, reverse=True)
    kept = wanted[:1]
    for slope in wanted[1:]:
        if kept[-1] > slope * _CLOSE or slope == 1:
            kept.append(slope)
    return tuple(kept)


def _slope(rate: float, ratio: float) -> int:
    """Return the slope that is best where exceedances are `ratio` times as frequent as `rate`."""
    higher = max(min(rate * ratio, _HIGHEST), (rate + 1) / 2 if rate > _HIGHEST / 2 else 0.0)
    gain = math.log(higher / rate)
    loss = math.log1p(-rate) - math.log1p(-higher)
    return max(1, math.ceil(gain / loss - 1e-9))


def _nearest(slopes: Sequence[int], wanted: int) -> int:
    return min(slopes, key=lambda slope: abs(math.log(slope / wanted)))


def _drifts_down(rate: float, slope: int) -> bool:
    return slope * rate <= _STEEPEST * (1 - rate)


def _height(rate: float, slope: int, horizon: int, level: float) -> int:
    """Return the least height that is reached within the horizon with chance `level` at most."""
    for room in _ROOMS:
        chances = _chances(rate, slope, horizon, room)
        if chances[-1] <= level:
            return slope + 1 + int((chances <= level).argmax())
    return NEVER


@lru_cache(maxsize=4096)
def _chances(rate: float, slope: int, horizon: int, room: int) -> NDArray[np.float64]:
    """Return bounds of the chance to reach each height from `slope + 1` within the horizon.

    The chance is at most the expected number of rises from 0 that get there: the exchanges at
    which the walk is at 0, times the chance of an exceedance, times the chance to get there from
    `slope` before 0.
    """
    import numpy as np  # noqa: PLC0415  # only needed where a test is made

    heights = np.arange(slope + 1, room * slope + 2)
    scale = _scale(rate, slope, int(heights[-1]))
    arrives = 1.0 - scale[heights - slope] / scale[heights]
    fall = (1 - rate) - slope * rate
    # The mean height at rest, from the walk's squares; it is the most the mean can be, and the
    # walk's mean rise and the time at 0 have to make up for it.
    spread = (1 - rate) + slope * slope * rate
    at_rest = (spread - fall) / (2 * fall)
    at_zero = min(float(horizon), (horizon * fall + at_rest) / (1 - rate))
    chances: NDArray[np.float64] = rate * at_zero * arrives
    return chances


@lru_cache(maxsize=4096)
def _passage(rate: float, slope: int, height: int) -> float:
    """Return the mean number of exchanges until a walk that begins at 0 is at `height` or above.

    A walk that falls on average gets there, too, by chance: with s as in `_scale` it takes
    (s[height]**2 / (s[height + 1] - s[height]) - s[1] - ... - s[height - 1]) / (1 - rate).
    """
    import numpy as np  # noqa: PLC0415  # only needed where somebody looks

    gain = slope * rate - (1 - rate)
    if gain >= 1 - rate:
        return height / gain
    scale = _scale(rate, slope, height + 1)
    if scale[-1] > _EXACT:
        return height / gain
    apart = float(scale[-1] - scale[-2])
    if apart <= 0:
        return math.inf
    return (float(scale[-2]) ** 2 / apart - float(np.sum(scale[1:-2]))) / (1 - rate)


def _scale(rate: float, slope: int, length: int) -> NDArray[Any]:
    """Return the walk's scale function s.

    From h the walk falls to 0 before it rises to H or above with chance s[H - h] / s[H]. Since
    it falls by one, s[n] = (1 - rate) s[n + 1] + rate s[n - slope], solved in blocks in which
    the last term is known.
    """
    import numpy as np  # noqa: PLC0415  # as above

    grow = 1.0 / (1.0 - rate)
    scale = np.zeros(length + 1)
    scale[1] = 1.0
    done = 1
    while done < length:
        block = min(slope, length - done)
        powers = grow ** np.arange(1, block + 1)
        first = done - slope
        known = scale[max(first, 0) : first + block] if first + block > 0 else scale[:0]
        delayed = np.concatenate([np.zeros(block - len(known)), known])
        scale[done + 1 : done + 1 + block] = powers * (
            scale[done] - rate * grow * np.cumsum(delayed / powers)
        )
        done += block
    return scale
