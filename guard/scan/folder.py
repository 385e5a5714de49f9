"""The folder of a scan: what was asked for, results in the order of the lines, where to go on.

    scan.json        class, model and files that the scan is of
    verdicts.jsonl   a row for each line that was judged, without its text
    errors.jsonl     a row for each line that could not be
    examples.jsonl   a few flagged answers, as the class has texts kept
    summary.json     what they show
    report.html      the same for people

Every row has `n`, the line's number among all that are judged. Both files are written in that
order and forced to the disk, batch by batch; whoever goes on cuts both behind the last number up
to which none is missing. So however a scan ended, no line is judged twice or left out. All files
are for their owner alone.

This module does not know how a line is judged or what a report looks like.
"""

from __future__ import annotations

import hashlib
import heapq
import json
import os
import re
import secrets
from collections import Counter
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from guard import __version__
from guard.audit.exact import digest
from guard.errors import JournalError
from guard.file_locks import BINARY, try_lock
from guard.scan.errors import ScanError
from guard.scan.reading import STANDARD_INPUT
from guard.scan.work import renamed

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from typing import Self

    from guard.journal.record import Record
    from guard.journal.store import Journal
    from guard.scan.reading import Line
    from guard.scan.work import Result, Settings
    from guard.security_class import SecurityClass

_NUMBERED: Final = re.compile(rb'\{"n":(\d{1,18}),[ -\x7f]*\}\n')
"""A whole row, which is ASCII; what a power cut left has zeros in it."""

_HEAD: Final = 2**20
"""Bytes at the beginning of a file that tell it from another of the same name and size."""

_NAMES: Final = ("errors.jsonl", "examples.jsonl", "summary.json", "report.html")
"""What a scan writes beside its verdicts."""

EXAMPLES: Final = 3
"""Examples of each category, those of the highest risk."""

_LENGTH: Final = 700
"""Characters of each text of an example."""


@dataclass(frozen=True, slots=True)
class Selection:
    """Which lines are judged.

    Attributes:
        files: their names, `-` for standard input.
        share: which part of the lines, in (0, 1]; the same each time.
    """

    files: tuple[str, ...]
    share: float = 1.0

    def takes(self, number: int, content: bytes) -> bool:
        """Return whether a line is one of the sample; equal lines are drawn each for itself."""
        if self.share >= 1:
            return True
        drawn = hashlib.sha256(number.to_bytes(8, "big") + content).digest()[:8]
        return int.from_bytes(drawn, "big") < self.share * 2**64


def header(
    settings: Settings, selection: Selection, model: Path, *, journal: bool
) -> dict[str, Any]:
    """Return what results depend on, as JSON-able values.

    Args:
        settings: how lines are judged.
        selection: which.
        model: the directory of the classifier that judges.
        journal: whether flagged ones go to a journal.

    Raises:
        ScanError: a file cannot be read.
    """
    return {
        "version": __version__,
        "class": _class(settings.security_class),
        "compare": [_class(each) for each in settings.compare],
        "model": _directory(model),
        "files": [_file(name) for name in selection.files],
        "sample": selection.share,
        "texts": settings.texts,
        "journal": journal,
    }


def read_header(path: Path) -> dict[str, Any]:
    """Return what a folder's scan is of.

    Raises:
        ScanError: the folder holds none, or it cannot be read.
    """
    try:
        found = json.loads((path / "scan.json").read_bytes())
        return {str(key): value for key, value in found.items()}
    except OSError as error:
        raise ScanError(f"`{path}` holds no scan that can be read: {error.strerror}") from error
    except (ValueError, AttributeError) as error:
        raise ScanError(
            f"`{path / 'scan.json'}` is damaged ({error}): take another folder (`--out`)"
        ) from error


