"""OpenAI's clients, guarded and plain, against one backend: what differs is what was judged bad.

Every case runs in every way that the SDK has to ask for it, with synchronous and asynchronous
clients. A benign answer is equal field by field, and a stream event by event. A rewritten one is
equal to what a plain client gets where the backend had said the mended text.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

import openai
import pytest
from openai.types.chat import ChatCompletion

from guard.exchange import Choice, ToolCall
from guard.server.scripted import Delivery, Reply, samples
from guard.wire.detail import Style
from tests.adapters.shared import (
    DOCUMENT,
    LONG,
    PROMPT,
    Plant,
    Side,
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

TOOL: Final = {
    "type": "function",
    "function": {
        "name": "look_up",
        "strict": True,
        "parameters": {
            "type": "object",
            "properties": {"query": {"type": "string"}},
            "required": ["query"],
            "additionalProperties": False,
        },
    },
}
SCHEMA: Final = {
    "type": "json_schema",
    "json_schema": {"name": "plant", "schema": Plant.model_json_schema(), "strict": True},
}


def raised(error: Exception) -> list[str]:
    """Return what is compared of an exception."""
    return [type(error).__name__, str(error)]


# Ways to ask for chat completions.

ASKED: Final = {"model": "m", "messages": [{"role": "user", "content": PROMPT}]}


async def create(side: Side, request: dict[str, Any]) -> Any:
    """Ask for a whole completion."""
    return dump(await side.settled(side.client.chat.completions.create(**request)))


async def create_stream(side: Side, request: dict[str, Any]) -> Any:
    """Ask for chunks."""
    create = side.client.chat.completions.create
    stream = await side.settled(create(**request, stream=True))
    return [dump(chunk) async for chunk in side.each(stream)]


async def counted_stream(side: Side, request: dict[str, Any]) -> Any:
    """Ask for chunks with usage and padding."""
    options = {"include_usage": True, "include_obfuscation": True}
    return await create_stream(side, request | {"stream_options": options})


async def helper(side: Side, request: dict[str, Any]) -> Any:
    """Use the helper that puts chunks together."""
    given = {name: value for name, value in request.items() if name != "response_format"}
    try:
        async with side.opened(side.client.chat.completions.stream(**given)) as stream:
            events = [dump(event) async for event in side.each(stream)]
            final = dump(await side.settled(stream.get_final_completion()))
    except (openai.OpenAIError, AttributeError) as error:
        # The helper has an error of its own where a custom tool is called.
        return raised(error)
    return events, final


async def raw(side: Side, request: dict[str, Any]) -> Any:
    """Ask for the HTTP response, whole."""
    create = side.client.chat.completions.with_raw_response.create
    answer = await side.settled(create(**request))
    return [answer.status_code, answer.request_id, headers(answer), dump(answer.parse())]


async def raw_stream(side: Side, request: dict[str, Any]) -> Any:
    """Ask for the HTTP response of a stream."""
    create = side.client.chat.completions.with_raw_response.create
    answer = await side.settled(create(**request, stream=True))
    return [dump(chunk) async for chunk in side.each(answer.parse())]


async def streaming(side: Side, request: dict[str, Any]) -> Any:
    """Read the HTTP response's lines as they come."""
    create = side.client.chat.completions.with_streaming_response.create
    async with side.opened(create(**request, stream=True)) as answer:
        return lines(await side.listed(answer.iter_lines()))


async def streaming_whole(side: Side, request: dict[str, Any]) -> Any:
    """Read the HTTP response's text."""
    create = side.client.chat.completions.with_streaming_response.create
    async with side.opened(create(**request)) as answer:
        return await side.settled(answer.text())


WAYS: Final = [
    create,
    create_stream,
    counted_stream,
    helper,
    raw,
    raw_stream,
    streaming,
    streaming_whole,
]

