"""The guarding transport under a plain HTTP client: what goes over it, and what it tells."""

from __future__ import annotations

import gzip
import json
from contextlib import closing
from typing import TYPE_CHECKING, Any, Final, cast

import httpx2
import pytest

from guard.errors import InputError
from guard.exchange import Choice
from guard.journal.store import Journal
from guard.server.scripted import BROKEN_LINE, Delivery, Failure, Reply
from guard.wire import ledger
from guard.wire.transport import AsyncGuardTransport, GuardTransport, Options, Unguardable
from tests.adapters.shared import (
    FORMS,
    LONG,
    PROMPT,
    VENDOR_OF,
    Side,
    answer,
    told,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator
    from pathlib import Path

    from guard.engine import Guard
    from guard.server.scripted import ScriptedApp
    from guard.verdict import Verdict

    Post = Callable[..., Any]

PATHS: Final = {
    "chat": "/v1/chat/completions",
    "responses": "/v1/responses",
    "messages": "/v1/messages",
}
ASKED: Final[dict[str, dict[str, Any]]] = {
    "chat": {"model": "m", "messages": [{"role": "user", "content": PROMPT}]},
    "responses": {"model": "m", "input": PROMPT},
    "messages": {
        "model": "m",
        "max_tokens": 9,
        "messages": [{"role": "user", "content": PROMPT}],
    },
}

forms = pytest.mark.parametrize("form", FORMS)
both = pytest.mark.parametrize("mode", ["json", "stream"])


@pytest.fixture
async def post(
    kind: str, make_guard: Callable[..., Guard], backend: ScriptedApp
) -> AsyncIterator[Post]:
    """Return a function that posts a request of a format through a guarding transport.

    Its `guard` are changes to the class, its `inner` is what sends instead of the network.
    """
    clients: list[Side] = []

    def client(guard: Guard, inner: Any = None, options: Options | None = None) -> Side:
        chosen = options or Options()
        made: Any
        if kind == "sync":
            made = httpx2.Client(transport=GuardTransport(guard, inner, chosen))
        else:
            made = httpx2.AsyncClient(transport=AsyncGuardTransport(guard, inner, chosen))
        clients.append(Side(made))
        return clients[-1]

    async def send(form: str, mode: str = "json", **given: Any) -> Any:
        guard = make_guard(**given.pop("guard", {}))
        side = client(guard, given.pop("inner", None), given.pop("options", None))
        asked = ASKED[form] | ({"stream": True} if mode == "stream" else {})
        content = given.pop("content", json.dumps(asked))
        url = f"{backend.url}{given.pop('path', PATHS[form])}"
        method = given.pop("method", "POST")
        return await side.settled(
            side.client.request(method, url, content=content, timeout=20, **given)
        )

    yield send
    for side in clients:
        await side.settled(side.client.close() if kind == "sync" else side.client.aclose())


def inner_of(kind: str, given: Any) -> Any:
    """Return a transport that answers by a response, or by a function that makes one."""

    def respond(request: httpx2.Request) -> httpx2.Response:
        answered: Any = given if isinstance(given, httpx2.Response) else given(request)
        return cast("httpx2.Response", answered)

    async def arespond(request: httpx2.Request) -> httpx2.Response:
        return respond(request)

    return httpx2.MockTransport(respond if kind == "sync" else arespond)


class TestRequest:
    """What the backend is sent."""

    @forms
    async def test_bytes_stay(self, post: Post, backend: ScriptedApp, form: str) -> None:
        """The body goes on byte by byte, however it is written; headers and query too."""
        content = json.dumps(ASKED[form], indent=3).replace("grows", "gr\\u006fws")
        headers = {"authorization": "Bearer k", "x-own": "1", "accept-encoding": "gzip, br"}
        await post(form, content=content, headers=headers, params={"api-version": "2"})
        (request,) = backend.requests
        assert request.body == content.encode()
        assert request.headers["content-length"] == str(len(content))
        assert (request.headers["authorization"], request.headers["x-own"]) == ("Bearer k", "1")
        assert request.headers["accept-encoding"] == "identity"
        assert request.query == "api-version=2"

    @pytest.mark.parametrize("content", [b"{", b"[1]", b"\xff", b'"a"', b"[" * 100_000])
    async def test_unreadable_requests_go_nowhere(
        self, post: Post, backend: ScriptedApp, content: bytes
    ) -> None:
        """What the guard cannot read a backend might: it is refused here, and not sent."""
        done = await post("chat", content=content)
        assert (done.status_code, done.json()["error"]["code"]) == (400, "invalid_request")
        assert not backend.requests

    async def test_a_request_without_a_body_goes_on(self, post: Post, backend: ScriptedApp) -> None:
        """There is nothing in it to be read, and it is the backend's to refuse."""
        done = await post("chat", content=b"")
        assert done.status_code == 400
        assert backend.requests[0].body == b""

    @both
    @forms
    async def test_a_request_that_asks_nothing_is_answered_under_guard(
        self, kind: str, post: Post, form: str, mode: str
    ) -> None:
        """A backend that answers all the same is judged, whatever was asked."""
        stream = mode == "stream"
        bad = {"choices": [{"index": 0, "delta" if stream else "message": {"content": "zblock"}}]}
        text = f"data: {json.dumps(bad)}\n\n" if stream else json.dumps(bad)
        content_type = "text/event-stream" if stream else "application/json"

        def respond(_: httpx2.Request) -> httpx2.Response:
            return httpx2.Response(200, text=text, headers={"content-type": content_type})

        inner = inner_of(kind, respond)
        done = await post(form, content=b"{}", inner=inner)
        assert b"zblock" not in done.content
        assert b"[blocked]" in done.content

    @pytest.mark.parametrize("method", ["GET", "POST"])
    async def test_stored_answers_are_guarded(self, kind: str, post: Post, method: str) -> None:
        """An answer that is asked for by its id is one like any other."""
        bad = {"choices": [{"index": 0, "message": {"content": "zblock"}}]}
        inner = inner_of(kind, httpx2.Response(200, json=bad))
        path = "/v1/chat/completions/chatcmpl-1"
        guard = {"limits": {"to_block": {"act": 0.9, "remedy": "regenerate"}}}
        done = await post("chat", method=method, path=path, content=b"", inner=inner, guard=guard)
        assert done.json()["choices"][0]["message"]["content"] == "[replaced]"


class TestResponse:
    """What comes back."""

    @both
    @forms
    async def test_headers(
        self,
        post: Post,
        backend: ScriptedApp,
        tmp_path: Path,
        form: str,
        mode: str,
    ) -> None:
        """The backend's headers stay but for those about its bytes; ours say what was decided."""
        with closing(Journal(tmp_path / "journal.db")) as journal:
            guard = {"journal": journal}
            for text, action in (("Ferns.", "allow"), ("Say zblock.", "block")):
                backend.script(PROMPT, text)
                done = await post(form, mode, guard=guard)
                assert done.headers["x-ratelimit-remaining-requests"] == "41"
                assert "req_scripted" in (
                    done.headers.get("x-request-id"),
                    done.headers.get("request-id"),
                )
                assert done.headers["x-guard-class"] == "test"
                if mode == "json":
                    assert done.headers["x-guard-action"] == action
                    assert done.headers["content-length"] == str(len(done.content))
            if mode == "json":
                (row,) = journal.list()
                assert done.headers["x-guard-record"] == row.id

    @both
    @forms
    async def test_packed_answers(
        self,
        kind: str,
        post: Post,
        backend: ScriptedApp,
        form: str,
        mode: str,
    ) -> None:
        """A backend that packs its answer all the same is unpacked, and the headers fit."""
        backend.script(PROMPT, f"{LONG}Say zblock.")
        asked = ASKED[form] | ({"stream": True} if mode == "stream" else {})
        plain = httpx2.post(f"{backend.url}{PATHS[form]}", json=asked, timeout=20)

        def respond(_: httpx2.Request) -> httpx2.Response:
            headers = {
                "content-encoding": "gzip",
                "content-type": plain.headers["content-type"],
            }
            return httpx2.Response(200, content=gzip.compress(plain.content), headers=headers)

        done = await post(form, mode, inner=inner_of(kind, respond))
        assert "content-encoding" not in done.headers
        assert b"[blocked]" in done.content
        assert b"zblock" not in done.content

    @both
    @forms
    async def test_packing_that_is_broken(
        self, kind: str, post: Post, form: str, mode: str
    ) -> None:
        """What cannot be unpacked raises the HTTP client's error."""
        content_type = "text/event-stream" if mode == "stream" else "application/json"
        headers = {"content-encoding": "gzip", "content-type": content_type}

        def respond(_: httpx2.Request) -> httpx2.Response:
            async def pieces() -> AsyncIterator[bytes]:
                yield b"zblock"

            given: Any = iter([b"zblock"]) if kind == "sync" else pieces()
            return httpx2.Response(200, content=given, headers=headers)

        with pytest.raises(httpx2.DecodingError):
            await post(form, mode, inner=inner_of(kind, respond))

    @pytest.mark.parametrize("status", [302, 400, 401, 404, 429, 500, 503])
    async def test_errors_pass(self, post: Post, backend: ScriptedApp, status: int) -> None:
        """What is no success passes as it is, unless something is found in it."""
        backend.script(PROMPT, Failure(status, body=b"<h1>Oh.</h1>"))
        done = await post("chat")
        assert (done.status_code, done.content) == (status, b"<h1>Oh.</h1>")
        backend.script(PROMPT, Failure(status, body=b"<h1>zblock</h1>"))
        done = await post("chat")
        assert (done.status_code, b"zblock" in done.content) == (status, False)
        assert done.json()["error"]["message"] == "[blocked]"
        assert done.headers["x-guard-action"] == "block"

    async def test_bare_errors(self, kind: str, post: Post) -> None:
        """A status without a body is just that."""
        done = await post("chat", inner=inner_of(kind, httpx2.Response(304, headers={"etag": "a"})))
        assert (done.status_code, done.content, done.headers["etag"]) == (304, b"", "a")

    async def test_errors_of_further_attempts(self, post: Post, backend: ScriptedApp) -> None:
        """Where the backend is asked again and fails, the class's message stands, not its error."""
        given: list[Verdict] = []
        guard = {"limits": {"to_block": {"act": 0.9, "remedy": "regenerate"}}}
        backend.script(PROMPT, "zblock", Failure(500, "Not zblock."))
        options = Options(on_verdict=given.append)
        done = await post("chat", guard=guard, options=options)
        assert done.json()["choices"][0]["message"]["content"] == "[replaced]"
        assert [verdict.action for verdict in given] == ["rewrite"]

    async def test_too_many_texts(
        self, kind: str, post: Post, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A success with more texts than are judged is an error of the backend's, too."""
        monkeypatch.setattr(ledger, "CHANNEL_LIMIT", 1)
        choices = [{"index": n, "message": {"content": "A zblock."}} for n in range(3)]
        body = json.dumps({"object": "chat.completion", "choices": choices}).encode()
        done = await post("chat", inner=inner_of(kind, httpx2.Response(200, content=body)))
        assert done.status_code == 502
        assert "zblock" not in done.text
        assert "texts" in done.json()["error"]["message"]

    @forms
    @pytest.mark.parametrize("body", [b"", b"<h1>zblock</h1>", b"[]", b'{"a": zblock', b"\xff"])
    async def test_unreadable_answers(self, kind: str, post: Post, form: str, body: bytes) -> None:
        """A success that is no JSON object is an error in the format's form, and quotes nothing."""
        inner = inner_of(kind, httpx2.Response(200, content=body))
        done = await post(form, inner=inner)
        assert done.status_code == 502
        assert "zblock" not in done.text
        assert "answer" in done.json()["error"]["message"]

    @both
    @forms
    async def test_a_kind_that_was_not_asked_for(
        self,
        kind: str,
        post: Post,
        form: str,
        mode: str,
        backend: ScriptedApp,
    ) -> None:
        """What counts is what came: a stream where JSON was asked for is judged as a stream."""
        backend.script(PROMPT, "Say zblock now.")
        other = {"json": {"stream": True}, "stream": {}}[mode]
        plain = httpx2.post(f"{backend.url}{PATHS[form]}", json=ASKED[form] | other, timeout=20)
        given = httpx2.Response(200, content=plain.content, headers=plain.headers)
        done = await post(form, mode, inner=inner_of(kind, given))
        assert b"[blocked]" in done.content
        assert b"zblock" not in done.content

    @forms
    async def test_content_types(
        self,
        kind: str,
        post: Post,
        form: str,
        backend: ScriptedApp,
    ) -> None:
        """A stream is known by its type, whatever its case and parameters."""
        backend.script(PROMPT, "Say zblock now.")
        asked = ASKED[form] | {"stream": True}
        plain = httpx2.post(f"{backend.url}{PATHS[form]}", json=asked, timeout=20).content
        for name in ("TEXT/EVENT-STREAM", "text/event-stream;charset=utf-8", "text/plain", ""):
            headers = {"content-type": name} if name else {}
            given = httpx2.Response(200, content=plain, headers=headers)
            done = await post(form, "stream", inner=inner_of(kind, given))
            assert b"zblock" not in done.content
            assert done.status_code == (200 if name.lower().startswith("text/event") else 502)


class TestUnguardable:
    """Other paths."""

    async def test_refused_or_passed(self, post: Post, backend: ScriptedApp) -> None:
        """They are refused before anything is sent, unless they may pass."""
        with pytest.raises(Unguardable, match="POST /v1/completions cannot be guarded"):
            await post("chat", path="/v1/completions")
        assert not backend.requests
        options = Options(unguarded="pass")
        done = await post("chat", path="/v1/completions", options=options)
        assert done.status_code == 404
        done = await post("chat", method="GET", path="/v1/models", content=b"")
        assert done.json()["data"][0]["id"] == "scripted"

    @pytest.mark.parametrize(
        "path",
        [
            "/v1/chat/completions",
            "/v1/chat/completions/",
            "/openai/deployments/m/chat/completions",
            "/chat/completions",
            "/v1/responses",
            "/proxy/v1/messages",
        ],
    )
    async def test_paths(self, kind: str, post: Post, path: str) -> None:
        """A format is known by the end of a path, so that any provider's address will do."""
        bad = {"choices": [{"index": 0, "message": {"content": "zblock"}}], "output": ["zblock"]}
        inner = inner_of(kind, httpx2.Response(200, json=bad | {"content": "zblock"}))
        done = await post("chat", path=path, inner=inner)
        assert "zblock" not in done.text

    @pytest.mark.parametrize("unguarded", ["refuse", "pass"])
    @pytest.mark.parametrize(
        "path",
        [
            "/v1/completions/models/%2e%2e",
            "/v1/chat/completions%2F%2e%2e/completions",
            "/v1//chat/completions",
            "/v1\\completions/models",
        ],
    )
    async def test_paths_that_servers_read_in_two_ways(
        self, post: Post, backend: ScriptedApp, path: str, unguarded: Any
    ) -> None:
        """They are refused, whatever else may pass: what is checked is what is sent."""
        with pytest.raises(Unguardable, match="servers differ"):
            await post("chat", path=path, options=Options(unguarded=unguarded))
        assert not backend.requests

    async def test_another_target(self, post: Post, backend: ScriptedApp) -> None:
        """A target that is sent in the place of a URL's path is the one that counts."""
        with pytest.raises(Unguardable, match="cannot be guarded"):
            await post("chat", extensions={"target": b"/v1/completions"})
        assert not backend.requests

    def test_options(self) -> None:
        """An unknown word is refused."""
        with pytest.raises(InputError, match="`refuse` or `pass`"):
            Options(unguarded="maybe")  # type: ignore[arg-type]


class TestTold:
    """`on_verdict`: one call per exchange that was seen to its end."""

    @both
    @forms
    async def test_verdicts(
        self,
        post: Post,
        backend: ScriptedApp,
        form: str,
        mode: str,
    ) -> None:
        """Every exchange has one, good or bad."""
        given: list[Verdict] = []
        options = Options(on_verdict=given.append)
        for text in ("Ferns.", "zflag", "zredact", "zblock"):
            backend.script(PROMPT, text)
            await post(form, mode, options=options)
        assert [verdict.action for verdict in given] == ["allow", "flag", "rewrite", "block"]

    @both
    @forms
    async def test_withdrawn_answers_are_not_told(
        self,
        post: Post,
        backend: ScriptedApp,
        form: str,
        mode: str,
    ) -> None:
        """Of an exchange that took several answers only the last one is told."""
        given: list[Verdict] = []
        limits = {"to_replace": {"act": 0.9, "remedy": "regenerate"}}
        regenerate = {"attempts": 1}
        guard = {"limits": limits, "regenerate": regenerate}
        for replies in (("zreplace", "Fine."), ("zreplace",)):
            backend.script(PROMPT, *replies)
            await post(form, mode, guard=guard, options=Options(on_verdict=given.append))
        assert [verdict.action for verdict in given] == ["allow", "rewrite"]

    @forms
    async def test_broken_streams_are_not_told(
        self, post: Post, backend: ScriptedApp, form: str
    ) -> None:
        """A stream that breaks off has no verdict."""
        given: list[Verdict] = []
        backend.script(PROMPT, Reply((Choice("Ferns."),), delivery=Delivery(dies_after=1)))
        with pytest.raises(httpx2.RemoteProtocolError):
            await post(form, "stream", options=Options(on_verdict=given.append))
        assert not given


class TestBroken:
    """Streams that the backend breaks off."""

    @forms
    async def test_raise(self, post: Post, backend: ScriptedApp, form: str) -> None:
        """By default the HTTP client's error is raised, whole or stream."""
        backend.script(PROMPT, Reply((Choice(LONG),), delivery=Delivery(dies_after=40)))
        for mode in ("json", "stream"):
            with pytest.raises(httpx2.RemoteProtocolError):
                await post(form, mode)

    @forms
    async def test_tell(self, post: Post, backend: ScriptedApp, form: str) -> None:
        """For readers on the other side of a connection the format's error ends the stream."""
        dies = Delivery(dies_after=90)
        backend.script(PROMPT, Reply((Choice(LONG * 2),), delivery=dies))
        done = await post(form, "stream", options=Options(broken="tell"))
        events = [json.loads(line[6:]) for line in done.text.split("\n") if line[:6] == "data: "]
        assert "the backend broke off its answer" in json.dumps(events[-1]["error"])
        assert all("error" not in event for event in events[:-1])
        assert joined(events).startswith(LONG[:90])

    @forms
    async def test_nothing_has_left(self, post: Post, backend: ScriptedApp, form: str) -> None:
        """Where nothing has left, the error is raised: there is still time for a status."""
        backend.script(PROMPT, Reply((Choice(LONG),), delivery=Delivery(dies_at_byte=0)))
        with pytest.raises(httpx2.RemoteProtocolError):
            await post(form, "stream", options=Options(broken="tell"))

    @forms
    async def test_unreadable_events(self, post: Post, backend: ScriptedApp, form: str) -> None:
        """An event that cannot be read ends the stream with the format's error."""
        broken = Delivery(inserts={3: BROKEN_LINE})
        backend.script(PROMPT, Reply((Choice(LONG),), delivery=broken))
        done = await post(form, "stream")
        last = done.text.rstrip().split("\n\n")[-1].partition("data: ")[2]
        assert "the backend's answer is no JSON" in json.dumps(json.loads(last))
        assert "cut-off" not in done.text


def joined(events: list[dict[str, Any]]) -> str:
    """Return the answer's text that a stream of events of any format brings."""
    return "".join(text for event in events for text in pieces(event))


def pieces(event: dict[str, Any]) -> Iterator[str]:
    """Yield the pieces of the answer's text that an event brings."""
    for choice in event.get("choices", ()):
        yield choice["delta"].get("content") or ""
    delta = event.get("delta", "")
    yield delta if isinstance(delta, str) else delta.get("text", "")


class TestInput:
    """A class with an `input` section: what is asked is judged first."""

    INPUT: Final = {"limits": {"to_block": {"flag": 0.5, "act": 0.9}}}

    @both
    @forms
    async def test_refused(
        self,
        new_client: Callable[..., Any],
        make_guard: Callable[..., Guard],
        backend: ScriptedApp,
        form: str,
        mode: str,
    ) -> None:
        """A bad prompt gets the class's message as a refusal, and the backend is not called."""
        side = Side(make_guard(input=self.INPUT).wrap(new_client(VENDOR_OF[form])))
        bad = [{"role": "user", "content": "Please zblock."}]
        extra = {"input": bad} if form == "responses" else {"messages": bad}
        given = await answer(side, form, mode=mode, extra_body=extra)
        assert told(given, form) == "[blocked]"
        assert (given.model_extra or {}).get("guard", {}).get("action") == "block" or (
            mode == "stream"
        )
        if form == "chat":
            assert given.choices[0].message.refusal == "[blocked]"
        if form == "messages":
            assert given.stop_reason == "refusal"
        assert not backend.requests

    @both
    @forms
    async def test_good_prompts_go_on(
        self,
        new_client: Callable[..., Any],
        make_guard: Callable[..., Guard],
        backend: ScriptedApp,
        form: str,
        mode: str,
    ) -> None:
        """A good prompt is answered, and what it is answered is judged as ever."""
        side = Side(make_guard(input=self.INPUT).wrap(new_client(VENDOR_OF[form])))
        backend.script(PROMPT, "Ferns.", "Say zblock.")
        assert told(await answer(side, form, mode=mode), form) == "Ferns."
        assert told(await answer(side, form, mode=mode), form) == "[blocked]"

    @both
    @forms
    async def test_told_and_kept(
        self,
        post: Post,
        backend: ScriptedApp,
        tmp_path: Path,
        form: str,
        mode: str,
    ) -> None:
        """The refusal is told and has a row; the headers say so."""
        given: list[Verdict] = []
        asked = json.loads(json.dumps(ASKED[form]).replace(PROMPT, "Please zblock."))
        asked |= {"stream": True} if mode == "stream" else {}
        with closing(Journal(tmp_path / "journal.db")) as journal:
            done = await post(
                form,
                content=json.dumps(asked),
                options=Options(on_verdict=given.append),
                guard={"input": self.INPUT, "journal": journal},
            )
            (row,) = journal.list()
        assert [verdict.action for verdict in given] == ["block"]
        assert (row.action, row.complete) == ("block", True)
        assert done.status_code == 200
        assert done.headers["x-guard-action"] == "block"
        kind = "text/event-stream" if mode == "stream" else "application/json"
        assert done.headers["content-type"] == kind
        assert not backend.requests

    @forms
    async def test_tool_results(
        self,
        new_client: Callable[..., Any],
        make_guard: Callable[..., Guard],
        backend: ScriptedApp,
        form: str,
    ) -> None:
        """What a tool gave back is judged, too; a bad word of an earlier turn is not."""
        side = Side(make_guard(input=self.INPUT).wrap(new_client(VENDOR_OF[form])))
        results: dict[str, dict[str, Any]] = {
            "chat": {
                "messages": [
                    {"role": "user", "content": PROMPT},
                    {"role": "tool", "tool_call_id": "c", "content": "zblock"},
                ]
            },
            "responses": {
                "input": [
                    {"role": "user", "content": PROMPT},
                    {"type": "function_call_output", "call_id": "c", "output": "zblock"},
                ]
            },
            "messages": {
                "messages": [
                    {
                        "role": "user",
                        "content": [
                            {"type": "tool_result", "tool_use_id": "c", "content": "zblock"}
                        ],
                    }
                ]
            },
        }
        given = await answer(side, form, extra_body=results[form])
        assert told(given, form) == "[blocked]"
        assert not backend.requests
        turns = [
            {"role": "user", "content": "zblock"},
            {"role": "assistant", "content": "No."},
            {"role": "user", "content": PROMPT},
        ]
        earlier = {"input": turns} if form == "responses" else {"messages": turns}
        backend.script(PROMPT, "Ferns.")
        assert told(await answer(side, form, extra_body=earlier), form) == "Ferns."


class TestModel:
    """End to end, with the classifier that is bundled."""

    async def test_a_secret_does_not_leave(
        self, new_client: Callable[..., Any], real_guard: Guard, backend: ScriptedApp
    ) -> None:
        """A class as users load it lets a plain answer be and takes a key out of another."""
        side = Side(real_guard.wrap(new_client("openai")))
        key = "AKIA" + "QX7ZP2LM4NB6VC5D"
        backend.script(PROMPT, "Ferns grow well in the shade.", f"The key is {key} for today.")
        assert told(await answer(side, "chat"), "chat") == "Ferns grow well in the shade."
        for mode in ("json", "stream"):
            given = told(await answer(side, "chat", mode=mode), "chat")
            assert key not in given
            assert given
