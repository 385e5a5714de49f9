"""`POST /v1/guard/check`: one exchange in, the verdict out.

This module does not know how anything is judged.
"""

from __future__ import annotations

from dataclasses import asdict
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any, Final

from fastapi import Body, FastAPI, Request
from pydantic import BaseModel

from guard.errors import InputError
from guard.exchange import Exchange
from guard.server.errors import Json, Refused
from guard.server.service import ERRORS

if TYPE_CHECKING:
    from guard.exchange import Choice
    from guard.server.service import Service
    from guard.verdict import Verdict

PATH: Final = "/v1/guard/check"


class FoundBody(BaseModel):
    """One detector's evidence; see `guard.Finding`."""

    category: str
    evidence: float
    channel: str
    start: int
    end: int
    label: str
    detector: str
    version: str


class FailureBody(BaseModel):
    """A detector that gave no usable answer; see `guard.assess.Failure`."""

    detector: str
    status: str
    detail: str
    channel: str


class CoverageBody(BaseModel):
    """What was judged and what was not; see `guard.Coverage`."""

    complete: bool
    judged: dict[str, int]
    units: int
    detectors: dict[str, str]
    failures: list[FailureBody]


class CallBody(BaseModel):
    """A tool call that may be made."""

    name: str
    arguments: str
    id: str


class ChoiceBody(BaseModel):
    """A choice that may be delivered."""

    content: str
    reasoning: str
    refusal: str
    tool_calls: list[CallBody]


class VerdictBody(BaseModel):
    """The decision about an exchange; see `guard.Verdict`.

    Attributes:
        text: the first choice's content as it may be delivered; null when blocked.
        delivered: what to show the end user: `text`, or `message` where there is none.
        choices: every choice as it may be delivered; null for a blocked one.
    """

    action: str
    text: str | None
    message: str
    delivered: str
    choices: list[ChoiceBody | None]
    reasons: list[str]
    risks: dict[str, float]
    findings: list[FoundBody]
    coverage: CoverageBody
    intended: str
    shadow: bool
    security_class: str
    record: str | None


def add_routes(app: FastAPI, service: Service) -> None:
    """Add the endpoint to `app`."""

    async def check(request: Request, exchange: Annotated[dict[str, Any], Body()]) -> Json:
        """Judge one exchange: what was asked and what came back."""
        guard = service.judges(request).guard
        verdict = await service.judge(request, partial(guard.acheck, _parsed(exchange)))
        return Json(verdict_body(verdict))

    app.post(PATH, tags=["guard"], response_model=VerdictBody, responses=ERRORS)(check)


def verdict_body(verdict: Verdict) -> dict[str, Any]:
    """Return a verdict as the endpoint answers it."""
    choices = [choice and _choice_body(choice) for choice in verdict.choices]
    return verdict.to_dict() | {"delivered": verdict.delivered, "choices": choices}


def _parsed(exchange: dict[str, Any]) -> Exchange:
    try:
        return Exchange.parse(exchange)
    except InputError as error:
        raise Refused(400, str(error), "invalid_request") from error


def _choice_body(choice: Choice) -> dict[str, Any]:
    return asdict(choice)
