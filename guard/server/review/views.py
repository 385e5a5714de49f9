"""What each page shows, as plain values made from rows and labels.

This module does not know HTTP, nor how a page looks.
"""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

from guard.calibration import wilson
from guard.categories import CATEGORIES, is_signal
from guard.labelled import flagged_for
from guard.server.review.charts import bar, columns, interval
from guard.server.review.flags import flags_in
from guard.server.review.kept import placed
from guard.server.review.marks import marked
from guard.server.review.query import ACTIONS, NO_MODEL, Query
from guard.text.visible import one_line

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from markupsafe import Markup

    from guard.journal.filters import Place
    from guard.journal.record import Record
    from guard.server.review.flags import Flag, RowFlags
    from guard.server.review.labels import Known
    from guard.server.review.marks import Span

SHOWN_RISK: Final = 0.05
"""Live risk from which a row's page draws a category's bar."""

_WORDS: Final = 120
_WORST: Final = 2
_QUOTED: Final = 80
_FINDINGS: Final = 200
_LONGEST: Final = 200_000
_DAYS: Final = 90
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Risk:
    """A category's live risk.

    Attributes:
        name: the category.
        risk: in [0, 1].
        signal: whether it is no risk in itself.
    """

    name: str
    risk: float
    signal: bool

    @property
    def bar(self) -> Markup:
        """The risk as a bar."""
        return bar(self.risk)


@dataclass(frozen=True, slots=True)
class Line:
    """A row among others.

    Attributes:
        id: its id.
        time: when it was decided, ISO 8601.
        shown: the same for people.
        action: what the class intended.
        security_class: the class.
        shadow: whether it only watched.
        model: the backend's model.
        delivered: how much left.
        complete: whether it had come to its end.
        worst: its highest risks.
        words: how the response begins, `None` where it was not kept.
        labels: how many of its flags are labelled, such as `1 of 2`; `""` without any flag.
    """

    id: str
    time: str
    shown: str
    action: str
    security_class: str
    shadow: bool
    model: str
    delivered: str
    complete: bool
    worst: tuple[Risk, ...]
    words: str | None
    labels: str


@dataclass(frozen=True, slots=True)
class Rows:
    """A page of rows.

    Attributes:
        query: what was asked for.
        lines: the rows.
        total: how many there are, `None` where that is not known.
        older: how to go on, `None` at the end.
    """

    query: Query
    lines: tuple[Line, ...]
    total: int | None
    older: Query | None


@dataclass(frozen=True, slots=True)
class Asked:
    """A flag that a row has, and what was said of it.

    Attributes:
        category: the category.
        about: what text of the category does, `""` for one's own.
        side: `response` or `prompt`.
        reason: why the row was flagged for it.
        text: digest of what a label is about, `""` where there can be none.
        why_not: why there can be none.
        right: what was said, `None` for nothing yet.
    """

    category: str
    about: str
    side: str
    reason: str
    text: str
    why_not: str
    right: bool | None


@dataclass(frozen=True, slots=True)
class Found:
    """A finding.

    Attributes:
        category: what it is evidence for.
        evidence: log likelihood ratio.
        channel: which text.
        start: in the original text, zero-based.
        end: exclusive.
        label: what was found.
        detector: who found it.
        quoted: how the kept text reads there, `None` where that cannot be told.
    """

    category: str
    evidence: str
    channel: str
    start: str
    end: str
    label: str
    detector: str
    quoted: str | None


@dataclass(frozen=True, slots=True)
class Kept:
    """A text of a row.

    Attributes:
        title: what it is.
        body: as HTML; `None` where it was not kept.
        note: what is to be known about it.
    """

    title: str
    body: Markup | None
    note: str


@dataclass(frozen=True, slots=True)
class Row:
    """Everything that is kept of a row.

    Attributes:
        line: it among others.
        facts: names and values.
        reasons: why, most severe first.
        asked: its flags.
        risks: the highest first.
        found: its findings.
        more_found: how many further findings there are.
        coverage: what was judged; names and values.
        texts: prompt, response, what was delivered.
    """

    line: Line
    facts: tuple[tuple[str, str], ...]
    reasons: tuple[str, ...]
    asked: tuple[Asked, ...]
    risks: tuple[Risk, ...]
    found: tuple[Found, ...]
    more_found: int
    coverage: tuple[tuple[str, str], ...]
    texts: tuple[Kept, ...]


@dataclass(frozen=True, slots=True)
class Counted:
    """So many rows of a kind.

    Attributes:
        name: the kind.
        count: how many.
        bar: their share of the most frequent kind.
        query: how to see them.
    """

    name: str
    count: int
    bar: Markup
    query: Query


@dataclass(frozen=True, slots=True)
class Judged:
    """How many of a category's flags were right, as far as people said.

    Attributes:
        name: the category.
        right: flags that were right.
        wrong: flags that were not.
        share: the share of right ones, in per cent.
        low: lower end of its 95 % interval, in per cent.
        high: upper end.
        line: the interval as a figure.
    """

    name: str
    right: int
    wrong: int
    share: str
    low: str
    high: str
    line: Markup


