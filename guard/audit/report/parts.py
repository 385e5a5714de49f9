"""What every report as an HTML page is made of: no scripts, nothing loaded, readable in print.

This module does not know what a page is about.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from guard.audit.report.html import Content, Markup, element

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

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


def document(title: str, sections: Iterable[Content]) -> str:
    """Return a page as HTML; it is well-formed XML behind its first line."""
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("meta", name="referrer", content="no-referrer"),
        element("meta", http_equiv="Content-Security-Policy", content=_ALLOWED),
        element("title", title),
        Markup(f"<style>{_STYLE}</style>"),
    )
    body = element("body", element("main", *sections))
    return f"<!DOCTYPE html>\n{element('html', head, body, lang='en')}\n"


def section(name: str, title: str, *content: Content) -> Markup:
    """Return a section with its heading, which names it."""
    heading = element("h2", title, id=f"{name}-title")
    return element("section", heading, *content, id=name, aria_labelledby=f"{name}-title")


def soft(text: str) -> Markup | None:
    """Return what is said in passing, `None` where that is nothing."""
    return element("span", text, class_="soft") if text else None


def table(
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

    made = element(
        "table",
        element("caption", caption),
        element("thead", cells("th", names)),
        element("tbody", (cells("td", row) for row in rows)),
    )
    return scrolling(made, caption)


def scrolling(content: Markup, label: str) -> Markup:
    """Return content that may be wider than the page."""
    # A region that scrolls must be reachable by keyboard.
    return element("div", content, class_="scroll", role="region", aria_label=label, tabindex="0")
