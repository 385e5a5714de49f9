"""Haystack, guarded: a component around a chat generator, for pipelines and agents.

    from guard import Guard
    from haystack.components.generators.chat import OpenAIChatGenerator

    generator = Guard.load("public").wrap(OpenAIChatGenerator())

Streaming callbacks, the generator's own too, hear what may leave, when it may leave; replies say
the same. Where an answer is blocked, its `finish_reason` is `content_filter`; `meta` says why
under `guard`. An answer is never asked for anew here: the class's `regenerate` counts as
`replace`. The component cannot be serialised, since a guard cannot.

This module does not know how a text is judged or held back (`guard.adapters.turns`).
"""

from __future__ import annotations

import asyncio
import inspect
from copy import deepcopy
from dataclasses import dataclass, replace
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

from guard.errors import InputError, MissingExtraError

try:
    from haystack import component
    from haystack.core.errors import SerializationError
    from haystack.dataclasses import (
        ChatMessage,
        ReasoningContent,
        StreamingChunk,
        TextContent,
        ToolCall,
    )
except ImportError as error:
    raise MissingExtraError(error.name or "haystack-ai", "haystack") from error

from guard.adapters.masking import masked
from guard.adapters.turns import (
    Draft,
    StreamedTurn,
    WholeTurn,
    call_part,
    lone_parts,
    object_part,
    plain,
    text_part,
)
from guard.documents import UNKNOWN, document_text
from guard.exchange import Exchange, Message
from guard.request_text import text_of
from guard.wire.asked import role_of
from guard.wire.detail import detail
from guard.wire.parts import counts, setter
from guard.wire.parts import plain as kept_of
from guard.wire.tokens import prune

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from haystack.dataclasses import FileContent

    from guard.engine import Guard
    from guard.steps import Steps
    from guard.verdict import Verdict
    from guard.wire.parts import Json, Part

_KEPT: Final = ("model", "index", "id", "created", "completion_start_time")
"""What is kept of the metadata of an answer that is withheld, beside its usage."""

_TIMES: Final = ("received_at", "completion_start_time")
"""Keys of metadata that hold a time."""


def wrap(guard: Guard, generator: Any) -> GuardedChatGenerator:
    """Return a component that guards a chat generator.

    Args:
        guard: judges.
        generator: any component that takes `messages` and gives `replies`.

    Raises:
        InputError: it is no chat generator, or it is guarded already.
    """
    return GuardedChatGenerator(guard, generator)


