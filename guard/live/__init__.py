"""Live risk: priors that move with what is seen, early warning, alarms, shared state.

from guard.live import LiveRisk, LiveSettings, Operating

live = LiveRisk(LiveSettings(), start={"bad_advice": 0.02}, confusion={...})
priors = live.priors()                       # before an exchange
alarms = live.observe({"bad_advice": 3.1})   # after it
live.posture                                 # normal, tighten, fallback, quarantine
"""

from __future__ import annotations

from guard.live.alarms import Alarm, Notifier, Transition
from guard.live.operating import Operating
from guard.live.risk import LiveRisk
from guard.live.settings import AlarmAction, LiveSettings, Posture
from guard.live.state import LiveState, read_state
from guard.live.stores import MemoryStore, Store
from guard.live.watch import choose

__all__ = [
    "Alarm",
    "AlarmAction",
    "LiveRisk",
    "LiveSettings",
    "LiveState",
    "MemoryStore",
    "Notifier",
    "Operating",
    "Posture",
    "Store",
    "Transition",
    "choose",
    "read_state",
]
