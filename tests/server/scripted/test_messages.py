"""Anthropic Messages, read by Anthropic's own clients and checked against the SDK's types."""

from __future__ import annotations

import typing
from typing import TYPE_CHECKING, Any, Final

from anthropic.types import ContentBlock, Message, RawMessageStreamEvent
from pydantic import BaseModel, TypeAdapter

from guard.exchange import Choice, ToolCall
from guard.server.scripted import Reply, messages, samples

if TYPE_CHECKING:
    from collections.abc import Callable

    import httpx2
    from anthropic import Anthropic, AsyncAnthropic
    from anthropic.types import MessageParam

    from guard.server.scripted import ScriptedApp

    Post = Callable[[str, dict[str, Any]], list[dict[str, Any]]]

PROMPT: Final = "Which apple keeps longest?"
PATH: Final = "/v1/messages"
ASKED: Final[list[MessageParam]] = [{"role": "user", "content": PROMPT}]
REQUEST: Final[dict[str, Any]] = {"messages": ASKED, "max_tokens": 100}
FULL = Choice(
    "A late russet: “till May”. 🍎",
    reasoning="They mean in a cellar.",
    tool_calls=(ToolCall("look_up", '{"fruit": "russet"}'), ToolCall("note", "{}", "toolu_own")),
)


class Apple(BaseModel):
    """A structured answer."""

    name: str
    months: int


def said(path: str) -> str:
    """Return a text that names its channel."""
    return f"Words in {path}, naïve ones."


class TestWhole:
    """Without a stream."""

    def test_has_every_field(self, anthropic: Anthropic, backend: ScriptedApp) -> None:
        """Thinking with its signature, text and tool uses are blocks."""
        backend.script(PROMPT, FULL)
        message = anthropic.messages.create(model="russet-1", max_tokens=100, messages=ASKED)
        thinking, text, *tools = [block.to_dict() for block in message.content]
        assert (thinking["thinking"], bool(thinking["signature"])) == (FULL.reasoning, True)
        assert text["text"] == FULL.content
        assert [(tool["name"], tool["input"]) for tool in tools] == [
            ("look_up", {"fruit": "russet"}),
            ("note", {}),
        ]
        assert (message.model, message.stop_reason) == ("russet-1", "tool_use")
        assert message.usage.input_tokens > 0 < message.usage.output_tokens

    def test_fits_the_sdk_strictly(self, http: httpx2.Client, backend: ScriptedApp) -> None:
        """Every block at once passes the SDK's own types, nothing coerced."""
        backend.script(PROMPT, Reply(changes=samples.every_message_block(said)))
        Message.model_validate(http.post(PATH, json=REQUEST).json(), strict=True)

    def test_samples_have_every_block_that_carries_text(self) -> None:
        """Of all blocks that the SDK knows only two are missing, which hold names of things."""
        members = typing.get_args(typing.get_args(ContentBlock)[0])
        known = {typing.get_args(one.model_fields["type"].annotation)[0] for one in members}
        sampled = {block["type"] for block in samples.every_message_block(said)["content"]}
        assert known - sampled == {"container_upload", "tool_search_tool_result"}

    def test_refuses(self, anthropic: Anthropic, backend: ScriptedApp) -> None:
        """A refusal is a stop reason with an explanation."""
        backend.script(PROMPT, Choice(refusal="I never rank apples."))
        message = anthropic.messages.create(model="m", max_tokens=100, messages=ASKED)
        assert (message.content, message.stop_reason) == ([], "refusal")
        assert message.stop_details is not None
        assert message.stop_details.explanation == "I never rank apples."

    def test_keeps_arguments_that_are_no_object(
        self, anthropic: Anthropic, backend: ScriptedApp
    ) -> None:
        """This vendor's calls are objects, so that other text is put into one."""
        calls = (ToolCall("look_up", "[1]"), ToolCall("look_up", "half a {"))
        backend.script(PROMPT, Choice(tool_calls=calls))
        message = anthropic.messages.create(model="m", max_tokens=100, messages=ASKED)
        assert [block.to_dict()["input"] for block in message.content] == [
            {"arguments": "[1]"},
            {"arguments": "half a {"},
        ]

    def test_parses_structured_output(self, anthropic: Anthropic, backend: ScriptedApp) -> None:
        """`parse` gives an object of the class asked for."""
        backend.script(PROMPT, '{"name": "russet", "months": 7}')
        message = anthropic.messages.parse(
            model="m", max_tokens=100, messages=ASKED, output_format=Apple
        )
        assert message.parsed_output == Apple(name="russet", months=7)

    def test_reads_the_last_user_text(self, anthropic: Anthropic, backend: ScriptedApp) -> None:
        """Blocks count, and a user message that only brings a tool's result does not."""
        backend.script(PROMPT, "found")
        given: Any = [
            {"role": "user", "content": [{"type": "text", "text": PROMPT}]},
            {
                "role": "assistant",
                "content": [{"type": "tool_use", "id": "t", "name": "f", "input": {}}],
            },
            {
                "role": "user",
                "content": [{"type": "tool_result", "tool_use_id": "t", "content": "seven"}],
            },
        ]
        message = anthropic.messages.create(model="m", max_tokens=100, messages=given)
        assert [block.to_dict()["text"] for block in message.content] == ["found"]

    async def test_answers_the_asynchronous_client(
        self, anthropic_async: AsyncAnthropic, backend: ScriptedApp
    ) -> None:
        """The asynchronous client gets the same message."""
        backend.script(PROMPT, "A russet.")
        message = await anthropic_async.messages.create(model="m", max_tokens=9, messages=ASKED)
        assert [block.to_dict()["text"] for block in message.content] == ["A russet."]


