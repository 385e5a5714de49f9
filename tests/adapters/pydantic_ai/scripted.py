"""A model of pydantic-ai that gives answers, whole or streamed.

This module does not know how an answer is judged.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from pydantic_ai.messages import ModelResponse, TextPart, ThinkingPart, ToolCallPart
from pydantic_ai.models.function import DeltaThinkingPart, DeltaToolCall, FunctionModel

from tests.adapters.leak_lab import pieces

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from guard.exchange import Choice


def scripted_model(answers: Sequence[Choice]) -> FunctionModel:
    """Return a model that gives answers, one after another; the last one repeats."""
    waiting = list(answers)

    def following() -> Choice:
        return waiting.pop(0) if len(waiting) > 1 else waiting[0]

    def whole(_messages: Any, _info: Any) -> ModelResponse:
        return ModelResponse(parts=parts(following()))

    async def streamed(_messages: Any, _info: Any) -> AsyncIterator[Any]:
        choice = following()
        for piece in pieces(choice.reasoning):
            yield {0: DeltaThinkingPart(content=piece)}
        if choice.reasoning:
            yield {0: DeltaThinkingPart(signature="signed")}
        for piece in pieces(choice.content):
            yield piece
        for at, call in enumerate(choice.tool_calls, 1):
            yield {at: DeltaToolCall(name=call.name, json_args="", tool_call_id=call.id)}
            for piece in pieces(call.arguments):
                yield {at: DeltaToolCall(json_args=piece)}

    return FunctionModel(whole, stream_function=streamed, model_name="scripted")


def parts(choice: Choice) -> list[Any]:
    """Return an answer's parts; the arguments of its calls are objects."""
    thinking = [ThinkingPart(choice.reasoning, signature="signed")] if choice.reasoning else []
    text = [TextPart(choice.content)] if choice.content else []
    calls = [
        ToolCallPart(call.name, json.loads(call.arguments), tool_call_id=call.id)
        for call in choice.tool_calls
    ]
    return [*thinking, *text, *calls]
