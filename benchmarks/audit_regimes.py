"""What audit_intervals.py simulates: truths, classifiers, and how answers are drawn.

Classifiers are like those in the bundled model's calibration: so many risky and other rows, so
many of them flagged. In each run their confusion is drawn anew, since a calibration is a draw too.
Beside each method stand those that it was chosen over, on the same draws.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from guard.audit.statistics import (
    Counts,
    difference,
    effect,
    prediction_powered,
    rate,
    rate_of_questions,
)
from guard.audit.statistics.estimate import Z
from guard.calibration import Confusion, wilson

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray

    from guard.audit.statistics import Estimate

    Floats = NDArray[np.float64]
    Bounds = tuple[float, float]
    Once = Callable[[np.random.Generator], dict[str, Bounds]]


@dataclass(frozen=True, slots=True)
class Regime:
    """One truth, and how an audit of it is drawn.

    Attributes:
        section: the table that it belongs to.
        name: what is drawn, for people.
        truth: what the intervals should hold.
        once: draws once and returns each method's bounds; the first method is ours.
    """

    section: str
    name: str
    truth: float
    once: Once


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of classifier.

    Attributes:
        name: for people.
        sensitivity: share of risky answers that it flags.
        positives: risky rows of its calibration.
        alarms: share of other answers that it flags.
        negatives: other rows of its calibration.
    """

    name: str
    sensitivity: float
    positives: int
    alarms: float
    negatives: int

    def drawn(self, rng: np.random.Generator) -> Confusion:
        """Return the confusion of one calibration."""
        found = int(rng.binomial(self.positives, self.sensitivity))
        wrong = int(rng.binomial(self.negatives, self.alarms))
        return Confusion(0.0, found, wrong, self.negatives - wrong, self.positives - found)

    def expected(self) -> Confusion:
        """Return the confusion of a calibration without luck, good or bad."""
        found = round(self.positives * self.sensitivity)
        wrong = round(self.negatives * self.alarms)
        return Confusion(0.0, found, wrong, self.negatives - wrong, self.positives - found)

    def flagged(self, risky: float) -> float:
        """Return the share of flagged answers where a share of `risky` ones is risky."""
        return risky * self.sensitivity + (1 - risky) * self.alarms


GOOD: Final = Kind("threshold 0", 0.9, 250, 0.04, 2400)
STRICT: Final = Kind("threshold 4", 0.6, 250, 0.004, 2400)
FEW: Final = Kind("few risky rows", 0.9, 30, 0.05, 1450)
POOR: Final = Kind("poor", 0.15, 26, 0.02, 1460)


def rates() -> Iterator[Regime]:
    """Yield regimes of sure flags."""
    for number in (100, 400, 1000):
        for truth in (0.01, 0.02, 0.05, 0.2):

            def once(
                rng: np.random.Generator, number: int = number, truth: float = truth
            ) -> dict[str, Bounds]:
                hits = int(rng.binomial(number, truth))
                return {"wilson": _bounds(rate(hits, number)), "normal": _normal(hits, number)}

            yield Regime("rate", f"{number} answers, {truth:.0%} risky", truth, once)


def corrected() -> Iterator[Regime]:
    """Yield regimes of flags by a classifier that errs."""
    cases = [(GOOD, number) for number in (100, 400, 2000)]
    for kind, number in [*cases, (STRICT, 400), (FEW, 400), (POOR, 400)]:
        for truth in (0.0, 0.005, 0.02, 0.1, 0.5):

            def once(
                rng: np.random.Generator,
                kind: Kind = kind,
                number: int = number,
                truth: float = truth,
            ) -> dict[str, Bounds]:
                hits, confusion = int(rng.binomial(number, kind.flagged(truth))), kind.drawn(rng)
                return {
                    "ours": _bounds(rate(hits, number, confusion)),
                    "Lang-Reiczigel": _lang_reiczigel(hits, number, confusion),
                    "errors taken as known": _known(hits, number, confusion),
                }

            name = f"{kind.name}, {number} answers, {truth:.1%} risky"
            yield Regime("corrected", name, truth, once)


def misfits() -> Iterator[Regime]:
    """Yield regimes in which the classifier errs otherwise than its calibration says."""
    for kind, alarms in ((GOOD, 0.01), (GOOD, 0.08), (STRICT, 0.001), (STRICT, 0.008)):
        for truth in (0.005, 0.02, 0.1):
            real = Kind(kind.name, kind.sensitivity, kind.positives, alarms, kind.negatives)

            def once(
                rng: np.random.Generator, kind: Kind = kind, real: Kind = real, truth: float = truth
            ) -> dict[str, Bounds]:
                hits = int(rng.binomial(400, real.flagged(truth)))
                return {"ours": _bounds(rate(hits, 400, kind.drawn(rng)))}

            name = f"{kind.name}: {kind.alarms:.1%} false alarms calibrated, {alarms:.1%} in truth"
            yield Regime("misfits", f"{name}; {truth:.1%} risky", truth, once)


