"""What the journal keeps of one exchange, and the log event that goes with it.

This module does not know where rows are stored.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from math import isfinite
from typing import TYPE_CHECKING, Any, Final, Literal

from guard.log import Log

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

Delivered = Literal["full", "part", "none"]
"""How much of the response left."""

EVENTS: Final = {
    "flag": "guard.flagged",
    "rewrite": "guard.rewritten",
    "block": "guard.blocked",
}
"""The log event of each action. Names never change; what varies is in the fields."""

_SHOWN_RISKS: Final = 3
_DEEPEST: Final = 32
_LARGEST: Final = 2**63
"""Integers of 64 bits are what databases and other readers of JSON agree on."""

_log = Log()


@dataclass(frozen=True, slots=True)
class Record:
    """One row.

    Attributes:
        id: 32 hexadecimal digits.
        created: when the first decision fell, aware, UTC.
        action: `flag`, `rewrite` or `block`: what the class intended.
        delivered: how much of the response left.
        complete: false while a stream runs, and where it broke off.
        security_class: the class's name.
        rank: its rank.
        shadow: whether the class only watched.
        model: the backend model's name, `""` where unknown.
        risks: live risk per category in [0, 1].
        reasons: why, most severe first.
        coverage: what was judged, as `guard.verdict.coverage_dict` writes it.
        findings: as `guard.verdict.finding_dict` writes them.
        detectors: version of each detector by name.
        prompt: the user's message, kept as `text_mode` says.
        response: what the backend wrote, likewise.
        outcome: what was delivered in its place, likewise.
        text_mode: `full`, `redacted`, `hashed` or `omitted`.
        released: characters of the original that a stream had let go.
        metadata: the application's own facts.
    """

    id: str
    created: datetime
    action: str
    delivered: Delivered
    complete: bool
    security_class: str
    rank: int
    shadow: bool
    model: str
    risks: Mapping[str, float]
    reasons: tuple[str, ...]
    coverage: Mapping[str, Any]
    findings: tuple[Mapping[str, Any], ...]
    detectors: Mapping[str, str]
    prompt: str | None
    response: str | None
    outcome: str | None
    text_mode: str
    released: int = 0
    metadata: Mapping[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Return the row as JSON-able values, the time in ISO 8601."""
        plain = {each.name: jsonable(getattr(self, each.name)) for each in fields(self)}
        return plain | {"created": self.created.isoformat(timespec="microseconds")}


def keep_text(text: str, mode: str, redactor: Callable[[str], str]) -> str | None:
    """Return `text` as `mode` keeps it.

    Args:
        text: any string.
        mode: `full` keeps it, `redacted` keeps what `redactor` leaves, `hashed` keeps
            `sha256:` and the digest of its UTF-8 bytes, `omitted` keeps nothing.
        redactor: takes secrets and personal data out.

    An unknown mode redacts: what should not be kept cannot be taken back. NUL and lone
    surrogates become U+2400 and U+FFFD: not every database stores them.
    """
    if mode == "omitted":
        return None
    if mode == "hashed":
        return "sha256:" + hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
    return storable(text if mode == "full" else redactor(text))


def storable(text: str) -> str:
    """Return `text` without NUL and lone surrogates."""
    plain = text.replace("\x00", "\u2400")
    try:
        plain.encode("utf-8")
    except UnicodeEncodeError:
        return "".join("\ufffd" if "\ud800" <= c <= "\udfff" else c for c in plain)
    return plain


def jsonable(value: Any, depth: int = _DEEPEST) -> Any:
    """Return `value` as JSON, UTF-8 and every database can hold it.

    Metadata are whatever the application put there and must never keep a row from being
    written: what JSON does not know becomes a string, what is nested deeper than `depth`
    the name of its type.
    """
    if isinstance(value, Mapping | list | tuple | set | frozenset):
        return _nested(value, depth) if depth else f"<{type(value).__name__}>"
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int):
        return int(value) if -_LARGEST <= value < _LARGEST else hex(value)
    if isinstance(value, float) and isfinite(value):
        return float(value)
    return _text_of(value)


def _nested(value: Any, depth: int) -> dict[str, Any] | list[Any]:
    if isinstance(value, Mapping):
        return {_text_of(key): jsonable(each, depth - 1) for key, each in value.items()}
    return [jsonable(each, depth - 1) for each in value]


def _text_of(value: object) -> str:
    try:
        return storable(str(value))
    except Exception:  # noqa: BLE001  # `str` of an application's object may do anything
        return f"<{type(value).__name__}>"


def emit(record: Record) -> None:
    """Log one event: constant dotted name, keyword fields, never any text of the exchange."""
    worst = sorted(record.risks.items(), key=lambda item: -item[1])[:_SHOWN_RISKS]
    _log.warning(
        EVENTS[record.action],
        record=record.id,
        action=record.action,
        delivered=record.delivered,
        complete=record.complete,
        security_class=record.security_class,
        shadow=record.shadow,
        model=record.model,
        reasons=list(record.reasons),
        risks={name: round(risk, 4) for name, risk in worst},
        released=record.released,
    )
