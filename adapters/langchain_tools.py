"""Calls of an agent's tools: whether one may run, and what of its result may be seen.

A result is judged where the tool gives it back, before the framework tells callbacks of it. The
judging itself is asked for: `Mending` yields what is to be judged and is sent the verdict.

This module does not know agents, and judges nothing.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Awaitable, Callable, Collection, Generator
from copy import copy
from dataclasses import replace
from functools import wraps
from typing import TYPE_CHECKING, Any, Final

from langchain_core.messages import AIMessage, BaseMessage, ToolMessage, convert_to_messages
from langchain_core.tools import BaseTool, ToolException
from langgraph.errors import GraphBubbleUp
from langgraph.types import Command, Send

from guard.adapters.langchain_messages import exchange_of
from guard.adapters.langchain_quiet import conversation
from guard.adapters.masking import raise_alone, told
from guard.errors import InputError
from guard.exchange import Choice, Exchange, Message, ToolCall
from guard.request_text import text_of
from guard.verdict import Verdict
from guard.wire.detail import detail

if TYPE_CHECKING:
    from langgraph.prebuilt.tool_node import ToolCallRequest

Mending = Generator[Exchange, Verdict, Any]
"""Asks for verdicts on inputs; returns what of a result may be seen."""

_MESSAGES: Final = "messages"
"""The key of the messages in an agent's state."""

_ROOT: Final = "__root__"
"""The key of a state that is nothing but messages."""

_CALLS: Final = ("tool_calls", "invalid_tool_calls")
"""Fields of a message that say what is called."""


def digest(call: Any) -> str:
    """Return what tells a tool call from one that somebody has changed."""
    said = json.dumps([call["name"], call["args"]], sort_keys=True, default=str)
    return hashlib.sha256(said.encode()).hexdigest()


