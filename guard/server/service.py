"""What every endpoint needs: the settings, the guards, the numbers, and one way to judge.

This module does not know any endpoint.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from guard.errors import InputError
from guard.server.edge import route_of
from guard.server.errors import DetectorErrorBody, ErrorBody, Refused
from guard.server.keys import caller_of

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from starlette.requests import Request

    from guard.server.guards import Guards, Judges
    from guard.server.load import Load
    from guard.server.metrics import Metrics
    from guard.server.settings import ServerSettings
    from guard.verdict import Verdict

ERRORS: Final[dict[int | str, dict[str, Any]]] = {
    "default": {"model": ErrorBody, "description": "The request was not served; says why."},
}
"""How the endpoints' errors are described in the API's schema."""

DETECTOR_ERRORS: Final[dict[int | str, dict[str, Any]]] = {
    422: {"model": DetectorErrorBody, "description": "The request is not of the right form."},
    "default": {"model": DetectorErrorBody, "description": "The request was not served."},
}


@dataclass(frozen=True, slots=True)
class Service:
    """What a server is made of; shared by all requests.

    Attributes:
        settings: the process's settings.
        guards: who judges.
        metrics: what is counted.
        load: how busy the server is.
        at_end: what is done when the server ends.
    """

    settings: ServerSettings
    guards: Guards
    metrics: Metrics
    load: Load
    at_end: list[Callable[[], None]] = field(default_factory=list)

    def judges(self, request: Request, endpoint: str | None = None) -> Judges:
        """Return who judges a request; keep them for all of it, since a reload may come.

        Args:
            request: what is to be judged.
            endpoint: the vendor's own path of what it asks for, where the proxy guards that: under
                whichever path it is written, the strictest class of all that hold counts.
        """
        caller, path = caller_of(request.scope), request.scope["path"]
        found = [self.guards.of(caller, each) for each in self.settings.paths(path, endpoint)]
        return max(found, key=lambda judges: judges.security_class.rank)

    def upstream_model(self, request: Request, endpoint: str | None) -> str | None:
        """Return the model that a request is sent to, `None` for what it asks for.

        Args:
            request: what is sent.
            endpoint: as for `judges`; the longest rule counts that names a model.
        """
        caller, path = caller_of(request.scope), request.scope["path"]
        paths = self.settings.paths(path, endpoint)
        models = (self.guards.upstream_model(caller, each) for each in paths)
        return next(filter(None, models), None)

    async def judge(self, request: Request, judge: Callable[[], Awaitable[Verdict]]) -> Verdict:
        """Return what `judge` decides, counted and timed.

        Raises:
            Refused: what it was given cannot be judged.
        """
        route = route_of(request.scope)
        try:
            with self.metrics.judging(route):
                verdict = await judge()
        except InputError as error:
            raise Refused(400, str(error), "cannot_be_judged") from error
        self.metrics.decision(verdict, route)
        return verdict
