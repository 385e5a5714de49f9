"""A request's body: read as every backend reads it, or refused before anything is sent."""

from __future__ import annotations

import asyncio
import gzip
import json
import traceback
from typing import TYPE_CHECKING, Any, Final

import anthropic
import httpx2
import openai
import pytest
from hypothesis import given
from hypothesis import strategies as st

from guard.wire.formats import FORMATS
from guard.wire.request import KNOWN, UnreadError, document_of
from guard.wire.transport import AsyncGuardTransport, GuardTransport, made_here

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from guard.engine import Guard
    from guard.server.scripted import ScriptedApp
    from guard.wire.formats import Format

BAD: Final = "A zblock?"
CHAT: Final = json.dumps({"model": "m", "messages": [{"role": "user", "content": BAD}]}).encode()
GZIP: Final = {"content-encoding": "gzip"}
PATHS: Final = {
    "chat": "/v1/chat/completions",
    "responses": "/v1/responses",
    "messages": "/v1/messages",
}
ASKED: Final[dict[str, dict[str, Any]]] = {
    "chat": {"model": "m", "messages": [{"role": "user", "content": BAD}]},
    "responses": {"model": "m", "input": BAD},
    "messages": {"model": "m", "max_tokens": 9, "messages": [{"role": "user", "content": BAD}]},
}

UNREAD: Final[dict[str, tuple[bytes, dict[str, str], str]]] = {
    "packed": (gzip.compress(CHAT), GZIP, "`content-encoding`"),
    "said to be packed": (CHAT, GZIP, "`content-encoding`"),
    "packed and not said so": (gzip.compress(CHAT), {}, "UTF-8"),
    "no UTF-8": (CHAT.replace(b'"m"', b'"m","user":"\xff"'), {}, "UTF-8"),
    "a lone surrogate": (CHAT.replace(b'"m"', b'"m","user":"\xed\xa0\x80"'), {}, "UTF-8"),
    "UTF-16": (CHAT.decode().encode("utf-16"), {}, "UTF-8"),
    "UTF-16 without a mark": (CHAT.decode().encode("utf-16-le"), {}, "UTF-8"),
    "two marks": (b"\xef\xbb\xbf" * 2 + CHAT, {}, "no JSON object"),
    "something behind it": (CHAT + b"\n{}", {}, "nothing behind"),
    "a list": (b"[" + CHAT + b"]", {}, "no JSON object"),
    "a part of it": (CHAT[:-1], {}, "no JSON object"),
    "white space": (b" ", {}, "no JSON object"),
    "a comment": (b"/**/" + CHAT, {}, "no JSON object"),
    "very deep": (b'{"a":' + b"[" * 64 + b"]" * 64 + b"}", {}, "64 levels"),
    "deeper than any stack": (b'{"a":' + b"[" * 10**5, {}, "64 levels"),
    "a key twice": (CHAT[:-1] + b',"messages":[]}', {}, "twice"),
    "an escaped key twice": (CHAT[:-1] + b',"mess\\u0061ges":[]}', {}, "twice"),
    "a key twice inside": (CHAT.replace(b'"user"', b'"user","role":"tool"'), {}, "twice"),
    "another case": (CHAT.replace(b"messages", b"Messages"), {}, "`messages`"),
    "both cases": (CHAT[:-1] + b',"MESSAGES":[]}', {}, "`messages`"),
    "a long s": (CHAT.replace(b"messages", "me\u017f\u017fages".encode()), {}, "`messages`"),
    "another model": (CHAT[:-1] + b',"Model":"n"}', {}, "`model`"),
    "another case inside": (CHAT.replace(b"content", b"Content"), {}, "`content`"),
}
"""Bodies that some backend would read and a guard would not, their headers, and what is said."""

unread = pytest.mark.parametrize("case", UNREAD)


class TestDocument:
    """What is read."""

    @pytest.mark.parametrize("encodings", [[], [""], ["identity"], ["Identity", " identity "]])
    def test_read(self, encodings: list[str]) -> None:
        """JSON in UTF-8, however it is written, and a byte order mark before it."""
        document = json.loads(CHAT)
        for content in (CHAT, json.dumps(document, indent=3).encode(), b"\xef\xbb\xbf" + CHAT):
            assert document_of(content, encodings) == document

    def test_no_body(self) -> None:
        """A request without a body says nothing, and there is nothing to read in two ways."""
        assert document_of(b"", ["gzip"]) == {}

    @unread
    def test_unread(self, case: str) -> None:
        """The error says how to mend it, and quotes nothing of the body."""
        content, headers, said = UNREAD[case]
        with pytest.raises(UnreadError, match=said) as caught:
            document_of(content, headers.values())
        assert "zblock" not in "".join(traceback.format_exception(caught.value))

    @given(st.binary(max_size=60) | st.binary(max_size=20).map(lambda data: CHAT[:-1] + data))
    def test_anything(self, content: bytes) -> None:
        """Whatever is sent is what a strict reader reads, or refused."""
        try:
            document = document_of(content)
        except UnreadError:
            return
        assert document == json.loads(content.decode("utf-8-sig") or "{}")