@component
class GuardedChatGenerator:
    """A chat generator whose answers are judged before anybody sees them.

    Args:
        guard: judges.
        chat_generator: the generator that is asked.

    Raises:
        InputError: it is no chat generator, or it is guarded already.
    """

    def __init__(self, guard: Guard, chat_generator: Any) -> None:
        """Ask nothing yet."""
        if isinstance(chat_generator, GuardedChatGenerator):
            raise InputError("the generator is guarded already")
        if not _is_generator(chat_generator):
            raise InputError(
                f"`{type(chat_generator).__name__}` is no chat generator: wrap the generator, and "
                "give it to the agent or the pipeline"
            )
        self._guard = guard
        self._inner = chat_generator

    def to_dict(self) -> dict[str, Any]:
        """Refuse to be serialised.

        Raises:
            SerializationError: a guard is no data.
        """
        raise SerializationError(
            "a guarded generator cannot be serialised: serialise the pipeline or the agent with "
            "the generator itself, and put a guarded one in its place when it is loaded"
        )

    def warm_up(self) -> None:
        """Make the generator ready."""
        _call(self._inner, "warm_up")

    async def warm_up_async(self) -> None:
        """As `warm_up`, asynchronous."""
        await _acall(self._inner, "warm_up")

    def close(self) -> None:
        """Release what the generator holds."""
        _call(self._inner, "close")

    async def close_async(self) -> None:
        """As `close`, asynchronous."""
        await _acall(self._inner, "close")

    @component.output_types(replies=list[ChatMessage])
    def run(
        self,
        messages: list[ChatMessage] | str,
        streaming_callback: Any = None,
        generation_kwargs: dict[str, Any] | None = None,
        tools: Any = None,
    ) -> dict[str, Any]:
        """Ask the generator; return what of its replies may be delivered.

        Args:
            messages: what is asked.
            streaming_callback: told what may leave, when it may leave.
            generation_kwargs: the generator's.
            tools: what the model may call.
        """
        call = _Call(self._guard, messages, generation_kwargs, tools)
        driver, callback = self._guard.driver, streaming_callback or _callback(self._inner)
        if inspect.iscoroutinefunction(callback):
            raise InputError("the streaming callback is a coroutine function: use `run_async`")
        if call.judges_input:
            verdict = self._guard.check_input(call.exchange)
            if verdict.message:
                return call.not_asked(verdict)
        if callback is None:
            with masked(self._guard):
                given: Json = self._inner.run(messages, **call.options)
            whole = call.whole()
            driver.run(whole.judge(_drafts(given, whole)))
            return _delivered(whole, given)
        stream = _Stream(call)

        def hold(chunk: StreamingChunk) -> None:
            driver.run(stream.feed(chunk))
            for ready in stream.ready():
                callback(ready)

        try:
            with masked(self._guard):
                given = self._inner.run(messages, streaming_callback=hold, **call.options)
            driver.run(stream.finish(given))
            for ready in stream.rest():
                callback(ready)
        finally:
            driver.run(stream.turn.abandon())
        return stream.delivered(given)

    @component.output_types(replies=list[ChatMessage])
    async def run_async(
        self,
        messages: list[ChatMessage] | str,
        streaming_callback: Any = None,
        generation_kwargs: dict[str, Any] | None = None,
        tools: Any = None,
    ) -> dict[str, Any]:
        """As `run`, asynchronous."""
        if not hasattr(self._inner, "run_async"):
            told = _in_loop(streaming_callback or _callback(self._inner))
            return await asyncio.to_thread(self.run, messages, told, generation_kwargs, tools)
        call = _Call(self._guard, messages, generation_kwargs, tools)
        driver, callback = self._guard.driver, streaming_callback or _callback(self._inner)
        if call.judges_input:
            verdict = await self._guard.acheck_input(call.exchange)
            if verdict.message:
                return call.not_asked(verdict)
        if callback is None:
            with masked(self._guard):
                given: Json = await self._inner.run_async(messages, **call.options)
            whole = call.whole()
            await driver.arun(whole.judge(_drafts(given, whole)))
            return _delivered(whole, given)
        stream = _Stream(call)

        async def hold(chunk: StreamingChunk) -> None:
            await driver.arun(stream.feed(chunk))
            for ready in stream.ready():
                await _told(callback, ready)

        try:
            ask = self._inner.run_async
            with masked(self._guard):
                given = await ask(messages, streaming_callback=hold, **call.options)
            await driver.arun(stream.finish(given))
            for ready in stream.rest():
                await _told(callback, ready)
        finally:
            await driver.arun(stream.turn.abandon())
        return stream.delivered(given)


class _Call:
    """One call of a guarded generator: what it is asked."""

    def __init__(
        self, guard: Guard, messages: list[ChatMessage] | str, generation_kwargs: Any, tools: Any
    ) -> None:
        given = [ChatMessage.from_user(messages)] if isinstance(messages, str) else messages
        self.exchange = exchange_of(given)
        options = {"generation_kwargs": generation_kwargs, "tools": tools}
        self.options = {name: value for name, value in options.items() if value is not None}
        self.judges_input = bool(guard.security_class.input_limits)
        self._guard = guard

    def whole(self) -> WholeTurn[ChatMessage]:
        """Return what judges whole replies."""
        return WholeTurn(self._guard.session(self.exchange, stream=False))

    def streamed(self, say: Callable[[str], Iterable[Any]]) -> StreamedTurn[Any]:
        """Return what judges chunks."""
        return StreamedTurn(self._guard.session(self.exchange, stream=True), say)

    def not_asked(self, verdict: Verdict) -> Json:
        """Return the answer where the model must not be asked."""
        meta = {"finish_reason": "content_filter", "guard": detail(verdict)}
        return {"replies": [ChatMessage.from_assistant(verdict.message, meta=meta)]}


