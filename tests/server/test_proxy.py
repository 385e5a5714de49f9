"""The guarding proxy over two real ports: the same as the backend, but for what is judged bad."""

from __future__ import annotations

import asyncio
import gzip
import io
import json
import logging
import socket
import time
from contextlib import ExitStack, closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import anthropic
import httpx2
import openai
import pytest
import structlog

from guard.exchange import Choice, ToolCall
from guard.journal.store import Journal
from guard.server import logs
from guard.server.keys import hash_of
from guard.server.scripted import BROKEN_LINE, Delivery, Failure, Reply, samples, serve_in_thread

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from fastapi import FastAPI

    from guard.server.guards import Judges
    from guard.server.scripted import ScriptedApp
    from guard.server.service import Service

PROMPT: Final = "What grows in the shade?"
LONG: Final = (
    "Ferns do well in the shade, and so does ivy. Water them in the morning. “Hosta” is another; "
    "snails like it, too. 🌿 In a dry corner, plant barrenwort!\n\n- ferns\n- ivy\n\n"
) * 2
PATHS: Final = {
    "chat": "/v1/chat/completions",
    "responses": "/v1/responses",
    "messages": "/v1/messages",
}
ASKED: Final[dict[str, dict[str, Any]]] = {
    "chat": {"model": "m", "messages": [{"role": "user", "content": PROMPT}]},
    "responses": {"model": "m", "input": PROMPT},
    "messages": {"model": "m", "max_tokens": 9, "messages": [{"role": "user", "content": PROMPT}]},
}
EVERY: Final = {
    "chat": samples.every_chat_choice,
    "responses": samples.every_response_item,
    "messages": samples.every_message_block,
}
OURS: Final = ("x-guard-", "x-accel-buffering", "date", "server", "connection")

forms = pytest.mark.parametrize("form", PATHS)
both = pytest.mark.parametrize("mode", ["json", "stream"])


@dataclass(frozen=True)
class Proxy:
    """A proxy that runs."""

    http: httpx2.Client
    service: Service

    @property
    def url(self) -> str:
        """Where it is."""
        return str(self.http.base_url).rstrip("/")

    def wait_idle(self) -> None:
        """Wait until it serves nothing, and fail where that takes long."""
        ends = time.monotonic() + 10
        while not self.service.load.idle:
            assert time.monotonic() < ends, "a request is still being served"
            time.sleep(0.002)


@pytest.fixture
def start(make_app: Callable[..., FastAPI], backend: ScriptedApp) -> Iterator[Callable[..., Proxy]]:
    """Return a function that starts a proxy before the backend, with any settings."""
    with ExitStack() as stack:

        def serve(judges: Judges | None = None, **settings: Any) -> Proxy:
            app = make_app(judges, **({"upstream": backend.url} | settings))
            url = stack.enter_context(serve_in_thread(app)).url
            http = stack.enter_context(httpx2.Client(base_url=url, timeout=30))
            return Proxy(http, app.state.service)

        yield serve


@pytest.fixture
def proxy(start: Callable[..., Proxy]) -> Proxy:
    """Return a proxy whose guard fires on words."""
    return start()


def request(form: str, mode: str = "json") -> dict[str, Any]:
    """Return a request of a format."""
    return ASKED[form] | ({"stream": True} if mode == "stream" else {})


def compared(answer: httpx2.Response) -> tuple[int, dict[str, str], bytes]:
    """Return what must be the same in a proxied and a direct answer."""
    headers = {k: v for k, v in answer.headers.items() if not k.startswith(OURS)}
    headers.pop("transfer-encoding", None)
    # Where a backend names its request in one way, ours is there in the other.
    for name in ("x-request-id", "request-id"):
        if headers.get(name) != "req_scripted":
            headers.pop(name, None)
    return answer.status_code, headers, answer.content


def said(answer: httpx2.Response, form: str, mode: str) -> str:
    """Return the answer's text."""
    if mode == "json":
        return "".join(_texts(answer.json(), form))
    lines = [line[6:] for line in answer.text.split("\n") if line.startswith("data: {")]
    return "".join(piece for line in lines for piece in _pieces(json.loads(line)))


def _texts(document: dict[str, Any], form: str) -> Iterator[str]:
    if form == "chat":
        yield from (choice["message"]["content"] or "" for choice in document["choices"])
    elif form == "messages":
        yield from (block.get("text", "") for block in document["content"])
    else:
        for item in document["output"]:
            yield from (
                part.get("text") or part.get("refusal", "") for part in item.get("content", ())
            )


def _pieces(event: dict[str, Any]) -> Iterator[str]:
    for choice in event.get("choices", ()):
        yield choice["delta"].get("content") or ""
    delta = event.get("delta", "")
    yield delta if isinstance(delta, str) else delta.get("text", "")


CASES: Final[dict[str, Any]] = {
    "text": "Ferns.",
    "long": LONG,
    "nothing": Choice(),
    "refusal": Choice(refusal="I do not rank plants."),
    "reasoning": Choice("Ferns.", reasoning="They mean a garden. " * 9),
    "tool": Choice("Let me look.", tool_calls=(ToolCall("look_up", '{"query": "fern"}'),)),
    "chunked": Reply((Choice(LONG[:170]),), delivery=Delivery(chunk=23, piece=9)),
    "400": Failure(400),
    "401": Failure(401),
    "404": Failure(404),
    "429": Failure(429, retry_after=7),
    "500": Failure(500),
    "529": Failure(529),
    "a page": Failure(502, body=b"<h1>Bad gateway</h1>"),
}


