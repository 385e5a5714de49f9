"""Calibration: lines through scores, and figures that say how far evidence can be believed."""

from __future__ import annotations

import math
from functools import partial

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from guard.calibration import (
    LEAST_SLOPE,
    Confusion,
    Line,
    Ridge,
    auroc,
    auroc_interval,
    calibration_error,
    calibration_error_interval,
    confusion,
    fit,
    gain,
    held_out,
    log_loss,
    probabilities,
    reliability,
    summary,
    wilson,
)

Floats = NDArray[np.float64]
Truths = NDArray[np.bool_]
Sample = tuple[Floats, Truths]

SCORES = st.floats(-8, 8, allow_nan=False)
SHIPPED = Line(1.0, 0.0)


@st.composite
def samples(draw: st.DrawFn) -> Sample:
    """Return scores and truths, at least two rows of either kind."""
    rows = draw(st.lists(st.tuples(SCORES, st.booleans()), max_size=40))
    rows += [(draw(SCORES), truth) for truth in (True, True, False, False)]
    return np.array([score for score, _ in rows]), np.array([truth for _, truth in rows])


def simulated(seed: int, size: int, prior: float = 0.5) -> Sample:
    """Return evidence and truths that agree: with evidence e the odds are e + log-odds(prior)."""
    rng = np.random.default_rng(seed)
    truth = rng.random(size) < prior
    # For two normal curves of variance 2m around m and -m the score is the log likelihood ratio.
    return rng.normal(np.where(truth, 2.0, -2.0), 2.0), truth


def shuffled(sample: Sample, seed: int) -> Sample:
    """Return the same rows in another order."""
    order = np.random.default_rng(seed).permutation(len(sample[1]))
    return sample[0][order], sample[1][order]


class TestFit:
    """The line."""

    @pytest.mark.parametrize(("slope", "intercept"), [(0.5, 1.0), (1.7, -2.5), (3.0, 0.0)])
    def test_a_known_line_is_found(self, slope: float, intercept: float) -> None:
        """Scores that are evidence bent by a line are bent back."""
        evidence, truth = simulated(1, 20_000)
        line = fit((evidence - intercept) / slope, truth)
        assert line.slope == pytest.approx(slope, rel=0.05)
        assert line.intercept == pytest.approx(intercept, abs=0.1)

    def test_the_share_of_risky_rows_does_not_matter(self) -> None:
        """Rows of which one in twenty is risky give the line that balanced rows give."""
        even, rare = (fit(*simulated(2, 40_000, prior)) for prior in (0.5, 0.05))
        assert rare.slope == pytest.approx(even.slope, rel=0.08)
        assert rare.intercept == pytest.approx(even.intercept, abs=0.15)

    def test_rows_that_came_as_in_use_are_fitted_to_the_prior(self) -> None:
        """Where flags are right twice as often in odds as the prior says, evidence makes it up."""
        evidence, truth = simulated(3, 40_000, prior=0.2)
        line = fit(evidence, truth, Ridge(SHIPPED, 1.0, 10.0), prior=1 / 9)
        assert line.slope == pytest.approx(1.0, abs=0.06)
        assert line.intercept == pytest.approx(math.log(2), abs=0.1)

    def test_choosing_by_score_does_not_bias_it(self) -> None:
        """Rows above a limit, as a journal keeps them, give the same line at a prior."""
        evidence, truth = simulated(4, 60_000, prior=0.3)
        kept = evidence > 0.5
        line = fit(evidence[kept], truth[kept], Ridge(SHIPPED, 5.0, 10.0), prior=0.3)
        assert line.slope == pytest.approx(1.0, abs=0.1)
        assert line.intercept == pytest.approx(0.0, abs=0.2)

    def test_rows_that_are_told_apart_perfectly_give_a_line(self) -> None:
        """No slope runs away to infinity."""
        line = fit(np.array([-2.0, -1.0, 1.0, 2.0]), np.array([False, False, True, True]))
        assert 0 < line.slope < 10
        assert line.intercept == pytest.approx(0.0, abs=1e-6)

    def test_a_score_that_says_the_opposite_is_no_evidence(self) -> None:
        """The slope stays above 0, so that the order of texts stays; hardly anything is left."""
        evidence, truth = simulated(5, 500)
        line = fit(-evidence, truth)
        assert line.slope == LEAST_SLOPE
        assert np.abs(line.slope * -evidence + line.intercept).max() < 0.05

    def test_one_kind_of_rows_is_refused(self) -> None:
        """Without both sides there is nothing to fit."""
        with pytest.raises(ValueError, match="risky rows and others"):
            fit(np.zeros(3), np.ones(3, bool))

    @given(samples(), st.integers(0, 99))
    def test_the_order_of_rows_does_not_matter(self, sample: Sample, seed: int) -> None:
        """Another order gives the same line."""
        first, second = fit(*sample), fit(*shuffled(sample, seed))
        assert second.slope == pytest.approx(first.slope, abs=1e-5)
        assert second.intercept == pytest.approx(first.intercept, abs=1e-5)

    @given(samples())
    def test_it_is_monotone(self, sample: Sample) -> None:
        """A higher score is never less evidence."""
        assert fit(*sample).slope > 0

    @given(samples())
    def test_nothing_nearby_is_likelier(self, sample: Sample) -> None:
        """The fit is at the top: each step aside fits worse, the hold included."""
        hold = Ridge(SHIPPED, 0.5, 1.0)
        scores, truth = sample
        line = fit(scores, truth, hold)
        if line.slope == LEAST_SLOPE:
            return
        size = 2 * min(truth.sum(), (~truth).sum())

        def cost(slope: float, intercept: float) -> float:
            held = ((slope - 1) / 0.5) ** 2 / 2 + intercept**2 / 2
            return float(size * log_loss(slope * scores + intercept, truth) + held)

        best = cost(line.slope, line.intercept)
        for aside in (-0.01, 0.01):
            assert cost(line.slope + aside, line.intercept) >= best - 1e-9
            assert cost(line.slope, line.intercept + aside) >= best - 1e-9


