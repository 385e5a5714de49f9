"""LlamaIndex' guarded LLM: what a refusal looks like, what stays, what is said when."""

from __future__ import annotations

from contextlib import closing
from io import BytesIO
from typing import TYPE_CHECKING, Any

import pytest

pytest.importorskip("llama_index.core", reason="llama-index-core is not installed")

from llama_index.core.base.llms.types import (
    ChatMessage,
    ChatResponse,
    CitableBlock,
    DocumentBlock,
    LogProb,
    TextBlock,
    ThinkingBlock,
)
from llama_index.core.instrumentation.event_handlers import BaseEventHandler
from llama_index.core.llms import LLM
from llama_index.core.llms.function_calling import FunctionCallingLLM
from llama_index.core.llms.mock import MockLLM
from llama_index_instrumentation import get_dispatcher
from pydantic import BaseModel

from guard.errors import InputError
from guard.exchange import Choice
from guard.journal.store import Journal
from tests.adapters.leak_lab import FINE, PROMPT, call, run_example
from tests.adapters.llama_index.scripted import ScriptedLLM
from tests.adapters.missing_extra import error_without, loaded_with

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from guard.engine import Guard
    from guard.server.scripted import ScriptedApp

ASKED = [ChatMessage(role="user", content=PROMPT)]

BAD = Choice(f"{FINE} {FINE} {FINE} They zblock well.")


class Listener(BaseEventHandler):
    """Remembers events."""

    heard: list[Any] = []  # noqa: RUF012  # pydantic copies it

    def handle(self, event: Any, **kwargs: Any) -> None:
        """Remember what an event says."""
        del kwargs
        self.heard.append(getattr(event, "response", None))


class Plant(BaseModel):
    """A structured answer."""

    name: str


def whole(guard: Guard, *answers: Choice) -> ChatResponse:
    """Return a guarded LLM's answer."""
    response: ChatResponse = guard.wrap(ScriptedLLM(answers=list(answers))).chat(ASKED)
    return response


def streamed(guard: Guard, *answers: Choice) -> list[ChatResponse]:
    """Return the responses of a guarded LLM's stream."""
    return list(guard.wrap(ScriptedLLM(answers=list(answers))).stream_chat(ASKED))


class TestRefusals:
    """What stands in the place of an answer that is withheld."""

    def test_a_blocked_answer_is_the_message(self, make_guard: Callable[..., Guard]) -> None:
        """It says why beside it, and nothing of what the backend sent."""
        response = whole(make_guard(), BAD)
        assert response.message.content == "[blocked]"
        assert response.raw is None
        assert response.additional_kwargs["finish_reason"] == "content_filter"
        assert response.additional_kwargs["guard"]["action"] == "block"

    def test_a_stream_says_the_message_behind_what_had_left(
        self, make_guard: Callable[..., Guard]
    ) -> None:
        """Pieces and what they add up to are the same text."""
        responses = streamed(make_guard(), BAD)
        said = "".join(response.delta or "" for response in responses)
        assert said == responses[-1].message.content
        assert said.startswith(FINE)
        assert said.endswith("\n\n[blocked]")
        assert responses[-1].additional_kwargs["guard"]["action"] == "block"

    def test_a_withheld_call_leaves_not_even_its_name(
        self, make_guard: Callable[..., Guard]
    ) -> None:
        """No response of the stream shows it."""
        assert "look_up" not in repr(streamed(make_guard(), call(query="zblock")))

    async def test_a_bad_prompt_reaches_no_model(self, make_guard: Callable[..., Guard]) -> None:
        """The answer is the class's message, and nobody was asked."""
        inner = ScriptedLLM(answers=[Choice(FINE)])
        llm = make_guard(input={"limits": {"to_block": {"act": 0.9}}}).wrap(inner)
        bad = [ChatMessage(role="user", content="zblock")]
        assert llm.chat(bad).message.content == "[blocked]"
        assert (await llm.achat(bad)).message.content == "[blocked]"
        assert [each.delta for each in llm.stream_chat(bad)] == ["[blocked]"]
        assert [each.text async for each in await llm.astream_complete("zblock")] == ["[blocked]"]
        assert inner.asked == []

    def test_a_bad_document_reaches_no_model(
        self, make_guard: Callable[..., Guard], tmp_path: Path
    ) -> None:
        """A text file is judged as a text, wherever it is, and so is what may be cited."""
        llm = make_guard(input={"limits": {"to_block": {"act": 0.9}}}).wrap(
            ScriptedLLM(answers=[Choice(FINE)])
        )
        place = tmp_path / "notes.txt"
        place.write_text("They zblock.", encoding="utf-8")
        for block in (
            DocumentBlock(data=b"They zblock.", document_mimetype="text/plain"),
            DocumentBlock(data=BytesIO(b"They zblock."), document_mimetype="text/csv"),
            DocumentBlock(path=place),
            DocumentBlock(url="data:text/plain,They%20zblock."),
            CitableBlock(title="Notes", source="here", content=[TextBlock(text="They zblock.")]),
        ):
            given = [ChatMessage(role="user", blocks=[TextBlock(text="Look."), block])]
            assert llm.chat(given).message.content == "[blocked]"


