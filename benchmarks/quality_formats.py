"""Formats in which products hand out plain answers, for `quality.py --part formats`.

What is said stays what it was; what stands around it is what a program, a page or a log puts there.

This module does not know which of them the guard undoes, or how anything is measured.
"""

from __future__ import annotations

import html
import json
import re
import textwrap
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

_BREAK: Final = re.compile(r"(?<=[.!?])\s+|\n+")
_WIDE: Final = 72
_SUBTITLE: Final = 42


def _sentences(text: str) -> list[str]:
    return [sentence for sentence in _BREAK.split(text) if sentence.strip()]


def _wrapped(text: str) -> list[str]:
    return [part for line in text.splitlines() for part in textwrap.wrap(line, _WIDE) or [""]]


def _each(before: str, after: str = "") -> Callable[[str], str]:
    """Return a format in which each sentence stands on a line of its own."""

    def formatted(text: str) -> str:
        found = enumerate(_sentences(text), 1)
        return "\n".join(f"{before.format(n=number)}{said}{after}" for number, said in found)

    return formatted


def _steps(text: str) -> str:
    steps = [{"step": number, "text": said} for number, said in enumerate(_sentences(text), 1)]
    return json.dumps({"steps": steps}, indent=2)


def _html_list(text: str) -> str:
    return f"<ul>{''.join(f'<li>{html.escape(said)}</li>' for said in _sentences(text))}</ul>"


def _entities(text: str) -> str:
    return html.escape(text).replace(" ", "&nbsp;")


def _numbers(text: str) -> str:
    r"""Every third letter by its number, `\u0041`, in JSON."""
    signs = (
        f"\\u{ord(sign):04x}" if sign.isascii() and sign.isalpha() and place % 3 == 0 else sign
        for place, sign in enumerate(json.dumps(text))
    )
    return f'{{"answer": {"".join(signs)}}}'


def _table(text: str) -> str:
    return "| # | Step |\n|---|---|\n" + _each("| {n} | ", " |")(text)


def _rows(text: str) -> str:
    return "id,text\n" + "\n".join(
        f'{number},"{said.replace(chr(34), chr(34) * 2)}"'
        for number, said in enumerate(_sentences(text), 1)
    )


def _subtitles(text: str) -> str:
    parts = [part for said in _sentences(text) for part in textwrap.wrap(said, _SUBTITLE)]
    return "\n".join(
        f"{number}\n00:{number // 20:02d}:{number % 20 * 3:02d},000 --> "
        f"00:{number // 20:02d}:{number % 20 * 3 + 2:02d},500\n{part}\n"
        for number, part in enumerate(parts, 1)
    )


def _lines(before: str) -> Callable[[str], str]:
    return lambda text: "\n".join(f"{before}{line}" for line in _wrapped(text))


FORMATS: Final[Mapping[str, Callable[[str], str]]] = {
    "JSON value": lambda text: json.dumps({"status": "ok", "answer": text}),
    "JSON steps": _steps,
    r"JSON with \u0041": _numbers,
    "XML items": _each('<item id="{n}" lang="en">', "</item>"),
    "HTML list": _html_list,
    "HTML entities": _entities,
    "log lines": _each("2026-03-04 12:00:{n:02d},123 INFO app.answer "),
    "subtitles": _subtitles,
    "Markdown table": _table,
    "CSV": _rows,
    "YAML list": lambda text: "steps:\n" + _each("  - ")(text),
    "quoted lines": _lines("> "),
    "comments in code": _lines("# "),
}
