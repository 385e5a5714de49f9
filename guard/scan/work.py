"""Judges lines: what a worker process or an actor runs, with parts that it loads once.

Other classes say what they would do from the same evidence: detectors are asked once for each
passage, and a rewritten text that only another class has is asked about for that one. So what they
say is exactly what a scan under them would.

This module does not know where lines come from or where results go.
"""

from __future__ import annotations

import re
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, cast

from guard.engine import Guard
from guard.errors import ConfigurationError
from guard.journal.record import jsonable
from guard.scan.reading import item
from guard.verdict import coverage_dict

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from guard.detectors.base import Detector, Finding, Passage
    from guard.journal.record import Record
    from guard.journal.store import Journal
    from guard.scan.reading import Item, Line
    from guard.security_class import SecurityClass
    from guard.verdict import Verdict

_PLACES: Final = 6
"""Decimals of a risk that is kept; what reaches a limit is told from all of them."""

_MOMENTS: Final = ("created", "time", "timestamp", "created_at", "date")
"""Keys of a line, or of its metadata, that may say when an answer was given."""

_COUNTED: Final = re.compile(r"\d{9,17}(?:\.\d*)?")
"""A number in a text that counts from 1970; ISO 8601 would read days of other centuries in it."""

_MILLISECONDS: Final = 1e11
"""From here on a number counts milliseconds: as seconds it would be a day in the year 5138."""


@dataclass(frozen=True, slots=True)
class Settings:
    """How lines are judged.

    Attributes:
        security_class: the class.
        model: a classifier's directory; the bundled one by default.
        compare: other classes that say what they would do.
        texts: whether a row has the text that may be delivered.
    """

    security_class: SecurityClass
    model: Path | None = None
    compare: tuple[SecurityClass, ...] = ()
    texts: bool = False


@dataclass(frozen=True, slots=True)
class Result:
    """What came of one line.

    Attributes:
        row: as JSON-able values; with `error` where it could not be judged.
        record: what a journal keeps of it, texts as the class has them kept; `None` for nothing.
    """

    row: Mapping[str, Any]
    record: Record | None = None


class LineJudge:
    """Judges lines, one after another.

    Args:
        settings: how.

    Raises:
        GuardError: class or model cannot be used.
    """

    def __init__(self, settings: Settings) -> None:
        """Load the parts."""
        from guard import loading  # noqa: PLC0415  # loads the runtime

        parts = loading.load_parts(settings.security_class, None, settings.model, (), ())
        own = loading.admitted(parts, None, (), None)
        self._settings = settings
        self._kept = _Kept()
        self._detectors: list[_Recalling] = []
        detectors = parts.detectors
        journal = cast("Journal", self._kept)
        self._guard = Guard(own, detectors, journal=journal, redactor=parts.redactor)
        if settings.compare:
            self._detectors = [_Recalling(each) for each in detectors]
            self._guard = Guard(own, self._detectors, journal=journal, redactor=parts.redactor)
        self._others = {each.name: self._other(each, parts.detectors) for each in settings.compare}

    def __call__(self, lines: Sequence[Line]) -> list[Result]:
        """Return a result for each line, in their order; nothing that is wrong with one raises."""
        return [self._result(item(line)) for line in lines]

    def _other(self, security_class: SecurityClass, detectors: Sequence[Detector]) -> Guard:
        _check_heads(self._settings.security_class, security_class)
        Guard(security_class, detectors)  # it sees which detector is the classifier
        return Guard(security_class, self._detectors)

    def _result(self, found: Item) -> Result:
        place: dict[str, Any] = {"file": found.source, "line": found.line or None}
        if found.identifier is not None:
            place["id"] = _shallow(found.identifier)
        if found.exchange is None:
            return Result(place | {"error": found.problem})
        try:
            return self._judged(place, found)
        except Exception as error:  # noqa: BLE001  # no line may cost the others, or be lost
            # Only the kind: a message may quote the text.
            return Result(place | {"error": f"cannot be judged: {type(error).__name__}"})

    def _judged(self, place: Mapping[str, Any], found: Item) -> Result:
        assert found.exchange is not None  # noqa: S101  # for the type checker
        self._kept.record = None
        for detector in self._detectors:
            detector.forget()
        verdict = self._guard.check(found.exchange)
        row = {**place, **_row(verdict, self._settings.security_class), **_about(found)}
        if self._others:
            row["compare"] = {
                name: guard.check(found.exchange).intended for name, guard in self._others.items()
            }
        if self._settings.texts:
            row["text"] = verdict.delivered
        return Result(row, _sendable(self._kept.record))


