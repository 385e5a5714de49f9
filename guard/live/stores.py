"""Where live state is kept: the protocol, and the process's own memory.

A store joins batches of many replicas into one state. Each batch counts exactly once: it comes
with its replica's name and a sequence number that only rises, and what was counted is not
counted again. Alarms stand in the store until a person clears them, whatever profile counts
are kept under.

This module does not know databases.
"""

from __future__ import annotations

import math
import re
import threading
import time
from collections import deque
from copy import deepcopy
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Protocol

from guard.errors import ConfigurationError
from guard.live.alarms import Alarm, Transition
from guard.live.ledger import KEPT, State

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from guard.live.ledger import Batch
    from guard.live.profile import Profile


_NAME: Final = re.compile(r"[\w.:/@+-]{1,128}")


def checked_name(name: str) -> str:
    """Return a deployment's name.

    Raises:
        ConfigurationError: it has other characters than letters, digits and `.:/@+-_`, or too
            many of them.
    """
    if not _NAME.fullmatch(name):
        raise ConfigurationError(
            f"`{name}` is no name for live state: take up to 128 letters, digits and `.:/@+-_`"
        )
    return name


def opened_behind(latest: float | None) -> float:
    """Return when a profile is opened that is opened now, behind the `latest` of all replicas.

    Seconds since 1970; a clock that is behind another replica's must not make it an older one.
    """
    now = time.time()
    return now if latest is None else max(now, math.nextafter(latest, math.inf))


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What a store holds of one profile.

    Attributes:
        state: what all batches add up to.
        alarms: those that stand, by category.
        lives: how often each category's alarms were cleared.
        sequence: the last batch of the asking replica that was counted, 0 for none.
    """

    state: State
    alarms: Mapping[str, Alarm]
    lives: Mapping[str, int]
    sequence: int


@dataclass(frozen=True, slots=True)
class History:
    """What happened, the oldest first.

    Attributes:
        transitions: alarms raised and cleared.
        points: evidence over time, as `LiveRisk` writes them.
    """

    transitions: Sequence[Transition] = ()
    points: Sequence[Mapping[str, Any]] = ()


def lost_alarms(transitions: Sequence[Transition], snapshot: Snapshot) -> dict[str, Alarm]:
    """Return alarms that were raised and never cleared, and which a store does not hold any more.

    Args:
        transitions: what happened, the oldest first, read behind `snapshot`.
        snapshot: what the store holds.
    """
    latest = {each.alarm.category: each for each in transitions}
    return {
        name: each.alarm
        for name, each in latest.items()
        if each.kind == "raised"
        and name not in snapshot.alarms
        and each.alarm.life >= snapshot.lives.get(name, 0)
    }


class Store(Protocol):
    """Keeps live state. Safe to share between threads.

    Every method raises `LiveStoreError` where the store cannot be reached; nothing has then
    been counted, or it has been and the next try finds that out.

    Attributes:
        name: of the deployment (model, tag, tenant): what shares a name shares a state.
        seconds: how long a replica may keep what it saw to itself; `None` where it may for
            ever, since nobody else reads the store.
        spool: folder in which a replica keeps what is not delivered yet, so that it survives
            the replica; `None` for its memory alone.
    """

    name: str
    seconds: float | None
    spool: Path | None

    def open(self, profile: Profile) -> None:
        """Make ready for counts under `profile`, and remember it for readers."""
        ...

    def read(self, digest: str, replica: str = "") -> Snapshot:
        """Return what there is under the profile with `digest`."""
        ...

    def merge(self, replica: str, sequence: int, batch: Batch) -> Snapshot:
        """Count `batch`, unless it was counted; return what there is then."""
        ...

    def clear(self, transition: Transition) -> bool:
        """Take down an alarm and keep its transition; say whether that very alarm stood."""
        ...

    def history(self, digest: str) -> History:
        """Return what happened."""
        ...

    def profile(self) -> Profile | None:
        """Return the profile that was opened last, `None` where there is none."""
        ...

    def close(self) -> None:
        """Let go of connections; the store opens them anew where it is used again."""
        ...


@dataclass(slots=True)
class Book:
    """Everything that a store holds of one deployment; the rules that all stores follow.

    Attributes:
        states: by the profile's digest.
        alarms: those that stand.
        lives: how often each category's alarms were cleared.
        sequences: the last counted batch of each replica.
        transitions: the latest.
        points: the latest by the profile's digest.
    """

    states: dict[str, State] = field(default_factory=dict)
    alarms: dict[str, Alarm] = field(default_factory=dict)
    lives: dict[str, int] = field(default_factory=dict)
    sequences: dict[str, int] = field(default_factory=dict)
    transitions: deque[Transition] = field(default_factory=lambda: deque(maxlen=KEPT))
    points: dict[str, deque[Mapping[str, Any]]] = field(default_factory=dict)

    def count(self, replica: str, sequence: int, batch: Batch) -> bool:
        """Take in a batch; say whether it is new."""
        if sequence <= self.sequences.get(replica, 0):
            return False
        self.sequences[replica] = sequence
        for category, life in batch.lives.items():
            # A store that lost its state learns from its replicas.
            self.lives[category] = max(life, self.lives.get(category, 0))
        self.states.setdefault(batch.digest, State()).take(batch, self.lives)
        for values in batch.raised:
            self._stand(Transition.from_dict(values))
        kept = self.points.setdefault(batch.digest, deque(maxlen=KEPT))
        kept.extend(batch.points)
        return True

    def clear(self, transition: Transition) -> bool:
        """Take down an alarm."""
        category, life = transition.alarm.category, transition.alarm.life
        standing = self.alarms.get(category)
        if standing is None or standing.life != life:
            return False
        del self.alarms[category]
        self.lives[category] = life + 1
        self.transitions.append(transition)
        return True

    def snapshot(self, digest: str, replica: str) -> Snapshot:
        """Return a copy of what there is."""
        state = deepcopy(self.states.get(digest, State()))
        state.renew(self.lives)
        return Snapshot(state, dict(self.alarms), dict(self.lives), self.sequences.get(replica, 0))

    def _stand(self, transition: Transition) -> None:
        alarm = transition.alarm
        if alarm.category in self.alarms or alarm.life < self.lives.get(alarm.category, 0):
            return
        self.alarms[alarm.category] = alarm
        self.lives[alarm.category] = max(alarm.life, self.lives.get(alarm.category, 0))
        self.transitions.append(transition)


class MemoryStore:
    """Keeps state in this process; it is gone with it.

    Args:
        name: of the deployment.
    """

    seconds: float | None = None
    spool: Path | None = None

    def __init__(self, name: str = "default") -> None:
        """Begin with nothing."""
        self.name = checked_name(name)
        self._book = Book()
        self._profile: Profile | None = None
        self._lock = threading.Lock()

    def open(self, profile: Profile) -> None:
        """See `Store`."""
        self._profile = profile

    def read(self, digest: str, replica: str = "") -> Snapshot:
        """See `Store`."""
        with self._lock:
            return self._book.snapshot(digest, replica)

    def merge(self, replica: str, sequence: int, batch: Batch) -> Snapshot:
        """See `Store`."""
        with self._lock:
            self._book.count(replica, sequence, batch)
            return self._book.snapshot(batch.digest, replica)

    def clear(self, transition: Transition) -> bool:
        """See `Store`."""
        with self._lock:
            return self._book.clear(transition)

    def history(self, digest: str) -> History:
        """See `Store`."""
        with self._lock:
            points = self._book.points.get(digest, ())
            return History(tuple(self._book.transitions), tuple(points))

    def profile(self) -> Profile | None:
        """See `Store`."""
        return self._profile

    def close(self) -> None:
        """See `Store`."""
