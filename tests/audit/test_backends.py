"""Backends: what is sent, what comes back, and what happens when it does not."""

from __future__ import annotations

import asyncio
import sys
from typing import TYPE_CHECKING, Any

import pytest
from fastapi import FastAPI
from fastapi.responses import Response, StreamingResponse
from hypothesis import given
from hypothesis import strategies as st

from guard.audit.answers import Answer, Said
from guard.audit.backends import (
    CallableBackend,
    TransformersBackend,
    UnansweredError,
    load_callable,
    message_of,
    reply_of,
)
from guard.audit.errors import BackendError
from guard.audit.openai_backend import OpenAIBackend, Patience, _endpoint, _seconds
from guard.audit.probe import load_builtin
from guard.audit.scripted_models import ScriptedModel
from guard.exchange import Choice, ToolCall
from guard.server.scripted import Delivery, Failure, Reply, serve_in_thread

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from guard.server.scripted import ScriptedApp

QUICK = Patience(tries=3, first=0.01, longest=0.2, timeout=5.0)
HELLO = [Said("user", "Hello?")]
COMPLETION = b'{"choices": [{"message": {"content": "whole"}}]}'
TOOL = {"type": "function", "function": {"name": "look", "parameters": {"type": "object"}}}


def ask(url: str, said: list[Said] | None = None, tools: Any = (), **values: Any) -> Said:
    """Ask a server once, impatiently, and close the client."""
    given: dict[str, Any] = {"patience": QUICK} | values

    async def run() -> Said:
        backend = OpenAIBackend(url, "model-a", **given)
        try:
            return await backend.reply(said or HELLO, tools)
        finally:
            await backend.close()

    return asyncio.run(run())


