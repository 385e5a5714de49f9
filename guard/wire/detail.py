"""What a caller is told beside the text: how a refusal looks, and why there is one.

This module does not know any one format.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal

if TYPE_CHECKING:
    from guard.verdict import Verdict


@dataclass(frozen=True, slots=True)
class Style:
    """How a withheld choice is refused.

    Attributes:
        chat: the `finish_reason` of chat completions. With `stop` SDKs return the message;
            with `content_filter` some raise.
        responses: how a stream of the Responses API ends. With `completed` SDKs return the
            response, with a refusal in it; with `incomplete` (reason `content_filter`) the
            `stream` helper of the SDK raises.
    """

    chat: Literal["stop", "content_filter"] = "stop"
    responses: Literal["completed", "incomplete"] = "completed"


DEFAULT_STYLE: Final = Style()
"""What most readers understand."""


def detail(verdict: Verdict) -> dict[str, Any]:
    """Return what a machine should know of a verdict; it quotes no text."""
    return {
        "action": verdict.action,
        "security_class": verdict.security_class,
        "reasons": list(verdict.reasons),
        "record": verdict.record,
    }
