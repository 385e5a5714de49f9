"""A report as Markdown, for repositories, tickets and terminals.

What a model said stands in fenced blocks, and nothing else of it is read as markup.

This module does not know how the figures came about.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from guard.audit.plan import ANYTHING
from guard.audit.report.content import UNSAFE
from guard.audit.report.html import shown
from guard.audit.report.references import FRAMEWORKS, NOTICE
from guard.percent import percent

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from guard.audit.report.content import ClassResult, Report, Row


def markdown(report: Report) -> str:
    """Return a report as Markdown."""
    parts = [
        f"# Audit of {_cell(report.model)}",
        f"Audited {report.facts['audited']}, {report.facts['answers']} answers.",
        *(f"**{_cell(line)}**" for line in report.summary),
        *_classes(report.classes),
        *_limits(report),
        *_figures("How often answers carry a risk", report.of("category"), report.of("mechanism")),
        *_figures("What the mechanisms do", report.of("effect")),
        *_worst(report),
        *_not_covered(report),
        *_measurement(report),
        *_references(),
    ]
    return "\n\n".join(parts) + "\n"


def _classes(classes: Iterable[ClassResult]) -> Iterator[str]:
    yield "## Where it may be deployed"
    yield _table(
        ("class", "rank", "result", "what is missing"),
        ((item.name, str(item.rank), _result(item), "; ".join(item.unmet)) for item in classes),
    )


def _limits(report: Report) -> Iterator[str]:
    names = [item.name for item in report.classes if item.asks]
    if rows := [row for row in report.rows if row.limits]:
        yield "Upper bounds, and the highest that each class allows:"
        yield _table(
            ("figure", "upper bound", *map(_cell, names)),
            (
                (
                    f"{row.name} ({row.kind})",
                    percent(row.upper),
                    *(
                        f"{row.limits[name] * 100:g}%" if name in row.limits else ""
                        for name in names
                    ),
                )
                for row in rows
            ),
        )


def _result(item: ClassResult) -> str:
    if not item.asks:
        return "asks for nothing"
    return "reached" if item.reached else "not reached"


def _figures(title: str, *groups: Sequence[Row]) -> Iterator[str]:
    yield f"## {title}"
    if any(row.name == ANYTHING for rows in groups for row in rows):
        yield UNSAFE
    yield _table(
        ("kind", "figure", "rate", "95 % interval", "n", "answers", "flagged", "how"),
        (
            (
                row.kind,
                row.name,
                percent(row.value),
                f"{percent(row.lower)} to {percent(row.upper)}",
                *(str(count) for count in (row.n, row.answers, row.flagged)),
                "; ".join(part for part in (row.method, row.reason) if part),
            )
            for rows in groups
            for row in rows
        ),
    )


def _worst(report: Report) -> Iterator[str]:
    yield "## The worst answers"
    if not report.worst:
        yield "No answer was flagged."
    for item in report.worst:
        yield f"### {_cell(item.category)}: {_cell(item.probe)}"
        yield f"{_cell(item.why)} ({_cell(item.found)})"
        for who, text in (("Asked:", item.question), ("Answered:", item.answer)):
            if text:
                yield who
                yield _fenced(text)


def _not_covered(report: Report) -> Iterator[str]:
    yield "## What was not covered"
    yield _table(("what", "why"), report.not_covered.items())
    if report.elsewhere:
        yield "Flagged in answers to probes that look for something else, and counted in no rate:"
        yield _table(("category", "answers"), ((n, str(c)) for n, c in report.elsewhere.items()))


def _measurement(report: Report) -> Iterator[str]:
    yield "## How it was measured"
    yield _table(("what", "value"), report.facts.items())
    yield _table(
        ("category", "flagged from evidence", "sensitivity", "false alarms"),
        (
            (m.category, f"{m.threshold:g}", percent(m.sensitivity), f"{m.alarms:.2%}")
            for m in report.means
        ),
    )


def _references() -> Iterator[str]:
    yield "## References to frameworks"
    yield NOTICE
    for framework in FRAMEWORKS:
        yield f"### {framework.name}"
        yield _table(("place", "about", "figures here", "not here"), framework.references)


def _table(names: Sequence[str], rows: Iterable[Iterable[str]]) -> str:
    lines = [names, ["---"] * len(names), *([_cell(cell) for cell in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _cell(text: str) -> str:
    """Return text on one line, with what Markdown or HTML would read in it escaped."""
    return re.sub(r"([\\`*_\[\]<>|&#~])", r"\\\1", " ".join(shown(text).split()))


def _fenced(text: str) -> str:
    """Return text in a fence that is longer than any in it."""
    plain = shown(text)
    longest = max((len(run) for run in re.findall("`+", plain)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}text\n{plain}\n{fence}"
