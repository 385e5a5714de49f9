"""The parts of `benchmarks/wire.py` that could make its figures wrong."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from structlog.testing import capture_logs

import wire
from guard.scripted import cut

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from guard.engine import Guard


class TestStreams:
    """What is measured."""

    def test_tokens(self) -> None:
        """A text has as many pieces as are counted, and its first is what readers wait for."""
        assert [len(cut(wire.said(tokens))) for tokens in (1, 40, 256)] == [1, 40, 256]
        first = next(e for e in wire.stream_of("chat", 40) if wire.FIRST in e)
        assert b"museum" not in first

    @pytest.mark.parametrize("form", wire.SCRIPTED)
    def test_judged_to_the_end(self, make_guard: Callable[..., Guard], form: str) -> None:
        """A stream that is timed is really judged: a bad word at its end is found."""
        events = wire.stream_of(form, 200)
        found = [event.replace(b" floors", b" zflag") for event in events]
        assert found != events
        with capture_logs() as logs:
            wire.relay(make_guard(), form, events)
        assert not logs
        with capture_logs() as logs:
            wire.relay(make_guard(), form, found)
        assert [entry["event"] for entry in logs] == ["guard.flagged"]


class TestFigures:
    """What is made of it."""

    def test_run(self) -> None:
        """Medians, 95th percentiles and CPU per 1,000 tokens."""
        samples = [wire.Sample(first / 100, 2.0) for first in range(101)]
        run = wire.Run(samples, cpu=0.5, tokens=5000)
        assert (run.median("first"), run.high("first"), run.cost) == (0.5, 0.95, 100.0)

    def test_publish(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """The tables stand between their marks, once; a page without marks is an error."""
        page = tmp_path / "page.md"
        monkeypatch.setattr(wire, "PAGE", page)
        page.write_text(f"a\n{wire.BEGIN}\n{wire.END}\nb\n", "utf-8")
        for text in ("one", "two"):
            wire.publish(text)
        assert page.read_text("utf-8") == f"a\n{wire.BEGIN}\ntwo\n{wire.END}\nb\n"
        page.write_text("a\n", "utf-8")
        with pytest.raises(ValueError, match="has no marks"):
            wire.publish("three")
