"""The library's own events, written with structlog once there is one to write.

structlog and what it imports take as much memory as a tenth of the classifier, and a guard that
finds nothing writes nothing.

This module does not know what events there are or where they go: `structlog.configure` decides.
"""

from __future__ import annotations

from typing import Any


class Log:
    """Writes events as structlog's logger `guard` does."""

    def debug(self, event: str, **fields: Any) -> None:
        """Write an event for whoever looks for a fault."""
        _logger().debug(event, **fields)

    def info(self, event: str, **fields: Any) -> None:
        """Write an event that is as it should be."""
        _logger().info(event, **fields)

    def warning(self, event: str, **fields: Any) -> None:
        """Write an event that somebody may have to look at."""
        _logger().warning(event, **fields)

    def error(self, event: str, **fields: Any) -> None:
        """Write an event that somebody must look at."""
        _logger().error(event, **fields)


def _logger() -> Any:
    import structlog  # noqa: PLC0415  # see above

    return structlog.get_logger("guard")
