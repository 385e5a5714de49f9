"""Passes over the rows: each encoded anew, in chunks, on as many processes as are given.

Every chunk draws its augmentations from its own seed, so that a pass is the same on one process
as on many. What a pass holds is packed into a few arrays: millions of small ones would cost
more to hand from process to process than to make.

This module does not know torch, or what a model does with an example.
"""

from __future__ import annotations

import random
from collections import deque
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from itertools import islice
from multiprocessing import get_context
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from tokenizers import Tokenizer

from guard.encoding import Encoder
from guard.errors import InputError
from guard.training.examples import calm_texts, examples

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable, Iterator, Sequence

    from numpy.typing import NDArray

    from guard.training.data import Row
    from guard.training.examples import Example

CHUNK: Final = 500
"""Rows that are encoded together."""

CALM: Final = 100
"""Benign answers that a chunk may put before its units."""

_AHEAD: Final = 2
"""Passes that are being made at once."""

_IDS: Final = np.uint16


@dataclass(frozen=True, slots=True)
class Bags:
    """Examples, packed.

    Attributes:
        ids: tokens of all windows, one behind the other, shape (tokens,).
        types: of the tokens, same shape.
        windows: where each window begins in `ids`, and the end, shape (windows + 1,).
        bags: where each example begins in `windows`, and the end, shape (examples + 1,).
        targets: see `Example`, shape (examples, heads).
        mask: see `Example`, shape (examples, heads).
        questions: see `Example`, shape (examples,).
    """

    ids: NDArray[np.uint16]
    types: NDArray[np.uint8]
    windows: NDArray[np.int64]
    bags: NDArray[np.int64]
    targets: NDArray[np.float32]
    mask: NDArray[np.float32]
    questions: NDArray[np.uint32]

    def __len__(self) -> int:
        """Return the number of examples."""
        return len(self.targets)

    @property
    def longest(self) -> NDArray[np.int64]:
        """Tokens of the longest window of each example, shape (examples,)."""
        return np.maximum.reduceat(np.diff(self.windows), self.bags[:-1])

    @property
    def sizes(self) -> NDArray[np.int64]:
        """Windows of each example, shape (examples,)."""
        return np.diff(self.bags)

    def windows_of(self, indices: Sequence[int] | NDArray[np.integer]) -> NDArray[np.int64]:
        """Return which windows are those of some of the examples, in order, shape (windows,)."""
        return _within(self.bags, np.asarray(indices, np.int64))

    def taken(self, indices: Sequence[int] | NDArray[np.integer]) -> Bags:
        """Return some of the examples, at least one, in the order in which they are named."""
        chosen = np.asarray(indices, np.int64)
        windows = self.windows_of(indices)
        tokens = _within(self.windows, windows)
        return Bags(
            self.ids[tokens],
            self.types[tokens],
            starts(np.diff(self.windows)[windows]),
            starts(self.sizes[chosen]),
            self.targets[chosen],
            self.mask[chosen],
            self.questions[chosen],
        )


def pack(given: Sequence[Example]) -> Bags:
    """Pack examples, at least one.

    Raises:
        ValueError: a token's id does not fit into 16 bits.
    """
    windows = [window for example in given for window in example.windows]
    ids = np.concatenate([window.ids for window in windows])
    if ids.max(initial=0) > np.iinfo(_IDS).max:
        raise ValueError(f"token ids above {np.iinfo(_IDS).max} cannot be packed")
    return Bags(
        ids.astype(_IDS),
        np.concatenate([window.types for window in windows]).astype(np.uint8),
        starts([len(window.ids) for window in windows]),
        starts([len(example.windows) for example in given]),
        np.stack([example.targets for example in given]),
        np.stack([example.mask for example in given]),
        np.array([example.question for example in given], np.uint32),
    )