class ToolRun:
    """One call of a tool: whether it may run, and what of its result may be seen.

    Args:
        request: the framework's.
        known: digests of the calls that were judged.
    """

    def __init__(self, request: ToolCallRequest, known: Collection[str]) -> None:
        """Judge nothing yet."""
        self._request = request
        self._call: Any = request.tool_call
        self._known = known
        self._seen: set[str] = set()

    @property
    def unjudged(self) -> bool:
        """Whether the call is not as the guarded model gave it, such as one edited by hand."""
        return digest(self._call) not in self._known

    def exchange(self) -> Exchange:
        """Return the call as an answer of the model's."""
        state = self._request.state
        messages = state.get("messages", ()) if isinstance(state, dict) else state
        asked = [each for each in messages if isinstance(each, BaseMessage)]
        while asked and not isinstance(asked[-1], AIMessage):
            asked.pop()
        said = json.dumps(self._call["args"], ensure_ascii=False, default=str)
        made = ToolCall(self._call["name"], said, self._call.get("id") or "")
        given = exchange_of(asked[:-1], conversation=conversation())
        return replace(given, choices=(Choice(tool_calls=(made,)),))

    def admit(self, verdict: Verdict) -> ToolMessage | None:
        """Take in the verdict on the call; return what stands for its result if it must not run."""
        choice = verdict.choices[0]
        if choice is None or not choice.tool_calls:
            return self._refusal(verdict)
        said = choice.tool_calls[0].arguments
        self._call = {**self._call, "args": json.loads(said or "{}")}
        return None

    def request(
        self,
        mend: Callable[[Mending], Any],
        amend: Callable[[Mending], Awaitable[Any]],
    ) -> ToolCallRequest:
        """Return the request with the call as it passed, and a tool whose results are judged."""
        request = self._request.override(tool_call=self._call)
        if isinstance(request.tool, BaseTool):
            return request.override(tool=self._judged(request.tool, mend, amend))
        return request

    def mended(self, result: Any) -> Mending:
        """Ask for judgements on a tool's result; return what of it may be seen."""
        if isinstance(result, Command):
            return (yield from self._command(result))
        if isinstance(result, list) and any(map(_is_output, result)):
            mended = []
            for each in result:
                mended += [(yield from self.mended(each))]
            return mended
        text = text_of(result.content) if isinstance(result, ToolMessage) else _shown(result)
        verdict = yield from self._verdict(text)
        if verdict is None:
            return result
        return self._refusal(verdict, result if isinstance(result, ToolMessage) else None)

    def failed(self, error: Exception) -> Mending:
        """Ask for a judgement on a failure, which others may make a result of.

        Raises:
            Exception: the same, where the model may be given it; a `ToolException` with the
                class's message in the place of another one.
        """
        if isinstance(error, GraphBubbleUp):
            # No failure, but the graph's way to halt, as for a human.
            raise error
        verdict = yield from self._verdict(told(error))
        if verdict is None:
            raise error
        if not isinstance(error, ToolException):
            raise_alone(ToolException(verdict.message))
        return self._refusal(verdict)

    def _pair(self, result: tuple[Any, Any]) -> Mending:
        """As `mended`, for a content with an artifact, which no model sees."""
        content = result[0]
        mended = yield from self.mended(content)
        return result if mended is content else (mended, None)

    def _command(self, command: Command[Any]) -> Mending:
        update, pairs = command.update, []
        for key, value in command._update_as_tuples():  # noqa: SLF001  # as the graph reads it
            is_said = key in (_MESSAGES, _ROOT)
            pairs += [(key, (yield from self._messages(value)) if is_said else value)]
        if isinstance(update, dict):
            update = dict(pairs)
        elif pairs:
            listed = pairs if isinstance(update, list) else tuple(pairs)
            update = pairs[0][1] if pairs[0][0] == _ROOT else listed
        return replace(command, update=update, goto=(yield from self._sent(command.goto)))

    def _sent(self, send: Any) -> Mending:
        """As `mended`, for where a command leads: a node may be sent messages of its own."""
        if isinstance(send, list | tuple):
            listed = []
            for each in send:
                listed += [(yield from self._sent(each))]
            return type(send)(listed)
        if not isinstance(send, Send):
            return send
        if not isinstance(send.arg, dict) or _MESSAGES not in send.arg:
            return send
        mended = yield from self._messages(send.arg[_MESSAGES])
        sent = copy(send)
        sent.arg = send.arg | {_MESSAGES: mended}
        return sent

    def _messages(self, given: Any) -> Mending:
        """As `mended`, for messages in any form that a graph takes."""
        try:
            messages = convert_to_messages(given if isinstance(given, list | tuple) else [given])
        except Exception:  # noqa: BLE001  # it quotes what could not be read
            messages = None
        if messages is None:
            name = self._call["name"]
            raise InputError(f"the tool `{name}` gives messages that cannot be read")
        mended = []
        for each in messages:
            mended += [(yield from self._message(each))]
        return mended

    def _message(self, message: BaseMessage) -> Mending:
        """As `mended`, for a message of whatever kind; in the place of one stands its like."""
        if isinstance(message, ToolMessage):
            return (yield from self.mended(message))
        called = [each["args"] for each in getattr(message, "tool_calls", ())]
        texts = [text_of(message.content), *map(_shown, called)]
        verdict = yield from self._verdict("\n".join(filter(None, texts)))
        if verdict is None:
            return message
        changes: dict[str, Any] = {
            "content": verdict.message,
            "additional_kwargs": {},
            "response_metadata": {"guard": detail(verdict)},
        }
        changes |= {name: [] for name in _CALLS if hasattr(message, name)}
        return message.model_copy(update=changes)

    def _verdict(self, text: str) -> Generator[Exchange, Verdict, Verdict | None]:
        """Ask for a judgement of a text; return it where the model must not be given the text."""
        if not text or text in self._seen:
            return None
        given = (Message("assistant", ""), Message("tool", text, self._call["name"]))
        verdict = yield Exchange((), given, conversation=conversation())
        self._seen.add(verdict.message or text)
        return verdict if verdict.message else None

    def _refusal(self, verdict: Verdict, result: ToolMessage | None = None) -> ToolMessage:
        """Return what stands in the place of a result: the class's message."""
        return ToolMessage(
            content=verdict.message,
            name=self._call["name"],
            tool_call_id=result.tool_call_id if result is not None else self._call["id"],
            status="error",
            id=result.id if result is not None else None,
            response_metadata={"guard": detail(verdict)},
        )

    def _judged(self, tool: BaseTool, mend: Any, amend: Any) -> BaseTool:
        """Return a tool whose results are judged before the framework tells of them."""
        twin = tool.model_copy()
        paired = tool.response_format == "content_and_artifact"

        def mending(result: Any) -> Mending:
            is_pair = paired and isinstance(result, tuple) and len(result) == 2
            return self._pair(result) if is_pair else self.mended(result)

        def failing(error: Exception) -> Mending:
            refusal = yield from self.failed(error)
            return (refusal, None) if paired else refusal

        @wraps(tool._run)  # noqa: SLF001  # what a tool does, without what tells of it
        def run(*args: Any, **kwargs: Any) -> Any:
            try:
                result = tool._run(*args, **kwargs)  # noqa: SLF001
            except Exception as error:  # noqa: BLE001  # any is told to somebody
                return mend(failing(error))
            return mend(mending(result))

        @wraps(tool._arun)  # noqa: SLF001
        async def arun(*args: Any, **kwargs: Any) -> Any:
            try:
                result = await tool._arun(*args, **kwargs)  # noqa: SLF001
            except Exception as error:  # noqa: BLE001
                return await amend(failing(error))
            return await amend(mending(result))

        object.__setattr__(twin, "_run", run)
        object.__setattr__(twin, "_arun", arun)
        return twin


def _is_output(value: Any) -> bool:
    return isinstance(value, ToolMessage | Command)


def _shown(result: Any) -> str:
    """Return a result as the framework shows it to the model."""
    if isinstance(result, str | list) and (text := text_of(result)):
        return text
    try:
        return json.dumps(result, ensure_ascii=False)
    except (TypeError, ValueError):
        return str(result)
