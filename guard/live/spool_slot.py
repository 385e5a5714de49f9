"""Which slot of which folder a process keeps its spool in, and whose what lies there is.

Each deployment has a folder of its own, with a slot for each process that uses it at a time. A
process takes the first slot that is free, and with it what a killed process left there; what
another deployment left is never taken, wherever it lies.

Until folders were named apart, `/` became `_` in their names, so `team/chat` and `team_chat`
shared one. What lies in such a folder is delivered where it says whose it is, or where only one
deployment can have had the folder; else it stays where it is, and a log line says so.

This module does not know stores or what is counted.
"""

from __future__ import annotations

import json
import os
import string
from hashlib import sha256
from typing import TYPE_CHECKING, Any, Final

from guard.errors import LiveStoreError
from guard.file_locks import try_lock
from guard.log import Log

if TYPE_CHECKING:
    from pathlib import Path

SEALED: Final = "sealed.json"
RAISED: Final = "raised.jsonl"

_SLOTS: Final = 1024
_PLAIN: Final = frozenset(string.ascii_lowercase + string.digits + "._-+@")
"""What a folder's name keeps as it is; no capitals, since some file systems fold them."""
_LONG: Final = 200
"""Characters of a folder's name; file systems take 255."""
_SHOWN: Final = 150

_log = Log()


def take_slot(place: Path, name: str) -> tuple[Path, int]:
    """Return a slot for deployment `name`, and the lock that the system lets go when we die.

    Args:
        place: where deployments have their folders.
        name: the deployment's.

    Raises:
        OSError: the folder cannot be used.
        LiveStoreError: what lies there is damaged.
    """
    folder, older = folder_of(name), name.replace("/", "_")
    if older != folder:
        # What an older version left is older than anything in our own folder.
        found = _left_by_older(place / older, name)
        if found is not None:
            return found
    for number in range(_SLOTS):
        slot = place / folder / f"slot-{number}"
        slot.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = _lock(slot)
        if lock is None:
            continue
        try:
            others = owners(slot) - {name}
        except BaseException:
            os.close(lock)
            raise
        if not others:
            return slot, lock
        os.close(lock)
        _leave(slot, name, others)
    raise OSError(0, f"{_SLOTS} processes use it already")


def folder_of(name: str) -> str:
    """Return the name of a deployment's folder: no two deployments have the same."""
    kept = "".join(each if each in _PLAIN else _escaped(each) for each in name)
    if kept.startswith("."):
        # `..` would be the folder above.
        kept = _escaped(".") + kept[1:]
    if len(kept) > _LONG:
        # Longer than any that was not shortened, so that it is none of theirs.
        kept = f"{kept[:_SHOWN]}%{sha256(name.encode()).hexdigest()}"
    return kept


def owners(slot: Path) -> set[str]:
    """Return the deployments whose counts or alarms wait in a slot, `""` for an unknown one.

    Raises:
        LiveStoreError: a file is damaged.
    """
    sealed = read_sealed(slot)
    said: set[str | None] = set()
    if sealed.get("batch") is not None or sealed.get("held") is not None:
        said.add(sealed.get("name"))
    for log in logs(slot):
        if number(log) > sealed.get("through", 0):
            with log.open("rb") as file:
                first = file.readline()
                # A log without an exchange holds nothing.
                if file.read(1):
                    said.add(parsed(first, log).get("name"))
    said.update(transition.get("name") for transition in read_raised(slot))
    known = {each for each in said if each is not None}
    if said and not known:
        return {_by_folder(slot)}
    return known


def logs(slot: Path) -> list[Path]:
    """Return a slot's logs, the oldest first."""
    return sorted(slot.glob("log-*"), key=number)


def number(log: Path) -> int:
    """Return a log's number."""
    return int(log.name.removeprefix("log-"))


def read_sealed(slot: Path) -> dict[str, Any]:
    """Return what was sealed in a slot, with what is known of its replica.

    Raises:
        LiveStoreError: the file is damaged.
    """
    path = slot / SEALED
    return parsed(path.read_bytes(), path) if path.exists() else {}


def read_raised(slot: Path) -> list[dict[str, Any]]:
    """Return the transitions of alarms that are not delivered.

    Raises:
        LiveStoreError: the file is damaged.
    """
    path = slot / RAISED
    if not path.exists():
        return []
    # A line that a kill cut off was not raised yet.
    return [parsed(line, path) for line in path.read_bytes().split(b"\n")[:-1]]


def parsed(line: bytes, path: Path) -> dict[str, Any]:
    """Return the object that a file's bytes write.

    Raises:
        LiveStoreError: they write none.
    """
    try:
        values: dict[str, Any] = json.loads(line)
    except ValueError as error:
        raise LiveStoreError(
            f"the spool file {path} is damaged ({error}): remove it; what it held is lost"
        ) from error
    return values


def _left_by_older(folder: Path, name: str) -> tuple[Path, int] | None:
    """Return a slot, and its lock, in which an older version left something of `name` alone."""
    try:
        slots = sorted(folder.glob("slot-*"))
    except OSError:
        # A name too long for a folder, or a folder that is closed to us: none of ours.
        return None
    for slot in slots:
        try:
            # Looked at before it is locked: its own deployment must not find it taken for that.
            left = owners(slot)
            lock = _lock(slot) if left == {name} else None
            if lock is not None:
                if owners(slot) == {name}:
                    return slot, lock
                os.close(lock)
        except (OSError, LiveStoreError) as error:
            # It may well be another deployment's; that one is told.
            _log.warning("guard.live.spool_left", name=name, slot=str(slot), error=str(error))
            continue
        if "" in left or len(left) > 1:
            _leave(slot, name, left)
    return None


def _leave(slot: Path, name: str, others: set[str]) -> None:
    """Say that a slot holds what is not delivered, since it is another deployment's, or may be."""
    owner = ", ".join(sorted(others - {""})) or "unknown"
    _log.warning("guard.live.spool_left", name=name, slot=str(slot), owner=owner)


def _by_folder(slot: Path) -> str:
    """Return whose a slot is that an older version left without a name; `""` if unknown.

    A `_` may have been a `/`; nothing else was changed in a folder's name.
    """
    folder = slot.parent.name
    return "" if "_" in folder else folder


def _lock(slot: Path) -> int | None:
    """Return the lock of a slot, `None` where another process has it."""
    lock = os.open(slot / "lock", os.O_RDWR | os.O_CREAT, 0o600)
    ours = False
    try:
        ours = try_lock(lock)
    finally:
        if not ours:
            os.close(lock)
    return lock if ours else None


def _escaped(character: str) -> str:
    return "".join(f"%{each:02x}" for each in character.encode())
