"""`guard model`: the card of a model, its check, training one, categories of one's own.

This module does not know how a model is made or scored.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.markdown import Markdown

from guard.cli.fit import fit
from guard.cli.screen import console, fail, reported_errors
from guard.cli.train import SETTINGS, train

app = typer.Typer(
    no_args_is_help=True,
    help="Look at a classifier, check it, or make one.\n\nWithout a directory: the bundled one.",
)

app.command()(fit)
# As it was called before `guard train`.
app.command(context_settings=SETTINGS, hidden=True)(train)

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
    try:
        text = path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or error
        fail(f"`{path}` cannot be read: {reason}. A card is Markdown in UTF-8")
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


def _path(directory: Path | None) -> Path:
    from guard.loading import BUNDLED_MODEL  # noqa: PLC0415  # loads the model's runtime

    return directory or BUNDLED_MODEL
