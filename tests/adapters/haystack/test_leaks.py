"""The leak matrix of Haystack: every way to read what a model said, beside the plain generator."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest

pytest.importorskip("haystack", reason="haystack-ai is not installed")

from haystack import Pipeline
from haystack.components.agents import Agent
from haystack.dataclasses import ChatMessage
from haystack.tools import tool
from haystack.tracing.tracer import Span, Tracer, enable_tracing, tracer

from tests.adapters.haystack.scripted import ScriptedGenerator
from tests.adapters.leak_lab import PROMPT, Answers, Lab, Way
from tests.adapters.leak_matrix import Row, check

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from guard.engine import Guard

ASKED = [ChatMessage.from_user(PROMPT)]


def build(answers: Answers, guard: Guard | None) -> Any:
    """Return a generator, plain or guarded."""
    generator = ScriptedGenerator(answers)
    return generator if guard is None else guard.wrap(generator)


LAB = Lab("Haystack", build)

NOTE = "A component around a chat generator, alone, in a pipeline and in an `Agent` with a tool."


def agent(generator: Any, **options: Any) -> tuple[Agent, list[str]]:
    """Return an agent with one tool, and what the tool is given."""
    given: list[str] = []

    @tool
    def look_up(query: str) -> str:
        """Look something up."""
        given.append(query)
        return f"Found: {query}"

    return Agent(chat_generator=generator, tools=[look_up], **options), given


class Recorder(Tracer):
    """A tracer that keeps what it is told of outputs."""

    def __init__(self) -> None:
        """Keep nothing yet."""
        self.heard: list[Any] = []

    @contextmanager
    def trace(
        self, operation_name: str, tags: Any = None, parent_span: Any = None
    ) -> Iterator[Any]:
        """Keep what is set."""
        del operation_name, tags, parent_span
        yield _Span(self.heard)

    def current_span(self) -> Span | None:
        """Return none."""
        return None


class _Span(Span):
    def __init__(self, heard: list[Any]) -> None:
        self._heard = heard

    def set_tag(self, key: str, value: Any) -> None:
        if "output" in key:
            self._heard.append((key, value))


@contextmanager
def recorded() -> Iterator[list[Any]]:
    """Let a tracer hear what is told, contents too."""
    recorder, before = Recorder(), tracer.actual_tracer
    enable_tracing(recorder)
    tracer.is_content_tracing_enabled = True
    try:
        yield recorder.heard
    finally:
        tracer.is_content_tracing_enabled = False
        tracer.actual_tracer = before


@LAB.way("`run`")
async def _run(generator: Any) -> Any:
    return generator.run(ASKED)


@LAB.way("`run_async`")
async def _run_async(generator: Any) -> Any:
    return await generator.run_async(ASKED)


@LAB.way("`run`, streaming callback and reply")
async def _callback(generator: Any) -> Any:
    heard: list[Any] = []
    return heard, generator.run(ASKED, streaming_callback=heard.append)


@LAB.way("`run_async`, streaming callback and reply")
async def _async_callback(generator: Any) -> Any:
    heard: list[Any] = []

    async def hear(chunk: Any) -> None:
        heard.append(chunk)

    return heard, await generator.run_async(ASKED, streaming_callback=hear)


@LAB.way("the generator's own streaming callback")
async def _own_callback(generator: Any) -> Any:
    heard: list[Any] = []
    getattr(generator, "_inner", generator).streaming_callback = heard.append
    return heard, generator.run(ASKED), await generator.run_async(ASKED)


@LAB.way("`Pipeline.run`, outputs of every component")
async def _pipeline(generator: Any) -> Any:
    pipeline = Pipeline()
    pipeline.add_component("llm", generator)
    return pipeline.run({"llm": {"messages": ASKED}}, include_outputs_from={"llm"})


@LAB.way("`Pipeline.run`, tracer")
async def _tracer(generator: Any) -> Any:
    pipeline = Pipeline()
    pipeline.add_component("llm", generator)
    with recorded() as heard:
        pipeline.run({"llm": {"messages": ASKED}})
    return heard


@LAB.way("`Agent.run`, messages")
async def _agent(generator: Any) -> Any:
    return agent(generator)[0].run(ASKED)["messages"]


@LAB.way("`Agent.run`, streaming callback")
async def _agent_callback(generator: Any) -> Any:
    heard: list[Any] = []
    said = agent(generator)[0].run(ASKED, streaming_callback=heard.append)
    return heard, said["messages"]


@LAB.way("`Agent.run_async`, streaming callback")
async def _agent_async(generator: Any) -> Any:
    heard: list[Any] = []

    async def hear(chunk: Any) -> None:
        heard.append(chunk)

    said = await agent(generator)[0].run_async(ASKED, streaming_callback=hear)
    return heard, said["messages"]


@LAB.way("`Agent.run`, tracer")
async def _agent_tracer(generator: Any) -> Any:
    with recorded() as heard:
        agent(generator)[0].run(ASKED)
    return heard


@LAB.way("what tools are given", "call")
async def _tools(generator: Any) -> Any:
    made, given = agent(generator)
    made.run(ASKED)
    return given


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
