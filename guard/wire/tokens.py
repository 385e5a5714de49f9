"""Log-probabilities: tokens that stand beside a text and spell it once more.

Tokens stay where they spell the very text beside them, which is judged. Alternatives to a token
are words that nobody said and nobody judged: they are taken out.

This module does not know any one format, and not where its tokens stand.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from guard.wire.parts import Json

_BYTES: Final = ("utf-8", "surrogatepass")

_KEYS: Final = frozenset({"token", "bytes", "logprob", "top_logprobs"})

_ESCAPED: Final = re.compile(r"(bytes:)? ?(\\x[0-9a-f]{2}|\ufffd)+")
"""How vendors write a token that is a part of a character."""


def prune(holder: Json, text: object, key: str = "logprobs") -> bool:
    """Take out of `holder[key]` what is not `text`; return whether anything was."""
    tokens = holder.get(key)
    if not tokens:
        return False
    if not isinstance(text, str) or _spelled(tokens) != text.encode(*_BYTES):
        holder[key] = []
        return True
    given = [token for token in tokens if token.get("top_logprobs")]
    for token in given:
        token["top_logprobs"] = []
    return bool(given)


def _spelled(tokens: Any) -> bytes | None:
    """Return the bytes that a list of tokens spells, `None` where it says anything else."""
    try:
        return b"".join(_bytes(token) for token in tokens)
    except (TypeError, ValueError, KeyError, AttributeError, OverflowError):
        return None


def _bytes(token: Any) -> bytes:
    """Return the bytes of a token.

    Raises:
        ValueError: it holds more than they say; other errors where it is no token at all.
    """
    shown: str = token["token"]
    said = shown.encode(*_BYTES)
    if not token.keys() <= _KEYS or not isinstance(token.get("logprob"), int | float | None):
        raise ValueError("there is more in the token than a text and a number")
    if token.get("bytes") is None:
        return said
    spelled = b"".join(number.to_bytes() for number in token["bytes"])
    if said != spelled and not (_is_part(spelled) and _ESCAPED.fullmatch(shown)):
        raise ValueError("the token shows another text than it spells")
    return spelled


def _is_part(spelled: bytes) -> bool:
    """Return whether bytes are a part of a character, so that they have no text."""
    try:
        spelled.decode(*_BYTES)
    except UnicodeDecodeError:
        return True
    return False
