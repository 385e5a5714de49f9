"""The scripted server itself: scripts, errors, other endpoints, and what it records."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Final

import anthropic as anthropic_sdk
import openai as openai_sdk
import pytest

from guard.exchange import Choice, ToolCall
from guard.scripted import ScriptedAnswer
from guard.server.scripted import Delivery, Failure, Reply, ScriptedApp

if TYPE_CHECKING:
    import httpx2
    from anthropic import Anthropic
    from openai import OpenAI
    from openai.types.chat import ChatCompletionMessageParam

PROMPT: Final = "Who painted the door?"
ASKED: Final[list[ChatCompletionMessageParam]] = [{"role": "user", "content": PROMPT}]


def ask(client: OpenAI, prompt: str = PROMPT) -> str | None:
    """Return the content of a completion."""
    completion = client.chat.completions.create(
        model="m", messages=[{"role": "user", "content": prompt}]
    )
    return completion.choices[0].message.content


class TestScript:
    """Which prompt gets which answer."""

    def test_gives_answers_one_after_another(self, openai: OpenAI, backend: ScriptedApp) -> None:
        """Each request gets the next one, and the last one repeats."""
        backend.script(PROMPT, "Ann.", "Ben.")
        assert [ask(openai) for _ in range(3)] == ["Ann.", "Ben.", "Ben."]

    def test_forgets(self, openai: OpenAI, backend: ScriptedApp) -> None:
        """A new script for a prompt replaces the old one; `reset` clears all."""
        backend.script(PROMPT, "Ann.")
        backend.script(PROMPT, "Ben.")
        backend.fallback = Failure(400)
        assert ask(openai) == "Ben."
        backend.reset()
        assert backend.requests == []
        assert PROMPT in (ask(openai) or "")

    def test_falls_back(self, openai: OpenAI, backend: ScriptedApp) -> None:
        """What is not scripted gets the fallback where there is one."""
        backend.script(PROMPT, "Ann.")
        backend.fallback = Reply(changes={"system_fingerprint": "fp_other"})
        assert ask(openai) == "Ann."
        assert ask(openai, "And the gate?") is None

    def test_plays_the_in_process_script(self) -> None:
        """Answers of `guard.scripted` keep text, reasoning, calls and where they die."""
        call = ToolCall("look_up", "{}")
        answers = [
            ScriptedAnswer(PROMPT, "Ann.", reasoning="I saw her.", tool_calls=(call,)),
            ScriptedAnswer("And the gate?", "Ben, I think.", fails_after=1),
        ]
        with (
            ScriptedApp(answers, delivery=Delivery(piece=1)).served() as app,
            openai_sdk.OpenAI(base_url=f"{app.url}/v1", api_key="x", max_retries=0) as client,
        ):
            message = client.chat.completions.create(model="m", messages=ASKED).choices[0].message
            assert (message.content, message.model_extra) == (
                "Ann.",
                {"reasoning_content": "I saw her."},
            )
            assert message.tool_calls
            with pytest.raises(openai_sdk.APIConnectionError):
                list(
                    client.chat.completions.create(
                        model="m",
                        stream=True,
                        messages=[{"role": "user", "content": "And the gate?"}],
                    )
                )


class TestFailures:
    """HTTP errors in the vendors' forms."""

    @pytest.mark.parametrize(
        ("status", "error"),
        [
            (400, openai_sdk.BadRequestError),
            (401, openai_sdk.AuthenticationError),
            (403, openai_sdk.PermissionDeniedError),
            (404, openai_sdk.NotFoundError),
            (429, openai_sdk.RateLimitError),
            (500, openai_sdk.InternalServerError),
            (503, openai_sdk.InternalServerError),
        ],
    )
    def test_openai_raises_its_own_class(
        self,
        openai: OpenAI,
        backend: ScriptedApp,
        status: int,
        error: type[openai_sdk.APIStatusError],
    ) -> None:
        """Each status becomes the SDK's exception with the message and the type."""
        backend.script(PROMPT, Failure(status, "The door is closed."))
        with pytest.raises(error, match="The door is closed") as caught:
            ask(openai)
        assert caught.value.status_code == status
        assert caught.value.type in ("invalid_request_error", "requests", "server_error")

    @pytest.mark.parametrize(
        ("status", "kind"),
        [
            (400, "invalid_request_error"),
            (429, "rate_limit_error"),
            (500, "api_error"),
            (529, "overloaded_error"),
        ],
    )
    def test_anthropic_raises_its_own_class(
        self, anthropic: Anthropic, backend: ScriptedApp, status: int, kind: str
    ) -> None:
        """Each status becomes the SDK's exception with the vendor's type."""
        backend.script(PROMPT, Failure(status, "The door is closed."))
        with pytest.raises(anthropic_sdk.APIStatusError, match="The door is closed") as caught:
            anthropic.messages.create(
                model="m", max_tokens=9, messages=[{"role": "user", "content": PROMPT}]
            )
        assert caught.value.status_code == status
        assert isinstance(caught.value.body, dict)
        assert caught.value.body["error"]["type"] == kind

    def test_clients_try_again(self, openai: OpenAI, backend: ScriptedApp) -> None:
        """After two errors with a time to wait the SDK gets its answer at the third attempt."""
        backend.script(
            PROMPT, Failure(429, retry_after=0.01), Failure(429, retry_after=0.01), "Ann."
        )
        assert ask(openai.with_options(max_retries=2)) == "Ann."
        attempts = [record.headers["x-stainless-retry-count"] for record in backend.requests]
        assert attempts == ["0", "1", "2"]

    def test_says_when_to_come_back(self, http: httpx2.Client, backend: ScriptedApp) -> None:
        """The header has the seconds; without a number there is none."""
        backend.script(PROMPT, Failure(429, retry_after=1.5), Failure(429))
        first, second = (
            http.post("/v1/messages", json={"messages": ASKED}).headers for _ in range(2)
        )
        assert first["retry-after"] == "1.5"
        assert "retry-after" not in second

    def test_sends_another_body(self, http: httpx2.Client, backend: ScriptedApp) -> None:
        """A page of something in between comes as it is."""
        backend.script(PROMPT, Failure(502, body=b"<h1>Bad gateway</h1>"))
        answer = http.post("/v1/responses", json={"input": PROMPT})
        assert (answer.status_code, answer.text) == (502, "<h1>Bad gateway</h1>")
        assert answer.headers["content-type"] == "text/html"

    @pytest.mark.parametrize("body", [b"", b"{", b"[]", b"\xff"])
    def test_refuses_what_is_no_json_object(self, http: httpx2.Client, body: bytes) -> None:
        """Bytes that say nothing get the vendor's error."""
        answer = http.post("/v1/messages", content=body)
        assert answer.status_code == 400
        assert answer.json()["error"]["type"] == "invalid_request_error"

    @pytest.mark.parametrize(
        ("method", "path", "status"),
        [("GET", "/v1/responses", 405), ("POST", "/v1/nothing", 404), ("POST", "/", 404)],
    )
    def test_refuses_what_it_does_not_have(
        self, http: httpx2.Client, method: str, path: str, status: int
    ) -> None:
        """Another path or method gets an error that names the path."""
        answer = http.request(method, path)
        assert answer.status_code == status
        assert path in answer.json()["error"]["message"]


