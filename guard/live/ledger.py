"""What adds up: counts of exchanges, in batches that any replica can deliver.

The state of a deployment is what its batches make of nothing. A batch holds, per category, the
number of exceedances, what they do to the walks, and the mass of suspicion they add to the
prior; all of it in whole numbers, so that every store computes the same.

What does not depend on the order of batches, exactly: exchanges and exceedances, and so the
evidence of the test over the whole life. What does, since it is about time: the walks and the
fading mass. They are defined on the batches in the order in which the store takes them in, each
batch's exchanges together.

This module does not know stores, tests or clocks.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

MICRO: Final = 1_000_000
"""Parts of an exchange in which mass is counted."""

KEPT: Final = 1000
"""How many transitions, and how many points of the evidence over time, are kept."""


@dataclass(slots=True)
class Part:
    """What one batch says about one category.

    Attributes:
        skipped: exchanges of the batch that came before the category's present life.
        exceedances: how many reached the threshold.
        last: the place of the last one in the batch, counted from 1; `skipped` before any.
        ends: each walk's height there, had it begun at 0.
        tops: how high each came above where it began, at least 0.
        peaks: the greatest height of each, had it begun at 0.
        unjudged: how many of the exceedances are ones in which a detector failed.
    """

    skipped: int
    exceedances: int
    last: int
    ends: list[int]
    tops: list[int]
    peaks: list[int]
    unjudged: int = 0

    @classmethod
    def new(cls, walks: int, *, skipped: int = 0) -> Part:
        """Return a part without exceedances."""
        return cls(skipped, 0, skipped, [0] * walks, [0] * walks, [0] * walks)

    def add(self, place: int, slopes: Sequence[int], *, unjudged: bool = False) -> None:
        """Take in an exceedance at `place`, counted from 1."""
        quiet = place - self.last - 1
        self.exceedances += 1
        self.unjudged += unjudged
        self.last = place
        for number, slope in enumerate(slopes):
            end = max(0, self.ends[number] - quiet) + slope
            self.ends[number] = end
            self.peaks[number] = max(self.peaks[number], end)
            self.tops[number] = max(self.tops[number], self.risen(slope))

    def risen(self, slope: int) -> int:
        """Return how far a walk that cannot hit 0 has risen by the last exceedance."""
        return slope * self.exceedances - (self.last - self.skipped - self.exceedances)


@dataclass(slots=True)
class Tally:
    """One category since its alarms were last cleared.

    Attributes:
        life: how often they were.
        since: exchanges of the deployment that do not count for this life.
        exceedances: how many reached the threshold.
        at: the deployment's exchanges up to the last of them.
        heights: each walk's height there.
        peaks: each walk's greatest height.
        unjudged: how many of the exceedances are ones in which a detector failed.
    """

    life: int
    since: int
    exceedances: int
    at: int
    heights: list[int]
    peaks: list[int]
    unjudged: int = 0

    @classmethod
    def new(cls, walks: int, *, life: int = 0, since: int = 0) -> Tally:
        """Return a tally without exceedances."""
        return cls(life, since, 0, since, [0] * walks, [0] * walks)

    def height_at(self, exchanges: int) -> list[int]:
        """Return the walks' heights after `exchanges` of the deployment."""
        return [max(0, height - (exchanges - self.at)) for height in self.heights]

    def after(self, part: Part, exchanges: int, slopes: Sequence[int]) -> Tally:
        """Return the tally behind a batch's `part` of this life.

        Args:
            part: the batch's.
            exchanges: the deployment's before the batch.
            slopes: the walks'.
        """
        since = self.since + part.skipped
        if not part.exceedances:
            return replace(self, since=since, at=self.at + part.skipped)
        begin = self.height_at(exchanges)
        return Tally(
            self.life,
            since,
            self.exceedances + part.exceedances,
            exchanges + part.last,
            [
                max(height + part.risen(slope), end)
                for height, slope, end in zip(begin, slopes, part.ends, strict=True)
            ],
            [
                max(peak, height + top, own)
                for peak, height, top, own in zip(
                    self.peaks, begin, part.tops, part.peaks, strict=True
                )
            ],
            self.unjudged + part.unjudged,
        )