Place = tuple[str, ...]

LISTS: Final = ("messages", "input", "content")
"""Keys under which the formats expect lists."""


class Watched(dict[str, Any]):
    """An object of a request that notes which keys are looked for, with those above them."""

    def __init__(self, given: dict[str, Any], noted: set[Place], above: Place = ()) -> None:
        """Take what is read, and where to note it."""
        super().__init__(given)
        self.noted = noted
        self.above = above

    def get(self, key: str, default: Any = None) -> Any:
        """Note a key, and watch what stands below it."""
        place = (*self.above, key)
        self.noted.add(place)
        return self._watched(super().get(key, default), place)

    def values(self) -> Any:
        """Watch what stands below all keys."""
        return [self._watched(value, (*self.above, key)) for key, value in self.items()]

    def _watched(self, value: Any, place: Place) -> Any:
        if isinstance(value, list):
            return [self._watched(each, place) for each in value]
        return Watched(value, self.noted, place) if isinstance(value, dict) else value


def every(depth: int = 3) -> dict[str, Any]:
    """Return an object that holds one like itself under every known key."""
    inner = every(depth - 1) if depth else "text"
    return {name: [inner] if name in LISTS else inner for name in KNOWN} | {"role": "user"}


def nested(place: Place) -> Any:
    """Return a request that holds nothing but the last key of a place, in capitals."""
    above, value = place[:-1], dict[str, Any]({place[-1].upper(): "text"})
    for key in reversed(above):
        value = {key: [value] if key in LISTS else value}
    return value


def respelled(value: Any, names: Iterable[str]) -> Any:
    """Return a request with some keys in capitals."""
    if isinstance(value, dict):
        return {k.upper() if k in names else k: respelled(v, names) for k, v in value.items()}
    return [respelled(each, names) for each in value] if isinstance(value, list) else value


READ: Final[dict[str, dict[str, Any]]] = {
    "a role": {"messages": [{"role": "user"}]},
    "a part": {"messages": [{"role": "user", "content": [{"type": "text", "text": "a"}]}]},
    "a part's text": {"messages": [{"content": [{"text": "a"}]}]},
    "a result": {"messages": [{"content": [{"type": "tool_result", "content": "a"}]}]},
    "a document": {"messages": [{"content": [{"source": {"type": "text", "data": "a"}}]}]},
    "an item": {"input": [{"role": "user", "content": "a"}]},
    "an item's part": {"input": [{"content": [{"type": "input_text", "text": "a"}]}]},
    "an output": {"input": [{"type": "function_call_output", "output": "a"}]},
    "instructions": {"instructions": "a"},
    "a system": {"system": [{"text": "a"}]},
    "a variable": {"prompt": {"variables": {"Text": {"text": "a"}}}},
    "a schema's kind": {"response_format": {"type": "json_schema"}},
    "a stream": {"stream": True},
}
"""What formats read; each key but the caller's own names is refused in another case."""

OWN: Final[dict[str, dict[str, Any]]] = {
    "metadata": {"metadata": {"Role": "a", "Text": "b"}},
    "tools": {"tools": [{"function": {"parameters": {"properties": {"Content": {}}}}}]},
    "a schema": {"response_format": {"json_schema": {"schema": {"properties": {"Text": {}}}}}},
    "a call": {"messages": [{"content": [{"type": "tool_use", "input": {"Text": "a"}}]}]},
    "a variable": {"prompt": {"variables": {"Model": "a", "Text": "b"}}},
    "another key": {"safetySettings": {"Type": "a"}},
}
"""Keys that are the caller's own."""


class TestKeys:
    """Keys in another case, which some backends take for the known ones."""

    @pytest.mark.parametrize("form", FORMATS, ids=lambda form: form.name)
    def test_every_key_that_is_read_is_known(self, form: Format) -> None:
        """No format looks for a key anywhere that would pass there in another case."""
        noted: set[Place] = set()
        form.asked(Watched(every(), noted))
        assert {("messages", "content"), ("input",)} & noted
        assert {place[-1] for place in noted} <= KNOWN
        for place in noted:
            with pytest.raises(UnreadError, match=f"`{place[-1]}`"):
                document_of(json.dumps(nested(place)).encode())

    def test_all_are_small(self) -> None:
        """They are compared in small letters."""
        assert all(name == name.casefold() for name in KNOWN)

    @pytest.mark.parametrize("name", READ)
    def test_refused(self, name: str) -> None:
        """Each key of what is read."""
        given = READ[name]
        assert document_of(json.dumps(given).encode()) == given
        for key in sorted(KNOWN):
            changed = respelled(given, {key})
            if changed != given:
                with pytest.raises(UnreadError, match=f"`{key}`"):
                    document_of(json.dumps(changed).encode())

    @pytest.mark.parametrize("name", OWN)
    def test_own(self, name: str) -> None:
        """Keys that no format reads pass in whichever case."""
        assert document_of(json.dumps(OWN[name]).encode()) == OWN[name]


