"""`guard scan`: judges large logs with many processes, and goes on where it was stopped.

This module does not know how anything is judged or kept.
"""

from __future__ import annotations

import io
import os
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from pathlib import Path
from typing import IO, TYPE_CHECKING, Annotated, Any, Final, Literal, cast

import typer
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from guard.cli.screen import FAILED, console, errors, fail, plain, reported_errors
from guard.cli.verdicts import STYLES
from guard.percent import percent

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from guard.journal.store import Journal
    from guard.scan.folder import Folder, Selection
    from guard.scan.scan import Engine
    from guard.scan.work import Settings

EngineName = Literal["local", "ray"]

_BLOCKED: Final = 1
_INTERRUPTED: Final = 130
"""What shells say of a command that Ctrl-C ended."""

_EVERY: Final = 30.0
"""Seconds between two lines about progress where nobody watches a bar."""

_SHOWN: Final = 8
"""Categories in the table at the end."""

_TOLD: Final = 10
"""Bad lines that are named on standard error; all are in `errors.jsonl`."""


def scan(  # each is one plain option
    logs: Annotated[
        list[str],
        typer.Argument(
            help="Files of JSON lines, folders of them (`.jsonl`, `.jsonl.gz`, `.ndjson`), `-` for "
            "standard input.",
            metavar="LOG...",
        ),
    ],
    security_class: Annotated[
        str,
        typer.Option(
            "--class", "-c", help="A built-in class, or a policy file (`file.yaml#name`)."
        ),
    ] = "public",
    out: Annotated[
        Path, typer.Option("--out", "-o", help="The folder for results; made where it is missing.")
    ] = Path("scan"),
    engine: Annotated[
        EngineName,
        typer.Option(help="`local`: processes on this machine. `ray`: actors (extra `ray`)."),
    ] = "local",
    workers: Annotated[
        int | None,
        typer.Option(min=1, help="Processes or actors, one thread each.  [default: cores]"),
    ] = None,
    compare: Annotated[
        list[str] | None,
        typer.Option(
            help="Another class: what would it do, from the same evidence? (repeatable)",
            metavar="CLASS",
        ),
    ] = None,
    texts: Annotated[
        bool, typer.Option("--texts", help="Keep what may be delivered in `verdicts.jsonl`, too.")
    ] = False,
    journal: Annotated[
        str | None,
        typer.Option(help="Keep what is flagged here: a path, a database URL, or `default`."),
    ] = None,
    limit: Annotated[
        int | None, typer.Option(min=1, help="Judge so many lines at most; more with a higher one.")
    ] = None,
    sample: Annotated[
        float,
        typer.Option(min=0, max=1, help="Judge this share of the lines, the same each time."),
    ] = 1.0,
    fail_on: Annotated[
        Literal["block"] | None,
        typer.Option(help="`block`: exit code 1 where something would be blocked."),
    ] = None,
    model: Annotated[Path | None, typer.Option(help="Another classifier's directory.")] = None,
) -> None:
    """Judge logged traffic: what would a class do about each answer in it?

    Lines are as `guard check` reads them: an object with `response` or `choices`, and if you have
    them `prompt`, `system` or `messages`, `id`, `model`, `metadata`, and `created` or `time`. The
    folder then holds `verdicts.jsonl` (a row for each line, in their order, without texts),
    `errors.jsonl` (lines that could not be judged, and why), `summary.json` and `report.html`.

    Stop it whenever you like: the same command goes on behind what is done. Nothing is written
    to a journal unless you say `--journal`.

    Exit code: 0 all was judged, 1 something would be blocked and you said `--fail-on block`, 2
    some lines could not be judged (all others were), or an option is wrong, 130 you stopped it.

        guard scan logs/*.jsonl.gz --class public --out scan/

        guard scan logs/ --compare internal --compare regulated

        guard scan logs/ --engine ray --workers 8
    """  # typer shows it
    if not sample:
        fail("`--sample` is 0: nothing would be judged")
    with reported_errors():
        settings = _settings(security_class, model, compare or (), texts=texts)
        run = _Run(settings, engine, workers or os.cpu_count() or 1, limit)
        summary = _scanned(run, logs, sample, out, journal)
    _table(summary, out)
    if not summary["exchanges"] and not summary["bad"]:
        fail("there was nothing to judge: the logs are empty")
    if summary["bad"]:
        raise typer.Exit(FAILED)
    blocked = summary["actions"]["block"]["count"]
    raise typer.Exit(_BLOCKED if fail_on and blocked else 0)


