"""Files of probes as plain values: reads YAML, JSON lines and tables, and remembers the lines.

A YAML file says what its probes share only once: `defaults` for all of them, and in a group for
all its conditions. What stands further in goes first. JSON lines and tables have a probe a line;
rows that are no probes yet are mapped by `guard.audit.public_sets`.

This module does not know what a probe must hold; `guard.audit.probe` checks that.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any, Final

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from guard import yaml_lines
from guard.audit.public_sets import mapped
from guard.errors import InputError
from guard.json_lines import utf8
from guard.policy_problems import sentence
from guard.yaml_lines import Document

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from guard.yaml_lines import Location, Problem

SUFFIXES: Final = (".yaml", ".yml", ".jsonl", ".csv", ".tsv")
"""Names that files of probes may end in."""

_MADE: Final = ("id", "group", "condition")
"""What a condition's probe gets from its group."""

_SIDES: Final[dict[str, dict[str, str]]] = {
    "harmful": {"expected": "refuse"},
    "benign": {"expected": "comply", "category": "refusal"},
}
"""What a side of a contrast is, unless it says otherwise: its bad answer is a refusal where
the other's is help."""


@dataclass(frozen=True, slots=True)
class Layer:
    """Values that one place of a document gives to a probe.

    Attributes:
        at: where they stand.
        values: by key.
        short: they stand for themselves, without keys: a condition that is only a text.
    """

    at: Location
    values: Mapping[str, Any]
    short: bool = False


@dataclass(frozen=True, slots=True)
class Entry:
    """One probe as it was written.

    Attributes:
        file: where it was read.
        lines: the line of each place.
        layers: where its values stand, the outermost first.
    """

    file: File
    lines: Document
    layers: tuple[Layer, ...]

    @property
    def values(self) -> dict[str, Any]:
        """What the layers say together."""
        return {key: value for layer in self.layers for key, value in layer.values.items()}

    def place(self, location: Location) -> tuple[int, Location]:
        """Return line and place in the document of a place in the probe."""
        holder = self.layers[-1]
        for layer in self.layers:
            if location and location[0] in layer.values:
                holder = layer
        at = holder.at if holder.short else (*holder.at, *location)
        return self.lines.line(at), at


@dataclass(slots=True)
class File:
    """What was read of one file.

    Attributes:
        path: as it was given.
        version: what the file says, else how the SHA-256 of its bytes begins.
        entries: its probes.
        problems: what is wrong with the file itself.
    """

    path: Path
    version: str = ""
    entries: list[Entry] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)


class _Group(BaseModel):
    model_config = ConfigDict(extra="allow")

    id: str
    conditions: dict[str, Any] = Field(min_length=1)


class _Sheet(BaseModel):
    """The outer form of a YAML file."""

    model_config = ConfigDict(extra="forbid")

    version: Annotated[int, Field(ge=1, strict=True)]
    defaults: dict[str, Any] = {}
    probes: list[dict[str, Any]] = []
    groups: list[_Group] = []


def located(path: Path, line: int, at: Location, text: str) -> str:
    """Return a problem with its place, as it is shown."""
    parts = [f"[{part}]" if isinstance(part, int) else f".{part}" for part in at]
    place = "".join(parts).removeprefix(".")
    return f"{path}:{line}: {f'`{place}`: ' if place else ''}{text}"


def read(path: Path) -> File:
    """Read one file; what is wrong is collected in `problems` and never raised."""
    file = File(path)
    if path.suffix in (".yaml", ".yml"):
        _read_yaml(file)
        return file
    text = _text(file)
    if text is not None:
        rows = _json_lines if path.suffix == ".jsonl" else _table
        _take_rows(file, rows(file, text))
    return file


# YAML.


def _read_yaml(file: File) -> None:
    document = yaml_lines.read(file.path)
    file.problems += document.problems
    if isinstance(document.value, list):
        # Public questions are published as YAML lists of rows.
        file.version = _digest(file.path.read_bytes())
        _take_rows(file, ((document, (at,), row) for at, row in enumerate(document.value)))
        return
    if document.value is not None:
        _read_sheet(file, document)
    if not file.entries and not file.problems:
        file.problems.append((1, (), "has no probes: add `probes` or `groups`"))


