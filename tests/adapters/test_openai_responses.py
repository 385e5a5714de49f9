"""OpenAI's clients, guarded and plain, through the Responses API; as `test_openai.py`."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

import pytest
from openai.types.responses import Response

from guard.exchange import Choice, ToolCall
from guard.server.scripted import Delivery, Reply, samples
from guard.wire.detail import Style
from tests.adapters.shared import (
    DOCUMENT,
    LONG,
    PROMPT,
    Plant,
    Side,
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
    from tests.adapters.shared import Sides

ASKED: Final = {"model": "m", "input": PROMPT}


# Ways to ask for a response.


async def create(side: Side, request: dict[str, Any]) -> Any:
    """Ask for a whole response."""
    return dump(await side.settled(side.client.responses.create(**request)))


async def create_stream(side: Side, request: dict[str, Any]) -> Any:
    """Ask for events."""
    stream = await side.settled(side.client.responses.create(**request, stream=True))
    return [dump(event) async for event in side.each(stream)]


async def padded_stream(side: Side, request: dict[str, Any]) -> Any:
    """Ask for events with padding."""
    return await create_stream(side, request | {"stream_options": {"include_obfuscation": True}})


async def helper(side: Side, request: dict[str, Any]) -> Any:
    """Use the helper that puts events together."""
    async with side.opened(side.client.responses.stream(**request)) as stream:
        events = [dump(event) async for event in side.each(stream)]
        return events, dump(await side.settled(stream.get_final_response()))


async def raw(side: Side, request: dict[str, Any]) -> Any:
    """Ask for the HTTP response, whole."""
    answer = await side.settled(side.client.responses.with_raw_response.create(**request))
    return [answer.status_code, answer.request_id, headers(answer), dump(answer.parse())]


async def raw_stream(side: Side, request: dict[str, Any]) -> Any:
    """Ask for the HTTP response of a stream."""
    create = side.client.responses.with_raw_response.create
    answer = await side.settled(create(**request, stream=True))
    return [dump(event) async for event in side.each(answer.parse())]


async def streaming(side: Side, request: dict[str, Any]) -> Any:
    """Read the HTTP response's lines as they come."""
    create = side.client.responses.with_streaming_response.create
    async with side.opened(create(**request, stream=True)) as answer:
        return lines(await side.listed(answer.iter_lines()))


WAYS: Final = [create, create_stream, padded_stream, helper, raw, raw_stream, streaming]

CASES: Final[dict[str, tuple[Any, dict[str, Any]]]] = {
    "text": ("Ferns.", {}),
    "long": (LONG, {}),
    "nothing": (Choice(), {}),
    "refusal": (Choice(refusal="I do not rank plants."), {}),
    "reasoning": (Choice("Ferns.", reasoning="They mean a garden. " * 9), {}),
    "tool": (Choice(tool_calls=(call("fern"),)), {}),
    "parallel tools": (
        Choice("Let me look.", tool_calls=(call("fern"), call("ivy", deep=[1]))),
        {"parallel_tool_calls": True},
    ),
    "logprobs": (Choice(LONG[:200]), {"include": ["message.output_text.logprobs"]}),
    "structured": (
        DOCUMENT,
        {
            "text": {
                "format": {"type": "json_schema", "name": "plant", "strict": True}
                | {"schema": Plant.model_json_schema()}
            }
        },
    ),
    "every item": (Reply(changes=samples.every_response_item(benign)), {}),
    "instructions": ("Ferns.", {"instructions": "Name plants.", "metadata": {"garden": "north"}}),
    "incomplete": (
        Reply(
            (Choice("Ferns and"),),
            {"status": "incomplete", "incomplete_details": {"reason": "max_output_tokens"}},
        ),
        {},
    ),
    "chunked": (Reply((Choice(LONG[:170]),), delivery=Delivery(chunk=17, piece=9)), {}),
    "carriage returns": (Reply((Choice(LONG),), delivery=Delivery(newline="\r\n")), {}),
    "comments": (Reply((Choice(LONG),), delivery=Delivery(comments=True)), {}),
}


