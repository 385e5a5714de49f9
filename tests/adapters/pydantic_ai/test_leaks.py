"""The leak matrix of pydantic-ai: every way to read what a model said, beside the plain model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

pytest.importorskip("pydantic_ai", reason="pydantic-ai is not installed")

from pydantic_ai import Agent
from pydantic_ai.direct import model_request, model_request_stream
from pydantic_ai.messages import ModelRequest

from tests.adapters.leak_lab import PROMPT, Answers, Lab, Way
from tests.adapters.leak_matrix import Row, check
from tests.adapters.pydantic_ai.scripted import scripted_model

if TYPE_CHECKING:
    from collections.abc import Callable

    from guard.engine import Guard


def build(answers: Answers, guard: Guard | None) -> Any:
    """Return a model, plain or guarded."""
    model = scripted_model(answers)
    return model if guard is None else guard.wrap(model)


LAB = Lab("pydantic-ai", build)

NOTE = "A model in the place of another, alone and in an `Agent` with a tool."


def agent(model: Any) -> tuple[Agent[None, str], list[str]]:
    """Return an agent with one tool, and what the tool is given."""
    given: list[str] = []
    made: Agent[None, str] = Agent(model)

    @made.tool_plain
    def look_up(query: str) -> str:
        """Look something up."""
        given.append(query)
        return f"Found: {query}"

    return made, given


@LAB.way("`model.request`")
async def _request(model: Any) -> Any:
    return await model_request(model, [ModelRequest.user_text_prompt(PROMPT)])


@LAB.way("`model.request_stream`, events and response")
async def _request_stream(model: Any) -> Any:
    asked = [ModelRequest.user_text_prompt(PROMPT)]
    async with model_request_stream(model, asked) as stream:
        events = [event async for event in stream]
        return events, stream.get()


@LAB.way("`Agent.run`, output and messages")
async def _run(model: Any) -> Any:
    result = await agent(model)[0].run(PROMPT)
    return result.output, result.all_messages()


@LAB.way("`Agent.run`, messages as JSON")
async def _json(model: Any) -> Any:
    return (await agent(model)[0].run(PROMPT)).all_messages_json()


@LAB.way("`Agent.run`, event handler")
async def _handler(model: Any) -> Any:
    heard: list[Any] = []

    async def handle(_: Any, events: Any) -> None:
        heard.extend([event async for event in events])

    await agent(model)[0].run(PROMPT, event_stream_handler=handle)
    return heard


@LAB.way("`Agent.run_stream`, text", "text")
async def _text(model: Any) -> Any:
    async with agent(model)[0].run_stream(PROMPT) as result:
        said = [text async for text in result.stream_text(debounce_by=None)]
        return said, result.all_messages()


@LAB.way("`Agent.run_stream`, pieces", "text")
async def _pieces(model: Any) -> Any:
    async with agent(model)[0].run_stream(PROMPT) as result:
        return [text async for text in result.stream_text(delta=True, debounce_by=None)]


@LAB.way("`Agent.run_stream`, responses so far", "text", "reasoning")
async def _responses(model: Any) -> Any:
    async with agent(model)[0].run_stream(PROMPT) as result:
        # What an answer has cost so far depends on how far the model is.
        return [each.parts async for each in result.stream_response(debounce_by=None)]


@LAB.way("`Agent.run_stream_events`")
async def _events(model: Any) -> Any:
    async with agent(model)[0].run_stream_events(PROMPT) as events:
        return [event async for event in events]


@LAB.way("`Agent.iter`, nodes and their streams")
async def _iter(model: Any) -> Any:
    heard: list[Any] = []
    async with agent(model)[0].iter(PROMPT) as run:
        async for node in run:
            heard.append(node)
            if Agent.is_model_request_node(node):
                async with node.stream(run.ctx) as stream:
                    heard += [event async for event in stream]
    return heard


@LAB.way("what tools are given", "call")
async def _tools(model: Any) -> Any:
    made, given = agent(model)
    await made.run(PROMPT)
    async with made.run_stream(PROMPT) as result:
        await result.get_output()
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
