"""Passes: packed examples, and the same pass on one process as on several."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

from guard.encoding import Encoded, Encoder
from guard.loading import BUNDLED_MODEL
from guard.training.data import HEADS, Row
from guard.training.examples import Example
from guard.training.passes import CHUNK, Bags, encoded, joined, pack

TEXT = "The ferry leaves at nine. It takes an hour, and the bar on board sells tea and toast. " * 4


def example(lengths: list[int], number: int) -> Example:
    """Return an example of windows of these lengths."""
    none = np.empty(0, np.int64)
    windows = tuple(
        Encoded(np.arange(n) + number, np.arange(n) % 2, slice(0, 0), none) for n in lengths
    )
    label = np.full(len(HEADS), number / 10, np.float32)
    return Example(windows, label, label * 2)


def spans(bags: Bags) -> list[tuple[list[int], list[int]]]:
    """Return ids and types of each window."""
    cuts = [slice(a, b) for a, b in pairwise(bags.windows.tolist())]
    return [(bags.ids[cut].tolist(), bags.types[cut].tolist()) for cut in cuts]


def rows(count: int) -> list[Row]:
    """Return rows that differ."""
    labels = {"violence": 0.0}
    return [
        Row("Tell me.", f"{n}. {TEXT}", labels, "benign_toy", "CC0-1.0", 1.0) for n in range(count)
    ]


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    """Return the bundled model's encoder."""
    return Encoder(Tokenizer.from_file(str(BUNDLED_MODEL / "tokenizer.json")), marked=True)


class TestPacking:
    """`pack`, `joined` and `Bags.taken`."""

    @given(
        st.lists(st.lists(st.integers(1, 9), min_size=1, max_size=4), min_size=1, max_size=8),
        st.integers(1, 7),
    )
    @settings(deadline=None)
    def test_what_goes_in_comes_out(self, shapes: list[list[int]], cut: int) -> None:
        """Every window, target and mask is there again, packed at once or in two parts."""
        given = [example(lengths, number) for number, lengths in enumerate(shapes)]
        parts = [pack(part) for part in (given[:cut], given[cut:]) if part]
        bags = joined(parts)
        assert len(bags) == len(given)
        assert bags.longest.tolist() == [max(lengths) for lengths in shapes]
        for number, one in enumerate(given):
            other = bags.taken([number])
            assert np.array_equal(other.targets, [one.targets])
            assert np.array_equal(other.mask, [one.mask])
            assert spans(other) == [
                (window.ids.tolist(), window.types.tolist()) for window in one.windows
            ]

    @given(st.data())
    @settings(deadline=None)
    def test_what_is_taken_is_what_was_packed_so(self, data: st.DataObject) -> None:
        """Some of the examples, in any order and twice as well, are those packed alone."""
        shapes = data.draw(
            st.lists(st.lists(st.integers(1, 9), min_size=1, max_size=4), min_size=1, max_size=8)
        )
        chosen = data.draw(st.lists(st.integers(0, len(shapes) - 1), min_size=1, max_size=9))
        given = [example(lengths, number) for number, lengths in enumerate(shapes)]
        one, other = pack(given).taken(chosen), pack([given[at] for at in chosen])
        assert all(
            np.array_equal(getattr(one, name), getattr(other, name)) for name in Bags.__slots__
        )

    def test_ids_that_do_not_fit_are_refused(self) -> None:
        """A vocabulary beyond 16 bits is an error and not another token."""
        with pytest.raises(ValueError, match="cannot be packed"):
            pack([example([2], 70_000)])


class TestPasses:
    """`encoded`."""

    def test_processes_change_nothing(self, encoder: Encoder) -> None:
        """A pass is the same whoever encodes it, and the next one draws anew."""
        given = [rows(CHUNK + 20)] * 3
        here = [*encoded(given, encoder, 5)]
        there = [*encoded(given, encoder, 5, workers=2)]
        for one, other in zip(here, there, strict=True):
            assert np.array_equal(one.ids, other.ids)
            assert np.array_equal(one.types, other.types)
            assert np.array_equal(one.bags, other.bags)
        assert not np.array_equal(here[0].ids, here[1].ids)

    def test_rows_without_an_example_are_passed_over(self, encoder: Encoder) -> None:
        """A chunk that gives none is left out; a pass of such rows alone is a clear error."""
        blank = [Row("", " ", {"violence": 0.0}, "toy", "CC0-1.0", 1.0)] * CHUNK
        (found,) = encoded([[*blank, *rows(3)]], encoder, 5)
        assert len(found) == 3
        with pytest.raises(ValueError, match="nothing to train on"):
            next(encoded([blank], encoder, 5))

    def test_a_pass_that_is_left_early_ends_its_processes(self, encoder: Encoder) -> None:
        """Whoever stops reading does not wait for what is not needed."""
        given: Any = [rows(30)] * 4
        stream = encoded(given, encoder, 5, workers=1)
        assert len(next(stream)) == 30
        stream.close()
