"""The terminal of `guard audit label`: one answer after the other, one key each.

Everything shown may come from a model, so nothing is printed that has not been through
`guard.cli.screen.plain`, and nothing of it is read as markup.

This module does not know what labels do to a rate, nor in which order answers should come.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.panel import Panel
from rich.text import Text

from guard.audit.assemble import labellable
from guard.audit.labels import ENOUGH, Item, queue
from guard.cli.labelling import ask, question, spoken
from guard.cli.screen import console, errors, plain_text
from guard.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from guard.audit.assemble import Assembled
    from guard.audit.folder import Folder
    from guard.audit.labels import LabelFile


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
        if not self._queue:
            raise InputError("every answer that can be labelled has a label")

    def run(self) -> None:
        ask(self._queue, self._panel, lambda item, risky: self._labels.add(item, risky=risky))

    def _panel(self, item: Item, _: int) -> Panel:
        known = sum(one.category == item.category for one in self._labels.labels)
        plan, said = self._assembled.plan, self._assembled.answers[item.probe].said
        probe = next(probe for probe in plan.probes if probe.id == item.probe)
        lines = Text()
        if system := plan.system_of(plan.planted(probe).probe):
            lines.append_text(spoken("system", system))
        for one in said:
            name = {"user": "asked", "assistant": "answered"}.get(one.role, one.role)
            calls = "\n".join(f"{call.name}({call.arguments})" for call in one.tool_calls)
            text = "\n".join(
                part for part in (one.reasoning, one.content, one.refusal, calls) if part
            )
            lines.append_text(spoken(name, text))
        lines.append_text(question(item.category))
        total = self._totals[item.category]
        title = f"{item.category}: {known} of {total} labelled, counts from {ENOUGH}"
        return Panel(lines, title=plain_text(title), title_align="left")