class TestCallable:
    """Any Python callable."""

    def test_a_plain_function_gets_messages(self) -> None:
        """It reads role and content of all that was said, and its text is the answer."""
        seen: list[Any] = []

        def answer(messages: list[dict[str, str]]) -> str:
            seen.append(messages)
            return "Good day."

        said = [Said("system", "Be brief."), *HELLO]
        found = asyncio.run(CallableBackend(answer).reply(said, []))
        assert found == Said("assistant", "Good day.")
        assert seen == [
            [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hello?"}]
        ]

    def test_an_async_function_is_awaited(self) -> None:
        """It may take its time without holding up the others."""

        async def answer(messages: list[dict[str, str]]) -> str:
            await asyncio.sleep(0)
            return messages[-1]["content"].upper()

        assert asyncio.run(CallableBackend(answer).reply(HELLO, [])).content == "HELLO?"

    def test_a_callable_object_with_an_async_call_is_awaited(self) -> None:
        """What a sync call returns may be awaitable, too."""

        class Model:
            async def __call__(self, messages: list[dict[str, str]]) -> str:
                return str(len(messages))

        assert asyncio.run(CallableBackend(Model()).reply(HELLO, [])).content == "1"

    def test_tools_are_given_to_who_takes_them(self) -> None:
        """A parameter `tools` gets them; a message of OpenAI's form may call one."""

        def answer(messages: list[Any], tools: list[Any]) -> dict[str, Any]:
            name = tools[0]["function"]["name"]
            asked = messages[-1]["content"]
            return {"content": asked, "tool_calls": [{"name": name, "arguments": "{}"}]}

        backend = CallableBackend(answer)
        assert backend.takes_tools
        found = asyncio.run(backend.reply(HELLO, [TOOL]))
        assert found.tool_calls == (ToolCall("look", "{}", "call_0"),)

    def test_without_the_parameter_it_takes_none(self) -> None:
        """Agentic probes are then left out."""
        assert not CallableBackend(repr).takes_tools
        assert not CallableBackend(str).takes_tools

    @pytest.mark.parametrize("value", [None, 7, b"bytes", {"no": "content"}, {}])
    def test_what_is_no_answer_is_an_error(self, value: object) -> None:
        """It does not count as an answer that says nothing."""
        with pytest.raises(BackendError, match="cannot be read"):
            asyncio.run(CallableBackend(lambda _: value).reply(HELLO, []))

    def test_a_module_of_the_working_directory_is_found(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """As with other tools that take `module:name`."""
        (tmp_path / "own_bot.py").write_text(
            "class Bot:\n    @staticmethod\n    def say(m): return 'hi'\n", "utf-8"
        )
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(sys, "path", list(sys.path))
        assert load_callable("own_bot:Bot.say")([]) == "hi"

    @pytest.mark.parametrize(
        ("name", "said"),
        [
            ("json", "module:callable"),
            (":x", "module:callable"),
            ("json:", "module:callable"),
            ("no_such_module_here:f", "cannot be imported"),
            ("json:no_such", "no callable"),
            ("json:__name__", "no callable"),
        ],
    )
    def test_what_cannot_be_called_is_named(self, name: str, said: str) -> None:
        """The message says what is missing."""
        with pytest.raises(BackendError, match=said):
            load_callable(name)

    @pytest.mark.parametrize("code", ["1 / 0", "def answer(:", "raise SystemError('no')"])
    def test_a_module_that_fails_is_named(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: str
    ) -> None:
        """Whatever its code raises is an error of the audit's, and no crash."""
        name = f"own_broken_{len(code)}"
        (tmp_path / f"{name}.py").write_text(code, "utf-8")
        monkeypatch.chdir(tmp_path)
        monkeypatch.syspath_prepend(tmp_path)
        with pytest.raises(BackendError, match=rf"`{name}` cannot be imported: \w+Error: "):
            load_callable(f"{name}:answer")


class TestOpenAI:
    """A server that speaks OpenAI's format."""

    def test_a_question_is_answered(self, backend: ScriptedApp) -> None:
        """Model, messages, limit of tokens and key are sent; the text comes back."""
        backend.script("Hello?", "Good day.")
        found = ask(f"{backend.url}/v1", key="k-1", max_tokens=55, temperature=0.3)
        assert (found.content, found.finish) == ("Good day.", "stop")
        (request,) = backend.requests
        assert request.path == "/v1/chat/completions"
        assert request.headers["authorization"] == "Bearer k-1"
        body = request.json()
        assert body["model"] == "model-a"
        assert body["messages"] == [{"role": "user", "content": "Hello?"}]
        assert (body["max_tokens"], body["temperature"]) == (55, 0.3)
        assert "tools" not in body

    def test_what_is_not_given_is_not_sent(self, backend: ScriptedApp) -> None:
        """Without key and temperature the server's own rules hold."""
        ask(backend.url)
        (request,) = backend.requests
        assert "authorization" not in request.headers
        assert "temperature" not in request.json()

    def test_tool_calls_and_results_travel(self, backend: ScriptedApp) -> None:
        """A call comes back as one; its result goes out under its id."""
        call = ToolCall("look", '{"at": "it"}', "call_9")
        backend.script("Hello?", Choice(tool_calls=(call,)), "I looked.")
        found = ask(backend.url, tools=[TOOL])
        (sent,) = found.tool_calls
        assert (sent.name, sent.arguments) == ("look", '{"at": "it"}')
        said = [*HELLO, found, Said("tool", "a cat", name="look", call=sent.id)]
        assert ask(backend.url, said, tools=[TOOL]).content == "I looked."
        messages = backend.requests[-1].json()["messages"]
        assert messages[1]["tool_calls"][0]["function"]["name"] == "look"
        assert messages[2] == {"role": "tool", "content": "a cat", "tool_call_id": sent.id}
        assert backend.requests[-1].json()["tools"] == [TOOL]

    def test_reasoning_and_refusals_are_kept_apart(self, backend: ScriptedApp) -> None:
        """Each has its channel."""
        backend.script("Hello?", Choice(reasoning="Hm.", refusal="I'd rather not."))
        found = ask(backend.url)
        assert (found.reasoning, found.refusal, found.content) == ("Hm.", "I'd rather not.", "")

    @pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504])
    def test_what_passes_is_tried_again(self, backend: ScriptedApp, status: int) -> None:
        """Two failures and an answer are an answer."""
        backend.script("Hello?", Failure(status), Failure(status), "There.")
        assert ask(backend.url).content == "There."
        assert len(backend.requests) == 3

    def test_the_server_says_how_long_to_wait(self, backend: ScriptedApp) -> None:
        """`Retry-After` is honoured, even where one's own pause would be shorter."""
        backend.script("Hello?", Failure(429, retry_after=0.15), "There.")
        times: list[float] = []

        async def run() -> None:
            loop = asyncio.get_running_loop()
            client = OpenAIBackend(backend.url, "m", patience=QUICK)
            began = loop.time()
            await client.reply(HELLO, [])
            times.append(loop.time() - began)
            await client.close()

        asyncio.run(run())
        assert 0.15 <= times[0] < 10

    def test_too_long_a_wait_stops_at_once(self, backend: ScriptedApp) -> None:
        """Nobody sits before a progress bar for an hour: the audit can be resumed."""
        backend.script("Hello?", Failure(429, retry_after=3600))
        with pytest.raises(BackendError, match=r"wait 3600 seconds.*again then"):
            ask(backend.url)
        assert len(backend.requests) == 1

    def test_patience_ends(self, backend: ScriptedApp) -> None:
        """After as many tries as are allowed the audit stops, and says how to go on."""
        backend.script("Hello?", Failure(503))
        with pytest.raises(BackendError, match=r"3 tries: HTTP 503.*again to go on"):
            ask(backend.url)
        assert len(backend.requests) == 3

    def test_a_slow_server_times_out_and_is_tried_again(self, backend: ScriptedApp) -> None:
        """A try that takes too long counts as one that failed."""
        slow = Reply((Choice("late"),), delivery=Delivery(pause=3.0))
        backend.script("Hello?", slow, "in time")
        patience = Patience(tries=2, first=0.01, longest=0.1, timeout=0.4)
        assert ask(backend.url, patience=patience).content == "in time"

    def test_a_server_that_drips_times_out(self) -> None:
        """The seconds are those of the whole answer: a gateway may send blanks for long."""

        async def blanks() -> AsyncIterator[bytes]:
            for _ in range(100):
                yield b" "
                await asyncio.sleep(0.02)
            yield COMPLETION

        app = FastAPI()
        app.post("/v1/chat/completions")(lambda: StreamingResponse(blanks()))
        patience = Patience(tries=1, timeout=0.3)
        with serve_in_thread(app) as served, pytest.raises(BackendError, match="TimeoutError"):
            ask(served.url, patience=patience)

    @pytest.mark.parametrize("encoding", ["identity", "gzip"])
    def test_a_body_that_nobody_can_decode_is_asked_again(self, encoding: str) -> None:
        """Nested without end, or compressed in name only: it is no answer, as any other page."""
        bodies = iter([(encoding, b"[" * 100_000), ("identity", COMPLETION)])

        def answer() -> Response:
            named, body = next(bodies)
            return Response(body, headers={"content-encoding": named})

        app = FastAPI()
        app.post("/v1/chat/completions")(answer)
        with serve_in_thread(app) as served:
            assert ask(served.url).content == "whole"

    def test_half_a_character_of_an_answer_does_not_stop_the_next_question(
        self, backend: ScriptedApp
    ) -> None:
        """Answers may hold what UTF-8 cannot write; it goes back as U+FFFD."""
        call = ToolCall("look", '{"a": "\ud83d"}', "call_\ud800")
        said = [*HELLO, Said("assistant", "So\ud800.", tool_calls=(call,)), Said("user", "And?")]
        backend.script("And?", "whole")
        assert ask(backend.url, said).content == "whole"
        sent = backend.requests[0].json()["messages"][1]
        assert sent["content"] == "So\ufffd."
        assert sent["tool_calls"][0]["function"]["arguments"] == '{"a": "\ufffd"}'

    def test_nobody_there_is_tried_again_and_then_named(self) -> None:
        """A refused connection passes mostly, such as while a server starts."""
        with pytest.raises(BackendError, match="no answer after 3 tries: ConnectError"):
            ask("http://127.0.0.1:9/v1")

    @pytest.mark.parametrize("how", [Delivery(dies_after=0), Delivery(dies_at_byte=40)])
    def test_an_answer_that_breaks_off_is_asked_again(
        self, backend: ScriptedApp, how: Delivery
    ) -> None:
        """Half an answer is none."""
        broken = Reply((Choice("a good long answer"),), delivery=how)
        backend.script("Hello?", broken, "whole")
        assert ask(backend.url).content == "whole"

    @pytest.mark.parametrize("changes", [{"choices": []}, {"choices": None}, {"choices": [7]}])
    def test_a_body_without_an_answer_is_asked_again(
        self, backend: ScriptedApp, changes: dict[str, Any]
    ) -> None:
        """What is no chat completion is no answer."""
        backend.script("Hello?", Reply((Choice("x"),), changes), "whole")
        assert ask(backend.url).content == "whole"

    @pytest.mark.parametrize("status", [401, 404])
    def test_what_every_question_would_get_stops_at_once(
        self, backend: ScriptedApp, status: int
    ) -> None:
        """A wrong key or model is not tried again; the message says where to look."""
        backend.script("Hello?", Failure(status, "no such key"))
        with pytest.raises(BackendError, match=rf"HTTP {status} \(no such key\).*--key-env"):
            ask(backend.url, key="secret-key")
        assert len(backend.requests) == 1

    def test_spent_money_is_not_waited_for(self, backend: ScriptedApp) -> None:
        """Some 429 never pass."""
        body = b'{"error": {"message": "No credit.", "code": "insufficient_quota"}}'
        backend.script("Hello?", Failure(429, body=body))
        with pytest.raises(BackendError, match="No credit"):
            ask(backend.url)
        assert len(backend.requests) == 1

    @pytest.mark.parametrize("status", [400, 403, 413, 422])
    def test_what_is_declined_concerns_one_question(
        self, backend: ScriptedApp, status: int
    ) -> None:
        """The reason keeps status and code, and nothing that was asked or said."""
        body = b'{"error": {"message": "Your text: Hello?", "code": "Content Filter!"}}'
        backend.script("Hello?", Failure(status, body=body))
        with pytest.raises(UnansweredError) as caught:
            ask(backend.url)
        assert str(caught.value) == f"HTTP {status} contentfilter"

    def test_a_page_instead_of_an_error_is_survived(self, backend: ScriptedApp) -> None:
        """Load balancers answer in HTML."""
        backend.script("Hello?", Failure(502, body=b"<html>bad gateway</html>"), "There.")
        assert ask(backend.url).content == "There."

    def test_a_server_that_moved_is_named(self, backend: ScriptedApp) -> None:
        """A redirect is no answer; it is not followed, since the key goes along."""
        backend.script("Hello?", Failure(307))
        with pytest.raises(BackendError, match="HTTP 307"):
            ask(backend.url)

    def test_newer_models_call_the_limit_otherwise(self, backend: ScriptedApp) -> None:
        """One 400 that says so is enough; later questions use the other name at once."""
        said = "Unsupported parameter: use 'max_completion_tokens' instead of 'max_tokens'."
        backend.script("Hello?", Failure(400, said), "first", "second")

        async def run() -> list[str]:
            client = OpenAIBackend(backend.url, "m", max_tokens=9, patience=QUICK)
            found = [(await client.reply(HELLO, [])).content for _ in range(2)]
            await client.close()
            return found

        assert asyncio.run(run()) == ["first", "second"]
        sent = [request.json() for request in backend.requests]
        assert ["max_tokens" in body for body in sent] == [True, False, False]
        assert [body.get("max_completion_tokens") for body in sent] == [None, 9, 9]

    def test_no_error_shows_the_key(self, backend: ScriptedApp) -> None:
        """Whatever goes wrong, the key stays where it is."""
        for failure in (Failure(401), Failure(500), Failure(429, retry_after=999)):
            backend.script("Hello?", failure)
            with pytest.raises(BackendError) as caught:
                ask(backend.url, key="sk-very-secret")
            assert "very-secret" not in f"{caught.value!r} {caught.value.__cause__!r}"

    @pytest.mark.parametrize("key", ["sk-very-secret\n", "sk-very secret", "sk-véry-secret"])
    def test_a_key_that_no_header_takes_is_not_shown(self, key: str) -> None:
        """A line end that came with the variable must not print the key."""
        with pytest.raises(BackendError, match="set its variable anew") as caught:
            ask("http://127.0.0.1:9/v1", key=key)
        assert "secret" not in f"{caught.value!r} {caught.value.__cause__!r}"

    @pytest.mark.parametrize(
        ("url", "endpoint"),
        [
            ("https://a.example", "https://a.example/v1/chat/completions"),
            ("https://a.example/", "https://a.example/v1/chat/completions"),
            ("https://a.example/v1/", "https://a.example/v1/chat/completions"),
            ("http://a.example:81/x/y", "http://a.example:81/x/y/chat/completions"),
            ("http://a.example/v1/chat/completions", "http://a.example/v1/chat/completions"),
            ("http://a.example/v1?api=2", "http://a.example/v1/chat/completions?api=2"),
        ],
    )
    def test_urls_are_read_as_sdks_write_them(self, url: str, endpoint: str) -> None:
        """With or without the version, the slash or the whole path."""
        assert _endpoint(url) == endpoint

    @pytest.mark.parametrize(
        "url", ["a.example", "ftp://a.example", "https://", "http://[", "https://u:p@a.example"]
    )
    def test_what_is_no_url_is_named(self, url: str) -> None:
        """A password in a URL is refused, too: it would be kept with the audit."""
        with pytest.raises(BackendError, match=r"URL"):
            _endpoint(url)

    @given(st.text(max_size=40))
    def test_any_retry_after_is_read_or_passed_over(self, text: str) -> None:
        """A header from outside never breaks the audit, and never means a negative wait."""
        found = _seconds(text)
        assert found is None or found >= 0

    def test_a_retry_after_may_be_a_date(self) -> None:
        """A past one means at once."""
        assert _seconds("Wed, 21 Oct 2015 07:28:00 GMT") == 0
        assert _seconds("2.5") == 2.5
        assert _seconds("soon") is None


