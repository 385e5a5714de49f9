"""Who is told of a transition: a webhook that the receiver can authenticate.

A delivery carries the time and a signature, HMAC-SHA256 over time and body, so that nobody else
can send one and an old one cannot be sent again. It is tried several times, further and further
apart, by a thread of its own; the same transition may arrive twice, with the same id.

This module does not know what raised an alarm.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import logging
import os
import threading
import time
import weakref
from collections import deque
from dataclasses import dataclass
from itertools import count
from typing import TYPE_CHECKING, Any, Final, Literal
from urllib.parse import quote, urlsplit

from guard.errors import ConfigurationError, MissingExtraError
from guard.log import Log

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from guard.live.alarms import Transition

TIME_HEADER: Final = "X-Guard-Timestamp"
SIGNATURE_HEADER: Final = "X-Guard-Signature"
ID_HEADER: Final = "X-Guard-Delivery"

_AGE: Final = 300
"""Seconds after which a delivery is too old to be accepted."""

SHORTEST_SECRET: Final = 16
"""Characters of the shortest secret that is taken."""

Outcome = Literal["delivered", "failed", "dropped"]
"""How a delivery ended, or (`failed`) one try of it that may be followed by others."""

_FIRST_PAUSE: Final = 0.5
_LONGEST_PAUSE: Final = 60.0
_LAST_TRY: Final = 1.0
"""Seconds that closing waits for a try that is on its way when the time is over."""

_TOO_MANY: Final = 429

_CLIENT_LOG: Final = logging.getLogger("httpx2")

_log = Log()


def sign(secret: bytes, timestamp: str, body: bytes) -> str:
    """Return the signature of a delivery: `v1=` and HMAC-SHA256 in hexadecimal."""
    signed = timestamp.encode() + b"." + body
    return "v1=" + hmac.new(secret, signed, hashlib.sha256).hexdigest()


def verify(  # noqa: PLR0913  # all that a delivery consists of
    secret: bytes,
    timestamp: str,
    body: bytes,
    signature: str,
    *,
    age: float = _AGE,
    clock: Callable[[], float] = time.time,
) -> bool:
    """Return whether a delivery is genuine and recent; for receivers.

    Args:
        secret: the shared one.
        timestamp: of the header `X-Guard-Timestamp`.
        body: as it was received.
        signature: of the header `X-Guard-Signature`.
        age: seconds that it may be old, or that clocks may differ.
        clock: seconds since 1970.
    """
    if not hmac.compare_digest(sign(secret, timestamp, body).encode(), signature.encode()):
        return False
    return timestamp.isdecimal() and abs(clock() - int(timestamp)) <= age


class Webhook:
    """Posts every transition as JSON to a URL.

    Args:
        url: `https://…`, or `http://…` inside one's own network.
        secret: at least 16 characters, shared with the receiver.
        attempts: how often a delivery is tried, over about two minutes by default.
        waiting: how many may wait; where more come, they are dropped with a log event.
        timeout: seconds for one try.
        told: is told how each delivery and each failed try of one ended, for counting.
        transport: of `httpx2`, for tests.

    Raises:
        ConfigurationError: `url` or `secret` cannot be used.
        MissingExtraError: `httpx2` or `tenacity` is not installed.
    """

    def __init__(  # noqa: PLR0913  # all but the first two have defaults
        self,
        url: str,
        secret: str | bytes,
        *,
        attempts: int = 8,
        waiting: int = 1000,
        timeout: float = 5.0,
        told: Callable[[Outcome], None] = lambda _: None,
        transport: Any = None,
    ) -> None:
        """Start no thread yet."""
        key = secret.encode() if isinstance(secret, str) else secret
        problems = []
        if not _usable(url):
            problems.append("a webhook's URL must begin with `https://` or `http://`")
        if len(key) < SHORTEST_SECRET:
            problems.append(f"a webhook's secret needs at least {SHORTEST_SECRET} characters")
        if problems:
            raise ConfigurationError(problems)
        self._url = _parsed(url)
        self._secret = key
        self._most = waiting
        self._told = told
        self._attempts = attempts
        self._timeout = timeout
        self._transport = transport
        self._closing = False
        self._begin()
        _all.add(self)

    def __call__(self, transition: Transition) -> None:
        """Have `transition` delivered, without waiting for it."""
        with self._changed:
            reason = self._refuses()
            if not reason:
                self._waiting.append(transition)
                self._changed.notify()
                self._start()
        if reason:
            self._drop(transition, reason)

    def close(self, timeout: float = 10.0) -> None:
        """Deliver what waits, for `timeout` seconds at most; what is left then is dropped."""
        with self._changed:
            self._closing = True
            self._changed.notify()
            thread = self._thread
        if thread is None:
            self._client.close()
            return
        thread.join(timeout)
        # Nothing is tried again from here on; a try that is on its way may still end.
        self._ends.set()
        thread.join(_LAST_TRY)

    def _begin(self) -> None:
        """Begin with nothing that waits: what does is the parent's in a forked process."""
        self._client = _client(self._timeout, self._transport)
        self._waiting: deque[Transition] = deque()
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self._ends = threading.Event()
        self._retrying = _retrying(self._attempts, self._ends)

    def _refuses(self) -> str:
        if self._closing:
            return "closed"
        return "queue full" if len(self._waiting) >= self._most else ""

    def _start(self) -> None:
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="guard-webhook", daemon=True)
            self._thread.start()

    def _run(self) -> None:
        while (transition := self._next()) is not None:
            if self._ends.is_set():
                self._drop(transition, "closed")
            else:
                self._deliver(transition)
        self._client.close()

    def _next(self) -> Transition | None:
        """Wait for the next transition; return `None` once nothing waits and nothing will."""
        with self._changed:
            while not self._waiting and not self._closing:
                self._changed.wait()
            return self._waiting.popleft() if self._waiting else None

    def _deliver(self, transition: Transition) -> None:
        tried = self._retrying.copy()(self._try, transition, count(1))
        if tried.problem:
            self._drop(transition, "not accepted")
        else:
            self._told("delivered")

    def _drop(self, transition: Transition, reason: str) -> None:
        self._told("dropped")
        _log.error("guard.live.webhook_dropped", id=transition.id, reason=reason)

    def _try(self, transition: Transition, attempts: Iterator[int]) -> _Tried:
        tried, attempt = self._post(transition), next(attempts)
        if tried.problem:
            self._told("failed")
            _log.warning(
                "guard.live.webhook_failed", id=transition.id, attempt=attempt, error=tried.problem
            )
        return tried

    def _post(self, transition: Transition) -> _Tried:
        body = json.dumps(transition.as_dict(), sort_keys=True).encode()
        # Of the try and not of the transition: a receiver refuses what is old.
        timestamp = str(int(time.time()))
        headers = {
            "Content-Type": "application/json",
            ID_HEADER: quote(transition.id),
            TIME_HEADER: timestamp,
            SIGNATURE_HEADER: sign(self._secret, timestamp, body),
        }
        try:
            with self._client.stream("POST", self._url, content=body, headers=headers) as answer:
                # Its body is not read: it may have no end.
                status = answer.status_code
        except Exception as error:  # noqa: BLE001  # whatever the network does, try again
            # Its message may quote the URL, which may hold a token.
            return _Tried(type(error).__name__, again=True)
        if status < 300:
            return _Tried("", again=False)
        return _Tried(f"status {status}", again=status >= 500 or status == _TOO_MANY)


