"""Reads the body of a request, and refuses one that a backend might read in another way.

What is judged must be what is served. A body that is packed, not in UTF-8, or no JSON would not be
judged at all, and readers differ in which of two equal keys they take. Some (Go's, C#'s) take
`Messages` for `messages`: a key that is read here may not stand there in another case.

This module does not know any one format, and not what becomes of a request that is refused.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from guard.errors import InputError
from guard.unsaid import DEEPEST
from guard.wire.parts import BodyError, parse

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from guard.wire.parts import Json

_HOLDERS: Final = frozenset(
    {
        "content",
        "context",
        "data",
        "format",
        "instructions",
        "messages",
        "output",
        "output_config",
        "output_format",
        "prompt",
        "refusal",
        "response_format",
        "result",
        "source",
        "stderr",
        "stdout",
        "system",
        "text",
        "thinking",
        "title",
    }
)
"""Keys below which a format reads on, wherever they stand."""

KNOWN: Final = _HOLDERS | {
    "id",
    "input",
    "model",
    "name",
    "role",
    "stream",
    "tool_use_id",
    "type",
    "variables",
}
"""Every key that some format reads in a request."""

_NOT_UTF_8: Final = "the body is not in UTF-8: send it as JSON in UTF-8"

_PLAIN: Final = ("", "identity")
"""Encodings of a body that is not packed."""


class UnreadError(InputError):
    """A request's body is not the same to every reader; the message never quotes it."""


def document_of(content: bytes, encodings: Iterable[str] = ()) -> Json:
    """Return a request's JSON, empty where there is no body.

    Args:
        content: the body.
        encodings: how it is packed, as `content-encoding` says.

    Raises:
        UnreadError: a backend might read it in another way; the message says how to mend it.
    """
    if not content:
        return {}
    if any(encoding.strip().lower() not in _PLAIN for encoding in encodings):
        raise UnreadError("the body is packed (`content-encoding`): send it as plain JSON")
    document, exact = _parsed(content)
    if not exact:
        raise UnreadError("a key stands twice in one object of the body: send each key once")
    if name := next(_respelled(document), None):
        raise UnreadError(f"the body has the key `{name}` in another case: write it as `{name}`")
    return document


def _parsed(content: bytes) -> tuple[Json, bool]:
    """Return a body's JSON, and whether no key stands in it twice."""
    try:
        # Readers in the wild take a byte order mark; Python's own reader takes far more.
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise UnreadError(_NOT_UTF_8) from None
    if "\0" in text:
        # No JSON holds it, and UTF-16 without a mark does.
        raise UnreadError(_NOT_UTF_8)
    try:
        return parse(text)
    except BodyError:
        raise UnreadError(
            f"the body is no JSON object of at most {DEEPEST} levels: send one, and nothing "
            "behind it"
        ) from None


def _respelled(document: Json) -> Iterator[str]:
    """Yield the known keys that stand in another case where a format reads.

    What a request holds elsewhere (a tool's arguments, a schema, metadata) has keys of its own.
    """
    level: list[Any] = [document, document.get("input"), *_variables(document.get("prompt"))]
    while level:
        each = level.pop()
        if isinstance(each, list):
            level += each
        elif isinstance(each, dict):
            yield from (name.casefold() for name in each.keys() - KNOWN if name.casefold() in KNOWN)
            level += [each[name] for name in each.keys() & _HOLDERS]


def _variables(prompt: Any) -> Iterator[Any]:
    """Yield what fills a prompt's variables; their names are the caller's own."""
    given = prompt.get("variables") if isinstance(prompt, dict) else None
    yield from given.values() if isinstance(given, dict) else ()
