"""Client keys: who calls, known by the hash of a key.

A key is read from `x-guard-key`, `x-api-key` or `Authorization: Bearer`; the first that is
there counts, so that a client can send the backend's own key beside its own.

Keys are made by this module (256 random bits) or long; a fast hash is enough for those. It is
compared with every configured one in constant time.

A server without keys is there for this machine. So is a browser on it, and a page of any site can
have that send requests, or give the server's address a name of its own and read the answers. Such
requests name a host that somebody has registered, or another origin, and are refused.

This module does not know what a client may do.
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import secrets
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from starlette.datastructures import Headers

from guard.errors import InputError
from guard.server.errors import Refused
from guard.server.settings import is_loopback

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence

    from starlette.types import ASGIApp, Receive, Scope, Send

    from guard.server.settings import ClientKey

CALLER: Final = "guard.caller"
"""Where a request's scope holds who calls."""

HEADERS: Final = ("x-guard-key", "x-api-key", "authorization")
"""Where a key may be, the first that is there counts."""

SHORTEST: Final = 20
"""Characters of the shortest key that is taken; shorter ones could be guessed from the hash."""

_RESERVED: Final = (".localhost", ".localdomain", ".internal")
"""Ends of names that nobody can register; containers know their host by such a one."""

_WEB: Final = ("", "http", "https", "ws", "wss")
"""Schemes of sites' pages, and of none; extensions and programs have others of their own."""


@dataclass(frozen=True, slots=True)
class Caller:
    """Who calls.

    Attributes:
        name: the client's name, `""` on a server without keys.
        header: the name of the header that held its key, so that it is not sent on.
        security_class: under which its exchanges are judged, `None` for the server's.
        upstream_model: the model that its requests are sent to, `None` for what they ask for.
    """

    name: str = ""
    header: str = ""
    security_class: str | None = None
    upstream_model: str | None = None


ANYBODY: Final = Caller()
"""Who calls a server without keys."""


def new_key() -> str:
    """Return a new key with 256 random bits."""
    return f"gk-{secrets.token_urlsafe(32)}"


def hash_of(key: str) -> str:
    """Return what the settings file holds of `key`.

    Raises:
        InputError: the key is so short that it could be guessed from its hash.
    """
    if len(key) < SHORTEST:
        raise InputError(
            f"the key has {len(key)} characters and needs at least {SHORTEST}: "
            "press Enter without one, and a good one is made"
        )
    return _digest(key)


class KeyCheck:
    """An ASGI app in front of `app` that only lets in whoever shows a key.

    Args:
        app: the app behind.
        keys: the clients; with none, everybody is let in.
        public: paths that need no key.
        local: whether without keys only programs and pages of this machine are let in.
        keyless: tells paths that see to it by themselves who may call them.
    """

    def __init__(
        self,
        app: ASGIApp,
        keys: Sequence[ClientKey],
        public: Collection[str],
        *,
        local: bool,
        keyless: Callable[[str], bool] = lambda _: False,
    ) -> None:
        """Keep the keys' hashes."""
        self._keyless = keyless
        self._app = app
        self._keys = tuple(keys)
        self._public = frozenset(public)
        self._local = local

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request, with its caller in the scope.

        Raises:
            Refused: there is no key, or none that is known; or it is from elsewhere.
        """
        if scope["type"] == "http":
            path = scope["path"]
            public = path in self._public
            scope[CALLER] = (
                ANYBODY
                if public
                else self._let_in(Headers(scope=scope), keyless=self._keyless(path))
            )
        await self._app(scope, receive, send)

    def _let_in(self, headers: Headers, *, keyless: bool) -> Caller:
        if self._keys and keyless:
            return ANYBODY
        if self._keys:
            return self._caller(headers)
        if self._local:
            _check_local(headers)
        return ANYBODY

    def _caller(self, headers: Headers) -> Caller:
        header = next((name for name in HEADERS if name in headers), "")
        given = headers.get(header, "")
        scheme, _, token = given.partition(" ")
        key = token.strip() if header == "authorization" and scheme.lower() == "bearer" else given
        digest = _digest(key).encode()
        # All of them, so that the time does not tell which one came close.
        same = [k for k in self._keys if hmac.compare_digest(k.hash.encode(), digest)]
        if not same:
            missing = "is missing" if not header else "is not known"
            raise Refused(
                401,
                f"the client key {missing}: send it as `Authorization: Bearer KEY`, "
                "`x-api-key` or `x-guard-key`",
                "invalid_api_key",
                {"www-authenticate": "Bearer"},
            )
        return Caller(same[0].name, header, same[0].security_class, same[0].upstream_model)


def caller_of(scope: Scope) -> Caller:
    """Return who calls."""
    caller: Caller = scope[CALLER]
    return caller


def _check_local(headers: Headers) -> None:
    """See that a request names no host that may be a site's, and comes from no page of one.

    Raises:
        Refused: it was not.
    """
    hosts = [_host_of(f"//{host}") for host in headers.getlist("host")]
    if not all(map(_is_nobodys, hosts)) or not all(map(_is_ours, headers.getlist("origin"))):
        raise Refused(
            403,
            "a server without client keys serves this machine alone, and no other site's page: "
            "call it as `localhost` or 127.0.0.1, or start it with `keys` or with `--open`",
            "not_local",
        )


def _host_of(url: str) -> str:
    """Return a URL's host, `""` where it has none."""
    try:
        return urlsplit(url).hostname or ""
    except ValueError:
        return ""


def _is_nobodys(host: str) -> bool:
    """Return whether nobody can have registered a host, to have it lead here."""
    return "." not in host or host.endswith(_RESERVED) or _is_address(host)


def _is_ours(origin: str) -> bool:
    """Return whether an origin is a page of this machine, or no site's page at all."""
    host = _host_of(origin)
    if is_loopback(host) or host.endswith(".localhost"):
        return True
    # A page within a frame that hides where it is from says `null`.
    return origin.partition(":")[0].lower() not in (*_WEB, "null") and ":" in origin


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _digest(key: str) -> str:
    return "sha256:" + hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest()
