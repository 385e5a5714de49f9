"""Calibration: from scores to evidence, and how far the evidence can be believed.

Evidence is a log likelihood ratio, so it is fitted as if both sides were equally common (Platt,
"Probabilistic outputs for support vector machines", 1999, on rows that are weighted to balance)
and judged at a prior that is named: the share of risky rows in a data set says nothing about
the share in front of a user.

This module does not know texts, categories or classifiers: it sees scores and truths.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from numpy.typing import NDArray

    Floats = NDArray[np.float64]
    Truths = NDArray[np.bool_]

REFERENCE_PRIOR: Final = 0.5
"""At one half the log-odds are the evidence itself and an error shows in full; at a prior of 2 %
even a constant looks calibrated."""

THRESHOLDS: Final = (0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0)
"""Evidence at which a confusion is kept beside a calibration."""

BINS: Final = 10

LEAST_SLOPE: Final = 1e-3
"""A slope stays above 0: a higher score never means less risk."""

_STEPS: Final = 60
_Z: Final = 1.959964
"""Normal quantile of a 95 % interval."""


@dataclass(frozen=True, slots=True)
class Line:
    """Evidence as a line through the score: `slope * score + intercept`."""

    slope: float
    intercept: float


@dataclass(frozen=True, slots=True)
class Ridge:
    """How strongly a fit is held to a line: as if its parameters were known that well.

    Attributes:
        towards: what the fit gives where there are no rows.
        slope: standard deviation of the slope around it, above 0.
        intercept: the intercept's, `inf` for no hold.
    """

    towards: Line
    slope: float
    intercept: float


FREE: Final = Ridge(Line(0.0, 0.0), 3.0, math.inf)
"""Hardly any hold; enough for a slope to exist where a score separates the rows perfectly."""


@dataclass(frozen=True, slots=True)
class Share:
    """A share in [0, 1] with its 95 % interval (Wilson, JASA 22, 1927); (0, 1) of nothing."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Bin:
    """Rows of like evidence.

    Attributes:
        predicted: their mean probability, from evidence and prior.
        observed: the share of risky rows among them at that prior.
        mass: their part of all rows at that prior, in [0, 1].
        positives: risky rows in it.
        negatives: the other rows in it.
    """

    predicted: float
    observed: float
    mass: float
    positives: int
    negatives: int


@dataclass(frozen=True, slots=True)
class Confusion:
    """What a limit on the evidence gets right and wrong.

    With it a rate of flagged answers becomes a rate of risky ones (Rogan and Gladen, American
    Journal of Epidemiology 107, 1978).

    Attributes:
        threshold: evidence from which a row counts as flagged.
        true_positives: risky rows that are flagged.
        false_positives: other rows that are flagged.
        true_negatives: other rows that are not.
        false_negatives: risky rows that are not.
    """

    threshold: float
    true_positives: int
    false_positives: int
    true_negatives: int
    false_negatives: int

    def within(self, maximum: float) -> bool:
        """Return whether evidence from `-maximum` to `maximum` can lie on either side of it."""
        return -maximum < self.threshold <= maximum

    @property
    def sensitivity(self) -> Share:
        """Return the share of risky rows that are flagged."""
        return wilson(self.true_positives, self.true_positives + self.false_negatives)

    @property
    def specificity(self) -> Share:
        """Return the share of the other rows that are not flagged."""
        return wilson(self.true_negatives, self.true_negatives + self.false_positives)


@dataclass(frozen=True, slots=True)
class Error:
    """Expected calibration error with its 95 % interval.

    It is an absolute difference, so that sampling noise alone keeps it above 0.
    """

    value: float
    low: float
    high: float


