"""The manifest of labelled data: how each file is used, and what a row must look like.

`sources.yaml` beside this module names the files. A row is JSON of the schema
`{"prompt", "response", "labels", "source", "license", "split", "meta"}`; a category absent
from `labels` is unknown, not 0.

This module does not know where the files lie, or how rows are split and sampled.
"""

from __future__ import annotations

import gzip
import re
import zlib
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from guard.categories import CATEGORIES
from guard.errors import InputError, did_you_mean

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

MANIFEST: Final = Path(__file__).with_name("sources.yaml")

OTHER_LABELS: Final = frozenset(
    {"misinformation", "hate_threatening", "sexual_minors", "violence_graphic"}
)
"""Labels of files that are no category; they are left out."""

_MARK: Final = b"\xef\xbb\xbf"
"""The byte-order mark that some editors put before UTF-8."""

_SHOWN: Final = 20
"""Problems that an error's text lists."""


class Source(BaseModel):
    """How one file is used.

    Attributes:
        role: what its rows are; `harmful` files hold positives alone.
        licence: how each row's licence must begin, one of these; empty for any.
        mapping: which labels are known beyond those given.
        split: whether validation is cut from its `train` rows by question, or no row of it
            may be trained on.
        validation: share of the questions that validate.
        question: key of `meta` that tells which rows are of one question or conversation; empty
            where the prompt's text does.
        cap: at most so many rows in training.
        weight: of a row in the loss, in (0, 1].
        repeats: how often each row is read in one pass.
        prompt_dropped: how often an answer is read without its prompt, in [0, 1].
        acts: whether answers may do something; the project's own other ones only say things.
        sha256: how the digest begins of the file that the settings were chosen on.
        note: what to know of it.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    role: Literal["benign", "harmful", "mixed"]
    licence: tuple[str, ...]
    mapping: Literal["given", "benign", "code", "own"]
    split: Literal["question", "held_out"]
    validation: Annotated[float, Field(ge=0, lt=1)]
    question: str = ""
    cap: Annotated[int, Field(gt=0)]
    weight: Annotated[float, Field(gt=0, le=1)]
    repeats: Annotated[int, Field(gt=0)]
    prompt_dropped: Annotated[float, Field(ge=0, le=1)]
    acts: bool = False
    sha256: Annotated[str, Field(pattern="^[0-9a-f]*$")] = ""
    note: str = ""

    def permits(self, licence: str) -> bool:
        """Return whether a row under `licence` may be in this file."""
        found = (re.match(rf"{re.escape(one)}(?![\w.-])", licence) for one in self.licence)
        return not self.licence or any(found)


class RawRow(BaseModel):
    """One line of a file.

    Attributes:
        labels: categories, and what `OTHER_LABELS` names, each in [0, 1].
        meta: whatever is known besides; `holdout` keeps a row from training.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    prompt: str | None
    response: str | None
    labels: dict[str, Annotated[float, Field(ge=0, le=1)]]
    source: str
    license: Annotated[str, Field(min_length=1)]
    split: Literal["train", "test"]
    meta: dict[str, Any]

    @property
    def unseen(self) -> bool:
        """Whether the row is for testing: nothing may be learnt from it."""
        return self.split == "test" or bool(self.meta.get("holdout"))

    @field_validator("labels")
    @classmethod
    def _are_known(cls, labels: dict[str, float]) -> dict[str, float]:
        for name in sorted(labels.keys() - CATEGORIES.keys() - OTHER_LABELS):
            raise ValueError(f"`{name}` is no category{did_you_mean(name, CATEGORIES)}")
        return labels

    @model_validator(mode="after")
    def _has_text(self) -> RawRow:
        if not (self.prompt or self.response):
            raise ValueError("neither `prompt` nor `response` has text")
        return self


class DataError(InputError):
    """Rows that break the schema.

    Attributes:
        problems: one sentence each, `file:line: what is wrong`.
    """

    def __init__(self, problems: list[str]) -> None:
        """List the first problems and count the others."""
        self.problems = tuple(problems)
        more = len(problems) - _SHOWN
        shown = [*problems[:_SHOWN], *([f"and {more:,} more"] if more > 0 else [])]
        super().__init__("\n".join(shown))


@cache
def source(name: str) -> Source:
    """Return the settings of the file called `name`, its endings left out."""
    found: dict[str, Any] = {}
    for pattern, entry in entries().items():
        if fnmatchcase(name, pattern):
            found |= entry
    return Source.model_validate(found | {"licence": tuple(found["licence"])})


@cache
def entries() -> Mapping[str, Mapping[str, Any]]:
    """Return the manifest as it stands: settings by name or pattern."""
    content: dict[str, dict[str, Any]] = yaml.safe_load(MANIFEST.read_text("utf-8"))
    return content


def stem(path: Path) -> str:
    """Return a file's name as the manifest has it."""
    return path.name.removesuffix(".gz").removesuffix(".jsonl")


def read(path: Path) -> list[RawRow]:
    """Return a file's rows; empty lines are none.

    Raises:
        DataError: it cannot be read, or every line that breaks the schema, or what the manifest
            says of the file.
    """
    settings = source(stem(path))
    rows: list[RawRow] = []
    problems: list[str] = []
    for number, line in _lines(path):
        place = f"{path.name}:{number}"
        try:
            row = RawRow.model_validate_json(line.decode("utf-8"))
        except UnicodeDecodeError as error:
            problems.append(f"{place}: not valid UTF-8 at byte {error.start + 1}: save it as UTF-8")
            continue
        except ValidationError as error:
            problems += [f"{place}: {_said(item)}" for item in error.errors()]
            continue
        rows.append(row)
        problems += [f"{place}: {text}" for text in _unfit(row, settings)]
    if problems:
        raise DataError(problems)
    return rows


def _lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """Yield the lines that are not empty, and their numbers, from 1."""
    opened = gzip.open if path.suffix == ".gz" else open
    try:
        with opened(path, "rb") as lines:
            for number, given in enumerate(lines, 1):
                if line := given.removeprefix(_MARK).strip():
                    yield number, line
    except (OSError, EOFError, zlib.error) as error:  # a damaged archive raises any of them
        reason = getattr(error, "strerror", None) or error
        raise DataError([f"{path.name}: cannot be read: {reason}"]) from error


def _unfit(row: RawRow, settings: Source) -> list[str]:
    """Return what contradicts the manifest."""
    found = []
    if not settings.permits(row.license):
        expected = " or ".join(f"`{one}`" for one in settings.licence)
        found.append(f"license: `{row.license}` is not {expected}, as the manifest says")
    if settings.split == "held_out" and not row.unseen:
        found.append("split: `train`, in a file that the manifest holds out")
    return found


def _said(error: Mapping[str, Any]) -> str:
    place = ".".join(str(part) for part in error["loc"])
    text = error["msg"].removeprefix("Value error, ")
    return f"{place}: {text}" if place else text
