"""LlamaIndex, guarded: an LLM in the place of the one that it wraps.

    from guard import Guard
    from llama_index.core import Settings

    Settings.llm = Guard.load("public").wrap(llm)

The framework tells callbacks, events and spans what an LLM's methods give. The inner LLM's are
called without what tells of them, so that all of these hear of the guarded one alone. Why an
answer was not delivered as it came is in the response's `additional_kwargs`, under `guard`. An
answer is never asked for anew here: the class's `regenerate` counts as `replace`.

This module does not know how a text is judged or held back (`guard.adapters.turns`).
"""

# ruff: noqa: FBT001, FBT002  # signatures are the framework's, and `Draft`'s

from __future__ import annotations

import inspect
from contextlib import aclosing, closing
from typing import TYPE_CHECKING, Any, Final, TypeAlias, TypeVar, cast

from guard.errors import InputError, MissingExtraError

try:
    from llama_index.core.base.llms.base import BaseLLM
    from llama_index.core.base.llms.types import (
        ChatMessage,
        ChatResponse,
        CitableBlock,
        CompletionResponse,
        DocumentBlock,
        LLMMetadata,
        TextBlock,
        ThinkingBlock,
        ToolCallBlock,
    )
    from llama_index.core.bridge.pydantic import Field, PrivateAttr
    from llama_index.core.llms import callbacks
    from llama_index.core.llms.function_calling import FunctionCallingLLM
    from llama_index.core.llms.llm import LLM
except ImportError as error:
    raise MissingExtraError(error.name or "llama-index-core", "llama-index") from error

from guard.adapters.masking import aread_masked, masked, read_masked
from guard.adapters.turns import (
    Draft,
    StreamedTurn,
    WholeTurn,
    call_part,
    lone_parts,
    object_part,
    text_part,
)
from guard.documents import UNKNOWN, document_text
from guard.exchange import Exchange, Message
from guard.wire.asked import role_of
from guard.wire.detail import detail
from guard.wire.parts import joined, setter

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable, Generator, Iterator, Sequence

    from llama_index.core.base.llms.types import ContentBlock
    from llama_index.core.llms.llm import ToolSelection

    from guard.engine import Guard
    from guard.steps import Steps
    from guard.wire.parts import Json, Part

_MIRRORED: Final = (
    "callback_manager",
    "rate_limiter",
    "system_prompt",
    "messages_to_prompt",
    "completion_to_prompt",
    "output_parser",
    "pydantic_program_mode",
    "query_wrapper_prompt",
)
"""Fields that are the inner LLM's."""

_METHODS: Final = (
    *("chat", "achat", "stream_chat", "astream_chat"),
    *("complete", "acomplete", "stream_complete", "astream_complete"),
)
"""What an LLM is asked by."""

_READ: Final = (
    *("block_type", "text", "content", "num_tokens"),
    *("tool_call_id", "tool_name", "tool_kwargs"),
)
"""Fields of texts, thoughts and calls that are read as such, or hold no text of the model's."""

_Response: TypeAlias = "ChatResponse | CompletionResponse"
_T = TypeVar("_T", ChatResponse, CompletionResponse)


def wrap(guard: Guard, llm: LLM) -> GuardedLLM:
    """Return an LLM whose answers are judged; it calls functions if the inner one does.

    Args:
        guard: judges.
        llm: any LLM of the framework.

    Raises:
        InputError: it is no LLM, asks another one itself, or is guarded already.
    """
    if not isinstance(llm, LLM):
        raise InputError(f"`{type(llm).__name__}` is no LLM: wrap the LLM that it is given")
    if isinstance(llm, GuardedLLM):
        raise InputError("the LLM is guarded already")
    if any(isinstance(value, BaseLLM) for value in vars(llm).values()):
        raise InputError(f"`{type(llm).__name__}` asks an LLM of its own: wrap that one")
    kind = GuardedFunctionCallingLLM if isinstance(llm, FunctionCallingLLM) else GuardedLLM
    mirrored = {name: getattr(llm, name) for name in _MIRRORED}
    return kind(guard=guard, inner=llm, **mirrored)


