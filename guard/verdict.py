"""The decision: what a security class does about an assessment.

This module does not know how a rewrite is made (`guard.remedies`) or how text arrives.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping  # noqa: TC003  # hints are read at run time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Literal

from guard.assess import Assessment, Coverage, DetectorStatus, live_risk
from guard.detectors.base import Finding  # noqa: TC001  # hints are read at run time
from guard.exchange import Choice  # noqa: TC001  # hints are read at run time

if TYPE_CHECKING:
    from guard.security_class import SecurityClass

Action = Literal["allow", "flag", "rewrite", "block"]
"""What happens to a response.

`allow` delivers it; `flag` delivers and journals it; `rewrite` delivers a mended text;
`block` delivers nothing of it.
"""

Step = Literal["allow", "flag", "redact", "excise", "regenerate", "replace", "block"]
"""What happens to one unit, from mildest to most severe.

`regenerate` delivers like `replace`, unless whoever holds the backend asks it again.
"""

ESCALATION: Final = "remedy"
"""The cause where a rewritten text did not pass, so that a more severe step was taken."""

QUARANTINE: Final = "quarantine"
"""The cause where an alarm blocks everything that a deployment answers."""

_SEVERITY: Final[dict[str, int]] = {
    "allow": 0,
    "flag": 1,
    "redact": 2,
    "excise": 3,
    "rewrite": 3,
    "regenerate": 4,
    "replace": 5,
    "block": 6,
}

_ACTION_OF: Final[dict[Step, Action]] = {
    "allow": "allow",
    "flag": "flag",
    "redact": "rewrite",
    "excise": "rewrite",
    "regenerate": "rewrite",
    "replace": "rewrite",
    "block": "block",
}


def action_of(step: Step) -> Action:
    """Return the action that a step amounts to."""
    return _ACTION_OF[step]


def worst_step(steps: Iterable[Step]) -> Step:
    """Return the most severe step, `allow` where there is none."""
    given: list[Step] = ["allow", *steps]
    return max(given, key=lambda step: _SEVERITY[step])


def worst_action(actions: Iterable[Action]) -> Action:
    """Return the most severe action, `allow` where there is none."""
    given: list[Action] = ["allow", *actions]
    return max(given, key=lambda action: _SEVERITY[action])


def delivers(step: Step) -> bool:
    """Return whether text may leave unchanged after `step`."""
    return step in ("allow", "flag")


def passes(step: Step) -> bool:
    """Return whether a unit may leave after `step`, perhaps in other words."""
    return step not in ("regenerate", "replace", "block")


@dataclass(frozen=True, slots=True)
class Reason:
    """Why a step was taken.

    Attributes:
        cause: the category, or `detector:NAME` for a failure.
        step: what it led to.
        risk: the live risk in [0, 1]; 1 for a failure, since nothing is known.
        limit: the limit that the risk reached, in [0, 1].
        status: how the detector failed, `None` where it did not.
    """

    cause: str
    step: Step
    risk: float
    limit: float = 0.0
    status: DetectorStatus | None = None

    @property
    def severity(self) -> int:
        """How severe the step is, 0 (allow) to 6 (block)."""
        return _SEVERITY[self.step]

    def __str__(self) -> str:
        if self.status is not None:
            return f"{self.cause} {self.status}: on_failure is {self.step}"
        if self.cause == QUARANTINE:
            return f"an alarm stands until somebody clears it: nothing is delivered ({self.step})"
        if self.cause == ESCALATION:
            return f"no rewrite of the unit passed when judged again ({self.step})"
        return f"{self.cause}: live risk {self.risk:.2f} reached {self.limit:.2f} ({self.step})"


def decide(
    evidence: Mapping[str, float],
    security_class: SecurityClass,
    prior: Callable[[str], float] | None = None,
) -> tuple[Reason, ...]:
    """Return what the class does about each category's evidence, most severe first.

    Args:
        evidence: log likelihood ratio per category.
        security_class: its limits.
        prior: the live prior of a category, in (0, 1); the class's by default.
    """
    prior = prior or security_class.prior_of
    reasons = [
        reason
        for category, value in evidence.items()
        if (reason := _decide_one(category, value, security_class, prior(category))) is not None
    ]
    return tuple(sorted(reasons, key=lambda reason: -reason.severity))


def _decide_one(
    category: str, value: float, security_class: SecurityClass, prior: float
) -> Reason | None:
    limit = security_class.limit(category)
    if limit is None:
        return None
    risk = live_risk(value, prior)
    if limit.act is not None and risk >= limit.act:
        return Reason(category, limit.remedy, risk, limit.act)
    if limit.flag is not None and risk >= limit.flag:
        return Reason(category, "flag", risk, limit.flag)
    return None


@dataclass(frozen=True, slots=True)
class Verdict:
    """The decision about one exchange.

    Attributes:
        action: `allow`, `flag`, `rewrite` or `block`.
        text: the first choice's content as it may be delivered; `None` when blocked.
        message: what the class would have the end user read in place of a blocked or
            replaced response, else `""`.
        choices: every choice as it may be delivered; `None` for a blocked one.
        assessment: risks, findings and coverage.
        reasons: why, one sentence each, most severe first.
        intended: what would have happened were the class not in shadow mode.
        shadow: whether the class is in shadow mode (journals, delivers all unchanged).
        security_class: the class's name.
        streamed: exactly what `Guard.stream` delivers for this text, however it is cut:
            differs from `text` where units had left before a block or a replacement.
        record: the journal row's id, `None` where nothing was journalled.
    """

    action: Action
    text: str | None
    message: str
    choices: tuple[Choice | None, ...]
    assessment: Assessment
    reasons: tuple[str, ...]
    intended: Action
    shadow: bool
    security_class: str
    streamed: str
    record: str | None = field(default=None, compare=False)

    @property
    def risks(self) -> Mapping[str, float]:
        """Live risk per category in [0, 1], higher means worse."""
        return self.assessment.risks

    @property
    def findings(self) -> tuple[Finding, ...]:
        """What the detectors found; spans count in the channel's original text."""
        return self.assessment.findings

    @property
    def coverage(self) -> Coverage:
        """What was judged and what was not."""
        return self.assessment.coverage

    @property
    def delivered(self) -> str:
        """What to show the end user: `text`, or `message` where the response was blocked."""
        return self.message if self.text is None else self.text

    def to_dict(self) -> dict[str, Any]:
        """Return the verdict as JSON-able values; findings carry spans and never text."""
        coverage = self.coverage
        return {
            "action": self.action,
            "text": self.text,
            "message": self.message,
            "reasons": list(self.reasons),
            "risks": {name: round(risk, 4) for name, risk in self.risks.items()},
            "findings": [finding_dict(finding) for finding in self.findings],
            "coverage": coverage_dict(coverage),
            "intended": self.intended,
            "shadow": self.shadow,
            "security_class": self.security_class,
            "record": self.record,
        }


def finding_dict(finding: Finding) -> dict[str, Any]:
    """Return a finding as JSON-able values."""
    return {
        "category": finding.category,
        "evidence": round(finding.evidence, 3),
        "channel": finding.channel,
        "start": finding.start,
        "end": finding.end,
        "label": finding.label,
        "detector": finding.detector,
        "version": finding.version,
    }


def coverage_dict(coverage: Coverage) -> dict[str, Any]:
    """Return a coverage as JSON-able values."""
    return {
        "complete": coverage.complete,
        "judged": dict(coverage.judged),
        "units": coverage.units,
        "detectors": dict(coverage.detectors),
        "failures": [
            {"detector": f.detector, "status": f.status, "detail": f.detail, "channel": f.channel}
            for f in coverage.failures
        ],
    }
