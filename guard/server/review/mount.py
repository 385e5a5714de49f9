"""The pages inside a server: requests for them go there, and their refusals are pages, too.

This module does not know what a page shows.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from guard.server.errors import Refused
from guard.server.review.app import is_page

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from guard.server.review.app import Review


class RefusedAsPages:
    """An ASGI app around `app` that tells on a page why a request for one is refused.

    Args:
        app: the app inside.
        review: the pages.
    """

    def __init__(self, app: ASGIApp, review: Review) -> None:
        """Serve nothing yet."""
        self._app = app
        self._review = review

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request.

        Raises:
            Refused: an answer has begun, or it was asked for no page.
        """
        if scope["type"] != "http" or not is_page(scope["path"]):
            await self._app(scope, receive, send)
            return
        begun = False

        async def watched(message: Message) -> None:
            nonlocal begun
            begun = True
            await send(message)

        try:
            await self._app(scope, receive, watched)
        except Refused as refusal:
            if begun:
                raise
            response = self._review.refused(refusal.status_code, str(refusal.detail))
            response.headers.update(refusal.headers or {})
            await response(scope, receive, send)


class Fork:
    """An ASGI app that hands requests for pages to them, and all others to `app`.

    Args:
        app: serves everything else.
        review: the pages.
    """

    def __init__(self, app: ASGIApp, review: Review) -> None:
        """Serve nothing yet."""
        self._app = app
        self._review = review

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request."""
        page = scope["type"] == "http" and is_page(scope["path"])
        await (self._review if page else self._app)(scope, receive, send)
