"""Middleware that guards the agents of `create_agent`: the model, tool calls and tool results.

    from guard import Guard
    from guard.adapters.langchain import GuardMiddleware
    from langchain.agents import create_agent

    agent = create_agent(model, tools, middleware=[GuardMiddleware(Guard.load("internal"))])

The model is guarded inside the call, whoever else changes the request, so that no stream, event,
callback or state sees a raw answer. What tools give back is judged before the framework hears of
it; it is where injected instructions arrive. The conversation's track record is in its state.

This module does not know how an answer or a text is judged.
"""

from __future__ import annotations

from dataclasses import fields
from typing import TYPE_CHECKING, Annotated, Any, Final, NotRequired, TypedDict

from guard.errors import MissingExtraError

try:
    from langchain.agents.middleware import AgentMiddleware, AgentState, ModelRequest
    from langchain.agents.middleware.types import (
        ExtendedModelResponse,
        ModelResponse,
        PrivateStateAttr,
    )
    from langchain.agents.structured_output import StructuredOutputValidationError
    from langchain_core.messages import AIMessage
    from langgraph.types import Command

    from guard.adapters.langchain_tools import ToolRun, digest
except ImportError as error:
    raise MissingExtraError(error.name or "langchain", "langchain") from error

from guard.adapters.langchain_models import GuardedChatModel

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection, Iterable

    from langchain.agents.middleware.types import ModelCallResult
    from langchain_core.language_models import BaseChatModel
    from langchain_core.messages import BaseMessage
    from langgraph.prebuilt.tool_node import ToolCallRequest

    from guard.adapters.langchain_tools import Mending
    from guard.engine import Guard
    from guard.verdict import Verdict

_RECORD: Final = "guard_record"
"""The key of the track record in a conversation's state."""

_PLACES: Final = 4
"""Decimal places of the risks in a track record."""


class TrackRecord(TypedDict, total=False):
    """What a conversation has shown so far.

    Attributes:
        exchanges: answers that were judged, refused inputs included.
        acted: how many of them were rewritten or blocked.
        worst: the highest live risk per category, in [0, 1].
        calls: digests of the tool calls of the last answer, as they passed.
    """

    exchanges: int
    acted: int
    worst: dict[str, float]
    calls: list[str]


def added(known: TrackRecord | None, new: TrackRecord | None) -> TrackRecord:
    """Return a track record with another behind it."""
    one, other = known or {}, new or {}
    worst = dict(one.get("worst", {}))
    for category, risk in other.get("worst", {}).items():
        worst[category] = max(risk, worst.get(category, 0.0))
    return {
        "exchanges": one.get("exchanges", 0) + other.get("exchanges", 0),
        "acted": one.get("acted", 0) + other.get("acted", 0),
        "worst": worst,
        "calls": other.get("calls", one.get("calls", [])),
    }


class GuardState(AgentState[Any]):
    """An agent's state with the conversation's track record, which is no in- or output."""

    guard_record: NotRequired[Annotated[TrackRecord, PrivateStateAttr, added]]


