"""Moments as people write them: ISO 8601, or so long ago.

This module does not know what a moment is of.
"""

from __future__ import annotations

import re
from datetime import datetime, timedelta
from typing import Final

from guard.errors import InputError
from guard.text.visible import plain

_UNITS: Final = {"m": "minutes", "h": "hours", "d": "days", "w": "weeks"}


def moment(text: str) -> datetime:
    """Return the moment that `text` names: ISO 8601, or so long ago (`30m`, `2h`, `7d`, `4w`).

    Raises:
        InputError: it names none.
    """
    try:
        if match := re.fullmatch(r"(\d+)([mhdw])", text.strip()):
            ago = timedelta(**{_UNITS[match[2]]: int(match[1])})
            return datetime.now().astimezone() - ago
        # Without a zone it is local time, as the tables show it.
        return datetime.fromisoformat(text.strip()).astimezone()
    except (ValueError, OverflowError):
        raise InputError(
            f"`{plain(text)}` is no time: write `2h`, `7d`, `2025-03-04` or `2025-03-04T05:06`"
        ) from None
