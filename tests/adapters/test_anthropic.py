"""Anthropic's clients, guarded and plain, against one backend; as `test_openai.py`."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

import anthropic
import pytest
from anthropic.types import Message

from guard.exchange import Choice, ToolCall
from guard.server.scripted import Delivery, Reply, messages, samples
from tests.adapters.shared import (
    DOCUMENT,
    LONG,
    PROMPT,
    Plant,
    bad_at,
    benign,
    call,
    dump,
    headers,
    lines,
    said,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from guard.engine import Guard
    from guard.server.scripted import ScriptedApp
    from tests.adapters.shared import Side, Sides

ASKED: Final = {
    "model": "m",
    "max_tokens": 100,
    "messages": [{"role": "user", "content": PROMPT}],
}
TOOL: Final = {
    "name": "look_up",
    "input_schema": {"type": "object", "properties": {"query": {"type": "string"}}},
}
USAGE: Final = {"input_tokens": 5, "output_tokens": 7}


# Ways to ask for a message.


async def create(side: Side, request: dict[str, Any]) -> Any:
    """Ask for a whole message."""
    return dump(await side.settled(side.client.messages.create(**request)))


async def create_stream(side: Side, request: dict[str, Any]) -> Any:
    """Ask for events."""
    stream = await side.settled(side.client.messages.create(**request, stream=True))
    return [dump(event) async for event in side.each(stream)]


async def helper(side: Side, request: dict[str, Any]) -> Any:
    """Use the helper that puts events together."""
    async with side.opened(side.client.messages.stream(**request)) as stream:
        events = [dump(event) async for event in side.each(stream)]
        return events, dump(await side.settled(stream.get_final_message()))


async def texts(side: Side, request: dict[str, Any]) -> Any:
    """Use the helper's stream of text alone."""
    async with side.opened(side.client.messages.stream(**request)) as stream:
        return await side.listed(stream.text_stream)


async def raw(side: Side, request: dict[str, Any]) -> Any:
    """Ask for the HTTP response, whole."""
    answer = await side.settled(side.client.messages.with_raw_response.create(**request))
    message = dump(await side.settled(answer.parse()))
    return [answer.status_code, answer.request_id, headers(answer), message]


async def raw_stream(side: Side, request: dict[str, Any]) -> Any:
    """Ask for the HTTP response of a stream."""
    create = side.client.messages.with_raw_response.create
    answer = await side.settled(create(**request, stream=True))
    stream = await side.settled(answer.parse())
    return [dump(event) async for event in side.each(stream)]


async def streaming(side: Side, request: dict[str, Any]) -> Any:
    """Read the HTTP response's lines as they come."""
    create = side.client.messages.with_streaming_response.create
    async with side.opened(create(**request, stream=True)) as answer:
        return lines(await side.listed(answer.iter_lines()))


async def beta(side: Side, request: dict[str, Any]) -> Any:
    """Ask through the part of the SDK that is not yet final."""
    return dump(await side.settled(side.client.beta.messages.create(**request)))


async def beta_stream(side: Side, request: dict[str, Any]) -> Any:
    """Ask for events there."""
    async with side.opened(side.client.beta.messages.stream(**request)) as stream:
        events = [dump(event) async for event in side.each(stream)]
        return events, dump(await side.settled(stream.get_final_message()))


WAYS: Final = [
    create,
    create_stream,
    helper,
    texts,
    raw,
    raw_stream,
    streaming,
    beta,
    beta_stream,
]

CASES: Final[dict[str, tuple[Any, dict[str, Any]]]] = {
    "text": ("Ferns.", {}),
    "long": (LONG, {}),
    "nothing": (Choice(), {}),
    "refusal": (Choice(refusal="I do not rank plants."), {}),
    "thinking": (
        Choice("Ferns.", reasoning="They mean a garden. " * 9),
        {"thinking": {"type": "enabled", "budget_tokens": 1024}, "max_tokens": 2048},
    ),
    "tool": (Choice(tool_calls=(call("fern"),)), {"tools": [TOOL]}),
    "parallel tools": (
        Choice("Let me look.", tool_calls=(call("fern"), call("ivy", deep=[1]))),
        {"tools": [TOOL]},
    ),
    "structured": (
        DOCUMENT,
        {
            "output_config": {
                "format": {"type": "json_schema", "schema": anthropic.transform_schema(Plant)}
            }
        },
    ),
    "every block": (Reply(changes=samples.every_message_block(benign)), {}),
    "stop sequence": (
        Reply((Choice("Ferns and"),), {"stop_reason": "stop_sequence", "stop_sequence": "ivy"}),
        {"stop_sequences": ["ivy"]},
    ),
    "system": ("Ferns.", {"system": "Name plants.", "metadata": {"user_id": "7"}}),
    "chunked": (Reply((Choice(LONG[:170]),), delivery=Delivery(chunk=17, piece=9)), {}),
    "carriage returns": (Reply((Choice(LONG),), delivery=Delivery(newline="\r\n")), {}),
    "comments": (Reply((Choice(LONG),), delivery=Delivery(comments=True)), {}),
}


