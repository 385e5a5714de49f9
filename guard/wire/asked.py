"""What was asked of a backend, as far as the guard needs it.

What a request holds is context for judging the response, and is judged itself where the class
has an `input` section. The request is forwarded as it is; nothing here rewrites it.

This module does not know any one format.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

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

_DEEPEST: Final = 64


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


def text_of(value: Any, depth: int = _DEEPEST) -> str:
    """Return the text in a message's content, whatever its shape; data such as images have none.

    Strings are taken from lists and from the keys that hold text in all formats.
    """
    if isinstance(value, str):
        return value
    if not depth:
        return ""
    if isinstance(value, list):
        return "\n".join(text for each in value if (text := text_of(each, depth - 1)))
    if isinstance(value, dict):
        texts = (text_of(value.get(key), depth - 1) for key in _TEXTS)
        return "\n".join(text for text in texts if text)
    return ""


_TEXTS: Final = (
    *("text", "refusal", "thinking", "content", "output", "title", "context"),
    *("result", "stdout", "stderr"),
)
"""Keys that hold text in the parts of a message."""