def questions() -> Iterator[Regime]:
    """Yield regimes of questions that are asked several times."""
    for number, times in ((40, 5), (100, 3), (100, 10)):
        for alike in (0.02, 0.3, 0.9):
            for truth in (0.02, 0.1, 0.4):

                def once(
                    rng: np.random.Generator,
                    number: int = number,
                    times: int = times,
                    alike: float = alike,
                    truth: float = truth,
                ) -> dict[str, Bounds]:
                    counts = _asked(rng, truth, alike, number, times)
                    hits, total = int(counts.flagged.sum()), int(counts.asked.sum())
                    return {
                        "ours": _bounds(rate_of_questions(counts)),
                        "as if independent": _bounds(rate(hits, total)),
                    }

                name = f"{number} questions x {times}, alike {alike:g}, {truth:.0%} risky"
                yield Regime("questions", name, truth, once)


def effects() -> Iterator[Regime]:
    """Yield regimes of the same questions under two conditions."""
    settings = [(50, 1, 1), (100, 1, 1), (400, 1, 1), (100, 3, 3), (100, 6, 1)]
    for number, first, second in settings:
        for styled, neutral in ((0.03, 0.01), (0.1, 0.02), (0.3, 0.1), (0.2, 0.2)):

            def once(
                rng: np.random.Generator,
                shape: tuple[int, int, int] = (number, first, second),
                truths: tuple[float, float] = (styled, neutral),
            ) -> dict[str, Bounds]:
                sides = conditions(rng, truths, shape)
                return {
                    "ours": _bounds(effect(*sides)),
                    "bootstrap": _bootstrap(rng, *sides),
                }

            name = f"{number} questions x {first} and {second}, {styled:.0%} against {neutral:.0%}"
            yield Regime("effects", name, styled - neutral, once)


def corrected_effects() -> Iterator[Regime]:
    """Yield regimes of effects, seen by a classifier that errs."""
    for kind in (GOOD, STRICT, FEW):
        for styled, neutral in ((0.1, 0.02), (0.3, 0.1), (0.2, 0.2)):

            def once(
                rng: np.random.Generator,
                kind: Kind = kind,
                truths: tuple[float, float] = (styled, neutral),
            ) -> dict[str, Bounds]:
                sides = conditions(rng, truths, (200, 1, 1), kind)
                return {
                    "ours": _bounds(effect(*sides, kind.drawn(rng))),
                    "not corrected": _bounds(effect(*sides)),
                }

            name = f"{kind.name}, 200 questions, {styled:.0%} against {neutral:.0%}"
            yield Regime("corrected effects", name, styled - neutral, once)


def differences() -> Iterator[Regime]:
    """Yield regimes of two models that were asked different questions."""
    for number in (100, 400):
        for one, two in ((0.03, 0.01), (0.1, 0.02), (0.2, 0.2)):

            def once(
                rng: np.random.Generator,
                number: int = number,
                truths: tuple[float, float] = (one, two),
            ) -> dict[str, Bounds]:
                first, second = ((int(rng.binomial(number, each)), number) for each in truths)
                return {"newcombe": _bounds(difference(first, second))}

            name = f"{number} answers each, {one:.0%} against {two:.0%}"
            yield Regime("differences", name, one - two, once)


def labelled() -> Iterator[Regime]:
    """Yield regimes of a few labels beside many predictions."""
    for form in ("flags", "probabilities"):
        for labels, others in ((50, 500), (100, 1000), (300, 1000)):
            for truth in (0.02, 0.05, 0.2):

                def once(
                    rng: np.random.Generator,
                    form: str = form,
                    sizes: tuple[int, int] = (labels, others),
                    truth: float = truth,
                ) -> dict[str, Bounds]:
                    risky = rng.random(sum(sizes)) < truth
                    seen = _predicted(rng, risky, form, truth)
                    truths, known, rest = risky[: sizes[0]], seen[: sizes[0]], seen[sizes[0] :]
                    return {
                        "ours": _bounds(prediction_powered(rest, known, truths)),
                        "normal": _normal_powered(rest, known, truths),
                        "labels alone": _bounds(rate(int(truths.sum()), len(truths))),
                    }

                name = f"{form}, {labels} labels, {others} others, {truth:.0%} risky"
                yield Regime("labelled", name, truth, once)


