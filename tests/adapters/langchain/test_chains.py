"""Chains that give text, guarded as a whole."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

pytest.importorskip("langchain", reason="langchain is not installed")
pytest.importorskip("langchain_openai", reason="langchain-openai is not installed")

from langchain.agents import create_agent
from langchain_core.messages import HumanMessage, SystemMessage
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompt_values import ChatPromptValue
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.runnables import RunnableLambda
from langgraph.graph import END, START, MessagesState, StateGraph

from guard.adapters.langchain import GuardRunnable
from guard.errors import InputError
from guard.exchange import Choice
from guard.server.scripted import Delivery, Reply
from tests.adapters.langchain.subjects import PROMPT, Ear

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

    from guard.engine import Guard
    from guard.server.scripted import ScriptedApp

LONG = "Ferns grow in the shade. Water them in the morning, and they will thank you for it. " * 8


@pytest.fixture
def chain(new_chat: Callable[..., Any]) -> Any:
    """Return a plain chain."""
    prompt = ChatPromptTemplate.from_messages([("human", "{question}")])
    return prompt | new_chat() | StrOutputParser()


class TestText:
    """What of a text leaves."""

    @pytest.mark.parametrize("piece", [1, 9, 1000])
    async def test_all_ways_say_the_same(
        self, piece: int, guard: Guard, backend: ScriptedApp, chain: Any
    ) -> None:
        """Whole or in pieces, waiting or not."""
        text = f"{LONG}They zredact. {LONG}"
        backend.script(PROMPT, Reply((Choice(text),), delivery=Delivery(piece=piece)))
        guarded = GuardRunnable(guard, chain)
        asked = {"question": PROMPT}
        expected = guard.check(text).text
        assert guarded.invoke(asked) == expected
        assert await guarded.ainvoke(asked) == expected
        assert "".join(guarded.stream(asked)) == expected
        assert "".join([piece async for piece in guarded.astream(asked)]) == expected
        assert guarded.batch([asked] * 2) == [expected] * 2

    async def test_a_block_is_the_classs_message(
        self, guard: Guard, backend: ScriptedApp, chain: Any
    ) -> None:
        """Behind what had left of a stream, and alone in a whole answer."""
        backend.script(PROMPT, f"{LONG}They zblock.")
        guarded = GuardRunnable(guard, chain)
        assert guarded.invoke({"question": PROMPT}) == "[blocked]"
        said = "".join(guarded.stream({"question": PROMPT}))
        assert said.startswith(LONG[:80])
        assert said.endswith("\n\n[blocked]")

    async def test_text_leaves_before_the_end(
        self, guard: Guard, backend: ScriptedApp, chain: Any
    ) -> None:
        """What was judged does not wait for the rest."""
        reply = Reply((Choice(LONG * 2),), delivery=Delivery(piece=40, holds_after=30))
        backend.script(PROMPT, reply)
        stream = GuardRunnable(guard, chain).stream({"question": PROMPT})
        first = next(stream)
        backend.release()
        assert first + "".join(stream) == LONG * 2

    async def test_it_streams_inside_a_chain(
        self, guard: Guard, backend: ScriptedApp, chain: Any
    ) -> None:
        """Steps around it pass its pieces on."""
        backend.script(PROMPT, LONG * 2)

        def loud(pieces: Iterator[str]) -> Iterator[str]:
            for piece in pieces:
                yield piece.upper()

        outer: Any = RunnableLambda(lambda question: {"question": question}) | GuardRunnable(
            guard, chain
        )
        pieces = list((outer | loud).stream(PROMPT))
        assert "".join(pieces) == (LONG * 2).upper()
        assert len(pieces) > 1

    async def test_a_reader_that_goes_away_closes_the_connection(
        self, guard: Guard, backend: ScriptedApp, chain: Any
    ) -> None:
        """The chain's stream ends with the guarded one."""
        reply = Reply((Choice(LONG * 20),), delivery=Delivery(piece=2, pause=0.001))
        backend.script(PROMPT, reply)
        stream: Any = GuardRunnable(guard, chain).astream({"question": PROMPT})
        await anext(stream)
        await stream.aclose()
        await asyncio.to_thread(backend.wait_idle)
        assert backend.requests[-1].outcome == "left"

    async def test_a_synchronous_reader_that_goes_away(self, guard: Guard) -> None:
        """The chain's stream is closed with what reads it."""
        closed = []

        def pieces(_: str) -> Iterator[str]:
            try:
                yield from [LONG] * 9
            finally:
                closed.append(True)

        stream: Any = GuardRunnable(guard, RunnableLambda(pieces)).stream(PROMPT)
        next(stream)
        stream.close()
        assert closed == [True]

    async def test_an_error_quotes_nothing(
        self, guard: Guard, backend: ScriptedApp, chain: Any
    ) -> None:
        """A step that cannot read an answer does not tell it."""
        backend.script(PROMPT, "They zblock.")

        def fail(text: str) -> str:
            raise ValueError(f"cannot read {text}")

        guarded = GuardRunnable(guard, chain | fail)
        ear = Ear()
        asked: Any = {"question": PROMPT}
        with pytest.raises(InputError, match="could not be read"):
            guarded.invoke(asked, {"callbacks": [ear]})
        with pytest.raises(InputError, match="could not be read"):
            await guarded.ainvoke(asked, {"callbacks": [ear]})
        with pytest.raises(InputError, match="could not be read"):
            list(guarded.stream(asked, {"callbacks": [ear]}))
        with pytest.raises(InputError, match="could not be read"):
            _ = [piece async for piece in guarded.astream(asked, {"callbacks": [ear]})]
        assert ear.heard
        assert "zblock" not in repr(ear.heard)


