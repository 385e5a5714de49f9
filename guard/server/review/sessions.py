"""Who is signed in to the pages: a cookie each, kept in this process's memory, for a while.

This module does not know HTTP, nor what a page shows.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

SECONDS: Final = 12 * 3600.0
"""How long somebody stays signed in."""

_MOST: Final = 1000
"""Sessions that are kept; the oldest goes when there are more."""


@dataclass(frozen=True, slots=True)
class Session:
    """One browser that is signed in.

    Attributes:
        token: stands in every form of its pages, so that no other site's page can send one.
        until: when it ends, by the clock of the sessions.
    """

    token: str
    until: float

    def sent(self, token: str) -> bool:
        """Return whether a form with `token` is of this session's pages."""
        return hmac.compare_digest(self.token.encode(), token.encode("utf-8", "replace"))


class Sessions:
    """The sessions of one process; used on its event loop alone.

    Args:
        clock: tells the time in seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """Begin with nobody signed in."""
        self._clock = clock
        self._known: dict[str, Session] = {}

    def begin(self) -> str:
        """Sign somebody in; return the value of the cookie."""
        cookie = secrets.token_urlsafe(32)
        self._known[_digest(cookie)] = Session(secrets.token_urlsafe(32), self._clock() + SECONDS)
        while len(self._known) > _MOST:
            del self._known[next(iter(self._known))]
        return cookie

    def find(self, cookie: str) -> Session | None:
        """Return the session of a cookie, `None` where there is none or it is over."""
        # By its digest, so that the time to find it tells nothing about the cookie.
        digest = _digest(cookie)
        session = self._known.get(digest)
        if session is not None and session.until <= self._clock():
            del self._known[digest]
            return None
        return session

    def end(self, cookie: str) -> None:
        """Sign out."""
        self._known.pop(_digest(cookie), None)


class Link:
    """A secret in a link that signs in once.

    Attributes:
        secret: what the link holds.
    """

    def __init__(self) -> None:
        """Make a secret."""
        self.secret = secrets.token_urlsafe(32)
        self._used = False

    def opens(self, given: str) -> bool:
        """Return whether `given` is the secret, for the first time."""
        same = hmac.compare_digest(self.secret.encode(), given.encode("utf-8", "replace"))
        opens = same and not self._used
        self._used = self._used or same
        return opens


class Keys:
    """Keys that sign in, known by their hashes.

    Args:
        hashes: `sha256:` and the digest of each.
    """

    def __init__(self, hashes: Sequence[str]) -> None:
        """Keep the hashes."""
        self._hashes = tuple(hashes)

    def opens(self, given: str) -> bool:
        """Return whether `given` is one of the keys."""
        digest = f"sha256:{_digest(given.strip())}".encode()
        # All of them, so that the time does not tell which one came close.
        same = [each for each in self._hashes if hmac.compare_digest(each.encode(), digest)]
        return bool(same)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
