"""`/v1/guard/check` over a real port: what it answers, and what it refuses."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from guard.exchange import Exchange

if TYPE_CHECKING:
    from collections.abc import Callable

    import httpx2

    from guard.engine import Guard
    from guard.server.guards import Judges

PATH = "/v1/guard/check"


@pytest.fixture
def client(serve: Callable[..., httpx2.Client]) -> httpx2.Client:
    """Return a client of a server whose guard fires on words."""
    return serve()


def post(client: httpx2.Client, body: Any) -> Any:
    """Return what the endpoint answers to a good request."""
    answer = client.post(PATH, json=body)
    assert answer.status_code == 200, answer.text
    return answer.json()


class TestVerdict:
    """What a good request gets."""

    def test_it_is_the_verdict_of_the_guard(
        self, client: httpx2.Client, make_judges: Callable[..., Judges]
    ) -> None:
        """Everything that `Verdict.to_dict` says is there, for an exchange of every channel."""
        asked = {
            "prompt": "Where is it?",
            "choices": [
                {"content": "All is well. Here is zflag.", "reasoning": "I think."},
                {"message": {"content": "zblock", "tool_calls": []}},
                {"tool_calls": [{"function": {"name": "find", "arguments": '{"a": 1}'}}]},
            ],
        }
        guard: Guard = make_judges().guard
        expected = guard.check(Exchange.parse(asked)).to_dict()
        assert {name: post(client, asked)[name] for name in expected} == expected

    @pytest.mark.parametrize(
        ("response", "action", "delivered"),
        [
            ("All is well.", "allow", "All is well."),
            ("There is zflag.", "flag", "There is zflag."),
            ("Say zredact now.", "rewrite", "Say [redacted: to redact] now."),
            ("Say zreplace now.", "rewrite", "[replaced]"),
            ("Say zblock now.", "block", "[blocked]"),
        ],
    )
    def test_delivered(
        self, client: httpx2.Client, response: str, action: str, delivered: str
    ) -> None:
        """The text to show the end user is there whatever was decided."""
        verdict = post(client, {"response": response})
        assert (verdict["action"], verdict["delivered"]) == (action, delivered)
        assert verdict["text"] == (None if action == "block" else delivered)

    def test_choices(self, client: httpx2.Client) -> None:
        """Every choice is there as it may be delivered; a blocked one is null."""
        calls = [{"id": "call_1", "function": {"name": "find", "arguments": "{}"}}]
        choices = [{"content": "Fine.", "tool_calls": calls}, "zblock"]
        verdict = post(client, {"choices": choices})
        call = {"name": "find", "arguments": "{}", "id": "call_1"}
        kept = {"content": "Fine.", "reasoning": "", "refusal": "", "tool_calls": [call]}
        assert verdict["choices"] == [kept, None]

    def test_what_utf8_cannot_write(self, client: httpx2.Client) -> None:
        """A lone surrogate and a NUL come back as they went."""
        response = client.post(
            PATH,
            content=b'{"response": "a \\ud800 b \\u0000 c"}',
            headers={"content-type": "application/json"},
        )
        assert response.status_code == 200
        assert response.json()["text"] == "a \ud800 b \x00 c"

    def test_request_ids(self, client: httpx2.Client) -> None:
        """Every answer has an id of its own, under the names that the SDKs read."""
        first, second = (client.post(PATH, json={"response": "Hi."}) for _ in range(2))
        names = ("x-guard-request-id", "x-request-id", "request-id")
        assert len({first.headers[name] for name in names}) == 1
        assert first.headers["x-request-id"] != second.headers["x-request-id"]


class TestRefused:
    """What a bad request gets: OpenAI's form, with the mend, and never the text."""

    @pytest.mark.parametrize(
        ("body", "word"),
        [
            ({}, "`response`"),
            ({"response": 5}, "`response` must be text"),
            ({"response": "SENTINEL", "choices": []}, "leave one out"),
            ({"choices": [{"image": "SENTINEL"}]}, "nothing to judge"),
            ([], "body"),
            ("SENTINEL", "body"),
            (None, "body"),
        ],
    )
    def test_shape(self, client: httpx2.Client, body: Any, word: str) -> None:
        """A body that is no exchange is a 400 that says what is missing."""
        answer = client.post(PATH, json=body)
        assert answer.status_code == 400
        error = answer.json()["error"]
        assert error["type"] == "invalid_request_error"
        assert error["code"] == "invalid_request"
        assert word in error["message"]
        assert "SENTINEL" not in answer.text

    @pytest.mark.parametrize(
        "content", [b"{", b'{"response": ', b"\xff\xfe", b'{"response": "a" "b"}', b""]
    )
    def test_no_json(self, client: httpx2.Client, content: bytes) -> None:
        """A body that is no JSON is a 400 in OpenAI's form."""
        answer = client.post(PATH, content=content, headers={"content-type": "application/json"})
        assert answer.status_code == 400
        assert set(answer.json()["error"]) == {"message", "type", "param", "code"}

    def test_another_content_type(self, client: httpx2.Client) -> None:
        """What a web page could send without asking, a plain text, is not taken for JSON."""
        answer = client.post(
            PATH, content=b'{"response": "Hi."}', headers={"content-type": "text/plain"}
        )
        assert answer.status_code == 400

    def test_wrong_method(self, client: httpx2.Client) -> None:
        """A wrong method is a 405 that says which there are."""
        answer = client.get(PATH)
        assert answer.status_code == 405
        assert answer.headers["allow"] == "POST"
        assert answer.json()["error"]["code"] == "method_not_allowed"

    def test_unknown_path(self, client: httpx2.Client) -> None:
        """A path that nothing serves is a 404 that says what would."""
        answer = client.post("/v1/chat/completions", json={})
        assert answer.status_code == 404
        assert "--upstream" in answer.json()["error"]["message"]

    def test_anthropics_form(self, client: httpx2.Client) -> None:
        """Errors of Anthropic's path are in Anthropic's form, with the request's id."""
        answer = client.post("/v1/messages", json={})
        assert answer.status_code == 404
        body = answer.json()
        assert body["type"] == "error"
        assert body["error"]["type"] == "not_found_error"
        assert body["request_id"] == answer.headers["request-id"]
