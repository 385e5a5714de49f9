"""Labelled examples of a category of one's own, read from JSON lines.

    {"text": "…", "label": 1}
    {"prompt": "…", "response": "…", "labels": {"competitor_pricing": 0}}

`label` is 1 (the default) for a text of the category and 0 for one that only looks like it.
Other keys are ignored, so that rows may have an `id` or notes.

This module does not know what is made of the examples.
"""

from __future__ import annotations

import gzip
import json
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from guard.errors import ConfigurationError, InputError, did_you_mean
from guard.json_lines import parsed, utf8_lines

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

ROWS_LIMIT: Final = 5000
"""More rows than a head on a frozen embedding can use; embedding them takes minutes."""

_SHOWN_PROBLEMS: Final = 20
_ABSENT: Final = object()


@dataclass(frozen=True, slots=True)
class Example:
    """One labelled answer.

    Attributes:
        text: the answer.
        positive: whether it is of the category.
        prompt: what it answers, `""` where unknown.
        line: where it stands in its file, one-based; 0 where it comes from elsewhere.
    """

    text: str
    positive: bool
    prompt: str = ""
    line: int = 0


@dataclass(frozen=True, slots=True)
class Examples:
    """What a file holds.

    Attributes:
        rows: every answer once.
        repeated: rows that were left out because they say what another one says.
        unlabelled: rows that were left out because they do not speak of the category.
    """

    rows: tuple[Example, ...]
    repeated: int = 0
    unlabelled: int = 0


class _WrongRowError(Exception):
    """What is wrong with one row."""


def read(path: Path, category: str) -> Examples:
    """Return the examples of `category` in a file of JSON lines, plain or gzip.

    Raises:
        ConfigurationError: everything that is wrong, by line.
    """
    problems: list[str] = []
    found: list[Example] = []
    unlabelled = 0
    try:
        for number, line in enumerate(_lines(path), start=1):
            try:
                example = _example(line, number, category) if line.strip() else None
            except _WrongRowError as error:
                problems.append(f"{path}:{number}: {error}")
                continue
            if example is not None:
                found.append(example)
            unlabelled += bool(line.strip()) and example is None
    except (OSError, EOFError, zlib.error, ValueError) as error:  # gzip raises any of them
        reason = getattr(error, "strerror", None) or error
        raise ConfigurationError(f"`{path}` cannot be read: {reason}") from error
    rows, repeated = _distinct(found, path, problems)
    if len(rows) > ROWS_LIMIT:
        problems.append(f"{path}: {len(rows):,} rows: give at most {ROWS_LIMIT:,}")
    if problems:
        raise ConfigurationError(_shortened(problems))
    return Examples(tuple(rows), repeated, unlabelled)


def _lines(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        yield from utf8_lines(gzip.GzipFile(fileobj=file) if path.suffix == ".gz" else file)


def _example(line: bytes, number: int, category: str) -> Example | None:
    """Return the example of a line, `None` where it does not speak of the category."""
    row = _object(line)
    label = _label(row, category)
    if label is None:
        return None
    text = _text(row)
    prompt = row.get("prompt")
    if prompt is not None and not isinstance(prompt, str):
        raise _WrongRowError("`prompt` must be text")
    return Example(text, label, prompt or "", number)


def _object(line: bytes) -> dict[str, Any]:
    try:
        row = parsed(line)
    except InputError as error:
        raise _WrongRowError(str(error)) from None
    if not isinstance(row, dict):
        raise _WrongRowError('must be an object such as `{"text": "…", "label": 1}`')
    return row


def _text(row: dict[str, Any]) -> str:
    given = [row[key] for key in ("response", "text") if row.get(key) is not None]
    if not given:
        hint = next((did_you_mean(k, ("text", "response")) for k in row if k != "prompt"), "")
        raise _WrongRowError(f"has neither `text` nor `response`{hint}")
    if not all(isinstance(text, str) for text in given):
        raise _WrongRowError("`text` and `response` must be text")
    if len(given) > 1 and given[0] != given[1]:
        raise _WrongRowError("has `text` and `response`, and they differ: leave one out")
    if not given[0].strip():
        raise _WrongRowError("the text is empty: write the answer, or remove the row")
    return str(given[0])


def _label(row: dict[str, Any], category: str) -> bool | None:
    """Return the row's label, `None` where its `labels` leave the category out."""
    labels = row.get("labels")
    if labels is not None and not isinstance(labels, dict):
        raise _WrongRowError('`labels` must be an object such as `{"' + category + '": 1}`')
    among = _ABSENT if labels is None else labels.get(category, _ABSENT)
    alone = row.get("label", _ABSENT)
    given = [value for value in (alone, among) if value is not _ABSENT]
    for value in given:
        if not isinstance(value, int | float) or value not in (0, 1):
            raise _WrongRowError(f"the label must be 1 or 0, not {json.dumps(value)[:40]}")
    if len(given) > 1 and given[0] != given[1]:
        raise _WrongRowError(f"`label` and `labels.{category}` differ: leave one out")
    if given:
        return bool(given[0])
    return True if labels is None else None


def _distinct(found: list[Example], path: Path, problems: list[str]) -> tuple[list[Example], int]:
    """Return every answer once; the same answer with both labels is a problem."""
    known: dict[tuple[str, str], Example] = {}
    for example in found:
        first = known.setdefault((example.prompt, example.text), example)
        if first.positive != example.positive:
            where = f"{path}:{example.line}: says what line {first.line} says"
            problems.append(f"{where}, with another label: correct one of them")
    return list(known.values()), len(found) - len(known)


def _shortened(problems: list[str]) -> list[str]:
    rest = len(problems) - _SHOWN_PROBLEMS
    more = [f"and {rest:,} more"] if rest > 0 else []
    return problems[:_SHOWN_PROBLEMS] + more