class _Stream:
    """The chunks of one answer, and the reply that they make."""

    def __init__(self, call: _Call) -> None:
        self.turn = call.streamed(self._say)
        self.replies: list[ChatMessage] = []
        self._said: list[str] = []
        self._rest: list[StreamingChunk] = []
        self._calls: set[int] = set()
        self._came = {"content": "", "reasoning": ""}
        self._last: StreamingChunk | None = None

    def feed(self, chunk: StreamingChunk) -> Steps:
        """Take a chunk."""
        self._last = chunk
        self._calls |= {delta.index for delta in chunk.tool_calls or ()}
        self._came["content"] += chunk.content
        self._came["reasoning"] += chunk.reasoning.reasoning_text if chunk.reasoning else ""
        yield from self.turn.feed(_chunk_draft(chunk, self.turn))

    def ready(self) -> Iterator[StreamingChunk]:
        """Yield what may leave by now."""
        for chunk in self.turn.ready():
            self._said.append(chunk.content)
            yield chunk

    def finish(self, given: Json) -> Steps:
        """Take the end of the stream, and the one reply that the generator made of it."""
        replies, came = given["replies"], _Came(sorted(self._calls), self._came)
        for reply in replies[:1]:
            yield from self.turn.feed(_reply_draft(reply, self.turn, came=came))
        yield from self.turn.feed(_others_draft(given))
        yield from self.turn.finish()
        left = self.turn.rest()
        self._rest = [each for each in left if isinstance(each, StreamingChunk)]
        if not self.turn.session.withheld(0):
            said = [each for each in left if isinstance(each, ChatMessage)]
            self.replies = [_noted(reply, self.turn.entry) for reply in said]
            return
        heard = "".join([*self._said, *(chunk.content for chunk in self._rest)])
        known = replies[0].meta if replies else {}
        self.replies = [ChatMessage.from_assistant(heard, meta=_ended(self.turn, known))]

    def delivered(self, given: Json) -> Json:
        """Return what may be delivered of what the generator gave."""
        kept = {} if self.turn.session.withheld(0) else given
        return {**kept, "replies": self.replies}

    def rest(self) -> list[StreamingChunk]:
        """Return what leaves behind the end."""
        return self._rest

    def _say(self, text: str) -> list[StreamingChunk]:
        info = self._last.component_info if self._last else None
        return [StreamingChunk(content=text, component_info=info, index=0)]


@dataclass(frozen=True)
class _Came:
    """What a stream brought before its reply.

    Attributes:
        places: of the calls whose pieces came.
        texts: all of each kind.
    """

    places: Sequence[int]
    texts: Mapping[str, str]

    def has(self, part: Part) -> bool:
        """Return whether a part of the reply repeats what came."""
        kind = part.channel.kind
        return not part.lone and (kind == "tool_call" or part.text == self.texts.get(kind))


def exchange_of(messages: Sequence[ChatMessage]) -> Exchange:
    """Return what a model is given, without any answer."""
    return Exchange((), tuple(map(_message, messages)))


def _message(message: ChatMessage) -> Message:
    results = message.tool_call_results
    if results:
        found = "\n".join(text_of(plain(result.result)) for result in results)
        return Message("tool", found, results[0].origin.tool_name)
    said = [*message.texts, *map(_document, message.files)]
    return Message(role_of(message.role.value), "\n".join(filter(None, said)), message.name or "")


def _document(file: FileContent) -> str:
    return document_text(file.base64_data, file.mime_type or file.filename or UNKNOWN)


def _drafts(given: Json, turn: WholeTurn[ChatMessage]) -> Iterator[Draft[ChatMessage]]:
    for choice, reply in enumerate(given["replies"]):
        yield _reply_draft(reply, turn, choice)
    yield _others_draft(given)


def _others_draft(given: Json) -> Draft[Any]:
    """Return what a generator gives beside its replies as a draft, of which nothing is made."""
    others = {key: value for key, value in given.items() if key != "replies"}
    return Draft(list(lone_parts(others)), lambda _: ())


