"""A deployment's live risk, from its class and its detectors."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from guard.engine import Guard
from guard.errors import ConfigurationError
from guard.live import LiveRisk, LiveSettings, MemoryStore, Transition
from guard.live.deployed import follow
from guard.policy import builtin_classes, load_class

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from guard.security_class import SecurityClass

HOSTILE = "Those foreigners are vermin. They should be driven out of this town and beaten."
FINE = "Water the basil from below and give it the brightest window that you have."


class TestFollow:
    """What is followed."""

    def test_a_class_must_say_how(self, make_class: Callable[..., SecurityClass]) -> None:
        """There is no default that would suit every class."""
        with pytest.raises(ConfigurationError, match="give it a `live` section"):
            follow(make_class(), [])

    @pytest.mark.parametrize("name", ["public", "regulated", "critical"])
    def test_built_in_classes_are_watched(self, name: str, real_guard: Guard) -> None:
        """Every limited category of the classifier that validation knows enough of has a test."""
        del real_guard
        state = Guard.load(name, journal=None, live=True)._live
        assert state is not None
        watched = {n for n, each in state.state().categories.items() if each.evidence is not None}  # type: ignore[attr-defined]
        assert {"harmful_compliance", "misaligned_persona", "bad_advice"} <= watched

    def test_every_built_in_class_that_tightens_has_a_stricter_one(self) -> None:
        """Else the alarm would change nothing."""
        for item in builtin_classes():
            if item.live is not None and "tighten" in item.live.actions:
                above = item.stricter
                assert above is not None
                assert above.rank > item.rank

    def test_a_policy_without_a_stricter_class_cannot_tighten(self, tmp_path: Path) -> None:
        """It is refused at load."""
        path = tmp_path / "own.yaml"
        text = load_text("public").replace("action: notify", "action: tighten")
        path.write_text(text, encoding="utf-8")
        with pytest.raises(ConfigurationError, match="tightens"):
            Guard.load(path, journal=None, live=True)


class TestGuard:
    """A real guard that follows its live risk."""

    def test_what_was_seen_moves_the_priors(self) -> None:
        """Hostile answers raise the risk of the same answer; by default nothing moves."""
        guard = Guard.load("public", journal=None, live=True)
        first = guard.check(FINE).risks
        for _ in range(30):
            guard.check(HOSTILE)
        assert guard.check(FINE).risks["hate_toxicity"] > first["hate_toxicity"]

    def test_a_conversation_has_a_prior_of_its_own(self) -> None:
        """What one conversation shows counts there the most."""
        guard = Guard.load("public", journal=None, live=True)
        for _ in range(5):
            guard.check(HOSTILE, conversation="a")
        there = guard.check(FINE, conversation="a").risks["hate_toxicity"]
        elsewhere = guard.check(FINE, conversation="b").risks["hate_toxicity"]
        assert there > elsewhere

    def test_who_is_told_of_alarms(self) -> None:
        """Callables that were given at load get each transition."""
        told: list[Transition] = []
        guard = Guard.load("public", journal=None, live=True, notify=[told.append])
        live: Any = guard.live
        while not live.observe({"harassment": 20.0}):
            pass
        live.clear("all", by="tests", reason="it was a test")
        assert [each.kind for each in told] == ["raised", "cleared"]

    def test_nobody_can_be_told_of_nothing(self) -> None:
        """Notifiers that would never be called are an error, and not silence."""
        for live in (False, LiveRisk(LiveSettings(), {"harassment": 0.02}, confusion={})):
            with pytest.raises(ConfigurationError, match="`notify` needs"):
                Guard.load("public", journal=None, live=live, notify=[print])

    def test_a_quarantine_stands_until_somebody_clears_it(self, tmp_path: Path) -> None:
        """A deployment that turned bad delivers nothing, until a person says so."""
        path = tmp_path / "own.yaml"
        text = load_text("public").replace("action: notify", "action: quarantine")
        path.write_text(text, encoding="utf-8")
        store = MemoryStore()
        guard = Guard.load(path, journal=None, live=store)
        for _ in range(400):
            if guard.check(HOSTILE).reasons and guard.posture == "quarantine":
                break
        assert guard.posture == "quarantine"
        assert guard.check(FINE).action == "block"
        live: Any = guard._live
        live.clear("all", by="tests", reason="it was a test")
        assert guard.posture == "normal"
        assert guard.check(FINE).action == "allow"


def load_text(name: str) -> str:
    """Return a built-in class's file."""
    from guard.policy import BUILTIN

    assert load_class(name).name == name
    return (BUILTIN / f"{name}.yaml").read_text("utf-8")