class TestParity:
    """What nobody minds passes as it is, to the byte."""

    @both
    @forms
    @pytest.mark.parametrize("case", CASES)
    def test_equal(
        self, proxy: Proxy, backend: ScriptedApp, case: str, form: str, mode: str
    ) -> None:
        """Status, headers and bytes are those of the backend."""
        backend.script(PROMPT, CASES[case])
        direct = httpx2.post(f"{backend.url}{PATHS[form]}", json=request(form, mode), timeout=20)
        proxied = proxy.http.post(PATHS[form], json=request(form, mode))
        assert compared(proxied) == compared(direct)

    @both
    @forms
    def test_every_channel(self, proxy: Proxy, backend: ScriptedApp, form: str, mode: str) -> None:
        """An answer with everything that a format has is equal, too."""
        backend.script(PROMPT, Reply(changes=EVERY[form](lambda path: f"Fine {path}.")))
        direct = httpx2.post(f"{backend.url}{PATHS[form]}", json=request(form, mode), timeout=20)
        proxied = proxy.http.post(PATHS[form], json=request(form, mode))
        assert compared(proxied) == compared(direct)

    def test_openai(self, proxy: Proxy, backend: ScriptedApp) -> None:
        """OpenAI's own client reads the same from both."""
        backend.script(PROMPT, LONG)
        found = []
        for url in (backend.url, proxy.url):
            with openai.OpenAI(base_url=f"{url}/v1", api_key="k", max_retries=0) as client:
                done = client.chat.completions.create(**ASKED["chat"])
                with client.chat.completions.stream(**ASKED["chat"]) as stream:
                    final = stream.get_final_completion()
                response = client.responses.create(**ASKED["responses"])
                models = [model.id for model in client.models.list()]
                found.append([done, final, response, models])
        assert found[0] == found[1]

    def test_anthropic(self, proxy: Proxy, backend: ScriptedApp) -> None:
        """Anthropic's own client reads the same from both."""
        backend.script(PROMPT, LONG)
        found = []
        for url in (backend.url, proxy.url):
            with anthropic.Anthropic(base_url=url, api_key="k", max_retries=0) as client:
                done = client.messages.create(**ASKED["messages"])
                with client.messages.stream(**ASKED["messages"]) as stream:
                    found.append([done, stream.get_final_message()])
        assert found[0] == found[1]

    @both
    @forms
    def test_judged(self, proxy: Proxy, backend: ScriptedApp, form: str, mode: str) -> None:
        """What is bad is mended or withheld, and the numbers know of it."""
        for text, expected in (
            ("Say zredact now.", "Say [redacted: to redact] now."),
            ("Say zreplace now.", "[replaced]"),
            ("Say zblock now.", "[blocked]"),
        ):
            backend.script(PROMPT, text)
            answer = proxy.http.post(PATHS[form], json=request(form, mode))
            assert answer.status_code == 200
            assert said(answer, form, mode).removesuffix("[blocked]") in (
                expected,
                expected.removesuffix("[blocked]"),
            )
            assert "zblock" not in answer.text
            assert answer.headers["x-guard-class"] == "test"
        numbers = proxy.http.get("/metrics").text
        assert 'guard_decisions_total{action="rewrite"' in numbers
        assert 'guard_decisions_total{action="block"' in numbers


class TestErrors:
    """Errors of the backend's, which may quote a model."""

    @both
    @forms
    def test_judged(self, proxy: Proxy, backend: ScriptedApp, form: str, mode: str) -> None:
        """Status and headers are the backend's, what is bad is not there."""
        backend.script(PROMPT, Failure(429, "Not zblock.", retry_after=7))
        answer = proxy.http.post(PATHS[form], json=request(form, mode))
        assert (answer.status_code, answer.headers["retry-after"]) == (429, "7")
        assert answer.json()["error"]["message"] == "[blocked]"
        assert answer.headers["content-type"] == "application/json"
        assert answer.headers["content-length"] == str(len(answer.content))

    def test_numbers(self, proxy: Proxy, backend: ScriptedApp) -> None:
        """An error that nothing was found in is no decision about an answer."""
        for body, expected in ((b"<h1>Bad gateway</h1>", 0), (b"<h1>zblock</h1>", 1)):
            backend.script(PROMPT, Failure(502, body=body))
            assert proxy.http.post(PATHS["chat"], json=request("chat")).status_code == 502
            assert proxy.http.get("/metrics").text.count("guard_decisions_total{") == expected


