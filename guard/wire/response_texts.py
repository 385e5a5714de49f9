"""Where the texts of a response of OpenAI's Responses API stand, in its events and as a whole.

A response is a list of items: messages, reasoning, tool calls and what tools gave back. In a
stream a text comes in pieces, and again in the event that closes it, in the one that closes its
part, in the one that closes its item, and in the response itself; the later ones are *echoes*
(`Part.echo`). The names of channels begin with their item's place, such as
`choices[0].output[2].content[0]`, so that the end of an item is the end of its texts.

Whatever is not listed here is judged too: pieces of an unknown kind as one text, every other
string by itself. What the request said (its instructions, its tools) may be repeated beside the
output: it is no news to whoever sent it.

This module does not know what becomes of a text, and of a stream only which item is where.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

from guard.exchange import Channel
from guard.unsaid import is_data, says_nothing
from guard.wire.parts import Part, others, setter
from guard.wire.tokens import prune

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator

    from guard.exchange import ChannelKind
    from guard.wire.parts import Json


@dataclass(frozen=True, slots=True)
class Stem:
    """A kind of text that comes in pieces; `response.STEM.delta` and `.done` are its events.

    Attributes:
        key: what holds the text where it stands whole.
        kind: what it counts as.
        place: where it stands in its item; `{}` is filled with its number.
        number: the key that holds its number among its like, `""` where there is but one.
    """

    key: str
    kind: ChannelKind
    place: str
    number: str = ""


STEMS: Final = {
    "output_text": Stem("text", "content", "content[{}]", "content_index"),
    "refusal": Stem("refusal", "refusal", "content[{}].refusal", "content_index"),
    "reasoning_text": Stem("text", "reasoning", "content[{}].reasoning", "content_index"),
    "reasoning_summary_text": Stem("text", "reasoning", "summary[{}]", "summary_index"),
    "function_call_arguments": Stem("arguments", "tool_call", "arguments"),
    "mcp_call_arguments": Stem("arguments", "tool_call", "arguments"),
    "custom_tool_call_input": Stem("input", "tool_call", "input"),
    "code_interpreter_call_code": Stem("code", "tool_call", "code"),
    "shell_call_command": Stem("command", "tool_call", "action.commands[{}]", "command_index"),
}
"""Every kind of text that comes in pieces, but for what a shell prints."""

PART_STEMS: Final = {
    "output_text": "output_text",
    "refusal": "refusal",
    "reasoning_text": "reasoning_text",
    "summary_text": "reasoning_summary_text",
}
"""The kind of text that a part of a message or of a reasoning holds, by the part's type."""

_CALLED: Final = ("arguments", "input", "code", "commands", "command", "diff")
"""Keys in an item that hold what a tool is told to do."""

_PRINTED: Final = ("output", "result", "logs", "text", "stdout", "stderr")
"""Keys in an item that hold what a tool gave back; below an action they are told to it."""

_ACTIONS: Final = ("action", "operation")

_PART_EVENTS: Final = {
    f"{stem}.{state}": (place, number)
    for stem, place, number in (
        ("content_part", "content", "content_index"),
        ("reasoning_summary_part", "summary", "summary_index"),
    )
    for state in ("added", "done")
}

_NUMBERS: Final = ("content_index", "summary_index", "command_index")

_ROOT: Final = "choices[0]"
"""A response has one answer."""


@dataclass(frozen=True, slots=True)
class _How:
    """How the strings of an object are taken.

    Attributes:
        echo: as repetitions of what came before.
        acts: as what a tool is told to do.
    """

    echo: bool
    acts: bool = False


