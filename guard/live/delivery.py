"""The thread that delivers what a replica saw, and waits longer where the store is away.

This module does not know what is delivered.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from guard.errors import LiveStoreError
from guard.log import Log

if TYPE_CHECKING:
    import threading
    import weakref

    from guard.live.risk import LiveRisk

LONGEST_WAIT: Final = 5.0
"""Seconds between two tries while the store is away."""

IDLE: Final = 1.0
"""Seconds between two looks at the store where there was nothing to deliver."""

_log = Log()


def keep_delivering(
    reference: weakref.ref[LiveRisk], seconds: float, ends: threading.Event
) -> None:
    """Deliver every `seconds` until the object is gone or `ends` is set.

    Args:
        reference: does not keep the object alive.
        seconds: between two deliveries while the store answers.
        ends: ends the thread.
    """
    pause, away = seconds, False
    while not ends.wait(pause):
        risk = reference()
        if risk is None:
            return
        try:
            risk.flush_if_due()
        except LiveStoreError as error:
            pause = min(LONGEST_WAIT, pause * 2)
            if not away:
                _log.error("guard.live.store_away", name=risk.name, error=str(error))
            away = True
        else:
            pause = seconds
            if away:
                _log.warning("guard.live.store_back", name=risk.name)
            away = False
        del risk
