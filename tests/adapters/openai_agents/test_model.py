"""The Agents SDK's guarded model and the guardrails: what a refusal looks like, what trips."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

pytest.importorskip("agents", reason="openai-agents is not installed")

from agents import (
    Agent,
    InputGuardrailTripwireTriggered,
    ModelBehaviorError,
    ModelProvider,
    ModelResponse,
    OutputGuardrailTripwireTriggered,
    RunConfig,
    Runner,
    Usage,
    function_tool,
    set_trace_processors,
)
from agents.testing import ModelStep, ScriptedModel
from openai.types.responses import ResponseCompletedEvent

from guard.adapters.openai_agents import input_guardrail, output_guardrail, tool_guardrails
from guard.errors import InputError
from guard.exchange import Choice
from tests.adapters.leak_lab import FINE, PROMPT, call, run_example
from tests.adapters.missing_extra import error_without, loaded_with
from tests.adapters.openai_agents.scripted import output, scripted_model
from tests.adapters.openai_agents.test_leaks import QUIET, asked

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from guard.engine import Guard
    from guard.server.scripted import ScriptedApp

BAD = Choice(f"{FINE} {FINE} {FINE} They zblock well.")

INPUT = {"limits": {"to_block": {"act": 0.9}}}


async def whole(guard: Guard, *answers: Choice, **given: Any) -> ModelResponse:
    """Return a guarded model's answer."""
    model: Any = guard.wrap(scripted_model(answers))
    response: ModelResponse = await model.get_response(**asked() | given)
    return response


async def streamed(guard: Guard, *answers: Choice, **given: Any) -> list[Any]:
    """Return the events of a guarded model's stream."""
    model: Any = guard.wrap(scripted_model(answers))
    return [event async for event in model.stream_response(**asked() | given)]


class TestRefusals:
    """What stands in the place of an answer that is withheld."""

    async def test_a_blocked_answer_is_a_refusal(self, make_guard: Callable[..., Guard]) -> None:
        """It is one message with the class's words."""
        (item,) = (await whole(make_guard(), BAD)).output
        assert [part.to_dict() for part in item.content] == [  # type: ignore[union-attr]
            {"type": "refusal", "refusal": "[blocked]"}
        ]

    async def test_a_stream_ends_with_a_refusal_behind_what_had_left(
        self, make_guard: Callable[..., Guard]
    ) -> None:
        """Its last event holds the whole answer as it was shown."""
        events = await streamed(make_guard(), BAD)
        assert isinstance(events[-1], ResponseCompletedEvent)
        shown = repr(events[-1].response.output)
        assert FINE in shown
        assert "[blocked]" in shown
        assert "zblock" not in repr(events)

    async def test_a_bad_prompt_reaches_no_model(self, make_guard: Callable[..., Guard]) -> None:
        """The answer is the class's message, and nobody was asked."""
        guard, inner = make_guard(input=INPUT), scripted_model([Choice(FINE)])
        model: Any = guard.wrap(inner)
        given = asked() | {"input": [{"role": "user", "content": "zblock"}]}
        response = await model.get_response(**given)
        events = [event async for event in model.stream_response(**given)]
        assert "[blocked]" in repr(response.output)
        assert "[blocked]" in repr(events[-1])
        assert inner.calls == ()

    async def test_verdicts_are_told(self, make_guard: Callable[..., Guard]) -> None:
        """The SDK has no place for metadata, so that a callback hears them."""
        told: list[str] = []
        model: Any = make_guard().wrap(
            scripted_model([BAD]), on_verdict=lambda verdict: told.append(verdict.action)
        )
        await model.get_response(**asked())
        _ = [event async for event in model.stream_response(**asked())]
        assert told == ["block", "block"]