class Texts:
    """Finds the texts; made for one response, or for its stream.

    Args:
        repeats: texts of the request.
    """

    def __init__(self, repeats: Collection[str] = ()) -> None:
        """Know no item yet."""
        self._repeats = repeats
        self._tools: dict[str, str] = {}
        self._tool = ""
        self._places: dict[str, str] = {}
        self._taken: set[str] = set()

    def of_event(self, event: Json) -> Iterator[Part]:
        """Yield the texts of an event."""
        name, place = name_of(event), self._place(event)
        stem, _, state = name.rpartition(".")
        self._tool = self._tools.get(place, "")
        if isinstance(event.get("response"), dict):
            yield from self.beside(event["response"])
            yield from self.output(event["response"], echo=True)
            yield from others(event, _other(_ROOT), ("response",))
        elif stem == "output_item":
            yield from self._item(event.get("item"), place, echo=state == "done")
            yield from others(event, _other(place), ("item",))
        elif name in _PART_EVENTS:
            key, number = _PART_EVENTS[name]
            at = f"{place}.{key}[{event.get(number, 0)}]"
            echo = state == "done"
            yield from self._typed(event.get("part"), at, echo=echo, opens=not echo)
            yield from others(event, _other(place), ("part",))
        elif stem == "shell_call_output_content":
            yield from self._printed(event, place)
        elif stem in STEMS:
            yield from self._stem(event, place, STEMS[stem], state)
        else:
            yield from _unknown(event, place, stem, state)

    def beside(self, response: Json) -> Iterator[Part]:
        """Yield the texts of a response object beside its output, without the request's own."""
        for part in others(response, _other(_ROOT), ("output",)):
            if part.text not in self._repeats:
                yield part

    def output(self, response: Json, *, echo: bool) -> Iterator[Part]:
        """Yield the texts of a response object's items."""
        if not isinstance(response.get("output"), list):
            yield from others(response.get("output"), _other(_ROOT), (), response, "output")
        for position, item in enumerate(listed(response, "output")):
            yield from self._item(item, self._known(item, position), echo=echo)

    def completed(self, event: Json) -> Iterator[str]:
        """Yield the places whose texts end with an event."""
        name, place = name_of(event), self._place(event)
        stem, _, state = name.rpartition(".")
        if state != "done":
            return
        if stem == "output_item":
            yield place
        elif name in _PART_EVENTS:
            key, number = _PART_EVENTS[name]
            yield f"{place}.{key}[{event.get(number, 0)}]"
        elif stem == "shell_call_output_content":
            yield f"{place}.output[{event.get('command_index', 0)}]"
        elif stem in STEMS:
            yield _named(STEMS[stem], place, event)
        else:
            yield _unknown_name(stem, place, event)

    def _place(self, event: Json) -> str:
        """Return the place of the item that an event is about."""
        index, identity = event.get("output_index"), event.get("item_id")
        if isinstance(index, int) and not isinstance(index, bool):
            return f"{_ROOT}.output[{index}]"
        named = identity if isinstance(identity, str) else ""
        return self._places.get(named) or f"{_ROOT}.output[{named!r}]"

    def _known(self, item: Any, position: int) -> str:
        """Return the place of an item of a whole response: the one that its events had."""
        identity, place = _identity(item), f"{_ROOT}.output[{position}]"
        if identity in self._places:
            return self._places[identity]
        # An item that nobody saw before must not be taken for another.
        return f"{_ROOT}.output[{identity!r}]" if place in self._taken else place

    def _item(self, item: Any, place: str, *, echo: bool) -> Iterator[Part]:
        if not isinstance(item, dict):
            yield from others(item, _other(place))
            return
        self._places.setdefault(_identity(item) or place, place)
        self._taken.add(place)
        name = item.get("name")
        self._tool = name if isinstance(name, str) else str(item.get("type"))
        self._tools[place] = self._tool
        lists = [key for key in ("content", "summary") if isinstance(item.get(key), list)]
        for key in lists:
            for number, part in enumerate(item[key]):
                yield from self._typed(part, f"{place}.{key}[{number}]", echo=echo)
        yield from self._walk(item, place, _How(echo), lists)

    def _typed(self, part: Any, at: str, *, echo: bool, opens: bool = False) -> Iterator[Part]:
        """Yield the texts of a part of a message or of a reasoning.

        What opens a part leaves with some of its text, so that there is a part to close only
        where something was said in it.
        """
        if not isinstance(part, dict):
            yield from others(part, _other(at))
            return
        kind = part.get("type")
        stem = STEMS.get(PART_STEMS.get(kind, "") if isinstance(kind, str) else "")
        handled: tuple[str, ...] = ()
        if stem is not None and isinstance(part.get(stem.key), str):
            handled = (stem.key, "logprobs")
            name = f"{at}{stem.place.partition('{}]')[2]}"
            text = self._part(part, stem.key, name, stem.kind, echo=echo)
            yield replace(text, leads=opens)
        yield from self._walk(part, at, _How(echo), handled)

    def _walk(self, value: Json, at: str, how: _How, known: Collection[str] = ()) -> Iterator[Part]:
        """Yield the texts in an object of an item, without its keys of `known`.

        What a tool was told and what it gave back are texts of their own, so that they can be
        rewritten; other strings may change from event to event, as states do.
        """
        for key, inner in value.items():
            yield from others({key: None}, _other(at))
            if key in known or says_nothing(key, inner):
                continue
            below = how if key not in _ACTIONS else _How(how.echo, acts=True)
            yield from self._within(value, key, f"{at}.{key}", _kind(key, how), below)

    def _within(
        self, holder: Any, key: Any, at: str, kind: ChannelKind | None, how: _How
    ) -> Iterator[Part]:
        value = holder[key]
        if isinstance(value, str) and kind is not None:
            yield self._part(holder, key, at, kind, echo=how.echo)
        elif isinstance(value, dict):
            yield from self._walk(value, at, how)
        elif isinstance(value, list):
            for number in range(len(value)):
                yield from self._within(value, number, f"{at}[{number}]", kind, how)
        else:
            yield from others(value, _other(at), (), holder, key)

    def _part(self, holder: Any, key: Any, name: str, kind: ChannelKind, *, echo: bool) -> Part:
        tool = self._tool if kind == "tool_call" else ""
        put = setter(holder, key)
        if isinstance(holder, dict):
            put = _without_tokens(holder, put)
        return Part(Channel(name, kind, 0, "", tool=tool), holder[key], put, echo=echo)

    def _stem(self, event: Json, place: str, stem: Stem, state: str) -> Iterator[Part]:
        """Yield a piece of a text, or all of it."""
        name = _named(stem, place, event)
        key = "delta" if state == "delta" else stem.key
        handled: tuple[str, ...] = ("logprobs",)
        if isinstance(event.get(key), str):
            handled = ("logprobs", key)
            part = self._part(event, key, name, stem.kind, echo=state == "done")
            # Whoever reads nothing but the pieces, by the item's id or its place, sees one text.
            by_id = _named(stem, f"{_ROOT}.{event.get('item_id')}", event)
            also = (f"{name}.pieces", f"{by_id}.pieces") if state == "delta" else ()
            yield replace(part, also=also)
        yield from others(event, _other(place), handled)

    def _printed(self, event: Json, place: str) -> Iterator[Part]:
        """Yield what a command of a shell printed."""
        at = f"{place}.output[{event.get('command_index', 0)}]"
        chunks = listed(event, "output")
        delta = event["delta"] if isinstance(event.get("delta"), dict) else {}
        yield from self._walk(delta, at, _How(echo=False))
        for number in range(len(chunks)):
            name = f"{at}.more[{number}]" if number else at
            yield from self._within(chunks, number, name, None, _How(echo=True))
        handled = [key for key, value in (("delta", delta), ("output", chunks)) if value]
        yield from others(event, _other(place), handled)