class TestSent:
    """What leaves a guarding transport."""

    @unread
    @pytest.mark.parametrize("form", PATHS)
    def test_unread(
        self,
        make_guard: Callable[..., Guard],
        backend: ScriptedApp,
        form: str,
        case: str,
    ) -> None:
        """Nothing is sent; the answer is a 400 in the vendor's form that says how to mend it."""
        content, headers, said = UNREAD[case]
        guard = make_guard(input={"limits": {"to_block": {"act": 0.9}}})
        with httpx2.Client(transport=GuardTransport(guard)) as client:
            answer = client.post(f"{backend.url}{PATHS[form]}", content=content, headers=headers)
        error = answer.json()["error"]
        assert (answer.status_code, error["type"]) == (400, "invalid_request_error")
        assert (answer.json().get("type") == "error") == (form == "messages")
        assert said in error["message"]
        assert made_here(answer)
        assert not backend.requests

    @unread
    def test_asynchronous(
        self, make_guard: Callable[..., Guard], backend: ScriptedApp, case: str
    ) -> None:
        """Asynchronous clients are told the same."""
        content, headers, said = UNREAD[case]

        async def post() -> httpx2.Response:
            transport = AsyncGuardTransport(make_guard())
            async with httpx2.AsyncClient(transport=transport) as client:
                url = f"{backend.url}{PATHS['chat']}"
                return await client.post(url, content=content, headers=headers)

        answer = asyncio.run(post())
        assert (answer.status_code, made_here(answer)) == (400, True)
        assert said in answer.json()["error"]["message"]
        assert not backend.requests

    def test_sdks(self, make_guard: Callable[..., Guard], backend: ScriptedApp) -> None:
        """A wrapped client raises its own error, once: it is the caller's to mend."""
        other: Any = {"Messages": []}
        with openai.OpenAI(base_url=f"{backend.url}/v1", api_key="k") as client:
            chat: Any = make_guard().wrap(client).chat.completions
            with pytest.raises(openai.BadRequestError, match="`messages` in another case"):
                chat.create(**ASKED["chat"], extra_body=other)
        with anthropic.Anthropic(base_url=backend.url, api_key="k") as second:
            messages: Any = make_guard().wrap(second).messages
            with pytest.raises(anthropic.BadRequestError, match="`messages` in another case"):
                messages.create(**ASKED["messages"], extra_body=other)
        assert not backend.requests

    @pytest.mark.parametrize("method", ["GET", "POST"])
    def test_no_body(self, make_guard: Callable[..., Guard], method: str) -> None:
        """A request without a body goes on: there is nothing in it to be judged."""
        sent: list[httpx2.Request] = []

        def respond(request: httpx2.Request) -> httpx2.Response:
            sent.append(request)
            return httpx2.Response(200, json={"choices": []})

        guarded = GuardTransport(make_guard(), httpx2.MockTransport(respond))
        with httpx2.Client(transport=guarded) as client:
            answer = client.request(method, "http://a/v1/chat/completions/c", headers=GZIP)
        assert (answer.status_code, made_here(answer)) == (200, False)
        assert sent[0].read() == b""

    @pytest.mark.parametrize(
        ("given", "expected"),
        [
            (None, None),
            ("application/json", "application/json"),
            ("Application/JSON; charset=UTF-8", "Application/JSON; charset=UTF-8"),
            ('application/json;charset="utf-8"', 'application/json;charset="utf-8"'),
            ("application/json; charset=utf-7", "application/json"),
            ("application/json; charset=utf-8; charset=utf-16", "application/json"),
            ("application/x-www-form-urlencoded", "application/json"),
            ("multipart/form-data; boundary=a", "application/json"),
            ("text/plain", "application/json"),
        ],
    )
    def test_type(
        self,
        make_guard: Callable[..., Guard],
        backend: ScriptedApp,
        given: str | None,
        expected: str | None,
    ) -> None:
        """No backend is told to read a body in another way than the guard did."""
        headers = {} if given is None else {"content-type": given}
        with httpx2.Client(transport=GuardTransport(make_guard())) as client:
            client.post(f"{backend.url}{PATHS['chat']}", content=CHAT, headers=headers)
        assert backend.requests[0].headers.get("content-type") == expected
        assert backend.requests[0].body == CHAT
