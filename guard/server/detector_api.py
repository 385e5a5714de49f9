"""`POST /api/v1/text/contents`: the detector API of the FMS guardrails orchestrator and TrustyAI.

A detection is one finding that reaches a limit of the caller's security class: a span (zero-
based, end-exclusive, in code points), the category as `detection_type`, the live risk that the
evidence amounts to as `score`. Nothing is rewritten here: the orchestrator does that.

Where a detector fails the request does, with a 503: an empty list would be an all-clear.

This module does not know how a text is judged.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Annotated, Any, Final

from fastapi import FastAPI, Header, Request
from pydantic import BaseModel, ConfigDict, Field, RootModel

from guard.assess import live_risk
from guard.detectors.pooling import CLOSING
from guard.server.errors import Json, Refused
from guard.server.service import DETECTOR_ERRORS

if TYPE_CHECKING:
    from guard.detectors.base import Finding
    from guard.security_class import SecurityClass
    from guard.server.service import Service
    from guard.verdict import Verdict

PATH: Final = "/api/v1/text/contents"


class DetectorParams(BaseModel):
    """What a request may ask of the detector.

    Attributes:
        threshold: the lowest score in [0, 1] of a detection. The class's limits hold as well:
            a low threshold brings nothing that reaches none of them.
    """

    model_config = ConfigDict(extra="forbid")

    threshold: Annotated[float, Field(ge=0, le=1, strict=True, allow_inf_nan=False)] = 0.0


class ContentsRequest(BaseModel):
    """The texts to look at."""

    contents: Annotated[list[str], Field(min_length=1)]
    detector_params: DetectorParams = DetectorParams()


class EvidenceBody(BaseModel):
    """Why there is a detection: the detector, and how strong its evidence is in log-odds."""

    name: str
    value: str
    score: float


class DetectionBody(BaseModel):
    """One finding in one text.

    Attributes:
        start: where it begins, zero-based, in code points.
        end: where it ends, exclusive.
        text: what stands there.
        detection: what exactly was found, such as `aws_access_key`, or the category.
        detection_type: the category.
        score: the live risk in [0, 1].
        evidences: the detector that found it.
        metadata: what the class does about the text as a whole.
    """

    start: int
    end: int
    text: str
    detection: str
    detection_type: str
    score: float
    evidences: list[EvidenceBody]
    metadata: dict[str, str]


class ContentsBody(RootModel[list[list[DetectionBody]]]):
    """The detections of each text."""


def add_routes(app: FastAPI, service: Service) -> None:
    """Add the endpoint to `app`."""

    async def contents(
        request: Request,
        asked: ContentsRequest,
        _: Annotated[str | None, Header(alias="detector-id", description="Not used.")] = None,
    ) -> Json:
        """Find what is risky in texts, in the form of the FMS detectors."""
        judges = service.judges(request)
        found = []
        for text in asked.contents:
            verdict = await service.judge(request, partial(judges.scorer.acheck, text))
            if not verdict.coverage.complete:
                raise Refused(503, "a detector failed, so that nothing is known", "not_judged")
            found.append(_detections(text, verdict, judges.security_class, asked.detector_params))
        return Json(found)

    app.post(PATH, tags=["guard"], response_model=ContentsBody, responses=DETECTOR_ERRORS)(contents)


def _detections(
    text: str, verdict: Verdict, security_class: SecurityClass, params: DetectorParams
) -> list[dict[str, Any]]:
    """Return the findings that reach a limit, in the text's order."""
    found = [
        _detection(text, finding, verdict, security_class)
        for finding in sorted(verdict.findings, key=lambda f: (f.start, f.end, f.category))
        if security_class.limit(finding.category) is not None
    ]
    return [each for each in found if each["score"] >= params.threshold]


def _detection(
    text: str, finding: Finding, verdict: Verdict, security_class: SecurityClass
) -> dict[str, Any]:
    risk = live_risk(finding.evidence, security_class.prior_of(finding.category))
    evidence = {
        "name": finding.detector,
        "value": finding.version,
        "score": round(finding.evidence, 3),
    }
    return {
        "start": finding.start,
        "end": finding.end,
        "text": text[finding.start : finding.end],
        # What a whole answer is, is no name of what was found.
        "detection": finding.category if finding.label in ("", CLOSING) else finding.label,
        "detection_type": finding.category,
        "score": round(risk, 6),
        "evidences": [evidence],
        "metadata": {"action": verdict.intended, "security_class": verdict.security_class},
    }
