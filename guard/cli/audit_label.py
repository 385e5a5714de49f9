"""The terminal of `guard audit label`: one answer after the other, one key each.

Everything shown may come from a model, so nothing is printed that has not been through
`guard.cli.screen.plain`, and nothing of it is read as markup.

This module does not know what labels do to a rate, nor in which order answers should come.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import typer
from rich.panel import Panel
from rich.text import Text

from guard.audit.assemble import labellable
from guard.audit.labels import ENOUGH, Item, queue
from guard.categories import CATEGORIES
from guard.cli.screen import console, errors, plain, plain_text
from guard.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from guard.audit.assemble import Assembled
    from guard.audit.folder import Folder
    from guard.audit.labels import LabelFile

_KEYS: Final = "[y] it does   [n] it does not   [s] skip   [u] undo   [q] quit"
_LENGTH: Final = 4000


def label_answers(folder: Folder) -> None:
    """Ask whoever sits here about one answer after the other.

    Raises:
        AuditError: the audit is not done yet, or its labels are open elsewhere.
        InputError: nothing is left to label.
    """
    assembled = folder.assemble()
    if assembled.plan.deploy is not None:
        errors.print(
            plain_text(
                "This audit may have stopped early, so that labels do not change its bounds; they "
                "are counted in its profile.",
                "yellow",
            ),
            soft_wrap=True,
        )
    with folder.open_labels() as labels:
        _Sitting(assembled, labels).run()
        made = len(labels.labels)
    console.print(f"{made} labels. Count them in: guard audit profile {folder.path}", markup=False)


class _Sitting:
    """One person's time at the terminal."""

    def __init__(self, assembled: Assembled, labels: LabelFile) -> None:
        self._assembled = assembled
        self._labels = labels
        there = labellable(assembled)
        widths = {
            each.figure.name: each.estimate.high - each.estimate.low
            for each in assembled.measured
            if each.figure.kind == "category"
        }
        self._queue = list(queue(there, widths, labels.labels, assembled.plan.seed))
        self._totals: Mapping[str, int] = {name: len(probes) for name, probes in there.items()}
        self._done: list[Item] = []
        if not self._queue:
            raise InputError("every answer that can be labelled has a label")

    def run(self) -> None:
        at = 0
        while at < len(self._queue):
            item = self._queue[at]
            console.print(self._panel(item))
            key = _key()
            if key == "q":
                return
            if key == "u":
                at = self._undo(at)
                continue
            if key in "yn":
                self._labels.add(item, risky=key == "y")
                self._done.append(item)
            at += 1

    def _undo(self, at: int) -> int:
        if not self._done:
            errors.print("Nothing to undo.")
            return at
        item = self._done.pop()
        self._labels.add(item, risky=None)
        return self._queue.index(item)

    def _panel(self, item: Item) -> Panel:
        known = sum(one.category == item.category for one in self._labels.labels)
        plan, said = self._assembled.plan, self._assembled.answers[item.probe].said
        probe = next(probe for probe in plan.probes if probe.id == item.probe)
        lines = Text()
        if system := plan.system_of(plan.planted(probe).probe):
            lines.append("system: ", "bold").append(plain(_cut(system))).append("\n\n")
        for one in said:
            name = {"user": "asked", "assistant": "answered"}.get(one.role, one.role)
            calls = "\n".join(f"{call.name}({call.arguments})" for call in one.tool_calls)
            text = "\n".join(
                part for part in (one.reasoning, one.content, one.refusal, calls) if part
            )
            lines.append(f"{name}: ", "bold").append(plain(_cut(text))).append("\n\n")
        lines.append("Does it carry ", "bold").append(plain(item.category), "bold yellow")
        lines.append("? ", "bold").append(_summary(item.category)).append(f"\n{_KEYS}", "dim")
        total = self._totals[item.category]
        title = f"{item.category}: {known} of {total} labelled, counts from {ENOUGH}"
        return Panel(lines, title=plain_text(title), title_align="left")


def _summary(category: str) -> str:
    known = CATEGORIES.get(category)
    return "" if known is None else known.summary


def _cut(text: str) -> str:
    return text if len(text) <= _LENGTH else f"{text[:_LENGTH]} … ({len(text):,} characters)"


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
