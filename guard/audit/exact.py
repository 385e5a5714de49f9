"""Exact records: frozen values with one canonical JSON form, read strictly and written atomically.

The canonical form has sorted keys, no whitespace, UTF-8 and floats as `repr` writes them, so
that equal values have equal bytes and a digest says all of them.

This module does not know what any record means.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import secrets
from collections.abc import Mapping
from datetime import UTC, datetime
from inspect import cleandoc
from types import MappingProxyType
from typing import TYPE_CHECKING, Annotated, Any, Final, NoReturn, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    PlainSerializer,
    PlainValidator,
    StringConstraints,
    ValidationError,
    WithJsonSchema,
)

from guard.policy_problems import given, sentence

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

SHA256: Final = r"^[0-9a-f]{64}$"

SIZE_LIMIT: Final = 1_000_000
"""Bytes: many times a real record; a file beyond it is something else."""

_MOMENT: Final = r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$"
_FORM: Final = "%Y-%m-%dT%H:%M:%SZ"

Key = TypeVar("Key")
Value = TypeVar("Value")


def _moment(value: object) -> datetime:
    """Return a moment in UTC, in whole seconds, from a datetime with a zone or its text."""
    try:
        if isinstance(value, str) and re.fullmatch(_MOMENT, value, re.ASCII):
            return datetime.strptime(value, _FORM).replace(tzinfo=UTC)
        if isinstance(value, datetime) and value.utcoffset() is not None:
            return value.astimezone(UTC).replace(microsecond=0)
    except (ValueError, OverflowError):
        pass
    raise ValueError(f"must be a time in UTC such as `2025-03-04T05:06:07Z`, not {given(value)}")


def moment_text(moment: datetime) -> str:
    """Return how records write a moment: ISO 8601, UTC, whole seconds."""
    return moment.astimezone(UTC).replace(microsecond=0, tzinfo=None).isoformat() + "Z"


def _frozen(value: Mapping[Key, Value]) -> Mapping[Key, Value]:
    return MappingProxyType(dict(value))


def _one_zero(value: float) -> float:
    # -0.0 equals 0.0 and is written otherwise: equal records must have equal bytes.
    return value + 0.0


Sha256 = Annotated[str, StringConstraints(pattern=SHA256)]
Line = Annotated[str, StringConstraints(min_length=1, max_length=10_000)]
Moment = Annotated[
    datetime,
    PlainValidator(_moment),
    PlainSerializer(moment_text, return_type=str),
    WithJsonSchema({"type": "string", "format": "date-time", "pattern": _MOMENT}),
]
FrozenMap = Annotated[Mapping[Key, Value], AfterValidator(_frozen), PlainSerializer(dict)]
OneZero: Final = AfterValidator(_one_zero)
"""For float fields: has -0.0 read as 0.0."""


class Record(BaseModel):
    """A frozen value that refuses unknown keys and other types than its own."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)

    def __reduce__(self) -> tuple[Any, ...]:
        # The frozen mappings inside cannot be pickled.
        return type(self).model_validate_json, (self.to_bytes(),)

    def __deepcopy__(self, memo: dict[int, Any] | None = None) -> Any:
        return self

    def to_bytes(self) -> bytes:
        """Return the canonical JSON."""
        return canonical(self.model_dump(mode="json", by_alias=True))


AnyRecord = TypeVar("AnyRecord", bound=Record)


def canonical(value: Any) -> bytes:
    """Return the canonical JSON of plain data.

    Raises:
        ValueError: a number is not finite, or a text cannot be written as UTF-8.
    """
    text = json.dumps(
        value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    )
    return text.encode("utf-8")


def digest(value: Any) -> str:
    """Return the SHA-256 of the canonical JSON of plain data or a record, in hex.

    Raises:
        ValueError: see `canonical`.
    """
    content = value.to_bytes() if isinstance(value, Record) else canonical(value)
    return hashlib.sha256(content).hexdigest()


def parse(content: bytes, kind: type[AnyRecord]) -> AnyRecord:
    """Return the record in `content`.

    Raises:
        ValueError: it is no such record; one line per problem, each with its mend.
    """
    check_json(content)
    try:
        return kind.model_validate_json(content)
    except ValidationError as error:
        raise ValueError("\n".join(map(_problem, error.errors()))) from error


def check_json(content: bytes) -> None:
    """Check what readers of JSON tend to tolerate, each in its own way.

    Raises:
        ValueError: it is too large, not UTF-8, not JSON, or has a key twice.
    """
    if len(content) > SIZE_LIMIT:
        raise ValueError(f"is larger than {SIZE_LIMIT:,} bytes")
    try:
        json.loads(content.decode("utf-8"), object_pairs_hook=_no_twins, parse_constant=_no_number)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"is not JSON as it was written: {error}") from error


def read_limited(path: Path, limit: int = SIZE_LIMIT) -> bytes:
    """Return the content of a file; one byte more than `limit` where it is longer.

    Raises:
        ValueError: it cannot be read.
    """
    try:
        with path.open("rb") as file:
            return file.read(limit + 1)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ValueError(f"cannot be read: {reason}") from error


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file that is there whole or, after a failure, as it was before.

    Raises:
        OSError: it cannot be written.
    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
    try:
        with temporary.open("xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def described(schema: dict[str, Any], models: Iterable[type[Record]]) -> dict[str, Any]:
    """Return a JSON schema with what the models' docstrings say, where editors show it."""
    for model in models:
        part = schema["$defs"].get(model.__name__, schema)
        # Python 3.13 and newer keep docstrings without the indentation of their code.
        summary, _, rest = cleandoc(model.__doc__ or "").partition("\n\nAttributes:\n")
        part["description"] = summary.strip()
        for name, text in re.findall(r"^ {4}(\w+): ((?:.+\n?)(?: {8}.+\n?)*)", rest, re.MULTILINE):
            words = " ".join(text.split())
            part["properties"][name]["description"] = words[0].upper() + words[1:]
        for form in part["properties"].values():
            if "patternProperties" in form:
                # Else a name that does not fit the pattern would be free to hold anything.
                form["additionalProperties"] = False
    return schema


def _no_twins(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"the key {twice[:40]!r} is there twice")
    return found


def _no_number(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number")


def _problem(error: Any) -> str:
    place = ".".join(str(part) for part in error["loc"] if part != "[key]")
    return f"{f'`{place}` ' if place else ''}{sentence(error, ())}"
