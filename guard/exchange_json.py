"""Reads an exchange from one JSON object, in the shapes that logs of chat models have.

What a choice holds under a known key is read into a channel or refused: text that is passed
over would leave unjudged. What was asked is read like a request (`guard.request_text`): of its
blocks any text counts, whatever its key, and an image is passed over.

This module does not know HTTP, streams or what is done with an exchange.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, TypeGuard, get_args

from guard.errors import InputError
from guard.exchange import ChannelKind, Choice, Exchange, Message, Role, ToolCall, completed
from guard.request_text import text_of, turns

_ROLES: Final = get_args(Role)
_ARGUMENTS: Final = ("arguments", "input", "args", "parameters")

_TEXTS: Final[dict[str, ChannelKind]] = {
    "reasoning": "reasoning",
    "reasoning_content": "reasoning",
    "thinking": "reasoning",
    "content": "content",
    "text": "content",
    "refusal": "refusal",
}
"""What may hold text in a choice, and the channel that it belongs to."""

_CHOICE: Final = (*_TEXTS, "audio", "tool_calls", "function_call")

_PARTS: Final = ("thinking", "text", "refusal")
"""What may hold text in one part of a list."""

_OPAQUE: Final = ("redacted_thinking",)
"""Parts that nobody but the vendor can read."""

_SHOWN: Final = 20
"""Problems that a message lists; the others are counted."""

_Piece = tuple[ChannelKind, str | ToolCall]


def parse(data: object) -> Exchange:
    """Return the exchange in `data`; see `Exchange.parse`."""
    if not isinstance(data, Mapping):
        raise InputError(f"an exchange must be an object, not {_kind(data)}")
    reader = _Reader()
    try:
        exchange = reader.exchange(data)
    except RecursionError:
        raise InputError("the exchange is nested too deeply: flatten its parts") from None
    if reader.problems:
        shown, more = reader.problems[:_SHOWN], len(reader.problems) - _SHOWN
        raise InputError("; ".join([*shown, f"and {more} more"] if more > 0 else shown))
    return exchange


class _Reader:
    """Reads values, each with its path, and collects what is wrong with them."""

    def __init__(self) -> None:
        self.problems: list[str] = []

    def exchange(self, data: Mapping[str, Any]) -> Exchange:
        metadata = data.get("metadata")
        if metadata is not None and not isinstance(metadata, Mapping):
            self._wrong("metadata", "an object", metadata)
            metadata = None
        return Exchange(
            choices=self._choices(data),
            messages=self._messages(data),
            model=self._text(data.get("model"), "model"),
            metadata=metadata or {},
        )

    # What came back.

    def _choices(self, data: Mapping[str, Any]) -> tuple[Choice, ...]:
        response, choices = data.get("response"), data.get("choices")
        if (response is None) == (choices is None):
            both = "`response` and `choices` are both given: leave one out"
            none = "`response` (text) or `choices` (a list) is missing"
            self.problems.append(none if choices is None else both)
            return ()
        if choices is None:
            return (self._choice(response, "response"),)
        if not _is_list(choices) or not choices:
            self._wrong("choices", "a list with at least one choice", choices)
            return ()
        return tuple(self._choice(item, f"choices[{i}]") for i, item in enumerate(choices))

    def _choice(self, item: object, at: str) -> Choice:
        if isinstance(item, Mapping) and item.get("message") is not None:
            beside = [key for key in _CHOICE if item.get(key) is not None]
            self.problems.extend(f"`{at}.{key}` stands beside `message`" for key in beside)
            item, at = item["message"], f"{at}.message"
        pieces = list(self._pieces(item, at))

        def joined(kind: ChannelKind) -> str:
            return "".join(piece for k, piece in pieces if k == kind and isinstance(piece, str))

        return Choice(
            content=joined("content"),
            reasoning=joined("reasoning"),
            refusal=joined("refusal"),
            tool_calls=tuple(piece for _, piece in pieces if isinstance(piece, ToolCall)),
        )

    def _pieces(self, item: object, at: str) -> Iterator[_Piece]:
        """Yield the texts and calls of one answer, in their order within a channel."""
        if isinstance(item, str) or _is_list(item):
            yield from self._channel("content", item, at)
        elif not isinstance(item, Mapping):
            self._wrong(at, "text or an object", item)
        elif not any(key in item for key in _CHOICE):
            names = ", ".join(f"`{key}`" for key in _CHOICE)
            self.problems.append(f"`{at}` has none of {names}: there is nothing to judge")
        else:
            for key in _spoken(item):
                yield from self._channel(_TEXTS[key], item[key], f"{at}.{key}")
            if item.get("audio") is not None:
                yield from self._spoken_words(item["audio"], f"{at}.audio")
            yield from self._calls(item.get("tool_calls"), f"{at}.tool_calls")
            if item.get("function_call") is not None:
                yield self._call(item["function_call"], f"{at}.function_call")

    def _spoken_words(self, audio: object, at: str) -> Iterator[_Piece]:
        """Yield what a spoken answer says; the sound itself cannot be judged."""
        if not isinstance(audio, Mapping) or not isinstance(audio.get("transcript"), str):
            self.problems.append(f"`{at}` has no `transcript`: nothing here can judge sound")
            return
        yield "content", audio["transcript"]

    def _channel(self, kind: ChannelKind, value: object, at: str) -> Iterator[_Piece]:
        """Yield what a channel holds: text, or a list of typed parts."""
        if not _is_list(value):
            yield kind, self._text(value, at, "text or a list of parts")
            return
        for index, part in enumerate(value):
            yield from self._part(kind, part, f"{at}[{index}]")

    def _part(self, kind: ChannelKind, part: object, at: str) -> Iterator[_Piece]:
        if isinstance(part, str):
            yield kind, part
        elif not isinstance(part, Mapping):
            self._wrong(at, "text or an object", part)
        else:
            yield from self._typed_part(kind, part, at)

    def _typed_part(self, kind: ChannelKind, part: Mapping[str, Any], at: str) -> Iterator[_Piece]:
        called = "name" in part and any(key in part for key in _ARGUMENTS)
        if called:
            yield self._call(part, at)
        keys = [key for key in _PARTS if key in part]
        for key in keys:
            channel: ChannelKind = "reasoning" if key == "thinking" else kind
            channel = "refusal" if key == "refusal" else channel
            yield from self._channel(channel, part[key], f"{at}.{key}")
        if not called and not keys and part.get("type") not in _OPAQUE:
            self.problems.append(f"`{at}` has no `text`: nothing here can judge such a part")

    def _calls(self, listed: object, at: str) -> Iterator[_Piece]:
        if not _is_list(listed):
            if listed is not None:
                self._wrong(at, "a list", listed)
            return
        for index, item in enumerate(listed):
            yield self._call(item, f"{at}[{index}]")

    def _call(self, item: object, at: str) -> _Piece:
        """Read a tool call, which may have its parts under `function` or `custom`."""
        if not isinstance(item, Mapping):
            self._wrong(at, "an object", item)
            return "tool_call", ToolCall("", "")
        inner = next((key for key in ("function", "custom") if item.get(key) is not None), "")
        body, place = (item[inner], f"{at}.{inner}") if inner else (item, at)
        if not isinstance(body, Mapping):
            self._wrong(place, "an object", body)
            return "tool_call", ToolCall("", "")
        keys = [key for key in _ARGUMENTS if key in body] or [_ARGUMENTS[0]]
        key, *others = sorted(keys, key=lambda key: body.get(key) is None)
        for needed in ("name", key):
            if needed not in body:
                self.problems.append(f"`{place}.{needed}` is missing")
        for other in others:
            if body[other] is not None:
                self.problems.append(f"`{place}.{other}` stands beside `{key}`: leave one out")
        name = self._text(body.get("name"), f"{place}.name")
        arguments = self._arguments(body.get(key), f"{place}.{key}")
        return "tool_call", ToolCall(name, arguments, self._text(item.get("id"), f"{at}.id"))

    def _arguments(self, value: object, at: str) -> str:
        """Return arguments as text: a parsed object is written as a model would write it."""
        if not isinstance(value, Mapping) and not _is_list(value):
            return self._text(value, at, "text or an object")
        try:
            return json.dumps(value, ensure_ascii=False)
        except (TypeError, ValueError, RecursionError) as error:
            self.problems.append(f"`{at}` cannot be written as JSON: {error}")
            return ""

    # What was asked.

    def _messages(self, data: Mapping[str, Any]) -> tuple[Message, ...]:
        listed = data.get("messages")
        prompt = self._text(data.get("prompt"), "prompt")
        system = text_of(self._asked(data.get("system"), "system"))
        if listed is not None and not _is_list(listed):
            self._wrong("messages", "a list", listed)
            return ()
        tools: dict[str, str] = {}
        own = [
            message
            for i, item in enumerate(listed or ())
            for message in self._message(item, f"messages[{i}]", tools)
        ]
        messages = completed(tuple(own), prompt, system)
        if prompt.strip() and Exchange((), messages).prompt != prompt:
            self.problems.append("`prompt` is not the last user message: leave one of them out")
        return messages

    def _message(self, item: object, at: str, tools: dict[str, str]) -> Iterator[Message]:
        """Yield what a message says; a tool's result inside it is a message of its own."""
        if not isinstance(item, Mapping):
            self._wrong(at, "an object", item)
            return
        role: Any = item.get("role")
        if role not in _ROLES:
            self.problems.append(f"`{at}.role` must be one of {', '.join(_ROLES)}")
            role = "user"
        name = self._text(item.get("name"), f"{at}.name")
        content = self._asked(item.get("content"), f"{at}.content")
        blocks = content if isinstance(content, list) else [content]
        said = list(turns(role, blocks, tools, name))
        # A message without any text may still be the last one.
        yield from said or [Message(role, "", name)]

    def _asked(self, value: object, at: str) -> str | list[Any]:
        """Return text, or blocks of which any text counts."""
        if not _is_list(value):
            return self._text(value, at, "text or a list of parts")
        for index, part in enumerate(value):
            if not isinstance(part, str | Mapping):
                self._wrong(f"{at}[{index}]", "text or an object", part)
        return [dict(part) if isinstance(part, Mapping) else part for part in value]

    def _text(self, value: object, at: str, wanted: str = "text") -> str:
        """Return text; absent and null count as empty."""
        if value is None or isinstance(value, str):
            return value or ""
        self._wrong(at, wanted, value)
        return ""

    def _wrong(self, at: str, wanted: str, value: object) -> None:
        self.problems.append(f"`{at}` must be {wanted}, not {_kind(value)}")


def _spoken(item: Mapping[str, Any]) -> Iterator[str]:
    """Yield the keys of a choice that hold text."""
    for key, kind in _TEXTS.items():
        # Some servers send the same reasoning under two names.
        again = kind == "reasoning" != key and item.get(key) == item.get("reasoning")
        if item.get(key) is not None and not again:
            yield key


def _is_list(value: object) -> TypeGuard[Sequence[Any]]:
    return isinstance(value, Sequence) and not isinstance(value, str | bytes | bytearray)


def _kind(value: object) -> str:
    """Return what JSON calls a value of this type."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, int | float):
        return "a number"
    if isinstance(value, str):
        return "text"
    if isinstance(value, Mapping):
        return "an object"
    if _is_list(value):
        return "a list" if value else "an empty list"
    mend = ": decode it first" if isinstance(value, bytes | bytearray) else ""
    return type(value).__name__ + mend
