"""Text as it was before somebody broke its lines within a key, a token or base64.

Tools break these at 64, 76 or 80 characters. A line end counts as such a break where at least
`WIDTH` characters of keys end, small and capital letters and digits among them, and goes on with
more of them.

This module does not know whether what it joins is a key.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from guard.text.draft import Draft

WIDTH: Final = 60
"""Characters of keys before a line end that may have been put in."""

_SIGN: Final = r"[A-Za-z0-9+/=_.-]"


def _holds(kind: str) -> str:
    return rf"(?={_SIGN}{{0,{WIDTH - 1}}}{kind})"


# Rules of dashes or dots are no keys, nor are paths in words.
_BEFORE: Final = (
    f"{_holds('[a-z]')}{_holds('[A-Z]')}{_holds('[0-9]')}{_SIGN}{{{WIDTH - 1}}}[A-Za-z0-9+/=_-]"
)

BREAK: Final = rf"(?:[\r\n](?:(?<={_BEFORE}[\r\n])|(?<={_BEFORE}\r\n)))"
"""A line end's character that may have been put in, by what is before it alone."""

NO_BREAK: Final = rf"(?:\n(?<!{_BEFORE}\n)(?<!{_BEFORE}\r\n))"
"""A line feed that was not."""

_GONE: Final = re.compile(rf"{BREAK}{{1,2}}[ \t]*+(?={_SIGN}{{0,99}}(?:[0-9=]|[a-z][A-Z]))")


def unwrapped(draft: Draft) -> Draft:
    """Return the draft without such line ends and what indents the lines behind them.

    What follows must not be a word. Takes time linear in the length.
    """
    return draft.replaced([(*m.span(), "", []) for m in _GONE.finditer(draft.text)])
