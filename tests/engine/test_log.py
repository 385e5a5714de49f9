"""Where the library's own events go."""

from __future__ import annotations

import logging
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
import structlog

from guard.log import Log

if TYPE_CHECKING:
    from collections.abc import Iterator

SCRIPT = """
from guard.log import Log
print("the answer, ", end="")
Log().warning("guard.blocked", name="chat", text="two\\nlines, 100 %s")
Log().info("guard.live.clearing_adopted")
print("in one piece")
"""


def printed(script: str) -> tuple[str, str]:
    """Return what a fresh interpreter writes to standard output and standard error."""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=300, check=True
    )
    return done.stdout, done.stderr


@pytest.fixture
def unconfigured() -> Iterator[None]:
    """Forget how other tests have configured structlog."""
    structlog.reset_defaults()
    yield
    structlog.reset_defaults()


class TestWhereNothingIsConfigured:
    """An application that has heard of no log."""

    def test_standard_output_is_the_applications(self) -> None:
        """A warning goes to standard error, on one line; what is less than that goes nowhere."""
        out, err = printed(SCRIPT)
        assert out == "the answer, in one piece\n"
        assert err == "guard.blocked name='chat' text='two\\nlines, 100 %s'\n"

    @pytest.mark.usefixtures("unconfigured")
    def test_logging_decides(self, caplog: pytest.LogCaptureFixture) -> None:
        """The logger `guard` of `logging` has every event with its level, and can be silenced."""
        caplog.set_level(logging.DEBUG, "guard")
        Log().debug("one")
        Log().error("two", figure=3)
        logging.getLogger("guard").setLevel(logging.CRITICAL)
        Log().error("three")
        found = [(each.name, each.levelname, each.getMessage()) for each in caplog.records]
        assert found == [("guard", "DEBUG", "one"), ("guard", "ERROR", "two figure=3")]


def test_structlog_decides_where_it_is_configured() -> None:
    """An application's own processors get the fields as they are."""
    script = (
        "import structlog\n"
        "structlog.configure(processors=[structlog.processors.JSONRenderer(sort_keys=True)])\n"
        "from guard.log import Log\n"
        "Log().warning('guard.blocked', figure=3)\n"
    )
    assert printed(script) == ('{"event": "guard.blocked", "figure": 3}\n', "")
