"""The Responses API: what leaves of a stream and of a whole response, as OpenAI's SDK reads it."""

from __future__ import annotations

import copy
import json
from contextlib import closing
from typing import TYPE_CHECKING, Any, Final

import httpx2
import openai
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from guard.exchange import Choice, Message, ToolCall
from guard.journal.store import Journal
from guard.server.scripted import Delivery, Reply, responses, samples
from guard.wire.detail import Style
from guard.wire.formats import FORMATS, Call, format_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from guard.detectors.base import Finding, Passage
    from guard.engine import Guard
    from guard.steps import Steps

    Pass = Callable[..., bytes]
    Json = dict[str, Any]

PROMPT: Final = "How deep is the mill pond?"
REQUEST: Final = {"model": "m", "input": PROMPT, "stream": True}
CALM: Final = "The pond is still and the reeds are green. " * 8
"""Some units of text that no detector minds."""

FORMAT: Final = next(each for each in FORMATS if each.name == "responses")

NONSENSE: Final = st.sampled_from(
    [
        *(None, True, -1, 2**70, 0.5, "", "a zblock", [], {}, ["a zblock"], {"a zblock": 1}),
        {"type": "output_text", "text": "a zblock"},
        [{"type": "message", "content": "a zblock"}],
    ]
)

WHOLE: Final = Delivery(piece=10_000)
"""Every text in one piece."""


class Pond(BaseModel):
    """A structured answer."""

    name: str


def body_of(reply: Reply, request: Json = REQUEST) -> Json:
    """Return a whole response."""
    body: Json = responses.FORMAT.body(request, PROMPT, reply)
    return body


def stream_of(
    said: Choice | Json, delivery: Delivery = WHOLE, request: Json = REQUEST
) -> list[Json]:
    """Return the events of a response that says something, or has some `output`."""
    reply = Reply((said,)) if isinstance(said, Choice) else Reply(changes=said)
    events = responses.FORMAT.events(request, body_of(reply, request), delivery)
    return [copy.deepcopy(event.data) for event in events if isinstance(event.data, dict)]


def sse(events: list[Json]) -> bytes:
    """Return events as a backend sends them."""
    texts = [f"event: {event['type']}\ndata: {json.dumps(event)}\n\n" for event in events]
    return "".join(texts).encode()


def read(data: bytes) -> list[Json]:
    """Return the events of a stream."""
    blocks = data.decode().split("\n\n")[:-1]
    return [json.loads(block.partition("data: ")[2]) for block in blocks]


def sdk(data: bytes, kind: str = "text/event-stream") -> openai.OpenAI:
    """Return OpenAI's client, behind which some bytes are the answer to everything."""
    headers = {"content-type": kind}
    transport = httpx2.MockTransport(lambda _: httpx2.Response(200, headers=headers, content=data))
    client = httpx2.Client(transport=transport)
    return openai.OpenAI(api_key="none", base_url="http://x/v1", http_client=client, max_retries=0)


def final(data: bytes) -> Json:
    """Return what the SDK makes of a stream in the end; it must be what its types say."""
    with sdk(data).responses.stream(model="m", input=PROMPT) as stream:
        response: Json = json.loads(stream.get_final_response().model_dump_json())
    return response


def legal(data: bytes) -> list[Json]:
    """Return the events of a stream that opens, numbers and closes everything as it should."""
    events = read(data)
    numbers = [event["sequence_number"] for event in events]
    assert numbers == sorted(set(numbers))
    assert events[0]["type"] == "response.created"
    stack: list[tuple[str, Any]] = []
    for event in events:
        stem, _, state = event["type"].rpartition(".")
        where = (stem, event.get("output_index"))
        if stem.endswith(("_item", "_part")):
            if state == "added":
                stack.append(where)
            else:
                assert stack.pop() == where
    assert stack == []
    assert events[-1]["type"].rpartition(".")[2] in ("completed", "incomplete")
    return events


def types(events: list[Json]) -> list[str]:
    """Return the events' types, shortened."""
    return [event["type"].removeprefix("response.") for event in events]


def released(guard: Guard, steps: Steps) -> bytes:
    """Return what leaves with some steps."""
    texts = []
    while (text := guard.driver.advance(steps)) is not None:
        texts.append(text)
    return "".join(texts).encode()


def words_in(name: str) -> str:
    """Return a text that names its channel."""
    return f"Words in {name}."


def every_channel() -> list[str]:
    """Return the names of all texts of `samples.every_response_item`."""
    names: list[str] = []

    def say(name: str) -> str:
        names.append(name)
        return name

    samples.every_response_item(say)
    return names


