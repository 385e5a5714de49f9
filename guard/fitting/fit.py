"""From labelled examples to a head: logistic regression on frozen embeddings, calibrated.

What each thing counts, and why:

- both sides of the labels count alike, and so do near copies together; rows of one's own with
  label 0 count more than as many of the bundled sample, since they are what the head must tell
  apart, and every further one counts less;
- every row is also seen without its prompt (or with a borrowed one), so that the head cannot
  learn whether there was a prompt;
- penalty, calibration and figures come from folds that did not see the row, and near copies and
  answers to one question are in one fold, as long as every fold is left enough of either side;
- where mostly one side answers a question that cannot stay in one fold, a held-out score is the
  one with the question or without it that speaks against the label: it must not do for a sign;
- evidence is bounded by what the rows can bear: the lower bound of the share of positives above
  a score, over the upper bound of the share of negatives above it.

The same rows in another order give the same head.

This module does not know files or categories' names, and loads neither torch nor sklearn.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from guard.calibration import LEAST_SLOPE, auroc, wilson
from guard.errors import ConfigurationError
from guard.fitting.advice import advice
from guard.fitting.logistic import Linear, log_loss, regression
from guard.heads import MAXIMUM_EVIDENCE, HeadCalibration

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from guard.fitting.bags import Bag
    from guard.fitting.benign import Benign

    Floats = NDArray[np.float64]
    Booleans = NDArray[np.bool_]

FEWEST: Final = 5
"""Different texts of either side below which nothing can be fitted."""

FOLDS: Final = 5

PENALTIES: Final = (3.0, 1.0, 0.3, 0.1, 0.03)
"""Tried from the strictest on, until a looser one is no better."""

COLUMNS: Final = 256
"""Directions of the embedding that are kept; the rest are nearly constant."""

BENIGN_RATE: Final = 0.01
"""Share of the benign sample that a recall is given at."""

_OWN_MOST: Final = 0.2
"""Part of the negative weight that few own negatives have at most."""

_OWN_HALF: Final = 20
"""Own negatives from which they have half of that."""

_EVEN: Final = 0.8
"""Share of one side over that of the other from which both answer a question as often."""

_SLOPE_HOLD: Final = 3.0
"""As `guard.calibration.FREE`: keeps the slope finite where a score separates the rows."""

_Z: Final = 1.959964


@dataclass(frozen=True, slots=True)
class Fitted:
    """A head without its name.

    Attributes:
        weights: one per dimension of the embedding.
        intercept: added to the weighted sum.
        calibration: from logit to evidence.
        figures: what was measured on rows that a fold had not seen.
        advice: sentences that say what would mend it.
    """

    weights: tuple[float, ...]
    intercept: float
    calibration: HeadCalibration
    figures: dict[str, Any]
    advice: tuple[str, ...]


def fit(bags: Sequence[Bag], benign: Benign | None) -> Fitted:
    """Return the head that tells the positive bags from the others.

    Args:
        bags: the examples, in the order of `guard.fitting.bags.bags`.
        benign: the bundled sample, `None` where the model has none.

    Raises:
        ConfigurationError: too few different texts of either side.
    """
    _enough(bags, benign)
    table = _Table(bags, benign)
    penalty, held_out = _best(table)
    line = table.line(np.ones(len(table.truth), bool), penalty)
    calibration = _calibrated(table, held_out)
    weights, intercept = table.unfolded(line)
    figures = _figures(table, held_out) | {"penalty": penalty, "folds": table.folds}
    return Fitted(
        weights=tuple(float(f"{weight:.7g}") for weight in weights),
        intercept=float(f"{intercept:.7g}"),
        calibration=calibration,
        figures=figures,
        advice=advice(bags, figures, calibration, held_out[: len(bags)]),
    )


def _enough(bags: Sequence[Bag], benign: Benign | None) -> None:
    problems = []
    (positive, copied), (negative, _) = (_different(bags, side=side) for side in (True, False))
    sample = 0 if benign is None else len(benign.embeddings)
    if positive < FEWEST:
        more = f" ({copied} more are near copies of others, and count for nothing)"
        problems.append(
            f"{positive} different texts have label 1{more if copied else ''}: give at least "
            f"{FEWEST}, better 20 to 200"
        )
    if sample < FEWEST and negative < FEWEST:
        problems.append(
            f"the model has no sample of benign embeddings, and {negative} different texts have "
            f"label 0: give at least {FEWEST}, better as many as have label 1"
        )
    if problems:
        raise ConfigurationError(problems)


def _different(bags: Sequence[Bag], *, side: bool) -> tuple[int, int]:
    """Return how many different texts a side has, and how many more are near copies."""
    copies = [bag.copies for bag in bags if bag.positive == side]
    return len(set(copies)), len(copies) - len(set(copies))


class _Table:
    """Every unit as a row of numbers, and which bag it belongs to.

    Attributes:
        truth: which bags are positive; the examples' first, then one per benign unit.
        own: which bags are the examples'.
        shares: what each bag counts; they add up to 1.
        fold: the fold of each bag.
        folds: number of folds.
        copies: near copies of one side have one number; shape (own bags,).
    """

    def __init__(self, bags: Sequence[Bag], benign: Benign | None) -> None:
        sample = np.empty((0, len(bags[0].units[0]))) if benign is None else benign.embeddings
        plain = [*(bag.units for bag in bags), *(unit[None] for unit in sample)]
        self._x = np.concatenate([*plain, *(bag.others for bag in bags)])
        counts = [len(units) for units in plain]
        self._bag = np.repeat(
            [*range(len(plain)), *range(len(bags))], [*counts, *(len(bag.others) for bag in bags)]
        )
        self._given = np.arange(len(self._x)) < sum(counts)
        self.truth = np.array([*(bag.positive for bag in bags), *[False] * len(sample)], bool)
        self.own = np.arange(len(plain)) < len(bags)
        self.copies = np.array([2 * bag.copies + bag.positive for bag in bags])
        self.shares = self._shares()
        self._unit_shares = (self.shares / np.bincount(self._bag))[self._bag]
        self.fold, self.folds = _folds(bags, len(sample))
        self._telling = np.array([*_telling(bags, self.fold), *[False] * len(sample)], bool)
        self._project(sample if len(sample) else self._x)

    def line(self, use: Booleans, penalty: float, start: Linear | None = None) -> Linear:
        """Return the line of the bags in use."""
        rows = use[self._bag]
        shares = self._unit_shares[rows] / self._unit_shares[rows].sum()
        truth = self.truth[self._bag][rows]
        return regression(self._x[rows], truth, _balanced(shares, truth), penalty, start)

    def scores(self, line: Linear) -> Floats:
        """Return each bag's highest score over its units as given.

        Where the question gives the side away, the line may have learned it and not the answers.
        There the score is with the question or without it, whichever speaks against the label.
        """
        given, others = self._highest(line, self._given), self._highest(line, ~self._given)
        lower, higher = np.minimum(given, others), np.maximum(given, others)
        return np.where(self._telling, np.where(self.truth, lower, higher), given)

    def _highest(self, line: Linear, rows: Booleans) -> Floats:
        found = np.full(len(self.truth), -math.inf)
        np.maximum.at(found, self._bag[rows], line.scores(self._x[rows]))
        return found

    def unfolded(self, line: Linear) -> tuple[Floats, float]:
        """Return weights and intercept for embeddings as the model gives them."""
        weights = self._directions @ line.weights
        return weights, float(line.intercept - self._centre @ weights)

    def _project(self, ordinary: Floats) -> None:
        """Measure every number by its spread over ordinary units, and keep what varies most."""
        self._centre = ordinary.mean(axis=0)
        spread = ordinary.std(axis=0)
        # What hardly ever varies must not be blown up.
        spread = np.maximum(spread, 0.1 * math.sqrt(float((spread**2).mean())) or 1.0)
        scaled = (self._x - self._centre) / spread
        _, _, directions = np.linalg.svd(scaled, full_matrices=False)
        kept = directions[:COLUMNS].T
        # The sign of a direction is arbitrary, and so may depend on the machine.
        kept *= np.sign(kept[np.abs(kept).argmax(axis=0), np.arange(kept.shape[1])])
        self._directions = kept / spread[:, None]
        self._x = (self._x - self._centre) @ self._directions

    def _shares(self) -> Floats:
        """Return what each bag counts; see the module."""
        shares = np.ones(len(self.truth))
        sizes = Counter(self.copies.tolist())
        shares[self.own] = [1 / sizes[number] for number in self.copies]
        mine = self.own & ~self.truth
        rest = ~self.own & ~self.truth
        if mine.any() and rest.any():
            number, others = shares[mine].sum(), shares[rest].sum()
            part = max(number / (number + others), _OWN_MOST * number / (number + _OWN_HALF))
            shares[mine] *= part / number
            shares[rest] *= (1 - part) / others
        return _balanced(shares, self.truth)


def _balanced(shares: Floats, truth: Booleans) -> Floats:
    """Return shares of which either side has one half."""
    return np.asarray(shares / (2 * np.where(truth, shares[truth].sum(), shares[~truth].sum())))


def _folds(bags: Sequence[Bag], sample: int) -> tuple[NDArray[np.int64], int]:
    """Return each bag's fold and how many there are; both sides are spread evenly.

    No fold holds a whole side (unless that is one text, and the sample stands in): `_enough` saw
    to it that there are different texts, and `_together` keeps them in different groups.
    """
    together = _together(bags)
    sides: dict[int, set[bool]] = {}
    keys: dict[int, str] = {}
    for group, bag in zip(together, bags, strict=True):
        sides.setdefault(group, set()).add(bag.positive)
        keys.setdefault(group, bag.key)
    # Groups with both sides stand in the middle, so that either side's come one after another.
    order = sorted(sides, key=lambda g: (True not in sides[g], False in sides[g], keys[g]))
    count = min(FOLDS, sum(True in found for found in sides.values()))
    rank = {group: place % count for place, group in enumerate(order)}
    own = [rank[group] for group in together]
    return np.array([*own, *(np.arange(sample) % count)], np.int64), count


def _together(bags: Sequence[Bag]) -> list[int]:
    """Return a number per bag; bags of one number are in one fold.

    Common questions and near copies can chain most of a side into one group, which would then be
    scored by a fit that saw hardly any of it. There near copies alone stay together.
    """
    for side in (True, False):
        groups = {bag.group for bag in bags if bag.positive == side}
        copies = {bag.copies for bag in bags if bag.positive == side}
        if len(groups) < min(FOLDS, len(copies)):
            return [bag.copies for bag in bags]
    return [bag.group for bag in bags]


def _telling(bags: Sequence[Bag], fold: NDArray[np.int64]) -> list[bool]:
    """Return which bags' question gives their side away: mostly one side answers it elsewhere."""
    folds: dict[int | None, set[int]] = {}
    for bag, number in zip(bags, fold[: len(bags)].tolist(), strict=True):
        folds.setdefault(bag.question, set()).add(number)
    sides = [
        Counter(bag.question for bag in bags if bag.positive == side) for side in (True, False)
    ]

    def even(question: int | None) -> bool:
        low, high = sorted(side[question] / max(1, side.total()) for side in sides)
        return low >= _EVEN * high

    return [
        bag.question is not None and len(folds[bag.question]) > 1 and not even(bag.question)
        for bag in bags
    ]


