"""Clearance: runtime guardrail middleware for LLMs.

A wrapper between an application and any LLM backend. It scores every response and blocks
or rewrites those whose live risk exceeds the security class under which the model is
deployed.

    from guard import Guard

    guard = Guard.load("public")
    verdict = guard.check("...", prompt="...")

Importing this package loads no model and none of its runtime: names load on first use.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from guard.assess import Assessment, Coverage
    from guard.categories import CATEGORIES, Category
    from guard.detectors.base import Detector, Finding, Passage
    from guard.detectors.fingerprints import ProtectedText
    from guard.engine import NOT_GIVEN, Guard
    from guard.errors import (
        Blocked,
        ConfigurationError,
        DetectorError,
        GuardError,
        InputError,
        JournalError,
        MissingExtraError,
        ModelError,
        PolicyError,
    )
    from guard.exchange import Choice, Exchange, Message, ToolCall
    from guard.journal.store import Journal
    from guard.policy import Policy, builtin_classes, load_class
    from guard.security_class import SecurityClass
    from guard.stream import AsyncGuardedStream, GuardedStream
    from guard.verdict import Action, Verdict

__version__ = "0.1.0"

_HOMES: Final = {
    "Assessment": "guard.assess",
    "Coverage": "guard.assess",
    "CATEGORIES": "guard.categories",
    "Category": "guard.categories",
    "Detector": "guard.detectors.base",
    "Finding": "guard.detectors.base",
    "Passage": "guard.detectors.base",
    "ProtectedText": "guard.detectors.fingerprints",
    "NOT_GIVEN": "guard.engine",
    "AsyncGuardedStream": "guard.stream",
    "Guard": "guard.engine",
    "GuardedStream": "guard.stream",
    "Blocked": "guard.errors",
    "ConfigurationError": "guard.errors",
    "DetectorError": "guard.errors",
    "GuardError": "guard.errors",
    "InputError": "guard.errors",
    "JournalError": "guard.errors",
    "MissingExtraError": "guard.errors",
    "ModelError": "guard.errors",
    "PolicyError": "guard.errors",
    "Choice": "guard.exchange",
    "Exchange": "guard.exchange",
    "Message": "guard.exchange",
    "ToolCall": "guard.exchange",
    "Journal": "guard.journal.store",
    "Policy": "guard.policy",
    "SecurityClass": "guard.security_class",
    "builtin_classes": "guard.policy",
    "load_class": "guard.policy",
    "Action": "guard.verdict",
    "Verdict": "guard.verdict",
}

if TYPE_CHECKING:
    from guard.audit.keys import PublicKey as PublicKey
    from guard.audit.profile import Fingerprint as Fingerprint
    from guard.audit.tag import Tag as Tag
    from guard.driver import Driver as Driver
    from guard.live.alarms import Notifier as Notifier
    from guard.live.stores import Store as Store
    from guard.session import Session as Session

_HINTED: Final = {
    "Driver": "guard.driver",
    "Fingerprint": "guard.audit.profile",
    "Notifier": "guard.live.alarms",
    "PublicKey": "guard.audit.keys",
    "Session": "guard.session",
    "Store": "guard.live.stores",
    "Tag": "guard.audit.tag",
}
"""Types that hints of public names mention; import them from their modules.

A hint such as `guard.Tag` loads the module when somebody reads the hint (`get_type_hints`,
pydantic, FastAPI), and not before.
"""

__all__ = [
    "CATEGORIES",
    "NOT_GIVEN",
    "Action",
    "Assessment",
    "AsyncGuardedStream",
    "Blocked",
    "Category",
    "Choice",
    "ConfigurationError",
    "Coverage",
    "Detector",
    "DetectorError",
    "Exchange",
    "Finding",
    "Guard",
    "GuardError",
    "GuardedStream",
    "InputError",
    "Journal",
    "JournalError",
    "Message",
    "MissingExtraError",
    "ModelError",
    "Passage",
    "Policy",
    "PolicyError",
    "ProtectedText",
    "SecurityClass",
    "ToolCall",
    "Verdict",
    "builtin_classes",
    "load_class",
]


if not TYPE_CHECKING:  # type checkers read the imports above and find misspelt names

    def __getattr__(name: str) -> Any:
        """Load a name's module when the name is first used (PEP 562)."""
        home = _HOMES.get(name) or _HINTED.get(name)
        if home is None:
            raise AttributeError(f"module `guard` has no attribute `{name}`")
        value = getattr(import_module(home), name)
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
