"""LiteLLM, guarded: a guardrail for its proxy, and its `completion` functions for programs.

The proxy's `config.yaml` names the guardrail:

    guardrails:
      - guardrail_name: clearance
        litellm_params:
          guardrail: guard.adapters.litellm.GuardLiteLLM
          mode: [pre_call, post_call]
          default_on: true
          security_class: public

In a program, where LiteLLM runs no hooks around streams and synchronous calls:

    llm = Guard.load("public").wrap(litellm)  # or a `litellm.Router`
    llm.completion(model="gpt-5.5", messages=[...], stream=True)

Chat completions, the Responses API and Messages are judged, whole or streamed, whichever
provider answers. LiteLLM's own callbacks run inside of it, before the guard: what was withheld
from the client is redacted there, too, save for the provider's raw answer in
`log_post_api_call`.

This module does not know the formats, and not how a text is judged or held back
(`guard.adapters.litellm_answers`).
"""

from __future__ import annotations

import inspect
import re
from contextlib import aclosing, closing
from typing import TYPE_CHECKING, Any, Final

from guard.errors import ConfigurationError, InputError, MissingExtraError

try:
    from litellm.exceptions import BadRequestError
    from litellm.integrations.custom_guardrail import CustomGuardrail
    from litellm.types.guardrails import GuardrailEventHooks
    from litellm.types.utils import ModelResponse
except ImportError as error:
    raise MissingExtraError(error.name or "litellm", "litellm") from error

from guard.adapters.litellm_answers import (
    CHAT,
    StreamedAnswer,
    WholeAnswer,
    call_of,
    form_of,
    refused,
)
from guard.adapters.masking import aread_masked, masked, read_masked, stand_in, told, withholds
from guard.engine import Guard
from guard.wire.formats import is_open

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterable, Generator, Iterable, Mapping

    from guard.wire.formats import Call
    from guard.wire.transport import Unguarded

_HOOKS: Final = (
    "async_pre_call_hook",
    "async_post_call_success_hook",
    "async_post_call_streaming_iterator_hook",
)

_HOOKED: Final = frozenset(
    {
        *("completion", "acompletion", "responses", "aresponses"),
        *("anthropic_messages", "aanthropic_messages"),
        *("aget_responses", "adelete_responses", "acancel_responses", "acompact_responses"),
    }
)
"""Kinds of calls around whose answers LiteLLM runs a guardrail's hooks, whole and streamed."""

_OPEN: Final = re.compile(r"/(rerank|batches|fine_tuning/jobs)(/[^/]+)?$")
"""How further paths end whose answers hold no text of a model's."""

_QUIET: Final = "turn_off_message_logging"
"""LiteLLM's option to have texts redacted before its callbacks are called."""

_PARAMETERS: Final = "standard_callback_dynamic_params"
"""Where LiteLLM keeps such options of a request."""

_ORIGINALS: Final = ("original_response", "httpx_response")
"""Where LiteLLM keeps the provider's own answer for its callbacks."""


def wrap(guard: Guard, target: Any) -> GuardedCompletions:
    """Return LiteLLM's `completion` and `acompletion`, guarded.

    Args:
        guard: judges.
        target: the module `litellm`, or a `litellm.Router`.

    Raises:
        InputError: it has no such functions.
    """
    return GuardedCompletions(guard, target)


