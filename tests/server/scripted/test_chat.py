"""Chat completions, read by OpenAI's own clients."""

from __future__ import annotations

import json
from collections import defaultdict
from typing import TYPE_CHECKING, Any

import pytest
from openai.types.chat import ChatCompletion, ChatCompletionChunk
from pydantic import BaseModel

from guard.exchange import Choice, ToolCall
from guard.server.scripted import Reply, chat, samples

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import httpx2
    from openai import AsyncOpenAI, OpenAI
    from openai.types.chat import ChatCompletionMessageParam

    from guard.server.scripted import ScriptedApp

PROMPT = "When do the swifts come back?"
ASKED: list[ChatCompletionMessageParam] = [
    {"role": "system", "content": "Answer briefly."},
    {"role": "user", "content": PROMPT},
]
FULL = Choice(
    "They arrive in early May, “with the lilac”. 🐦",
    reasoning="Which swifts? The common ones.",
    tool_calls=(ToolCall("look_up", '{"bird": "swift"}'), ToolCall("note", "{}", "call_own")),
)


class Bird(BaseModel):
    """A structured answer."""

    name: str
    month: int


def said(path: str) -> str:
    """Return a text that names its channel."""
    return f"Words in {path}, naïve ones."


class TestWhole:
    """Without a stream."""

    def test_has_every_field(self, openai: OpenAI, backend: ScriptedApp) -> None:
        """Texts, calls, finish reason, usage and the fields of today's API are there."""
        backend.script(PROMPT, FULL)
        completion = openai.chat.completions.create(model="swift-1", messages=ASKED)
        message = completion.choices[0].message
        assert (message.content, message.refusal) == (FULL.content, None)
        assert message.model_extra == {"reasoning_content": FULL.reasoning}
        assert [call.to_dict()["function"] for call in message.tool_calls or ()] == [
            {"name": call.name, "arguments": call.arguments} for call in FULL.tool_calls
        ]
        assert completion.choices[0].finish_reason == "tool_calls"
        assert (completion.model, completion.object) == ("swift-1", "chat.completion")
        assert (completion.service_tier, completion.system_fingerprint) == (
            "default",
            "fp_scripted",
        )
        usage = completion.usage
        assert usage is not None
        assert usage.total_tokens == usage.prompt_tokens + usage.completion_tokens > 0
        assert usage.completion_tokens_details is not None
        assert usage.completion_tokens_details.reasoning_tokens

    def test_fits_the_sdk_strictly(self, http: httpx2.Client, backend: ScriptedApp) -> None:
        """Every channel at once passes the SDK's own types, nothing coerced."""
        backend.script(PROMPT, Reply(changes=samples.every_chat_choice(said)))
        body = http.post("/v1/chat/completions", json={"messages": ASKED}).json()
        ChatCompletion.model_validate(body, strict=True)

    def test_gives_several_choices(self, openai: OpenAI, backend: ScriptedApp) -> None:
        """`n` choices come, from the first again where the script has fewer."""
        backend.script(PROMPT, Reply((Choice("In May."), Choice(refusal="I would guess."))))
        completion = openai.chat.completions.create(model="m", messages=ASKED, n=3)
        texts = [(one.message.content, one.message.refusal) for one in completion.choices]
        assert texts == [("In May.", None), (None, "I would guess."), ("In May.", None)]
        assert [one.index for one in completion.choices] == [0, 1, 2]

    @pytest.mark.parametrize("wanted", [None, 0, 10**9, "two"])
    def test_gives_one_choice_where_the_number_is_odd(
        self, http: httpx2.Client, wanted: object
    ) -> None:
        """A number of choices that the API would refuse counts as one."""
        answer = http.post("/v1/chat/completions", json={"messages": ASKED, "n": wanted})
        assert len(answer.json()["choices"]) == 1

    def test_parses_structured_output(self, openai: OpenAI, backend: ScriptedApp) -> None:
        """`parse` gives an object of the class asked for."""
        backend.script(PROMPT, '{"name": "swift", "month": 5}')
        completion = openai.chat.completions.parse(model="m", messages=ASKED, response_format=Bird)
        assert completion.choices[0].message.parsed == Bird(name="swift", month=5)

    def test_reads_the_last_user_message(self, openai: OpenAI, backend: ScriptedApp) -> None:
        """Parts count, and what the assistant and tools said later does not."""
        backend.script("one\ntwo", "found")
        parts: Any = [{"type": "text", "text": "one"}, {"type": "text", "text": "two"}]
        messages: list[ChatCompletionMessageParam] = [
            {"role": "user", "content": "earlier"},
            {"role": "user", "content": parts},
            {"role": "assistant", "content": "hm"},
            {"role": "tool", "content": "rain", "tool_call_id": "call_1"},
        ]
        completion = openai.chat.completions.create(model="m", messages=messages)
        assert completion.choices[0].message.content == "found"

    def test_repeats_an_unknown_prompt(self, openai: OpenAI) -> None:
        """Without a script the answer is polite and repeats the prompt, to the letter."""
        prompt = "¿Cuándo? 👩🏽‍🌾 \u2028 “so”\n\ttabs \\ and \x00"
        completion = openai.chat.completions.create(
            model="m", messages=[{"role": "user", "content": prompt}]
        )
        assert completion.choices[0].message.content == (
            f'Thank you for your message. You wrote: "{prompt}"'
        )

    def test_repeats_half_an_emoji(self, http: httpx2.Client) -> None:
        """A lone surrogate, which JSON can carry and UTF-8 cannot, goes through."""
        body = b'{"messages": [{"role": "user", "content": "\\ud83d"}]}'
        answer = http.post("/v1/chat/completions", content=body)
        assert "\ud83d" in json.loads(answer.text)["choices"][0]["message"]["content"]

    def test_scores_tokens(self, openai: OpenAI, backend: ScriptedApp) -> None:
        """Log-probabilities are of tokens that joined are the content."""
        backend.script(PROMPT, "In early May.")
        completion = openai.chat.completions.create(model="m", messages=ASKED, logprobs=True)
        scored = completion.choices[0].logprobs
        assert scored is not None
        assert "".join(token.token for token in scored.content or ()) == "In early May."

    async def test_answers_the_asynchronous_client(
        self, openai_async: AsyncOpenAI, backend: ScriptedApp
    ) -> None:
        """The asynchronous client gets the same completion."""
        backend.script(PROMPT, "In May.")
        completion = await openai_async.chat.completions.create(model="m", messages=ASKED)
        assert completion.choices[0].message.content == "In May."


