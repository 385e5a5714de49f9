"""Messages of all vendors' packages: every text in them is found, and is written in all places."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import pytest

pytest.importorskip("langchain_core", reason="langchain is not installed")

from hypothesis import given
from hypothesis import strategies as st
from langchain_core.messages import (
    AIMessage,
    AIMessageChunk,
    ChatMessage,
    HumanMessage,
    SystemMessage,
    ToolMessage,
)
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
from pydantic import BaseModel

from guard.adapters.langchain_answers import StreamedAnswer, WholeAnswer
from guard.adapters.langchain_messages import Document, exchange_of
from guard.exchange import Exchange, Message
from guard.wire.ledger import GATED
from tests.conftest import new_guard

if TYPE_CHECKING:
    from collections.abc import Iterator

TOKENS: Final = [{"token": "Hi", "bytes": [72, 105], "logprob": -0.1, "top_logprobs": []}]

DATA: Final = "QUJD" * 400


class Plant(BaseModel):
    """What may have been parsed of an answer."""

    name: str


@dataclass(frozen=True)
class Note:
    """An object of a vendor's own."""

    text: str


def whole(**fields: Any) -> AIMessage:
    """Return a whole message."""
    given: dict[str, Any] = {"content": ""} | fields
    return AIMessage(**given)


def chunk(**fields: Any) -> AIMessageChunk:
    """Return a piece of one."""
    given: dict[str, Any] = {"content": ""} | fields
    return AIMessageChunk(**given)


CALL: Final = {"name": "look", "args": {"q": "They zblock."}, "id": "c1", "type": "tool_call"}

