"""The texts in an answer of LangChain's: blocks of all vendors, and calls of tools.

Vendors' packages say a call two or three times side by side: as the framework reads it, in the
content and in the vendor's own form. Those are one text here. All text of one kind is one text,
too, as readers join it, so that nothing hides between two blocks.

This module does not know messages (`guard.adapters.langchain_messages`), and judges nothing.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final

from pydantic import BaseModel

from guard.exchange import Channel
from guard.unsaid import is_data
from guard.wire.parts import Part, joined, nowhere, others, setter

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from guard.exchange import ChannelKind
    from guard.wire.parts import Json

_BLOCKS: Final[dict[object, ChannelKind]] = {
    None: "content",
    "text": "content",
    "output_text": "content",
    "reasoning": "reasoning",
    "reasoning_content": "reasoning",
    "reasoning_text": "reasoning",
    "summary_text": "reasoning",
    "thinking": "reasoning",
    "refusal": "refusal",
}
"""Blocks that hold a text, by their type, and what it is."""

_TEXTS: Final[dict[str, ChannelKind | None]] = {
    "text": None,
    "content": None,
    "reasoning": "reasoning",
    "reasoning_content": "reasoning",
    "summary": "reasoning",
    "thinking": "reasoning",
    "refusal": "refusal",
}
"""Keys of such a block that hold its text, and what that is where the block does not say."""

_CALLS: Final = frozenset(
    {
        "tool_call",
        "tool_call_chunk",
        "invalid_tool_call",
        "tool_use",
        "input_json_delta",
        "function_call",
        "custom_tool_call",
    }
)
"""Types of blocks that repeat, or are, a call of one of the application's tools."""

_ARGUMENTS: Final = ("args", "arguments", "input", "partial_json")
"""Keys that hold a call's arguments, as an object or as the text of one."""

_ORDER: Final = {"reasoning": 0, "content": 1, "refusal": 2}
"""Kinds of texts in the order in which a model writes them."""


@dataclass(slots=True)
class _Call:
    """One place that holds the arguments of a tool call, or a piece of them.

    Attributes:
        names: what the call is known by here: its identifier, its index.
        part: the text.
    """

    names: frozenset[str]
    part: Part


@dataclass(slots=True)
class Found:
    """The texts of one answer, as they are found."""

    choice: int
    texts: list[Part] = field(default_factory=list)
    calls: list[_Call] = field(default_factory=list)
    lone: list[Part] = field(default_factory=list)
    unnamed: int = 0

    def other(
        self, value: Any, known: Iterable[str] = (), holder: Any = None, key: Any = None
    ) -> None:
        """Take every string in a value that has no channel of its own."""
        channel = Channel(f"choices[{self.choice}].other", "content", self.choice, "")
        self.lone += others(value, channel, tuple(known), holder, key)
        self.lone += [Part(channel, text, nowhere, lone=True) for text in _opaque(value, known)]

    def text(
        self, value: Any, kind: ChannelKind, holder: Any, key: Any, beside: str | None = None
    ) -> None:
        """Take a text, a block, or a list of them.

        Args:
            value: the text, or what holds it.
            kind: what it is, where no block says it.
            holder: holds the value.
            key: where.
            beside: the key that it stands under beside the content; it may be said twice.
        """
        if isinstance(value, str):
            sealed = kind == "reasoning" and isinstance(holder, dict) and _signed(holder)
            name = f"choices[{self.choice}].{beside or kind}"
            channel = Channel(name, kind, self.choice, "", sealed=sealed)
            self.texts.append(Part(channel, value, setter(holder, key)))
        elif isinstance(value, list):
            for at, inner in enumerate(value):
                self.text(inner, kind, value, at, beside)
        elif isinstance(value, dict):
            self._block(value, kind, beside)
        else:
            self.other(value, (), holder, key)

    def call(self, holder: Json, key: str, *names: object) -> None:
        """Take the arguments of a call, which are an object or the text of one.

        Args:
            holder: holds them, and the tool's name.
            key: where.
            names: what the call is known by, the best name last.
        """
        given = [each for each in names if each is not None]
        if not given:
            self.unnamed += 1
        place = given[-1] if given else f"#{self.unnamed}"
        tool = holder.get("name")
        channel = Channel(
            f"choices[{self.choice}].tool_calls[{place}].arguments",
            "tool_call",
            self.choice,
            "",
            tool=tool if isinstance(tool, str) else "",
        )
        value, put = holder.get(key), setter(holder, key)
        if value is not None and not isinstance(value, str):
            value, put = json.dumps(value, ensure_ascii=False, default=str), _reader(holder, key)
        self.calls.append(_Call(frozenset(map(repr, given)), Part(channel, value or "", put)))
        self.other(tool)

    def parts(self) -> Iterator[Part]:
        """Yield every text once, those that a model writes first in front."""
        texts = sorted(self.texts, key=lambda part: _ORDER[part.channel.kind])
        yield from joined([*texts, *self.lone])
        for call in _merged(self.calls):
            yield call.part

    def _block(self, block: Json, kind: ChannelKind, beside: str | None) -> None:
        said = block.get("type")
        said = said if said is None or isinstance(said, str) else ""
        if said in _CALLS:
            self._call_block(block)
        elif said in _BLOCKS:
            kind = kind if said is None else _BLOCKS[said]
            for key in [key for key in _TEXTS if key in block]:
                self.text(block[key], _TEXTS[key] or kind, block, key, beside)
            self.other(block, _TEXTS)
        else:
            self.other(block, _media(block))

    def _call_block(self, block: Json) -> None:
        key = next((key for key in _ARGUMENTS if block.get(key)), None)
        known = ("index", "type", "id", "call_id", "name", "error", *_ARGUMENTS)
        if key is not None:
            self.call(block, key, block.get("call_id") or block.get("id"), block.get("index"))
        else:
            self.other(block.get("name"))
        self.other(block, known)


