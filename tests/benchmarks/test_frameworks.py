"""The parts of `benchmarks/frameworks.py` that could make its figures wrong."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

import frameworks
import frameworks_cases
import wire
from guard.detectors.classifier import Classifier
from guard.loading import load_parts
from guard.policy import load_class
from live_report import table

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from guard.engine import Guard

BAD = "The museum opens at ten. They zblock well."

CASES = list(frameworks_cases.cases(BAD))


def named(case: frameworks_cases.Case) -> str:
    """Return a case's name."""
    return f"{case.framework}, {case.call}"


class TestCases:
    """What is timed."""

    @pytest.mark.parametrize("case", CASES, ids=named)
    def test_really_guarded(self, make_guard: Callable[..., Guard], case: Any) -> None:
        """A plain call gives the answer, beside the framework's own guard, too; ours withholds."""
        guards = {"packs": make_guard()}
        with asyncio.Runner() as runner:
            ways = frameworks.ways_of(case, guards, BAD, runner)
            assert "zblock" in _told(ways["unguarded"]())
            guarded = _told_or_raised(ways["packs"])
            assert "zblock" not in guarded
            assert "[blocked]" in guarded
            if case.own:
                assert "zblock" in _told(ways["own"]())
            assert ways["check, packs"]().action == "block"

    def test_guards(self) -> None:
        """*packs* is the class without the classifier, *all* has it."""
        packs, whole = (wire.judges_of(name).guard for name in ("packs", "all"))
        assert packs.detectors.keys() < whole.detectors.keys()
        more = whole.detectors.keys() - packs.detectors.keys()
        assert more == {each.name for each in load_parts(*_PUBLIC).detectors if _reads(each)}


_PUBLIC: Any = (load_class("public"), None, None, (), ())


def _reads(detector: Any) -> bool:
    """Return whether a detector is the classifier."""
    return isinstance(detector, Classifier)


def _told_or_raised(call: Callable[[], Any]) -> str:
    """Return what a call gives; some frameworks raise a refusal."""
    try:
        return _told(call())
    except Exception as error:  # noqa: BLE001  # each has a class of its own for it
        return str(error)


def _told(given: Any) -> str:
    """Return all that can be read of what a call gives; streams come in pieces."""
    if isinstance(given, list):
        return "".join(map(_told, given))
    if isinstance(given, tuple):
        return _told(given[0])
    for part in ("choices", "content"):
        found = getattr(given, part, None)
        if found:
            return _told(found)
    message = getattr(given, "message", None) or getattr(given, "delta", None)
    return _told(message) if message is not None else str(given)


class TestFigures:
    """What is made of it."""

    def result(self, **seconds: float) -> Any:
        """Return a case that was measured."""
        case = frameworks_cases.Case("F", "c", lambda _: lambda: None, "theirs")
        given = {
            name.replace("_", ", "): [value, value * 5, value / 5]
            for name, value in seconds.items()
        }
        return frameworks.Timed(case, given)

    def test_row(self) -> None:
        """Medians, ratios to the unguarded call, and what is added by one check."""
        seconds = {"unguarded": 0.01, "own": 0.02, "packs": 0.03, "all": 2.01}
        result = self.result(**seconds, check_packs=0.01, check_all=1.0)
        row = dict(zip(frameworks.HEAD, result.row(1.5, "today"), strict=True))
        assert row == {
            "framework": "F",
            "call": "c",
            "unguarded ms": "10.00",
            "own guard": "theirs",
            "own / unguarded": "2.00",
            "packs / unguarded": "3.00",
            "packs / own": "1.50",
            "packs added / check": "2.00",
            "all / unguarded": "201",
            "all added / check": "2.00",
            "noise": "1.50",
            "measured": "today",
        }

    def test_no_guard_of_its_own(self) -> None:
        """Where a framework has none, nothing stands there."""
        result = self.result(unguarded=1, packs=2, all=3, check_packs=1, check_all=1)
        row = dict(zip(frameworks.HEAD, result.row(1.0, ""), strict=True))
        assert (row["own guard"], row["own / unguarded"], row["packs / own"]) == ("", "", "")

    def test_next_to_nothing(self) -> None:
        """A ratio to a call that does nothing is not printed."""
        result = self.result(unguarded=1e-6, packs=1, all=2, check_packs=1, check_all=1)
        assert (result.ratio("packs"), result.ratio("all", "packs")) == ("> 1000", "2.00")

    def test_turns(self) -> None:
        """Each way is called as often as the others, first in turn; warm-up is not counted."""
        called: list[str] = []
        case = frameworks_cases.Case("F", "c", lambda _: lambda: None)
        ways = {name: (lambda name=name: called.append(name)) for name in "abc"}
        result = frameworks.timed(case, ways, 3)
        assert {name: len(values) for name, values in result.seconds.items()} == dict.fromkeys(
            "abc", 3
        )
        assert "".join(called) == "abcbcacababc"

    def test_publish(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Rows of another environment stay, those measured anew are replaced."""
        page = tmp_path / "page.md"
        monkeypatch.setattr(frameworks, "PAGE", page)
        page.write_text("a\n<!-- frameworks: begin -->\n<!-- frameworks: end -->\nb\n", "utf-8")

        def row(framework: str, figure: str) -> list[str]:
            return [framework, "`c`, d", figure, *[""] * (len(frameworks.HEAD) - 3)]

        frameworks.publish([row("B", "1"), row("C", "1")])
        frameworks.publish([row("A", "2"), row("B", "2")])
        rows = [row("A", "2"), row("B", "2"), row("C", "1")]
        text = page.read_text("utf-8")
        assert frameworks.published(text) == rows
        assert table(frameworks.HEAD, rows) in text
        assert text.startswith("a\n")
        assert text.endswith("\nb\n")
        page.write_text("a\n", "utf-8")
        with pytest.raises(ValueError, match="has no marks"):
            frameworks.publish([])