def fit(scores: Floats, truth: Truths, hold: Ridge = FREE, *, prior: float | None = None) -> Line:
    """Return the line whose evidence makes the truth likeliest.

    Args:
        scores: higher means riskier; shape (rows,).
        truth: whether each row is risky; both kinds are needed.
        hold: what the line is held to.
        prior: `None` where rows were collected side by side: the larger side is weighted down
            to the smaller. Otherwise rows came as they come in use, where this prior is
            assumed: then evidence and prior together should give what was observed.

    Raises:
        ValueError: all rows are of one kind.
    """
    positives = int(truth.sum())
    negatives = len(truth) - positives
    if not positives or not negatives:
        raise ValueError("a calibration needs risky rows and others")
    fewest = min(positives, negatives)
    weights = np.where(truth, fewest / positives, fewest / negatives)
    offset = 0.0
    if prior is not None:
        weights, offset = np.ones(len(truth)), _log_odds(prior)
    slope, intercept = _newton(scores, truth, weights, offset, hold)
    if slope < LEAST_SLOPE:
        # The score says the opposite or nothing: no evidence halfway between both sides.
        middle = (scores[truth].mean() + scores[~truth].mean()) / 2
        shift = 0.0 if prior is None else _log_odds((positives + 0.5) / (len(truth) + 1)) - offset
        return Line(LEAST_SLOPE, float(shift - LEAST_SLOPE * middle))
    return Line(slope, intercept)


def probabilities(evidence: Floats, prior: float = REFERENCE_PRIOR) -> Floats:
    """Return the probability of risk for each evidence at `prior`."""
    odds = np.clip(evidence + _log_odds(prior), -700.0, 700.0)
    return np.asarray(1.0 / (1.0 + np.exp(-odds)), np.float64)


def log_loss(
    evidence: Floats, truth: Truths, prior: float = REFERENCE_PRIOR, *, weighted: bool = True
) -> float:
    """Return the mean surprise in nats at the truth; arguments as of `reliability`."""
    loss = _surprise(evidence, truth, prior)
    return float((loss * _masses(truth, prior, weighted=weighted)).sum())


def gain(
    before: Floats,
    after: Floats,
    truth: Truths,
    prior: float = REFERENCE_PRIOR,
    *,
    weighted: bool = True,
) -> tuple[float, float]:
    """Return how many nats `after` surprises less than `before`, and the standard error of it.

    Row is compared with row, since both evidences are of the same rows: what makes a row hard
    for both is no noise. Where rows are weighted their sides were collected apart, so that the
    difference between the sides is no noise either. For the rest see `reliability`.
    """
    less = _surprise(before, truth, prior) - _surprise(after, truth, prior)
    masses = _masses(truth, prior, weighted=weighted)
    middle = np.full(len(less), less.mean())
    if weighted:
        middle = np.where(truth, less[truth].mean(), less[~truth].mean())
    error = math.sqrt(float(((masses * (less - middle)) ** 2).sum()))
    losses = (log_loss(each, truth, prior, weighted=weighted) for each in (before, after))
    return next(losses) - next(losses), error


def reliability(
    evidence: Floats,
    truth: Truths,
    prior: float = REFERENCE_PRIOR,
    bins: int = BINS,
    *,
    weighted: bool = True,
) -> tuple[Bin, ...]:
    """Return bins of about equal mass, from the lowest evidence to the highest.

    Equal evidence is never torn apart, so that there may be fewer bins.

    Args:
        evidence: log likelihood ratios; shape (rows,).
        truth: whether each row is risky; both kinds are needed.
        prior: joined with the evidence to predict.
        bins: how many there are at most.
        weighted: whether rows are weighted so that `prior` holds; if not, they count alike.
    """
    masses = _masses(truth, prior, weighted=weighted)
    predicted = probabilities(evidence, prior)
    values, where = np.unique(evidence, return_inverse=True)
    each = np.bincount(where, masses, len(values))
    # Each value goes where the middle of its mass lies.
    middles = np.cumsum(each) - each / 2
    number = np.minimum((middles * bins).astype(int), bins - 1)[where]
    return tuple(
        _bin(predicted[number == n], truth[number == n], masses[number == n])
        for n in np.unique(number)
    )


def calibration_error(
    evidence: Floats,
    truth: Truths,
    prior: float = REFERENCE_PRIOR,
    bins: int = BINS,
    *,
    weighted: bool = True,
) -> float:
    """Return the expected calibration error: the mean of |predicted - observed| over the bins."""
    found = reliability(evidence, truth, prior, bins, weighted=weighted)
    return float(sum(each.mass * abs(each.predicted - each.observed) for each in found))


