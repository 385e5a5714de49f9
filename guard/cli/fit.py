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
from guard.cli.screen import console, errors, fail, plain, plain_text, reported_errors

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
    force: Annotated[bool, typer.Option("--force", help="Overwrite the file of a head.")] = False,
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
    _refuse_to_overwrite(target, examples, force=force)
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
    _refuse_to_overwrite(target, examples, force=force)
    head.write(target)
    if as_json:
        typer.echo(json.dumps(_report(head, target, rows)))
    else:
        _show(head, target, rows)


def _refuse_to_overwrite(target: Path, examples: Path, *, force: bool) -> None:
    if not target.exists():
        return
    if examples.exists() and target.samefile(examples):
        fail(f"{target} is the file of the examples: give another `--out`")
    if not force:
        fail(f"{target} is there already. Give `--force` to overwrite it, or another `--out`")


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
    """Return a limit to begin with: within what the evidence can reach at the default prior.

    Text that is no evidence at all has the prior as its live risk, and must stay below. Where the
    evidence is too weak for two limits above that there is only `flag`, or nothing.
    """
    highest = live_risk(head.calibration.maximum, _PRIOR)
    flag, act = (round(share * highest, 2) for share in (_FLAG_SHARE, _ACT_SHARE))
    if flag > _PRIOR:
        return {"flag": flag, "act": act}
    return {"flag": act} if act > _PRIOR else {}


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
    _show_limit(head, target)


def _show_limit(head: OwnHead, target: Path) -> None:
    limit = _limit(head)
    if "act" not in limit:
        highest = live_risk(head.calibration.maximum, _PRIOR)
        reach = f"At a prior of {_PRIOR}, which is any text's live risk, this reaches {highest:.2f}"
        text = "too weak to act on. Add examples"
        console.print(plain_text(f"\n{reach} at most: {text}.", "yellow"), soft_wrap=True)
    if not limit:
        return
    parts = [f"{name}: {value}" for name, value in limit.items()]
    parts += ["remedy: block"] if "act" in limit else []
    console.print("\nIn a class of your policy (limits to begin with; try them on your traffic):\n")
    console.print(
        plain_text(
            f"    heads: [{json.dumps(target.name)}]\n    limits:\n"
            f"      {head.category}: {{{', '.join(parts)}}}"
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
