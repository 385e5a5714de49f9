"""The file of labels, as `guard flagged label` writes it and `guard calibrate` reads it.

It is open, and locked, only while a label is written: other processes may add to it in between.

This module does not know any page.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

from guard.audit.lines import LineFile
from guard.errors import InputError
from guard.json_lines import is_row, parsed
from guard.labelled import flags_of, labels_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from guard.journal.record import Record

    Known = Mapping[tuple[str, str], bool]
    """Whether each flag was right, by the digest of its texts and its category."""


class LabelFile:
    """A file of labelled rows of a journal; safe to share between threads and processes.

    Args:
        path: of the file; it need not be there.

    Raises:
        InputError: its name is that of a packed file.
    """

    def __init__(self, path: Path) -> None:
        """Read nothing yet."""
        if path.suffix == ".gz":
            raise InputError(f"{path}: labels are added line by line: give a name without `.gz`")
        self.path = path
        self._busy = threading.Lock()
        self._seen: tuple[int, ...] = ()
        self._known: Known = {}

    def known(self) -> Known:
        """Return all labels; the file is read anew where it has changed.

        Raises:
            InputError: it cannot be read, or holds something else.
        """
        with self._busy:
            try:
                self._look()
            except OSError as error:
                raise InputError(f"{self.path}: cannot be read: {error.strerror}") from error
            return self._known

    def try_out(self) -> None:
        """See that the file can be read and written; it stays as it is.

        Raises:
            AuditError: it cannot be written, or another process has it open.
            InputError: it holds something else.
        """
        with LineFile(self.path, None):
            pass
        self.known()

    def say(self, record: Record, category: str, *, right: bool) -> None:
        """Keep whether a flag was right, in place of what was said of it before.

        It is on the disk when this returns.

        Args:
            record: the row.
            category: one that `flags_of` names.
            right: whether the row really carries the category.

        Raises:
            AuditError: the file cannot be written, or another process has it open.
            InputError: it holds something else.
        """
        data = record.to_dict()
        key = flags_of(data)[category], category
        self._replace(key, data | {"label": {category: int(right)}})

    def take_back(self, text: str, category: str) -> None:
        """Forget what was said of a flag.

        Args:
            text: the digest of its texts.
            category: its category.

        Raises:
            AuditError: as `say`.
            InputError: as `say`.
        """
        self._replace((text, category), None)

    def _replace(self, key: tuple[str, str], new: Mapping[str, Any] | None) -> None:
        with self._busy, LineFile(self.path, None) as file:
            old = [
                (number, rest)
                for number, row in enumerate(file.rows)
                if key in (labels := labels_of(row, f"{self.path}: row {number + 1}"))
                for rest in (_without(row, labels, key[1]),)
            ]
            kept = [rest for _, rest in old if rest is not None]
            # First, so that nothing is lost where this fails.
            if fresh := [*kept, *([] if new is None else [new])]:
                file.add(*fresh)
            for number, _ in reversed(old):
                file.drop(number)

    def _look(self) -> None:
        try:
            stat = self.path.stat()
        except FileNotFoundError:
            self._seen, self._known = (), {}
            return
        seen = (stat.st_ino, stat.st_size, stat.st_mtime_ns)
        if seen != self._seen:
            known: dict[tuple[str, str], bool] = {}
            for row, where in self._rows():
                known |= labels_of(row, where)
            self._seen, self._known = seen, known

    def _rows(self) -> Iterator[tuple[Mapping[str, Any], str]]:
        *lines, last = self.path.read_bytes().split(b"\n")
        for number, line in enumerate([*lines, last], start=1):
            if not is_row(line):
                continue
            try:
                row = parsed(line)
            except InputError as error:
                if number > len(lines):
                    return  # somebody else is about to write it
                raise InputError(f"{self.path}:{number}: {error}") from error
            if not isinstance(row, dict):
                raise InputError(f"{self.path}:{number}: is no row of a journal: name another file")
            yield row, f"{self.path}:{number}:"


def _without(
    row: Mapping[str, Any], labels: Mapping[tuple[str, str], bool], category: str
) -> Mapping[str, Any] | None:
    """Return a row with its labels but that of `category`, `None` where there is no other."""
    others = {name: int(right) for (_, name), right in labels.items() if name != category}
    return {**row, "label": others} if others else None