@dataclass(frozen=True, slots=True)
class Day:
    """The rows of a day.

    Attributes:
        name: the day, in UTC.
        counts: how many were flagged, rewritten and blocked.
    """

    name: str
    counts: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Overview:
    """What the journal holds, counted.

    Attributes:
        query: which rows count.
        total: how many.
        figure: rows per day and action.
        days: the same as numbers, the newest first; days without rows are left out.
        older: rows before the days of the figure.
        categories: rows flagged for each category.
        counted: how many rows the categories were counted in; the newest.
        classes: rows of each class.
        models: rows of each model.
        judged: what people said of flags.
    """

    query: Query
    total: int
    figure: Markup | None
    days: tuple[Day, ...]
    older: int
    categories: tuple[Counted, ...]
    counted: int
    classes: tuple[Counted, ...]
    models: tuple[Counted, ...]
    judged: tuple[Judged, ...]


def line_of(record: Record, flags: RowFlags, known: Known) -> Line:
    """Return a row as one among others."""
    labelled = sum(flag.key in known for flag in flags.flags)
    return Line(
        id=record.id,
        time=record.created.isoformat(timespec="seconds"),
        shown=f"{record.created.astimezone():%Y-%m-%d %H:%M}",
        action=record.action,
        security_class=record.security_class,
        shadow=record.shadow,
        model=record.model,
        delivered=record.delivered,
        complete=record.complete,
        worst=tuple(risk for risk in _risks(record.risks) if not risk.signal)[:_WORST],
        words=None if record.response is None else one_line(record.response[:4000], _WORDS),
        labels=f"{labelled} of {len(flags.flags)}" if flags.flags else "",
    )


def row_of(record: Record, known: Known) -> Row:
    """Return everything that is kept of a row."""
    flags = flags_in(record)
    spans = placed(record)
    found = [
        _found(finding, span, record.response or "")
        for finding, span in zip(record.findings[:_FINDINGS], spans.spans, strict=False)
    ]
    return Row(
        line=line_of(record, flags, known),
        facts=tuple(_facts(record)),
        reasons=record.reasons,
        asked=tuple(_asked(record, flags, known)),
        risks=tuple(risk for risk in _risks(record.risks) if risk.risk >= SHOWN_RISK),
        found=tuple(found),
        more_found=max(0, len(record.findings) - _FINDINGS),
        coverage=tuple(_coverage(record.coverage)),
        texts=(
            _kept("Prompt", record.prompt),
            _kept("Response", record.response, [s for s in spans.spans if s], spans.missing),
            _kept(f"Delivered ({record.delivered})", record.outcome),
        ),
    )


def overview_of(  # noqa: PLR0913  # each is one count
    query: Query,
    *,
    days: Mapping[tuple[Any, ...], int],
    classes: Mapping[tuple[Any, ...], int],
    models: Mapping[tuple[Any, ...], int],
    reasons: Iterable[Sequence[str]],
    known: Known,
) -> Overview:
    """Return the counts of rows.

    Args:
        query: which rows they are.
        days: rows by day (since 1970, UTC) and action.
        classes: rows by class.
        models: rows by model.
        reasons: of each of the newest rows.
        known: the labels.
    """
    named = [flagged_for({"reasons": each}) for each in reasons]
    flagged = Counter(name for each in named for name in set(each))
    figure, shown, older = _days(days)
    return Overview(
        query=query,
        total=sum(days.values()),
        figure=figure,
        days=shown,
        older=older,
        categories=_counted(flagged, lambda name: query.but(flagged=name)),
        counted=len(named),
        classes=_counted(_by_name(classes), lambda name: query.but(security_class=name)),
        models=_counted(_by_name(models), lambda name: query.but(model=name or NO_MODEL)),
        judged=tuple(_judged(known)),
    )


def left(queue: Sequence[Flag], known: Known) -> int:
    """Return how many flags nobody has labelled yet."""
    return sum(flag.key not in known for flag in queue)


def _risks(risks: Mapping[str, float]) -> list[Risk]:
    made = [Risk(name, risk, is_signal(name)) for name, risk in risks.items()]
    return sorted(made, key=lambda each: (-each.risk, each.name))


def _facts(record: Record) -> Iterable[tuple[str, str]]:
    facts = {
        "id": record.id,
        "time": f"{record.created.astimezone():%Y-%m-%d %H:%M:%S %Z}",
        "class": f"{record.security_class} (rank {record.rank})",
        "shadow": "yes: everything was delivered unchanged" if record.shadow else "",
        "delivered": record.delivered,
        "state": "" if record.complete else "open: the stream is running or broke off",
        "released": f"{record.released:,} characters of the stream" if record.released else "",
        "model": record.model or "(unknown)",
        "texts kept": record.text_mode,
        "detectors": ", ".join(f"{name} {made}" for name, made in record.detectors.items()),
        **{f"metadata {key}": _brief(value) for key, value in record.metadata.items()},
    }
    return ((name, value) for name, value in facts.items() if value)


