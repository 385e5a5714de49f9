"""`guard model fit`: a category of one's own from a few examples.

This module does not know how a head is fitted.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from guard.assess import live_risk
from guard.cli.screen import console, errors, plain, plain_text, reported_errors

if TYPE_CHECKING:
    from guard.fitting.examples import Examples
    from guard.heads import OwnHead

_PRIOR: Final = 0.02
"""The default of a security class."""

_FLAG_SHARE: Final = 0.4
_ACT_SHARE: Final = 0.8
"""Of the highest live risk that the head can reach: limits to begin with."""


@reported_errors()
def fit(
    category: Annotated[
        str, typer.Option("--category", help="What to call it: lower-case letters, digits, `_`.")
    ],
    examples: Annotated[
        Path, typer.Option("--examples", metavar="FILE", help="Labelled texts, JSON lines or .gz.")
    ],
    out: Annotated[
        Path | None,
        typer.Option("--out", metavar="FILE", help="The head.  [default: CATEGORY.json]"),
    ] = None,
    model: Annotated[
        Path | None, typer.Option("--model", metavar="DIR", help="The bundled one by default.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
) -> None:
    """Make a category of your own from 20 to 200 examples, in seconds on a CPU.

    Each line of the file is one answer; `label` is 1 where it is of the category (the default)
    and 0 where it only looks like it. Give the prompt where you know it:

        {"text": "Ours costs less than theirs ...", "label": 1}

        {"prompt": "How much is it?", "response": "It is 12 a month.", "label": 0}

    The result is a small file that a policy names under `heads`; it holds none of your texts.
    The figures come from rows that the head had not seen. See docs/own-categories.md.

        guard model fit --category competitor_pricing --examples pricing.jsonl
    """
    # Help must not wait for the model's runtime.
    from guard import fitting  # noqa: PLC0415
    from guard.detectors.classifier import Classifier  # noqa: PLC0415
    from guard.fitting.examples import read  # noqa: PLC0415
    from guard.loading import BUNDLED_MODEL  # noqa: PLC0415

    target = out or Path(f"{category}.json")
    fitting.check_name(category)
    rows = read(examples, category)
    directory = model or BUNDLED_MODEL
    classifier = Classifier(directory)
    with _progress() as progress:
        task = progress.add_task("", total=len(rows.rows))
        head = fitting.make_head(
            classifier,
            category,
            rows.rows,
            sample=fitting.sample_of(directory, classifier),
            advance=lambda: progress.advance(task),
        )
    head.write(target)
    if as_json:
        typer.echo(json.dumps(_report(head, target, rows)))
    else:
        _show(head, target, rows)


def _progress() -> Progress:
    return Progress(
        TextColumn("reading examples"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=errors,
        transient=True,
        disable=not errors.is_terminal,
    )


def _report(head: OwnHead, target: Path, rows: Examples) -> dict[str, Any]:
    return {
        "category": head.category,
        "out": str(target),
        "model": head.model.model_dump(),
        "repeated": rows.repeated,
        "unlabelled": rows.unlabelled,
        "evidence": [head.calibration.minimum, head.calibration.maximum],
        "figures": head.figures,
        "advice": list(head.advice),
        "limit": _limit(head),
    }


def _limit(head: OwnHead) -> dict[str, float]:
    """Return a limit to begin with: within what the evidence can reach at the default prior."""
    highest = live_risk(head.calibration.maximum, _PRIOR)
    return {"flag": round(_FLAG_SHARE * highest, 2), "act": round(_ACT_SHARE * highest, 2)}


def _show(head: OwnHead, target: Path, rows: Examples) -> None:
    figures = head.figures
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_row("examples", _counts(figures, rows))
    for name, against in (("own", "your own label 0"), ("benign", "ordinary texts")):
        if f"auroc_{name}" in figures:
            table.add_row(f"AUROC against {against}", _with_interval(figures[f"auroc_{name}"]))
    if "recall" in figures:
        rate = f"found at {figures['recall']['rate']:.0%} of ordinary texts"
        table.add_row(rate, _with_interval(figures["recall"]))
    lowest, highest = head.calibration.minimum, head.calibration.maximum
    table.add_row("evidence", f"{lowest:+.1f} to {highest:+.1f}")
    console.print(Text.assemble((head.category, "bold"), plain(f" -> {target}")))
    console.print(table)
    for sentence in head.advice:
        console.print(plain_text(f"• {sentence}", "yellow"), soft_wrap=True)
    limit = _limit(head)
    console.print("\nIn a class of your policy (limits to begin with; try them on your traffic):\n")
    console.print(
        plain_text(
            f"    heads: [{json.dumps(target.name)}]\n    limits:\n"
            f"      {head.category}: {{flag: {limit['flag']}, act: {limit['act']}, remedy: block}}"
        ),
        soft_wrap=True,
    )


def _counts(figures: dict[str, Any], rows: Examples) -> str:
    parts = [f"{figures['positives']} with label 1, {figures['negatives']} with label 0"]
    parts.append(f"{figures['benign']} ordinary units of the model's sample")
    if rows.repeated:
        parts.append(f"{rows.repeated} repeated and left out")
    if rows.unlabelled:
        parts.append(f"{rows.unlabelled} without a label and left out")
    return "; ".join(parts)


def _with_interval(figure: dict[str, Any]) -> str:
    low, high = figure["interval"]
    return f"{figure['value']:.3f} ({low:.3f} to {high:.3f})"
