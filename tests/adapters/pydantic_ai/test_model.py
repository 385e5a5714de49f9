"""pydantic-ai's guarded model: what a refusal looks like, what stays, what is said when."""

from __future__ import annotations

from contextlib import closing
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

pytest.importorskip("pydantic_ai", reason="pydantic-ai is not installed")

from pydantic_ai import Agent
from pydantic_ai.capabilities import RaiseContentFilterError
from pydantic_ai.direct import model_request, model_request_stream
from pydantic_ai.exceptions import ContentFilterError, UnexpectedModelBehavior
from pydantic_ai.messages import (
    BinaryContent,
    DocumentUrl,
    ModelRequest,
    ModelResponse,
    TextPart,
    ThinkingPart,
    ToolCallPart,
    ToolReturnPart,
    UserPromptPart,
)
from pydantic_ai.models.function import FunctionModel

from guard.errors import InputError
from guard.exchange import Choice
from guard.journal.store import Journal
from tests.adapters.leak_lab import FINE, PROMPT, call, run_example
from tests.adapters.missing_extra import error_without, loaded_with
from tests.adapters.pydantic_ai.scripted import scripted_model

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from guard.engine import Guard
    from guard.server.scripted import ScriptedApp

ASKED: list[Any] = [ModelRequest.user_text_prompt(PROMPT)]

BAD = Choice(f"{FINE} {FINE} They zblock well.")

INPUT = {"limits": {"to_block": {"act": 0.9}}}


async def whole(guard: Guard, *answers: Choice) -> ModelResponse:
    """Return a guarded model's answer."""
    return await model_request(guard.wrap(scripted_model(answers)), ASKED)


async def streamed(guard: Guard, *answers: Choice) -> tuple[list[Any], ModelResponse]:
    """Return the events of a guarded model's stream, and its response."""
    async with model_request_stream(guard.wrap(scripted_model(answers)), ASKED) as stream:
        return [event async for event in stream], stream.get()


class TestRefusals:
    """What stands in the place of an answer that is withheld."""

    async def test_a_blocked_answer_is_filtered_content(
        self, make_guard: Callable[..., Guard]
    ) -> None:
        """It is the class's message, ends as the framework says, and says why."""
        response = await whole(make_guard(), BAD)
        assert response.text == "[blocked]"
        assert response.finish_reason == "content_filter"
        assert response.provider_details == {"refusal": "[blocked]"}
        assert response.metadata is not None
        assert response.metadata["guard"]["action"] == "block"

    async def test_a_replaced_answer_is_an_answer(self, make_guard: Callable[..., Guard]) -> None:
        """It is no refusal."""
        response = await whole(make_guard(), Choice("They zreplace well."))
        assert (response.text, response.finish_reason) == ("[replaced]", "stop")

    async def test_a_stream_says_the_message_behind_what_had_left(
        self, make_guard: Callable[..., Guard]
    ) -> None:
        """What was judged before stands, and the message is in the same text."""
        events, response = await streamed(make_guard(), Choice(f"{FINE} {FINE} {FINE} zblock"))
        assert "zblock" not in repr(events)
        assert (response.text or "").startswith(FINE)
        assert (response.text or "").endswith("\n\n[blocked]")
        assert len(response.parts) == 1
        assert response.finish_reason == "content_filter"

    async def test_the_frameworks_own_check_raises(self, make_guard: Callable[..., Guard]) -> None:
        """`RaiseContentFilterError` takes a blocked answer for a filtered one."""
        agent = Agent(
            make_guard().wrap(scripted_model([BAD])), capabilities=[RaiseContentFilterError()]
        )
        with pytest.raises(ContentFilterError, match=r"\[blocked\]"):
            await agent.run(PROMPT)

    async def test_a_withheld_call_runs_no_tool(self, make_guard: Callable[..., Guard]) -> None:
        """A call that is blocked leaves not even its name in a stream."""
        events, response = await streamed(make_guard(), call(query="zblock"))
        assert "look_up" not in repr(events)
        assert not response.tool_calls
        assert response.finish_reason == "content_filter"

    async def test_a_bad_prompt_reaches_no_model(self, make_guard: Callable[..., Guard]) -> None:
        """The answer is the class's message, whole and streamed, and nobody was asked."""
        asked: list[Any] = []

        def answer(messages: Any, _info: Any) -> ModelResponse:
            asked.append(messages)
            return ModelResponse(parts=[TextPart(FINE)])

        model = make_guard(input=INPUT).wrap(FunctionModel(answer))
        bad = [ModelRequest.user_text_prompt("Say zblock.")]
        response = await model_request(model, bad)
        async with model_request_stream(model, bad) as stream:
            events = [event async for event in stream]
        assert asked == []
        assert response.text == "[blocked]"
        assert "[blocked]" in repr(events)

    @pytest.mark.parametrize(
        "part",
        [
            UserPromptPart(["Look.", BinaryContent(b"They zblock.", media_type="text/csv")]),
            UserPromptPart([DocumentUrl("data:text/plain,They%20zblock.")]),
            ToolReturnPart(
                "look_up", ["Look.", BinaryContent(b"They zblock.", media_type="text/plain")]
            ),
        ],
    )
    async def test_a_bad_document_reaches_no_model(
        self, make_guard: Callable[..., Guard], part: Any
    ) -> None:
        """A text file is judged as a text, from a user and from a tool."""
        model = make_guard(input=INPUT).wrap(scripted_model([Choice(FINE)]))
        response = await model_request(model, [ModelRequest(parts=[part])])
        assert response.text == "[blocked]"


