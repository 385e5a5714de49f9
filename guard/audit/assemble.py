"""From judgements to a risk profile, and what it leaves open.

    fixed number of answers    rates corrected for the classifier's errors (Rogan and Gladen)
    a category with enough labels    prediction-powered inference over answers and labels
    an audit that may stop early     confidence sequences, which hold at any time

This module does not know how answers were asked or judged.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from guard import __version__
from guard.assess import live_risk
from guard.audit import labels as labelling
from guard.audit.course import Course
from guard.audit.errors import AuditError
from guard.audit.estimates import answered, estimate
from guard.audit.figures import REFUSAL, Figures, figures
from guard.audit.labels import Item
from guard.audit.plan import ANYTHING, BUILTIN
from guard.audit.profile import Effect, Profile, Rate
from guard.audit.statistics import LEVEL, Estimate, prediction_powered
from guard.audit.walk import Walk
from guard.calibration import REFERENCE_PRIOR
from guard.categories import CATEGORIES

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from numpy.typing import NDArray

    from guard.audit.answers import Answer
    from guard.audit.figures import Aim, Figure
    from guard.audit.instruments import Instrument
    from guard.audit.judged import Judged
    from guard.audit.judging import Judgement
    from guard.audit.plan import Plan

UNFAMILIAR: Final = "unfamiliar"
"""No risk in itself: says that nobody can judge the text."""

_MANY: Final = 20
"""Answers from which on too few with a text are no accident."""

_MOST_SILENT: Final = 0.5
"""The highest share of answers without text that an audit may have."""

_UNKNOWN: Final = "no detector's errors are known for it: calibrate one, or plant canaries"

_UNASKED: Final = "no probe looks for it, or none of its answers counts"

_UNUSED_LABELS: Final = (
    "labels are not used where an audit may stop early: audit without a class to use them"
)


@dataclass(frozen=True, slots=True)
class Measured:
    """One figure and what it rests on.

    Attributes:
        figure: which one.
        estimate: its value and interval.
        probes: whose answers it counts.
        flagged: how many of them are flagged.
        labelled: how many of them a person labelled.
        risky: how many of those carry the risk.
    """

    figure: Figure
    estimate: Estimate
    probes: tuple[str, ...]
    flagged: int
    labelled: int = 0
    risky: int = 0


@dataclass(frozen=True, slots=True)
class Assembled:
    """An audit that is done, with all that a report needs.

    Attributes:
        plan: what was asked.
        answers: what came back, by the probe's id.
        judged: what they showed.
        labels: what a person said of them.
        counted: ids of the probes that count, in the plan's order.
        measured: every figure.
        profile: the risk profile.
    """

    plan: Plan
    answers: Mapping[str, Answer]
    judged: Judged
    labels: Mapping[Item, bool]
    counted: tuple[str, ...]
    measured: tuple[Measured, ...]
    profile: Profile


def walk_of(plan: Plan, instruments: Mapping[str, Instrument]) -> tuple[Walk, Figures]:
    """Return the walk through a plan, before its first unit, and the figures on its way."""
    found = figures(plan.probes, instruments)
    course = None if plan.deploy is None else Course(found.every, plan.deploy)
    return Walk(plan.probes, course), found


def assemble(
    plan: Plan,
    answers: Mapping[str, Answer],
    judged: Judged,
    labels: Mapping[Item, bool],
) -> Assembled:
    """Return the profile of an audit that is done, and what it is made of.

    Raises:
        AuditError: answers are missing, or most of many have no text.
    """
    walk, found = walk_of(plan, judged.instruments)
    for probe in plan.probes:
        if probe.id in answers and walk.wants(probe.id):
            walk.put(probe.id, _judgement(answers[probe.id], judged))
    if not walk.finished:
        raise AuditError(
            f"{walk.count} of {len(plan.probes)} probes are answered: run the same `guard audit` "
            "command again to go on"
        )
    _require_text(answers, walk)
    measured = tuple(_measured(walk, found, labels))
    if not any(each.figure.kind == "category" for each in measured):
        raise AuditError("no answer can be judged for any category: ask other probes")
    return Assembled(
        plan=plan,
        answers=answers,
        judged=judged,
        labels=labels,
        counted=tuple(walk.counted),
        measured=measured,
        profile=_profile(plan, walk, found, measured, answers, judged),
    )


def _require_text(answers: Mapping[str, Answer], walk: Walk) -> None:
    """Refuse an audit of a model that hardly speaks: no text is risky, so that it would pass."""
    given = [answers[name] for name, one in walk.counted.items() if one is not None]
    silent = sum(answer.silent for answer in given)
    if len(given) >= _MANY and silent > len(given) * _MOST_SILENT:
        raise AuditError(
            f"{silent} of {len(given)} answers have no text, so that they show nothing of the "
            "model: see whether the backend works, and whether the model thinks beyond "
            "`--max-tokens`, then audit into another folder"
        )


def _judgement(answer: Answer, judged: Judged) -> Judgement | None:
    if answer.failure:
        return None
    if answer.probe not in judged.judgements:
        raise AuditError(
            f"the answer to `{answer.probe}` came in after the others were judged: run the same "
            "`guard audit` command again to have it judged"
        )
    return judged.judgements[answer.probe]


def labellable(assembled: Assembled) -> Mapping[str, Sequence[str]]:
    """Return the probes whose answers a person may label, by category.

    What is only found by sure means is left out, and `unsafe`, which nobody could tell apart.
    """
    return {
        each.figure.name: each.probes
        for each in assembled.measured
        if each.figure.kind == "category"
        and each.figure.name != ANYTHING
        and any(aim.instrument.confusion is not None for aim in each.figure.aims)
    }


def _measured(walk: Walk, found: Figures, labels: Mapping[Item, bool]) -> Iterator[Measured]:
    for figure, value, aims in _estimated(walk, found, labels):
        if not value.n:
            continue
        known = _labels_of(figure, aims, labels)
        yield Measured(
            figure=figure,
            estimate=value,
            probes=tuple(dict.fromkeys(aim.probe for aim in aims)),
            flagged=sum(bool(walk.flags(aim)) for aim in aims),
            labelled=len(known),
            risky=sum(known),
        )


def _estimated(
    walk: Walk, found: Figures, labels: Mapping[Item, bool]
) -> Iterator[tuple[Figure, Estimate, list[Aim]]]:
    """Yield each figure with its estimate and the answers that it rests on."""
    if walk.course is not None:
        for figure, value, units in walk.course.estimates(walk.flags):
            taken = [aim for aim in figure.aims if aim.unit in units]
            yield figure, value, answered(taken, walk.flags)
        return
    for figure in found.every:
        aims = answered(figure.aims, walk.flags)
        enough = len(_labels_of(figure, aims, labels)) >= labelling.ENOUGH
        value = _by_labels(figure, aims, walk, labels) if enough else estimate(figure, walk.flags)
        yield figure, value, aims


def _labels_of(figure: Figure, aims: Sequence[Aim], labels: Mapping[Item, bool]) -> list[bool]:
    if figure.kind != "category":
        return []
    items = (Item(aim.probe, figure.name) for aim in aims)
    return [labels[item] for item in items if item in labels]


def _by_labels(
    figure: Figure, aims: Sequence[Aim], walk: Walk, labels: Mapping[Item, bool]
) -> Estimate:
    """Return a category's rate from labels and predictions; an `n` as of the rate without labels.

    Answers to one question are alike, whoever judges them, so that units count, not answers.
    """

    def item(aim: Aim) -> Item:
        return Item(aim.probe, figure.name)

    def chances(some: Sequence[Aim]) -> NDArray[np.float64]:
        return np.array([_chance(walk.judgement(aim.probe), aim.instrument) for aim in some])

    others = [aim for aim in aims if item(aim) not in labels]
    known = [aim for aim in aims if item(aim) in labels]
    found = prediction_powered(
        chances(others),
        chances(known),
        np.array([labels[item(aim)] for aim in known], np.bool_),
        np.array([aim.unit for aim in (*others, *known)]),
    )
    units = len({aim.unit for aim in aims})
    return Estimate(found.value, found.low, found.high, units, found.method, found.reason)


def _chance(judgement: Judgement | None, instrument: Instrument) -> float:
    """Return how likely an answer carries a risk, as far as its instrument tells."""
    if judgement is None:
        return 0.0
    if instrument.confusion is None or not judgement.complete:
        return float(judgement.flagged(instrument))
    evidence = judgement.evidence.get(instrument.category)
    return 0.0 if evidence is None else live_risk(evidence, REFERENCE_PRIOR)


def _profile(  # noqa: PLR0913, PLR0917  # what a profile says
    plan: Plan,
    walk: Walk,
    found: Figures,
    measured: Sequence[Measured],
    answers: Mapping[str, Answer],
    judged: Judged,
) -> Profile:
    rates = {
        kind: {each.figure.name: _rate(each, plan) for each in measured if each.figure.kind == kind}
        for kind in ("category", "mechanism")
    }
    return Profile(
        fingerprint=plan.fingerprint,
        date=plan.started,
        tool_version=__version__,
        probes=plan.sets,
        detectors=judged.detectors,
        categories=rates["category"],
        mechanisms=rates["mechanism"],
        effects={e.figure.name: _effect(e) for e in measured if e.figure.kind == "effect"},
        not_covered=_not_covered(plan, walk, found, measured, answers, judged.experimental),
        stopping="early" if walk.passed else "fixed",
    )


def _rate(measured: Measured, plan: Plan) -> Rate:
    found = measured.estimate
    reason = found.reason
    if measured.labelled and plan.deploy is not None:
        reason = "; ".join(part for part in (reason, _UNUSED_LABELS) if part)
    return Rate(
        rate=found.value,
        lower=found.low,
        upper=found.high,
        level=LEVEL,
        n=found.n,
        answers=len(measured.probes),
        flagged=measured.flagged,
        labelled=measured.labelled,
        risky=measured.risky,
        method=found.method,
        reason=reason,
    )


def _effect(measured: Measured) -> Effect:
    found = measured.estimate
    return Effect(
        estimate=found.value,
        lower=found.low,
        upper=found.high,
        level=LEVEL,
        n=found.n,
        method=found.method,
        reason=found.reason,
    )


# What was not covered.


def _not_covered(  # noqa: PLR0913, PLR0917  # there are many ways to miss something
    plan: Plan,
    walk: Walk,
    found: Figures,
    measured: Sequence[Measured],
    answers: Mapping[str, Answer],
    experimental: Mapping[str, str],
) -> dict[str, str]:
    counted = walk.counted
    said = dict(plan.left_out)
    if walk.passed:
        exceeded = () if walk.course is None else walk.course.exceeded
        why = f"cannot be reached ({'; '.join(exceeded)})" if exceeded else "needs no more of them"
        said["probes after the decision"] = (
            f"{len(walk.passed)} of {len(plan.probes)} were not asked or do not count: class "
            f"`{plan.security_class}` {why}"
        )
    if declined := Counter(answers[name].failure for name, one in counted.items() if one is None):
        reasons = ", ".join(f"{reason}: {times}" for reason, times in declined.most_common(5))
        said["declined questions"] = f"{declined.total()} of {len(counted)} ({reasons})"
    judged = [one for one in counted.values() if one is not None]
    if failed := sum(not one.complete for one in judged):
        said["answers that a detector failed on"] = f"{failed}, which count as risky in every way"
    if cut := sum(one.cut_off for one in judged):
        said["answers cut off at the limit of tokens"] = f"{cut}, judged as far as they go"
    if silent := sum(answers[name].silent for name in counted):
        said["answers without any text"] = (
            f"{silent} of {len(judged)}, which show nothing and count as fine: see whether the "
            "backend works, and whether the model thinks beyond `--max-tokens`"
        )
    said |= _categories(found, measured, experimental)
    if any(item.name == BUILTIN for item in plan.sets):
        said["other languages than English"] = "nearly all built-in probes are in English"
    return said


def _categories(
    found: Figures, measured: Sequence[Measured], experimental: Mapping[str, str]
) -> Iterator[tuple[str, str]]:
    """Yield categories that some or all answers were not judged for."""
    there = {each.figure.name for each in measured}
    for name in sorted(found.uncovered - {REFUSAL}):
        some = "where nothing but the classifier could tell: " if name in there else ""
        yield name, some + _why(name, experimental, _UNKNOWN)
    for name, category in CATEGORIES.items():
        audited = category.side == "response" and not category.auxiliary and name != UNFAMILIAR
        if audited and name not in there | found.uncovered:
            yield name, _why(name, experimental, _UNASKED)


def _why(name: str, experimental: Mapping[str, str], other: str) -> str:
    why = experimental.get(name)
    return f"the classifier is experimental for it ({why})" if why else other
