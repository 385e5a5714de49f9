"""What moved between two audits, such as of a base model and its fine-tune.

Where both folders hold answers to the same probes, they are compared question by question;
otherwise the counts of both profiles are. Each figure is tested, and all tests together are held
to one error: that anything at all is said to have moved although nothing did has a chance of at
most 5 % (Holm).

Counts are those of answers where each answers a question of its own. Where several belong to one
question they are alike, and a count of them says too much: there the rates are compared, as so many
independent answers as their intervals are worth.

Style amplification is compared within each question: (styled - neutral) there, less the same
here. Flags are compared as they are, since a classifier that errs alike on both sides leaves
"nothing moved" true; differences are corrected for its errors.

This module does not know why anything moved. Both audits must have been judged by the same
detectors.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

import numpy as np

from guard.audit.errors import AuditError
from guard.audit.estimates import answered, counts, sides
from guard.audit.figures import PERSONA_RATE, figures
from guard.audit.folder import Folder
from guard.audit.profile import Profile
from guard.audit.statistics import (
    Counts,
    Estimate,
    difference,
    effect,
    holm,
    paired_p_value,
    unpaired_p_value,
    worth,
)
from guard.audit.statistics.labelled import METHOD as LABELLED
from guard.calibration import Share

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Sequence
    from pathlib import Path

    from guard.audit.assemble import Assembled
    from guard.audit.estimates import Flags
    from guard.audit.figures import Aim, Figure, Kind
    from guard.audit.judging import Judgement
    from guard.audit.probe import Probe
    from guard.audit.profile import Effect, Rate

ERROR: Final = 0.05
"""The chance that anything is said to have moved although nothing did."""

_OTHER_MEANS: Final = (
    "one rests on labels and the other on a classifier: needs the answers of both to the same "
    "questions"
)

_Count = tuple[float, float]

Direction = Literal["worse", "better", "same"]


@dataclass(frozen=True, slots=True)
class Change:
    """One figure on both sides.

    Attributes:
        kind: category, mechanism or effect.
        name: its name.
        before: the figure in the first audit.
        after: the figure in the second.
        change: `after` less `before` with its 95 % interval, corrected where errors are known.
        p_value: how surprising the difference is if nothing moved.
        adjusted: the same, held to one error for all comparisons.
        paired: questions that both sides answered; 0 where only counts were compared.
    """

    kind: Kind
    name: str
    before: float
    after: float
    change: Estimate
    p_value: float
    adjusted: float
    paired: int

    @property
    def direction(self) -> Direction:
        """Which way it moved; `same` where that is not certain."""
        if self.adjusted > ERROR or self.change.value == 0:
            return "same"
        return "worse" if self.change.value > 0 else "better"


@dataclass(frozen=True, slots=True)
class Diff:
    """Everything that was compared.

    Attributes:
        before: the first profile.
        after: the second.
        changes: one per figure that both have, in the order of a profile.
        settings: how the two models differ, one sentence each.
        left_out: figures that could not be compared, and why.
    """

    before: Profile
    after: Profile
    changes: tuple[Change, ...]
    settings: tuple[str, ...]
    left_out: Mapping[str, str]

    @property
    def worse(self) -> tuple[Change, ...]:
        """What got worse for certain."""
        return tuple(change for change in self.changes if change.direction == "worse")


@dataclass(frozen=True, slots=True)
class _Test:
    """A comparison before the others are taken into account."""

    kind: Kind
    name: str
    change: Estimate
    p_value: float
    paired: int


def compare(first: Path, second: Path) -> Diff:
    """Return what moved from the first audit to the second.

    Args:
        first: the folder of an audit, or a profile.
        second: another.

    Raises:
        AuditError: they were judged by other detectors, or a folder is not complete.
        ProfileError: a profile cannot be read.
    """
    if first.is_dir() and second.is_dir():
        before, after = Folder(first).assemble(), Folder(second).assemble()
        _same_detectors(before.profile, after.profile)
        common = _common(before, after)
        if common:
            tests = list(_by_question(before, after, common))
            return _diff(before.profile, after.profile, tests)
    one, two = _profile(first), _profile(second)
    _same_detectors(one, two)
    return _diff(one, two, list(_by_counts(one, two)))


def _profile(path: Path) -> Profile:
    return Folder(path).assemble().profile if path.is_dir() else Profile.read(path)


def _same_detectors(before: Profile, after: Profile) -> None:
    if dict(before.detectors) != dict(after.detectors):
        other = sorted(
            name
            for name in {*before.detectors, *after.detectors}
            if before.detectors.get(name) != after.detectors.get(name)
        )
        raise AuditError(
            f"the audits were judged by other detectors ({', '.join(other)}), so that a difference "
            "would say nothing: judge both anew here (`guard audit profile`)"
        )


def _diff(before: Profile, after: Profile, tests: Sequence[_Test]) -> Diff:
    adjusted = holm([test.p_value for test in tests])
    changes = tuple(
        Change(
            test.kind,
            test.name,
            _value(before, test),
            _value(after, test),
            test.change,
            test.p_value,
            at_once,
            test.paired,
        )
        for test, at_once in zip(tests, adjusted, strict=True)
    )
    compared = {(change.kind, change.name) for change in changes}
    left_out = dict(_left_out(before, after, compared))
    return Diff(before, after, changes, tuple(_settings(before, after)), left_out)


# Question by question.


def _common(before: Assembled, after: Assembled) -> list[Probe]:
    """Return the probes that count on both sides and ask the same."""
    there = {probe.id: probe for probe in before.plan.probes}
    both = set(before.counted) & set(after.counted)
    return [
        probe for probe in after.plan.probes if probe.id in both and _same(probe, there[probe.id])
    ]


def _same(one: Probe, two: Probe) -> bool:
    people = {"why", "topic"}
    return one.model_dump(exclude=people) == two.model_dump(exclude=people)


def _by_question(before: Assembled, after: Assembled, common: Sequence[Probe]) -> Iterator[_Test]:
    here, there = after.judged.judgements, before.judged.judgements
    both = here.keys() & there.keys()
    for figure in figures(common, after.judged.instruments).every:
        if figure.name == PERSONA_RATE:
            continue  # the mechanism's rate by another name
        compared = _paired(figure, _flags(here, both), _flags(there, both))
        if compared is not None:
            yield _Test(figure.kind, figure.name, *compared)


def _flags(judgements: Mapping[str, Judgement], both: Collection[str]) -> Flags:
    def flags(aim: Aim) -> bool | None:
        return judgements[aim.probe].flagged(aim.instrument) if aim.probe in both else None

    return flags


def _paired(figure: Figure, here: Flags, there: Flags) -> tuple[Estimate, float, int] | None:
    """Return change, p-value and number of questions, `None` where no question has both."""
    if figure.paired:
        return _amplified(figure, here, there)
    units = [aims for aims in figure.units.values() if answered(aims, here)]
    if not units:
        return None
    p_value = paired_p_value(counts(units, here), counts(units, there))
    pooled = figure.pooled
    change = effect(counts(units, here, pooled), counts(units, there, pooled), pooled.confusion)
    return change, p_value, len(units)


def _amplified(figure: Figure, here: Flags, there: Flags) -> tuple[Estimate, float, int] | None:
    """Compare differences.

    Crosswise: each side holds one model's styled answers and the other's neutral ones, so that
    what the sides differ in is the difference of the differences.
    """
    styled, neutral = sides(figure, here)
    if not styled:
        return None
    first, second, asked, weights = [], [], [], []
    for with_style, without in zip(styled, neutral, strict=True):
        k, m = len(with_style), len(without)
        first.append(m * _sum(with_style, here) + k * _sum(without, there))
        second.append(m * _sum(with_style, there) + k * _sum(without, here))
        asked.append(2 * k * m)
        weights.append(np.mean([figure.pooled.weights[aim.instrument] for aim in with_style]))
    one, two = Counts(first, asked), Counts(second, asked)
    each = np.array(weights)
    half = effect(one.weighted(each), two.weighted(each), figure.pooled.confusion)
    change = Estimate(2 * half.value, 2 * half.low, 2 * half.high, half.n, half.method, half.reason)
    return change, paired_p_value(one, two), len(styled)


def _sum(aims: Iterable[Aim], flags: Flags) -> int:
    return sum(bool(flags(aim)) for aim in aims)


# By the counts of two profiles.


def _by_counts(before: Profile, after: Profile) -> Iterator[_Test]:
    for kind, one, two in _rates(before, after):
        for name in [name for name in one if name in two]:
            if (both := _counted(two[name], one[name])) is not None:
                yield _Test(kind, name, difference(*both), unpaired_p_value(*both), 0)


def _counted(here: Rate, there: Rate) -> tuple[_Count, _Count] | None:
    """Return (flagged, judged) answers of both sides, `None` where they cannot be compared.

    A rate by labels and one by a classifier differ if the classifier's calibration does not fit,
    although the models do not; flags of the same classifier do not mind.
    """
    if all(rate.n == rate.answers for rate in (here, there)):
        return (here.flagged, here.answers), (there.flagged, there.answers)
    if _by_labels(here) != _by_labels(there):
        return None
    return _worth(here), _worth(there)


def _worth(rate: Rate) -> _Count:
    # Older profiles took labelled answers to one question for independent: a question each at most.
    most = rate.n if rate.method == LABELLED else rate.answers
    return worth(Share(rate.rate, rate.lower, rate.upper), most)


def _by_labels(rate: Rate | Effect) -> bool:
    return rate.method.startswith(LABELLED)


def _rates(
    before: Profile, after: Profile
) -> Iterator[tuple[Kind, Mapping[str, Rate], Mapping[str, Rate]]]:
    yield "category", before.categories, after.categories
    yield "mechanism", before.mechanisms, after.mechanisms


def _value(profile: Profile, test: _Test) -> float:
    if test.kind == "effect":
        return profile.effects[test.name].estimate if test.name in profile.effects else 0.0
    rates = profile.categories if test.kind == "category" else profile.mechanisms
    return rates[test.name].rate if test.name in rates else 0.0


def _left_out(
    before: Profile, after: Profile, compared: Collection[tuple[str, str]]
) -> Iterator[tuple[str, str]]:
    groups = (
        ("category", before.categories, after.categories),
        ("mechanism", before.mechanisms, after.mechanisms),
        ("effect", before.effects, after.effects),
    )
    for kind, one, two in groups:
        for name in sorted({*one, *two}):
            if (kind, name) in compared or name == PERSONA_RATE:
                continue
            both = name in one and name in two
            if both and _by_labels(one[name]) != _by_labels(two[name]):
                yield name, _OTHER_MEANS
            else:
                yield name, "needs the answers of both" if both else "only one of the two has it"


def _settings(before: Profile, after: Profile) -> Iterator[str]:
    one, two = before.fingerprint, after.fingerprint
    for name in type(one).model_fields:
        if (there := getattr(one, name)) != (here := getattr(two, name)):
            yield f"{name.replace('_', ' ')}: {_shown(there)} before, {_shown(here)} after"
    if {item.digest for item in before.probes} != {item.digest for item in after.probes}:
        yield "probes: not the same on both sides; only those that are were compared"
    if "early" in (before.stopping, after.stopping):
        yield "an audit stopped early: what it did not ask could not be compared"


def _shown(value: object) -> str:
    if value is None:
        return "none"
    text = str(dict(value)) if isinstance(value, Mapping) else str(value)
    return f"sha256 {text[:16]}" if re.fullmatch(r"[0-9a-f]{64}", text) else text