class GuardedCompletions:
    """The functions `completion` and `acompletion` of LiteLLM, or of a router, guarded.

    They take what LiteLLM's take, and give what those give; streams are plain iterators of
    LiteLLM's chunks. Nothing else of LiteLLM is here, so that nothing leaves unjudged.

    Args:
        guard: judges.
        owner: has the functions.

    Raises:
        InputError: it has no such functions.
    """

    def __init__(self, guard: Guard, owner: Any) -> None:
        """Ask nothing yet."""
        if not callable(getattr(owner, "acompletion", None)):
            raise InputError(
                f"`{type(owner).__name__}` has no `acompletion`: wrap the module `litellm` or a "
                "`litellm.Router`"
            )
        self._guard = guard
        self._owner = owner

    def completion(self, *args: Any, **options: Any) -> Any:
        """Ask as `litellm.completion` does; return what may be delivered."""
        call, options = self._prepared(self._owner.completion, args, options)
        if call.judges_input:
            verdict = self._guard.check_input(call.asked.exchange)
            if verdict.message:
                chunks = refused(call, call.refusal(verdict))
                return chunks if call.asked.stream else next(chunks)
        with masked(self._guard):
            answer = self._owner.completion(*args, **options)
        if not isinstance(answer, ModelResponse):
            return _streamed(call, answer)
        whole = WholeAnswer(call, answer)
        self._guard.driver.run(whole.judge())
        return whole.delivered()

    async def acompletion(self, *args: Any, **options: Any) -> Any:
        """As `completion`, asynchronous."""
        call, options = self._prepared(self._owner.acompletion, args, options)
        if call.judges_input:
            verdict = await self._guard.acheck_input(call.asked.exchange)
            if verdict.message:
                chunks = refused(call, call.refusal(verdict))
                return _each(chunks) if call.asked.stream else next(chunks)
        with masked(self._guard):
            answer = await self._owner.acompletion(*args, **options)
        if not isinstance(answer, ModelResponse):
            return _astreamed(call, answer)
        whole = WholeAnswer(call, answer)
        await self._guard.driver.arun(whole.judge())
        return whole.delivered()

    def _prepared(
        self, function: Any, args: tuple[Any, ...], options: dict[str, Any]
    ) -> tuple[Call, dict[str, Any]]:
        """Return the way of a call through the guard, and the options that it is made with."""
        given = inspect.signature(function).bind(*args, **options).arguments
        data = given | given.pop("kwargs", {})
        return call_of(self._guard, CHAT, data), {_QUIET: True} | options


