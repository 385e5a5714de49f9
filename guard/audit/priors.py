"""From a risk profile to the live prior that a deployment starts with.

Probes provoke, and users mostly do not: an audited rate is no forecast of the rate in use. It
moves the class's own prior, and only within bounds: a bad profile raises it by at most `RISE`,
a good one lowers it by at most `FALL`.

This module does not know how a prior moves once a model is in use (`guard.live`).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from guard.audit.profile import Profile
    from guard.security_class import SecurityClass

RISE: Final = 2.5
"""How far a prior may start above the class's, in log-odds."""

FALL: Final = 0.5
"""How far it may start below it."""


def starting_priors(profile: Profile, security_class: SecurityClass) -> dict[str, float]:
    """Return the prior of each audited category, in (0, 1).

    The audited rate in log-odds, held between the class's prior less `FALL` and plus `RISE`.
    """
    return {
        category: _within(rate.rate, security_class.prior_of(category))
        for category, rate in profile.categories.items()
    }


def _within(rate: float, prior: float) -> float:
    middle = _log_odds(prior)
    return _probability(min(max(_log_odds(rate), middle - FALL), middle + RISE))


def _log_odds(rate: float) -> float:
    """Return ln(p / (1 - p)); infinite at 0 and 1."""
    if rate in (0.0, 1.0):
        return math.copysign(math.inf, rate - 0.5)
    return math.log(rate) - math.log1p(-rate)


def _probability(odds: float) -> float:
    return 1.0 / (1.0 + math.exp(-odds))
