"""Renders the pages: templates in which no value is markup, and nothing of a value is hidden.

This module does not know what a page is asked for.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from starlette.responses import HTMLResponse, Response

from guard.text.visible import plain

if TYPE_CHECKING:
    from collections.abc import Mapping

HEADERS: Final[Mapping[str, str]] = {
    "content-security-policy": (
        "default-src 'none'; style-src 'self'; img-src 'self'; form-action 'self'; "
        "frame-ancestors 'none'; base-uri 'none'"
    ),
    "cache-control": "no-store",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "x-robots-tag": "noindex",
}
"""Of every answer. A page runs nothing, loads its own style sheet and is shown in no frame."""

FILES: Final[Mapping[str, str]] = {"icon.svg": "image/svg+xml", "style.css": "text/css"}
"""What the pages load, by its name, with its type."""

_HERE: Final = Path(__file__).parent


def _visible(value: Any) -> Any:
    """Return what a template writes: texts with what hides in them written out."""
    if isinstance(value, str) and not isinstance(value, Markup):
        return plain(value)
    return value


class Templates:
    """The pages' templates.

    Args:
        shared: what every page can use.
    """

    def __init__(self, **shared: Any) -> None:
        """Read no template yet."""
        self._environment = Environment(
            loader=FileSystemLoader(_HERE / "templates"),
            autoescape=True,
            undefined=StrictUndefined,
            finalize=_visible,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        self._environment.globals.update(shared)

    def page(self, name: str, status: int = 200, /, **values: Any) -> Response:
        """Return a page.

        Args:
            name: of its template.
            status: of the answer.
            values: what it shows.
        """
        text = self._environment.get_template(f"{name}.html").render(**values)
        # Lone surrogates are written out by then.
        return HTMLResponse(text, status)


def file(name: str) -> Response:
    """Return one of `FILES`."""
    return Response((_HERE / name).read_bytes(), media_type=FILES[name])
