"""pydantic-ai, guarded: a model whose answers were judged before an agent sees any of them.

    from guard import Guard
    from pydantic_ai import Agent

    agent = Agent(Guard.load("public").wrap(infer_model("openai:gpt-5.5")))

Runs, streams, events, histories, instrumentation around the model: all hear the guarded model
alone. Hooks behind a model's request (`after_model_request`) come too late for a stream. Where
an answer is blocked, its `finish_reason` is `content_filter`, which the framework's own
`RaiseContentFilterError` raises; its metadata say why under `guard`. An answer is never asked for
anew here: the class's `regenerate` counts as `replace`.

This module does not know how a text is judged or held back (`guard.adapters.turns`).
"""

from __future__ import annotations

from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from copy import deepcopy
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final

from guard.errors import InputError, MissingExtraError

try:
    from pydantic_ai.messages import (
        BaseToolCallPart,
        BaseToolReturnPart,
        BinaryContent,
        FileUrl,
        FinalResultEvent,
        ModelResponse,
        PartDeltaEvent,
        PartEndEvent,
        PartStartEvent,
        SystemPromptPart,
        TextPart,
        TextPartDelta,
        ThinkingPart,
        ThinkingPartDelta,
        ToolCallPartDelta,
        UserPromptPart,
    )
    from pydantic_ai.models import CompletedStreamedResponse, Model, StreamedResponse
    from pydantic_ai.models.wrapper import WrapperModel
except ImportError as error:
    raise MissingExtraError(error.name or "pydantic-ai", "pydantic-ai") from error

from guard.adapters.masking import aread_masked, masked
from guard.adapters.turns import (
    Draft,
    StreamedTurn,
    WholeTurn,
    call_part,
    lone_parts,
    object_part,
    text_part,
)
from guard.documents import document_text
from guard.exchange import Exchange, Message
from guard.wire.detail import detail
from guard.wire.parts import plain, setter
from guard.wire.tokens import prune

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Sequence
    from datetime import datetime

    from pydantic_ai import RunContext
    from pydantic_ai.messages import ModelMessage, ModelResponsePart, ModelResponseStreamEvent
    from pydantic_ai.models import ModelRequestContext, ModelRequestParameters
    from pydantic_ai.models.batch import BatchRequest, BatchResult
    from pydantic_ai.settings import ModelSettings
    from pydantic_ai.usage import RequestUsage

    from guard.engine import Guard
    from guard.exchange import ChannelKind
    from guard.verdict import Verdict
    from guard.wire.parts import Json, Part

_KEPT: Final = ("finish_reason", "timestamp", "service_tier", "system_fingerprint", "id", "model")
"""What is kept of a provider's details of an answer that is withheld."""

_CARRIED: Final = ("canonical_system", "failed_attempts")
"""What a stream keeps of the one inside it."""

_LOOSE: Final[dict[type, tuple[ChannelKind, dict[str, Any]]]] = {
    TextPart: ("content", {"citations": None}),
    TextPartDelta: ("content", {"citations_delta": None}),
    ThinkingPart: ("reasoning", {"signature": None, "id": None, "provider_details": None}),
    ThinkingPartDelta: ("reasoning", {"signature_delta": None, "provider_details": None}),
}
"""What does not fit a text any more once it reads otherwise: signatures, places in it."""

_NAMES: Final = ("id", "tool_call_id", "provider_name", "part_kind", "timestamp", "signature")
"""Fields of parts that hold no text of the model's."""


def wrap(guard: Guard, model: Model) -> GuardedModel:
    """Return a model whose answers are judged.

    Args:
        guard: judges.
        model: any of the framework's models.

    Raises:
        InputError: it is no model, or it is guarded already.
    """
    if not isinstance(model, Model):
        raise InputError(
            f"`{type(model).__name__}` is no model: wrap the model, and give it to the agent"
        )
    return GuardedModel(guard, model)