class TestBenign:
    """Responses that nobody minds."""

    @pytest.mark.parametrize("way", WAYS)
    @pytest.mark.parametrize("case", CASES)
    async def test_equal(
        self, openai_sides: Sides, backend: ScriptedApp, case: str, way: Callable[..., Any]
    ) -> None:
        """The guarded client gives what the plain one gives, field by field, event by event."""
        reply, extra = CASES[case]
        if way is helper and case == "incomplete":
            pytest.skip("the SDK's helper wants `response.completed`")
        backend.script(PROMPT, reply)
        plain, guarded = [await way(side, ASKED | extra) for side in openai_sides]
        assert guarded == plain

    async def test_parse(self, openai_sides: Sides, backend: ScriptedApp) -> None:
        """A model of pydantic's is filled alike, whole and from a stream."""
        backend.script(PROMPT, DOCUMENT)
        for side in openai_sides:
            api = side.client.responses
            done = await side.settled(api.parse(**ASKED, text_format=Plant))
            assert done.output_parsed == Plant.model_validate_json(DOCUMENT)
            async with side.opened(api.stream(**ASKED, text_format=Plant)) as stream:
                final = await side.settled(stream.get_final_response())
            assert final.output_parsed == done.output_parsed

    async def test_types(self, openai_sides: Sides, backend: ScriptedApp) -> None:
        """Results are of the SDK's own types."""
        backend.script(PROMPT, "Ferns.")
        for way in ({}, {"stream": True}):
            given = []
            for side in openai_sides:
                result = await side.settled(side.client.responses.create(**ASKED, **way))
                given.append(type(result))
                if way:
                    await side.listed(result)
            assert given[0] is given[1]


USAGE: Final = {
    "input_tokens": 5,
    "input_tokens_details": {"cached_tokens": 0},
    "output_tokens": 7,
    "output_tokens_details": {"reasoning_tokens": 0},
    "total_tokens": 12,
}


def joined(events: list[dict[str, Any]]) -> dict[str, str]:
    """Return every text that a stream's deltas bring, by its place."""
    texts: dict[str, str] = {}
    for event in events:
        if event["type"].endswith(".delta"):
            kind = event["type"].removeprefix("response.").removesuffix(".delta")
            name = f"{event['output_index']}.{event.get('content_index')}.{kind}"
            texts[name] = texts.get(name, "") + event["delta"]
    return texts


REWRITTEN: Final[dict[str, tuple[Choice | str, Choice | str]]] = {
    "redacted": ("Say zredact now.", "Say [redacted: to redact] now."),
    "redacted within": (f"{LONG} Say zredact.", f"{LONG} Say [redacted: to redact]."),
    "excised": ("Ferns grow. Then zexcise. Ivy grows.", "Ferns grow. Ivy grows."),
    "reasoning": (
        Choice("Ferns.", reasoning="So zredact."),
        Choice("Ferns.", reasoning="So [redacted: to redact]."),
    ),
    "refusal": (Choice(refusal="No zredact."), Choice(refusal="No [redacted: to redact].")),
    "tool": (
        Choice(tool_calls=(call("zredact"),)),
        Choice(tool_calls=(call("[redacted: to redact]"),)),
    ),
}


