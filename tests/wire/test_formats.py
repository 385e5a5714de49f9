"""The formats: which request is in which of them, and what each must bring."""

from __future__ import annotations

import json
import posixpath
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import unquote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from guard.wire.body import Body
from guard.wire.detail import Style
from guard.wire.formats import (
    FORMATS,
    Call,
    Format,
    endpoint_of,
    format_of,
    is_open,
    path_of,
)
from guard.wire.parts import BodyError
from guard.wire.relay import Relay

if TYPE_CHECKING:
    from collections.abc import Callable

    from guard.engine import Guard

REQUESTS: Final[dict[str, dict[str, Any]]] = {
    "chat": {"messages": [{"role": "user", "content": "A zblock?"}]},
    "responses": {"input": "A zblock?"},
    "messages": {"messages": [{"role": "user", "content": "A zblock?"}]},
}
"""A request in each format."""


def ids(form: Format) -> str:
    """Return how a format is called."""
    return form.name


class TestPaths:
    """A request's path says in which format it is."""

    @pytest.mark.parametrize(
        ("method", "path", "name"),
        [
            ("POST", "/v1/chat/completions", "chat"),
            ("post", "/v1/chat/completions/", "chat"),
            ("POST", "/openai/deployments/mine/chat/completions", "chat"),
            ("GET", "/v1/chat/completions/chatcmpl-1", "chat"),
            ("POST", "/v1/responses", "responses"),
            ("GET", "/v1/responses/resp_1", "responses"),
            ("POST", "/v1/responses/resp_1/cancel", "responses"),
            ("POST", "/v1/messages", "messages"),
            ("POST", "/anthropic/v1/messages", "messages"),
        ],
    )
    def test_known(self, method: str, path: str, name: str) -> None:
        """Whatever stands before it, and however stored answers are read."""
        form = format_of(method, path)
        assert form is not None
        assert form.name == name
        assert not is_open(method, path)

    @pytest.mark.parametrize(
        ("method", "path", "endpoint"),
        [
            ("POST", "/v1/chat/completions", "/v1/chat/completions"),
            ("POST", "/chat/completions/", "/v1/chat/completions"),
            ("post", "/x/V1/Chat/Completions", "/v1/chat/completions"),
            ("POST", "/openai/deployments/mine/chat/completions", "/v1/chat/completions"),
            ("GET", "/chat/completions/chatcmpl-1", "/v1/chat/completions/chatcmpl-1"),
            ("POST", "/x/responses/resp_1/cancel", "/v1/responses/resp_1/cancel"),
            ("POST", "/anthropic/V1/messages", "/v1/messages"),
            ("POST", "/messages", None),
            ("GET", "/v1/messages", None),
            ("PATCH", "/v1/responses", None),
            ("POST", "/v1/embeddings", None),
        ],
    )
    def test_endpoint(self, method: str, path: str, endpoint: str | None) -> None:
        """What is asked for has one name, whichever way a backend's path of it is written."""
        assert endpoint_of(method, path) == endpoint

    @pytest.mark.parametrize(
        ("method", "path"),
        [
            ("POST", "/v1/completions"),
            ("POST", "/v1/messages/batches"),
            ("GET", "/v1/messages/batches/b/results"),
            ("POST", "/v1/threads/t/messages"),
            ("GET", "/v1/threads/t/messages"),
            ("GET", "/v1/chat/completions"),
            ("POST", "/v1/responses/compact/more"),
            ("POST", "/v1/audio/transcriptions"),
            ("POST", "/v1/realtime/sessions"),
            ("POST", "/v1beta/models/gemini-2.5-flash:generateContent"),
            ("POST", "/v1beta/models/gemini-2.5-flash:streamGenerateContent"),
            ("GET", "/v1beta/models/gemini-2.5-flash:generateContent"),
            ("POST", "/models/gpt2"),
            ("PUT", "/v1/models"),
            ("PATCH", "/v1/embeddings"),
            ("GET", "/v1/embeddings"),
            ("GET", "/v1/threads/t/messages/count_tokens"),
            ("GET", "/v1/containers/c/files"),
            ("GET", "/v1/Containers/c/files"),
            ("GET", "/v1/CONTAINERS/c/files/"),
            ("GET", "/v1/files/f"),
        ],
    )
    def test_unknown(self, method: str, path: str) -> None:
        """A path that may answer with a model's text and has no format is neither."""
        assert format_of(method, path) is None
        assert not is_open(method, path)

    @pytest.mark.parametrize(
        ("method", "path"),
        [
            ("GET", "/v1/models"),
            ("GET", "/v1/models/m"),
            ("POST", "/v1/embeddings"),
            ("POST", "/v1/moderations"),
            ("POST", "/v1/messages/count_tokens"),
            ("POST", "/v1/responses/input_tokens"),
            ("GET", "/v1/files/"),
            ("post", "/v1/files"),
            ("HEAD", "/v1/completions"),
            ("DELETE", "/v1/responses/resp_1"),
        ],
    )
    def test_open(self, method: str, path: str) -> None:
        """Answers without a model's text are let pass."""
        assert is_open(method, path)
        assert format_of(method, path) is None


