"""From what a person writes to a store, and the one thing that only a person does: clearing.

This module does not know who asks.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from guard.errors import ConfigurationError, InputError, did_you_mean
from guard.live.alarms import cleared

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from guard.live.alarms import Alarm, Transition
    from guard.live.stores import Store

_REDIS: tuple[str, ...] = ("redis://", "rediss://", "unix://")

_LISTED: Final = 20
"""Names of deployments that an error lists: a file may have one for each tenant."""


def is_url(place: str | Path) -> bool:
    """Return whether `place` is a Redis URL and no path.

    Raises:
        ConfigurationError: it is a URL of something else. As a path it would be a file that no
            other machine sees, under a name that may hold a password.
    """
    scheme, slashes, _ = str(place).partition("://")
    if not slashes:
        return False
    if f"{scheme.lower()}://" not in _REDIS:
        raise ConfigurationError(
            f"live state cannot be kept at a URL that begins with `{scheme}://`: name a SQLite "
            "file by its path, or a Redis server by `redis://`, `rediss://` or `unix://`. Of "
            "Redis Sentinel or a cluster name the address that always leads to the primary"
        )
    return True


def open_store(
    place: str | Path, name: str = "default", *, spool: str | Path | None = None
) -> Store:
    """Return the store at a Redis URL or in a SQLite file.

    Args:
        place: `redis://host:6379/0`, or a path.
        name: of the deployment.
        spool: folder for what is not delivered yet; see `RedisStore` and `SQLiteStore`.

    Raises:
        ConfigurationError: `place` or `name` cannot be used.
        LiveStoreError: the file cannot be opened.
        MissingExtraError: `redis` is not installed.
    """
    if is_url(place):
        from guard.live.redis_store import RedisStore  # noqa: PLC0415  # an optional dependency

        return RedisStore(str(place), name, spool=spool)
    from guard.live.sqlite_store import SQLiteStore  # noqa: PLC0415  # loads SQLAlchemy

    return SQLiteStore(place, name, spool=spool)


def open_existing(place: str | Path, name: str = "default", *, reading: bool) -> Store:
    """Return the store at a Redis URL or in a SQLite file that has live state under `name`.

    A file that has none stays as it is. Whether Redis has any is seen when it is read.

    Args:
        place: as for `open_store`.
        name: of the deployment.
        reading: the store is only read, and nothing in it or beside it is changed.

    Raises:
        ConfigurationError: `place` or `name` cannot be used.
        InputError: the file has no live state under `name`; lists the names that it has.
        LiveStoreError: there is no such file, or it has no live state at all.
        MissingExtraError: `redis` is not installed.
    """
    if is_url(place):
        return open_store(place, name)
    from guard.live.sqlite_store import SQLiteStore, names_in  # noqa: PLC0415  # as above

    names = names_in(place)
    if name not in names:
        raise InputError(
            f"no live state under the name `{name}` in {place}{did_you_mean(name, names)}: "
            + _listed(names)
        )
    return SQLiteStore(place, name, reading=reading)


def _listed(names: Sequence[str]) -> str:
    if not names:
        return "no guard has opened it yet"
    more = f" and {len(names) - _LISTED:,} more" if len(names) > _LISTED else ""
    return f"it has {', '.join(f'`{name}`' for name in names[:_LISTED])}{more}"


def clear_alarms(  # noqa: PLR0913  # a person's act has all of these
    store: Store, standing: Mapping[str, Alarm], category: str, *, time: float, by: str, reason: str
) -> tuple[Transition, ...]:
    """Clear an alarm in a store, or `all` that stand; return what was cleared.

    Args:
        store: keeps the alarms.
        standing: those that stand.
        category: whose alarm; `all` for every one.
        time: seconds since 1970.
        by: the person who clears it.
        reason: why it may be cleared.

    Raises:
        InputError: no such alarm stands, or nobody, or no reason, is named.
        LiveStoreError: the store cannot be reached; the alarm stands.
    """
    if not by.strip() or not reason.strip():
        raise InputError("clearing an alarm takes `by` and `reason`: who, and why")
    left = dict(standing)
    wanted = list(left) if category == "all" else [category]
    if not wanted or not left.keys() >= set(wanted):
        which = "no alarm stands" if category == "all" else f"no alarm of `{category}` stands"
        raise InputError(f"{which}: there is nothing to clear")
    transitions = []
    for name in wanted:
        transition = cleared(store.name, left[name], left, time=time, by=by, reason=reason)
        if store.clear(transition):
            transitions.append(transition)
            del left[name]
    return tuple(transitions)
