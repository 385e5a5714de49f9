"""The server's log: one JSON object a line on standard error, uvicorn's lines included.

No line holds a text, a key, a header or a URL of a request, at any level: the events of this
package are made so, and of other packages only what cannot carry any is kept. An exception is
logged by its type and its place in the code, never by its message, which may quote anything.

Only a server configures logging, and this module is where it does.
"""

from __future__ import annotations

import logging
import sys
from pathlib import PurePath
from typing import TYPE_CHECKING, Any, Final, TextIO

import structlog

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import TracebackType

    from structlog.typing import EventDict, Processor

_OWN: Final = ("uvicorn.error",)
"""Loggers of others whose messages were read and quote no request."""

_SILENT: Final = ("uvicorn.access", "httpx2", "httpcore2", "httpx", "httpcore", "hpack", "h11")
"""They log addresses, headers or bodies."""

_FRAMES: Final = 12
_CAUSES: Final = 5


def configure(level: str = "info", stream: TextIO | None = None) -> None:
    """Send the process's log lines to `stream` (standard error) as JSON."""
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *shared,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
    )
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[*shared, _foreign],
            pass_foreign_args=True,
            processors=[
                _exceptions,
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.processors.JSONRenderer(),
            ],
        )
    )
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(level.upper())
    for name in _SILENT:
        logging.getLogger(name).setLevel(logging.CRITICAL + 1)


def _foreign(_: Any, __: str, event: EventDict) -> EventDict:
    """Keep of another package's line what cannot quote a request: a template, or its place."""
    record: logging.LogRecord = event["_record"]
    values = event.pop("positional_args", ())
    event["logger"] = record.name
    if record.name not in _OWN:
        event["event"] = str(record.msg) if values else "a message that is not logged"
        event["at"] = f"{record.module}:{record.lineno}"
    return event


def _exceptions(_: Any, __: str, event: EventDict) -> EventDict:
    """Put an exception's types and places where its text would be."""
    given = event.pop("exc_info", None)
    event.pop("stack_info", None)
    if given:
        error = given[1] if isinstance(given, tuple) else given
        error = error if isinstance(error, BaseException) else sys.exc_info()[1]
        event.update(told(error))
    return event


def told(error: BaseException | None) -> dict[str, Any]:
    """Return what a log may say of an exception: its types, causes' included, and its place."""
    types = [type(each).__name__ for each in _chain(error)]
    return {"error": types, "raised_at": _places(error)}


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    for _ in range(_CAUSES):
        if error is None:
            return
        yield error
        error = error.__cause__ or error.__context__


def _places(error: BaseException | None) -> list[str]:
    """Return the innermost frames, outermost first."""
    places: list[str] = []
    traceback: TracebackType | None = error.__traceback__ if error else None
    while traceback is not None:
        code = traceback.tb_frame.f_code
        places.append(f"{PurePath(code.co_filename).name}:{traceback.tb_lineno} {code.co_name}")
        traceback = traceback.tb_next
    return places[-_FRAMES:]