class TestRewritten:
    """Responses of which a part is mended."""

    @pytest.mark.parametrize("case", REWRITTEN)
    async def test_whole(self, openai_sides: Sides, backend: ScriptedApp, case: str) -> None:
        """The answer is as if the backend had said the mended text."""
        bad, mended = REWRITTEN[case]
        backend.script(PROMPT, said(bad, USAGE), said(mended, USAGE))
        plain, guarded = openai_sides
        assert await create(guarded, ASKED) == await create(plain, ASKED)

    @pytest.mark.parametrize("case", REWRITTEN)
    async def test_stream(self, openai_sides: Sides, backend: ScriptedApp, case: str) -> None:
        """Deltas bring the mended text, all that repeats it does, and so does the final object."""
        bad, mended = REWRITTEN[case]
        backend.script(
            PROMPT, said(bad, USAGE), said(mended, USAGE), said(bad, USAGE), said(mended, USAGE)
        )
        plain, guarded = openai_sides
        events, expected = [await create_stream(one, ASKED) for one in (guarded, plain)]
        assert joined(events) == joined(expected)
        others = [
            [
                event | {"sequence_number": 0}
                for event in listed
                if not event["type"].endswith(".delta")
            ]
            for listed in (events, expected)
        ]
        assert others[0] == others[1]
        (_, final), (_, wanted) = [await helper(one, ASKED) for one in (guarded, plain)]
        assert final == wanted

    async def test_logprobs(self, openai_sides: Sides, backend: ScriptedApp) -> None:
        """Tokens of a text that is rewritten are not delivered."""
        backend.script(PROMPT, "Say zredact now.")
        _, guarded = openai_sides
        scored = ASKED | {"include": ["message.output_text.logprobs"]}
        for way in (create, create_stream, helper):
            assert "zredact" not in json.dumps(await way(guarded, scored))

    async def test_structured(self, openai_sides: Sides, backend: ScriptedApp) -> None:
        """A document stays one, with the mended text in it."""
        backend.script(PROMPT, DOCUMENT.replace("no sun", "zredact"))
        _, side = openai_sides
        api = side.client.responses
        done = await side.settled(api.parse(**ASKED, text_format=Plant))
        assert done.output_parsed.notes == ["likes shade", "[redacted: to redact]"]
        async with side.opened(api.stream(**ASKED, text_format=Plant)) as stream:
            final = await side.settled(stream.get_final_response())
        assert final.output_parsed == done.output_parsed


BLOCKED: Final = {
    "text": Choice("Say zblock now."),
    "reasoning": Choice("Ferns.", reasoning="So zblock."),
    "refusal": Choice(refusal="No zblock."),
    "tool": Choice(tool_calls=(call("zblock"),)),
    "second tool": Choice(tool_calls=(call("fern"), call("zblock"))),
    "name of a tool": Choice(tool_calls=(ToolCall("zblock", "{}"),)),
}


def told(response: dict[str, Any]) -> list[str]:
    """Return every refusal of a response."""
    return [
        part["refusal"]
        for item in response["output"]
        if item["type"] == "message"
        for part in item["content"]
        if part["type"] == "refusal"
    ]


