"""Reads labelled rows from JSON lines: one's own, or rows of the journal that somebody judged.

    {"prompt": "...", "response": "...", "labels": {"hate_toxicity": 1, "violence": 0}}
    {... as `guard flagged export` writes it ..., "label": 0}

In a row of the journal `label` says whether the categories that its reasons name are really
there: 1 the flag was right, 0 it was not, or an object as under `labels`. Blank lines, and those
which begin with `#`, are passed over.

This module does not know what the rows are for.
"""

from __future__ import annotations

import gzip
import hashlib
import re
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from guard.categories import CATEGORIES
from guard.errors import InputError, did_you_mean
from guard.json_lines import is_row, parsed, utf8_lines

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

_SHOWN: Final = 20
"""Problems that a message lists; the others are counted."""

_REASON: Final = re.compile(r"(\w+): live risk ")
_DIGEST: Final = "sha256:"
_KEYS: Final = ("prompt", "response", "labels")


@dataclass(frozen=True, slots=True)
class LabelledRow:
    """One exchange and what is known of it.

    Attributes:
        prompt: the user's message, `""` where unknown.
        response: the answer, `""` where only the prompt is labelled.
        labels: whether each category is there; what is not named is unknown.
    """

    prompt: str
    response: str
    labels: Mapping[str, bool]

    @property
    def scorable(self) -> bool:
        """Whether any label is about a text that the row has."""
        texts = {"prompt": self.prompt, "response": self.response}
        return any(texts[CATEGORIES[name].side].strip() for name in self.labels)

    @property
    def digest(self) -> str:
        """A hash of both texts."""
        text = f"{self.prompt}\0{self.response}"
        return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


@dataclass(frozen=True, slots=True)
class Labelled:
    """A file of labelled rows.

    Attributes:
        rows: those that can be used.
        journal: whether they are rows of a journal: what a guard flagged, and nothing else.
        textless: rows of the journal that kept no text that their label is about.
    """

    rows: tuple[LabelledRow, ...]
    journal: bool
    textless: int


def read(path: Path) -> Labelled:
    """Read `path`, plain or gzip.

    Raises:
        InputError: it cannot be read, or lines are wrong: each is named, with the mend.
    """
    problems: list[str] = []
    rows: list[LabelledRow] = []
    kinds: set[bool] = set()
    textless = 0
    for number, line in _lines(path):
        try:
            data = _object(line)
            kinds.add("label" in data)
            row = journal_row(data) if "label" in data else _row(data)
        except InputError as error:
            problems.append(f"{path}:{number}: {error}")
            continue
        if row is None:
            textless += 1
        else:
            rows.append(row)
    if len(kinds) > 1:
        problems.append(
            f"{path}: has rows with `labels` and rows of a journal with `label`: the latter were "
            "chosen by a guard, so they are fitted otherwise. Put them into two files"
        )
    if not kinds and not problems:
        problems.append(f"{path}: has no rows")
    if problems:
        more = len(problems) - _SHOWN
        raise InputError("\n".join(problems[:_SHOWN] + ([f"and {more} more"] if more > 0 else [])))
    return Labelled(tuple(rows), kinds == {True}, textless)


def _lines(path: Path) -> Iterator[tuple[int, bytes]]:
    opened = gzip.open if path.suffix == ".gz" else open
    try:
        with opened(path, "rb") as file:
            for number, line in enumerate(utf8_lines(file), start=1):
                if is_row(line):
                    yield number, line
    except (OSError, EOFError, zlib.error) as error:
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"{path}: cannot be read: {reason}") from error


def _object(line: bytes) -> dict[str, Any]:
    data = parsed(line)
    if not isinstance(data, dict):
        raise InputError("not a JSON object with `response` and `labels`")
    return data


