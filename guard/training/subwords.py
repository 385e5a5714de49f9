"""Words cut into other pieces than usual, so that a model reads on where spelling is odd.

A misspelt word reaches the encoder as pieces that it has hardly seen. Cutting words of ordinary
text at other places than the tokenizer does, by chance and anew at every step, is subword
regularisation (Kudo, ACL 2018; for the longest-match tokenizer used here Hiraoka, "MaxMatch-
Dropout", COLING 2022).

This module does not know what a word means, or how text is hidden (`obfuscate`).
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final

import numpy as np

from guard.training.passes import starts

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from guard.training.passes import Bags

INSIDE: Final = "##"
"""What a piece begins with that does not begin a word."""

MOST: Final = 0.5
"""Share of the pieces of a window that are cut, at most; it is drawn anew for each window."""

LONGEST: Final = 256
"""Tokens of a window beyond which nothing is cut: twice as many must fit into the encoder."""


class Subwords:
    """Knows into which two pieces each piece can be cut.

    Args:
        vocabulary: id of each piece.
        share: how many of the windows have pieces cut, in [0, 1].
    """

    def __init__(self, vocabulary: Mapping[str, int], share: float) -> None:
        """Find every cut, once."""
        found = sorted(
            (vocabulary[piece], *cut) for piece in vocabulary for cut in _cuts(piece, vocabulary)
        )
        cuts = np.array(found, np.int64).reshape(-1, 3)
        self._pairs = cuts[:, 1:]
        self._count = np.bincount(cuts[:, 0], minlength=max(vocabulary.values()) + 1)
        self._first = np.cumsum(self._count) - self._count
        self._share = share

    def cut(self, bags: Bags, rng: np.random.Generator) -> Bags:
        """Return the examples with some of their windows' pieces cut in two."""
        lengths = np.diff(bags.windows)
        rates = rng.uniform(0, MOST, len(lengths)) * (rng.random(len(lengths)) < self._share)
        rates[lengths > LONGEST] = 0
        ids = bags.ids.astype(np.int64)
        chosen = rng.random(len(ids)) < np.repeat(rates, lengths)
        chosen &= self._count[ids] > 0
        drawn = self._first[ids[chosen]] + rng.integers(0, self._count[ids[chosen]])
        repeats = 1 + chosen.astype(np.int64)
        places = (np.cumsum(repeats) - repeats)[chosen]
        longer = np.repeat(bags.ids, repeats)
        longer[places], longer[places + 1] = self._pairs[drawn].T
        more = np.add.reduceat(repeats, bags.windows[:-1])
        return replace(bags, ids=longer, types=np.repeat(bags.types, repeats), windows=starts(more))


def _cuts(piece: str, vocabulary: Mapping[str, int]) -> Iterator[tuple[int, int]]:
    """Yield the ids of each two pieces that together are `piece`."""
    begins = len(INSIDE) if piece.startswith(INSIDE) else 0
    if piece.startswith("[") and piece.endswith("]"):
        return
    for at in range(begins + 1, len(piece)):
        one, other = piece[:at], INSIDE + piece[at:]
        if one in vocabulary and other in vocabulary:
            yield vocabulary[one], vocabulary[other]
