"""A model of the Agents SDK that gives answers, whole or streamed.

This module does not know how an answer is judged.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from agents.testing import ModelStep, ScriptedModel, assistant_message, function_call
from openai.types.responses import ResponseReasoningItem
from openai.types.responses.response_reasoning_item import Summary

from guard.exchange import Choice

if TYPE_CHECKING:
    from collections.abc import Sequence

_REPEATS = 8
"""How often the last answer is given."""


def scripted_model(answers: Sequence[Choice]) -> ScriptedModel:
    """Return a model that gives answers, one after another; the last one repeats."""
    given = list(answers) or [Choice("Nothing.")]
    return ScriptedModel([ModelStep(output=output(each)) for each in given + given[-1:] * _REPEATS])


def output(choice: Choice) -> list[Any]:
    """Return an answer's items."""
    summary = [Summary(text=choice.reasoning, type="summary_text")]
    thought = ResponseReasoningItem(id="rs_1", summary=summary, type="reasoning")
    said = [assistant_message(choice.content)] if choice.content else []
    calls = [function_call(c.name, c.arguments, call_id=c.id) for c in choice.tool_calls]
    return [*([thought] if choice.reasoning else []), *said, *calls]
