"""What a class says about live risk: how far the prior may move, and what raises an alarm.

This module does not know what is observed or how a test works.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, Literal, get_args

from guard.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Iterator

AlarmAction = Literal["notify", "tighten", "fallback", "quarantine"]
"""What an alarm does while it stands, from mildest to most severe.

`notify` tells; `tighten` judges by the next stricter class; `fallback` asks another backend;
`quarantine` blocks every response.
"""

Posture = Literal["normal", "tighten", "fallback", "quarantine"]
"""How the deployment stands: the most severe action of its alarms; `normal` without one."""

ACTIONS: Final[tuple[AlarmAction, ...]] = get_args(AlarmAction)

_OPEN_RANGES: Final = (
    ("strength", 1e9, " exchanges"),
    ("half_life", 1e9, " exchanges"),
    ("conversation_strength", 1e9, " exchanges"),
    ("conversation_half_life", 1e9, " exchanges"),
    ("evidence_bound", 50, " nats"),
    ("alpha", 0.5, ""),
    ("tolerated", 1, ""),
)


@dataclass(frozen=True, slots=True)
class LiveSettings:
    """How live risk is followed. Defaults suit a chat deployment.

    Attributes:
        rise: how far a prior may rise above its start, in log-odds (nats), 0 or more.
        fall: how far it may fall below its start, likewise. This bounds what benign traffic
            can talk down: evidence must be `fall` stronger at most.
        strength: how many exchanges the start of the deployment's prior counts as, above 0.
        half_life: exchanges after which an exchange counts half for the deployment's prior.
        conversation_strength: how many exchanges the deployment's prior counts as in a
            conversation, above 0.
        conversation_half_life: exchanges after which an exchange counts half there.
        conversations: how many conversations are remembered; the one that was silent longest
            is forgotten first.
        evidence_bound: evidence moves a prior by no more than this says, in nats, above 0.
        tolerated: the rate of risky answers that is within what the class tolerates, as a
            fraction of exchanges in (0, 1).
        tolerated_of: the same for single categories.
        alpha: chance of a false alarm, over all categories together, in (0, 0.5).
        horizon: exchanges over which `alpha` holds for the test for change; the test over the
            whole life needs none.
        action: what an alarm does.
        action_of: the same for single categories.

    Raises:
        ConfigurationError: everything that is out of its range, at once.
    """

    rise: float = 2.5
    fall: float = 0.5
    strength: float = 200.0
    half_life: float = 2_000.0
    conversation_strength: float = 10.0
    conversation_half_life: float = 20.0
    conversations: int = 10_000
    evidence_bound: float = 8.0
    tolerated: float = 0.001
    tolerated_of: Mapping[str, float] = field(default_factory=dict)
    alpha: float = 0.01
    horizon: int = 10_000
    action: AlarmAction = "notify"
    action_of: Mapping[str, AlarmAction] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Check every range; freeze the mappings."""
        if problems := list(self._problems()):
            raise ConfigurationError(problems)
        for name in ("tolerated_of", "action_of"):
            object.__setattr__(self, name, MappingProxyType(dict(getattr(self, name))))

    def tolerates(self, category: str) -> float:
        """Return the tolerated rate of `category`."""
        return self.tolerated_of.get(category, self.tolerated)

    def acts(self, category: str) -> AlarmAction:
        """Return what an alarm of `category` does."""
        return self.action_of.get(category, self.action)

    def as_dict(self) -> dict[str, Any]:
        """Return the settings, ready for JSON; `LiveSettings(**it)` is equal to them."""
        # `asdict` cannot copy the frozen mappings.
        return {name: _plain(getattr(self, name)) for name in self.__dataclass_fields__}

    def __reduce__(self) -> tuple[Any, ...]:
        return _again, (self.as_dict(),)

    def _problems(self) -> Iterator[str]:
        for name in ("rise", "fall"):
            if not _within(getattr(self, name), 0, 20, closed=True):
                yield f"`{name}` must be from 0 to 20 nats, not {getattr(self, name)!r}"
        for name, top, unit in _OPEN_RANGES:
            if not _within(getattr(self, name), 0, top):
                value = getattr(self, name)
                yield f"`{name}` must be above 0 and below {top:g}{unit}, not {value!r}"
        for name in ("conversations", "horizon"):
            value = getattr(self, name)
            if not (isinstance(value, int) and 1 <= value <= 1_000_000_000):
                yield f"`{name}` must be a whole number from 1, not {value!r}"
        for category, rate in self.tolerated_of.items():
            if not _within(rate, 0, 1):
                yield f"`tolerated_of[{category}]` must be above 0 and below 1, not {rate!r}"
        yield from self._unknown_actions()

    def _unknown_actions(self) -> Iterator[str]:
        given: dict[str, object] = {"action": self.action}
        given |= {f"action_of[{name}]": action for name, action in self.action_of.items()}
        for name, action in given.items():
            if action not in ACTIONS:
                yield f"`{name}` must be one of {', '.join(ACTIONS)}, not {action!r}"


def _within(value: object, low: float, high: float, *, closed: bool = False) -> bool:
    """Return whether `value` is a number between `low` and `high`."""
    if isinstance(value, bool) or not isinstance(value, int | float) or math.isnan(value):
        return False
    return low <= value <= high if closed else low < value < high


def _plain(value: Any) -> Any:
    return dict(value) if isinstance(value, Mapping) else value


def _again(values: dict[str, Any]) -> LiveSettings:
    return LiveSettings(**values)