class TestAnswers:
    """Answers that pass."""

    async def test_untouched_events_are_the_very_objects(
        self, make_guard: Callable[..., Guard]
    ) -> None:
        """Nothing is made anew where nothing is done."""
        inner: Any = scripted_model([Choice(FINE)])
        given: list[Any] = []
        stream = inner.stream_response

        async def remembered(**options: Any) -> Any:
            async for event in stream(**options):
                given.append(event)
                yield event

        inner.stream_response = remembered
        model: Any = make_guard().wrap(inner)
        said = [event async for event in model.stream_response(**asked())]
        assert [id(event) for event in said] == [id(event) for event in given]

    async def test_an_untouched_response_is_the_very_object(
        self, make_guard: Callable[..., Guard]
    ) -> None:
        """It is the inner model's."""
        given = ModelResponse(output(Choice(FINE)), Usage(), "1")
        inner: Any = scripted_model([])

        async def answer(**_: Any) -> ModelResponse:
            return given

        inner.get_response = answer
        model: Any = make_guard().wrap(inner)
        assert await model.get_response(**asked()) is given

    async def test_a_provider_gives_guarded_models(self, make_guard: Callable[..., Guard]) -> None:
        """Agents that name their model are guarded as well."""

        class Provider(ModelProvider):
            def get_model(self, model_name: str | None) -> Any:
                del model_name
                return scripted_model([Choice("They zreplace well.")])

        provider = make_guard().wrap(Provider())
        config = RunConfig(model_provider=provider, tracing_disabled=True)
        agent = Agent(name="Gardener", model="any")
        result = await Runner.run(agent, PROMPT, run_config=config)
        assert result.final_output == "[replaced]"

    async def test_an_error_quotes_nothing_that_was_not_judged(
        self, make_guard: Callable[..., Guard]
    ) -> None:
        """Models quote what they could not read; an error in which nothing is found stands."""
        for said, kind in (("zblock", InputError), ("ferns", ModelBehaviorError)):
            error = ModelBehaviorError(f"no JSON: {said}")
            model: Any = make_guard().wrap(ScriptedModel([ModelStep(error=error)] * 2))
            with pytest.raises(kind) as caught:
                await model.get_response(**asked())
            assert "zblock" not in repr((caught.value, caught.value.__context__))
            with pytest.raises(kind):
                _ = [event async for event in model.stream_response(**asked())]


class TestGuardrails:
    """The SDK's own guardrails."""

    async def test_a_bad_output_trips(self, make_guard: Callable[..., Guard]) -> None:
        """A good one does not."""
        rail = output_guardrail(make_guard())
        fine, bad = (
            Agent(name="A", model=scripted_model([said]), output_guardrails=[rail])
            for said in (Choice(FINE), BAD)
        )
        assert (await Runner.run(fine, PROMPT, run_config=QUIET)).final_output == FINE
        with pytest.raises(OutputGuardrailTripwireTriggered) as caught:
            await Runner.run(bad, PROMPT, run_config=QUIET)
        assert caught.value.guardrail_result.output.output_info["action"] == "block"

    async def test_a_bad_input_trips_before_the_model_is_asked(
        self, make_guard: Callable[..., Guard]
    ) -> None:
        """A good one does not."""
        model = scripted_model([Choice(FINE)])
        rail = input_guardrail(make_guard(input=INPUT))
        agent = Agent(name="A", model=model, input_guardrails=[rail])
        with pytest.raises(InputGuardrailTripwireTriggered):
            await Runner.run(agent, "zblock", run_config=QUIET)
        assert model.calls == ()
        assert (await Runner.run(agent, PROMPT, run_config=QUIET)).final_output == FINE

    @pytest.mark.parametrize("query", ["ferns", "zblock", "page"])
    async def test_a_bad_call_or_result_is_rejected(
        self, query: str, make_guard: Callable[..., Guard]
    ) -> None:
        """The model reads the class's message in the result's place."""
        before, behind = tool_guardrails(make_guard(input=INPUT))
        ran: list[str] = []

        @function_tool(tool_input_guardrails=[before], tool_output_guardrails=[behind])
        def look_up(query: str) -> str:
            """Look something up."""
            ran.append(query)
            return "zblock" if query == "page" else "Found."

        model = scripted_model([call(query=query), Choice(FINE)])
        agent = Agent(name="A", model=model, tools=[look_up])
        result = await Runner.run(agent, PROMPT, run_config=QUIET)
        items: list[Any] = result.to_input_list()
        told = [each["output"] for each in items if each.get("type") == "function_call_output"]
        assert told == ["Found." if query == "ferns" else "[blocked]"]
        assert ran == ([] if query == "zblock" else [query])


class TestWrapping:
    """`guard.wrap` and the adapter itself."""

    def test_only_models_are_wrapped_and_once(self, make_guard: Callable[..., Guard]) -> None:
        """Anything else is an error that says what to do."""
        from guard.adapters.openai_agents import wrap

        guard = make_guard()
        agent: Any = Agent(name="A")
        with pytest.raises(InputError, match="wrap the model"):
            wrap(guard, agent)
        with pytest.raises(InputError, match="guarded already"):
            guard.wrap(guard.wrap(scripted_model([])))

    def test_no_other_framework_is_loaded(self) -> None:
        """Who uses one framework does not pay for another."""
        assert loaded_with("openai_agents") == "agents"

    def test_a_missing_extra_is_named(self) -> None:
        """The error holds the command that mends it."""
        said = error_without("agents", "openai_agents")
        assert "pip install 'clearance-guard[openai-agents]'" in said

    def test_the_example_runs(
        self, backend: ScriptedApp, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        """The documentation's example answers."""
        set_trace_processors([])
        backend.script(PROMPT, FINE)
        assert run_example("openai_agents_run", backend, monkeypatch, tmp_path)["answer"] == FINE
