"""LiteLLM's functions, guarded: what a refusal looks like, what stays, what streams keep."""

from __future__ import annotations

import types
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest
from pydantic import BaseModel

pytest.importorskip("litellm", reason="litellm is not installed")

import litellm
import openai

from guard.adapters.litellm import GuardedCompletions
from guard.errors import InputError
from guard.exchange import Choice
from guard.journal.store import Journal
from guard.server.scripted import Delivery, Reply
from tests.adapters.leak_lab import FINE, PROMPT, call, run_example
from tests.adapters.litellm.scripted import ASKED, SCHEMA, Subject, recorded
from tests.adapters.missing_extra import error_without, loaded_with
from tests.adapters.shared import Side

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from guard.engine import Guard
    from guard.server.scripted import ScriptedApp

BAD = Choice(f"{FINE} {FINE} {FINE} They zblock well.")


class Shape(BaseModel):
    """A document that is asked for."""

    name: str


@pytest.fixture
def ask(backend: ScriptedApp, make_guard: Callable[..., Guard]) -> Callable[..., Any]:
    """Return what asks the guarded `completion` for an answer."""

    def completion(answer: Any, guard: Guard | None = None, **options: Any) -> Any:
        subject = Subject((answer,), guard or make_guard(), backend)
        return subject.llm.completion(**subject.options(**options))

    return completion


def text(chunks: list[Any]) -> str:
    """Return the text of a stream."""
    return "".join(choice.delta.content or "" for each in chunks for choice in each.choices)


class TestRefusals:
    """What stands in the place of an answer that is withheld."""

    def test_a_blocked_answer_is_a_refusal(self, ask: Callable[..., Any]) -> None:
        """It is the class's message, says why and what it cost."""
        said = ask(BAD)
        message = said.choices[0].message
        assert (message.content, message.refusal) == ("[blocked]", "[blocked]")
        assert said.guard["action"] == "block"
        assert said.usage.completion_tokens > 0
        assert "zblock" not in repr((vars(said), said._hidden_params))

    def test_a_replaced_answer_is_an_answer(self, ask: Callable[..., Any]) -> None:
        """It is no refusal."""
        message = ask(Choice("They zreplace well.")).choices[0].message
        assert message.content == "[replaced]"
        assert not getattr(message, "refusal", None)

    def test_a_stream_says_it_behind_what_had_left(self, ask: Callable[..., Any]) -> None:
        """What was judged before stands, then the message, and the stream ends."""
        chunks = list(ask(BAD, stream=True))
        said = text(chunks)
        assert said.startswith(FINE)
        assert said.endswith("\n\n[blocked]")
        ends = [c.finish_reason for each in chunks for c in each.choices if c.finish_reason]
        assert ends == ["stop"]
        assert "zblock" not in repr([(vars(each), each._hidden_params) for each in chunks])

    def test_one_of_several_choices(self, ask: Callable[..., Any]) -> None:
        """The others are not touched."""
        said = ask(Reply((Choice(FINE), BAD)), n=2)
        assert [choice.message.content for choice in said.choices] == [FINE, "[blocked]"]

    def test_a_withheld_call_leaves_not_even_its_name(self, ask: Callable[..., Any]) -> None:
        """Nothing of it is heard, and no tool would run."""
        chunks = list(ask(call(query="zblock"), stream=True))
        assert "look_up" not in repr(chunks)

    def test_a_document_leaves_whole_or_not_at_all(self, ask: Callable[..., Any]) -> None:
        """A schema may be asked for by a class; half a document is none."""
        document = '{"name": "' + f"{FINE} {FINE} {FINE} zblock" + '"}'
        chunks = list(ask(Choice(document), stream=True, response_format=Shape))
        assert text(chunks) == "[blocked]"

    @pytest.mark.parametrize("stream", [False, True])
    def test_a_bad_prompt_reaches_no_model(
        self,
        ask: Callable[..., Any],
        backend: ScriptedApp,
        make_guard: Callable[..., Guard],
        stream: bool,  # noqa: FBT001  # a parameter
    ) -> None:
        """The answer is the class's message, and nobody was asked."""
        guard = make_guard(input={"limits": {"to_block": {"act": 0.9}}})
        given = ask(
            Choice(FINE), guard, stream=stream, messages=[{"role": "user", "content": "zblock"}]
        )
        assert "[blocked]" in repr(list(given) if stream else given)
        assert backend.requests == []

    async def test_a_bad_prompt_reaches_no_model_either_way(
        self, backend: ScriptedApp, make_guard: Callable[..., Guard]
    ) -> None:
        """Asynchronous calls are refused alike."""
        guard = make_guard(input={"limits": {"to_block": {"act": 0.9}}})
        subject = Subject((Choice(FINE),), guard, backend)
        options = subject.options(messages=[{"role": "user", "content": "zblock"}])
        given = await subject.llm.acompletion(stream=True, **options)
        assert text([chunk async for chunk in given]) == "[blocked]"
        whole = await subject.llm.acompletion(**options)
        assert whole.choices[0].message.content == "[blocked]"
        assert backend.requests == []