class TestStream:
    """As events."""

    def test_fits_the_sdk_strictly(self, backend: ScriptedApp, stream_events: Post) -> None:
        """Every event of every block passes the SDK's own union, nothing coerced."""
        backend.script(PROMPT, Reply(changes=samples.every_message_block(said)))
        adapter: TypeAdapter[Any] = TypeAdapter(RawMessageStreamEvent)
        events = stream_events(PATH, REQUEST)
        assert {"type": "ping"} in events
        for event in events:
            # The SDK's union lacks pings, which its clients pass over.
            if event["type"] != "ping":
                read = adapter.validate_python(event, strict=True)
                assert read.model_dump(warnings="error")["type"] == event["type"]

    def test_has_the_grammar_of_the_api(self, backend: ScriptedApp, stream_events: Post) -> None:
        """Blocks open before and close after their deltas; the signature ends the thinking."""
        backend.script(PROMPT, Choice("A russet.", reasoning="In cellars."))
        events = stream_events(PATH, REQUEST)
        names = [event.get("delta", {}).get("type") or event["type"] for event in events]
        assert names[:3] == ["message_start", "ping", "content_block_start"]
        assert names[3:6] == ["thinking_delta", "thinking_delta", "thinking_delta"]
        assert names[6:9] == ["signature_delta", "content_block_stop", "content_block_start"]
        assert names[-4:] == ["text_delta", "content_block_stop", "message_delta", "message_stop"]
        assert events[0]["message"]["content"] == []
        assert events[-2]["delta"]["stop_reason"] == "end_turn"

    def test_streams_a_tool_s_input_in_fragments(
        self, backend: ScriptedApp, stream_events: Post
    ) -> None:
        """An empty fragment comes first, all are cut from the JSON text, the block began empty."""
        backend.script(PROMPT, Reply(changes=samples.every_message_block(said)))
        events = stream_events(PATH, REQUEST)
        fragments = [
            event["delta"]["partial_json"]
            for event in events
            if event.get("delta", {}).get("type") == "input_json_delta" and event["index"] == 10
        ]
        assert fragments[0] == ""
        assert "".join(fragments) == f'{{"query": "{said("tool_use")}"}}'
        begun = [event["content_block"] for event in events if "content_block" in event]
        assert begun[10]["input"] == {}

    def test_accumulates_to_the_whole_answer(
        self, anthropic: Anthropic, backend: ScriptedApp
    ) -> None:
        """What the SDK's helper ends with is what it gets without a stream."""
        backend.script(PROMPT, Reply(changes=samples.every_message_block(said)))
        whole = anthropic.messages.create(model="m", max_tokens=100, messages=ASKED)
        with anthropic.messages.stream(model="m", max_tokens=100, messages=ASKED) as stream:
            final = stream.get_final_message()
        assert _blocks(final) == _blocks(whole)
        assert (final.stop_reason, final.usage) == (whole.stop_reason, whole.usage)
        assert said("text") in [block.to_dict().get("text") for block in final.content]

    def test_refuses(self, anthropic: Anthropic, backend: ScriptedApp) -> None:
        """The stop reason and its explanation come with the message's delta."""
        backend.script(PROMPT, Choice("Well.", refusal="I never rank apples."))
        with anthropic.messages.stream(model="m", max_tokens=100, messages=ASKED) as stream:
            final = stream.get_final_message()
        assert final.stop_reason == "refusal"
        assert final.stop_details is not None
        assert final.stop_details.explanation == "I never rank apples."

    def test_sends_a_block_that_nobody_knows(
        self, backend: ScriptedApp, stream_events: Post
    ) -> None:
        """A block of an unknown type comes whole in its first event."""
        block = {"type": "dream", "vision": "an orchard"}
        backend.script(PROMPT, Reply(changes={"content": [block, messages.text("So.")]}))
        events = stream_events(PATH, REQUEST)
        begun = [event["content_block"] for event in events if "content_block" in event]
        assert begun[0] == block

    async def test_answers_the_asynchronous_client(
        self, anthropic_async: AsyncAnthropic, backend: ScriptedApp
    ) -> None:
        """The asynchronous client streams and accumulates the same."""
        backend.script(PROMPT, FULL)
        async with anthropic_async.messages.stream(
            model="m", max_tokens=100, messages=ASKED
        ) as stream:
            texts = [text async for text in stream.text_stream]
            final = await stream.get_final_message()
        assert "".join(texts) == FULL.content
        assert [block.type for block in final.content] == [
            "thinking",
            "text",
            "tool_use",
            "tool_use",
        ]


def _blocks(message: Message) -> list[dict[str, object]]:
    """Return the blocks without what only the helper's own classes have."""
    dumped = [block.to_dict() for block in message.content]
    return [{k: v for k, v in one.items() if k != "parsed_output"} for one in dumped]
