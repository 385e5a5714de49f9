"""`guard flagged review`: the journal in a browser.

This module does not know any page, nor how rows are stored.
"""

from __future__ import annotations

import webbrowser
from typing import TYPE_CHECKING

from rich.text import Text

from guard.cli.screen import console, errors, plain_text
from guard.server.review.labels import LabelFile
from guard.server.review.run import serve

if TYPE_CHECKING:
    from pathlib import Path

    from guard.journal.store import Journal


def review(journal: Journal, labels: Path | None, port: int, *, browse: bool) -> None:
    """Serve the pages of `journal` until Ctrl-C.

    Args:
        journal: where the rows are.
        labels: file of the labels, made where it is missing; `None` for pages to read alone.
        port: where to listen; 0 for any that is free.
        browse: whether to open the browser.

    Raises:
        AuditError: the file of the labels cannot be written.
        InputError: it holds something else, or the port is taken.
    """
    file = None if labels is None else LabelFile(labels)
    if file is not None:
        file.try_out()

    def started(link: str) -> None:
        told = "are for reading only" if file is None else f"add labels to {file.path}"
        errors.print(
            plain_text(f"The pages show {journal.location} and {told}. Open this link, once:"),
            soft_wrap=True,
        )
        console.print(Text(link, "bold"), soft_wrap=True)
        errors.print("Ctrl-C ends them.", style="dim")
        if browse:
            webbrowser.open(link)

    serve(journal, file, port, started)