class Folder:
    """The results of one scan, open to be added to; as a context it closes them.

    Attributes:
        path: the folder.
        begun: whether a scan was begun in it before.
        done: lines whose results are kept.
        counts: of those that were added since it was opened: each action, and `bad`.

    Args:
        path: the folder; is made where it is missing, for its owner alone.
        wanted: what the scan is of; see `header`.

    Raises:
        ScanError: it holds another scan, another process adds to it, or it cannot be written.
    """

    def __init__(self, path: Path, wanted: Mapping[str, Any]) -> None:
        """Lock the folder, and cut off what was not written to its end."""
        self.path = path
        self.counts: Counter[str] = Counter()
        self.begun = False
        self._files: list[int] = []
        self._last: tuple[str, int | None] | None = None
        try:
            path.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._open("verdicts.jsonl")
            self._lock()
            self._name = self._begun(wanted)
            self._open("errors.jsonl")
            self.done = self._recovered()
        except OSError as error:
            self.close()
            raise ScanError(f"`{path}` cannot be written: {error.strerror or error}") from error
        except BaseException:
            self.close()
            raise
        if self.done and STANDARD_INPUT in [each["name"] for each in wanted["files"]]:
            self.close()
            raise ScanError(
                f"`{path}` holds a part of a scan of standard input, which cannot be read again: "
                "save the log to a file and name it, and take another folder (`--out`)"
            )
        self._examples = Examples(path / "examples.jsonl", self.done)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let the files go."""
        while self._files:
            os.close(self._files.pop())

    def keep(self, results: Sequence[Result], journal: Journal | None = None) -> None:
        """Write the results of the next lines; they are on the disk when this returns.

        Args:
            results: in the order of the lines.
            journal: where what is flagged goes, too; before the rows, under an id that is the
                line's own, so that it is there once, however often this was cut short.

        Raises:
            ScanError: they cannot be written.
            JournalError: the journal cannot be.
        """
        good: list[Mapping[str, Any]] = []
        bad: list[Mapping[str, Any]] = []
        for n, result in enumerate(results, self.done):
            row, record = {"n": n, **result.row}, result.record
            if record is not None:
                record = renamed(record, self._record_id(n))
                self._examples.consider(row, record)
            if record is not None and journal is not None:
                _put(journal, record, again=self.begun)
                row["record"] = record.id
            (bad if "error" in row else good).append(row)
            self.counts["bad" if "error" in row else row["action"]] += 1
        try:
            self._examples.write()
            for file, rows in zip(self._files, (good, bad), strict=True):
                _append(file, rows)
        except OSError as error:
            raise ScanError(
                f"`{self.path}` cannot be written: {error.strerror}. Make room; the same command "
                "goes on behind what is kept"
            ) from error
        self.done += len(results)

    def check_last(self, line: Line | None) -> None:
        """Refuse to go on behind a line that is not the last one which is kept.

        A file that could be read only in part, or was changed, has other lines by now.

        Raises:
            ScanError: it is another line.
        """
        if self._last != (line and (line.source, line.number or None)):
            raise ScanError(
                f"the logs have other lines than when `{self.path}` was begun, or more of them can "
                "be read now: scan them into another folder (`--out`)"
            )

    def rows(self) -> Iterator[Mapping[str, Any]]:
        """Yield every row that is kept, verdicts first."""
        for name in ("verdicts.jsonl", "errors.jsonl"):
            yield from rows_of(self.path / name)

    def write(self, name: str, text: str) -> None:
        """Put a file into the folder; it is there whole, or as it was before.

        Raises:
            ScanError: it cannot be written.
        """
        try:
            _write(self.path / name, text)
        except OSError as error:
            raise ScanError(f"`{self.path / name}` cannot be written: {error.strerror}") from error

    def _open(self, name: str) -> None:
        flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | BINARY
        self._files.append(os.open(self.path / name, flags, 0o600))

    def _lock(self) -> None:
        if not try_lock(self._files[0]):
            raise ScanError(
                f"another process scans into `{self.path}`: wait for it, or take another folder "
                "(`--out`)"
            )

    def _begun(self, wanted: Mapping[str, Any]) -> str:
        """Return the name of the scan in the folder: of a new one, or of the same one before."""
        if not (self.path / "scan.json").exists():
            self._check_empty()
            name = secrets.token_hex(16)
            _write(self.path / "scan.json", json.dumps({"scan": name, **wanted}, indent=2) + "\n")
            return name
        self.begun = True
        there = read_header(self.path)
        name = str(there.pop("scan", ""))
        if differing := list(_differences(there, wanted)):
            mend = "go on with the same ones, or take another folder (`--out`):"
            raise ScanError(
                "\n  ".join([f"`{self.path}` holds a scan of something else; {mend}", *differing])
            )
        return name

    def _check_empty(self) -> None:
        """Refuse a folder with files that this scan would write over."""
        there = [name for name in _NAMES if (self.path / name).exists()]
        if there or os.fstat(self._files[0]).st_size:
            names = " and ".join(f"`{name}`" for name in there or ["verdicts.jsonl"])
            raise ScanError(
                f"`{self.path}` holds {names}, and no `scan.json` says of what: take another "
                "folder (`--out`)"
            )

    def _recovered(self) -> int:
        """Cut both files behind the last number up to which none is missing; return how many."""
        done, ends, last = 0, [0, 0], b""
        names = ("verdicts.jsonl", "errors.jsonl")
        read = [_numbers(self.path / name, place) for place, name in enumerate(names)]
        for n, place, end, row in heapq.merge(*read):
            if n != done:
                break
            done, ends[place], last = done + 1, end, row
        if last:
            kept = json.loads(last)
            self._last = (kept["file"], kept["line"])
        for file, end in zip(self._files, ends, strict=True):
            if os.fstat(file).st_size > end:
                os.ftruncate(file, end)
                os.fsync(file)
        return done

    def _record_id(self, n: int) -> str:
        return hashlib.sha256(f"{self._name}:{n}".encode()).hexdigest()[:32]


class Examples:
    """The answers of the highest risk in each category, as the class has texts kept.

    One is written down when it becomes one of them, and what is best of all that were written
    are the same however often a scan was cut short.

    Args:
        path: of their file.
        done: lines that were judged by now; examples of later ones are forgotten.
    """

    def __init__(self, path: Path, done: int) -> None:
        """Read what is there."""
        self._path = path
        self._new: list[dict[str, Any]] = []
        self._best: dict[str, list[tuple[float, int]]] = {}
        self._there = [each for each in rows_of(path) if each["n"] < done]
        for each in self._there:
            self._enters(each)

    def consider(self, row: Mapping[str, Any], record: Record) -> None:
        """Take an answer that was flagged, where it is among the worst."""
        cause = record.reasons[0].partition(":")[0].partition(" ")[0] if record.reasons else ""
        place = {key: row[key] for key in ("n", "file", "line", "id") if key in row}
        example = place | {
            "category": cause,
            "risk": record.risks.get(cause, 1.0),
            "action": record.action,
            "reasons": list(record.reasons),
            "texts": record.text_mode,
            "prompt": _cut(record.prompt),
            "response": _cut(record.response),
        }
        if self._enters(example):
            self._new.append(example)

    def write(self) -> None:
        """Write down what came new.

        Raises:
            OSError: it cannot be written.
        """
        if self._new:
            self._there += self._new
            self._new = []
            _write(self._path, "".join(_text(each) for each in self._there))

    def _enters(self, example: Mapping[str, Any]) -> bool:
        best = self._best.setdefault(example["category"], [])
        best.append((-example["risk"], example["n"]))
        best.sort()
        del best[EXAMPLES:]
        return (-example["risk"], example["n"]) in best


def best_examples(path: Path) -> list[Mapping[str, Any]]:
    """Return the examples that are the worst of their category, those of a category together."""
    found = sorted(rows_of(path), key=lambda each: (each["category"], -each["risk"], each["n"]))
    taken: Counter[str] = Counter()
    shown: list[Mapping[str, Any]] = []
    for each in found:
        taken[each["category"]] += 1
        if taken[each["category"]] <= EXAMPLES:
            shown.append(each)
    return shown


def rows_of(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the rows of a file, up to one that is cut short; none where there is no file."""
    with suppress(FileNotFoundError), path.open("rb") as file:
        for line in file:
            if not _NUMBERED.fullmatch(line):
                return
            yield json.loads(line)


