"""Batches add up: however exchanges are cut, and in every store, to the same state."""

from __future__ import annotations

import itertools
import json
from typing import TYPE_CHECKING

from hypothesis import given
from hypothesis import strategies as st

from guard.live.ledger import Batch, State
from guard.live.open_batch import OpenBatch

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

SLOPES = {"harm": (40, 9, 3), "leak": (12,)}
NAMES = ("harm", "leak", "unwatched")

EXCHANGE = st.sets(st.sampled_from(sorted(SLOPES)), max_size=2)
STREAM = st.lists(EXCHANGE, max_size=60)


def batch_of(stream: Iterable[Iterable[str]], lives: dict[str, int] | None = None) -> Batch:
    """Return the batch of a stream of exceedances."""
    batch = OpenBatch(NAMES, SLOPES, 0.99)
    for exceeded in stream:
        batch.count([0.02, 0.01, 0.03], sorted(exceeded))
    return batch.sealed("d", lives or {})


def walked(stream: Sequence[set[str]], name: str) -> tuple[list[int], list[int]]:
    """Return heights and peaks of walking a stream step by step."""
    heights, peaks = [0] * len(SLOPES[name]), [0] * len(SLOPES[name])
    for exceeded in stream:
        for number, slope in enumerate(SLOPES[name]):
            step = slope if name in exceeded else -1
            heights[number] = max(0, heights[number] + step)
            peaks[number] = max(peaks[number], heights[number])
    return heights, peaks


class TestCutting:
    """A stream in pieces."""

    @given(STREAM, st.lists(st.integers(0, 60), max_size=8))
    def test_changes_no_count_and_no_walk(self, stream: list[set[str]], cuts: list[int]) -> None:
        """However a stream is cut, counts are the same and walks are those of each step."""
        state = State()
        edges = [0, *sorted(min(cut, len(stream)) for cut in cuts), len(stream)]
        for begin, end in itertools.pairwise(edges):
            state.take(batch_of(stream[begin:end]), {})

        assert state.exchanges == len(stream)
        for name in SLOPES:
            tally = state.tallies[name]
            assert tally.exceedances == sum(name in exceeded for exceeded in stream)
            assert (tally.height_at(state.exchanges), tally.peaks) == walked(stream, name)

    @given(STREAM, st.integers(0, 60))
    def test_changes_mass_by_rounding_alone(self, stream: list[set[str]], cut: int) -> None:
        """The fading mass differs by about a millionth of an exchange per cut."""
        whole, cut_up = State(), State()
        whole.take(batch_of(stream), {})
        cut_up.take(batch_of(stream[:cut]), {})
        cut_up.take(batch_of(stream[cut:]), {})

        for name in NAMES:
            assert abs(whole.masses[name] - cut_up.masses[name]) <= 3


class TestOrder:
    """Batches of several replicas."""

    @given(st.lists(STREAM, min_size=2, max_size=5), st.randoms(use_true_random=False))
    def test_does_not_matter_for_counts(
        self, streams: list[list[set[str]]], random: object
    ) -> None:
        """Exchanges and exceedances are the same in whatever order batches come in."""
        shuffled = list(streams)
        random.shuffle(shuffled)  # type: ignore[attr-defined]
        one, other = State(), State()
        for stream in streams:
            one.take(batch_of(stream), {})
        for stream in shuffled:
            other.take(batch_of(stream), {})

        assert one.exchanges == other.exchanges
        for name in SLOPES:
            assert one.tallies[name].exceedances == other.tallies[name].exceedances
            assert one.tallies[name].since == other.tallies[name].since

    @given(st.lists(STREAM, min_size=2, max_size=5))
    def test_is_that_of_taking_in_for_walks(self, streams: list[list[set[str]]]) -> None:
        """Walks are those of the batches one behind the other."""
        state = State()
        for stream in streams:
            state.take(batch_of(stream), {})

        joined = [exceeded for stream in streams for exceeded in stream]
        for name in SLOPES:
            tally = state.tallies[name]
            assert (tally.height_at(state.exchanges), tally.peaks) == walked(joined, name)


class TestLives:
    """A person cleared an alarm."""

    @given(STREAM, STREAM)
    def test_begin_with_nothing(self, before: list[set[str]], behind: list[set[str]]) -> None:
        """What came before counts no more."""
        state = State()
        state.take(batch_of(before), {})
        state.take(batch_of(behind, {"harm": 1}), {"harm": 1})

        tally = state.tallies["harm"]
        assert tally.life == 1
        assert state.exchanges - tally.since == len(behind)
        assert (tally.height_at(state.exchanges), tally.peaks) == walked(behind, "harm")

    @given(STREAM, STREAM, STREAM)
    def test_are_not_blamed_for_late_batches(
        self, before: list[set[str]], late: list[set[str]], behind: list[set[str]]
    ) -> None:
        """A batch that was counted before the clearing changes nothing of the new life."""
        state = State()
        state.take(batch_of(before), {})
        state.take(batch_of(behind, {"harm": 1}), {"harm": 1})
        state.take(batch_of(late), {"harm": 1})

        tally = state.tallies["harm"]
        assert state.exchanges - tally.since == len(behind)
        assert (tally.height_at(state.exchanges), tally.peaks) == walked(behind, "harm")
        assert state.tallies["leak"].exceedances == sum(
            "leak" in exceeded for exceeded in (*before, *late, *behind)
        )

    @given(STREAM, STREAM)
    def test_may_begin_inside_a_batch(self, before: list[set[str]], behind: list[set[str]]) -> None:
        """What a batch saw before the clearing belongs to the life that ended."""
        batch = OpenBatch(NAMES, SLOPES, 0.99)
        for exceeded in before:
            batch.count([0.02, 0.01, 0.03], sorted(exceeded))
        batch.renew("harm")
        for exceeded in behind:
            batch.count([0.02, 0.01, 0.03], sorted(exceeded))
        state = State()
        state.take(batch.sealed("d", {"harm": 1}), {"harm": 1})

        tally = state.tallies["harm"]
        assert state.exchanges - tally.since == len(behind)
        assert (tally.height_at(state.exchanges), tally.peaks) == walked(behind, "harm")


class TestJson:
    """The way through a file or a wire."""

    @given(STREAM)
    def test_changes_nothing(self, stream: list[set[str]]) -> None:
        """A batch and a state come back as they were."""
        batch, state = batch_of(stream), State()
        state.take(batch, {})

        again = Batch.from_dict(json.loads(json.dumps(batch.as_dict())))
        other = State()
        other.take(again, {})
        assert other == state
        assert State.from_dict(json.loads(json.dumps(state.as_dict()))) == state
