"""The scripted server: an ASGI app that answers prompts in three vendors' formats.

For demonstrations and for tests of whatever talks to a backend: everything is real, the HTTP
included, only the language model is not. It records every request and how it went.

This module does not know the guard, and nothing that it says was written by a model.
"""

from __future__ import annotations

import base64
import json
import struct
import threading
import time
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from guard.exchange import Choice
from guard.server.scripted import chat, messages, responses
from guard.server.scripted.formats import CREATED, Format, Json, dump, identifier, token_count
from guard.server.scripted.play import DiedError, LeftError, Player, Recorded
from guard.server.scripted.script import Delivery, Failure, Reply
from guard.server.scripted.serving import serve_in_thread

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from typing import Self

    from guard.scripted import ScriptedAnswer
    from guard.server.scripted.play import Message, Outcome, Receive, Send

_FORMATS: Final = {one.path: one for one in (chat.FORMAT, responses.FORMAT, messages.FORMAT)}

_JSON: Final = "application/json"
_SSE: Final = "text/event-stream; charset=utf-8"

_KEPT: Final = 1000
"""Requests that are remembered: a demo may run for long."""

_POLL: Final = 0.002
"""Seconds between two looks at whether all requests are answered."""


class ScriptedApp:
    """Answers from a script; an unknown prompt gets a polite answer that repeats it.

    Safe to use from any thread while it is served.

    Args:
        answers: the script to begin with.
        delivery: how answers travel that do not say it themselves.

    Attributes:
        url: where it is served, such as `http://127.0.0.1:40001`; `""` before.
        requests: the last thousand requests, oldest first.
        fallback: what an unknown prompt gets; `None` for an answer that repeats it.
    """

    def __init__(
        self, answers: Iterable[ScriptedAnswer] = (), *, delivery: Delivery | None = None
    ) -> None:
        """Index the script by prompt."""
        self.url = ""
        self._delivery = delivery or Delivery()
        self._released = threading.Event()
        self.reset()
        for answer in answers:
            travel = replace(self._delivery, dies_after=answer.fails_after)
            self.script(answer.prompt, Reply(answer.exchange().choices, delivery=travel))

    def reset(self) -> None:
        """Forget the script, the requests and the fallback; let held streams go on."""
        self.requests: list[Recorded] = []
        self.fallback: Reply | Failure | None = None
        self._script: dict[str, list[Reply | Failure]] = {}
        self._released.set()
        self._released = threading.Event()

    def script(self, prompt: str, *replies: str | Choice | Reply | Failure) -> None:
        """Answer `prompt`, the last user message, by `replies` one after another.

        The last one repeats. What was scripted for the prompt before is forgotten.
        """
        self._script[prompt] = [_reply(one) for one in replies]

    def release(self) -> None:
        """Let streams go on that are held now, and those that would be held later."""
        self._released.set()

    @property
    def open_requests(self) -> int:
        """Requests that are being answered now."""
        return sum(record.outcome == "open" for record in self.requests)

    def wait_idle(self, timeout: float = 10.0) -> None:
        """Wait until no request is being answered.

        Raises:
            TimeoutError: `timeout` seconds were not enough.
        """
        ends = time.monotonic() + timeout
        while self.open_requests:
            if time.monotonic() > ends:
                raise TimeoutError(f"{self.open_requests} requests are still being answered")
            time.sleep(_POLL)

    @contextmanager
    def served(self) -> Iterator[Self]:
        """Serve on a free loopback port in a thread while the context lasts; sets `url`."""
        with serve_in_thread(self, quiet=True) as server:
            self.url = server.url
            try:
                yield self
            finally:
                self.release()

    async def __call__(self, scope: Mapping[str, Any], receive: Receive, send: Send) -> None:
        """Answer one request of an ASGI server."""
        if scope["type"] != "http":
            return
        record = Recorded(
            method=scope["method"],
            path=scope["path"],
            query=scope["query_string"].decode(),
            headers={name.decode(): value.decode("latin-1") for name, value in scope["headers"]},
        )
        record.body = await _body(receive)
        # A later `reset` must not reach into this request.
        self.requests.append(record)
        del self.requests[:-_KEPT]
        outcome: Outcome = "died"
        try:
            await self._answer(record, receive, send)
            outcome = "finished"
        except LeftError:
            outcome = "left"
        except DiedError:
            pass
        finally:
            record.outcome = outcome

    async def _answer(self, record: Recorded, receive: Receive, send: Send) -> None:
        style = _FORMATS.get(record.path, chat.FORMAT)
        request = _read(record.body)
        answer = self._find(record, style, request)
        delivery = self._delivery
        if isinstance(answer, Reply):
            delivery = answer.delivery or delivery
        async with Player(receive, send, record, delivery, self._released) as player:
            if isinstance(answer, Failure):
                await _fail(player, style, answer)
            elif isinstance(answer, Reply):
                await _reply_to(player, style, request or {}, answer, delivery)
            else:
                await _whole(player, style, dump(answer))

    def _find(
        self, record: Recorded, style: Format, request: Json | None
    ) -> Reply | Failure | Json:
        """Return what the request gets: a reply, an error, or bytes of another endpoint."""
        if (record.method, record.path) == ("GET", "/v1/models"):
            return _models(record.headers)
        if record.path not in {*_FORMATS, "/v1/embeddings"}:
            return Failure(404, f"There is no {record.path} here.")
        if record.method != "POST":
            return Failure(405, f"{record.path} wants POST.")
        if request is None:
            return Failure(400, "The body is not a JSON object.")
        if record.path == "/v1/embeddings":
            return _embeddings(request)
        return self._next(style.prompt(request))

    def _next(self, prompt: str) -> Reply | Failure:
        scripted = self._script.get(prompt)
        if scripted:
            return scripted.pop(0) if len(scripted) > 1 else scripted[0]
        return self.fallback or _reply(f'Thank you for your message. You wrote: "{prompt}"')


