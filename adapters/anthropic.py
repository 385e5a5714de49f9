"""Anthropic's SDK, guarded: the client keeps its class, its types and its options.

    from anthropic import Anthropic
    from guard import Guard

    client = Guard.load("public").wrap(Anthropic())

`messages.create`, `messages.stream`, `parse` and raw responses pass the guard; batches, whose
results are files, are refused.

This module does not know the formats (`guard.wire`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, TypeVar

from guard.errors import InputError, MissingExtraError

try:
    import anthropic

    from guard.adapters.clients import guarded_client, options_of
    from guard.wire.transport import Options, Unguardable
except ImportError as error:
    raise MissingExtraError(error.name or "anthropic", "anthropic") from error

if TYPE_CHECKING:
    from guard.engine import Guard

_Client = TypeVar("_Client", "anthropic.Anthropic", "anthropic.AsyncAnthropic")

OPTIONS_OF: Final = Options
"""Whose parameters the further options of `wrap` are."""


class Refused(Unguardable, anthropic.AnthropicError):
    """A request whose answer cannot be guarded, as an error of the SDK's."""


def wrap(guard: Guard, client: _Client, **options: Any) -> _Client:
    """Return a client of the same class whose answers are judged.

    Args:
        guard: judges.
        client: an `Anthropic` or `AsyncAnthropic` client, or one of a subclass; its HTTP
            client's transports are used below the guard's. Close either of the two, not both.
        options: `style` and `unguarded`, as in `guard.wire.transport.Options`.

    Raises:
        InputError: it is no such client, or an option is unknown.
        Refused: (when the client is used) a request cannot be guarded.
    """
    if not isinstance(client, anthropic.Anthropic | anthropic.AsyncAnthropic):
        raise InputError(f"`{type(client).__name__}` is no Anthropic client")
    return guarded_client(guard, client, options_of(Refused, options))
