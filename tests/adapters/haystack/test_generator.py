"""Haystack's guarded generator: what a refusal looks like, what stays, what is said when."""

from __future__ import annotations

import base64
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest

pytest.importorskip("haystack", reason="haystack-ai is not installed")

from haystack import Pipeline, component
from haystack.components.agents import Agent
from haystack.components.generators.chat import FallbackChatGenerator, MockChatGenerator
from haystack.core.errors import SerializationError
from haystack.dataclasses import (
    ChatMessage,
    FileContent,
    StreamingChunk,
    TextContent,
    ToolCall,
)

from guard.errors import InputError
from guard.exchange import Choice
from guard.journal.store import Journal
from tests.adapters.haystack.scripted import ScriptedGenerator
from tests.adapters.leak_lab import FINE, PROMPT, call, run_example
from tests.adapters.missing_extra import error_without, loaded_with

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from guard.engine import Guard
    from guard.server.scripted import ScriptedApp

ASKED = [ChatMessage.from_user(PROMPT)]

BAD = Choice(f"{FINE} {FINE} {FINE} They zblock well.")


@component
class Giving:
    """A generator without `run_async` that gives what a function gives, called with a callback."""

    def __init__(self, give: Callable[[Any], dict[str, Any]]) -> None:
        """Give nothing yet."""
        self._give = give

    @component.output_types(replies=list[ChatMessage], notes=list[str])
    def run(
        self,
        messages: list[ChatMessage],  # noqa: ARG002  # as generators are
        streaming_callback: Any = None,
        generation_kwargs: Any = None,  # noqa: ARG002
        tools: Any = None,  # noqa: ARG002
    ) -> dict[str, Any]:
        """Give it."""
        return self._give(streaming_callback)


def whole(guard: Guard, *answers: Choice) -> ChatMessage:
    """Return a guarded generator's reply."""
    said: ChatMessage = guard.wrap(ScriptedGenerator(answers)).run(ASKED)["replies"][0]
    return said


def streamed(guard: Guard, *answers: Choice) -> tuple[list[Any], ChatMessage]:
    """Return what a callback hears, and the reply."""
    heard: list[Any] = []
    generator = guard.wrap(ScriptedGenerator(answers))
    said = generator.run(ASKED, streaming_callback=heard.append)
    return heard, said["replies"][0]


class TestRefusals:
    """What stands in the place of an answer that is withheld."""

    def test_a_blocked_answer_is_filtered_content(self, make_guard: Callable[..., Guard]) -> None:
        """It is the class's message, ends as the framework says, says why and what it cost."""
        said = whole(make_guard(), BAD)
        assert said.text == "[blocked]"
        assert said.meta["finish_reason"] == "content_filter"
        assert said.meta["usage"] == {"completion_tokens": 7}
        assert said.meta["guard"]["action"] == "block"

    def test_a_replaced_answer_is_an_answer(self, make_guard: Callable[..., Guard]) -> None:
        """It is no refusal."""
        said = whole(make_guard(), Choice("They zreplace well."))
        assert (said.text, said.meta["finish_reason"]) == ("[replaced]", "stop")

    def test_a_stream_and_its_reply_say_the_same(self, make_guard: Callable[..., Guard]) -> None:
        """What was judged before stands, then the message, and the chunks end."""
        heard, said = streamed(make_guard(), BAD)
        assert "".join(chunk.content for chunk in heard) == said.text
        assert (said.text or "").startswith(FINE)
        assert (said.text or "").endswith("\n\n[blocked]")
        assert [c.finish_reason for c in heard if c.finish_reason] == ["content_filter"]
        assert heard[-1].meta["usage"] == {"completion_tokens": 7}
        assert said.meta["guard"]["action"] == "block"

    def test_a_withheld_call_leaves_not_even_its_name(
        self, make_guard: Callable[..., Guard]
    ) -> None:
        """Nothing of it is heard, and no tool would run."""
        heard, said = streamed(make_guard(), call(query="zblock"))
        assert "look_up" not in repr(heard)
        assert not said.tool_calls

    async def test_a_bad_prompt_reaches_no_model(self, make_guard: Callable[..., Guard]) -> None:
        """The answer is the class's message, and nobody was asked."""
        inner = ScriptedGenerator([Choice(FINE)])
        generator = make_guard(input={"limits": {"to_block": {"act": 0.9}}}).wrap(inner)
        for given in (generator.run("zblock"), await generator.run_async("zblock")):
            assert given["replies"][0].text == "[blocked]"
        assert inner.asked == []

    def test_a_bad_document_reaches_no_model(self, make_guard: Callable[..., Guard]) -> None:
        """A text file is judged as a text, from a user and from a tool."""
        limits = {"limits": {"to_block": {"act": 0.9}}}
        generator = make_guard(input=limits).wrap(ScriptedGenerator([Choice(FINE)]))
        data = base64.b64encode(b"They zblock.").decode()
        file = FileContent(data, mime_type="text/csv")
        origin = ToolCall("look_up", {}, id="1")
        for message in (
            ChatMessage.from_user(content_parts=["Look.", file]),
            ChatMessage.from_tool([TextContent("Look."), file], origin),
        ):
            assert generator.run([message])["replies"][0].text == "[blocked]"


