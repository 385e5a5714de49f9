"""`guard model`: the card of a model, its check, and training one.

This module does not know how a model is made or scored.
"""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import typer
from rich.markdown import Markdown

from guard.cli.screen import console, fail, reported_errors
from guard.errors import MissingExtraError

app = typer.Typer(
    no_args_is_help=True,
    help="Look at a classifier, check it, or make one.\n\nWithout a directory: the bundled one.",
)

_Directory = Annotated[Path | None, typer.Argument(help="A model's directory.", show_default=False)]


@app.command()
@reported_errors()
def card(directory: _Directory = None) -> None:
    """Show the model card: data, figures, weak spots. Piped, it stays Markdown.

    guard model card
    """
    path = _path(directory) / "README.md"
    if not path.is_file():
        fail(f"`{path}` is missing: this model has no card")
    text = path.read_text("utf-8")
    if console.is_terminal:
        console.print(Markdown(text))
    else:
        typer.echo(text)


@app.command()
@reported_errors()
def verify(
    directory: _Directory = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Recompute hashes and canonical scores; exit code 2 where something differs.

    guard model verify
    """
    from guard.canonical import check  # noqa: PLC0415  # loads the model's runtime

    path = _path(directory)
    found = check(path)
    if as_json:
        known = None if found.problems else round(found.difference, 6)
        result = {"model": str(path), "problems": list(found.problems), "difference": known}
        typer.echo(json.dumps(result))
        raise typer.Exit(2 if found.problems else 0)
    if found.problems:
        fail("\n".join(found.problems))
    console.print(
        f"{path.name}: every file is as sealed; canonical scores differ by at most "
        f"{found.difference:.4f} logits"
    )


@app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
@reported_errors()
def train(context: typer.Context) -> None:
    """Train a classifier on a folder of labelled rows (needs the extra `train`).

    All options are those of `python -m guard.training.pipeline`.

        guard model train --data rows/ --out models/mine --minutes 40
    """
    if find_spec("torch") is None:
        raise MissingExtraError("torch", "train")
    from guard.training.pipeline import main  # noqa: PLC0415  # loads torch

    main(context.args)


def _path(directory: Path | None) -> Path:
    from guard.loading import BUNDLED_MODEL  # noqa: PLC0415  # loads the model's runtime

    return directory or BUNDLED_MODEL