def _best(table: _Table) -> tuple[float, Floats]:
    """Return the penalty with the least held-out loss, and each bag's held-out score under it."""
    best: tuple[float, float, Floats] | None = None
    lines: dict[int, Linear] = {}
    for penalty in PENALTIES:
        scores = np.empty(len(table.truth))
        for fold in range(table.folds):
            out = table.fold == fold
            lines[fold] = table.line(~out, penalty, lines.get(fold))
            scores[out] = table.scores(lines[fold])[out]
        loss = log_loss(scores, table.truth, table.shares)
        if best is not None and loss >= best[0]:
            break
        best = (loss, penalty, scores)
    assert best is not None  # noqa: S101  # there are penalties
    return best[1], best[2]


def _calibrated(table: _Table, scores: Floats) -> HeadCalibration:
    """Return a balanced Platt calibration of held-out scores, bounded by what rows can bear."""
    fewest = min(table.truth.sum(), (~table.truth).sum())
    line = regression(scores[:, None], table.truth, table.shares, 1 / (2 * fewest * _SLOPE_HOLD**2))
    slope, intercept = float(line.weights[0]), line.intercept
    if slope < LEAST_SLOPE:
        middle = scores[table.truth].mean() / 2 + scores[~table.truth].mean() / 2
        slope, intercept = LEAST_SLOPE, float(-LEAST_SLOPE * middle)
    minimum, maximum = _bounds(table, scores)
    return HeadCalibration(
        slope=float(f"{slope:.7g}"),
        intercept=float(f"{intercept:.7g}"),
        minimum=round(minimum, 4),
        maximum=round(maximum, 4),
    )


