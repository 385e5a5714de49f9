"""Chat completions, the format of OpenAI's `/v1/chat/completions` and of everyone who copies it.

A choice carries content, refusal, reasoning in all vendors' spellings, and the arguments of tool
calls. A choice that is withheld gets the class's message as `content` and `refusal`, and
`finish_reason` `stop` or `content_filter`.

This module does not know HTTP, and not how a text is judged.
"""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final
from uuid import uuid4

from guard.exchange import Channel, Exchange, Message
from guard.request_text import text_of
from guard.wire.asked import Asked, role_of
from guard.wire.body import Body
from guard.wire.detail import detail
from guard.wire.parts import Part, counts, joined, others, plain, setter, written
from guard.wire.relay import Relay
from guard.wire.sse import Event
from guard.wire.tokens import prune

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from guard.exchange import ChannelKind
    from guard.session import Session
    from guard.wire.parts import Json
    from guard.wire.relay import Held

_TEXTS: Final[dict[str, ChannelKind]] = {
    "reasoning_content": "reasoning",
    "reasoning": "reasoning",
    "thinking": "reasoning",
    "content": "content",
    "refusal": "refusal",
}
"""Keys of a message that hold a text, in the order in which they are written."""

_CALLS: Final = ("tool_calls", "function_call")

_ENVELOPE: Final = ("id", "object", "created", "model", "service_tier", "system_fingerprint")


def parts(document: Json, place: str) -> Iterator[Part]:
    """Yield the texts of a response (`place` is `message`) or of an event (`delta`)."""
    other = Channel("choices[0].other", "content", 0, "")
    yield from others(document, other, ("choices",))
    for entry in _listed(document):
        yield from _entry(entry, place) if isinstance(entry, dict) else others(entry, other)


def entries(document: Json) -> Iterator[tuple[int, Json]]:
    """Yield every choice of a document with its index."""
    for entry in _listed(document):
        if isinstance(entry, dict):
            yield index_of(entry), entry


def _listed(document: Json) -> list[Any]:
    """Return the choices of a document; one that stands there without a list is the only one."""
    choices = document.get("choices")
    return choices if isinstance(choices, list) else [choices]


def index_of(entry: Json) -> int:
    """Return a choice's index, 0 where it has none that can be used."""
    index = entry.get("index")
    usable = isinstance(index, int) and not isinstance(index, bool) and 0 <= index < _CHOICES
    return index if usable and isinstance(index, int) else 0


_CHOICES: Final = 1024
"""Choices of one response; the index of a further one is taken for 0."""


def _entry(entry: Json, place: str) -> Iterator[Part]:
    index = index_of(entry)
    other = Channel(f"choices[{index}].other", "content", index, "")
    yield from others(entry, other, (place, "logprobs"))
    yield from others(entry.get("logprobs"), other, ("content", "refusal"))
    message = entry.get(place)
    if not isinstance(message, dict):
        yield from others(message, other)
        return
    yield from joined(_message(message, index, other, entry))
    yield from _spoken(message.get("audio"), index, other)


def _message(message: Json, index: int, other: Channel, entry: Json) -> Iterator[Part]:
    tokens = entry.get("logprobs") is not None
    for key, kind in _TEXTS.items():
        if message.get(key) is None:
            continue
        for part in _text(message, key, kind, index, other):
            yield replace(part, put=_no_tokens(entry, part.put)) if tokens else part
    if any(message.get(key) is not None for key in _CALLS):
        yield from _calls(message, index, other)
    yield from others(message, other, (*_TEXTS, *_CALLS, "audio"))


def _spoken(audio: Any, index: int, other: Channel) -> Iterator[Part]:
    """Yield the texts of a spoken answer: a sound says what its transcript says.

    So it leaves as it is or not at all: what is taken out of a transcript would still be heard.
    """
    known = isinstance(audio, dict) and isinstance(audio.get("transcript"), str)
    if known:
        channel = Channel(f"choices[{index}].transcript", "content", index, "", sealed=True)
        yield Part(channel, audio["transcript"], setter(audio, "transcript"))
    yield from others(audio, replace(other, name=f"{other.name}.audio"), ("transcript",) * known)


def _text(message: Json, key: str, kind: ChannelKind, index: int, other: Channel) -> Iterator[Part]:
    value = message.get(key)
    if isinstance(value, str):
        yield _part(message, key, kind, index)
    elif isinstance(value, list):
        # Some vendors send a list of typed pieces.
        for piece in value:
            yield from _typed(piece, kind, index, other)
    else:
        yield from others(value, other)


def _typed(piece: Any, kind: ChannelKind, index: int, other: Channel) -> Iterator[Part]:
    if not isinstance(piece, dict):
        yield from others(piece, other)
        return
    for key in ("text", "thinking", "refusal"):
        inner = _TEXTS.get(key, kind)
        yield from _text(piece, key, inner, index, other)
    yield from others(piece, other, ("text", "thinking", "refusal"))


