"""`guard keys`: the keys that tags are signed and checked with.

This module does not know what is signed.
"""

from __future__ import annotations

import json
import os
from pathlib import Path  # noqa: TC003  # typer reads it
from typing import Annotated, Final

import typer
from rich.table import Table

from guard.audit.keys import PublicKey, SigningKey, is_private, needs_passphrase
from guard.cli.screen import console, errors, fail, plain_text, reported_errors

VARIABLE: Final = "GUARD_KEY_PASSPHRASE"
"""Where a passphrase is taken from before anybody is asked."""

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode="markdown",
    help="Make and show the keys that tags are signed with.\n\n"
    "Whoever has the private key decides what may be deployed: keep it where only the signer "
    "is. The public key goes wherever models are deployed.",
)

JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@app.command()
@reported_errors()
def new(
    out: Annotated[
        Path,
        typer.Option("--out", metavar="DIR/NAME", help="Writes `NAME.key` and `NAME.pub` there."),
    ],
    ask: Annotated[
        bool,
        typer.Option("--passphrase", help=f"Ask for a passphrase. Or set `{VARIABLE}`."),
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Make a pair of keys (Ed25519). A key that is there is never overwritten.

        guard keys new --out ~/keys/release --passphrase

    `release.key` is private (PKCS#8, mode 0600); `release.pub` is for everybody who checks.
    """
    passphrase = (
        typer.prompt("passphrase", hide_input=True, confirmation_prompt=True, err=True)
        if ask
        else os.environ.get(VARIABLE)
    )
    key = SigningKey.new()
    private, public = key.write(out, passphrase)
    if as_json:
        typer.echo(json.dumps({"id": key.id, "private": str(private), "public": str(public)}))
        return
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_row("key", key.id)
    table.add_row("private", plain_text(str(private)))
    table.add_row("public", plain_text(str(public)))
    console.print(table)
    if passphrase is None:
        errors.print("The private key has no passphrase: keep it out of repositories and images.")


@app.command()
@reported_errors()
def show(
    file: Annotated[Path, typer.Argument(help="A private or a public key.")],
    as_json: JsonOption = False,
) -> None:
    """Show a key's id, by which a tag names its signer.

    guard keys show release.pub
    """
    private = is_private(file)
    identifier = read_private(file).id if private else PublicKey.read(file).id
    kind = "private" if private else "public"
    if as_json:
        typer.echo(json.dumps({"id": identifier, "kind": kind}))
    else:
        console.print(f"{identifier}  {kind}", soft_wrap=True)


def read_private(path: Path) -> SigningKey:
    """Return a private key, with the passphrase of the environment or of whoever sits here."""
    passphrase = os.environ.get(VARIABLE)
    if passphrase is None and needs_passphrase(path):
        if not errors.is_terminal:
            fail(f"key `{path}` is encrypted, and nobody can be asked here: set `{VARIABLE}`")
        passphrase = typer.prompt(f"passphrase of {path.name}", hide_input=True, err=True)
    return SigningKey.read(path, passphrase)
