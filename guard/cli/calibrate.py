"""`guard calibrate`: refits a model's calibration on labelled rows of one's own.

This module does not know how anything is fitted.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, TypeVar

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Column, Table
from rich.text import Text

from guard.cli.screen import console, errors, fail, plain_text, reported_errors

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import Iterable, Iterator, Sequence

    from guard.labelled import Labelled
    from guard.refit import Change, Measure

_T = TypeVar("_T")

_FEWEST: Final = 20
_FEW: Final = 5


def calibrate(
    labels: Annotated[
        Path, typer.Option("--labels", metavar="FILE", help="Labelled rows, JSON lines or `.gz`.")
    ],
    model: Annotated[
        Path | None, typer.Option("--model", metavar="DIR", help="The bundled one by default.")
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", metavar="DIR", help="The new model.  [default: MODEL-calibrated]"),
    ] = None,
    security_class: Annotated[
        str, typer.Option("--class", "-c", help="Whose priors and limits count.")
    ] = "public",
    fewest: Annotated[
        int,
        typer.Option(min=_FEW, help="Rows of either side below which a category stays as it is."),
    ] = _FEWEST,
    plot: Annotated[
        Path | None,
        typer.Option("--plot", metavar="FILE", help="Write a reliability plot (SVG) here."),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would change.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
) -> None:
    """Fit the evidence to your own traffic: labelled rows in, a recalibrated model out.

    The classifier's scores stay; what changes is how much evidence a score is, per category
    that your rows name. Each line of the file is one exchange:

        {"prompt": "...", "response": "...", "labels": {"hate_toxicity": 1, "violence": 0}}

    A category that `labels` leaves out is unknown, not 0. Give rows of both kinds, at least
    `--fewest` of either side per category; collect the two sides as you like, their ratio does
    not matter. With few rows the result stays near what was shipped (at 20 rows of either side,
    rows and shipped calibration have about equal say), and copies of a row count once. A category
    changes only if the new line predicts rows better that it was not fitted to, by more than a
    standard error.

    The journal keeps no labels. To use what it holds, let `guard flagged label` ask you which
    flags were right, and give its file (or export the journal, and add `"label": 1` to rows whose
    flag was right and `"label": 0` to the others): evidence is then fitted so that evidence and
    the class's prior give the share of flags that were right. That needs a class that journals
    texts (`redacted` or `full`). Such rows say nothing about what no class
    flagged, so all evidence of a category moves alike: a journal can neither tell how much
    evidence grows from score to score nor what was missed. It may raise evidence by 1 at most
    (odds times 2.7), since that of ordinary answers rises with it; where flags are right more often
    than that, raise the class's prior or label rows that were not flagged.

        guard flagged label labels.jsonl     (or by hand: guard flagged export)

        guard calibrate --labels labels.jsonl --dry-run

        guard calibrate --labels mine.jsonl --out models/mine --plot reliability.svg

        guard check answers.jsonl --model models/mine
    """
    with reported_errors():
        _calibrate(labels, model, out, security_class, fewest, plot, dry_run, as_json)


def _calibrate(
    labels: Path,
    model: Path | None,
    out: Path | None,
    security_class: str,
    fewest: int,
    plot: Path | None,
    dry_run: bool,
    as_json: bool,
) -> None:
    # Help must not wait for the model's runtime.
    from guard import labelled, refit  # noqa: PLC0415
    from guard.loading import BUNDLED_MODEL  # noqa: PLC0415
    from guard.policy import load_class  # noqa: PLC0415

    source = model or BUNDLED_MODEL
    target = out or Path(f"{source.resolve().name}-calibrated")
    if target.exists() and not dry_run:
        fail(f"{target} is there already: give another `--out`")
    if plot is not None and plot.exists() and labels.exists() and plot.samefile(labels):
        fail(f"{plot} is the file of the labelled rows: give another `--plot`")
    rows = labelled.read(labels)
    chosen = load_class(security_class)
    changes = refit.refit(source, rows, refit.Settings(chosen, fewest), _tracked)
    with tempfile.TemporaryDirectory() as folder:
        made = Path(folder) / "model"
        version = refit.write(source, made, rows, changes)
        moved = refit.verdict_changes((source, made), rows, chosen, _tracked)
        if plot is not None:
            _write_plot(plot, changes)
        if not dry_run:
            _keep(made, target)
    place = None if dry_run else target
    if as_json:
        _print_json(rows, changes, moved, version, place)
        return
    _print(rows, changes, moved, chosen.name)
    if place is None:
        console.print("\nNothing was written (`--dry-run`).")
    else:
        told = f"\nVersion {version} is in {place}. Use it: guard check --model {place} FILE"
        console.print(plain_text(told), soft_wrap=True)


def _keep(made: Path, target: Path) -> None:
    try:
        shutil.copytree(made, target)
    except OSError as error:
        fail(f"{target} cannot be written: {error.strerror or error}")


def _tracked(items: Iterable[_T], doing: str, total: int) -> Iterator[_T]:
    columns = (TextColumn(doing), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(
        *columns, console=errors, disable=not errors.is_terminal, transient=True
    ) as progress:
        yield from progress.track(items, total=total)


# The report.


def _print(
    rows: Labelled,
    changes: Sequence[Change],
    moved: Counter[tuple[str, str, bool]],
    security_class: str,
) -> None:
    kind = "flagged rows of a journal" if rows.journal else "labelled rows"
    console.print(f"{len(rows.rows):,} {kind}", style="bold")
    if rows.textless:
        console.print(f"{rows.textless:,} more kept no text and cannot be scored")
    table = Table(
        Column("category", no_wrap=True),
        "rows +/-",
        "slope",
        "intercept",
        "ECE before",
        "ECE after",
        "moved",
        "",
    )
    for change in changes:
        table.add_row(
            change.category,
            f"{change.positives}/{change.negatives}",
            _from_to(change.old.slope, change.new.slope),
            _from_to(change.old.intercept, change.new.intercept),
            _error(change.before),
            _error(change.after),
            "" if change.kept else f"{change.moved}",
            Text(f"left: {change.kept}", "dim") if change.kept else Text("refitted", "green"),
        )
    console.print(table)
    if unscored := _unscored(rows, changes):
        told = f"Not scored by this model, and left out: {', '.join(unscored)}"
        console.print(told, style="yellow", soft_wrap=True)
    console.print(
        "ECE: expected calibration error with its 95 % interval, after on rows that the line was "
        f"not fitted to. Moved: rows that reach another limit of class {security_class}.",
        style="dim",
    )
    console.print(f"\n{moved.total()} of these rows change their verdict under {security_class}")
    for (before, after, risky), count in moved.most_common():
        side = "labelled risky" if risky else "labelled fine"
        console.print(f"  {before} -> {after}: {count} {side}", markup=False)


def _unscored(rows: Labelled, changes: Sequence[Change]) -> list[str]:
    """Return categories that rows are labelled for and that the model has no label of."""
    named = {name for row in rows.rows for name in row.labels}
    return sorted(named - {change.category for change in changes})


def _from_to(old: float, new: float) -> str:
    return f"{old:.3f}" if old == new else f"{old:.3f} -> {new:.3f}"


def _error(measure: Measure | None) -> str:
    if measure is None:
        return "-"
    return f"{measure.error.value:.3f} ({measure.error.low:.3f}-{measure.error.high:.3f})"


def _print_json(
    rows: Labelled,
    changes: Sequence[Change],
    moved: Counter[tuple[str, str, bool]],
    version: str,
    place: Path | None,
) -> None:
    report: dict[str, Any] = {
        "rows": len(rows.rows),
        "journal": rows.journal,
        "textless": rows.textless,
        "unscored": _unscored(rows, changes),
        "categories": {change.category: _plain(change) for change in changes},
        "verdicts": [
            {"before": before, "after": after, "risky": risky, "rows": count}
            for (before, after, risky), count in moved.most_common()
        ],
        "version": version,
        "written": None if place is None else str(place),
    }
    typer.echo(json.dumps(report))


def _plain(change: Change) -> dict[str, Any]:
    return {
        "positives": change.positives,
        "negatives": change.negatives,
        "slope": [change.old.slope, change.new.slope],
        "intercept": [change.old.intercept, change.new.intercept],
        "ece": [m and m.error.value for m in (change.before, change.after)],
        "moved": change.moved,
        "kept": change.kept or None,
    }


def _write_plot(path: Path, changes: Sequence[Change]) -> None:
    from guard.plots import reliability_svg  # noqa: PLC0415

    panels = {
        change.category: {"before": change.before.bins, "after": change.after.bins}
        for change in changes
        if change.before is not None and change.after is not None
    }
    try:
        path.write_text(reliability_svg(panels), "utf-8")
    except OSError as error:
        fail(f"{path} cannot be written: {error.strerror}")
