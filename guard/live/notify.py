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
import queue
import threading
import time
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote, urlsplit

import structlog

from guard.errors import ConfigurationError, MissingExtraError

if TYPE_CHECKING:
    from collections.abc import Callable

    from guard.live.alarms import Transition

TIME_HEADER: Final = "X-Guard-Timestamp"
SIGNATURE_HEADER: Final = "X-Guard-Signature"
ID_HEADER: Final = "X-Guard-Delivery"

_AGE: Final = 300
"""Seconds after which a delivery is too old to be accepted."""

_SHORTEST_SECRET: Final = 16
_FIRST_PAUSE: Final = 0.5
_LONGEST_PAUSE: Final = 60.0
_TOO_MANY: Final = 429

_log = structlog.get_logger("guard")


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
        transport: of `httpx2`, for tests.

    Raises:
        ConfigurationError: `url` or `secret` cannot be used.
        MissingExtraError: `httpx2` is not installed.
    """

    def __init__(  # noqa: PLR0913  # all but the first two have defaults
        self,
        url: str,
        secret: str | bytes,
        *,
        attempts: int = 8,
        waiting: int = 1000,
        timeout: float = 5.0,
        transport: Any = None,
    ) -> None:
        """Start no thread yet."""
        key = secret.encode() if isinstance(secret, str) else secret
        problems = []
        if urlsplit(url).scheme not in ("http", "https") or not urlsplit(url).hostname:
            problems.append("a webhook's URL must begin with `https://` or `http://`")
        if len(key) < _SHORTEST_SECRET:
            problems.append(f"a webhook's secret needs at least {_SHORTEST_SECRET} characters")
        if problems:
            raise ConfigurationError(problems)
        self._url = url
        self._secret = key
        self._attempts = attempts
        self._queue: queue.Queue[Transition | None] = queue.Queue(waiting)
        self._client = _client(timeout, transport)
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._ends = threading.Event()

    def __call__(self, transition: Transition) -> None:
        """Have `transition` delivered, without waiting for it."""
        self._start()
        try:
            self._queue.put_nowait(transition)
        except queue.Full:
            _log.error("guard.live.webhook_dropped", id=transition.id, reason="queue full")

    def close(self, timeout: float = 10.0) -> None:
        """Wait for what is queued, `timeout` seconds at most, then stop."""
        if self._thread is not None:
            self._queue.put(None)
            self._thread.join(timeout)
            self._ends.set()
        self._client.close()

    def _start(self) -> None:
        with self._lock:
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="guard-webhook", daemon=True)
                self._thread.start()

    def _run(self) -> None:
        while (transition := self._queue.get()) is not None:
            self._deliver(transition)

    def _deliver(self, transition: Transition) -> None:
        pause = _FIRST_PAUSE
        for attempt in range(1, self._attempts + 1):
            problem, final = self._post(transition)
            if not problem:
                return
            _log.warning(
                "guard.live.webhook_failed", id=transition.id, attempt=attempt, error=problem
            )
            if final or attempt == self._attempts or self._ends.wait(pause):
                break
            pause = min(_LONGEST_PAUSE, pause * 2)
        _log.error("guard.live.webhook_dropped", id=transition.id, reason="not accepted")

    def _post(self, transition: Transition) -> tuple[str, bool]:
        """Try once; return what was wrong, `""` for nothing, and whether another try is idle."""
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
            status = self._client.post(self._url, content=body, headers=headers).status_code
        except Exception as error:  # noqa: BLE001  # whatever the network does, try again
            return type(error).__name__, False
        if status < 300:
            return "", True
        return f"status {status}", 300 <= status < 500 and status != _TOO_MANY


def _client(timeout: float, transport: Any) -> Any:
    try:
        import httpx2  # noqa: PLC0415  # an optional dependency
    except ImportError as error:
        raise MissingExtraError("httpx2", "server") from error
    return httpx2.Client(timeout=timeout, transport=transport)