class TestBenign:
    """Messages that nobody minds."""

    @pytest.mark.parametrize("way", WAYS)
    @pytest.mark.parametrize("case", CASES)
    async def test_equal(
        self, anthropic_sides: Sides, backend: ScriptedApp, case: str, way: Callable[..., Any]
    ) -> None:
        """The guarded client gives what the plain one gives, field by field, event by event."""
        reply, extra = CASES[case]
        backend.script(PROMPT, reply)
        plain, guarded = [await way(side, ASKED | extra) for side in anthropic_sides]
        assert guarded == plain

    async def test_parse(self, anthropic_sides: Sides, backend: ScriptedApp) -> None:
        """A model of pydantic's is filled alike, whole and from a stream."""
        backend.script(PROMPT, DOCUMENT)
        for side in anthropic_sides:
            api = side.client.messages
            done = await side.settled(api.parse(**ASKED, output_format=Plant))
            assert done.parsed_output == Plant.model_validate_json(DOCUMENT)
            async with side.opened(api.stream(**ASKED, output_format=Plant)) as stream:
                final = await side.settled(stream.get_final_message())
            assert final.parsed_output == done.parsed_output

    async def test_types(self, anthropic_sides: Sides, backend: ScriptedApp) -> None:
        """Results are of the SDK's own types."""
        backend.script(PROMPT, "Ferns.")
        for way in ({}, {"stream": True}):
            given = []
            for side in anthropic_sides:
                result = await side.settled(side.client.messages.create(**ASKED, **way))
                given.append(type(result))
                if way:
                    await side.listed(result)
            assert given[0] is given[1]


REWRITTEN: Final[dict[str, tuple[Choice | str, Choice | str]]] = {
    "redacted": ("Say zredact now.", "Say [redacted: to redact] now."),
    "redacted within": (f"{LONG} Say zredact.", f"{LONG} Say [redacted: to redact]."),
    "excised": ("Ferns grow. Then zexcise. Ivy grows.", "Ferns grow. Ivy grows."),
    "tool": (
        Choice(tool_calls=(call("zredact"),)),
        Choice(tool_calls=(call("[redacted: to redact]"),)),
    ),
}