def _reply_draft(
    reply: ChatMessage,
    turn: WholeTurn[Any] | StreamedTurn[Any],
    choice: int = 0,
    came: _Came | None = None,
) -> Draft[Any]:
    """Return a reply as a draft.

    Args:
        reply: the reply.
        turn: what judges it.
        choice: which of the replies it is.
        came: behind a stream, what came before.
    """
    content = list(reply._content)  # noqa: SLF001  # the only place that has all of it in order
    changes: list[Json] = [{} for _ in content]
    meta = _spelled(reply.meta, "".join(reply.texts))
    calls = [at for at, part in enumerate(content) if isinstance(part, ToolCall)]
    # Calls that do not match the stream's are texts of their own.
    places = came.places if came and len(came.places) == len(calls) else ()
    known = dict(zip(calls, places, strict=False))
    parts = [
        replace(found, echo=came is not None and came.has(found))
        for at, part in enumerate(content)
        for found in _parts_of(part, known.get(at, f"reply{at}"), changes[at], choice)
    ]
    parts += [*lone_parts(reply.name or "", (), choice), *_beside(meta, choice)]

    def made(changed: bool) -> list[ChatMessage]:  # noqa: FBT001  # as `Draft` calls it
        if turn.session.shadow or not (changed or meta is not reply.meta):
            return [reply]
        unsigned: Json = {"extra": {}} if turn.altered("reasoning", choice) else {}
        for part, change in zip(content, changes, strict=True):
            change.update(unsigned if isinstance(part, ReasoningContent) else {})
        rebuilt = [replace(part, **change) for part, change in zip(content, changes, strict=True)]
        known = _without_tokens(meta) if turn.altered("content", choice) else meta
        return [replace(reply, _content=rebuilt, _meta=known)]

    return Draft(parts, made, ends=True)


def _parts_of(part: Any, place: object, changes: Json, choice: int) -> Iterator[Part]:
    """Yield the texts of a part of a reply."""
    if isinstance(part, TextContent):
        yield text_part("content", part.text, setter(changes, "text"), choice)
    elif isinstance(part, ReasoningContent):
        put = setter(changes, "reasoning_text")
        yield text_part("reasoning", part.reasoning_text, put, choice)
        yield from lone_parts(part.extra, (), choice)
    elif isinstance(part, ToolCall):
        put = setter(changes, "arguments")
        yield object_part(place, part.tool_name, part.arguments, put, choice)
        yield from lone_parts([part.tool_name, part.extra], (), choice)
    else:
        yield from lone_parts(part, (), choice)


def _delivered(turn: WholeTurn[ChatMessage], given: Json) -> Json:
    """Return what may be delivered of what a generator gave."""
    replies: list[ChatMessage] = []
    for choice, reply in enumerate(given["replies"]):
        if (whole := turn.delivered(choice)) is not None:
            replies += [_noted(each, turn.entry) for each in whole]
            continue
        meta = _ended(turn, reply.meta, choice)
        replies.append(ChatMessage.from_assistant(turn.session.notice(choice), meta=meta))
    withheld = any(map(turn.session.withheld, range(len(replies) or 1)))
    return {**({} if withheld else given), "replies": replies}


def _noted(reply: ChatMessage, entry: Json) -> ChatMessage:
    return replace(reply, _meta=reply.meta | entry) if entry else reply


def _ended(turn: WholeTurn[Any] | StreamedTurn[Any], meta: Json, choice: int = 0) -> Json:
    """Return what is said of an answer that is withheld."""
    return _kept(meta) | {"finish_reason": _reason(turn, choice)} | turn.entry


def _reason(turn: WholeTurn[Any] | StreamedTurn[Any], choice: int = 0) -> Any:
    return "content_filter" if turn.refuses(choice) else "stop"


def _kept(meta: Json) -> Json:
    usage = counts(plain(meta.get("usage")))
    return kept_of(meta, _KEPT) | ({"usage": usage} if usage else {})


