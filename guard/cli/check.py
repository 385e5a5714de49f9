"""`guard check`: judges text or JSON lines from files or standard input.

This module does not know how anything is judged.
"""

from __future__ import annotations

import json
import sys
from collections import Counter, deque
from contextlib import contextmanager, nullcontext
from functools import partial
from pathlib import Path  # noqa: TC003  # typer reads it
from typing import IO, TYPE_CHECKING, Annotated, Any, BinaryIO, Final, Literal, cast

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from guard.cli.screen import FAILED, console, discard_output, errors, fail, one_line, plain
from guard.cli.verdicts import STYLES, action_text, cause
from guard.scan.reading import Asked, InputFormat, Item, items

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from guard.engine import Guard
    from guard.exchange import Exchange
    from guard.verdict import Verdict

OutputFormat = Literal["auto", "jsonl", "table"]

_BLOCKED: Final = 1
_SHOWN: Final = 60


def check(  # each is one plain option
    files: Annotated[
        list[str] | None,
        typer.Argument(
            help="Files to judge, `-` for standard input (the default).", metavar="[FILE]..."
        ),
    ] = None,
    security_class: Annotated[
        str,
        typer.Option(
            "--class", "-c", help="A built-in class, or a policy file (`file.yaml#name`)."
        ),
    ] = "public",
    prompt: Annotated[str, typer.Option(help="The user's message that a text answers.")] = "",
    system: Annotated[str, typer.Option(help="The system prompt, which must not leak.")] = "",
    form: Annotated[
        InputFormat,
        typer.Option(
            "--input",
            help="`auto` goes by the file's name; standard input by its first line that is "
            "not blank, or by the next where that is a broken object.",
        ),
    ] = "auto",
    output: Annotated[
        OutputFormat,
        typer.Option("--output", "-o", help="`auto`: a table on a terminal, else jsonl."),
    ] = "auto",
    show_all: Annotated[
        bool, typer.Option("--all", help="List allowed ones in the table too.")
    ] = False,
    journal: Annotated[
        str | None,
        typer.Option(help="Keep what is flagged here: a path, a database URL, or `default`."),
    ] = None,
    model: Annotated[Path | None, typer.Option(help="Another classifier's directory.")] = None,
    workers: Annotated[
        int | None, typer.Option(min=1, help="How many are judged at a time.")
    ] = None,
) -> None:
    """Judge responses and say what may leave, and why.

    A text file is one response. In JSON lines each line is one exchange: an object with
    `response` (text) or `choices`, and if you have them `prompt`, `system` or `messages`,
    `id`, `model`, `metadata`; or only the response, as a JSON string. A `.gz` file is unpacked
    on the way.

    Exit code: 0 nothing was blocked, 1 something was. 2, blocked or not: some input could not be
    read (it is named, by line where it has lines; the rest is still judged), there was none,
    results could not be written, or an option is wrong.

        echo "The password is hunter2-Xk93" | guard check

        guard check answers.jsonl --class regulated -o jsonl > verdicts.jsonl
    """  # typer shows it
    guard = _load(security_class, model, journal)
    as_table = output == "table" or (output == "auto" and console.is_terminal)
    given = files or ["-"]
    progress = _progress(given)
    with _writing(), progress or nullcontext():
        found = _items(given, form, Asked(prompt, system), progress)
        report = _table if as_table else _jsonl
        counts = report(_judged(guard, found, workers), show_all)
        if as_table:
            _summary(counts, guard)
    if not counts:
        fail("there was nothing to judge: the input is empty")
    if counts["bad"]:
        raise typer.Exit(FAILED)
    raise typer.Exit(_BLOCKED if counts["block"] else 0)


def _load(security_class: str, model: Path | None, journal: str | None) -> Guard:
    from guard.engine import NOT_GIVEN, Guard  # noqa: PLC0415  # help must not wait for it

    place = NOT_GIVEN if journal == "default" else journal
    return Guard.load(security_class, model=model, journal=place)


@contextmanager
def _writing() -> Iterator[None]:
    """End with `FAILED` where results cannot be written: 1 would say that something was blocked."""
    try:
        yield
    except (BrokenPipeError, SystemExit):  # the latter is `rich`'s word for it
        discard_output()
        raise typer.Exit(FAILED) from None
    except OSError as error:
        discard_output()
        fail(f"results cannot be written: {error.strerror or error}")


