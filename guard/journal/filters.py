"""Which rows of a journal are wanted, and where in their order one is.

This module does not know how rows are stored.
"""

from __future__ import annotations

from datetime import datetime  # noqa: TC003  # hints are read at run time
from typing import NamedTuple, TypedDict


class Filters(TypedDict, total=False):
    """What rows must be; what is not given or `None` is not asked for.

    Attributes:
        action: `flag`, `rewrite` or `block`.
        security_class: the name of their class.
        category: only where this category's live risk is at least `minimum`.
        minimum: see `category`; in [0, 1], 0.5 where it is not given.
        flagged: only what was flagged for this category, whatever its live risk.
        model: the backend model's name, whole; `""` for rows without one.
        delivered: how much of the response left: `full`, `part` or `none`.
        shadow: whether the class only watched.
        since: not before this moment (aware).
        until: before this moment (aware).
    """

    action: str | None
    security_class: str | None
    category: str | None
    minimum: float
    flagged: str | None
    model: str | None
    delivered: str | None
    shadow: bool | None
    since: datetime | None
    until: datetime | None


class Place(NamedTuple):
    """Where a row stands among all, the newest first.

    Attributes:
        created: its time, in microseconds since 1970 in UTC.
        id: its id, which orders rows of the same time.
    """

    created: int
    id: str