def _brief(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)


def _asked(record: Record, flags: RowFlags, known: Known) -> Iterable[Asked]:
    texts = {flag.category: flag.text for flag in flags.flags}
    for name in dict.fromkeys(flags.named):
        text = texts.get(name, "")
        category = CATEGORIES.get(name)
        yield Asked(
            category=name,
            about=category.summary if category else "",
            side=category.side if category else "response",
            reason=next(each for each in record.reasons if each.startswith(f"{name}: ")),
            text=text,
            why_not="" if text else _why_not(name),
            right=known.get((text, name)),
        )


def _why_not(category: str) -> str:
    if category not in CATEGORIES:
        return (
            "It is a category of your own, which guard calibrate does not change: add the row to "
            "its examples and fit it anew."
        )
    return "The class keeps no text to read; journal: {text: redacted} in its policy would."


def _found(finding: Mapping[str, Any], span: Span | None, response: str) -> Found:
    quoted = None if span is None else one_line(response[span.start : span.end], _QUOTED)
    return Found(
        category=str(finding.get("category", "")),
        evidence=str(finding.get("evidence", "")),
        channel=str(finding.get("channel", "")),
        start=str(finding.get("start", "?")),
        end=str(finding.get("end", "?")),
        label=str(finding.get("label", "")),
        detector=f"{finding.get('detector', '')} {finding.get('version', '')}".strip(),
        quoted=quoted,
    )


def _coverage(coverage: Mapping[str, Any]) -> Iterable[tuple[str, str]]:
    yield "complete", "yes" if coverage.get("complete") else "no"
    yield "units", _brief(coverage.get("units", "unknown"))
    for channel, characters in coverage.get("judged", {}).items():
        yield channel, f"{_brief(characters)} characters judged"
    for detector, status in coverage.get("detectors", {}).items():
        yield detector, _brief(status)
    for failure in coverage.get("failures", ()):
        yield "failure", _brief(failure)


def _kept(title: str, text: str | None, spans: Sequence[Span] = (), unplaced: int = 0) -> Kept:
    if text is None:
        return Kept(title, None, "")
    notes = []
    if unplaced:
        notes.append(
            f"{unplaced:,} of the findings are not marked: what the journal kept is not the text "
            "that was judged, so that their place in it is not known for sure."
        )
    if len(text) > _LONGEST:
        notes.append(
            f"Only the first {_LONGEST:,} of {len(text):,} characters are shown; guard flagged "
            "export writes all."
        )
    cut = text[:_LONGEST]
    inside = [each._replace(end=min(each.end, len(cut))) for each in spans]
    return Kept(title, marked(cut, inside), " ".join(notes))


def _days(days: Mapping[tuple[Any, ...], int]) -> tuple[Markup | None, tuple[Day, ...], int]:
    if not days:
        return None, (), 0
    newest = max(day for day, _ in days)
    first = max(min(day for day, _ in days), newest - _DAYS + 1)
    counts = {
        _day(day): {action: days.get((day, action), 0) for action in ACTIONS}
        for day in range(first, newest + 1)
    }
    older = sum(count for (day, _), count in days.items() if day < first)
    total = sum(days.values()) - older
    about = f"{total:,} rows from {_day(first)} to {_day(newest)}; the table below has the numbers."
    figure = columns(counts, ACTIONS, "Rows per day and action", about)
    shown = [Day(name, tuple(each.values())) for name, each in counts.items() if any(each.values())]
    return figure, tuple(reversed(shown)), older


def _day(number: int) -> str:
    return f"{_EPOCH + timedelta(days=number):%Y-%m-%d}"


def _by_name(counts: Mapping[tuple[Any, ...], int]) -> Counter[str]:
    return Counter({str(name): count for (name,), count in counts.items()})


def _counted(counts: Counter[str], query_of: Any) -> tuple[Counted, ...]:
    most = max([1, *counts.values()])
    return tuple(
        Counted(name, count, bar(count / most, "count"), query_of(name))
        for name, count in sorted(counts.items(), key=lambda each: (-each[1], each[0]))
    )


def _judged(known: Known) -> Iterable[Judged]:
    sides = Counter((name, right) for (_, name), right in known.items())
    for name in sorted({name for name, _ in sides}):
        right, wrong = sides[name, True], sides[name, False]
        share = wilson(right, right + wrong)
        yield Judged(
            name,
            right,
            wrong,
            f"{share.value:.0%}",
            f"{share.low:.0%}",
            f"{share.high:.0%}",
            interval(share.value, share.low, share.high),
        )


def places_of(rows: Iterable[tuple[Place, RowFlags]], known: Known) -> Iterable[Place]:
    """Yield the places of rows with a flag that nobody has labelled yet."""
    return (place for place, row in rows if any(flag.key not in known for flag in row.flags))
