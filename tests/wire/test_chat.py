"""Chat completions: what leaves of a stream and of a whole response, as OpenAI's SDK reads it."""

from __future__ import annotations

import copy
import json
import re
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Final

import httpx2
import openai
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from guard.exchange import Choice, Message, ToolCall
from guard.journal.store import Journal
from guard.server.scripted import Delivery, Reply, chat, samples
from guard.wire import chat as wire
from guard.wire import ledger
from guard.wire import relay as relays
from guard.wire.detail import Style
from guard.wire.parts import BodyError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from guard.detectors.base import Finding, Passage
    from guard.engine import Guard
    from guard.wire.formats import Call

    Json = dict[str, Any]
    Pass = Callable[..., bytes]
    Heard = Callable[[str | bytes], dict[str, str]]

PROMPT: Final = "How deep is the mill pond?"
REQUEST: Final = {"model": "m", "messages": [{"role": "user", "content": PROMPT}], "stream": True}
DOCUMENT: Final = REQUEST | {"response_format": {"type": "json_schema", "json_schema": {}}}

CALM: Final = "The pond is still and the reeds are green. " * 8
"""Some units of text that no detector minds."""

WHOLE: Final = Delivery(piece=10_000)
"""Every text in one piece."""

REMOVED: Final = ("zblock", "zredact", "zexcise", "zreplace")
"""Words that must not leave, whatever is done about them."""


KEYS: Final = (
    *("choices", "index", "delta", "message", "content", "refusal", "reasoning", "tool_calls"),
    *("function", "custom", "name", "arguments", "input", "text", "type", "finish_reason"),
    *("logprobs", "usage"),
)
"""Keys that the format knows."""


class Pond(BaseModel):
    """A structured answer."""

    name: str


def body_of(reply: Reply, request: Json = REQUEST) -> Json:
    """Return a whole response."""
    return chat.FORMAT.body(request, PROMPT, reply)


def stream_of(
    *said: Choice, delivery: Delivery = WHOLE, request: Json = REQUEST, **changes: Any
) -> bytes:
    """Return a stream of choices, or of those in `changes`."""
    body = body_of(Reply(said or (Choice(),), changes=changes), request | {"n": len(said) or 1})
    events = chat.FORMAT.events(request, body, delivery)
    return b"".join(event.encode(delivery.newline) for event in events)


def chunk(*choices: Json, **fields: Any) -> Json:
    """Return a chunk."""
    about = {"id": "c1", "object": "chat.completion.chunk", "created": 1, "model": "m"}
    return about | {"choices": list(choices)} | fields


def delta(index: int = 0, /, *, finish: Any = None, **fields: Any) -> Json:
    """Return a choice of a chunk."""
    return {"index": index, "delta": fields, "finish_reason": finish}


def sse(*chunks: Json) -> bytes:
    """Return chunks as a backend sends them."""
    texts = [f"data: {json.dumps(each)}\n\n" for each in chunks]
    return ("".join(texts) + "data: [DONE]\n\n").encode()


def read(data: bytes) -> list[Json]:
    """Return the chunks of a stream that ends as it should."""
    *blocks, done, rest = data.decode().split("\n\n")
    assert (done, rest) == ("data: [DONE]", "")
    return [json.loads(block.removeprefix("data: ")) for block in blocks]


def sdk(data: bytes, kind: str = "text/event-stream") -> openai.OpenAI:
    """Return OpenAI's client, behind which some bytes are the answer to everything."""
    headers = {"content-type": kind}
    transport = httpx2.MockTransport(lambda _: httpx2.Response(200, headers=headers, content=data))
    client = httpx2.Client(transport=transport)
    return openai.OpenAI(api_key="none", base_url="http://x/v1", http_client=client, max_retries=0)


def final(data: bytes) -> Any:
    """Return the completion that the SDK's helper makes of a stream."""
    with sdk(data).chat.completions.stream(model="m", messages=[]) as stream:
        return stream.get_final_completion()


def words_in(name: str) -> str:
    """Return a text that names its channel."""
    return f"Words in {name}."


def nameless(text: str) -> str:
    """Return a stream without the id of its journal row, which no other has."""
    return re.sub('"record":"[0-9a-f]*"', "", text)


