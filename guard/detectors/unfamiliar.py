"""How unlike its training data a text is: other languages, ciphers, encoded walls, noise.

A classifier answers whatever it is given, and what it says of text that it cannot read is worth
nothing. The category `unfamiliar` says so. Two things show it: where the pooled embedding lies
beside those of ordinary text (distance inside the plane of ordinary text, Lee et al., "A simple
unified framework for detecting out-of-distribution samples", 2018, and distance from that plane),
and which tokens the unit is made of. A line through these features, calibrated like any other
evidence. Few tokens say little: every share leans towards what is ordinary.

`unfamiliar.npz` in a model's directory holds the numbers; it holds no text. A model without the
file has no such category.

This module does not know texts, tokenizers or languages, or how the numbers were fitted
(`guard.training.unfamiliar`).
"""

from __future__ import annotations

import math
import zipfile
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from guard.detectors import arrays
from guard.errors import ModelError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from guard.encoding import Encoded

    Floats = NDArray[np.float64]

FILE: Final = "unfamiliar.npz"

CATEGORY: Final = "unfamiliar"

CONTINUATION, UNKNOWN, FUNCTION_WORD, FOREIGN, SINGLE = (1 << bit for bit in range(5))
"""What a token is: a piece behind a word's first, no known word, a frequent English word of
grammar, beyond ASCII, a single letter or digit."""

SHARES: Final = (CONTINUATION, UNKNOWN, FUNCTION_WORD, FOREIGN, SINGLE)

COUNTED: Final = (
    "continuations",
    "unknown",
    "function_words",
    "foreign",
    "single",
    "surprise",
    "characters",
    "known_pairs",
)
"""What is averaged over a unit's tokens: `SHARES`, bits, characters, frequent neighbours."""

UNKNOWN_CHARACTERS: Final = 4.0
"""Characters of an unknown word that count as a token."""

PAIR_BITS: Final = 1 << 19
"""Size of the table of frequent neighbours, in bits."""

SURPRISE_STEPS: Final = 8
"""A token's surprise is kept in eighths of a bit."""

LEAN: Final = 8.0
"""Tokens' worth of ordinary text that every mean has in it."""

_DAMAGED: Final = (OSError, ValueError, LookupError, TypeError, EOFError, zipfile.BadZipFile)
"""What reading a file raises that is not what was written."""

_MULTIPLIER: Final = 0x9E3779B1
"""Knuth's multiplicative hash: 2^32 by the golden ratio."""


@dataclass(frozen=True, slots=True)
class Numbers:
    """What was fitted; the arrays of the file, by their names there.

    Attributes:
        centre: mean embedding of ordinary text, shape (dimensions,).
        plane: main directions of ordinary text, of length 1 and at right angles, shape (axes,
            dimensions).
        spread: standard deviation of ordinary text along each, shape (axes,).
        flags: what each token of the vocabulary is (`SHARES`), shape (vocabulary,).
        surprise: -log2 of each token's frequency in ordinary text, in eighths, same shape.
        pairs: which neighbours are frequent there, one bit a hash, shape (PAIR_BITS / 8,).
        ordinary: mean of each of `COUNTED` over ordinary tokens.
        offset: subtracted from the features, shape (features,).
        weights: of the features behind that, same shape.
        line: slope, intercept and bound of the evidence, shape (3,).
        digest: of the model that gave the embeddings, as text.
    """

    centre: NDArray[Any]
    plane: NDArray[Any]
    spread: NDArray[Any]
    flags: NDArray[Any]
    surprise: NDArray[Any]
    pairs: NDArray[Any]
    ordinary: NDArray[Any]
    offset: NDArray[Any]
    weights: NDArray[Any]
    line: NDArray[Any]
    digest: NDArray[Any]