class GuardedLLM(LLM):
    """An LLM whose answers are judged before anybody sees them.

    Attributes:
        guard: judges.
        inner: the LLM that is asked.
    """

    guard: Any = Field(exclude=True, repr=False)
    inner: Any = Field(exclude=True)
    _quiet: Any = PrivateAttr()

    def model_post_init(self, context: Any, /) -> None:
        """Make the inner LLM quiet."""
        super().model_post_init(context)
        self._quiet = _quietened(self.inner)

    @property
    def metadata(self) -> LLMMetadata:
        """The inner LLM's."""
        return cast("LLMMetadata", self.inner.metadata)

    def to_payload(self) -> dict[str, Any]:
        """Return what the inner LLM tells of itself."""
        return dict(self.inner.to_payload())

    @callbacks.llm_chat_callback()
    def chat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponse:
        """Ask; return what of the answer may be delivered."""
        asked = exchange_of(messages)
        answer: ChatResponse | None = self._refusal(asked, ChatResponse)
        return answer or self._judged(asked, lambda: self._quiet.chat(messages, **kwargs))

    @callbacks.llm_chat_callback()
    async def achat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponse:
        """As `chat`, asynchronous."""
        asked = exchange_of(messages)
        answer: ChatResponse | None = await self._arefusal(asked, ChatResponse)
        return answer or await self._ajudged(asked, lambda: self._quiet.achat(messages, **kwargs))

    @callbacks.llm_chat_callback()
    def stream_chat(
        self, messages: Sequence[ChatMessage], **kwargs: Any
    ) -> Generator[ChatResponse]:
        """Ask for a stream; what is read of it was judged."""
        asked = exchange_of(messages)
        return self._relayed(
            asked, ChatResponse, lambda: self._quiet.stream_chat(messages, **kwargs)
        )

    @callbacks.llm_chat_callback()
    async def astream_chat(
        self, messages: Sequence[ChatMessage], **kwargs: Any
    ) -> AsyncGenerator[ChatResponse]:
        """As `stream_chat`, asynchronous."""
        asked = exchange_of(messages)
        return self._arelayed(
            asked, ChatResponse, lambda: self._quiet.astream_chat(messages, **kwargs)
        )

    @callbacks.llm_completion_callback()
    def complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponse:
        """Ask; return what of the answer may be delivered."""
        asked = _prompted(prompt)
        answer: CompletionResponse | None = self._refusal(asked, CompletionResponse)
        return answer or self._judged(
            asked, lambda: self._quiet.complete(prompt, formatted=formatted, **kwargs)
        )

    @callbacks.llm_completion_callback()
    async def acomplete(
        self, prompt: str, formatted: bool = False, **kwargs: Any
    ) -> CompletionResponse:
        """As `complete`, asynchronous."""
        asked = _prompted(prompt)
        answer: CompletionResponse | None = await self._arefusal(asked, CompletionResponse)
        return answer or await self._ajudged(
            asked, lambda: self._quiet.acomplete(prompt, formatted=formatted, **kwargs)
        )

    @callbacks.llm_completion_callback()
    def stream_complete(
        self, prompt: str, formatted: bool = False, **kwargs: Any
    ) -> Generator[CompletionResponse]:
        """Ask for a stream; what is read of it was judged."""
        return self._relayed(
            _prompted(prompt),
            CompletionResponse,
            lambda: self._quiet.stream_complete(prompt, formatted=formatted, **kwargs),
        )

    @callbacks.llm_completion_callback()
    async def astream_complete(
        self, prompt: str, formatted: bool = False, **kwargs: Any
    ) -> AsyncGenerator[CompletionResponse]:
        """As `stream_complete`, asynchronous."""
        return self._arelayed(
            _prompted(prompt),
            CompletionResponse,
            lambda: self._quiet.astream_complete(prompt, formatted=formatted, **kwargs),
        )

    # Private parts.

    def _refusal(self, asked: Exchange, kind: type) -> Any:
        """Return the answer where the LLM must not be asked."""
        if not self.guard.security_class.input_limits:
            return None
        return _not_asked(self.guard.check_input(asked), kind)

    async def _arefusal(self, asked: Exchange, kind: type) -> Any:
        if not self.guard.security_class.input_limits:
            return None
        return _not_asked(await self.guard.acheck_input(asked), kind)

    def _judged(self, asked: Exchange, ask: Callable[[], _T]) -> _T:
        with masked(self.guard):
            response = ask()
        turn: WholeTurn[_Response] = WholeTurn(self.guard.session(asked, stream=False))
        self.guard.driver.run(turn.judge([_draft(response, turn)]))
        return cast("_T", _delivered(response, turn))

    async def _ajudged(self, asked: Exchange, ask: Callable[[], Awaitable[_T]]) -> _T:
        with masked(self.guard):
            response = await ask()
        turn: WholeTurn[_Response] = WholeTurn(self.guard.session(asked, stream=False))
        await self.guard.driver.arun(turn.judge([_draft(response, turn)]))
        return cast("_T", _delivered(response, turn))

    def _relayed(self, asked: Exchange, kind: type, ask: Any) -> Generator[Any]:
        if (refused := self._refusal(asked, kind)) is not None:
            yield refused
            return
        driver, stream = self.guard.driver, _Stream(self.guard, asked, kind)
        try:
            with masked(self.guard):
                given = ask()
            with closing(read_masked(self.guard, given)) as source:
                for response in source:
                    driver.run(stream.feed(response))
                    yield from stream.turn.ready()
            driver.run(stream.finish())
            yield from stream.rest()
        finally:
            driver.run(stream.turn.abandon())

    async def _arelayed(self, asked: Exchange, kind: type, ask: Any) -> AsyncGenerator[Any]:
        if (refused := await self._arefusal(asked, kind)) is not None:
            yield refused
            return
        driver, stream = self.guard.driver, _Stream(self.guard, asked, kind)
        try:
            with masked(self.guard):
                given = await ask()
            async with aclosing(aread_masked(self.guard, given)) as source:
                async for response in source:
                    await driver.arun(stream.feed(response))
                    for ready in stream.turn.ready():
                        yield ready
            await driver.arun(stream.finish())
            for ready in stream.rest():
                yield ready
        finally:
            await driver.arun(stream.turn.abandon())