class TestHeaders:
    """What of a request and of an answer goes through."""

    def test_of_a_request(self, proxy: Proxy, backend: ScriptedApp) -> None:
        """Those about one connection or for the proxy alone stay behind, all others go on."""
        headers = {
            "authorization": "Bearer the-backends-key",
            "openai-organization": "org",
            "x-own": "1",
            "user-agent": "own/1",
            "te": "trailers",
            "connection": "keep-alive, x-hop",
            "x-hop": "1",
            "keep-alive": "timeout=5",
            "proxy-authorization": "Basic a",
            "accept-encoding": "gzip",
        }
        proxy.http.post(PATHS["chat"], json=request("chat"), headers=headers)
        given = backend.requests[0].headers
        for name in ("authorization", "openai-organization", "x-own", "user-agent"):
            assert given[name] == headers[name]
        for name in ("te", "x-hop", "keep-alive", "proxy-authorization"):
            assert name not in given
        assert given["accept-encoding"] == "identity"
        assert given["host"] == backend.url.removeprefix("http://")

    def test_bytes_and_query(self, proxy: Proxy, backend: ScriptedApp) -> None:
        """The body goes on byte by byte, chunked or not, and the query as it is written."""
        content = json.dumps(ASKED["chat"], indent=3).encode()
        for body in (content, iter([content[:9], content[9:]])):
            proxy.http.post(f"{PATHS['chat']}?api-version=2&a=%2F+b", content=body)
        assert [each.body for each in backend.requests] == [content] * 2
        assert {each.query for each in backend.requests} == {"api-version=2&a=%2F+b"}

    def test_another_method_or_path(self, proxy: Proxy, backend: ScriptedApp) -> None:
        """Headers by which a backend would serve something else than was checked stay behind."""
        names = ("X-HTTP-Method-Override", "X-HTTP-Method", "X-Method-Override")
        headers = dict.fromkeys(names, "POST") | {"X-Original-URL": "/x", "X-Rewrite-URL": "/x"}
        proxy.http.get("/v1/models/m", headers=headers)
        assert not {name.lower() for name in headers} & set(backend.requests[0].headers)

    def test_of_an_answer(self, proxy: Proxy, backend: ScriptedApp) -> None:
        """The backend's stay; each answer has an id, and is not to be buffered."""
        backend.script(PROMPT, "Ferns.")
        for mode in ("json", "stream"):
            answer = proxy.http.post(PATHS["chat"], json=request("chat", mode))
            assert answer.headers["x-request-id"] == "req_scripted"
            assert answer.headers["x-guard-request-id"].startswith("req_")
            assert answer.headers["x-guard-request-id"] != "req_scripted"
            assert answer.headers["x-accel-buffering"] == "no"
            assert answer.headers["x-ratelimit-remaining-requests"] == "41"

    def test_upstream_key(self, start: Callable[..., Proxy], backend: ScriptedApp) -> None:
        """A configured key takes the place of whatever the client sent."""
        proxy = start(upstream_key="secret-of-the-backend")
        headers = {"authorization": "Bearer of-the-client", "x-api-key": "of-the-client"}
        for form, path in PATHS.items():
            proxy.http.post(path, json=request(form), headers=headers)
        for each in backend.requests:
            assert each.headers["authorization"] == "Bearer secret-of-the-backend"
            assert each.headers["x-api-key"] == "secret-of-the-backend"
            assert "of-the-client" not in str(each)


DESK, SHOP = "desk-key-that-is-long-enough", "shop-key-that-is-long-enough"


