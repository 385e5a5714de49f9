"""Journal rows on a terminal: many as a table, one as a page.

Everything in a row may come from a model or its user, so nothing is shown that has not
been through `guard.cli.screen.plain`, and nothing of it is read as markup.

This module does not know where rows come from.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

from rich.console import Group
from rich.padding import Padding
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from guard.categories import is_signal
from guard.cli.screen import one_line, plain_text

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from rich.console import RenderableType

    from guard.journal.record import Record

SHORT_ID: Final = 8
"""Characters of an id that a table shows; enough to name the row."""

SHOWN_RISK: Final = 0.05
"""Live risk from which a page draws a category's bar."""

_WIDE: Final = 120
_RESPONSE: Final = 60
_NAME: Final = 24
_BAR: Final = 24
_COLOURS: Final = {"flag": "yellow", "rewrite": "cyan", "block": "red"}


def table(rows: Iterable[Record], width: int) -> Table:
    """Return `rows` as a table for a screen of `width` columns, times in the local zone."""
    lines = Table(box=None, pad_edge=False, header_style="bold")
    lines.add_column("id", min_width=SHORT_ID, no_wrap=True)
    lines.add_column("time", min_width=16, no_wrap=True)
    lines.add_column("action", min_width=7, no_wrap=True)
    if width >= _WIDE:
        for name in ("class", "worst risk", "delivered"):
            lines.add_column(name, no_wrap=True)
        lines.add_column("model", overflow="fold")
    lines.add_column("response", overflow="fold")
    for row in rows:
        facts = _facts_in_brief(row)
        brief = [Text("\n").join((Text(", ").join(facts[:-1]), facts[-1]))]
        lines.add_row(*_head(row), *(brief if width < _WIDE else facts))
    return lines


def page(row: Record) -> Group:
    """Return everything that is kept of `row`."""
    return Group(
        _facts(row),
        *_section("Reasons", [plain_text(f"• {reason}") for reason in row.reasons]),
        *_section(f"Live risks of at least {SHOWN_RISK}", [_bars(row.risks)]),
        *_section("Findings", [_findings(row.findings)] if row.findings else []),
        *_section("Coverage", [_coverage(row.coverage)]),
        Text(),
        _kept("Prompt", row.prompt),
        _kept("Response", row.response),
        _kept(f"Delivered ({row.delivered})", row.outcome),
    )


def _head(row: Record) -> tuple[Text, ...]:
    time = Text(f"{row.created.astimezone():%Y-%m-%d %H:%M}")
    return (plain_text(row.id[:SHORT_ID]), time, _action(row.action))


def _facts_in_brief(row: Record) -> list[Text]:
    return [
        Text(one_line(row.security_class, _NAME) + (" (shadow)" if row.shadow else "")),
        _worst(row.risks),
        plain_text(row.delivered + ("" if row.complete else " (open)")),
        Text(one_line(row.model, _NAME)) if row.model else _absent("unknown model"),
        _absent("not kept") if row.response is None else Text(one_line(row.response, _RESPONSE)),
    ]


def _action(action: str) -> Text:
    return plain_text(action, f"bold {_COLOURS.get(action, 'white')}")


def _worst(risks: Mapping[str, float]) -> Text:
    real = {name: risk for name, risk in risks.items() if not is_signal(name)}
    if not real:
        return _absent("risks unknown")
    name = max(real, key=real.__getitem__)
    return Text.assemble(one_line(name, _NAME), " ", (f"{real[name]:.2f}", _heat(real[name])))


def _heat(risk: float) -> str:
    if risk >= 0.8:
        return "red"
    return "yellow" if risk >= 0.4 else "green"


def _absent(what: str) -> Text:
    return Text(f"({what})", style="dim italic")


def _facts(row: Record) -> Table:
    facts = {
        "id": row.id,
        "time": f"{row.created.astimezone():%Y-%m-%d %H:%M:%S %Z}",
        "class": f"{row.security_class} (rank {row.rank})",
        "shadow": "yes: everything was delivered unchanged" if row.shadow else "",
        "delivered": row.delivered,
        "state": "" if row.complete else "open: the stream is running or broke off",
        "released": f"{row.released:,} characters of the stream" if row.released else "",
        "model": row.model or "(unknown)",
        "texts": row.text_mode,
        "detectors": ", ".join(f"{name} {version}" for name, version in row.detectors.items()),
        **{f"metadata {key}": _brief(value) for key, value in row.metadata.items()},
    }
    grid = _grid()
    grid.add_row(Text("action", style="bold"), _action(row.action))
    for name, value in facts.items():
        if value:
            grid.add_row(plain_text(name, "bold"), plain_text(value))
    return grid


def _brief(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)


def _section(title: str, content: Sequence[RenderableType]) -> tuple[RenderableType, ...]:
    if not content:
        return ()
    return (Text(), Text(title, style="bold"), Padding(Group(*content), (0, 0, 0, 2)))


def _bars(risks: Mapping[str, float]) -> RenderableType:
    shown = sorted((-risk, name) for name, risk in risks.items() if risk >= SHOWN_RISK)
    if not shown:
        return _absent("none")
    grid = _grid()
    for negative, name in shown:
        grid.add_row(_named(name), f"{-negative:.2f}", _bar(-negative))
    return grid


def _named(category: str) -> Text:
    return plain_text(category + (" (a signal, no risk)" if is_signal(category) else ""))


def _bar(risk: float) -> Text:
    full = round(max(0.0, min(1.0, risk)) * _BAR)
    return Text.assemble(("█" * full, _heat(risk)), ("░" * (_BAR - full), "dim"))


def _findings(findings: Sequence[Mapping[str, Any]]) -> Table:
    lines = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("category", "evidence", "where", "label", "detector"):
        lines.add_column(name, overflow="fold", justify="right" if name == "evidence" else "left")
    for finding in findings:
        span = f"{finding.get('start', '?')} to {finding.get('end', '?')}"
        cells = (
            f"{finding.get('category', '')}",
            f"{finding.get('evidence', '')}",
            f"{finding.get('channel', '')} {span}",
            f"{finding.get('label', '')}",
            f"{finding.get('detector', '')} {finding.get('version', '')}",
        )
        lines.add_row(*(plain_text(cell) for cell in cells))
    return lines


def _coverage(coverage: Mapping[str, Any]) -> Table:
    complete = coverage.get("complete")
    grid = _grid()
    grid.add_row("complete", Text("yes", "green") if complete else Text("no", "bold red"))
    grid.add_row("units", plain_text(_brief(coverage.get("units", "unknown"))))
    for channel, characters in coverage.get("judged", {}).items():
        grid.add_row(plain_text(channel), plain_text(f"{_brief(characters)} characters judged"))
    for detector, status in coverage.get("detectors", {}).items():
        grid.add_row(plain_text(detector), plain_text(status, "" if status == "ok" else "red"))
    for failure in coverage.get("failures", ()):
        grid.add_row(Text("failure", "red"), plain_text(_brief(failure)))
    return grid


def _kept(title: str, text: str | None) -> Panel:
    body = _absent("not kept") if text is None else plain_text(text) if text else _absent("empty")
    return Panel(body, title=title, title_align="left")


def _grid() -> Table:
    return Table.grid(padding=(0, 2))
