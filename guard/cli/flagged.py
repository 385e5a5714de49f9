"""`guard flagged`: read the journal of flagged, rewritten and blocked responses; label or delete.

Reading makes nothing: where there is no journal, these commands say so and leave it so.
Everything in a row may come from a model or its user, so nothing is printed that has not
been through `guard.cli.screen.plain`, and nothing of it is read as markup.

This module does not know how rows are stored or written.
"""

from __future__ import annotations

import os
import sys
import tempfile
from contextlib import contextmanager
from datetime import datetime  # typer reads it
from enum import StrEnum
from io import TextIOBase, TextIOWrapper
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TextIO, cast

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from guard.categories import CATEGORIES
from guard.cli.rows import page, table
from guard.cli.screen import console, errors, fail, plain, plain_text, reported_errors
from guard.errors import InputError, did_you_mean
from guard.journal import times
from guard.journal.filters import Filters

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from guard.journal.record import Record
    from guard.journal.store import Journal

app = typer.Typer(
    name="flagged",
    help="Read the journal: responses that were flagged, rewritten or blocked. Say which flags "
    "were right (`label`, or `review` in a browser); delete old rows (`purge`).",
    no_args_is_help=True,
    rich_markup_mode="markdown",
)


class Kind(StrEnum):
    """What happened to a response, for `--action`."""

    FLAG = "flag"
    REWRITE = "rewrite"
    BLOCK = "block"


class Delivered(StrEnum):
    """How much of a response left, for `--delivered`."""

    FULL = "full"
    PART = "part"
    NONE = "none"


class Form(StrEnum):
    """What `export` writes."""

    JSONL = "jsonl"
    CSV = "csv"


def moment(text: str) -> datetime:
    """Return the moment that an option's `text` names."""
    try:
        return times.moment(text)
    except InputError as error:
        raise typer.BadParameter(str(error)) from None


def _category_names(incomplete: str) -> list[str]:
    return [name for name in CATEGORIES if name.startswith(incomplete)]