class TestKeys:
    """What a key or a path decides."""

    @pytest.mark.parametrize("header", ["authorization", "x-api-key", "x-guard-key"])
    def test_a_clients_key_stays_here(
        self, start: Callable[..., Proxy], backend: ScriptedApp, header: str
    ) -> None:
        """The proxy's own key is not sent to the backend, in whichever header and how often."""
        proxy = start(keys=[{"name": "desk", "hash": hash_of(DESK)}])
        value = f"Bearer {DESK}" if header == "authorization" else DESK
        for headers in ({header: value}, {header: value, "authorization": f"Bearer {DESK}"}):
            answer = proxy.http.post(PATHS["chat"], json=request("chat"), headers=headers)
            assert answer.status_code == 200
        assert len(backend.requests) == 2
        assert DESK not in str(backend.requests)

    def test_a_backends_key_may_go_along(
        self, start: Callable[..., Proxy], backend: ScriptedApp
    ) -> None:
        """A client may show its key in our header, and the backend's in the usual one."""
        proxy = start(keys=[{"name": "desk", "hash": hash_of(DESK)}])
        headers = {"x-guard-key": DESK, "authorization": "Bearer of-the-backend"}
        proxy.http.post(PATHS["chat"], json=request("chat"), headers=headers)
        assert backend.requests[0].headers["authorization"] == "Bearer of-the-backend"

    @pytest.mark.parametrize("form", PATHS)
    def test_without_a_key(
        self, start: Callable[..., Proxy], backend: ScriptedApp, form: str
    ) -> None:
        """Nobody else is let in; the SDKs raise their own error."""
        proxy = start(keys=[{"name": "desk", "hash": hash_of(DESK)}])
        if form == "messages":
            with (
                anthropic.Anthropic(base_url=proxy.url, api_key="wrong") as client,
                pytest.raises(anthropic.AuthenticationError),
            ):
                client.messages.create(**ASKED[form])
        else:
            with (
                openai.OpenAI(base_url=f"{proxy.url}/v1", api_key="wrong") as other,
                pytest.raises(openai.AuthenticationError),
            ):
                other.post(f"/{PATHS[form].removeprefix('/v1/')}", cast_to=object)
        assert not backend.requests

    def test_class_and_model(
        self,
        start: Callable[..., Proxy],
        make_judges: Callable[..., Judges],
        backend: ScriptedApp,
    ) -> None:
        """The stricter class of key and path judges; a model that is set goes to the backend."""
        strict = {"to_flag": {"act": 0.5, "remedy": "block"}}
        made = {
            "lax.yaml": make_judges(name="lax", rank=1),
            "strict.yaml": make_judges(name="strict", rank=9, limits=strict),
        }
        keys = [
            {"name": "desk", "hash": hash_of(DESK), "upstream_model": "own-model"},
            {"name": "shop", "hash": hash_of(SHOP), "security_class": "strict.yaml"},
        ]
        routes = [
            {"path": "/v1/responses", "security_class": "strict.yaml"},
            {"path": "/v1/messages", "upstream_model": "of-the-path"},
        ]
        proxy = start(load=lambda: made, security_class="lax.yaml", keys=keys, routes=routes)
        backend.script(PROMPT, "Say zflag.")
        found = {}
        for name, key in (("desk", DESK), ("shop", SHOP)):
            for form, path in PATHS.items():
                answer = proxy.http.post(path, json=request(form), headers={"x-guard-key": key})
                blocked = "[blocked]" in answer.text
                assert blocked == ("zflag" not in answer.text)
                model = backend.requests[-1].json()["model"]
                found[name, form] = answer.headers["x-guard-class"], blocked, model
        assert found == {
            ("desk", "chat"): ("lax", False, "own-model"),
            ("desk", "responses"): ("strict", True, "own-model"),
            ("desk", "messages"): ("lax", False, "own-model"),
            ("shop", "chat"): ("strict", True, "m"),
            ("shop", "responses"): ("strict", True, "m"),
            ("shop", "messages"): ("strict", True, "of-the-path"),
        }

    def test_model_of_an_unreadable_request(
        self, start: Callable[..., Proxy], backend: ScriptedApp
    ) -> None:
        """What is no JSON goes nowhere: the backend could read in it the model that it names."""
        proxy = start(routes=[{"path": "/v1", "upstream_model": "own"}])
        for content in (b"{", b"[1]", b"\xff"):
            answer = proxy.http.post(PATHS["chat"], content=content)
            assert (answer.status_code, answer.json()["error"]["code"]) == (400, "invalid_request")
        assert not backend.requests

    @pytest.mark.parametrize("other_paths", ["refuse", "pass"])
    def test_no_other_model(
        self, start: Callable[..., Proxy], backend: ScriptedApp, other_paths: str
    ) -> None:
        """However a request is written, it is sent to the model that is deployed, or nowhere."""
        proxy = start(deployed={"model": "audited"}, other_paths=other_paths)
        plain = json.dumps(ASKED["chat"] | {"model": "own"}).encode()
        bodies = [plain, *(content for content, _ in unread(plain).values())]
        for path in (PATHS["chat"], "/V1/chat/completions", "/v1/Chat/Completions"):
            for content in bodies:
                proxy.http.post(path, content=content)
            headers = {"content-encoding": "gzip"}
            proxy.http.post(path, content=gzip.compress(plain), headers=headers)
        found = [each.json()["model"] for each in backend.requests]
        assert found == ["audited"] * (3 if other_paths == "pass" else 2)

    def test_bytes_of_no_body(self, start: Callable[..., Proxy], backend: ScriptedApp) -> None:
        """A request without a body has no model to be changed, and goes on."""
        proxy = start(deployed={"model": "audited"})
        for method in ("GET", "POST"):
            path = f"{PATHS['responses']}/resp_1{'/cancel' if method == 'POST' else ''}"
            assert proxy.http.request(method, path).status_code == 404
        assert [each.body for each in backend.requests] == [b"", b""]


def unread(body: bytes) -> dict[str, tuple[bytes, dict[str, str]]]:
    """Return ways to write a body that some backends read and a guard would not."""
    again = body[:-1] + b',"messages":[],"input":[],"model":"m"}'
    return {
        "packed": (gzip.compress(body), {"content-encoding": "gzip"}),
        "no UTF-8": (body.replace(b'{"model"', b'{"user": "\xff", "model"', 1), {}),
        "something behind it": (body + b"\nx", {}),
        "another case": (
            body.replace(b'"messages"', b'"Messages"').replace(b'"input"', b'"Input"'),
            {},
        ),
        "a key twice": (again, {}),
    }


class TestUnread:
    """Requests that a backend might read and the guard would not."""

    @forms
    @pytest.mark.parametrize("case", unread(b"{}"))
    def test_refused(
        self,
        start: Callable[..., Proxy],
        make_judges: Callable[..., Judges],
        backend: ScriptedApp,
        case: str,
        form: str,
    ) -> None:
        """None goes on, where the plain one is blocked; SDKs read how to mend it, once."""
        proxy = start(make_judges(input={"limits": {"to_block": {"act": 0.9}}}))
        plain = json.dumps(request(form)).replace(PROMPT, "Please zblock.").encode()
        assert proxy.http.post(PATHS[form], content=plain).headers["x-guard-action"] == "block"
        content, headers = unread(plain)[case]
        answer = proxy.http.post(PATHS[form], content=content, headers=headers)
        error = answer.json()["error"]
        assert (answer.status_code, error["type"]) == (400, "invalid_request_error")
        assert (answer.json().get("type") == "error") == (form == "messages")
        assert ": " in error["message"]
        assert "zblock" not in answer.text
        assert answer.headers["x-request-id"]
        assert not backend.requests

    def test_what_is_not_guarded_is_not_read(self, proxy: Proxy, backend: ScriptedApp) -> None:
        """Bodies for paths without a model's text go on as they came."""
        packed = gzip.compress(b"{}")
        headers = {"content-encoding": "gzip", "content-type": "application/x-gzip"}
        proxy.http.post("/v1/embeddings", content=packed, headers=headers)
        assert backend.requests[0].body == packed
        assert backend.requests[0].headers["content-type"] == "application/x-gzip"


