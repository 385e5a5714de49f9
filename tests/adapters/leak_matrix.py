"""The leak matrix: for every way to read an answer, whether one that is withheld can be read there.

An adapter's test measures a `Row` per way that its framework offers, and gives all of them to
`check`, which compares them with the adapter's section of `docs/leak-matrix.md`, or writes it
where `GUARD_PUBLISH=1` is set. Sections stand in the order of their titles.

    rows = [measure(way) for way in ways]
    check("LangChain and LangGraph", "What it was measured with.", rows)

This module does not know any framework.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable

PAGE: Final = Path(__file__).parents[2] / "docs" / "leak-matrix.md"

BLOCKED: Final = "zblock"
"""A word for which the guards of the tests block an answer."""

REWRITTEN: Final = "zredact"
"""A word that they take out of it."""

# A word that comes in pieces is read as its beginning.
_BAD, _MENDED = BLOCKED[:5], REWRITTEN[:5]

PLACEHOLDER: Final = "[redacted: to redact]"
"""What stands in its place."""

_HEAD: Final = """\
# The leak matrix

For each adapter and each way in which its framework lets an application read a model's output:
can text be read there that the guard withholds? Measured by the tests, which write this page
(`GUARD_PUBLISH=1 python -m pytest tests/adapters`) and fail where it is not what they measure.

- **unguarded**: whether the plain framework shows the text there; it is the control of the test.
- **blocked**: an answer that is blocked, in its text, its reasoning, its tool calls or the
  results of tools. It must be read nowhere.
- **rewritten**: an answer of which a part is taken out. It must be read only without that part.
- **benign**: an answer that passes. It must be the same as without the guard, except for
  identifiers, times and the name of the model's class.
"""

_TABLE: Final = "| way | unguarded | blocked | rewritten | benign |\n|---|---|---|---|---|\n"


@dataclass(frozen=True)
class Row:
    """What was read in one way.

    Attributes:
        way: how it was read.
        unguarded: everything that the plain framework showed of answers to be withheld.
        blocked: everything that the guarded one showed of answers that were blocked.
        rewritten: the same of answers that were rewritten.
        benign: what differs in benign answers, `""` for nothing.
        note: what the reader must know of the benign ones, in place of `identical`.
    """

    way: str
    unguarded: str
    blocked: str
    rewritten: str
    benign: str
    note: str = field(default="identical")

    @property
    def leaks(self) -> list[str]:
        """Why this way leaks or alters, empty where all is well."""
        found = {
            "the control does not show the text": _BAD not in self.unguarded,
            "a blocked text can be read": _BAD in self.blocked,
            "a rewritten text can be read": _MENDED in self.rewritten,
            "a rewritten text is missing": PLACEHOLDER not in self.rewritten,
            f"a benign answer differs: {self.benign}": bool(self.benign),
        }
        return [problem for problem, here in found.items() if here]

    def line(self) -> str:
        """Return the row of the table."""
        cells = (
            self.way,
            "seen" if _BAD in self.unguarded else "not seen",
            "LEAK" if _BAD in self.blocked else "nowhere",
            "LEAK" if _MENDED in self.rewritten else "only rewritten",
            "differs" if self.benign else self.note,
        )
        return f"| {' | '.join(cells)} |\n"


def check(title: str, note: str, rows: Iterable[Row]) -> None:
    """Compare an adapter's section of the page with what was measured, or write it."""
    section = f"## {title}\n\n{note.strip()}\n\n{_TABLE}{''.join(row.line() for row in rows)}"
    page = PAGE.read_text("utf-8") if PAGE.is_file() else _HEAD
    sections = {
        part.partition("\n")[0]: part for part in re.split(r"^## ", page, flags=re.MULTILINE)[1:]
    }
    if os.environ.get("GUARD_PUBLISH") == "1":
        sections[title] = section.removeprefix("## ")
        body = "".join(f"\n## {sections[name].rstrip()}\n" for name in sorted(sections))
        PAGE.write_text(_HEAD + body, "utf-8")
        return
    published = f"## {sections.get(title, '').rstrip()}\n"
    assert published == section, f"{PAGE.name} is not current: run with GUARD_PUBLISH=1"