@dataclass(frozen=True, slots=True)
class Batch:
    """What one replica saw between two deliveries.

    Attributes:
        digest: of the profile that it was counted under.
        exchanges: how many.
        fade: what is left of earlier mass behind them, in (0, 1].
        gains: the mass that each category gained, in millionths of an exchange.
        slopes: of each watched category's walks.
        lives: of the categories whose alarms were ever cleared.
        parts: of the categories with exceedances.
        raised: transitions of alarms that the store may not know yet, as `as_dict` writes them.
        points: what to keep of the evidence over time.
    """

    digest: str
    exchanges: int
    fade: float
    gains: Mapping[str, int]
    slopes: Mapping[str, Sequence[int]]
    lives: Mapping[str, int] = field(default_factory=dict)
    parts: Mapping[str, Part] = field(default_factory=dict)
    raised: Sequence[Mapping[str, Any]] = ()
    points: Sequence[Mapping[str, Any]] = ()

    def as_dict(self) -> dict[str, Any]:
        """Return the fields, ready for JSON."""
        values = asdict(self)
        return {**values, "parts": _as_before(values["parts"])}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Batch:
        """Return the batch that `as_dict` wrote."""
        parts = {name: Part(**part) for name, part in values["parts"].items()}
        return cls(**{**values, "parts": parts})


@dataclass(slots=True)
class State:
    """What all batches so far add up to.

    Attributes:
        exchanges: how many.
        masses: each category's fading mass, in millionths of an exchange.
        tallies: of the watched categories.
    """

    exchanges: int = 0
    masses: dict[str, int] = field(default_factory=dict)
    tallies: dict[str, Tally] = field(default_factory=dict)

    def take(self, batch: Batch, lives: Mapping[str, int]) -> None:
        """Take in a batch.

        Args:
            batch: any that was counted under the same profile.
            lives: how often each category's alarms were cleared by now, the batch's included.
        """
        for name, slopes in batch.slopes.items():
            self._take_part(name, slopes, batch, lives.get(name, 0))
        for name, gain in batch.gains.items():
            # The rounding is the same in every store.
            self.masses[name] = int(self.masses.get(name, 0) * batch.fade) + gain
        self.exchanges += batch.exchanges

    def as_dict(self) -> dict[str, Any]:
        """Return the fields, ready for JSON."""
        values = asdict(self)
        return {**values, "tallies": _as_before(values["tallies"])}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> State:
        """Return the state that `as_dict` wrote."""
        tallies = {name: Tally(**tally) for name, tally in values["tallies"].items()}
        return cls(values["exchanges"], dict(values["masses"]), tallies)

    def renew(self, lives: Mapping[str, int]) -> None:
        """Begin a new life for every category whose alarm was cleared."""
        for name, tally in self.tallies.items():
            if tally.life < lives.get(name, 0):
                walks = len(tally.heights)
                self.tallies[name] = Tally.new(walks, life=lives[name], since=self.exchanges)

    def _take_part(self, name: str, slopes: Sequence[int], batch: Batch, life: int) -> None:
        tally = self.tallies.get(name)
        if tally is None or tally.life < life:
            tally = Tally.new(len(slopes), life=life, since=self.exchanges)
        part = batch.parts.get(name)
        if batch.lives.get(name, 0) != life:
            # Counted before the alarm was cleared: it belongs to the life that ended.
            tally.since += batch.exchanges
            tally.at += batch.exchanges
        elif part is not None:
            tally = tally.after(part, self.exchanges, slopes)
        self.tallies[name] = tally


def _as_before(counts: Mapping[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Return counts without an `unjudged` of 0, so that older versions can read them, too."""
    return {
        name: {key: value for key, value in each.items() if value or key != "unjudged"}
        for name, each in counts.items()
    }
