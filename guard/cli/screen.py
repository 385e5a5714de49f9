"""What every command shares: two consoles, text made safe for a terminal, the way to fail.

This module does not know any command, nor what a text is about.
"""

from __future__ import annotations

import codecs
import os
import sys
from contextlib import contextmanager, suppress
from io import TextIOWrapper
from typing import TYPE_CHECKING, Final, NoReturn

import typer
from rich.console import Console
from rich.text import Text

from guard.errors import GuardError
from guard.text.visible import one_line, plain

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = (
    "FAILED",
    "console",
    "discard_output",
    "errors",
    "fail",
    "one_line",
    "plain",
    "plain_text",
    "reported_errors",
    "tolerate_encodings",
)

FAILED: Final = 2
"""Exit code where a command could not do its work: bad input, a wrong set-up."""

console: Final = Console(highlight=False)
"""For results; writes to standard output."""

errors: Final = Console(stderr=True, highlight=False)
"""For messages, warnings and progress; writes to standard error."""

_STAND_IN: Final = "clearance.stand_in"
_DRAWN: Final = dict(zip("▁▂▃▄▅▆▇█░·│└─┤", "_.:-=+*#..|+-|", strict=True))
"""What stands where an encoding lacks a character that only pictures have; one column each."""


def plain_text(text: str, style: str = "") -> Text:
    """Return untrusted `text` for a table or panel of `rich`, which reads no markup in it."""
    return Text(plain(text), style=style)


def fail(message: str) -> NoReturn:
    """Print `message`, which may quote untrusted text, as an error and end with exit code 2."""
    errors.print(Text.assemble(("error: ", "bold red"), plain(message)), soft_wrap=True)
    raise typer.Exit(FAILED)


@contextmanager
def reported_errors() -> Iterator[None]:
    """Turn a `GuardError`, whose message says how to mend its cause, into a failed command."""
    try:
        yield
    except GuardError as error:
        fail(str(error))


def tolerate_encodings() -> None:
    r"""Have characters that the terminal's encoding lacks written as escapes (`\u2026`).

    Bars and lines, which commands draw with, have an ASCII character instead.
    """
    codecs.register_error(_STAND_IN, _stand_in)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors=_STAND_IN)


def discard_output() -> None:
    """Lose what standard output still holds back: at exit it would fail once more."""
    with suppress(OSError):  # not every standard output is a file
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _stand_in(error: UnicodeError) -> tuple[str | bytes, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    if drawn := _DRAWN.get(error.object[error.start]):
        return drawn, error.start + 1
    one = UnicodeEncodeError(
        error.encoding, error.object, error.start, error.start + 1, error.reason
    )
    return codecs.backslashreplace_errors(one)
