"""From rows to what the model reads: units with context, cut and encoded as at runtime.

This module does not know torch.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Final

import numpy as np

from guard.categories import CATEGORIES
from guard.text.units import CLOSING, CONTEXT, units
from guard.training.data import HEADS
from guard.training.obfuscate import obfuscated
from guard.training.sources import source

if TYPE_CHECKING:
    import random
    from collections.abc import Iterable, Iterator, Sequence

    from numpy.typing import NDArray

    from guard.encoding import Encoded, Encoder
    from guard.training.data import Row

CONTEXT_DROPPED: Final = 0.1
CONTEXT_SWAPPED: Final = 0.15
OBFUSCATED: Final = 0.15
UNITS_RISKY: Final = 3
UNITS_FINE: Final = 2

_CALM_CHARACTERS: Final = 200

_FORCED_PREFIX: Final = re.compile(
    r"^\s*(sure|absolutely|of course|certainly)\b[^.:\n]{0,120}[:.]\s*", re.IGNORECASE
)
_PROMPT_SIDE: Final = tuple(n for n in HEADS if CATEGORIES[n].side == "prompt")
_IS_PROMPT_SIDE: Final = np.isin(HEADS, _PROMPT_SIDE)


@dataclass(frozen=True, slots=True)
class Passage:
    """One unit of a response: `text[start:]`, behind its left context."""

    text: str
    start: int


@dataclass(frozen=True, slots=True)
class Example:
    """Some windows of one row with the row's targets.

    Attributes:
        windows: a window of each unit that was drawn, or the closing read's one, at least one.
        targets: label per head in [0, 1], shape (heads,); anything where masked.
        mask: weight of each head in the loss, 0 where the label is unknown, shape (heads,).
        question: what rows of one question share, below 2 ** 32.
    """

    windows: tuple[Encoded, ...]
    targets: NDArray[np.float32]
    mask: NDArray[np.float32]
    question: int = 0


def response_units(response: str, limit: int | None = None) -> list[Passage]:
    """Return each unit of a response with its left context, as the runtime passes it on."""
    found = []
    for start, end in units(response):
        begin = max(0, start - CONTEXT)
        found.append(Passage(response[begin:end], start - begin))
    return found if limit is None else found[:limit]


def of_side(mask: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Return which heads are about the side of the exchange that each example is of.

    Args:
        mask: see `Example`, shape (examples, heads); the answer has the same.
    """
    prompts = (mask[:, _IS_PROMPT_SIDE] > 0).any(1, keepdims=True)
    return np.where(prompts, _IS_PROMPT_SIDE, ~_IS_PROMPT_SIDE)


def calm_texts(rows: Iterable[Row]) -> list[str]:
    """Return ordinary answers, long enough to be a context."""
    benign = (row.response for row in rows if source(row.file).mapping == "benign")
    return [response for response in benign if len(response) >= _CALM_CHARACTERS]


def several_units(response: str) -> bool:
    """Return whether a response is judged in more than one unit, so that it has a closing read."""
    return next(islice(units(response), 1, None), None) is not None


def examples(
    rows: Iterable[Row],
    encoder: Encoder,
    rng: random.Random,
    calm: Sequence[str] = (),
    *,
    closing: float = 0.0,
) -> Iterator[Example]:
    """Yield an augmented example per side that a row has labels for.

    Args:
        rows: whatever is learnt from.
        encoder: as the runtime uses it.
        rng: of what is drawn and changed.
        calm: benign answers, one of which stands before a unit instead of its own context at
            times: what is judged is the unit.
        closing: how many of the answers of several units are also read as a whole, as the runtime
            does when they end, in [0, 1].
    """
    for row in rows:
        if row.response.strip():
            yield from _response_examples(row, encoder, rng, calm)
            if closing and several_units(row.response) and rng.random() < closing:
                yield from _closing_examples(row, encoder, rng)
        if row.prompt.strip() and any(head in row.labels for head in _PROMPT_SIDE):
            window = rng.choice(encoder.encode("", _augmented(row.prompt, rng), "prompt"))
            yield Example((window,), *_targets(row, "prompt"), row.question_number)


def _response_examples(
    row: Row, encoder: Encoder, rng: random.Random, calm: Sequence[str]
) -> Iterator[Example]:
    found = response_units(_augmented(_response(row, rng), rng))
    if not found or not _about_responses(row):
        return
    risky = any(value >= 0.5 for value in row.labels.values())
    count = min(len(found), UNITS_RISKY if risky else UNITS_FINE)
    prompt = _prompt(row, rng)
    windows = tuple(
        _window(prompt, _swapped(found[i], calm, rng), encoder, rng)
        for i in _drawn(len(found), count, rng)
    )
    yield Example(windows, *_targets(row, "response"), row.question_number)


def _closing_examples(row: Row, encoder: Encoder, rng: random.Random) -> Iterator[Example]:
    text = _augmented(_response(row, rng), rng)[-CLOSING:]
    window = encoder.encode_closing(_prompt(row, rng), text)
    if window is not None and _about_responses(row):
        yield Example((window,), *_targets(row, "response"), row.question_number)


def _about_responses(row: Row) -> bool:
    return any(CATEGORIES[head].side == "response" for head in row.labels)


def _prompt(row: Row, rng: random.Random) -> str:
    """Return the prompt, or nothing at times."""
    return "" if rng.random() < row.prompt_dropped else row.prompt


def _drawn(units: int, count: int, rng: random.Random) -> list[int]:
    """Return which units are read: the last one, with all its context, among them by half."""
    if count < units and rng.random() < 0.5:
        return [*sorted(rng.sample(range(units - 1), count - 1)), units - 1]
    return sorted(rng.sample(range(units), count))


def _swapped(passage: Passage, calm: Sequence[str], rng: random.Random) -> Passage:
    """Return a passage, sometimes behind another answer's text: what is judged is the unit."""
    if not calm or rng.random() >= CONTEXT_SWAPPED:
        return passage
    before = rng.choice(calm)
    end = rng.randint(1, len(before))
    before = before[max(0, end - CONTEXT) : end].rstrip() + rng.choice((" ", "\n\n"))
    return Passage(before + passage.text[passage.start :], len(before))


def _window(prompt: str, passage: Passage, encoder: Encoder, rng: random.Random) -> Encoded:
    text, start = passage.text, passage.start
    if rng.random() < CONTEXT_DROPPED:
        text, start = text[start:], 0
    return rng.choice(encoder.encode(prompt, text, start=start))


def _response(row: Row, rng: random.Random) -> str:
    """Return the response, without its forced prefix most of the time."""
    if row.file == "advbench_priming_attacks" and rng.random() < 0.7:
        return _FORCED_PREFIX.sub("", row.response) or row.response
    return row.response


def _augmented(text: str, rng: random.Random) -> str:
    return obfuscated(text, rng) if rng.random() < OBFUSCATED else text


def _targets(row: Row, side: str) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    targets = np.zeros(len(HEADS), np.float32)
    mask = np.zeros(len(HEADS), np.float32)
    for index, head in enumerate(HEADS):
        if head in row.labels and CATEGORIES[head].side == side:
            targets[index] = row.labels[head]
            mask[index] = row.weight * row.emphasis.get(head, 1.0)
    return targets, mask