def leaves(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield the path of every string in a document."""
    if isinstance(value, str):
        yield path
    elif isinstance(value, dict | list):
        pairs = value.items() if isinstance(value, dict) else enumerate(value)
        for key, inner in pairs:
            yield from leaves(inner, (*path, key))


def planted(document: Json, path: tuple[Any, ...], text: str) -> Json:
    """Return a document with a text behind the string at a path."""
    own: Any = copy.deepcopy(document)
    holder = own
    for key in path[:-1]:
        holder = holder[key]
    holder[path[-1]] += text
    return own  # type: ignore[no-any-return]


@pytest.fixture(scope="module")
def guard(make_guard: Callable[..., Guard]) -> Guard:
    """Return a guard that fires on words."""
    return make_guard()


@pytest.fixture(scope="module")
def through(guard: Guard, pass_stream: Pass) -> Pass:
    """Return what sends a stream through that guard."""

    def passed(data: bytes, request: Json = REQUEST, **options: Any) -> bytes:
        return pass_stream(guard, "chat", data, request=request, **options)

    return passed


@pytest.fixture(scope="module")
def whole(guard: Guard, pass_body: Pass) -> Callable[..., Json]:
    """Return what sends a whole response through that guard."""

    def passed(body: Json | bytes, request: Json = REQUEST, **options: Any) -> Json:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        left: Json = json.loads(pass_body(guard, "chat", data, request=request, **options))
        return left

    return passed


class TestBenign:
    """What nobody minds leaves as it came."""

    @pytest.mark.parametrize("piece", [0, 3, 10_000])
    def test_stream_is_the_same_bytes(self, through: Pass, piece: int) -> None:
        """Every kind of text passes, however it is cut."""
        data = stream_of(delivery=Delivery(piece=piece), **samples.every_chat_choice(words_in))
        assert through(data) == data

    @given(cuts=st.lists(st.integers(0, 4000), max_size=8))
    def test_stream_in_any_pieces(self, through: Pass, cuts: list[int]) -> None:
        """It does not matter how bytes arrive."""
        data = stream_of(Choice(CALM, reasoning="Hm."), Choice("Yes."))
        assert through(data, cuts=[min(cut, len(data)) for cut in cuts]) == data

    @pytest.mark.parametrize("newline", ["\r\n", "\r"])
    def test_line_ends(self, through: Pass, newline: Any) -> None:
        """Line ends become one and the same, whatever they were."""
        data = stream_of(Choice(CALM), delivery=Delivery(newline=newline))
        assert through(data) == data.replace(newline.encode(), b"\n")
        assert through(data, cuts=1) == data.replace(newline.encode(), b"\n")

    def test_body_is_the_same_bytes(self, guard: Guard, pass_body: Pass) -> None:
        """So does a whole response with its own spacing."""
        body = body_of(Reply(changes=samples.every_chat_choice(words_in)))
        data = json.dumps(body, indent=3, ensure_ascii=False).encode()
        assert pass_body(guard, "chat", data, request=REQUEST) == data

    def test_usage_chunk(self, through: Pass) -> None:
        """The chunk of usage, which has no choices, and log-probabilities pass."""
        request = REQUEST | {"stream_options": {"include_usage": True}, "logprobs": True}
        data = stream_of(Choice("It is deep.", refusal="No."), request=request)
        assert through(data, request) == data

    def test_flagged(self, through: Pass) -> None:
        """What is only flagged is not touched, and nothing is added to it."""
        data = stream_of(Choice("A zflag."))
        assert through(data) == data

    def test_shadow(
        self, make_guard: Callable[..., Guard], pass_stream: Pass, pass_body: Pass
    ) -> None:
        """In a shadow class nothing is touched, however bad and however spelled."""
        guard = make_guard(shadow=True)
        data = stream_of(Choice("A zblock.", tool_calls=(ToolCall("look", '{"q":"zblock"}'),)))
        data = data.replace(b'"created"', b'"note":"zblock","note":"x","created"')
        assert pass_stream(guard, "chat", data, cuts=7) == data
        body = b'{"choices":[{"index":0,"logprobs":{"content":[{"token":"zblock"}]}}],"a":1,"a":2}'
        assert pass_body(guard, "chat", body) == body

    def test_keep_alive(self, through: Pass) -> None:
        """A comment keeps the connection alive without its words; ids and names say nothing."""
        data = sse(chunk(delta(content="Yes.")), chunk(delta(finish="stop")))
        noisy = b": zblock\n\nid: zblock\nretry: 1\nevent: zblock\n" + data
        assert through(noisy) == b":\n\n" + data


class TestRewritten:
    """What can be mended is mended where it stands."""

    def test_across_chunks(self, through: Pass) -> None:
        """A word that several chunks bring is taken out of all of them."""
        data = sse(*(chunk(delta(content=text)) for text in ("A ", "zre", "da", "ct.")))
        completion = final(through(data))
        assert completion.choices[0].message.content == "A [redacted: to redact]."
        assert not hasattr(completion, "guard")

    @pytest.mark.parametrize("key", ["reasoning", "reasoning_content", "thinking", "refusal"])
    def test_spellings(self, through: Pass, heard: Heard, key: str) -> None:
        """Reasoning is mended in all spellings, and so is a refusal."""
        data = sse(chunk(delta(**{key: "A zredact."})), chunk(delta(finish="stop")))
        assert heard(through(data))[f".choices[0].delta.{key}"] == "A [redacted: to redact]."

    def test_two_spellings_at_once(self, through: Pass, heard: Heard) -> None:
        """One thought in two spellings is judged once and mended in both."""
        both = [{"reasoning": text, "thinking": text} for text in ("A zre", "dact.")]
        texts = heard(through(sse(*(chunk(delta(**each)) for each in both))))
        assert texts[".choices[0].delta.reasoning"] == "A [redacted: to redact]."
        assert texts[".choices[0].delta.thinking"] == "A [redacted: to redact]."

    def test_typed_content(self, through: Pass, whole: Callable[..., Json]) -> None:
        """Content in a list of pieces is one text."""
        parts = [{"type": "text", "text": text} for text in ("A zre", "dact.")]
        chunks = read(through(sse(chunk(delta(content=parts)))))
        left = [part["text"] for part in chunks[0]["choices"][0]["delta"]["content"]]
        assert left == ["A [redacted: to redact]", "."]
        message = {"role": "assistant", "content": parts}
        body = whole({"choices": [{"index": 0, "message": message}]})
        assert body["choices"][0]["message"]["content"][0]["text"] == "A [redacted: to redact]"

    def test_tool_call(self, through: Pass) -> None:
        """A call's arguments stay JSON."""
        call = ToolCall("look", '{"q": "zredact", "n": 1}')
        completion = final(through(stream_of(Choice(tool_calls=(call,)), delivery=Delivery())))
        function = completion.choices[0].message.tool_calls[0].function
        assert json.loads(function.arguments) == {"q": "[redacted: to redact]", "n": 1}

    def test_tokens_go_with_their_text(self, through: Pass, heard: Heard) -> None:
        """Log-probabilities spell the text once more, so that they go where it is mended."""
        request = REQUEST | {"logprobs": True}
        left = through(stream_of(Choice("Yes. " + CALM + "A zredact."), request=request), request)
        assert "zredact" not in "".join(heard(left).values())
        assert read(left)[1]["choices"][0]["logprobs"]["content"]


class TestWithheld:
    """What cannot be mended is withheld, and the stream ends as it should."""

    def test_block(self, through: Pass) -> None:
        """The class's message is content and refusal; the finish is `stop`; usage stays."""
        request = REQUEST | {"stream_options": {"include_usage": True}}
        left = through(stream_of(Choice("A zblock."), request=request), request)
        completion = final(left)
        choice = completion.choices[0]
        assert (choice.message.content, choice.message.refusal) == ("[blocked]", "[blocked]")
        assert choice.finish_reason == "stop"
        assert completion.usage.completion_tokens > 0
        assert read(left)[-2]["guard"]["action"] == "block"

    def test_partly_delivered(self, through: Pass) -> None:
        """What had left stands, and the message follows in a paragraph of its own."""
        left = through(stream_of(Choice(CALM + "A zblock. " + CALM), delivery=Delivery()))
        content = final(left).choices[0].message.content
        before, _, after = content.partition("\n\n")
        assert after == "[blocked]"
        assert before
        assert CALM.startswith(before)

    def test_replaced(self, through: Pass) -> None:
        """A replacement is an answer like any other."""
        message = final(through(stream_of(Choice("A zreplace.")))).choices[0].message
        assert (message.content, message.refusal) == ("[replaced]", None)

    def test_content_filter(self, through: Pass) -> None:
        """The finish can be the vendor's own, for which its SDK raises."""
        left = through(stream_of(Choice("A zblock.")), style=Style(chat="content_filter"))
        assert read(left)[-1]["choices"][0]["finish_reason"] == "content_filter"
        with pytest.raises(openai.ContentFilterFinishReasonError):
            final(left)

    def test_one_choice_of_two(self, through: Pass) -> None:
        """The others go on as they would."""
        left = through(stream_of(Choice("A zblock."), Choice(CALM), delivery=Delivery()))
        first, second = final(left).choices
        assert first.message.content == "[blocked]"
        assert second.message.content == CALM
        finishes = [c["finish_reason"] for each in read(left) for c in each["choices"]]
        assert [finish for finish in finishes if finish] == ["stop", "stop"]

    def test_document(self, through: Pass) -> None:
        """Where a document was asked for, `parse` finds a refusal and none."""
        left = through(stream_of(Choice('{"name": "zreplace"}'), request=DOCUMENT), DOCUMENT)
        stream = sdk(left).chat.completions.stream(model="m", messages=[], response_format=Pond)
        with stream as events:
            message = events.get_final_completion().choices[0].message
        assert (message.parsed, message.refusal) == (None, "[replaced]")

    def test_mended_document(self, through: Pass) -> None:
        """One that is mended is still one, and leaves whole."""
        data = stream_of(Choice('{"name": "zredact"}'), request=DOCUMENT, delivery=Delivery())
        stream = sdk(through(data, DOCUMENT)).chat.completions.stream(
            model="m", messages=[], response_format=Pond
        )
        with stream as events:
            message = events.get_final_completion().choices[0].message
        assert message.parsed == Pond(name="[redacted: to redact]")

    def test_tool_call(self, through: Pass) -> None:
        """Of a bad call nothing leaves, not even its name; what was said before stays."""
        call = ToolCall("look", '{"q": "zblock"}')
        left = through(stream_of(Choice("I look.", tool_calls=(call,)), delivery=Delivery()))
        message = final(left).choices[0].message
        assert (message.content, message.tool_calls) == ("I look.\n\n[blocked]", None)
        assert b'look"' not in left

    @pytest.mark.parametrize("word", REMOVED)
    def test_spoken(self, through: Pass, heard: Heard, word: str) -> None:
        """A transcript leaves once it was judged; nothing is taken out, since it would be heard."""
        sound = "QUJD" * 300
        said = [
            {"id": "a", "transcript": CALM},
            *({"transcript": piece} for piece in ("A z", word[1:4], f"{word[4:]}.")),
            {"data": sound},
        ]
        left = through(sse(*(chunk(delta(audio=each)) for each in said)))
        texts = heard(left)
        transcript = texts.get(".choices[0].delta.audio.transcript", "")
        assert "A z" not in transcript
        assert CALM.startswith(transcript)
        assert sound not in left.decode()
        assert read(left)[-1]["choices"][0]["finish_reason"] == "stop"

    def test_spoken_well(self, through: Pass) -> None:
        """A spoken answer that passes leaves byte for byte, with its sound."""
        said = [{"id": "a", "transcript": piece} for piece in ("The pond ", "is still.")]
        spoken = [*said, {"data": "QUJD" * 300}, {"expires_at": 1}]
        data = sse(*(chunk(delta(audio=each)) for each in spoken), chunk(delta(finish="stop")))
        assert through(data) == data

    @pytest.mark.parametrize("size", [1, 2, 5])
    @pytest.mark.parametrize("rest", ["", CALM])
    def test_unknown_key(self, through: Pass, heard: Heard, size: int, rest: str) -> None:
        """Of a text under a key that nobody knows nothing leaves of the word that withholds it."""
        said = f"{CALM}A zblock.{rest}"
        pieces = [said[at : at + size] for at in range(0, len(said), size)]
        texts = heard(through(sse(*(chunk(delta(odd=piece)) for piece in pieces))))
        left = texts[".choices[0].delta.odd"]
        assert left
        assert CALM.startswith(left)
        assert texts[".choices[0].delta.content"].endswith("[blocked]")

    def test_unknown_key_far_apart(self, through: Pass, heard: Heard) -> None:
        """A text that went on although it seemed to be over is waited for longer from then on."""
        between = [chunk(delta(content="Calm. ")) for _ in range(5)]
        pieces = ([chunk(delta(odd=piece)), *between] for piece in ("A z", "bl", "oc", "k."))
        texts = heard(through(sse(*(each for piece in pieces for each in piece))))
        assert texts[".choices[0].delta.odd"] == "A z"
        assert texts[".choices[0].delta.content"].endswith("[blocked]")

    def test_unknown_key_well(self, through: Pass) -> None:
        """One that passes leaves byte for byte, whatever comes between and behind its end."""
        said = [chunk(delta(odd=piece)) for piece in ("The pond ", "is still, ", "very still.")]
        told = [chunk(delta(content=CALM)), *said, chunk(delta(finish="stop")), *said]
        assert through(sse(*told)) == sse(*told)

    @pytest.mark.parametrize(
        ("note", "waits"),
        [
            (lambda _: {"provider": "Ferns and Co"}, 1),
            (lambda at: {} if at else {"provider": "Ferns and Co"}, 3),
            (lambda _: {"sources": ["fern one", "fern two"]}, 1),
            (lambda at: {"at": 10**17 + at}, 0),
            (lambda at: {"state": "reading" if at < 9 else "writing"}, 8),
        ],
        ids=["constant", "once", "list", "number", "state"],
    )
    def test_unknown_key_repeats(
        self,
        make_guard: Callable[..., Guard],
        make_call: Callable[..., Call],
        play: Callable[..., list[str]],
        note: Callable[[int], Json],
        waits: int,
    ) -> None:
        """A note that comes with each chunk keeps back few chunks, and none for long."""
        guard = make_guard()
        said = [chunk(delta(content=""), **note(at)) for at in range(30)]
        data = [f"data: {json.dumps(each)}\n\n".encode() for each in said]
        left = play(guard, make_call(guard, "chat", REQUEST).relay(), data)
        behind = [at + 1 - "".join(left[: at + 1]).count("data: ") for at in range(30)]
        assert max(behind) <= waits
        assert behind[-1] <= 1
        assert "".join(left).encode() == b"".join(data)

    def test_unknown_key_beside(self, through: Pass, heard: Heard) -> None:
        """What waits under such a key does not leave where another text withholds the choice."""
        said = [chunk(delta(odd="A zbl")), chunk(delta(content="A zblock.", finish="stop"))]
        assert ".choices[0].delta.odd" not in heard(through(sse(*said)))

    def test_body(self, whole: Callable[..., Json]) -> None:
        """A whole response says the same, and keeps what it is known by."""
        body = body_of(Reply((Choice("A zblock."),)))
        left = whole(body)
        choice = left["choices"][0]
        assert choice["message"] == {
            "role": "assistant",
            "content": "[blocked]",
            "refusal": "[blocked]",
        }
        assert (choice["finish_reason"], choice["logprobs"]) == ("stop", None)
        assert (left["id"], left["usage"]) == (body["id"], body["usage"])
        assert left["guard"]["reasons"] == ["to_block: live risk 0.99 reached 0.90 (block)"]
        completion = sdk(json.dumps(left).encode(), "application/json").chat.completions.create(
            model="m", messages=[]
        )
        assert completion.choices[0].message.refusal == "[blocked]"

    def test_body_with_two_choices(self, whole: Callable[..., Json]) -> None:
        """One of two is refused where it stands, the other is left alone."""
        body = body_of(Reply((Choice(CALM), Choice("A zblock."))), REQUEST | {"n": 2})
        left = whole(body)
        assert left["choices"][0] == body["choices"][0]
        assert left["choices"][1]["message"]["refusal"] == "[blocked]"

    def test_nothing_to_refuse_in(self, whole: Callable[..., Json], through: Pass) -> None:
        """A response without choices gets one where it is withheld."""
        left = whole({"id": "c1", "choices": ["zblock"], "note": "A zblock."})
        assert [each["message"]["content"] for each in left["choices"]] == ["[blocked]"]
        assert (
            final(through(sse(chunk(note="A zblock.")))).choices[0].message.content == "[blocked]"
        )

    def test_asks_again(
        self, make_guard: Callable[..., Guard], make_call: Callable[..., Call]
    ) -> None:
        """Where the backend is to be asked again, nothing has left by then."""
        limits = {"to_block": {"act": 0.9, "remedy": "regenerate"}}
        guard = make_guard(limits=limits)
        relay = make_call(guard, "chat", REQUEST).relay(patient=True)
        guard.driver.run(relay.feed(stream_of(Choice("A zblock."), delivery=Delivery())))
        assert relay.regenerate
        assert relay.stopped
        relay = make_call(guard, "chat", REQUEST).relay()
        steps = relay.feed(stream_of(Choice("A zblock.")))
        assert guard.driver.advance(steps)
        assert not relay.regenerate

    def test_a_document_that_waits_is_looked_at_once(
        self,
        make_guard: Callable[..., Guard],
        make_call: Callable[..., Call],
        play: Callable[..., list[str]],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        """With each event of what leaves as a whole, those before it are not sought anew."""
        looked: list[ledger.Piece] = []
        ready = ledger.Ledger.ready

        def noted(self: ledger.Ledger, piece: ledger.Piece) -> bool:
            looked.append(piece)
            return ready(self, piece)

        monkeypatch.setattr(ledger.Ledger, "ready", noted)
        guard = make_guard(limits={"to_block": {"act": 0.9, "remedy": "regenerate"}})
        wanted = REQUEST | {"response_format": {"type": "json_object"}}
        said = json.dumps({"text": CALM * 4})
        pieces = [said[at : at + 8] for at in range(0, len(said), 8)]
        data = sse(*(chunk(delta(content=p)) for p in pieces), chunk(delta(finish="stop")))
        left = play(guard, make_call(guard, "chat", wanted).relay(patient=True), [data])
        assert final("".join(left).encode()).choices[0].message.content == said
        assert len(looked) < 4 * len(pieces)


class TestLeaks:
    """A word that must not leave is in nothing that leaves."""

    @pytest.mark.parametrize("word", REMOVED)
    def test_every_string_of_a_body(self, whole: Callable[..., Json], word: str) -> None:
        """Wherever in a response a word stands, it is gone, and the rest is still JSON."""
        body = body_of(Reply(changes=samples.every_chat_choice(words_in)))
        for path in leaves(body):
            left = json.dumps(whole(planted(body, path, f" {word}.")))
            assert word not in left, path

    @pytest.mark.parametrize("word", ["zblock", "zredact"])
    def test_every_string_of_a_stream(self, through: Pass, heard: Heard, word: str) -> None:
        """Wherever in a stream it stands, it is gone as well, whatever it stands between."""
        data = stream_of(delivery=WHOLE, **samples.every_chat_choice(words_in))
        chunks = [json.loads(block[6:]) for block in data.split(b"\n\n")[:-2]]
        for at, each in enumerate(chunks):
            for path in leaves(each):
                other = [*chunks[:at], planted(each, path, f" {word}."), *chunks[at + 1 :]]
                left = through(sse(*other))
                assert word not in left.decode(), path
                assert word not in "".join(heard(left).values()), path

    @given(data=st.data())
    def test_in_pieces(self, through: Pass, heard: Heard, data: st.DataObject) -> None:
        """So it is however the text is cut, among how many choices, and in whatever place."""
        word = data.draw(st.sampled_from(REMOVED))
        place = data.draw(st.sampled_from(sorted(PLACES)))
        before = CALM[: data.draw(st.sampled_from([0, 3, 150, len(CALM)]))]
        text = f"{before}A {word}. {CALM}"
        bounds = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=6)))
        # The word is cut, too.
        bounds = sorted({0, *bounds, len(before) + data.draw(st.integers(2, 8)), len(text)})
        pieces = [text[a:b] for a, b in pairwise(bounds)]
        chunks = []
        for piece in pieces:
            chunks.append(PLACES[place](piece))
            if data.draw(st.booleans()):
                chunks.append(chunk(delta(1, content="Meanwhile. ")))
        left = through(sse(*chunks), cuts=data.draw(st.integers(1, 400)))
        said = heard(left)
        assert all(word not in text for text in [left.decode(), *said.values()])

    @pytest.mark.parametrize("word", ["zblock", "zredact"])
    def test_goes_on_after_others(self, through: Pass, heard: Heard, word: str) -> None:
        """A text that goes on after another came between is judged anew from its start."""
        for at in range(1, len(word)):
            between = chunk(delta(reasoning="Hm."))
            data = sse(
                chunk(delta(content=f"A {word[:at]}")), between, chunk(delta(content=word[at:]))
            )
            assert word not in heard(through(data))[".choices[0].delta.content"]

    def test_tokens(self, through: Pass, whole: Callable[..., Json]) -> None:
        """Tokens that spell anything but the text, and alternatives to them, do not leave."""
        fine = {"token": "Yes", "bytes": list(b"Yes"), "logprob": -0.1, "top_logprobs": []}
        for tokens in (
            {"content": [fine | {"token": "zblock"}]},
            {"content": [fine | {"bytes": list(b"zblock")}]},
            {"content": [fine | {"top_logprobs": [fine | {"token": "zblock"}]}]},
            {"content": [fine | {"note": "zblock"}]},
            {"content": [fine], "refusal": [fine | {"token": "zblock"}]},
            {"content": [fine], "note": "a zblock"},
            {"content": "zblock"},
            "a zblock",
        ):
            entry = delta(content="Yes") | {"logprobs": tokens}
            assert b"zblock" not in through(sse(chunk(entry)))
            choice = {"index": 0, "message": {"content": "Yes"}, "logprobs": tokens}
            assert "zblock" not in json.dumps(whole({"choices": [choice]}))

    @pytest.mark.parametrize("name", [["a zblock"], {"text": "a zblock"}, 0.5, None])
    @pytest.mark.parametrize("said", ["arguments", "input"])
    def test_a_tool_whose_name_is_no_text(
        self, through: Pass, whole: Callable[..., Json], name: Any, said: str
    ) -> None:
        """What stands in its place is judged like every other value."""
        call = {
            "index": 0,
            "function" if said == "arguments" else "custom": {"name": name, said: ""},
        }
        left = whole({"choices": [{"index": 0, "message": {"tool_calls": [call]}}]})
        left_too = through(sse(chunk(delta(tool_calls=[call], finish="tool_calls"))))
        assert "zblock" not in json.dumps(left) + left_too.decode()
        assert ("tool_calls" in left["choices"][0]["message"]) == (name in (0.5, None))

    def test_a_choice_without_a_list(self, through: Pass, whole: Callable[..., Json]) -> None:
        """Its tokens are held to its text as those of any choice are."""
        token: Json = {"token": "zblock", "bytes": None, "logprob": -0.1, "top_logprobs": []}
        beside = {"index": 0, "finish_reason": "stop", "logprobs": {"content": [token]}}
        left = whole({"choices": beside | {"message": {"content": "Yes"}}})
        left_too = through(sse(chunk() | {"choices": beside | {"delta": {"content": "Yes"}}}))
        assert "zblock" not in json.dumps(left) + left_too.decode()
        assert left["choices"]["message"] == {"content": "Yes"}

    def test_key_that_stands_twice(self, through: Pass, whole: Callable[..., Json]) -> None:
        """What a second key hides from one reader is not shown to another."""
        twice = b'{"choices":[{"index":0,"delta":{"content":"a zblock","content":"Yes."}}]}'
        assert b"zblock" not in through(b"data: " + twice + b"\n\n")
        assert "zblock" not in json.dumps(whole(twice.replace(b"delta", b"message")))

    def test_beside_other_choices(self, through: Pass) -> None:
        """A bad text beside the choices does not leave with a good choice."""
        good = chunk(delta(1, content="Yes."), note="a zblock", usage={"note": "a zblock", "n": 1})
        left = through(sse(good, chunk(delta(1, finish="stop"))))
        assert b"zblock" not in left
        assert read(left)[0]["choices"][0]["delta"] == {"content": "Yes."}
        assert read(left)[0]["usage"] == {"note": None, "n": 1}

    def test_in_own_chunks(self, through: Pass) -> None:
        """What own chunks are made of holds no text."""
        left = through(sse(chunk(delta(content="A zblock."), id={"note": "a zblock"})))
        assert b"zblock" not in left

    @given(
        st.recursive(
            st.sampled_from([None, 0, -1, 2.5, True, "", "a zblock", "Yes.", "stop"]),
            lambda inner: (
                st.lists(inner, max_size=3)
                | st.dictionaries(
                    st.sampled_from(KEYS),
                    inner,
                    max_size=5,
                )
            ),
            max_leaves=14,
        )
    )
    def test_any_json(self, through: Pass, whole: Callable[..., Json], value: Any) -> None:
        """Whatever a backend sends, the word does not leave and nothing breaks but the stream."""
        documents = [value if isinstance(value, dict) else {"choices": value}]
        documents += [{"choices": [{"delta": value, "message": value}]}]
        for document in documents:
            assert b"zblock" not in through(sse(document, chunk(delta(content="Yes."))))
            # Identifiers are no texts.
            assert "a zblock" not in json.dumps(whole(document))


