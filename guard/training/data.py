"""The labelled rows: which files, what of them, and which of them validate.

    python -m guard.training.data --data FOLDER

shows every file of a folder with what the manifest (`guard.training.sources`) says of it, and
refuses rows that break the schema.

Rows marked `test` or `meta.holdout` are dropped when read: nothing behind this module can
train, select or calibrate on them. Validation is cut from train by question.

This module does not know how text becomes tokens or what a model does with it.
"""

from __future__ import annotations

import argparse
import hashlib
import random
import sys
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from rich.console import Console
from rich.table import Table

from guard.categories import CATEGORIES
from guard.training.sources import DataError, RawRow, Source, read, source, stem

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

HEADS: Final = tuple(
    name
    for name in CATEGORIES
    if name not in ("secret_leak", "pii_leak", "proprietary_leak", "unfamiliar")
)
"""What the classifier scores. Patterns and fingerprints find the leaks; what is unfamiliar shows
in the embedding (`guard.detectors.unfamiliar`)."""

OWN: Final = Path(__file__).parent / "own"
"""Rows written for this project, CC0-1.0; read beside every folder that is given."""

VALIDATION_CAP: Final = 220

_BENIGN_ZEROS: Final = (
    "harassment",
    "deception",
    "unsafe_action",
    "exposure",
    "system_prompt_leak",
)
"""Set to 0 on curated benign answers, beside what their labels say: nobody is insulted,
misled, acted for or exposed in them, and heads with few rows need ordinary text to stand
against."""

_ALWAYS_UNSAFE: Final = (
    "harmful_compliance",
    "hate_toxicity",
    "harassment",
    "sexual",
    "self_harm",
    "violence",
)
"""Harms that make a response unsafe also where its file has no such label."""

_HARMS: Final = (
    "harmful_compliance",
    "misaligned_persona",
    "power_seeking",
    "deception",
    "bias_stereotype",
    "hate_toxicity",
    "harassment",
    "sexual",
    "self_harm",
    "violence",
    "bad_advice",
)
"""What makes a response unsafe."""


@dataclass(frozen=True, slots=True)
class Row:
    """One labelled exchange.

    Attributes:
        labels: heads only, each in [0, 1].
        file: the file's name, endings left out.
        weight: of all its labels in the loss.
        line: its number among the file's rows, from 1.
        emphasis: factor on the weight per head, 1 where absent (`guard.training.balance`).
        prompt_dropped: how often the response is read without its prompt, in [0, 1].
    """

    prompt: str
    response: str
    labels: Mapping[str, float]
    file: str
    licence: str
    weight: float
    meta: Mapping[str, Any] = field(default_factory=dict)
    line: int = 0
    emphasis: Mapping[str, float] = field(default_factory=dict)
    prompt_dropped: float = 0.0

    @property
    def question(self) -> str:
        """What rows of one question share."""
        return question_of(self.file, self.prompt, self.response, self.meta)

    @property
    def question_number(self) -> int:
        """The same, below 2 ** 32, for folds; of other digits than what validates is chosen by."""
        return int(self.question[8:16], 16)


@dataclass(frozen=True, slots=True)
class Split:
    """Rows to train on and rows to select and calibrate on; of one file no question is in both.

    Attributes:
        train: rows of one pass.
        validation: rows to select and calibrate on.
        further: rows of further passes; each samples anew those of files with more than the cap.
    """

    train: list[Row]
    validation: list[Row]
    further: tuple[list[Row], ...] = ()

    @property
    def passes(self) -> tuple[list[Row], ...]:
        """The rows of each pass, at least one."""
        return (self.train, *self.further)


def load(folder: Path, *, seed: int, share: float = 1.0, passes: int = 1) -> Split:
    """Read every file of `folder`, and the project's own rows, and split them.

    Args:
        folder: where the labelled data is.
        seed: of sampling and order.
        share: share of each file's cap to train on, for all but the project's own rows.
        passes: how many to sample training rows for.

    Raises:
        FileNotFoundError: the folder holds no data.
        DataError: a file has rows that break the schema.
    """
    split = Split([], [], tuple([] for _ in range(passes - 1)))
    for path in paths(folder):
        _add(split, list(_rows(path)), seed, share)
    return split


def data_files(folder: Path) -> dict[str, dict[str, Any]]:
    """Return SHA-256, size and licences of each file, for the model's manifest."""
    return {path.name: _describe(path) for path in paths(folder)}


def paths(folder: Path) -> list[Path]:
    """Return the files by name; of two of one name the project's own counts.

    Raises:
        FileNotFoundError: the folder holds no data.
        DataError: it holds a file packed and unpacked, of which one would be passed over.
    """
    given = sorted([*folder.glob("*.jsonl"), *folder.glob("*.jsonl.gz")])
    twice = [path.name for path in given if (folder / f"{path.name}.gz") in given]
    if twice:
        raise DataError([f"`{name}` is there packed, too: remove one of both" for name in twice])
    if not given:
        raise FileNotFoundError(
            f"no `*.jsonl` or `*.jsonl.gz` in `{folder}`: pass the folder of labelled data"
        )
    found = {stem(path): path for path in [*given, *sorted(OWN.glob("*.jsonl"))]}
    return [found[name] for name in sorted(found)]


def _name(path: Path) -> str:
    return path.name.removesuffix(".gz").removesuffix(".jsonl")


