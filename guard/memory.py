"""Returns freed memory to the system.

This module does not know what was loaded.
"""

from __future__ import annotations

import contextlib
import ctypes


def give_back() -> None:
    """Have the C library return what reading files took and freed, where it keeps that.

    Nowhere but with glibc is there such a call, and nothing depends on it.
    """
    with contextlib.suppress(OSError, AttributeError, TypeError):
        ctypes.CDLL(None).malloc_trim(0)
