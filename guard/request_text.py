"""The text in what a model is given, whatever its shape: one reader for logs, SDKs and servers.

This module does not know any one format, and judges nothing.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from types import NoneType
from typing import TYPE_CHECKING, Any, Final

from guard.documents import UNKNOWN, document_text
from guard.exchange import Message
from guard.unsaid import DEEPEST, says_nothing

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from guard.exchange import Role


@dataclass(frozen=True, slots=True)
class _Within:
    """What a value of a request stands in.

    Attributes:
        carrier: whether it is what a block of media holds.
        document: the type of the document that it may be, `""` where nothing says so.
    """

    carrier: bool = False
    document: str = ""


def text_of(value: Any) -> str:
    """Return the text in a message, its content, or a block of it, whatever its shape.

    Every string is text, wherever it stands: blocks that nobody here knows reach the model, too.
    Left out are media, identifiers, types and states (`guard.unsaid`), and what is called with
    what where a call is given by itself, not in a list: it is the model's own, judged as a call.
    A packed document that is said to be a text is read as one (`guard.documents`).
    """
    if isinstance(value, dict) and str(value.get("type")) in _CALLS:
        value = {name: inner for name, inner in value.items() if name not in _ARGUMENTS}
    return "\n".join(text for text in _texts(value, DEEPEST, _Within()) if text)


def turns(
    role: Role, blocks: Sequence[Any], tools: dict[str, str], name: str = ""
) -> Iterator[Message]:
    """Yield what a message of blocks says; what tools gave back in it is a tool's message.

    Args:
        role: whose message it is.
        blocks: its blocks.
        tools: names of tools by the identifiers of their calls; those of this message are added.
        name: the speaker's name.
    """
    texts = []
    for block in blocks:
        given = block if isinstance(block, dict) else {}
        if given.get("type") == "tool_use":
            tools[str(given.get("id"))] = str(given.get("name") or "")
        if given.get("type") == "tool_result":
            yield Message("tool", text_of(given), tools.get(str(given.get("tool_use_id")), ""))
        # Only a model's own calls are judged as calls.
        elif text := text_of(block if role == "assistant" else [block]):
            texts.append(text)
    if texts:
        yield Message(role, "\n".join(texts), name)


def _texts(value: Any, depth: int, within: _Within) -> Iterator[str]:
    """Yield every text in a value.

    Args:
        value: anything.
        depth: levels that are still looked into.
        within: what it stands in.
    """
    if isinstance(value, str):
        yield value
    elif not depth or not isinstance(value, _KNOWN):
        # Frameworks show a model what is no JSON as Python does.
        yield repr(value)
    elif isinstance(value, list | tuple):
        for each in value:
            yield from _texts(each, depth - 1, within)
    elif isinstance(value, dict):
        yield from _entries(value, depth, within)


def _entries(block: dict[Any, Any], depth: int, within: _Within) -> Iterator[str]:
    """Yield every text in an object, and what its keys say."""
    kind = block.get("type")
    carrier = kind in _CARRIERS if isinstance(kind, str) else within.carrier
    document = _document_type(block) or within.document
    for name, inner in block.items():
        if not _IDENTIFIER.fullmatch(str(name)):
            yield str(name)
        if str(name).casefold() in _MEDIA:
            words = kind == "text" and isinstance(inner, str) and _WORDS.search(inner)
            yield document_text(inner, UNKNOWN if words and document else document)
        if not _is_aside(str(name), inner, carrier=carrier):
            below = _Within(carrier or name in _CARRIERS, document)
            yield from _texts(inner, depth - 1, below)


def _document_type(block: dict[Any, Any]) -> str:
    """Return what an object says of which type a document is, in keys of any case."""
    said = {str(key).casefold(): value for key, value in block.items() if isinstance(value, str)}
    return next((said[key] for key in _ABOUT_TEXT if said.get(key)), "")


def _is_aside(name: str, value: Any, *, carrier: bool) -> bool:
    """Return whether what stands under a key is no text to a model."""
    if not isinstance(value, str):
        return False
    if says_nothing(name, value):
        return True
    if name in _NAMES or (carrier and name in _ABOUT_MEDIA):
        return _UNBROKEN.fullmatch(value) is not None
    return carrier and name in _MEDIA and _PACKED.fullmatch(value) is not None


_KNOWN: Final = (dict, list, tuple, int, float, bytes, bytearray, NoneType)
"""What is looked into, or says nothing: a number, an image's bytes."""

_CALLS: Final = frozenset(
    {
        *("custom_tool_call", "function_call", "mcp_call", "mcp_tool_use", "server_tool_call"),
        *("server_tool_use", "tool_call", "tool_use"),
    }
)
"""Types of a model's calls."""

_ARGUMENTS: Final = frozenset({"args", "arguments", "input", "name"})
"""Keys of a call that say what is called, and with what."""

_CARRIERS: Final = frozenset(
    {
        *("audio", "base64", "computer_screenshot", "file", "image", "image_file", "image_url"),
        *("input_audio", "input_file", "input_image", "media", "redacted_thinking", "url"),
        *("video", "video_url"),
    }
)
"""Types of blocks, and keys, that stand for an image, a sound, a file."""

_MEDIA: Final = frozenset(
    {
        "base64",
        "base64_data",
        "blob",
        "bytes",
        "data",
        "file_data",
        "file_url",
        "image_url",
        "url",
        "uri",
    }
)
"""Keys that hold media, or say where they are."""

_ABOUT_TEXT: Final = (
    *("media_type", "mime_type", "mimetype", "document_mimetype"),
    *("format", "filename"),
)
"""Keys that say of what type a document is, those that say it best first."""

_ABOUT_MEDIA: Final = frozenset({"detail", "format", "source_type"})
"""Keys that say what media are like."""

_NAMES: Final = frozenset({"file_id", "media_type", "mime_type", "tool_call_id", "ttl"})
"""Further keys of identifiers and types."""

_UNBROKEN: Final = re.compile(r"[!-~]{,256}")
"""An identifier or a type: without white space."""

_PACKED: Final = re.compile(r"[a-z][a-z0-9+.-]*:[!-~]*|[A-Za-z0-9+/_-]*={0,2}")
"""An address, data in one, or base64."""

_WORDS: Final = re.compile(r"\S[ \t]+\S|\A[^\W\d_]+\Z")
"""Words, which Base64 would be taken for where nothing but letters and blanks is in them."""

_IDENTIFIER: Final = re.compile(r"[A-Za-z0-9_$./-]{1,64}")
"""A key that says nothing to a reader."""
