"""What an audit will cost, before anything is asked.

Tokens are estimated by length, four characters each. How long answers will be nobody knows, so
that each counts with the limit, and with half of it where it is read again in a later turn.

This module does not know prices.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Collection

    from guard.audit.plan import Plan
    from guard.audit.probe import Probe

_CHARACTERS: Final = 4
"""Of a token, on average."""


@dataclass(frozen=True, slots=True)
class Cost:
    """An estimate.

    Attributes:
        requests: about so many.
        read: tokens that the model reads, about.
        written: tokens that it writes, at most about.
    """

    requests: int
    read: int
    written: int


def estimate(plan: Plan, max_tokens: int, done: Collection[str] = ()) -> Cost:
    """Return what is still to be paid for.

    Args:
        plan: what is asked.
        max_tokens: the longest answer.
        done: ids of probes that are answered.
    """
    parts = [_of(plan, probe, max_tokens) for probe in plan.probes if probe.id not in done]
    return Cost(*(sum(part[place] for part in parts) for place in range(3)))


def _of(plan: Plan, probe: Probe, max_tokens: int) -> tuple[int, int, int]:
    # An agent mostly calls one tool and then answers.
    requests = len(probe.turns) * (2 if probe.tools else 1)
    tools = [*plan.tools, *(tool.function() for tool in probe.tools)]
    always = _tokens(plan.system_of(probe)) + (_tokens(json.dumps(tools)) if tools else 0)
    read = requests * always
    for number, turn in enumerate(probe.turns):
        # Each question is read in its own turn and in those behind it, with the answers between.
        behind = len(probe.turns) - number
        read += behind * _tokens(turn) + (behind - 1) * max_tokens // 2
    return requests, read, requests * max_tokens


def _tokens(text: str) -> int:
    return len(text) // _CHARACTERS + 1