class TestHiddenParameters:
    """What LiteLLM keeps beside an answer, where a provider's own texts stand once more."""

    @pytest.fixture
    def ask_claude(
        self, backend: ScriptedApp, make_guard: Callable[..., Guard]
    ) -> Callable[..., Any]:
        """Return what asks a backend of Anthropic's format, of which LiteLLM keeps thoughts."""

        def completion(answer: Choice, *, guarded: bool = True) -> Any:
            subject = Subject((answer,), make_guard() if guarded else None, backend)
            more = {"model": "anthropic/m", "api_base": backend.url}
            return subject.llm.completion(**subject.options(**more))

        return completion

    def test_of_a_blocked_answer(self, ask_claude: Callable[..., Any]) -> None:
        """Nothing of it stands there; what LiteLLM says of the call does."""
        bad = Choice(FINE, reasoning="I zblock here.")
        assert "zblock" in repr(ask_claude(bad, guarded=False)._hidden_params)
        said = ask_claude(bad)
        assert said.choices[0].message.content == "[blocked]"
        assert "zblock" not in repr(said._hidden_params)
        assert said._hidden_params["litellm_call_id"]

    def test_of_a_rewritten_answer(self, ask_claude: Callable[..., Any]) -> None:
        """The provider's own words are gone, and the answer is no worse for them."""
        said = ask_claude(Choice("They zredact well.", reasoning="Shade, so ferns."))
        assert said.choices[0].message.content == "They [redacted: to redact] well."
        assert "zredact" not in repr(said._hidden_params)

    def test_of_an_answer_that_passes(self, ask_claude: Callable[..., Any]) -> None:
        """They are what they are without the guard."""
        fine = Choice(FINE, reasoning="Shade, so ferns.")
        plain, given = (ask_claude(fine, guarded=guarded) for guarded in (False, True))
        kept = [said._hidden_params["provider_specific_fields"] for said in (plain, given)]
        assert kept[0] == kept[1]
        assert "Shade, so ferns." in repr(kept)
        assert given._hidden_params.keys() == plain._hidden_params.keys()

    @pytest.mark.parametrize("stream", [False, True])
    def test_text_that_stands_nowhere_else(
        self,
        make_guard: Callable[..., Guard],
        stream: bool,  # noqa: FBT001  # a parameter
    ) -> None:
        """It is judged like any other text of the answer."""
        kind = litellm.ModelResponseStream if stream else litellm.ModelResponse
        place = "delta" if stream else "message"
        said = kind(choices=[{"index": 0, "finish_reason": "stop", place: {"content": FINE}}])
        said._hidden_params = {"model_id": "m", "grounding": [{"text": "I zblock here."}]}

        def completion(**_: Any) -> Any:
            return iter([said]) if stream else said

        owner = types.SimpleNamespace(completion=completion, acompletion=completion)
        llm: Any = GuardedCompletions(make_guard(), owner)
        given = llm.completion(model="m", messages=ASKED, stream=stream)
        listed = list(given) if stream else [given]
        shown = repr([(vars(each), each._hidden_params) for each in listed])
        assert "[blocked]" in shown
        assert "zblock" not in shown


class TestAnswers:
    """Answers that pass, as they are or in other words."""

    def test_streams_keep_their_order(self, ask: Callable[..., Any]) -> None:
        """LiteLLM sorts chunks by a time that it keeps beside them, also beside rewritten ones."""
        answer = Choice(f"{FINE} They zredact well. {FINE}")
        built = litellm.stream_chunk_builder(list(ask(answer, stream=True)))
        expected = f"{FINE} They [redacted: to redact] well. {FINE}"
        assert built.choices[0].message.content == expected

    def test_arguments_are_rewritten(self, ask: Callable[..., Any]) -> None:
        """The call stays one."""
        answer = call(query="they zredact well")
        written = '{"query": "they [redacted: to redact] well"}'
        (whole,) = ask(answer).choices[0].message.tool_calls
        built = litellm.stream_chunk_builder(list(ask(answer, stream=True)))
        assert whole.function.arguments == written
        assert built.choices[0].message.tool_calls[0].function.arguments == written

    def test_messages_may_be_objects(self, ask: Callable[..., Any]) -> None:
        """LiteLLM takes its own answers as what was said before."""
        before = ask(call(query="ferns")).choices[0].message
        result = {"role": "tool", "tool_call_id": "call_1", "content": "Ferns."}
        said = ask(Choice(FINE), messages=[*ASKED, before, result])
        assert said.choices[0].message.content

    def test_options_of_litellm_do_not_reach_the_provider(
        self, ask: Callable[..., Any], backend: ScriptedApp
    ) -> None:
        """The guard asks for quiet callbacks in LiteLLM, and for nothing elsewhere."""
        ask(Choice(FINE))
        assert b"turn_off" not in backend.requests[-1].body


