"""What commands that ask a person for labels share: one text after the other, one key each.

This module does not know what is shown, nor where labels are kept.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, TypeVar

import typer
from rich.text import Text

from guard.categories import CATEGORIES
from guard.cli.screen import console, errors, plain
from guard.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from rich.panel import Panel

_T = TypeVar("_T")

_KEYS: Final = "[y] it does   [n] it does not   [s] skip   [u] undo   [q] quit"
_LENGTH: Final = 4000


def ask(
    queue: Sequence[_T],
    panel: Callable[[_T, int], Panel | None],
    keep: Callable[[_T, bool | None], None],
) -> None:
    """Ask whoever sits here about one item after the other.

    Args:
        queue: what to ask about.
        panel: shows an item, of so many that are left; `None` where it is not there any more.
        keep: keeps whether an item carries the risk; `None` takes the last one back.

    Raises:
        InputError: there is no terminal.
    """
    at, done = 0, list[int]()
    while at < len(queue):
        shown = panel(queue[at], len(queue) - at)
        if shown is None:
            at += 1
            continue
        console.print(shown)
        key = _key()
        if key == "q":
            return
        if key == "u":
            at = _undo(queue, done, keep, at)
            continue
        if key in "yn":
            keep(queue[at], key == "y")
            done.append(at)
        at += 1


def _undo(
    queue: Sequence[_T], done: list[int], keep: Callable[[_T, bool | None], None], at: int
) -> int:
    """Take the last label of this sitting back; return where to go on."""
    if not done:
        errors.print("Nothing to undo.")
        return at
    keep(queue[done[-1]], None)
    return done.pop()


def question(category: str, what: str = "it") -> Text:
    """Return what is asked of `what`, and the keys that answer it."""
    known = CATEGORIES.get(category)
    lines = Text(f"Does {what} carry ", "bold")
    lines.append(plain(category), "bold yellow").append("? ", "bold")
    return lines.append("" if known is None else known.summary).append(f"\n{_KEYS}", "dim")


def spoken(name: str, text: str) -> Text:
    """Return an untrusted text under the name of whoever said it; a long one is cut."""
    cut = text if len(text) <= _LENGTH else f"{text[:_LENGTH]} … ({len(text):,} characters)"
    return Text.assemble((f"{name}: ", "bold"), plain(cut), "\n\n")


def _key() -> str:
    """Return the next key of those that mean something; a closed input means `q`."""
    while True:
        try:
            key = typer.getchar().lower()
        except (EOFError, KeyboardInterrupt):
            return "q"
        except OSError as error:
            raise InputError("labels are given by single keys: run this in a terminal") from error
        if not key:
            return "q"
        if key in "ynsuq":
            return key