PLACES: Final[dict[str, Callable[[str], Json]]] = {
    **{
        key: lambda text, key=key: chunk(delta(**{key: text}))  # type: ignore[misc]
        for key in ("content", "refusal", "reasoning", "reasoning_content", "thinking", "unknown")
    },
    "typed": lambda text: chunk(delta(content=[{"type": "text", "text": text}])),
    "typed thinking": lambda text: chunk(delta(content=[{"type": "x", "thinking": text}])),
    "list": lambda text: chunk(delta(content=[text])),
    "details": lambda text: chunk(delta(reasoning_details=[{"text": text, "format": "x"}])),
    "arguments": lambda text: chunk(
        delta(tool_calls=[{"index": 0, "function": {"arguments": text}}])
    ),
    "input": lambda text: chunk(delta(tool_calls=[{"index": 1, "custom": {"input": text}}])),
    "function_call": lambda text: chunk(delta(function_call={"arguments": text})),
    "tool's name": lambda text: chunk(delta(tool_calls=[{"index": 0, "function": {"name": text}}])),
    "beside the delta": lambda text: chunk(delta() | {"note": text}),
    "beside the choices": lambda text: chunk(delta(), note=text),
    "second choice": lambda text: chunk(delta(1, content=text)),
    "two at once": lambda text: chunk(delta(content=text), delta(1, content=text)),
}
"""Ways in which a piece of a text can come."""


