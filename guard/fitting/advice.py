"""What would make a head better, in plain sentences.

This module does not know how a head is fitted.
"""

from __future__ import annotations

import statistics
from collections import Counter
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from guard.assess import live_risk

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from guard.fitting.bags import Bag
    from guard.heads import HeadCalibration

WELL_MANY: Final = 20
"""Different positive texts from which a head is usually worth something."""

_GOOD_AREA: Final = 0.85
_GOOD_RECALL: Final = 0.5
_LONG: Final = 3
_PRIOR: Final = 0.02
"""The default of a security class."""

_FEW: Final = 2
"""Answers to one question from which nothing follows."""

_ONE_SIDED: Final = 0.5
"""By how much the shares of either side that answer a question may differ."""

_SHOWN_LINES: Final = 6
_ODD: Final = 0.1
"""Share of the other side that a row's score must be beyond to look mislabelled."""


def advice(
    bags: Sequence[Bag],
    figures: dict[str, Any],
    calibration: HeadCalibration,
    scores: NDArray[np.float64],
) -> tuple[str, ...]:
    """Return what to do about the examples, the most useful first.

    Args:
        bags: the examples.
        figures: of the fit.
        calibration: the head's.
        scores: held-out scores of the bags, in their order.
    """
    found = [
        *_too_few(figures),
        *_alike(bags),
        *_one_sided(bags),
        *_separable(figures),
        *_mislabelled(bags, scores),
        *_long(bags),
        *_bounded(calibration),
    ]
    return tuple(found)


def _too_few(figures: dict[str, Any]) -> list[str]:
    found = []
    alike = figures["positives"] - figures["different"]
    if figures["different"] < WELL_MANY:
        found.append(
            f"{figures['different']} different texts have label 1: with {WELL_MANY} to 200 the "
            "head and its figures get more certain"
        )
    if alike * 4 > figures["positives"]:
        found.append(
            f"{alike} of {figures['positives']} texts with label 1 are near copies of others and "
            "count with them as one: write them from more angles"
        )
    if not figures["negatives"]:
        found.append(
            "no text has label 0: add some that only look like the category, or the head may "
            "have learned their topic"
        )
    return found


def _alike(bags: Sequence[Bag]) -> list[str]:
    """Return a hint where no fit could see other texts with label 0 than it was measured on."""
    negatives = [bag.copies for bag in bags if not bag.positive]
    if len(set(negatives)) != 1:
        return []
    text = "near copies count as one, so a single text has label 0, and what is measured against it"
    return [f"{text} comes from fits that saw none: add different ones"]


def _one_sided(bags: Sequence[Bag]) -> list[str]:
    """Return a hint at the question that tells the sides apart best, if any does."""
    answered = [
        Counter(bag.question for bag in bags if bag.positive == side) for side in (False, True)
    ]
    totals = [counter.total() for counter in answered]

    def lead(side: int, question: int) -> float:
        one, other = (answered[n][question] / max(1, totals[n]) for n in (side, 1 - side))
        return one - other

    asked = [
        (side, question)
        for side in (1, 0)
        for question, count in answered[side].items()
        if question is not None and count > _FEW
    ]
    side, question = max(asked, key=lambda found: lead(*found), default=(0, -1))
    if not asked or lead(side, question) <= _ONE_SIDED:
        return []
    found = f"{answered[side][question]} of {totals[side]} texts with label {side}"
    other = f"{answered[1 - side][question] or 'none'} with label {1 - side}"
    mend = f"give that question answers with label {1 - side}, too"
    return [f"{found} answer one question, and {other}: {mend}, or the head may learn the question"]


def _separable(figures: dict[str, Any]) -> list[str]:
    found = []
    own, recall = figures.get("auroc_own"), figures.get("recall")
    if own is not None and own["value"] < _GOOD_AREA:
        found.append(
            f"the model tells label 1 from label 0 with an AUROC of only {own['value']:.2f}: "
            "check the labels, add examples, or draw the category more sharply"
        )
    if recall is not None and recall["value"] < _GOOD_RECALL:
        found.append(
            f"at {recall['rate']:.0%} of ordinary texts only {recall['value']:.0%} of the examples "
            "are found: the category may be too mixed, try two"
        )
    return found


def _mislabelled(bags: Sequence[Bag], scores: NDArray[np.float64]) -> list[str]:
    """Return a hint at rows that score like the other side."""
    truth = np.array([bag.positive for bag in bags], bool)
    if truth.all() or not truth.any():
        return []
    low, high = np.quantile(scores[~truth], _ODD), np.quantile(scores[truth], 1 - _ODD)
    odd = np.where(truth, scores < low, scores > high)
    lines = sorted(bag.line for bag, wrong in zip(bags, odd, strict=True) if wrong and bag.line)
    if not lines:
        return []
    shown = ", ".join(str(line) for line in lines[:_SHOWN_LINES])
    more = ", …" if len(lines) > _SHOWN_LINES else ""
    return [f"look at the labels of lines {shown}{more}: they score like the other side"]


def _long(bags: Sequence[Bag]) -> list[str]:
    length = statistics.median(len(bag.units) for bag in bags if bag.positive)
    if length <= _LONG:
        return []
    text = f"texts with label 1 are long ({length:g} units at the median)"
    return [f"{text}: keep the passages that show the category"]


def _bounded(calibration: HeadCalibration) -> list[str]:
    highest = live_risk(calibration.maximum, _PRIOR)
    if highest >= 0.5:
        return []
    text = f"these rows bear evidence of at most {calibration.maximum:.1f}"
    reach = f"at a prior of {_PRIOR} the live risk reaches {highest:.2f} at most"
    if round(highest, 2) <= _PRIOR:
        return [
            f"{text}: {reach}, as any text does, which leaves no room for a limit: add examples"
        ]
    return [f"{text}: {reach}, so set limits below that and above {_PRIOR}, or add examples"]