_all: Final[weakref.WeakSet[Webhook]] = weakref.WeakSet()


def _begin_all() -> None:
    for webhook in list(_all):
        webhook._begin()  # noqa: SLF001  # of this module


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_begin_all)


@dataclass(frozen=True, slots=True)
class _Tried:
    """How one try ended.

    Attributes:
        problem: what was wrong, `""` for nothing.
        again: whether another try may end better.
    """

    problem: str
    again: bool


def _usable(url: str) -> bool:
    try:
        parts = urlsplit(url)
        # A port that is none raises when it is read.
        return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False


def _parsed(url: str) -> Any:
    """Return `url` as the client writes it into its log."""
    return _httpx2().URL(url)


def _client(timeout: float, transport: Any) -> Any:
    # It logs every URL, and a webhook's may hold a token.
    _CLIENT_LOG.addFilter(_names_no_webhook)
    return _httpx2().Client(timeout=timeout, transport=transport)


def _httpx2() -> Any:
    try:
        import httpx2  # noqa: PLC0415  # an optional dependency
    except ImportError as error:
        raise MissingExtraError("httpx2", "server") from error
    return httpx2


def _names_no_webhook(record: logging.LogRecord) -> bool:
    """Return whether a line of the client's log shows no webhook's URL."""
    shown = set(map(str, record.args)) if isinstance(record.args, tuple) else set()
    return not any(str(webhook._url) in shown for webhook in list(_all))  # noqa: SLF001  # as above


def _retrying(attempts: int, ends: threading.Event) -> Any:
    """Return when a delivery is tried again; no pause outlasts `ends`."""
    try:
        import tenacity  # noqa: PLC0415  # an optional dependency
    except ImportError as error:
        raise MissingExtraError("tenacity", "server") from error
    return tenacity.Retrying(
        retry=tenacity.retry_if_result(lambda tried: tried.again),
        stop=tenacity.stop_after_attempt(attempts) | tenacity.stop_when_event_set(ends),
        wait=tenacity.wait_exponential(multiplier=_FIRST_PAUSE, max=_LONGEST_PAUSE)
        + tenacity.wait_random(0, _FIRST_PAUSE),
        sleep=tenacity.sleep_using_event(ends),
        retry_error_callback=_last,
    )


def _last(state: Any) -> Any:
    """Return how the last try ended, where no other follows."""
    return state.outcome.result()
