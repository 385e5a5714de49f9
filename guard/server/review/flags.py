"""Which flags there are among rows, which of them are labelled, and which comes next.

This module does not know HTTP, nor where labels are kept.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NamedTuple

from guard.labelled import flagged_for, flags_of

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

    from guard.journal.filters import Place
    from guard.journal.record import Record
    from guard.journal.store import Journal

_BATCH: Final = 200
_REMEMBERED: Final = 20_000


class Flag(NamedTuple):
    """A category that a row was flagged for.

    Attributes:
        row: its id.
        category: the category.
        text: digest of the texts that a label would be about.
    """

    row: str
    category: str
    text: str

    @property
    def key(self) -> tuple[str, str]:
        """What labels of the flag, and of its copies, are known by."""
        return self.text, self.category


@dataclass(frozen=True, slots=True)
class RowFlags:
    """The flags of one row.

    Attributes:
        named: every category that it was flagged for, those of one's own included.
        flags: what can be labelled: built-in categories whose text the journal kept.
    """

    named: tuple[str, ...]
    flags: tuple[Flag, ...]


def flags_in(record: Record) -> RowFlags:
    """Return the flags of a row."""
    data = {"prompt": record.prompt, "response": record.response, "reasons": record.reasons}
    texts = flags_of(data)
    flags = tuple(Flag(record.id, name, text) for name, text in texts.items())
    return RowFlags(tuple(flagged_for(data)), flags)


class FlagIndex:
    """The flags of rows, read once and remembered; safe to share between threads.

    Args:
        journal: where the rows are.
    """

    def __init__(self, journal: Journal) -> None:
        """Read nothing yet."""
        self._journal = journal
        self._known: dict[str, RowFlags] = {}
        self._busy = threading.Lock()

    def of(self, places: Sequence[Place]) -> Iterator[tuple[Place, RowFlags]]:
        """Yield the flags of the rows at `places`, without rows that were deleted meanwhile.

        Raises:
            JournalError: the journal cannot be read.
        """
        for first in range(0, len(places), _BATCH):
            batch = places[first : first + _BATCH]
            found = self._batch(batch)
            yield from ((place, found[place.id]) for place in batch if place.id in found)

    def _batch(self, places: Sequence[Place]) -> Mapping[str, RowFlags]:
        with self._busy:
            known = {each.id: self._known[each.id] for each in places if each.id in self._known}
        rows = list(self._journal.rows_at([each for each in places if each.id not in known]))
        fresh = {row.id: flags_in(row) for row in rows}
        # A row that is not complete yet may still be flagged for more.
        self._remember({row.id: fresh[row.id] for row in rows if row.complete})
        return known | fresh

    def _remember(self, fresh: Mapping[str, RowFlags]) -> None:
        with self._busy:
            self._known.update(fresh)
            for oldest in list(self._known)[: max(0, len(self._known) - _REMEMBERED)]:
                del self._known[oldest]


def queue_of(rows: Iterable[RowFlags], only: str | None) -> list[Flag]:
    """Return the flags that a person is asked about, in the order of the rows.

    Args:
        rows: of the filter.
        only: ask about this category alone.

    Of copies one is there.
    """
    flags = (flag for row in rows for flag in row.flags if only in (None, flag.category))
    return list({flag.key: flag for flag in reversed(list(flags))}.values())[::-1]


def following(
    queue: Sequence[Flag], key: tuple[str, str], labelled: Collection[tuple[str, str]]
) -> Flag | None:
    """Return the unlabelled flag behind that of `key`, else the first one, `None` without any."""
    at = next((n for n, flag in enumerate(queue) if flag.key == key), -1)
    rest = [*queue[at + 1 :], *queue[: at + 1]]
    return next((flag for flag in rest if flag.key not in labelled), None)