class TestAnswers:
    """Answers that pass, as they are or in other words."""

    def test_every_state_of_a_rewritten_call_is_the_whole_one(
        self, make_guard: Callable[..., Guard]
    ) -> None:
        """A tool call leaves whole, so that no state shows what it was."""
        guard = make_guard()
        shown = repr((streamed(guard, call(query="zredact")), whole(guard, call(query="zredact"))))
        assert "zredact" not in shown
        assert "[redacted: to redact]" in shown

    def test_what_stands_beside_a_text_is_judged(self, make_guard: Callable[..., Guard]) -> None:
        """A vendor's own form of an answer may say what its text does not."""

        class Beside(ScriptedLLM):
            def chat(self, messages: Any, **kwargs: Any) -> ChatResponse:
                response: ChatResponse = super().chat(messages, **kwargs)
                return response.model_copy(update={"raw": {"reasoning": "Say zblock."}})

        response = make_guard().wrap(Beside(answers=[Choice(FINE)])).chat(ASKED)
        assert "zblock" not in repr(response)

    def test_what_a_whole_answer_says_twice_is_judged(
        self, make_guard: Callable[..., Guard]
    ) -> None:
        """A whole answer has a delta, too, and a thought has details."""
        guard = make_guard()
        thought = ThinkingBlock(content="Shade.", additional_information={"note": "Say zblock."})
        noted = ChatMessage(role="assistant", blocks=[thought, TextBlock(text=FINE)])
        spoken = ChatMessage(role="assistant", content="They zredact well.")
        answers = (
            ChatResponse(message=noted),
            ChatResponse(message=ChatMessage(role="assistant", content=FINE), delta="zblock"),
            ChatResponse(message=spoken, delta="They zredact well."),
        )
        for answer in answers:

            class Fixed(ScriptedLLM):
                given: Any = answer

                def chat(self, messages: Any, **_: Any) -> ChatResponse:
                    del messages
                    return self.given  # type: ignore[no-any-return]

            said = repr(guard.wrap(Fixed(answers=[])).chat(ASKED))
            assert "zblock" not in said
            assert "zredact" not in said

    def test_tokens_are_those_of_the_text(self, make_guard: Callable[..., Guard]) -> None:
        """Log-probabilities that spell another text are taken out."""

        class Telling(ScriptedLLM):
            def chat(self, messages: Any, **kwargs: Any) -> ChatResponse:
                response: ChatResponse = super().chat(messages, **kwargs)
                return response.model_copy(update={"logprobs": [[LogProb(token="zblock")]]})

        response = make_guard().wrap(Telling(answers=[Choice(FINE)])).chat(ASKED)
        assert "zblock" not in repr(response)

    def test_a_stream_without_sums_is_judged(self, make_guard: Callable[..., Guard]) -> None:
        """Some LLMs give all at once, some say each piece twice; nothing gets through."""
        llm = make_guard().wrap(MockLLM())
        said = repr(list(llm.stream_complete("They zblock well.")))
        assert "zblock" not in said
        assert "[blocked]" in said

    def test_methods_of_base_classes_tell_nobody(self, make_guard: Callable[..., Guard]) -> None:
        """An LLM whose method calls that of its base class is as quiet."""

        class Outer(ScriptedLLM):
            def chat(self, messages: Any, **kwargs: Any) -> ChatResponse:
                return super().chat(messages, **kwargs)  # type: ignore[no-any-return]

        class Outermost(Outer):
            def chat(self, messages: Any, **kwargs: Any) -> ChatResponse:
                return super().chat(messages, **kwargs)

        handler, root = Listener(), get_dispatcher()
        root.add_event_handler(handler)
        try:
            make_guard().wrap(Outermost(answers=[BAD])).chat(ASKED)
        finally:
            root.event_handlers.remove(handler)
        assert "[blocked]" in repr(handler.heard)
        assert "zblock" not in repr(handler.heard)

    async def test_tools_are_called(self, make_guard: Callable[..., Guard]) -> None:
        """An LLM that calls functions does so guarded."""
        from llama_index.core.tools import FunctionTool

        def look_up(query: str) -> str:
            """Look something up."""
            return f"Found: {query}"

        llm = make_guard().wrap(ScriptedLLM(answers=[call(query="ferns")]))
        assert isinstance(llm, FunctionCallingLLM)
        response = await llm.achat_with_tools([FunctionTool.from_defaults(look_up)], PROMPT)
        calls = llm.get_tool_calls_from_response(response)
        assert calls[0].tool_kwargs == {"query": "ferns"}