class TestFailures:
    """Providers, readers and callbacks."""

    def test_an_error_says_nothing_that_was_not_judged(
        self, ask: Callable[..., Any], backend: ScriptedApp
    ) -> None:
        """LiteLLM's error of a stream that broke off holds all that had come."""
        broken = Reply((BAD,), delivery=Delivery(dies_after=len(BAD.content.split()) - 1))
        heard: list[Any] = []
        with pytest.raises(openai.APIError) as caught:
            heard.extend(iter(ask(broken, stream=True)))
        error: BaseException | None = caught.value
        while error is not None:
            assert "zblock" not in repr((error, vars(error)))
            error = error.__cause__ or error.__context__
        assert backend.requests

    async def test_an_error_quotes_nothing_that_was_not_judged(
        self,
        backend: ScriptedApp,
        make_guard: Callable[..., Guard],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        """LiteLLM's error about a document that is not as was asked holds it; others stand."""
        monkeypatch.setattr(litellm, "enable_json_schema_validation", True)
        bad = Subject((Choice('{"nom": "zblock"}'),), make_guard(), backend)
        for ask in (bad.llm.completion, bad.llm.acompletion):
            with pytest.raises(InputError, match="quotes what may not leave") as caught:
                await Side(None).settled(ask(**bad.options(response_format=SCHEMA)))
            assert caught.value.__context__ is None
        fine = Subject((Choice('{"nom": "fern"}'),), make_guard(), backend)
        with pytest.raises(litellm.exceptions.JSONSchemaValidationError, match="fern"):
            fine.llm.completion(**fine.options(response_format=SCHEMA))

    def test_a_reader_that_leaves_closes_the_row(
        self, ask: Callable[..., Any], make_guard: Callable[..., Guard], tmp_path: Path
    ) -> None:
        """The journal says what had left by then."""
        answer = Choice(f"zflag {FINE} {FINE} {FINE} {FINE} {FINE}")
        with closing(Journal(tmp_path / "journal.db")) as journal:
            chunks = ask(answer, make_guard(journal=journal), stream=True)
            while not text([next(chunks)]):
                pass
            chunks.close()
            (row,) = journal.list()
        assert not row.complete
        assert row.released < len(answer.content)

    @pytest.mark.parametrize("stream", [False, True])
    def test_callbacks_are_told_of_no_text(
        self,
        ask: Callable[..., Any],
        stream: bool,  # noqa: FBT001  # a parameter
    ) -> None:
        """They run before the guard, so that LiteLLM redacts what they are told at the end."""
        with recorded() as recorder:
            given = ask(BAD, stream=stream)
            assert not stream or list(given)
        told = [each for each in recorder.heard if each[0] == "success"]
        assert "redacted-by-litellm" in repr(told)
        assert "zblock" not in repr(told)


class TestWrapping:
    """`guard.wrap` and the adapter itself."""

    def test_only_what_completes_is_wrapped(self, make_guard: Callable[..., Guard]) -> None:
        """Another module is nothing that can be wrapped, and one without functions says so."""
        guard = make_guard()
        with pytest.raises(InputError, match="nothing that can be wrapped"):
            guard.wrap(types)
        with pytest.raises(InputError, match="wrap the module"):
            guard.wrap(litellm.exceptions)

    def test_nothing_else_is_there(self, make_guard: Callable[..., Guard]) -> None:
        """What is not guarded cannot be reached."""
        assert not hasattr(make_guard().wrap(litellm), "text_completion")

    def test_no_other_framework_is_loaded(self) -> None:
        """Who uses one framework does not pay for another."""
        assert loaded_with("litellm") == "litellm"

    def test_a_missing_extra_is_named(self) -> None:
        """The error holds the command that mends it."""
        said = error_without("litellm", "litellm")
        assert "pip install 'clearance-guard[litellm]'" in said

    def test_the_example_runs(
        self, backend: ScriptedApp, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        """The documentation's example answers."""
        backend.script(PROMPT, FINE)
        assert run_example("litellm_guardrail", backend, monkeypatch, tmp_path)["answer"] == FINE
