"""Where the texts of a message of Anthropic's API stand, in the events of a stream and as a whole.

A message is a list of blocks: text, thinking, tool calls and what tools gave back. Citations cut
a text into blocks in the middle of a sentence, so that neighbouring blocks of text are one text
here, and likewise those of thinking. A thinking is sealed by its signature: it leaves as it is or
not at all.

Whatever is not listed here is judged too, every string by itself.

This module does not know what becomes of a text, and no stream's state but which block is where.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

from guard.exchange import Channel
from guard.unsaid import says_nothing
from guard.wire.parts import BodyError, Part, nowhere, others, setter

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from guard.exchange import ChannelKind
    from guard.wire.parts import Json

_JOINED: Final[dict[str, ChannelKind]] = {"text": "content", "thinking": "reasoning"}
"""Types of block whose neighbours are one text, which stands under a key of the type's name."""

_DELTAS: Final = {
    "text_delta": ("text", "text"),
    "thinking_delta": ("thinking", "thinking"),
    "input_json_delta": ("input", "partial_json"),
}
"""Which text a delta goes on with, and its key."""

_TOP: Final = Channel("other", "content", 0, "")


class Texts:
    """Finds the texts; made for one message and its stream."""

    def __init__(self) -> None:
        """Know no block yet."""
        self._names: dict[int, str] = {}
        self._tools: dict[int, str] = {}
        self._newest: dict[str, int] = {}
        self._run = ("", "")
        self._over: list[str] = []

    def of_event(self, event: Json) -> Iterator[Part]:
        """Yield the texts of an event."""
        kind = kind_of(event)
        if kind == "message_start":
            yield from self.of_message(event.get("message"), whole=False)
            yield from others(event, _TOP, ("message",))
        elif kind == "content_block_start":
            yield from self._block(event.get("content_block"), number(event), whole=False)
            yield from others(event, _TOP, ("content_block",))
        elif kind == "content_block_delta":
            yield from self._delta(event.get("delta"), number(event))
            yield from others(event, _TOP, ("delta",))
        else:
            yield from others(event, _TOP)

    def of_message(self, message: Any, *, whole: bool) -> Iterator[Part]:
        """Yield the texts of a message, those beside its content first."""
        if not isinstance(message, dict):
            yield from others(message, _TOP)
            return
        yield from others(message, _TOP, ("content",))
        content = message.get("content")
        if not isinstance(content, list):
            yield from others(content, _TOP)
            return
        for index, block in enumerate(content):
            self.begin(index, block)
            yield from self._block(block, index, whole=whole)

    def begin(self, index: int, block: Any) -> None:
        """Take the beginning of a block."""
        given = block if isinstance(block, dict) else {}
        kind, tool = kind_of(given), given.get("name")
        self._tools[index] = tool if isinstance(tool, str) else ""
        if kind != self._run[0]:
            self._over += [self._run[1]] if self._run[1] else []
            self._run = (kind, f"content[{index}].{kind}") if kind in _JOINED else ("", "")
        self._names[index] = self._run[1] or f"content[{index}].input"
        self._newest[self._names[index]] = index

    def check(self, event: Json) -> None:
        """See to it that a delta goes on with the last block of its text.

        Raises:
            BodyError: it does not: what a reader puts together is not what is judged.
        """
        index = number(event)
        newest = self._newest.get(self._names.get(index, ""), index)
        if newest != index:
            raise BodyError("the backend goes on with a block behind the next one's beginning")

    def completed(self, event: Json) -> Iterator[str]:
        """Yield the names of texts that end with an event."""
        kind, index = kind_of(event), number(event)
        if kind == "content_block_stop" and self._names.get(index) != self._run[1]:
            yield f"content[{index}].input"
        if kind == "content_block_stop":
            yield f"content[{index}].other"
        yield from self._over
        self._over.clear()

    def _block(self, block: Any, index: int, *, whole: bool) -> Iterator[Part]:
        other = Channel(f"content[{index}].other", "content", 0, "")
        if not isinstance(block, dict):
            yield from others(block, other)
            return
        kind, known = kind_of(block), ""
        if kind in _JOINED and isinstance(block.get(kind), str):
            known = kind
            channel = self._channel(index, kind)
            yield Part(channel, block[kind], setter(block, kind), leads=not whole)
        elif kind == "redacted_thinking" and says_nothing("signature", block.get("data")):
            known = "data"
        elif "input" in block and whole:
            known = "input"
            text = json.dumps(block["input"], ensure_ascii=False)
            yield Part(self._channel(index, "input"), text, _object_setter(block))
        elif "input" in block:
            yield Part(self._channel(index, "input"), "", nowhere, leads=True)
        yield from others(block, other, (known,))

    def _delta(self, delta: Any, index: int) -> Iterator[Part]:
        other = Channel(f"content[{index}].other", "content", 0, "")
        given = delta if isinstance(delta, dict) else {}
        kind, key = _DELTAS.get(kind_of(given), ("", ""))
        if isinstance(given.get(key), str):
            yield Part(self._channel(index, kind), given[key], setter(given, key))
        else:
            key = ""
        yield from others(delta, other, (key,))

    def _channel(self, index: int, kind: str) -> Channel:
        """Return the channel of a block's text; one of another type has a text of its own."""
        name = self._names.get(index, "")
        own = name if name.endswith(f".{kind}") else f"content[{index}].{kind}"
        if kind in _JOINED:
            return Channel(own, _JOINED[kind], 0, "", sealed=kind == "thinking")
        return Channel(own, "tool_call", 0, "", tool=self._tools.get(index, ""))


def kind_of(value: Json) -> str:
    """Return the type of an event, a block or a delta, `""` where it has none."""
    kind = value.get("type")
    return kind if isinstance(kind, str) else ""


def number(event: Json) -> int:
    """Return the index of the block that an event is about, 0 where it has none to be used."""
    index = event.get("index")
    return index if isinstance(index, int) and not isinstance(index, bool) else 0


def _object_setter(block: Json) -> Callable[[str], None]:
    """Return what writes a tool call's input from its JSON."""

    def put(text: str) -> None:
        block["input"] = json.loads(text)

    return put