class TestBlocked:
    """Responses that are withheld."""

    @pytest.mark.parametrize("case", BLOCKED)
    async def test_whole(self, openai_sides: Sides, backend: ScriptedApp, case: str) -> None:
        """A refusal is all that is said; usage and the rest stay."""
        backend.script(PROMPT, BLOCKED[case])
        plain, side = openai_sides
        given = await side.settled(side.client.responses.create(**ASKED))
        assert type(given) is Response
        assert (given.status, given.output_text) == ("completed", "")
        assert told(dump(given)) == ["[blocked]"]
        assert len(given.output) == 1
        assert (given.model_extra or {})["guard"]["action"] == "block"
        assert "zblock" not in given.model_dump_json()
        expected = await create(plain, ASKED)
        kept = ("id", "created_at", "model", "usage", "object", "metadata", "tools")
        assert {key: dump(given)[key] for key in kept} == {key: expected[key] for key in kept}

    @pytest.mark.parametrize("case", BLOCKED)
    async def test_stream(self, openai_sides: Sides, backend: ScriptedApp, case: str) -> None:
        """The stream ends as `completed` with the refusal, its usage stays; the helper agrees."""
        backend.script(PROMPT, BLOCKED[case])
        plain, guarded = openai_sides
        events, final = await helper(guarded, ASKED)
        assert told(final) == ["[blocked]"]
        assert [event["type"] for event in events[-1:]] == ["response.completed"]
        assert "".join(e["delta"] for e in events if e["type"] == "response.refusal.delta") == (
            "[blocked]"
        )
        assert events[-1]["response"]["usage"] == (await create(plain, ASKED))["usage"]
        assert "zblock" not in json.dumps([events, final])
        numbers = [event["sequence_number"] for event in events]
        assert numbers == sorted(set(numbers))

    async def test_partly_delivered(
        self, openai_sides: Sides, make_guard: Callable[..., Guard], backend: ScriptedApp
    ) -> None:
        """What had left stands, and a refusal stands behind it."""
        text = f"{LONG}Say zblock now. {LONG}"
        backend.script(PROMPT, text)
        _, side = openai_sides
        async with side.opened(side.client.responses.stream(**ASKED)) as stream:
            events = await side.listed(stream)
            final = await side.settled(stream.get_final_response())
        left = make_guard().check(text).streamed.removesuffix("\n\n[blocked]")
        deltas = [event.delta for event in events if event.type == "response.output_text.delta"]
        assert "".join(deltas) == final.output_text == left
        assert told(dump(final)) == ["[blocked]"]

    async def test_parse(self, openai_sides: Sides, backend: ScriptedApp) -> None:
        """Whoever wants a document gets a refusal, whole and from a stream."""
        backend.script(PROMPT, DOCUMENT.replace("no sun", "zblock"))
        _, side = openai_sides
        api = side.client.responses
        done = await side.settled(api.parse(**ASKED, text_format=Plant))
        async with side.opened(api.stream(**ASKED, text_format=Plant)) as stream:
            final = await side.settled(stream.get_final_response())
        for response in (done, final):
            assert (response.output_parsed, told(dump(response))) == (None, ["[blocked]"])

    async def test_replaced(self, openai_sides: Sides, backend: ScriptedApp) -> None:
        """A replacement is an answer; a document's place it takes as a refusal."""
        _, side = openai_sides
        backend.script(PROMPT, "Say zreplace now.")
        api = side.client.responses
        whole = await side.settled(api.create(**ASKED))
        async with side.opened(api.stream(**ASKED)) as stream:
            final = await side.settled(stream.get_final_response())
        assert whole.output_text == final.output_text == "[replaced]"
        assert told(dump(whole)) == told(dump(final)) == []
        backend.script(PROMPT, DOCUMENT.replace("no sun", "zreplace"))
        done = await side.settled(api.parse(**ASKED, text_format=Plant))
        assert (done.output_parsed, told(dump(done))) == (None, ["[replaced]"])

    async def test_incomplete(
        self,
        openai_sides: Sides,
        make_guard: Callable[..., Guard],
        backend: ScriptedApp,
    ) -> None:
        """With the other style the response is incomplete, and the SDK's helper raises."""
        plain, _ = openai_sides
        style = Style(responses="incomplete")
        side = Side(make_guard().wrap(plain.client, style=style))
        backend.script(PROMPT, "Say zblock now.")
        whole = await create(side, ASKED)
        events = await create_stream(side, ASKED)
        for response in (whole, events[-1]["response"]):
            assert response["status"] == "incomplete"
            assert response["incomplete_details"] == {"reason": "content_filter"}
            assert told(response) == ["[blocked]"]
        assert events[-1]["type"] == "response.incomplete"
        with pytest.raises(RuntimeError, match=r"response\.completed"):
            await helper(side, ASKED)

    async def test_instructions_may_be_repeated(
        self, openai_sides: Sides, backend: ScriptedApp
    ) -> None:
        """What the caller wrote comes back with the response, whatever words are in it."""
        backend.script(PROMPT, "Ferns.")
        request = ASKED | {"instructions": "Never say zblock.", "metadata": {"note": "zblock"}}
        for way in (create, create_stream):
            plain, guarded = [await way(side, request) for side in openai_sides]
            assert guarded == plain

    @pytest.mark.parametrize("number", range(2))
    async def test_every_item(self, openai_sides: Sides, backend: ScriptedApp, number: int) -> None:
        """A bad text in whichever place of any item is not delivered, whole or from a stream."""
        places: list[str] = []

        def note(path: str) -> str:
            places.append(path)
            return benign(path)

        samples.every_response_item(note)
        _, guarded = openai_sides
        way = (create, create_stream)[number]
        for place in places:
            output = samples.every_response_item(bad_at(place))
            backend.script(PROMPT, Reply(changes=output))
            given = json.dumps(await way(guarded, ASKED))
            assert "zblock" not in given, place
            assert "[blocked]" in given, place
