"""A report as one HTML page: no scripts, nothing loaded from anywhere, readable in print.

This module does not know how the figures came about.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from guard.audit.report.content import UNSAFE
from guard.audit.report.html import Content, Markup, element, joined
from guard.audit.report.parts import document, scrolling, section, soft, table
from guard.audit.report.references import FRAMEWORKS, NOTICE
from guard.percent import percent
from guard.plots import DIFFERENCES, RATES, Line, Scale, forest_svg

if TYPE_CHECKING:
    from collections.abc import Sequence

    from guard.audit.report.content import ClassResult, Report, Row, Shown


def page(report: Report) -> str:
    """Return a report as HTML; it is well-formed XML behind its first line."""
    title = f"Audit of {report.model}"
    sections = (
        _top(report, title),
        _classes(report),
        _rates(report),
        _effects(report),
        _worst(report),
        _not_covered(report),
        _measurement(report),
        _references(),
    )
    return document(title, sections)


def _top(report: Report, title: str) -> Markup:
    date = report.facts["audited"]
    return element(
        "header",
        element("h1", title),
        element("p", f"Audited {date}, {report.facts['answers']} answers.", class_="soft"),
        element("div", (element("p", line) for line in report.summary), class_="summary"),
    )


def _classes(report: Report) -> Markup:
    numbers = _numbers(report)
    limited = [row for row in report.rows if row.limits]
    rates = [row for row in limited if row.kind != "effect"]
    effects = [row for row in limited if row.kind == "effect"]
    legend = "; ".join(f"{mark} {name}" for name, mark in numbers.items())
    caption = (
        "The dot is the estimate, the bar its 95 % interval, a tick the highest upper bound that "
        f"a class allows (by its number: {legend}). A bar that ends beyond a tick misses that "
        "class."
    )
    plots = (
        _forest("limits-rates", "Rates against deploy limits", rates, numbers, RATES, caption),
        _forest("limits-effects", "Effects against limits", effects, numbers, DIFFERENCES, caption),
    )
    nothing = None if limited else element("p", "No class limits any of these figures.")
    return section(
        "classes",
        "Where it may be deployed",
        plots if limited else nothing,
        table(
            "Security classes, from the lowest to the highest",
            ("class", "rank", "result", "what is missing"),
            (_class_row(item) for item in report.classes),
        ),
        _limits(limited, [*numbers]) if limited else None,
    )


def _limits(rows: Sequence[Row], classes: Sequence[str]) -> Markup:
    """Return each limit beside its figure in words, since the plot alone shows those that hold."""
    return table(
        "Upper bounds, and the highest that each class allows",
        ("figure", "upper bound", *classes),
        (
            (
                f"{row.name} ({row.kind})",
                percent(row.upper),
                *(f"{row.limits[name] * 100:g}%" if name in row.limits else "" for name in classes),
            )
            for row in rows
        ),
        numbers=1 + len(classes),
    )


def _class_row(item: ClassResult) -> Sequence[Content]:
    if not item.asks:
        result = element("span", "asks for nothing", class_="soft")
    elif item.reached:
        result = element("span", "✓ reached", class_="good")
    else:
        result = element("span", "✗ not reached", class_="bad")
    missing: Content = "a class below it is not reached" if item.asks and not item.reached else ""
    if item.unmet:
        missing = element("ul", (element("li", text) for text in item.unmet))
    return (joined(item.name, " ", soft(item.description)), str(item.rank), result, missing)


def _rates(report: Report) -> Markup:
    categories, mechanisms = report.of("category"), report.of("mechanism")
    return section(
        "rates",
        "How often answers carry a risk",
        element(
            "p",
            "Of the answers to the probes that look for it. Rates are corrected for the errors of "
            "whatever flagged them; an interval is wide where little was asked.",
        ),
        element("p", UNSAFE),
        _forest("categories-plot", "Rates by category", categories, {}, RATES, ""),
        _figures("Rates by category, with 95 % intervals", categories),
        _forest("mechanisms-plot", "Rates by mechanism", mechanisms, {}, RATES, ""),
        _figures("Rates by mechanism, with 95 % intervals", mechanisms),
    )


def _effects(report: Report) -> Markup:
    rows = report.of("effect")
    return section(
        "effects",
        "What the mechanisms do",
        element(
            "p",
            "Differences and rates within pairs: over_refusal is benign requests refused, "
            "shortcut_rate harmful requests complied with, persona_rate open questions answered "
            "as a character, style_amplification what a tone adds to the neutral one's rate.",
        ),
        _forest("effects-plot", "Effects of the mechanisms", rows, {}, DIFFERENCES, ""),
        _figures("Effects with 95 % intervals", rows),
    )


def _worst(report: Report) -> Markup:
    explained = {
        "redacted": "Secrets, personal data and planted canaries are taken out.",
        "full": "Texts are shown in full, canaries included: keep this page to yourself.",
        "omitted": "Texts are omitted.",
    }[report.texts]
    shown = [_answer(item) for item in report.worst]
    return section(
        "worst",
        "The worst answers",
        element("p", f"Up to three of each category, the strongest first. {explained}"),
        shown or element("p", "No answer was flagged."),
    )


def _answer(item: Shown) -> Markup:
    return element(
        "article",
        element("h3", f"{item.category}: {item.probe}"),
        element("p", f"{item.why} ({item.found})", class_="soft"),
        _said("Asked: ", item.question),
        _said("Answered: ", item.answer),
    )


def _said(who: str, text: str) -> Markup | None:
    # Apart from the name: what is written from right to left has its signs and figures there.
    words = element("bdi", text)
    return element("blockquote", element("strong", who), words) if text else None


def _not_covered(report: Report) -> Markup:
    rows = ((name, why) for name, why in report.not_covered.items())
    beside = [(name, str(count)) for name, count in report.elsewhere.items()]
    return section(
        "not-covered",
        "What was not covered",
        element("p", "What nobody looked at is not known to be good."),
        table("Not covered", ("what", "why"), rows),
        table(
            "Flagged in answers to probes that look for something else, and counted in no rate",
            ("category", "answers"),
            beside,
            numbers=1,
        )
        if beside
        else None,
    )


def _measurement(report: Report) -> Markup:
    return section(
        "measurement",
        "How it was measured",
        table("The audit", ("what", "value"), report.facts.items()),
        table(
            "What flags an answer, and how often it errs on the rows of its calibration",
            ("category", "from evidence", "sensitivity", "false alarms"),
            (
                (m.category, f"{m.threshold:g}", percent(m.sensitivity), f"{m.alarms:.2%}")
                for m in report.means
            ),
            numbers=3,
        ),
        element(
            "p",
            "Canaries that come back and calls of tools that are off limits are found exactly. "
            "A probe that looks for one category is not counted for another. Bounds of level "
            "95 % miss the true figure about once in twenty figures.",
            class_="soft",
        ),
    )


def _references() -> Markup:
    return section(
        "references",
        "References to frameworks",
        element("p", NOTICE),
        (
            table(
                framework.name,
                ("place", "about", "figures here", "not here"),
                framework.references,
            )
            for framework in FRAMEWORKS
        ),
    )


# Parts.


def _figures(caption: str, rows: Sequence[Row]) -> Markup:
    return table(
        caption,
        ("figure", "how", "rate", "lower", "upper", "n", "answers", "flagged"),
        (
            (
                row.name,
                joined(row.method, " ", soft(row.reason), " ", soft(_labels(row))),
                *map(percent, (row.value, row.lower, row.upper)),
                *(str(count) for count in (row.n, row.answers, row.flagged)),
            )
            for row in rows
        ),
        numbers=6,
    )


def _labels(row: Row) -> str:
    return f"{row.risky} of {row.labelled} labelled are risky" if row.labelled else ""


def _numbers(report: Report) -> dict[str, str]:
    """Return the mark of each class that limits anything."""
    asking = [item.name for item in report.classes if item.asks]
    return {name: str(number) for number, name in enumerate(asking, start=1)}


def _forest(  # noqa: PLR0913, PLR0917  # a figure with its words
    name: str,
    title: str,
    rows: Sequence[Row],
    numbers: dict[str, str],
    scale: Scale,
    caption: str,
) -> Markup | None:
    if not rows:
        return None
    kinds = len({row.kind for row in rows})
    lines = [
        Line(
            # `exposure` is a category and a mechanism.
            row.name if kinds == 1 or row.kind == "effect" else f"{row.name} ({row.kind})",
            row.value,
            row.lower,
            row.upper,
            {numbers[item]: limit for item, limit in row.limits.items() if item in numbers},
        )
        for row in rows
    ]
    described = "; ".join(
        f"{row.name} {percent(row.value)}, from {percent(row.lower)} to {percent(row.upper)}"
        for row in rows
    )
    svg = forest_svg(lines, name=name, title=title, description=described, scale=scale)
    words = element("figcaption", caption or f"{title}: estimate and 95 % interval.")
    return element("figure", scrolling(Markup(svg), title), words)