def _chunk_draft(chunk: StreamingChunk, turn: StreamedTurn[Any]) -> Draft[Any]:
    """Return a chunk as a draft."""
    changes: Json = {}
    thought: Json = {}
    deltas: list[Json] = [{} for _ in chunk.tool_calls or ()]
    meta = _spelled(chunk.meta, chunk.content)
    parts = [text_part("content", chunk.content, setter(changes, "content"))]
    if chunk.reasoning is not None:
        parts += _parts_of(chunk.reasoning, "", thought, 0)
    for delta, change in zip(chunk.tool_calls or (), deltas, strict=True):
        put = setter(change, "arguments")
        parts.append(call_part(delta.index, delta.tool_name or "", delta.arguments or "", put))
        parts += lone_parts([delta.tool_name, delta.extra])
    parts += [*lone_parts(chunk.tool_call_result), *_beside(meta, 0)]

    def made(changed: bool) -> list[StreamingChunk]:  # noqa: FBT001  # as `Draft` calls it
        if turn.session.shadow or not (changed or meta is not chunk.meta):
            return [chunk]
        if thought and chunk.reasoning is not None:
            changes["reasoning"] = replace(chunk.reasoning, **thought, extra={})
        if any(deltas):
            pairs = zip(chunk.tool_calls or (), deltas, strict=True)
            changes["tool_calls"] = [replace(delta, **change) for delta, change in pairs]
        known = _without_tokens(meta) if "content" in changes else meta
        return [replace(chunk, **changes, meta=known)]

    def bare() -> list[StreamingChunk]:
        kept = _kept(chunk.meta)
        if not (chunk.finish_reason or kept.get("usage")):
            return []
        reason = _reason(turn) if chunk.finish_reason else None
        info = chunk.component_info
        return [StreamingChunk("", kept, info, index=chunk.index, finish_reason=reason)]

    return Draft(parts, made, bare, ends=bool(chunk.finish_reason))


def _spelled(meta: Json, text: str) -> Json:
    """Return metadata, without tokens unless they spell the text and nothing else."""
    if not meta.get("logprobs"):
        return meta
    tokens = {"logprobs": deepcopy(_tokens(meta["logprobs"]))}
    return _without_tokens(meta) if prune(tokens, text) else meta


def _tokens(logprobs: Any) -> Any:
    """Return tokens as one list."""
    if isinstance(logprobs, dict):
        beside = {key: value for key, value in logprobs.items() if key != "content" and value}
        return [beside] if beside else logprobs.get("content")
    if isinstance(logprobs, list) and all(isinstance(e, dict) and "content" in e for e in logprobs):
        return [token for each in logprobs for token in _tokens(each) or ()]
    return logprobs


def _without_tokens(meta: Json) -> Json:
    return {key: value for key, value in meta.items() if key != "logprobs"}


def _beside(meta: Json, choice: int) -> Iterator[Part]:
    """Yield what is said beside a reply or a chunk."""
    times = [key for key in _TIMES if _is_time(meta.get(key))]
    yield from lone_parts(meta, ("logprobs", *times), choice)


def _is_time(value: Any) -> bool:
    try:
        return isinstance(value, str) and bool(datetime.fromisoformat(value))
    except ValueError:
        return False


def _is_generator(value: Any) -> bool:
    outputs = getattr(value, "__haystack_output__", None)
    takes = "messages" in inspect.signature(value.run).parameters if outputs else False
    return takes and hasattr(outputs, "replies")


def _callback(generator: Any) -> Any:
    """Return the callback that a generator, or one of those that it asks, was given."""
    own = getattr(generator, "streaming_callback", None)
    inner = map(_callback, getattr(generator, "chat_generators", ()))
    return own or next((each for each in inner if each), None)


def _in_loop(callback: Any) -> Any:
    """Return what tells a callback from another thread, and waits for it in the running loop."""
    loop = asyncio.get_running_loop()

    def tell(chunk: StreamingChunk) -> None:
        asyncio.run_coroutine_threadsafe(_told(callback, chunk), loop).result()

    return tell if inspect.iscoroutinefunction(callback) else callback


async def _told(callback: Any, chunk: StreamingChunk) -> None:
    result = callback(chunk)
    if inspect.isawaitable(result):
        await result


def _call(owner: Any, name: str) -> None:
    method = getattr(owner, name, None)
    if method is not None:
        method()


async def _acall(owner: Any, name: str) -> None:
    method = getattr(owner, f"{name}_async", None)
    if method is None:
        _call(owner, name)
    else:
        await method()
