"""The guarded chat model: what leaves, in which shape, and what else still works."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

import pytest

pytest.importorskip("langchain", reason="langchain is not installed")
pytest.importorskip("langchain_openai", reason="langchain-openai is not installed")

from langchain_core.caches import InMemoryCache
from langchain_core.language_models import BaseChatModel, GenericFakeChatModel
from langchain_core.messages import AIMessage, AIMessageChunk, HumanMessage, SystemMessage
from langchain_core.messages.content import KNOWN_BLOCK_TYPES
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.rate_limiters import BaseRateLimiter
from langchain_core.runnables import RunnableLambda
from pydantic import BaseModel

from guard.adapters.langchain import GuardedChatModel
from guard.channel_run import ChannelRun
from guard.errors import InputError
from guard.exchange import Choice, ToolCall
from guard.journal.store import Journal
from guard.server.scripted import Delivery, Reply
from guard.wire.ledger import Ledger
from tests.adapters.langchain.subjects import PROMPT, BlockModel, Ear, Recorder, look_up

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from guard.engine import Guard
    from guard.server.scripted import ScriptedApp
    from guard.wire.ledger import Piece

FINE = "Ferns grow in the shade. Water them in the morning, and they will thank you for it."
LONG = f"{FINE} " * 6


class Plant(BaseModel):
    """A plant."""

    name: str
    months: int


class Counter(BaseRateLimiter):
    """Lets everything pass and counts it."""

    def __init__(self) -> None:
        """Count nothing yet."""
        self.count = 0

    def acquire(self, *, blocking: bool = True) -> bool:
        """Count."""
        del blocking
        self.count += 1
        return True

    async def aacquire(self, *, blocking: bool = True) -> bool:
        """Count."""
        return self.acquire(blocking=blocking)


def summed(chunks: Iterable[Any]) -> Any:
    """Return the message that chunks add up to."""
    first, *others = chunks
    for chunk in others:
        first = first + chunk
    return first


def is_refusal(message: Any) -> bool:
    """Return whether a message says that it is a refusal, in all forms that the version knows."""
    refusals = [block.get("refusal") for block in message.content_blocks]
    known = "refusal" not in KNOWN_BLOCK_TYPES or "[blocked]" in refusals
    return known and message.additional_kwargs["refusal"] == "[blocked]"


async def answer(model: Any, how: str, asked: Any = PROMPT) -> Any:
    """Ask in one of the four ways; return the whole message."""
    if how == "invoke":
        return model.invoke(asked)
    if how == "ainvoke":
        return await model.ainvoke(asked)
    if how == "stream":
        return summed(model.stream(asked))
    return summed([chunk async for chunk in model.astream(asked)])


how = pytest.mark.parametrize("how", ["invoke", "ainvoke", "stream", "astream"])


class TestWhatLeaves:
    """What of an answer is delivered."""

    @how
    async def test_a_blocked_answer_is_a_refusal(
        self, how: str, guard: Guard, backend: ScriptedApp, new_chat: Callable[..., Any]
    ) -> None:
        """The class's message is the content and the refusal; the metadata say why."""
        backend.script(PROMPT, "They zblock.")
        message = await answer(guard.wrap(new_chat()), how)
        assert message.content == "[blocked]"
        assert is_refusal(message)
        assert message.response_metadata["guard"]["action"] == "block"
        assert message.response_metadata["guard"]["reasons"]
        assert message.response_metadata["finish_reason"] == "stop"

    @how
    async def test_a_replaced_answer_is_no_refusal(
        self, how: str, guard: Guard, backend: ScriptedApp, new_chat: Callable[..., Any]
    ) -> None:
        """The class's message is an answer like any other."""
        backend.script(PROMPT, "They zreplace.")
        message = await answer(guard.wrap(new_chat()), how)
        assert message.content == "[replaced]"
        assert [block["type"] for block in message.content_blocks] == ["text"]

    @how
    async def test_a_withheld_call_leaves_nothing(
        self, how: str, guard: Guard, backend: ScriptedApp, new_chat: Callable[..., Any]
    ) -> None:
        """With one call that is blocked, none leaves, and the end is no call for tools."""
        fine, bad = (
            ToolCall("look_up", '{"query": "fern"}'),
            ToolCall("look_up", '{"query": "zblock"}'),
        )
        backend.script(PROMPT, Choice("One moment.", tool_calls=(fine, bad)))
        message = await answer(guard.wrap(new_chat()).bind_tools([look_up]), how)
        assert message.tool_calls == message.invalid_tool_calls == []
        assert message.text.endswith("[blocked]")
        assert message.response_metadata["finish_reason"] == "stop"
        assert not getattr(message, "tool_call_chunks", ())

    @how
    async def test_a_call_that_is_no_json_is_judged(
        self, how: str, guard: Guard, backend: ScriptedApp, new_chat: Callable[..., Any]
    ) -> None:
        """Arguments that cannot be read are text like any other, and so is what is said of them."""
        backend.script(PROMPT, Choice(tool_calls=(ToolCall("look_up", "{query: zredact}"),)))
        message = await answer(guard.wrap(new_chat()).bind_tools([look_up]), how)
        assert "zredact" not in repr(message)
        assert message.invalid_tool_calls[0]["args"] == "{query: [redacted: to redact]}"

    @how
    async def test_a_made_up_tool_name_is_judged(
        self, how: str, guard: Guard, backend: ScriptedApp, new_chat: Callable[..., Any]
    ) -> None:
        """A text can hide in the name of a tool."""
        backend.script(PROMPT, Choice(tool_calls=(ToolCall("zblock_them", "{}"),)))
        message = await answer(guard.wrap(new_chat()).bind_tools([look_up]), how)
        assert "zblock" not in repr(message)

    @how
    async def test_rewriting_takes_out_log_probabilities(
        self, how: str, guard: Guard, backend: ScriptedApp, new_chat: Callable[..., Any]
    ) -> None:
        """Tokens spell the text once more."""
        backend.script(PROMPT, "They zredact.")
        plain = await answer(new_chat(logprobs=True), how)
        message = await answer(guard.wrap(new_chat(logprobs=True)), how)
        assert "zreda" in repr(plain.response_metadata["logprobs"])
        assert "zreda" not in repr(message)

    @how
    async def test_log_probabilities_of_a_benign_answer_stay(
        self, how: str, guard: Guard, backend: ScriptedApp, new_chat: Callable[..., Any]
    ) -> None:
        """Tokens that spell the text are no secret."""
        backend.script(PROMPT, FINE)
        plain = await answer(new_chat(logprobs=True), how)
        message = await answer(guard.wrap(new_chat(logprobs=True)), how)
        assert message.response_metadata["logprobs"] == plain.response_metadata["logprobs"]

    async def test_every_choice_is_judged_for_itself(
        self, guard: Guard, backend: ScriptedApp, new_chat: Callable[..., Any]
    ) -> None:
        """Of three choices one is blocked and one is rewritten."""
        backend.script(PROMPT, Reply((Choice(FINE), Choice("They zblock."), Choice("A zredact."))))
        model = guard.wrap(new_chat(n=3))
        generations = model.generate([[HumanMessage(PROMPT)]]).generations[0]
        assert [generation.text for generation in generations] == [
            FINE,
            "[blocked]",
            "A [redacted: to redact].",
        ]

    async def test_a_flagged_answer_says_so(
        self, guard: Guard, backend: ScriptedApp, new_chat: Callable[..., Any]
    ) -> None:
        """It is delivered as it is."""
        backend.script(PROMPT, "They zflag.")
        message = guard.wrap(new_chat()).invoke(PROMPT)
        assert message.content == "They zflag."
        assert message.response_metadata["guard"]["action"] == "flag"

    @how
    async def test_shadow_mode_changes_nothing(
        self,
        how: str,
        make_guard: Callable[..., Guard],
        backend: ScriptedApp,
        new_chat: Callable[..., Any],
    ) -> None:
        """A class in shadow mode decides, and delivers everything."""
        backend.script(PROMPT, "They zblock and zredact.")
        verdicts: list[Any] = []
        model = make_guard(shadow=True).wrap(new_chat(), on_verdict=verdicts.append)
        message = await answer(model, how)
        assert message.content == "They zblock and zredact."
        assert "guard" not in message.response_metadata
        assert [verdict.intended for verdict in verdicts] == ["block"]

    @pytest.mark.parametrize("version", ["v0", "v1"])
    @how
    async def test_both_output_versions_refuse_alike(
        self,
        how: str,
        version: str,
        guard: Guard,
        backend: ScriptedApp,
        new_chat: Callable[..., Any],
    ) -> None:
        """The text and the refusal are there in either form."""
        backend.script(PROMPT, "They zblock.")
        message = await answer(guard.wrap(new_chat(output_version=version)), how)
        assert message.text == "[blocked]"
        assert is_refusal(message)


