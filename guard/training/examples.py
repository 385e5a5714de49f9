"""From rows to what the model reads: units with context, cut and encoded as at runtime.

This module does not know torch.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from guard.categories import CATEGORIES
from guard.text.units import CONTEXT, units
from guard.training.data import HEADS

if TYPE_CHECKING:
    import random
    from collections.abc import Iterable, Iterator

    from numpy.typing import NDArray

    from guard.encoding import Encoder
    from guard.training.data import Row

PROMPT_DROPPED: Final = 0.15
OBFUSCATED: Final = 0.03
FIRST_UNIT: Final = 0.5

_FORCED_PREFIX: Final = re.compile(
    r"^\s*(sure|absolutely|of course|certainly)\b[^.:\n]{0,120}[:.]\s*", re.IGNORECASE
)
_LEET: Final = str.maketrans({"a": "4", "e": "3", "o": "0", "i": "1", "s": "5"})
_PROMPT_SIDE: Final = tuple(n for n in HEADS if CATEGORIES[n].side == "prompt")


@dataclass(frozen=True, slots=True)
class Example:
    """One window with its targets.

    Attributes:
        ids: token ids, shape (tokens,).
        types: token types, same shape.
        targets: label per head in [0, 1], shape (heads,); anything where masked.
        mask: weight of each head in the loss, 0 where the label is unknown, shape (heads,).
    """

    ids: NDArray[np.int64]
    types: NDArray[np.int64]
    targets: NDArray[np.float32]
    mask: NDArray[np.float32]


def response_units(response: str, limit: int | None = None) -> list[str]:
    """Return each unit of a response with its left context, as the runtime passes it on."""
    found = [response[max(0, start - CONTEXT) : end] for start, end in units(response)]
    return found if limit is None else found[:limit]


def examples(rows: Iterable[Row], encoder: Encoder, rng: random.Random) -> Iterator[Example]:
    """Yield one or two augmented examples per row."""
    for row in rows:
        if row.response.strip():
            yield from _response_examples(row, encoder, rng)
        if row.prompt.strip() and any(head in row.labels for head in _PROMPT_SIDE):
            window = rng.choice(encoder.encode("", _obfuscated(row.prompt, rng), "prompt"))
            yield Example(window.ids, window.types, *_targets(row, "prompt"))


def _response_examples(row: Row, encoder: Encoder, rng: random.Random) -> Iterator[Example]:
    found = response_units(_response(row, rng))
    if not found or not any(CATEGORIES[head].side == "response" for head in row.labels):
        return
    chosen = {0 if rng.random() < FIRST_UNIT else rng.randrange(len(found))}
    if len(found) > 3:
        chosen.add(rng.randrange(len(found)))
    prompt = "" if rng.random() < PROMPT_DROPPED else row.prompt
    for index in sorted(chosen):
        window = rng.choice(encoder.encode(prompt, _obfuscated(found[index], rng)))
        yield Example(window.ids, window.types, *_targets(row, "response"))


def _response(row: Row, rng: random.Random) -> str:
    """Return the response, without its forced prefix most of the time."""
    if row.file == "advbench_priming_attacks" and rng.random() < 0.7:
        return _FORCED_PREFIX.sub("", row.response) or row.response
    return row.response


def _obfuscated(text: str, rng: random.Random) -> str:
    if rng.random() >= OBFUSCATED:
        return text
    kind = rng.randrange(3)
    if kind == 0:
        return text.translate(_LEET)
    if kind == 1:
        return "\u200b".join(text)
    return "".join(c.upper() if rng.random() < 0.5 else c for c in text)


def _targets(row: Row, side: str) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    targets = np.zeros(len(HEADS), np.float32)
    mask = np.zeros(len(HEADS), np.float32)
    for index, head in enumerate(HEADS):
        if head in row.labels and CATEGORIES[head].side == side:
            targets[index] = row.labels[head]
            mask[index] = row.weight
    return targets, mask