class TestRoutes:
    """Rules for paths hold for the same thing under another path."""

    @pytest.fixture
    def routed(self, start: Callable[..., Proxy], make_judges: Callable[..., Judges]) -> Proxy:
        """Return a proxy with rules of which longer ones are stricter."""
        strict = {"to_flag": {"act": 0.5, "remedy": "block"}}
        ranks = {"lax": 1, "middle": 5, "strict": 9}
        made = {
            name: make_judges(name=name, rank=rank, limits=strict) for name, rank in ranks.items()
        }
        routes = [
            {"path": "/own", "security_class": "lax"},
            {"path": "/v1", "security_class": "middle", "upstream_model": "usual"},
            {"path": "/V1/responses", "security_class": "strict", "upstream_model": "audited"},
            {"path": "/own/tenant/v1/responses", "security_class": "lax"},
        ]
        return start(load=lambda: made, security_class="lax", routes=routes, other_paths="pass")

    @pytest.mark.parametrize(
        ("path", "expected"),
        [
            ("/v1/responses", ("strict", "audited")),
            ("/V1/responses", ("strict", "audited")),
            ("/v1/Responses", ("strict", "audited")),
            ("/v1/responses/", ("strict", "audited")),
            ("/v1/%72esponses", ("strict", "audited")),
            ("/x/v1/responses", ("strict", "audited")),
            ("/X/y/V1/RESPONSES", ("strict", "audited")),
            ("/v1/v1/responses", ("strict", "audited")),
            ("/own/v1/responses", ("strict", "audited")),
            ("/responses", ("strict", "audited")),
            ("/x/responses", ("strict", "audited")),
            ("/own/tenant/v1/responses", ("lax", "m")),
            ("/v1/chat/completions", ("middle", "usual")),
            ("/chat/completions", ("middle", "usual")),
            ("/x/v1/chat/completions", ("middle", "usual")),
            ("/own/chat/completions", ("lax", "m")),
        ],
    )
    def test_class_and_model(
        self, routed: Proxy, backend: ScriptedApp, path: str, expected: tuple[str, str]
    ) -> None:
        """Neither another case nor a prefix leads to a laxer class or to another model."""
        asked = ASKED["responses" if "esponses" in path.lower() else "chat"]
        answer = routed.http.post(path, json=asked)
        sent = backend.requests[-1]
        assert (answer.headers["x-guard-class"], sent.json()["model"]) == expected

    def test_own_endpoints(self, routed: Proxy) -> None:
        """The service's own paths are judged under the rule of their path alone."""
        told = routed.http.post("/v1/guard/check", json={"response": "Hi."}).json()
        assert told["security_class"] == "middle"


