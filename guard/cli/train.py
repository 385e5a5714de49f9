"""`guard train`: trains a classifier on labelled rows; needs the extra `train`.

This module does not know how a model is trained.
"""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any, Final

import typer

from guard.cli.screen import reported_errors
from guard.errors import MissingExtraError

SETTINGS: Final[dict[str, Any]] = {
    "allow_extra_args": True,
    "ignore_unknown_options": True,
    "help_option_names": [],
}
"""All options are the trainer's, `--help` too: it alone knows them."""


def train(context: typer.Context) -> None:
    """Train a classifier on a folder of labelled rows (needs the extra `train`).

    Rows are JSON lines, plain or gzip, of `prompt`, `response`, `labels`, `source`, `license`,
    `split` and `meta`. What is marked `"split": "test"` is never read. A run that was cut off
    and is started again with the same options goes on from where it was.

        guard train --data rows/ --out models/mine --minutes 40

        guard train --help
    """
    given = context.args
    if find_spec("torch") is None:
        if "--help" in given:
            typer.echo(context.get_help())
            return
        with reported_errors():
            raise MissingExtraError("torch", "train")
    from guard.training.pipeline import main  # noqa: PLC0415  # loads torch

    with reported_errors():
        main(given)
