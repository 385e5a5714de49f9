"""The formats by name and by path, and the walk of one exchange through any of them.

This module does not know HTTP clients or servers.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final
from urllib.parse import unquote

from guard.wire import chat, messages, responses
from guard.wire.detail import DEFAULT_STYLE, detail
from guard.wire.failure import FailureBody
from guard.wire.parts import written

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

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
        paths: how the paths of its requests end, by method; regular expressions.
        asked: reads a request.
        relay: guards a stream.
        body: guards a whole response.
        refusal: makes the response to a request that is not passed on.
        corrected: adds an instruction to a request, to ask the backend again.
        error: makes the JSON of an error from a message and a code.
    """

    name: str
    paths: Mapping[str, str]
    asked: Callable[[Json], Asked]
    relay: type[Relay]
    body: type[Body]
    refusal: Callable[[Asked, str, Json], bytes]
    corrected: Callable[[Json, str], Json]
    error: Callable[[str, str], Json]


FORMATS: Final = (
    Format(
        "chat",
        {"POST": r"/chat/completions(/[^/]+)?", "GET": r"/chat/completions/[^/]+"},
        chat.asked,
        chat.ChatRelay,
        chat.ChatBody,
        chat.refusal,
        chat.corrected,
        chat.error,
    ),
    Format(
        "responses",
        {"POST": r"/responses(/[^/]+/cancel)?", "GET": r"/responses/[^/]+"},
        responses.asked,
        responses.ResponsesRelay,
        responses.ResponsesBody,
        responses.refusal,
        responses.corrected,
        chat.error,
    ),
    Format(
        "messages",
        {"POST": r"/v1/messages"},
        messages.asked,
        messages.MessagesRelay,
        messages.MessagesBody,
        messages.refusal,
        messages.corrected,
        messages.error,
    ),
)
"""Every format that can be guarded."""

_OPEN: Final[Mapping[str, str]] = {
    # `models/NAME:generateContent` is an answer; `ft:` begins the name of a tuned model. In a
    # container files have names that a model gave.
    "GET": r"(/models(/(ft:[^/]+|[^/:]+))?|^(?!.*/containers/).*/files)",
    # A file that is uploaded is answered by its name and size; `POST models/NAME` is a question.
    "POST": r"/(embeddings|moderations|responses/input_tokens|messages/count_tokens|files)",
}
"""How paths end whose answers hold no text of a model's, by method; regular expressions."""

_NEVER: Final = r"(?!)"
"""An expression that nothing fits."""

_BARE: Final = ("HEAD", "OPTIONS", "DELETE")
"""Methods whose answers have no body, or say what is deleted."""

_SEGMENT: Final = re.compile(r"(?!\.{1,2}\Z)[\w.~!$&'()*+,=:@-]+", re.ASCII)
"""What all servers read alike between two slashes of a path."""


def path_of(target: bytes | str) -> str | None:
    """Return the path of a request, `None` where servers differ in how they read it.

    Some resolve dot segments and some do not, merge empty segments, take `%2F` or a backslash for
    a slash, cut a segment at `;`, or decode twice: what is checked would not be what is served.

    Args:
        target: the path as it is sent, percent-encoded, with or without a query.
    """
    raw = target.decode("latin-1") if isinstance(target, bytes) else target
    first, *segments = raw.partition("?")[0].split("/")
    read = [unquote(segment) for segment in segments]
    inner = read[:-1] if read[-1:] == [""] else read
    if first or not segments or not all(map(_SEGMENT.fullmatch, inner)):
        return None
    return "/" + "/".join(read)


def format_of(method: str, path: str) -> Format | None:
    """Return the format of a request, `None` where it is none of ours."""
    for form in FORMATS:
        expression = form.paths.get(method.upper())
        if expression is not None and re.search(f"{expression}$", path.rstrip("/")):
            return form
    return None


def endpoint_of(method: str, path: str) -> str | None:
    """Return the vendor's own path of what a request asks for, `None` where it is no format's.

    It is the same for every path that a backend may serve alike: in any case, behind any prefix,
    and without the `/v1`.

    Args:
        method: the HTTP method, in any case.
        path: as `path_of` gives it.
    """
    plain = path.lower().rstrip("/")
    for form in FORMATS:
        found = re.search(f"{form.paths.get(method.upper(), _NEVER)}$", plain)
        if found is not None:
            return f"/v1{found[0].removeprefix('/v1')}"
    return None


def is_open(method: str, path: str) -> bool:
    """Return whether the answer to a request holds no text of a model's, so that it may pass.

    Args:
        method: the HTTP method, in any case.
        path: as `path_of` gives it.
    """
    if method.upper() in _BARE:
        return True
    expression = _OPEN.get(method.upper())
    if expression is None:
        return False
    # Some backends know their paths in any case, and a container's files in each are a model's.
    plain = path.rstrip("/")
    return all(re.search(f"{expression}$", each) for each in (plain, plain.lower()))


class Call:
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
        self._request = request
        self._style = style

    @property
    def asks_again(self) -> bool:
        """Whether the class may have the backend asked again, where there is a question."""
        limits = self.guard.security_class.limits.values()
        wanted = any(limit.remedy == "regenerate" for limit in limits)
        return wanted and bool(self.asked.exchange.messages)

    def corrected(self) -> bytes:
        """Return the request with the class's instruction to do better."""
        instruction = self.guard.security_class.regenerate.instruction
        return written(self.form.corrected(self._request, instruction)).encode()

    def relay(self, *, patient: bool = False) -> Relay:
        """Return what guards a stream that answers the request."""
        session = self.guard.session(self.asked.exchange, stream=True)
        return self.form.relay(
            session,
            self._style,
            gated=self.asked.gated,
            patient=patient,
            repeats=self.asked.repeats,
        )

    def body(self, data: bytes) -> Body:
        """Return what guards a whole response to the request.

        Raises:
            BodyError: the response is no JSON object.
        """
        session = self.guard.session(self.asked.exchange, stream=False)
        return self.form.body(
            data,
            session,
            self._style,
            gated=self.asked.gated,
            repeats=self.asked.repeats,
        )

    def failure(self, data: bytes, charset: str | None) -> FailureBody:
        """Return what guards the body of a response that is no success.

        Args:
            data: its bytes.
            charset: its encoding as the response declares it, `None` where it does not.
        """
        session = self.guard.session(self.asked.exchange, stream=False)
        return FailureBody(data, charset, session, self.form.error)

    def refusal(self, verdict: Verdict) -> bytes:
        """Return the response to a request that is not passed on."""
        return self.form.refusal(self.asked, verdict.message, {"guard": detail(verdict)})

    def content(self) -> bytes:
        """Return the request as JSON."""
        return written(self._request).encode()

    @property
    def judges_input(self) -> bool:
        """Whether the class has the request judged before it is passed on."""
        return bool(self.guard.security_class.input_limits)
