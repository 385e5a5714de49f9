"""Both tests of one category, and which of them raises the alarm.

Of the class's chance of a false alarm each watched category has an equal part (Bonferroni), and
of that 55 % goes to the test for change, 40 % to the test over the whole life and 5 % to the
sensitivity that is taken for true.

This module does not know exchanges, priors or what an alarm does.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

from guard.errors import ConfigurationError
from guard.live.operating import Operating, nulls
from guard.live.walks import Walks, walks
from guard.live.wealth import Wealth

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from guard.live.operating import Null
    from guard.live.settings import LiveSettings

Test = Literal["life", "change"]
"""Which test spoke: the one over the whole life, or the one for change."""

_CHANGE: Final = 0.55
_LIFE: Final = 0.4
_SEEN: Final = 0.05

_DRIFTS: Final = (0.02, 0.05, 0.1, 0.2, 0.5, 1.0)
"""Rates of risky answers that a threshold should see, the best first."""

_HIGHEST_NULL: Final = 0.5


@dataclass(frozen=True, slots=True)
class Watch:
    """What watches one category.

    Attributes:
        operating: the threshold, and how well it sees.
        tolerated: the tolerated rate of risky answers.
        null_rate: the highest rate of exceedances that validation does not rule out while no
            more than the tolerated rate of answers is risky.
        wealth: the test over the whole life.
        walks: the test for change.
    """

    operating: Operating
    tolerated: float
    null_rate: float
    wealth: Wealth
    walks: Walks

    def spoken(self, exceedances: int, exchanges: int, peaks: Sequence[int]) -> Test | None:
        """Return which test raises the alarm, the one for change first; `None` for neither."""
        if self.walks.reached(peaks):
            return "change"
        return "life" if self.wealth.reached(exceedances, exchanges) else None

    def delay(self, risky: float) -> float:
        """Return about how many exchanges an alarm takes once a fraction `risky` is risky.

        By the test for change, whatever came before. `inf` where that many exceedances may also
        come while all is well, as far as validation can tell.
        """
        return self.walks.delay(self.operating.exceedance_rate(risky))


def watch(operating: Operating, tolerated: float, alpha: float, horizon: int) -> Watch | None:
    """Return what watches one category, `None` where validation rows are too few for any test.

    Args:
        operating: the threshold, and how well it sees.
        tolerated: the tolerated rate of risky answers, in (0, 1).
        alpha: this category's chance of a false alarm.
        horizon: exchanges over which it holds for the test for change.
    """
    null = _null(operating, tolerated, alpha)
    if null[-1].rate > _HIGHEST_NULL:
        return None
    return Watch(
        operating,
        tolerated,
        null[-1].rate,
        Wealth(null, _LIFE * alpha),
        walks(null, _CHANGE * alpha, horizon),
    )


def watches(confusion: Mapping[str, Operating], settings: LiveSettings) -> dict[str, Watch]:
    """Return a watch for each category, the chance of a false alarm split between them.

    Raises:
        ConfigurationError: a category cannot be watched; all of them at once.
    """
    alpha = settings.alpha / max(1, len(confusion))
    found = {
        name: watch(operating, settings.tolerates(name), alpha, settings.horizon)
        for name, operating in confusion.items()
    }
    if unwatched := [name for name, item in found.items() if item is None]:
        raise ConfigurationError(
            [
                f"`{name}`: {confusion[name].false_positives} of {confusion[name].negatives} "
                "ordinary validation rows reach the threshold, too many or too few rows to see a "
                "rise: take a higher threshold, validate on more rows, or leave it out"
                for name in unwatched
            ]
        )
    return {name: item for name, item in found.items() if item is not None}


def choose(
    thresholds: Iterable[Operating],
    settings: LiveSettings,
    category: str = "",
    *,
    watched: int = 1,
) -> Operating | None:
    """Return the threshold that sees drift soonest, `None` where none would see any.

    That is the one which sees 2 % of risky answers soonest, where validation rows are too few
    for that 5 %, and so on.

    Args:
        thresholds: the calibration's confusions, one per threshold.
        settings: the class's.
        category: whose tolerated rate counts.
        watched: how many categories share the chance of a false alarm.
    """
    alpha = settings.alpha / watched
    tolerated = settings.tolerates(category)
    known = [
        (operating, null)
        for operating in thresholds
        if (null := _null(operating, tolerated, alpha))[-1].rate <= _HIGHEST_NULL
    ]
    for drift in _DRIFTS:
        least, best = math.inf, None
        for operating, null in known:
            time = _time_to_see(null, operating.exceedance_rate(drift), alpha)
            if time < least:
                least, best = time, operating
        if best is not None:
            return best
    return None


def _null(operating: Operating, tolerated: float, alpha: float) -> tuple[Null, ...]:
    return nulls(operating, tolerated, alpha=_LIFE * alpha, seen=_SEEN * alpha)


def _time_to_see(against: Sequence[Null], rate: float, alpha: float) -> float:
    """Return about how many exchanges it takes to rule every null out at a true `rate`."""
    return max(
        max(0.0, -math.log(alpha) - null.factor) / divergence(rate, null.rate)
        if rate > null.rate
        else math.inf
        for null in against
    )


def divergence(rate: float, null: float) -> float:
    """Return the information of an exchange for `rate` against `null`, in nats.

    The divergence of Kullback and Leibler (Annals of Mathematical Statistics 22, 1951).
    """
    quiet = (1 - rate) * (math.log1p(-rate) - math.log1p(-null)) if rate < 1 else 0.0
    return (rate * math.log(rate / null) if rate > 0 else 0.0) + quiet
