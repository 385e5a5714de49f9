"""LlamaIndex as its tests use it: its memory leaves a database in memory to the collector."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import pytest

_LEFT: Final = ".*was deleted before being closed"


def pytest_configure(config: pytest.Config) -> None:
    """Pass over the warning of a connection that nobody closed."""
    config.addinivalue_line("filterwarnings", f"ignore:{_LEFT}:ResourceWarning")
    # What is left of it is found behind the last test, too.
    warnings.filterwarnings("ignore", _LEFT, ResourceWarning)