def _reply(given: str | Choice | Reply | Failure) -> Reply | Failure:
    if isinstance(given, str):
        return Reply((Choice(given),))
    return Reply((given,)) if isinstance(given, Choice) else given


async def _body(receive: Receive) -> bytes:
    parts: list[bytes] = []
    message: Message = {"more_body": True}
    while message.get("more_body"):
        message = await receive()
        parts.append(message.get("body", b""))
    return b"".join(parts)


def _read(body: bytes) -> Json | None:
    try:
        read = json.loads(body or b"null")
    except (ValueError, RecursionError):
        return None
    return read if isinstance(read, dict) else None


def _headers(style: Format, content_type: str) -> dict[str, str]:
    return {
        "content-type": content_type,
        "cache-control": "no-cache",
        style.request_id: "req_scripted",
        "x-ratelimit-remaining-requests": "41",
    }


async def _reply_to(
    player: Player, style: Format, request: Json, reply: Reply, delivery: Delivery
) -> None:
    body = style.body(request, style.prompt(request), reply)
    if not request.get("stream"):
        await _whole(player, style, dump(body))
        return
    await player.start(200, _headers(style, _SSE))
    broken = Failure(500, "The scripted server had an error while it answered.")
    await player.stream(
        style.events(request, body, delivery), lambda number: style.error_event(broken, number)
    )


async def _whole(player: Player, style: Format, body: bytes) -> None:
    await player.wait()
    await player.start(200, _headers(style, _JSON) | {"content-length": str(len(body))})
    await player.whole(body)


async def _fail(player: Player, style: Format, failure: Failure) -> None:
    body = dump(style.error(failure)) if failure.body is None else failure.body
    kind = _JSON if failure.body is None else "text/html"
    headers = _headers(style, kind) | {"content-length": str(len(body))}
    if failure.retry_after is not None:
        headers["retry-after"] = f"{failure.retry_after:g}"
    await player.start(failure.status, headers)
    await player.whole(body)


def _models(headers: Mapping[str, str]) -> Json:
    """Return the list of models, as the vendor whose header is there writes it."""
    if "anthropic-version" in headers:
        row = {"id": "scripted", "type": "model", "display_name": "Scripted"}
        row |= {"created_at": "2026-01-01T00:00:00Z", "lifecycle": "active"}
        return {"data": [row], "has_more": False, "first_id": "scripted", "last_id": "scripted"}
    row = {"id": "scripted", "object": "model", "owned_by": "scripted"}
    return {"object": "list", "data": [row | {"created": CREATED}]}


def _embeddings(request: Json) -> Json:
    """Return a made-up vector per input, the same for the same text."""
    given = request.get("input")
    texts = [given] if isinstance(given, str) else list(given or ())
    rows = [
        {"object": "embedding", "index": index, "embedding": _vector(str(text), request)}
        for index, text in enumerate(texts)
    ]
    used = token_count(*map(str, texts))
    usage = {"prompt_tokens": used, "total_tokens": used}
    model = request.get("model", "scripted")
    return {"object": "list", "data": rows, "model": model, "usage": usage}


def _vector(text: str, request: Json) -> list[float] | str:
    digits = identifier("", text)
    # Eighths are exact in single precision, so that both encodings say the same.
    values = [int(digit, 16) / 8 for digit in digits[:8]]
    if request.get("encoding_format") != "base64":
        return values
    return base64.b64encode(struct.pack("<8f", *values)).decode()
