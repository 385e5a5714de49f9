"""The test over the whole life: betting that exceedances are more frequent than they may be.

Under a null with rate q, a gambler who bets on a higher rate r has his wealth multiplied by r/q at
each exceedance and by (1 - r)/(1 - q) at every other exchange. Whatever the past, as long as the
chance of an exceedance is at most q, his expected wealth does not grow: by Ville's inequality
it ever reaches 1/alpha with chance alpha at most, however often one looks and whenever one
stops (Waudby-Smith and Ramdas, JRSS B 86, 2024; Shafer, JRSS A 184, 2021). He spreads his money
over several r. Independence, a fixed rate or any other distribution is not assumed.

The wealth depends on two counts alone, exceedances and exchanges. So it does not matter in which
order they came or which replica saw them.

This module does not know where the nulls come from.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray

    from guard.live.operating import Null

    Floats = NDArray[np.float64]

_RATIOS: Final = (1.7, 3.5, 8.0, 25.0)
"""How many times the tolerated rate the gambler bets on, money in equal parts."""

_HIGHEST: Final = 0.95


class Wealth:
    """A gambler against every null at once; what counts is where he fares worst.

    Args:
        against: the nulls.
        alpha: chance of a false alarm over the whole life.
    """

    def __init__(self, against: Sequence[Null], alpha: float) -> None:
        """Lay out the bets."""
        self.needed = -math.log(alpha)
        self._games = [_game(null) for null in against if null.factor < self.needed]
        self._hardest = 0

    def log(self, exceedances: int, exchanges: int) -> float:
        """Return the log of the wealth (nats) after so many exceedances in so many exchanges."""
        return min(_log_wealth(game, exceedances, exchanges) for game in self._games)

    def logs(self, exceedances: NDArray[np.int64], exchanges: NDArray[np.int64]) -> Floats:
        """Return `log` for arrays of counts."""
        import numpy as np  # noqa: PLC0415  # recordings have whole arrays, a stream has not

        others = exchanges - exceedances
        games = [
            start + np.logaddexp.reduce([exceedances * up + others * down for up, down in bets])
            for start, bets in self._games
        ]
        return np.asarray(np.min(games, axis=0), np.float64)

    def reached(self, exceedances: int, exchanges: int) -> bool:
        """Return whether the wealth is enough for an alarm."""
        games = self._games
        # The null that held last holds most likely still.
        if _log_wealth(games[self._hardest], exceedances, exchanges) < self.needed:
            return False
        for number, game in enumerate(games):
            if _log_wealth(game, exceedances, exchanges) < self.needed:
                self._hardest = number
                return False
        return True


_Game = tuple[float, tuple[tuple[float, float], ...]]
"""Log of the money to begin with on each bet, and each bet's gain and loss in nats."""


def _game(null: Null) -> _Game:
    rates = dict.fromkeys(_higher(null.rate, ratio) for ratio in _RATIOS)
    bets = tuple(
        (math.log(rate / null.rate), math.log1p(-rate) - math.log1p(-null.rate)) for rate in rates
    )
    return null.factor - math.log(len(bets)), bets


def _higher(rate: float, ratio: float) -> float:
    """Return a rate with `ratio` times the odds' growth, below 1 and above `rate`."""
    return max(min(rate * ratio, _HIGHEST), (1 + rate) / 2 if rate > _HIGHEST / 2 else 0.0)


def _log_wealth(game: _Game, exceedances: int, exchanges: int) -> float:
    start, bets = game
    others = exchanges - exceedances
    logs = [exceedances * gain + others * loss for gain, loss in bets]
    most = max(logs)
    return start + most + math.log(sum([math.exp(value - most) for value in logs]))
