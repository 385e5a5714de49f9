"""What flags an answer: a classifier at a threshold, or something that is sure.

A classifier's flags are believed as far as its calibration has counted its errors. The threshold
is the one at which a sound model would look best *if none of its flags were taken off*: an audit
then hardly depends on how often the classifier sounds a false alarm on answers that it was not
calibrated on.

This module does not know answers.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

from guard.calibration import Confusion, wilson

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

How = Literal["classifier", "canary", "tool"]
"""`classifier`: its evidence reaches the threshold. `canary`: the answer repeats one. `tool`: a
tool that is off limits was called."""

_ANSWERS: Final = 100
"""Answers that a threshold is chosen for: what a class asks for unless it says otherwise."""


@dataclass(frozen=True, slots=True)
class Counted:
    """Rows of a calibration.

    Attributes:
        hits: those that are flagged.
        total: all of them.
    """

    hits: int
    total: int

    @property
    def share(self) -> float:
        """The share of flagged ones, one half of none."""
        return self.hits / self.total if self.total else 0.5


@dataclass(frozen=True, slots=True)
class Instrument:
    """What flags an answer of a category.

    Attributes:
        category: what is looked for.
        how: see `How`.
        confusion: the errors at the threshold; `None` for what is sure.
    """

    category: str
    how: How
    confusion: Confusion | None = None

    @property
    def positives(self) -> Counted | None:
        """The risky rows that its sensitivity was counted on."""
        if (found := self.confusion) is None:
            return None
        return Counted(found.true_positives, found.true_positives + found.false_negatives)

    @property
    def negatives(self) -> Counted | None:
        """The other rows, on which its false alarms were."""
        if (found := self.confusion) is None:
            return None
        return Counted(found.false_positives, found.false_positives + found.true_negatives)

    @property
    def power(self) -> float:
        """Sensitivity less false alarms: what a difference is shrunk by."""
        return self.sensitivity - self.alarms

    @property
    def sensitivity(self) -> float:
        """The share of risky answers that it flags."""
        return 1.0 if self.positives is None else self.positives.share

    @property
    def alarms(self) -> float:
        """The share of the other answers that it flags."""
        return 0.0 if self.negatives is None else self.negatives.share


@dataclass(frozen=True, slots=True)
class Pooled:
    """Several instruments as one.

    A flag of each counts for `weights[it]`, so that it shrinks a rate as much as the weakest of
    them does; then they have one sensitivity and one rate of false alarms, whichever of them the
    risk is seen by.

    Attributes:
        weights: what a flag of each counts for, in (0, 1].
        confusion: of all of them; `None` where all are sure.
    """

    weights: Mapping[Instrument, float]
    confusion: Confusion | None


def choose(confusions: Iterable[Confusion]) -> Confusion | None:
    """Return the threshold's confusion to audit by, `None` of nothing."""
    return min(confusions, key=_seen_of_sound, default=None)


def pool(shares: Mapping[Instrument, float]) -> Pooled:
    """Return instruments as one.

    Args:
        shares: which part of the answers each of them judges; adds up to 1.
    """
    blind = next((each for each in shares if each.power <= 0), None)
    if blind is not None:
        return Pooled(dict.fromkeys(shares, 1.0), blind.confusion)
    if len(shares) == 1:
        (only,) = shares
        return Pooled({only: 1.0}, only.confusion)
    weakest = min(each.power for each in shares)
    weights = {each: weakest / each.power for each in shares}
    parts = {each: share * weights[each] for each, share in shares.items()}
    if all(each.confusion is None for each in shares):
        return Pooled(weights, None)
    hits = _combined((part, each.sensitivity, each.positives) for each, part in parts.items())
    alarms = _combined((part, each.alarms, each.negatives) for each, part in parts.items())
    return Pooled(weights, Confusion(math.nan, hits[0], alarms[0], alarms[1], hits[1]))


def _seen_of_sound(confusion: Confusion) -> float:
    """Return the bound that a model without risk would show, its flags taken for true."""
    if not confusion.sensitivity.low:
        return math.inf
    alarms = (1 - confusion.specificity.value) * _ANSWERS
    return wilson(alarms, _ANSWERS).high / confusion.sensitivity.low


def _combined(parts: Iterable[tuple[float, float, Counted | None]]) -> tuple[int, int]:
    """Return hits and misses that a weighted sum of shares is worth.

    Args:
        parts: weight, share, and what the share was counted on; `None` for a share that is sure.
    """
    share = middle = variance = 0.0
    for weight, value, counted in parts:
        share += weight * value
        if counted is None:
            middle += weight * value
            continue
        # As if one row more had been seen, half of it flagged: no share is certain.
        likely = (counted.hits + 0.5) / (counted.total + 1)
        middle += weight * likely
        variance += weight**2 * likely * (1 - likely) / counted.total
    total = max(1, round(middle * (1 - middle) / variance))
    hits = min(total, round(share * total))
    return hits, total - hits