class TestAnswers:
    """Answers that pass, as they are or in other words."""

    async def test_an_untouched_answer_is_the_very_object(
        self, make_guard: Callable[..., Guard]
    ) -> None:
        """Nothing is copied where nothing is done."""
        given = ModelResponse(parts=[TextPart(FINE)])
        model = make_guard().wrap(FunctionModel(lambda *_: given))
        response = await model.request(ASKED, None, _parameters())
        assert response is given

    async def test_arguments_given_as_an_object_are_rewritten_in_it(
        self, make_guard: Callable[..., Guard]
    ) -> None:
        """They stay an object."""
        response = await whole(make_guard(), call(query="they zredact well"))
        assert response.tool_calls[0].args == {"query": "they [redacted: to redact] well"}

    async def test_rewritten_thoughts_lose_their_signature(
        self, make_guard: Callable[..., Guard]
    ) -> None:
        """A provider would refuse a signature under another text; an untouched one stays."""
        guard = make_guard()
        bad, fine = Choice("Ferns.", reasoning="zredact"), Choice("Ferns.", reasoning="Shade.")
        for answer, signature in ((bad, None), (fine, "signed")):
            for response in (await whole(guard, answer), (await streamed(guard, answer))[1]):
                thought = response.parts[0]
                assert isinstance(thought, ThinkingPart)
                assert thought.signature == signature

    async def test_what_stands_beside_the_parts_is_judged(
        self, make_guard: Callable[..., Guard]
    ) -> None:
        """A provider's details are read by somebody, too."""
        given = ModelResponse(parts=[TextPart(FINE)], provider_details={"note": "Say zblock."})
        response = await model_request(make_guard().wrap(FunctionModel(lambda *_: given)), ASKED)
        assert response.text == "[blocked]"
        assert "zblock" not in repr(response)

    async def test_tokens_are_those_of_the_text(self, make_guard: Callable[..., Guard]) -> None:
        """Log-probabilities that spell another text are taken out."""
        tokens = [{"token": "zblock", "logprob": -0.1, "top_logprobs": []}]
        given = ModelResponse(parts=[TextPart(FINE)], provider_details={"logprobs": tokens})
        model = make_guard().wrap(FunctionModel(lambda *_: given))
        assert "zblock" not in repr(await model_request(model, ASKED))
        assert given.provider_details == {"logprobs": tokens}

    async def test_parts_come_in_order_with_typed_calls(
        self, make_guard: Callable[..., Guard]
    ) -> None:
        """A stream's response has the parts that the plain one's has."""
        answer = replace(call(query="ferns"), reasoning="Shade.")
        _, response = await streamed(make_guard(), answer)
        kinds = [type(part) for part in response.parts]
        assert kinds == [ThinkingPart, TextPart, ToolCallPart]