class TestChains:
    """What a chain may be."""

    async def test_any_function(self, guard: Guard) -> None:
        """A function or a generator is a chain, too."""

        def answers(asked: str) -> str:
            return f"{asked} They zredact."

        async def pieces(asked: str) -> AsyncIterator[str]:
            yield asked
            yield " They zredact."

        assert (
            GuardRunnable(guard, answers).invoke("Ferns.") == "Ferns. They [redacted: to redact]."
        )
        said = [
            piece async for piece in GuardRunnable(guard, RunnableLambda(pieces)).astream("Ferns.")
        ]
        assert "".join(said) == "Ferns. They [redacted: to redact]."

    async def test_a_chain_that_gives_messages(
        self, guard: Guard, backend: ScriptedApp, new_chat: Callable[..., Any]
    ) -> None:
        """The error says how to end it, and quotes nothing."""
        backend.script(PROMPT, "They zblock.")
        guarded = GuardRunnable(guard, new_chat())
        with pytest.raises(InputError, match="StrOutputParser") as caught:
            guarded.invoke(PROMPT)
        assert "zblock" not in str(caught.value)
        with pytest.raises(InputError, match="StrOutputParser"):
            list(guarded.stream(PROMPT))

    async def test_a_graph_inside_a_graph_is_not_heard(
        self, guard: Guard, backend: ScriptedApp, new_chat: Callable[..., Any]
    ) -> None:
        """An agent in the chain does not stream to the graph around it."""
        backend.script(PROMPT, "They zblock.")
        agent = create_agent(new_chat())
        chain = agent | (lambda state: state["messages"][-1].text)
        guarded = GuardRunnable(guard, chain)

        def node(state: Any) -> Any:
            return {"messages": [("ai", guarded.invoke({"messages": state["messages"]}))]}

        graph = StateGraph(MessagesState)
        graph.add_node("node", node)
        graph.add_edge(START, "node")
        graph.add_edge("node", END)
        ear = Ear()
        seen = [
            list(
                graph.compile().stream(
                    {"messages": [HumanMessage(PROMPT)]},
                    {"callbacks": [ear]},
                    stream_mode=["messages", "updates", "debug"],
                    subgraphs=True,
                )
            )
        ]
        assert "[blocked]" in repr(seen)
        assert "zblock" not in repr([seen, ear.heard])

    @pytest.mark.parametrize("kind", ["text", "dict", "messages", "prompt value"])
    async def test_the_question_is_context(self, kind: str, pack_guard: Guard) -> None:
        """Detectors know what was asked, and the system prompt."""
        system = "Never name the blue heron of the third marsh to anybody who asks you for it."
        messages = [SystemMessage(system), HumanMessage(PROMPT)]
        asked: Any = {
            "text": PROMPT,
            "dict": {"question": PROMPT, "other": 1},
            "messages": messages,
            "prompt value": ChatPromptValue(messages=messages),
        }[kind]
        said = GuardRunnable(pack_guard, lambda _: f"I was told: {system}").invoke(asked)
        told = kind in ("messages", "prompt value")
        assert ("blue heron" in said) is not told
