"""Logged exchanges from files, folders and standard input: lines as they stand, and as exchanges.

This module does not know how anything is judged, and not who watches.
"""

from __future__ import annotations

import gzip
import json
import os
import re
import sys
import zlib
from codecs import BOM_UTF8
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Final, Literal, NoReturn, cast

from guard.errors import InputError
from guard.exchange import Exchange
from guard.json_lines import parsed, utf8, utf8_lines

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    Watch = Callable[[IO[bytes], Path], IO[bytes]]
    """Returns what stands for an open file, such as one that counts what is read of it."""

InputFormat = Literal["auto", "text", "jsonl"]
"""What a file holds; `auto` goes by its name, and by its first lines where it has none."""

STANDARD_INPUT: Final = "-"

SUFFIXES: Final = (".jsonl", ".ndjson", ".jsonl.gz", ".ndjson.gz")
"""How the names of files end that hold JSON lines."""

_MEANT: Final = re.compile(
    rb'(?:\xef\xbb\xbf)?\s*\{\s*"(?:response|choices|prompt|system|messages|id|model|metadata)"\s*:'
)
"""How a line begins that is meant as an exchange, be it whole or broken."""

_TAKEN_AS_LINES: Final = (
    "standard input is taken as JSON lines although its first line is broken: if it is one text, "
    "say `--input text`"
)
_TAKEN_AS_TEXT: Final = (
    "standard input is judged as one text although it begins like an exchange, since its first "
    "line is no JSON: if it holds JSON lines, say `--input jsonl`"
)


@dataclass(frozen=True, slots=True)
class Line:
    """One line as it stands in its file.

    Attributes:
        source: the file's name, `-` for standard input.
        number: its line, one-based; 0 where the file itself cannot be read.
        content: what it holds, in UTF-8.
        problem: why the file cannot be read, or read on, `""` where it can.
    """

    source: str
    number: int
    content: bytes
    problem: str = ""


@dataclass(frozen=True, slots=True)
class Item:
    """One thing to judge.

    Attributes:
        source: the file's name, `-` for standard input.
        line: its line, one-based; 0 where the whole file is one text.
        exchange: what to judge, `None` where the line is bad.
        problem: what is wrong with the line, `""` where nothing is.
        identifier: the line's own `id`, `None` where it has none.
        data: the object that the line holds, empty where it is bad or a text.
    """

    source: str
    line: int
    exchange: Exchange | None
    problem: str = ""
    identifier: Any = None
    data: dict[str, Any] | None = None

    @property
    def place(self) -> str:
        """The place for people, such as `answers.jsonl:12`."""
        return f"{self.source}:{self.line}" if self.line else self.source


@dataclass(frozen=True, slots=True)
class Asked:
    """What all texts and lines answer that do not say so themselves.

    Attributes:
        prompt: the user's message.
        system: the system prompt.
    """

    prompt: str = ""
    system: str = ""


NOTHING_ASKED: Final = Asked()


def items(
    files: Iterable[str],
    form: InputFormat,
    asked: Asked,
    *,
    tell: Callable[[str], None],
    watch: Watch | None = None,
) -> Iterator[Item]:
    """Yield what some files hold, one text or a line each.

    Args:
        files: their names, `-` for standard input.
        form: what they hold.
        asked: what is answered.
        tell: told how standard input is taken, where that may be wrong.
        watch: see `Watch`.
    """
    for name in files:
        try:
            with _opened(name, watch) as file:
                yield from _read(name, file, form, asked, tell)
        except (OSError, EOFError, zlib.error) as error:  # gzip raises any of them
            yield Item(name, 0, None, _unreadable(error))


def lines(files: Iterable[str], watch: Watch | None = None) -> Iterator[Line]:
    """Yield the lines of files of JSON lines that are not blank, in their order.

    Behind what can be read of a file, one with a problem says why no more can.
    """
    for name in files:
        try:
            with _opened(name, watch) as file:
                for number, content in enumerate(utf8_lines(file), start=1):
                    if content.strip():
                        yield Line(name, number, content)
        except (OSError, EOFError, zlib.error) as error:
            yield Line(name, 0, b"", _unreadable(error))


def item(line: Line, asked: Asked = NOTHING_ASKED) -> Item:
    """Return what a line holds."""
    if line.problem:
        return Item(line.source, line.number, None, line.problem)
    try:
        data = _object(line.content)
        exchange = Exchange.of(Exchange.parse(data), prompt=asked.prompt, system=asked.system)
    except InputError as error:
        return Item(line.source, line.number, None, str(error))
    return Item(line.source, line.number, exchange, identifier=data.get("id"), data=data)


def files_in(names: Iterable[str], apart: Path) -> tuple[str, ...]:
    """Return the files that are named, of a folder all that hold JSON lines, sorted by name.

    Args:
        names: of files and folders, `-` for standard input.
        apart: a folder of which nothing is taken, such as that of the results.

    Raises:
        InputError: one is not there, comes twice, or is a folder without any; all at once.
    """
    found: list[str] = []
    problems: list[str] = []
    for name in names:
        there, problem = _files_of(name, apart.resolve())
        found += there
        problems += [problem] if problem else []
    problems += _named_twice(found)
    if problems:
        raise InputError("\n".join(problems))
    return tuple(found)


