"""What a forked process must not share with its parent: connections to databases.

This module does not know what is asked of a database.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final
from weakref import WeakSet

if TYPE_CHECKING:
    from sqlalchemy import Engine


def forget_at_fork(engine: Engine) -> Engine:
    """Return `engine`; a forked process leaves its connections alone and opens its own."""
    _inherited.add(engine)
    return engine


def _forget_connections() -> None:
    for engine in _inherited:
        engine.dispose(close=False)


_inherited: Final[WeakSet[Engine]] = WeakSet()

if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_connections)
