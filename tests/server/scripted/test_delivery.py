"""How answers travel: cuts, pauses, holds, faults, and clients that leave."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any, Final

import anthropic as anthropic_sdk
import httpx2
import openai as openai_sdk
import pytest
from hypothesis import given
from hypothesis import strategies as st

from guard.exchange import Choice, ToolCall
from guard.server.scripted import BROKEN_LINE, Delivery, Reply, event_bytes

if TYPE_CHECKING:
    from collections.abc import Iterator

    from anthropic import Anthropic
    from openai import OpenAI, Stream
    from openai.types.chat import ChatCompletionChunk, ChatCompletionMessageParam

    from guard.server.scripted import ScriptedApp

PROMPT: Final = "What is in the shed?"
ASKED: Final[list[ChatCompletionMessageParam]] = [{"role": "user", "content": PROMPT}]
TEXT: Final = "one two three four five"
PIECES: Final = ("one", " two", " three", " four", " five")
PATHS: Final = ("/v1/chat/completions", "/v1/responses", "/v1/messages")
REQUEST: Final[dict[str, Any]] = {"messages": ASKED, "input": PROMPT, "max_tokens": 9}
STREAM: Final[dict[str, Any]] = REQUEST | {"stream": True}

paths = pytest.mark.parametrize("path", PATHS)
whole_or_stream = pytest.mark.parametrize("request_body", [REQUEST, STREAM], ids=["json", "sse"])

TEXTS: Final = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=60)
CUTS: Final = st.builds(
    Delivery,
    piece=st.integers(0, 9),
    chunk=st.integers(0, 40),
    newline=st.sampled_from(["\n", "\r\n", "\r"]),
    comments=st.booleans(),
)


def reply(text: str = TEXT, **delivery: Any) -> Reply:
    """Return an answer of `text` that travels as told."""
    return Reply((Choice(text),), delivery=Delivery(**delivery))


def read_until_cut(http: httpx2.Client, path: str, request: dict[str, Any]) -> bytes:
    """Return the bytes that came before the connection died."""
    blocks: list[bytes] = []
    with http.stream("POST", path, json=request) as answer:
        raw = answer.iter_raw()
        with pytest.raises(httpx2.RemoteProtocolError):
            blocks.extend(raw)
    return b"".join(blocks)


def with_call(text: str, delivery: Delivery) -> Reply:
    """Return an answer that says `text`, and calls a tool with it."""
    call = ToolCall("look_up", json.dumps({"given": text}, ensure_ascii=False))
    return Reply((Choice(text, tool_calls=(call,)),), delivery=delivery)


@pytest.fixture(scope="module")
def openai_always(served_backend: ScriptedApp) -> Iterator[openai_sdk.OpenAI]:
    """Return a client for all examples of a property."""
    url = f"{served_backend.url}/v1"
    with openai_sdk.OpenAI(base_url=url, api_key="none", max_retries=0) as client:
        yield client


@pytest.fixture(scope="module")
def anthropic_always(served_backend: ScriptedApp) -> Iterator[anthropic_sdk.Anthropic]:
    """Return a client for all examples of a property."""
    url = served_backend.url
    with anthropic_sdk.Anthropic(base_url=url, api_key="none", max_retries=0) as client:
        yield client


class TestCuts:
    """The same events however the bytes and the pieces are cut."""

    @given(text=TEXTS, cuts=CUTS)
    def test_chat_completions_survive_any_cut(
        self, served_backend: ScriptedApp, openai_always: OpenAI, text: str, cuts: Delivery
    ) -> None:
        """The SDK reads any text from any cut, line ends and comments."""
        served_backend.script(PROMPT, with_call(text, cuts))
        with openai_always.chat.completions.stream(model="m", messages=ASKED) as stream:
            message = stream.get_final_completion().choices[0].message
        assert message.content == text
        assert message.tool_calls
        assert json.loads(message.tool_calls[0].function.arguments) == {"given": text}

    @given(text=TEXTS, cuts=CUTS)
    def test_responses_survive_any_cut(
        self, served_backend: ScriptedApp, openai_always: OpenAI, text: str, cuts: Delivery
    ) -> None:
        """As above; the deltas alone join to the text, without the repetitions."""
        served_backend.script(PROMPT, with_call(text, cuts))
        with openai_always.responses.stream(model="m", input=PROMPT) as stream:
            deltas = [event.delta for event in stream if event.type == "response.output_text.delta"]
            response = stream.get_final_response()
        assert "".join(deltas) == response.output_text == text
        arguments = response.output[1].to_dict()["arguments"]
        assert json.loads(str(arguments)) == {"given": text}

    @given(text=TEXTS, cuts=CUTS)
    def test_messages_survive_any_cut(
        self, served_backend: ScriptedApp, anthropic_always: Anthropic, text: str, cuts: Delivery
    ) -> None:
        """As above, with a call's input put together from fragments of JSON."""
        served_backend.script(PROMPT, with_call(text, cuts))
        with anthropic_always.messages.stream(
            model="m", max_tokens=9, messages=[{"role": "user", "content": PROMPT}]
        ) as stream:
            said, tool = (block.to_dict() for block in stream.get_final_message().content)
        assert (said["text"], tool["input"]) == (text, {"given": text})

    @paths
    def test_chunks_have_the_size_asked_for(
        self, http: httpx2.Client, backend: ScriptedApp, path: str
    ) -> None:
        """Bytes are the same as without chunks, and no block read is longer."""
        backend.script(PROMPT, reply(), reply(chunk=7))
        plain = http.post(path, json=STREAM).content
        with http.stream("POST", path, json=STREAM) as answer:
            blocks = list(answer.iter_raw())
        assert b"".join(blocks) == plain
        assert max(map(len, blocks)) == 7

    def test_pieces_have_the_size_asked_for(self, openai: OpenAI, backend: ScriptedApp) -> None:
        """So many characters come in each delta."""
        backend.script(PROMPT, reply("abcdefgh", piece=3))
        stream = openai.chat.completions.create(model="m", messages=ASKED, stream=True)
        deltas = [chunk.choices[0].delta.content for chunk in stream]
        assert [delta for delta in deltas if delta] == ["abc", "def", "gh"]

    @whole_or_stream
    @paths
    def test_equal_requests_get_equal_bytes(
        self, http: httpx2.Client, path: str, request_body: dict[str, Any]
    ) -> None:
        """No clock and no chance is in an answer, so that a guarded one can be compared."""
        first, second = (http.post(path, json=request_body).content for _ in range(2))
        assert first == second


