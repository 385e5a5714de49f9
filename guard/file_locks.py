"""Locks on open files that the system lets go when their process ends, however it ends.

This module does not know what a file is for.
"""

from __future__ import annotations

import errno
import os
from typing import Any, Final

BINARY: Final[int] = getattr(os, "O_BINARY", 0)
"""For `os.open`: Windows would write line ends of its own otherwise."""

_FAR: Final = 2**30
"""Where Windows locks a byte: others cannot read what it locks, so that it lies behind it all."""

_TAKEN: Final = frozenset({errno.EACCES, errno.EAGAIN, errno.EDEADLK})


def try_lock(file: int) -> bool:
    """Lock an open file until it is closed; return whether nobody else has it.

    Args:
        file: its descriptor; where it reads and writes stays as it is.

    Raises:
        OSError: files cannot be locked there, as on some network shares.
    """
    try:
        import fcntl  # noqa: PLC0415  # there is none on Windows
    except ImportError:
        return _try_lock_on_windows(file)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _try_lock_on_windows(file: int) -> bool:
    import msvcrt  # noqa: PLC0415  # there is none elsewhere

    system: Any = msvcrt
    place = os.lseek(file, 0, os.SEEK_CUR)
    os.lseek(file, _FAR, os.SEEK_SET)
    try:
        system.locking(file, system.LK_NBLCK, 1)
    except OSError as error:
        if error.errno in _TAKEN:
            return False
        raise
    finally:
        os.lseek(file, place, os.SEEK_SET)
    return True
