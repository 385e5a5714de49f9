"""Messages: what leaves of a stream and of a whole message, as Anthropic's SDK reads it."""

from __future__ import annotations

import copy
import json
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Final

import anthropic
import httpx2
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from guard.exchange import Choice, Message
from guard.journal.store import Journal
from guard.server.scripted import Delivery, Reply, messages, samples
from guard.wire import messages as wire

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from guard.engine import Guard
    from guard.wire.formats import Call

    Json = dict[str, Any]
    Pass = Callable[..., bytes]
    Heard = Callable[[str | bytes], dict[str, str]]

PROMPT: Final = "How deep is the mill pond?"
ASKED: Final[Any] = {
    "model": "m",
    "max_tokens": 9,
    "messages": [{"role": "user", "content": PROMPT}],
}
REQUEST: Final[Json] = ASKED | {"stream": True}
DOCUMENT: Final = REQUEST | {"output_config": {"format": {"type": "json_schema", "schema": {}}}}

CALM: Final = "The pond is still and the reeds are green. " * 8
"""Some units of text that no detector minds."""

WHOLE: Final = Delivery(piece=10_000)
"""Every text in one piece."""

REMOVED: Final = ("zblock", "zredact", "zexcise", "zreplace")
"""Words that must not leave, whatever is done about them."""

KEYS: Final = (
    *("type", "index", "message", "content", "content_block", "delta", "text", "thinking"),
    *("input", "name", "partial_json", "citations", "usage", "data", "stop_reason", "error"),
)
"""Keys that the format knows."""

TYPES: Final = (
    *("message_start", "content_block_start", "content_block_delta", "content_block_stop"),
    *("message_delta", "message_stop", "ping", "error", "text", "thinking", "tool_use"),
    *("text_delta", "thinking_delta", "input_json_delta", "redacted_thinking", "unknown"),
)
"""Types of everything that has one."""


class Pond(BaseModel):
    """A structured answer."""

    name: str


def text(content: str, **fields: Any) -> Json:
    """Return a text block."""
    return messages.text(content, **fields)


def call(query: str, number: int = 1) -> Json:
    """Return a tool call."""
    return messages.tool_use(f"toolu_{number}", "look_up", {"query": query})


def body_of(*content: Json) -> Json:
    """Return a whole message."""
    return messages.FORMAT.body(
        REQUEST, PROMPT, Reply((Choice("It is deep."),), {"content": [*content]})
    )


def stream_of(*content: Json, delivery: Delivery = WHOLE) -> bytes:
    """Return the stream of a message."""
    events = messages.FORMAT.events(REQUEST, body_of(*content), delivery)
    return b"".join(event.encode(delivery.newline) for event in events)


def sse(*events: Json) -> bytes:
    """Return events as a backend sends them."""
    texts = [f"event: {event.get('type')}\ndata: {json.dumps(event)}\n\n" for event in events]
    return "".join(texts).encode()


def read(data: bytes) -> list[Json]:
    """Return the events of a stream."""
    blocks = data.decode().split("\n\n")[:-1]
    events = [json.loads(block.partition("data: ")[2]) for block in blocks]
    assert [block.partition("\n")[0] for block in blocks] == [f"event: {e['type']}" for e in events]
    return events


def legal(data: bytes) -> list[Json]:
    """Return the events of a stream that opens, numbers and closes everything as it should."""
    events = [event for event in read(data) if event["type"] != "ping"]
    opened, unclosed = 0, False
    for event in events[1:-2]:
        if event["type"] == "content_block_start":
            assert (event["index"], unclosed) == (opened, False)
            opened, unclosed = opened + 1, True
        else:
            assert (event["index"], unclosed) == (opened - 1, True)
            unclosed = event["type"] != "content_block_stop"
    assert not unclosed
    assert events[0]["type"] == "message_start"
    assert [event["type"] for event in events[-2:]] == ["message_delta", "message_stop"]
    return events


def sdk(data: bytes, kind: str = "text/event-stream") -> anthropic.Anthropic:
    """Return Anthropic's client, behind which some bytes are the answer to everything."""
    headers = {"content-type": kind}
    transport = httpx2.MockTransport(lambda _: httpx2.Response(200, headers=headers, content=data))
    client = httpx2.Client(transport=transport)
    return anthropic.Anthropic(
        api_key="none", base_url="http://x", http_client=client, max_retries=0
    )


def final(data: bytes, **options: Any) -> Any:
    """Return the message that the SDK's helper makes of a stream that is legal."""
    legal(data)
    assert list(sdk(data).messages.create(**ASKED, stream=True))
    with sdk(data).messages.stream(**ASKED, **options) as stream:
        return stream.get_final_message()


