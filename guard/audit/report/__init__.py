"""The report of an audit: HTML, Markdown and JSON, made from the folder of the audit alone.

    content      what a report says
    page         as one HTML page
    markdown     as Markdown
    references   where the figures may be of use under a framework

This package does not know how answers are asked or judged.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from guard.audit.errors import AuditError
from guard.audit.exact import write_atomically
from guard.audit.report.content import Report, Texts, report
from guard.audit.report.markdown import markdown
from guard.audit.report.page import page

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["Report", "Texts", "markdown", "page", "report", "write"]


def write(found: Report, folder: Path) -> tuple[Path, ...]:
    """Write `report.html`, `report.md` and `report.json`; each is replaced at once.

    Raises:
        AuditError: they cannot be written.
    """
    texts = {
        "report.html": page(found),
        "report.md": markdown(found),
        "report.json": json.dumps(found.plain(), indent=2) + "\n",
    }
    try:
        for name, text in texts.items():
            write_atomically(folder / name, text.encode("utf-8"))
    except OSError as error:
        raise AuditError(f"`{folder}` cannot be written: {error.strerror}") from error
    return tuple(folder / name for name in texts)