def _bounds(table: _Table, scores: Floats) -> tuple[float, float]:
    """Return the lowest and the highest log likelihood ratio that the rows can bear."""
    positive = scores[table.truth]
    negative = np.sort(scores[~table.truth])
    weight = table.shares[table.truth] / table.shares[table.truth].sum()
    effective = len(set(table.copies[table.truth[table.own]].tolist()))
    above = np.array([weight[positive >= limit].sum() for limit in positive])
    over = 1 - np.searchsorted(negative, positive) / len(negative)
    found, _ = _wilson(above, effective)
    _, wrong = _wilson(over, len(negative))
    _, missed = _wilson(1 - above, effective)
    right, _ = _wilson(1 - over, len(negative))
    with np.errstate(divide="ignore"):
        maximum = float(np.log(found / wrong).max())
        minimum = float(np.log(missed / right).min())
    return (
        max(-MAXIMUM_EVIDENCE, min(0.0, minimum)),
        max(0.0, min(MAXIMUM_EVIDENCE, maximum)),
    )


def _wilson(share: Floats, total: int) -> tuple[Floats, Floats]:
    """Return the 95 % intervals of shares (Wilson, JASA 22, 1927)."""
    squared = _Z * _Z
    centre = (share + squared / (2 * total)) / (1 + squared / total)
    spread = np.sqrt(share * (1 - share) / total + squared / (4 * total**2))
    half = _Z / (1 + squared / total) * spread
    return np.maximum(0.0, centre - half), np.minimum(1.0, centre + half)