def _merged(calls: Sequence[_Call]) -> Iterator[_Call]:
    """Yield calls, those that are said twice once, with both places to write to."""
    kept: list[_Call] = []
    for call in calls:
        twin = next((known for known in kept if _same(known, call)), None)
        if twin is None:
            kept.append(call)
        else:
            twin.part = replace(twin.part, put=both(twin.part.put, call.part.put))
    yield from kept


def _same(one: _Call, other: _Call) -> bool:
    if one.names and other.names and not one.names & other.names:
        return False
    return canonical(one.part.text) == canonical(other.part.text)


def both(one: Callable[[str], None], other: Callable[[str], None]) -> Callable[[str], None]:
    """Return what writes a text to two places."""

    def put(text: str) -> None:
        one(text)
        other(text)

    return put


def _reader(holder: Json, key: str) -> Callable[[str], None]:
    """Return what writes the object that a text is; the ledger has seen that it is one."""

    def put(text: str) -> None:
        holder[key] = json.loads(text)

    return put


def canonical(text: str) -> str:
    """Return JSON in the one way to write it, and any other text as it is."""
    try:
        return json.dumps(json.loads(text), sort_keys=True)
    except (ValueError, RecursionError):
        return text


def _opaque(value: Any, known: Iterable[str] = ()) -> Iterator[str]:
    """Yield what objects would show that are no JSON, such as a vendor's own."""
    if isinstance(value, dict):
        for key, inner in value.items():
            if key not in known:
                yield from _opaque(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _opaque(inner)
    elif not isinstance(value, str | int | float | bytes | None):
        yield shown(value)


def shown(value: Any) -> str:
    """Return what a reader would see of a value."""
    if isinstance(value, BaseModel):
        return value.model_dump_json()
    return json.dumps(value, default=str) if isinstance(value, dict | list) else str(value)


def _signed(block: Json) -> bool:
    """Return whether a block's text is under a signature, which another text would break."""
    extras = block.get("extras")
    signed = isinstance(extras, dict) and "signature" in extras
    return block.get("type") == "thinking" or "signature" in block or signed


def _media(block: Json) -> list[str]:
    """Return the keys of a block that hold an image or a sound."""
    return [key for key in ("base64", "url", "image_url") if _is_media(block.get(key))]


def _is_media(value: Any) -> bool:
    if isinstance(value, dict):
        return set(value) <= {"url", "detail"} and _is_media(value.get("url"))
    if not isinstance(value, str):
        return False
    head, _, data = value.partition(";base64,")
    return is_data(data if head.startswith("data:") else value)
