"""The batch that is being filled: what a replica saw since it last sealed one.

This module does not know stores, files or tests.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any

from guard.live.ledger import KEPT, MICRO, Batch, Part

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


class OpenBatch:
    """Counts exchange by exchange. Not safe to share between threads.

    Attributes:
        exchanges: how many.
        parts: of the categories with exceedances, or whose life began here.
        raised: transitions of alarms that the store may not know yet.
        points: what to keep of the evidence over time.

    Args:
        names: all categories.
        slopes: of each watched category's walks.
        decay: what is left of mass after one exchange.
    """

    def __init__(
        self, names: Sequence[str], slopes: Mapping[str, Sequence[int]], decay: float
    ) -> None:
        """Begin empty."""
        self.exchanges = 0
        self.parts: dict[str, Part] = {}
        self.raised: list[dict[str, Any]] = []
        self.points: deque[dict[str, Any]] = deque(maxlen=KEPT)
        self._names = tuple(names)
        self._slopes = slopes
        self._decay = decay
        self._fade = 1.0
        self._gains = [0.0] * len(self._names)

    def count(
        self, chances: Sequence[float], exceeded: Sequence[str], unjudged: Sequence[str] = ()
    ) -> None:
        """Take in an exchange.

        Args:
            chances: by how much each category's mass grew, in the order of the names.
            exceeded: the watched categories that reached their threshold.
            unjudged: those of them for which a detector failed.
        """
        self.exchanges += 1
        self._fade *= self._decay
        left = self._decay
        self._gains = [gain * left + chance for gain, chance in zip(self._gains, chances)]  # noqa: B905  # the hot path
        for name in exceeded:
            slopes = self._slopes[name]
            part = self.parts.get(name)
            if part is None:
                part = self.parts[name] = Part.new(len(slopes))
            part.add(self.exchanges, slopes, unjudged=name in unjudged)

    def renew(self, name: str) -> None:
        """Begin a new life of `name` here: what was counted belongs to the one that ended."""
        self.parts[name] = Part.new(len(self._slopes[name]), skipped=self.exchanges)

    def masses(self, before: Mapping[str, int]) -> dict[str, float]:
        """Return the masses, in exchanges, behind this batch where they were `before`."""
        return {
            name: before.get(name, 0) / MICRO * self._fade + gain
            for name, gain in zip(self._names, self._gains, strict=True)
        }

    def sealed(self, digest: str, lives: Mapping[str, int]) -> Batch:
        """Return what is to be delivered."""
        gains = {
            name: round(gain * MICRO) for name, gain in zip(self._names, self._gains, strict=True)
        }
        return Batch(
            digest,
            self.exchanges,
            self._fade,
            gains,
            self._slopes,
            {name: life for name, life in lives.items() if life},
            self.parts,
            tuple(self.raised),
            tuple(self.points),
        )