class TestStreams:
    """What leaves while more is coming."""

    @pytest.mark.parametrize("piece", [1, 7, 1000])
    async def test_pieces_make_no_difference(
        self, piece: int, guard: Guard, backend: ScriptedApp, new_chat: Callable[..., Any]
    ) -> None:
        """However an answer is cut, the same text leaves."""
        text = f"{LONG}They zredact, and {LONG}in the end they zblock. {LONG}"
        backend.script(PROMPT, Reply((Choice(text),), delivery=Delivery(piece=piece)))
        said = summed(guard.wrap(new_chat()).stream(PROMPT)).content
        expected = guard.check(text).streamed
        assert said == expected

    async def test_text_leaves_before_the_end(
        self, guard: Guard, backend: ScriptedApp, new_chat: Callable[..., Any]
    ) -> None:
        """What was judged does not wait for the rest."""
        backend.script(
            PROMPT, Reply((Choice(LONG * 3),), delivery=Delivery(piece=40, holds_after=30))
        )
        stream = guard.wrap(new_chat()).stream(PROMPT)
        said = ""
        while len(said) < len(FINE):
            said += next(stream).content
        assert LONG.startswith(said[: len(FINE)])
        backend.release()
        assert said + summed(stream).content == LONG * 3

    async def test_a_call_leaves_whole(
        self, guard: Guard, backend: ScriptedApp, new_chat: Callable[..., Any]
    ) -> None:
        """No part of a call leaves before all of it was judged."""
        made = ToolCall("look_up", json.dumps({"query": "ferns and ivy and moss"}))
        reply = Reply((Choice(tool_calls=(made,)),), delivery=Delivery(piece=3, holds_after=5))
        backend.script(PROMPT, reply)
        stream = guard.wrap(new_chat()).bind_tools([look_up]).astream(PROMPT)
        early: list[Any] = []

        async def read() -> None:
            async for chunk in stream:
                early.append(chunk)  # noqa: PERF401  # it is looked at meanwhile

        task = asyncio.create_task(read())
        await asyncio.wait([task], timeout=0.5)
        assert early
        assert not any(chunk.tool_call_chunks for chunk in early)
        backend.release()
        await task
        assert summed(early).tool_calls[0]["args"] == {"query": "ferns and ivy and moss"}

    async def test_reading_no_further_closes_the_connection(
        self, guard: Guard, backend: ScriptedApp, new_chat: Callable[..., Any]
    ) -> None:
        """A reader that goes away leaves nothing open."""
        backend.script(PROMPT, Reply((Choice(LONG * 20),), delivery=Delivery(piece=2, pause=0.001)))
        stream = guard.wrap(new_chat()).stream(PROMPT)
        next(stream)
        stream.close()
        backend.wait_idle()
        assert backend.requests[-1].outcome == "left"

    async def test_usage_of_a_blocked_stream_is_counted(
        self, guard: Guard, backend: ScriptedApp, new_chat: Callable[..., Any]
    ) -> None:
        """What was withheld has cost something."""
        backend.script(PROMPT, f"They zblock. {FINE}")
        plain = summed(new_chat(stream_usage=True).stream(PROMPT))
        message = summed(guard.wrap(new_chat(stream_usage=True)).stream(PROMPT))
        assert message.usage_metadata == plain.usage_metadata

    async def test_a_text_between_blocks_is_one_text(self, guard: Guard) -> None:
        """A word that is cut by two blocks of text is found."""
        blocks = [{"type": "text", "text": "They zred"}, {"type": "text", "text": "act well."}]
        plain = BlockModel(answers=[blocks]).invoke(PROMPT)
        assert plain.text == "They zredact well."
        for message in (
            guard.wrap(BlockModel(answers=[blocks])).invoke(PROMPT),
            summed(guard.wrap(BlockModel(answers=[blocks])).stream(PROMPT)),
        ):
            assert message.text == "They [redacted: to redact] well."

    async def test_a_text_that_goes_on_is_judged_from_its_start(self, guard: Guard) -> None:
        """Thinking in the middle of a word does not hide it."""
        blocks = [
            {"type": "text", "text": "They zred"},
            {"type": "reasoning", "reasoning": "Let me think."},
            {"type": "text", "text": "act well."},
        ]
        message = summed(guard.wrap(BlockModel(answers=[blocks])).stream(PROMPT))
        assert "zredact" not in message.text
        assert "act well" not in message.text

    async def test_blocks_break_off_in_blocks(self, guard: Guard) -> None:
        """The class's message is a block behind those that had left."""
        blocks = [{"type": "text", "text": f"{LONG}They zblock."}]
        message = summed(guard.wrap(BlockModel(answers=[blocks])).stream(PROMPT))
        assert message.text.endswith("\n\n[blocked]")
        assert message.text.startswith(FINE)
        assert {block["type"] for block in message.content} == {"text"}

    async def test_the_journal_knows_what_has_left(
        self,
        make_guard: Callable[..., Guard],
        backend: ScriptedApp,
        new_chat: Callable[..., Any],
        tmp_path: Path,
    ) -> None:
        """A call that was judged and held back has not."""
        journal = Journal(tmp_path / "journal.sqlite3")
        fine = ToolCall("look_up", '{"query": "fern"}')
        bad = ToolCall("look_up", '{"query": "zblock"}')
        backend.script(PROMPT, Choice(tool_calls=(fine, bad)))
        model = make_guard(journal=journal).wrap(new_chat())
        message = summed(model.bind_tools([look_up]).stream(PROMPT))
        record = journal.get(message.response_metadata["guard"]["record"])
        assert (record.action, record.delivered, record.released) == ("block", "none", 0)
        assert record.complete
        journal.close()