class GuardMiddleware(AgentMiddleware[Any, Any, Any]):
    """Guards an agent's model and tools; one instance serves any number of agents.

    Tool results are judged by the class's `input` section; without one they pass.

    Args:
        guard: judges.
    """

    state_schema = GuardState

    def __init__(self, guard: Guard) -> None:
        """Guard nothing yet."""
        super().__init__()
        self.tools = []
        self._guard = guard

    def wrap_model_call(
        self,
        request: ModelRequest[Any],
        handler: Callable[[ModelRequest[Any]], ModelResponse[Any]],
    ) -> ModelCallResult[Any]:
        """Have the model called by way of the guard."""
        verdicts: list[Verdict] = []
        try:
            response = handler(_Request.of(request, self._guarding(verdicts)))
        except StructuredOutputValidationError as error:
            response = _refused(error)
        return _recorded(response, verdicts)

    async def awrap_model_call(
        self,
        request: ModelRequest[Any],
        handler: Callable[[ModelRequest[Any]], Awaitable[ModelResponse[Any]]],
    ) -> ModelCallResult[Any]:
        """As `wrap_model_call`, asynchronous."""
        verdicts: list[Verdict] = []
        try:
            response = await handler(_Request.of(request, self._guarding(verdicts)))
        except StructuredOutputValidationError as error:
            response = _refused(error)
        return _recorded(response, verdicts)

    def wrap_tool_call(
        self, request: ToolCallRequest, handler: Callable[[ToolCallRequest], Any]
    ) -> Any:
        """Have a tool called where its input may pass, and give back what of its result may."""
        call = ToolRun(request, _judged(request))
        if call.unjudged:
            verdict = self._guard.check(call.exchange())
            if (refusal := call.admit(verdict)) is not None:
                return refusal
        try:
            result = handler(call.request(self._mend, self._amend))
        except Exception as error:  # noqa: BLE001  # another middleware makes a result of any
            return self._mend(call.failed(error))
        return self._mend(call.mended(result))

    async def awrap_tool_call(
        self, request: ToolCallRequest, handler: Callable[[ToolCallRequest], Awaitable[Any]]
    ) -> Any:
        """As `wrap_tool_call`, asynchronous."""
        call = ToolRun(request, _judged(request))
        if call.unjudged:
            verdict = await self._guard.acheck(call.exchange())
            if (refusal := call.admit(verdict)) is not None:
                return refusal
        try:
            result = await handler(call.request(self._mend, self._amend))
        except Exception as error:  # noqa: BLE001
            return await self._amend(call.failed(error))
        return await self._amend(call.mended(result))

    def _guarding(self, verdicts: list[Verdict]) -> Callable[[BaseChatModel], BaseChatModel]:
        def guarded(model: BaseChatModel) -> BaseChatModel:
            if isinstance(model, GuardedChatModel):
                return model
            return GuardedChatModel(guard=self._guard, inner=model, on_verdict=verdicts.append)

        return guarded

    def _mend(self, mending: Mending) -> Any:
        """Judge what is asked for; return what comes of it."""
        try:
            asked = next(mending)
            while True:
                asked = mending.send(self._guard.check_input(asked))
        except StopIteration as end:
            return end.value

    async def _amend(self, mending: Mending) -> Any:
        try:
            asked = next(mending)
            while True:
                asked = mending.send(await self._guard.acheck_input(asked))
        except StopIteration as end:
            return end.value


class _Request(ModelRequest[Any]):
    """A request whose model is guarded, also where another middleware puts in its own."""

    _guarding: Callable[[BaseChatModel], BaseChatModel]

    @classmethod
    def of(
        cls, request: ModelRequest[Any], guarding: Callable[[BaseChatModel], BaseChatModel]
    ) -> _Request:
        """Return a request with its model guarded."""
        given: dict[str, Any] = {each.name: getattr(request, each.name) for each in fields(request)}
        own = cls(**given)
        object.__setattr__(own, "model", guarding(request.model))
        object.__setattr__(own, "_guarding", guarding)
        return own

    def override(self, **overrides: Any) -> _Request:
        """Return a request with other parts; another model is guarded as well."""
        return _Request.of(super().override(**overrides), self._guarding)

    def __setattr__(self, name: str, value: Any) -> None:
        # Some versions set the fields of a new request in this way, too.
        guarding = self.__dict__.get("_guarding")
        super().__setattr__(name, guarding(value) if guarding and name == "model" else value)


def _refused(error: StructuredOutputValidationError) -> ModelResponse[Any]:
    """Return the class's message where the agent wanted a document; other errors stand."""
    if "guard" not in error.ai_message.response_metadata:
        raise error
    return ModelResponse(result=[error.ai_message])


def _recorded(response: ModelResponse[Any], verdicts: list[Verdict]) -> ExtendedModelResponse[Any]:
    """Return a response with what it adds to the track record."""
    record: TrackRecord = {
        "exchanges": len(verdicts),
        "acted": sum(verdict.action in ("rewrite", "block") for verdict in verdicts),
        "worst": _worst(verdicts),
        "calls": [digest(call) for message in response.result for call in _calls(message)],
    }
    return ExtendedModelResponse(response, Command(update={_RECORD: record}))


def _judged(request: ToolCallRequest) -> Collection[str]:
    """Return the digests of the calls that the guarded model gave last."""
    state = request.state
    record: TrackRecord = (state.get(_RECORD) if isinstance(state, dict) else None) or {}
    return record.get("calls", ())


def _worst(verdicts: Iterable[Verdict]) -> dict[str, float]:
    worst: dict[str, float] = {}
    for verdict in verdicts:
        for category, risk in verdict.risks.items():
            worst[category] = round(max(risk, worst.get(category, 0.0)), _PLACES)
    return worst


def _calls(message: BaseMessage) -> list[Any]:
    return list(message.tool_calls) if isinstance(message, AIMessage) else []