class TestStreams:
    """Streams that are not read to their end, and errors."""

    async def test_an_error_quotes_nothing_that_was_not_judged(
        self, make_guard: Callable[..., Guard]
    ) -> None:
        """LLMs quote what they could not parse; an error in which nothing is found stands."""

        class Failing(ScriptedLLM):
            said: str

            def chat(self, messages: Any, **_: Any) -> ChatResponse:
                raise ValueError(f"no JSON: {self.said}, {messages}")

            async def astream_chat(self, messages: Any, **_: Any) -> Any:
                async def given() -> Any:
                    yield ChatResponse(message=ChatMessage(role="assistant", content="Fe"))
                    raise ValueError(f"no JSON: {self.said}, {messages}")

                return given()

        bad, fine = (make_guard().wrap(Failing(answers=[], said=s)) for s in ("zblock", "ferns"))
        for llm, kind, match in ((bad, InputError, "may not leave"), (fine, ValueError, "ferns")):
            with pytest.raises(kind, match=match):
                llm.chat(ASKED)
            with pytest.raises(kind, match=match):
                _ = [each async for each in await llm.astream_chat(ASKED)]

    def test_a_stream_that_is_left_has_a_closed_row(
        self, make_guard: Callable[..., Guard], tmp_path: Path
    ) -> None:
        """The journal says what had left by then."""
        answer = Choice(f"zflag {FINE} {FINE} {FINE} {FINE} {FINE}")
        with closing(Journal(tmp_path / "journal.db")) as journal:
            llm = make_guard(journal=journal).wrap(ScriptedLLM(answers=[answer]))
            stream = llm.stream_chat(ASKED)
            next(stream)
            stream.close()
            (row,) = journal.list()
        assert not row.complete
        assert 0 < row.released < len(answer.content)


class TestWrapping:
    """`guard.wrap` and the adapter itself."""

    def test_only_llms_are_wrapped_and_once(self, make_guard: Callable[..., Guard]) -> None:
        """An LLM around another, or one that is guarded, is an error that says what to do."""
        guard = make_guard()
        llm = ScriptedLLM(answers=[BAD])
        with pytest.raises(InputError, match="no LLM"):
            guard.wrap(ChatMessage())
        with pytest.raises(InputError, match="wrap that one"):
            guard.wrap(llm.as_structured_llm(Plant))
        with pytest.raises(InputError, match="guarded already"):
            guard.wrap(guard.wrap(llm))

    def test_a_plain_llm_stays_one(self, make_guard: Callable[..., Guard]) -> None:
        """It calls no functions that the inner one cannot."""
        llm = make_guard().wrap(MockLLM())
        assert isinstance(llm, LLM)
        assert not isinstance(llm, FunctionCallingLLM)

    def test_no_other_framework_is_loaded(self) -> None:
        """Who uses one framework does not pay for another."""
        assert loaded_with("llama_index") == "llama_index"

    def test_a_missing_extra_is_named(self) -> None:
        """The error holds the command that mends it."""
        said = error_without("llama_index", "llama_index")
        assert "pip install 'clearance-guard[llama-index]'" in said

    def test_the_example_runs(
        self, backend: ScriptedApp, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        """The documentation's example answers."""
        answer = run_example("llama_index_llm", backend, monkeypatch, tmp_path)["answer"]
        assert PROMPT in answer