class TestAskingAgain:
    """The remedy `regenerate`."""

    CHANGES = {  # noqa: RUF012  # read only
        "limits": {
            "to_replace": {"act": 0.9, "remedy": "regenerate"},
            "to_block": {"act": 0.9, "remedy": "block"},
        },
        "regenerate": {"attempts": 2, "instruction": "Do better."},
    }

    @how
    async def test_a_better_answer_is_delivered(
        self,
        how: str,
        make_guard: Callable[..., Guard],
        backend: ScriptedApp,
        new_chat: Callable[..., Any],
    ) -> None:
        """The model is asked with the class's instruction until an answer passes."""
        backend.script(PROMPT, "They zreplace.", "A zreplace again.", FINE)
        limiter = Counter()
        model = make_guard(**self.CHANGES).wrap(new_chat(rate_limiter=limiter))
        message = await answer(model, how)
        assert message.content == FINE
        asked = [json.loads(request.body)["messages"] for request in backend.requests]
        assert [len(messages) for messages in asked] == [1, 2, 2]
        assert asked[-1][-1] == {"role": "system", "content": "Do better."}
        assert limiter.count == 3

    @how
    async def test_it_gives_up(
        self,
        how: str,
        make_guard: Callable[..., Guard],
        backend: ScriptedApp,
        new_chat: Callable[..., Any],
    ) -> None:
        """After so many attempts the class's message is delivered."""
        backend.script(PROMPT, "They zreplace.")
        message = await answer(make_guard(**self.CHANGES).wrap(new_chat()), how)
        assert message.content == "[replaced]"
        assert len(backend.requests) == 3

    async def test_what_was_withdrawn_is_paid_for(
        self,
        make_guard: Callable[..., Guard],
        backend: ScriptedApp,
        new_chat: Callable[..., Any],
    ) -> None:
        """The usage is that of all answers."""
        backend.script(PROMPT, "They zreplace.", FINE)
        one, two = (new_chat().invoke(PROMPT).usage_metadata for _ in range(2))
        backend.script(PROMPT, "They zreplace.", FINE)
        message = make_guard(**self.CHANGES).wrap(new_chat()).invoke(PROMPT)
        total = one["total_tokens"] + two["total_tokens"]
        assert message.usage_metadata["total_tokens"] == total
        assert message.response_metadata["token_usage"]["total_tokens"] == total

    async def test_a_stream_that_has_begun_is_not_asked_for_again(
        self,
        make_guard: Callable[..., Guard],
        backend: ScriptedApp,
        new_chat: Callable[..., Any],
    ) -> None:
        """What has left cannot be taken back."""
        backend.script(PROMPT, f"{LONG}They zreplace.", FINE)
        message = summed(make_guard(**self.CHANGES).wrap(new_chat()).stream(PROMPT))
        assert message.content.startswith(FINE)
        assert message.content.endswith("\n\n[replaced]")
        assert len(backend.requests) == 1

    def test_a_document_that_waits_is_looked_at_once(
        self, make_guard: Callable[..., Guard], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """With each chunk of what leaves as a whole, those before it are not sought anew."""
        looked: list[Piece] = []
        ready = Ledger.ready

        def noted(self: Ledger, piece: Piece) -> bool:
            looked.append(piece)
            return ready(self, piece)

        monkeypatch.setattr(Ledger, "ready", noted)
        said = json.dumps({"text": "Water them. " * 100})
        model = GenericFakeChatModel(messages=iter([AIMessage(said)]))
        asking = make_guard(**self.CHANGES).wrap(model)
        chunks = list(asking.stream(PROMPT, response_format={"type": "json_object"}))
        assert summed(chunks).content == said
        assert len(looked) < 4 * len(chunks)


class TestWork:
    """What a long answer costs."""

    def test_a_stream_is_not_put_together_with_each_chunk(
        self, guard: Guard, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The text so far is made for the end alone, and not once for each chunk."""
        made: list[ChannelRun] = []
        received: Any = vars(ChannelRun)["received"]

        def noted(run: ChannelRun) -> Any:
            made.append(run)
            return received.fget(run)

        monkeypatch.setattr(ChannelRun, "received", property(noted))
        model = GenericFakeChatModel(messages=iter([AIMessage(LONG)]))
        chunks = list(guard.wrap(model).stream(PROMPT))
        assert summed(chunks).content == LONG
        assert len(made) < 10 < len(chunks)


class TestInputs:
    """What the model is given."""

    @how
    async def test_a_refused_input_is_not_sent(
        self, how: str, guard: Guard, backend: ScriptedApp, new_chat: Callable[..., Any]
    ) -> None:
        """The backend is not asked."""
        message = await answer(guard.wrap(new_chat()), how, "What does zblock mean?")
        assert message.content == "[blocked]"
        assert is_refusal(message)
        assert message.response_metadata["guard"]["action"] == "block"
        assert not backend.requests

    async def test_the_system_prompt_is_context(
        self, backend: ScriptedApp, new_chat: Callable[..., Any], pack_guard: Guard, protected: str
    ) -> None:
        """Detectors know what the model was told."""
        system = "Never name the blue heron of the third marsh to anybody who asks you for it."
        backend.script(PROMPT, f"I was told: {system}")
        model = pack_guard.wrap(new_chat())
        message = model.invoke([SystemMessage(system), HumanMessage(PROMPT)])
        assert "blue heron" not in message.content
        assert protected not in message.content


# OpenAI's SDK warns of what it has parsed itself.
@pytest.mark.filterwarnings("ignore:Pydantic serializer warnings:UserWarning")
class TestStructuredOutput:
    """Documents of a schema."""

    @pytest.mark.parametrize("method", ["json_schema", "function_calling", "json_mode"])
    async def test_a_document_is_delivered(
        self, method: str, guard: Guard, backend: ScriptedApp, new_chat: Callable[..., Any]
    ) -> None:
        """It is the same as the plain model's, in all ways."""
        said = '{"name": "fern", "months": 7}'
        called = Choice(tool_calls=(ToolCall("Plant", said),))
        backend.script(PROMPT, called if method == "function_calling" else said)
        for model in (new_chat(), guard.wrap(new_chat())):
            chain = model.with_structured_output(Plant, method=method)
            assert chain.invoke(PROMPT) == Plant(name="fern", months=7)
            assert await chain.ainvoke(PROMPT) == Plant(name="fern", months=7)
            assert list(chain.stream(PROMPT))[-1] == Plant(name="fern", months=7)

    @pytest.mark.parametrize("method", ["json_schema", "function_calling", "json_mode"])
    async def test_a_rewritten_document_stays_one(
        self, method: str, guard: Guard, backend: ScriptedApp, new_chat: Callable[..., Any]
    ) -> None:
        """What is parsed of it is parsed of the rewritten one."""
        said = '{"name": "zredact", "months": 7}'
        called = Choice(tool_calls=(ToolCall("Plant", said),))
        backend.script(PROMPT, called if method == "function_calling" else said)
        chain = guard.wrap(new_chat()).with_structured_output(
            Plant, method=method, include_raw=True
        )
        for given in (chain.invoke(PROMPT), await chain.ainvoke(PROMPT)):
            assert given["parsed"] == Plant(name="[redacted: to redact]", months=7)
            assert "zredact" not in repr(given)

    @pytest.mark.parametrize("method", ["json_schema", "function_calling", "json_mode"])
    async def test_a_blocked_document_is_a_refusal(
        self, method: str, guard: Guard, backend: ScriptedApp, new_chat: Callable[..., Any]
    ) -> None:
        """Whoever asks for the raw message gets the class's."""
        said = '{"name": "zblock", "months": 7}'
        called = Choice(tool_calls=(ToolCall("Plant", said),))
        backend.script(PROMPT, called if method == "function_calling" else said)
        chain = guard.wrap(new_chat()).with_structured_output(
            Plant, method=method, include_raw=True
        )
        given = chain.invoke(PROMPT)
        assert given["parsed"] is None
        assert given["raw"].content == "[blocked]"

    async def test_an_error_quotes_nothing(
        self, guard: Guard, backend: ScriptedApp, new_chat: Callable[..., Any]
    ) -> None:
        """What could not be parsed is not told in the error, nor to callbacks."""
        said = json.dumps({"name": "fern", "months": f"{'so many ' * 20}zblock{' years' * 20}"})
        backend.script(PROMPT, said)
        ear, recorder = Ear(), Recorder()
        chain = guard.wrap(new_chat()).with_structured_output(Plant, method="json_schema")
        with pytest.raises(InputError, match="could not be read") as caught:
            chain.invoke(PROMPT, {"callbacks": [ear, recorder]})
        assert "zblock" not in repr(caught.value)
        assert ear.heard
        assert "zblock" not in repr([ear.heard, recorder.heard])

    async def test_a_harmless_error_stands(
        self, guard: Guard, backend: ScriptedApp, new_chat: Callable[..., Any]
    ) -> None:
        """An error that quotes nothing bad is the plain model's, without the whole response."""
        backend.script(PROMPT, '{"name": "zblock", "months": "many"}')
        heard = []
        for model in (new_chat(), guard.wrap(new_chat())):
            ear = Ear()
            chain = model.with_structured_output(Plant, method="json_schema")
            with pytest.raises(ValueError, match="validation error for Plant"):
                chain.invoke(PROMPT, {"callbacks": [ear]})
            heard.append(repr(ear.heard))
        assert ["zblock" in each for each in heard] == [True, False]

    async def test_half_a_document_does_not_leave(
        self, guard: Guard, backend: ScriptedApp, new_chat: Callable[..., Any]
    ) -> None:
        """A stream of a document that is blocked in the end is the class's message alone."""
        backend.script(PROMPT, json.dumps({"name": LONG, "notes": "They zblock."}))
        model = guard.wrap(new_chat()).bind(response_format={"type": "json_object"})
        assert "".join(chunk.text for chunk in model.stream(PROMPT)) == "[blocked]"


class TestTheFramework:
    """What the framework reads of a model, and does around it."""

    async def test_it_is_one_run(
        self, guard: Guard, backend: ScriptedApp, new_chat: Callable[..., Any]
    ) -> None:
        """Callbacks hear of one model, with its tags, metadata and parameters."""
        backend.script(PROMPT, FINE)
        plain, guarded = Recorder(), Recorder()
        told = {"tags": ["mine"], "metadata": {"mine": 1}, "temperature": 0.5}
        new_chat(**told).invoke(PROMPT, {"callbacks": [plain]})
        guard.wrap(new_chat(**told)).invoke(PROMPT, {"callbacks": [guarded]})
        (one,), (other,) = plain.runs, guarded.runs
        assert not other.child_runs
        assert other.tags == one.tags == ["mine"]
        assert other.metadata == one.metadata
        assert other.extra["invocation_params"] == one.extra["invocation_params"]

    async def test_a_model_that_asks_another_is_not_heard(self, guard: Guard) -> None:
        """A model made of models, or of runnables, tells nobody what they say."""

        class Composed(GenericFakeChatModel):
            def _generate(self, messages: Any, *args: Any, **kwargs: Any) -> Any:
                said = RunnableLambda(str).invoke("They zblock.")
                self.messages = iter([AIMessage(said)])
                return super()._generate(messages, *args, **kwargs)

            _stream = BaseChatModel._stream

        guarded = guard.wrap(Composed(messages=iter([])))
        ear = Ear()
        RunnableLambda(guarded.invoke).invoke(PROMPT, {"callbacks": [ear]})
        assert "[blocked]" in repr(ear.heard)
        assert "zblock" not in repr(ear.heard)

    async def test_a_cache_keeps_guards_apart(
        self,
        make_guard: Callable[..., Guard],
        backend: ScriptedApp,
        new_chat: Callable[..., Any],
    ) -> None:
        """An answer that one guard, or none, let pass is not another's."""
        backend.script(PROMPT, "They zflag.")
        cache = InMemoryCache()
        lenient, other = make_guard(), make_guard(limits={"to_flag": {"act": 0.5}})
        models = [
            new_chat(cache=cache),
            lenient.wrap(new_chat(cache=cache)),
            other.wrap(new_chat(cache=cache)),
        ]
        said = [[model.invoke(PROMPT).content for _ in range(2)] for model in models]
        assert said == [["They zflag."] * 2, ["They zflag."] * 2, ["[blocked]"] * 2]
        assert len(backend.requests) == 3

    async def test_a_rate_limiter_is_asked_once(
        self, guard: Guard, backend: ScriptedApp, new_chat: Callable[..., Any]
    ) -> None:
        """A call counts as one."""
        backend.script(PROMPT, FINE)
        limiter = Counter()
        model = guard.wrap(new_chat(rate_limiter=limiter))
        for kind in ("invoke", "ainvoke", "stream", "astream"):
            await answer(model, kind)
        assert limiter.count == 4

    async def test_streaming_can_be_switched_off(
        self, guard: Guard, backend: ScriptedApp, new_chat: Callable[..., Any]
    ) -> None:
        """`disable_streaming` and `streaming` mean what they mean for the inner model."""
        backend.script(PROMPT, FINE)
        assert len(list(guard.wrap(new_chat(disable_streaming=True)).stream(PROMPT))) == 1
        guard.wrap(new_chat(streaming=True)).invoke(PROMPT)
        streamed = [json.loads(request.body).get("stream") for request in backend.requests]
        assert streamed == [False, True]

    async def test_a_model_without_streams_has_none(self, guard: Guard) -> None:
        """A stream of it is its one answer, as without the guard."""

        class Whole(BlockModel):
            _stream = BaseChatModel._stream

        for model in (Whole(answers=[[{"type": "text", "text": FINE}]]), None):
            guarded = guard.wrap(model or Whole(answers=[[{"type": "text", "text": FINE}]]))
            (message,) = guarded.stream(PROMPT)
            assert message.text == FINE

    async def test_a_model_with_asynchronous_streams_alone(self, guard: Guard) -> None:
        """A synchronous stream of it is one chunk."""

        class Later(BlockModel):
            _stream = BaseChatModel._stream

            async def _astream(  # pyright: ignore[reportIncompatibleMethodOverride]
                self, messages: Any, stop: Any = None, run_manager: Any = None, **kwargs: Any
            ) -> Any:
                for chunk in BlockModel._stream(self, messages, stop, run_manager, **kwargs):
                    yield chunk

        said = [{"type": "text", "text": "They zredact."}]
        assert (
            summed(guard.wrap(Later(answers=[said])).stream(PROMPT)).text
            == "They [redacted: to redact]."
        )
        chunks = [chunk async for chunk in guard.wrap(Later(answers=[said])).astream(PROMPT)]
        assert summed(chunks).text == "They [redacted: to redact]."

    async def test_what_is_read_of_a_model(
        self, guard: Guard, new_chat: Callable[..., Any]
    ) -> None:
        """Profile, name and token counts are the inner model's."""
        inner = new_chat(model="gpt-4o")
        model = guard.wrap(inner)
        assert model.profile == inner.profile
        assert model.model_name == "gpt-4o"
        assert model._llm_type == inner._llm_type
        assert model.asdict() == inner.asdict()

    async def test_fallbacks_and_retries(
        self, guard: Guard, backend: ScriptedApp, new_chat: Callable[..., Any]
    ) -> None:
        """A guarded model can stand in whatever the framework builds of models."""
        backend.script(PROMPT, "They zredact.")
        broken = guard.wrap(new_chat(base_url="http://127.0.0.1:9/v1"))
        model = broken.with_fallbacks([guard.wrap(new_chat()).with_retry()])
        assert model.invoke(PROMPT).content == "They [redacted: to redact]."


class TestWrap:
    """What `guard.wrap` takes."""

    def test_it_returns_a_chat_model(self, guard: Guard, new_chat: Callable[..., Any]) -> None:
        """The model keeps its kind."""
        assert isinstance(guard.wrap(new_chat()), GuardedChatModel)

    def test_it_guards_the_models_of_a_chain(
        self, guard: Guard, backend: ScriptedApp, new_chat: Callable[..., Any]
    ) -> None:
        """Every model in it, bound or with fallbacks, and the chain stays as it is."""
        backend.script(PROMPT, "They zredact.")
        prompt = ChatPromptTemplate.from_messages([("human", "{question}")])
        model = new_chat().bind(stop=["x"]).with_fallbacks([new_chat()])
        chain = guard.wrap(prompt | {"said": model | StrOutputParser()})
        assert chain.invoke({"question": PROMPT}) == {"said": "They [redacted: to redact]."}

    def test_it_guards_once(self, guard: Guard, new_chat: Callable[..., Any]) -> None:
        """A guarded model is not guarded again."""
        with pytest.raises(InputError, match="guarded already"):
            guard.wrap(guard.wrap(new_chat()))

    def test_a_chain_without_a_model(self, guard: Guard) -> None:
        """The error says what to do."""
        with pytest.raises(InputError, match="GuardMiddleware"):
            guard.wrap(RunnableLambda(str))

    def test_structured_output_that_hides_the_model(self, guard: Guard) -> None:
        """What cannot be guarded is not built."""

        class Hidden(BlockModel):
            def with_structured_output(self, schema: Any, **kwargs: Any) -> Any:
                del schema, kwargs
                hidden: Any = RunnableLambda(str) | self.invoke
                return hidden

        with pytest.raises(InputError, match="cannot be guarded"):
            guard.wrap(Hidden(answers=[[]])).with_structured_output(Plant)


async def test_the_bundled_model(
    real_guard: Guard, backend: ScriptedApp, new_chat: Callable[..., Any]
) -> None:
    """With the real detectors a key is taken out, whole and in a stream."""
    key = "ghp_" + "a1B2c3D4e5F6g7H8i9J0" + "k1L2m3N4o5P6q7R8"
    backend.script(PROMPT, f"Ferns grow in the shade. The token is {key}, keep it. {FINE}")
    model = real_guard.wrap(new_chat())
    for message in (model.invoke(PROMPT), summed(model.stream(PROMPT))):
        assert isinstance(message, AIMessage | AIMessageChunk)
        assert key not in repr(message)
        assert message.response_metadata["guard"]["action"] in ("rewrite", "block")
