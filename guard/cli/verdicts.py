"""How verdicts look in a terminal: colours, and the gravest reason in a few words.

This module does not know how a verdict came about.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from rich.text import Text

if TYPE_CHECKING:
    from guard.verdict import Verdict

STYLES: Final = {
    "allow": "green",
    "flag": "yellow",
    "rewrite": "dark_orange",
    "block": "bold red",
}
"""Each action's colour, from mild to severe."""


def action_text(verdict: Verdict) -> Text:
    """Return the action in its colour; a shadowed one says what would have happened."""
    if verdict.shadow and verdict.intended != verdict.action:
        return Text(f"{verdict.action} (would {verdict.intended})", STYLES[verdict.intended])
    return Text(verdict.action, STYLES[verdict.action])


def cause(verdict: Verdict) -> tuple[str, str]:
    """Return what led to the verdict and its live risk, both empty where nothing did."""
    if not verdict.reasons:
        return "", ""
    name = verdict.reasons[0].partition(":")[0].partition(" ")[0]
    risk = verdict.risks.get(name)
    return name, "" if risk is None else f"{risk:.2f}"
