"""A real agent with tools and a memory, guarded by the middleware."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Any, Final

import pytest

pytest.importorskip("langchain", reason="langchain is not installed")
pytest.importorskip("langchain_openai", reason="langchain-openai is not installed")

from langchain.agents import create_agent
from langchain.agents.middleware import (
    AgentMiddleware,
    HumanInTheLoopMiddleware,
    ModelFallbackMiddleware,
)
from langchain.agents.structured_output import ProviderStrategy, ToolStrategy
from langchain_core.messages import AIMessage, HumanMessage, ToolMessage
from langchain_core.tools import InjectedToolCallId, ToolException, tool
from langgraph.checkpoint.memory import MemorySaver
from langgraph.types import Command
from pydantic import BaseModel

from guard.adapters.langchain import GuardMiddleware
from guard.engine import Guard
from guard.exchange import Choice, ToolCall
from guard.server.scripted import Reply
from tests.adapters.langchain.subjects import Ear, look_up, read_page
from tests.conftest import WordDetector, new_class

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from guard.server.scripted import ScriptedApp

FINE: Final = "Ferns grow in the shade."
THREAD: Final = {"configurable": {"thread_id": "garden"}}


class Plant(BaseModel):
    """A plant."""

    name: str
    months: int


def calls(*made: tuple[str, dict[str, Any]]) -> Choice:
    """Return an answer that calls tools."""
    listed = [ToolCall(n, json.dumps(a), f"call_{i}") for i, (n, a) in enumerate(made)]
    return Choice("One moment.", tool_calls=tuple(listed))


def asked(prompt: str) -> dict[str, Any]:
    """Return what an agent is asked."""
    return {"messages": [HumanMessage(prompt)]}


def sent(backend: ScriptedApp, number: int = -1) -> list[dict[str, Any]]:
    """Return the messages of a request."""
    messages: list[dict[str, Any]] = json.loads(backend.requests[number].body)["messages"]
    return messages


async def run(agent: Any, how: str, given: Any) -> Any:
    """Run an agent in one of the four ways; return its messages."""
    if how == "invoke":
        return agent.invoke(given, THREAD)["messages"]
    if how == "ainvoke":
        return (await agent.ainvoke(given, THREAD))["messages"]
    if how == "stream":
        list(agent.stream(given, THREAD, stream_mode="messages"))
    else:
        _ = [each async for each in agent.astream(given, THREAD, stream_mode="messages")]
    return agent.get_state(THREAD).values["messages"]


how = pytest.mark.parametrize("how", ["invoke", "ainvoke", "stream", "astream"])


@pytest.fixture
def new_agent(new_chat: Callable[..., Any], guard: Guard) -> Callable[..., Any]:
    """Return the maker of guarded agents with a memory."""

    def make(
        *tools: Any, inner: Any = None, before: Any = (), after: Any = (), **options: Any
    ) -> Any:
        return create_agent(
            inner or new_chat(),
            list(tools) or [look_up, read_page],
            middleware=[*before, GuardMiddleware(guard), *after],
            checkpointer=MemorySaver(),
            **options,
        )

    return make


class TestTurns:
    """Conversations of several turns."""

    @how
    async def test_a_conversation(
        self, how: str, backend: ScriptedApp, new_agent: Callable[..., Any]
    ) -> None:
        """Each turn sees what was delivered before, and nothing that was withheld."""
        backend.script("One?", calls(("look_up", {"query": "ferns"})), FINE)
        backend.script("Two?", "They zredact well.")
        backend.script("Three?", "They zblock well.")
        backend.script("Four?", "Good night.")
        agent = new_agent()
        for prompt in ("One?", "Two?", "Three?"):
            await run(agent, how, asked(prompt))
        messages = await run(agent, how, asked("Four?"))
        assert [message.text for message in messages if isinstance(message, AIMessage)] == [
            "One moment.",
            FINE,
            "They [redacted: to redact] well.",
            "[blocked]",
            "Good night.",
        ]
        said = json.dumps(sent(backend))
        assert "[blocked]" in said
        assert "zblock" not in said
        assert "zredact" not in said

    @how
    async def test_the_track_record(
        self, how: str, backend: ScriptedApp, new_agent: Callable[..., Any]
    ) -> None:
        """The state counts exchanges, what was done, and keeps the worst risks."""
        backend.script("One?", calls(("look_up", {"query": "ferns"})), FINE)
        backend.script("Two?", "They zredact well.")
        agent = new_agent()
        await run(agent, how, asked("One?"))
        record = agent.get_state(THREAD).values["guard_record"]
        assert (record["exchanges"], record["acted"]) == (2, 0)
        assert max(record["worst"].values()) < 0.5
        await run(agent, how, asked("Two?"))
        record = agent.get_state(THREAD).values["guard_record"]
        assert (record["exchanges"], record["acted"]) == (3, 1)
        assert record["worst"]["to_redact"] > 0.9
        assert record["worst"]["to_block"] < 0.5

    async def test_the_track_record_is_no_input_or_output(
        self, backend: ScriptedApp, new_agent: Callable[..., Any]
    ) -> None:
        """Nobody sets it from outside, and it is not in the way of the answer."""
        backend.script("One?", FINE)
        given = asked("One?") | {"guard_record": {"exchanges": 7}}
        agent = new_agent()
        assert set(agent.invoke(given, THREAD)) == {"messages"}
        assert agent.get_state(THREAD).values["guard_record"]["exchanges"] == 1

    async def test_the_live_risk_knows_the_conversation(
        self, backend: ScriptedApp, new_chat: Callable[..., Any]
    ) -> None:
        """What an exchange shows is told with the thread that it is part of."""

        class Told:
            posture = "normal"

            def __init__(self) -> None:
                self.heard: list[tuple[float, str | None]] = []

            def priors(self, conversation: str | None = None) -> Mapping[str, float]:
                del conversation
                return {}

            def observe(
                self, evidence: Mapping[str, float], *, conversation: str | None = None
            ) -> None:
                self.heard.append((evidence.get("to_flag", 0.0), conversation))

        live = Told()
        watched = Guard(new_class(), [WordDetector()], live=live)
        backend.script("One?", calls(("look_up", {"query": "zflag"})), FINE)
        middleware = [GuardMiddleware(watched)]
        agent: Any = create_agent(new_chat(), [look_up], middleware=middleware)
        agent.invoke(asked("One?"), THREAD)
        await agent.ainvoke(asked("One?"), {"configurable": {"thread_id": "other"}})
        assert live.heard == [(9.0, "garden"), (0.0, "garden"), (0.0, "other")]

    @how
    async def test_a_refused_input_ends_the_turn(
        self, how: str, backend: ScriptedApp, new_agent: Callable[..., Any]
    ) -> None:
        """The model is not asked."""
        messages = await run(new_agent(), how, asked("What does zblock mean?"))
        assert messages[-1].content == "[blocked]"
        assert not backend.requests


STRANGE: Final[list[dict[str, Any]]] = [
    {"type": "json", "json": {"note": ["They zblock."]}},
    {"type": "document", "source": {"type": "text", "data": "They zblock."}},
    {"type": "non_standard", "value": {"They zblock.": 1}},
    {"type": "tool_use", "name": "look", "input": {"q": "They zblock."}},
    {"type": "odd", "note": {"deeper": "They zblock."}},
]
"""Blocks of a content that hold a text at a place of their own."""


class TestTools:
    """Calls of tools and what they give back."""

    @how
    async def test_parallel_calls(
        self, how: str, backend: ScriptedApp, new_agent: Callable[..., Any]
    ) -> None:
        """Each result is judged for itself; the model is told that one was refused."""
        made = [("read_page", {"name": name}) for name in ("fern", "bad", "none")]
        backend.script("Read.", calls(*made), FINE)
        ear = Ear()
        messages = await run(new_agent().with_config(callbacks=[ear]), how, asked("Read."))
        results = [message for message in messages if isinstance(message, ToolMessage)]
        assert [(each.content, each.status) for each in results] == [
            ("Ferns like the shade.", "success"),
            ("[blocked]", "error"),
            ("Nothing.", "success"),
        ]
        assert results[1].response_metadata["guard"]["action"] == "block"
        assert [each["content"] for each in sent(backend) if each["role"] == "tool"] == [
            "Ferns like the shade.",
            "[blocked]",
            "Nothing.",
        ]
        assert "zblock" not in repr(ear.heard)

    @how
    async def test_a_rewritten_call_is_made(
        self, how: str, backend: ScriptedApp, new_agent: Callable[..., Any]
    ) -> None:
        """The tool gets the mended arguments."""
        backend.script("Look.", calls(("look_up", {"query": "a zredact"})), FINE)
        messages = await run(new_agent(), how, asked("Look."))
        assert messages[2].content == "Found: a [redacted: to redact]"

    @pytest.mark.parametrize("how", ["invoke", "ainvoke"])
    async def test_a_call_that_did_not_come_from_the_model(
        self, how: str, backend: ScriptedApp, new_agent: Callable[..., Any]
    ) -> None:
        """Whoever changes a call, its arguments are judged before the tool runs."""

        class Changes(AgentMiddleware[Any, Any, Any]):
            def after_model(self, state: Any, runtime: Any) -> Any:
                del runtime
                last = state["messages"][-1]
                if not last.tool_calls:
                    return None
                words = iter(["zblock", "zredact", "fern"])
                made = [call | {"args": {"query": next(words)}} for call in last.tool_calls]
                return {"messages": [last.model_copy(update={"tool_calls": made})]}

        backend.script("Look.", calls(*[("look_up", {"query": "x"})] * 3), FINE)
        messages = await run(new_agent(after=[Changes()]), how, asked("Look."))
        results = [message for message in messages if isinstance(message, ToolMessage)]
        assert [each.content for each in results] == [
            "[blocked]",
            "Found: [redacted: to redact]",
            "Found: fern",
        ]

    @pytest.mark.parametrize("how", ["invoke", "ainvoke"])
    @pytest.mark.parametrize("shape", ["text", "blocks", "object", "message", "command", "pair"])
    async def test_results_of_any_shape(
        self, how: str, shape: str, backend: ScriptedApp, new_agent: Callable[..., Any]
    ) -> None:
        """Whatever a tool returns is judged as the model would read it."""
        kind: Any = "content_and_artifact" if shape == "pair" else "content"

        @tool(response_format=kind)
        def give(word: str, tool_call_id: Annotated[str, InjectedToolCallId]) -> Any:
            """Give something."""
            text = "They zblock." if word == "bad" else f"Take {word}."
            shapes: dict[str, Any] = {
                "text": text,
                "blocks": [{"type": "text", "text": text}],
                "object": {"said": [text]},
                "message": ToolMessage(text, tool_call_id=tool_call_id),
                "command": Command(
                    update={"messages": [ToolMessage(text, tool_call_id=tool_call_id)]}
                ),
                "pair": (text, [text]),
            }
            return shapes[shape]

        made = [("give", {"word": word}) for word in ("fern", "bad")]
        backend.script("Give.", calls(*made), FINE)
        ear = Ear()
        agent = new_agent(give).with_config(callbacks=[ear])
        messages = await run(agent, how, asked("Give."))
        results = [message for message in messages if isinstance(message, ToolMessage)]
        assert "Take fern." in repr(results[0].content)
        assert results[1].content == "[blocked]"
        assert results[1].tool_call_id == "call_1"
        assert "zblock" not in repr([messages, ear.heard])

    @pytest.mark.parametrize("block", STRANGE, ids=lambda block: block["type"])
    def test_results_beside_a_text(
        self, block: dict[str, Any], backend: ScriptedApp, new_agent: Callable[..., Any]
    ) -> None:
        """A block that is no text is judged, whatever stands beside it."""

        @tool
        def give(word: str) -> Any:
            """Give something."""
            return [{"type": "text", "text": f"Take {word}."}, block]

        backend.script("Give.", calls(("give", {"word": "fern"})), FINE)
        messages = new_agent(give).invoke(asked("Give."), THREAD)["messages"]
        assert messages[2].content == "[blocked]"
        assert "zblock" not in str(sent(backend))

    @pytest.mark.parametrize("block", STRANGE, ids=lambda block: block["type"])
    def test_what_a_model_is_given_beside_a_text(
        self, block: dict[str, Any], backend: ScriptedApp, new_agent: Callable[..., Any]
    ) -> None:
        """So it is in what the user says."""
        said: list[Any] = [{"type": "text", "text": "Give."}, block]
        messages = new_agent().invoke({"messages": [HumanMessage(said)]}, THREAD)["messages"]
        assert messages[-1].content == "[blocked]"
        assert backend.requests == []

    @pytest.mark.parametrize("how", ["invoke", "ainvoke"])
    async def test_a_failure_that_quotes_something(
        self, how: str, backend: ScriptedApp, new_agent: Callable[..., Any]
    ) -> None:
        """What a tool says of its failure is a result, too."""

        @tool
        def fail_badly(word: str) -> str:
            """Fail, and quote what should not be read."""
            raise ToolException("They zblock." if word == "bad" else "Nothing.")

        fail_badly.handle_tool_error = True
        backend.script(
            "Again.", calls(*[("fail_badly", {"word": w}) for w in ("good", "bad")]), FINE
        )
        ear = Ear()
        agent = new_agent(fail_badly).with_config(callbacks=[ear])
        messages = await run(agent, how, asked("Again."))
        assert "zblock" not in repr(ear.heard)
        results = [message for message in messages if isinstance(message, ToolMessage)]
        assert [(each.content, each.status) for each in results] == [
            ("Nothing.", "error"),
            ("[blocked]", "error"),
        ]

    async def test_a_result_that_another_middleware_makes(
        self, backend: ScriptedApp, new_agent: Callable[..., Any]
    ) -> None:
        """A result that no tool gave is judged all the same."""

        class Makes(AgentMiddleware[Any, Any, Any]):
            def wrap_tool_call(self, request: Any, handler: Any) -> Any:
                del handler
                return ToolMessage("They zblock.", tool_call_id=request.tool_call["id"])

        backend.script("Look.", calls(("look_up", {"query": "x"})), FINE)
        messages = new_agent(after=[Makes()]).invoke(asked("Look."), THREAD)["messages"]
        assert messages[2].content == "[blocked]"

    async def test_without_an_input_section_results_pass(
        self,
        make_guard: Callable[..., Guard],
        backend: ScriptedApp,
        new_chat: Callable[..., Any],
    ) -> None:
        """The class says whether what a model is given is judged."""
        backend.script("Read.", calls(("read_page", {"name": "bad"})), FINE)
        middleware = [GuardMiddleware(make_guard())]
        agent: Any = create_agent(new_chat(), [read_page], middleware=middleware)
        assert agent.invoke(asked("Read."))["messages"][2].content == "Ferns zblock shade."


class TestStructuredOutput:
    """Agents that answer with a document."""

    @how
    @pytest.mark.parametrize("strategy", [ToolStrategy, ProviderStrategy])
    # OpenAI's SDK warns of what it has parsed itself.
    @pytest.mark.filterwarnings("ignore:Pydantic serializer warnings:UserWarning")
    async def test_a_document(
        self, how: str, strategy: Any, backend: ScriptedApp, new_agent: Callable[..., Any]
    ) -> None:
        """It is delivered, rewritten or refused."""
        replies: list[Any] = []
        for name in ("fern", "zredact", "zblock"):
            said = {"name": name, "months": 7}
            by_tool = strategy is ToolStrategy
            replies.append(calls(("Plant", said)) if by_tool else json.dumps(said))
        for prompt, reply in zip(("One?", "Two?", "Three?"), replies, strict=True):
            backend.script(prompt, reply)
        given = []
        for prompt in ("One?", "Two?", "Three?"):
            agent = new_agent(response_format=strategy(Plant))
            messages = await run(agent, how, asked(prompt))
            assert "zblock" not in repr(messages)
            given.append(agent.get_state(THREAD).values.get("structured_response"))
        assert given == [
            Plant(name="fern", months=7),
            Plant(name="[redacted: to redact]", months=7),
            None,
        ]
        assert messages[-1].text.endswith("[blocked]")


class TestOtherMiddleware:
    """Middleware beside the guard's."""

    @pytest.mark.parametrize("how", ["invoke", "ainvoke"])
    @pytest.mark.parametrize("decision", ["approve", "edit", "edit to bad", "reject"])
    async def test_a_human_in_the_loop(
        self, how: str, decision: str, backend: ScriptedApp, new_agent: Callable[..., Any]
    ) -> None:
        """The human is shown what passed; what the human writes is judged as well."""
        backend.script("Look.", calls(("look_up", {"query": "a zredact"})), FINE)
        asks = HumanInTheLoopMiddleware(interrupt_on={"look_up": True})
        agent = new_agent(before=[asks])
        given = asked("Look.")
        first = (
            agent.invoke(given, THREAD) if how == "invoke" else await agent.ainvoke(given, THREAD)
        )
        shown = first["__interrupt__"][0].value["action_requests"][0]
        assert shown["args"] == {"query": "a [redacted: to redact]"}
        query = "zblock" if decision == "edit to bad" else "ivy"
        edited = {"name": "look_up", "args": {"query": query}}
        answer: dict[str, Any] = {"type": decision.partition(" ")[0]}
        if answer["type"] == "edit":
            answer["edited_action"] = edited
        messages = await run(agent, how, Command(resume={"decisions": [answer]}))
        result = next(message for message in messages if isinstance(message, ToolMessage))
        expected = {
            "approve": "Found: a [redacted: to redact]",
            "edit": "Found: ivy",
            "edit to bad": "[blocked]",
        }
        assert result.text.endswith(expected.get(decision, ""))
        # Some versions quote what the human wrote, so that the model is not given it.
        assert messages[-1].text == FINE or decision == "edit to bad"
        assert agent.get_state(THREAD).next == ()

    @how
    @pytest.mark.parametrize("place", ["before", "after"])
    async def test_a_fallback_model_is_guarded(
        self,
        how: str,
        place: str,
        backend: ScriptedApp,
        new_agent: Callable[..., Any],
        new_chat: Callable[..., Any],
    ) -> None:
        """Also where another middleware, inside or outside, puts in its own model."""
        backend.script("One?", "They zredact well.")
        broken = new_chat(base_url="http://127.0.0.1:9/v1")
        other = {place: [ModelFallbackMiddleware(new_chat())]}
        agent = new_agent(inner=broken, **other)
        ear = Ear()
        messages = await run(agent.with_config(callbacks=[ear]), how, asked("One?"))
        assert messages[-1].content == "They [redacted: to redact] well."
        assert "zreda" not in repr(ear.heard)

    async def test_a_model_that_is_set_is_guarded(
        self, backend: ScriptedApp, new_agent: Callable[..., Any], new_chat: Callable[..., Any]
    ) -> None:
        """The old way to change a request is still there, with a warning."""

        class Sets(AgentMiddleware[Any, Any, Any]):
            def wrap_model_call(self, request: Any, handler: Any) -> Any:
                with pytest.deprecated_call():
                    request.model = new_chat()
                return handler(request)

        backend.script("One?", "They zredact well.")
        agent = new_agent(after=[Sets()])
        ear = Ear()
        list(agent.stream(asked("One?"), {**THREAD, "callbacks": [ear]}, stream_mode="messages"))
        assert "zreda" not in repr(ear.heard)

    async def test_a_guarded_model_stays_as_it_is(
        self,
        backend: ScriptedApp,
        make_guard: Callable[..., Guard],
        new_agent: Callable[..., Any],
        new_chat: Callable[..., Any],
    ) -> None:
        """A model with a guard of its own is not guarded twice."""
        backend.script("One?", "They zflag well.")
        strict = make_guard(limits={"to_flag": {"act": 0.5}})
        agent = new_agent(inner=strict.wrap(new_chat()))
        assert agent.invoke(asked("One?"), THREAD)["messages"][-1].content == "[blocked]"


async def test_several_choices_are_of_no_use(
    backend: ScriptedApp, new_agent: Callable[..., Any], new_chat: Callable[..., Any]
) -> None:
    """An agent reads the first choice, and the others are judged as well."""
    backend.script("One?", Reply((Choice(FINE), Choice("They zblock."))))
    ear = Ear()
    agent = new_agent(inner=new_chat(n=2))
    messages = agent.invoke(asked("One?"), {**THREAD, "callbacks": [ear]})["messages"]
    assert messages[-1].content == FINE
    assert "zblock" not in repr(ear.heard)
