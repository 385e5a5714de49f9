"""Parts: every place of a vendor's JSON that holds text, with the channel that it belongs to.

Texts that a format is known to carry have channels of their own. Every other string is judged
too, by itself: what nobody knows is not passed unread. Only the values of a few keys are passed
over, which no reader is shown as text: identifiers, types, states.

This module does not know any one format, and judges nothing.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

from guard.errors import GuardError

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence

    from guard.exchange import Channel

Json = dict[str, Any]
"""A JSON object."""

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
    }
)
"""Keys whose strings are identifiers, enumerations or ciphers."""

_IDENTIFIER: Final = re.compile(r"[A-Za-z0-9_$./-]{1,64}")
"""A key that says nothing to a reader."""

DEEPEST: Final = 64
"""Levels of nesting; a document that is deeper is refused."""


class BodyError(GuardError):
    """A backend's JSON cannot be read, so that it cannot be judged; the message never quotes it."""


@dataclass(frozen=True, slots=True)
class Part:
    """One text of a document.

    Attributes:
        channel: what it belongs to.
        text: the text.
        put: writes another text in its place.
        lone: whether it is judged by itself instead of as the next piece of its channel.
        echo: whether it repeats all of a channel that came before in pieces.
    """

    channel: Channel
    text: str
    put: Callable[[str], None]
    lone: bool = False
    echo: bool = False


def parse(text: str | bytes) -> tuple[Json, bool]:
    """Return a JSON object, and whether it is the same to every reader.

    It is not where a key stands twice: readers differ in which of the two they take.

    Raises:
        BodyError: it is no JSON object, or nested deeper than `DEEPEST`.
    """
    twice = False

    def pairs(items: list[tuple[str, Any]]) -> Json:
        nonlocal twice
        given = dict(items)
        twice = twice or len(given) < len(items)
        return given

    try:
        document = json.loads(text, object_pairs_hook=pairs)
    except (ValueError, RecursionError) as error:
        raise BodyError("the backend's answer is no JSON") from error
    if not isinstance(document, dict):
        raise BodyError("the backend's answer is no JSON object")
    if _depth(document) > DEEPEST:
        raise BodyError(f"the backend's answer is nested deeper than {DEEPEST} levels")
    return document, not twice


def written(document: Json) -> str:
    """Return a document as compact JSON in ASCII, which holds lone surrogates too."""
    return json.dumps(document, separators=(",", ":"))


def setter(holder: Any, key: Any) -> Callable[[str], None]:
    """Return what writes a text to `holder[key]`."""

    def put(text: str) -> None:
        holder[key] = text

    return put


def _nowhere(text: str) -> None:
    """Stand for a place that cannot be written: a key."""


def others(
    value: Any, channel: Channel, known: Collection[str] = (), holder: Any = None, key: Any = None
) -> Iterator[Part]:
    """Yield every string in `value` as a lone part of `channel`, keys of `known` left out."""
    if isinstance(value, str):
        if value:
            yield Part(channel, value, setter(holder, key), lone=True)
    elif isinstance(value, dict):
        for name, inner in value.items():
            if not _IDENTIFIER.fullmatch(name):
                yield Part(channel, name, _nowhere, lone=True)
            if name not in known and not (name in PASSED_OVER and isinstance(inner, str)):
                yield from others(inner, channel, (), value, name)
    elif isinstance(value, list):
        for at, inner in enumerate(value):
            yield from others(inner, channel, (), value, at)


def joined(parts: Iterable[Part]) -> Iterator[Part]:
    """Yield `parts`, those that repeat another's text under a second key joined with it.

    Some backends spell one piece of reasoning in two or three ways side by side. A lone part
    that repeats a text which belongs to a channel is that text, and is rewritten with it.
    """
    listed = list(parts)
    first: dict[str, Part] = {}
    for part in listed:
        if not part.lone and part.text:
            first.setdefault(f"{part.channel.kind}\0{part.text}", part)
    puts: dict[int, list[Callable[[str], None]]] = {}
    kept = []
    for part in listed:
        twin = _twin(part, first)
        if twin is None or twin is part:
            kept.append(part)
        else:
            puts.setdefault(id(twin), [twin.put]).append(part.put)
    for part in kept:
        yield replace(part, put=_all(puts[id(part)])) if id(part) in puts else part


def _twin(part: Part, first: Mapping[str, Part]) -> Part | None:
    kinds = ("reasoning", "content") if part.lone else (part.channel.kind,)
    if part.channel.kind == "tool_call":
        return None
    return next((first[k] for kind in kinds if (k := f"{kind}\0{part.text}") in first), None)


def _all(puts: Sequence[Callable[[str], None]]) -> Callable[[str], None]:
    def put(text: str) -> None:
        for each in puts:
            each(text)

    return put


def _depth(value: Any) -> int:
    """Return how deep a document is nested, without recursion."""
    deepest, level = 0, [value]
    while level:
        inner = [each for each in level if isinstance(each, dict | list)]
        deepest += bool(inner)
        level = [
            child for each in inner for child in (each.values() if isinstance(each, dict) else each)
        ]
    return deepest
