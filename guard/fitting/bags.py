"""Examples as a classifier sees them: the embeddings of their units, and what belongs together.

An answer is a *bag* of units: it counts as of the category where one of them does, as at
runtime. Near copies count once, and rows that a split must not tear apart share a group.

This module does not know how a head is fitted.
"""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice, pairwise
from typing import TYPE_CHECKING, Final
from zlib import crc32

import numpy as np

from guard.text.units import CONTEXT, units

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from numpy.typing import NDArray

    from guard.detectors.classifier import Classifier
    from guard.fitting.examples import Example

    Floats = NDArray[np.float64]

UNITS: Final = 12
"""Units of an answer that are looked at; longer ones are cut there."""

ALIKE: Final = 0.7
"""Cosine of two texts' word pairs from which they count as near copies, in [0, 1]."""

_PAIR_COLUMNS: Final = 2048
_SHARED_PROMPT: Final = 0.2
"""Share of one side's rows from which a common prompt binds nothing."""

_PROMPTS: Final = (
    "Can you help me with this?",
    "What do you think?",
    "Please answer briefly.",
    "How does that work, and what should I do next?",
    "Tell me more about it.",
    "I have a question for your team.",
)
"""Stand in where a row has no prompt, so that a head cannot learn whether there is one."""


@dataclass(frozen=True, slots=True)
class Bag:
    """One answer.

    Attributes:
        units: embeddings of its units' windows as given, shape (windows, dimensions).
        others: the same units without the prompt, or with another where there is none.
        positive: whether it is of the category.
        copies: answers of one number are near copies of one another.
        group: answers of one number must not be torn apart by a split.
        question: answers to one prompt have one number; `None` where there is no prompt.
        key: a hash of what it says; orders bags whatever the order of the rows.
        line: where it stands in its file.
    """

    units: Floats
    others: Floats
    positive: bool
    copies: int
    group: int
    question: int | None
    key: str
    line: int


def bags(
    classifier: Classifier, examples: Iterable[Example], advance: Callable[[], None]
) -> list[Bag]:
    """Return the examples' bags, ordered by what they say.

    Args:
        classifier: gives embeddings.
        examples: in any order, each answer once.
        advance: called after each.
    """
    ordered = sorted(examples, key=_key)
    copies = near_copies([example.text for example in ordered])
    questions = _questions(ordered)
    groups = _groups(ordered, copies, questions)

    def bag(index: int) -> Bag:
        example = ordered[index]
        key = _key(example)
        other = "" if example.prompt else _PROMPTS[int(key[:8], 16) % len(_PROMPTS)]
        made = Bag(
            units=embeddings(classifier, example.prompt, example.text),
            others=embeddings(classifier, other, example.text),
            positive=example.positive,
            copies=copies[index],
            group=groups[index],
            question=questions[index],
            key=key,
            line=example.line,
        )
        advance()
        return made

    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        return list(pool.map(bag, range(len(ordered))))


def embeddings(classifier: Classifier, prompt: str, text: str, limit: int | None = UNITS) -> Floats:
    """Return the embeddings of a text's units, judged as at runtime; one row a window."""
    found = []
    for start, end in islice(units(text), limit):
        begin = max(0, start - CONTEXT)
        judged = classifier.judge(prompt, text[begin:end], start=start - begin)
        found.append(judged.embeddings)
    rows = [given for given in found if given is not None]
    return np.concatenate(rows).astype(np.float64) if rows else np.empty((0, classifier.dimensions))


def near_copies(texts: Sequence[str]) -> list[int]:
    """Return a number per text; texts of one number are near copies of one another."""
    table = np.zeros((len(texts), _PAIR_COLUMNS), np.float32)
    for row, text in zip(table, texts, strict=True):
        words = ["", *text.lower().split(), ""]
        for pair, count in Counter(pairwise(words)).items():
            row[crc32(" ".join(pair).encode("utf-8", "replace")) % _PAIR_COLUMNS] += count
    table /= np.maximum(np.linalg.norm(table, axis=1, keepdims=True), 1e-9)
    found = list(range(len(texts)))
    for index in range(len(texts)):
        for earlier in np.flatnonzero(table[:index] @ table[index] >= ALIKE):
            _join(found, int(earlier), index)
    return found


def _questions(examples: Sequence[Example]) -> list[int | None]:
    """Return a number per row: the place of the first row with its prompt, if it has one."""
    first: dict[str, int] = {}
    return [
        first.setdefault(example.prompt, index) if example.prompt else None
        for index, example in enumerate(examples)
    ]


def _groups(
    examples: Sequence[Example], copies: Sequence[int], questions: Sequence[int | None]
) -> list[int]:
    """Return a number per row: near copies and answers to one question stay together."""
    found = list(copies)
    common = _common(examples, questions)
    for index, question in enumerate(questions):
        if question is not None and question not in common:
            _join(found, question, index)
    return found


def _common(examples: Sequence[Example], questions: Sequence[int | None]) -> set[int | None]:
    """Return the questions that bind nothing, since much of one side answers them.

    Each side is asked alone: a question that every positive answers may still be rare among all
    rows, and would leave a split without positives.
    """
    found: set[int | None] = set()
    for side in (True, False):
        answered = Counter(
            question
            for example, question in zip(examples, questions, strict=True)
            if example.positive == side
        )
        most = max(2, _SHARED_PROMPT * answered.total())
        found |= {question for question, count in answered.items() if count > most}
    return found


def _join(numbers: list[int], one: int, other: int) -> None:
    """Give two rows, and whatever shares their numbers, the lower number of both."""
    low, high = sorted((numbers[one], numbers[other]))
    if low != high:
        numbers[:] = [low if number == high else number for number in numbers]


def _key(example: Example) -> str:
    said = f"{int(example.positive)}\0{example.prompt}\0{example.text}"
    return hashlib.sha256(said.encode("utf-8", "replace")).hexdigest()