def _figures(table: _Table, scores: Floats) -> dict[str, Any]:
    mine = table.own & ~table.truth
    rest = ~table.own
    figures: dict[str, Any] = {
        "positives": int(table.truth.sum()),
        "negatives": int(mine.sum()),
        "benign": int(rest.sum()),
        "different": len(set(table.copies[table.truth[table.own]].tolist())),
    }
    for name, negatives in (("own", mine), ("benign", rest)):
        if negatives.any():
            figures[f"auroc_{name}"] = _area(scores, table.truth, negatives)
    if rest.any():
        limit = np.quantile(scores[rest], 1 - BENIGN_RATE)
        hits = int((scores[table.truth] > limit).sum())
        share = wilson(hits, int(table.truth.sum()))
        figures["recall"] = {
            "rate": BENIGN_RATE,
            "value": round(share.value, 4),
            "interval": [round(share.low, 4), round(share.high, 4)],
        }
    return figures


def _area(scores: Floats, truth: Booleans, negatives: Booleans) -> dict[str, Any]:
    """Return an AUROC with a cautious interval: few rows without a slip prove little.

    Its variance is at most that of a share of the smaller side's rows (Birnbaum and Klose,
    Annals of Mathematical Statistics 28, 1957).
    """
    use = truth | negatives
    area = auroc(scores[use], truth[use])
    low, high = _wilson(np.array(area), int(min(truth.sum(), negatives.sum())))
    return {"value": round(area, 4), "interval": [round(float(low), 4), round(float(high), 4)]}