class TestAnswers:
    """Answers that pass, as they are or in other words."""

    def test_an_untouched_reply_is_the_very_object(self, make_guard: Callable[..., Guard]) -> None:
        """Nothing is copied where nothing is done."""
        inner = ScriptedGenerator([Choice(FINE)])
        said = make_guard().wrap(inner).run(ASKED)["replies"]
        assert said[0] is inner.given[0]

    def test_arguments_are_rewritten_in_chunks_and_reply(
        self, make_guard: Callable[..., Guard]
    ) -> None:
        """The call stays one, with the same words in both."""
        heard, said = streamed(make_guard(), call(query="they zredact well"))
        written = "".join(
            delta.arguments or "" for chunk in heard for delta in chunk.tool_calls or ()
        )
        assert said.tool_calls[0].arguments == {"query": "they [redacted: to redact] well"}
        assert written == '{"query": "they [redacted: to redact] well"}'

    def test_rewritten_thoughts_lose_their_signature(
        self, make_guard: Callable[..., Guard]
    ) -> None:
        """A provider would refuse a signature under another text."""
        answer = Choice("Ferns.", reasoning="zredact")
        heard, said = streamed(make_guard(), answer)
        for shown in (heard, said, whole(make_guard(), answer)):
            assert "[redacted: to redact]" in repr(shown)
        assert whole(make_guard(), answer).reasoning.extra == {}  # type: ignore[union-attr]

    def test_what_a_reply_alone_says_is_judged(self, make_guard: Callable[..., Guard]) -> None:
        """Reasoning that no chunk brought is judged with the reply."""
        message = ChatMessage.from_assistant(FINE, reasoning="I zblock here.")
        heard: list[Any] = []
        generator = make_guard().wrap(MockChatGenerator(message))
        said = generator.run(ASKED, streaming_callback=heard.append)["replies"][0]
        assert "zblock" not in repr((heard, said))
        assert (said.text or "").endswith("[blocked]")

    def test_what_stands_beside_a_reply_is_judged(self, make_guard: Callable[..., Guard]) -> None:
        """Metadata are read by somebody, too; tokens are those of the text."""
        guard = make_guard()
        for beside in ({"note": "Say zblock."}, {"logprobs": {"content": [{"token": "zblock"}]}}):
            message = ChatMessage.from_assistant(FINE, meta=beside)
            said = guard.wrap(MockChatGenerator(message)).run(ASKED)["replies"][0]
            assert "zblock" not in repr(said)

    def test_the_name_of_a_reply_is_judged(self, make_guard: Callable[..., Guard]) -> None:
        """Who is said to speak is a text like any other, whole and behind a stream."""
        for name, kept in (("Say zblock.", None), ("gardener", "gardener")):
            generator = make_guard().wrap(
                MockChatGenerator(ChatMessage.from_assistant(FINE, name=name))
            )
            for callback in (None, lambda _: None):
                said = generator.run(ASKED, streaming_callback=callback)["replies"][0]
                assert said.name == kept
                assert "zblock" not in repr(said)

    def test_tokens_that_spell_the_text_stay(self, make_guard: Callable[..., Guard]) -> None:
        """They say nothing that was not judged."""
        tokens = [{"token": piece, "logprob": -0.5} for piece in ("Ferns", " grow.")]
        meta = {"logprobs": {"content": tokens}}
        message = ChatMessage.from_assistant("Ferns grow.", meta=meta)
        said = make_guard().wrap(MockChatGenerator(message)).run(ASKED)["replies"][0]
        assert said.meta["logprobs"] == {"content": tokens}

    def test_what_stands_beside_replies_is_judged(self, make_guard: Callable[..., Guard]) -> None:
        """A generator may give more than replies; it leaves only with all of them."""

        def giving(note: str) -> Giving:
            return Giving(
                lambda heard: (
                    ScriptedGenerator([Choice(FINE)]).run(ASKED, heard) | {"notes": [note]}
                )
            )

        for note, kept in (("Say zblock.", None), ("Shade.", ["Shade."])):
            for callback in (None, lambda _: None):
                given = make_guard().wrap(giving(note)).run(ASKED, callback)
                assert given.get("notes") == kept
                assert "zblock" not in repr(given)

    @pytest.mark.parametrize("said", ["zblock", "ferns"])
    def test_an_error_quotes_nothing_that_was_not_judged(
        self, make_guard: Callable[..., Guard], said: str
    ) -> None:
        """Generators quote what they could not read; one in which nothing is found stands."""

        def fail(_: Any) -> Any:
            raise ValueError(f"no JSON: {said}")

        for callback in (None, lambda _: None):
            with pytest.raises(InputError if said == "zblock" else ValueError) as caught:
                make_guard().wrap(Giving(fail)).run(ASKED, callback)
            assert "zblock" not in repr((caught.value, caught.value.__context__))