def _asked(rng: np.random.Generator, truth: float, alike: float, number: int, times: int) -> Counts:
    """Return questions with rates of their own; `alike` is how strongly their answers correlate."""
    spread = (1 - alike) / alike
    own = rng.beta(truth * spread, (1 - truth) * spread, number)
    return Counts(rng.binomial(times, own), np.full(number, times))


def conditions(
    rng: np.random.Generator,
    truths: tuple[float, float],
    shape: tuple[int, int, int],
    kind: Kind | None = None,
) -> tuple[Counts, Counts]:
    """Return both conditions: a question that is easy to lead astray is so under both."""
    number, first, second = shape
    ease = rng.random(number)
    sides = []
    for truth, times in zip(truths, (first, second), strict=True):
        # Half of a question's chance is its own; the mean over questions is the truth.
        own = truth / 2 + np.where(ease < truth, 0.5, 0.0)
        shares = kind.alarms + own * (kind.sensitivity - kind.alarms) if kind else own
        sides.append(Counts(rng.binomial(times, shares), np.full(number, times)))
    return sides[0], sides[1]


def _predicted(
    rng: np.random.Generator, risky: NDArray[np.bool_], form: str, truth: float
) -> Floats:
    if form == "flags":
        chance = np.where(risky, GOOD.sensitivity, GOOD.alarms)
        return (rng.random(len(risky)) < chance).astype(np.float64)
    evidence = rng.normal(np.where(risky, 2.0, -2.0), 2.0)
    return np.asarray(1 / (1 + (1 - truth) / truth * np.exp(-evidence)), np.float64)


def _normal(hits: int, number: int) -> Bounds:
    share = hits / number
    half = Z * math.sqrt(share * (1 - share) / number)
    return max(0.0, share - half), min(1.0, share + half)


def _lang_reiczigel(hits: int, number: int, confusion: Confusion) -> Bounds:
    """Return the interval of Lang and Reiczigel (2014)."""
    positives = confusion.true_positives + confusion.false_negatives
    negatives = confusion.true_negatives + confusion.false_positives
    more = number + Z**2
    flagged = (hits + Z**2 / 2) / more
    found = (confusion.true_positives + 1) / (positives + 2)
    right = (confusion.true_negatives + 1) / (negatives + 2)
    power = found + right - 1
    risky = (flagged + right - 1) / power
    miss, alarm = found * (1 - found) / positives, right * (1 - right) / negatives
    shift = 2 * Z**2 * (risky * miss - (1 - risky) * alarm)
    spread = flagged * (1 - flagged) / more + (1 - risky) ** 2 * alarm + risky**2 * miss
    half = Z * math.sqrt(spread) / abs(power)
    ends = (risky + shift - half, risky + shift + half)
    return max(0.0, min(1.0, ends[0])), max(0.0, min(1.0, ends[1]))


def _known(hits: int, number: int, confusion: Confusion) -> Bounds:
    """Return Wilson's interval, corrected as if the classifier's errors were known exactly."""
    flagged = wilson(hits, number)
    found, wrong = confusion.sensitivity.value, 1 - confusion.specificity.value
    if found <= wrong:
        return 0.0, 1.0
    ends = ((each - wrong) / (found - wrong) for each in (flagged.low, flagged.high))
    low, high = (max(0.0, min(1.0, each)) for each in ends)
    return low, high


def _bootstrap(rng: np.random.Generator, first: Counts, second: Counts) -> Bounds:
    """Return the percentile interval of 100 draws of the questions."""
    apart = first.shares - second.shares
    means = apart[rng.integers(len(apart), size=(100, len(apart)))].mean(axis=1)
    low, high = (float(each) for each in np.quantile(means, (0.025, 0.975)))
    return low, high


def _normal_powered(others: Floats, known: Floats, truth: NDArray[np.bool_]) -> Bounds:
    """Return the normal interval of PPI++."""
    hits = truth.astype(np.float64)
    spread = float(np.concatenate([others, known]).var())
    power = 0.0
    if spread > 0:
        power = float(np.cov(hits, known)[0, 1]) / spread / (1 + len(known) / len(others))
    power = max(0.0, min(1.0, power))
    value = float(hits.mean()) + power * float(others.mean() - known.mean())
    rest = hits - power * known
    half = Z * math.sqrt(rest.var(ddof=1) / len(rest) + power**2 * others.var() / len(others))
    return value - half, value + half


def _bounds(found: Estimate) -> Bounds:
    return found.low, found.high
