"""The text of a document that stands packed in a request: in base64, in an address, as bytes.

A model reads a text file as it reads a message, so that its text is judged. Images, sounds, PDFs
and office files are not read: what a model sees in them, nobody here knows.

This module does not know where documents stand in a request (`guard.request_text`).
"""

from __future__ import annotations

import base64
import mimetypes
import re
from typing import Final
from urllib.parse import unquote_to_bytes

_ADDRESS: Final = re.compile(r"(?is)data:([^,;\s]*)((?:;[^,;]*)*?)(;base64)?,(.*)")
"""Data in an address: their type, its parameters, how they are packed."""

UNKNOWN: Final = "application/octet-stream"
"""The type of a document of which nobody says what it is."""

_PACKED: Final = re.compile(r"[A-Za-z0-9+/_-]+={0,2}")

_OTHER: Final = re.compile(r"(?:image|audio|video|font)/(?!.*\+xml$).*|application/pdf")
"""Types of what is no text."""

_BINARY: Final = re.compile(r"[\0-\x08\x0e-\x1a\x1c-\x1f]")
"""Characters that no text needs."""


def document_text(value: object, kind: str = "") -> str:
    """Return the text of a packed document, `""` where it is none, or no text.

    Whatever can be read as text is, unless its type says that it is none: names of types differ
    too much to know all of those that are text.

    Args:
        value: base64, an address that holds its data, or bytes of either or of the document.
        kind: its type, such as `text/csv`, `csv` or a file's name; `""` where nothing says so.
            What an address says of its data counts more.
    """
    text = value.decode("latin-1") if isinstance(value, bytes | bytearray) else value
    if not isinstance(text, str):
        return ""
    address = _ADDRESS.fullmatch(text)
    if address is not None:
        kind = address[1] or kind or "text/plain"
        data = _unpacked(address[4]) if address[3] else unquote_to_bytes(address[4])
        return _read(data, _type_of(kind))
    if not kind:
        return ""
    raw = bytes(value) if isinstance(value, bytes | bytearray) else None
    packed = _read(_unpacked(text), _type_of(kind), sure=raw is None)
    return packed or ("" if raw is None else _read(raw, _type_of(kind)))


def _type_of(kind: str) -> str:
    """Return a media type from one, from a format or a file's name, `""` for one unheard of."""
    if "/" in kind:
        return kind.partition(";")[0].strip().lower()
    guessed = mimetypes.guess_type(f"x.{kind}".lower())[0] or ""
    # By its name, TypeScript is a film.
    return "" if guessed.startswith("video/") else guessed


def _unpacked(text: str) -> bytes:
    """Return what stands in base64, nothing where it is none; white space is none of it."""
    joined = "".join(text.split())
    if not _PACKED.fullmatch(joined):
        return b""
    whole = joined.rstrip("=").translate(str.maketrans("-_", "+/"))
    # Readers in the wild do not miss the padding, and do not mind a character too many.
    whole = whole[: len(whole) - (len(whole) % 4 == 1)]
    return base64.b64decode(whole + "=" * (-len(whole) % 4))


def _read(data: bytes, kind: str, *, sure: bool = True) -> str:
    """Return bytes as text, `""` where they are none.

    Args:
        data: the bytes.
        kind: their media type.
        sure: whether they are the document, so that they are read in any case if it is a text.
    """
    if not data or _OTHER.fullmatch(kind):
        return ""
    codec = "utf-16" if data.startswith((b"\xff\xfe", b"\xfe\xff")) else "utf-8-sig"
    try:
        text = data.decode(codec)
    except UnicodeDecodeError:
        text = ""
    if text and not _BINARY.search(text):
        return text
    # Older encodings, and UTF-16 that is not marked.
    return data.decode("latin-1").replace("\0", "") if sure and kind.startswith("text/") else ""