def joined(parts: Sequence[Bags]) -> Bags:
    """Return the examples of several packs, at least one, in order."""
    return Bags(
        np.concatenate([part.ids for part in parts]),
        np.concatenate([part.types for part in parts]),
        starts(np.concatenate([np.diff(part.windows) for part in parts])),
        starts(np.concatenate([np.diff(part.bags) for part in parts])),
        np.concatenate([part.targets for part in parts]),
        np.concatenate([part.mask for part in parts]),
        np.concatenate([part.questions for part in parts]),
    )


def encoded(
    passes: Sequence[Sequence[Row]],
    encoder: Encoder,
    seed: int,
    workers: int = 0,
    *,
    closing: float = 0.0,
) -> Generator[Bags]:
    """Yield each pass; while one is used, the next is made.

    Args:
        passes: rows of each, in the order in which they are read.
        encoder: of the model.
        seed: of what is drawn.
        workers: processes beside this one; 0 to do it here.
        closing: how many of the answers of several units are also read as a whole, in [0, 1].

    Raises:
        InputError: none of a pass's rows has text that one of its labels is about.
    """
    chunks = [
        list(_chunks(rows, f"{seed}:{number}", closing)) for number, rows in enumerate(passes)
    ]
    if not workers:
        yield from (_whole(_packed(chunk, encoder) for chunk in of_pass) for of_pass in chunks)
        return
    context = get_context("spawn")
    pool = ProcessPoolExecutor(workers, context, _begin, (encoder.recipe(),))
    try:
        made = ([pool.submit(_packed_there, chunk) for chunk in of_pass] for of_pass in chunks)
        ahead = deque(islice(made, _AHEAD))
        while ahead:
            yield _whole(part.result() for part in ahead.popleft())
            ahead.extend(islice(made, 1))
    finally:
        pool.shutdown(cancel_futures=True)


@dataclass(frozen=True, slots=True)
class _Chunk:
    """Rows that are encoded together.

    Attributes:
        rows: these.
        calm: benign answers that may stand before a unit.
        seed: of what is drawn.
        closing: how many of the answers of several units are also read as a whole.
    """

    rows: Sequence[Row]
    calm: Sequence[str]
    seed: str
    closing: float


def _chunks(rows: Sequence[Row], seed: str, closing: float) -> Iterator[_Chunk]:
    calm = calm_texts(rows)
    for at in range(0, len(rows), CHUNK):
        rng = random.Random(f"{seed}:{at}")
        some = rng.sample(calm, min(CALM, len(calm)))
        yield _Chunk(rows[at : at + CHUNK], some, f"{seed}:{at}:rows", closing)


def _packed(chunk: _Chunk, encoder: Encoder) -> Bags | None:
    rng = random.Random(chunk.seed)
    found = [*examples(chunk.rows, encoder, rng, chunk.calm, closing=chunk.closing)]
    return pack(found) if found else None


def _whole(parts: Iterable[Bags | None]) -> Bags:
    found = [part for part in parts if part is not None]
    if not found:
        raise InputError("no row has text that one of its labels is about: nothing to train on")
    return joined(found)


_encoder: Encoder | None = None
"""Of a process that encodes."""


def _begin(recipe: tuple[str, dict[str, Any]]) -> None:
    global _encoder  # noqa: PLW0603  # what a process is given once
    tokenizer, settings = recipe
    _encoder = Encoder(Tokenizer.from_str(tokenizer), **settings)


def _packed_there(chunk: _Chunk) -> Bags | None:
    if _encoder is None:
        raise RuntimeError("a process was given rows before its encoder")
    return _packed(chunk, _encoder)


def starts(lengths: Sequence[int] | NDArray[np.int64]) -> NDArray[np.int64]:
    """Return where each of several spans of these lengths begins, and the end."""
    return np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)


def _within(begins: NDArray[np.int64], chosen: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the places of all that lies in the chosen spans, one span behind the other."""
    lengths = begins[chosen + 1] - begins[chosen]
    ends = np.cumsum(lengths)
    found: NDArray[np.int64] = np.arange(ends[-1]) + np.repeat(
        begins[chosen] - (ends - lengths), lengths
    )
    return found