def _numbers(path: Path, place: int) -> Iterator[tuple[int, int, int, bytes]]:
    """Yield number, `place`, end and content of each whole line, up to one that is none."""
    end = 0
    with path.open("rb") as file:
        for line in file:
            found = _NUMBERED.fullmatch(line)
            if found is None:
                return
            end += len(line)
            yield int(found[1]), place, end, line


def _append(file: int, rows: Iterable[Mapping[str, Any]]) -> None:
    content = "".join(map(_text, rows)).encode("ascii")
    while content:
        content = content[os.write(file, content) :]
    os.fsync(file)


def _text(row: Mapping[str, Any]) -> str:
    # ASCII, so that a lone surrogate survives and a line ends nowhere but at its end.
    return json.dumps(row, separators=(",", ":")) + "\n"


def _put(journal: Journal, record: Record, *, again: bool) -> None:
    """Write a row; where it may be there from before, in its place."""
    if again:
        with suppress(JournalError):
            journal.update(record)
            return
    journal.write(record)


def _write(path: Path, text: str) -> None:
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
    try:
        opener = partial(os.open, mode=0o600)
        with open(temporary, "x", encoding="utf-8", newline="\n", opener=opener) as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _cut(text: str | None) -> str | None:
    if text is None or len(text) <= _LENGTH:
        return text
    return text[:_LENGTH].rstrip() + "…"


def _class(security_class: SecurityClass) -> dict[str, str]:
    heads = [_hash(Path(name)) for name in security_class.heads]
    said = {"class": security_class.model_dump(mode="json"), "heads": heads}
    return {"name": security_class.name, "digest": digest(said)}


def _directory(model: Path) -> str:
    """Return the SHA-256 of all files of a model."""
    files = sorted(path for path in model.rglob("*") if path.is_file())
    return digest({str(path.relative_to(model)): _hash(path) for path in files})


def _hash(path: Path) -> str:
    with _readable(path), path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _file(name: str) -> dict[str, Any]:
    if name == STANDARD_INPUT:
        return {"name": name}
    path = Path(name)
    with _readable(path), path.open("rb") as file:
        start = hashlib.sha256(file.read(_HEAD)).hexdigest()
        return {"name": name, "bytes": os.fstat(file.fileno()).st_size, "start": start}


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise ScanError(f"`{path}` cannot be read: {error.strerror}") from error


def _differences(there: Mapping[str, Any], wanted: Mapping[str, Any]) -> Iterator[str]:
    """Yield what differs between two headers, in words."""
    for key in dict.fromkeys([*there, *wanted]):
        before, now = there.get(key), wanted.get(key)
        if before != now:
            yield f"{key}: {_said(before)} there, {_said(now)} now"


def _said(value: Any) -> str:
    if isinstance(value, list):
        return f"[{', '.join(map(_said, value))}]"
    if isinstance(value, dict):
        return " ".join(_said(part)[:80] for part in value.values())
    text = str(value)
    return text[:12] if re.fullmatch(r"[0-9a-f]{64}", text) else text
