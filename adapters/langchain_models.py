"""The guarded chat model, in the place of the one that it wraps.

It is one run of the framework: the inner model's private methods are called without a run
manager and unheard, so that callbacks, tracers and streams hear the guarded model alone. The
framework's own machinery around it (identifiers, caches, rate limits, events of all versions)
works on answers that were judged.

This module does not know how an answer is read or refused (`guard.adapters.langchain_answers`).
"""

# ruff: noqa: SLF001  # partner packages implement these methods; they are the framework's seam

from __future__ import annotations

import time
from collections.abc import Callable  # noqa: TC003  # pydantic reads it
from contextlib import aclosing, closing
from typing import TYPE_CHECKING, Any, Final

from langchain_core.caches import BaseCache
from langchain_core.globals import get_llm_cache
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessageChunk, BaseMessage, SystemMessage
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
from pydantic import Field, model_validator

from guard.adapters.langchain_answers import StreamedAnswer, WholeAnswer, refused
from guard.adapters.langchain_caches import Cautious, state_of
from guard.adapters.langchain_chains import GuardRunnable
from guard.adapters.langchain_messages import exchange_of
from guard.adapters.langchain_quiet import (
    aquiet_iterator,
    conversation,
    masked,
    quiet_iterator,
    unheard,
)
from guard.adapters.langchain_trees import Tree
from guard.engine import Guard  # noqa: TC001  # pydantic reads it
from guard.errors import InputError
from guard.exchange import Exchange
from guard.verdict import Verdict  # noqa: TC001  # pydantic reads it
from guard.wire.detail import detail

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Sequence

    from langchain_core.callbacks import (
        AsyncCallbackManagerForLLMRun,
        CallbackManagerForLLMRun,
    )
    from langchain_core.language_models import LanguageModelInput
    from langchain_core.messages import AIMessage
    from langchain_core.runnables import Runnable

    from guard.session import Session
    from guard.steps import Deployment

_MIRRORED: Final = (
    "cache",
    "callbacks",
    "custom_get_token_ids",
    "disable_streaming",
    "metadata",
    "name",
    "output_version",
    "profile",
    "rate_limiter",
    "streaming",
    "tags",
    "verbose",
)
"""Fields that are the inner model's, unless they are given."""

_STRUCTURED: Final = frozenset(
    {
        "format",
        "json_schema",
        "output_config",
        "output_format",
        "response_format",
        "response_json_schema",
        "response_mime_type",
        "response_schema",
    }
)
"""Arguments by which vendors' packages ask for a document of a schema."""


def _ignore(_: Verdict) -> None:
    """Do nothing with a verdict."""


