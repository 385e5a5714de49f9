"""LangChain's messages as the guard sees them: every text in an answer, and what was asked.

An answer is content, reasoning, a refusal and tool calls (`guard.adapters.langchain_texts`).
Every other string of a message is judged by itself, as in `guard.wire.parts`. So whatever
`content_blocks` makes of an answer was judged before.

This module does not know chat models, and judges nothing.
"""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage
from pydantic import BaseModel

from guard.adapters.langchain_texts import Found, both, canonical, shown
from guard.exchange import Exchange, Message
from guard.request_text import text_of
from guard.wire.asked import role_of
from guard.wire.tokens import prune

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from langchain_core.outputs import ChatGeneration

    from guard.exchange import ChannelKind
    from guard.wire.parts import Json, Part

_ROLES: Final = {"human": "user", "ai": "assistant"}
"""Roles by the framework's types of messages; other types are called as the vendors do."""

_SPOKEN: Final = ("reasoning", "reasoning_content", "thinking", "refusal")
"""Texts that stand beside the content."""

_NAMES: Final = ("model_name", "model_provider", "output_version")
"""Keys of a response's metadata that say where it comes from."""

_FIELDS: Final = ("content", "additional_kwargs", "response_metadata")
"""Fields of every message that may hold text."""

_READ: Final = ("tool_calls", "invalid_tool_calls")
"""Fields that hold what the framework has read of tool calls."""


def exchange_of(
    messages: Sequence[BaseMessage], *, model: str = "", conversation: str = ""
) -> Exchange:
    """Return what a model is given, without any answer."""
    return Exchange((), tuple(map(message_of, messages)), model=model, conversation=conversation)


def message_of(message: BaseMessage) -> Message:
    """Return a message with the text of all its blocks."""
    said = getattr(message, "role", message.type.removesuffix("MessageChunk").lower())
    content = message.content
    # A model's calls stand among its blocks; what they pass is judged as a call.
    own = isinstance(message, AIMessage) and isinstance(content, list)
    texts = map(text_of, content) if own else [text_of(content)]
    text = "\n".join(filter(None, texts))
    return Message(role_of(_ROLES.get(said, said)), text, message.name or "")


