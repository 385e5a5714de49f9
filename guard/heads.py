"""A head: a category of one's own on the frozen embedding of a classifier, in a small file.

`guard model fit` writes it, a security class names it under `heads`, and the classifier
scores it in the pass that it makes anyway. The file holds no text of the examples.

    format, kind       1, "clearance-head"
    category           the category's name
    model              name, version and digest of the classifier that it belongs to
    weights            one per dimension of the embedding
    intercept          logit = weights . embedding + intercept, the highest over the windows
    calibration        evidence = slope * logit + intercept, between minimum and maximum
    toll               taken off a later unit's evidence per natural log of its number
    figures, advice    how well it did on its own examples, and what would mend it

This module does not know how a head is made, or what scores it.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from pathlib import Path  # noqa: TC003  # pydantic reads it
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from guard.categories import CATEGORIES
from guard.errors import ModelError
from guard.policy_problems import CATEGORY, sentence

KIND: Final = "clearance-head"

MAXIMUM_EVIDENCE: Final = 8.0
"""Bound of the absolute value, as the built-in categories have it."""

TOLL: Final = 1.0
"""Of a new head, see `OwnHead.toll`."""

SIZE_LIMIT: Final = 1_000_000
"""Bytes: larger than any head; a file beyond it is something else."""

LARGEST: Final = 1e100
"""Bound of the absolute value of what a file says, so that no weighted sum can overflow."""

Number = Annotated[float, Field(ge=-LARGEST, le=LARGEST, allow_inf_nan=False)]


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class BelongsTo(_Model):
    """The classifier that a head was made for.

    Attributes:
        name: the classifier's.
        version: its version, for people.
        digest: SHA-256 of whatever decides its embeddings.
    """

    name: str
    version: str
    digest: str


class HeadCalibration(_Model):
    """Turns a logit into evidence, bounded by what the examples can bear.

    Attributes:
        slope: above 0, so that evidence never falls where the logit rises.
        intercept: added.
        minimum: the lowest evidence; at most 0.
        maximum: the highest evidence; at least 0.
    """

    slope: Annotated[float, Field(gt=0, allow_inf_nan=False)]
    intercept: Number
    minimum: Annotated[float, Field(le=0, ge=-MAXIMUM_EVIDENCE)]
    maximum: Annotated[float, Field(ge=0, le=MAXIMUM_EVIDENCE)]

    def evidence(self, logit: float) -> float:
        """Return the log likelihood ratio of `logit`; NaN for a logit that is not finite.

        A logit that overflowed says nothing, and must not be taken for strong evidence that a
        text is fine.
        """
        if not math.isfinite(logit):
            return math.nan
        return max(self.minimum, min(self.maximum, self.slope * logit + self.intercept))


class OwnHead(_Model):
    """A category of one's own; see the module.

    Attributes:
        format: of the file.
        kind: says what the file is.
        category: the category's name.
        model: the classifier that it belongs to.
        weights: one per dimension of the embedding.
        intercept: added to the weighted sum.
        calibration: from logit to evidence.
        toll: what is taken off a unit's evidence per natural log of its place in the answer, at
            least 0. Of ordinary units at most exp(-x) have evidence above x, so that with 1 false
            alarms grow with the log of the number of units and not with that number.
        figures: of the fit, for people.
        advice: what would mend it, for people.
    """

    format: Literal[1] = 1
    kind: Literal["clearance-head"] = "clearance-head"
    category: str = Field(pattern=CATEGORY)
    model: BelongsTo
    weights: Annotated[tuple[Number, ...], Field(min_length=1, strict=False)]
    intercept: Number
    calibration: HeadCalibration
    toll: Annotated[float, Field(ge=0, le=MAXIMUM_EVIDENCE, allow_inf_nan=False)] = 0.0
    figures: dict[str, Any] = Field(default_factory=dict)
    advice: Annotated[tuple[str, ...], Field(strict=False)] = ()

    @property
    def digest(self) -> str:
        """What changes whenever the same text may get other evidence."""
        scored = self.model_dump(
            include={"category", "weights", "intercept", "calibration", "toll"}
        )
        return hashlib.sha256(json.dumps(scored).encode()).hexdigest()[:8]

    def write(self, path: Path) -> None:
        """Write the file.

        Raises:
            ModelError: it cannot be written.
        """
        text = json.dumps(self.model_dump(mode="json"), ensure_ascii=False) + "\n"
        try:
            path.write_text(text, encoding="utf-8")
        except OSError as error:
            raise ModelError(f"`{path}` cannot be written: {error.strerror or error}") from error


def read(path: Path) -> OwnHead:
    """Return the head in `path`.

    Raises:
        ModelError: everything that is wrong with the file.
    """
    try:
        content = path.read_bytes()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ModelError(f"head `{path}` cannot be read: {reason}") from error
    if len(content) > SIZE_LIMIT:
        raise ModelError(f"head `{path}` is larger than {SIZE_LIMIT:,} bytes: not a head")
    try:
        value = json.loads(content.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise ModelError(f"head `{path}` is not JSON: {error}") from error
    if not isinstance(value, dict) or value.get("kind") != KIND:
        raise ModelError(f"`{path}` is no head: make one with `guard model fit`")
    try:
        head = OwnHead.model_validate(value)
    except ValidationError as error:
        raise ModelError([_problem(path, entry) for entry in error.errors()]) from error
    if (problem := unusable_name(head.category)) is not None:
        raise ModelError(f"head `{path}`: {problem}")
    return head


def unusable_name(category: str) -> str | None:
    """Return why a category of one's own cannot be called so, `None` where it can."""
    if category in CATEGORIES:
        return f"`{category}` is a category already: call your own something else"
    if re.fullmatch(CATEGORY, category) is None:
        return (
            f"`{category}` is no name for a category: use at most 48 lower-case letters, digits "
            "and `_`, and begin with a letter"
        )
    return None


def _problem(path: Path, error: Any) -> str:
    place = ".".join(str(part) for part in error["loc"])
    return f"head `{path}`: `{place}` {sentence(error, OwnHead.model_fields)}"
