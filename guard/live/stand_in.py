"""The live risk of the backend that stands in for another while an alarm asks for a `fallback`.

The stand-in is another model, so that it has a live risk of its own: what it answers says nothing
about the one that it stands in for, neither for an alarm nor against it. It answers only as long as
nothing else stands against the deployment: a quarantine is one for both, and where its own risk is
above what the class tolerates there is nobody left to stand in for it.

This module does not know backends or who asks them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping


class Followed(Protocol):
    """What follows a live risk; `guard.live.LiveRisk` is one."""

    def priors(self, conversation: str | None = None) -> Mapping[str, float]:
        """Return the priors before an exchange, in (0, 1)."""
        ...

    def observe(self, evidence: Mapping[str, float], *, conversation: str | None = None) -> object:
        """Take in what an exchange showed."""
        ...

    @property
    def posture(self) -> str:
        """`normal`, `tighten`, `fallback` or `quarantine`."""
        ...


class StandIn:
    """Follows the stand-in, under a quarantine of the deployment as a whole.

    Args:
        own: what follows the stand-in.
        first: what follows the backend that it stands in for.
    """

    def __init__(self, own: Followed, first: Followed) -> None:
        """Observe nothing yet."""
        self._own = own
        self._first = first

    @property
    def own(self) -> Followed:
        """What follows the stand-in itself."""
        return self._own

    @property
    def posture(self) -> str:
        """As of the stand-in itself; `quarantine` where the deployment is under one."""
        return "quarantine" if self._first.posture == "quarantine" else self._own.posture

    def priors(self, conversation: str | None = None) -> Mapping[str, float]:
        """Return the stand-in's priors before an exchange, in (0, 1)."""
        return self._own.priors(conversation)

    def observe(self, evidence: Mapping[str, float], *, conversation: str | None = None) -> object:
        """Take in what an answer of the stand-in showed."""
        return self._own.observe(evidence, conversation=conversation)
