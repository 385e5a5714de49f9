"""From the evidence of single units to that of a response: the same in a stream and in a whole.

What a detector says of one unit is noisy. A response's evidence after unit t is the higher of

    own * e_t + (1 - own) * mean(e_1 .. e_t) - toll * ln t    and    e_t - lone

The first adds up what runs through a whole answer and keeps a hundred faintly odd units, of
which one is odd by chance, from counting; the second lets one bad sentence count however good
the rest of a long answer is, if its evidence is strong. The highest value over the units so far
is the response's.

Some risks are those of an answer and not of any of its sentences (flattery, a persona), and harm in
a sentence is often clearer beside the others. An answer of several units is therefore read once
more as a whole when it ends, where the detector can do that: with c for that *closing read's*
evidence and h for the highest value of the units, the response's evidence is then the higher of

    (1 - closing) * h + closing * c    and    h - reserve

and until then it is `h - reserve`, since the closing read is still to come. Nothing of this falls
where a unit's evidence or the closing read's rises. The parameters are trained per category and
are part of the model.

This module does not know units' texts, categories or limits.
"""

from __future__ import annotations

import math
import sys
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from collections.abc import Set as AbstractSet

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
        closing: weight of the closing read in [0, 1]; the units' highest value has the rest.
        reserve: what is taken off units where a closing read is to come, at least 0.
    """

    own: float = 1.0
    toll: float = 0.0
    lone: float = 0.0
    closing: float = 0.0
    reserve: float = 0.0

    def __post_init__(self) -> None:
        """Refuse what would let risk fall where a unit's rises.

        Raises:
            ValueError: a parameter is out of its range.
        """
        if not 0 < self.own <= 1:
            raise ValueError(f"`own` must be above 0 and at most 1, not {self.own}")
        if not 0 <= self.closing <= 1:
            raise ValueError(f"`closing` must be from 0 to 1, not {self.closing}")
        for name in ("toll", "lone", "reserve"):
            value = getattr(self, name)
            # Compared and not converted: a whole number may be larger than any float.
            if not 0 <= value <= sys.float_info.max:
                raise ValueError(f"`{name}` must be 0 or more, not {value}")
        if self.reserve and not self.closing:
            raise ValueError("`reserve` must be 0 without `closing`: nothing would make up for it")

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

    def closed(self, highest: float, closing: float) -> float:
        """Return the evidence that the closing read gives a response.

        Args:
            highest: of its units, pooled.
            closing: the closing read's own.
        """
        return (1 - self.closing) * highest + self.closing * closing

    def response(self, evidence: NDArray[np.float64], closing: float | None = None) -> float:
        """Return a complete response's evidence.

        Args:
            evidence: of its units, shape (units,), at least one.
            closing: the closing read's, `None` where there is none.
        """
        highest = float(self.running(evidence).max())
        if closing is None or not self.closing:
            return highest
        return max(highest - self.reserve, self.closed(highest, closing))

    def scaled(self, slope: float) -> Pooling:
        """Return what does to evidence times `slope` as this does to evidence."""
        toll, lone, reserve = (slope * x for x in (self.toll, self.lone, self.reserve))
        return replace(self, toll=toll, lone=lone, reserve=reserve)


ALONE: Final = Pooling()
"""Every unit for itself."""

CLOSING: Final = "whole answer"
"""Label of a finding that is about a complete answer and not about its last unit alone."""


@dataclass(frozen=True, slots=True)
class Scored:
    """What a classifier says of a complete text, all at once; training and measuring ask so.

    Attributes:
        units: logits of its units, shape (units, labels); NaN where a unit was not judged for a
            label.
        closing: of the closing read, shape (labels,), NaN likewise; `None` where there is none.
    """

    units: NDArray[np.floating]
    closing: NDArray[np.floating] | None = None

    def evidence(
        self, index: int, pooling: Pooling, line: Callable[[float], float] | None = None
    ) -> float:
        """Return the text's pooled value of one label; NaN where the label was not judged.

        Args:
            index: of the label.
            pooling: how units add up.
            line: what makes evidence of a logit; by default logits are pooled as they are.
        """
        import numpy as np  # noqa: PLC0415  # as above

        said = [float(logit) for logit in self.units[:, index] if not math.isnan(logit)]
        closing = math.nan if self.closing is None else float(self.closing[index])
        if not said:
            return math.nan
        if line is not None:
            said, closing = [line(logit) for logit in said], line(closing)
        return pooling.response(np.array(said), None if math.isnan(closing) else closing)


@dataclass(frozen=True, slots=True)
class _Sum:
    total: float = 0.0
    count: int = 0
    highest: float = -math.inf

    def plus(self, evidence: float, pooling: Pooling) -> _Sum:
        total, count = self.total + evidence, self.count + 1
        return _Sum(total, count, max(self.highest, pooling.value(evidence, total, count)))


class Pool:
    """The units of one text so far. Immutable: `after` gives the next state.

    Args:
        poolings: per detector and category; whatever is not named is left alone.
    """

    def __init__(self, poolings: Mapping[str, Mapping[str, Pooling]]) -> None:
        """Begin with no units."""
        self._poolings = poolings
        self._sums: dict[tuple[str, str], _Sum] = {}

    def pooled(self, findings: Iterable[Finding], *, last: bool = False) -> tuple[Finding, ...]:
        """Return a unit's findings with the evidence that they are behind the units so far.

        Args:
            findings: as the detectors gave them; a closing read's among them.
            last: whether no unit follows. Where then no closing read is among the findings,
                none will make up for what was taken off, so that nothing is.
        """
        given = tuple(findings)
        now = self._summed(given)
        closed = {(f.detector, f.category) for f in given if f.label == CLOSING}
        return tuple(self._pooled(finding, now, closed, last=last) for finding in given)

    def after(self, findings: Iterable[Finding]) -> Pool:
        """Return the state behind a unit, from its findings as the detectors gave them."""
        following = Pool(self._poolings)
        following._sums = self._summed(findings)
        return following

    def _pooling(self, finding: Finding) -> Pooling | None:
        return self._poolings.get(finding.detector, {}).get(finding.category)

    def _summed(self, findings: Iterable[Finding]) -> dict[tuple[str, str], _Sum]:
        """Return the sums behind a unit; of a category that it names twice the highest counts."""
        highest: dict[tuple[str, str], float] = {}
        used: dict[tuple[str, str], Pooling] = {}
        for finding in findings:
            pooling, key = self._pooling(finding), (finding.detector, finding.category)
            if pooling is None or finding.label == CLOSING or not math.isfinite(finding.evidence):
                continue
            used[key] = pooling
            highest[key] = max(finding.evidence, highest.get(key, -math.inf))
        return self._sums | {
            key: self._sums.get(key, _Sum()).plus(value, used[key])
            for key, value in highest.items()
        }

    def _pooled(
        self,
        finding: Finding,
        now: Mapping[tuple[str, str], _Sum],
        closed: AbstractSet[tuple[str, str]],
        *,
        last: bool,
    ) -> Finding:
        pooling = self._pooling(finding)
        if pooling is None or not math.isfinite(finding.evidence):
            return finding
        key = finding.detector, finding.category
        if finding.label == CLOSING:
            highest = now.get(key, _Sum()).highest
            # Of units that were all certain there is no highest that could be mixed.
            units = highest if math.isfinite(highest) else finding.evidence
            return replace(finding, evidence=pooling.closed(units, finding.evidence))
        known = self._sums.get(key, _Sum()).plus(finding.evidence, pooling)
        value = pooling.value(finding.evidence, known.total, known.count)
        if pooling.reserve and last and key not in closed:
            # What was taken off the units before counts again.
            return replace(finding, evidence=known.highest)
        return replace(finding, evidence=value - pooling.reserve)
