"""What in a vendor's JSON is no text to anybody: identifiers, types, states, media, counts.

This module does not know any one format, and not whether it is of a request or of an answer.
"""

from __future__ import annotations

import math
import re
from typing import Any, Final

PASSED_OVER: Final = frozenset(
    {
        "id",
        "type",
        "object",
        "role",
        "status",
        "model",
        "index",
        "created",
        "finish_reason",
        "native_finish_reason",
        "stop_reason",
        "service_tier",
        "system_fingerprint",
        "item_id",
        "response_id",
        "call_id",
        "tool_use_id",
        "encrypted_content",
        "signature",
        "obfuscation",
        "event_id",
        "effort",
        "previous_response_id",
        "tool_choice",
        "truncation",
        "verbosity",
    }
)
"""Keys whose strings are identifiers, enumerations or ciphers, if no white space is in them."""

_DATA: Final = frozenset({"data", "result", "partial_image_b64", "b64_json"})
"""Keys that may hold an image or a sound."""

_DATA_MINIMUM: Final = 1024
"""Characters from which a text may be taken for an image or a sound; a shorter one is judged."""

_SPACE: Final = re.compile(r"\s")
_BASE64: Final = re.compile(r"[A-Za-z0-9+/]+={0,2}")

_LONG: Final = 10**10
"""From here on a number is a text: smaller ones are counts, tokens and times in seconds."""

DEEPEST: Final = 64
"""Levels of nesting; a document that is deeper is refused."""


def spelled(number: float) -> str:
    """Return a number's digits as a text, `""` where it is too short to be one.

    It stands on a line of its own, so that numbers under one key, which are no pieces of one text,
    never join.
    """
    if not _LONG <= abs(number) < math.inf:
        return ""
    return f"\n{int(number)}\n"


def is_data(text: str) -> bool:
    """Return whether a text is an image or a sound in base64, which is not judged as a text."""
    enough = len(text) >= _DATA_MINIMUM and len(text) % 4 == 0
    return enough and _BASE64.fullmatch(text) is not None


def says_nothing(name: str, value: Any) -> bool:
    """Return whether a key's value is no text to any reader."""
    if isinstance(value, int | float):
        return name in PASSED_OVER or not spelled(value)
    if not isinstance(value, str):
        return False
    if name in PASSED_OVER:
        # Some languages are written without spaces.
        return value.isascii() and _SPACE.search(value) is None
    return name in _DATA and is_data(value)
