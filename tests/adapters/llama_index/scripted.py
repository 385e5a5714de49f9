"""An LLM of LlamaIndex that gives answers, whole or streamed, and calls functions.

This module does not know how an answer is judged.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from llama_index.core.base.llms.types import (
    ChatMessage,
    ChatResponse,
    CompletionResponse,
    LLMMetadata,
    MessageRole,
    TextBlock,
    ThinkingBlock,
    ToolCallBlock,
)
from llama_index.core.llms.callbacks import llm_chat_callback, llm_completion_callback
from llama_index.core.llms.function_calling import FunctionCallingLLM
from llama_index.core.llms.llm import ToolSelection

from tests.adapters.leak_lab import pieces

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Generator, Sequence

    from guard.exchange import Choice


class ScriptedLLM(FunctionCallingLLM):
    """Gives answers, one after another; the last one repeats.

    Attributes:
        answers: the answers.
        asked: what it was asked.
    """

    answers: list[Any]
    asked: list[Any] = []  # noqa: RUF012  # pydantic copies it

    @property
    def metadata(self) -> LLMMetadata:
        """Return that it chats and calls functions."""
        return LLMMetadata(
            is_chat_model=True, is_function_calling_model=True, model_name="scripted"
        )

    def _following(self, asked: Any) -> Choice:
        self.asked.append(asked)
        following: Choice = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        return following

    @llm_chat_callback()
    def chat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponse:
        """Give the next answer."""
        del kwargs
        return _whole(self._following(messages))

    @llm_chat_callback()
    async def achat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponse:
        """As `chat`."""
        del kwargs
        return _whole(self._following(messages))

    @llm_chat_callback()
    def stream_chat(
        self, messages: Sequence[ChatMessage], **kwargs: Any
    ) -> Generator[ChatResponse]:
        """Give the next answer in pieces, each with all that came before."""
        del kwargs
        return _chunks(self._following(messages))

    @llm_chat_callback()
    async def astream_chat(
        self, messages: Sequence[ChatMessage], **kwargs: Any
    ) -> AsyncGenerator[ChatResponse]:
        """As `stream_chat`."""
        del kwargs
        responses = _chunks(self._following(messages))

        async def given() -> AsyncGenerator[ChatResponse]:
            for response in responses:
                yield response

        return given()

    @llm_completion_callback()
    def complete(self, prompt: str, *args: Any, **kwargs: Any) -> CompletionResponse:
        """Give the next answer's content."""
        del args, kwargs
        return CompletionResponse(text=self._following(prompt).content)

    @llm_completion_callback()
    async def acomplete(self, prompt: str, *args: Any, **kwargs: Any) -> CompletionResponse:
        """As `complete`."""
        del args, kwargs
        return CompletionResponse(text=self._following(prompt).content)

    @llm_completion_callback()
    def stream_complete(
        self, prompt: str, *args: Any, **kwargs: Any
    ) -> Generator[CompletionResponse]:
        """Give the next answer's content in pieces."""
        del args, kwargs
        return _completions(self._following(prompt))

    @llm_completion_callback()
    async def astream_complete(
        self, prompt: str, *args: Any, **kwargs: Any
    ) -> AsyncGenerator[CompletionResponse]:
        """As `stream_complete`."""
        del args, kwargs
        responses = _completions(self._following(prompt))

        async def given() -> AsyncGenerator[CompletionResponse]:
            for response in responses:
                yield response

        return given()

    def _prepare_chat_with_tools(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        del args
        user_msg, chat_history = kwargs.get("user_msg"), kwargs.get("chat_history")
        said = [ChatMessage(role="user", content=user_msg)] if isinstance(user_msg, str) else []
        given = [user_msg] if isinstance(user_msg, ChatMessage) else said
        return {"messages": [*(chat_history or []), *given]}

    def get_tool_calls_from_response(
        self, response: ChatResponse, *args: Any, **kwargs: Any
    ) -> list[ToolSelection]:
        """Return the calls of a response."""
        del args, kwargs
        blocks = [b for b in response.message.blocks if isinstance(b, ToolCallBlock)]
        return [
            ToolSelection(
                tool_id=b.tool_call_id or "",
                tool_name=b.tool_name,
                tool_kwargs=_parsed(b.tool_kwargs),
            )
            for b in blocks
        ]


def _parsed(arguments: Any) -> dict[str, Any]:
    """Return arguments, of which a stream may have brought a part."""
    if isinstance(arguments, dict):
        return arguments
    try:
        parsed: dict[str, Any] = json.loads(arguments)
    except ValueError:
        return {}
    return parsed


def _calls(choice: Choice) -> list[ToolCallBlock]:
    return [
        ToolCallBlock(tool_call_id=c.id, tool_name=c.name, tool_kwargs=json.loads(c.arguments))
        for c in choice.tool_calls
    ]


def message(reasoning: str, content: str, calls: list[ToolCallBlock]) -> ChatMessage:
    """Return an answer's message."""
    thought = [ThinkingBlock(content=reasoning)] if reasoning else []
    blocks = [*thought, TextBlock(text=content), *calls]
    return ChatMessage(role=MessageRole.ASSISTANT, blocks=blocks)


def _chunks(choice: Choice) -> Generator[ChatResponse]:
    reasoning = content = ""
    for piece in pieces(choice.reasoning):
        reasoning += piece
        yield ChatResponse(message=message(reasoning, "", []), delta="")
    for piece in pieces(choice.content):
        content += piece
        raw = {"delta": {"content": piece}}
        yield ChatResponse(message=message(reasoning, content, []), delta=piece, raw=raw)
    for call in choice.tool_calls:
        arguments = ""
        for piece in pieces(call.arguments):
            arguments += piece
            block = ToolCallBlock(tool_call_id=call.id, tool_name=call.name, tool_kwargs=arguments)
            yield ChatResponse(message=message(reasoning, content, [block]), delta="")


def _whole(choice: Choice) -> ChatResponse:
    return ChatResponse(
        message=message(choice.reasoning, choice.content, _calls(choice)),
        raw={"id": "1", "usage": {"total_tokens": 7}},
    )


def _completions(choice: Choice) -> Generator[CompletionResponse]:
    text = ""
    for piece in pieces(choice.content):
        text += piece
        yield CompletionResponse(text=text, delta=piece)