class GuardedModel(WrapperModel):
    """A model whose answers are judged before anybody sees them.

    Args:
        guard: judges.
        wrapped: the model that is asked, or its name.
    """

    def __init__(self, guard: Guard, wrapped: Model | str) -> None:
        """Ask nothing yet."""
        super().__init__(wrapped)
        if isinstance(self.wrapped, GuardedModel):
            raise InputError("the model is guarded already")
        self._guard = guard

    async def request(
        self,
        messages: list[ModelMessage],
        model_settings: ModelSettings | None,
        model_request_parameters: ModelRequestParameters,
    ) -> ModelResponse:
        """Ask the model; return what of its answer may be delivered."""
        asked = exchange_of(messages, self.model_name)
        if (refused := await self._not_asked(asked)) is not None:
            return refused
        with masked(self._guard):
            response = await super().request(messages, model_settings, model_request_parameters)
        return await self._judged(asked, response)

    @asynccontextmanager
    async def request_stream(
        self,
        messages: list[ModelMessage],
        model_settings: ModelSettings | None,
        model_request_parameters: ModelRequestParameters,
        run_context: RunContext[Any] | None = None,
    ) -> AsyncGenerator[StreamedResponse]:
        """Ask the model for a stream; what is read of it was judged."""
        asked = exchange_of(messages, self.model_name)
        if (refused := await self._not_asked(asked)) is not None:
            yield CompletedStreamedResponse(
                refused, model_request_parameters=model_request_parameters, replay_events=True
            )
            return
        opening = super().request_stream(
            messages, model_settings, model_request_parameters, run_context
        )
        async with AsyncExitStack() as stack:
            with masked(self._guard):
                inner = await stack.enter_async_context(opening)
            guarded = _GuardedResponse(
                model_request_parameters, guard=self._guard, asked=asked, inner=inner
            )
            try:
                yield guarded
            finally:
                await guarded.abandon()

    async def compact_messages(
        self, request_context: ModelRequestContext, *, instructions: str | None = None
    ) -> ModelResponse:
        """Have a history made shorter; return what of it may be delivered."""
        with masked(self._guard):
            response = await super().compact_messages(request_context, instructions=instructions)
        return await self._judged(exchange_of(request_context.messages, self.model_name), response)

    def batch_decode(self, result: BatchResult, request: BatchRequest) -> ModelResponse:
        """Return what of an answer in a batch may be delivered."""
        with masked(self._guard):
            response = super().batch_decode(result, request)
        turn = self._turn(exchange_of(request.messages, self.model_name))
        self._guard.driver.run(turn.judge([_draft(response, turn)]))
        return _delivered(response, turn)

    # Private parts.

    async def _not_asked(self, asked: Exchange) -> ModelResponse | None:
        """Return the answer where the model must not be asked."""
        if not self._guard.security_class.input_limits:
            return None
        verdict = await self._guard.acheck_input(asked)
        return _refusal(self.model_name, verdict) if verdict.message else None

    async def _judged(self, asked: Exchange, response: ModelResponse) -> ModelResponse:
        turn = self._turn(asked)
        await self._guard.driver.arun(turn.judge([_draft(response, turn)]))
        return _delivered(response, turn)

    def _turn(self, asked: Exchange) -> WholeTurn[ModelResponse]:
        return WholeTurn(self._guard.session(asked, stream=False))


def exchange_of(messages: Sequence[ModelMessage], model: str = "") -> Exchange:
    """Return what a model is given, without any answer."""
    named = [str(each.conversation_id) for each in messages if each.conversation_id]
    said = tuple(text for each in messages for text in _messages(each))
    return Exchange((), said, model=model, conversation=named[-1] if named else "")


def _messages(message: ModelMessage) -> Iterator[Message]:
    if isinstance(message, ModelResponse):
        yield Message("assistant", "\n".join(_said(part) for part in message.parts))
        return
    if message.instructions:
        yield Message("system", message.instructions)
    for part in message.parts:
        if isinstance(part, UserPromptPart):
            yield Message("user", _prompt(part.content))
        elif isinstance(part, SystemPromptPart):
            yield Message("system", part.content)
        elif isinstance(part, BaseToolReturnPart):
            said = [part.model_response_str(), *map(_text, part.files)]
            yield Message("tool", "\n".join(filter(None, said)), part.tool_name)
        elif isinstance(content := getattr(part, "content", None), str):
            yield Message("user", content)


def _said(part: ModelResponsePart) -> str:
    content = getattr(part, "content", None)
    return content if isinstance(content, str) else ""


def _prompt(content: Any) -> str:
    if isinstance(content, str):
        return content
    return "\n".join(filter(None, map(_text, content)))


def _text(item: Any) -> str:
    """Return the text of a part of what a user or a tool gives, `""` where it has none."""
    if isinstance(item, BinaryContent):
        return document_text(item.data, item.media_type)
    if isinstance(item, FileUrl):
        return document_text(item.url)
    text = item if isinstance(item, str) else getattr(item, "content", "")
    return text if isinstance(text, str) else ""


# Whole answers.


