"""The classifiers as a decision model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

pytest.importorskip("langchain", reason="langchain is not installed")
pytest.importorskip("langchain_core.decisions", reason="langchain-core is older than 1.8")

from langchain.agents import create_agent
from langchain.agents.middleware import AutoModeMiddleware
from langchain_core.decisions import Choice as OneOf
from langchain_core.decisions import Noul
from langchain_core.messages import AIMessage, HumanMessage, ToolMessage

from guard.adapters.langchain import RiskDecisions
from guard.errors import InputError
from guard.exchange import Choice, ToolCall
from tests.adapters.langchain.subjects import PROMPT, look_up

if TYPE_CHECKING:
    from collections.abc import Callable

    from guard.engine import Guard
    from guard.server.scripted import ScriptedApp


def about(state: Any, *names: str) -> Any:
    """Return a request that asks questions of yes or no about a state."""
    return {"state": state, "questions": {name: Noul(instructions="Is it?") for name in names}}


class TestAnswers:
    """What is answered."""

    @pytest.mark.parametrize(
        "state",
        [
            "They zblock.",
            HumanMessage("They zblock."),
            [HumanMessage(PROMPT), AIMessage("They zblock.")],
            {
                "messages": [HumanMessage(PROMPT)],
                "tool_call": {"name": "x", "args": {"q": "zblock"}},
            },
            {"anything": ["They zblock."]},
        ],
    )
    async def test_a_category_is_answered_by_its_risk(self, state: Any, guard: Guard) -> None:
        """Whatever holds the text."""
        asked = about(state, "to_block", "to_flag")
        for response in (
            RiskDecisions(guard=guard).invoke(asked),
            await RiskDecisions(guard=guard).ainvoke(asked),
        ):
            assert response.nouls["to_block"].noul > 0.9
            assert response.nouls["to_flag"].noul < 0.1
            assert response.model == "clearance"

    async def test_only_the_last_message_is_judged(self, guard: Guard) -> None:
        """The others are what came before."""
        state = [AIMessage("They zblock."), HumanMessage("Thank you.")]
        asked = about(state, "to_block")
        assert RiskDecisions(guard=guard).invoke(asked).nouls["to_block"].noul < 0.1

    async def test_any_risk(self, guard: Guard) -> None:
        """One question asks for the worst."""
        for text, risky in (("They zredact.", True), ("Ferns.", False)):
            asked = about(text, "is_risky")
            assert (RiskDecisions(guard=guard).invoke(asked).nouls["is_risky"].noul > 0.5) is risky

    async def test_a_detector_that_fails_is_no_all_clear(
        self, make_guard: Callable[..., Guard], word_detector: Callable[..., Any]
    ) -> None:
        """Nothing is known, so the worst is said."""

        class Broken(type(word_detector())):  # type: ignore[misc]
            def __call__(self, _: Any) -> Any:
                raise OSError

        asked = about("Ferns.", "is_risky")
        model = RiskDecisions(guard=make_guard(Broken()))
        assert model.invoke(asked).nouls["is_risky"].noul == 1.0

    async def test_what_no_classifier_answers(self, guard: Guard) -> None:
        """The error says what may be asked."""
        model = RiskDecisions(guard=guard)
        with pytest.raises(InputError, match="did you mean `to_block`"):
            model.invoke(about("Ferns.", "to_blok"))
        choice = OneOf(instructions="Which?", criteria={"a": "b"})
        with pytest.raises(InputError, match="must be a `Noul`"):
            model.invoke({"state": "Ferns.", "questions": {"to_block": choice}})


async def test_auto_mode(guard: Guard, backend: ScriptedApp, new_chat: Callable[..., Any]) -> None:
    """The framework's own middleware refuses a tool call by our risks."""
    backend.script(
        PROMPT, Choice(tool_calls=(ToolCall("look_up", '{"query": "zblock"}', "c"),)), "Fine."
    )
    auto = AutoModeMiddleware(tools=[look_up], classifier=RiskDecisions(guard=guard))
    agent = create_agent(new_chat(), [look_up], middleware=[auto])
    messages = agent.invoke({"messages": [HumanMessage(PROMPT)]})["messages"]
    result = next(message for message in messages if isinstance(message, ToolMessage))
    assert result.status == "error"
    assert "Found" not in result.content
