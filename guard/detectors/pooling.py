"""From the evidence of single units to that of a response: the same in a stream and in a whole.

What a detector says of one unit is noisy. A response's evidence after unit t is the higher of

    own * e_t + (1 - own) * mean(e_1 .. e_t) - toll * ln t    and    e_t - lone

The first adds up what runs through a whole answer and keeps a hundred faintly odd units, of
which one is odd by chance, from counting; the second lets one bad sentence count however good
the rest of a long answer is, if its evidence is strong. Neither falls where a unit's evidence
rises. The highest value over the units so far is the response's. The three parameters are
trained per category and are part of the model.

This module does not know units' texts, categories or limits.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    import numpy as np
    from numpy.typing import NDArray

    from guard.detectors.base import Finding


@dataclass(frozen=True, slots=True)
class Pooling:
    """How units add up.

    Attributes:
        own: weight of a unit's own evidence in (0, 1]; the mean so far has the rest.
        toll: what is taken off per natural log of the number of units, at least 0.
        lone: what is taken off a unit that stands for itself alone, at least 0.
    """

    own: float = 1.0
    toll: float = 0.0
    lone: float = 0.0

    def __post_init__(self) -> None:
        """Refuse what would let risk fall where a unit's rises.

        Raises:
            ValueError: a parameter is out of its range.
        """
        if not 0 < self.own <= 1:
            raise ValueError(f"`own` must be above 0 and at most 1, not {self.own}")
        for name in ("toll", "lone"):
            value = getattr(self, name)
            if not (value >= 0 and math.isfinite(value)):
                raise ValueError(f"`{name}` must be 0 or more, not {value}")

    def value(self, evidence: float, total: float, count: int) -> float:
        """Return the pooled evidence of a unit.

        Args:
            evidence: the unit's own.
            total: sum over the units so far, this one included.
            count: how many units that is, at least 1.
        """
        run = self.own * evidence + (1 - self.own) * total / count - self.toll * math.log(count)
        return max(run, evidence - self.lone)

    def running(self, evidence: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the pooled evidence after each unit; both of shape (..., units)."""
        import numpy as np  # noqa: PLC0415  # only training and measuring have whole arrays

        counts = np.arange(1, evidence.shape[-1] + 1)
        means = np.cumsum(evidence, axis=-1) / counts
        run = self.own * evidence + (1 - self.own) * means - self.toll * np.log(counts)
        return np.asarray(np.maximum(run, evidence - self.lone))


ALONE: Final = Pooling()
"""Every unit for itself."""


@dataclass(frozen=True, slots=True)
class _Sum:
    total: float = 0.0
    count: int = 0

    def plus(self, evidence: float) -> _Sum:
        return _Sum(self.total + evidence, self.count + 1)


class Pool:
    """The units of one text so far. Immutable: `after` gives the next state.

    Args:
        poolings: per detector and category; whatever is not named is left alone.
    """

    def __init__(self, poolings: Mapping[str, Mapping[str, Pooling]]) -> None:
        """Begin with no units."""
        self._poolings = poolings
        self._sums: dict[tuple[str, str], _Sum] = {}

    def pooled(self, findings: Iterable[Finding]) -> tuple[Finding, ...]:
        """Return a unit's findings with the evidence that they are behind the units so far."""
        return tuple(self._pooled(finding) for finding in findings)

    def after(self, findings: Iterable[Finding]) -> Pool:
        """Return the state behind a unit, from its findings as the detectors gave them."""
        highest: dict[tuple[str, str], float] = {}
        for finding in findings:
            key = finding.detector, finding.category
            if self._pooling(finding) is not None and math.isfinite(finding.evidence):
                highest[key] = max(finding.evidence, highest.get(key, -math.inf))
        following = Pool(self._poolings)
        following._sums = self._sums | {
            key: self._sums.get(key, _Sum()).plus(value) for key, value in highest.items()
        }
        return following

    def _pooling(self, finding: Finding) -> Pooling | None:
        return self._poolings.get(finding.detector, {}).get(finding.category)

    def _pooled(self, finding: Finding) -> Finding:
        pooling = self._pooling(finding)
        if pooling is None or not math.isfinite(finding.evidence):
            return finding
        known = self._sums.get((finding.detector, finding.category), _Sum()).plus(finding.evidence)
        pooled = pooling.value(finding.evidence, known.total, known.count)
        return replace(finding, evidence=pooled)