class TestTime:
    """Pauses and holds."""

    def test_pauses_before_each_piece(self, openai: OpenAI, backend: ScriptedApp) -> None:
        """A stream takes at least its pauses."""
        backend.script(PROMPT, reply(pause=0.02))
        started = time.monotonic()
        stream = openai.chat.completions.create(model="m", messages=ASKED, stream=True)
        assert "".join(_texts(stream)) == TEXT
        assert time.monotonic() - started >= 0.02 * len(PIECES)

    @pytest.mark.parametrize("held", range(len(PIECES) + 1))
    def test_holds_until_released(self, openai: OpenAI, backend: ScriptedApp, held: int) -> None:
        """So many pieces arrive; the others are sent once they are released."""
        backend.script(PROMPT, reply(holds_after=held))
        stream = openai.chat.completions.create(model="m", messages=ASKED, stream=True)
        texts = _texts(stream)
        assert [next(texts) for _ in range(held)] == list(PIECES[:held])
        assert backend.open_requests == 1
        backend.release()
        assert list(texts) == list(PIECES[held:])
        backend.wait_idle()
        assert backend.requests[0].outcome == "finished"

    def test_holds_a_whole_answer(self, openai: OpenAI, backend: ScriptedApp) -> None:
        """Without a stream nothing arrives before the release."""
        backend.script(PROMPT, reply(holds_after=0))
        impatient = openai.with_options(timeout=0.3)
        with pytest.raises(openai_sdk.APITimeoutError):
            impatient.chat.completions.create(model="m", messages=ASKED)
        backend.wait_idle()
        assert backend.requests[0].outcome == "left"
        assert backend.requests[0].sent == 0


