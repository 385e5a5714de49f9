"""What was asked of a backend, as far as the guard needs it.

What a request holds is context for judging the response, and is judged itself where the class
has an `input` section. The request is forwarded as it is; nothing here rewrites it.

This module does not know any one format, and not what of a message is text (`guard.request_text`).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

    from guard.exchange import ChannelKind, Exchange, Role

ROLES: Final[Mapping[str, Role]] = {
    "system": "system",
    "developer": "developer",
    "assistant": "assistant",
    "model": "assistant",
    "tool": "tool",
    "function": "tool",
}
"""Roles by the vendors' words; whoever is not listed counts as a user."""


@dataclass(frozen=True, slots=True)
class Asked:
    """What was asked.

    Attributes:
        exchange: the conversation, without any answer.
        stream: whether the answer shall be a stream.
        structured: whether the answer shall be a document of a schema.
        repeats: texts of the request that a response repeats beside its answer.
    """

    exchange: Exchange
    stream: bool = False
    structured: bool = False
    repeats: frozenset[str] = field(default=frozenset(), repr=False)

    @property
    def gated(self) -> tuple[ChannelKind, ...]:
        """Kinds of text that leave only with the end of their choice."""
        return ("tool_call", "content") if self.structured else ("tool_call",)


def role_of(value: object) -> Role:
    """Return a role by a vendor's word for it."""
    return ROLES.get(value, "user") if isinstance(value, str) else "user"