class TestStreams:
    """Streams that are not read as they were meant to."""

    async def test_a_stream_shows_nothing_beside_its_events(
        self, make_guard: Callable[..., Guard]
    ) -> None:
        """The object does not print what it holds back."""
        model = make_guard().wrap(scripted_model([BAD]))
        async with model_request_stream(model, ASKED) as stream:
            async for _ in stream:
                assert "zblock" not in repr(stream)
                assert "zblock" not in repr(stream.get())

    async def test_an_error_quotes_nothing_that_was_not_judged(
        self, make_guard: Callable[..., Guard]
    ) -> None:
        """Models quote what they could not read; an error in which nothing is found stands."""

        def model(said: str) -> Any:
            error = UnexpectedModelBehavior("Invalid response", body=said)

            def whole(*_: Any) -> ModelResponse:
                raise error

            async def stream(*_: Any) -> Any:
                yield "Fe"
                raise error

            return make_guard().wrap(FunctionModel(whole, stream_function=stream))

        for said, kind in (("zblock", InputError), ("ferns", UnexpectedModelBehavior)):
            with pytest.raises(kind) as caught:
                await model_request(model(said), ASKED)
            assert "zblock" not in repr(vars(caught.value))
            async with model_request_stream(model(said), ASKED) as stream:
                with pytest.raises(kind):
                    _ = [event async for event in stream]

    async def test_a_stream_that_is_left_has_a_closed_row(
        self, make_guard: Callable[..., Guard], tmp_path: Path
    ) -> None:
        """The journal says what had left by then."""
        with closing(Journal(tmp_path / "journal.db")) as journal:
            guard = make_guard(journal=journal)
            answer = Choice(f"zflag {FINE} {FINE} {FINE} {FINE} {FINE}")
            async with model_request_stream(guard.wrap(scripted_model([answer])), ASKED) as stream:
                async for event in stream:
                    if "zflag" in repr(event):
                        break
            (row,) = journal.list()
        assert not row.complete
        assert 0 < row.released < len(answer.content)


class TestWrapping:
    """`guard.wrap` and the adapter itself."""

    def test_only_models_are_wrapped_and_once(self, make_guard: Callable[..., Guard]) -> None:
        """An agent, or a model that is guarded, is an error that says what to do."""
        guard = make_guard()
        model = scripted_model([BAD])
        with pytest.raises(InputError, match="wrap the model"):
            guard.wrap(Agent(model))
        with pytest.raises(InputError, match="guarded already"):
            guard.wrap(guard.wrap(model))

    def test_no_other_framework_is_loaded(self) -> None:
        """Who uses one framework does not pay for another."""
        assert loaded_with("pydantic_ai") == "pydantic_ai"

    def test_a_missing_extra_is_named(self) -> None:
        """The error holds the command that mends it."""
        said = error_without("pydantic_ai", "pydantic_ai")
        assert "pip install 'clearance-guard[pydantic-ai]'" in said

    def test_the_example_runs(
        self, backend: ScriptedApp, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        """The documentation's example answers."""
        backend.script(PROMPT, FINE)
        assert run_example("pydantic_ai_agent", backend, monkeypatch, tmp_path)["answer"] == FINE


def _parameters() -> Any:
    from pydantic_ai.models import ModelRequestParameters

    return ModelRequestParameters()