CARD: Final = 4111111111111111


class TestNumbers:
    """What is a text in quotes is one without."""

    @pytest.mark.parametrize("number", [CARD, float(CARD), -CARD])
    @pytest.mark.parametrize(
        "message",
        [
            {"content": "{}"},
            {"content": [{"type": "text", "text": "{}"}]},
            {"note": ["{}"]},
            {"tool_calls": [{"function": {"name": "pay", "arguments": {"card": "{}"}}}]},
            {"tool_calls": [{"function": {"name": "pay", "arguments": ["{}"]}}]},
            {"tool_calls": [{"function": {"name": "pay", "arguments": "{}"}}]},
            {"function_call": {"name": "pay", "arguments": {"card": {"number": "{}"}}}},
        ],
    )
    def test_withheld(
        self,
        pack_guard: Guard,
        pass_body: Callable[..., bytes],
        pass_stream: Pass,
        message: Json,
        number: float,
    ) -> None:
        """A card's number does not leave, whole or in a stream."""
        given = json.loads(json.dumps(message).replace('"{}"', repr(number)))
        whole = {"choices": [{"index": 0, "message": given, "finish_reason": "stop"}]}
        assert b"4111" not in pass_body(pack_guard, "chat", json.dumps(whole).encode())
        stream = sse(chunk(delta(**given)), chunk(delta(finish="stop")))
        assert b"4111" not in pass_stream(pack_guard, "chat", stream)

    def test_beside(self, pack_guard: Guard, pass_body: Callable[..., bytes]) -> None:
        """One beside the answer does not stay where the answer is withheld for it."""
        message = {"role": "assistant", "content": "Ferns."}
        entry = {"index": 0, "message": message, "finish_reason": "stop"}
        data = {"choices": [entry], "usage": {"total_tokens": 9, "card": CARD}}
        left = json.loads(pass_body(pack_guard, "chat", json.dumps(data).encode()))
        assert left["usage"] == {"total_tokens": 9, "card": None}
        assert "Ferns" not in json.dumps(left)

    def test_times_and_counts(self, pack_guard: Guard, pass_body: Callable[..., bytes]) -> None:
        """What vendors count passes, in whichever unit."""
        message = {"role": "assistant", "content": "Ferns."}
        data = {
            "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
            "created": 1_700_000_000,
            "created_ms": 1_700_000_000_123,
            "total_duration": 5_191_566_416,
            "eval_duration": 51_915_664_160,
            "usage": {"total_tokens": 1_048_576, "cost": 0.00012345678901},
        }
        given = json.dumps(data).encode()
        assert pass_body(pack_guard, "chat", given) == given