class Unfamiliarity:
    """Scores what the classifier read; immutable, safe to share between threads."""

    def __init__(self, numbers: Numbers) -> None:
        """Lay the tables out for use."""
        self._plane = np.asarray(numbers.plane, np.float64)
        self._spread = np.asarray(numbers.spread, np.float64)
        self._centre = np.asarray(numbers.centre, np.float64)
        self._tokens = token_table(numbers.flags, numbers.surprise)
        self._pairs = numbers.pairs
        self._ordinary = np.asarray(numbers.ordinary, np.float64)
        self._offset = np.asarray(numbers.offset, np.float64)
        self._weights = np.asarray(numbers.weights, np.float64)
        self._slope, self._intercept, self._maximum = (float(value) for value in numbers.line)

    def evidence(self, windows: Sequence[Encoded], embeddings: NDArray[np.float32] | None) -> float:
        """Return the log likelihood ratio of text unlike the training data to text like it.

        Of several windows of a unit the most unfamiliar one counts. What is no number, or no
        embedding at all, gives NaN.

        Args:
            windows: of one unit, at least one.
            embeddings: pooled, one row a window.
        """
        if embeddings is None:
            return math.nan
        return self.calibrated(float(self.scores(windows, embeddings).max()))

    def calibrated(self, score: float) -> float:
        """Return the evidence of a score; NaN stays NaN."""
        value = self._slope * score + self._intercept
        return value if math.isnan(value) else max(-self._maximum, min(self._maximum, value))

    def scores(self, windows: Sequence[Encoded], embeddings: NDArray[np.float32]) -> Floats:
        """Return each window's score, before calibration."""
        return (self.features(windows, embeddings) - self._offset) @ self._weights

    def features(self, windows: Sequence[Encoded], embeddings: NDArray[np.float32]) -> Floats:
        """Return distances and token shares, shape (windows, features)."""
        counted = [self._counted(each.ids[each.unit], each.characters) for each in windows]
        return np.hstack([self._distances(embeddings.astype(np.float64)), np.array(counted)])

    def _distances(self, embeddings: Floats) -> Floats:
        """Return how far inside the plane of ordinary text, and how far beside it; logarithms."""
        away = embeddings - self._centre
        along = away @ self._plane.T
        inside = ((along / self._spread) ** 2).mean(axis=1)
        beside = (away**2).sum(axis=1) - (along**2).sum(axis=1)
        # What rounding makes negative is on the plane.
        return np.log(np.column_stack([inside, np.maximum(beside, 0.0)]) + 1e-6)

    def _counted(self, ids: NDArray[np.int64], characters: NDArray[np.int64]) -> Floats:
        """Return the mean of each of `COUNTED`, leaning towards what is ordinary."""
        weight, *found = tallies(self._tokens[ids], characters).sum(axis=0)
        found.append(known_pairs(self._pairs, ids).sum())
        return np.asarray((np.array(found) + LEAN * self._ordinary) / (weight + LEAN))


def token_table(flags: NDArray[Any], surprise: NDArray[Any]) -> Floats:
    """Return what each token counts by itself, shape (vocabulary, columns).

    The columns are: 1, `SHARES`, surprise in bits.
    """
    shares = [(flags & flag > 0).astype(np.float64) for flag in SHARES]
    return np.column_stack([np.ones(len(flags)), *shares, surprise / SURPRISE_STEPS])


def tallies(rows: Floats, characters: NDArray[np.int64]) -> Floats:
    """Return weight, shares, surprise and characters of each token, times its weight.

    A tokenizer may make one unknown token of a word of any length: it weighs as much as the
    tokens that it hides.

    Args:
        rows: of `token_table`, one a token.
        characters: of each token.
    """
    hidden = np.maximum(1.0, characters / UNKNOWN_CHARACTERS)
    unknown = rows[:, 1 + SHARES.index(UNKNOWN)] > 0
    weights = np.where(unknown, hidden, 1.0)[:, None]
    return np.asarray(np.hstack([rows * weights, characters[:, None]]), np.float64)


def pair_hashes(ids: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return a number below `PAIR_BITS` for each two neighbours."""
    mixed = (ids[:-1] * 65599 + ids[1:]).astype(np.uint64) * np.uint64(_MULTIPLIER)
    return ((mixed >> np.uint64(16)) % np.uint64(PAIR_BITS)).astype(np.int64)


def known_pairs(pairs: NDArray[Any], ids: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Return which neighbours are frequent in ordinary text."""
    hashes = pair_hashes(ids)
    return np.asarray((pairs[hashes >> 3] >> (hashes & 7)) & 1, np.bool_)


def write(directory: Path, numbers: Numbers) -> None:
    """Write the file into a model's directory; the same numbers give the same bytes."""
    arrays.write(directory / FILE, {f.name: getattr(numbers, f.name) for f in fields(Numbers)})


def read(directory: Path, digest: Callable[[], str], dimensions: int) -> Unfamiliarity | None:
    """Return what a model's directory knows of the unfamiliar, `None` where it has no such file.

    Args:
        directory: the model's.
        digest: gives that of the model's embeddings, which takes the whole graph to be read.
        dimensions: of the model's embeddings.

    Raises:
        ModelError: the file is damaged, or was made for another model.
    """
    path = directory / FILE
    if not path.is_file():
        return None
    try:
        # `numpy.load` leaves a damaged file open that it opened itself.
        with path.open("rb") as file, np.load(file, allow_pickle=False) as given:
            numbers = Numbers(**{field.name: given[field.name] for field in fields(Numbers)})
        found = Unfamiliarity(numbers)
    except _DAMAGED as error:
        raise ModelError(f"`{path}` cannot be used: {error}: reinstall the model") from error
    if str(numbers.digest) != digest() or numbers.centre.shape != (dimensions,):
        raise ModelError(
            f"`{path}` was made for another model: make it anew with `python -m "
            "guard.training.unfamiliar`, or remove it"
        )
    return found
