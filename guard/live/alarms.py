"""Alarms and transitions: what stands, and each change of it, as records.

This module does not know tests, stores or who is told.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol

from guard.live.settings import ACTIONS, AlarmAction, Posture

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from guard.live.watch import Test


@dataclass(frozen=True, slots=True)
class Alarm:
    """An alarm that stands until a person clears it.

    Attributes:
        category: whose rate is above what the class tolerates.
        action: what it does while it stands.
        test: which test raised it.
        time: when, in seconds since 1970.
        life: how often alarms of this category were cleared before.
        exchanges: exchanges since the last clearing, up to the alarm.
        exceedances: how many of them reached the threshold.
        log_wealth: evidence of the test over the whole life then, in nats.
        nearness: height of the walks then; 1 is the alarm of the test for change.
        unjudged: how many of the exceedances are ones in which a detector failed, so that nobody
            knows what those answers were.
    """

    category: str
    action: AlarmAction
    test: Test
    time: float
    life: int
    exchanges: int
    exceedances: int
    log_wealth: float
    nearness: float
    unjudged: int = 0

    def as_dict(self) -> dict[str, Any]:
        """Return the fields, ready for JSON; `Alarm(**it)` is equal to it."""
        values = asdict(self)
        if not self.unjudged:
            # Replicas of an older version read alarms, too.
            del values["unjudged"]
        return values


@dataclass(frozen=True, slots=True)
class Transition:
    """One change of what stands.

    Attributes:
        id: the same wherever the same alarm is raised or cleared; receivers drop a second one.
        kind: `raised`, or `cleared` by a person.
        time: when, in seconds since 1970.
        name: the deployment's.
        alarm: the alarm that was raised or cleared.
        before: how the deployment stood.
        after: how it stands now.
        by: who cleared it; `""` where it was raised.
        reason: why it was cleared, or the figures that raised it.
    """

    id: str
    kind: Literal["raised", "cleared"]
    time: float
    name: str
    alarm: Alarm
    before: Posture
    after: Posture
    by: str
    reason: str

    def as_dict(self) -> dict[str, Any]:
        """Return the fields, ready for JSON."""
        return {**asdict(self), "alarm": self.alarm.as_dict()}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Transition:
        """Return the transition that `as_dict` wrote."""
        return cls(**{**values, "alarm": Alarm(**values["alarm"])})


class Notifier(Protocol):
    """Is told of every transition; must return soon. What it raises is logged and dropped."""

    def __call__(self, transition: Transition, /) -> None:
        """Take a transition."""


def posture_of(alarms: Iterable[Alarm]) -> Posture:
    """Return how a deployment with these alarms stands."""
    worst = max((ACTIONS.index(alarm.action) for alarm in alarms), default=0)
    action = ACTIONS[worst]
    return "normal" if action == "notify" else action


def raised(name: str, alarm: Alarm, standing: Mapping[str, Alarm]) -> Transition:
    """Return the transition by which `alarm` joins those that stand."""
    return Transition(
        id=f"{name}/{alarm.category}/{alarm.life}/raised",
        kind="raised",
        time=alarm.time,
        name=name,
        alarm=alarm,
        before=posture_of(standing.values()),
        after=posture_of([*standing.values(), alarm]),
        by="",
        reason=_figures(alarm),
    )


def cleared(  # noqa: PLR0913  # a person's act has all of these
    name: str, alarm: Alarm, standing: Mapping[str, Alarm], *, time: float, by: str, reason: str
) -> Transition:
    """Return the transition by which `alarm` leaves those that stand."""
    rest = [each for each in standing.values() if each.category != alarm.category]
    return Transition(
        id=f"{name}/{alarm.category}/{alarm.life}/cleared",
        kind="cleared",
        time=time,
        name=name,
        alarm=alarm,
        before=posture_of(standing.values()),
        after=posture_of(rest),
        by=by,
        reason=reason,
    )


def _figures(alarm: Alarm) -> str:
    figures = f"{alarm.exceedances} exceedances in {alarm.exchanges} exchanges"
    failed = f", {alarm.unjudged} of them with a detector that failed" if alarm.unjudged else ""
    return figures + failed
