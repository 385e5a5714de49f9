"""`POST /beta/litellm_basic_guardrail_api`: LiteLLM's generic guardrail API.

    guardrails:
      - guardrail_name: clearance
        litellm_params:
          guardrail: generic_guardrail_api
          mode: [pre_call, post_call]
          api_base: http://127.0.0.1:8080
          api_key: os.environ/GUARD_KEY
          optional_params: {streaming_transform_mode: incremental_diff, streaming_sampling_rate: 1}

LiteLLM does not say when an answer ends, and at its end it delivers all that was returned last,
whatever was to be held back. So each time all of the text is judged as if nothing followed, and
`stream_holdback_chars` holds back the part that more text may yet change.

In LiteLLM's default mode (`block_only`) text leaves before it is judged, and rewritten text is
dropped; `incremental_diff` or `streaming_buffer_until_moderated` is needed.

This module does not know how anything is judged, or what is remembered between two turns of a
call (`guard.server.litellm_calls`).
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Literal

from fastapi import FastAPI, Request  # noqa: TC002  # FastAPI reads them
from pydantic import BaseModel, ConfigDict

from guard.errors import InputError
from guard.exchange import Exchange, Message
from guard.request_text import text_of
from guard.server.errors import Json, Refused
from guard.server.keys import caller_of
from guard.server.litellm_calls import Calls
from guard.server.service import ERRORS
from guard.wire.asked import role_of

if TYPE_CHECKING:
    from guard.server.litellm_calls import Call, Sent
    from guard.server.service import Service
    from guard.session import Session
    from guard.verdict import Verdict

PATH: Final = "/beta/litellm_basic_guardrail_api"

_UNJUDGEABLE: Final = "The answer holds an image, which nothing here can judge."


class CalledFunction(BaseModel):
    """The function of a tool call."""

    name: str | None = None
    arguments: str | None = None


class CalledTool(BaseModel):
    """A tool call of an answer."""

    model_config = ConfigDict(extra="allow")

    id: str | None = None
    function: CalledFunction


class GuardrailRequest(BaseModel):
    """One turn of a call, as LiteLLM tells of it.

    Attributes:
        input_type: `request` before the backend is asked, `response` for what it answered.
        texts: the texts to judge; of a stream all that has come so far.
        structured_messages: the conversation, in chat completions' form.
        tool_calls: those of the answer.
        images: of an answer they cannot be judged, and it is blocked.
        litellm_call_id: the same for all turns of a call.
        litellm_trace_id: kept in the journal.
        model: the backend model's name.
    """

    model_config = ConfigDict(extra="allow")

    input_type: Literal["request", "response"]
    texts: list[str] | None = None
    structured_messages: list[dict[str, Any]] | None = None
    tool_calls: list[CalledTool] | None = None
    images: list[str] | None = None
    litellm_call_id: str | None = None
    litellm_trace_id: str | None = None
    model: str | None = None

    def exchange(self, messages: tuple[Message, ...]) -> Exchange:
        """Return what was asked, with this turn's answer."""
        calls = [call.model_dump() for call in self.tool_calls or ()]
        first, *others = self.texts or [""]
        given = [{"content": first, "tool_calls": calls}, *({"content": text} for text in others)]
        choices = Exchange.parse({"choices": given}).choices
        ids = {"litellm_call_id": self.litellm_call_id, "litellm_trace_id": self.litellm_trace_id}
        metadata = {name: value for name, value in ids.items() if value is not None}
        conversation = self.litellm_trace_id or ""
        return Exchange(choices, messages, self.model or "", metadata, conversation)

    def messages(self) -> tuple[Message, ...]:
        """Return what is asked; roles that are not known count as the user's."""
        if self.structured_messages is None:
            return tuple(Message("user", text) for text in self.texts or ())
        return tuple(_message(row) for row in self.structured_messages)


class GuardrailBody(BaseModel):
    """What LiteLLM is to do.

    Attributes:
        action: `NONE` delivers the texts, `GUARDRAIL_INTERVENED` those given here instead,
            `BLOCKED` nothing.
        blocked_reason: what the end user reads where nothing is delivered.
        texts: what may be delivered, in the order of the request's.
        stream_holdback_chars: of each text, how many characters at its end more text may
            change; not to be delivered while more is coming.
    """

    action: Literal["NONE", "BLOCKED", "GUARDRAIL_INTERVENED"]
    blocked_reason: str | None = None
    texts: list[str] | None = None
    stream_holdback_chars: list[int] | None = None


def add_routes(app: FastAPI, service: Service) -> None:
    """Add the endpoint to `app`."""
    calls = Calls()
    service.at_end.append(calls.close)

    async def guardrail(request: Request, asked: GuardrailRequest) -> Json:
        """Judge one turn of a call of a LiteLLM proxy."""
        caller = caller_of(request.scope).name
        call = calls.find(caller, asked.litellm_call_id, service.judges(request))
        judge = _judge_request if asked.input_type == "request" else _judge_response
        body = await judge(service, request, call, asked)
        return Json(body.model_dump())

    app.post(PATH, tags=["guard"], response_model=GuardrailBody, responses=ERRORS)(guardrail)


