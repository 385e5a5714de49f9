"""From findings to live risk: evidence plus prior, in log-odds.

    log-odds(live risk) = evidence in the response + log-odds(live prior)

Evidence is the natural log of a likelihood ratio, so that adding it to the prior's
log-odds is Bayes' rule. Several findings of one category count by the strongest:
neighbouring units and overlapping patterns see the same words, and adding them up
would count one observation many times.

This module does not know what a class does about a risk, or where a prior comes from.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping  # noqa: TC003  # hints are read at run time
from dataclasses import dataclass, field
from typing import Literal

import guard  # noqa: TC001  # hints are read at run time

DetectorStatus = Literal["ok", "failed", "timed_out", "invalid", "skipped"]
"""How a detector fared over a whole exchange: the worst that happened to it.

`ok` ran everywhere; `failed` raised; `timed_out` did not answer in time; `invalid`
answered against its contract, NaN included; `skipped` did not get its turn.
"""


@dataclass(frozen=True, slots=True)
class Failure:
    """A detector that gave no usable answer for one unit.

    Attributes:
        detector: its name.
        status: what happened.
        detail: the error's type and message; never any of the judged text's surroundings.
        channel: the channel's name.
        start: where the unit begins in the channel's original text, zero-based.
        end: where it ends, exclusive.
    """

    detector: str
    status: DetectorStatus
    detail: str = ""
    channel: str = ""
    start: int = 0
    end: int = 0


@dataclass(frozen=True, slots=True)
class Coverage:
    """What was judged and what was not.

    Attributes:
        judged: characters judged per channel, by name.
        units: number of units judged.
        detectors: each detector's status.
        failures: every failure, in order.
        complete: true where every channel was judged to its end by every detector. False
            after a block, since judging stops there, and where a reader went away.
    """

    judged: Mapping[str, int] = field(default_factory=dict)
    units: int = 0
    detectors: Mapping[str, DetectorStatus] = field(default_factory=dict)
    failures: tuple[Failure, ...] = ()
    complete: bool = False


@dataclass(frozen=True, slots=True)
class Assessment:
    """All that is known about one exchange's risk.

    Attributes:
        risks: live risk per category in [0, 1], higher means worse. The highest that any
            unit reached, removed units included.
        findings: what the detectors found, by channel and position.
        coverage: what was judged.
    """

    risks: Mapping[str, float]
    findings: tuple[guard.Finding, ...]
    coverage: Coverage


def log_odds(probability: float) -> float:
    """Return ln(p / (1 - p)) for `probability` in (0, 1)."""
    return math.log(probability) - math.log1p(-probability)


def live_risk(evidence: float, prior: float) -> float:
    """Return the live risk in [0, 1] from evidence (log likelihood ratio) and prior (0, 1).

    Never overflows; infinite evidence gives 0 or 1, and evidence or a prior that is no number
    gives 1: what nobody knows counts as the worst.
    """
    odds = evidence + log_odds(prior)
    if math.isnan(odds):
        return 1.0
    if odds >= 0:
        return 1.0 / (1.0 + math.exp(-odds))
    grown = math.exp(odds)
    return grown / (1.0 + grown)


def strongest(findings: Iterable[guard.Finding]) -> dict[str, float]:
    """Return the highest evidence per category; what is no number counts as infinite."""
    best: dict[str, float] = {}
    for finding in findings:
        evidence = math.inf if math.isnan(finding.evidence) else finding.evidence
        best[finding.category] = max(evidence, best.get(finding.category, -math.inf))
    return best