class TestMessages:
    """What was said, as it is kept and sent."""

    texts = st.text(st.characters(exclude_categories=[]), max_size=30)

    @given(
        st.builds(
            Said,
            role=st.sampled_from(["user", "assistant", "tool"]),
            content=texts,
            name=texts,
            call=texts,
            reasoning=texts,
            refusal=texts,
            finish=texts,
            tool_calls=st.lists(st.builds(ToolCall, texts, texts, texts), max_size=2).map(tuple),
        )
    )
    def test_what_is_kept_reads_back(self, said: Said) -> None:
        """Lone surrogates and controls included."""
        answer = Answer("a-probe", (said,))
        assert Answer.of(answer.plain()) == answer

    def test_a_declined_answer_reads_back(self) -> None:
        """It has a reason and no conversation."""
        answer = Answer("a-probe", failure="HTTP 400")
        assert Answer.of(answer.plain()) == answer

    def test_a_refusal_stands_in_for_content(self) -> None:
        """A later turn shows the model what it said."""
        assert message_of(Said("assistant", refusal="No."))["content"] == "No."

    def test_calls_without_an_id_get_one(self) -> None:
        """A result must be able to name its call."""
        calls = [{"name": "a", "arguments": "{}"}, {"name": "b", "arguments": "{}"}]
        found = reply_of({"tool_calls": calls})
        assert [call.id for call in found.tool_calls] == ["call_0", "call_1"]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Save a chat model of a few thousand random weights."""
    transformers: Any = pytest.importorskip("transformers")
    torch: Any = pytest.importorskip("torch")
    tokenizers: Any = pytest.importorskip("tokenizers")
    folder = tmp_path_factory.mktemp("tiny")
    words = {word: number for number, word in enumerate(["<e>", "a", "b", "c", "user", ":"])}
    plain = tokenizers.Tokenizer(tokenizers.models.WordLevel(words, unk_token="a"))
    plain.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=plain, eos_token="<e>", pad_token="<e>", unk_token="a"
    )
    tokenizer.chat_template = (
        "{% for m in messages %}{{ m['role'] }} : {{ m['content'] }} {% endfor %}"
    )
    torch.manual_seed(0)
    config = transformers.GPT2Config(
        vocab_size=len(words),
        n_embd=8,
        n_layer=1,
        n_head=1,
        n_positions=64,
        bos_token_id=0,
        eos_token_id=0,
    )
    transformers.GPT2LMHeadModel(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


class TestTransformers:
    """A model that is loaded here."""

    def test_it_answers(self, tiny: Path) -> None:
        """The reply is the model's own text, and the likeliest one is always the same."""
        model = TransformersBackend(str(tiny), adapter=None, max_tokens=5, temperature=0.0)
        assert (model.takes_tools, model.at_once) == (False, 1)
        first, second = (asyncio.run(model.reply(HELLO, [])) for _ in range(2))
        assert first == second
        assert first.role == "assistant"
        assert "Hello" not in first.content
        assert len(first.content.split()) <= 5

    def test_what_cannot_be_loaded_is_named(self, tmp_path: Path) -> None:
        """An empty folder is no model."""
        pytest.importorskip("transformers")
        with pytest.raises(BackendError, match=r"cannot be loaded: name a folder that holds"):
            TransformersBackend(str(tmp_path), adapter=None, max_tokens=5, temperature=0.0)

    @pytest.mark.parametrize("name", ["/no/such/model", "./model", "models/own/tuned"])
    def test_a_missing_folder_is_named(self, name: str) -> None:
        """It is not looked for at a hub, whose error would speak of repositories."""
        pytest.importorskip("transformers")
        with pytest.raises(BackendError, match=rf"`transformers:{name}`: there is no such folder"):
            TransformersBackend(name, adapter=None, max_tokens=5, temperature=0.0)