class Document:
    """One generation: its texts, and what it is with other words in their places.

    Args:
        generation: a whole one or a chunk of one; it stays as it is.
        choice: which of the answers it is.
    """

    def __init__(self, generation: ChatGeneration, choice: int = 0) -> None:
        """Copy what may be written to."""
        self.generation = generation
        self.choice = choice
        self.altered = False
        message = generation.message
        read = ("tool_call_chunks",) if isinstance(message, AIMessageChunk) else _READ
        names = [name for name in (*_FIELDS, *read) if hasattr(message, name)]
        self._fields: Json = {name: _copied(getattr(message, name)) for name in names}
        self._extra: Json = _copied(message.model_extra or {})
        self._info: Json = _copied(generation.generation_info or {})
        self._parsed = self._fields["additional_kwargs"].pop("parsed", None)

    @property
    def message(self) -> BaseMessage:
        """The message as it came."""
        return self.generation.message

    @property
    def content(self) -> str | list[Any]:
        """The content as it is now."""
        content: str | list[Any] = self._fields["content"]
        return content

    @property
    def metadata(self) -> Json:
        """What the backend says of the answer: the generation's and the message's."""
        metadata: Json = self._fields["response_metadata"]
        return self._info | metadata

    @property
    def ends(self) -> bool:
        """Whether the backend says that its answer ends here."""
        return any(self.metadata.get(key) for key in ("finish_reason", "stop_reason"))

    def parts(self, spoken: Callable[[], str] = str) -> Iterator[Part]:
        """Yield every text.

        Args:
            spoken: returns the content that came before in chunks; asked only where it matters,
                since that takes time in its length.
        """
        found = Found(self.choice)
        self._beside(found)
        found.text(self.content, "content", self._fields, "content")
        self._tool_calls(found)
        found.other(self._extra)
        if self.message.name:
            found.other(self.message.name)
        for metadata in (self._info, self._fields["response_metadata"]):
            self._metadata(found, metadata)
        if self._parsed is not None:
            said = canonical(spoken() + self.message.text)
            if canonical(shown(self._parsed)) != said:
                found.other([self._parsed])
        return found.parts()

    def forget_tokens(self) -> None:
        """Take out log-probabilities, which spell a text that is another one now."""
        for metadata in (self._info, self._fields["response_metadata"]):
            if metadata.get("logprobs") is not None:
                metadata["logprobs"] = None

    def note(self, entry: Json) -> None:
        """Add the guard's entry to the response's metadata."""
        self._fields["response_metadata"]["guard"] = entry

    def made(self, content: str | None = None) -> ChatGeneration:
        """Return the generation with what stands in its places now.

        Args:
            content: all content, where it reads otherwise now, so that what was parsed of it
                is parsed anew.
        """
        changes = self._fields | self._extra
        parsed = self._parsed if content is None else _parsed_again(self._parsed, content)
        if parsed is not None:
            changes["additional_kwargs"] = changes["additional_kwargs"] | {"parsed": parsed}
        return made(self.generation, changes, self._info or None)

    def _beside(self, found: Found) -> None:
        beside = self._fields["additional_kwargs"]
        for key in _SPOKEN:
            if key in beside:
                kind: ChannelKind = "refusal" if key == "refusal" else "reasoning"
                found.text(beside[key], kind, beside, key, key)
        listed = beside.get("tool_calls")
        calls = listed if isinstance(listed, list) else [listed]
        for call in [{"function": beside.get("function_call")}, *calls]:
            function = call.get("function") if isinstance(call, dict) else None
            if isinstance(function, dict):
                found.call(function, "arguments", call.get("id"), call.get("index"))
                found.other(function, ("name", "arguments"))
                found.other(call, ("function",))
            else:
                found.other(call)
        found.other(beside, (*_SPOKEN, "function_call", "tool_calls"))

    def _tool_calls(self, found: Found) -> None:
        # What the framework has read of the calls comes first: vendors' forms repeat it.
        vendors, found.calls = found.calls, []
        for name in ("tool_calls", "tool_call_chunks", "invalid_tool_calls"):
            for call in self._fields.get(name, ()):
                found.call(call, "args", call.get("id"), call.get("index"))
                error = call.get("error")
                if error and str(call.get("args")) in error:
                    # It quotes the arguments, and says nothing that they do not show.
                    last = found.calls[-1]
                    last.part = replace(last.part, put=both(last.part.put, _eraser(call)))
                elif error:
                    found.other(error, (), call, "error")
        found.calls += vendors

    def _metadata(self, found: Found, metadata: Json) -> None:
        tokens = metadata.get("logprobs")
        if isinstance(tokens, dict):
            refusal = self._fields["additional_kwargs"].get("refusal")
            texts = {"content": str(self.message.text), "refusal": refusal}
            pruned = [prune(tokens, text, key) for key, text in texts.items()]
            self.altered |= any(pruned)
            found.other(tokens, texts)
        elif tokens:
            self.altered |= prune(metadata, str(self.message.text))
        known = [key for key in _NAMES if " " not in str(metadata.get(key))]
        found.other(metadata, ("headers", "logprobs", *known))


def made(generation: ChatGeneration, changes: Json, info: Json | None) -> ChatGeneration:
    """Return a generation like another, with other fields of its message."""
    message = generation.message
    if isinstance(message, AIMessageChunk):
        # What the framework reads of the pieces of tool calls is read anew.
        names = [n for n in type(message).model_fields if n not in (*_READ, "type")]
        given = {name: getattr(message, name) for name in names}
        return type(generation)(message=type(message)(**(given | changes)), generation_info=info)
    return type(generation)(message=message.model_copy(update=changes), generation_info=info)


def _eraser(call: Json) -> Callable[[str], None]:
    """Return what erases what an error says of a call."""

    def put(_: str) -> None:
        call["error"] = None

    return put


def _copied(value: Any) -> Any:
    """Return a copy of lists and dicts; what is in them stays the same."""
    if isinstance(value, dict):
        return {str(key): _copied(inner) for key, inner in value.items()}
    return [_copied(inner) for inner in value] if isinstance(value, list | tuple) else value


def _parsed_again(parsed: Any, content: str) -> Any:
    """Return what was parsed of a content, of the content as it is now; `None` if it cannot be."""
    try:
        if isinstance(parsed, BaseModel):
            return type(parsed).model_validate_json(content)
        return None if parsed is None else json.loads(content)
    except ValueError:
        return None