class GuardedChatModel(BaseChatModel):
    """A chat model whose answers are judged before anybody sees them.

    Attributes:
        guard: judges.
        inner: the model that is asked.
        on_verdict: called with the verdict on every exchange that was seen to its end, and on
            every input that was refused; on the thread or task of the call.
        streaming: as the inner model's, where it has one.
    """

    guard: Guard = Field(exclude=True, repr=False)
    inner: BaseChatModel
    on_verdict: Callable[[Verdict], None] = Field(default=_ignore, exclude=True, repr=False)
    streaming: bool = False

    @model_validator(mode="before")
    @classmethod
    def _mirror(cls, values: Any) -> Any:
        """Take over from the inner model what the framework reads of a model."""
        inner = values.get("inner") if isinstance(values, dict) else None
        if not isinstance(inner, BaseChatModel):
            return values
        if isinstance(inner, GuardedChatModel):
            raise InputError("the model is guarded already")
        mirrored = {name: getattr(inner, name) for name in _MIRRORED if hasattr(inner, name)}
        if "streaming" not in inner.model_fields_set:
            mirrored.pop("streaming", None)
        if not (_streams(inner) or _astreams(inner)):
            mirrored["disable_streaming"] = True
        return mirrored | values

    @property
    def model_name(self) -> str:
        """The name of the inner model, `""` where it has none."""
        named = (getattr(self.inner, key, None) for key in ("model_name", "model", "model_id"))
        return next((name for name in named if isinstance(name, str)), "")

    def bind_tools(
        self, tools: Sequence[Any], **kwargs: Any
    ) -> Runnable[LanguageModelInput, AIMessage]:
        """Bind tools to the model, in the way of the inner one."""
        return self._guarded(self.inner.bind_tools(tools, **kwargs))

    def with_structured_output(
        self, schema: Any, **kwargs: Any
    ) -> Runnable[LanguageModelInput, Any]:
        """Return a chain that gives documents of a schema, made as the inner model makes it."""
        return self._guarded(self.inner.with_structured_output(schema, **kwargs))

    def get_num_tokens(self, text: str) -> int:
        """Count a text's tokens as the inner model does."""
        return self.inner.get_num_tokens(text)

    def get_token_ids(self, text: str) -> list[int]:
        """Return a text's tokens as the inner model does."""
        return self.inner.get_token_ids(text)

    def get_num_tokens_from_messages(self, messages: list[BaseMessage], tools: Any = None) -> int:
        """Count messages' tokens as the inner model does."""
        return self.inner.get_num_tokens_from_messages(messages, tools)

    # What the framework calls.

    @property
    def _llm_type(self) -> str:
        return self.inner._llm_type

    @property
    def _identifying_params(self) -> dict[str, Any]:
        return dict(self.inner._identifying_params)

    def _get_invocation_params(
        self, stop: list[str] | None = None, **kwargs: Any
    ) -> dict[str, Any]:
        return self.inner._get_invocation_params(stop=stop, **kwargs)

    def _get_ls_params(self, stop: list[str] | None = None, **kwargs: Any) -> Any:
        return self.inner._get_ls_params(stop=stop, **kwargs)

    def _get_llm_string(self, stop: list[str] | None = None, **kwargs: Any) -> str:
        """Return the cache's key: what another guard let pass is another answer.

        So is what this one let pass under another posture or at other risks.
        """
        known = self.cache
        state = known.state if isinstance(known, Cautious) else state_of(self._deployment())
        return f"guard:{state}:{self.inner._get_llm_string(stop=stop, **kwargs)}"

    def _generate_with_cache(self, *args: Any, **kwargs: Any) -> ChatResult:
        return BaseChatModel._generate_with_cache(self._cautious(), *args, **kwargs)

    async def _agenerate_with_cache(self, *args: Any, **kwargs: Any) -> ChatResult:
        return await BaseChatModel._agenerate_with_cache(self._cautious(), *args, **kwargs)

    def _cautious(self) -> GuardedChatModel:
        """Return the model for one call, with a cache that does not keep everything."""
        cache = self.cache if isinstance(self.cache, BaseCache) else get_llm_cache()
        if self.cache is False or cache is None:
            return self
        return self.model_copy(update={"cache": Cautious(cache, self._deployment())})

    def _deployment(self) -> Deployment:
        """Return by what an answer would be judged now."""
        asked = Exchange((), conversation=conversation())
        return self.guard.session(asked, stream=False).deployment

    def _combine_llm_outputs(self, outputs: list[dict[str, Any] | None], /) -> dict[str, Any]:
        return self.inner._combine_llm_outputs(outputs)

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,  # noqa: ARG002  # see above
        **kwargs: Any,
    ) -> ChatResult:
        call = _Call(self, messages, kwargs)
        if call.judges_input and (said := call.refusal(self.guard.check_input(call.exchange))):
            return ChatResult(generations=[said])
        while True:
            with unheard(), masked(self.guard):
                result = self.inner._generate(call.messages, stop=stop, **kwargs)
            answer = WholeAnswer(call.session(stream=False), result, call.gated)
            self.guard.driver.run(answer.judge())
            if not (answer.regenerate and call.may_ask_again):
                return call.delivered(answer)
            call.ask_again(answer)
            if self.rate_limiter:
                self.rate_limiter.acquire(blocking=True)

    async def _agenerate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,  # noqa: ARG002  # see above
        **kwargs: Any,
    ) -> ChatResult:
        call = _Call(self, messages, kwargs)
        if call.judges_input and (
            said := call.refusal(await self.guard.acheck_input(call.exchange))
        ):
            return ChatResult(generations=[said])
        while True:
            with unheard(), masked(self.guard):
                result = await self.inner._agenerate(call.messages, stop=stop, **kwargs)
            answer = WholeAnswer(call.session(stream=False), result, call.gated)
            await self.guard.driver.arun(answer.judge())
            if not (answer.regenerate and call.may_ask_again):
                return call.delivered(answer)
            call.ask_again(answer)
            if self.rate_limiter:
                await self.rate_limiter.aacquire(blocking=True)

    def _stream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,  # noqa: ARG002  # see above
        **kwargs: Any,
    ) -> Iterator[ChatGenerationChunk]:
        call = _Call(self, messages, kwargs)
        if call.judges_input and (said := call.refusal(self.guard.check_input(call.exchange))):
            yield _chunk_of(said)
            return
        while True:
            answer = StreamedAnswer(
                call.session(stream=True), call.gated, patient=call.may_ask_again
            )
            if _streams(self.inner):
                chunks = self.inner._stream(call.messages, stop=stop, **kwargs)
            else:
                chunks = self._in_one(call, stop, kwargs)
            yield from self._relayed(answer, chunks)
            if not answer.regenerate:
                return
            call.ask_again()
            if self.rate_limiter:
                self.rate_limiter.acquire(blocking=True)

    async def _astream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,  # noqa: ARG002  # see above
        **kwargs: Any,
    ) -> AsyncIterator[ChatGenerationChunk]:
        call = _Call(self, messages, kwargs)
        if call.judges_input and (
            said := call.refusal(await self.guard.acheck_input(call.exchange))
        ):
            yield _chunk_of(said)
            return
        while True:
            answer = StreamedAnswer(
                call.session(stream=True), call.gated, patient=call.may_ask_again
            )
            chunks = self.inner._astream(call.messages, stop=stop, **kwargs)
            async with aclosing(self._arelayed(answer, chunks)) as relayed:
                async for chunk in relayed:
                    yield chunk
            if not answer.regenerate:
                return
            call.ask_again()
            if self.rate_limiter:
                await self.rate_limiter.aacquire(blocking=True)

    # Private parts.

    def _relayed(
        self, answer: StreamedAnswer, chunks: Iterator[ChatGenerationChunk]
    ) -> Iterator[ChatGenerationChunk]:
        driver = self.guard.driver
        try:
            with masked(self.guard), closing(quiet_iterator(chunks)) as source:
                for chunk in source:
                    driver.run(answer.feed(chunk))
                    yield from answer.ready()
                    if answer.regenerate:
                        break
            driver.run(answer.finish())
            self._told(answer)
            yield from answer.rest()
        finally:
            driver.run(answer.abandon())

    async def _arelayed(
        self, answer: StreamedAnswer, chunks: AsyncIterator[ChatGenerationChunk]
    ) -> AsyncGenerator[ChatGenerationChunk]:
        driver = self.guard.driver
        try:
            with masked(self.guard):
                async with aclosing(aquiet_iterator(chunks)) as source:
                    async for chunk in source:
                        await driver.arun(answer.feed(chunk))
                        for ready in answer.ready():
                            yield ready
                        if answer.regenerate:
                            break
            await driver.arun(answer.finish())
            self._told(answer)
            for ready in answer.rest():
                yield ready
        finally:
            await driver.arun(answer.abandon())

    def _told(self, answer: StreamedAnswer) -> None:
        if not answer.regenerate:
            self._note(answer.verdict, answer.session.deployment)
            self.on_verdict(answer.verdict)

    def _note(self, verdict: Verdict, deployment: Deployment) -> None:
        """Have a cache know how an answer was judged."""
        if isinstance(self.cache, Cautious):
            self.cache.note(verdict, deployment)
            self.cache.judged_by(deployment)

    def _note_input(self, verdict: Verdict) -> None:
        """Have a cache know how what is asked was judged."""
        if isinstance(self.cache, Cautious):
            self.cache.note(verdict, self.guard.input_session(Exchange(())).deployment)

    def _in_one(
        self, call: _Call, stop: list[str] | None, kwargs: dict[str, Any]
    ) -> Iterator[ChatGenerationChunk]:
        """Yield a whole answer as a chunk: the model streams asynchronously alone."""
        result = self.inner._generate(call.messages, stop=stop, **kwargs)
        yield from map(_chunk_of, result.generations)

    def _guarded(self, runnable: Runnable[Any, Any]) -> Runnable[Any, Any]:
        """Return what the inner model built around itself, built around this one.

        Raises:
            InputError: the inner model is out of sight in it.
        """
        built = Tree(self._twin, _CLOSED).changed(runnable)
        if built is runnable:
            raise InputError(
                f"`{type(self.inner).__name__}` builds a `{type(runnable).__name__}` in which the "
                "model cannot be found, so that it cannot be guarded"
            )
        return built  # type: ignore[no-any-return]

    def _twin(self, model: BaseChatModel) -> BaseChatModel:
        if isinstance(model, GuardedChatModel):
            return model
        return self if model is self.inner else self.model_copy(update={"inner": model})