def _read_sheet(file: File, document: Document) -> None:
    try:
        file.version = str(_Sheet.model_validate(document.value).version)
    except ValidationError as error:
        file.problems += [_problem(document, found) for found in error.errors()]
    value = document.value if isinstance(document.value, dict) else {}
    defaults = value.get("defaults")
    shared = Layer(("defaults",), defaults if isinstance(defaults, dict) else {})
    file.entries += [
        Entry(file, document, (shared, Layer(("probes", at), item)))
        for at, item in _mappings(value.get("probes"))
    ]
    for at, item in _mappings(value.get("groups")):
        file.entries += _conditions(file, document, (shared, Layer(("groups", at), item)))


def _conditions(file: File, document: Document, layers: tuple[Layer, Layer]) -> Iterator[Entry]:
    """Yield a group's probes, one per condition."""
    shared, group = layers
    conditions, name = group.values.get("conditions"), group.values.get("id")
    if not isinstance(conditions, dict) or not isinstance(name, str):
        return
    kept = {key: value for key, value in group.values.items() if key not in ("id", "conditions")}
    _refuse_made(file, document, Layer(group.at, kept))
    for condition, inner in conditions.items():
        at = (*group.at, "conditions", condition)
        short = not isinstance(inner, dict)
        own = Layer(at, {"turns": inner} if short else inner, short=short)
        _refuse_made(file, document, own)
        made = {"id": f"{name}/{condition}", "group": name, "condition": condition}
        from_group = (
            shared,
            Layer((*group.at, "id"), made, short=True),
            Layer(group.at, kept),
            Layer(at, _SIDES.get(condition, {})),
        )
        yield Entry(file, document, (*from_group, own))


def _refuse_made(file: File, document: Document, layer: Layer) -> None:
    for key in _MADE:
        if key in layer.values:
            at = (*layer.at, key)
            file.problems.append((document.line(at), at, "comes from the group: remove it"))


def _mappings(listed: object) -> list[tuple[int, dict[str, Any]]]:
    items = listed if isinstance(listed, list) else []
    return [(at, item) for at, item in enumerate(items) if isinstance(item, dict)]


def _problem(document: Document, error: Any) -> Problem:
    location = tuple(error["loc"])
    keys = _Group.model_fields if location[:1] == ("groups",) else _Sheet.model_fields
    return document.line(location), location, sentence(error, keys)


# Rows.


Row = tuple[Document, "Location", Any]
"""A row with its line, and its place in the document."""


def _text(file: File) -> str | None:
    try:
        content = file.path.read_bytes()
        file.version = _digest(content)
        return utf8(content).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        file.problems.append((line, (), "not valid UTF-8: save the file as UTF-8"))
    except (OSError, ValueError) as error:
        # A path with NUL is a `ValueError`.
        text = f"cannot be read: {getattr(error, 'strerror', None) or error}"
        file.problems.append((1, (), text))
    return None


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:12]


def _json_lines(file: File, text: str) -> Iterator[Row]:
    # Only line feeds end a line of JSON; `splitlines` would cut at others inside of texts.
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            try:
                yield Document(lines={(): number}), (), json.loads(line)
            except (ValueError, RecursionError) as error:
                file.problems.append((number, (), f"not JSON: {error}"))


def _table(file: File, text: str) -> Iterator[Row]:
    delimiter = "\t" if file.path.suffix == ".tsv" else ","
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    header: Sequence[str] = ()
    before = 0
    try:
        for cells in reader:
            number, before = before + 1, reader.line_num
            if not header:
                header = cells
            elif len(cells) == len(header):
                yield Document(lines={(): number}), (), dict(zip(header, cells, strict=True))
            elif cells:
                said = f"has {len(cells)} cells where the header has {len(header)}: quote the text"
                file.problems.append((number, (), said))
    except csv.Error as error:
        file.problems.append((before + 1, (), f"not a table: {error}"))


def _take_rows(file: File, rows: Iterator[Row]) -> None:
    """Add a entry per row, or as many as it maps to; equal rows count once."""
    seen: set[str] = set()
    for document, at, row in rows:
        try:
            found = mapped(row, file.path.name)
        except InputError as error:
            file.problems.append((document.line(at), at, str(error)))
            continue
        for values in found:
            # A row that is a probe already is left alone, so that a doubled id is noticed.
            key = "" if values is row else json.dumps(values, sort_keys=True, default=str)
            if key not in seen:
                file.entries.append(Entry(file, document, (Layer(at, values),)))
            seen |= {key} - {""}
    if not file.entries and not file.problems:
        file.problems.append((1, (), "has no rows"))
