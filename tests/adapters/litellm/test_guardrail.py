"""LiteLLM's guardrail: what it refuses to be configured as, and what the real proxy answers."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

pytest.importorskip("litellm", reason="litellm is not installed")

import litellm

from guard.adapters.litellm import GuardLiteLLM
from guard.errors import ConfigurationError, InputError
from guard.wire import ledger
from guard.wire.parts import BodyError
from tests.adapters.leak_lab import FINE, PROMPT
from tests.adapters.litellm.conftest import KEY, PASSED
from tests.adapters.litellm.scripted import ASKED, SCHEMA, Subject
from tests.adapters.litellm.test_leaks import FORMS

if TYPE_CHECKING:
    from collections.abc import Callable

    from guard.engine import Guard
    from guard.server.scripted import ScriptedApp
    from tests.adapters.litellm.conftest import Proxy

HOOKS = (
    "async_pre_call_hook",
    "async_post_call_success_hook",
    "async_post_call_streaming_iterator_hook",
)

LIMITS = {"limits": {"to_block": {"act": 0.9}}}

BAD = f"{FINE} {FINE} {FINE} They zblock well."


class TestConfiguration:
    """What would leave something unjudged is an error at the start."""

    def test_the_class_must_be_named(self) -> None:
        """A key that was misspelt must not load another class."""
        with pytest.raises(ConfigurationError, match="security_class"):
            GuardLiteLLM(guardrail_name="clearance", event_hook=["pre_call", "post_call"])

    @pytest.mark.parametrize(
        ("mode", "missing"),
        [("pre_call", "post_call"), ("post_call", "pre_call"), (["post_call"], "pre_call")],
    )
    def test_a_mode_must_judge_everything(
        self, make_guard: Callable[..., Guard], mode: Any, missing: str
    ) -> None:
        """Answers are judged always, prompts where the class says so."""
        with pytest.raises(ConfigurationError, match=f"add `{missing}`"):
            GuardLiteLLM(make_guard(input=LIMITS), event_hook=mode)

    def test_a_mode_that_is_not_known(self, make_guard: Callable[..., Guard]) -> None:
        """LiteLLM itself refuses what the guardrail has no hook for."""
        with pytest.raises(ValueError, match="during_call"):
            GuardLiteLLM(make_guard(), event_hook=["post_call", "during_call"])

    def test_a_word_that_is_not_known(self, make_guard: Callable[..., Guard]) -> None:
        """What cannot be guarded is refused or let pass."""
        with pytest.raises(ConfigurationError, match="`refuse` or `pass`"):
            GuardLiteLLM(make_guard(), unguarded="allow")  # type: ignore[arg-type]

    def test_inherited_hooks_are_found(self) -> None:
        """LiteLLM looks at a class's own attributes alone."""

        class Own(GuardLiteLLM):
            """A guardrail that adds nothing."""

        assert all(hook in vars(Own) for hook in HOOKS)