def _draft(response: ModelResponse, turn: WholeTurn[ModelResponse]) -> Draft[ModelResponse]:
    """Return a response as a draft."""
    said = "".join(part.content for part in response.parts if isinstance(part, TextPart))
    details, pruned = _pruned(response.provider_details, said)
    changes: list[Json] = [{} for _ in response.parts]
    parts: list[Part] = []
    for at, part in enumerate(response.parts):
        parts += _parts_of(part, at, changes[at])
    parts += _beside(details, response.metadata)

    def made(changed: bool) -> list[ModelResponse]:  # noqa: FBT001  # as `Draft` calls it
        entry = turn.entry
        if not (changed or entry or (pruned and not turn.session.shadow)):
            return [response]
        given: Json = {"parts": list(map(_rebuilt(turn), response.parts, changes))}
        if entry:
            given["metadata"] = (response.metadata or {}) | entry
        given["provider_details"] = _without_tokens(details) if changed else details
        return [replace(response, **given)]

    return Draft(parts, made)


def _delivered(response: ModelResponse, turn: WholeTurn[ModelResponse]) -> ModelResponse:
    """Return what may be delivered of a response."""
    if (whole := turn.delivered()) is not None:
        return next(iter(whole))
    notice = turn.session.notice(0)
    given = _ended(turn.refuses(), notice, response.provider_details)
    return replace(
        response, parts=[TextPart(notice)], state="complete", metadata=turn.entry, **given
    )


def _refusal(model: str, verdict: Verdict) -> ModelResponse:
    """Return the answer where the model must not be asked."""
    return ModelResponse(
        parts=[TextPart(verdict.message)],
        model_name=model,
        metadata={"guard": detail(verdict)},
        **_ended(True, verdict.message, None),  # noqa: FBT003  # it is a refusal
    )


def _ended(refuses: bool, notice: str, details: Json | None) -> Json:  # noqa: FBT001  # one of two
    """Return how an answer ends that is withheld."""
    kept = plain(details or {}, _KEPT)
    if refuses:
        return {
            "finish_reason": "content_filter",
            "provider_details": kept | {"refusal": notice},
        }
    return {"finish_reason": "stop", "provider_details": kept or None}


def _pruned(details: Json | None, said: str) -> tuple[Json | None, bool]:
    """Return a provider's details without tokens that are not what was said."""
    if not (details or {}).get("logprobs"):
        return details, False
    copied = deepcopy(details)
    return copied, prune(copied or {}, said)


def _without_tokens(details: Json | None) -> Json | None:
    return {k: v for k, v in (details or {}).items() if k != "logprobs"} or None


def _beside(details: Json | None, metadata: Json | None) -> Iterator[Part]:
    """Yield what is said beside the parts."""
    yield from lone_parts(_without_tokens(details) or {})
    yield from lone_parts(metadata or {})


def _rebuilt(turn: WholeTurn[Any] | StreamedTurn[Any]) -> Any:
    """Return what builds a part, or a delta of one, with changes."""

    def rebuilt(part: Any, changes: Json) -> Any:
        loose: Json = {}
        if (known := _LOOSE.get(type(part))) is not None and turn.altered(known[0]):
            loose = {name: value for name, value in known[1].items() if getattr(part, name, None)}
        return replace(part, **changes, **loose) if changes or loose else part

    return rebuilt


def _parts_of(part: ModelResponsePart, at: int, changes: Json) -> Iterator[Part]:
    """Yield the texts of a part; others in their places are written to `changes`."""
    if isinstance(part, TextPart):
        yield text_part("content", part.content, setter(changes, "content"))
    elif isinstance(part, ThinkingPart):
        yield text_part("reasoning", part.content, setter(changes, "content"))
    elif isinstance(part, BaseToolCallPart):
        build = object_part if isinstance(part.args, dict) else call_part
        args: Any = part.args or ""
        yield build(at, part.tool_name, args, setter(changes, "args"))
    read = isinstance(part, TextPart | ThinkingPart | BaseToolCallPart)
    yield from lone_parts(part, (*_NAMES, "content", "args") if read else _NAMES)


# Streams.