def _part(holder: Json, key: str, kind: ChannelKind, index: int) -> Part:
    name = kind if key in ("text", kind) else key
    channel = Channel(f"choices[{index}].{name}", kind, index, "")
    return Part(channel, holder[key], setter(holder, key))


def _no_tokens(entry: Json, put: Callable[[str], None]) -> Callable[[str], None]:
    """Return what writes a text, and takes out the tokens of the text that it replaces."""

    def put_text(text: str) -> None:
        put(text)
        entry["logprobs"] = None

    return put_text


def drop_foreign_tokens(document: Json, place: str) -> bool:
    """Take out tokens that are not those of the text beside them; return whether some were."""
    dropped = [_drop_foreign(entry, place) for _, entry in entries(document)]
    return any(dropped)


def _drop_foreign(entry: Json, place: str) -> bool:
    given, message = entry.get("logprobs"), entry.get(place)
    if not isinstance(given, dict):
        return False
    message = message if isinstance(message, dict) else {}
    pruned = [prune(given, message.get(key), key) for key in ("content", "refusal")]
    return any(pruned)


def _calls(message: Json, index: int, other: Channel) -> Iterator[Part]:
    calls = message.get("tool_calls")
    for at, call in enumerate(calls if isinstance(calls, list) else []):
        if not isinstance(call, dict):
            yield from others(call, other)
            continue
        number = call.get("index")
        number = number if isinstance(number, int) else at
        name = f"choices[{index}].tool_calls[{number}]"
        yield from _call(call.get("function"), name, "arguments", index, other)
        yield from _call(call.get("custom"), name, "input", index, other)
        yield from others(call, other, ("function", "custom"))
    if calls is not None and not isinstance(calls, list):
        yield from others(calls, other)
    lone = message.get("function_call")
    yield from _call(lone, f"choices[{index}].function_call", "arguments", index, other)


def _call(value: Any, name: str, key: str, index: int, other: Channel) -> Iterator[Part]:
    if not isinstance(value, dict):
        yield from others(value, other)
        return
    tool = value.get("name")
    tool = tool if isinstance(tool, str) else ""
    text = value.get(key)
    # A call whose name comes before its arguments waits with them.
    channel = Channel(f"{name}.{key}", "tool_call", index, "", tool=tool)
    yield Part(channel, text if isinstance(text, str) else "", setter(value, key))
    read = {name for name, said in (("name", tool), (key, text)) if said and isinstance(said, str)}
    yield from others(value, other, read)
    yield from others(tool, other)


def refused(session: Session, choice: int, before: str, *, structured: bool) -> Json:
    """Return what stands in a message in the place of a choice that is withheld.

    A block is a refusal to SDKs, a replacement is an answer like any other, unless the caller
    wanted a document, which the message is not.
    """
    notice = session.notice(choice)
    blocked = session.step_of(choice) == "block"
    refusal = {"refusal": notice} if blocked or structured else {}
    return {"content": before + notice} | refusal


def _said(choice: int, entry: Json) -> Json | None:
    """Return what may leave of a choice in the chunk from which on it is withheld."""
    delta = entry.get("delta")
    given = delta if isinstance(delta, dict) else {}
    texts = {key: text for key, text in given.items() if key in _TEXTS and text}
    return {"index": choice, "delta": texts, "finish_reason": None} if texts else None


