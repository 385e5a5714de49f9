"""SQLite files: which one it is, and a look at one that changes nothing of it.

This module does not know what is in them.
"""

from __future__ import annotations

import sqlite3
from typing import TYPE_CHECKING

from sqlalchemy import create_engine
from sqlalchemy.pool import NullPool

if TYPE_CHECKING:
    from pathlib import Path

    from sqlalchemy import Engine


def identity(path: Path) -> tuple[int, int] | None:
    """Return what tells a file from one that takes its place, `None` where there is none."""
    try:
        found = path.stat()
    except FileNotFoundError:
        return None
    return found.st_dev, found.st_ino


def reading_engine(path: Path, seconds: float) -> Engine:
    """Return an engine that leaves a file and its folder as they are.

    Args:
        path: of the file.
        seconds: that a connection waits for who has the file locked.
    """

    def connect() -> sqlite3.Connection:
        # Where nobody has the file open there is no log beside it, and SQLite need not make one.
        in_use = path.with_name(f"{path.name}-wal").exists()
        uri = path.absolute().as_uri() + ("?mode=ro" if in_use else "?mode=ro&immutable=1")
        return sqlite3.connect(uri, uri=True, timeout=seconds)

    return create_engine("sqlite://", creator=connect, poolclass=NullPool, hide_parameters=True)
