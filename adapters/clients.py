"""Puts a guarding transport under an SDK's client, above the transports of its own HTTP client.

This module does not know any SDK by name: both vendors' clients are built alike.
"""

from __future__ import annotations

import copy
from dataclasses import fields
from typing import TYPE_CHECKING, Any, TypeVar

import httpx2

from guard.errors import InputError
from guard.wire.transport import AsyncGuardTransport, GuardTransport, Options, Unguardable
from guard.wrapping import refuse_unknown

if TYPE_CHECKING:
    from guard.engine import Guard

_Client = TypeVar("_Client")


def guarded_client(guard: Guard, client: _Client, options: Options) -> _Client:
    """Return a copy of an SDK's client that sends through the guard.

    Args:
        guard: judges.
        client: an SDK's client with an httpx2 client inside.
        options: of the transport.

    Raises:
        InputError: its HTTP client is none of httpx2's, or is guarded already.
    """
    sdk: Any = client
    http = _guarded(guard, sdk._client, client, options)  # noqa: SLF001
    twin: _Client = sdk.with_options(http_client=http)
    return twin


def options_of(unguardable: type[Unguardable], given: dict[str, Any]) -> Options:
    """Return the transport's options as a caller gives them.

    Args:
        unguardable: what is raised where a request cannot be guarded.
        given: the rest.

    Raises:
        InputError: one of them is unknown, or has an unknown value.
    """
    refuse_unknown(given, {one.name for one in fields(Options)} - {"unguardable"})
    return Options(unguardable=unguardable, **given)


def _guarded(guard: Guard, http: Any, owner: object, options: Options) -> Any:
    """Return an HTTP client like `http`, with each of its transports guarded."""
    kinds = {httpx2.Client: GuardTransport, httpx2.AsyncClient: AsyncGuardTransport}
    kind = next((guarded for base, guarded in kinds.items() if isinstance(http, base)), None)
    if kind is None:
        raise InputError(
            f"the client sends by {type(http).__module__}.{type(http).__name__}, which cannot be "
            "guarded: give it an httpx2 client"
        )
    if isinstance(http._transport, kind):  # noqa: SLF001
        raise InputError("the client is guarded already")
    # The copy shares timeouts, hooks, cookies and the pools of connections. The first client
    # closes them when it is forgotten, so the transport remembers it, and the copy does not.
    twin = copy.copy(http)
    twin.__class__ = _without_end(type(http))
    wrap: Any = kind
    twin._transport = wrap(guard, http._transport, options, owner=owner)  # noqa: SLF001
    twin._mounts = {  # noqa: SLF001
        pattern: None if inner is None else wrap(guard, inner, options, owner=owner)
        for pattern, inner in http._mounts.items()  # noqa: SLF001
    }
    return twin


def _without_end(kind: type) -> type:
    """Return an HTTP client's class that closes nothing when one of it is forgotten."""
    if not hasattr(kind, "__del__"):
        return kind
    return type(kind.__name__, (kind,), {"__del__": lambda _: None, "__module__": kind.__module__})
