"""The terminal of `guard flagged label`: one flag after the other, one key each.

Everything in a row may come from a model or its user, so nothing is printed that has not
been through `guard.cli.screen.plain`, and nothing of it is read as markup.

This module does not know what labels do to a calibration, nor how rows are stored.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Final, NamedTuple

from rich.panel import Panel
from rich.text import Text

from guard.audit.lines import LineFile
from guard.categories import CATEGORIES
from guard.cli.labelling import ask, question, spoken
from guard.cli.screen import console, errors, plain_text
from guard.errors import InputError, JournalError
from guard.labelled import flagged_for, flags_of, labels_of

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from guard.journal.record import Record
    from guard.journal.store import Journal


_TEXTLESS: Final = "their class keeps no text to read; `journal: {text: redacted}` would"
_ELSEWHERE: Final = "flagged for none of the built-in categories that are asked about"


class _Flag(NamedTuple):
    """A category that a row was flagged for.

    Attributes:
        record: id of the row.
        category: its name.
        text: digest of what the row keeps; of copies one is asked about.
    """

    record: str
    category: str
    text: str


def label_rows(journal: Journal, rows: Iterable[Record], path: Path, only: str | None) -> None:
    """Ask whoever sits here about one flag after the other.

    Args:
        journal: where the rows are.
        rows: those to ask about, in this order.
        path: file of the labels, made where it is missing.
        only: ask about this category alone.

    Raises:
        AuditError: the file cannot be read or written.
        InputError: it holds something else, or there is no terminal.
        JournalError: the journal cannot be read.
    """
    if path.suffix == ".gz":
        raise InputError(f"{path}: labels are added line by line: give a name without `.gz`")
    with LineFile(path, None) as file:
        _Sitting(journal, path, file).run(rows, only)


class _Sitting:
    """One person's time at the terminal."""

    def __init__(self, journal: Journal, path: Path, file: LineFile) -> None:
        self._journal = journal
        self._path = path
        self._file = file
        self._labels: dict[tuple[str, str], bool] = {}
        self._shown: Record | None = None
        for number, row in enumerate(file.rows, start=1):
            self._labels |= labels_of(row, f"{path}: row {number}")

    def run(self, rows: Iterable[Record], only: str | None) -> None:
        queue, left_out = self._queue(rows, only)
        for why, count in left_out.items():
            errors.print(f"Rows passed over: {count:,} ({why})", style="dim", soft_wrap=True)
        if queue:
            ask(queue, self._panel, self._keep)
        else:
            console.print("Nothing is left to label.")
        made = len(self._labels)
        if made:
            told = f"{made:,} labels. See what they change: guard calibrate --dry-run --labels "
            console.print(plain_text(f"{told}{self._path}"), soft_wrap=True)

    def _queue(self, rows: Iterable[Record], only: str | None) -> tuple[list[_Flag], Counter[str]]:
        """Return what to ask about, and of how many rows nothing is asked, by the reason."""
        queue: dict[tuple[str, str], _Flag] = {}
        left_out: Counter[str] = Counter()
        for record in rows:
            data = record.to_dict()
            names = [n for n in flagged_for(data) if n in CATEGORIES and only in (None, n)]
            kept = {name: text for name, text in flags_of(data).items() if name in names}
            for name, text in kept.items():
                queue.setdefault((text, name), _Flag(record.id, name, text))
            if not names:
                left_out[_ELSEWHERE] += 1
            elif not kept:
                left_out[_TEXTLESS] += 1
        return [flag for key, flag in queue.items() if key not in self._labels], left_out

    def _panel(self, flag: _Flag, left: int) -> Panel | None:
        self._shown = record = self._found(flag)
        if record is None:
            return None
        why = next(each for each in record.reasons if each.startswith(f"{flag.category}: "))
        where = f"{record.id[:8]}, {record.action}, class {record.security_class}"
        lines = Text.assemble(
            spoken("asked", _read(record.prompt)),
            spoken("answered", _read(record.response)),
            ("flagged: ", "bold"),
            plain_text(f"{why}\n"),
            ("row: ", "bold"),
            plain_text(f"{where}, {record.created.astimezone():%Y-%m-%d %H:%M}\n\n"),
            question(flag.category, f"the {CATEGORIES[flag.category].side}"),
        )
        return Panel(lines, title=plain_text(self._title(flag, left)), title_align="left")

    def _title(self, flag: _Flag, left: int) -> str:
        sides = Counter(risky for (_, name), risky in self._labels.items() if name == flag.category)
        return f"{flag.category}: {sides[True]} right, {sides[False]} wrong so far; {left:,} left"

    def _found(self, flag: _Flag) -> Record | None:
        """Return the flag's row, `None` where it was deleted meanwhile."""
        try:
            return self._journal.get(flag.record)
        except JournalError:
            self._journal.count()  # raises where not the row but the journal is the trouble
            return None

    def _keep(self, flag: _Flag, risky: bool | None) -> None:
        if risky is None:
            self._file.take_back()
            del self._labels[flag.text, flag.category]
        elif self._shown is not None:
            self._file.add(self._shown.to_dict() | {"label": {flag.category: int(risky)}})
            self._labels[flag.text, flag.category] = risky


def _read(text: str | None) -> str:
    return "(not kept)" if text is None else text