@dataclass(frozen=True, slots=True)
class _Run:
    """How a scan is run.

    Attributes:
        settings: how lines are judged.
        engine: by which engine.
        workers: its processes or actors.
        limit: lines at most.
    """

    settings: Settings
    engine: EngineName
    workers: int
    limit: int | None


@dataclass
class _Meter:
    """Counts the bytes that are read of files.

    Attributes:
        total: bytes of all of them.
        read: those that were read.
    """

    total: int
    read: int = 0
    began: float = field(default_factory=time.monotonic)

    def watch(self, file: IO[bytes], _: Path) -> IO[bytes]:
        """Return a file that is counted."""
        return cast("IO[bytes]", io.BufferedReader(_Counted(file, self)))

    @property
    def seconds(self) -> float:
        """Seconds since it began."""
        return time.monotonic() - self.began


class _Counted(io.RawIOBase):
    """An open file that tells a meter what is read of it."""

    def __init__(self, file: IO[bytes], meter: _Meter) -> None:
        self._file = file
        self._meter = meter

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        content = self._file.read(len(buffer))
        buffer[: len(content)] = content
        self._meter.read += len(content)
        return len(content)


def _settings(
    security_class: str, model: Path | None, compare: Sequence[str], *, texts: bool
) -> Settings:
    from guard.policy import load_class  # noqa: PLC0415  # help must not wait for it
    from guard.scan.work import Settings  # noqa: PLC0415

    others = tuple(load_class(name) for name in compare)
    names = [each.name for each in others]
    if twice := {name for name in names if names.count(name) > 1}:
        fail(f"`--compare` names {', '.join(f'`{name}`' for name in sorted(twice))} twice")
    return Settings(load_class(security_class), model, others, texts)


def _scanned(
    run: _Run, logs: Iterable[str], sample: float, out: Path, journal: str | None
) -> dict[str, Any]:
    """Judge what is still to be judged; return the summary of all."""
    from guard.loading import BUNDLED_MODEL  # noqa: PLC0415  # as above
    from guard.scan.finish import Speed, finish  # noqa: PLC0415
    from guard.scan.folder import Folder, Selection, header  # noqa: PLC0415
    from guard.scan.reading import files_in  # noqa: PLC0415

    selection = Selection(files_in(logs, out), sample)
    model = run.settings.model or BUNDLED_MODEL
    wanted = header(run.settings, selection, model, journal=journal is not None)
    with Folder(out, wanted) as folder, _journal(journal) as kept:
        if folder.done:
            _say(f"going on behind {folder.done:,} lines that are done")
        meter = _Meter(sum(each.get("bytes", 0) for each in wanted["files"]))
        _judge(run, folder, selection, kept, meter)
        count = folder.counts.total()
        return finish(folder, Speed(run.engine, run.workers, count, meter.seconds))


def _judge(
    run: _Run, folder: Folder, selection: Selection, journal: Journal | None, meter: _Meter
) -> None:
    from guard.scan.scan import scan as walk  # noqa: PLC0415  # as above

    steps = walk(
        folder,
        selection,
        _engine(run),
        limit=run.limit,
        journal=journal,
        watch=meter.watch,
    )
    try:
        with _progress(meter) as show:
            for _ in steps:
                show(folder)
    except KeyboardInterrupt:
        steps.close()
        _say(
            f"stopped: what was judged by then is kept in `{folder.path}`; the same command goes "
            "on behind it"
        )
        raise typer.Exit(_INTERRUPTED) from None