def _files_of(name: str, apart: Path) -> tuple[list[str], str]:
    """Return the files that a name stands for, or what is wrong with it."""
    path = Path(name)
    if name == STANDARD_INPUT or path.is_file():
        return [name], ""
    if not path.is_dir():
        there = "is no file and no folder" if path.exists() else "is not there"
        return [], f"`{name}` {there}: name files of JSON lines, or folders that hold some"
    try:
        inside = [each for each in _within(path) if apart not in each.resolve().parents]
    except OSError as error:
        return [], f"`{error.filename}` cannot be read: {error.strerror}"
    held = sorted(str(each) for each in inside if _holds_lines(each))
    endings = ", ".join(f"`{ending}`" for ending in SUFFIXES)
    return held, "" if held else f"`{name}` holds no file that ends in {endings}"


def _within(path: Path) -> Iterator[Path]:
    """Yield everything in a folder, at any depth.

    Raises:
        OSError: some of it cannot be read, which would be left out unnoticed.
    """

    def refuse(error: OSError) -> NoReturn:
        raise error

    for place, _, names in os.walk(path, onerror=refuse):
        yield from (Path(place, name) for name in names)


def _named_twice(names: Iterable[str]) -> Iterator[str]:
    """Yield a problem for each name of a file that another name stands for, too."""
    known: dict[str, str] = {}
    for name in names:
        real = os.path.realpath(name)
        if real in known:
            yield f"`{name}` is named twice, as `{known[real]}`: leave one out"
        known.setdefault(real, name)


def _holds_lines(path: Path) -> bool:
    return path.name.endswith(SUFFIXES) and path.is_file()


def _unreadable(error: Exception) -> str:
    return f"cannot be read: {getattr(error, 'strerror', None) or error}"


@contextmanager
def _opened(name: str, watch: Watch | None) -> Iterator[IO[bytes]]:
    if name == STANDARD_INPUT:
        yield sys.stdin.buffer
        return
    path = Path(name)
    with path.open("rb") as raw:
        file: IO[bytes] = raw if watch is None else watch(raw, path)
        if name.endswith(".gz"):
            with gzip.GzipFile(fileobj=file) as unpacked:
                yield cast("IO[bytes]", unpacked)
        else:
            yield file


def _read(
    name: str, file: IO[bytes], form: InputFormat, asked: Asked, tell: Callable[[str], None]
) -> Iterator[Item]:
    if form == "text" or (name != STANDARD_INPUT and not _named_lines(form, name)):
        yield from _text_item(name, utf8(file.read()), asked)
        return
    content = utf8_lines(file)
    if _named_lines(form, name):
        yield from _read_lines(name, content, asked)
        return
    head = _head(content)
    if _are_lines(head, tell):
        yield from _read_lines(name, chain(head, content), asked)
    else:
        yield from _text_item(name, b"".join(chain(head, content)), asked)


def _named_lines(form: InputFormat, name: str) -> bool:
    return form == "jsonl" or (form == "auto" and name.endswith(SUFFIXES))


def _head(file: Iterator[bytes]) -> list[bytes]:
    """Return the lines of a file up to the first that is neither blank nor a broken object."""
    head: list[bytes] = []
    for line in file:
        head.append(line)
        if line.strip() and not (_opens(line) and not _is_json_object(line)):
            break
    return head


def _are_lines(head: list[bytes], tell: Callable[[str], None]) -> bool:
    """Return whether a file that begins so holds JSON lines; say so where its first is broken.

    Prose may begin with a brace: only an exchange further down makes a broken line one of many.
    """
    first = next(filter(bytes.strip, head), b"")
    if _is_json_object(first):
        return True
    taken = _opens(first) and _is_exchange(head[-1])
    if taken:
        tell(_TAKEN_AS_LINES)
    elif _MEANT.match(first):
        tell(_TAKEN_AS_TEXT)
    return taken


def _opens(line: bytes) -> bool:
    return line.removeprefix(BOM_UTF8).lstrip().startswith(b"{")


def _is_json_object(line: bytes) -> bool:
    try:
        return isinstance(json.loads(line), dict)
    except (json.JSONDecodeError, UnicodeDecodeError):
        return False
    except (ValueError, RecursionError):  # JSON beyond what Python reads; see `parsed`
        return _opens(line)


def _is_exchange(line: bytes) -> bool:
    try:
        Exchange.parse(_object(line))
    except InputError:
        return False
    return True


def _text_item(name: str, content: bytes, asked: Asked) -> Iterator[Item]:
    """Yield a file's one text, unless it is empty: of nothing, `allow` would be no verdict."""
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        yield Item(name, line, None, f"not valid UTF-8 ({error.reason}): save it as UTF-8")
        return
    if text:
        yield Item(name, 0, Exchange.of(text, prompt=asked.prompt, system=asked.system))


def _read_lines(name: str, content: Iterable[bytes], asked: Asked) -> Iterator[Item]:
    for number, line in enumerate(content, start=1):
        if line.strip():
            yield item(Line(name, number, line), asked)


def _object(line: bytes) -> dict[str, Any]:
    """Return what a line holds; raise `InputError` where that is no exchange."""
    data = parsed(line)
    if isinstance(data, str):
        data = {"response": data}
    if not isinstance(data, dict):
        raise InputError("not a JSON object with `response` or `choices`")
    return data
