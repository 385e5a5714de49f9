"""`guard serve`: a guarding proxy and the guardrail as a service.

This module does not know how anything is served or judged.
"""

from __future__ import annotations

import sys
from getpass import getpass
from pathlib import Path  # noqa: TC003  # typer reads it
from typing import TYPE_CHECKING, Annotated, Final

import typer
from rich.text import Text

from guard.cli.demo_script import ANSWERS
from guard.cli.screen import errors
from guard.errors import MissingExtraError

if TYPE_CHECKING:
    from guard.server.settings import ServerSettings

_EXTRA: Final = ("fastapi", "httpx2", "jinja2", "prometheus_client", "pydantic_settings", "uvicorn")
"""What the extra `server` brings."""

_JSON: Final = "-H 'content-type: application/json'"
_ASKED: Final = "Which card did I use for the last order?"


def serve(
    security_class: Annotated[
        str | None,
        typer.Option(
            "--class", "-c", help="A built-in class, or a policy file (`file.yaml#name`)."
        ),
    ] = None,
    upstream: Annotated[
        str | None,
        typer.Option(help="The backend to guard, such as `https://api.openai.com`."),
    ] = None,
    demo: Annotated[
        bool, typer.Option("--demo", help="Answer from a scripted backend; needs no model.")
    ] = False,
    host: Annotated[str | None, typer.Option(help="The address to listen on.")] = None,
    port: Annotated[
        int | None, typer.Option(min=0, max=65_535, help="The port; 0 for any that is free.")
    ] = None,
    config: Annotated[
        Path | None, typer.Option(help="A YAML file of settings, client keys and routes.")
    ] = None,
    journal: Annotated[
        str | None, typer.Option(help="A path, a database URL, or `none` for no journal.")
    ] = None,
    language: Annotated[
        str | None, typer.Option(help="The language of messages to end users, such as `de`.")
    ] = None,
    model: Annotated[Path | None, typer.Option(help="Another classifier's directory.")] = None,
    tag: Annotated[
        Path | None, typer.Option(help="The signed tag of the model behind; see `guard tag`.")
    ] = None,
    trust: Annotated[
        list[Path] | None, typer.Option(metavar="FILE", help="A public key to trust (repeatable).")
    ] = None,
    open_to_all: Annotated[
        bool,
        typer.Option("--open", help="Serve without client keys, whoever can reach the address."),
    ] = False,
    hash_key: Annotated[
        bool,
        typer.Option("--hash-key", help="Read a client key, print its hash, and do nothing else."),
    ] = False,
) -> None:
    """Guard a backend for any SDK, and judge texts over HTTP.

    Point an SDK at it: every answer is judged before any of it leaves.

        guard serve --demo

        guard serve --upstream https://api.openai.com --class regulated

    **Paths**: `/v1/chat/completions`, `/v1/responses` and `/v1/messages` are guarded (with
    `--upstream` or `--demo`); `/v1/guard/check`, `/v1/moderations`, LiteLLM's guardrail API and
    the FMS detector API judge what you send; `/health/live`, `/health/ready` and `/metrics`
    are for operators.

    **Settings** come from options, then `GUARD_*` variables (`GUARD_PORT`), then the file of
    `--config`. What may leave is said by the policy file of `--class` alone. It is read anew when
    it changes and on SIGHUP; a wrong one is refused, and the one before it goes on.

    **Tags**: a class may demand a signed tag of the model behind it (`--tag`, `--trust`); which
    model that is stands under `deployed` in the settings file.

    **Clients** without a key are served on this machine only. For others, name each by the hash
    of a key in the settings file:

        guard serve --hash-key

    **Review pages** at `/guard/review`, on which people read the journal and say which flags were
    right, are there where the settings file names hashes of their keys: `review: {keys: [...],
    labels: labels.jsonl}`.

    **Stopping**: after SIGTERM or Ctrl-C new requests get a 503 and running ones may end; a
    second one cuts them off.

    **Workers**: one process has one event loop and judges on as many threads as there are cores.
    For more, run more processes or replicas behind a load balancer: they share the journal.
    """  # typer shows it
    if hash_key:
        _print_hash()
        return
    require_extra()
    from guard.server.configuration import load_settings  # noqa: PLC0415
    from guard.server.run import run  # noqa: PLC0415  # loads the server's packages

    settings = load_settings(
        config,
        security_class=security_class,
        upstream=upstream,
        demo=demo or None,
        host=host,
        port=port,
        journal=journal,
        language=language,
        model=model,
        tag=tag,
        trust=tuple(trust) if trust else None,
        open=open_to_all or None,
    )
    run(settings, demo=ANSWERS, started=lambda url: _introduce(url, settings))


def require_extra() -> None:
    """Name the extra where a package of it is missing."""
    from importlib.util import find_spec  # noqa: PLC0415  # help does not need it

    for package in _EXTRA:
        if find_spec(package) is None:
            raise MissingExtraError(package.replace("_", "-"), "server")


def _introduce(url: str, settings: ServerSettings) -> None:
    """Say where the server is and how to try it."""
    behind = settings.upstream or ("the scripted backend" if settings.demo else "no backend")
    lines = [f"Clearance listens on {url}, class {settings.security_class}, {behind} behind it."]
    if settings.demo:
        body = f'{{"model": "scripted", "messages": [{{"role": "user", "content": "{_ASKED}"}}]}}'
        lines.append(f"Try:  curl {url}/v1/chat/completions {_JSON} -d '{body}'")
        lines.append(f'or:   OpenAI(base_url="{url}/v1", api_key="any")')
    else:
        body = '{"prompt": "Hello?", "response": "Hello."}'
        lines.append(f"Try:  curl {url}/v1/guard/check {_JSON} -d '{body}'")
    for line in lines:
        errors.print(Text(line), soft_wrap=True)


def _print_hash() -> None:
    """Read a key, or make one where none is given, and print its hash."""
    require_extra()
    from guard.server.keys import hash_of, new_key  # noqa: PLC0415

    terminal = sys.stdin.isatty()
    given = getpass("Client key (empty: make one): ") if terminal else sys.stdin.readline()
    key = given.strip()
    if not key:
        key = new_key()
        errors.print(Text(f"The key, shown this once: {key}"), soft_wrap=True)
    typer.echo(hash_of(key))