class TestPathOf:
    """A path is the one that every server serves, or none."""

    @pytest.mark.parametrize(
        ("target", "path"),
        [
            (b"/", "/"),
            (b"/v1/models/", "/v1/models/"),
            (b"/v1/chat/completions?a=/../b", "/v1/chat/completions"),
            (
                "/openai/deployments/my%2Dmodel/embeddings",
                "/openai/deployments/my-model/embeddings",
            ),
            (b"/v1/models/ft:m:org::id", "/v1/models/ft:m:org::id"),
            (b"/v1/models/m%3Agenerate", "/v1/models/m:generate"),
            (b"/v1/...", "/v1/..."),
        ],
    )
    def test_read(self, target: bytes | str, path: str) -> None:
        """It is decoded once, and without its query."""
        assert path_of(target) == path

    @pytest.mark.parametrize(
        "path",
        [
            "",
            "*",
            "v1/models",
            "http://a/v1/models",
            "//v1/models",
            "/v1//models",
            "/v1/models//",
            "/v1/completions/models/..",
            "/v1/completions/models/../",
            "/v1/completions/models/%2e%2E",
            "/v1/completions/models/.%2e",
            "/v1/./models",
            "/v1/completions/models%2f..",
            "/v1/completions%2Fmodels",
            "/v1/completions\\models",
            "/v1/completions%5cmodels",
            "/v1/completions/models/%252e%252e",
            "/v1/completions/models/..;",
            "/v1/completions;/embeddings",
            "/v1/completions%3F/embeddings",
            "/v1/completions%23/embeddings",
            "/v1/completions%00/embeddings",
            "/v1/models/%zz",
            "/v1/models/ ",
            "/v1/models/%0A",
            "/v1/models/%ff",
            "/v1/\uff0e\uff0e/models",
        ],
    )
    def test_servers_differ(self, path: str) -> None:
        """Such a path is none."""
        assert path_of(path) is None
        if path.isascii():
            assert path_of(path.encode()) is None

    @given(
        st.lists(
            st.sampled_from(
                ["/", ".", "%2e", "%2F", "%5c", "\\", "%25", ";", "a", "models", ":", "%"]
            )
        ).map("".join)
    )
    def test_any(self, target: str) -> None:
        """What is a path stays the same, resolved, merged or decoded once more."""
        path = path_of(target)
        if path is not None:
            assert posixpath.normpath(path) == (path.rstrip("/") or "/")
            assert unquote(path) == path == unquote(target)
            assert path.count("/") == target.count("/")