class TestOtherEndpoints:
    """What carries no answer."""

    def test_lists_models(self, openai: OpenAI, anthropic: Anthropic) -> None:
        """Both vendors' clients find the one model."""
        assert [model.id for model in openai.models.list()] == ["scripted"]
        assert [model.id for model in anthropic.models.list()] == ["scripted"]

    def test_embeds(self, openai: OpenAI) -> None:
        """Vectors depend on the text alone and are the same in both encodings."""
        given = ["ann", "ben", "ann"]
        floats = openai.embeddings.create(model="m", input=given, encoding_format="float")
        packed = openai.embeddings.create(model="m", input=given)
        vectors = [row.embedding for row in floats.data]
        assert vectors == [row.embedding for row in packed.data]
        assert vectors[0] == vectors[2] != vectors[1]


class TestRecords:
    """What tests can look at."""

    def test_keeps_the_request_as_it_came(self, http: httpx2.Client, backend: ScriptedApp) -> None:
        """Method, path, query, headers and the body's bytes are kept."""
        body = b'{ "input":"Who painted the door?","odd" : 1.50 }'
        http.post("/v1/responses?trial=1", content=body, headers={"X-Trace": "t-1"})
        record = backend.requests[0]
        assert (record.method, record.path, record.query) == ("POST", "/v1/responses", "trial=1")
        assert record.headers["x-trace"] == "t-1"
        assert record.body == body
        assert record.json() == json.loads(body)

    @pytest.mark.parametrize("stream", [False, True])
    def test_counts_what_was_sent(
        self, http: httpx2.Client, backend: ScriptedApp, *, stream: bool
    ) -> None:
        """A finished request tells the size of its answer, and none is open."""
        answer = http.post("/v1/responses", json={"input": PROMPT, "stream": stream})
        backend.wait_idle()
        assert backend.open_requests == 0
        assert backend.requests[0].outcome == "finished"
        assert backend.requests[0].sent == len(answer.content)

    def test_says_that_somebody_still_waits(self, openai: OpenAI, backend: ScriptedApp) -> None:
        """Waiting for the end of a held stream ends in an error."""
        backend.script(PROMPT, Reply((Choice("Ann."),), delivery=Delivery(holds_after=0)))
        stream = openai.chat.completions.create(model="m", messages=ASKED, stream=True)
        next(stream)
        with pytest.raises(TimeoutError, match="1 requests"):
            backend.wait_idle(timeout=0.05)
        stream.close()