def name_of(event: Json) -> str:
    """Return an event's type without `response.`, `""` where it has none."""
    kind = event.get("type")
    return kind.removeprefix("response.") if isinstance(kind, str) else ""


def drop_foreign_tokens(event: Json) -> bool:
    """Take out tokens that are not those of the text beside them; return whether some were."""
    response = event.get("response")
    items = [event.get("item"), *listed(response, "output")]
    parts = [
        event,
        event.get("part"),
        *(part for item in items for part in listed(item, "content")),
    ]
    scored = [part for part in parts if isinstance(part, dict)]
    dropped = [prune(part, part.get("delta", part.get("text"))) for part in scored]
    return any(dropped)


def listed(holder: Any, key: str) -> list[Any]:
    """Return the list under a key, empty where there is none."""
    value = holder.get(key) if isinstance(holder, dict) else None
    return value if isinstance(value, list) else []


def _without_tokens(holder: Json, put: Callable[[str], None]) -> Callable[[str], None]:
    """Return what writes a text, and takes out the tokens of the text that it replaces."""

    def put_text(text: str) -> None:
        put(text)
        if holder.get("logprobs"):
            holder["logprobs"] = []

    return put_text


def _unknown(event: Json, place: str, stem: str, state: str) -> Iterator[Part]:
    """Yield the texts of an event that nobody knows; its pieces may make up one text."""
    delta = event.get("delta")
    handled: tuple[str, ...] = ()
    if state == "delta" and isinstance(delta, str):
        handled = ("delta",)
        if not is_data(delta):
            # What is taken out of a transcript would still be heard.
            heard = stem == "audio.transcript"
            name = _unknown_name(stem, place, event)
            channel = Channel(name, "content", 0, "", sealed=heard)
            yield Part(channel, delta, _without_tokens(event, setter(event, "delta")))
    yield from others(event, _other(place), handled)


def _unknown_name(stem: str, place: str, event: Json) -> str:
    numbers = "".join(f"[{event[key]}]" for key in _NUMBERS if key in event)
    # No known text has such a name.
    return f"{place}.({stem}){numbers}"


def _named(stem: Stem, place: str, event: Json) -> str:
    return f"{place}.{stem.place.format(event.get(stem.number, 0))}"


def _kind(key: str, how: _How) -> ChannelKind | None:
    if key in _CALLED:
        return "tool_call"
    if key in _PRINTED:
        return "tool_call" if how.acts else "content"
    return None


def _other(at: str) -> Channel:
    return Channel(f"{at}.other", "content", 0, "")


def _identity(item: Any) -> str:
    """Return what tells an item from others, `""` where nothing does."""
    if not isinstance(item, dict):
        return ""
    known, call = item.get("id"), item.get("call_id")
    if isinstance(known, str) and known:
        return known
    # A call and what it gave back have one `call_id`.
    return f"{item.get('type')}:{call}" if isinstance(call, str) else ""