async def _judge_request(
    service: Service, request: Request, call: Call, asked: GuardrailRequest
) -> GuardrailBody:
    """Judge what the backend is about to be asked, and remember it for the answer."""
    call.messages = asked.messages()
    exchange = Exchange((), call.messages, asked.model or "")
    verdict = await service.judge(request, partial(call.judges.guard.acheck_input, exchange))
    if verdict.action == "block":
        return GuardrailBody(action="BLOCKED", blocked_reason=verdict.message)
    return GuardrailBody(action="NONE")


async def _judge_response(
    service: Service, request: Request, call: Call, asked: GuardrailRequest
) -> GuardrailBody:
    """Judge what the backend has answered so far."""
    if asked.images:
        return GuardrailBody(action="BLOCKED", blocked_reason=_UNJUDGEABLE)
    try:
        turn = _Turn(call, asked.exchange(call.messages), asked.texts or [])
    except InputError as error:
        raise Refused(400, str(error), "cannot_be_judged") from error
    verdict = await service.judge(request, turn.judge)
    if asked.litellm_call_id is None:
        call.learn()
    else:
        call.learn_later()
    return turn.answer(verdict)


class _Turn:
    """One turn of an answer: all of it so far is judged, as if nothing followed."""

    def __init__(self, call: Call, exchange: Exchange, texts: list[str]) -> None:
        guard = call.judges.guard
        self._call = call
        self._driver = guard.driver
        self._exchange = exchange
        self._texts: list[Sent] = call.texts(texts)
        # Until the client has any of it all can be taken back, as of a whole text.
        self._whole = not any(text.original for text in self._texts)
        self._session: Session = guard.session(
            replace(exchange, choices=()),
            stream=not self._whole,
        )
        self._settled: dict[str, str] = {}

    async def judge(self) -> Verdict:
        """Judge every channel; remember how far each one is certain."""
        for channel in self._exchange.channels():
            self._session.open(channel)
            steps = self._session.feed(channel.text, channel.name)
            await self._driver.arun(self._call.recall(steps))
            self._settled[channel.name] = self._session.run(channel.name).text
        # A call without arguments has a name all the same.
        await self._driver.arun(self._call.recall(self._session.names(self._exchange)))
        await self._driver.arun(self._call.recall(self._session.finish()))
        return self._session.verdict()

    def answer(self, verdict: Verdict) -> GuardrailBody:
        """Return what LiteLLM is to do, and note what the client may then have."""
        if verdict.action == "block" or self._changes_calls(verdict):
            return self._blocked()
        finals = [self._final(number, verdict) for number in range(len(self._texts))]
        held = [self._held(number, final) for number, final in enumerate(finals)]
        for number, (text, final) in enumerate(zip(self._texts, finals, strict=True)):
            left = final[: len(final) - held[number]]
            if not left.startswith(text.delivered):
                # What left cannot be taken back, and something else may not follow it.
                return self._blocked()
            text.delivered = left
            text.original |= bool(left) and not self._session.withheld(number)
        action: Literal["NONE", "GUARDRAIL_INTERVENED"] = (
            "GUARDRAIL_INTERVENED" if verdict.action == "rewrite" else "NONE"
        )
        return GuardrailBody(action=action, texts=finals, stream_holdback_chars=held)

    def _blocked(self) -> GuardrailBody:
        message = self._session.deployment.messages.blocked
        return GuardrailBody(action="BLOCKED", blocked_reason=message)

    def _changes_calls(self, verdict: Verdict) -> bool:
        """Return whether a tool call would have to be changed, for which the API has no way."""
        asked = [call.arguments for c in self._exchange.choices for call in c.tool_calls]
        left = [call.arguments for c in verdict.choices if c for call in c.tool_calls]
        return [arguments for arguments in asked if arguments] != left

    def _final(self, number: int, verdict: Verdict) -> str:
        """Return what is delivered of a text if nothing follows."""
        if self._whole:
            choice = verdict.choices[number] if number < len(verdict.choices) else None
            return choice.content if choice else ""
        name, delivered = _content(number), self._texts[number].delivered
        final = self._session.run(name).streamed if name in self._settled else ""
        message_stands = self._session.withheld(number) and not final.startswith(delivered)
        return delivered if message_stands else final

    def _held(self, number: int, final: str) -> int:
        """Return how many characters at the end of `final` more text may change."""
        settled = self._settled.get(_content(number), "")
        if self._session.withheld(number) or not final.startswith(settled):
            return 0
        return len(final) - len(settled)


def _content(choice: int) -> str:
    return f"choices[{choice}].content"


def _message(row: dict[str, Any]) -> Message:
    return Message(role_of(row.get("role")), text_of(row.get("content")))
