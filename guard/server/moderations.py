"""`POST /v1/moderations`: OpenAI's moderation endpoint, answered by our classifiers.

    openai.OpenAI(base_url="http://127.0.0.1:8080/v1", api_key=KEY).moderations.create(input=TEXT)

Each text is judged to its end as a response under the caller's security class. A score is the
live risk of a category, and a category is flagged where it reaches the lower of its limits.
Our categories stand under their own names, and those that OpenAI has, too, also under its:
`OPENAI_NAMES`. OpenAI's finer categories, which nothing here tells apart, are false and 0:
whatever falls under them counts for the wider one.

Where a detector fails nothing is known of the rest, and the text is flagged as a whole.

This module does not know how a text is judged.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal
from uuid import uuid4

from fastapi import FastAPI, Request  # noqa: TC002  # FastAPI reads them
from pydantic import BaseModel, ConfigDict, Field

from guard.categories import CATEGORIES
from guard.server.errors import Json
from guard.server.service import ERRORS

if TYPE_CHECKING:
    from guard.security_class import SecurityClass
    from guard.server.service import Service
    from guard.verdict import Verdict

PATH: Final = "/v1/moderations"

OPENAI_NAMES: Final = {
    "harassment": "harassment",
    "hate": "hate_toxicity",
    "illicit": "harmful_compliance",
    "self-harm": "self_harm",
    "sexual": "sexual",
    "violence": "violence",
}
"""OpenAI's categories, each with ours that it shows."""

UNJUDGED_NAMES: Final = (
    "harassment/threatening",
    "hate/threatening",
    "illicit/violent",
    "self-harm/instructions",
    "self-harm/intent",
    "sexual/minors",
    "violence/graphic",
)
"""OpenAI's categories that are not told apart from the wider ones."""


class TextPart(BaseModel):
    """A part of an input; an image cannot be judged and is refused."""

    type: Literal["text"]
    text: str


class ModerationRequest(BaseModel):
    """What is to be judged.

    Attributes:
        input: a text, several texts (a result each), or the parts of one text.
        model: taken as it is and not used: the class decides.
    """

    model_config = ConfigDict(extra="allow")

    input: (
        str
        | Annotated[list[str], Field(min_length=1)]
        | Annotated[list[TextPart], Field(min_length=1)]
    )
    model: str | None = None

    def texts(self) -> list[str]:
        """Return the texts that get a result each."""
        if isinstance(self.input, str):
            return [self.input]
        texts = [item for item in self.input if isinstance(item, str)]
        return texts or ["\n".join(item.text for item in self.input if isinstance(item, TextPart))]


class JudgedBody(BaseModel):
    """What OpenAI's form has no room for.

    Attributes:
        action: what the class does about the text: `allow`, `flag`, `rewrite` or `block`.
        reasons: why, one sentence each.
        complete: whether every detector judged all of it.
        security_class: the class's name.
        not_judged: OpenAI's categories that are not told apart from the wider ones.
    """

    action: str
    reasons: list[str]
    complete: bool
    security_class: str
    not_judged: list[str]


class ResultBody(BaseModel):
    """One text's categories."""

    flagged: bool
    categories: dict[str, bool]
    category_scores: dict[str, float]
    category_applied_input_types: dict[str, list[str]]
    guard: JudgedBody


class ModerationBody(BaseModel):
    """A result per text."""

    id: str
    model: str
    results: list[ResultBody]


def add_routes(app: FastAPI, service: Service) -> None:
    """Add the endpoint to `app`."""

    async def moderate(request: Request, asked: ModerationRequest) -> Json:
        """Score texts by category, in the form of OpenAI's moderations."""
        judges = service.judges(request)
        verdicts = [
            await service.judge(request, partial(judges.scorer.acheck, text))
            for text in asked.texts()
        ]
        results = [result_body(verdict, judges.security_class) for verdict in verdicts]
        model = f"clearance-{judges.security_class.name}"
        return Json({"id": f"modr-{uuid4().hex}", "model": model, "results": results})

    app.post(PATH, tags=["guard"], response_model=ModerationBody, responses=ERRORS)(moderate)


def result_body(verdict: Verdict, security_class: SecurityClass) -> dict[str, Any]:
    """Return one text's result."""
    own = {name: risk for name, risk in verdict.risks.items() if _is_shown(name)}
    scores = own | {theirs: own.get(ours, 0.0) for theirs, ours in OPENAI_NAMES.items()}
    flags = {name: _reaches(security_class, name, own[name]) for name in own}
    flags |= {theirs: flags.get(ours, False) for theirs, ours in OPENAI_NAMES.items()}
    unjudged = dict.fromkeys(UNJUDGED_NAMES, 0.0)
    return {
        "flagged": verdict.intended != "allow",
        "categories": flags | dict.fromkeys(UNJUDGED_NAMES, False),
        "category_scores": {name: round(score, 6) for name, score in (scores | unjudged).items()},
        "category_applied_input_types": {
            name: ["text"] if name in scores else [] for name in scores | unjudged
        },
        "guard": {
            "action": verdict.intended,
            "reasons": list(verdict.reasons),
            "complete": verdict.coverage.complete,
            "security_class": verdict.security_class,
            "not_judged": list(UNJUDGED_NAMES),
        },
    }


def _is_shown(name: str) -> bool:
    """Return whether a category is a risk of a response, own categories included."""
    category = CATEGORIES.get(name)
    return category is None or (category.side == "response" and not category.auxiliary)


def _reaches(security_class: SecurityClass, category: str, risk: float) -> bool:
    limit = security_class.limit(category)
    bounds = (limit.flag, limit.act) if limit else ()
    return any(bound is not None and risk >= bound for bound in bounds)
