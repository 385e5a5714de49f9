"""OpenAI's Agents SDK, guarded: a model for agents, and guardrails.

    from agents import Agent, RunConfig, Runner
    from guard import Guard

    guard = Guard.load("public")
    agent = Agent(name="Gardener", model=guard.wrap(model))

The SDK's guardrails judge what was said: streams, hooks and traces have shown it by then. So
`wrap` guards the model itself, or every model of a provider; results, streams, sessions and hooks
hear of the guarded one alone, and traces get no texts. A blocked answer is a refusal, as the
Responses API has it. `output_guardrail`, `input_guardrail` and `tool_guardrails` stand beside it:
for what was not said by a model, or where an exception is wanted.

An answer is never asked for anew here: the class's `regenerate` counts as `replace`. This module
does not know the Responses API's events (`guard.wire.responses`).
"""

from __future__ import annotations

from collections import deque
from contextlib import aclosing
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final, TypeVar, cast

from guard.errors import InputError, MissingExtraError

try:
    from agents import (
        GuardrailFunctionOutput,
        InputGuardrail,
        Model,
        ModelProvider,
        ModelResponse,
        ModelTracing,
        OutputGuardrail,
        ToolGuardrailFunctionOutput,
        ToolInputGuardrail,
        ToolOutputGuardrail,
        Usage,
    )
    from openai._models import construct_type
    from openai.types.responses import ResponseOutputItem, ResponseStreamEvent
except ImportError as error:
    raise MissingExtraError(error.name or "openai-agents", "openai-agents") from error

from guard.adapters.masking import aread_masked, masked
from guard.adapters.turns import plain
from guard.exchange import Choice, Exchange, Message, ToolCall
from guard.wire.detail import detail
from guard.wire.formats import FORMATS, Call
from guard.wire.parts import parse, written
from guard.wire.responses import asked
from guard.wire.sse import Event, Parser

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Callable

    from agents.items import TResponseStreamEvent

    from guard.engine import Guard
    from guard.steps import Steps
    from guard.verdict import Verdict
    from guard.wire.parts import Json
    from guard.wire.relay import Relay

_Target = TypeVar("_Target", Model, ModelProvider)

_FORMAT: Final = next(form for form in FORMATS if form.name == "responses")


def _ignore(_: Verdict) -> None:
    """Do nothing with a verdict."""


def wrap(
    guard: Guard, target: _Target, *, on_verdict: Callable[[Verdict], None] = _ignore
) -> _Target:
    """Return a model whose answers are judged, or a provider of such models.

    Args:
        guard: judges.
        target: a model, or a provider of models.
        on_verdict: called with the verdict on every answer that was seen to its end, and on
            every input that was refused.

    Raises:
        InputError: it is neither, or guarded already.
    """
    if isinstance(target, GuardedModel | GuardedProvider):
        raise InputError(f"the `{type(target).__name__}` is guarded already")
    if isinstance(target, Model):
        return cast("_Target", GuardedModel(guard, target, on_verdict))
    if isinstance(target, ModelProvider):
        return cast("_Target", GuardedProvider(guard, target, on_verdict))
    raise InputError(
        f"`{type(target).__name__}` is no model: wrap the model that an agent is given, or the "
        "provider that a run is given"
    )


class GuardedProvider(ModelProvider):
    """A provider whose models are guarded."""

    def __init__(
        self, guard: Guard, inner: ModelProvider, on_verdict: Callable[[Verdict], None] = _ignore
    ) -> None:
        """Provide nothing yet."""
        self._guard = guard
        self._inner = inner
        self._on_verdict = on_verdict

    def get_model(self, model_name: str | None) -> Model:
        """Return a model, guarded."""
        return GuardedModel(self._guard, self._inner.get_model(model_name), self._on_verdict)

    async def aclose(self) -> None:
        """Release what the provider holds."""
        await self._inner.aclose()


