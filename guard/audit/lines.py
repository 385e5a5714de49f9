"""A file of JSON lines that survives a kill at any moment.

A header says what the file belongs to; a file that people may edit has none. A line is written
by one call and forced to the disk before it counts. A last line that was cut short is dropped
when the file is opened again.

This module does not know what a line means.
"""

from __future__ import annotations

import json
import os
import threading
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from guard.audit.errors import AuditError
from guard.file_locks import BINARY, try_lock
from guard.json_lines import GOING, is_row

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from io import RawIOBase
    from pathlib import Path
    from typing import Self


class LineFile:
    """A file that one process at a time may add to; safe to share between threads.

    As a context it leaves no empty file behind that it made itself.

    Args:
        path: is made where it is missing, for its owner alone.
        header: what the file belongs to; `None` for a file without one, as a person may have
            written it: blank lines are passed over, and a whole last line needs no end.

    Raises:
        AuditError: it has another header, another process adds to it, or it is damaged.
    """

    def __init__(self, path: Path, header: Mapping[str, str] | None) -> None:
        """Open, lock and mend the file; read what is there."""
        self._path = path
        self._mutex = threading.Lock()
        self._header = header
        self._ends: list[int] = []
        self._places: list[tuple[int, int]] = []
        self._made = not path.exists()
        try:
            self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | BINARY, 0o600)
        except OSError as error:
            raise AuditError(f"`{path}` cannot be written: {error.strerror}") from error
        try:
            _lock(self._file, path)
            self.rows: Sequence[Mapping[str, Any]] = (
                self._edited() if header is None else self._recovered(header)
            )
        except BaseException:
            os.close(self._file)
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        # While it is locked, so that nobody else writes into it. On Windows an open file stays.
        empty = not os.fstat(self._file).st_size
        if self._made and empty and _is_there(self._file, self._path):
            with suppress(OSError):
                self._path.unlink()
        os.close(self._file)

    def add(self, *rows: Mapping[str, Any]) -> None:
        """Append a line each; they are on the disk when this returns.

        Raises:
            AuditError: they cannot be written; then none of them is there.
        """
        # ASCII, so that a lone surrogate survives and a line ends nowhere but at its end.
        lines = [json.dumps(row, separators=(",", ":")) + "\n" for row in rows]
        content = "".join(lines).encode("ascii")
        with self._mutex:
            end = os.fstat(self._file).st_size
            try:
                # A signal or a full disk may cut a write short.
                while content:
                    content = content[os.write(self._file, content) :]
                os.fsync(self._file)
            except OSError as error:
                os.ftruncate(self._file, end)
                raise AuditError(f"`{self._path}` cannot be written: {error.strerror}") from error
            self._ends.append(end)

    def take_back(self) -> None:
        """Cut off what the last `add` wrote that is still there; the disk has it so on return.

        Raises:
            AuditError: the file cannot be written.
            IndexError: nothing was added since it was opened.
        """
        with self._mutex:
            end = self._ends.pop()
            try:
                os.ftruncate(self._file, end)
                os.fsync(self._file)
            except OSError as error:
                raise AuditError(f"`{self._path}` cannot be written: {error.strerror}") from error

    def drop(self, number: int) -> None:
        """Take out a row that was there when the file was opened; the disk has it so on return.

        Blanks stand in its place, so that no other row moves: whoever reads the file passes over
        them. At the end of the file nothing stays. Where it breaks off halfway, the line begins
        with `GOING`, and they pass over it as well. For a file without a header.

        Args:
            number: of the row in `rows`.

        Raises:
            AuditError: the file cannot be written, or was changed meanwhile.
        """
        start, end = self._places[number]
        with self._mutex:
            try:
                if os.fstat(self._file).st_size <= end + 1:
                    os.ftruncate(self._file, start)
                    os.fsync(self._file)
                else:
                    self._blank(start, end)
            except OSError as error:
                raise AuditError(f"`{self._path}` cannot be written: {error.strerror}") from error

    def _blank(self, start: int, end: int) -> None:
        # A file that is open for appending is written at its end, wherever one asks.
        with self._path.open("r+b", buffering=0) as file:
            file.seek(start)
            line = file.read(end - start)
            if b"{" not in line or not _is_there(self._file, self._path):
                raise AuditError(f"`{self._path}` was changed meanwhile: try again")
            start += line.index(b"{")
            # One byte is written wholly or not at all, and from then on the line says nothing.
            _write(file, start, GOING)
            _write(file, start + 1, b" " * (end - start - 1))
            _write(file, start, b" ")

    def _edited(self) -> list[Mapping[str, Any]]:
        """Return the rows of a file without a header; one that is none of these stays as it is."""
        *whole, last = self._path.read_bytes().split(b"\n")
        rows = [
            self._placed(number, start, line)
            for number, (start, line) in enumerate(_with_starts(whole), start=1)
            if is_row(line)
        ]
        if not is_row(last):
            return rows
        start = os.fstat(self._file).st_size - len(last)
        try:
            rows.append(self._placed(len(whole) + 1, start, last))
        except AuditError:
            if not last.startswith(b"{"):
                raise
            os.ftruncate(self._file, start)
        else:
            os.write(self._file, b"\n")
        return rows

    def _placed(self, number: int, start: int, line: bytes) -> Mapping[str, Any]:
        row = self._parsed(number, line)
        self._places.append((start, start + len(line)))
        return row

    def _recovered(self, header: Mapping[str, str]) -> list[Mapping[str, Any]]:
        content = self._path.read_bytes()
        whole = content.rfind(b"\n") + 1
        if whole < len(content):
            os.ftruncate(self._file, whole)
        lines = content[:whole].splitlines()
        if not lines:
            self.add(header)
            return []
        rows = [self._parsed(number, line) for number, line in enumerate(lines, start=1)]
        if rows[0] != header:
            raise AuditError(
                f"`{self._path}` belongs to another audit than the plan beside it: take another "
                "folder"
            )
        return rows[1:]

    def _parsed(self, number: int, line: bytes) -> Mapping[str, Any]:
        try:
            row = json.loads(line)
        except ValueError as error:
            raise self.damaged(number, error) from error
        if not isinstance(row, dict):
            raise self.damaged(number, "not an object")
        return row

    def damaged(self, number: int, why: object) -> AuditError:
        """Return the error of a line that is damaged; the header is line 1."""
        return AuditError(
            f"{self._path}:{number}: cannot be read ({why}): delete this line, and what it held "
            f"is asked again{', or name another file' if self._header is None else ''}"
        )


def _write(file: RawIOBase, start: int, content: bytes) -> None:
    """Write at `start`; the disk has it on return."""
    file.seek(start)
    while content:
        content = content[file.write(content) or 0 :]
    os.fsync(file.fileno())


def _with_starts(lines: Sequence[bytes]) -> Iterator[tuple[int, bytes]]:
    """Yield each line with where it begins; each but the last ends with a line break."""
    start = 0
    for line in lines:
        yield start, line
        start += len(line) + 1


def _is_there(file: int, path: Path) -> bool:
    """Return whether an open file is still that of its name; another process may remove it."""
    try:
        return os.path.samestat(os.fstat(file), path.stat())
    except OSError:
        return False


def _lock(file: int, path: Path) -> None:
    """Keep other processes out until this one ends, however it ends."""
    try:
        ours = try_lock(file)
    except OSError as error:
        raise AuditError(
            f"`{path}` cannot be locked ({error.strerror}): take a folder on a disk of this machine"
        ) from error
    if not ours or not _is_there(file, path):
        raise AuditError(f"another process has `{path}` open: wait for it, or take another folder")
