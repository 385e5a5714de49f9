"""A report as one HTML page: no scripts, nothing loaded from anywhere, readable in print.

This module does not know how the figures came about.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from guard.audit.report.content import UNSAFE
from guard.audit.report.html import Content, Markup, element, joined
from guard.audit.report.references import FRAMEWORKS, NOTICE
from guard.percent import percent
from guard.plots import DIFFERENCES, RATES, Line, Scale, forest_svg

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from guard.audit.report.content import ClassResult, Report, Row, Shown

_STYLE: Final = """
:root{color-scheme:light dark;--paper:#fff;--ink:#1f2328;--soft:#57606a;--line:#d0d7de;
--panel:#f6f8fa;--good:#176f2c;--bad:#b3261e;--link:#0a53be}
@media screen and (prefers-color-scheme:dark){:root{--paper:#0f1419;--ink:#e6edf3;--soft:#9da7b3;
--line:#3a434e;--panel:#1a212a;--good:#7ee2a0;--bad:#ff8a80;--link:#7cb7ff}}
*{box-sizing:border-box}
body{margin:0 auto;max-width:62rem;padding:1.5rem;background:var(--paper);color:var(--ink);
font:16px/1.5 system-ui,sans-serif;overflow-wrap:break-word}
h1{font-size:1.7rem;margin:0 0 .3rem}h2{font-size:1.25rem;margin:2.2rem 0 .6rem}
h3{font-size:1rem;margin:1.4rem 0 .4rem}
p,li{max-width:46rem}.soft{color:var(--soft)}
a{color:var(--link)}
table{border-collapse:collapse;width:100%;font-size:.9rem}
caption{text-align:left;color:var(--soft);padding:.3rem 0}
th,td{text-align:left;vertical-align:top;padding:.35rem .6rem;border-bottom:1px solid var(--line)}
td.number,th.number{text-align:right;font-variant-numeric:tabular-nums;white-space:nowrap}
.scroll{overflow-x:auto}.scroll svg{display:block;min-width:48rem}
td ul{margin:0;padding-left:1.1rem}
.soft{font-weight:400}
.summary{background:var(--panel);border-left:.3rem solid var(--link);padding:.6rem 1rem}
.good{color:var(--good);font-weight:600}.bad{color:var(--bad);font-weight:600}
figure{margin:1rem 0}figcaption{color:var(--soft);font-size:.9rem}
article{border:1px solid var(--line);border-radius:.4rem;padding:.6rem 1rem;margin:.8rem 0;
break-inside:avoid}
blockquote{margin:.4rem 0;padding-left:.8rem;border-left:.2rem solid var(--line);
white-space:pre-wrap;overflow-wrap:anywhere}
code{overflow-wrap:anywhere}
@media print{body{max-width:none;padding:0;font-size:11pt}h2{break-after:avoid}
tr,figure{break-inside:avoid}.scroll{overflow:visible}.scroll svg{min-width:0}
table{font-size:8.5pt}th,td{overflow-wrap:anywhere}a{color:inherit;text-decoration:none}}
"""

_ALLOWED: Final = "default-src 'none'; style-src 'unsafe-inline'"
"""What a browser may do for the page: apply its own styles."""


def page(report: Report) -> str:
    """Return a report as HTML; it is well-formed XML behind its first line."""
    title = f"Audit of {report.model}"
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("meta", name="referrer", content="no-referrer"),
        element("meta", http_equiv="Content-Security-Policy", content=_ALLOWED),
        element("title", title),
        Markup(f"<style>{_STYLE}</style>"),
    )
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
    body = element("body", element("main", *sections))
    return f"<!DOCTYPE html>\n{element('html', head, body, lang='en')}\n"


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
    return _section(
        "classes",
        "Where it may be deployed",
        plots if limited else nothing,
        _table(
            "Security classes, from the lowest to the highest",
            ("class", "rank", "result", "what is missing"),
            (_class_row(item) for item in report.classes),
        ),
        _limits(limited, [*numbers]) if limited else None,
    )


def _limits(rows: Sequence[Row], classes: Sequence[str]) -> Markup:
    """Return each limit beside its figure in words, since the plot alone shows those that hold."""
    return _table(
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
    return (joined(item.name, " ", _soft(item.description)), str(item.rank), result, missing)


def _rates(report: Report) -> Markup:
    categories, mechanisms = report.of("category"), report.of("mechanism")
    return _section(
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
    return _section(
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
    return _section(
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
    return _section(
        "not-covered",
        "What was not covered",
        element("p", "What nobody looked at is not known to be good."),
        _table("Not covered", ("what", "why"), rows),
        _table(
            "Flagged in answers to probes that look for something else, and counted in no rate",
            ("category", "answers"),
            beside,
            numbers=1,
        )
        if beside
        else None,
    )


def _measurement(report: Report) -> Markup:
    return _section(
        "measurement",
        "How it was measured",
        _table("The audit", ("what", "value"), report.facts.items()),
        _table(
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
    return _section(
        "references",
        "References to frameworks",
        element("p", NOTICE),
        (
            _table(
                framework.name,
                ("place", "about", "figures here", "not here"),
                framework.references,
            )
            for framework in FRAMEWORKS
        ),
    )


# Parts.


def _section(name: str, title: str, *content: Content) -> Markup:
    heading = element("h2", title, id=f"{name}-title")
    return element("section", heading, *content, id=name, aria_labelledby=f"{name}-title")


def _soft(text: str) -> Markup | None:
    return element("span", text, class_="soft") if text else None


def _table(
    caption: str, names: Sequence[str], rows: Iterable[Iterable[Content]], *, numbers: int = 0
) -> Markup:
    """Return a table whose last `numbers` columns are numbers."""
    plain = len(names) - numbers

    def cells(kind: str, row: Iterable[Content]) -> Markup:
        return element(
            "tr",
            (
                element(
                    "th" if kind == "th" or not place else "td",
                    cell,
                    class_="number" if place >= plain else None,
                    scope="col" if kind == "th" else "row" if not place else None,
                )
                for place, cell in enumerate(row)
            ),
        )

    table = element(
        "table",
        element("caption", caption),
        element("thead", cells("th", names)),
        element("tbody", (cells("td", row) for row in rows)),
    )
    return _scrolling(table, caption)


def _scrolling(content: Markup, label: str) -> Markup:
    # A region that scrolls must be reachable by keyboard.
    return element("div", content, class_="scroll", role="region", aria_label=label, tabindex="0")


def _figures(caption: str, rows: Sequence[Row]) -> Markup:
    return _table(
        caption,
        ("figure", "how", "rate", "lower", "upper", "n", "answers", "flagged"),
        (
            (
                row.name,
                joined(row.method, " ", _soft(row.reason), " ", _soft(_labels(row))),
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
    return element("figure", _scrolling(Markup(svg), title), words)
