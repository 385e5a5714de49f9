"""Locks on files: one at a time, with what Windows has in place of `fcntl`, too."""

from __future__ import annotations

import errno
import fcntl
import os
import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

import pytest

from guard.audit.errors import AuditError
from guard.audit.lines import LineFile
from guard.file_locks import try_lock
from guard.live.spool import Spool

if TYPE_CHECKING:
    from pathlib import Path

HEADER: dict[str, Any] = {"digest": "d", "names": ["harm"], "slopes": {"harm": [4]}, "decay": 0.9}


class Windows(ModuleType):
    """What `msvcrt` does, by what this system has: a byte at the file's place is locked."""

    LK_NBLCK = 2

    def locking(self, file: int, mode: int, count: int) -> None:
        """Lock; refuse as Windows does."""
        assert (mode, count) == (self.LK_NBLCK, 1)
        assert os.lseek(file, 0, os.SEEK_CUR) > 2**20, "others could not read what is there"
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise OSError(errno.EACCES, "Permission denied") from None


@pytest.fixture(params=["here", "windows"])
def _system(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have locks as this system has them, or as Windows has."""
    if request.param == "windows":
        monkeypatch.setitem(sys.modules, "fcntl", None)
        monkeypatch.setitem(sys.modules, "msvcrt", Windows("msvcrt"))


pytestmark = pytest.mark.usefixtures("_system")


def test_one_has_it_at_a_time(tmp_path: Path) -> None:
    """A second one is refused until the first is closed; the place in the file stays."""
    path = tmp_path / "lock"
    path.write_bytes(b"kept")
    first, second = os.open(path, os.O_RDWR), os.open(path, os.O_RDWR)
    os.lseek(first, 2, os.SEEK_SET)
    assert try_lock(first)
    assert os.read(first, 9) == b"pt"
    assert not try_lock(second)
    os.close(first)
    assert try_lock(second)
    os.close(second)
    assert path.read_bytes() == b"kept"


def test_each_process_has_a_slot_of_the_spool(tmp_path: Path) -> None:
    """What two write at a time is never in one slot."""
    spools = [Spool(tmp_path, "chat", HEADER) for _ in range(2)]
    assert len({spool.replica for spool in spools}) == 2
    assert sorted(path.name for path in (tmp_path / "chat").iterdir()) == ["slot-0", "slot-1"]
    for spool in spools:
        spool.close()


def test_an_audit_is_added_to_by_one(tmp_path: Path) -> None:
    """The second is told to wait."""
    with (
        LineFile(tmp_path / "answers.jsonl", {"a": "b"}),
        pytest.raises(AuditError, match="another process has"),
    ):
        LineFile(tmp_path / "answers.jsonl", {"a": "b"})