MESSAGES: Final[dict[str, AIMessage]] = {
    "a text": whole(content="They zblock."),
    "a list of texts": whole(content=["Ferns.", " They zblock."]),
    "a legacy block": whole(content=[{"text": "They zblock."}]),
    "a text block": whole(content=[{"type": "text", "text": "They zblock.", "index": 0}]),
    "a word in two blocks": whole(
        content=[{"type": "text", "text": "They zbl"}, {"type": "text", "text": "ock."}]
    ),
    "reasoning in a block": whole(content=[{"type": "reasoning", "reasoning": "They zblock."}]),
    "a thinking": whole(
        content=[{"type": "thinking", "thinking": "They zblock.", "signature": "abc"}]
    ),
    "a summary": whole(
        content=[{"type": "reasoning", "summary": [{"type": "summary_text", "text": "zblock"}]}]
    ),
    "reasoning of Bedrock": whole(
        content=[{"type": "reasoning_content", "reasoning_content": {"text": "They zblock."}}]
    ),
    "reasoning beside": whole(additional_kwargs={"reasoning_content": "They zblock."}),
    "a summary beside": whole(
        additional_kwargs={"reasoning": {"summary": [{"type": "summary_text", "text": "zblock"}]}}
    ),
    "a refusal in a block": whole(content=[{"type": "refusal", "refusal": "They zblock."}]),
    "a refusal beside": whole(additional_kwargs={"refusal": "They zblock."}),
    "a call": whole(tool_calls=[CALL]),
    "a call's name": whole(tool_calls=[CALL | {"name": "zblock", "args": {}}]),
    "a call's key": whole(tool_calls=[CALL | {"args": {"zblock": 1}}]),
    "a call that cannot be read": whole(
        invalid_tool_calls=[{"name": "look", "args": "{zblock", "id": "c1", "error": "{zblock: no"}]
    ),
    "an error of its own": whole(
        invalid_tool_calls=[{"name": "look", "args": "{", "id": "c1", "error": "They zblock."}]
    ),
    "a call of Anthropic's": whole(
        content=[{"type": "tool_use", "id": "c1", "name": "look", "input": {"q": "They zblock."}}],
        tool_calls=[CALL],
    ),
    "a call of OpenAI's": whole(
        additional_kwargs={
            "tool_calls": [
                {
                    "id": "c1",
                    "type": "function",
                    "function": {"name": "look", "arguments": '{"q":"They zblock."}'},
                }
            ]
        },
        tool_calls=[CALL],
    ),
    "another call than the one that is read": whole(
        additional_kwargs={"tool_calls": [{"id": "c1", "function": {"arguments": "zblock"}}]},
        tool_calls=[CALL | {"args": {"q": "fine"}}],
    ),
    "a function call": whole(
        additional_kwargs={"function_call": {"name": "look", "arguments": '{"q": "zblock"}'}}
    ),
    "a custom call": whole(
        content=[{"type": "custom_tool_call", "call_id": "c", "input": "zblock"}]
    ),
    "a server's call": whole(
        content=[{"type": "server_tool_call", "id": "s", "name": "x", "args": {"q": "zblock it"}}]
    ),
    "a server's result": whole(
        content=[{"type": "server_tool_result", "tool_call_id": "s", "output": {"x": ["zblock"]}}]
    ),
    "a search result": whole(
        content=[
            {
                "type": "web_search_tool_result",
                "content": [{"type": "web_search_result", "title": "They zblock.", "url": "u"}],
            }
        ]
    ),
    "a citation": whole(
        content=[
            {
                "type": "text",
                "text": "Ferns.",
                "annotations": [{"type": "citation", "cited_text": "They zblock."}],
            }
        ]
    ),
    "an unknown block": whole(content=[{"type": "poem", "verses": ["They zblock."]}]),
    "a non-standard block": whole(content=[{"type": "non_standard", "value": {"a": "zblock"}}]),
    "a plain file": whole(content=[{"type": "text-plain", "text": "They zblock."}]),
    "a link of an image": whole(content=[{"type": "image", "url": "https://x.invalid/zblock"}]),
    "a transcript": whole(additional_kwargs={"audio": {"data": DATA, "transcript": "zblock"}}),
    "something beside": whole(additional_kwargs={"notes": [{"deep": "They zblock."}]}),
    "an object beside": whole(additional_kwargs={"note": Note("They zblock.")}),
    "something parsed": whole(content="{}", additional_kwargs={"parsed": Plant(name="zblock")}),
    "a field of its own": whole(comment="They zblock."),
    "a name": whole(content="Ferns.", name="They zblock."),
    "metadata": whole(content="Ferns.", response_metadata={"grounding": [{"text": "zblock"}]}),
    "a finish reason that talks": whole(response_metadata={"finish_reason": "They zblock."}),
    "tokens": whole(response_metadata={"logprobs": {"content": [{"token": "zblock"}]}}),
}
"""Messages with a text that must not leave, by where it stands."""

CHUNKS: Final[dict[str, list[AIMessageChunk]]] = {
    "a text": [chunk(content="They zbl"), chunk(content="ock.")],
    "blocks": [
        chunk(content=[{"type": "text", "text": "They zbl", "index": 0}]),
        chunk(content=[{"type": "text", "text": "ock.", "index": 0}]),
    ],
    "blocks apart": [
        chunk(content=[{"type": "text", "text": "They zbl", "index": 0}]),
        chunk(content=[{"type": "text", "text": "ock.", "index": 1}]),
    ],
    "reasoning beside": [
        chunk(additional_kwargs={"reasoning_content": "They zbl"}),
        chunk(additional_kwargs={"reasoning_content": "ock."}),
    ],
    "a call": [
        chunk(tool_call_chunks=[{"name": "look", "args": "", "id": "c1", "index": 0}]),
        chunk(tool_call_chunks=[{"name": None, "args": '{"q": "zbl', "id": None, "index": 0}]),
        chunk(tool_call_chunks=[{"name": None, "args": 'ock"}', "id": None, "index": 0}]),
    ],
    "a whole call": [chunk(tool_calls=[CALL])],
    "a call of Anthropic's": [
        chunk(
            content=[{"type": "tool_use", "id": "c1", "name": "look", "input": {}, "index": 1}],
            tool_call_chunks=[{"name": "look", "args": "", "id": "c1", "index": 1}],
        ),
        chunk(
            content=[{"type": "input_json_delta", "partial_json": '{"q": "zbl', "index": 1}],
            tool_call_chunks=[{"name": None, "args": '{"q": "zbl', "id": None, "index": 1}],
        ),
        chunk(
            content=[{"type": "input_json_delta", "partial_json": 'ock"}', "index": 1}],
            tool_call_chunks=[{"name": None, "args": 'ock"}', "id": None, "index": 1}],
        ),
    ],
    "something beside": [
        chunk(additional_kwargs={"notes": "They zbl"}),
        chunk(additional_kwargs={"notes": "ock."}),
    ],
    "metadata": [chunk(content="Ferns."), chunk(response_metadata={"said": "They zblock."})],
}
"""Streams with a text that must not leave."""