def _row(data: Mapping[str, Any]) -> LabelledRow:
    if "labels" not in data and "reasons" in data:
        raise InputError(
            "is a row of the journal without `label`: add 1 where its flag was right, else 0"
        )
    if "labels" not in data:
        raise InputError('has no `labels` ({"category": 0 or 1, ...})')
    row = LabelledRow(_text(data, "prompt"), _text(data, "response"), _labels(data["labels"]))
    if not (row.prompt.strip() or row.response.strip()):
        raise InputError("has neither `prompt` nor `response`: there is nothing to score")
    if not row.scorable:
        side = CATEGORIES[next(iter(row.labels))].side
        close = next((did_you_mean(key, (side,)) for key in data if key not in _KEYS), "")
        raise InputError(f"has no `{side}`, which its labels are about: give it{close}")
    return row


def flagged_for(data: Mapping[str, Any]) -> list[str]:
    """Return the categories that a journal's row was flagged for, those of one's own included."""
    named = (_REASON.match(str(reason)) for reason in data.get("reasons") or ())
    return [match[1] for match in named if match]


def flags_of(data: Mapping[str, Any]) -> dict[str, str]:
    """Return what can be labelled in a journal's row: built-in categories that it was flagged for.

    Args:
        data: a row as `guard flagged export` writes it, of which `prompt`, `response` and
            `reasons` are looked at.

    Returns:
        By the category a digest of the texts that the label is about, so that copies are known.
        What the journal kept no text of is left out.
    """
    names = [name for name in flagged_for(data) if name in CATEGORIES]
    rows = {name: journal_row({**data, "label": {name: 1}}) for name in names}
    return {name: row.digest for name, row in rows.items() if row is not None}


def labels_of(data: Mapping[str, Any], where: str) -> dict[tuple[str, str], bool]:
    """Return what a line of a file of labels says: by the digest and category, whether it is right.

    Args:
        data: the line.
        where: of the line, for the error.

    Raises:
        InputError: it is no labelled row of a journal.
    """
    if "label" not in data:
        raise InputError(
            f"{where} has no `label`: this file takes labelled rows of a journal and nothing "
            "else, as `guard calibrate` wants it. Name another"
        )
    try:
        row = journal_row(data)
    except InputError as error:
        raise InputError(f"{where} {error}") from error
    return {} if row is None else {(row.digest, name): on for name, on in row.labels.items()}


def journal_row(data: Mapping[str, Any]) -> LabelledRow | None:
    """Return a journal's row, `None` where the journal kept no text that its label is about.

    Args:
        data: a row as `guard flagged export` writes it, with `label`.

    Raises:
        InputError: its label cannot be used; says why.
    """
    label = data["label"]
    if not isinstance(label, dict):
        named = flagged_for(data)
        found = [name for name in named if name in CATEGORIES]
        if not found:
            raise InputError(_without_category(named))
        label = dict.fromkeys(found, label)
    row = LabelledRow(_kept(data, "prompt"), _kept(data, "response"), _labels(label))
    return row if row.scorable else None


def _without_category(own: list[str]) -> str:
    """Return why a row of the journal cannot be used, and the mend."""
    if not own:
        return "`label` needs `reasons` that name a category, as in an export"
    return (
        f"`{own[0]}` is a category of your own, which `guard calibrate` does not change: add the "
        f"row to its examples and fit it anew (`guard model fit --category {own[0]}`)"
    )


def _kept(data: Mapping[str, Any], name: str) -> str:
    text = _text(data, name)
    return "" if text.startswith(_DIGEST) else text


def _text(data: Mapping[str, Any], name: str) -> str:
    value = data.get(name)
    if value is not None and not isinstance(value, str):
        raise InputError(f"`{name}` must be text")
    return value or ""


def _labels(given: object) -> dict[str, bool]:
    if not isinstance(given, dict) or not given:
        raise InputError("labels must be an object with at least one category")
    for name, value in given.items():
        if name not in CATEGORIES:
            raise InputError(f"`{name}` is no category{did_you_mean(name, CATEGORIES)}")
        if not isinstance(value, int | float) or value not in (0, 1):
            raise InputError(f"the label of `{name}` must be 0 or 1, not {value!r}")
    return {name: bool(value) for name, value in given.items()}