class GuardedFunctionCallingLLM(GuardedLLM, FunctionCallingLLM):
    """As `GuardedLLM`, for an LLM that calls functions."""

    def _prepare_chat_with_tools_compat(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        return dict(self.inner._prepare_chat_with_tools_compat(*args, **kwargs))  # noqa: SLF001

    def _prepare_chat_with_tools(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        return dict(self.inner._prepare_chat_with_tools(*args, **kwargs))  # noqa: SLF001

    def _validate_chat_with_tools_response(self, *args: Any, **kwargs: Any) -> ChatResponse:
        validate = self.inner._validate_chat_with_tools_response  # noqa: SLF001
        return cast("ChatResponse", validate(*args, **kwargs))

    def get_tool_calls_from_response(self, *args: Any, **kwargs: Any) -> list[ToolSelection]:
        """Return the calls in a response as the inner LLM reads them."""
        return list(self.inner.get_tool_calls_from_response(*args, **kwargs))


def exchange_of(messages: Sequence[ChatMessage]) -> Exchange:
    """Return what an LLM is given, without any answer."""
    said = (Message(role_of(each.role.value), _given(each)) for each in messages)
    return Exchange((), tuple(said))


def _given(message: ChatMessage) -> str:
    """Return the text of a message, with that of its documents and what may be cited."""
    others = (each for each in message.blocks if not isinstance(each, TextBlock))
    return "\n".join(filter(None, (message.content, *map(_text_in, others))))


def _text_in(block: Any) -> str:
    """Return the text of a block, `""` where it has none that a user or a tool gives."""
    if isinstance(block, TextBlock):
        return block.text
    if isinstance(block, DocumentBlock):
        return _document(block)
    if isinstance(block, CitableBlock):
        return "\n".join((block.title, block.source, *map(_text_in, block.content)))
    return ""


def _document(block: DocumentBlock) -> str:
    """Return the text of a document that is there; what only an address names is not fetched."""
    kind = block.document_mimetype or UNKNOWN
    if block.data or block.path:
        return document_text(block.resolve_document().read(), kind)
    return document_text(str(block.url or ""), kind)


def _prompted(prompt: str) -> Exchange:
    return Exchange((), (Message("user", prompt),))


# Whole answers.


def _text(response: _Response) -> str:
    if isinstance(response, CompletionResponse):
        return response.text
    return "".join(b.text for b in response.message.blocks if isinstance(b, TextBlock))


def _thought(response: _Response) -> str:
    blocks = _blocks(response)
    return "".join(block.content or "" for block in blocks if isinstance(block, ThinkingBlock))


def _blocks(response: _Response) -> Sequence[ContentBlock]:
    return response.message.blocks if isinstance(response, ChatResponse) else ()


def _calls(response: _Response) -> list[ToolCallBlock]:
    return [block for block in _blocks(response) if isinstance(block, ToolCallBlock)]


def _beside(response: _Response) -> Iterator[Part]:
    """Yield what a response says that is no text, thought or call."""
    for block in _blocks(response):
        known = isinstance(block, TextBlock | ThinkingBlock | ToolCallBlock)
        yield from lone_parts(block, _READ if known else ("block_type",))
    if isinstance(response, ChatResponse):
        yield from lone_parts(response.message.additional_kwargs)
    yield from lone_parts(response.additional_kwargs)
    yield from lone_parts(response.raw)


def _parts_of_calls(calls: Sequence[ToolCallBlock], changes: list[Json]) -> Iterator[Part]:
    for at, (call, change) in enumerate(zip(calls, changes, strict=True)):
        build: Any = object_part if isinstance(call.tool_kwargs, dict) else call_part
        yield build(at, call.tool_name, call.tool_kwargs, setter(change, "tool_kwargs"))
        yield from lone_parts(call.tool_name)


def _draft(response: _Response, turn: WholeTurn[_Response]) -> Draft[_Response]:
    """Return a response as a draft."""
    new: Json = {"text": _text(response), "thought": _thought(response)}
    calls = _calls(response)
    changes: list[Json] = [{} for _ in calls]
    parts = [
        text_part("reasoning", new["thought"], setter(new, "thought")),
        text_part("content", new["text"], setter(new, "text")),
        *_beside(response),
        *lone_parts(response.delta or ""),
    ]

    def made(changed: bool) -> list[_Response]:
        if turn.session.shadow:
            return [response]
        given = _without_tokens(response, new["text"])
        if changed:
            given = _rebuilt(given, new, _changed(calls, changes))
        return [_noted(given, turn.entry)]

    return Draft([*joined(parts), *_parts_of_calls(calls, changes)], made)


def _delivered(response: _Response, turn: WholeTurn[_Response]) -> _Response:
    """Return what may be delivered of a response."""
    if (whole := turn.delivered()) is not None:
        return next(iter(whole))
    return _noted(_saying(type(response), turn.session.notice(0)), _why(turn))


def _not_asked(verdict: Any, kind: type) -> _Response | None:
    if not verdict.message:
        return None
    why = {"finish_reason": "content_filter", "guard": detail(verdict)}
    return _noted(_saying(kind, verdict.message, verdict.message), why)


def _why(turn: WholeTurn[_Response] | StreamedTurn[_Response]) -> Json:
    """Return what is said of an answer that was not delivered as it came."""
    return ({"finish_reason": "content_filter"} if turn.refuses() else {}) | turn.entry


def _noted(response: _Response, entry: Json) -> _Response:
    if not entry:
        return response
    beside = response.additional_kwargs | entry
    return response.model_copy(update={"additional_kwargs": beside})


def _saying(kind: type, text: str, delta: str | None = None) -> _Response:
    """Return a response of our own."""
    if kind is CompletionResponse:
        return CompletionResponse(text=text, delta=delta)
    return ChatResponse(message=ChatMessage(role="assistant", content=text), delta=delta)


def _changed(calls: Sequence[ToolCallBlock], changes: Sequence[Json]) -> list[ToolCallBlock]:
    pairs = zip(calls, changes, strict=True)
    return [call.model_copy(update=change) if change else call for call, change in pairs]


def _rebuilt(response: _Response, new: Json, calls: Sequence[ToolCallBlock]) -> _Response:
    """Return a response with other texts; what a vendor's own form says of them is left out."""
    loose: Json = {"raw": None, "logprobs": None}
    if response.delta is not None:
        loose["delta"] = new["text"]
    if isinstance(response, CompletionResponse):
        return response.model_copy(update={"text": new["text"], **loose})
    blocks: list[Any] = []
    left = {"text": new["text"], "thought": new["thought"]}
    waiting = list(calls)
    for block in response.message.blocks:
        if isinstance(block, TextBlock):
            blocks.append(block.model_copy(update={"text": left["text"]}))
            left["text"] = ""
        elif isinstance(block, ThinkingBlock):
            same = new["thought"] == _thought(response)
            update = {"content": left["thought"], "additional_information": {}}
            blocks.append(block if same else block.model_copy(update=update))
            left["thought"] = ""
        else:
            blocks.append(waiting.pop(0) if isinstance(block, ToolCallBlock) else block)
    message = response.message.model_copy(update={"blocks": blocks})
    return response.model_copy(update={"message": message, **loose})


def _without_tokens(response: _Response, text: str) -> _Response:
    """Return a response without log-probabilities, unless they spell the text and no other."""
    tokens = response.logprobs
    if not tokens:
        return response
    spelled = "".join(each[0].token for each in tokens if each)
    if spelled == text and all(len(each) <= 1 for each in tokens):
        return response
    return response.model_copy(update={"logprobs": None})


# Streams.


class _Stream:
    """The responses of one answer, each with all that was said before it.

    Args:
        guard: judges.
        asked: what was asked.
        kind: of the responses.
    """

    def __init__(self, guard: Guard, asked: Exchange, kind: type) -> None:
        session = guard.session(asked, stream=True)
        self.turn: StreamedTurn[_Response] = StreamedTurn(session, self._say)
        self._kind = kind
        self._seen = {"text": "", "thought": ""}
        self._left = {"text": "", "thought": ""}
        self._tail: list[_Response] = []

    def feed(self, response: _Response) -> Steps:
        """Take a response; from the first call on they wait for the end."""
        if self._tail or _calls(response):
            self._tail.append(response)
        else:
            yield from self.turn.feed(self._draft(response, [], []))

    def finish(self) -> Steps:
        """Take the end of the stream."""
        with_calls = [response for response in self._tail if _calls(response)]
        calls = _calls(with_calls[-1]) if with_calls else []
        changes: list[Json] = [{} for _ in calls]
        for at, response in enumerate(self._tail):
            draft = self._draft(response, calls, changes)
            if not at:
                # The first of them shows a part of a call, so that it stands for the whole.
                draft.parts = [*draft.parts, *_parts_of_calls(calls, changes)]
            yield from self.turn.feed(draft)
        yield from self.turn.finish()

    def rest(self) -> Iterator[_Response]:
        """Yield what leaves behind the end, and why it is not as it came."""
        yield from self.turn.rest()
        if self.turn.entry:
            yield _noted(_saying(self._kind, self._left["text"], ""), _why(self.turn))

    def _draft(
        self, response: _Response, calls: list[ToolCallBlock], changes: list[Json]
    ) -> Draft[_Response]:
        new = {key: self._next(key, said) for key, said in _said(response).items()}
        came = new["text"]
        delta = response.delta or ""
        parts = [
            text_part("reasoning", new["thought"], setter(new, "thought")),
            text_part("content", new["text"], setter(new, "text")),
            *_beside(response),
            *(lone_parts(delta) if delta != came else ()),
        ]
        parts = [*joined(parts), *self._uncovered(response, calls)]

        def made(changed: bool) -> list[_Response]:
            self._left = {key: left + new[key] for key, left in self._left.items()}
            if self.turn.session.shadow:
                return [response]
            given = _without_tokens(response, came)
            if changed or self._left != _said(response) or any(changes):
                now = _changed(calls, changes)
                # A response from before all calls were there shows as many of them as it did.
                given = _rebuilt(given, dict(self._left), now[: len(_calls(response))])
                given = given.model_copy(update={"delta": new["text"] if came == delta else ""})
            return [given]

        return Draft(parts, made)

    def _next(self, key: str, said: str) -> str:
        """Return what is new in a text that may hold all that came before."""
        before = self._seen[key]
        new = said.removeprefix(before)
        self._seen[key] = before + new
        return new

    def _uncovered(self, response: _Response, calls: Sequence[ToolCallBlock]) -> Iterator[Part]:
        """Yield what an unfinished call says that the finished one does not."""
        for at, call in enumerate(_calls(response)):
            if at >= len(calls) or not _covered(call.tool_kwargs, calls[at].tool_kwargs):
                yield from lone_parts(call)

    def _say(self, text: str) -> list[_Response]:
        self._left["text"] += text
        return [_saying(self._kind, self._left["text"], text)]


def _said(response: _Response) -> dict[str, str]:
    return {"text": _text(response), "thought": _thought(response)}


def _covered(part: Any, whole: Any) -> bool:
    """Return whether a part of a document says nothing that the whole does not."""
    if isinstance(part, str) and isinstance(whole, str):
        return whole.startswith(part)
    if isinstance(part, dict) and isinstance(whole, dict):
        return all(key in whole and _covered(part[key], whole[key]) for key in part)
    if isinstance(part, list) and isinstance(whole, list):
        pairs = zip(part, whole, strict=False)
        return len(part) <= len(whole) and all(_covered(one, other) for one, other in pairs)
    return not part or part == whole


# What the framework tells of an LLM's answers.


def _quietened(llm: LLM) -> LLM:
    """Return a copy of an LLM whose methods tell nobody what they give."""
    kind = type(llm)
    # A method may call that of a base class, which then is the one of a quiet class before it.
    bases = [
        _quiet_class((base,), [name for name in _METHODS if name in vars(base)])
        for base in kind.__mro__[1:]
        if issubclass(base, LLM) and set(_METHODS) & set(vars(base))
    ]
    twin = llm.model_copy()
    object.__setattr__(twin, "__class__", _quiet_class((kind, *bases), _METHODS))
    return twin


def _quiet_class(bases: tuple[type, ...], names: Sequence[str]) -> type:
    """Return a class of the first base's name whose methods of `names` tell nobody."""
    quiet = type(bases[0].__name__, bases, {"__module__": bases[0].__module__})
    for name in names:
        # What is set behind the making of a class is not decorated by the framework.
        setattr(quiet, name, _bare(inspect.getattr_static(bases[0], name)))
    return quiet


def _bare(method: Any) -> Any:
    """Return a method without the framework's decorators that tell of it."""
    while True:
        if type(method).__module__.startswith("wrapt"):
            method = method.__wrapped__
        elif getattr(method, "__globals__", None) is vars(callbacks):
            method = inspect.getclosurevars(method).nonlocals["f"]
        else:
            return method