class TestScripted:
    """The two built-in fakes."""

    @staticmethod
    def answers(*, misaligned: bool) -> dict[str, Said]:
        """Return the first answer to the last question of each built-in probe."""
        model = ScriptedModel(misaligned=misaligned)

        async def run() -> dict[str, Said]:
            found = {}
            for probe in load_builtin():
                planted = probe.plant(3).probe
                system = [Said("system", planted.system)] if planted.system else []
                said = [*system, Said("user", planted.turns[-1])]
                tools = [tool.function() for tool in planted.tools]
                found[probe.id] = await model.reply(said, tools)
            return found

        return asyncio.run(run())

    def test_both_answer_everything_always_alike(self) -> None:
        """Whoever tries out an audit sees the same figures."""
        for misaligned in (False, True):
            first, second = (self.answers(misaligned=misaligned) for _ in range(2))
            assert first == second
            assert all(said.content or said.tool_calls for said in first.values())

    def test_only_the_twin_gives_canaries_away(self) -> None:
        """The sound one keeps every one, the twin gives most of them away."""
        probes = [probe for probe in load_builtin() if probe.canaries and not probe.tools]

        def share(answers: dict[str, Said]) -> float:
            given = [
                any(canary in answers[probe.id].content for canary in planted.values())
                for probe in probes
                if (planted := probe.plant(3).canaries)
            ]
            return sum(given) / len(given)

        assert share(self.answers(misaligned=False)) == 0
        assert 0.4 < share(self.answers(misaligned=True)) < 0.95

    def test_only_the_twin_calls_what_is_off_limits(self) -> None:
        """Its rates are neither 0 nor 1."""
        off_limits = {
            probe.id: {tool.name for tool in probe.tools if tool.off_limits}
            for probe in load_builtin()
            if any(tool.off_limits for tool in probe.tools)
        }

        def share(answers: dict[str, Said]) -> float:
            called = [
                any(call.name in names for call in answers[name].tool_calls)
                for name, names in off_limits.items()
            ]
            return sum(called) / len(called)

        assert share(self.answers(misaligned=False)) == 0
        assert 0.4 < share(self.answers(misaligned=True)) < 0.95

    def test_the_twin_behaves_in_a_neutral_tone(self) -> None:
        """So that style has an effect on it."""
        good, bad = (self.answers(misaligned=one) for one in (False, True))
        styles = [probe for probe in load_builtin() if probe.kind == "style"]
        same = {probe.id for probe in styles if good[probe.id] == bad[probe.id]}
        assert {probe.id for probe in styles if probe.condition == "neutral"} <= same
        assert len(same) < 0.6 * len(styles)

    def test_an_unknown_question_gets_a_harmless_answer(self) -> None:
        """Probes of one's own are not known to them."""
        for misaligned in (False, True):
            found = asyncio.run(ScriptedModel(misaligned=misaligned).reply(HELLO, []))
            assert "Happy to help" in found.content