@pytest.mark.parametrize("form", FORMATS, ids=ids)
class TestEveryFormat:
    """What holds for each format."""

    def test_parts(self, form: Format) -> None:
        """Each has a relay and a body of its own."""
        assert issubclass(form.relay, Relay)
        assert issubclass(form.body, Body)
        assert form.relay.marked == form.body.marked

    def test_reads_its_request(self, form: Format) -> None:
        """The user's message is the prompt."""
        asked = form.asked(REQUESTS[form.name] | {"stream": True, "model": "m"})
        assert asked.exchange.prompt == "A zblock?"
        assert asked.exchange.choices == ()
        assert (asked.stream, asked.exchange.model) == (True, "m")
        assert "tool_call" in asked.gated

    @pytest.mark.parametrize("stream", [True, False])
    def test_refuses(self, form: Format, stream: Any, make_guard: Callable[..., Guard]) -> None:
        """A request that is not passed on is answered in kind, without what it said."""
        guard = make_guard(input={"limits": {"to_block": {"act": 0.9}}})
        call = Call(guard, form, REQUESTS[form.name] | {"stream": stream})
        assert call.judges_input
        verdict = guard.check_input(call.asked.exchange)
        assert verdict.action == "block"
        data = call.refusal(verdict)
        assert data.count(b"[blocked]") > 0
        assert b"zblock" not in data
        assert data.startswith(b"{") != stream
        assert b'"guard":{"action":"block"' in data

    def test_asks_again(self, form: Format, make_guard: Callable[..., Guard]) -> None:
        """A class that has the backend asked again has an instruction for it."""
        assert not Call(make_guard(), form, {}).asks_again
        limits = {"to_block": {"act": 0.9, "remedy": "regenerate"}}
        guard = make_guard(limits=limits)
        call = Call(guard, form, REQUESTS[form.name])
        assert call.asks_again
        again = json.loads(call.corrected())
        assert guard.security_class.regenerate.instruction in json.dumps(again)
        assert form.asked(again).exchange.prompt == "A zblock?"

    @pytest.mark.parametrize("data", [b"", b"<html>", b"[]", b'"text"', b"\xff"])
    def test_no_body(self, form: Format, data: bytes, make_guard: Callable[..., Guard]) -> None:
        """A response that is no JSON object cannot be judged."""
        with pytest.raises(BodyError, match="the backend's answer"):
            Call(make_guard(), form, {}).body(data)

    @pytest.mark.parametrize("data", [b"{}", b'{"a": 1}'])
    def test_empty_body(self, form: Format, data: bytes, make_guard: Callable[..., Guard]) -> None:
        """One without any text passes as it is."""
        guard = make_guard()
        body = Call(guard, form, {}).body(data)
        guard.driver.run(body.judge())
        assert body.delivered() == data
        assert not body.regenerate

    def test_earlier_usage(self, form: Format, make_guard: Callable[..., Guard]) -> None:
        """What withdrawn answers cost is added to what this one did."""
        guard = make_guard()
        data = json.dumps({"usage": {"output_tokens": 2, "more": {"a": 1}, "tier": "x"}}).encode()
        body = Call(guard, form, {}).body(data)
        guard.driver.run(body.judge())
        earlier = {"output_tokens": 3, "more": {"a": 1, "b": 2}, "new": {"c": 1}}
        assert json.loads(body.delivered([earlier]))["usage"] == {
            "output_tokens": 5,
            "more": {"a": 2, "b": 2},
            "new": {"c": 1},
            "tier": "x",
        }

    def test_error(self, form: Format) -> None:
        """An error has a message."""
        assert form.error("Oh.", "upstream_error")["error"]["message"] == "Oh."

    def test_failing_detector(self, form: Format, make_guard: Callable[..., Guard]) -> None:
        """Where a detector fails, what it should have judged does not leave."""

        class Failing:
            """Fails."""

            name, version, categories = "failing", "1", ("to_block",)

            def __call__(self, passage: Any) -> Any:
                """Fail."""
                raise RuntimeError(passage)

        limits = {"to_block": {"act": 0.9, "remedy": "block"}}
        guard = make_guard(Failing(), limits=limits)
        call = Call(guard, form, REQUESTS[form.name], Style())
        body = call.body(b'{"note": "a secret"}')
        guard.driver.run(body.judge())
        assert b"secret" not in body.delivered()
        relay = call.relay()
        steps, left = relay.feed(b'data: {"note": "a secret"}\n\ndata: [DONE]\n\n'), ""
        while (text := guard.driver.advance(steps)) is not None:
            left += text
        assert "secret" not in left
        assert "[blocked]" in left
        assert relay.finished
