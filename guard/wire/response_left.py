"""What of a stream of the Responses API has left, and how to close it behind that.

A stream that is broken off has an open text in an open part in an open item. Readers, SDKs among
them, expect each of them to be closed, and the response at the end to hold the same items.

This module does not judge anything and knows no reason why a stream is closed.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Literal

from guard.wire.parts import counts, plain
from guard.wire.response_texts import PART_STEMS, STEMS, listed, name_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from guard.wire.parts import Json

Status = Literal["completed", "incomplete"]
"""How a response ends."""

Voice = Literal["refusal", "output_text"]
"""What kind of part of a message a notice is."""

_BARE: Final[Json] = {
    "object": "response",
    "created_at": 0,
    "model": "",
    "error": None,
    "incomplete_details": None,
    "instructions": None,
    "metadata": {},
    "parallel_tool_calls": True,
    "temperature": None,
    "tool_choice": "auto",
    "tools": [],
    "top_p": None,
    "usage": None,
}
"""What a response has beside its output, where nothing else is known of it."""

_KNOWN: Final = ("id", "created_at", "model")

_STATUS: Final = {"apply_patch_call": "completed", "image_generation_call": "failed"}
"""How an item of a type ends that knows no `incomplete`."""

_PLACE: Final = ("item_id", "output_index", "content_index", "summary_index", "command_index")
"""Keys that say where in a response an event belongs."""

_PART_OF: Final = {"content": "content_part", "summary": "reasoning_summary_part"}
"""The stem of the events that open and close a part, by the list of an item that it is in."""

_BLANK: Final[dict[str, Json]] = {stem: {"type": kind} for kind, stem in PART_STEMS.items()} | {
    "output_text": {"type": "output_text", "annotations": []}
}
"""A part of which only a text has left, by the text's kind."""

_SLOTS: Final = {"content_index": "content", "summary_index": "summary"}
"""The list of an item that a text is in, by the key of its number."""


@dataclass(slots=True)
class _Said:
    """One text, as far as it has left.

    Attributes:
        stem: its kind; `""` in a part of a type that nobody knows.
        at: what its events say of their place.
        pieces: joined they are the text.
        part: the part that it is in; `None` where it stands in the item itself.
        ended: whether the text was closed.
        closed: whether its part was.
    """

    stem: str
    at: Json
    pieces: list[str] = field(default_factory=list)
    part: Json | None = None
    ended: bool = False
    closed: bool = False

    @property
    def text(self) -> str:
        """The text."""
        return "".join(self.pieces)

    def whole_part(self) -> Json:
        """Return its part, with the text in it."""
        part = self.part or _BLANK.get(self.stem, {})
        if self.closed or not self.stem:
            return part
        return part | {STEMS[self.stem].key: self.text} | _no_tokens(self.stem)


@dataclass(slots=True)
class _Item:
    """One item, as far as it has left, and its texts by their slot and number."""

    item: Json
    texts: dict[tuple[str, int], _Said] = field(default_factory=dict)
    closed: bool = False

    def whole(self) -> Json:
        """Return the item with the texts that have left."""
        if self.closed:
            return self.item
        item = dict(self.item)
        for slot in _PART_OF:
            parts = [said.whole_part() for said in self.of(slot)]
            item |= {slot: parts} if parts else {}
        commands = [said.text for said in self.of("command")]
        if commands:
            action = item.get("action")
            item["action"] = (action if isinstance(action, dict) else {}) | {"commands": commands}
        single = [said for (slot, _), said in self.texts.items() if slot == ""]
        return item | {STEMS[said.stem].key: said.text for said in single}

    def of(self, slot: str) -> list[_Said]:
        """Return the texts of a slot, by their numbers."""
        return [said for (own, _), said in sorted(self.texts.items(), key=_first) if own == slot]


