r"""Text as it shows: what HTML, Markdown, addresses and JSON write in escapes, and tags, undone.

`ghp\_x`, `ghp&#95;x`, `ghp%5Fx`, `ghp\u005fx` and `ghp<b>_x</b>` show, or stand for, the same key.
Typographic dashes become hyphens. Once only: what an escape stands for is no escape. For readers of
words there are characters by their numbers alone (`decoded`).

This module does not know whether a text is shown as HTML, as Markdown or as it is, so that its
result is a reading beside the text itself and never in its place.
"""

from __future__ import annotations

import html
import re
from html.entities import html5
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from guard.text.draft import Draft

_CELLS: Final = "td|th|dd"
_BLOCKS: Final = (
    "address|article|blockquote|br|div|dl|dt|figure|footer|h[1-6]|header|hr|li|main|nav|ol|p|pre|"
    "section|table|tbody|tfoot|thead|tr|ul"
)
_INLINE: Final = (
    "a|abbr|b|big|bdi|cite|code|del|dfn|em|font|i|ins|kbd|mark|q|s|samp|small|span|strike|strong|"
    "sub|sup|tt|u|wbr"
)
"""Names of HTML; `<token>` and `<var>` are what stands for something, and stay."""

_MAXIMUM: Final = 200
"""Characters of a tag's attributes; from each `<` no more are read."""

_SHOWN: Final = re.compile(
    # The first sign alone, so that the engine seeks it as quickly as it can.
    r"[&%\\<\u2010-\u2015\u2212](?:"
    r"(?<=&)(?:(?P<number>#[0-9]{1,7}|#[xX][0-9A-Fa-f]{1,6})|(?P<name>[A-Za-z][A-Za-z0-9]{1,31}));"
    r"|(?<=%)(?P<octet>[2-6][0-9A-Fa-f]|7[0-9A-Ea-e])"
    r"|(?<=\\)(?:u(?P<unit>[0-9A-Fa-f]{4})|x(?P<byte>[2-7][0-9A-Fa-f])"
    r"|(?P<sign>[-_*.~+@#!|/:=$]))"
    rf"|(?i:(?<=<)(?:(?P<cell>(?:{_CELLS})(?:\s[^<>]{{0,{_MAXIMUM}}})?>)"
    rf"|(?P<inline>/?(?:{_INLINE})(?:\s[^<>]{{0,{_MAXIMUM}}})?/?>)"
    rf"|(?P<block>/?(?:{_BLOCKS}|{_CELLS})(?:\s[^<>]{{0,{_MAXIMUM}}})?/?>)))"
    r"|(?P<dash>(?<=[\u2010-\u2015\u2212])))"
)
_DASHES: Final = dict.fromkeys((*range(0x2010, 0x2016), 0x2212), "-")

_CODES: Final = re.compile(
    r"&#(?:(?P<number>[0-9]{1,8})|[xX](?P<hex>[0-9A-Fa-f]{1,8}));?"
    r"|\\{1,4}(?:u(?P<unit>[0-9A-Fa-f]{4})|u\{(?P<point>[0-9A-Fa-f]{1,6})\}"
    r"|U(?P<long>00[01][0-9A-Fa-f]{5})|x(?P<byte>[2-7][0-9A-Fa-f]))"
)
"""Characters by their numbers, as HTML, JSON and code write them; JSON within JSON, too."""

_HIGHEST: Final = 0x10FFFF


def decoded(draft: Draft) -> Draft:
    """Return the draft with characters in the place of their numbers; the same one without any.

    For readers of words: whoever sees the text shown, or asks for it so, reads these. Control
    characters below U+0020 become spaces. Takes time linear in the length.
    """
    return draft.replaced([(*m.span(), _character(m), None) for m in _CODES.finditer(draft.text)])


def _character(match: re.Match[str]) -> str:
    """Return what a number stands for, itself where that is no character."""
    kind = match.lastgroup or ""
    code = int(match[kind], 10 if kind == "number" else 16)
    if code > _HIGHEST:
        return match[0]
    return chr(code) if code >= ord(" ") else " "


def unescaped(draft: Draft) -> Draft:
    """Return the draft as it shows; the same one where it has nothing to undo.

    Takes time linear in the length. A reference that names nothing stays.
    """
    return draft.replaced([(*m.span(), _shown(m), None) for m in _SHOWN.finditer(draft.text)])


def _shown(match: re.Match[str]) -> str:
    """Return what an escape, a tag or a dash shows."""
    kind = match.lastgroup or ""
    value = match[kind]
    if kind == "name":
        return html5.get(f"{value};", match[0]).translate(_DASHES)
    if kind == "number":
        return html.unescape(match[0]).translate(_DASHES)
    if kind in ("octet", "unit", "byte"):
        return chr(int(value, 16)).translate(_DASHES)
    return {"sign": value, "cell": " | ", "inline": "", "block": " ", "dash": "-"}[kind]
