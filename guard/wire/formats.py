"""The formats by name and by path, and the walk of one exchange through any of them.

This module does not know HTTP clients or servers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from guard.wire import chat
from guard.wire.detail import DEFAULT_STYLE, detail

if TYPE_CHECKING:
    from collections.abc import Callable

    from guard.engine import Guard
    from guard.verdict import Verdict
    from guard.wire.asked import Asked
    from guard.wire.body import Body
    from guard.wire.detail import Style
    from guard.wire.parts import Json
    from guard.wire.relay import Relay


@dataclass(frozen=True, slots=True)
class Format:
    """One vendor format.

    Attributes:
        name: how it is called here.
        path: how the path of its requests ends.
        asked: reads a request.
        relay: guards a stream.
        body: guards a whole response.
        refusal: makes the response to a request that is not passed on.
    """

    name: str
    path: str
    asked: Callable[[Json], Asked]
    relay: type[Relay]
    body: type[Body]
    refusal: Callable[[Asked, str, Json], bytes]


FORMATS: Final = (
    Format("chat", "/chat/completions", chat.asked, chat.ChatRelay, chat.ChatBody, chat.refusal),
)
"""Every format that can be guarded."""


def format_of(path: str) -> Format | None:
    """Return the format of a request's path, `None` where it is none of ours."""
    plain = path.rstrip("/")
    return next((each for each in FORMATS if plain.endswith(each.path)), None)


class Passage:
    """One request and its response, on their way through a guard.

    Args:
        guard: judges.
        form: the format.
        request: the request's JSON.
        style: how a withheld choice is refused.
    """

    def __init__(
        self, guard: Guard, form: Format, request: Json, style: Style = DEFAULT_STYLE
    ) -> None:
        """Read the request."""
        self.guard = guard
        self.form = form
        self.asked = form.asked(request)
        self._style = style

    def relay(self, *, patient: bool = False) -> Relay:
        """Return what guards a stream that answers the request."""
        session = self.guard.session(self.asked.exchange, stream=True)
        return self.form.relay(session, self._style, gated=self.asked.gated, patient=patient)

    def body(self, data: bytes) -> Body:
        """Return what guards a whole response to the request.

        Raises:
            BodyError: the response is no JSON object.
        """
        session = self.guard.session(self.asked.exchange, stream=False)
        return self.form.body(data, session, self._style, gated=self.asked.gated)

    def refusal(self, verdict: Verdict) -> bytes:
        """Return the response to a request that is not passed on."""
        return self.form.refusal(self.asked, verdict.message, {"guard": detail(verdict)})
