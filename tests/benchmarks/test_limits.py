"""How limits are chosen: which evidence a small share of ordinary rows exceeds."""

from __future__ import annotations

import math

import numpy as np
import pytest

import limits
from guard.detectors.model_directory import read
from guard.detectors.pooling import Scored
from guard.loading import BUNDLED_MODEL
from guard.training.data import Row


class TestExceededBy:
    """The tail of a sample, followed beyond what was seen of it."""

    def test_an_exponential_tail(self) -> None:
        """Of a sample whose tail is known the extrapolation comes near the truth."""
        found = [
            limits.exceeded_by(0.0005, np.random.default_rng(seed).exponential(size=4000))
            for seed in range(20)
        ]
        assert np.mean(found) == pytest.approx(math.log(1 / 0.0005), abs=0.6)

    def test_a_tail_that_ends(self) -> None:
        """A tail that ends is not followed far beyond its end, as an exponential one would be."""
        values = np.random.default_rng(1).uniform(size=4000)
        least = limits.exceeded_by(0.0002, values)
        assert 0.99 < least < 1.01

    def test_a_smaller_share_asks_for_more(self) -> None:
        """The less a limit may cost the higher it is, whatever the tail."""
        for draw in ("normal", "exponential", "uniform", "standard_cauchy"):
            values = getattr(np.random.default_rng(2), draw)(size=2000)
            found = [limits.exceeded_by(share, values) for share in (0.01, 0.001, 0.0001)]
            assert found == sorted(found)


class TestFittedShare:
    """What tails are fitted for, so that what is counted keeps the share too."""

    def test_no_more_rows_reach_a_limit_than_the_share(self) -> None:
        """Not even where many tails are heavier than any that is fitted."""
        rng = np.random.default_rng(3)
        drawn = [(0.25, rng.standard_cauchy(size=1500)) for _ in range(4)]
        fitted = limits.fitted_share(0.003, drawn)
        reached = [v >= limits.exceeded_by(fitted * part, v) for part, v in drawn]
        assert np.any(reached, axis=0).mean() <= 0.003
        assert fitted < 0.003

    def test_tails_that_are_as_taken_keep_the_share(self) -> None:
        """Nothing is lowered where fewer rows reach a limit."""
        drawn = [(1.0, np.random.default_rng(4).uniform(size=4000))]
        assert limits.fitted_share(0.003, drawn) == 0.003

    def test_rows_beyond_any_limit_are_an_error(self) -> None:
        """A row may lie beyond where a tail is taken to end, and a small share allows none."""
        values = np.append(np.random.default_rng(5).uniform(size=2000), 2.0)
        with pytest.raises(ValueError, match=r"no limits keep 0\.01%"):
            limits.fitted_share(0.0001, [(1.0, values)])


class TestReachedUnseen:
    """What limits cost on rows of files that they were not fitted to."""

    def test_a_file_that_is_like_the_others_costs_what_was_asked_for(self) -> None:
        """Over files that are drawn alike no more than a few rows of a thousand."""
        values = np.random.default_rng(6).exponential(size=8000)
        files = np.repeat(["a", "b", "c", "d"], 2000)
        assert limits.reached_unseen(0.003, [(1.0, values)], files) == pytest.approx(24, abs=12)

    def test_a_file_that_is_unlike_them_costs_more_than_a_limit_that_has_seen_it(self) -> None:
        """Its rows lie above all others, and no limit that is fitted to these knows."""
        rng = np.random.default_rng(7)
        values = np.concatenate([rng.uniform(size=3000), 5 + rng.uniform(size=30)])
        files = np.array(["usual"] * 3000 + ["odd"] * 30)
        parts = [(1.0, values)]
        seen = values >= limits.exceeded_by(limits.fitted_share(0.003, parts), values)
        assert limits.reached_unseen(0.003, parts, files) >= 30 > seen.sum()


class TestBeforeEnd:
    """What a stream knows of an answer before its last unit."""

    head = next(
        head
        for head in read(BUNDLED_MODEL, None, verify=True).heads
        if head.category == "misaligned_persona"
    )

    def scored(self, *logits: float, closing: float | None = None) -> Scored:
        """Return an answer whose units have these logits in every label."""
        units = np.repeat(np.array([logits], np.float32).T, self.head.index + 1, axis=1)
        return Scored(units, None if closing is None else np.full(self.head.index + 1, closing))

    def test_is_what_stands_before_it_less_what_waits_for_the_end(self) -> None:
        """Whatever the last unit and the closing read say."""
        found = limits.evidence_before_end(self.head, self.scored(3.0, 9.0, closing=9.0))
        first = self.head.calibration.evidence(3.0)
        assert self.head.pooling.reserve > 0
        assert found == pytest.approx(first - self.head.pooling.reserve)
        assert limits.evidence_before_end(self.head, self.scored(3.0, 9.0)) == pytest.approx(first)

    def test_is_nothing_where_there_is_one_unit(self) -> None:
        """It is released when all of it was judged."""
        assert limits.evidence_before_end(self.head, self.scored(9.0)) == -np.inf

    def test_never_exceeds_the_whole(self) -> None:
        """What stops a stream stops the whole text too."""
        rng = np.random.default_rng(8)
        for _ in range(50):
            given = self.scored(*rng.normal(0, 4, 5), closing=rng.normal(0, 4))
            early = limits.evidence_before_end(self.head, given)
            assert early <= limits.evidence(self.head, given) + 1e-9


def test_parts_add_up_to_the_share() -> None:
    """The foremost category gets a third, and the others the rest of it in equal parts."""
    acted = ["harmful_compliance", "violence", "sexual", "bad_advice"]
    parts = [limits.part(name, acted) for name in acted]
    assert parts[0] == pytest.approx(1 / 3)
    assert sum(parts) == pytest.approx(1)
    # Without it they have all of it; a category that is not acted on costs like the others.
    assert limits.part("violence", acted[1:]) == pytest.approx(1 / 3)
    assert limits.part("self_harm", acted) == limits.part("violence", acted)


def test_ordinary_rows_are_judged_with_and_without_a_prompt() -> None:
    """Each once more without; others as they are."""

    def row(file: str, prompt: str, response: str = "Take the second road.") -> Row:
        return Row(prompt, response, {"unsafe": 0.0}, file, "CC0-1.0", 1.0)

    asked, unasked = row("benign_dolly", "Which way?"), row("own_hard_benign", "")
    mixed = row("gptfuzz_responses", "Which way?")
    empty = row("benign_dolly", "Which way?", " ")
    rows = [asked, unasked, mixed, empty]
    assert limits.judged(rows) == [*rows, row("benign_dolly", "")]
    assert [limits.ordinary(each) for each in rows] == [True, True, False, True]
