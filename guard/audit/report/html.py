"""HTML from values: whatever is text is escaped, so that nothing a model said becomes markup.

Everything made here is also well-formed XML.

This module does not know what a page is about.
"""

from __future__ import annotations

from collections.abc import Iterable
from html import escape
from typing import Final

from guard.text.visible import plain

_VOID: Final = frozenset({"br", "meta", "hr"})


class Markup(str):
    """Text that is HTML already."""

    __slots__ = ()


Content = str | Markup | None | Iterable["Content"]


def element(name: str, /, *content: Content, **attributes: str | None) -> Markup:
    """Return an element.

    Args:
        name: of the element.
        content: texts, which are escaped, and markup; `None` is left out.
        attributes: by name; a trailing `_` is dropped, and `_` stands for `-`. `None` is left
            out.
    """
    given = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{escape(shown(value), quote=True)}"'
        for key, value in attributes.items()
        if value is not None
    )
    if name in _VOID:
        return Markup(f"<{name}{given}/>")
    return Markup(f"<{name}{given}>{joined(*content)}</{name}>")


def joined(*content: Content) -> Markup:
    """Return content one after the other."""
    return Markup("".join(_text(item) for item in content))


def shown(text: str) -> str:
    r"""Return text with what could hide, reorder or break it written out (`\u202e`)."""
    # U+FFFE and U+FFFF are no characters in XML.
    return plain(text).replace("\ufffe", "\\ufffe").replace("\uffff", "\\uffff")


def _text(item: Content) -> str:
    if item is None:
        return ""
    if isinstance(item, Markup):
        return item
    if isinstance(item, str):
        return escape(shown(item))
    return "".join(map(_text, item))
