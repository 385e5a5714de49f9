"""OpenAI's SDK, guarded: the client keeps its class, its types and its options.

    from guard import Guard
    from openai import OpenAI

    client = Guard.load("public").wrap(OpenAI())

Everything that goes over HTTP passes the guard: `create`, `stream`, `parse`, raw responses, of
chat completions and of the Responses API, from any provider with the same format. Websockets
(`realtime`, `responses.connect`) do not, and lead nowhere.

This module does not know the formats (`guard.wire`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, TypeVar

from guard.errors import InputError, MissingExtraError

try:
    import openai

    from guard.adapters.clients import guarded_client, options_of
    from guard.wire.transport import Options, Unguardable
except ImportError as error:
    raise MissingExtraError(error.name or "openai", "openai") from error

if TYPE_CHECKING:
    from guard.engine import Guard
    from guard.wire.transport import Unguarded

_Client = TypeVar("_Client", "openai.OpenAI", "openai.AsyncOpenAI")

OPTIONS_OF: Final = Options
"""Whose parameters the further options of `wrap` are."""

_NOWHERE: Final = "refused://websockets-cannot-be-guarded"
"""Stands where websockets would lead, so that the error says why; copies of the client keep it."""


class Refused(Unguardable, openai.OpenAIError):
    """A request whose answer cannot be guarded, as an error of the SDK's."""


def wrap(
    guard: Guard, client: _Client, *, unguarded: Unguarded = "refuse", **options: Any
) -> _Client:
    """Return a client of the same class whose answers are judged.

    Args:
        guard: judges.
        client: an `OpenAI` or `AsyncOpenAI` client, or one of a subclass; its HTTP client's
            transports are used below the guard's. Close either of the two, not both.
        unguarded: `pass` to let pass what cannot be guarded, websockets included.
        options: `style`, as in `guard.wire.transport.Options`.

    Raises:
        InputError: it is no such client, or an option is unknown.
        Refused: (when the client is used) a request cannot be guarded.
    """
    if not isinstance(client, openai.OpenAI | openai.AsyncOpenAI):
        raise InputError(f"`{type(client).__name__}` is no OpenAI client")
    chosen = options_of(Refused, {"unguarded": unguarded} | options)
    twin = guarded_client(guard, client, chosen)
    if unguarded == "pass":
        return twin
    return twin.with_options(websocket_base_url=_NOWHERE)