def calibration_error_interval(  # noqa: PLR0913  # all but the rows have defaults
    evidence: Floats,
    truth: Truths,
    prior: float = REFERENCE_PRIOR,
    *,
    weighted: bool = True,
    again: int = 200,
    seed: int = 0,
) -> Error:
    """Return the error with a percentile bootstrap's interval, sides drawn apart.

    Drawing adds noise to an absolute difference: the interval leans upwards.
    """
    rng = np.random.default_rng(seed)
    value = calibration_error(evidence, truth, prior, weighted=weighted)
    sides = np.sort(evidence[truth]), np.sort(evidence[~truth])
    drawn_truth = np.repeat([True, False], [len(side) for side in sides])
    drawn = [
        calibration_error(
            np.concatenate([rng.choice(side, len(side)) for side in sides]),
            drawn_truth,
            prior,
            weighted=weighted,
        )
        for _ in range(again)
    ]
    low, high = (float(np.quantile(drawn, q)) for q in (0.025, 0.975))
    return Error(value, min(low, value), max(high, value))


def confusion(evidence: Floats, truth: Truths, threshold: float) -> Confusion:
    """Return what a limit at `threshold` gets right and wrong; what reaches it is flagged."""
    flagged = evidence >= threshold
    return Confusion(
        threshold=threshold,
        true_positives=int((flagged & truth).sum()),
        false_positives=int((flagged & ~truth).sum()),
        true_negatives=int((~flagged & ~truth).sum()),
        false_negatives=int((~flagged & truth).sum()),
    )


def wilson(hits: float, total: float) -> Share:
    """Return the share of `hits` in `total`; of nothing nothing is known."""
    if not total:
        return Share(0.5, 0.0, 1.0)
    share, squared = hits / total, _Z * _Z
    centre = (share + squared / (2 * total)) / (1 + squared / total)
    spread = math.sqrt(share * (1 - share) / total + squared / (4 * total**2))
    half = _Z / (1 + squared / total) * spread
    return Share(share, max(0.0, min(share, centre - half)), min(1.0, max(share, centre + half)))


def auroc(scores: Floats, truth: Truths) -> float:
    """Return the chance that a risky row scores above another, ties counting half.

    Raises:
        ValueError: all rows are of one kind.
    """
    positives = int(truth.sum())
    negatives = len(truth) - positives
    if not positives or not negatives:
        raise ValueError("an AUROC needs risky rows and others")
    _, where, counts = np.unique(scores, return_inverse=True, return_counts=True)
    ranks = np.cumsum(counts) - (counts - 1) / 2
    above = float(ranks[where][truth].sum()) - positives * (positives + 1) / 2
    return above / (positives * negatives)


def auroc_interval(area: float, positives: int, negatives: int) -> list[float]:
    """Return the 95 % interval of an AUROC (Hanley and McNeil, Radiology 143, 1982)."""
    q1, q2 = area / (2 - area), 2 * area**2 / (1 + area)
    spread = area * (1 - area) + (positives - 1) * (q1 - area**2) + (negatives - 1) * (q2 - area**2)
    half = _Z * math.sqrt(max(0.0, spread) / (positives * negatives))
    return [max(0.0, area - half), min(1.0, area + half)]


def summary(
    evidence: Floats,
    truth: Truths,
    prior: float = REFERENCE_PRIOR,
    thresholds: Iterable[float] = THRESHOLDS,
) -> dict[str, object]:
    """Return what is kept beside a calibration: `ece`, `reliability`, `confusion`; JSON-able.

    Raises:
        ValueError: all rows are of one kind.
    """
    if truth.all() or not truth.any():
        raise ValueError("figures need risky rows and others")
    error = calibration_error_interval(evidence, truth, prior)
    return {
        "ece": _plain(error),
        "reliability": [_plain(each) for each in reliability(evidence, truth, prior)],
        "confusion": [_plain(confusion(evidence, truth, each)) for each in thresholds],
    }


