"""A judge of lines with the bundled model, shared by the tests of scans."""

from __future__ import annotations

import pytest

from guard.scan.work import LineJudge
from tests.scan.logs import SETTINGS


@pytest.fixture(scope="session")
def judge() -> LineJudge:
    """Return a judge under the class `public`, compared with `regulated`."""
    return LineJudge(SETTINGS)