JournalOption = Annotated[
    str | None,
    typer.Option(
        "--journal",
        metavar="PATH|URL",
        envvar="GUARD_JOURNAL",
        help="The journal to read; without it, the file in your state folder.",
        show_default=False,
    ),
]
ActionOption = Annotated[
    Kind | None, typer.Option("--action", help="Only what was flagged, rewritten or blocked.")
]
ClassOption = Annotated[
    str | None, typer.Option("--class", metavar="NAME", help="Only of this security class.")
]
CategoryOption = Annotated[
    str | None,
    typer.Option(
        "--category",
        metavar="NAME",
        autocompletion=_category_names,
        help="Only where this category's live risk is at least `--minimum`.",
    ),
]
MinimumOption = Annotated[
    float | None,
    typer.Option("--minimum", min=0, max=1, help="See `--category`.  [default: 0.5]"),
]
ModelOption = Annotated[
    str | None,
    typer.Option("--model", metavar="NAME", help="Only of this backend model; `''` for none."),
]
DeliveredOption = Annotated[
    Delivered | None,
    typer.Option("--delivered", help="Only where all, a part or nothing of it left."),
]
ShadowOption = Annotated[
    bool | None,
    typer.Option(
        "--shadow/--no-shadow",
        help="Only of classes that watch (`shadow`), or only of those that act.",
        show_default=False,
    ),
]
SinceOption = Annotated[
    datetime | None,
    typer.Option(
        "--since",
        metavar="TIME",
        parser=moment,
        help="Not before this time: `2h`, `7d` (ago), `2025-03-04`, `2025-03-04T05:06`.",
    ),
]
UntilOption = Annotated[
    datetime | None,
    typer.Option(
        "--until", metavar="TIME", parser=moment, help="Before this time, written likewise."
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Write JSON, one row a line.")]


def _filters(  # the commands' options
    *,
    action: Kind | None,
    security_class: str | None,
    category: str | None,
    minimum: float | None,
    model: str | None,
    delivered: Delivered | None,
    shadow: bool | None,
    since: datetime | None,
    until: datetime | None,
) -> Filters:
    if minimum is not None and category is None:
        raise typer.BadParameter("`--minimum` needs a `--category` to apply to")
    return Filters(
        action=action.value if action else None,
        security_class=security_class,
        category=category,
        minimum=0.5 if minimum is None else minimum,
        model=model,
        delivered=delivered.value if delivered else None,
        shadow=shadow,
        since=since,
        until=until,
    )


@app.command("list")
def list_rows(  # each is one option
    *,
    action: ActionOption = None,
    security_class: ClassOption = None,
    category: CategoryOption = None,
    minimum: MinimumOption = None,
    model: ModelOption = None,
    delivered: DeliveredOption = None,
    shadow: ShadowOption = None,
    since: SinceOption = None,
    until: UntilOption = None,
    limit: Annotated[int, typer.Option("--limit", min=1, help="At most so many rows.")] = 50,
    journal: JournalOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show the rows of the journal, the newest first.

    For example, what was blocked for a leaked credential in the last day:

        guard flagged list --action block --category secret_leak --since 1d
    """
    filters = _filters(
        action=action,
        security_class=security_class,
        category=category,
        minimum=minimum,
        model=model,
        delivered=delivered,
        shadow=shadow,
        since=since,
        until=until,
    )
    with reported_errors(), _opened(journal) as rows:
        if rows is None:
            _say(_no_journal(journal), as_json=as_json)
            return
        found = list(rows.list(**filters, limit=limit))
        if as_json:
            _write_json(found)
        if not found:
            _say(_nothing_found(rows, filters), as_json=as_json)
        elif not as_json:
            _print_table(found, rows.count(**filters))


@app.command()
def show(
    *,
    record: Annotated[
        str, typer.Argument(metavar="ID", help="The row's id or how it begins (4 characters).")
    ],
    journal: JournalOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show one row whole: reasons, risks, findings, coverage and texts.

    For example, the row that `guard flagged list` shows as `3f9c2a1b`:

        guard flagged show 3f9c2a1b
    """
    with reported_errors(), _opened(journal) as rows:
        if rows is None:
            fail(_no_journal(journal))
        found = rows.get(record)
    if as_json:
        _write_json([found])
    else:
        console.print(page(found))


@app.command()
def export(  # each is one option
    *,
    file: Annotated[
        str, typer.Argument(metavar="FILE|-", help="Where to write; `-` is standard output.")
    ] = "-",
    form: Annotated[
        Form, typer.Option("--format", help="JSON lines are exact, CSV is for spreadsheets.")
    ] = Form.JSONL,
    action: ActionOption = None,
    security_class: ClassOption = None,
    category: CategoryOption = None,
    minimum: MinimumOption = None,
    model: ModelOption = None,
    delivered: DeliveredOption = None,
    shadow: ShadowOption = None,
    since: SinceOption = None,
    until: UntilOption = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite FILE.")] = False,
    journal: JournalOption = None,
) -> None:
    """Write rows to a file, the newest first.

    The file appears under its name only when it is whole, readable by you alone. In a CSV,
    what a spreadsheet could run as a formula gets an apostrophe before it. It is UTF-8.

    For example, the last week for a spreadsheet:

        guard flagged export week.csv --format csv --since 7d
    """
    filters = _filters(
        action=action,
        security_class=security_class,
        category=category,
        minimum=minimum,
        model=model,
        delivered=delivered,
        shadow=shadow,
        since=since,
        until=until,
    )
    with reported_errors(), _opened(journal) as rows:
        if rows is None:
            fail(_no_journal(journal))
        if file == "-":
            _export(rows.list(**filters), _standard_output(), form)
            return
        total = rows.count(**filters)
        with _new_file(Path(file), force=force) as writing:
            count = _export(_with_progress(rows.list(**filters), total), writing, form)
    errors.print(plain_text(f"{count:,} rows written to {file}"), soft_wrap=True)


@app.command()
def label(  # each is one option
    *,
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="Where labels go, JSON lines; may be there.")
    ],
    action: ActionOption = None,
    security_class: ClassOption = None,
    category: CategoryOption = None,
    minimum: MinimumOption = None,
    model: ModelOption = None,
    delivered: DeliveredOption = None,
    shadow: ShadowOption = None,
    since: SinceOption = None,
    until: UntilOption = None,
    journal: JournalOption = None,
) -> None:
    """Say which flags were right: one key each, for `guard calibrate`.

    Shows prompt and answer of one row after the other, the newest first, and asks for each
    category that it was flagged for. **y** it is risky, **n** it is fine, **s** skip, **u** undo,
    **q** quit. What you say is in FILE at once, readable by you alone; the same command goes on
    where you stopped. With `--category` only that one is asked about.

    Of copies one is asked about. Rows of a class that keeps no texts (`hashed`, `omitted`) and
    rows flagged for a category of your own are passed over and counted. A category changes from
    20 labels of either side on; do not skip those that are hard to tell, which would bend it.

        guard flagged label labels.jsonl --category harassment --since 30d

        guard calibrate --labels labels.jsonl --dry-run

    What was flagged says nothing about what was missed: for that, label ordinary answers as well,
    in a file of their own (`guard calibrate --help`).
    """
    filters = _filters(
        action=action,
        security_class=security_class,
        category=category,
        minimum=minimum,
        model=model,
        delivered=delivered,
        shadow=shadow,
        since=since,
        until=until,
    )
    with reported_errors(), _opened(journal) as rows:
        if rows is None:
            fail(_no_journal(journal))
        total = rows.count(**filters)
        if not total:
            _say(_nothing_found(rows, filters), as_json=False)
            return
        from guard.cli.flagged_label import label_rows  # noqa: PLC0415  # loads the audit

        label_rows(rows, _with_progress(rows.list(**filters), total), file, category)


@app.command()
def review(
    *,
    labels: Annotated[
        Path | None,
        typer.Argument(
            metavar="LABELS.jsonl",
            help="Where labels go, as of `guard flagged label`; may be there. Without it the "
            "pages are for reading only.",
            show_default=False,
        ),
    ] = None,
    port: Annotated[
        int, typer.Option("--port", min=0, max=65_535, help="The port; 0 for any that is free.")
    ] = 0,
    browse: Annotated[bool, typer.Option("--open", help="Open the browser.")] = False,
    journal: JournalOption = None,
) -> None:
    """Read the journal in a browser, and say there which flags were right.

    Serves pages on this machine alone and prints a link, which opens them once. They show rows
    by filter, one row whole with its findings marked, and counts. With LABELS.jsonl each flag has
    buttons: *right*, *wrong*, *take back*. What you say is in the file at once, in the form of
    `guard flagged label`: either goes on where the other stopped. Ctrl-C ends it.

        guard flagged review labels.jsonl --open

        guard calibrate --labels labels.jsonl --dry-run

    For pages that others can open, too: `review` in the settings of `guard serve`. Needs the
    extra `server`.
    """
    from guard.cli.serve import require_extra  # noqa: PLC0415

    require_extra()
    with reported_errors(), _opened(journal) as rows:
        if rows is None:
            fail(_no_journal(journal))
        from guard.cli.flagged_review import review as show_pages  # noqa: PLC0415  # the server

        show_pages(rows, labels, port, browse=browse)


@app.command()
def purge(  # each is one option
    *,
    action: ActionOption = None,
    security_class: ClassOption = None,
    category: CategoryOption = None,
    minimum: MinimumOption = None,
    model: ModelOption = None,
    delivered: DeliveredOption = None,
    shadow: ShadowOption = None,
    since: SinceOption = None,
    until: UntilOption = None,
    every: Annotated[bool, typer.Option("--all", help="Every row, where no filter is given.")] = (
        False
    ),
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask first.")] = False,
    journal: JournalOption = None,
) -> None:
    """Delete rows for good, to keep texts no longer than you may or want to.

    For example, everything older than 90 days, once a day by a timer:

        guard flagged purge --until 90d --yes
    """
    filters = _filters(
        action=action,
        security_class=security_class,
        category=category,
        minimum=minimum,
        model=model,
        delivered=delivered,
        shadow=shadow,
        since=since,
        until=until,
    )
    given = (action, security_class, category, model, delivered, shadow, since, until)
    narrowed = any(each is not None for each in given)
    if every == narrowed:
        raise typer.BadParameter("say which rows, as with `--until 90d`, or `--all`: one of both")
    with reported_errors(), _opened(journal, reading=False) as rows:
        if rows is None:
            _say(_no_journal(journal), as_json=False)
            return
        total = rows.count(**filters)
        if not total:
            _say(_nothing_found(rows, filters), as_json=False)
            return
        if not yes:
            _confirm(total, rows)
        count = sum(_with_bar(rows.purge(**filters), total))
        _say(f"{count:,} {_noun(count)} deleted from {rows.location}", as_json=False)


def _confirm(total: int, journal: Journal) -> None:
    """Ask whether so many rows may go; end the command where they may not."""
    question = f"Delete {total:,} {_noun(total)} from {plain(journal.location)} for good?"
    if not sys.stdin.isatty():
        fail(f"{question} Nobody is there to be asked: give `--yes`")
    if not typer.confirm(question, err=True):
        fail("Nothing was deleted")


def _with_bar(counts: Iterable[int], total: int) -> Iterator[int]:
    with _progress() as progress:
        task = progress.add_task("", total=total)
        for count in counts:
            progress.advance(task, count)
            yield count


def _noun(count: int) -> str:
    return "row" if count == 1 else "rows"


# The journal. The store loads on first use: it brings SQLAlchemy.


@contextmanager
def _opened(url: str | None, *, reading: bool = True) -> Iterator[Journal | None]:
    """Open the journal for the time of a command; `None` where there is none."""
    from guard.journal.store import Journal, exists  # noqa: PLC0415

    if not exists(url):
        yield None
        return
    journal = Journal(url, reading=reading)
    try:
        yield journal
    finally:
        journal.close()


def _no_journal(url: str | None) -> str:
    from guard.journal.store import location  # noqa: PLC0415

    return (
        f"Nothing has been flagged yet: there is no journal at {location(url)}. "
        "Name another with `--journal` or `GUARD_JOURNAL`."
    )


def _nothing_found(journal: Journal, filters: Filters) -> str:
    total = journal.count()
    if not total:
        return f"The journal at {journal.location} is empty: nothing has been flagged yet."
    message = f"None of the {total:,} rows of the journal at {journal.location} matches."
    category = filters.get("category")
    if category is None or category in CATEGORIES:
        return message
    return f"{message} `{category}` is no built-in category{_meant(category)}."


def _meant(category: str) -> str:
    """Return a hint at the category that is meant, by a slip or by one of its words."""
    whole = [name for name in CATEGORIES if category in name.split("_")]
    # Of `leak` there are several: to guess one would mislead.
    return did_you_mean(whole[0] if len(whole) == 1 else category, CATEGORIES)


def _say(message: str, *, as_json: bool) -> None:
    to = errors if as_json else console
    to.print(plain_text(message), soft_wrap=True)


def _print_table(rows: list[Record], total: int) -> None:
    console.print(table(rows, console.width))
    count = f"{len(rows):,} of {total:,}" if len(rows) < total else f"{total:,}"
    console.print(
        f"\n{count} {_noun(total)}. One of them whole: guard flagged show ID", style="dim"
    )


# Files.


def _write_json(rows: Iterable[Record]) -> None:
    from guard.journal.export import json_line  # noqa: PLC0415  # loads the journal

    for row in rows:
        sys.stdout.write(json_line(row))


def _export(rows: Iterable[Record], file: TextIO, form: Form) -> int:
    from guard.journal.export import export as write  # noqa: PLC0415  # loads the journal

    return write(rows, file, form.value)


class _Terminal(TextIOBase):
    """Standard output where a person reads it: a CSV may hold what a terminal obeys."""

    def write(self, text: str) -> int:
        sys.stdout.write(plain(text))
        return len(text)


def _standard_output() -> TextIO:
    if sys.stdout.isatty():
        return cast("TextIO", _Terminal())
    if isinstance(sys.stdout, TextIOWrapper):
        # As in a file that is named: what reads it knows nothing of a terminal's encoding.
        sys.stdout.reconfigure(encoding="utf-8", newline="")
    return sys.stdout


@contextmanager
def _new_file(path: Path, *, force: bool) -> Iterator[TextIO]:
    """Yield a file that takes the name `path` when the block ends well, and is gone otherwise."""
    _refuse_to_overwrite(path, force=force)
    try:
        # Made with mode 0600 in the same folder: renaming is atomic only within a file system.
        number, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".part", dir=path.parent)
    except OSError as error:
        fail(f"{path} cannot be written: {error.strerror}. Name a file in a folder that is there")
    temporary = Path(name)
    try:
        with open(number, "w", encoding="utf-8", newline="") as file:  # noqa: PTH123  # a number
            yield file
            file.flush()
            os.fsync(number)
        _refuse_to_overwrite(path, force=force)
        temporary.replace(path)
    except OSError as error:
        fail(f"{path} cannot be written: {error.strerror}")
    finally:
        temporary.unlink(missing_ok=True)


def _refuse_to_overwrite(path: Path, *, force: bool) -> None:
    if not path.exists():
        return
    if not path.is_file():
        fail(f"{path} is no regular file. To write into a pipe or device, redirect: FILE `-`")
    if not force:
        fail(f"{path} is there already. Give `--force` to overwrite it, or another name")


def _with_progress(rows: Iterable[Record], total: int) -> Iterator[Record]:
    with _progress() as progress:
        yield from progress.track(rows, total=total)


def _progress() -> Progress:
    columns = (TextColumn("rows"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    return Progress(*columns, console=errors, disable=not errors.is_terminal)
