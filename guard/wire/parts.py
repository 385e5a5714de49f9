"""Parts: every place of a vendor's JSON that holds text, with the channel that it belongs to.

Texts that a format is known to carry have channels of their own. Every other string is judged
too, by itself: what nobody knows is not passed unread. So is a long number, which a reader sees as
he sees its digits in quotes. Only the values of a few keys are passed over, which no reader is
shown as text: identifiers, types, states.

This module does not know any one format, and judges nothing.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final

from guard.errors import GuardError
from guard.unsaid import DEEPEST, says_nothing, spelled

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence

    from guard.exchange import Channel

Json = dict[str, Any]
"""A JSON object."""

_IDENTIFIER: Final = re.compile(r"[A-Za-z0-9_$./-]{1,64}")
"""A key that says nothing to a reader."""

_HOLDERS: Final = (str, dict, list, int, float)
_TWO: Final = 2


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
        leads: whether it stands before its text, such as what opens a block or a tool call, and
            leaves only with some of it.
        also: names of further channels that it is a piece of, word for word.
    """

    channel: Channel
    text: str
    put: Callable[[str], None]
    lone: bool = False
    echo: bool = False
    leads: bool = False
    also: tuple[str, ...] = ()


def parse(text: str | bytes) -> tuple[Json, bool]:
    """Return a JSON object, and whether it is the same to every reader.

    It is not where a key stands twice: readers differ in which of the two they take.

    Raises:
        BodyError: it is no JSON object, or nested deeper than `DEEPEST`.
    """
    document, exact = parse_value(text)
    if not isinstance(document, dict):
        raise BodyError("the backend's answer is no JSON object")
    return document, exact


def parse_value(text: str | bytes) -> tuple[Any, bool]:
    """Return any JSON value, and whether it is the same to every reader, as `parse` does.

    Raises:
        BodyError: it is no JSON, or nested deeper than `DEEPEST`.
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
    brackets = (text.count("{") + text.count("[")) if isinstance(text, str) else DEEPEST + 1
    # Most documents have so few brackets that they cannot be deep.
    if brackets > DEEPEST and _depth(document) > DEEPEST:
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


def nowhere(text: str) -> None:
    """Stand for a place that cannot be written: a key."""


def others(
    value: Any, channel: Channel, known: Collection[str] = (), holder: Any = None, key: Any = None
) -> Iterator[Part]:
    """Yield every text in `value` as a lone part of `channel`, keys of `known` left out.

    A text is any string, and any number that is long enough to say something.
    """
    if isinstance(value, str | int | float):
        if text := value if isinstance(value, str) else spelled(value):
            yield Part(channel, text, setter(holder, key), lone=True)
    elif isinstance(value, dict):
        for name, inner in value.items():
            if not _identifies(name):
                yield Part(channel, name, nowhere, lone=True)
            holds = isinstance(inner, _HOLDERS) and name not in known
            if holds and not says_nothing(name, inner):
                yield from others(inner, _below(channel, name), (), value, name)
    elif isinstance(value, list):
        for at, inner in enumerate(value):
            yield from others(inner, channel, (), value, at)


def plain(document: Json, keys: Iterable[str]) -> Json:
    """Return what a document holds under `keys`, without what `others` would judge."""
    return {key: document[key] for key in keys if key in document and _is_plain(key, document[key])}


def counts(value: Any) -> Any:
    """Return usage without any text but what `others` passes over."""
    if not isinstance(value, dict):
        return None
    return {
        key: inner if _is_plain(key, inner) else counts(inner)
        for key, inner in value.items()
        if _IDENTIFIER.fullmatch(key)
    }


@lru_cache(maxsize=4096)
def _identifies(key: str) -> bool:
    """Return whether a key says nothing to a reader; a stream has the same ones in every event."""
    return _IDENTIFIER.fullmatch(key) is not None


def _is_plain(key: str, value: Any) -> bool:
    return value is None or says_nothing(key, value)


def _below(channel: Channel, key: str) -> Channel:
    """Return the channel of the strings under a key, so that each key's are one text."""
    return replace(channel, name=f"{channel.name}.{key if _IDENTIFIER.fullmatch(key) else '*'}")


def joined(parts: Iterable[Part]) -> Iterator[Part]:
    """Yield `parts`, those that repeat another's text under a second key joined with it.

    Some backends spell one piece of reasoning in two or three ways side by side. A lone part
    that repeats a text which belongs to a channel is that text, and is rewritten with it.
    """
    listed = list(parts)
    if sum(bool(part.text) for part in listed) < _TWO:
        yield from listed
        return
    first: dict[str, Part] = {}
    for part in listed:
        if not part.lone and part.text:
            first.setdefault(f"{part.channel.kind}\0{part.text}", part)
    twins: dict[int, list[Part]] = {}
    kept = []
    for part in listed:
        twin = _twin(part, first)
        if twin is None:
            kept.append(part)
        else:
            twins.setdefault(id(twin), []).append(part)
    for part in kept:
        yield _joined(part, twins.get(id(part), ()))


def _twin(part: Part, first: Mapping[str, Part]) -> Part | None:
    kinds = ("reasoning", "content") if part.lone else (part.channel.kind,)
    if part.channel.kind == "tool_call":
        return None
    found = (first.get(f"{kind}\0{part.text}") for kind in kinds)
    # What stands twice under one key is said twice.
    return next((p for p in found if p and p.channel.name != part.channel.name), None)


def _joined(part: Part, twins: Sequence[Part]) -> Part:
    if not twins:
        return part
    puts = [part.put, *(twin.put for twin in twins)]
    also = dict.fromkeys(twin.channel.name for twin in twins)
    return replace(part, put=_all(puts), also=tuple(also))


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