@dataclass(kw_only=True)
class _GuardedResponse(StreamedResponse):
    """A stream of a model, of which nothing is shown that was not judged."""

    guard: Guard = field(repr=False)
    asked: Exchange = field(repr=False)
    inner: StreamedResponse = field(repr=False)

    def __post_init__(self) -> None:
        """Read nothing yet."""
        session = self.guard.session(self.asked, stream=True)
        self._turn: StreamedTurn[ModelResponseStreamEvent | str] = StreamedTurn(
            session, lambda text: [text]
        )
        for name in _CARRIED:
            # Not every version has all of them.
            if hasattr(self.inner, name):
                setattr(self, name, getattr(self.inner, name))

    @property
    def model_name(self) -> str:
        """The inner stream's."""
        return self.inner.model_name

    @property
    def provider_name(self) -> str | None:
        """The inner stream's."""
        return self.inner.provider_name

    @property
    def provider_url(self) -> str | None:
        """The inner stream's."""
        return self.inner.provider_url

    @property
    def timestamp(self) -> datetime:
        """The inner stream's."""
        return self.inner.timestamp

    @property
    def usage(self) -> RequestUsage:
        """What the inner stream has cost so far."""
        return self.inner.usage

    def get_stream_cancel_errors(self) -> tuple[type[BaseException], ...]:
        """Return the inner stream's."""
        return self.inner.get_stream_cancel_errors()

    async def close_stream(self) -> None:
        """Close the inner stream."""
        await self.inner.cancel()

    async def abandon(self) -> None:
        """Close the journal's row of a stream that is not read on."""
        await self.guard.driver.arun(self._turn.abandon())

    async def _get_event_iterator(self) -> AsyncIterator[ModelResponseStreamEvent]:
        driver = self.guard.driver
        async with aclosing(aread_masked(self.guard, self.inner)) as events:
            async for event in events:
                # The framework makes these anew of what leaves.
                if isinstance(event, PartEndEvent | FinalResultEvent):
                    continue
                await driver.arun(self._turn.feed(self._draft(event)))
                for ready in self._turn.ready():
                    yield self._applied(ready)
        if self.cancelled:
            return
        said = "".join(p.content for p in self.inner.get().parts if isinstance(p, TextPart))
        details, _ = _pruned(self.inner.provider_details, said)
        beside = _beside(details, self.inner.metadata)
        await driver.arun(self._turn.feed(Draft(beside, lambda _: ())))
        await driver.arun(self._turn.finish())
        self._close(details)
        for ready in self._turn.rest():
            yield self._applied(ready)

    def _close(self, details: Json | None) -> None:
        """Take over what the inner stream says of its answer."""
        turn, inner = self._turn, self.inner
        self.provider_response_id = inner.provider_response_id
        if turn.session.withheld(0):
            given = _ended(turn.refuses(), turn.session.notice(0), details)
            self.finish_reason = given["finish_reason"]
            self.provider_details = given["provider_details"]
            self.metadata = turn.entry
            return
        self.state, self.finish_reason = inner.state, inner.finish_reason
        self.provider_details = _without_tokens(details) if turn.altered("content") else details
        self.metadata = (inner.metadata or {}) | turn.entry or inner.metadata

    def _draft(
        self, event: PartStartEvent | PartDeltaEvent
    ) -> Draft[ModelResponseStreamEvent | str]:
        changes: Json = {}
        name: str = "part" if isinstance(event, PartStartEvent) else "delta"
        value: Any = getattr(event, name)
        if isinstance(event, PartStartEvent):
            parts = _parts_of(event.part, event.index, changes)
        else:
            parts = _parts_of_delta(event.delta, event.index, changes)

        def made(_: bool) -> list[ModelResponseStreamEvent | str]:  # noqa: FBT001  # as `Draft` says
            built = _rebuilt(self._turn)(value, changes)
            return [event if built is value else replace(event, **{name: built})]

        return Draft(list(parts), made)

    def _applied(self, leaving: ModelResponseStreamEvent | str) -> ModelResponseStreamEvent:
        """Take an event, or a text of our own, into the response that it is a part of."""
        event = self._saying(leaving) if isinstance(leaving, str) else leaving
        self._parts_manager.apply_event(event)
        return event

    def _saying(self, text: str) -> ModelResponseStreamEvent:
        """Return what says a text of our own, in the last part where it is a text."""
        parts = self._parts_manager.get_parts()
        if parts and type(parts[-1]) is TextPart:
            return PartDeltaEvent(index=len(parts) - 1, delta=TextPartDelta(content_delta=text))
        return PartStartEvent(index=len(parts), part=TextPart(text))


def _parts_of_delta(delta: Any, at: int, changes: Json) -> Iterator[Part]:
    """As `_parts_of`, for a piece of a part."""
    known: tuple[str, ...] = (*_NAMES, "content_delta", "part_delta_kind", "signature_delta")
    if isinstance(delta, TextPartDelta):
        yield text_part("content", delta.content_delta, setter(changes, "content_delta"))
    elif isinstance(delta, ThinkingPartDelta):
        yield text_part("reasoning", delta.content_delta or "", setter(changes, "content_delta"))
    elif isinstance(delta, ToolCallPartDelta) and isinstance(delta.args_delta, str):
        known = (*known, "args_delta")
        yield call_part(at, "", delta.args_delta, setter(changes, "args_delta"))
    else:
        known = _NAMES
    yield from lone_parts(delta, known)
