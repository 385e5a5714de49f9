"""What a deployment's live risk is counted under: settings, starting priors, thresholds.

Counts under one profile cannot be joined with counts under another. Each profile has a digest,
and stores keep its counts apart; alarms stand across profiles.

This module does not know what is observed.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from functools import cached_property
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from guard.errors import ConfigurationError
from guard.live.operating import Operating
from guard.live.settings import LiveSettings
from guard.live.watch import watches

if TYPE_CHECKING:
    from collections.abc import Mapping

    from guard.live.watch import Watch


@dataclass(frozen=True)
class Profile:
    """Settings, starting priors and thresholds.

    Attributes:
        settings: the class's.
        start: each category's prior in (0, 1) to begin with.
        confusion: what validation says about the watched categories' thresholds.

    Raises:
        ConfigurationError: everything that is wrong, at once.
    """

    settings: LiveSettings
    start: Mapping[str, float]
    confusion: Mapping[str, Operating]

    def __post_init__(self) -> None:
        """Check the priors; freeze the mappings."""
        problems = [
            f"the prior of `{name}` must be above 0 and below 1, not {prior!r}"
            for name, prior in self.start.items()
            if not 0 < prior < 1
        ]
        problems += [
            f"`{name}` has a threshold and no prior to start from: give it one, or leave it out"
            for name in self.confusion
            if name not in self.start
        ]
        if not self.start:
            problems.append("no category has a prior: there is nothing to follow")
        if problems:
            raise ConfigurationError(problems)
        for name in ("start", "confusion"):
            object.__setattr__(self, name, MappingProxyType(dict(getattr(self, name))))

    @cached_property
    def watches(self) -> Mapping[str, Watch]:
        """Both tests of each watched category."""
        return watches(self.confusion, self.settings)

    @cached_property
    def digest(self) -> str:
        """Twelve hexadecimal digits that say what the counts depend on."""
        # What an alarm does, or how many conversations are remembered, changes no count.
        values = self.as_dict()
        for name in ("action", "action_of", "conversations", "rise", "fall"):
            del values["settings"][name]
        text = json.dumps(values, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:12]

    def as_dict(self) -> dict[str, Any]:
        """Return the profile, ready for JSON."""
        return {
            "settings": self.settings.as_dict(),
            "start": dict(self.start),
            "confusion": {name: asdict(item) for name, item in self.confusion.items()},
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Profile:
        """Return the profile that `as_dict` wrote."""
        return cls(
            LiveSettings(**values["settings"]),
            values["start"],
            {name: Operating(**item) for name, item in values["confusion"].items()},
        )