class TestPaths:
    """Paths that no format is known for."""

    @pytest.mark.parametrize(
        "path",
        [
            "/v1/completions",
            "/v1/batches",
            "/v1/files/f/content",
            "/v1/audio/speech",
            "/v1/realtime/sessions",
            "/v1/threads/t/messages/m",
            "/v1/complete",
            "/anything",
            "/",
            "/v1/models/m/completions",
            "/v1beta/models/m:generateContent",
        ],
    )
    @pytest.mark.parametrize("method", ["GET", "POST"])
    def test_refused(self, proxy: Proxy, backend: ScriptedApp, path: str, method: str) -> None:
        """They are refused by default, and the error says how to go on."""
        answer = proxy.http.request(method, path, json={} if method == "POST" else None)
        assert answer.status_code == 403
        error = answer.json()["error"]
        assert (error["code"], "other_paths: pass" in error["message"]) == ("unguardable", True)
        assert not backend.requests

    @pytest.mark.parametrize("path", ["/metrics", "/health/live", "/health/read%79"])
    @pytest.mark.parametrize("method", ["DELETE", "PATCH", "POST", "PUT"])
    def test_nobody_without_a_key(
        self, start: Callable[..., Proxy], backend: ScriptedApp, path: str, method: str
    ) -> None:
        """The paths that need no key lead to no backend, whatever the method."""
        keys = [{"name": "shop", "hash": hash_of("a-key-that-is-long-enough")}]
        proxy = start(keys=keys, upstream_key="backend-secret", other_paths="pass")
        answer = proxy.http.request(method, path)
        assert (answer.status_code, answer.json()["error"]["code"]) == (405, "method_not_allowed")
        assert answer.headers["allow"] == "GET, HEAD"
        assert not backend.requests

    def test_own_paths_stay_here(self, start: Callable[..., Proxy], backend: ScriptedApp) -> None:
        """The service's own paths are its own for every method."""
        proxy = start(other_paths="pass")
        for path in ("/v1/guard/check", "/v1/moderations", "/api/v1/text/contents"):
            assert proxy.http.get(path).headers["allow"] == "POST"
        assert not backend.requests

    @pytest.mark.parametrize("path", ["/metrics", "/health/live", "/health/ready"])
    def test_probes_may_ask_for_the_head(
        self, proxy: Proxy, backend: ScriptedApp, path: str
    ) -> None:
        """Load balancers that send `HEAD` hear of this server and not of the backend."""
        answer = proxy.http.head(path)
        assert (answer.status_code, answer.content) == (200, b"")
        assert not backend.requests

    def test_sdk_error(self, proxy: Proxy) -> None:
        """OpenAI's client raises its own error at once, without trying again."""
        with (
            openai.OpenAI(base_url=f"{proxy.url}/v1", api_key="k") as client,
            pytest.raises(openai.PermissionDeniedError, match="cannot be guarded"),
        ):
            client.batches.retrieve("b")

    def test_passed(self, start: Callable[..., Proxy], backend: ScriptedApp) -> None:
        """Where the settings say so they pass, and the answer is the backend's own."""
        proxy = start(other_paths="pass")
        for path in ("/v1/completions", "/v1/files/f/content?a=1"):
            direct = httpx2.get(f"{backend.url}{path}")
            assert compared(proxy.http.get(path)) == compared(direct)
        assert backend.requests[-1].query == "a=1"
        backend.script(PROMPT, "Say zblock.")
        assert "[blocked]" in proxy.http.post(PATHS["chat"], json=request("chat")).text

    def test_open(self, proxy: Proxy, backend: ScriptedApp) -> None:
        """What holds no text of a model's passes."""
        assert proxy.http.get("/v1/models").json()["data"][0]["id"] == "scripted"
        made = proxy.http.post("/v1/embeddings", json={"model": "m", "input": "a"})
        assert made.json()["data"][0]["embedding"]
        assert len(backend.requests) == 2

    @pytest.mark.parametrize(
        "target",
        [
            b"http://127.0.0.1:9/v1/models",
            b"@127.0.0.1:9/v1/models",
            b"%2f@127.0.0.1:9/v1/models",
            b"%2f%2f127.0.0.1:9/v1/models",
            b"//127.0.0.1:9/v1/models",
            b"/\\127.0.0.1:9/v1/models",
            b"/v1/models/..%2f..%2f..",
        ],
    )
    def test_other_hosts(self, proxy: Proxy, backend: ScriptedApp, target: bytes) -> None:
        """However a target is written, no request leads anywhere but to the backend."""
        host, port = proxy.url.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port)), timeout=10) as raw:
            raw.sendall(b"GET " + target + b" HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n")
            answer = raw.makefile("rb").read()
        status = int(answer.split()[1])
        assert status in (400, 403, 404) or len(backend.requests) == 1
        assert status < 500

    @pytest.mark.parametrize("other_paths", ["refuse", "pass"])
    @pytest.mark.parametrize(
        "target",
        [
            b"/v1/completions/models/..",
            b"/v1/completions/models/%2e%2e",
            b"/v1/models/../completions",
            b"/v1/completions/x%2Fembeddings",
            b"/v1/completions/x%5Cembeddings",
            b"/v1/completions\\embeddings",
            b"/v1//chat/completions",
            b"/v1/chat/completions/%2e",
            b"/v1/chat/completions%3F/x",
            b"/v1/chat/completions;a",
            b"/v1/chat/completions/models/%252e%252e",
        ],
    )
    def test_paths_that_servers_read_in_two_ways(
        self, start: Callable[..., Proxy], backend: ScriptedApp, target: bytes, other_paths: str
    ) -> None:
        """What is checked is what is sent, so that these are sent nowhere."""
        proxy = start(other_paths=other_paths)
        host, port = proxy.url.removeprefix("http://").split(":")
        head = b" HTTP/1.1\r\nhost: a\r\nconnection: close\r\ncontent-length: 2\r\n\r\n{}"
        with socket.create_connection((host, int(port)), timeout=10) as raw:
            raw.sendall(b"POST " + target + head)
            answer = raw.makefile("rb").read()
        assert int(answer.split()[1]) == 400
        assert b'"invalid_path"' in answer or b"Invalid HTTP" in answer
        assert not backend.requests

    def test_base_that_cannot_be_checked(
        self, start: Callable[..., Proxy], backend: ScriptedApp
    ) -> None:
        """The backend's own address is a part of the path that is checked."""
        proxy = start(upstream=f"{backend.url}/a//b")
        answer = proxy.http.post(PATHS["chat"], json=request("chat"))
        assert (answer.status_code, answer.json()["error"]["code"]) == (403, "unguardable")
        assert not backend.requests

    def test_another_case(self, start: Callable[..., Proxy], backend: ScriptedApp) -> None:
        """Some backends know their paths in any case; such a path does not pass unjudged."""
        assert start().http.post("/v1/Chat/Completions", json={}).status_code == 403
        answer = start(other_paths="pass").http.post("/v1/Chat/Completions", json={})
        assert answer.headers["x-guard-class"] == "test"
        assert len(backend.requests) == 1

    def test_own_paths(self, proxy: Proxy, backend: ScriptedApp) -> None:
        """The service's own endpoints are not the backend's."""
        assert proxy.http.post("/v1/guard/check", json={"response": "Hi."}).status_code == 200
        assert proxy.http.get("/health/live").status_code == 200
        assert not backend.requests