def delivered(message: AIMessage, info: dict[str, Any] | None = None, **changes: Any) -> Any:
    """Return what leaves of a whole message."""
    guard = new_guard(**changes)
    result = ChatResult(generations=[ChatGeneration(message=message, generation_info=info)])
    answer = WholeAnswer(guard.session(Exchange(()), stream=False), result, GATED)
    guard.driver.run(answer.judge())
    return answer.delivered()


def streamed(chunks: list[AIMessageChunk]) -> list[ChatGenerationChunk]:
    """Return what leaves of a stream."""
    return list(_streamed(chunks))


def _streamed(chunks: list[AIMessageChunk]) -> Iterator[ChatGenerationChunk]:
    guard = new_guard()
    answer = StreamedAnswer(guard.session(Exchange(()), stream=True), GATED)
    for each in chunks:
        guard.driver.run(answer.feed(ChatGenerationChunk(message=each)))
        yield from answer.ready()
    guard.driver.run(answer.finish())
    yield from answer.rest()


class TestPlaces:
    """Where a text can stand."""

    @pytest.mark.parametrize("place", MESSAGES)
    def test_nothing_of_a_blocked_message_leaves(self, place: str) -> None:
        """Wherever the text stands, the message is the class's."""
        result = delivered(MESSAGES[place])
        assert "zbl" not in repr(result)
        if place != "tokens":  # they are taken out, and the message may leave
            assert result.generations[0].message.text == "[blocked]"

    @pytest.mark.parametrize("place", CHUNKS)
    def test_nothing_of_a_blocked_stream_leaves(self, place: str) -> None:
        """Wherever the text stands, and however it is cut."""
        chunks = streamed(CHUNKS[place])
        total = chunks[0].message + [each.message for each in chunks[1:]]
        assert "zblock" not in repr(total)
        assert "ock." not in repr(chunks)
        assert "[blocked]" in total.text

    @pytest.mark.parametrize("place", MESSAGES)
    def test_what_passes_is_the_very_object(self, place: str) -> None:
        """A class without that limit delivers the message as it is."""
        fine = {"to_excise": {"act": 0.9, "remedy": "excise"}}
        message = MESSAGES[place]
        before = repr(message)
        result = delivered(message, limits=fine)
        if place != "tokens":  # tokens of another text never leave
            assert result.generations[0].message is message
        assert repr(message) == before

    @pytest.mark.parametrize("place", MESSAGES)
    def test_whatever_the_framework_makes_of_a_message_was_found(self, place: str) -> None:
        """Every text of `content_blocks` is a part, or in one."""
        found = "\n".join(part.text for part in Document(_generation(MESSAGES[place])).parts())
        for block in MESSAGES[place].content_blocks:
            for text in _strings(block):
                assert text in found or text in PASSED, (text, found)


PASSED: Final = {"c1", "s", "abc"}
"""Identifiers and signatures, which are no text."""


