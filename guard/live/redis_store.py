"""Keeps live state in Redis, for many replicas.

One atomic script per delivery counts a batch exactly once (`merge.lua`). All keys of a
deployment share a hash tag, so that a cluster keeps them together. What Redis has
acknowledged is as durable as its own settings make it: with `appendonly yes` it survives a
kill. Should it lose its state, replicas go on counting and raise again what stood with them.

This module does not know what is counted; the scripts do what `Book` and `State` do.
"""

from __future__ import annotations

import json
from contextlib import contextmanager
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from guard.errors import ConfigurationError, LiveStoreError, MissingExtraError
from guard.live.alarms import Alarm, Transition
from guard.live.ledger import KEPT, State, Tally
from guard.live.profile import Profile
from guard.live.stores import History, Snapshot, checked_name, opened_behind

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from guard.live.ledger import Batch

SECONDS: Final = 0.05
"""How long a replica keeps what it saw to itself."""

_TIMEOUT: Final = 1.0
_REMEMBERED: Final = 30 * 86_400
"""Seconds for which a replica's last sequence number is remembered."""


class RedisStore:
    """Keeps live state in Redis.

    Args:
        url: `redis://[user:password@]host:port/number`, `rediss://` or `unix://`.
        name: of the deployment; replicas with one name share a state.
        spool: folder in which this replica keeps what is not delivered yet; without it a
            replica that is killed loses what it saw since its last delivery.

    Raises:
        ConfigurationError: `url` or `name` cannot be used.
        MissingExtraError: `redis` is not installed.
    """

    def __init__(self, url: str, name: str = "default", *, spool: str | Path | None = None) -> None:
        """Connect to nothing yet."""
        self.name = checked_name(name)
        self.seconds: float | None = SECONDS
        self.spool = None if spool is None else Path(spool)
        self._client = _client(url)
        self._shown = urlsplit(url).hostname or urlsplit(url).path or "?"
        self._merge = self._client.register_script(_script("merge.lua"))
        self._clear = self._client.register_script(_script("clear.lua"))

    def __repr__(self) -> str:
        return f"RedisStore({self._shown!r}, {self.name!r})"

    def open(self, profile: Profile) -> None:
        """See `Store`."""
        with self._errors():
            known = [each["opened"] for each in self._profiles()]
            opened = opened_behind(max(known, default=None))
            value = json.dumps({"opened": opened, "profile": profile.as_dict()})
            self._client.hset(self._key("profiles"), profile.digest, value)

    def read(self, digest: str, replica: str = "") -> Snapshot:
        """See `Store`."""
        with self._errors():
            reply = self._client.pipeline(transaction=True)
            for part in (f"state:{digest}", "alarms", "lives"):
                reply.hgetall(self._key(part))
            reply.get(self._key(f"sequence:{replica}"))
            state, alarms, lives, sequence = reply.execute()
            return _snapshot(state, alarms, lives, sequence or "0")

    def merge(self, replica: str, sequence: int, batch: Batch) -> Snapshot:
        """See `Store`."""
        digest = batch.digest
        parts = ("alarms", "lives", "transitions", f"points:{digest}", f"sequence:{replica}")
        keys = [self._key(part) for part in (f"state:{digest}", *parts)]
        with self._errors():
            reply: Any = self._merge(
                keys=keys, args=[sequence, json.dumps(_told(batch)), KEPT, _REMEMBERED]
            )
            state, alarms, lives, counted = reply
            return _snapshot(_pairs(state), _pairs(alarms), _pairs(lives), counted)

    def clear(self, transition: Transition) -> bool:
        """See `Store`."""
        alarm = transition.alarm
        keys = [self._key(part) for part in ("alarms", "lives", "transitions")]
        args = [alarm.category, alarm.life, json.dumps(transition.as_dict()), KEPT]
        with self._errors():
            return bool(self._clear(keys=keys, args=args))

    def history(self, digest: str) -> History:
        """See `Store`."""
        with self._errors():
            rows: Any = self._client.lrange(self._key("transitions"), 0, -1)
            points: Any = self._client.lrange(self._key(f"points:{digest}"), 0, -1)
            return History(
                tuple(Transition.from_dict(json.loads(row)) for row in rows),
                tuple(json.loads(point) for point in points),
            )

    def profile(self) -> Profile | None:
        """See `Store`."""
        with self._errors():
            known = sorted(self._profiles(), key=lambda each: each["opened"])
            return Profile.from_dict(known[-1]["profile"]) if known else None

    def close(self) -> None:
        """See `Store`."""
        self._client.close()

    def _profiles(self) -> list[dict[str, Any]]:
        values: Any = self._client.hvals(self._key("profiles"))
        return [json.loads(value) for value in values]

    def _key(self, part: str) -> str:
        return f"{{guard:live:{self.name}}}:{part}"

    @contextmanager
    def _errors(self) -> Iterator[None]:
        from redis.exceptions import RedisError  # noqa: PLC0415  # an optional dependency

        try:
            yield
        except (RedisError, OSError) as error:
            raise LiveStoreError(
                f"Redis at {self._shown} cannot be used: {_line(error)}. {_hint(error)}"
            ) from error
        except (ValueError, KeyError, TypeError) as error:
            raise LiveStoreError(
                f"Redis at {self._shown} holds something else under `{self.name}` "
                f"({_line(error)}): take another name"
            ) from error