class _Call:
    """One call of a guarded model: what it is asked, and how often it was.

    Args:
        model: the guarded one.
        messages: what it is asked.
        kwargs: the call's further arguments.
    """

    def __init__(
        self, model: GuardedChatModel, messages: Sequence[BaseMessage], kwargs: dict[str, Any]
    ) -> None:
        """Begin before the first answer."""
        self._model = model
        self.messages = list(messages)
        self.exchange = exchange_of(messages, model=model.model_name, conversation=conversation())
        structured = any(kwargs.get(key) for key in _STRUCTURED)
        self.gated: tuple[Any, ...] = ("tool_call", "content") if structured else ("tool_call",)
        settings = model.guard.security_class.regenerate
        limits = model.guard.security_class.limits.values()
        asks_again = any(limit.remedy == "regenerate" for limit in limits)
        self._left = settings.attempts if asks_again else 0
        self._instruction = settings.instruction
        self._until = time.monotonic() + settings.seconds
        self._withdrawn: list[WholeAnswer] = []
        self._corrected = False

    @property
    def judges_input(self) -> bool:
        """Whether the class has judged what the model is given."""
        return bool(self._model.guard.security_class.input_limits)

    @property
    def may_ask_again(self) -> bool:
        """Whether the model may be asked once more."""
        return self._left > 0 and time.monotonic() < self._until

    def session(self, *, stream: bool) -> Session:
        """Return the state of the next answer."""
        return self._model.guard.session(self.exchange, stream=stream)

    def ask_again(self, withdrawn: WholeAnswer | None = None) -> None:
        """Ask with the class's instruction to do better."""
        if not self._corrected:
            self.messages.append(SystemMessage(self._instruction))
        self._corrected = True
        self._left -= 1
        self._withdrawn += [withdrawn] if withdrawn else []

    def delivered(self, answer: WholeAnswer) -> ChatResult:
        """Return what may be delivered of the last answer."""
        self._model._note(answer.verdict, answer.session.deployment)
        self._model.on_verdict(answer.verdict)
        return answer.delivered(self._withdrawn)

    def refusal(self, verdict: Verdict) -> ChatGeneration | None:
        """Take in the verdict on what is asked; return the answer if the model must not be."""
        self._model._note_input(verdict)
        if not verdict.message:
            return None
        self._model.on_verdict(verdict)
        provider = self._model._get_ls_params().get("ls_provider")
        metadata = {"model_provider": provider, "guard": detail(verdict)}
        message = refused(verdict.message, metadata, {"refusal": verdict.message})
        return ChatGeneration(message=message, generation_info={"finish_reason": "stop"})


def guarded_tree(guard: Guard, target: Any, options: dict[str, Any]) -> Any:
    """Return a runnable with every chat model in it guarded, `None` where none can be seen.

    Raises:
        InputError: one of them is guarded already, or cannot be.
    """

    def guarded(model: BaseChatModel) -> BaseChatModel:
        if isinstance(model, GuardedChatModel):
            raise InputError("the model is guarded already")
        return GuardedChatModel(guard=guard, inner=model, **options)

    built = Tree(guarded, _CLOSED).changed(target)
    return None if built is target else built


_CLOSED: Final = (GuardedChatModel, GuardRunnable)
"""What is guarded, so that a bare model in it answers nobody."""


def _streams(model: BaseChatModel) -> bool:
    return type(model)._stream is not BaseChatModel._stream


def _astreams(model: BaseChatModel) -> bool:
    return type(model)._astream is not BaseChatModel._astream


def _chunk_of(generation: ChatGeneration) -> ChatGenerationChunk:
    """Return a whole answer as a chunk."""
    given = generation.message.model_dump(exclude={"type"})
    return ChatGenerationChunk(
        message=AIMessageChunk(**given), generation_info=generation.generation_info
    )
