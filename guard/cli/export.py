"""`guard export`: trained weights to a model directory; needs the extra `train`.

This module does not know how a graph is quantised or compared.
"""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from guard.cli.screen import console, fail, reported_errors
from guard.errors import MissingExtraError

if TYPE_CHECKING:
    from collections.abc import Mapping


_Weights = Annotated[
    Path, typer.Option("--weights", metavar="FILE", help="`weights.pt` of a training run.")
]
_Out = Annotated[Path, typer.Option("--out", metavar="DIR", help="The model's directory.")]
_Data = Annotated[
    Path | None,
    typer.Option(
        "--data",
        metavar="DIR",
        help="Labelled rows to compare and calibrate on; by default the project's own.",
    ),
]


def export(
    weights: _Weights,
    out: _Out,
    data: _Data = None,
    windows: Annotated[
        int, typer.Option(min=20, help="Windows that both graphs score for the comparison.")
    ] = 400,
    version: Annotated[str, typer.Option(help="The model's version.")] = "dev",
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
) -> None:
    """Export trained weights: quantise, compare with the float graph, calibrate, seal.

    Several ways to quantise are tried on validation windows; the one whose scores stay nearest
    to the float graph's and that fits the size limit is taken. The report says what it costs:
    the error of a logit, the AUROC lost per category, and how many windows fall on another side
    of a limit of class `public`.

        guard export --weights build/training/weights.pt --out models/mine --data rows/
    """
    with reported_errors():
        if find_spec("torch") is None:
            raise MissingExtraError("torch", "train")
        if out.exists() and not out.is_dir():
            fail(f"{out} is a file: give a directory for `--out`")
        if out.exists() and any(out.iterdir()):
            fail(f"{out} is not empty: give another `--out`")
        if not weights.is_file():
            fail(f"there is no file {weights}: give the `weights.pt` that training left")
        from guard.training.pipeline import export_weights  # noqa: PLC0415  # loads torch

        try:
            report = export_weights(weights, out, data, version, windows)
        except FileNotFoundError as error:
            fail(str(error))
    if as_json:
        typer.echo(json.dumps(report))
    else:
        _print(report)


def _print(report: Mapping[str, Any]) -> None:
    table = Table("way", "MB", "ms a window", "mean error", "99 %", "largest", "")
    for name, tried in report["tried"].items():
        table.add_row(
            name,
            f"{tried['bytes'] / 1e6:.1f}",
            f"{tried['milliseconds']:.1f}",
            *(f"{tried[key]:.3f}" for key in ("mean", "p99", "largest")),
            "taken" if name == report["taken"] else "",
        )
    console.print(table)
    lost = {name: value for name, value in report["auroc_lost"].items() if value is not None}
    worst = sorted(lost.items(), key=lambda pair: -pair[1])[:5]
    named = ", ".join(f"{name} {value:+.4f}" for name, value in worst) or "no category has both"
    console.print(f"AUROC lost to the float graph on {report['windows']} windows, worst: {named}")
    flips = report["flips"]
    console.print(
        f"On another side of a limit of class public: {flips['windows']} of {report['windows']} "
        f"windows (95 %: {flips['low']:.2%}-{flips['high']:.2%})"
    )