def _client(url: str) -> Any:
    try:
        import redis  # noqa: PLC0415  # an optional dependency
        from redis.backoff import NoBackoff  # noqa: PLC0415
        from redis.retry import Retry  # noqa: PLC0415
    except ImportError as error:
        raise MissingExtraError("redis", "redis") from error
    scheme, slashes, rest = url.partition("://")
    try:
        return redis.Redis.from_url(
            f"{scheme.lower()}{slashes}{rest}",
            decode_responses=True,
            socket_timeout=_TIMEOUT,
            socket_connect_timeout=_TIMEOUT,
            # Deliveries are tried again anyway, and a second clearing would find nothing.
            retry=Retry(NoBackoff(), 0),
        )
    except ValueError:
        # Without the cause and the text: a password may be anywhere in them.
        raise ConfigurationError(
            "the URL of Redis cannot be understood: write `redis://user:password@host:6379/0` with "
            "special characters percent-encoded"
        ) from None


def _script(name: str) -> str:
    return files("guard.live").joinpath(name).read_text(encoding="utf-8")


def _told(batch: Batch) -> dict[str, Any]:
    """Return a batch as `merge.lua` reads it: what it only keeps is text, digit by digit."""
    values = batch.as_dict()
    values["points"] = [json.dumps(point) for point in batch.points]
    values["raised"] = [
        {
            "category": each["alarm"]["category"],
            "life": each["alarm"]["life"],
            "alarm": json.dumps(each["alarm"]),
            "transition": json.dumps(each),
        }
        for each in batch.raised
    ]
    return values


def _snapshot(
    state: Mapping[str, str], alarms: Mapping[str, str], lives: Mapping[str, str], sequence: str
) -> Snapshot:
    known = {category: int(life) for category, life in lives.items()}
    found = State(int(state.get("exchanges", "0")))
    for name, value in state.items():
        kind, _, category = name.partition(":")
        if kind == "mass":
            found.masses[category] = int(value)
        elif kind == "tally":
            found.tallies[category] = Tally(**json.loads(value))
    found.renew(known)
    standing = {category: Alarm(**json.loads(value)) for category, value in alarms.items()}
    return Snapshot(found, standing, known, int(sequence))


def _pairs(flat: list[str]) -> dict[str, str]:
    return dict(zip(flat[::2], flat[1::2], strict=True))


def _hint(error: Exception) -> str:
    text = str(error).lower()
    if "read only replica" in text:
        return "That is a replica, which may only be read: name the address of the primary"
    if "unknown command" in text:
        return (
            "That is none that keeps data, such as a Sentinel: name the address that always leads "
            "to the primary"
        )
    return "Check that it runs and that its URL is right"


def _line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")
