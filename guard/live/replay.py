"""The tests on recorded evidence: when would they have raised the alarm?

Works on many recordings at once; for each the answer is the same as from feeding it to
`LiveRisk` exchange by exchange.

This module does not know where evidence comes from.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from guard.live.watch import Watch

    Times = NDArray[np.int64]

NEVER: Final = np.iinfo(np.int64).max
"""Stands for no exceedance and for no alarm."""


@dataclass(frozen=True, slots=True)
class FirstAlarms:
    """When each recording has its first alarm, counted in exchanges from 1; `NEVER` for none.

    Attributes:
        life: by the test over the whole life.
        change: by the test for change.
    """

    life: Times
    change: Times

    @property
    def either(self) -> Times:
        """By the one that speaks first."""
        return np.minimum(self.life, self.change)


def first_alarms(watch: Watch, evidence: NDArray[np.float64]) -> FirstAlarms:
    """Return the first alarms of recorded evidence.

    Args:
        watch: the category's tests.
        evidence: of shape (recordings, exchanges); what is no number counts as an exceedance.
    """
    exceeds = ~(evidence < watch.operating.threshold)
    return first_alarms_at(watch, times_of(exceeds))


def times_of(exceeds: NDArray[np.bool_]) -> Times:
    """Return when exceedances fall, counted from 1, each recording's filled up with `NEVER`.

    Args:
        exceeds: of shape (recordings, exchanges).
    """
    most = int(exceeds.sum(axis=1).max(initial=0))
    times = np.full((len(exceeds), most), NEVER)
    rows, columns = np.nonzero(exceeds)
    counts = np.bincount(rows, minlength=len(exceeds))
    starts = np.cumsum(counts) - counts
    times[rows, np.arange(len(rows)) - starts[rows]] = columns + 1
    return times


def first_alarms_at(watch: Watch, times: Times) -> FirstAlarms:
    """Return the first alarms from when exceedances fall, as `times_of` gives them."""
    recordings = len(times)
    slopes = np.array(watch.walks.slopes)[:, None]
    needed = np.array(watch.walks.needed)[:, :, None]
    heights = np.zeros((len(slopes), recordings), np.int64)
    peaks, before = heights.copy(), np.zeros(recordings, np.int64)
    life, change = np.full(recordings, NEVER), np.full(recordings, NEVER)
    for number in range(times.shape[1]):
        here = np.nonzero(times[:, number] != NEVER)[0]
        now = times[here, number]
        heights[:, here] = np.maximum(0, heights[:, here] - (now - before[here] - 1)) + slopes
        before[here] = now
        peaks[:, here] = np.maximum(peaks[:, here], heights[:, here])
        reached = np.asarray((peaks[None, :, here] >= needed).any(axis=1).all(axis=0))
        _note(change, here, now, reached)
        rich = watch.wealth.logs(np.full(len(now), number + 1), now) >= watch.wealth.needed
        _note(life, here, now, rich)
    return FirstAlarms(life, change)


def _note(first: Times, here: Times, now: Times, alarm: NDArray[np.bool_]) -> None:
    new = alarm & (first[here] == NEVER)
    first[here[new]] = now[new]
