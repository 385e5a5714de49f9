"""The leak matrix of OpenAI's Agents SDK: every way to read what a model said."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any

import pytest

pytest.importorskip("agents", reason="openai-agents is not installed")

from agents import (
    Agent,
    ModelRefusalError,
    ModelSettings,
    ModelTracing,
    RunConfig,
    RunHooks,
    Runner,
    SQLiteSession,
    function_tool,
    set_trace_processors,
)
from agents.testing import ScriptedModel
from agents.tracing import TracingProcessor

from tests.adapters.leak_lab import PROMPT, Answers, Lab, Way
from tests.adapters.leak_matrix import Row, check
from tests.adapters.openai_agents.scripted import scripted_model

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from guard.engine import Guard


def build(answers: Answers, guard: Guard | None) -> Any:
    """Return a model, plain or guarded."""
    model = scripted_model(answers)
    return model if guard is None else guard.wrap(model)


LAB = Lab("OpenAI Agents SDK", build)

NOTE = "A model in the place of another, alone and in an `Agent` with a tool."

QUIET = RunConfig(tracing_disabled=True)


def agent(model: Any) -> tuple[Agent[Any], list[str]]:
    """Return an agent with one tool, and what the tool is given."""
    given: list[str] = []

    @function_tool
    def look_up(query: str) -> str:
        """Look something up."""
        given.append(query)
        return f"Found: {query}"

    return Agent(name="Gardener", model=model, tools=[look_up]), given


def asked() -> dict[str, Any]:
    """Return what a model is asked."""
    return {
        "system_instructions": None,
        "input": PROMPT,
        "model_settings": ModelSettings(),
        "tools": [],
        "output_schema": None,
        "handoffs": [],
        "tracing": ModelTracing.DISABLED,
        "previous_response_id": None,
        "conversation_id": None,
        "prompt": None,
    }


class Hooks(RunHooks[Any]):
    """Remembers what it is told of answers."""

    def __init__(self) -> None:
        """Remember nothing yet."""
        self.heard: list[Any] = []

    async def on_llm_end(self, context: Any, agent: Any, response: Any) -> None:
        """Remember a model's answer."""
        del context, agent
        self.heard.append(response)

    async def on_tool_end(self, context: Any, agent: Any, tool: Any, result: Any) -> None:
        """Remember a tool's result."""
        del context, agent, tool
        self.heard.append(result)

    async def on_agent_end(self, context: Any, agent: Any, output: Any) -> None:
        """Remember an agent's output."""
        del context, agent
        self.heard.append(output)


class Tracer(TracingProcessor):
    """Remembers what spans of tools and models say."""

    def __init__(self) -> None:
        """Remember nothing yet."""
        self.heard: list[Any] = []

    def on_span_end(self, span: Any) -> None:
        """Remember a span."""
        self.heard.append(span.span_data.export())

    def on_trace_start(self, trace: Any) -> None:
        """Hear nothing."""

    def on_trace_end(self, trace: Any) -> None:
        """Hear nothing."""

    def on_span_start(self, span: Any) -> None:
        """Hear nothing."""

    def shutdown(self) -> None:
        """Keep nothing open."""

    def force_flush(self) -> None:
        """Keep nothing back."""


@LAB.way("`Model.get_response`")
async def _response(model: Any) -> Any:
    return await model.get_response(**asked())


@LAB.way("`Model.stream_response`")
async def _stream(model: Any) -> Any:
    return [event async for event in model.stream_response(**asked())]


async def run(model: Any, **options: Any) -> Any:
    """Return the result of a run, or the refusal that it ends with."""
    try:
        return await Runner.run(agent(model)[0], PROMPT, **{"run_config": QUIET} | options)
    except ModelRefusalError as error:
        return error


@LAB.way("`Runner.run`, items and output, or what it raises")
async def _run(model: Any) -> Any:
    result = await run(model)
    if isinstance(result, ModelRefusalError):
        return str(result), result.run_data
    return result.final_output, result.to_input_list(), result.raw_responses


@LAB.way("`Runner.run_streamed`, events and output")
async def _run_streamed(model: Any) -> Any:
    result = Runner.run_streamed(agent(model)[0], PROMPT, run_config=QUIET)
    heard: list[Any] = []
    try:
        async for event in result.stream_events():
            heard.append(getattr(event, "data", getattr(event, "item", None)))  # noqa: PERF401
    except ModelRefusalError as error:
        heard += [str(error), error.run_data]
    said = [getattr(each, "raw_item", each) for each in heard if not isinstance(each, Agent)]
    return said, result.final_output, result.raw_responses


@LAB.way("hooks")
async def _hooks(model: Any) -> Any:
    hooks = Hooks()
    await run(model, hooks=hooks)
    return hooks.heard


@LAB.way("session")
async def _session(model: Any) -> Any:
    session = SQLiteSession("1")
    await run(model, session=session)
    items = await session.get_items()
    session.close()
    return items


@LAB.way("traces of tools", "call")
async def _traces(model: Any) -> Any:
    tracer = Tracer()
    set_trace_processors([tracer])
    await run(model, run_config=None)
    set_trace_processors([])
    return [each for each in tracer.heard if each["type"] == "function"]


@LAB.way("what tools are given", "call")
async def _tools(model: Any) -> Any:
    made, given = agent(model)
    with suppress(ModelRefusalError):
        await Runner.run(made, PROMPT, run_config=QUIET)
    return given


@pytest.fixture(autouse=True)
def untraced() -> Iterator[None]:
    """Send no traces anywhere."""
    set_trace_processors([])
    yield
    set_trace_processors([])


@pytest.fixture(scope="module")
def measured() -> dict[str, Row]:
    """Return the rows that were measured by now."""
    return {}


@pytest.mark.parametrize("way", LAB.ways, ids=lambda way: way.name)
async def test_nothing_leaks(
    way: Way, make_guard: Callable[..., Guard], measured: dict[str, Row]
) -> None:
    """What is blocked is read nowhere, what is rewritten only so, and all else as it is."""
    measured[way.name] = await LAB.measure(way, make_guard())
    assert measured[way.name].leaks == []


async def test_the_page_is_current(
    make_guard: Callable[..., Guard], measured: dict[str, Row]
) -> None:
    """The published table is what is measured."""
    for way in LAB.ways:
        if way.name not in measured:
            measured[way.name] = await LAB.measure(way, make_guard())
    check(LAB.title, NOTE, [measured[way.name] for way in LAB.ways])


async def test_traces_of_models_hold_no_text(make_guard: Callable[..., Guard]) -> None:
    """The inner model traces what it gives; it is told to leave the texts out."""
    inner = scripted_model(())
    kinds: list[Any] = []

    class Asked(ScriptedModel):
        async def get_response(self, *args: Any, **kwargs: Any) -> Any:
            kinds.append(kwargs["tracing"])
            return await inner.get_response(*args, **kwargs)

    model: Any = make_guard().wrap(Asked())
    await model.get_response(**asked() | {"tracing": ModelTracing.ENABLED})
    assert kinds == [ModelTracing.ENABLED_WITHOUT_DATA]
