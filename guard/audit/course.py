"""An audit that stops as soon as a class is decided, with bounds that hold whenever it stops.

Units are taken in the order of the plan, whatever the order in which answers come in. Each rate
has a confidence sequence (`guard.audit.sequences`). A rate that the class limits is settled as
soon as its upper bound meets the limit, on enough answers; it then stands as it is. Units that
no unsettled figure of the class needs are passed over. The class is missed as soon as one
rate's lower bound exceeds its limit, at an error that is split between all limited rates.

A difference (style amplification) is not settled early: all its units are asked.

Which unit is asked depends only on answers to units before it, and no figure takes a unit behind
one that it was not given, so that what each has seen is the beginning of its own random order.
That is what the bounds ask for.

This module does not know backends, and it does not see whether the order was honest.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from guard.audit.deploy import above
from guard.audit.estimates import answered, estimate
from guard.audit.sequences import RateSequence
from guard.audit.statistics import LEVEL, Estimate
from guard.audit.statistics.binomial import clopper_pearson
from guard.audit.statistics.rates import BLIND, NO_ANSWERS

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from guard.audit.estimates import Flags
    from guard.audit.figures import Figure
    from guard.audit.instruments import Counted, Instrument
    from guard.security_class import Deploy

ERROR: Final = 1 - LEVEL


class SoleSequence:
    """The rate of risky answers where one instrument judges; see `RateSequence`."""

    def __init__(self, instrument: Instrument, error: float = ERROR) -> None:
        """Begin without any answer."""
        self._sequence = RateSequence(instrument.confusion, error=error)

    def add(self, flags: Sequence[tuple[Instrument, bool]]) -> None:
        """Take the next unit: what its answers were flagged by, at least one."""
        self._sequence.add(float(np.mean([flagged for _, flagged in flags])))

    def estimate(self) -> Estimate:
        """Return the rate so far, with bounds that hold at any time."""
        return self._sequence.estimate()


class PooledSequence:
    """The rate of risky answers where several instruments judge, with bounds that hold anytime.

    A flag `x` by an instrument with sensitivity `s` and false-alarm rate `f` counts as
    `(x - f) / (s - f)`, whose mean is the rate. This falls with `s` and with `f`, so that it is
    bounded by way of their bounds (Clopper and Pearson; half of `error` for all of them
    together). What counts lies in a known range, so that betting bounds its mean (the other
    half, a quarter for each side).

    Args:
        instruments: those that may judge.
        error: the chance that the bounds ever miss the rate.
    """

    def __init__(self, instruments: Iterable[Instrument], error: float = ERROR) -> None:
        """Begin without any answer."""
        each = list(dict.fromkeys(instruments))
        counted = max(1, sum(one.confusion is not None for one in each))
        spent = error / 2 / (2 * counted)
        bounds = {
            one: (_bounds(one.positives, spent, 1), _bounds(one.negatives, spent, 0))
            for one in each
        }
        self._upper = _Side({one: (s[0], f[0]) for one, (s, f) in bounds.items()}, error / 4)
        self._lower = _Side({one: (s[1], f[1]) for one, (s, f) in bounds.items()}, error / 4)
        self._middle = {one: (one.sensitivity, one.alarms) for one in each}
        self._blind = self._upper.blind or self._lower.blind
        self._values: list[float] = []

    def add(self, flags: Sequence[tuple[Instrument, bool]]) -> None:
        """Take the next unit: what its answers were flagged by, at least one."""
        if self._blind:
            self._values.append(0.5)
            return
        self._values.append(_mean(flags, self._middle))
        self._upper.add(flags)
        self._lower.add(flags)

    def estimate(self) -> Estimate:
        """Return the rate so far, with bounds that hold at any time."""
        number, method = len(self._values), "betting, pooled"
        if self._blind or not number:
            return Estimate(0.5, 0.0, 1.0, number, method, BLIND if number else NO_ANSWERS)
        low, high = self._lower.bounds[0], self._upper.bounds[1]
        value = min(high, max(low, float(np.mean(self._values))))
        return Estimate(value, min(low, value), max(high, value), number, method)


Errors = tuple[float, float]
"""Sensitivity and false-alarm rate."""


class _Side:
    """One bound of a pooled rate."""

    def __init__(self, errors: Mapping[Instrument, Errors], error: float) -> None:
        self._errors = errors
        self.blind = any(s <= f for s, f in errors.values())
        self._sequence = RateSequence(error=error)
        if not self.blind:
            self._low = min(_corrected(False, *each) for each in errors.values())  # noqa: FBT003
            self._high = max(_corrected(True, *each) for each in errors.values())  # noqa: FBT003

    def add(self, flags: Sequence[tuple[Instrument, bool]]) -> None:
        mean = _mean(flags, self._errors)
        value = (mean - self._low) / (self._high - self._low)
        self._sequence.add(min(1.0, max(0.0, value)))  # rounding may lead a trace beyond

    @property
    def bounds(self) -> tuple[float, float]:
        low, high = (self._low + (self._high - self._low) * b for b in self._sequence.bounds)
        return min(1.0, max(0.0, low)), min(1.0, max(0.0, high))


class _Track:
    """One figure on its way."""

    def __init__(self, figure: Figure, limit: float | None, samples: int, limited: int) -> None:
        self.figure = figure
        self.limit = limit
        self.settled = self.exceeded = False
        self._samples = samples
        self._closed = False
        self._left = set(figure.units)
        self._taken: set[str] = set()
        self._sequence = None if figure.paired else _sequence(figure, ERROR)
        strict = limit is not None and not figure.paired and limited > 1
        self._strict = _sequence(figure, ERROR / limited) if strict else self._sequence

    def needs(self, unit: str) -> bool:
        return self.limit is not None and not self.settled and unit in self._left

    def take(self, unit: str, flags: Flags) -> None:
        self._left.discard(unit)
        there = answered(self.figure.units[unit], flags)
        if self._closed or not there:
            return
        self._taken.add(unit)
        given = [(aim.instrument, bool(flags(aim))) for aim in there]
        for sequence in dict.fromkeys((self._sequence, self._strict)):
            if sequence is not None:
                sequence.add(given)
        if self.limit is not None:
            self._look(self.limit)

    def skip(self, unit: str) -> None:
        self._left.discard(unit)
        self._closed = True

    def estimate(self, flags: Flags) -> Estimate:
        if self._sequence is not None:
            return self._sequence.estimate()
        return estimate(self.figure, lambda aim: flags(aim) if aim.unit in self._taken else None)

    def counted(self, unit: str) -> bool:
        return unit in self._taken

    @property
    def lower(self) -> float:
        return 0.0 if self._strict is None else self._strict.estimate().low

    def _look(self, limit: float) -> None:
        if self._sequence is None or self._strict is None:
            return
        found = self._sequence.estimate()
        self.settled = found.n >= self._samples and found.high <= limit
        self.exceeded = self._strict.estimate().low > limit
        self._closed = self.settled or self.exceeded


class Course:
    """The way of an audit through the units of its plan.

    Args:
        every: the figures.
        deploy: the class's limits.
    """

    def __init__(self, every: Sequence[Figure], deploy: Deploy) -> None:
        """Begin before the first unit."""
        limits = [_limit(figure, deploy) for figure in every]
        limited = sum(
            limit is not None and not figure.paired
            for figure, limit in zip(every, limits, strict=True)
        )
        self._tracks = [
            _Track(figure, limit, deploy.samples, limited)
            for figure, limit in zip(every, limits, strict=True)
        ]
        names = {track.figure.name for track in self._tracks if track.limit is not None}
        wanted = {*deploy.rates, *deploy.effects}
        self.never = tuple(sorted(wanted - names))
        """Names that the class limits and that no probe looks for."""

    @property
    def missed(self) -> bool:
        """Whether the class can no longer be reached."""
        return any(track.exceeded for track in self._tracks)

    @property
    def exceeded(self) -> tuple[str, ...]:
        """Why it cannot: each rate whose lower bound is above its limit, a few words each."""
        return tuple(
            f"{track.figure.name} is at least {above(track.lower, track.limit)}, "
            f"above {track.limit:g}"
            for track in self._tracks
            if track.exceeded and track.limit is not None
        )

    def needs(self, unit: str) -> bool:
        """Return whether a unit must be asked, after all units before it were taken or passed."""
        return not self.missed and any(track.needs(unit) for track in self._tracks)

    def take(self, unit: str, flags: Flags) -> None:
        """Take the next unit, whose answers' flags are known."""
        for track in self._tracks:
            if unit in track.figure.units:
                track.take(unit, flags)

    def skip(self, unit: str) -> None:
        """Pass the next unit over."""
        for track in self._tracks:
            if unit in track.figure.units:
                track.skip(unit)

    def estimates(self, flags: Flags) -> list[tuple[Figure, Estimate, frozenset[str]]]:
        """Return each figure with what it rests on: its estimate and the units that it took."""
        return [
            (
                track.figure,
                track.estimate(flags),
                frozenset(unit for unit in track.figure.units if track.counted(unit)),
            )
            for track in self._tracks
        ]


def _limit(figure: Figure, deploy: Deploy) -> float | None:
    limits = deploy.effects if figure.kind == "effect" else deploy.rates
    return limits.get(figure.name)


def _sequence(figure: Figure, error: float) -> SoleSequence | PooledSequence:
    instruments = list(dict.fromkeys(aim.instrument for aim in figure.aims))
    if len(instruments) == 1:
        return SoleSequence(instruments[0], error)
    return PooledSequence(instruments, error)


def _bounds(counted: Counted | None, error: float, sure: float) -> tuple[float, float]:
    if counted is None:
        return sure, sure
    return clopper_pearson(counted.hits, counted.total, error)


def _mean(flags: Sequence[tuple[Instrument, bool]], errors: Mapping[Instrument, Errors]) -> float:
    return float(np.mean([_corrected(flagged, *errors[each]) for each, flagged in flags]))


def _corrected(flagged: bool, sensitivity: float, alarms: float) -> float:  # noqa: FBT001
    """Return what a flag, or none, counts for: an answer's rate on average."""
    return (flagged - alarms) / (sensitivity - alarms)