class _Kept:
    """Stands in a journal's place: holds the one record of the exchange that is judged."""

    def __init__(self) -> None:
        self.record: Record | None = None

    def write(self, record: Record) -> None:
        self.record = record

    def update(self, record: Record) -> None:
        self.record = record


class _Recalling:
    """A detector that says once more what it said of a passage, until it is to forget."""

    def __init__(self, detector: Detector) -> None:
        self.name = detector.name
        self.version = detector.version
        self.categories = detector.categories
        self.pooling = getattr(detector, "pooling", {})
        self._detector = detector
        self._said: dict[Passage, tuple[Finding, ...]] = {}

    def __call__(self, passage: Passage) -> tuple[Finding, ...]:
        if passage not in self._said:
            self._said[passage] = tuple(self._detector(passage))
        return self._said[passage]

    def forget(self) -> None:
        # A new one, since a pass that was given up may still write into the old one.
        self._said = {}


def _shallow(value: Any) -> Any:
    """Return a value without levels that are too deep to be sent between processes."""
    return jsonable(value) if isinstance(value, dict | list) else value


def _sendable(record: Record | None) -> Record | None:
    """Return a record as journals keep it, since what is nested too deeply cannot be pickled."""
    return record and replace(record, metadata=jsonable(record.metadata))


def renamed(record: Record, name: str) -> Record:
    """Return a record under another id, 32 hexadecimal digits."""
    return replace(record, id=name)


def _check_heads(own: SecurityClass, other: SecurityClass) -> None:
    """Refuse a class whose own categories other heads than those of the scan would find."""
    from guard import heads, loading  # noqa: PLC0415  # as above

    there, wanted = (
        {heads.read(Path(name)).digest for name in loading.head_files(each)}
        for each in (own, other)
    )
    if not wanted <= there:
        raise ConfigurationError(
            f"class `{other.name}` has heads that class `{own.name}` has not, so that it cannot be "
            "compared: scan under it by itself, into another folder"
        )


def _row(verdict: Verdict, security_class: SecurityClass) -> dict[str, Any]:
    coverage = coverage_dict(verdict.coverage)
    return {
        "action": verdict.intended,
        "reasons": list(verdict.reasons),
        "risks": {name: round(risk, _PLACES) for name, risk in verdict.risks.items()},
        "reached": _reached(verdict, security_class),
        "coverage": {key: coverage[key] for key in ("complete", "units", "failures")},
    }


def _reached(verdict: Verdict, security_class: SecurityClass) -> dict[str, str]:
    """Return the limit that each category's risk reached, `flag` or `act`, where it did any."""
    found = {}
    for name, risk in verdict.risks.items():
        limit = security_class.limit(name)
        if limit is not None and limit.act is not None and risk >= limit.act:
            found[name] = "act"
        elif limit is not None and limit.flag is not None and risk >= limit.flag:
            found[name] = "flag"
    return found


def _about(found: Item) -> dict[str, Any]:
    """Return what a line says about itself: whose answer, of which day."""
    about: dict[str, Any] = {}
    if found.exchange is not None and found.exchange.model:
        about["model"] = found.exchange.model
    if day := _day(found.data or {}):
        about["day"] = day
    return about


def _day(data: Mapping[str, Any]) -> str | None:
    """Return the day in UTC on which a line says that it was made, `None` where it says none."""
    metadata = data.get("metadata")
    places = [data, metadata if isinstance(metadata, dict) else {}]
    values = [place[key] for place in places for key in _MOMENTS if place.get(key) is not None]
    return next((day for value in values if (day := _day_of(value))), None)


def _day_of(value: object) -> str | None:
    with suppress(ValueError, OverflowError, OSError):
        if isinstance(value, str) and _COUNTED.fullmatch(value.strip()):
            value = float(value)
        if isinstance(value, str):
            moment = datetime.fromisoformat(value.strip())
            # Without a zone nobody knows better than the log.
            return (moment.astimezone(UTC) if moment.tzinfo else moment).date().isoformat()
        if isinstance(value, int | float) and not isinstance(value, bool):
            seconds = value / 1000 if abs(value) >= _MILLISECONDS else value
            return datetime.fromtimestamp(seconds, UTC).date().isoformat()
    return None