CASES: Final[dict[str, tuple[Any, dict[str, Any]]]] = {
    "text": ("Ferns.", {}),
    "long": (LONG, {}),
    "nothing": (Choice(), {}),
    "refusal": (Choice(refusal="I do not rank plants."), {}),
    "reasoning": (Choice("Ferns.", reasoning="They mean a garden. " * 9), {}),
    "tool": (Choice(tool_calls=(call("fern"),)), {"tools": [TOOL]}),
    "parallel tools": (
        Choice("Let me look.", tool_calls=(call("fern"), call("ivy", deep=[1]))),
        {"tools": [TOOL], "parallel_tool_calls": True},
    ),
    "choices": (
        Reply((Choice("Ferns. Or ivy."), Choice(LONG), Choice(tool_calls=(call("ivy"),)))),
        {"n": 3},
    ),
    "logprobs": (Reply((Choice(LONG[:200]), Choice(refusal="No."))), {"n": 2, "logprobs": True}),
    "structured": (DOCUMENT, {"response_format": SCHEMA}),
    "every channel": (Reply(changes=samples.every_chat_choice(benign)), {}),
    "length": (
        Reply(
            changes={
                "choices": [
                    {"index": 0, "message": {"role": "assistant", "content": "Ferns and"}}
                    | {"logprobs": None, "finish_reason": "length"}
                ]
            }
        ),
        {},
    ),
    "chunked": (Reply((Choice(LONG[:170]),), delivery=Delivery(chunk=17, piece=9)), {}),
    "carriage returns": (Reply((Choice(LONG),), delivery=Delivery(newline="\r\n")), {}),
    "comments": (Reply((Choice(LONG),), delivery=Delivery(comments=True)), {}),
}


class TestChatBenign:
    """Chat completions that nobody minds."""

    @pytest.mark.parametrize("way", WAYS)
    @pytest.mark.parametrize("case", CASES)
    async def test_equal(
        self, openai_sides: Sides, backend: ScriptedApp, case: str, way: Callable[..., Any]
    ) -> None:
        """The guarded client gives what the plain one gives, field by field, event by event."""
        reply, extra = CASES[case]
        backend.script(PROMPT, reply)
        plain, guarded = [await way(side, ASKED | extra) for side in openai_sides]
        assert guarded == plain

    async def test_parse(self, openai_sides: Sides, backend: ScriptedApp) -> None:
        """A model of pydantic's is filled alike, whole and from a stream."""
        backend.script(PROMPT, DOCUMENT)
        for side in openai_sides:
            completions = side.client.chat.completions
            done = await side.settled(completions.parse(**ASKED, response_format=Plant))
            parsed = done.choices[0].message.parsed
            assert parsed == Plant.model_validate_json(DOCUMENT)
            async with side.opened(completions.stream(**ASKED, response_format=Plant)) as stream:
                final = await side.settled(stream.get_final_completion())
            assert final.choices[0].message.parsed == parsed

    async def test_parsed_tools(self, openai_sides: Sides, backend: ScriptedApp) -> None:
        """Arguments of a tool that is a model of pydantic's are filled alike."""
        given = json.dumps({"name": "fern", "months": 7, "notes": []})
        backend.script(PROMPT, Choice(tool_calls=(ToolCall("Plant", given),)))
        tools = [openai.pydantic_function_tool(Plant)]
        found = []
        for side in openai_sides:
            parse = side.client.chat.completions.parse
            done = await side.settled(parse(**ASKED, tools=tools))
            found.append(done.choices[0].message.tool_calls[0].function.parsed_arguments)
        assert found == [Plant(name="fern", months=7, notes=[])] * 2

    async def test_types(self, openai_sides: Sides, backend: ScriptedApp) -> None:
        """Results are of the SDK's own types."""
        backend.script(PROMPT, "Ferns.")
        plain, guarded = openai_sides
        for way in ({}, {"stream": True}):
            given = []
            for side in (plain, guarded):
                result = await side.settled(side.client.chat.completions.create(**ASKED, **way))
                given.append(type(result))
                if way:
                    await side.listed(result)
            assert given[0] is given[1]


USAGE: Final = {"prompt_tokens": 5, "completion_tokens": 7, "total_tokens": 12}


def joined(chunks: list[dict[str, Any]]) -> dict[str, str]:
    """Return every text that a stream of chunks brings, by its name."""
    texts: dict[str, str] = {}
    for chunk in chunks:
        for choice in chunk["choices"]:
            for name, value in choice["delta"].items():
                if isinstance(value, str) and name != "role":
                    texts[f"{choice['index']}.{name}"] = (
                        texts.get(f"{choice['index']}.{name}", "") + value
                    )
            for tool in choice["delta"]["tool_calls"] or ():
                name = f"{choice['index']}.tools[{tool['index']}]"
                arguments = (tool["function"] or {}).get("arguments") or ""
                texts[name] = texts.get(name, "") + arguments
    return {name: text for name, text in texts.items() if text}