def held_out(
    scores: Floats,
    truth: Truths,
    digests: Sequence[str],
    fitted: Callable[[Floats, Truths], Line],
    count: int = 5,
) -> Floats:
    """Return each row's evidence from a line that was fitted without it (cross-validation).

    Args:
        scores: higher means riskier; shape (rows,).
        truth: whether each row is risky; at least two contents of either kind.
        digests: a hash of each row's content, which decides what is fitted together: rows of
            one content are always in one part, and the order of the rows does not matter.
        fitted: fits a line.
        count: number of parts.
    """
    # A row whose copy was fitted to would judge itself.
    contents, where = np.unique(np.asarray(digests), return_inverse=True)
    risky = np.bincount(where, truth, len(contents)) / np.bincount(where, minlength=len(contents))
    each = np.empty(len(contents), np.int64)
    # Stable: contents come in their own order within a share of risky rows.
    each[np.argsort(risky, kind="stable")] = np.arange(len(contents)) % count
    part = each[where]
    found = np.empty(len(digests))
    for number in range(count):
        inside = part == number
        if inside.any():
            line = fitted(scores[~inside], truth[~inside])
            found[inside] = line.slope * scores[inside] + line.intercept
    return found


def _newton(
    scores: Floats, truth: Truths, weights: Floats, offset: float, hold: Ridge
) -> tuple[float, float]:
    """Return slope and intercept of the convex fit, by Newton's method with halved steps."""
    columns = np.column_stack([scores, np.ones(len(scores))])
    target = np.array([hold.towards.slope, hold.towards.intercept])
    stiff = np.array([hold.slope**-2, 0.0 if math.isinf(hold.intercept) else hold.intercept**-2])
    signs = np.where(truth, 1.0, -1.0)

    def loss(at: Floats) -> float:
        margins = signs * (columns @ at + offset)
        held = 0.5 * float((stiff * (at - target) ** 2).sum())
        return float((weights * np.logaddexp(0.0, -margins)).sum()) + held

    at, value = target.copy(), loss(target)
    for _ in range(_STEPS):
        chances = probabilities(columns @ at + offset)
        slope = columns.T @ (weights * (chances - truth)) + stiff * (at - target)
        bend = (columns * (weights * chances * (1 - chances))[:, None]).T @ columns
        # A trace of curvature where every row is certain and nothing holds the intercept.
        step = np.asarray(np.linalg.solve(bend + np.diag(stiff + 1e-12), slope), np.float64)
        size = 1.0
        while (following := loss(at - size * step)) > value and size > 1e-8:
            size /= 2
        if following > value:
            break
        at, gain, value = at - size * step, value - following, following
        if gain < 1e-12 * (1 + abs(value)):
            break
    return float(at[0]), float(at[1])


def _surprise(evidence: Floats, truth: Truths, prior: float) -> Floats:
    """Return each row's surprise at its truth in nats."""
    odds = evidence + _log_odds(prior)
    return np.asarray(np.logaddexp(0.0, np.where(truth, -odds, odds)), np.float64)


def _masses(truth: Truths, prior: float, *, weighted: bool) -> Floats:
    """Return each row's weight; they add up to 1, and where weighted the risky ones' to `prior`."""
    if not weighted:
        return np.full(len(truth), 1 / len(truth))
    positives = int(truth.sum())
    negatives = len(truth) - positives
    if not positives or not negatives:
        raise ValueError("rows of one kind cannot be weighted to a prior")
    return np.where(truth, prior / positives, (1 - prior) / negatives)


def _bin(predicted: Floats, truth: Truths, masses: Floats) -> Bin:
    mass = float(masses.sum())
    return Bin(
        predicted=float((predicted * masses).sum() / mass),
        observed=float(masses[truth].sum() / mass),
        mass=mass,
        positives=int(truth.sum()),
        negatives=int((~truth).sum()),
    )


def _log_odds(prior: float) -> float:
    return math.log(prior) - math.log1p(-prior)


def _plain(value: Error | Bin | Confusion) -> dict[str, float]:
    """Return a record's fields, rounded: a file of figures should be readable."""
    found = {name: getattr(value, name) for name in value.__slots__}
    return {k: v if isinstance(v, int) else round(float(v), 6) for k, v in found.items()}