def _engine(run: _Run) -> Engine:
    if run.engine == "ray":
        from guard.adapters.ray import judged as by_ray  # noqa: PLC0415  # needs an extra

        return partial(by_ray, settings=run.settings, workers=run.workers)
    from guard.scan.local import judged  # noqa: PLC0415  # as above

    return partial(judged, settings=run.settings, workers=run.workers)


@contextmanager
def _journal(place: str | None) -> Iterator[Journal | None]:
    if place is None:
        yield None
        return
    from guard.journal.store import Journal  # noqa: PLC0415  # loads SQLAlchemy

    journal = Journal(None if place == "default" else place)
    try:
        yield journal
    finally:
        journal.close()


@contextmanager
def _progress(meter: _Meter) -> Iterator[Any]:
    """Yield what shows how far a folder is: a bar, or a line now and then."""
    if not errors.is_terminal:
        yield _Lines(meter)
        return
    columns = (
        TextColumn("judging"),
        BarColumn(),
        *((TaskProgressColumn(),) if meter.total else ()),
        TextColumn("{task.fields[said]}"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=errors, transient=True) as progress:
        task = progress.add_task("judging", total=meter.total or None, said="")

        def show(folder: Folder) -> None:
            progress.update(task, completed=meter.read, said=_counts(folder, meter))

        yield show


class _Lines:
    """Tells progress in lines on standard error."""

    def __init__(self, meter: _Meter) -> None:
        self._meter = meter
        self._next = _EVERY

    def __call__(self, folder: Folder) -> None:
        """Say how far a folder is, unless that was said just before."""
        if self._meter.seconds < self._next:
            return
        self._next = self._meter.seconds + _EVERY
        read = self._meter.read / self._meter.total if self._meter.total else None
        _say(_counts(folder, self._meter) + (f", {read:.0%} read" if read is not None else ""))


def _counts(folder: Folder, meter: _Meter) -> str:
    rate = folder.counts.total() / max(meter.seconds, 1e-9)
    said = [f"{folder.done:,} lines", f"{rate:.1f}/s"]
    said += [f"{folder.counts[name]:,} {name}" for name in ("block", "bad") if folder.counts[name]]
    return ", ".join(said)


def _say(message: str) -> None:
    errors.print(plain(message), markup=False, soft_wrap=True)


def _table(summary: dict[str, Any], out: Path) -> None:
    """Show what came of it, bad lines on standard error."""
    table = Table("what the class does", "exchanges", "share", "95 % interval")
    for name, each in summary["actions"].items():
        ends = f"{percent(each['low'])} to {percent(each['high'])}"
        row = (f"{each['count']:,}", percent(each["share"]), ends)
        table.add_row(Text(name, STYLES[name]), *row)
    console.print(table)
    if summary["categories"]:
        console.print(_categories(summary["categories"]))
    for name, each in summary["compare"].items():
        counts = ", ".join(f"{item['count']:,} {a}" for a, item in each["actions"].items())
        console.print(Text(plain(f"class {name} would: {counts}")))
    bad = f", {summary['bad']:,} bad" if summary["bad"] else ""
    said = f"{summary['exchanges']:,} judged under class {summary['class']}{bad}"
    console.print(Text(f"{said}; {summary['speed']['rate']:.1f} per second", "bold"))
    console.print(plain(f"report: {out / 'report.html'}"), markup=False, soft_wrap=True)
    _bad(summary["bad"], out)


def _categories(found: dict[str, Any]) -> Table:
    table = Table("category", "reached a limit", "reached the act limit")
    for name, each in list(found.items())[:_SHOWN]:
        table.add_row(plain(name), f"{each['flag']['count']:,}", f"{each['act']['count']:,}")
    return table


def _bad(count: int, out: Path) -> None:
    from guard.scan.folder import rows_of  # noqa: PLC0415  # as above

    path = out / "errors.jsonl"
    for row in islice(rows_of(path), _TOLD):
        place = f"{row['file']}:{row['line']}" if row["line"] else row["file"]
        _say(f"{place}: {row['error']}")
    if count > _TOLD:
        _say(f"and {count - _TOLD:,} more: see `{path}`")