class GuardLiteLLM(CustomGuardrail):
    """A guardrail of LiteLLM's proxy that judges whole answers, streams and prompts.

    It holds a stream back until its text was judged; a prompt is judged where the class has an
    `input` section. A class of your own derives from it to load a guard in another way.

    Args:
        guard: judges; made of `security_class` where it is not given.
        security_class: a built-in class's name, or a path to a policy file.
        unguarded: `pass` to let pass what cannot be guarded (text completions, speech, images).
        options: LiteLLM's own, as in its `config.yaml`.

    Raises:
        ConfigurationError: no class is named, or its `mode` would leave something unjudged.
    """

    use_native_lifecycle_hooks = True

    def __init_subclass__(cls, **options: Any) -> None:
        """Have LiteLLM find the hooks: it passes over those that a class inherits."""
        super().__init_subclass__(**options)
        for name in _HOOKS:
            if name not in vars(cls):
                setattr(cls, name, getattr(cls, name))

    def __init__(
        self,
        guard: Guard | None = None,
        *,
        security_class: str | None = None,
        unguarded: Unguarded = "refuse",
        **options: Any,
    ) -> None:
        """Load the guard, and check the mode."""
        if guard is None and security_class is None:
            raise ConfigurationError(
                "name the `security_class` in the guardrail's `litellm_params`, such as `public`"
            )
        if unguarded not in ("refuse", "pass"):
            raise ConfigurationError(f"`unguarded` is `refuse` or `pass`, not `{unguarded}`")
        self.guard = guard or Guard.load(security_class or "")
        self.unguarded = unguarded
        _check_mode(options.get("event_hook"), judges_input=bool(self._limits))
        supported = [GuardrailEventHooks.pre_call, GuardrailEventHooks.post_call]
        super().__init__(**{"supported_event_hooks": supported, **options})

    @property
    def _limits(self) -> Mapping[str, Any]:
        return self.guard.security_class.input_limits

    async def async_pre_call_hook(
        self,
        user_api_key_dict: Any,
        cache: Any,
        data: dict[str, Any],
        call_type: Any,
    ) -> Any:
        """Judge what a model is given, where the class has it judged.

        Raises:
            litellm.exceptions.ModifyResponseException: it is refused; LiteLLM answers with the
                class's message.
            litellm.exceptions.BadRequestError: its answer could not be guarded.
        """
        del cache
        route = _route(user_api_key_dict)
        form = form_of(None, route) or (CHAT if route is None else None)
        if form is None or not (route is None or _is_hooked(call_type, data)):
            self._admit(route, data)
        elif self._limits:
            call = call_of(self.guard, form, data)
            verdict = await self.guard.acheck_input(call.asked.exchange)
            if verdict.message:
                self.raise_passthrough_exception(verdict.message, data)
        return data

    async def async_post_call_success_hook(
        self, data: dict[str, Any], user_api_key_dict: Any, response: Any
    ) -> Any:
        """Judge a whole answer, and write what may be delivered in its place."""
        route = _route(user_api_key_dict)
        form = form_of(response, route)
        if form is None:
            self._admit(route, data)
            return response
        untouched = False
        try:
            whole = WholeAnswer(call_of(self.guard, form, data), response)
            await self.guard.driver.arun(whole.judge())
            untouched = whole.untouched
        finally:
            # What nobody could judge stands in no log either.
            if not untouched:
                _Logs(data).redact()
        return whole.delivered()

    async def async_post_call_streaming_iterator_hook(
        self, user_api_key_dict: Any, response: Any, request_data: dict[str, Any]
    ) -> AsyncGenerator[Any, None]:
        """Judge a stream; its chunks leave once their texts were judged."""
        route, logs = _route(user_api_key_dict), _Logs(request_data)
        async with aclosing(aread_masked(self.guard, _aread(response))) as chunks:
            first = await anext(chunks, None)
            form, given = form_of(first, route), _rest(first, chunks)
            if form is None:
                self._admit(route, request_data)
            else:
                # LiteLLM may log before the last of it was judged.
                logs.redact()
                given = _astreamed(call_of(self.guard, form, request_data), given, logs)
            async with aclosing(given):
                async for chunk in given:
                    yield chunk

    async def async_post_call_failure_hook(
        self,
        request_data: dict[str, Any],
        original_exception: Exception,
        user_api_key_dict: Any,
        traceback_str: str | None = None,
    ) -> Any:
        """Judge an error, which may quote an answer; return what the client is told instead.

        `None` leaves it as it is.
        """
        del user_api_key_dict, traceback_str
        after = GuardrailEventHooks.post_call
        if self.should_run_guardrail(data=request_data, event_type=after) is not True:
            return None
        try:
            verdict = await self.guard.acheck(told(original_exception))
        except Exception:  # noqa: BLE001  # LiteLLM would deliver the error
            return _failure_of(original_exception)
        return _failure_of(original_exception) if withholds(verdict) else None

    async def async_pre_call_deployment_hook(
        self, kwargs: dict[str, Any], call_type: Any
    ) -> dict[str, Any] | None:
        """Refuse what a program asks for by `guardrails=[...]` and LiteLLM would not have judged.

        Raises:
            InputError: it is a stream.
        """
        in_proxy = kwargs.get("proxy_server_request") is not None
        if not in_proxy and kwargs.get("guardrails") and kwargs.get("stream"):
            raise InputError(
                "LiteLLM runs no guardrails around streams outside of its proxy: use "
                "`guard.wrap(litellm).acompletion`"
            )
        given: dict[str, Any] | None = await super().async_pre_call_deployment_hook(
            kwargs, call_type
        )
        return given

    def _admit(self, route: str | None, data: Mapping[str, Any]) -> None:
        """Raise an error for a request whose answer cannot be guarded."""
        known = route is not None and (is_open("POST", route) or _OPEN.search(route))
        if known or self.unguarded == "pass":
            return
        raise BadRequestError(
            message=f"{route or 'this call'} cannot be guarded: use LiteLLM's own chat "
            "completions, responses or messages over HTTP, or allow it with the guardrail's "
            "`unguarded: pass`",
            model=str(data.get("model") or ""),
            llm_provider="",
        )


def _failure_of(error: Exception) -> Any:
    """Return what LiteLLM's proxy answers in the place of an error."""
    from fastapi import HTTPException  # noqa: PLC0415  # who has no proxy need not have it

    status = getattr(error, "status_code", None)
    return HTTPException(status if isinstance(status, int) else 500, str(stand_in(error)))


def _check_mode(mode: Any, *, judges_input: bool) -> None:
    """Raise an error where a mode would leave something unjudged.

    Args:
        mode: LiteLLM's: a word, several, or a mode by tags, which is the operator's affair.
        judges_input: whether the class has prompts judged.
    """
    if not isinstance(mode, str | list):
        return
    given = {str(getattr(one, "value", one)) for one in ([mode] if isinstance(mode, str) else mode)}
    problems = []
    if "post_call" not in given:
        problems.append("answers are not judged: add `post_call` to the guardrail's `mode`")
    if judges_input and "pre_call" not in given:
        problems.append("the class judges prompts: add `pre_call` to the guardrail's `mode`")
    if problems:
        raise ConfigurationError(problems)


def _route(user: Any) -> str | None:
    """Return the path of a request, `None` where it did not come over HTTP."""
    return getattr(user, "request_route", None)


