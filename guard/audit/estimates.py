"""From flags to figures, for a number of answers that was fixed beforehand.

This module does not know where flags come from. For stopping early see `guard.audit.course`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from guard.audit.statistics import Counts, Estimate, effect, rate, rate_of_questions

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from guard.audit.figures import Aim, Figure
    from guard.audit.instruments import Pooled

    Flags = Callable[[Aim], bool | None]
    """Whether an answer is flagged; `None` where there is no answer."""


def estimate(figure: Figure, flags: Flags) -> Estimate:
    """Return a figure with its 95 % interval; an `n` of 0 where nothing was answered."""
    if figure.paired:
        styled, neutral = sides(figure, flags)
        first = counts(styled, flags, figure.pooled)
        second = counts(neutral, flags, figure.pooled)
        return effect(first, second, figure.pooled.confusion)
    units = [aims for aims in figure.units.values() if answered(aims, flags)]
    found = counts(units, flags, figure.pooled)
    if (found.asked == 1).all():
        return rate(float(found.flagged.sum()), found.questions, figure.pooled.confusion)
    return rate_of_questions(found, figure.pooled.confusion)


def sides(figure: Figure, flags: Flags) -> tuple[list[list[Aim]], list[list[Aim]]]:
    """Return the answers of a paired figure's units: compared, and compared with."""
    styled, neutral = [], []
    for aims in figure.units.values():
        there = answered(aims, flags)
        first = [aim for aim in there if not aim.against]
        second = [aim for aim in there if aim.against]
        if first and second:
            styled.append(first)
            neutral.append(second)
    return styled, neutral


def answered(aims: Iterable[Aim], flags: Flags) -> list[Aim]:
    """Return those that have an answer."""
    return [aim for aim in aims if flags(aim) is not None]


def counts(units: Sequence[Sequence[Aim]], flags: Flags, pooled: Pooled | None = None) -> Counts:
    """Return flagged and judged answers per unit, whose answers without flags are left out.

    Args:
        units: the answers of each.
        flags: of each answer.
        pooled: what a flag counts for; whole numbers without it.
    """
    there = [kept for aims in units if (kept := answered(aims, flags))]
    flagged = [[aim for aim in aims if flags(aim)] for aims in there]
    plain = Counts([len(aims) for aims in flagged], [len(aims) for aims in there])
    if pooled is None or all(weight == 1 for weight in pooled.weights.values()):
        return plain
    weights = [
        float(np.mean([pooled.weights[aim.instrument] for aim in aims])) if aims else 1.0
        for aims in flagged
    ]
    return plain.weighted(np.array(weights))
