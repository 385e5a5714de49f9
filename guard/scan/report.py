"""The report of a scan as one HTML page: no scripts, nothing loaded from anywhere.

Whatever comes from a log is escaped, and what could hide or reorder text is written out.

This module does not know how figures come about.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from guard.audit.report.html import Content, Markup, element, joined
from guard.audit.report.parts import document, scrolling, section, soft, table
from guard.percent import percent
from guard.plots import Line, forest_svg, histogram_svg
from guard.scan.tally import ACTIONS

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

_SHOWN_ERRORS: Final = 20
_HISTOGRAMS: Final = 6
_NAME: Final = 80

_TEXTS: Final = {
    "redacted": "Secrets and personal data are taken out.",
    "full": "Texts are shown in full, as the class has them kept: keep this page to yourself.",
    "hashed": "The class keeps hashes of texts, and nothing that could be read.",
    "omitted": "The class keeps no texts.",
}


def page(
    summary: Mapping[str, Any],
    examples: Iterable[Mapping[str, Any]],
    errors: Iterable[Mapping[str, Any]],
) -> str:
    """Return the report as HTML; it is well-formed XML behind its first line.

    Args:
        summary: of the scan, see `guard.scan.finish`.
        examples: flagged answers, as `guard.scan.folder.Examples` keeps them.
        errors: rows of lines that could not be judged, the first ones.
    """
    sections = (
        _top(summary),
        _actions(summary),
        _categories(summary),
        _compared(summary),
        _groups(summary, "models", "By model"),
        _groups(summary, "days", "By day"),
        _examples(list(examples)),
        _coverage(summary, list(errors)),
        _measurement(summary),
    )
    return document(f"Scan under class {summary['class']}", sections)


def _top(summary: Mapping[str, Any]) -> Markup:
    actions = summary["actions"]
    said = [f"{_number(actions[name]['count'])} {_DONE[name]}" for name in ACTIONS]
    bad = summary["bad"]
    lost = f"Lines that could not be judged, of which nothing is known: {_number(bad)}."
    return element(
        "header",
        element("h1", f"Scan under class {summary['class']}"),
        element("p", f"{summary['finished']}, clearance {summary['version']}.", class_="soft"),
        element(
            "div",
            element("p", f"{_number(summary['exchanges'])} exchanges: {', '.join(said)}."),
            element("p", lost, class_="bad") if bad else None,
            class_="summary",
        ),
    )


_DONE: Final = {
    "allow": "may leave",
    "flag": "flagged",
    "rewrite": "rewritten",
    "block": "blocked",
}


def _actions(summary: Mapping[str, Any]) -> Markup:
    found = summary["actions"]
    return section(
        "actions",
        "What the class does",
        element(
            "p",
            "An interval holds the share that more traffic of the same kind would have, at a level "
            "of 95 %: exchanges that are not independent of one another tell less.",
        ),
        _share_table("Actions, with 95 % intervals", "action", found),
        _forest("actions-plot", "Actions", {name: found[name] for name in ACTIONS[1:]}),
    )


def _categories(summary: Mapping[str, Any]) -> Markup:
    found = summary["categories"]
    if not found:
        return section("categories", "Categories", element("p", "No limit was reached."))
    acted = {name: each["act"] for name, each in found.items()}
    rows = (
        (name, *(_cells(each[limit]) for limit in ("flag", "act"))) for name, each in found.items()
    )
    return section(
        "categories",
        "Categories",
        element(
            "p",
            "How many exchanges reached a limit of the class: that at which they are flagged (or "
            "that at which it acts, which is higher), and that at which it acts.",
        ),
        table(
            "Limits reached, with 95 % intervals",
            ("category", "reached any limit", "reached the act limit"),
            rows,
            numbers=2,
        ),
        _forest("categories-plot", "Exchanges that reached the act limit", acted),
        [_histogram(summary, name, n) for n, name in enumerate(list(found)[:_HISTOGRAMS])],
    )


def _histogram(summary: Mapping[str, Any], category: str, number: int) -> Markup:
    title = f"Live risk of {category}"
    svg = histogram_svg(summary["risks"][category], name=f"risk-{number}", title=title)
    words = f"{title}, exchanges in each tenth (heights grow with the logarithm)"
    return element("figure", scrolling(Markup(svg), title), element("figcaption", words))


def _compared(summary: Mapping[str, Any]) -> Markup | None:
    found = summary["compare"]
    if not found:
        return None
    rows = (
        (
            name,
            *(_brief(each["actions"][action]) for action in ACTIONS),
            _number(each["stricter"]),
            _number(each["milder"]),
        )
        for name, each in found.items()
    )
    return section(
        "compare",
        "What other classes would do",
        element("p", "With the same exchanges, from the same evidence of the same detectors."),
        table(
            "Actions of other classes, and how many exchanges they treat otherwise",
            ("class", *ACTIONS, "more severely", "more mildly"),
            rows,
            numbers=6,
        ),
    )


def _groups(summary: Mapping[str, Any], key: str, title: str) -> Markup | None:
    found = summary[key]
    if not found:
        return None
    rows = (
        (
            _short(name),
            _number(sum(each.values())),
            *(_number(each[action]) for action in ACTIONS),
            percent(each["block"] / max(1, sum(each.values()))),
        )
        for name, each in found.items()
    )
    heads = (key.removesuffix("s"), "exchanges", *ACTIONS, "blocked")
    return section(key, title, table(f"{title}, as the lines say", heads, rows, numbers=6))


def _examples(examples: Sequence[Mapping[str, Any]]) -> Markup:
    modes = dict.fromkeys(each["texts"] for each in examples)
    said = " ".join(_TEXTS.get(mode, "") for mode in modes)
    return section(
        "examples",
        "Examples",
        element("p", f"Up to three of each category, those of the highest live risk. {said}"),
        [_example(each) for each in examples] or element("p", "Nothing was flagged."),
    )


def _example(example: Mapping[str, Any]) -> Markup:
    return element(
        "article",
        element("h3", f"{example['category']}: {_place(example)}"),
        element("p", "; ".join(example["reasons"]), class_="soft"),
        _said("Asked: ", example["prompt"]),
        _said("Answered: ", example["response"]),
    )


def _said(who: str, text: str | None) -> Markup | None:
    # Apart from the name: what is written from right to left has its signs and figures there.
    words = element("bdi", text)
    return element("blockquote", element("strong", who), words) if text else None


def _coverage(summary: Mapping[str, Any], errors: Sequence[Mapping[str, Any]]) -> Markup:
    found = summary["coverage"]
    failed = [
        (each["detector"], each["status"], _number(each["exchanges"])) for each in found["failures"]
    ]
    said = (
        "A detector failed or did not answer in time, and the class did as `on_failure` says, in "
        f"so many exchanges: {_number(found['failed'])}."
        if found["failed"]
        else "No detector failed."
    )
    return section(
        "coverage",
        "What was not judged",
        element("p", said, class_="bad" if found["failed"] else None),
        table("Detectors", ("detector", "what happened", "exchanges"), failed, numbers=1)
        if failed
        else None,
        _bad_lines(summary["bad"], errors),
    )


def _bad_lines(bad: int, errors: Sequence[Mapping[str, Any]]) -> Markup | None:
    if not bad:
        return None
    shown = errors[:_SHOWN_ERRORS]
    caption = f"Lines that could not be judged: {_number(bad)}"
    caption += ", the first of which are" if bad > len(shown) else ""
    rows = ((_place(each), each["error"]) for each in shown)
    return table(caption, ("line", "why"), rows)


def _measurement(summary: Mapping[str, Any]) -> Markup:
    speed = summary["speed"]
    facts = [
        ("class", joined(summary["class"], " ", soft(summary["class_digest"][:12]))),
        ("model", summary["model"][:12]),
        ("part of the lines", percent(summary["sample"])),
        ("files", _number(len(summary["files"]))),
        ("bytes", _number(sum(each.get("bytes", 0) for each in summary["files"]))),
        ("judged in the last run", _number(speed["exchanges"])),
        ("workers", f"{speed['workers']} ({speed['engine']})"),
        ("seconds", f"{speed['seconds']:.1f}"),
        ("exchanges per second", f"{speed['rate']:.1f}"),
    ]
    return section("measurement", "How it was judged", table("The scan", ("what", "value"), facts))


def _share_table(caption: str, what: str, found: Mapping[str, Mapping[str, float]]) -> Markup:
    rows = (
        (
            name,
            _number(int(each["count"])),
            *(percent(each[key]) for key in ("share", "low", "high")),
        )
        for name, each in found.items()
    )
    return table(caption, (what, "exchanges", "share", "lower", "upper"), rows, numbers=4)


def _brief(found: Mapping[str, float]) -> str:
    return f"{_number(int(found['count']))} · {percent(found['share'])}"


def _cells(found: Mapping[str, float]) -> Content:
    ends = f" [{percent(found['low'])}, {percent(found['high'])}]"
    return joined(_brief(found), soft(ends))


def _forest(name: str, title: str, found: Mapping[str, Mapping[str, float]]) -> Markup:
    lines = [Line(key, each["share"], each["low"], each["high"]) for key, each in found.items()]
    described = "; ".join(
        f"{line.label} {percent(line.value)}, from {percent(line.low)} to {percent(line.high)}"
        for line in lines
    )
    svg = forest_svg(lines, name=name, title=title, description=described)
    words = element("figcaption", f"{title}: share of exchanges and 95 % interval.")
    return element("figure", scrolling(Markup(svg), title), words)


def _place(row: Mapping[str, Any]) -> str:
    place = _short(row["file"]) + (f":{row['line']}" if row["line"] else "")
    return place + (f" ({_short(str(row['id']))})" if "id" in row else "")


def _short(text: str) -> str:
    return text if len(text) <= _NAME else "…" + text[-_NAME:]


def _number(count: int) -> str:
    return f"{count:,}"
