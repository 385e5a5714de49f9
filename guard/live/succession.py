"""Live risks that go on when what they are counted under changes while the process runs.

A change is all or nothing: until everything that it needs is there, nothing that serves is
touched. Where the profile stays as it is, the live risk stays, too. Where it changes, another one
goes on in its place on the same store, and takes in what the replaced one still sees of exchanges
that began before. So an alarm is never lost with the object that raised it.

This module does not know classes, guards or what makes a profile.
"""

from __future__ import annotations

import contextlib
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from weakref import WeakSet

from guard.errors import LiveStoreError
from guard.live.deployed import follow_under
from guard.live.opening import open_store
from guard.live.stores import MemoryStore

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from guard.live.alarms import Notifier
    from guard.live.profile import Profile
    from guard.live.risk import LiveRisk
    from guard.live.stores import Store


@dataclass(eq=False, slots=True)
class _Followed:
    """A live risk in use.

    Attributes:
        live: the live risk.
        tellers: who may still tell it of an exchange; they are not kept alive.
    """

    live: LiveRisk
    tellers: WeakSet[Any] = field(default_factory=WeakSet)


class Succession:
    """Keeps one live risk for each of several keys. Not safe to share between threads.

    Args:
        place: where state is kept: a path or a Redis URL; `None` for this process's memory.
        notify: who is told of alarms.
    """

    def __init__(self, place: str | Path | None, notify: Sequence[Notifier] = ()) -> None:
        """Open nothing yet."""
        self._place = place
        self._notify = tuple(notify)
        self._followed: dict[str, _Followed] = {}
        self._replaced: list[_Followed] = []

    @contextmanager
    def change(self) -> Iterator[Change]:
        """Yield a change, which holds from the end of the block.

        Where the block raises, nothing has changed: what it opened is closed again.
        """
        with ExitStack() as undo:
            change = Change(self._followed, undo, self._place, self._notify)
            yield change
            undo.pop_all()
        before, self._followed = self._followed, change.followed
        for key, old in before.items():
            new = self._followed[key]
            if new is not old:
                self._replaced.append(old)
                old.live.hand_over(new.live)
        self._let_go()

    def close(self) -> None:
        """Deliver what was seen and let go of the stores.

        Raises:
            LiveStoreError: a store cannot be reached; the others were let go of all the same.
        """
        with ExitStack() as stack:
            # The last one in goes first: what replaced ones saw is delivered by those that serve.
            for each in [*self._followed.values(), *self._replaced]:
                stack.callback(each.live.close)

    def _let_go(self) -> None:
        """Close replaced live risks that nobody can tell anything any more."""
        self._replaced = [each for each in self._replaced if each.tellers or not _closed(each.live)]


class Change:
    """What a change has come to so far; `Succession.change` makes it.

    Args:
        followed: what is in use; it is copied.
        undo: closes what is opened here, unless the change holds.
        place: as of `Succession`.
        notify: as of `Succession`.
    """

    def __init__(
        self,
        followed: dict[str, _Followed],
        undo: ExitStack,
        place: str | Path | None,
        notify: Sequence[Notifier],
    ) -> None:
        """Change nothing yet."""
        self.followed = dict(followed)
        self._undo = undo
        self._place = place
        self._notify = notify

    def follow(self, key: str, name: str, profile: Profile) -> LiveRisk:
        """Return the live risk of `key`: the one in use, unless it is counted otherwise.

        Args:
            key: whose it is.
            name: of its state, where there is none yet; later ones go on with the first one's.
            profile: what it is counted under.

        Raises:
            ConfigurationError: the place or the name cannot be used.
            LiveStoreError: the store cannot be reached.
        """
        old = self.followed.get(key)
        if old is not None and old.live.profile == profile:
            return old.live
        store = self._store(name) if old is None else old.live.store
        live = follow_under(profile, store=store, notify=self._notify)
        self._undo.callback(_undone, live, None if old is None else old.live)
        self.followed[key] = _Followed(live)
        return live

    def told_by(self, key: str, teller: object) -> None:
        """Take in that `teller` tells the live risk of `key` what exchanges show.

        A replaced live risk is kept until the last one of them is gone.
        """
        self.followed[key].tellers.add(teller)

    def _store(self, name: str) -> Store:
        if self._place is None:
            return MemoryStore(name)
        store = open_store(self._place, name)
        self._undo.callback(store.close)
        return store


def _undone(live: LiveRisk, served: LiveRisk | None) -> None:
    """Close what a change opened that came to nothing; its store may be that of one in use."""
    # Nothing was seen here that could be lost, and whoever waits is told what stopped the change.
    with contextlib.suppress(LiveStoreError):
        if served is not None:
            live.hand_over(served)
            # Readers show what was opened last.
            served.store.open(served.profile)
        live.close()


def _closed(live: LiveRisk) -> bool:
    """Close a replaced live risk; return whether everything that it saw was delivered."""
    try:
        live.close()
    except LiveStoreError:
        # The next change, or the end, tries again.
        return False
    return True