class TestHolding:
    """Nothing leaves before it was judged."""

    def test_every_byte(
        self, make_guard: Callable[..., Guard], make_call: Callable[..., Call], heard: Heard
    ) -> None:
        """At every byte of a stream, what has left is the beginning of what was judged."""

        class Watching:
            """Remembers every unit that it was asked about."""

            name, version, categories = "watching", "1", ("to_block",)

            def __init__(self) -> None:
                """Have seen nothing."""
                self.seen = ""

            def __call__(self, passage: Passage) -> list[Finding]:
                """Find nothing."""
                self.seen += passage.unit
                return []

        watching = Watching()
        limits = {"to_block": {"act": 0.9, "remedy": "block"}}
        guard = make_guard(watching, limits=limits)
        relay = make_call(guard, "chat", REQUEST).relay()
        data = stream_of(Choice(CALM + CALM[:100]), delivery=Delivery())
        left = ""
        for at in range(len(data)):
            steps = relay.feed(data[at : at + 1])
            while (text := guard.driver.advance(steps)) is not None:
                left += text
                said = heard(left).get(".choices[0].delta.content", "")
                assert watching.seen.startswith(said)
        assert left.encode() == data

    @pytest.mark.parametrize("word", ["zblock", "zredact", "zflag"])
    def test_cut_off(
        self,
        make_guard: Callable[..., Guard],
        make_call: Callable[..., Call],
        heard: Heard,
        tmp_path: Path,
        word: str,
    ) -> None:
        """Cut at any byte, a stream has let out a beginning of the whole; the row says how much."""
        journal = Journal(tmp_path / "journal.db")
        guard = make_guard(journal=journal)
        data = stream_of(Choice(f"{CALM[:200]}A {word}. {CALM}"), delivery=Delivery(piece=40))
        relay = make_call(guard, "chat", REQUEST).relay()
        full, bounds = "", []
        for at in range(len(data)):
            steps = relay.feed(data[at : at + 1])
            while (text := guard.driver.advance(steps)) is not None:
                full += text
            bounds.append(len(full))
        for at in range(0, len(data), 97):
            relay = make_call(guard, "chat", REQUEST).relay()
            left, steps = "", relay.feed(data[:at])
            while (text := guard.driver.advance(steps)) is not None:
                left += text
            guard.driver.run(relay.abandon())
            assert nameless(left) == nameless(full[: bounds[at - 1] if at else 0])
            assert not relay.finished
            record = relay.session.verdict().record
            if record is not None:
                row = journal.get(record)
                said = heard(left).get(".choices[0].delta.content", "").partition("\n\n")[0]
                assert not row.complete
                assert word == "zredact" or row.released == len(said)
        assert journal.count() > 5

    def test_journal(
        self, make_guard: Callable[..., Guard], pass_stream: Pass, tmp_path: Path, heard: Heard
    ) -> None:
        """The row says how much had left of all texts, and not what was held back."""
        journal = Journal(tmp_path / "journal.db")
        guard = make_guard(journal=journal)
        said = Choice(CALM + "A zblock.", reasoning="Hm. ", tool_calls=(ToolCall("look", "{}"),))
        left = heard(pass_stream(guard, "chat", stream_of(said, delivery=Delivery()), cuts=50))
        (row,) = journal.list()
        shown = left[".choices[0].delta.content"].removesuffix("\n\n[blocked]")
        assert row.released == len(shown) + len("Hm. ")
        assert (row.action, row.delivered, row.complete) == ("block", "part", True)

    def test_journal_where_text_goes_on(
        self, make_guard: Callable[..., Guard], pass_stream: Pass, tmp_path: Path
    ) -> None:
        """What had left before a text was judged anew counts as having left."""
        journal = Journal(tmp_path / "journal.db")
        thought = chunk(delta(reasoning="Hm."))
        data = sse(chunk(delta(content="A zbl")), thought, chunk(delta(content="ock.")))
        pass_stream(make_guard(journal=journal), "chat", data)
        (row,) = journal.list()
        assert row.released == len("A zbl" + "Hm.")

    def test_journal_behind_a_call(
        self, make_guard: Callable[..., Guard], pass_stream: Pass, tmp_path: Path, heard: Heard
    ) -> None:
        """What was judged and stood behind a call that never left has not left either."""
        journal = Journal(tmp_path / "journal.db")
        call = {"index": 0, "function": {"name": "look", "arguments": "{}"}}
        data = sse(
            chunk(delta(tool_calls=[call])),
            chunk(delta(content=CALM)),
            chunk(delta(content="zblock")),
        )
        left = pass_stream(make_guard(journal=journal), "chat", data)
        assert heard(left)[".choices[0].delta.content"] == "[blocked]"
        (row,) = journal.list()
        assert (row.released, row.delivered) == (0, "none")

    @pytest.mark.parametrize("at", range(12))
    def test_detector_fails(
        self, make_guard: Callable[..., Guard], pass_stream: Pass, heard: Heard, at: int
    ) -> None:
        """Where a detector fails, at whatever unit, what it judged before is all that has left."""

        class Failing:
            """Judges some units, then fails."""

            name, version, categories = "failing", "1", ("to_block",)

            def __init__(self) -> None:
                """Have seen nothing."""
                self.seen: list[str] = []

            def __call__(self, passage: Passage) -> list[Finding]:
                """Find nothing, until it is time to fail."""
                if len(self.seen) == at:
                    raise RuntimeError(passage.text)
                self.seen.append(passage.unit)
                return []

        failing = Failing()
        limits = {"to_block": {"act": 0.9, "remedy": "block"}}
        data = stream_of(Choice(CALM * 4), delivery=Delivery())
        left = pass_stream(make_guard(failing, limits=limits), "chat", data, cuts=100)
        said = heard(left)[".choices[0].delta.content"]
        if left != data:
            assert said.removesuffix("[blocked]").removesuffix("\n\n") == "".join(failing.seen)
            assert final(left).choices[0].message.refusal == "[blocked]"
        assert (left == data) == ("".join(failing.seen) == CALM * 4)

    def test_bounded(
        self,
        make_guard: Callable[..., Guard],
        make_call: Callable[..., Call],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        """Events that wait too long for a call are not kept: the choice is withheld."""
        monkeypatch.setattr(relays, "QUEUE_LIMIT", 10_000)
        guard = make_guard()
        relay = make_call(guard, "chat", REQUEST).relay()
        call = {"index": 0, "function": {"name": "look", "arguments": "{}"}}
        steps = relay.feed(
            sse(chunk(delta(tool_calls=[call])), *[chunk(usage={"n": 1})] * 500)[:-14]
        )
        left = ""
        while (text := guard.driver.advance(steps)) is not None:
            left += text
        assert "[blocked]" in left
        assert "look" not in left


class TestBroken:
    """A backend that breaks its own format."""

    @pytest.mark.parametrize(
        "event",
        [
            b'data: {"secret": \n\n',
            b"data: secret\n\n",
            b"data: [1]\n\n",
            b"data: " + b'{"a":' * 70 + b"1" + b"}" * 70 + b"\n\n",
            b"data: \xff\n\n",
        ],
    )
    def test_unreadable(self, through: Pass, event: bytes) -> None:
        """The stream ends with an error of the SDK's own, behind what was judged."""
        good = sse(chunk(delta(content=CALM)))[:-14]
        for data in (good + event + good, event):
            for cuts in (1, 10_000):
                left = through(data, cuts=cuts)
                with pytest.raises(openai.APIError, match="backend"):
                    final(left)
                assert b"secret" not in left
                assert left.endswith(b"\n\n")

    def test_too_many_texts(self, through: Pass, monkeypatch: pytest.MonkeyPatch) -> None:
        """The stream ends at the first text too many, behind what was judged."""
        monkeypatch.setattr(ledger, "CHANNEL_LIMIT", 2)
        said = [chunk(delta(number, content="zredact. " + CALM)) for number in range(4)]
        left = through(sse(*said))
        with pytest.raises(openai.APIError, match="more than 1024 texts"):
            final(left)
        assert b"zredact" not in left
        assert b'"index": 2' not in left

    def test_too_many_whole_texts(
        self, whole: Callable[..., Json], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A whole response with a text too many cannot be judged."""
        monkeypatch.setattr(ledger, "CHANNEL_LIMIT", 0)
        body = body_of(Reply((Choice("Yes."),)))
        with pytest.raises(BodyError, match="more than 1024 texts"):
            whole(body)

    def test_behind_a_refusal(self, through: Pass) -> None:
        """Where all was refused, there is nothing to add."""
        left = through(sse(chunk(delta(content="A zblock. " + CALM)))[:-14] + b"data: {\n\n")
        assert b"error" not in left
        assert b"[blocked]" in left

    def test_behind_the_end(self, through: Pass) -> None:
        """What comes behind the end is not looked at."""
        data = sse(chunk(delta(content="Yes.")))
        assert through(data + sse(chunk(delta(content="More."))) + b"data: {\n\n") == data

    def test_without_an_end(self, through: Pass) -> None:
        """A stream without its mark gets none; a choice without its end leaves all the same."""
        data = sse(chunk(delta(content="Yes.")))[:-14]
        assert through(data) == data

    def test_empty_data(self, through: Pass) -> None:
        """An event without text keeps the connection alive."""
        assert through(b"data:\n\n" + sse()) == b":\n\n" + sse()

    def test_error_event(self, through: Pass) -> None:
        """A backend's own error passes, and is read."""
        event = {"error": {"message": "Overloaded, my zblock friend.", "type": "x"}}
        assert b"zblock" not in through(sse(event))
        event["error"]["message"] = "Overloaded."
        assert through(sse(event)) == sse(event)


class TestAsked:
    """What a request asks for."""

    def test_conversation(self) -> None:
        """Messages of all roles are context; text is taken out of typed parts."""
        parts = [{"type": "text", "text": "How deep?"}, {"type": "image_url", "image_url": {}}]
        asked = wire.asked(
            {
                "model": "m",
                "messages": [
                    {"role": "developer", "content": "Be brief."},
                    {"role": "user", "content": parts, "name": "mill"},
                    {"role": "assistant", "content": None},
                    {"role": "tool", "content": "4 m"},
                    {"role": "stranger", "content": 5},
                    "nonsense",
                ],
            }
        )
        assert asked.exchange.messages == (
            Message("developer", "Be brief."),
            Message("user", "How deep?", "mill"),
            Message("assistant", ""),
            Message("tool", "4 m"),
            Message("user", ""),
        )
        assert (asked.stream, asked.structured, asked.exchange.model) == (False, False, "m")

    @pytest.mark.parametrize("value", [None, 5, "x", [], {}, [{}]])
    def test_nonsense(self, value: Any) -> None:
        """A request of any shape is read."""
        keys = ("messages", "model", "stream", "response_format")
        assert not wire.asked(dict.fromkeys(keys, value)).stream

    def test_document(self) -> None:
        """A document of a schema and any JSON are documents."""
        assert wire.asked(DOCUMENT).structured
        assert wire.asked({"response_format": {"type": "json_object"}}).structured
        assert not wire.asked({"response_format": {"type": "text"}}).structured


class TestRefusal:
    """The response to a request that is not passed on."""

    def test_stream(self) -> None:
        """A stream is a whole one."""
        data = wire.refusal(wire.asked(REQUEST), "No.", {"guard": {"action": "block"}})
        choice = final(data).choices[0]
        assert (choice.message.content, choice.message.refusal) == ("No.", "No.")
        assert (choice.finish_reason, read(data)[-1]["guard"]) == ("stop", {"action": "block"})

    def test_body(self) -> None:
        """A whole response has no tokens used."""
        data = wire.refusal(wire.asked({"model": "m"}), "No.", {"guard": {"action": "block"}})
        completion = sdk(data, "application/json").chat.completions.create(model="m", messages=[])
        assert completion.choices[0].message.refusal == "No."
        assert completion.usage is not None
        assert completion.usage.total_tokens == 0
        assert json.loads(data)["guard"] == {"action": "block"}

    def test_corrected(self) -> None:
        """A further request has the instruction as its last message, and all else as it was."""
        again = wire.corrected(REQUEST, "Leave out the word.")
        assert again["messages"][:-1] == REQUEST["messages"]
        assert again["messages"][-1] == {"role": "system", "content": "Leave out the word."}
        assert {**again, "messages": 0} == {**REQUEST, "messages": 0}
