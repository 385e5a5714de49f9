"""Measures the ways to read an answer in a framework whose model is scripted with `Choice`s.

An adapter's test says how a model gives `Choice`s and how it is read, each way by a function
from a *subject* (a model, plain or guarded) to all that can be read there:

    LAB = Lab("pydantic-ai", build)
    rows = [await LAB.measure(way, guard) for way in LAB.ways]

This module does not know any framework.
"""

from __future__ import annotations

import json
import re
import runpy
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from guard.exchange import Choice, ToolCall
from tests.adapters.leak_matrix import Row

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

    import pytest

    from guard.engine import Guard
    from guard.server.scripted import ScriptedApp

PROMPT: Final = "What grows in the shade?"

FINE: Final = "Ferns grow in the shade. Water them in the morning, and they will thank you for it."

Answers = tuple[Choice, ...]
"""What a model answers, one after another; the last one repeats."""


def call(**given: str) -> Choice:
    """Return an answer that calls the tool `look_up`."""
    return Choice("One moment.", tool_calls=(ToolCall("look_up", json.dumps(given), "call_1"),))


BLOCKED: Final[dict[str, Answers]] = {
    "text": (Choice(f"{FINE} They zblock well."),),
    "reasoning": (Choice(FINE, reasoning="I zblock here."),),
    "call": (call(query="they zblock well"), Choice(FINE)),
}
REWRITTEN: Final[dict[str, Answers]] = {
    "text": (Choice(f"{FINE} They zredact well. {FINE}"),),
    "call": (call(query="they zredact well"), Choice(FINE)),
}
BENIGN: Final[dict[str, Answers]] = {
    "text": (Choice(f"{FINE} {FINE} {FINE}"),),
    "reasoning": (Choice(FINE, reasoning="Shade, so ferns."),),
    "call": (call(query="ferns"), Choice(FINE)),
}

_VARYING: Final = (
    (r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}", "UUID"),
    (r"\b[0-9a-f]{32}\b", "UUID"),
    (r"datetime\.datetime\([^()]*(\([^()]*\)[^()]*)*\)", "TIME"),
    (r"\d{4}-\d\d-\d\d[T ][\d:.+Z]+", "TIME"),
    (r" at 0x[0-9a-f]+", ""),
)


@dataclass(frozen=True)
class Way:
    """A way to read what was said; `kinds` are the kinds of answers that it can show."""

    name: str
    read: Callable[[Any], Awaitable[Any]]
    kinds: tuple[str, ...]


@dataclass
class Lab:
    """One framework: how a subject is built, and the ways to read it.

    Attributes:
        title: the section's, in the leak matrix.
        build: makes a subject of answers and a guard; `None` for none.
    """

    title: str
    build: Callable[[Answers, Guard | None], Any]
    ways: list[Way] = field(default_factory=list)

    def way(self, name: str, *kinds: str) -> Callable[[Any], Any]:
        """Register a way to read a subject."""

        def register(read: Callable[[Any], Awaitable[Any]]) -> Callable[[Any], Awaitable[Any]]:
            self.ways.append(Way(name, read, kinds or tuple(BENIGN)))
            return read

        return register

    async def measure(self, way: Way, guard: Guard) -> Row:
        """Return what a way shows."""
        benign = ""
        for answers in _of_kinds(BENIGN, way):
            plain = normal(await way.read(self.build(answers, None)))
            benign = benign or difference(plain, normal(await way.read(self.build(answers, guard))))
        return Row(
            way.name,
            "".join([await self._shown(way, a, None) for a in _of_kinds(BLOCKED, way)]),
            "".join([await self._shown(way, a, guard) for a in _of_kinds(BLOCKED, way)]),
            "".join([await self._shown(way, a, guard) for a in _of_kinds(REWRITTEN, way)]),
            benign,
        )

    async def _shown(self, way: Way, answers: Answers, guard: Guard | None) -> str:
        return repr(await way.read(self.build(answers, guard)))


def _of_kinds(cases: dict[str, Answers], way: Way) -> Iterator[Answers]:
    return (answers for kind, answers in cases.items() if kind in way.kinds)


def pieces(text: str) -> list[str]:
    """Return a text in pieces as a model streams it."""
    return re.findall(r"\s*\S{1,6}|\s+$", text)


def normal(read: Any) -> str:
    """Return what was read without what differs from run to run."""
    text = repr(read)
    for pattern, name in _VARYING:
        text = re.sub(pattern, name, text)
    return text


def difference(one: str, other: str) -> str:
    """Return where two texts part, `""` where they are the same."""
    if one == other:
        return ""
    at = next((i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), 0)
    return f"…{one[max(0, at - 60) : at + 60]}… / …{other[max(0, at - 60) : at + 60]}…"


def run_example(
    name: str, backend: ScriptedApp, monkeypatch: pytest.MonkeyPatch, folder: Path
) -> dict[str, Any]:
    """Run an example of the documentation against a scripted backend; return its globals."""
    monkeypatch.setenv("OPENAI_BASE_URL", f"{backend.url}/v1")
    monkeypatch.setenv("OPENAI_API_KEY", "made-up-key")
    monkeypatch.setenv("GUARD_JOURNAL", str(folder / "journal.db"))
    return runpy.run_path(str(Path(__file__).parents[2] / "docs" / "examples" / f"{name}.py"))