def question_of(file: str, prompt: str, response: str, meta: Mapping[str, Any]) -> str:
    """Return what rows of one question share.

    It is a digest of what the manifest says of the file: an entry of `meta`, or the prompt, or
    the response where there is none.
    """
    named = source(file).question
    text = str(meta[named]) if named in meta else prompt or response
    text = " ".join(text.lower().split())
    return hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()


def validates(file: str, question: str) -> bool:
    """Return whether the rows of a question validate in a file."""
    return int(question[:8], 16) / 0xFFFFFFFF < source(file).validation


def is_validation(row: Row) -> bool:
    """Return whether a row's question validates; depends on nothing but file and question."""
    return validates(row.file, row.question)


def _add(split: Split, rows: list[Row], seed: int, share: float) -> None:
    """Add one file's rows, capped, to both sides of the split."""
    if not rows:
        return
    name = rows[0].file
    settings = source(name)
    cap = settings.cap if settings.mapping == "own" else round(share * settings.cap)
    random.Random(f"{seed}:{name}").shuffle(rows)
    split.validation.extend([row for row in rows if is_validation(row)][:VALIDATION_CAP])
    train = [row for row in rows if not is_validation(row)]
    split.train.extend(train[:cap] * settings.repeats)
    for number, further in enumerate(split.further, 1):
        random.Random(f"{seed}:{name}:{number}").shuffle(train)
        further.extend(train[:cap] * settings.repeats)


def _rows(path: Path) -> Iterator[Row]:
    """Yield the rows of a file that something may be learnt from."""
    name = stem(path)
    settings = source(name)
    for line, raw in enumerate(read(path), 1):
        labels = {} if raw.unseen else _labels(settings, raw.labels)
        if labels:
            yield Row(
                prompt=raw.prompt or "",
                response=raw.response or "",
                labels=labels,
                file=name,
                licence=raw.license,
                weight=settings.weight,
                meta=raw.meta,
                line=line,
                prompt_dropped=settings.prompt_dropped,
            )


def _labels(settings: Source, given: Mapping[str, float]) -> dict[str, float]:
    labels = {head: float(value) for head, value in given.items() if head in HEADS}
    if settings.mapping == "benign":
        labels = dict.fromkeys(_BENIGN_ZEROS, 0.0) | labels
    if settings.mapping == "code":
        labels = {"unsafe_action": 0.0} | labels
    if settings.mapping == "own" and labels:
        labels = _own_labels(labels)
        if not settings.acts and any(CATEGORIES[head].side == "response" for head in labels):
            labels = {"unsafe_action": 0.0} | labels
    if any(labels.get(head, 0.0) >= 0.5 for head in _ALWAYS_UNSAFE):
        labels = {"unsafe": 1.0} | labels
    return labels


def _own_labels(given: dict[str, float]) -> dict[str, float]:
    """Return labels with what is known of a row that was written as one side of a pair.

    The good side was written to be harmless in every way; the harmful one is unsafe.
    """
    if all(CATEGORIES[head].side == "prompt" for head in given):
        return given
    if any(given.get(head, 0.0) >= 0.5 for head in _HARMS):
        return {"unsafe": 1.0} | given
    if any(value >= 0.5 for head, value in given.items() if head != "refusal"):
        return given
    return dict.fromkeys((*_HARMS, "unsafe"), 0.0) | given


def _describe(path: Path) -> dict[str, Any]:
    licences = sorted({row.license for row in read(path)})
    return {"sha256": _digest(path), "bytes": path.stat().st_size, "licences": licences}


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _table() -> Table:
    table = Table(box=None, header_style="bold")
    for name in ("file", "sha256", "role", "licence"):
        table.add_column(name, overflow="fold")
    for name in ("train", "validation", "test", "cap", "weight"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("positive labels", overflow="fold", ratio=1)
    return table


def _cells(path: Path, rows: list[RawRow]) -> list[str]:
    """Return a file's line of the table; rows of all labels are counted, before the cap."""
    settings = source(stem(path))
    digest = _digest(path)
    changed = "" if digest.startswith(settings.sha256) else " (changed)"
    parts = Counter(_part(stem(path), row) for row in rows)
    positive = Counter(name for row in rows for name, value in row.labels.items() if value >= 0.5)
    return [
        stem(path),
        f"{digest[:12]}{changed}",
        settings.role,
        "; ".join(sorted({row.license for row in rows})),
        *[f"{parts[name]:,}" for name in ("train", "validation", "test")],
        "held out" if settings.split == "held_out" else f"{settings.cap:,}",
        f"{settings.weight:g}",
        ", ".join(f"{name} {count:,}" for name, count in sorted(positive.items())),
    ]


def _part(file: str, row: RawRow) -> str:
    if row.unseen:
        return "test"
    fits = validates(file, question_of(file, row.prompt or "", row.response or "", row.meta))
    return "validation" if fits else "train"


def main(arguments: Sequence[str] | None = None) -> int:
    """Show a folder's files; return 1 where rows break the schema."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="folder of labelled *.jsonl.gz")
    given = parser.parse_args(arguments)
    table = _table()
    wrong = False
    for path in paths(given.data):
        try:
            table.add_row(*_cells(path, read(path)))
        except DataError as error:
            wrong = True
            print(error, file=sys.stderr)  # noqa: T201  # a command's output
    console = Console()
    # Piped, no column is squeezed.
    console = console if console.is_terminal else Console(width=240)
    console.print(table)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