def _generation(message: AIMessage) -> ChatGeneration:
    return ChatGeneration(message=message)


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for key, inner in value.items():
            if key != "type":
                yield from _strings(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _strings(inner)


class TestRewriting:
    """A text that is said in several places is rewritten in all of them."""

    def test_a_call_in_three_forms(self) -> None:
        """As the framework reads it, in the content and as the vendor writes it."""
        raw = {"id": "c1", "function": {"name": "look", "arguments": '{"q":"zredact"}'}}
        message = whole(
            content=[{"type": "tool_use", "id": "c1", "name": "look", "input": {"q": "zredact"}}],
            additional_kwargs={"tool_calls": [raw]},
            tool_calls=[CALL | {"args": {"q": "zredact"}}],
        )
        mended = delivered(message).generations[0].message
        assert mended.tool_calls[0]["args"] == {"q": "[redacted: to redact]"}
        assert mended.content[0]["input"] == {"q": "[redacted: to redact]"}
        said = mended.additional_kwargs["tool_calls"][0]["function"]["arguments"]
        assert said == '{"q": "[redacted: to redact]"}'
        assert message.tool_calls[0]["args"] == {"q": "zredact"}

    def test_two_calls_with_one_text(self) -> None:
        """Each is rewritten in its own place."""
        calls = [CALL | {"args": {"q": "zredact"}, "id": name} for name in ("c1", "c2")]
        mended = delivered(whole(tool_calls=calls)).generations[0].message
        assert [call["args"]["q"] for call in mended.tool_calls] == ["[redacted: to redact]"] * 2

    def test_reasoning_in_two_places(self) -> None:
        """Some packages keep it beside the content, too."""
        message = whole(
            content=[{"type": "reasoning", "reasoning": "I zredact."}],
            additional_kwargs={"reasoning_content": "I zredact."},
        )
        mended = delivered(message).generations[0].message
        assert mended.content[0]["reasoning"] == "I [redacted: to redact]."
        assert mended.additional_kwargs["reasoning_content"] == "I [redacted: to redact]."

    def test_a_signed_thinking_stays_or_is_withheld(self) -> None:
        """Its signature would not fit another text."""
        block = {"type": "thinking", "thinking": "I zredact.", "signature": "abc"}
        assert delivered(whole(content=[block])).generations[0].message.content == "[blocked]"

    def test_an_error_that_quotes_a_call_goes(self) -> None:
        """It would show what was taken out."""
        call = {"name": "look", "args": "{zredact", "id": "c1", "error": "{zredact is no JSON"}
        (mended,) = (
            delivered(whole(invalid_tool_calls=[call])).generations[0].message.invalid_tool_calls
        )
        assert mended["args"] == "{[redacted: to redact]"
        assert mended["error"] is None

    def test_what_was_parsed_is_parsed_again(self) -> None:
        """It says what the content says."""
        message = whole(
            content='{"name": "zredact"}', additional_kwargs={"parsed": Plant(name="zredact")}
        )
        mended = delivered(message).generations[0].message
        assert mended.additional_kwargs["parsed"] == Plant(name="[redacted: to redact]")

    def test_tokens_go_with_their_text(self) -> None:
        """Log-probabilities spell the text that was taken out."""
        info = {"logprobs": {"content": TOKENS}}
        kept = delivered(whole(content="Hi"), info).generations[0]
        assert kept.generation_info == info
        tokens = [TOKENS[0] | {"token": "zredact", "bytes": list(b"zredact")}]
        gone = delivered(whole(content="zredact"), {"logprobs": {"content": tokens}}).generations[0]
        assert gone.generation_info == {"logprobs": None}

    def test_alternative_tokens_go(self) -> None:
        """They are words that nobody said and nobody judged."""
        tokens = [TOKENS[0] | {"top_logprobs": [{"token": "zblock", "logprob": -9.0}]}]
        kept = delivered(whole(content="Hi"), {"logprobs": {"content": tokens}}).generations[0]
        assert kept.generation_info == {"logprobs": {"content": TOKENS}}
        assert kept.message.content == "Hi"

    @pytest.mark.parametrize(
        "said", [{"content": "They zflag."}, {"additional_kwargs": {"notes": "They zflag."}}]
    )
    def test_the_entry_comes_before_the_last_chunk(self, said: Any) -> None:
        """Nothing may come behind a chunk that says it is the last."""
        chunks = streamed([chunk(**said), chunk(chunk_position="last")])
        entries = [each.message.response_metadata.get("guard") for each in chunks]
        assert [entry and entry["action"] for entry in entries] == [None, "flag", None]
        assert isinstance(chunks[-1].message, AIMessageChunk)
        assert chunks[-1].message.chunk_position == "last"

    def test_the_pieces_of_a_call_are_read_anew(self) -> None:
        """What the framework reads of each piece is what leaves of it."""
        pieces = ['{"q": "', "zredact", '"}']
        chunks = [
            chunk(tool_call_chunks=[{"name": None, "args": piece, "id": None, "index": 0}])
            for piece in pieces
        ]
        mended = streamed(chunks)
        assert "zredact" not in repr(mended)
        total: Any = mended[0].message + [each.message for each in mended[1:]]
        assert total.tool_calls[0]["args"] == {"q": "[redacted: to redact]"}


json_values = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.just("They zblock."), st.just("Ferns.")),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(
            st.sampled_from(
                ["type", "text", "content", "args", "input", "summary", "value", "name", "extras"]
            ),
            inner,
            max_size=4,
        ),
    ),
    max_leaves=8,
)
block_types = st.sampled_from(["text", "reasoning", "tool_use", "refusal", "image", "thing"])