def without_texts(events: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the events that bring no piece of a text."""
    return [event for event in events if event["type"] != "content_block_delta"]


class TestRewritten:
    """Messages of which a part is mended."""

    @pytest.mark.parametrize("case", REWRITTEN)
    async def test_whole(self, anthropic_sides: Sides, backend: ScriptedApp, case: str) -> None:
        """The answer is as if the backend had said the mended text."""
        bad, mended = REWRITTEN[case]
        backend.script(PROMPT, said(bad, USAGE), said(mended, USAGE))
        plain, guarded = anthropic_sides
        assert await create(guarded, ASKED) == await create(plain, ASKED)

    @pytest.mark.parametrize("case", REWRITTEN)
    async def test_stream(self, anthropic_sides: Sides, backend: ScriptedApp, case: str) -> None:
        """The pieces join to the mended text, everything else is as it was."""
        bad, mended = REWRITTEN[case]
        replies = [said(bad, USAGE), said(mended, USAGE)]
        backend.script(PROMPT, *replies, *replies)
        plain, guarded = anthropic_sides
        events, expected = [await create_stream(one, ASKED) for one in (guarded, plain)]
        assert without_texts(events) == without_texts(expected)
        (_, final), (_, wanted) = [await helper(one, ASKED) for one in (guarded, plain)]
        assert final == wanted

    async def test_structured(self, anthropic_sides: Sides, backend: ScriptedApp) -> None:
        """A document stays one, with the mended text in it."""
        backend.script(PROMPT, DOCUMENT.replace("no sun", "zredact"))
        _, side = anthropic_sides
        api = side.client.messages
        done = await side.settled(api.parse(**ASKED, output_format=Plant))
        assert done.parsed_output.notes == ["likes shade", "[redacted: to redact]"]
        async with side.opened(api.stream(**ASKED, output_format=Plant)) as stream:
            final = await side.settled(stream.get_final_message())
        assert final.parsed_output == done.parsed_output


BLOCKED: Final = {
    "text": Choice("Say zblock now."),
    "thinking": Choice("Ferns.", reasoning="So zblock."),
    "refusal": Choice(refusal="No zblock."),
    "tool": Choice(tool_calls=(call("zblock"),)),
    "second tool": Choice(tool_calls=(call("fern"), call("zblock"))),
    "name of a tool": Choice(tool_calls=(ToolCall("zblock", "{}"),)),
}


class TestBlocked:
    """Messages that are withheld."""

    @pytest.mark.parametrize("case", BLOCKED)
    async def test_whole(self, anthropic_sides: Sides, backend: ScriptedApp, case: str) -> None:
        """The message is all of the content, with the vendor's own reason; usage stays."""
        backend.script(PROMPT, BLOCKED[case])
        plain, side = anthropic_sides
        given = await side.settled(side.client.messages.create(**ASKED))
        assert type(given) is Message
        message = dump(given)
        assert [block["text"] for block in message["content"]] == ["[blocked]"]
        assert message["stop_reason"] == "refusal"
        assert message["stop_details"]["explanation"] == "[blocked]"
        assert (given.model_extra or {})["guard"]["action"] == "block"
        assert "zblock" not in given.model_dump_json()
        expected, kept = await create(plain, ASKED), ("id", "model", "role", "type")
        assert {key: message[key] for key in kept} == {key: expected[key] for key in kept}
        for count in ("input_tokens", "output_tokens", "cache_read_input_tokens"):
            assert message["usage"][count] == expected["usage"][count]

    @pytest.mark.parametrize("case", BLOCKED)
    async def test_stream(self, anthropic_sides: Sides, backend: ScriptedApp, case: str) -> None:
        """The stream ends legally with the message and the vendor's reason; usage stays."""
        backend.script(PROMPT, BLOCKED[case])
        plain, guarded = anthropic_sides
        events, final = await helper(guarded, ASKED)
        assert final["content"][-1]["text"] == "[blocked]"
        assert final["stop_reason"] == "refusal"
        assert final["stop_details"]["explanation"] == "[blocked]"
        expected = await create(plain, ASKED)
        assert final["usage"]["output_tokens"] == expected["usage"]["output_tokens"]
        assert "zblock" not in json.dumps([events, final])
        assert [event["type"] for event in events][-1] == "message_stop"

    async def test_partly_delivered(
        self, anthropic_sides: Sides, make_guard: Callable[..., Guard], backend: ScriptedApp
    ) -> None:
        """What had left stands, and the message stands behind it."""
        text = f"{LONG}Say zblock now. {LONG}"
        backend.script(PROMPT, text)
        _, guarded = anthropic_sides
        streamed = "".join(await texts(guarded, ASKED))
        assert streamed == make_guard().check(text).streamed
        assert streamed.startswith(LONG[:200])
        assert [block["text"] for block in (await create(guarded, ASKED))["content"]] == [
            "[blocked]"
        ]

    async def test_thinking_is_withheld_whole(
        self, anthropic_sides: Sides, backend: ScriptedApp
    ) -> None:
        """A thinking block is never rewritten, since its signature would not fit any more."""
        backend.script(PROMPT, Choice("Ferns.", reasoning="So zredact."))
        plain, guarded = anthropic_sides
        for message in (await create(guarded, ASKED), (await helper(guarded, ASKED))[1]):
            assert "zredact" not in json.dumps(message)
            signed = [block for block in message["content"] if block["type"] == "thinking"]
            kept = (await create(plain, ASKED))["content"]
            assert all(block in kept for block in signed)
            assert message["stop_reason"] == "refusal"

    async def test_parse(self, anthropic_sides: Sides, backend: ScriptedApp) -> None:
        """Whoever wants a document gets a refusal without content, whole and from a stream."""
        backend.script(PROMPT, DOCUMENT.replace("no sun", "zblock"))
        _, side = anthropic_sides
        api = side.client.messages
        done = await side.settled(api.parse(**ASKED, output_format=Plant))
        async with side.opened(api.stream(**ASKED, output_format=Plant)) as stream:
            final = await side.settled(stream.get_final_message())
        for message in (done, final):
            assert (message.parsed_output, message.stop_reason) == (None, "refusal")
            assert message.stop_details.explanation == "[blocked]"

    async def test_replaced(self, anthropic_sides: Sides, backend: ScriptedApp) -> None:
        """A replacement is an answer like any other."""
        _, guarded = anthropic_sides
        backend.script(PROMPT, "Say zreplace now.")
        for message in (await create(guarded, ASKED), (await helper(guarded, ASKED))[1]):
            assert message["content"][-1]["text"] == "[replaced]"
            assert message["stop_reason"] == "end_turn"

    @pytest.mark.parametrize("way", [create, create_stream])
    async def test_every_block(
        self, anthropic_sides: Sides, backend: ScriptedApp, way: Callable[..., Any]
    ) -> None:
        """A bad text in whichever place of any block is not delivered."""
        places: list[str] = []
        samples.every_message_block(lambda path: places.append(path) or benign(path))  # type: ignore[func-returns-value]
        _, guarded = anthropic_sides
        for place in places:
            backend.script(PROMPT, Reply(changes=samples.every_message_block(bad_at(place))))
            given = json.dumps(await way(guarded, ASKED))
            assert "zblock" not in given, place
            assert "[blocked]" in given, place

    async def test_structural_events_leave_first(
        self, anthropic_sides: Sides, backend: ScriptedApp
    ) -> None:
        """Blocks that came before the bad one are there, closed, and the helper reads them."""
        content = [
            messages.text("Ferns."),
            messages.tool_use("toolu_1", "look_up", {"query": "fern"}),
            messages.text("Say zblock."),
        ]
        backend.script(PROMPT, Reply(changes={"content": content}))
        _, guarded = anthropic_sides
        _, final = await helper(guarded, ASKED)
        assert [block["type"] for block in final["content"]] == ["text", "tool_use", "text"]
        assert final["content"][1]["input"] == {"query": "fern"}
        assert final["content"][2]["text"].strip() == "[blocked]"
