"""The walk of a scan: lines are read, judged by an engine, and kept.

This module does not know processes, a terminal or what a report looks like.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from itertools import islice
from typing import TYPE_CHECKING, Final, cast

from guard.scan.reading import Line, lines
from guard.scan.work import Result

if TYPE_CHECKING:
    from collections.abc import Generator

    from guard.journal.store import Journal
    from guard.scan.folder import Folder, Selection
    from guard.scan.reading import Watch

Engine = Callable[[Iterable[Sequence[Line]]], Iterator[list[Result]]]
"""Judges batches, which it reads few ahead; yields the results of each, in their order."""

LINES: Final = 16
"""Lines of a batch at most."""

BYTES: Final = 2**18
"""Bytes from which a batch is closed."""


def scan(  # noqa: PLR0913  # each is one plain part of a scan
    folder: Folder,
    selection: Selection,
    engine: Engine,
    *,
    limit: int | None = None,
    journal: Journal | None = None,
    watch: Watch | None = None,
) -> Generator[int]:
    """Judge what is still to be judged; yield how many lines were, batch by batch.

    Args:
        folder: where results are kept, and how far they are.
        selection: which lines are judged.
        engine: judges them.
        limit: lines that are judged at most, those of before included.
        journal: where what is flagged goes, too.
        watch: see `guard.scan.reading.Watch`.

    Raises:
        GuardError: something cannot go on; what was judged by then is kept.
    """
    found = selected(selection, watch)
    done = deque(islice(found, folder.done), 1)
    folder.check_last(done[0] if done else None)
    wanted = found if limit is None else islice(found, max(0, limit - folder.done))
    # An engine that is left early must end what it started.
    with closing(cast("Generator[list[Result]]", engine(batches(wanted)))) as results:
        for each in results:
            folder.keep(each, journal)
            yield len(each)


def selected(selection: Selection, watch: Watch | None = None) -> Iterator[Line]:
    """Yield the lines that are judged; what cannot be read is one of them."""
    for line in lines(selection.files, watch):
        if line.problem or selection.takes(line.number, line.content):
            yield line


def batches(wanted: Iterable[Line]) -> Iterator[list[Line]]:
    """Yield lines some at a time."""
    batch: list[Line] = []
    size = 0
    for line in wanted:
        batch.append(line)
        size += len(line.content)
        if len(batch) >= LINES or size >= BYTES:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch
