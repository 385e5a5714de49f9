"""What every adapter of a framework must do: load nothing else, and name its extra.

Each is tried in an interpreter of its own. This module does not know any framework.
"""

from __future__ import annotations

import subprocess
import sys
from typing import Final

FRAMEWORKS: Final = (
    "langchain_core",
    "pydantic_ai",
    "haystack",
    "llama_index",
    "agents",
    "litellm",
    "ray",
)
"""Packages of which each adapter loads its own alone."""

_ALONE: Final = """
import sys, guard.adapters.{adapter}
print(*sorted(set({frameworks!r}) & set(sys.modules)))
"""

_MISSING: Final = """
import sys
sys.modules[{package!r}] = None
import guard
try:
    import guard.adapters.{adapter}
except guard.errors.MissingExtraError as error:
    print(error)
"""


def loaded_with(adapter: str) -> str:
    """Return the frameworks that are loaded with an adapter."""
    return _printed(_ALONE.format(adapter=adapter, frameworks=FRAMEWORKS))


def error_without(package: str, adapter: str) -> str:
    """Return what an adapter says where its framework is not installed."""
    return _printed(_MISSING.format(adapter=adapter, package=package))


def _printed(code: str) -> str:
    run = subprocess.run(  # the code is above
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    return run.stdout.strip()
