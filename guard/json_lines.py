"""One line of a file of JSON lines, or words that say why it is none and where.

Files are in UTF-8, or in UTF-16 where their mark says so, as PowerShell writes them.

This module does not know what a line should hold.
"""

from __future__ import annotations

import json
from codecs import BOM_UTF16_BE, BOM_UTF16_LE, BOM_UTF32_LE
from io import BytesIO
from typing import TYPE_CHECKING, Any, Final

from guard.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator


GOING: Final = b"#"
"""How a line begins that somebody began to take out and did not end; no JSON begins so."""


def is_row(line: bytes) -> bool:
    """Return whether a line holds anything: it is neither blank nor being taken out."""
    return bool(line.strip()) and not line.lstrip().startswith(GOING)


def utf8(content: bytes) -> bytes:
    """Return a file's content in UTF-8 where its mark says UTF-16; anything else as it is."""
    if not _is_utf16(content):
        return content
    try:
        return content.decode("utf-16").encode("utf-8")
    except UnicodeError:
        return content


def utf8_lines(file: Iterable[bytes]) -> Iterator[bytes]:
    """Yield a file's lines with their ends, of one in UTF-16 in UTF-8; that is read at once.

    Raises:
        OSError: it cannot be read.
    """
    rest = iter(file)
    first = next(rest, b"")
    if _is_utf16(first):
        yield from BytesIO(utf8(first + b"".join(rest)))
    elif first:
        yield first
        yield from rest


def _is_utf16(content: bytes) -> bool:
    # UTF-32's mark begins like that of UTF-16.
    return content.startswith((BOM_UTF16_LE, BOM_UTF16_BE)) and not content.startswith(BOM_UTF32_LE)


def parsed(line: bytes) -> Any:
    """Return what a line holds.

    Args:
        line: JSON in UTF-8, behind a byte-order mark or not.

    Raises:
        InputError: it is no JSON, or more than can be read of it.
    """
    try:
        return json.loads(line.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        text = f"not valid UTF-8 at byte {error.start + 1} ({error.reason}): save the file as UTF-8"
        raise InputError(text) from None
    except json.JSONDecodeError as error:
        raise InputError(f"not JSON: {error.msg} at character {error.pos + 1}") from None
    except ValueError:  # Python refuses to read numbers of thousands of digits
        raise InputError("not usable: holds a number of too many digits") from None
    except RecursionError:
        raise InputError("not usable: nested too deeply") from None
