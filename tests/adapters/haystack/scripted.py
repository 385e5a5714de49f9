"""A chat generator of Haystack that gives answers, whole or streamed.

This module does not know how an answer is judged.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from haystack import component
from haystack.components.generators.utils import _convert_streaming_chunks_to_chat_message
from haystack.dataclasses import (
    ChatMessage,
    ComponentInfo,
    ReasoningContent,
    StreamingChunk,
    ToolCall,
    ToolCallDelta,
)

from tests.adapters.leak_lab import pieces

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from guard.exchange import Choice


@component
class ScriptedGenerator:
    """Gives answers, one after another; the last one repeats."""

    def __init__(self, answers: Sequence[Choice], streaming_callback: Any = None) -> None:
        """Give nothing yet."""
        self.streaming_callback = streaming_callback
        self.asked: list[Any] = []
        self.given: list[ChatMessage] = []
        self._waiting = list(answers)

    def _following(self, messages: Any) -> Choice:
        self.asked.append(messages)
        return self._waiting.pop(0) if len(self._waiting) > 1 else self._waiting[0]

    @component.output_types(replies=list[ChatMessage])
    def run(
        self,
        messages: list[ChatMessage] | str,
        streaming_callback: Any = None,
        generation_kwargs: dict[str, Any] | None = None,  # noqa: ARG002  # as generators are
        tools: Any = None,  # noqa: ARG002
    ) -> dict[str, Any]:
        """Give the next answer."""
        choice, callback = self._following(messages), streaming_callback or self.streaming_callback
        if callback is None:
            self.given.append(reply(choice))
            return {"replies": self.given[-1:]}
        given = []
        for chunk in self._chunks(choice):
            given.append(chunk)
            callback(chunk)
        return {"replies": [_convert_streaming_chunks_to_chat_message(given)]}

    @component.output_types(replies=list[ChatMessage])
    async def run_async(
        self,
        messages: list[ChatMessage] | str,
        streaming_callback: Any = None,
        generation_kwargs: dict[str, Any] | None = None,  # noqa: ARG002
        tools: Any = None,  # noqa: ARG002
    ) -> dict[str, Any]:
        """As `run`, asynchronous."""
        choice, callback = self._following(messages), streaming_callback or self.streaming_callback
        if callback is None:
            return {"replies": [reply(choice)]}
        given = list(self._chunks(choice))
        for chunk in given:
            told = callback(chunk)
            if told is not None:
                await told
        return {"replies": [_convert_streaming_chunks_to_chat_message(given)]}

    def _chunks(self, choice: Choice) -> Iterator[StreamingChunk]:
        about: dict[str, Any] = {
            "component_info": ComponentInfo.from_component(self),
            "meta": {"model": "scripted", "received_at": "2026-01-01T00:00:00"},
        }
        for piece in pieces(choice.reasoning):
            thought = ReasoningContent(piece, {"signature": "signed"})
            yield StreamingChunk("", index=0, reasoning=thought, **about)
        for piece in pieces(choice.content):
            yield StreamingChunk(piece, index=0, **about)
        for at, call in enumerate(choice.tool_calls, 1):
            first = ToolCallDelta(at, call.name, "", call.id)
            yield StreamingChunk("", index=at, tool_calls=[first], start=True, **about)
            for piece in pieces(call.arguments):
                delta = ToolCallDelta(at, None, piece)
                yield StreamingChunk("", index=at, tool_calls=[delta], **about)
        ends: Any = "tool_calls" if choice.tool_calls else "stop"
        yield StreamingChunk("", index=0, finish_reason=ends, **about)
        about["meta"] = about["meta"] | {"usage": {"completion_tokens": 7}}
        yield StreamingChunk("", **about)


def reply(choice: Choice) -> ChatMessage:
    """Return an answer as a message."""
    calls = [ToolCall(c.name, json.loads(c.arguments), c.id) for c in choice.tool_calls]
    thought = ReasoningContent(choice.reasoning, {"signature": "signed"})
    return ChatMessage.from_assistant(
        choice.content or None,
        tool_calls=calls,
        reasoning=thought if choice.reasoning else None,
        meta={"model": "scripted", "finish_reason": "stop", "usage": {"completion_tokens": 7}},
    )