def read_by_sdk(url: str, form: str) -> Exception | None:
    """Return the error with which an SDK's stream ends, `None` where it ends well."""
    given: Any = ASKED[form] | {"stream": True}
    try:
        if form == "messages":
            with anthropic.Anthropic(base_url=url, api_key="k", max_retries=0) as client:
                list(client.messages.create(**given))
        else:
            with openai.OpenAI(base_url=f"{url}/v1", api_key="k", max_retries=0) as other:
                api: Any = other.chat.completions if form == "chat" else other.responses
                list(api.create(**given))
    except (openai.OpenAIError, anthropic.AnthropicError) as error:
        return error
    return None


class TestUpstream:
    """A backend that does not do what it should."""

    @both
    @forms
    def test_unreachable(self, start: Callable[..., Proxy], form: str, mode: str) -> None:
        """Where nobody listens a client reads a 502 in its SDK's form."""
        answer = start(upstream="http://127.0.0.1:9").http.post(
            PATHS[form], json=request(form, mode)
        )
        assert answer.status_code == 502
        assert "cannot be reached" in answer.json()["error"]["message"]

    @both
    @forms
    def test_silent(
        self, start: Callable[..., Proxy], backend: ScriptedApp, form: str, mode: str
    ) -> None:
        """One that says nothing for too long is a 504, or the end of a stream that had begun."""
        held = Reply((Choice(LONG),), delivery=Delivery(holds_after=0))
        backend.script(PROMPT, held)
        proxy = start(upstream_seconds=0.3)
        answer = proxy.http.post(PATHS[form], json=request(form, mode))
        if mode == "json":
            assert answer.status_code == 504
            assert "in time" in answer.json()["error"]["message"]
        else:
            assert answer.status_code == 200
            assert "broke off" in answer.text
        proxy.wait_idle()
        backend.wait_idle()
        assert backend.requests[-1].outcome == "left"

    @forms
    @pytest.mark.parametrize("place", range(0, 71, 10))
    def test_streams_that_break(
        self, proxy: Proxy, backend: ScriptedApp, form: str, place: int
    ) -> None:
        """A stream that breaks at any piece raises the SDK's error."""
        for fault in (Delivery(dies_after=place), Delivery(inserts={place: BROKEN_LINE})):
            backend.script(PROMPT, Reply((Choice(LONG),), delivery=fault))
            assert isinstance(read_by_sdk(proxy.url, form), openai.APIError | anthropic.APIError)

    @forms
    def test_errors_of_a_stream(self, proxy: Proxy, backend: ScriptedApp, form: str) -> None:
        """A backend's own error event is to the SDK what it is without the proxy."""
        told = Reply((Choice(LONG),), delivery=Delivery(errors_after=60))
        backend.script(PROMPT, told)
        direct, proxied = (read_by_sdk(url, form) for url in (backend.url, proxy.url))
        assert type(direct) is type(proxied)
        assert str(direct) == str(proxied)

    @forms
    def test_whole_answers_that_break(self, proxy: Proxy, backend: ScriptedApp, form: str) -> None:
        """A whole answer that is cut is a 502, and SDKs may ask again."""
        backend.script(PROMPT, Reply((Choice(LONG),), delivery=Delivery(dies_after=1)))
        answer = proxy.http.post(PATHS[form], json=request(form))
        assert answer.status_code == 502
        assert "Ferns" not in answer.text

    @both
    @forms
    def test_many_at_a_time(
        self, start: Callable[..., Proxy], backend: ScriptedApp, form: str, mode: str
    ) -> None:
        """More than there are places for are told to come back, in their SDK's form."""
        held = Reply((Choice(LONG),), delivery=Delivery(holds_after=0))
        backend.script(PROMPT, held)
        proxy = start(max_in_flight=1, max_queue=0)
        with httpx2.Client(base_url=proxy.url, timeout=30) as other:
            asked = other.build_request("POST", PATHS[form], json=request(form, "stream"))
            first = other.send(asked, stream=True)
            second = proxy.http.post(PATHS[form], json=request(form, mode))
            assert (second.status_code, second.headers["retry-after"]) == (503, "1")
            assert second.json()["error"]
            first.close()
        proxy.wait_idle()
        backend.release()
        backend.script(PROMPT, "Ferns.")
        assert proxy.http.post(PATHS[form], json=request(form, mode)).status_code == 200