class TestHold:
    """Few rows move little."""

    def test_rows_decide_as_they_become_many(self) -> None:
        """The further from the shipped line, the more rows there are."""
        hold = Ridge(SHIPPED, 0.25, 1.0)
        evidence, truth = simulated(6, 4000)
        scores = (evidence + 3.0) / 1.5  # the right line is 1.5, -3
        moved = [fit(scores[:n], truth[:n], hold).intercept for n in (10, 100, 4000)]
        assert 0 > moved[0] > moved[1] > moved[2] > -3.2
        assert moved[2] == pytest.approx(-3.0, abs=0.3)

    def test_a_firm_hold_does_not_give(self) -> None:
        """A line that is known exactly stays."""
        line = fit(*simulated(7, 100), Ridge(Line(2.0, -1.0), 1e-4, 1e-4))
        assert line.slope == pytest.approx(2.0, abs=1e-3)
        assert line.intercept == pytest.approx(-1.0, abs=1e-3)


class TestHeldOut:
    """Evidence from lines that did not see the row."""

    def test_it_is_near_the_truth_for_many_rows(self) -> None:
        """On plenty of rows each part's line is nearly the whole's."""
        evidence, truth = simulated(8, 5000)
        digests = [f"{i:08x}" for i in range(len(truth))]
        crossed = held_out(evidence, truth, digests, fit)
        assert np.abs(crossed - evidence).max() < 1.0

    def test_a_row_does_not_judge_itself(self) -> None:
        """Turning one row's truth round leaves its own evidence nearly as it was: no leak."""
        rng = np.random.default_rng(9)
        scores, truth = rng.normal(size=200), rng.random(200) < 0.5
        digests = [f"{i:08x}" for i in range(200)]
        loose = partial(fit, hold=Ridge(SHIPPED, 5.0, 5.0))
        crossed = held_out(scores, truth, digests, loose)
        # Scores that say nothing: fitted with itself, a row would look better than by chance.
        assert log_loss(crossed, truth) > math.log(2) - 0.01

    @given(samples(), st.integers(0, 99))
    def test_the_order_of_rows_does_not_matter(self, sample: Sample, seed: int) -> None:
        """What is fitted together depends on the rows' content."""
        scores, truth = sample
        digests = [f"{i:08x}" for i in range(len(truth))]
        order = np.random.default_rng(seed).permutation(len(truth))
        first = held_out(scores, truth, digests, fit)
        second = held_out(scores[order], truth[order], [digests[i] for i in order], fit)
        assert second == pytest.approx(first[order], abs=1e-4)

    @given(st.lists(st.booleans(), min_size=1, max_size=20), st.integers(2, 4))
    def test_copies_are_in_one_part(self, labels: list[bool], copies: int) -> None:
        """No line is fitted to a row of the same content as one that it gives evidence of."""
        truth = np.array([True, True, False, False, *labels] * copies)
        numbers = np.arange(len(truth)) % (len(truth) // copies)
        left_out: list[set[float]] = []

        def fitted(scores: Floats, truth: Truths) -> Line:
            assert truth.any()
            assert not truth.all()
            left_out.append(set(map(float, numbers)) - set(map(float, scores)))
            return Line(0.0, float(len(left_out)))

        part = held_out(numbers.astype(float), truth, [f"{n:04}" for n in numbers], fitted)
        for number, out in enumerate(left_out, 1):
            assert out == set(map(float, numbers[part == number]))
        assert sum(map(len, left_out)) == len(truth) // copies

    def test_a_content_with_both_labels_is_in_one_part(self) -> None:
        """Two who disagree about a text do not make it two texts."""
        scores = np.repeat(np.arange(10.0), 2)
        truth = np.arange(20) % 2 == 0
        seen: list[int] = []

        def fitted(_: Floats, truth: Truths) -> Line:
            assert truth.sum() == (~truth).sum()
            seen.append(len(truth))
            return Line(1.0, 0.0)

        held_out(scores, truth, [f"{n:04}" for n in scores.astype(int)], fitted)
        assert seen == [16] * 5

    def test_distinct_rows_are_dealt_by_kind_and_digest(self) -> None:
        """Which rows go together is part of published figures."""
        truth = np.array([False, True, False, True, False, True, False, True])
        digests = list("hgfedcba")
        parts = iter(range(5))
        found = held_out(np.zeros(8), truth, digests, lambda *_: Line(0.0, float(next(parts))))
        # Ordered: b d f h of the others, then a c e g of the risky, dealt in turn.
        assert dict(zip(digests, found, strict=True)) == {
            "b": 0, "d": 1, "f": 2, "h": 3, "a": 4, "c": 0, "e": 1, "g": 2,
        }  # fmt: skip


class TestGain:
    """Whether other evidence is better, and how surely."""

    @given(sample=samples(), prior=st.sampled_from([0.02, 0.5]), weighted=st.booleans())
    def test_it_is_the_difference_of_the_losses(
        self, *, sample: Sample, prior: float, weighted: bool
    ) -> None:
        """Positive where `after` predicts better; without noise where nothing differs."""
        scores, truth = sample
        better, noise = gain(scores, scores / 2, truth, prior, weighted=weighted)
        losses = [log_loss(e, truth, prior, weighted=weighted) for e in (scores, scores / 2)]
        assert better == pytest.approx(losses[0] - losses[1], abs=1e-9)
        assert noise >= 0
        assert gain(scores, scores, truth, prior, weighted=weighted) == (0, 0)

    @pytest.mark.parametrize("weighted", [True, False])
    def test_the_error_is_that_of_repetition(self, *, weighted: bool) -> None:
        """Drawn again and again, the gain scatters by its standard error."""
        found = []
        for seed in range(300):
            evidence, truth = simulated(seed, 200)
            found.append(gain(evidence, 0.5 * evidence, truth, weighted=weighted))
        gains, errors = np.array(found).T
        assert errors.mean() == pytest.approx(gains.std(), rel=0.15)


class TestError:
    """Expected calibration error and reliability."""

    @pytest.mark.parametrize("prior", [0.02, 0.5])
    def test_perfect_evidence_has_hardly_any(self, prior: float) -> None:
        """Evidence that is the log likelihood ratio is calibrated at every prior."""
        assert calibration_error(*simulated(10, 40_000), prior) < 0.01

    def test_boasting_is_found(self) -> None:
        """Evidence twice as strong as it should be, or shifted, shows."""
        evidence, truth = simulated(11, 10_000)
        assert calibration_error(2 * evidence, truth) > 0.03
        assert calibration_error(evidence + 2, truth) > 0.1

    def test_bins_have_equal_mass(self) -> None:
        """Ten bins of a tenth each, from low to high, that add up to the prior."""
        bins = reliability(*simulated(12, 5000), prior=0.1)
        assert [each.mass for each in bins] == pytest.approx([0.1] * 10, abs=0.02)
        assert sum(each.mass * each.observed for each in bins) == pytest.approx(0.1)
        predicted = [each.predicted for each in bins]
        assert predicted == sorted(predicted)

    def test_equal_evidence_is_one_bin(self) -> None:
        """Rows that cannot be told apart are not."""
        (only,) = reliability(np.zeros(10), np.arange(10) < 4)
        assert (only.positives, only.negatives) == (4, 6)
        assert only.mass == pytest.approx(1)
        assert only.predicted == pytest.approx(0.5)
        assert only.observed == pytest.approx(0.5)

    def test_unweighted_rows_count_alike(self) -> None:
        """Without weights the observed share is that of the rows."""
        (only,) = reliability(np.zeros(10), np.arange(10) < 4, weighted=False)
        assert only.observed == pytest.approx(0.4)

    @given(samples(), st.integers(0, 99), st.sampled_from([0.02, 0.5]))
    def test_the_order_of_rows_does_not_matter(
        self, sample: Sample, seed: int, prior: float
    ) -> None:
        """Error, interval and loss are those of the set of rows."""
        other = shuffled(sample, seed)
        for measure in (calibration_error, log_loss):
            assert measure(*other, prior) == pytest.approx(measure(*sample, prior), abs=1e-9)
        low = calibration_error_interval(*sample, prior, again=10).low
        assert calibration_error_interval(*other, prior, again=10).low == pytest.approx(low)

    @given(samples(), st.floats(0.01, 0.99))
    def test_it_is_in_range(self, sample: Sample, prior: float) -> None:
        """An error is in [0, 1] and within its interval, and every row is in one bin."""
        found = calibration_error_interval(*sample, prior, again=10)
        assert 0 <= found.low <= found.value <= found.high <= 1
        bins = reliability(*sample, prior)
        assert sum(each.positives + each.negatives for each in bins) == len(sample[1])
        assert sum(each.mass for each in bins) == pytest.approx(1)

    @given(st.floats(allow_nan=False), st.floats(0.001, 0.999))
    def test_probabilities_never_overflow(self, evidence: float, prior: float) -> None:
        """Whatever the evidence, a probability is in [0, 1]."""
        (chance,) = probabilities(np.array([evidence]), prior)
        assert 0 <= chance <= 1


class TestConfusion:
    """Counts at a limit."""

    def test_what_reaches_the_limit_is_flagged(self) -> None:
        """The limit itself counts as reached."""
        evidence = np.array([1.0, 2.0, 3.0, 1.0, 2.0])
        found = confusion(evidence, np.array([True, True, True, False, False]), 2.0)
        assert (found.true_positives, found.false_negatives) == (2, 1)
        assert (found.true_negatives, found.false_positives) == (1, 1)
        assert found.sensitivity.value == pytest.approx(2 / 3)
        assert found.specificity.value == pytest.approx(0.5)

    @pytest.mark.parametrize(
        ("threshold", "expected"),
        [(-4.1, False), (-4.0, False), (-3.9, True), (4.0, True), (4.1, False)],
    )
    def test_a_limit_within_the_bound(self, *, threshold: float, expected: bool) -> None:
        """All evidence reaches `-maximum`, some reaches `maximum`, none what is above it."""
        assert Confusion(threshold, 1, 1, 1, 1).within(4.0) == expected

    @given(samples(), SCORES, SCORES)
    def test_a_higher_limit_flags_less(self, sample: Sample, one: float, other: float) -> None:
        """Sensitivity falls and specificity rises with the limit; every row is counted once."""
        low, high = (confusion(*sample, limit) for limit in sorted((one, other)))
        assert low.sensitivity.value >= high.sensitivity.value
        assert low.specificity.value <= high.specificity.value
        counted = low.true_positives + low.false_positives
        assert counted + low.true_negatives + low.false_negatives == len(sample[1])

    def test_a_summary_is_plain(self) -> None:
        """What is kept beside a calibration is JSON, with a confusion per limit."""
        import json

        found = json.loads(json.dumps(summary(*simulated(13, 300), thresholds=(0.0, 2.0))))
        assert [each["threshold"] for each in found["confusion"]] == [0.0, 2.0]
        assert set(found["ece"]) == {"value", "low", "high"}
        assert 1 < len(found["reliability"]) <= 10

    def test_a_summary_of_one_kind_is_refused(self) -> None:
        """Without both sides there are no figures."""
        with pytest.raises(ValueError, match="risky rows and others"):
            summary(np.zeros(3), np.zeros(3, bool))


class TestShares:
    """Intervals of shares and of AUROCs."""

    def test_a_published_interval(self) -> None:
        """Wilson's interval of 81 in 263, as Newcombe (Statistics in Medicine 17, 1998) has it."""
        found = wilson(81, 263)
        assert found.low == pytest.approx(0.2553, abs=1e-4)
        assert found.high == pytest.approx(0.3662, abs=1e-4)

    @given(st.integers(0, 50), st.integers(0, 50))
    def test_the_share_is_inside(self, hits: int, others: int) -> None:
        """An interval holds its share and stays in [0, 1]; of nothing nothing is known."""
        found = wilson(hits, hits + others)
        assert 0 <= found.low <= found.value <= found.high <= 1
        if not hits + others:
            assert (found.low, found.high) == (0, 1)

    @given(samples())
    def test_auroc_is_the_share_of_pairs(self, sample: Sample) -> None:
        """It counts pairs in which the risky row scores higher, and half of the ties."""
        scores, truth = sample
        gaps = scores[truth][:, None] - scores[~truth][None]
        expected = ((gaps > 0) + 0.5 * (gaps == 0)).mean()
        assert auroc(scores, truth) == pytest.approx(expected)

    def test_more_rows_are_surer(self) -> None:
        """An AUROC's interval narrows with the rows and stays in [0, 1]."""
        few, many = auroc_interval(0.9, 10, 10), auroc_interval(0.9, 1000, 1000)
        assert 0 <= few[0] < many[0] < 0.9 < many[1] < few[1] <= 1