class TestDeath:
    """Connections that end without an end."""

    @pytest.mark.parametrize("pieces", range(len(PIECES) + 1))
    def test_dies_after_pieces(self, openai: OpenAI, backend: ScriptedApp, pieces: int) -> None:
        """So many pieces arrive, then the SDK reports that the connection is gone."""
        backend.script(PROMPT, reply(dies_after=pieces))
        texts = _texts(openai.chat.completions.create(model="m", messages=ASKED, stream=True))
        read: list[str] = []
        with pytest.raises(openai_sdk.APIConnectionError):
            read.extend(texts)
        assert read == list(PIECES[:pieces])
        backend.wait_idle()
        assert backend.requests[0].outcome == "died"

    @whole_or_stream
    @paths
    def test_dies_at_any_byte(
        self, http: httpx2.Client, backend: ScriptedApp, path: str, request_body: dict[str, Any]
    ) -> None:
        """Exactly so many bytes arrive, the same as of the whole answer."""
        backend.script(PROMPT, "So.")
        whole = http.post(path, json=request_body).content
        for at in (0, 1, *range(2, len(whole), 97), len(whole) - 1):
            backend.script(PROMPT, reply("So.", dies_at_byte=at, chunk=50))
            assert read_until_cut(http, path, request_body) == whole[:at]
            backend.wait_idle()
            assert backend.requests[-1].outcome == "died"
            assert backend.requests[-1].sent == at

    @paths
    def test_finishes_where_the_byte_is_never_reached(
        self, http: httpx2.Client, backend: ScriptedApp, path: str
    ) -> None:
        """A limit past the end changes nothing."""
        backend.script(PROMPT, "So.", reply("So.", dies_at_byte=10**6))
        first, second = (http.post(path, json=STREAM).content for _ in range(2))
        assert first == second

    @paths
    def test_a_whole_answer_dies_in_its_middle(
        self, http: httpx2.Client, backend: ScriptedApp, path: str
    ) -> None:
        """The same script without a stream leaves half a JSON."""
        backend.script(PROMPT, "So.", reply("So.", dies_after=1))
        whole = http.post(path, json=REQUEST).content
        assert read_until_cut(http, path, REQUEST) == whole[: len(whole) // 2]


class TestBadStreams:
    """Errors and nonsense within a stream."""

    def test_openai_reads_an_error_in_a_stream(self, openai: OpenAI, backend: ScriptedApp) -> None:
        """Chat completions end with an error object, responses with an `error` event."""
        backend.script(PROMPT, reply(errors_after=2))
        texts = _texts(openai.chat.completions.create(model="m", messages=ASKED, stream=True))
        assert [next(texts), next(texts)] == ["one", " two"]
        with pytest.raises(openai_sdk.APIError, match="had an error"):
            next(texts)
        events: list[Any] = list(openai.responses.create(model="m", input=PROMPT, stream=True))
        assert (events[-1].type, events[-1].code) == ("error", "server_error")
        assert events[-1].sequence_number == len(events) - 1

    def test_anthropic_reads_an_error_in_a_stream(
        self, anthropic: Anthropic, backend: ScriptedApp
    ) -> None:
        """Messages end with an `error` event."""
        backend.script(PROMPT, reply(errors_after=2))
        read: list[str] = []
        with anthropic.messages.stream(
            model="m", max_tokens=9, messages=[{"role": "user", "content": PROMPT}]
        ) as stream:
            texts = stream.text_stream
            with pytest.raises(anthropic_sdk.APIStatusError, match="had an error"):
                read.extend(texts)
        assert read == ["one", " two"]

    @paths
    def test_inserts_any_bytes(self, http: httpx2.Client, backend: ScriptedApp, path: str) -> None:
        """Broken lines and unknown events stand right behind the piece, all else is unchanged."""
        dream = event_bytes("dream", '{"type": "dream", "text": "a shed"}')
        backend.script(PROMPT, TEXT, reply(inserts={0: BROKEN_LINE, 5: dream}))
        plain, odd = (http.post(path, json=STREAM).content for _ in range(2))
        assert odd.count(BROKEN_LINE) == odd.count(dream) == 1
        assert odd.replace(BROKEN_LINE, b"").replace(dream, b"") == plain
        assert odd.index(BROKEN_LINE) < odd.index(b'"one"')
        assert odd[: odd.index(dream)].endswith(b"\n\n")
        assert b'" five"' in odd[: odd.index(dream)].rsplit(b"\n\n", 2)[-2]

    def test_the_sdk_trips_over_a_broken_line(self, openai: OpenAI, backend: ScriptedApp) -> None:
        """A broken line is broken for the SDK, too."""
        backend.script(PROMPT, reply(inserts={1: BROKEN_LINE}))
        texts = _texts(openai.chat.completions.create(model="m", messages=ASKED, stream=True))
        assert next(texts) == "one"
        with pytest.raises(json.JSONDecodeError):
            next(texts)


class TestClientsThatLeave:
    """The backend notices."""

    @paths
    @pytest.mark.parametrize("pieces", range(len(PIECES)))
    def test_notices_in_the_middle_of_a_stream(
        self, http: httpx2.Client, backend: ScriptedApp, path: str, pieces: int
    ) -> None:
        """A client that closes after any piece is seen to have left, and nothing more is sent."""
        backend.script(PROMPT, reply(holds_after=pieces))
        with http.stream("POST", path, json=STREAM) as answer:
            raw = answer.iter_raw()  # must live: its end closes the connection
            next(raw)
            assert backend.open_requests == 1
        backend.wait_idle()
        record = backend.requests[0]
        backend.script(PROMPT, TEXT)
        assert record.outcome == "left"
        assert 0 < record.sent < len(http.post(path, json=STREAM).content)

    def test_notices_during_a_pause(self, openai: OpenAI, backend: ScriptedApp) -> None:
        """A pause ends early, when nobody waits for its end."""
        backend.script(PROMPT, reply(pause=600.0))
        stream = openai.chat.completions.create(model="m", messages=ASKED, stream=True)
        next(iter(stream))
        stream.close()
        backend.wait_idle()
        assert backend.requests[0].outcome == "left"


def _texts(stream: Stream[ChatCompletionChunk]) -> Iterator[str]:
    """Return an iterator over the texts of a stream of chunks."""
    contents = (chunk.choices[0].delta.content for chunk in stream)
    return (text for text in contents if text)