class ChatRelay(Relay):
    """A stream of chat completion chunks."""

    def __init__(self, *args: Any, **options: Any) -> None:
        """Begin at the start of a stream; arguments as for `Relay`."""
        super().__init__(*args, **options)
        self._latest: Json = {}
        self._begun: set[int] = set()

    def prepare(self, document: Json) -> bool:
        """Keep what own chunks are made of."""
        if "choices" in document:
            self._latest = document
        return drop_foreign_tokens(document, "delta")

    def parts(self, document: Json) -> Iterable[Part]:
        """Yield the texts of a chunk."""
        return parts(document, "delta")

    def ends(self, document: Json) -> Iterable[int]:
        """Yield the choices that a chunk ends."""
        return [i for i, entry in entries(document) if entry.get("finish_reason") is not None]

    def filled(self, held: Held) -> Event:
        """Return a chunk with what may leave in the place of each text."""
        self._begun.update(index for index, _ in entries(held.document))
        return super().filled(held)

    def reduce(self, held: Held) -> Iterable[Event]:
        """Yield a chunk without what is withheld, and the refusal where that begins."""
        given = list(entries(held.document))
        cut = {i for i, entry in given if self._cuts(held, i, entry)}
        if not cut and not held.tainted:
            yield self.filled(held)
            return
        dropped = {i for i in cut if i in self.refused or i in held.tainted}
        self.fill(held, without=dropped)
        kept = [(i, entry) for i, entry in given if i not in dropped]
        rest = [_said(i, entry) if i in cut else entry for i, entry in kept]
        document = self._around(held) | {"choices": [entry for entry in rest if entry]}
        if document["choices"] or document.get("usage"):
            self._begun.update(index for index, _ in entries(document))
            yield Event(written(document))
        for choice in sorted(cut):
            yield from self.refusal(choice)

    def _around(self, held: Held) -> Json:
        """Return what may leave of a chunk beside its choices."""
        if not held.tainted:
            return held.document
        return plain(held.document, _ENVELOPE) | {"usage": counts(held.document.get("usage"))}

    def _cuts(self, held: Held, choice: int, entry: Json) -> bool:
        """Return whether a choice is withheld from this chunk on, or from an earlier one."""
        if not self.session.withheld(choice):
            return False
        own = [piece for piece in held.pieces if piece.choice == choice]
        passed = all(self.ledger.passed(piece) for piece in own)
        over = choice in self.refused or choice in held.tainted
        return over or not passed or entry.get("finish_reason") is not None

    def refuse(self, choice: int) -> Iterable[Event]:
        """Yield the class's message and the choice's end."""
        before = "\n\n" if self.ledger.left(choice) else ""
        delta = refused(self.session, choice, before, structured=self.ledger.structured)
        role = {} if choice in self._begun else {"role": "assistant"}
        yield self._chunk(choice, role | delta, None, {})
        own = {"guard": detail(self.session.verdict())}
        yield self._chunk(choice, {}, self.style.chat, own)

    def _chunk(self, choice: int, delta: Json, finish: str | None, own: Json) -> Event:
        entry = {"index": choice, "delta": delta, "logprobs": None, "finish_reason": finish}
        return Event(written(plain(self._latest, _ENVELOPE) | {"choices": [entry]} | own))

    def failure(self, message: str) -> Event:
        """Return the event that the SDK turns into an `APIError`."""
        return Event(written(error(message, "upstream_error")))


class ChatBody(Body):
    """A chat completion."""

    def prepare(self) -> bool:
        """Take out tokens that are not those of the text beside them."""
        return drop_foreign_tokens(self.document, "message")

    def parts(self) -> Iterable[Part]:
        """Yield the texts of the completion."""
        return parts(self.document, "message")

    def refuse(self, choice: int) -> None:
        """Write the class's message in the place of a choice that is withheld."""
        text = refused(self.session, choice, "", structured=self.ledger.structured)
        message = {"role": "assistant", "refusal": None} | text
        own = {"index": choice, "message": message, "logprobs": None}
        own |= {"finish_reason": self.style.chat}
        kept = plain(self.document, _ENVELOPE)
        if "usage" in self.document:
            kept["usage"] = counts(self.document["usage"])
        before = [entry for index, entry in entries(self.document) if index < choice]
        after = [entry for index, entry in entries(self.document) if index > choice]
        kept |= {"choices": [*before, own, *after], "guard": detail(self.session.verdict())}
        self.document.clear()
        self.document |= kept


def asked(document: Json) -> Asked:
    """Return what a request asks for."""
    listed = document.get("messages")
    messages = tuple(
        Message(role_of(m.get("role")), text_of(m.get("content")), str(m.get("name") or ""))
        for m in (listed if isinstance(listed, list) else [])
        if isinstance(m, dict)
    )
    shape = document.get("response_format")
    kind = shape.get("type") if isinstance(shape, dict) else None
    return Asked(
        Exchange((), messages, model=str(document.get("model") or "")),
        stream=document.get("stream") is True,
        structured=kind in ("json_schema", "json_object"),
    )


def refusal(asking: Asked, message: str, own: Json) -> bytes:
    """Return the response to a request that is not passed on: JSON, or a whole stream."""
    envelope: Json = {
        "id": f"chatcmpl-guard-{uuid4().hex}",
        "object": "chat.completion.chunk" if asking.stream else "chat.completion",
        "created": int(time.time()),
        "model": asking.exchange.model,
    }
    text = {"role": "assistant", "content": message, "refusal": message}
    usage = {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}
    entry: Json = {"index": 0, "logprobs": None}
    if not asking.stream:
        end = {"message": text, "finish_reason": "stop"}
        return written(envelope | {"choices": [entry | end], "usage": usage} | own).encode()
    chunks = [
        envelope | {"choices": [entry | {"delta": text, "finish_reason": None}]},
        envelope | {"choices": [entry | {"delta": {}, "finish_reason": "stop"}]} | own,
    ]
    events = [*(written(chunk) for chunk in chunks), "[DONE]"]
    return "".join(Event(data).text() for data in events).encode()


def corrected(request: Json, instruction: str) -> Json:
    """Return a request with one more system message."""
    listed = request.get("messages")
    messages = listed if isinstance(listed, list) else []
    return request | {"messages": [*messages, {"role": "system", "content": instruction}]}


def error(message: str, code: str) -> Json:
    """Return an error as the SDK reads it."""
    kind = "invalid_request_error" if code == "invalid_request" else code
    return {"error": {"message": message, "type": kind, "param": None, "code": code}}
