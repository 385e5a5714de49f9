"""Live state as people and programs read it: priors, evidence, alarms, what happened.

This module does not know how it came about or who reads it.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from guard.live.alarms import posture_of
from guard.live.ledger import Tally
from guard.live.prior import bounds, priors_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from guard.live.alarms import Alarm, Transition
    from guard.live.ledger import State
    from guard.live.profile import Profile
    from guard.live.settings import Posture
    from guard.live.stores import History, Store


@dataclass(frozen=True, slots=True)
class Evidence:
    """What speaks for a rate above what the class tolerates, since the last clearing.

    Attributes:
        exchanges: how many were counted.
        exceedances: how many of them reached the threshold.
        unjudged: in how many of those a detector failed.
        threshold: evidence from which an exchange counts, in nats.
        tolerated: the tolerated rate of risky answers, in (0, 1).
        null_rate: the highest rate of exceedances that may go with it, in (0, 1).
        log_wealth: evidence of the test over the whole life, in nats.
        log_needed: where it raises the alarm.
        nearness: the test for change: 0 at rest, 1 at the alarm, or more.
        delay: about how many exchanges an alarm takes where 2 % of answers are risky; `None`
            where that is too few to be seen.
    """

    exchanges: int
    exceedances: int
    unjudged: int
    threshold: float
    tolerated: float
    null_rate: float
    log_wealth: float
    log_needed: float
    nearness: float
    delay: int | None


@dataclass(frozen=True, slots=True)
class CategoryState:
    """One category.

    Attributes:
        prior: the live prior of the deployment, in (0, 1).
        start: what it began with.
        lowest: what it cannot fall below.
        highest: what it cannot rise above.
        evidence: `None` where the category is not watched.
        alarm: the one that stands, `None` without one.
    """

    prior: float
    start: float
    lowest: float
    highest: float
    evidence: Evidence | None
    alarm: Alarm | None


@dataclass(frozen=True, slots=True)
class LiveState:
    """A deployment's live state.

    Attributes:
        name: the deployment's.
        posture: how it stands.
        exchanges: how many were seen, over all replicas.
        categories: by name.
        alarms: those that stand, by category.
        transitions: alarms raised and cleared, the oldest first.
        points: evidence over time, the oldest first; one for each exceedance: `time`,
            `category`, `at` (exchanges of the deployment), `life`, `exceedances`, `log_wealth`,
            `nearness`, `prior`.
    """

    name: str
    posture: Posture
    exchanges: int
    categories: Mapping[str, CategoryState]
    alarms: Mapping[str, Alarm]
    transitions: Sequence[Transition]
    points: Sequence[Mapping[str, Any]]

    def as_dict(self) -> dict[str, Any]:
        """Return the state, ready for JSON."""
        return asdict(self)


def describe(
    name: str,
    profile: Profile,
    state: State,
    alarms: Mapping[str, Alarm],
    history: History,
) -> LiveState:
    """Return the live state of counts under `profile`."""
    priors = priors_of(state, profile.start, profile.settings)
    categories = {
        category: CategoryState(
            priors[category],
            start,
            *bounds(start, profile.settings),
            _evidence(profile, state, category),
            alarms.get(category),
        )
        for category, start in profile.start.items()
    }
    return LiveState(
        name,
        posture_of(alarms.values()),
        state.exchanges,
        categories,
        dict(alarms),
        tuple(history.transitions),
        tuple(history.points),
    )


def read_state(store: Store) -> LiveState | None:
    """Return the live state in a store, `None` where nobody has written any."""
    profile = store.profile()
    if profile is None:
        return None
    snapshot = store.read(profile.digest)
    history = store.history(profile.digest)
    return describe(store.name, profile, snapshot.state, snapshot.alarms, history)


def _evidence(profile: Profile, state: State, category: str) -> Evidence | None:
    watch = profile.watches.get(category)
    if watch is None:
        return None
    tally = state.tallies.get(category, Tally.new(len(watch.walks.slopes)))
    exchanges = state.exchanges - tally.since
    delay = watch.delay(0.02)
    return Evidence(
        exchanges,
        tally.exceedances,
        tally.unjudged,
        watch.operating.threshold,
        watch.tolerated,
        watch.null_rate,
        watch.wealth.log(tally.exceedances, exchanges),
        watch.wealth.needed,
        watch.walks.nearness(tally.height_at(state.exchanges), tally.peaks),
        round(delay) if delay < 1e9 else None,
    )