class TestLeaving:
    """A client that goes away."""

    @forms
    def test_at_every_piece(
        self,
        start: Callable[..., Proxy],
        make_judges: Callable[..., Judges],
        backend: ScriptedApp,
        tmp_path: Path,
        form: str,
    ) -> None:
        """It takes its request at the backend with it, frees its place, and its row is closed."""
        text = f"{LONG}Here is zflag. {LONG}"
        with closing(Journal(tmp_path / "journal.db")) as journal:
            proxy = start(make_judges(journal=journal), max_in_flight=1, max_queue=1)
            for held in range(len(text) // 60 + 1):
                delivery = Delivery(piece=60, holds_after=held)
                backend.script(PROMPT, Reply((Choice(text),), delivery=delivery))
                with httpx2.Client(base_url=proxy.url, timeout=30) as client:
                    asked = client.build_request("POST", PATHS[form], json=request(form, "stream"))
                    answer = client.send(asked, stream=True)
                    wait_quiet(backend)
                    answer.close()
                proxy.wait_idle()
                backend.wait_idle()
                assert backend.requests[-1].outcome == "left", held
            rows = list(journal.list())
        assert rows
        assert not any(row.complete for row in rows)
        assert {row.action for row in rows} == {"flag"}

    @forms
    def test_before_a_whole_answer(
        self, start: Callable[..., Proxy], backend: ScriptedApp, form: str
    ) -> None:
        """One that waits for a whole answer and goes takes its request with it, too."""
        backend.script(PROMPT, Reply((Choice(LONG),), delivery=Delivery(holds_after=0)))
        proxy = start(max_in_flight=1, max_queue=0)
        with (
            httpx2.Client(base_url=proxy.url, timeout=0.3) as client,
            pytest.raises(httpx2.ReadTimeout),
        ):
            client.post(PATHS[form], json=request(form))
        proxy.wait_idle()
        backend.wait_idle()
        assert backend.requests[-1].outcome == "left"

    @forms
    async def test_many_leave_at_once(
        self, start: Callable[..., Proxy], backend: ScriptedApp, form: str
    ) -> None:
        """Ten that leave leave nothing behind, and the next one is served."""
        backend.script(PROMPT, Reply((Choice(LONG),), delivery=Delivery(holds_after=3)))
        proxy = start(max_in_flight=10, max_queue=0)
        async with httpx2.AsyncClient(base_url=proxy.url, timeout=30) as client:
            asked = [
                client.build_request("POST", PATHS[form], json=request(form, "stream"))
                for _ in range(10)
            ]
            answers = await asyncio.gather(*(client.send(each, stream=True) for each in asked))
            await asyncio.gather(*(answer.aclose() for answer in answers))
        proxy.wait_idle()
        backend.wait_idle()
        assert {each.outcome for each in backend.requests} == {"left"}
        backend.script(PROMPT, "Ferns.")
        assert proxy.http.post(PATHS[form], json=request(form)).status_code == 200


def wait_quiet(backend: ScriptedApp) -> None:
    """Wait until the backend's newest answer goes no further."""
    before = -1
    while not backend.requests or before != backend.requests[-1].sent:
        before = backend.requests[-1].sent if backend.requests else -1
        time.sleep(0.02)


class TestInput:
    """A class with an `input` section."""

    @both
    @forms
    def test_refused(
        self,
        start: Callable[..., Proxy],
        make_judges: Callable[..., Judges],
        backend: ScriptedApp,
        form: str,
        mode: str,
    ) -> None:
        """A bad prompt is answered by the class's message, and the backend is not called."""
        judges = make_judges(input={"limits": {"to_block": {"act": 0.9}}})
        proxy = start(judges)
        bad = json.loads(json.dumps(request(form, mode)).replace(PROMPT, "Please zblock."))
        answer = proxy.http.post(PATHS[form], json=bad)
        assert answer.status_code == 200
        assert "[blocked]" in said(answer, form, mode)
        assert answer.headers["x-guard-action"] == "block"
        assert not backend.requests
        backend.script(PROMPT, "Ferns.")
        good = proxy.http.post(PATHS[form], json=request(form, mode))
        assert said(good, form, mode) == "Ferns."


@pytest.fixture
def log() -> Iterator[io.StringIO]:
    """Send the process's log to a string while the test runs, at its most talkative."""
    root, silent = logging.getLogger(), [logging.getLogger(name) for name in logs._SILENT]
    before = (root.handlers, root.level, [logger.level for logger in silent])
    stream = io.StringIO()
    logs.configure("debug", stream)
    yield stream
    root.handlers, level, levels = before
    root.setLevel(level)
    for logger, old in zip(silent, levels, strict=True):
        logger.setLevel(old)
    structlog.reset_defaults()


class TestLogs:
    """What is logged of all this."""

    def test_no_text_key_or_header(
        self,
        log: io.StringIO,
        start: Callable[..., Proxy],
        make_judges: Callable[..., Judges],
        backend: ScriptedApp,
        tmp_path: Path,
    ) -> None:
        """No text, key, header or query is in the log at any level, whatever happens."""
        with closing(Journal(tmp_path / "journal.db")) as journal:
            judges = make_judges(journal=journal)
            proxy = start(
                judges,
                upstream_key="zzz-upstream-secret",
                keys=[{"name": "desk", "hash": hash_of(f"zzz-{DESK}")}],
            )
            headers = {"x-guard-key": f"zzz-{DESK}", "x-own": "zzz-header"}
            replies: list[Any] = [
                "zzz-answer zflag",
                "zzz-answer zredact",
                "zzz-answer zblock",
                Failure(500, "zzz-failure"),
                Reply((Choice("zzz-answer " * 90),), delivery=Delivery(dies_after=60)),
                Reply((Choice("zzz-answer " * 90),), delivery=Delivery(inserts={9: BROKEN_LINE})),
            ]
            for form, path in PATHS.items():
                for mode in ("json", "stream"):
                    asked = json.dumps(request(form, mode)).replace(PROMPT, "zzz-prompt")
                    for reply in replies:
                        backend.script("zzz-prompt", reply)
                        proxy.http.post(f"{path}?a=zzz-query", content=asked, headers=headers)
            proxy.http.post("/v1/zzz-path", content=b"zzz-body", headers=headers)
            proxy.http.post(PATHS["chat"], content=b"zzz-body", headers={"x-guard-key": "zzz-no"})
            proxy.wait_idle()
        assert log.getvalue().count("\n") > 40
        assert "guard.blocked" in log.getvalue()
        assert "guard.request" in log.getvalue()
        assert "zzz" not in log.getvalue()
