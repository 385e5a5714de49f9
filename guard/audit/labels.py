"""What a person says of single answers: whether they carry the risk that was looked for.

Labels are kept at once and for good, in a file beside the answers; one that is taken back is
written over by a later line.

Labels mend rates only where the labelled answers were drawn at random. So within a category the
order is drawn, whatever the answers look like; which *category* comes next is the one whose
rate is known least. Whoever skips answers because they are hard to tell bends the result.

This module does not know a terminal, and not what the labels do to a rate.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from guard.audit.lines import LineFile

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path
    from typing import Self

FORMAT: Final = "clearance-audit-labels/1"

ENOUGH: Final = 30
"""Labels from which on a category's rate rests on them."""


class Item(NamedTuple):
    """One answer, and the category that it is looked at for."""

    probe: str
    category: str


class LabelFile:
    """A file of labels; see `LineFile`.

    Args:
        path: is made where it is missing.
        plan: digest of the plan that the answers belong to.

    Raises:
        AuditError: it belongs to another plan, is open elsewhere, or is damaged.
    """

    def __init__(self, path: Path, plan: str) -> None:
        """Open the file and read what is there."""
        self._file = LineFile(path, {"format": FORMAT, "plan": plan})
        self._labels: dict[Item, bool] = {}
        for number, row in enumerate(self._file.rows, start=2):
            try:
                self._take(*_label(row))
            except TypeError as error:
                self._file.__exit__()
                raise self._file.damaged(number, error) from error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.__exit__()

    @property
    def labels(self) -> Mapping[Item, bool]:
        """Whether each labelled answer carries the risk."""
        return dict(self._labels)

    def add(self, item: Item, *, risky: bool | None) -> None:
        """Keep a label, `None` to take it back; it is on the disk when this returns."""
        self._file.add({"probe": item.probe, "category": item.category, "risky": risky})
        self._take(item, risky)

    def _take(self, item: Item, risky: bool | None) -> None:  # noqa: FBT001  # as it is kept
        if risky is None:
            self._labels.pop(item, None)
        else:
            self._labels[item] = risky


def _label(row: Mapping[str, Any]) -> tuple[Item, bool | None]:
    """Return a line's label; raises `TypeError` where it is none."""
    probe, category, risky = (row.get(key, ...) for key in ("probe", "category", "risky"))
    if not (isinstance(probe, str) and isinstance(category, str)):
        raise TypeError("`probe` and `category` must be text")
    if not (risky is None or isinstance(risky, bool)):
        raise TypeError("`risky` must be true, false or null")
    return Item(probe, category), risky


def read(path: Path, plan: str) -> Mapping[Item, bool]:
    """Return the labels of a plan, none where there is no file.

    Raises:
        AuditError: see `LabelFile`.
    """
    if not path.exists():
        return {}
    with LabelFile(path, plan) as file:
        return file.labels


def queue(
    answers: Mapping[str, Iterable[str]],
    widths: Mapping[str, float],
    labels: Mapping[Item, bool],
    seed: int,
) -> Sequence[Item]:
    """Return what to label next, the most informative first.

    Categories take turns of `ENOUGH` answers, the one with the widest interval first: fewer
    labels do not count, and more of them help the next category more.

    Args:
        answers: ids of the probes whose answers count for each category.
        widths: how wide each category's interval is.
        labels: those that are there; they are not asked for again.
        seed: draws the order within a category.
    """
    turns: list[tuple[int, float, str, int, Item]] = []
    for category, probes in answers.items():
        drawn = sorted(probes, key=lambda probe: _drawn(seed, category, probe))
        for place, probe in enumerate(drawn):
            turn = (place // ENOUGH, -widths.get(category, 0.0), category, place)
            turns.append((*turn, Item(probe, category)))
    return [item for *_, item in sorted(turns) if item not in labels]


def _drawn(seed: int, category: str, probe: str) -> bytes:
    return hashlib.sha256(f"label/{seed}/{category}/{probe}".encode()).digest()