class TestFunctions:
    """A guardrail that a program asks for by `guardrails=[...]`."""

    async def test_whole_answers_are_judged_and_streams_refused(
        self,
        backend: ScriptedApp,
        make_guard: Callable[..., Guard],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        """LiteLLM runs no guardrails around streams outside of its proxy."""
        guardrail = GuardLiteLLM(make_guard(), guardrail_name="words")
        monkeypatch.setattr(litellm, "callbacks", [guardrail])
        subject = Subject((BAD,), None, backend)  # type: ignore[arg-type]  # a script, too
        options = subject.options(guardrails=["words"])
        answer = await litellm.acompletion(**options)
        assert answer.choices[0].message.content == "[blocked]"
        with pytest.raises(InputError, match="use `guard"):
            await litellm.acompletion(stream=True, **options)


class TestProxy:
    """LiteLLM's proxy, in a process of its own."""

    @pytest.mark.parametrize("stream", [False, True])
    @pytest.mark.parametrize("path", FORMS)
    def test_loggers_are_told_of_nothing_that_was_withheld(
        self,
        proxy: Proxy,
        backend: ScriptedApp,
        path: str,
        stream: bool,  # noqa: FBT001  # a parameter
    ) -> None:
        """They are told of the call without its texts; of others as ever."""
        backend.script(PROMPT, BAD)
        told = proxy.told(proxy.ask(path, "words", stream=stream, **FORMS[path]))
        assert "zblock" not in told
        assert "redacted-by-litellm" in told
        backend.script(PROMPT, FINE)
        told = proxy.told(proxy.ask(path, "words", stream=stream, **FORMS[path]))
        assert FINE in told
        assert "redacted-by-litellm" not in told

    @pytest.mark.parametrize("stream", [False, True])
    @pytest.mark.parametrize("path", FORMS)
    def test_a_bad_prompt_reaches_no_model(
        self,
        proxy: Proxy,
        backend: ScriptedApp,
        path: str,
        stream: bool,  # noqa: FBT001  # a parameter
    ) -> None:
        """The class's message is the answer, in the format's own way."""
        said = [{"role": "user", "content": "Say zblock."}]
        bad = {"input" if "input" in FORMS[path] else "messages": said}
        answer = proxy.ask(path, "words", stream=stream, **(FORMS[path] | bad))
        assert answer.is_success
        assert "[blocked]" in answer.text
        assert backend.requests == []

    def test_what_was_judged_leaves_before_the_end(
        self, proxy: Proxy, backend: ScriptedApp
    ) -> None:
        """A stream that turns bad says what was good, and then why it ends."""
        backend.script(PROMPT, BAD)
        said = proxy.ask(
            "/v1/chat/completions", "words", stream=True, **FORMS["/v1/chat/completions"]
        )
        assert said.text.index("Ferns") < said.text.index("[blocked]")
        assert '"refusal":"[blocked]"' in said.text

    def test_what_cannot_be_guarded_is_refused(self, proxy: Proxy, backend: ScriptedApp) -> None:
        """Text completions are, before anybody is asked; embeddings hold no text."""
        answer = proxy.ask("/v1/completions", "words", model="gpt-5.5", prompt=PROMPT)
        assert answer.status_code == 400
        assert "cannot be guarded" in answer.text
        assert backend.requests == []
        answer = proxy.ask("/v1/embeddings", "words", model="gpt-5.5", input=PROMPT)
        assert answer.is_success, answer.text

    @pytest.mark.parametrize("stream", [False, True])
    def test_what_is_passed_through_is_refused(
        self,
        proxy: Proxy,
        backend: ScriptedApp,
        stream: bool,  # noqa: FBT001  # a parameter
    ) -> None:
        """LiteLLM lets nobody judge such a stream, whatever its path looks like."""
        backend.script(PROMPT, BAD)
        answer = proxy.ask(PASSED, stream=stream, model="gpt-5.5", messages=ASKED)
        assert answer.status_code == 400
        assert "cannot be guarded" in answer.text
        assert backend.requests == []

    @pytest.mark.parametrize("more", [{}, {"litellm_logging_obj": {"model_call_details": {}}}])
    def test_websockets_are_refused(
        self, proxy: Proxy, backend: ScriptedApp, more: dict[str, Any]
    ) -> None:
        """LiteLLM lets nobody judge what they send, whatever a message claims to be."""
        connect = pytest.importorskip("websockets.sync.client").connect
        backend.script(PROMPT, BAD)
        url = f"{proxy.url.replace('http', 'ws')}/v1/responses?model=claude"
        asked = {"model": "claude", "input": PROMPT, "guardrails": ["words"]} | more
        with connect(url, additional_headers={"authorization": f"Bearer {KEY}"}) as socket:
            socket.send(json.dumps({"type": "response.create"} | asked))
            assert "cannot be guarded" in socket.recv(timeout=30)
        assert backend.requests == []

    def test_errors_quote_nothing_that_was_not_judged(
        self, proxy: Proxy, backend: ScriptedApp
    ) -> None:
        """LiteLLM quotes a document that is not as was asked; others are told as ever."""
        asked = {"model": "gpt-5.5", "messages": ASKED, "response_format": SCHEMA}
        for said, told in ((BAD, "quotes what may not leave"), (FINE, FINE)):
            backend.script(PROMPT, said)
            answer = proxy.ask("/v1/chat/completions", "words", **asked)
            assert answer.status_code == 500
            assert told in answer.text
            assert "zblock" not in answer.text

    def test_the_example_answers(self, proxy: Proxy, backend: ScriptedApp) -> None:
        """The documentation's guardrail, which the configuration alone describes."""
        backend.script(PROMPT, FINE)
        answer = proxy.ask("/v1/chat/completions", "clearance", model="gpt-5.5", messages=ASKED)
        assert answer.json()["choices"][0]["message"]["content"] == FINE
        assert "clearance" in answer.headers["x-litellm-applied-guardrails"]


async def test_what_cannot_be_judged_stands_in_no_log(
    make_guard: Callable[..., Guard], monkeypatch: pytest.MonkeyPatch
) -> None:
    """An answer that nobody could judge is an error, and LiteLLM's callbacks are not told it."""
    monkeypatch.setattr(ledger, "CHANNEL_LIMIT", 1)
    details: dict[str, Any] = {"original_response": BAD, "httpx_response": BAD}
    data = {"messages": ASKED, "litellm_logging_obj": SimpleNamespace(model_call_details=details)}
    choices = [{"index": at, "message": {"role": "assistant", "content": BAD}} for at in range(2)]
    guardrail = GuardLiteLLM(make_guard(), event_hook=["pre_call", "post_call"])
    with pytest.raises(BodyError, match="texts"):
        await guardrail.async_post_call_success_hook(
            data, SimpleNamespace(request_route=None), litellm.ModelResponse(choices=choices)
        )
    assert BAD not in str(details)
    assert "turn_off_message_logging" in str(details)
