"""The live prior: how likely an answer carries a risk, given those that came before it.

Calibrated evidence stays a likelihood ratio where risk becomes more or less frequent; only the
prior moves. Its maximum likelihood estimate is the fixed point of an expectation-maximisation
step: the mean, over the answers seen, of the probability that each is risky under the present
estimate (Saerens, Latinne and Decaestecker, Neural Computation 14, 2002). Here it is recursive
and forgets: each answer adds its probability to a mass that fades, and

    prior = (mass + strength * start) / (weight + strength)

where the weight is what the mass would be had every answer been risky. A conversation has a mass of
its own, and the deployment's prior as its start.

**Bounds.** In log-odds a prior stays within `start - fall` and `start + rise`. So no traffic,
however long and however it was chosen, makes an answer's live risk less than evidence that is
`fall` weaker would have made it; nor can the prior run away. The mass itself is bounded by the
half-life alone: where traffic changes, a prior leaves its bound once the mass is there.

**Monotone.** More suspicious evidence never lowers any prior, then or later. What was not found
at all is taken as neutral: it leaves the prior where it is, but for the pull of the start.

This module does not know alarms, stores or what a prior is used for.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from typing import TYPE_CHECKING

from guard.live.ledger import MICRO

if TYPE_CHECKING:
    from collections.abc import Mapping

    from guard.live.ledger import State
    from guard.live.settings import LiveSettings


def decay(half_life: float) -> float:
    """Return what is left of a weight after one exchange."""
    return math.exp(-math.log(2) / half_life)


def bounds(start: float, settings: LiveSettings) -> tuple[float, float]:
    """Return between which values in (0, 1) a prior that starts at `start` stays."""
    odds = start / (1 - start)
    low, high = odds * math.exp(-settings.fall), odds * math.exp(settings.rise)
    return low / (1 + low), high / (1 + high)


def weight_of(exchanges: int, half_life: float) -> float:
    """Return the weight behind so many exchanges."""
    left = decay(half_life)
    return (1 - left**exchanges) / (1 - left)


def priors_of(state: State, start: Mapping[str, float], settings: LiveSettings) -> dict[str, float]:
    """Return the deployment's priors in a store's state."""
    weight = weight_of(state.exchanges, settings.half_life)
    found = {}
    for name, prior in start.items():
        mass = state.masses.get(name, 0) / MICRO
        low, high = bounds(prior, settings)
        rate = (mass + settings.strength * prior) / (weight + settings.strength)
        found[name] = min(high, max(low, rate))
    return found


class Priors:
    """The priors of a deployment and of its conversations. Not safe to share; see `LiveRisk`.

    Attributes:
        names: the categories, in the order of all lists here.
        rates: the deployment's priors.
    """

    def __init__(self, start: Mapping[str, float], settings: LiveSettings) -> None:
        """Begin at `start`."""
        self.names = tuple(start)
        self.rates = list(start.values())
        self.decay = decay(settings.half_life)
        self._settings = settings
        self._start = tuple(start.values())
        self._anchors = tuple(settings.strength * prior for prior in start.values())
        self._bounds = tuple(bounds(prior, settings) for prior in start.values())
        self._bound = settings.evidence_bound
        self._masses = [0.0] * len(self.names)
        self._weight = 0.0
        self._conversations = _Conversations(settings)

    def load(self, masses: Mapping[str, float], exchanges: int) -> None:
        """Take what a store holds, in exchanges, for the deployment's."""
        self._weight = weight_of(exchanges, self._settings.half_life)
        self._masses = [masses.get(name, 0.0) for name in self.names]
        scale = 1.0 / (self._weight + self._settings.strength)
        for number, (low, high) in enumerate(self._bounds):
            rate = (self._masses[number] + self._anchors[number]) * scale
            self.rates[number] = min(high, max(low, rate))

    def within(self, conversation: str | None) -> dict[str, float]:
        """Return the priors for the next exchange of `conversation`, `None` for no particular."""
        rates = self.rates
        if conversation is not None:
            known = self._conversations.known(conversation)
            if known is not None:
                rates = known.rates(rates, self._bounds)
        return dict(zip(self.names, rates, strict=True))

    def update(self, evidence: Mapping[str, float], conversation: str | None) -> list[float]:
        """Move the priors by an exchange's evidence; return by how much each mass grew.

        Args:
            evidence: log likelihood ratios; what is no number counts as the bound.
            conversation: which one the exchange belongs to.
        """
        bound, ratio_of = self._bound, evidence.get
        ratios = [
            1.0
            if (value := ratio_of(name)) is None
            else math.exp(value)
            if -bound < value < bound
            else self._bounded(value)
            for name in self.names
        ]
        if conversation is not None:
            self._conversations.get(conversation, len(ratios)).update(
                ratios, self.rates, self._bounds
            )
        left, masses, rates = self.decay, self._masses, self.rates
        self._weight = self._weight * left + 1.0
        scale = 1.0 / (self._weight + self._settings.strength)
        chances = []
        for number, (low, high) in enumerate(self._bounds):
            ratio, rate = ratios[number], rates[number]
            chance = rate * ratio / (rate * ratio + 1.0 - rate)
            chances.append(chance)
            masses[number] = mass = masses[number] * left + chance
            rate = (mass + self._anchors[number]) * scale
            rates[number] = low if rate < low else min(rate, high)
        return chances

    def _bounded(self, evidence: float) -> float:
        """Return the likelihood ratio of evidence beyond the bound, or of no number."""
        return math.exp(-self._bound if evidence < 0 else self._bound)


class _Conversation:
    """The masses of one conversation."""

    __slots__ = ("_left", "_masses", "_strength", "_weight")

    def __init__(self, size: int, settings: LiveSettings) -> None:
        self._left = decay(settings.conversation_half_life)
        self._strength = settings.conversation_strength
        self._masses = [0.0] * size
        self._weight = 0.0

    def rates(self, start: list[float], limits: tuple[tuple[float, float], ...]) -> list[float]:
        """Return the priors in this conversation, where the deployment's are `start`."""
        strength, scale = self._strength, 1.0 / (self._weight + self._strength)
        found = [
            (mass + strength * rate) * scale
            for mass, rate in zip(self._masses, start)  # noqa: B905  # the hot path
        ]
        return [
            low if rate < low else high if rate > high else rate  # noqa: FURB136  # as above
            for rate, (low, high) in zip(found, limits)  # noqa: B905
        ]

    def update(
        self, ratios: list[float], start: list[float], limits: tuple[tuple[float, float], ...]
    ) -> None:
        """Take in the likelihood ratios of an exchange."""
        left = self._left
        self._masses = [
            mass * left + rate * ratio / (rate * ratio + 1.0 - rate)
            for mass, rate, ratio in zip(  # noqa: B905  # the hot path
                self._masses, self.rates(start, limits), ratios
            )
        ]
        self._weight = self._weight * left + 1.0


class _Conversations:
    """The conversations that spoke last."""

    def __init__(self, settings: LiveSettings) -> None:
        self._settings = settings
        self._known: OrderedDict[str, _Conversation] = OrderedDict()

    def known(self, name: str) -> _Conversation | None:
        return self._known.get(name)

    def get(self, name: str, size: int) -> _Conversation:
        """Return a conversation, a new one where it is not remembered."""
        found = self._known.get(name)
        if found is None:
            found = self._known[name] = _Conversation(size, self._settings)
            if len(self._known) > self._settings.conversations:
                self._known.popitem(last=False)
        else:
            self._known.move_to_end(name)
        return found