def _progress(files: list[str]) -> Progress | None:
    """Return a progress bar, where somebody watches and there is something to wait for."""
    if not errors.is_terminal or files == ["-"]:
        return None
    columns = (
        TextColumn("judging"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("bytes"),
        TimeRemainingColumn(),
    )
    return Progress(*columns, console=errors, transient=True)


def _items(
    files: list[str], form: InputFormat, asked: Asked, progress: Progress | None
) -> Iterator[Item]:
    watch = None if progress is None else partial(_watched, progress)
    return items(files, form, asked, tell=_tell, watch=watch)


def _watched(progress: Progress, file: IO[bytes], path: Path) -> IO[bytes]:
    return progress.wrap_file(
        cast("BinaryIO", file), total=path.stat().st_size, description=path.name
    )


def _tell(message: str) -> None:
    errors.print(message, markup=False, soft_wrap=True)


def _judged(
    guard: Guard, items: Iterable[Item], workers: int | None
) -> Iterator[tuple[Item, Verdict | None]]:
    """Yield every item in its order, with its verdict where it could be judged."""
    waiting: deque[Item] = deque()

    def good() -> Iterator[Exchange]:
        for item in items:
            waiting.append(item)
            if item.exchange is not None:
                yield item.exchange

    for verdict in guard.check_many(good(), workers=workers):
        while waiting[0].exchange is None:
            yield waiting.popleft(), None
        yield waiting.popleft(), verdict
    while waiting:
        yield waiting.popleft(), None


def _jsonl(results: Iterable[tuple[Item, Verdict | None]], _: bool) -> Counter[str]:
    """Write one JSON object per item; return how many had which action, or were bad."""
    counts: Counter[str] = Counter()
    for item, verdict in results:
        counts[verdict.action if verdict else "bad"] += 1
        sys.stdout.write(json.dumps(_plain_result(item, verdict)) + "\n")
        if verdict is None:
            errors.print(plain(f"{item.place}: {item.problem}"), markup=False, soft_wrap=True)
    sys.stdout.flush()
    return counts


def _plain_result(item: Item, verdict: Verdict | None) -> dict[str, Any]:
    place: dict[str, Any] = {"file": item.source, "line": item.line or None}
    if item.identifier is not None:
        place["id"] = item.identifier
    return place | ({"error": item.problem} if verdict is None else verdict.to_dict())


def _table(results: Iterable[tuple[Item, Verdict | None]], show_all: bool) -> Counter[str]:
    counts: Counter[str] = Counter()
    table = Table("place", "verdict", "why", "risk", "may leave", expand=True)
    single: Verdict | None = None
    for item, verdict in results:
        counts[verdict.action if verdict else "bad"] += 1
        single = verdict if sum(counts.values()) == 1 else None
        if show_all or verdict is None or verdict.action != "allow":
            _add(table, item, verdict)
    if single is not None:
        _one(single)
    elif table.row_count:
        console.print(table)
    return counts


def _add(table: Table, item: Item, verdict: Verdict | None) -> None:
    place = Text(plain(item.place))
    if verdict is None:
        table.add_row(place, Text("bad input", "red"), Text(plain(item.problem)), "", "")
        return
    why, risk = cause(verdict)
    left = Text(one_line(verdict.delivered, _SHOWN), "dim" if verdict.text is None else "")
    table.add_row(place, action_text(verdict), Text(why), risk, left)


def _one(verdict: Verdict) -> None:
    """Show a single verdict at length."""
    console.print(action_text(verdict), end=" ")
    console.print(Text("; ".join(verdict.reasons) or "nothing reached a limit"))
    for name, risk in sorted(verdict.risks.items(), key=lambda pair: -pair[1])[:3]:
        console.print(Text(f"  {name:<20} live risk {risk:.3f}", "dim"))
    console.print(Text("may leave:", "bold"))
    console.print(Text(plain(verdict.delivered)))


def _summary(counts: Counter[str], guard: Guard) -> None:
    total = sum(counts.values())
    parts = [f"{counts[name]} {name}" for name in (*STYLES, "bad") if counts[name]]
    console.print(
        Text(
            f"{total} judged under class {guard.security_class.name}: {', '.join(parts) or 'none'}",
            "bold",
        )
    )
