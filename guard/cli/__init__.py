"""The command line: `guard`.

Each command lives in a module of its own. This one only mounts them, sends log lines to
standard error and turns the package's own errors, and results that cannot be written, into a
message and exit code 2. Where nobody reads the results any more a command ends without a
message, with 2 or, where Typer or rich notice it first, 1. Where a detector still hangs at the
end, it leaves without the interpreter's own exit, which could abort and cost the exit code.

This module does not know what any command does.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import sys
from typing import Annotated, Final, NoReturn

import structlog
import typer

from guard import __version__
from guard.cli import audit, flagged, keys, live, model, tag
from guard.cli.calibrate import calibrate
from guard.cli.check import check
from guard.cli.classes import classes
from guard.cli.demo import demo
from guard.cli.export import export
from guard.cli.scan import scan
from guard.cli.screen import FAILED, discard_output, errors, plain, tolerate_encodings
from guard.cli.serve import serve
from guard.cli.train import SETTINGS, train
from guard.errors import GuardError
from guard.workers import finish

_UNWRITTEN: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO})
"""What a write to a full or broken disk fails with."""

app = typer.Typer(
    name="guard",
    no_args_is_help=True,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    help="Clearance: holds back what a language model should not say.\n\n"
    "Start with `guard demo`, then judge your own text with `guard check`.",
)
app.command()(demo)
app.command()(check)
app.command()(scan)
app.command()(serve)
app.command()(classes)
app.command()(calibrate)
app.command(context_settings=SETTINGS)(train)
app.command()(export)
app.add_typer(flagged.app, name="flagged")
app.add_typer(model.app, name="model")
app.add_typer(live.app, name="live")
app.add_typer(audit.app, name="audit")
app.add_typer(keys.app, name="keys")
app.add_typer(tag.app, name="tag")


def _version(value: bool) -> None:  # typer's callback signature
    if value:
        typer.echo(f"guard {__version__}")
        raise typer.Exit


@app.callback()
def _common(
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help="Show log events on standard error.")
    ] = False,
    _: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    _send_logs_to_stderr(logging.INFO if verbose else logging.ERROR)


def _send_logs_to_stderr(level: int) -> None:
    """Configure logging, which only an application may do: results go to standard output."""
    structlog.configure(
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )


def main() -> None:
    """Run the command line; the entry point of `guard`."""
    tolerate_encodings()
    try:
        code = _run()
        if sys.stdout is not None:
            sys.stdout.flush()
    except BrokenPipeError:
        discard_output()
        code = FAILED
    except OSError as error:
        if error.filename is not None or error.errno not in _UNWRITTEN:
            raise
        discard_output()
        with contextlib.suppress(OSError):  # which may be where standard error goes, too
            _tell(f"the results cannot be written: {error.strerror}. Make room, or write elsewhere")
        code = FAILED
    _leave(code)


def _run() -> int:
    """Run the command that was asked for; return its exit code."""
    try:
        app()
    except GuardError as error:
        _tell(str(error))
        return FAILED
    except SystemExit as ended:
        if _closed(ended):
            raise BrokenPipeError from ended
        # Typer ends every command so, with a number.
        return ended.code if isinstance(ended.code, int) else int(ended.code is not None)
    return 0


def _closed(ended: SystemExit) -> bool:
    """Return whether a command ended since nobody reads its output.

    Typer and `rich` end it with 1 then, which says here that something is not good.
    """
    why: BaseException | None = ended
    while why is not None and not isinstance(why, BrokenPipeError):
        why = why.__context__
    return ended.code == 1 and why is not None


def _tell(message: str) -> None:
    errors.print("error: ", style="bold red", end="")
    errors.print(plain(message), markup=False, soft_wrap=True)


def _leave(code: int) -> NoReturn:
    """End the process with `code`, even where a detector never comes back."""
    if finish():
        sys.exit(code)
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):  # closed, or nobody reads it
            stream.flush()
    os._exit(code)
