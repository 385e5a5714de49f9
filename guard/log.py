"""The library's own events, written with structlog once there is one to write.

structlog and what it imports take as much memory as a tenth of the classifier, and a guard that
finds nothing writes nothing.

Where they go is the application's to say: by `structlog.configure`, else by `logging` as for any
library, under the logger `guard`. None goes to standard output, which is the application's.

This module does not know what events there are.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import MutableMapping


class Log:
    """Writes events to the logger `guard`: structlog's where that is configured, else logging's."""

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

    if structlog.is_configured():
        return structlog.get_logger("guard")
    # What structlog does unconfigured is for its own demonstrations: it prints.
    import logging  # noqa: PLC0415

    return structlog.wrap_logger(
        logging.getLogger("guard"),
        processors=[
            structlog.stdlib.filter_by_level,
            structlog.contextvars.merge_contextvars,
            _line,
        ],
        wrapper_class=structlog.stdlib.BoundLogger,
    )


def _line(_: Any, __: str, fields: MutableMapping[str, Any]) -> str:
    event = fields.pop("event")
    return " ".join([str(event), *(f"{name}={value!r}" for name, value in fields.items())])
