"""Responses, read by OpenAI's own clients and checked against the SDK's types."""

from __future__ import annotations

import json
import typing
from typing import TYPE_CHECKING, Any, Final

import pytest
from openai.types.responses import Response, ResponseOutputItem, ResponseStreamEvent
from pydantic import BaseModel, TypeAdapter

from guard.exchange import Choice, ToolCall
from guard.server.scripted import Reply, responses, samples

if TYPE_CHECKING:
    from collections.abc import Callable

    import httpx2
    from openai import AsyncOpenAI, OpenAI

    from guard.server.scripted import ScriptedApp

    Post = Callable[[str, dict[str, Any]], list[dict[str, Any]]]

PROMPT: Final = "How deep is the mill pond?"
PATH: Final = "/v1/responses"
FULL = Choice(
    "About two metres; “three” in spring. 🌊",
    reasoning="The pond by the mill, I think.",
    tool_calls=(ToolCall("measure", '{"pond": "mill"}'), ToolCall("note", "{}", "call_own")),
)

REPEATS: Final = {
    "response.code_interpreter_call_code": "code",
    "response.custom_tool_call_input": "input",
    "response.function_call_arguments": "arguments",
    "response.mcp_call_arguments": "arguments",
    "response.output_text": "text",
    "response.reasoning_summary_text": "text",
    "response.reasoning_text": "text",
    "response.refusal": "refusal",
    "response.shell_call_command": "command",
}
"""Stems of events whose deltas a closing event repeats, and the key that it does it under."""


class Pond(BaseModel):
    """A structured answer."""

    name: str
    metres: float


def said(path: str) -> str:
    """Return a text that names its channel."""
    return f"Words in {path}, naïve ones."


def kinds(union: Any) -> set[str]:
    """Return the `type` of every member of one of the SDK's unions."""
    members = typing.get_args(typing.get_args(union)[0])
    return {typing.get_args(one.model_fields["type"].annotation)[0] for one in members}


