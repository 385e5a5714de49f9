"""What a replica saw and has not delivered yet, in files that survive its being killed.

Each exchange is appended to a log by one `write`, which the operating system keeps when the
process dies (a power cut may lose the last of it). When a batch is sealed it is written whole,
with its sequence number, and a new log begins; so it is certain before the first try to deliver
it what counts under that number, and a second try after a kill delivers the same. Where a store
stays away, a log that has grown long is replaced by the one batch that it makes, so that the
files stay small.

Everything in it says which deployment it belongs to; `spool_slot` finds the place for it.

This module does not know stores or what is counted.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import struct
from typing import TYPE_CHECKING, Any, Final
from uuid import uuid4

from guard.errors import LiveStoreError
from guard.file_locks import BINARY
from guard.live.ledger import Batch
from guard.live.open_batch import OpenBatch
from guard.live.spool_slot import (
    RAISED,
    SEALED,
    logs,
    number,
    parsed,
    read_raised,
    read_sealed,
    take_slot,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

_LONG: Final = 4_000_000
"""Bytes of a log that are replaced by a batch."""

_UNJUDGED: Final = 2
"""See `_form`."""

_APPENDING: Final = os.O_WRONLY | os.O_CREAT | os.O_APPEND | BINARY


class Spool:
    """One slot of a deployment's folder, which is this process's own while it lives.

    Args:
        place: where deployments have their folders; is made where it is missing.
        name: the deployment's.
        header: what a reader of a log must know: `digest`, `names`, `slopes`, `decay`.

    Raises:
        LiveStoreError: the folder cannot be used, or what lies there is damaged.
    """

    def __init__(self, place: Path, name: str, header: Mapping[str, Any]) -> None:
        """Take a free slot."""
        self._log = self._lock = -1
        self._name = name
        self._header = {**header, "name": name}
        names: Sequence[str] = header["names"]
        self._names = names
        self._form = _form(names)
        self._quiet = bytes(len(names))
        try:
            self._folder, self._lock = take_slot(place, name)
            sealed = read_sealed(self._folder)
        except OSError as error:
            raise LiveStoreError(
                f"the spool {place} cannot be used: {error.strerror}. Name a folder that may be "
                "written"
            ) from error
        self.replica: str = sealed.get("replica") or uuid4().hex
        self.sequence: int = sealed.get("sequence", 0)
        self._through: int = sealed.get("through", 0)
        self._batch: dict[str, Any] | None = sealed.get("batch")
        self._held: dict[str, Any] | None = sealed.get("held")
        self._number = max([self._through, *map(number, logs(self._folder))])
        self._size: int = 0
        self._first = b""
        self._any_raised = (self._folder / RAISED).exists()

    @property
    def acknowledged(self) -> int:
        """The number of the last batch that the store said it had counted, 0 for none."""
        return self.sequence - (self._batch is not None)

    @property
    def long(self) -> bool:
        """Whether the log has grown so long that `hold` should replace it."""
        return self._size > _LONG

    def recovered(self) -> Iterator[tuple[int, Batch]]:
        """Yield what a killed process left, each with its sequence number.

        Deliver each in its turn and call `delivered` before the next.
        """
        if self._batch is not None:
            yield self.sequence, Batch.from_dict(self._batch)
        if self._held is not None:
            batch = Batch.from_dict(self._held)
            self.seal(self.sequence + 1, batch, self._through)
            yield self.sequence, batch
        for path in logs(self._folder):
            left = _read_log(path, read_raised(self._folder))
            if left is not None and number(path) > self._through:
                self.seal(self.sequence + 1, left, number(path))
                yield self.sequence, left

    def turn(self, lives: Mapping[str, int]) -> int:
        """Begin a new log, counted under `lives`; return the number of the one that ends here."""
        ended = self._number
        path = self._folder / f"log-{ended + 1}"
        log = os.open(path, _APPENDING, 0o600)
        if self._log >= 0:
            os.close(self._log)
        self._log, self._number, self._size = log, ended + 1, 0
        header = {**self._header, "lives": {name: life for name, life in lives.items() if life}}
        self._first = json.dumps(header).encode() + b"\n"
        # Where there is no room for it now, it goes with the first exchange.
        with contextlib.suppress(OSError):
            self._append(self._first)
        return int(ended)

    def note(
        self, chances: Sequence[float], exceeded: Sequence[str], unjudged: Sequence[str] = ()
    ) -> None:
        """Append an exchange to the log."""
        flags = (
            bytes((name in exceeded) + (name in unjudged) for name in self._names)
            if exceeded
            else self._quiet
        )
        record = self._form.pack(*chances, flags)
        self._append(record if self._size else self._first + record)

    def note_raised(self, transition: Mapping[str, Any]) -> None:
        """Keep an alarm until it is delivered."""
        file = os.open(self._folder / RAISED, _APPENDING, 0o600)
        try:
            _append(file, json.dumps(transition).encode() + b"\n", os.fstat(file).st_size)
        finally:
            os.close(file)
        self._any_raised = True

    def seal(self, sequence: int, batch: Batch, through: int) -> None:
        """Keep a batch to deliver that holds every log up to number `through`, which go then."""
        self.sequence, self._through = sequence, through
        self._batch, self._held = batch.as_dict(), None
        self._write()

    def hold(self, batch: Batch, through: int) -> None:
        """Keep what is counted behind the sealed batch in place of its logs up to `through`."""
        self._through, self._held = through, batch.as_dict()
        self._write()

    def delivered(self) -> None:
        """Take in that the sealed batch was counted."""
        self._batch = None
        self._write()

    def settle(self) -> None:
        """Forget alarms that the store knows by now."""
        if self._any_raised:
            (self._folder / RAISED).unlink(missing_ok=True)
            self._any_raised = False

    def close(self) -> None:
        """Give the slot back; what is not delivered stays for whoever takes it next."""
        files, self._log, self._lock = (self._log, self._lock), -1, -1
        for file in files:
            if file >= 0:
                os.close(file)

    def __del__(self) -> None:
        """Give the slot back where nobody closed it, so that what waits is not held for ever."""
        with contextlib.suppress(Exception):
            self.close()

    def _append(self, written: bytes) -> None:
        _append(self._log, written, self._size)
        self._size += len(written)

    def _write(self) -> None:
        values = {
            "name": self._name,
            "replica": self.replica,
            "sequence": self.sequence,
            "through": self._through,
            "batch": self._batch,
            "held": self._held,
        }
        temporary = self._folder / f"{SEALED}.part"
        temporary.write_text(json.dumps(values), encoding="utf-8")
        temporary.replace(self._folder / SEALED)
        for path in logs(self._folder):
            if number(path) <= self._through:
                path.unlink(missing_ok=True)


def _append(file: int, written: bytes, size: int) -> None:
    """Append to a file of `size` bytes all of `written`, or nothing of it.

    Raises:
        OSError: there is no room for it.
    """
    if os.write(file, written) != len(written):
        # A part of it would spoil all that follows.
        os.ftruncate(file, size)
        raise OSError(errno.ENOSPC, "no room left for the spool")


def _form(names: Sequence[str]) -> struct.Struct:
    """Return how an exchange is written: the masses' gains, then a byte per category.

    The byte is 1 for an exceedance, 2 for one in which a detector failed, else 0.
    """
    return struct.Struct(f"<{len(names)}d{len(names)}s")


def _read_log(path: Path, raised: list[dict[str, Any]]) -> Batch | None:
    """Return the batch that a log's exchanges make, `None` where there are none."""
    first, _, rest = path.read_bytes().partition(b"\n")
    if not rest:
        return None
    header = parsed(first, path)
    names: list[str] = header["names"]
    form = _form(names)
    batch = OpenBatch(names, header["slopes"], header["decay"])
    # A record that a kill cut off was never counted.
    for record in form.iter_unpack(rest[: len(rest) // form.size * form.size]):
        *chances, flags = record
        exceeded = [name for name, flag in zip(names, flags, strict=True) if flag]
        unjudged = [name for name, flag in zip(names, flags, strict=True) if flag == _UNJUDGED]
        batch.count(chances, exceeded, unjudged)
    batch.raised = raised
    return batch.sealed(header["digest"], header["lives"]) if batch.exchanges else None