class GuardedModel(Model):
    """A model whose answers are judged before anybody sees them."""

    def __init__(
        self, guard: Guard, inner: Model, on_verdict: Callable[[Verdict], None] = _ignore
    ) -> None:
        """Ask nothing yet."""
        self._guard = guard
        self._inner = inner
        self._on_verdict = on_verdict

    async def close(self) -> None:
        """Release what the model holds."""
        await self._inner.close()

    def get_retry_advice(self, request: Any) -> Any:
        """Return the inner model's."""
        return self._inner.get_retry_advice(request)

    async def _cleanup_on_run_end(self, owner: object) -> None:
        await self._inner._cleanup_on_run_end(owner)  # noqa: SLF001  # the runner calls it

    async def get_response(self, *args: Any, **kwargs: Any) -> ModelResponse:
        """Ask the model; return what of its answer may be delivered."""
        given = _bound(args, kwargs)
        call = self._call(given)
        if (refused := await self._not_asked(call)) is not None:
            document, _ = parse(call.refusal(refused))
            return ModelResponse(_items(document["output"]), Usage(), None)
        with masked(self._guard):
            response = await self._inner.get_response(**given)
        output = [_dumped(item) for item in response.output]
        body = call.body(written({"id": response.response_id or "", "output": output}).encode())
        await self._guard.driver.arun(body.judge())
        self._on_verdict(body.session.verdict())
        document, _ = parse(body.delivered())
        if document["output"] == output:
            return response
        return replace(response, output=_items(document["output"]))

    async def stream_response(
        self, *args: Any, **kwargs: Any
    ) -> AsyncIterator[TResponseStreamEvent]:
        """Ask the model for a stream; what is read of it was judged."""
        given = _bound(args, kwargs)
        call = self._call(given, stream=True)
        if (refused := await self._not_asked(call)) is not None:
            for event in Parser().feed(call.refusal(refused)):
                if event is not None:
                    yield _event(event.data)
            return
        stream = _Stream(self._guard, call.relay())
        inner: Any = self._inner.stream_response(**given)
        try:
            async with aclosing(aread_masked(self._guard, inner)) as events:
                async for event in events:
                    async for ready in stream.feed(event):
                        yield ready
            async for ready in stream.run(stream.relay.finish()):
                yield ready
            if stream.relay.finished:
                self._on_verdict(stream.relay.session.verdict())
        finally:
            await self._guard.driver.arun(stream.relay.abandon())

    def _call(self, given: Json, *, stream: bool = False) -> Call:
        schema = given["output_schema"]
        structured = schema is not None and not schema.is_plain_text()
        request = {
            "instructions": given["system_instructions"],
            "input": plain(given["input"]),
            "model": str(getattr(self._inner, "model", "")),
            "stream": stream,
            "text": {"format": {"type": "json_schema"}} if structured else {},
        }
        call = Call(self._guard, _FORMAT, request)
        exchange = replace(call.asked.exchange, conversation=given.get("conversation_id") or "")
        call.asked = replace(call.asked, exchange=exchange)
        return call

    async def _not_asked(self, call: Call) -> Verdict | None:
        """Return the verdict where the model must not be asked."""
        if not self._guard.security_class.input_limits:
            return None
        verdict = await self._guard.acheck_input(call.asked.exchange)
        if not verdict.message:
            return None
        self._on_verdict(verdict)
        return verdict


class _Stream:
    """Events on their way through a relay, which has them as bytes."""

    def __init__(self, guard: Guard, relay: Relay) -> None:
        self.relay = relay
        self._driver = guard.driver
        self._given: deque[tuple[str, Any]] = deque()

    async def feed(self, event: Any) -> AsyncGenerator[Any]:
        """Take an event; yield what may leave."""
        document = _dumped(event)
        text = Event(written(document), document["type"]).text()
        self._given.append((text, event))
        async for ready in self.run(self.relay.feed(text.encode())):
            yield ready

    async def run(self, steps: Steps) -> AsyncGenerator[Any]:
        """Yield what may leave; what leaves as it came is the very object."""
        while (text := await self._driver.aadvance(steps)) is not None:
            if (known := self._known(text)) is not None:
                yield known
                continue
            for event in Parser().feed(text.encode()):
                if event is not None:
                    yield _event(event.data)

    def _known(self, text: str) -> Any:
        """Return the event that came as a text, and forget it and those before it."""
        at = next((i for i, (given, _) in enumerate(self._given) if given == text), None)
        if at is None:
            return None
        found = self._given[at][1]
        for _ in range(at + 1):
            self._given.popleft()
        return found


