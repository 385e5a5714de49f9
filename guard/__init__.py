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
        """Load a public name's module when the name is first used (PEP 562)."""
        if name not in _HOMES:
            raise AttributeError(f"module `guard` has no attribute `{name}`")
        value = getattr(import_module(_HOMES[name]), name)
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