class TestCallbacks:
    """Who is told of chunks."""

    def test_a_reply_of_another_attempt_is_that_reply(
        self, make_guard: Callable[..., Guard]
    ) -> None:
        """What a generator had said before it failed is heard, but no part of the reply."""

        def die(tell: Any) -> Any:
            tell(StreamingChunk("Ferns gr"))
            raise ConnectionError("broken off")

        inner = FallbackChatGenerator([Giving(die), ScriptedGenerator([Choice(FINE)])])
        heard: list[str] = []
        generator: Any = make_guard().wrap(inner)
        given = generator.run(ASKED, lambda chunk: heard.append(chunk.content))
        assert "".join(heard) == f"Ferns gr{FINE}"
        assert given["replies"][0].text == FINE

    async def test_a_coroutine_hears_of_a_generator_that_has_none(
        self, make_guard: Callable[..., Guard]
    ) -> None:
        """It is told in the loop that it belongs to; where there is none it is refused."""
        heard: list[str] = []

        async def hear(chunk: StreamingChunk) -> None:
            heard.append(chunk.content)

        inner = Giving(lambda heard: ScriptedGenerator([Choice(FINE)]).run(ASKED, heard))
        generator: Any = make_guard().wrap(inner)
        given = await generator.run_async(ASKED, hear)
        assert "".join(heard) == given["replies"][0].text == FINE
        with pytest.raises(InputError, match="use `run_async`"):
            generator.run(ASKED, hear)

    def test_callbacks_of_generators_inside_hear_what_may_leave(
        self, make_guard: Callable[..., Guard]
    ) -> None:
        """A fallback's own generator has a callback, too."""
        heard: list[Any] = []
        inner = FallbackChatGenerator([ScriptedGenerator([BAD], heard.append)])
        make_guard().wrap(inner).run(ASKED)
        assert heard
        assert "zblock" not in repr(heard)

    def test_a_reader_that_fails_closes_the_row(
        self, make_guard: Callable[..., Guard], tmp_path: Path
    ) -> None:
        """The journal says what had left by then, and the error is the reader's."""

        def hear(_: Any) -> None:
            raise ValueError("gone")

        answer = Choice(f"zflag {FINE} {FINE} {FINE} {FINE} {FINE}")
        with closing(Journal(tmp_path / "journal.db")) as journal:
            generator = make_guard(journal=journal).wrap(ScriptedGenerator([answer]))
            with pytest.raises(ValueError, match="gone"):
                generator.run(ASKED, streaming_callback=hear)
            (row,) = journal.list()
        assert not row.complete
        assert row.released < len(answer.content)


class TestWrapping:
    """`guard.wrap` and the adapter itself."""

    def test_only_generators_are_wrapped_and_once(self, make_guard: Callable[..., Guard]) -> None:
        """An agent, or a generator that is guarded, is an error that says what to do."""
        guard = make_guard()
        generator = ScriptedGenerator([BAD])
        with pytest.raises(InputError, match="wrap the generator"):
            guard.wrap(Agent(chat_generator=generator))
        with pytest.raises(InputError, match="guarded already"):
            guard.wrap(guard.wrap(generator))

    def test_a_pipeline_with_it_is_not_serialised(self, make_guard: Callable[..., Guard]) -> None:
        """A guard is no data, and the error says what to do."""
        pipeline = Pipeline()
        pipeline.add_component("llm", make_guard().wrap(ScriptedGenerator([BAD])))
        with pytest.raises(SerializationError, match="with the generator itself"):
            pipeline.dumps()

    def test_no_other_framework_is_loaded(self) -> None:
        """Who uses one framework does not pay for another."""
        assert loaded_with("haystack") == "haystack"

    def test_a_missing_extra_is_named(self) -> None:
        """The error holds the command that mends it."""
        said = error_without("haystack", "haystack")
        assert "pip install 'clearance-guard[haystack]'" in said

    def test_the_example_runs(
        self, backend: ScriptedApp, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        """The documentation's example answers."""
        backend.script(PROMPT, FINE)
        assert run_example("haystack_generator", backend, monkeypatch, tmp_path)["answer"] == FINE