def blocks_of(message: Any) -> list[tuple[str, Any]]:
    """Return the blocks of a message: type, and text or input."""
    keys = {"text": "text", "thinking": "thinking"}
    return [(b.type, getattr(b, keys.get(b.type, "input"), None)) for b in message.content]


def words_in(name: str) -> str:
    """Return a text that names its channel."""
    return f"Words in {name}."


def leaves(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield the path of every string in a document."""
    if isinstance(value, str):
        yield path
    elif isinstance(value, dict | list):
        for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
            yield from leaves(inner, (*path, key))


def planted(document: Json, path: tuple[Any, ...], word: str) -> Json:
    """Return a document with a text behind the string at a path; JSON in it stays JSON."""
    own: Any = copy.deepcopy(document)
    holder = own
    for key in path[:-1]:
        holder = holder[key]
    end = '"}' if path[-1] == "partial_json" else ""
    holder[path[-1]] = holder[path[-1]].removesuffix(end) + word + end
    return own  # type: ignore[no-any-return]


def _at(document: Json, path: tuple[Any, ...]) -> Any:
    """Return what stands at a path."""
    value: Any = document
    for key in path:
        value = value[key]
    return value


@pytest.fixture(scope="module")
def guard(make_guard: Callable[..., Guard]) -> Guard:
    """Return a guard that fires on words."""
    return make_guard()


@pytest.fixture(scope="module")
def through(guard: Guard, pass_stream: Pass) -> Pass:
    """Return what sends a stream through that guard."""

    def passed(data: bytes, request: Json = REQUEST, **options: Any) -> bytes:
        return pass_stream(guard, "messages", data, request=request, **options)

    return passed


@pytest.fixture(scope="module")
def whole(guard: Guard, pass_body: Pass) -> Callable[..., Json]:
    """Return what sends a whole message through that guard."""

    def passed(body: Json | bytes, request: Json = REQUEST) -> Json:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        left: Json = json.loads(pass_body(guard, "messages", data, request=request))
        return left

    return passed


@pytest.fixture
def leaving(guard: Guard, make_call: Callable[..., Call], play: Callable[..., list[str]]) -> Any:
    """Return what tells the types of the events that leave after each event of a stream."""

    def left(data: bytes) -> list[list[str]]:
        relay = make_call(guard, "messages", REQUEST).relay()
        pieces = [block + b"\n\n" for block in data.split(b"\n\n")[:-1]]
        return [
            [event["type"] for event in read(piece.encode())]
            for piece in play(guard, relay, pieces)
        ]

    return left


class TestBenign:
    """What nobody minds leaves as it came."""

    @pytest.mark.parametrize("piece", [0, 3, 10_000])
    def test_stream_is_the_same_bytes(self, through: Pass, piece: int) -> None:
        """Every kind of block passes, however its text is cut."""
        content = samples.every_message_block(words_in)["content"]
        data = stream_of(*content, delivery=Delivery(piece=piece))
        assert through(data) == data

    @given(cuts=st.lists(st.integers(0, 4000), max_size=8))
    def test_stream_in_any_pieces(self, through: Pass, cuts: list[int]) -> None:
        """It does not matter how bytes arrive."""
        data = stream_of(messages.thinking("Hm."), text(CALM), call("the pond"))
        assert through(data, cuts=[min(cut, len(data)) for cut in cuts]) == data

    @pytest.mark.parametrize("newline", ["\r\n", "\r"])
    def test_line_ends(self, through: Pass, newline: Any) -> None:
        """Line ends become one and the same, whatever they were."""
        data = stream_of(text(CALM), delivery=Delivery(newline=newline))
        assert through(data) == data.replace(newline.encode(), b"\n")
        assert through(data, cuts=1) == data.replace(newline.encode(), b"\n")

    def test_body_is_the_same_bytes(self, guard: Guard, pass_body: Pass) -> None:
        """So does a whole message with its own spacing."""
        body = body_of(*samples.every_message_block(words_in)["content"])
        data = json.dumps(body, indent=3, ensure_ascii=False).encode()
        assert pass_body(guard, "messages", data, request=REQUEST) == data

    def test_shadow(self, make_guard: Callable[..., Guard], pass_stream: Pass) -> None:
        """In a shadow class nothing is touched, however bad."""
        data = stream_of(messages.thinking("A zblock."), text("A zredact."), call("zreplace"))
        assert pass_stream(make_guard(shadow=True), "messages", data, cuts=7) == data

    def test_ping_between(self, through: Pass) -> None:
        """A ping may come anywhere."""
        before, after = stream_of(text(CALM)).split(b"event: content_block_delta")
        data = before + sse({"type": "ping"}) + b"event: content_block_delta" + after
        assert through(data) == data

    def test_blocks_without_text(self, through: Pass) -> None:
        """A text that is empty, a thinking that is not shown and one that is a cipher pass."""
        hidden = {"type": "redacted_thinking", "data": "c2VhbGVk" * 300}
        data = stream_of(text(""), messages.thinking(""), hidden, text(""))
        assert through(data) == data

    def test_error_event(self, through: Pass) -> None:
        """A backend's own error passes, and the SDK raises for it."""
        error = {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded."}}
        data = sse(*read(stream_of(text(CALM)))[:-1], error)
        assert through(data) == data
        with pytest.raises(anthropic.APIStatusError, match="Overloaded"):
            sdk(through(data)).messages.stream(**ASKED).__enter__().get_final_message()


class TestHolding:
    """Events keep their order, and each leaves as soon as what is in it was judged."""

    def test_block_begins_with_its_text(self, leaving: Any) -> None:
        """A block opens with the first of its text, so that an empty one need not be closed."""
        start, _, opened, delta, closed, end, *_ = leaving(stream_of(text("Short.")))
        assert (start, opened) == (["message_start"], [])
        assert (delta, closed) == ([], [])
        assert end[:3] == ["content_block_start", "content_block_delta", "content_block_stop"]

    def test_text_leaves_while_more_comes(self, leaving: Any) -> None:
        """What was judged leaves before the next unit is there."""
        steps = leaving(stream_of(text(CALM), delivery=Delivery()))
        first = next(at for at, types in enumerate(steps) if "content_block_delta" in types)
        assert 20 < first < len(steps) // 2 + 20

    def test_call_leaves_with_its_end(self, leaving: Any) -> None:
        """A call is whole at its end, and what comes behind it does not wait for the message's."""
        steps = leaving(stream_of(call("one"), call("two", 2), text(CALM)))
        stops = [at for at, types in enumerate(steps) if "content_block_stop" in types]
        assert next(types for types in steps if "content_block_stop" in types) == [
            "content_block_start",
            "content_block_delta",
            "content_block_delta",
            "content_block_stop",
        ]
        # `message_start` and `ping` come first, then four events of each call.
        assert stops[:2] == [5, 9]

    def test_text_ends_before_another_block(self, leaving: Any) -> None:
        """A text is judged to its end where a block of another kind begins."""
        steps = leaving(stream_of(text("Short."), call("one")))
        # The call's first event.
        assert steps[5] == ["content_block_start", "content_block_delta", "content_block_stop"]

    def test_neighbours_are_one_text(self, leaving: Any) -> None:
        """And not where one of its own kind begins."""
        steps = leaving(stream_of(text("It is "), text("deep."), delivery=WHOLE))
        assert steps[5:8] == [[], [], []]


class TestRewritten:
    """What can be mended is mended where it stands."""

    def test_across_deltas(self, through: Pass) -> None:
        """A word that several deltas bring is taken out of all of them."""
        message = final(through(stream_of(text("A zredact."), delivery=Delivery(piece=2))))
        assert blocks_of(message) == [("text", "A [redacted: to redact].")]
        assert (message.stop_reason, hasattr(message, "guard")) == ("end_turn", False)

    def test_across_blocks(self, through: Pass, whole: Callable[..., Json]) -> None:
        """And one that is in two blocks, since citations cut a text in two."""
        content = [text("A zre"), text("dact.", citations=[])]
        left = blocks_of(final(through(stream_of(*content))))
        assert left == [("text", "A [redacted: to redact]"), ("text", ".")]
        body = whole(body_of(*content))
        assert [block["text"] for block in body["content"]] == ["A [redacted: to redact]", "."]

    def test_across_a_call(self, through: Pass) -> None:
        """And one that goes on behind a call, by which time its beginning has left."""
        left = blocks_of(final(through(stream_of(text("A zre"), call("x"), text("dact. Yes.")))))
        assert [block for block in left if block[0] == "text"] == [
            ("text", "A zre"),
            ("text", "[redacted: to redact]. Yes."),
        ]

    def test_call(self, through: Pass, whole: Callable[..., Json]) -> None:
        """A call's input stays an object."""
        given = messages.tool_use("t1", "look_up", {"query": "zredact", "n": [1.5, None], "é": {}})
        mended = {"query": "[redacted: to redact]", "n": [1.5, None], "é": {}}
        for piece in (2, 10_000):
            message = final(through(stream_of(given, delivery=Delivery(piece=piece))))
            assert blocks_of(message) == [("tool_use", mended)]
        assert whole(body_of(given))["content"][0]["input"] == mended

    def test_body(self, whole: Callable[..., Json]) -> None:
        """All else in a whole message stays as it was."""
        body = body_of(text("A zredact."), text("Fine."))
        left = whole(body)
        assert left["content"][0]["text"] == "A [redacted: to redact]."
        assert {**left, "content": left["content"][1:]} == {**body, "content": body["content"][1:]}


class TestWithheld:
    """What cannot be mended is withheld, and the stream ends as it should."""

    def test_block(self, through: Pass) -> None:
        """The class's message is the only block; the vendor's own reason tells why; usage stays."""
        data = stream_of(text("A zblock."))
        message = final(through(data))
        assert blocks_of(message) == [("text", "[blocked]")]
        assert (message.stop_reason, message.stop_details.explanation) == ("refusal", "[blocked]")
        assert message.usage == final(data).usage
        (told,) = [event["guard"] for event in legal(through(data)) if "guard" in event]
        assert told["reasons"] == ["to_block: live risk 0.99 reached 0.90 (block)"]

    def test_partly_delivered(self, through: Pass) -> None:
        """What had left stands in a block that is closed, and the message follows in its own."""
        left = through(stream_of(text(CALM + "A zblock. " + CALM), delivery=Delivery()))
        (_, before), (_, after) = blocks_of(final(left))
        assert after == "\n\n[blocked]"
        assert before
        assert CALM.startswith(before)

    def test_message_leaves_at_once(self, leaving: Any) -> None:
        """The message leaves while the backend goes on; the end waits for the usage."""
        steps = leaving(stream_of(text("A zblock. " + CALM), text(CALM), delivery=Delivery()))
        first = next(at for at, types in enumerate(steps) if "content_block_stop" in types)
        assert first < len(steps) // 2
        assert [types for types in steps[first + 1 :] if types] == [
            ["message_delta", "message_stop"]
        ]

    def test_replaced(self, through: Pass, whole: Callable[..., Json]) -> None:
        """A replacement is an answer like any other."""
        message = final(through(stream_of(text("A zreplace."))))
        assert blocks_of(message) == [("text", "[replaced]")]
        assert (message.stop_reason, message.stop_details) == ("end_turn", None)
        assert whole(body_of(text("A zreplace.")))["stop_reason"] == "end_turn"

    def test_thinking(self, through: Pass, whole: Callable[..., Json]) -> None:
        """A thinking is under a signature: where it would be mended, the message is withheld."""
        content = [messages.thinking(CALM + "A zredact."), text("Fine.")]
        left = final(through(stream_of(*content, delivery=Delivery())))
        (kind, thought), told = blocks_of(left)
        assert (kind, told) == ("thinking", ("text", "[blocked]"))
        assert CALM.startswith(thought)
        assert left.content[0].signature == ""
        assert whole(body_of(*content))["content"] == [
            {"type": "text", "text": "[blocked]", "citations": None}
        ]

    def test_call(self, through: Pass) -> None:
        """Of a bad call nothing leaves, not even its name; what was said before stays."""
        left = through(stream_of(text("I look."), call("zblock"), delivery=Delivery()))
        assert blocks_of(final(left)) == [("text", "I look."), ("text", "\n\n[blocked]")]
        assert b"look_up" not in left

    def test_behind_a_call(self, through: Pass) -> None:
        """A call that was whole has left before what comes behind it turns bad."""
        left = blocks_of(final(through(stream_of(call("fine"), text("A zblock.")))))
        assert left == [("tool_use", {"query": "fine"}), ("text", "[blocked]")]

    def test_document(self, through: Pass, whole: Callable[..., Json]) -> None:
        """Where a document was asked for, no text stands in for it; the reason is told."""
        left = through(stream_of(text('{"name": "zreplace"}')), DOCUMENT)
        message = final(left, output_format=Pond)
        assert (message.content, message.parsed_output) == ([], None)
        assert message.stop_details.explanation == "[replaced]"
        body = whole(body_of(text('{"name": "zblock"}')), DOCUMENT)
        client = sdk(json.dumps(body).encode(), "application/json")
        parsed = client.messages.parse(**ASKED, output_format=Pond)
        assert (parsed.content, parsed.stop_reason) == ([], "refusal")

    def test_mended_document(self, through: Pass) -> None:
        """One that is mended is still one, and leaves whole."""
        data = stream_of(text('{"name": "zredact"}'), delivery=Delivery())
        message = final(through(data, DOCUMENT), output_format=Pond)
        assert message.parsed_output == Pond(name="[redacted: to redact]")

    def test_body(self, whole: Callable[..., Json]) -> None:
        """A whole message says the same, and keeps what it is known by."""
        body = body_of(text(CALM), text("A zblock."))
        left = whole(body)
        assert (left["id"], left["usage"]) == (body["id"], body["usage"])
        assert left["guard"]["action"] == "block"
        client = sdk(json.dumps(left).encode(), "application/json")
        message = client.messages.create(**ASKED)
        assert blocks_of(message) == [("text", "[blocked]")]
        assert message.stop_reason == "refusal"

    @pytest.mark.parametrize("dropped", [1, 2, 3])
    def test_backend_stops_early(self, through: Pass, dropped: int) -> None:
        """Where the backend's own end does not come, the message ends all the same."""
        events = [
            event for event in read(stream_of(text("A zblock. " + CALM))) if event["type"] != "ping"
        ]
        message = final(through(sse(*events[:-dropped])))
        assert blocks_of(message) == [("text", "[blocked]")]
        assert message.usage.output_tokens > 0

    def test_backend_fails(self, through: Pass) -> None:
        """So it does where the backend fails or breaks off behind the bad text."""
        events = read(stream_of(text("A zblock. " + CALM)))[:-3]
        error = {"type": "error", "error": {"type": "api_error", "message": "Oh."}}
        for end in (sse(error), b"data: {\n\n", b"data: \xff\n\n"):
            assert blocks_of(final(through(sse(*events) + end))) == [("text", "[blocked]")]

    def test_bad_from_the_start(self, through: Pass) -> None:
        """Where the first event is bad, the message begins all the same."""
        first, *events = read(stream_of(text("Fine.")))
        for bad in (
            {**first, "note": "a zblock"},
            {**first, "message": {**first["message"], "content": [text("A zblock.")]}},
            {**first, "message": "a zblock"},
            {"type": "a zblock"},
        ):
            left = through(sse(bad, *events))
            assert b"zblock" not in left
            assert blocks_of(final(left)) == [("text", "[blocked]")]

    def test_asks_again(
        self, make_guard: Callable[..., Guard], make_call: Callable[..., Call]
    ) -> None:
        """Where the backend is to be asked again, nothing has left by then."""
        limits = {"to_block": {"act": 0.9, "remedy": "regenerate"}}
        guard = make_guard(limits=limits)
        relay = make_call(guard, "messages", REQUEST).relay(patient=True)
        assert guard.driver.advance(relay.feed(stream_of(text("A zblock.")))) is None
        assert relay.regenerate


PLACES: Final[dict[str, Callable[[str], Json]]] = {
    "text": lambda text: {"type": "text_delta", "text": text},
    "thinking": lambda text: {"type": "thinking_delta", "thinking": text},
    "input": lambda text: {"type": "input_json_delta", "partial_json": text},
    "citation": lambda text: {"type": "citations_delta", "citation": {"cited_text": text}},
    "unknown delta": lambda text: {"type": "song_delta", "song": text},
    "two keys": lambda text: {"type": "text_delta", "text": text, "thinking": text},
}
"""Ways in which a piece of a text can come in a block."""


class TestLeaks:
    """A word that must not leave is in nothing that leaves."""

    @pytest.mark.parametrize("word", REMOVED)
    def test_every_string_of_a_body(self, whole: Callable[..., Json], word: str) -> None:
        """Wherever in a message a word stands, it is gone, and the rest is still a message."""
        body = body_of(*samples.every_message_block(words_in)["content"])
        for path in leaves(body):
            left = whole(planted(body, path, f" {word}."))
            assert word not in json.dumps(left), path
            assert left["content"]

    @pytest.mark.parametrize("word", ["zblock", "zredact"])
    def test_every_string_of_a_stream(self, through: Pass, heard: Heard, word: str) -> None:
        """Wherever in a stream it stands, it is gone as well, and the stream is legal."""
        events = read(stream_of(*samples.every_message_block(words_in)["content"]))
        for at, each in enumerate(events):
            for path in leaves(each):
                if path == ("type",) or not _at(each, path):
                    continue
                left = through(
                    sse(*events[:at], planted(each, path, f" {word}."), *events[at + 1 :])
                )
                assert word not in left.decode(), path
                assert word not in "".join(heard(left).values()), path
                final(left)

    @given(data=st.data())
    def test_in_pieces(self, through: Pass, heard: Heard, data: st.DataObject) -> None:
        """So it is however the text is cut, into deltas, blocks and bytes."""
        word = data.draw(st.sampled_from(REMOVED))
        place = data.draw(st.sampled_from(sorted(PLACES)))
        before = CALM[: data.draw(st.sampled_from([0, 3, 150, len(CALM)]))]
        said = f"{before}A {word}. {CALM}"
        bounds = data.draw(st.lists(st.integers(0, len(said)), max_size=6))
        # The word is cut, too.
        bounds = sorted({0, *bounds, len(before) + data.draw(st.integers(2, 8)), len(said)})
        start, *_, end, stop = read(stream_of(text("Fine.")))
        events, index = [start], 0
        opened: Json = {"input": call("")} | {"thinking": messages.thinking("")}
        block = opened.get(place, text(""))
        for a, b in pairwise(bounds):
            if a == 0 or (place == "text" and data.draw(st.booleans())):
                events += [{"type": "content_block_stop", "index": index}] if a else []
                index += 1 if a else 0
                events.append(
                    {"type": "content_block_start", "index": index, "content_block": block}
                )
            events.append(
                {"type": "content_block_delta", "index": index, "delta": PLACES[place](said[a:b])}
            )
        events += [{"type": "content_block_stop", "index": index}, end, stop]
        left = through(sse(*events), cuts=data.draw(st.integers(1, 400)))
        texts = heard(left)
        # Readers join what several blocks say.
        joined = "".join(e["delta"].get("text", "") for e in legal(left) if "delta" in e)
        assert all(word not in each for each in [left.decode(), joined, *texts.values()])

    @pytest.mark.parametrize("word", ["zblock", "zredact"])
    def test_between_blocks(self, through: Pass, word: str) -> None:
        """A word that other blocks stand in is not in the text that readers join."""
        for at in range(1, len(word)):
            for between in ([], [call("x")], [messages.thinking("Hm.")]):
                data = stream_of(text(f"A {word[:at]}"), *between, text(word[at:] + ". Yes."))
                left = final(through(data))
                assert word not in "".join(b.text for b in left.content if b.type == "text")

    @pytest.mark.parametrize("word", ["zblock", "zredact"])
    def test_goes_on_behind_its_end(self, through: Pass, word: str) -> None:
        """A block that goes on though it was closed is judged anew from its start."""
        *events, end, stop = read(stream_of(text(f"A {word[:3]}"), call("x")))
        more = {"type": "text_delta", "text": word[3:]}
        late = {"type": "content_block_delta", "index": 0, "delta": more}
        left = through(sse(*events, late, end, stop))
        said = [
            e["delta"].get("text", "") for e in read(left) if e.get("index") == 0 and "delta" in e
        ]
        assert word not in "".join(said)

    def test_goes_on_behind_a_neighbour(self, through: Pass) -> None:
        """One that goes on where the next has begun already is an error of the backend's."""
        *events, end, stop = read(stream_of(text("A zbl"), text("Fine.")))
        late = {"type": "content_block_delta", "index": 0, "delta": PLACES["text"]("ock")}
        left = through(sse(*events, late, end, stop))
        *said, error = read(left)
        assert error["error"]["message"].startswith("the backend goes on with a block")
        assert "ock" not in "".join(event["delta"]["text"] for event in said if "delta" in event)

    def test_hidden_in_escapes(self, through: Pass) -> None:
        """A word in a call's escapes is found before the call leaves."""
        *events, _, stop, end, last = read(stream_of(call("fine")))
        hidden = {"type": "input_json_delta", "partial_json": r'{"query": "z\u0062lock"}'}
        delta = {"type": "content_block_delta", "index": 0, "delta": hidden}
        message = final(through(sse(*events, delta, stop, end, last)))
        assert blocks_of(message) == [("text", "[blocked]")]

    def test_key_that_stands_twice(self, through: Pass, whole: Callable[..., Json]) -> None:
        """What a second key hides from one reader is not shown to another."""
        data = stream_of(text("Fine.")).replace(
            b'"text":"Fine."', b'"text":"zblock","text":"Fine."'
        )
        assert b"zblock" in data
        assert b"zblock" not in through(data)
        body = json.dumps(body_of(text("Fine."))).encode()
        twice = body.replace(b'"text": "Fine."', b'"text": "zblock", "text": "Fine."')
        assert whole(twice) == json.loads(body)

    def test_around_the_events(self, through: Pass) -> None:
        """Comments, ids and names that are no types do not leave."""
        data = stream_of(text("Fine."))
        noisy = b": zblock\n\nid: zblock\nevent: zblock\nretry: 1\n" + data.partition(b"\n")[2]
        assert b"zblock" not in through(noisy)

    @given(
        st.recursive(
            st.sampled_from([None, 0, -1, 2.5, True, "", "a zblock", "Yes.", *TYPES]),
            lambda inner: (
                st.lists(inner, max_size=3)
                | st.dictionaries(st.sampled_from(KEYS), inner, max_size=5)
            ),
            max_leaves=14,
        ),
        st.sampled_from(TYPES),
    )
    def test_any_json(
        self, through: Pass, whole: Callable[..., Json], value: Any, kind: str
    ) -> None:
        """Whatever a backend sends, the word does not leave and nothing breaks but the stream."""
        about = value if isinstance(value, dict) else {}
        key = {"message_start": "message", "content_block_start": "content_block"}.get(
            kind, "delta"
        )
        fine = read(stream_of(text("Fine.")))
        for document in (about, {"type": kind, "index": 0, key: value}, {"type": kind} | about):
            for at in (0, 1, 4):
                assert b"a zblock" not in through(sse(*fine[:at], document, *fine[at:]))
        for document in (about, {"content": value}, {"content": [value]}):
            assert "a zblock" not in json.dumps(whole(document))


class TestCutOff:
    """A stream that is cut off has let out what it may, and the journal knows how much."""

    def test_every_byte(
        self, guard: Guard, make_call: Callable[..., Call], play: Callable[..., list[str]]
    ) -> None:
        """Cut anywhere, what has left is the beginning of what leaves of the whole."""
        data = stream_of(
            messages.thinking("Hm."), text(CALM + "A zblock."), delivery=Delivery(piece=40)
        )
        steps = play(
            guard, make_call(guard, "messages", REQUEST).relay(), [bytes([b]) for b in data]
        )
        full = "".join(steps)
        left = 0
        for at in range(0, len(data), 61):
            relay = make_call(guard, "messages", REQUEST).relay()
            said, feeding = "", relay.feed(data[:at])
            while (piece := guard.driver.advance(feeding)) is not None:
                said += piece
            guard.driver.run(relay.abandon())
            assert full.startswith(said)
            assert len(said) >= left
            left = len(said)
            assert "zblock" not in said

    def test_journal(
        self, make_guard: Callable[..., Guard], pass_stream: Pass, tmp_path: Path
    ) -> None:
        """The row says how much had left, and not what stood behind it."""
        journal = Journal(tmp_path / "journal.db")
        guard = make_guard(journal=journal)
        content = [messages.thinking("Hm. "), text(CALM + "A zblock."), call("x"), text(CALM)]
        left = final(pass_stream(guard, "messages", stream_of(*content, delivery=Delivery())))
        (row,) = journal.list()
        thought, said, told = (each for _, each in blocks_of(left))
        assert told == "\n\n[blocked]"
        assert row.released == len(thought) + len(said)
        assert (row.action, row.delivered, row.complete) == ("block", "part", True)

    def test_nothing_had_left(
        self, make_guard: Callable[..., Guard], pass_stream: Pass, tmp_path: Path
    ) -> None:
        """Where nothing had left, it says so."""
        journal = Journal(tmp_path / "journal.db")
        pass_stream(make_guard(journal=journal), "messages", stream_of(text("A zblock.")))
        (row,) = journal.list()
        assert (row.released, row.delivered) == (0, "none")


class TestBroken:
    """A backend that breaks its own format."""

    @pytest.mark.parametrize(
        "event", [b'data: {"secret": \n\n', b"data: secret\n\n", b"data: \xff\n\n"]
    )
    def test_unreadable(self, through: Pass, event: bytes) -> None:
        """The stream ends with an error of the SDK's own, behind what was judged."""
        events = sse(*read(stream_of(text(CALM), delivery=Delivery()))[:60])
        for cuts in (1, 10_000):
            left = through(events + event + events, cuts=cuts)
            assert b"secret" not in left
            assert b" pond" in left
            with pytest.raises(anthropic.APIStatusError, match="backend"):
                sdk(left).messages.stream(**ASKED).__enter__().get_final_message()

    def test_cut_without_an_end(self, through: Pass) -> None:
        """A stream without its end leaves as far as it came."""
        data = sse(*read(stream_of(text("Fine.")))[:4])
        assert through(data) == data


class TestAsked:
    """What a request asks for."""

    def test_conversation(self) -> None:
        """Messages of all roles are context; what tools gave back is a tool's message."""
        asked = wire.asked(
            {
                "model": "m",
                "system": [
                    {"type": "text", "text": "Be brief."},
                    {"type": "text", "text": "Be kind."},
                ],
                "messages": [
                    {"role": "user", "content": "How deep?"},
                    {
                        "role": "assistant",
                        "content": [
                            messages.thinking("Hm."),
                            messages.text("I look."),
                            messages.tool_use("t1", "look_up", {"query": "pond"}),
                        ],
                    },
                    {
                        "role": "user",
                        "content": [
                            {"type": "tool_result", "tool_use_id": "t1", "content": "4 m"},
                            {
                                "type": "tool_result",
                                "tool_use_id": "t2",
                                "content": [{"type": "text", "text": "5 m"}],
                            },
                            {"type": "text", "text": "And?"},
                            {
                                "type": "document",
                                "title": "Map",
                                "source": {"type": "text", "data": "A map of the pond."},
                            },
                            {
                                "type": "document",
                                "source": {
                                    "type": "content",
                                    "content": [messages.text("Depths.")],
                                },
                            },
                            {"type": "image", "source": {"type": "base64", "data": "aW1hZ2U="}},
                        ],
                    },
                    "nonsense",
                ],
            }
        )
        assert asked.exchange.messages == (
            Message("system", "Be brief.\nBe kind."),
            Message("user", "How deep?"),
            Message("assistant", "Hm.\nI look."),
            Message("tool", "4 m", "look_up"),
            Message("tool", "5 m"),
            Message("user", "And?\nMap\nA map of the pond.\nDepths."),
        )
        assert [channel.kind for channel in asked.exchange.input_channels()] == [
            "tool_result",
            "tool_result",
            "prompt",
        ]
        assert (asked.stream, asked.structured, asked.exchange.model) == (False, False, "m")

    def test_blocks_that_nobody_knows(self) -> None:
        """What is beside a text that is known is read, in messages and in what tools gave back."""
        unknown = [messages.text("ok"), {"type": "odd", "note": {"Deep": ["They zblock."]}}]
        result = {"type": "tool_result", "tool_use_id": "t1", "content": unknown}
        call = messages.tool_use("t1", "look_up", {"query": "a plum"})
        asked = wire.asked({"messages": [{"role": "user", "content": [result, *unknown, call]}]})
        assert asked.exchange.messages == (
            Message("tool", "ok\nThey zblock."),
            Message("user", "ok\nThey zblock.\nlook_up\na plum"),
        )

    @pytest.mark.parametrize("value", [None, 5, "x", [], {}, [{}], [[{"content": [5]}]]])
    def test_nonsense(self, value: Any) -> None:
        """A request of any shape is read."""
        keys = ("messages", "model", "stream", "system", "output_config", "output_format")
        asked = wire.asked(dict.fromkeys(keys, value))
        assert not asked.stream
        assert not asked.structured
        assert wire.asked({"messages": [{"role": value, "content": value}]})

    def test_document(self) -> None:
        """A document of a schema is asked for by either name."""
        assert wire.asked(DOCUMENT).structured
        assert wire.asked({"output_format": {"type": "json_schema"}}).structured


class TestRefusal:
    """The response to a request that is not passed on."""

    def test_stream(self) -> None:
        """A stream is a whole one."""
        data = wire.refusal(wire.asked(REQUEST), "No.", {"guard": {"action": "block"}})
        message = final(data)
        assert blocks_of(message) == [("text", "No.")]
        assert (message.stop_reason, message.model) == ("refusal", "m")
        assert legal(data)[-2]["guard"] == {"action": "block"}

    def test_body(self) -> None:
        """A whole message has no tokens used."""
        data = wire.refusal(wire.asked(ASKED), "No.", {"guard": {"action": "block"}})
        message = sdk(data, "application/json").messages.create(**ASKED)
        assert blocks_of(message) == [("text", "No.")]
        assert (message.stop_reason, message.usage.output_tokens) == ("refusal", 0)
        assert json.loads(data)["guard"] == {"action": "block"}

    def test_document(self) -> None:
        """Where a document was asked for, nothing is there to be taken for one."""
        data = wire.refusal(wire.asked(DOCUMENT), "No.", {})
        assert final(data, output_format=Pond).stop_details.explanation == "No."

    @pytest.mark.parametrize(
        ("system", "before"),
        [
            (None, []),
            ("Be brief.", [{"type": "text", "text": "Be brief."}]),
            ([{"type": "text", "text": "Be kind."}], [{"type": "text", "text": "Be kind."}]),
        ],
    )
    def test_corrected(self, system: Any, before: list[Json]) -> None:
        """A further request has the instruction as its last system text, and all else as it was."""
        given = REQUEST if system is None else REQUEST | {"system": system}
        again = wire.corrected(given, "Leave out the word.")
        assert again["system"] == [*before, {"type": "text", "text": "Leave out the word."}]
        assert {**again, "system": system} == {**given, "system": system}

    def test_error(self) -> None:
        """An error has the vendor's form and one of its types."""
        assert wire.error("Oh.", "upstream_error") == {
            "type": "error",
            "error": {"type": "api_error", "message": "Oh."},
        }
        assert wire.error("Oh.", "invalid_request")["error"]["type"] == "invalid_request_error"
