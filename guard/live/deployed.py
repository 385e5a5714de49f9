"""Follows the live risk of a deployment as its security class asks for.

This module does not know how a prior moves or how a test works.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from guard.categories import CATEGORIES
from guard.errors import ConfigurationError
from guard.live.operating import Operating
from guard.live.profile import Profile
from guard.live.risk import LiveRisk
from guard.live.settings import LiveSettings
from guard.live.watch import choose

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from guard.calibration import Confusion
    from guard.detectors.base import Detector
    from guard.live.alarms import Notifier
    from guard.live.stores import Store
    from guard.security_class import SecurityClass


def follow(
    security_class: SecurityClass,
    detectors: Sequence[Detector],
    *,
    store: Store | None = None,
    notify: Sequence[Notifier] = (),
) -> LiveRisk:
    """Return what follows the live risk.

    Args:
        security_class: its priors, limits and `live` section.
        detectors: those of the deployment.
        store: where the state is kept; by default in this process's memory.
        notify: who is told of alarms.

    Raises:
        ConfigurationError: the class has no `live` section.
        LiveStoreError: the store cannot be reached.
    """
    profile = profile_of(security_class, detectors)
    return follow_under(profile, store=store, notify=notify)


def follow_under(
    profile: Profile, *, store: Store | None = None, notify: Sequence[Notifier] = ()
) -> LiveRisk:
    """Return what follows the live risk under `profile`; for the rest see `follow`.

    Raises:
        ConfigurationError: a category cannot be watched.
        LiveStoreError: the store cannot be reached.
    """
    return LiveRisk(
        profile.settings, profile.start, confusion=profile.confusion, store=store, notify=notify
    )


def profile_of(security_class: SecurityClass, detectors: Sequence[Detector]) -> Profile:
    """Return what a deployment's live risk is counted under; takes about half a second.

    Every category that some detector finds in responses has a prior. Watched are those that
    the class limits and that a detector knows its errors for (`confusions`); the threshold is
    the one that would see drift soonest.

    Args:
        security_class: its priors, limits and `live` section.
        detectors: those of the deployment.

    Raises:
        ConfigurationError: the class has no `live` section, or there is nothing to follow.
    """
    if security_class.live is None:
        raise ConfigurationError(
            f"class `{security_class.name}` does not say how live risk is followed: give it a "
            "`live` section (an empty one, `live: {}`, will do)"
        )
    settings = LiveSettings(**security_class.live.model_dump())
    start = {name: security_class.prior_of(name) for name in _responses(detectors)}
    known = _confusions(detectors)
    watched = [name for name in security_class.limits if name in known and name in start]
    confusion = {}
    for name in watched:
        thresholds = map(Operating.of, known[name])
        chosen = choose(thresholds, settings, name, watched=len(watched))
        if chosen is not None:
            confusion[name] = chosen
    return Profile(settings, start, confusion)


def _responses(detectors: Iterable[Detector]) -> list[str]:
    """Return the categories of responses that some detector finds."""
    found = dict.fromkeys(name for detector in detectors for name in detector.categories)
    return [n for n in found if n not in CATEGORIES or CATEGORIES[n].side == "response"]


def _confusions(detectors: Iterable[Detector]) -> dict[str, Sequence[Confusion]]:
    found: dict[str, Sequence[Confusion]] = {}
    for detector in detectors:
        known: Mapping[str, Sequence[Confusion]] = getattr(detector, "confusions", {})
        found |= {name: rows for name, rows in known.items() if name not in found}
    return found
