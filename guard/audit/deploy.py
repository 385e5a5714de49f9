"""Deploy limits: which security classes a risk profile is good enough for.

A class's `deploy` section names rates and effects, each with the highest upper bound that a
model may have shown. Ranks order the classes: the higher, the more there is to lose, and the
more a model must have shown. A profile *reaches* a class when it meets its limits and those of
every class of a lower rank; a model that reaches none may only run where no tag is asked for.

Closed by default: a figure that is missing, rests on too few answers or has a lower level than
`LEVEL` does not meet its limit, and a class without a `deploy` section is never reached, since
nothing was shown for it.

This module does not know who vouches for a profile, nor how good the figures are.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

from guard.audit.exact import digest

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from guard.audit.profile import Effect, Profile, Rate
    from guard.security_class import Deploy, SecurityClass

LEVEL: Final = 0.95
"""The least level of a bound that counts."""


@dataclass(frozen=True, slots=True)
class Unmet:
    """A limit that is not met, figure beside limit.

    Attributes:
        kind: what is limited. `level` stands for bounds that hold too seldom.
        name: the category, mechanism or effect.
        figure: upper bound, answers or level; `None` where the profile has no such figure.
        limit: the highest upper bound, or the least number of answers or level.
    """

    kind: Literal["rate", "effect", "samples", "level"]
    name: str
    figure: float | None
    limit: float

    def __str__(self) -> str:
        """Return the sentence that people read."""
        if self.figure is None:
            return f"{self.name}: not audited; the limit is {self.limit:g}"
        if self.kind == "samples":
            return f"{self.name}: {self.figure:g} answers, fewer than {self.limit:g}"
        if self.kind == "level":
            return f"{self.name}: bounds of level {self.figure:g}, lower than {self.limit:g}"
        figure = above(self.figure, self.limit)
        return f"{self.name}: upper bound {figure} is above the limit {self.limit:g}"


def above(figure: float, limit: float) -> str:
    """Return a figure above a limit, rounded only as far as it still reads so."""
    shown = f"{figure:.4f}"
    return shown if float(shown) > limit else f"{figure!r}"


def unmet(profile: Profile | None, security_class: SecurityClass) -> tuple[Unmet, ...]:
    """Return every deploy limit of a class that a profile does not meet.

    Args:
        profile: what was shown; `None` for nothing at all.
        security_class: the class; without a `deploy` section it asks for nothing.
    """
    deploy = security_class.deploy
    return () if deploy is None else missing(profile, deploy)


def missing(profile: Profile | None, deploy: Deploy) -> tuple[Unmet, ...]:
    """Return every one of some limits that a profile does not meet; see `unmet`."""
    found: list[Unmet] = []
    for name, limit in deploy.rates.items():
        found += _rate(_rates(profile, name), name, limit, deploy.samples)
    for name, limit in deploy.effects.items():
        effect = None if profile is None else profile.effects.get(name)
        found += _bound(effect, "effect", name, limit)
    return tuple(found)


def reaches(
    profile: Profile, security_class: SecurityClass, classes: Iterable[SecurityClass]
) -> bool:
    """Return whether a profile reaches a class, given the classes that may lie below it."""
    lower = (item for item in classes if item.rank < security_class.rank)
    return security_class.deploy is not None and not any(
        unmet(profile, item) for item in (security_class, *lower)
    )


def highest_class(profile: Profile, classes: Sequence[SecurityClass]) -> SecurityClass | None:
    """Return the highest class that a profile reaches, `None` where it reaches none.

    Of several classes of the same rank it is the first.
    """
    reached = [item for item in classes if reaches(profile, item, classes)]
    return max(reached, key=lambda item: item.rank, default=None)


def limits_digest(security_class: SecurityClass) -> str:
    """Return the SHA-256 of a class's deploy limits, which changes with each of them."""
    deploy = security_class.deploy
    return digest(
        deploy and deploy.model_dump(mode="json", include={"rates", "effects", "samples"})
    )


def _rates(profile: Profile | None, name: str) -> list[Rate]:
    """Return the figures of a name; `exposure` is a category and a mechanism, so both count."""
    if profile is None:
        return []
    places = (profile.categories, profile.mechanisms)
    return [place[name] for place in places if name in place]


def _rate(rates: Sequence[Rate], name: str, limit: float, samples: int) -> Iterator[Unmet]:
    for rate in rates or (None,):
        yield from _bound(rate, "rate", name, limit)
        if rate is not None and rate.n < samples:
            yield Unmet("samples", name, rate.n, samples)


def _bound(
    figure: Rate | Effect | None, kind: Literal["rate", "effect"], name: str, limit: float
) -> Iterator[Unmet]:
    if figure is None:
        yield Unmet(kind, name, None, limit)
        return
    # Written so that NaN, which no profile can hold, would not be met either.
    if not figure.upper <= limit:
        yield Unmet(kind, name, figure.upper, limit)
    if not figure.level >= LEVEL:
        yield Unmet("level", name, figure.level, LEVEL)