REWRITTEN: Final[dict[str, tuple[Choice, Choice]]] = {
    "redacted": (Choice("Say zredact now."), Choice("Say [redacted: to redact] now.")),
    "redacted within": (
        Choice(f"{LONG} Say zredact."),
        Choice(f"{LONG} Say [redacted: to redact]."),
    ),
    "excised": (
        Choice("Ferns grow. Then zexcise. Ivy grows."),
        Choice("Ferns grow. Ivy grows."),
    ),
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


class TestChatRewritten:
    """Chat completions of which a part is mended."""

    @pytest.mark.parametrize("case", REWRITTEN)
    async def test_whole(self, openai_sides: Sides, backend: ScriptedApp, case: str) -> None:
        """The answer is as if the backend had said the mended text."""
        bad, mended = REWRITTEN[case]
        backend.script(PROMPT, said(bad, USAGE), said(mended, USAGE))
        plain, guarded = openai_sides
        assert await create(guarded, ASKED) == await create(plain, ASKED)

    @pytest.mark.parametrize("case", REWRITTEN)
    async def test_stream(self, openai_sides: Sides, backend: ScriptedApp, case: str) -> None:
        """The chunks bring the mended text, and the helper's final object is equal."""
        bad, mended = REWRITTEN[case]
        backend.script(
            PROMPT, said(bad, USAGE), said(mended, USAGE), said(bad, USAGE), said(mended, USAGE)
        )
        plain, guarded = openai_sides
        texts, expected = [joined(await create_stream(one, ASKED)) for one in (guarded, plain)]
        assert texts == expected
        (_, final), (_, wanted) = [await helper(one, ASKED) for one in (guarded, plain)]
        assert final == wanted

    async def test_logprobs(self, openai_sides: Sides, backend: ScriptedApp) -> None:
        """Tokens of a text that is rewritten are not delivered; those of another choice are."""
        backend.script(PROMPT, Reply((Choice("Say zredact."), Choice("Ferns."))))
        _, guarded = openai_sides
        scored = ASKED | {"n": 2, "logprobs": True}
        whole = await create(guarded, scored)
        chunks = await create_stream(guarded, scored)
        assert "zredact" not in json.dumps([whole, chunks])
        assert not whole["choices"][0]["logprobs"]
        assert whole["choices"][1]["logprobs"]["content"]

    async def test_structured(self, openai_sides: Sides, backend: ScriptedApp) -> None:
        """A document stays one, with the mended text in it."""
        backend.script(PROMPT, DOCUMENT.replace("no sun", "zredact"))
        for side in openai_sides[1:]:
            completions = side.client.chat.completions
            done = await side.settled(completions.parse(**ASKED, response_format=Plant))
            assert done.choices[0].message.parsed.notes == ["likes shade", "[redacted: to redact]"]
            async with side.opened(completions.stream(**ASKED, response_format=Plant)) as stream:
                final = await side.settled(stream.get_final_completion())
            assert final.choices[0].message.parsed == done.choices[0].message.parsed


BLOCKED: Final = {
    "text": Choice("Say zblock now."),
    "reasoning": Choice("Ferns.", reasoning="So zblock."),
    "refusal": Choice(refusal="No zblock."),
    "tool": Choice(tool_calls=(call("zblock"),)),
    "second tool": Choice(tool_calls=(call("fern"), call("zblock"))),
    "name of a tool": Choice(tool_calls=(ToolCall("zblock", "{}"),)),
}


class TestChatBlocked:
    """Chat completions that are withheld."""

    @pytest.mark.parametrize("case", BLOCKED)
    async def test_whole(self, openai_sides: Sides, backend: ScriptedApp, case: str) -> None:
        """The message is content and refusal, the rest is as the backend gave it."""
        backend.script(PROMPT, BLOCKED[case])
        plain, guarded = openai_sides
        given = await guarded.settled(guarded.client.chat.completions.create(**ASKED))
        assert type(given) is ChatCompletion
        choice = given.choices[0]
        assert (choice.message.content, choice.message.refusal) == ("[blocked]", "[blocked]")
        assert choice.message.tool_calls is None
        assert choice.finish_reason == "stop"
        assert (given.model_extra or {})["guard"]["action"] == "block"
        assert "zblock" not in given.model_dump_json()
        kept = ("id", "created", "model", "usage", "object", "service_tier", "system_fingerprint")
        expected = await create(plain, ASKED)
        assert {name: dump(given)[name] for name in kept} == {name: expected[name] for name in kept}

    @pytest.mark.parametrize("case", BLOCKED)
    async def test_stream(self, openai_sides: Sides, backend: ScriptedApp, case: str) -> None:
        """The stream ends with the message, its usage stays; the helper gives both."""
        backend.script(PROMPT, BLOCKED[case])
        plain, guarded = openai_sides
        chunks = await counted_stream(guarded, ASKED)
        texts = joined(chunks)
        assert (texts["0.content"], texts["0.refusal"]) == ("[blocked]", "[blocked]")
        assert texts.keys() == {"0.content", "0.refusal"}
        ends = [c["finish_reason"] for chunk in chunks for c in chunk["choices"]]
        assert [end for end in ends if end] == ["stop"]
        assert chunks[-1]["usage"] == (await counted_stream(plain, ASKED))[-1]["usage"]
        assert "zblock" not in json.dumps(chunks)
        _, final = await helper(guarded, ASKED)
        message = final["choices"][0]["message"]
        assert (message["content"], message["refusal"]) == ("[blocked]", "[blocked]")
        assert message["tool_calls"] is None

    async def test_partly_delivered(
        self, openai_sides: Sides, make_guard: Callable[..., Guard], backend: ScriptedApp
    ) -> None:
        """What had left stands, and the message ends it; a whole answer is withheld whole."""
        text = f"{LONG}Say zblock now. {LONG}"
        backend.script(PROMPT, text)
        _, guarded = openai_sides
        streamed = joined(await create_stream(guarded, ASKED))["0.content"]
        assert streamed == make_guard().check(text).streamed
        assert streamed.startswith(LONG[:200])
        assert streamed.endswith("\n\n[blocked]")
        assert (await create(guarded, ASKED))["choices"][0]["message"]["content"] == "[blocked]"

    async def test_parse(self, openai_sides: Sides, backend: ScriptedApp) -> None:
        """Whoever wants a document gets a refusal, whole and from a stream."""
        backend.script(PROMPT, DOCUMENT.replace("no sun", "zblock"))
        for side in openai_sides[1:]:
            completions = side.client.chat.completions
            done = await side.settled(completions.parse(**ASKED, response_format=Plant))
            async with side.opened(completions.stream(**ASKED, response_format=Plant)) as stream:
                final = await side.settled(stream.get_final_completion())
            for message in (done.choices[0].message, final.choices[0].message):
                assert (message.parsed, message.refusal) == (None, "[blocked]")

    async def test_replaced(self, openai_sides: Sides, backend: ScriptedApp) -> None:
        """A replacement is an answer, not a refusal; a document's place it takes as a refusal."""
        _, guarded = openai_sides
        backend.script(PROMPT, "Say zreplace now.")
        message = (await create(guarded, ASKED))["choices"][0]["message"]
        assert (message["content"], message["refusal"]) == ("[replaced]", None)
        assert joined(await create_stream(guarded, ASKED)) == {"0.content": "[replaced]"}
        backend.script(PROMPT, DOCUMENT.replace("no sun", "zreplace"))
        completions = guarded.client.chat.completions
        done = await guarded.settled(completions.parse(**ASKED, response_format=Plant))
        assert done.choices[0].message.refusal == "[replaced]"

    @pytest.mark.parametrize("way", [create, create_stream])
    async def test_other_choices_stay(
        self, openai_sides: Sides, backend: ScriptedApp, way: Callable[..., Any]
    ) -> None:
        """One bad choice of three is withheld; the others are as they were."""
        three = Reply((Choice("Ferns."), Choice("Say zblock."), Choice("Ivy.")))
        backend.script(PROMPT, three)
        plain, guarded = [await way(side, ASKED | {"n": 3}) for side in openai_sides]
        if way is create_stream:
            texts = joined(guarded)
            assert texts.pop("1.refusal") == texts["1.content"] == "[blocked]"
            assert texts == joined(plain) | {"1.content": "[blocked]"}
            return
        assert guarded["choices"][1]["message"]["content"] == "[blocked]"
        for index in (0, 2):
            assert guarded["choices"][index] == plain["choices"][index]

    async def test_content_filter(
        self, new_openai: Callable[..., Any], make_guard: Callable[..., Guard], backend: ScriptedApp
    ) -> None:
        """With the other style `create` returns the message and helpers raise the SDK's error."""
        side = Side(make_guard().wrap(new_openai(), style=Style(chat="content_filter")))
        backend.script(PROMPT, DOCUMENT.replace("no sun", "zblock"))
        completions = side.client.chat.completions
        done = await create(side, ASKED)
        assert done["choices"][0]["finish_reason"] == "content_filter"
        assert done["choices"][0]["message"]["content"] == "[blocked]"
        with pytest.raises(openai.ContentFilterFinishReasonError):
            await side.settled(completions.parse(**ASKED, response_format=Plant))
        with pytest.raises(openai.ContentFilterFinishReasonError):
            async with side.opened(completions.stream(**ASKED, response_format=Plant)) as stream:
                await side.settled(stream.get_final_completion())
