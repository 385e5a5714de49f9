"""What the command line changes in its own process is put back after each test."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import structlog

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(autouse=True)
def _logging_as_before() -> Iterator[None]:
    """Take back the logging that `guard` configures as an application."""
    yield
    structlog.reset_defaults()