def inside(value: Any) -> list[tuple[Any, Any]]:
    """Return what is directly in a value, with its key or number."""
    if isinstance(value, dict):
        return list(value.items())
    return list(enumerate(value)) if isinstance(value, list) else []


def strings(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield the path of every string in a document."""
    if isinstance(value, str):
        yield path
    for key, inner in inside(value):
        yield from strings(inner, (*path, key))


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield the path of everything in a document."""
    for key, inner in inside(value):
        yield (*path, key)
        yield from places(inner, (*path, key))


def changed(document: Json, path: tuple[Any, ...], value: Any) -> Json:
    """Return a document with another value at a path."""
    own: Any = copy.deepcopy(document)
    holder = own
    for key in path[:-1]:
        holder = holder[key]
    holder[path[-1]] = value
    return own  # type: ignore[no-any-return]


@pytest.fixture(scope="module")
def guard(make_guard: Callable[..., Guard]) -> Guard:
    """Return a guard that fires on words."""
    return make_guard()


@pytest.fixture(scope="module")
def through(guard: Guard, pass_stream: Pass) -> Pass:
    """Return what sends events through that guard."""

    def passed(events: list[Json], request: Json = REQUEST, **options: Any) -> bytes:
        return pass_stream(guard, "responses", sse(events), request=request, **options)

    return passed


class TestBenign:
    """What nobody minds leaves as it came."""

    @pytest.mark.parametrize("piece", [0, 3, 10_000])
    def test_stream_is_the_same_bytes(self, through: Pass, piece: int) -> None:
        """Every kind of item passes, however its texts are cut."""
        events = stream_of(samples.every_response_item(words_in), Delivery(piece=piece))
        assert through(events) == sse(events)

    def test_body_is_the_same_bytes(self, guard: Guard, pass_body: Pass) -> None:
        """So does a whole response with its own spacing."""
        data = json.dumps(body_of(Reply(changes=samples.every_response_item(words_in))), indent=2)
        passed = pass_body(guard, "responses", data.encode(), request=REQUEST)
        assert passed == data.encode()

    @given(cuts=st.lists(st.integers(0, 5000), max_size=12))
    def test_no_cutting_changes_it(self, through: Pass, cuts: list[int]) -> None:
        """The bytes of a bad answer, too, may arrive in any pieces."""
        said = Choice(f"{CALM}Now zblock. {CALM}", reasoning=f"Hm, zredact. {CALM}")
        events = stream_of(said, Delivery(piece=40))
        assert through(events, cuts=cuts) == through(events)

    @pytest.mark.parametrize("newline", ["\r\n", "\r"])
    def test_line_ends_are_one_thing(
        self, guard: Guard, pass_stream: Pass, through: Pass, newline: str
    ) -> None:
        """Other line ends come out as LF."""
        events = stream_of(Choice(CALM))
        data = sse(events).replace(b"\n", newline.encode())
        assert pass_stream(guard, "responses", data, request=REQUEST, cuts=1) == through(events)

    def test_a_request_may_be_repeated(
        self, pack_guard: Guard, protected: str, pass_stream: Pass, pass_body: Pass
    ) -> None:
        """The response object holds the request's instructions and tools, which is no leak."""
        tool = {"type": "function", "name": "look up", "description": "Says zblock, always."}
        request = REQUEST | {"instructions": protected, "tools": [tool]}
        events = stream_of(Choice(CALM), request=request)
        data = sse(events)
        assert pass_stream(pack_guard, "responses", data, request=request) == data
        whole = json.dumps(events[-1]["response"]).encode()
        assert pass_body(pack_guard, "responses", whole, request=request) == whole
        leaked = stream_of(Choice(f"{CALM}{protected}"), request=request)
        out = read(pass_stream(pack_guard, "responses", sse(leaked), request=request))
        assert protected in leaked[-1]["response"]["output"][0]["content"][0]["text"]
        assert protected not in json.dumps(out[-1]["response"]["output"])

    def test_shadow_delivers_everything(
        self, make_guard: Callable[..., Guard], pass_stream: Pass
    ) -> None:
        """A class that only watches changes nothing."""
        said = Choice("Now zblock.", reasoning="And zredact.", tool_calls=(ToolCall("zflag", "x"),))
        data = sse(stream_of(said))
        assert pass_stream(make_guard(shadow=True), "responses", data, request=REQUEST) == data


class TestMarker:
    """A text that must not leave is nowhere in what leaves."""

    @pytest.mark.filterwarnings("error")
    @pytest.mark.parametrize("name", every_channel())
    @pytest.mark.parametrize("word", ["zblock", "zredact"])
    def test_in_every_kind_of_item(self, through: Pass, name: str, word: str) -> None:
        """It is redacted everywhere, or the response ends, legally for the SDK and its types."""

        def say(own: str) -> str:
            return f"{words_in(own)} It is {word} here." if own == name else words_in(own)

        events = stream_of(samples.every_response_item(say), Delivery(piece=5))
        out = through(events)
        assert word.encode() not in out
        last = legal(out)[-1]["response"]
        assert last["usage"] == events[-1]["response"]["usage"]
        assert ("guard" in last) == (last["output"][-1]["type"] == "message")
        assert [item["id"] for item in final(out)["output"]] == [i["id"] for i in last["output"]]

    def test_in_any_string_of_any_event(self, through: Pass) -> None:
        """Whatever string of whatever event it is added to."""
        items = samples.every_response_item(words_in)["output"]
        shown = [item for item in items if item["type"] in _SHOWN]
        events = stream_of({"output": shown})
        for number, event in enumerate(events):
            for path in strings(event):
                told = changed(event, path, "Now zblock here.")
                out = through([*events[:number], told, *events[number + 1 :]])
                assert b"zblock" not in out, (event["type"], path)

    def test_in_any_string_of_a_body(self, guard: Guard, pass_body: Pass) -> None:
        """Whatever string of a whole response it is added to."""
        body = body_of(Reply(changes=samples.every_response_item(words_in)))
        for path in strings(body):
            data = json.dumps(changed(body, path, "Now zblock here.")).encode()
            out = pass_body(guard, "responses", data, request=REQUEST)
            assert b"zblock" not in out, path
            assert json.loads(out)["output"][0]["content"][0]["refusal"] == "[blocked]"

    @given(
        sizes=st.lists(st.integers(1, 30), min_size=1, max_size=20),
        place=st.integers(0, len(CALM)),
        word=st.sampled_from(["zblock", "zredact", "zexcise", "zreplace"]),
        kind=st.sampled_from(["output_text", "reasoning", "arguments", "unknown"]),
    )
    def test_cut_across_pieces(
        self, through: Pass, sizes: list[int], place: int, word: str, kind: str
    ) -> None:
        """Half of it in one event and half in the next, in texts that are known or not."""
        text = f"{CALM[:place]} {word} {CALM[place:]}"
        out = through(pieces_of(kind, text, sizes))
        assert word.encode() not in out
        said = "".join(str(event.get("delta", "")) for event in read(out))
        assert word not in said

    def test_in_pieces_around_another_text(self, through: Pass) -> None:
        """A text between its halves hides it from no reader."""
        at = {"output_index": 0, "content_index": 0, "item_id": "m"}
        part = {"type": "output_text", "text": "and"}
        events = [
            *pieces_of("output_text", "Say zbl", [7]),
            {"type": "response.content_part.added", "part": part} | at,
            {"type": "response.output_text.delta", "delta": "ock now"} | at,
        ]
        said = "".join(event.get("delta", "") for event in read(through(events)))
        assert said == "[blocked]"

    def test_in_pieces_with_another_text_beside_them(self, through: Pass) -> None:
        """Nor does one that stands in the same events."""
        events = pieces_of("output_text", "Say zblock now.", [7])
        for event in events[3:]:
            event["text"] = "and"
        said = "".join(event.get("delta", "") for event in read(through(events)))
        assert said == "[blocked]"

    def test_in_pieces_of_one_id(self, through: Pass) -> None:
        """Nor does a text of another item, for readers that go by the items' ids."""
        events = pieces_of("output_text", "Say zblock now.", [7])
        other = [event | {"item_id": "n", "delta": "and"} for event in events[3:]]
        turns = [event for pair in zip(events[3:], other, strict=True) for event in pair]
        out = read(through([*events[:3], *turns]))
        said = [event["delta"] for event in out if event.get("item_id") == "m" and "delta" in event]
        assert "zblock" not in "".join(said)

    def test_in_tokens_beside_a_text(self, through: Pass) -> None:
        """Tokens that are not the text beside them, and alternatives to them, are taken out."""
        events = stream_of(Choice("Green reeds."))
        for event in events:
            holders = [event, event.get("part", {})]
            for item in [event.get("item", {}), *event.get("response", {}).get("output", [])]:
                holders += item.get("content", [])
            for holder in holders:
                if holder.get("logprobs") is not None:
                    holder["logprobs"] = [{"token": "zblock", "logprob": -1.0}]
        out = through(events)
        assert b"zblock" not in out
        assert final(out)["output"][0]["content"][0]["text"] == "Green reeds."

    def test_tokens_of_a_rewritten_text_go_with_it(self, through: Pass) -> None:
        """Where a text is redacted, the tokens that spell it are gone."""
        request = REQUEST | {"include": ["message.output_text.logprobs"]}
        events = stream_of(Choice(f"{CALM}A zredact word."), request=request)
        assert b"zredact" not in through(events, request)


_SHOWN: Final = ("reasoning", "message", "function_call", "web_search_call", "shell_call")


def pieces_of(kind: str, text: str, sizes: list[int]) -> list[Json]:
    """Return a stream's events up to the last piece of a text of some kind."""
    place = {"output_index": 0, "item_id": "m"}
    item, events, at = {
        "output_text": ("message", "response.output_text", {"content_index": 0}),
        "reasoning": ("reasoning", "response.reasoning_text", {"content_index": 0}),
        "arguments": ("function_call", "response.function_call_arguments", {}),
        "unknown": ("haiku", "response.haiku_line", {"line": 3}),
    }[kind]
    begun = stream_of(Choice())[:2]
    added = {"type": "response.output_item.added", "output_index": 0}
    parts, start, number = [], 0, 0
    while start < len(text):
        size = sizes[number % len(sizes)]
        parts.append(text[start : start + size])
        start, number = start + size, number + 1
    return [
        *begun,
        added | {"item": {"type": item, "id": "m", "status": "in_progress"}},
        *({"type": f"{events}.delta", "delta": part} | place | at for part in parts),
    ]


class TestBlock:
    """A response that turns bad ends as readers expect."""

    SAID = Choice(f"{CALM}Now zblock. {CALM}")

    def test_closes_what_is_open_and_refuses_in_the_same_message(self, through: Pass) -> None:
        """What had left stands in every closing event; the refusal is one more part."""
        events = legal(through(stream_of(self.SAID, Delivery(piece=20))))
        said = "".join(e["delta"] for e in events if e["type"] == "response.output_text.delta")
        assert said
        assert CALM.startswith(said)
        number = types(events).index("output_text.done")
        assert types(events)[number:] == [
            "output_text.done",
            "content_part.done",
            "content_part.added",
            "refusal.delta",
            "refusal.done",
            "content_part.done",
            "output_item.done",
            "completed",
        ]
        closing = events[number:]
        assert closing[0]["text"] == closing[1]["part"]["text"] == said
        content = closing[6]["item"]["content"]
        assert [part.get("text", part.get("refusal")) for part in content] == [said, "[blocked]"]
        assert events[-1]["response"]["output"] == [closing[6]["item"]]

    def test_keeps_what_the_backend_says_of_the_response(self, through: Pass) -> None:
        """Identity and usage are the backend's; the verdict is added."""
        given = stream_of(self.SAID)
        last = read(through(given))[-1]["response"]
        known = given[-1]["response"]
        assert {key: last[key] for key in ("id", "model", "usage", "completed_at", "tools")} == {
            key: known[key] for key in ("id", "model", "usage", "completed_at", "tools")
        }
        assert last["guard"]["action"] == "block"

    def test_opens_a_message_where_there_is_none(self, through: Pass) -> None:
        """A bad reasoning is closed as it is, and the refusal is an item of its own."""
        said = Choice("Never said.", reasoning=f"{CALM}Now zblock.")
        events = legal(through(stream_of(said, Delivery(piece=20))))
        thought, told = events[-1]["response"]["output"]
        assert (thought["type"], thought["status"]) == ("reasoning", "incomplete")
        assert CALM.startswith(thought["content"][0]["text"])
        assert told["content"] == [{"type": "refusal", "refusal": "[blocked]"}]
        assert told["status"] == "completed"

    def test_opens_no_part_before_its_text_may_leave(self, through: Pass) -> None:
        """A text that is bad from its start leaves no empty part behind."""
        events = legal(through(stream_of(Choice("Now zblock."))))
        content = events[-1]["response"]["output"][0]["content"]
        assert content == [{"type": "refusal", "refusal": "[blocked]"}]

    def test_replacement_is_a_text(self, through: Pass) -> None:
        """A message in the place of an answer is part of the answer."""
        out = through(stream_of(Choice(f"{CALM}Now zreplace. {CALM}"), Delivery(piece=20)))
        legal(out)
        with sdk(out).responses.stream(model="m", input=PROMPT) as stream:
            text = stream.get_final_response().output_text
        assert text.endswith("\n\n[replaced]")
        assert CALM.startswith(text.removesuffix("\n\n[replaced]"))

    def test_may_end_as_incomplete(self, through: Pass, guard: Guard, pass_body: Pass) -> None:
        """The stricter style says so in the API's own words, in both forms."""
        style = Style(responses="incomplete")
        last = legal(through(stream_of(self.SAID), style=style))[-1]
        assert last["type"] == "response.incomplete"
        whole = json.dumps(body_of(Reply((self.SAID,)))).encode()
        body = json.loads(pass_body(guard, "responses", whole, request=REQUEST, style=style))
        for response in (last["response"], body):
            assert response["status"] == "incomplete"
            assert response["incomplete_details"] == {"reason": "content_filter"}
            assert response["output"][-1]["status"] == "incomplete"

    def test_ends_where_the_backend_does_not(self, through: Pass) -> None:
        """A stream that is cut behind the bad text is ended all the same."""
        given = stream_of(self.SAID, Delivery(piece=20))
        assert final(through(given[:-4]))["status"] == "completed"

    def test_begins_where_nothing_may_leave(self, through: Pass) -> None:
        """Where the very first event is bad the SDK still gets a response."""
        given = stream_of(Choice(CALM))
        given[0]["response"]["metadata"] = {"note": "Now zblock."}
        out = through(given)
        assert types(legal(out))[0] == "created"
        assert final(out)["id"] == given[0]["response"]["id"]

    @pytest.mark.parametrize("kind", ["json_schema", "json_object"])
    def test_half_a_document_never_leaves(self, through: Pass, kind: str) -> None:
        """A structured answer is refused whole, so that nothing tries to parse it."""
        request = REQUEST | {"text": {"format": {"type": kind}}}
        said = Choice(json.dumps({"name": CALM, "of": "zreplace"}))
        out = through(stream_of(said, Delivery(piece=20), request), request)
        legal(out)
        assert b"reeds" not in out
        with sdk(out).responses.stream(model="m", input=PROMPT, text_format=Pond) as stream:
            response = stream.get_final_response()
        assert response.output_parsed is None
        assert response.output[0].to_dict()["content"] == [
            {"type": "refusal", "refusal": "[replaced]"}
        ]

    def test_of_a_body_withholds_all_of_it(self, guard: Guard, pass_body: Pass) -> None:
        """Nothing of a whole response had left, and nothing does."""
        said = Choice(f"{CALM}Now zblock.", CALM, tool_calls=(ToolCall("find", "{}"),))
        whole = body_of(Reply((said,)))
        out = json.loads(pass_body(guard, "responses", json.dumps(whole).encode(), request=REQUEST))
        assert [item["content"] for item in out["output"]] == [
            [{"type": "refusal", "refusal": "[blocked]"}]
        ]
        kept = out.keys() - {"output", "guard"}
        assert {key: out[key] for key in kept} == {key: whole[key] for key in kept}


class TestCalls:
    """Tool calls leave whole, with their own end."""

    CALLED = ToolCall("find", json.dumps({"query": CALM}))

    def test_leave_before_the_response_ends(self, guard: Guard) -> None:
        """A call that is judged waits for nothing that comes behind it."""
        given = stream_of(Choice(tool_calls=(self.CALLED, self.CALLED)), Delivery(piece=20))
        ends = types(given).index("function_call_arguments.done")
        relay = Call(guard, FORMAT, REQUEST).relay()
        before = released(guard, relay.feed(sse(given[:ends])))
        assert b"find" not in before
        behind = released(guard, relay.feed(sse(given[ends : ends + 1])))
        assert before + behind == sse(given[: ends + 1])

    def test_leave_nothing_of_a_bad_one(self, through: Pass) -> None:
        """Half a call cannot be taken back, and its name is half of it."""
        bad = ToolCall("erase", '{"query": "zreplace"}')
        out = through(stream_of(Choice(tool_calls=(self.CALLED, bad)), Delivery(piece=5)))
        legal(out)
        assert b"erase" not in out
        called, told = final(out)["output"]
        assert called["arguments"] == self.CALLED.arguments
        assert told["content"][0]["refusal"] == "[blocked]"

    def test_are_rewritten_everywhere(self, through: Pass) -> None:
        """Pieces, their end, the item and the response say the same new arguments."""
        said = Choice(tool_calls=(ToolCall("find", '{"query": "the zredact pond"}'),))
        events = read(through(stream_of(said, Delivery(piece=5))))
        pieces = [e["delta"] for e in events if e["type"].endswith("arguments.delta")]
        written = next(e["arguments"] for e in events if e["type"].endswith("arguments.done"))
        assert "".join(pieces) == written
        items = [e["item"] for e in events if e["type"].endswith("item.done")]
        assert items == events[-1]["response"]["output"]
        assert items[0]["arguments"] == written
        assert "zredact" not in written

    def test_side_by_side_are_each_one_text(self, through: Pass) -> None:
        """Items that come in turns are judged as if one came after the other."""
        given = stream_of(Choice(f"{CALM}Fine.", CALM), Delivery(piece=20))
        head, tail = given[:2], given[-1:]
        texts = [[e for e in given if e.get("output_index") == index] for index in (0, 1)]
        turns = [e for pair in zip(*texts, strict=False) for e in pair]
        rest = [e for text in texts for e in text[len(turns) // 2 :]]
        mixed = [*head, *turns, *rest, *tail]
        for number, event in enumerate(mixed):
            event["sequence_number"] = number
        assert through(mixed) == sse(mixed)
        bad = json.loads(json.dumps(mixed).replace("Fine.", "zblock."))
        assert b"zblock" not in through(bad)


class TestEchoes:
    """Closing events repeat what has left, whatever the backend says there."""

    @pytest.mark.parametrize("told", ["Short.", f"{CALM}And zblock.", f"Quite {CALM}", ""])
    @pytest.mark.parametrize("place", [-4, -3, -2, -1])
    def test_that_differ_are_overwritten(self, through: Pass, told: str, place: int) -> None:
        """The text of the pieces stands in each of them."""
        given = stream_of(Choice(CALM), Delivery(piece=20))
        given[place] = json.loads(json.dumps(given[place]).replace(CALM, told))
        events = read(through(given))
        assert json.dumps(events[place]) == json.dumps(
            stream_of(Choice(CALM), Delivery(piece=20))[place]
        )

    @pytest.mark.parametrize("told", ["item.done", "completed"])
    def test_that_bring_a_text_are_judged(self, through: Pass, told: str) -> None:
        """Some backends send no pieces at all."""
        for text in (CALM, f"{CALM}Now zblock."):
            given = stream_of(Choice(text))
            kept = [e for e in given if e["type"].endswith((".created", told, "completed"))]
            out = through(kept)
            assert (b"zblock" not in out) if "zblock" in text else (out == sse(kept))

    def test_of_an_item_that_moved_are_its_own(self, through: Pass) -> None:
        """An item is found again by its id where the response lists fewer than were opened."""
        given = stream_of(Choice(CALM, "Green reeds, I think."), Delivery(piece=20))
        for event in given:
            if event.get("output_index") == 1:
                event["output_index"] = 7
        assert through(given) == sse(given)

    def test_of_an_unknown_item_are_judged_anew(self, through: Pass) -> None:
        """An item that no event brought is not taken for the one in its place."""
        given = stream_of(Choice(CALM), Delivery(piece=20))
        given[-1]["response"]["output"][0] |= {"id": "msg_other"}
        given[-1]["response"]["output"][0]["content"][0]["text"] = "Another text."
        assert through(given) == sse(given)


class TestSdk:
    """OpenAI's client reads all of it."""

    def test_create(self, guard: Guard, pass_body: Pass) -> None:
        """A whole response, as it is or refused."""
        for text, expected in ((CALM, CALM), ("Now zblock.", "")):
            whole = json.dumps(body_of(Reply((Choice(text),)))).encode()
            client = sdk(pass_body(guard, "responses", whole, request=REQUEST), "application/json")
            response = client.responses.create(model="m", input=PROMPT)
            assert (response.output_text, response.status) == (expected, "completed")

    def test_parse(self, guard: Guard, pass_body: Pass) -> None:
        """A structured answer, or a refusal in its place and no error."""
        request = REQUEST | {"text": {"format": {"type": "json_schema"}}}
        for name, expected in (("mill", Pond(name="mill")), ("zreplace", None)):
            said = Choice(json.dumps({"name": name}))
            whole = json.dumps(body_of(Reply((said,)), request)).encode()
            client = sdk(pass_body(guard, "responses", whole, request=request), "application/json")
            response = client.responses.parse(model="m", input=PROMPT, text_format=Pond)
            assert response.output_parsed == expected

    def test_stream(self, through: Pass) -> None:
        """Its events and what they add up to."""
        out = through(stream_of(Choice(f"{CALM}Now zblock. {CALM}"), Delivery(piece=20)))
        client = sdk(out)
        seen = [e.type for e in client.responses.create(model="m", input=PROMPT, stream=True)]
        assert seen == [event["type"] for event in read(out)]
        with client.responses.stream(model="m", input=PROMPT) as stream:
            said = "".join(e.delta for e in stream if e.type == "response.output_text.delta")
            assert said == stream.get_final_response().output_text

    def test_broken_stream_raises(self, through: Pass, guard: Guard, pass_stream: Pass) -> None:
        """An event that cannot be read ends the stream in the SDK's own error."""
        data = sse(stream_of(Choice(CALM))[:4]) + b'data: {"type": "resp\n\n'
        out = pass_stream(guard, "responses", data, request=REQUEST)
        with pytest.raises(openai.APIError, match="no JSON"):
            list(sdk(out).responses.create(model="m", input=PROMPT, stream=True))
        assert "error" not in types(read(through(stream_of(Choice(CALM)))))


class Fails:
    """A detector that fails at one call, and keeps what it passed."""

    name = "words"
    version = "1"
    categories = ("to_block",)

    def __init__(self, fails_at: int) -> None:
        """Fail at the call of a number, zero-based."""
        self.calls = 0
        self.passed: list[str] = []
        self._fails_at = fails_at

    def __call__(self, passage: Passage) -> list[Finding]:
        """Find nothing, or fail."""
        self.calls += 1
        if self.calls == self._fails_at + 1:
            raise RuntimeError("no")
        self.passed.append(passage.text[passage.start : passage.end])
        return []


class TestFaults:
    """Whatever goes wrong, nothing unjudged leaves."""

    SAID = Choice(
        "".join(f"Reed {number} is as green as any. " for number in range(30)),
        "".join(f"Thought {number} is about reeds. " for number in range(20)),
        tool_calls=(ToolCall("find", '{"query": "how green"}'),),
    )

    @pytest.mark.parametrize("number", range(14))
    def test_detector_that_fails_at_any_unit(
        self, make_guard: Callable[..., Guard], pass_stream: Pass, number: int
    ) -> None:
        """Only what was judged before leaves, and the stream is closed."""
        detector = Fails(number)
        guard = make_guard(detector, limits={"to_block": {"flag": 0.5, "act": 0.9}})
        data = sse(stream_of(self.SAID, Delivery(piece=10)))
        out = pass_stream(guard, "responses", data, request=REQUEST)
        events = legal(out)
        for kind in ("reasoning_text", "output_text", "function_call_arguments"):
            deltas = [e["delta"] for e in events if e["type"] == f"response.{kind}.delta"]
            assert "".join(deltas) in "".join(detector.passed)
        assert (detector.calls > number) == ("guard" in events[-1]["response"])

    @pytest.mark.parametrize("word", ["green", "zblock", "zredact"])
    def test_backend_that_breaks_off_anywhere(
        self, guard: Guard, pass_stream: Pass, word: str
    ) -> None:
        """Around the end of every event and at every byte of one of them."""
        data = sse(stream_of(Choice(f"Reeds are {word}, all.", "Hm."), Delivery(piece=9)))
        ends = [at + 2 for at in range(len(data)) if data[at : at + 2] == b"\n\n"]
        one = range(ends[6], ends[7])
        out = b""
        for end in sorted({*one, *(at + by for at in ends for by in (-1, 0, 1))}):
            out = pass_stream(guard, "responses", data[:end], request=REQUEST)
            if word == "green":
                assert out == data[: max((at for at in ends if at <= end), default=0)]
            assert word == "green" or word.encode() not in out
        assert word == "green" or word.encode() not in out

    def test_reader_that_leaves_at_any_event(self, make_guard: Callable[..., Guard]) -> None:
        """The journal's row says how much had left, and that there was more to come."""
        events = stream_of(Choice(f"{CALM}A zflag here. {CALM}"), Delivery(piece=30))
        kept = 0
        for number in range(1, len(events)):
            with closing(Journal("sqlite://")) as journal:
                guard = make_guard(journal=journal)
                relay = Call(guard, FORMAT, REQUEST).relay()
                left = read(released(guard, relay.feed(sse(events[:number]))))
                assert released(guard, relay.abandon()) == b""
                assert released(guard, relay.feed(sse(events[number:]))) == b""
                for row in journal.list():
                    kept += 1
                    assert row.released == sum(len(e.get("delta", "")) for e in left)
                    assert not row.complete
        assert kept

    @pytest.mark.parametrize("kind", [None, "new"])
    def test_text_in_a_part_of_an_unknown_type(self, through: Pass, kind: str | None) -> None:
        """What was told of it is closed before the refusal."""
        events = stream_of(Choice(f"{CALM}Now zblock."), Delivery(piece=30))
        number = next(n for n, e in enumerate(events) if e["type"].endswith("part.added"))
        events[number] = changed(events[number], ("part", "type"), kind)
        out = legal(through(events))
        told = "".join(e["delta"] for e in out if e["type"] == "response.output_text.delta")
        (done, refused) = (e for e in out if e["type"].endswith("part.done"))
        assert done["part"]["text"]
        assert told.startswith(done["part"]["text"])
        assert refused["part"]["type"] == "refusal"

    @given(data=st.data())
    def test_nonsense_in_any_place(self, through: Pass, data: st.DataObject) -> None:
        """Values of any type anywhere break nothing, and hide nothing."""
        events = stream_of(Choice("Now zblock.", "Hm.", tool_calls=(ToolCall("find", "{}"),)))
        for _ in range(data.draw(st.integers(1, 4))):
            number = data.draw(st.integers(0, len(events) - 1))
            path = data.draw(st.sampled_from(list(places(events[number]))))
            value = data.draw(NONSENSE)
            events[number] = changed(events[number], path, value)
        out = through(events)
        assert b"zblock" not in out


class TestRequest:
    """What is read of a request, and what is answered where it is not passed on."""

    def test_text(self) -> None:
        """Instructions are a system prompt, a text is the user's message."""
        asked = FORMAT.asked({"model": "m", "instructions": "Be brief.", "input": PROMPT})
        assert asked.exchange.messages == (Message("system", "Be brief."), Message("user", PROMPT))
        assert (asked.exchange.model, asked.stream, asked.structured) == ("m", False, False)
        assert asked.repeats == {"model", "m", "instructions", "Be brief."}

    def test_items(self) -> None:
        """Messages, what the model did before, and what its tools gave back."""
        asked = FORMAT.asked(
            {
                "input": [
                    {"role": "developer", "content": "Be brief."},
                    {"role": "user", "content": [{"type": "input_text", "text": PROMPT}]},
                    {"type": "function_call", "call_id": "c", "name": "find", "arguments": "{}"},
                    {"type": "function_call_output", "call_id": "c", "output": "Two metres."},
                    {"type": "shell_call_output", "output": [{"stdout": "2", "stderr": "m"}]},
                    {"type": "message", "role": "assistant", "content": "Two."},
                    {"type": "item_reference", "id": "x"},
                    "nonsense",
                ],
                "prompt": {"id": "p", "variables": {"pond": "the mill's"}},
                "text": {"format": {"type": "json_schema"}},
                "stream": True,
            }
        )
        assert asked.exchange.messages == (
            Message("user", "the mill's"),
            Message("developer", "Be brief."),
            Message("user", PROMPT),
            Message("assistant", "", "find"),
            Message("tool", "Two metres."),
            Message("tool", "2\nm"),
            Message("assistant", "Two."),
            Message("user", ""),
            Message("user", "nonsense"),
        )
        assert (asked.stream, asked.structured) == (True, True)
        assert asked.gated == ("tool_call", "content")

    @given(request=st.recursive(NONSENSE, lambda inner: st.lists(inner, max_size=3), max_leaves=5))
    def test_nonsense(self, request: Any) -> None:
        """Whatever a request holds, it is read."""
        keys = ("input", "instructions", "prompt", "text", "stream", "model", "tools")
        document: Json = dict.fromkeys(keys, request)
        asked = FORMAT.asked(document)
        assert asked.stream is (request is True)
        assert FORMAT.corrected(document, "Do better.")["input"][-1]["content"] == "Do better."

    @pytest.mark.parametrize(
        ("given", "before"), [(PROMPT, {"role": "user", "content": PROMPT}), (None, None)]
    )
    def test_corrected(self, given: str | None, before: Json | None) -> None:
        """An instruction comes last, whatever the input looks like."""
        items = FORMAT.corrected({"input": given}, "Do better.")["input"]
        assert items == [*([before] if before else []), {"role": "system", "content": "Do better."}]

    @pytest.mark.parametrize("stream", [False, True])
    def test_refusal(self, stream: bool) -> None:  # noqa: FBT001  # a parameter of the test
        """The SDK reads a response with a refusal, whole or from a stream."""
        asked = FORMAT.asked(REQUEST | {"stream": stream})
        data = FORMAT.refusal(asked, "I cannot say.", {"guard": {"action": "block"}})
        if stream:
            legal(data)
            last = final(data)
        else:
            client = sdk(data, "application/json")
            response = client.responses.create(model="m", input=PROMPT)
            last = json.loads(response.model_dump_json())
        assert last["output"][0]["content"] == [{"type": "refusal", "refusal": "I cannot say."}]
        assert (last["status"], last["guard"]["action"]) == ("completed", "block")
        assert (last["model"], last["usage"]["total_tokens"]) == ("m", 0)

    @pytest.mark.parametrize(
        ("method", "path", "ours"),
        [
            ("POST", "/v1/responses", True),
            ("POST", "/v1/responses/resp_1/cancel", True),
            ("GET", "/v1/responses/resp_1", True),
            ("GET", "/v1/responses/resp_1/input_items", False),
            ("POST", "/v1/responses/input_tokens", False),
            ("POST", "/v1/responses/compact", False),
        ],
    )
    def test_paths(self, method: str, path: str, ours: bool) -> None:  # noqa: FBT001
        """A response comes back from these."""
        assert (format_of(method, path) is FORMAT) is ours