class TestStream:
    """As events."""

    def test_joins_to_the_whole_answer(self, openai: OpenAI, backend: ScriptedApp) -> None:
        """What the SDK accumulates is what it gets without a stream."""
        backend.script(PROMPT, Reply((FULL, Choice(refusal="I had better not guess."))))
        whole = openai.chat.completions.create(model="m", messages=ASKED, n=2)
        with openai.chat.completions.stream(
            model="m", messages=ASKED, n=2, stream_options={"include_usage": True}
        ) as stream:
            final = stream.until_done().get_final_completion()
        for one, other in zip(final.choices, whole.choices, strict=True):
            assert one.message.content == other.message.content
            assert one.message.refusal == other.message.refusal
            assert one.message.model_extra == other.message.model_extra
            calls = [call.to_dict()["function"] for call in other.message.tool_calls or ()]
            streamed = one.message.tool_calls or ()
            assert calls == [
                {"name": call.function.name, "arguments": call.function.arguments}
                for call in streamed
            ]
            assert one.finish_reason == other.finish_reason
        assert final.usage == whole.usage

    def test_brings_every_channel(self, openai: OpenAI, backend: ScriptedApp) -> None:
        """The deltas of each channel, vendors' own included, join to its text."""
        changes = samples.every_chat_choice(said)
        call, custom = changes["choices"][0]["message"]["tool_calls"]
        backend.script(PROMPT, Reply(changes=changes))
        # Not the helper: in streams the SDK has no custom calls.
        stream = openai.chat.completions.create(model="m", messages=ASKED, stream=True)
        joined: dict[tuple[object, ...], str] = defaultdict(str)
        for chunk in stream:
            for one in chunk.choices:
                for path, text in _strings(one.delta.to_dict()):
                    joined[one.index, *path] += text
        for given in changes["choices"]:
            for path, text in _strings(given["message"] | {"tool_calls": None}):
                assert joined[given["index"], *path] == text
        arguments = joined[0, "tool_calls", 0, "function", "arguments"]
        assert arguments == call["function"]["arguments"]
        assert joined[0, "tool_calls", 1, "custom", "input"] == custom["custom"]["input"]

    def test_has_the_grammar_of_the_api(self, openai: OpenAI, backend: ScriptedApp) -> None:
        """Role first, one finish at the end, and the usage in a chunk without choices."""
        backend.script(PROMPT, "In early May.")
        chunks = list(
            openai.chat.completions.create(
                model="m", messages=ASKED, stream=True, stream_options={"include_usage": True}
            )
        )
        first, *_, finish, last = chunks
        assert first.choices[0].delta.role == "assistant"
        assert first.choices[0].delta.content == ""
        assert finish.choices[0].finish_reason == "stop"
        assert (last.choices, last.usage is not None) == ([], True)
        assert all(chunk.usage is None for chunk in chunks[:-1])
        assert sum(bool(one.finish_reason) for chunk in chunks for one in chunk.choices) == 1
        assert len({chunk.id for chunk in chunks}) == 1

    def test_ends_with_done(self, http: httpx2.Client) -> None:
        """The last line is the one that clients wait for, and events have no name."""
        answer = http.post("/v1/chat/completions", json={"messages": ASKED, "stream": True})
        assert answer.headers["content-type"].startswith("text/event-stream")
        assert answer.text.endswith("\n\ndata: [DONE]\n\n")
        assert "event:" not in answer.text

    def test_fits_the_sdk(
        self, backend: ScriptedApp, stream_events: Callable[..., list[dict[str, Any]]]
    ) -> None:
        """Every chunk passes the SDK's type; custom calls, which it lacks in streams, aside."""
        changes = samples.every_chat_choice(said)
        changes["choices"][0]["message"]["tool_calls"].pop()
        backend.script(PROMPT, Reply(changes=changes))
        options = {"include_usage": True, "include_obfuscation": True}
        request = {"messages": ASKED, "stream_options": options}
        events = stream_events("/v1/chat/completions", request)
        assert len(events) > 40
        for event in events:
            ChatCompletionChunk.model_validate(event, strict=True)

    def test_interleaves_choices(
        self, backend: ScriptedApp, stream_events: Callable[..., list[dict[str, Any]]]
    ) -> None:
        """Chunks of two choices alternate while both have some."""
        backend.script(PROMPT, Reply((Choice("one two three"), Choice("four five six"))))
        events = stream_events("/v1/chat/completions", {"messages": ASKED, "n": 2})
        indices = [event["choices"][0]["index"] for event in events]
        assert indices == [0, 1] * (len(indices) // 2)

    def test_scores_tokens(self, openai: OpenAI, backend: ScriptedApp) -> None:
        """Each piece comes with its own token's log-probability."""
        backend.script(PROMPT, "In early May.")
        stream = openai.chat.completions.create(
            model="m", messages=ASKED, stream=True, logprobs=True
        )
        choices = [chunk.choices[0] for chunk in stream]
        scored = [one for one in choices if one.logprobs and one.logprobs.content]
        assert [one.delta.content for one in scored] == [
            token.token for one in scored if one.logprobs for token in one.logprobs.content or ()
        ]
        assert "".join(one.delta.content or "" for one in scored) == "In early May."

    def test_parses_structured_output(self, openai: OpenAI, backend: ScriptedApp) -> None:
        """The stream helper parses the accumulated JSON."""
        backend.script(PROMPT, '{"name": "swift", "month": 5}')
        with openai.chat.completions.stream(
            model="m", messages=ASKED, response_format=Bird
        ) as stream:
            final = stream.get_final_completion()
        assert final.choices[0].message.parsed == Bird(name="swift", month=5)

    async def test_answers_the_asynchronous_client(
        self, openai_async: AsyncOpenAI, backend: ScriptedApp
    ) -> None:
        """The asynchronous client streams and accumulates the same."""
        backend.script(PROMPT, FULL)
        stream = await openai_async.chat.completions.create(model="m", messages=ASKED, stream=True)
        texts = [chunk.choices[0].delta.content or "" async for chunk in stream]
        assert "".join(texts) == FULL.content
        async with openai_async.chat.completions.stream(model="m", messages=ASKED) as helper:
            final = await helper.get_final_completion()
        assert final.choices[0].message.content == FULL.content

    @pytest.mark.parametrize("key", ["content", "reasoning", "a_vendor_s_own"])
    def test_streams_what_a_script_adds(
        self, openai: OpenAI, backend: ScriptedApp, key: str
    ) -> None:
        """A text under any key of a message comes in pieces under that key."""
        said = chat.message(**{key: "one two three four"})
        backend.script(PROMPT, Reply(changes={"choices": [chat.choice(0, said)]}))
        stream = openai.chat.completions.create(model="m", messages=ASKED, stream=True)
        pieces = [chunk.choices[0].delta.to_dict().get(key) for chunk in stream]
        texts = [piece for piece in pieces if isinstance(piece, str) and piece]
        assert len(texts) == 4
        assert "".join(texts) == "one two three four"


def _strings(value: Any, *path: object) -> Iterator[tuple[tuple[object, ...], str]]:
    """Yield every text within `value` with its path; a list's rows count by their index."""
    if isinstance(value, str):
        yield path, value
    elif isinstance(value, dict):
        for key, inner in value.items():
            yield from _strings(inner, *path, key)
    elif isinstance(value, list):
        for number, inner in enumerate(value):
            yield from _strings(inner, *path, inner.get("index", number))