class Left:
    """Follows the events of one stream that leave, and makes those that close it.

    Attributes:
        number: the highest `sequence_number` so far, -1 before the first.
    """

    def __init__(self) -> None:
        """Begin before the first event."""
        self.number = -1
        self._begun = False
        self._beside: Json = {}
        self._items: dict[int, _Item] = {}

    def known(self, response: Json) -> None:
        """Take from a response object by what it can be told from others."""
        self._beside = plain(response, _KNOWN) | self._beside

    def note(self, event: Json) -> None:
        """Take in an event that leaves."""
        number = event.get("sequence_number")
        if isinstance(number, int):
            self.number = max(self.number, number)
        stem, _, state = name_of(event).rpartition(".")
        if isinstance(event.get("response"), dict):
            self._begin(event["response"])
        elif stem == "output_item" and isinstance(event.get("item"), dict):
            texts = {} if state == "done" else self._item(event).texts
            self._items[_index(event, "output_index")] = _Item(
                event["item"], texts, state == "done"
            )
        elif stem in _PART_OF.values() and isinstance(event.get("part"), dict):
            self._part(event, event["part"], closes=state == "done")
        elif stem in STEMS:
            self._text(event, stem, state)
        elif stem == "output_text.annotation" and (part := self._said(event, "output_text").part):
            part["annotations"] = [*listed(part, "annotations"), event.get("annotation")]
        elif stem == "shell_call_output_content" and state == "done":
            item = self._item(event).item
            item["output"] = [*listed(item, "output"), *listed(event, "output")]

    def refuse(self, notice: str, voice: Voice, status: Status) -> Iterator[Json]:
        """Yield the events that close what is open and give the notice in a message.

        Args:
            notice: the class's message.
            voice: the kind of part that it is given in.
            status: how the response is going to end.
        """
        if not self._begun:
            yield self._tell("created", response=self._response("in_progress"))
        still = [index for index, item in sorted(self._items.items()) if not item.closed]
        messages = [index for index in still if self._items[index].item.get("type") == "message"]
        for index in still:
            yield from self._close_texts(index)
            if index not in messages[-1:]:
                yield self._close(index, "incomplete")
        index = messages[-1] if messages else max(self._items, default=-1) + 1
        if not messages:
            identity = f"msg_guard_{self._beside.get('id', '')}"
            yield self._tell("output_item.added", output_index=index, item=message(identity))
        yield from self._say(index, notice, voice)
        yield self._close(index, status)

    def end(self, status: Status, last: Json, own: Json) -> Json:
        """Return the event that ends the stream.

        Args:
            status: how the response ends.
            last: the backend's response object at its end, of which only numbers are taken.
            own: what is added to the response object.
        """
        response = self._response(status) | ended(status, last) | own
        response["output"] = [item.whole() for _, item in sorted(self._items.items())]
        return self._tell(status, response=response)

    # What leaves.

    def _begin(self, response: Json) -> None:
        self._begun = True
        self._beside |= {key: value for key, value in response.items() if key != "output"}
        for position, item in enumerate(listed(response, "output")):
            if isinstance(item, dict):
                self._items.setdefault(position, _Item(item))

    def _item(self, event: Json) -> _Item:
        return self._items.setdefault(_index(event, "output_index"), _Item({}))

    def _said(self, event: Json, stem: str) -> _Said:
        """Return the text that an event is about."""
        key = STEMS[stem].number if stem else "content_index"
        slot = _SLOTS.get(key) or ("command" if key else "")
        at: Json = {name: event[name] for name in _PLACE if name in event}
        said = _Said(stem, at)
        return self._item(event).texts.setdefault((slot, _index(event, key)), said)

    def _part(self, event: Json, part: Json, *, closes: bool) -> None:
        stem = PART_STEMS.get(str(part.get("type")), "")
        said = self._said(event, stem)
        said.part = part
        said.ended = closes or not stem
        said.closed = closes
        if stem:
            said.pieces = [str(part.get(STEMS[stem].key) or "")]

    def _text(self, event: Json, stem: str, state: str) -> None:
        said = self._said(event, stem)
        said.stem = said.stem or stem  # its part was of a type that nobody knows
        whole, piece = event.get(STEMS[stem].key), event.get("delta")
        if state == "done":
            said.ended = True
            said.pieces = [whole] if isinstance(whole, str) else said.pieces
        else:
            said.ended = said.closed = False
            said.pieces += [text for text in (whole, piece) if isinstance(text, str)]

    # What is told.

    def _tell(self, name: str, **fields: Any) -> Json:
        number = self.number + 1
        event = {"type": f"response.{name}", "sequence_number": number, **fields}
        self.note(event)
        return event

    def _response(self, status: str) -> Json:
        return _BARE | {"id": "resp_guard"} | self._beside | {"status": status, "output": []}

    def _close_texts(self, index: int) -> Iterator[Json]:
        for (slot, _), said in sorted(self._items[index].texts.items(), key=_first):
            if not said.ended:
                whole = {STEMS[said.stem].key: said.text} | _no_tokens(said.stem)
                yield self._tell(f"{said.stem}.done", **said.at, **whole)
            if said.part is not None and not said.closed:
                yield self._tell(f"{_PART_OF[slot]}.done", **said.at, part=said.whole_part())

    def _close(self, index: int, status: Status) -> Json:
        item = self._items[index].whole()
        if "status" in item:
            item["status"] = _STATUS.get(str(item.get("type")), status)
        return self._tell("output_item.done", output_index=index, item=item)

    def _say(self, index: int, notice: str, voice: Voice) -> Iterator[Json]:
        """Yield the events of one more part of a message."""
        item = self._items[index]
        number = max((number for slot, number in item.texts if slot == "content"), default=-1) + 1
        at = {"item_id": item.item.get("id"), "output_index": index, "content_index": number}
        key, tokens = STEMS[voice].key, _no_tokens(voice)
        yield self._tell("content_part.added", **at, part=part("", voice))
        yield self._tell(f"{voice}.delta", **at, delta=notice, **tokens)
        yield self._tell(f"{voice}.done", **at, **{key: notice}, **tokens)
        yield self._tell("content_part.done", **at, part=part(notice, voice))


def message(identity: str, *content: Json, status: str = "in_progress") -> Json:
    """Return a message."""
    about = {"id": identity, "type": "message", "status": status, "role": "assistant"}
    return about | {"content": list(content)}


def part(text: str, voice: Voice) -> Json:
    """Return a part of a message."""
    if voice == "refusal":
        return {"type": "refusal", "refusal": text}
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}


def ended(status: Status, last: Json) -> Json:
    """Return what a response object says of its end; from the backend's own only counts."""
    filtered = {"reason": "content_filter"} if status == "incomplete" else None
    own = {"status": status, "error": None, "incomplete_details": filtered}
    return own | {"usage": counts(last.get("usage"))} | plain(last, ("completed_at",))


def bare(response: Json) -> Json:
    """Return a response object of which nothing is kept but what tells it from others."""
    return _BARE | plain(response, _KNOWN)


def _index(event: Json, key: str) -> int:
    value = event.get(key)
    return value if isinstance(value, int) else 0


def _no_tokens(stem: str) -> Json:
    """Return what stands beside a text that no tokens are known of."""
    return {"logprobs": []} if stem == "output_text" else {}


def _first(pair: tuple[tuple[str, int], _Said]) -> tuple[str, int]:
    return pair[0]