class TestWhole:
    """Without a stream."""

    def test_has_every_field(self, openai: OpenAI, backend: ScriptedApp) -> None:
        """Reasoning, text and calls are items, and the usage adds up."""
        backend.script(PROMPT, FULL)
        response = openai.responses.create(model="pond-1", input=PROMPT)
        reasoning, message, *calls = [item.to_dict() for item in response.output]
        assert reasoning["content"] == [{"type": "reasoning_text", "text": FULL.reasoning}]
        assert message["role"] == "assistant"
        assert [(call["name"], call["arguments"]) for call in calls] == [
            (call.name, call.arguments) for call in FULL.tool_calls
        ]
        assert response.output_text == FULL.content
        assert (response.model, response.status, response.error) == ("pond-1", "completed", None)
        usage = response.usage
        assert usage is not None
        assert usage.total_tokens == usage.input_tokens + usage.output_tokens > 0

    def test_fits_the_sdk_strictly(self, http: httpx2.Client, backend: ScriptedApp) -> None:
        """Every item at once passes the SDK's own types, nothing coerced."""
        backend.script(PROMPT, Reply(changes=samples.every_response_item(said)))
        Response.model_validate(http.post(PATH, json={"input": PROMPT}).json(), strict=True)

    def test_samples_have_every_item_that_carries_text(self) -> None:
        """Of all items that the SDK knows only four are missing, which no model writes."""
        sampled = {item["type"] for item in samples.every_response_item(said)["output"]}
        assert kinds(ResponseOutputItem) - sampled == {
            "additional_tools",
            "computer_call_output",
            "mcp_approval_response",
            "tool_search_output",
        }

    def test_refuses(self, openai: OpenAI, backend: ScriptedApp) -> None:
        """A refusal is a part of the message."""
        backend.script(PROMPT, Choice(refusal="I would rather not measure it."))
        response = openai.responses.create(model="m", input=PROMPT)
        assert response.output[0].to_dict()["content"] == [
            {"type": "refusal", "refusal": "I would rather not measure it."}
        ]
        assert not response.output_text

    def test_parses_structured_output(self, openai: OpenAI, backend: ScriptedApp) -> None:
        """`parse` gives an object of the class asked for."""
        backend.script(PROMPT, '{"name": "mill", "metres": 2.5}')
        response = openai.responses.parse(model="m", input=PROMPT, text_format=Pond)
        assert response.output_parsed == Pond(name="mill", metres=2.5)

    def test_reads_the_last_user_item(self, openai: OpenAI, backend: ScriptedApp) -> None:
        """Input may be items, and what comes after the user's counts for nothing."""
        backend.script(PROMPT, "found")
        given: Any = [
            {"role": "user", "content": "earlier"},
            {"role": "user", "content": [{"type": "input_text", "text": PROMPT}]},
            {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"},
            {"type": "function_call_output", "call_id": "c", "output": "two"},
        ]
        assert openai.responses.create(model="m", input=given).output_text == "found"

    async def test_answers_the_asynchronous_client(
        self, openai_async: AsyncOpenAI, backend: ScriptedApp
    ) -> None:
        """The asynchronous client gets the same response."""
        backend.script(PROMPT, "Two metres.")
        response = await openai_async.responses.create(model="m", input=PROMPT)
        assert response.output_text == "Two metres."


class TestStream:
    """As events."""

    @pytest.mark.parametrize("background", [False, True])
    def test_fits_the_sdk_strictly(
        self, backend: ScriptedApp, stream_events: Post, *, background: bool
    ) -> None:
        """Every event of every item passes the SDK's own union, nothing coerced."""
        backend.script(PROMPT, Reply(changes=samples.every_response_item(said)))
        request = {"input": PROMPT, "background": background}
        adapter: TypeAdapter[Any] = TypeAdapter(ResponseStreamEvent)
        for event in stream_events(PATH, request):
            read = adapter.validate_python(event, strict=True)
            assert read.type == event["type"]
            assert read.model_dump(warnings="error")

    def test_has_every_kind_of_event(self, backend: ScriptedApp, stream_events: Post) -> None:
        """What the SDK knows is sent; ends that exclude each other are tested below."""
        changes = samples.every_response_item(said)
        for item in (
            responses.item("mcp_call", "mcp_2", status="failed"),
            {"type": "mcp_list_tools"},
        ):
            known = next(one for one in changes["output"] if one["type"] == item["type"])
            changes["output"].append(known | item | {"id": "mcp_failed", "status": "failed"})
        backend.script(PROMPT, Reply(changes=changes))
        events = stream_events(PATH, {"input": PROMPT, "background": True})
        # The API has no item that audio events belong to.
        assert kinds(ResponseStreamEvent) - {event["type"] for event in events} == {
            "error",
            "response.audio.delta",
            "response.audio.done",
            "response.audio.transcript.delta",
            "response.audio.transcript.done",
            "response.failed",
            "response.incomplete",
        }

    def test_has_the_grammar_of_the_api(self, backend: ScriptedApp, stream_events: Post) -> None:
        """Numbers count up, items and parts open before and close after what they hold."""
        backend.script(PROMPT, FULL)
        events = stream_events(PATH, {"input": PROMPT})
        assert [event["sequence_number"] for event in events] == list(range(len(events)))
        names = [event["type"] for event in events if not event["type"].endswith(".delta")]
        call = [
            "response.output_item.added",
            "response.function_call_arguments.done",
            "response.output_item.done",
        ]
        assert names == [
            "response.created",
            "response.in_progress",
            "response.output_item.added",
            "response.content_part.added",
            "response.reasoning_text.done",
            "response.content_part.done",
            "response.output_item.done",
            "response.output_item.added",
            "response.content_part.added",
            "response.output_text.done",
            "response.content_part.done",
            "response.output_item.done",
            *call,
            *call,
            "response.completed",
        ]
        assert "output_text" not in str(events[0]["response"]["output"])

    def test_repeats_texts_as_the_api_does(self, backend: ScriptedApp, stream_events: Post) -> None:
        """Deltas join to the text of their own end, of their part's, their item's and all's."""
        changes = samples.every_response_item(said)
        backend.script(PROMPT, Reply(changes=changes))
        events = stream_events(PATH, {"input": PROMPT})
        for stem, key in REPEATS.items():
            deltas = [event["delta"] for event in events if event["type"] == f"{stem}.delta"]
            ends = [event[key] for event in events if event["type"] == f"{stem}.done"]
            assert len(deltas) > len(ends) > 0, stem
            assert "".join(deltas) == "".join(ends), stem
        parts = [event["part"] for event in events if event["type"].endswith("_part.done")]
        items = [event["item"] for event in events if event["type"].endswith("_item.done")]
        assert items == changes["output"] == events[-1]["response"]["output"]
        held = [[*(one.get("summary") or ()), *(one.get("content") or ())] for one in items]
        assert parts == [part for content in held for part in content]

    def test_opens_items_without_their_texts(
        self, backend: ScriptedApp, stream_events: Post
    ) -> None:
        """What streams in pieces is not there yet when its item or part begins."""
        backend.script(PROMPT, Reply(changes=samples.every_response_item(said)))
        events = stream_events(PATH, {"input": PROMPT})
        opened = {
            event["item"]["type"]: json.dumps(event["item"])
            for event in events
            if event["type"] == "response.output_item.added"
        }
        whole = {kind for kind, item in opened.items() if "Words in" in item}
        streamed = {"message", "reasoning", "function_call", "custom_tool_call", "mcp_call"}
        streamed |= {"code_interpreter_call", "shell_call", "shell_call_output"}
        assert not whole & streamed
        assert {"local_shell_call", "apply_patch_call", "function_call_output"} <= whole

    def test_accumulates_to_the_whole_answer(self, openai: OpenAI, backend: ScriptedApp) -> None:
        """What the SDK's helper ends with is what it gets without a stream."""
        backend.script(PROMPT, Reply(changes=samples.every_response_item(said)))
        whole = openai.responses.create(model="m", input=PROMPT)
        with openai.responses.stream(model="m", input=PROMPT) as stream:
            final = stream.get_final_response()
        assert final.to_dict()["output"] == _parsed(whole.to_dict()["output"])
        assert final.usage == whole.usage
        assert final.output_text == said("output_text")

    def test_parses_structured_output(self, openai: OpenAI, backend: ScriptedApp) -> None:
        """The stream helper parses the accumulated JSON."""
        backend.script(PROMPT, '{"name": "mill", "metres": 2.5}')
        with openai.responses.stream(model="m", input=PROMPT, text_format=Pond) as stream:
            final = stream.get_final_response()
        assert final.output_parsed == Pond(name="mill", metres=2.5)

    def test_sends_an_item_that_nobody_knows(
        self, backend: ScriptedApp, stream_events: Post
    ) -> None:
        """An item of an unknown type comes whole, first and last, with its strings."""
        item = responses.item("dream_call", "dr_1", vision={"text": "a dry pond"})
        backend.script(PROMPT, Reply(changes={"output": [item]}))
        _, _, added, done, end = stream_events(PATH, {"input": PROMPT})
        assert added["item"] == item | {"status": "in_progress"}
        assert done["item"] == item
        assert end["response"]["output"] == [item]

    def test_sends_a_part_that_nobody_knows(
        self, backend: ScriptedApp, stream_events: Post
    ) -> None:
        """A part of an unknown type comes whole, first and last, between known ones."""
        part = {"type": "dream", "vision": "a dry pond"}
        said = responses.message("msg_1", part, responses.output_text("So."))
        backend.script(PROMPT, Reply(changes={"output": [said]}))
        events = stream_events(PATH, {"input": PROMPT})
        parts = [event["part"] for event in events if "content_part" in event["type"]]
        assert parts[:2] == [part, part]
        assert parts[3]["text"] == "So."

    @pytest.mark.parametrize(
        ("status", "fields"),
        [
            ("failed", {"error": {"code": "server_error", "message": "The pond froze."}}),
            ("incomplete", {"incomplete_details": {"reason": "max_output_tokens"}}),
        ],
    )
    def test_ends_as_the_script_says(
        self, openai: OpenAI, backend: ScriptedApp, status: str, fields: dict[str, Any]
    ) -> None:
        """A response that failed or is incomplete ends with that event."""
        backend.script(PROMPT, Reply((Choice("Two"),), {"status": status, **fields}))
        events: list[Any] = list(openai.responses.create(model="m", input=PROMPT, stream=True))
        assert events[-1].type == f"response.{status}"
        assert fields.items() <= events[-1].response.to_dict().items()

    def test_scores_tokens_and_pads(self, backend: ScriptedApp, stream_events: Post) -> None:
        """Log-probabilities and padding come where the request wants them."""
        backend.script(PROMPT, "Two metres.")
        request = {
            "input": PROMPT,
            "include": ["message.output_text.logprobs"],
            "stream_options": {"include_obfuscation": True},
        }
        events = stream_events(PATH, request)
        deltas = [event for event in events if event["type"] == "response.output_text.delta"]
        assert [event["delta"] for event in deltas] == ["Two", " metres", "."]
        assert [event["logprobs"][0]["token"] for event in deltas] == ["Two", " metres", "."]
        assert all(("obfuscation" in event) == (event in deltas) for event in events)
        done = next(event for event in events if event["type"] == "response.output_text.done")
        assert len(done["logprobs"]) == 3

    async def test_answers_the_asynchronous_client(
        self, openai_async: AsyncOpenAI, backend: ScriptedApp
    ) -> None:
        """The asynchronous client streams and accumulates the same."""
        backend.script(PROMPT, FULL)
        stream = await openai_async.responses.create(model="m", input=PROMPT, stream=True)
        deltas = [e.delta async for e in stream if e.type == "response.output_text.delta"]
        assert "".join(deltas) == FULL.content
        async with openai_async.responses.stream(model="m", input=PROMPT) as helper:
            final = await helper.get_final_response()
        assert final.output_text == FULL.content


def _parsed(output: object) -> object:
    """Add the fields that the helper's own classes have."""
    assert isinstance(output, list)
    for item in output:
        if item["type"] == "message":
            item["content"] = [
                part | ({"parsed": None} if part["type"] == "output_text" else {})
                for part in item["content"]
            ]
        elif item["type"] == "function_call":
            item["parsed_arguments"] = None
    return output