class TestAnything:
    """Messages that no vendor has thought of."""

    @given(
        st.lists(st.dictionaries(st.sampled_from(["text", "input", "x"]), json_values), max_size=3),
        st.dictionaries(st.sampled_from(["reasoning_content", "tool_calls", "y"]), json_values),
        block_types,
    )
    def test_no_shape_hides_a_text(self, content: Any, beside: Any, kind: str) -> None:
        """Wherever a text stands in a message, it does not leave."""
        try:
            message = whole(
                content=[{"type": kind} | block for block in content], additional_kwargs=beside
            )
        except (TypeError, ValueError, AttributeError):
            return  # the framework makes no message of it
        result = delivered(message)
        assert "zblock" not in repr(result)
        if "zblock" not in repr(message):
            assert result.generations[0].message is message


class TestWhatWasAsked:
    """Messages that a model is given."""

    def test_roles_and_texts(self) -> None:
        """Each message is known by its role and all its text."""
        messages = [
            SystemMessage("Be kind."),
            HumanMessage([{"type": "text", "text": "Hi."}, {"type": "image", "base64": DATA}]),
            AIMessage("Hello."),
            AIMessageChunk(content="More."),
            ToolMessage("Found.", tool_call_id="c1", name="look"),
            ChatMessage(content="Then.", role="assistant"),
        ]
        asked = exchange_of(messages, model="m", conversation="7")
        assert asked.messages == (
            Message("system", "Be kind."),
            Message("user", "Hi."),
            Message("assistant", "Hello."),
            Message("assistant", "More."),
            Message("tool", "Found.", "look"),
            Message("assistant", "Then."),
        )
        assert (asked.model, asked.conversation) == ("m", "7")

    def test_a_models_own_calls(self) -> None:
        """They are judged as calls, and are no text of the message that makes them."""
        call = {"type": "tool_use", "id": "c1", "name": "look", "input": {"q": "They zblock."}}
        blocks: list[Any] = [{"type": "text", "text": "I look."}, call]
        asked = exchange_of([AIMessage(blocks), ToolMessage(blocks, tool_call_id="c1")])
        assert [each.content for each in asked.messages] == [
            "I look.",
            "I look.\nlook\nThey zblock.",
        ]