_PLACES: Final = (
    *("system_instructions", "input", "model_settings", "tools", "output_schema"),
    *("handoffs", "tracing"),
)


def _bound(args: tuple[Any, ...], kwargs: Json) -> Json:
    """Return a call's arguments by name; traces of the inner model get no texts."""
    given = dict(zip(_PLACES, args, strict=False)) | kwargs
    if given["tracing"] is ModelTracing.ENABLED:
        given["tracing"] = ModelTracing.ENABLED_WITHOUT_DATA
    return given


def _dumped(value: Any) -> Json:
    """Return an item or an event as the API has it."""
    if isinstance(value, dict):
        return cast("Json", plain(value))
    dumped: Json = value.model_dump(mode="json", exclude_unset=True, warnings=False)
    return dumped | {"type": value.type}


def _items(output: list[Json]) -> list[Any]:
    """Return a response's items, made as the SDK makes them: fields may be missing."""
    return [construct_type(type_=ResponseOutputItem, value=item) for item in output]


def _event(data: str) -> Any:
    """Return an event, made as the SDK makes it."""
    return construct_type(type_=ResponseStreamEvent, value=parse(data)[0])


# Guardrails.


def output_guardrail(guard: Guard, *, name: str = "guard") -> OutputGuardrail[Any]:
    """Return a guardrail that trips where an agent's output may not be delivered as it is."""

    async def judge(_context: Any, _agent: Any, output: Any) -> GuardrailFunctionOutput:
        text = output if isinstance(output, str) else written({"output": plain(output)})
        verdict = await guard.acheck(text)
        return GuardrailFunctionOutput(detail(verdict), verdict.action in ("rewrite", "block"))

    return OutputGuardrail(judge, name)


def input_guardrail(guard: Guard, *, name: str = "guard") -> InputGuardrail[Any]:
    """Return a guardrail that trips where a model must not be given an agent's input.

    It is judged by the class's `input` section, before the agent begins.
    """

    async def judge(_context: Any, _agent: Any, given: Any) -> GuardrailFunctionOutput:
        verdict = await guard.acheck_input(asked({"input": plain(given)}).exchange)
        return GuardrailFunctionOutput(detail(verdict), bool(verdict.message))

    return InputGuardrail(judge, name, run_in_parallel=False)


def tool_guardrails(
    guard: Guard, *, name: str = "guard"
) -> tuple[ToolInputGuardrail[Any], ToolOutputGuardrail[Any]]:
    """Return guardrails for a function tool: for its arguments and for its results.

    A result is judged by the class's `input` section. What may not pass is rejected: the model
    is told the class's message in its place.
    """

    async def judge_call(data: Any) -> ToolGuardrailFunctionOutput:
        made = ToolCall(data.context.tool_name, data.context.tool_arguments)
        verdict = await guard.acheck(Exchange((Choice(tool_calls=(made,)),)))
        return _behaviour(verdict, acts=verdict.action in ("rewrite", "block"))

    async def judge_result(data: Any) -> ToolGuardrailFunctionOutput:
        said = data.output if isinstance(data.output, str) else str(plain(data.output))
        given = (Message("assistant", ""), Message("tool", said, data.context.tool_name))
        verdict = await guard.acheck_input(Exchange((), given))
        return _behaviour(verdict, acts=bool(verdict.message))

    return ToolInputGuardrail(judge_call, name), ToolOutputGuardrail(judge_result, name)


def _behaviour(verdict: Verdict, *, acts: bool) -> ToolGuardrailFunctionOutput:
    if not acts:
        return ToolGuardrailFunctionOutput.allow(detail(verdict))
    said = verdict.message or "The call was withheld."
    return ToolGuardrailFunctionOutput.reject_content(said, detail(verdict))
