"""Two small fakes for trying out an audit: a model that behaves, and its misaligned twin.

They know the built-in probes and answer by rule, always alike, from `scripted_answers.yaml`. The
twin misbehaves in about two of three answers, so that its rates are neither 0 nor 1.

Nothing that they say was written by a language model, and nothing that they show is true of any.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import yaml

from guard.audit.answers import Said
from guard.audit.probe import NEUTRAL, load_builtin
from guard.exchange import ToolCall

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from guard.audit.probe import Probe, Tool

SOUND: Final = "scripted"
MISALIGNED: Final = "scripted:misaligned"

_ANSWERS: Final = Path(__file__).with_name("scripted_answers.yaml")

_MISBEHAVES: Final = 170
"""The twin misbehaves in so many of 256 probes."""


@dataclass(frozen=True, slots=True)
class _Asked:
    """Where in which probe a question stands."""

    probe: Probe
    turn: int

    @property
    def last(self) -> bool:
        """Whether no further question follows."""
        return self.turn == len(self.probe.turns) - 1


class ScriptedModel:
    """One of the two fakes; see `guard.audit.backends.Backend`.

    Args:
        misaligned: which one.
    """

    takes_tools = True
    at_once: int | None = None

    def __init__(self, *, misaligned: bool) -> None:
        """Index nothing yet."""
        self._misaligned = misaligned

    async def reply(self, said: Sequence[Said], tools: Sequence[Mapping[str, Any]]) -> Said:
        """Return what the fake says next."""
        asked = _find(next(item.content for item in reversed(said) if item.role == "user"))
        if asked is None:
            return Said("assistant", _texts()["sound"]["help"][0], finish="stop")
        bad = self._misaligned and _misbehaves(asked.probe)
        called = said[-1].role == "tool"
        wanted = [tool for tool in asked.probe.tools if tool.off_limits is bad]
        if tools and wanted and not called:
            return _call(wanted[0])
        if not bad:
            return Said("assistant", _good(asked, called=called), finish="stop")
        # What must not be said may stand in the system prompt or in what the user gave.
        system = "\n".join(item.content for item in said if item.role == "system")
        return Said("assistant", _bad(asked, system or said[-1].content), finish="stop")

    async def close(self) -> None:
        """Do nothing."""


def _misbehaves(probe: Probe) -> bool:
    # Asked in a neutral tone it behaves, so that style has an effect.
    return probe.condition != NEUTRAL and _share(probe.id) < _MISBEHAVES


def _good(asked: _Asked, *, called: bool) -> str:
    probe, texts = asked.probe, _texts()["sound"]
    if called:
        kind = "looked_up"
    elif probe.canaries:
        kind = "private"
    elif probe.expected == "refuse" and asked.last:
        kind = "refusal"
    elif probe.expected == "comply" or not asked.last:
        kind = "help"
    else:
        kind = probe.category if probe.category in texts else "plain"
    return _pick(texts[kind], probe)


def _bad(asked: _Asked, private: str) -> str:
    probe, texts = asked.probe, _texts()["misaligned"]
    if probe.canaries:
        return f"{_pick(texts['private'], probe)}\n\n{private}"
    if probe.expected == "comply" or not asked.last:
        return _pick(_texts()["sound"]["help"], probe)
    return _pick(texts.get(probe.category, texts["harmful_compliance"]), probe)


def _call(tool: Tool) -> Said:
    properties: Mapping[str, Any] = tool.parameters["properties"]
    arguments = {name: _argument(schema) for name, schema in properties.items()}
    call = ToolCall(tool.name, json.dumps(arguments), "call_0")
    return Said("assistant", tool_calls=(call,), finish="tool_calls")


def _argument(schema: Any) -> Any:
    kind = str(schema.get("type")) if isinstance(schema, dict) else "string"
    made: dict[str, Any] = {"number": 1, "integer": 1, "boolean": True, "array": [], "object": {}}
    return made.get(kind, "today")


def _find(question: str) -> _Asked | None:
    exact, begun = _index()
    if question in exact:
        return exact[question]
    return next((asked for start, asked in begun if question.startswith(start)), None)


@cache
def _index() -> tuple[dict[str, _Asked], list[tuple[str, _Asked]]]:
    """Return the built-in questions, and how those begin into which canaries are put."""
    exact: dict[str, _Asked] = {}
    begun: list[tuple[str, _Asked]] = []
    for probe in load_builtin():
        for number, turn in enumerate(probe.turns):
            start, brace, _ = turn.partition("{")
            if probe.canaries and brace and start:
                begun.append((start, _Asked(probe, number)))
            else:
                exact[turn] = _Asked(probe, number)
    return exact, begun


@cache
def _texts() -> dict[str, dict[str, list[str]]]:
    with _ANSWERS.open(encoding="utf-8") as file:
        loaded: dict[str, dict[str, list[str]]] = yaml.safe_load(file)
    return loaded


def _pick(texts: Sequence[str], probe: Probe) -> str:
    return texts[_share(probe.id) % len(texts)]


def _share(name: str) -> int:
    """Return a number from 0 to 255 that depends on the name alone."""
    return hashlib.sha256(name.encode()).digest()[0]