def _is_hooked(call_type: Any, data: Mapping[str, Any]) -> bool:
    """Return whether LiteLLM lets a guardrail judge the answer to a request of its proxy.

    It does not where it passes a provider's answer through, or sends it by a websocket: a message
    of one has what its client wrote, which can be no logging object.
    """
    kind = str(getattr(call_type, "value", call_type))
    return kind in _HOOKED and hasattr(data.get("litellm_logging_obj"), "model_call_details")


class _Logs:
    """Whether LiteLLM redacts the texts of a request in what its callbacks are told at the end.

    Args:
        data: the request, as hooks are given it.
    """

    def __init__(self, data: Mapping[str, Any]) -> None:
        """Find where LiteLLM keeps that."""
        details = getattr(data.get("litellm_logging_obj"), "model_call_details", None)
        details = details if isinstance(details, dict) else {}
        if not isinstance(details.get(_PARAMETERS), dict):
            details[_PARAMETERS] = {}
        self._details = details
        self._parameters: dict[str, Any] = details[_PARAMETERS]
        self._before = self._parameters.get(_QUIET)

    def redact(self) -> None:
        """Have the texts redacted, and the provider's own answer forgotten."""
        self._parameters[_QUIET] = True
        for name in _ORIGINALS:
            self._details.pop(name, None)

    def restore(self) -> None:
        """Have them told as the operator wanted."""
        self._parameters[_QUIET] = self._before
        if self._before is None:
            del self._parameters[_QUIET]


def _streamed(call: Call, chunks: Iterable[Any]) -> Generator[Any, None, None]:
    """Yield the chunks of a stream that may leave."""
    driver, answer = call.guard.driver, StreamedAnswer(call)
    try:
        with closing(read_masked(call.guard, _read(chunks))) as given:
            for chunk in given:
                steps = answer.feed(chunk)
                while (text := driver.advance(steps)) is not None:
                    yield from answer.chunks(text)
                if answer.stopped:
                    break
        steps = answer.finish()
        while (text := driver.advance(steps)) is not None:
            yield from answer.chunks(text)
    finally:
        driver.run(answer.abandon())


async def _astreamed(
    call: Call, chunks: AsyncIterable[Any], logs: _Logs | None = None
) -> AsyncGenerator[Any, None]:
    """Yield the chunks of a stream that may leave.

    Args:
        call: the request's way.
        chunks: the stream.
        logs: the request's, whose texts are redacted unless the stream leaves as it came.
    """
    driver, answer = call.guard.driver, StreamedAnswer(call)
    try:
        async with aclosing(aread_masked(call.guard, _aread(chunks))) as given:
            async for chunk in given:
                steps = answer.feed(chunk)
                while (text := await driver.aadvance(steps)) is not None:
                    for each in answer.chunks(text):
                        yield each
                if answer.stopped:
                    break
        steps = answer.finish()
        while (text := await driver.aadvance(steps)) is not None:
            for each in answer.chunks(text):
                yield each
    finally:
        await driver.arun(answer.abandon())
        if logs is not None and answer.untouched:
            logs.restore()


def _read(chunks: Iterable[Any]) -> Generator[Any, None, None]:
    """Yield the chunks of LiteLLM's stream, and close it."""
    try:
        yield from chunks
    except Exception as error:
        _forget(error)
        raise
    finally:
        close = getattr(chunks, "close", None)
        if close is not None:
            close()


async def _aread(chunks: AsyncIterable[Any]) -> AsyncGenerator[Any, None]:
    """As `_read`, asynchronous."""
    try:
        async for chunk in chunks:
            yield chunk
    except Exception as error:
        _forget(error)
        raise
    finally:
        close = getattr(chunks, "aclose", None)
        if close is not None:
            await close()


def _forget(error: Exception) -> None:
    """Take out of an error what the provider had said by then: nobody judged it."""
    if getattr(error, "generated_content", ""):
        error.generated_content = ""  # type: ignore[attr-defined]


async def _rest(first: Any, chunks: AsyncIterable[Any]) -> AsyncGenerator[Any, None]:
    """Yield the first chunk, `None` for none, and those behind it."""
    if first is not None:
        yield first
    async for chunk in chunks:
        yield chunk


async def _each(chunks: Iterable[Any]) -> AsyncGenerator[Any, None]:
    """Yield chunks that are there already."""
    for chunk in chunks:
        yield chunk
