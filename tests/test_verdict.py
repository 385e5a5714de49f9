"""The decision: which limit was reached, what is graver, and a verdict as JSON."""

from __future__ import annotations

import dataclasses
import json
import math
from typing import TYPE_CHECKING, Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from guard.assess import Assessment, Coverage, Failure, live_risk, log_odds
from guard.detectors.base import Finding
from guard.exchange import Choice, ToolCall
from guard.security_class import SecurityClass
from guard.verdict import (
    ESCALATION,
    Action,
    Reason,
    Step,
    Verdict,
    action_of,
    coverage_dict,
    decide,
    delivers,
    finding_dict,
    worst_action,
    worst_step,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

STEPS: tuple[Step, ...] = get_args(Step)
ACTIONS: tuple[Action, ...] = get_args(Action)
PRIOR = 0.02


def new_class(limits: Mapping[str, Mapping[str, Any]]) -> SecurityClass:
    """Return a class with the given limits and a prior of 0.02 throughout."""
    messages = {"en": {"blocked": "Held back.", "replaced": "Replaced."}}
    values = {"name": "test", "rank": 1, "limits": limits, "messages": messages}
    return SecurityClass.model_validate(values | {"prior": {"default": PRIOR}})


def evidence_for(risk: float) -> float:
    """Return the evidence that lifts the prior to `risk`."""
    return log_odds(risk) - log_odds(PRIOR)


def new_verdict(**changes: Any) -> Verdict:
    """Return a rewritten exchange with a finding and a failure, and `changes` applied."""
    finding = Finding("pii_leak", 8.12345, 3, 9, "personal", "1-ab", "card", "choices[0].content")
    failure = Failure("slow", "timed_out", "", "choices[0].content", 0, 20)
    coverage = Coverage(
        judged={"choices[0].content": 20},
        units=1,
        detectors={"personal": "ok", "slow": "timed_out"},
        failures=(failure,),
    )
    values: dict[str, Any] = {
        "action": "rewrite",
        "text": "Pay [redacted: pii leak] now",
        "message": "",
        "choices": (Choice("Pay [redacted: pii leak] now", tool_calls=(ToolCall("f", "{}"),)),),
        "assessment": Assessment({"pii_leak": 0.94321}, (finding,), coverage),
        "reasons": ("pii_leak: live risk 0.94 reached 0.85 (redact)",),
        "intended": "rewrite",
        "shadow": False,
        "security_class": "public",
        "streamed": "Pay [redacted: pii leak] now",
        "record": "r1",
    }
    return Verdict(**(values | changes))


class TestSeverity:
    """What is graver than what."""

    def test_steps_are_listed_from_mild_to_severe(self) -> None:
        """The order of the `Step` literal is the order of severity, without ties."""
        for index, step in enumerate(STEPS):
            assert worst_step(STEPS[: index + 1]) == step
            assert worst_step(reversed(STEPS[: index + 1])) == step

    def test_actions_are_listed_from_mild_to_severe(self) -> None:
        """The order of the `Action` literal is the order of severity."""
        for index, action in enumerate(ACTIONS):
            assert worst_action(ACTIONS[: index + 1]) == action
            assert worst_action(reversed(ACTIONS[: index + 1])) == action

    def test_nothing_is_mild(self) -> None:
        """Where nothing was decided, nothing is held back."""
        assert worst_step([]) == "allow"
        assert worst_action([]) == "allow"

    def test_a_graver_step_is_never_a_milder_action(self) -> None:
        """Steps and actions agree on what is grave."""
        order = [ACTIONS.index(action_of(step)) for step in STEPS]
        assert order == sorted(order)
        assert {action_of(step) for step in STEPS} == set(ACTIONS)

    @pytest.mark.parametrize("step", STEPS)
    def test_text_leaves_unchanged_only_when_allowed_or_flagged(self, step: Step) -> None:
        """`delivers` agrees with the action."""
        assert delivers(step) == (action_of(step) in {"allow", "flag"})


class TestDecide:
    """Limits against evidence."""

    LIMITS: Mapping[str, Mapping[str, Any]] = {
        "violence": {"flag": 0.5, "act": 0.9, "remedy": "block"},
        "bad_advice": {"flag": 0.5, "act": 0.9, "remedy": "excise"},
        "exposure": {"flag": 0.5},
        "secret_leak": {"act": 0.5, "remedy": "redact"},
    }

    @pytest.mark.parametrize(
        ("category", "risk", "step"),
        [
            ("violence", 0.49, None),
            ("violence", 0.51, "flag"),
            ("violence", 0.89, "flag"),
            ("violence", 0.91, "block"),
            ("bad_advice", 0.91, "excise"),
            ("exposure", 0.999, "flag"),
            ("secret_leak", 0.49, None),
            ("secret_leak", 0.51, "redact"),
            ("sycophancy", 0.999, None),
        ],
    )
    def test_the_highest_limit_that_is_reached_counts(
        self, category: str, risk: float, step: Step | None
    ) -> None:
        """Below the flag nothing happens; a class without a limit for a category never acts."""
        reasons = decide({category: evidence_for(risk)}, new_class(self.LIMITS))
        assert [reason.step for reason in reasons] == ([step] if step else [])

    @pytest.mark.parametrize("limit", ["flag", "act"])
    def test_reaching_a_limit_exactly_is_reaching_it(self, limit: str) -> None:
        """A live risk that equals the limit counts."""
        risk = live_risk(3.0, PRIOR)
        (reason,) = decide({"violence": 3.0}, new_class({"violence": {limit: risk}}))
        assert reason.risk == reason.limit == risk

    def test_a_limit_of_zero_always_counts(self) -> None:
        """A limit of 0 is reached whatever the evidence against."""
        (reason,) = decide({"violence": -1e308}, new_class({"violence": {"flag": 0}}))
        assert reason.step == "flag"

    def test_what_is_no_number_reaches_every_limit(self) -> None:
        """NaN evidence is never an all-clear."""
        (reason,) = decide({"violence": math.nan}, new_class({"violence": {"act": 1.0}}))
        assert reason.step == "block"

    def test_the_gravest_comes_first(self) -> None:
        """Reasons are sorted by severity, in the order of the evidence where that is equal."""
        evidence = dict.fromkeys(["exposure", "secret_leak", "bad_advice", "violence"], 20.0)
        steps = [reason.step for reason in decide(evidence, new_class(self.LIMITS))]
        assert steps == ["block", "excise", "redact", "flag"]

    def test_a_reason_says_what_was_reached(self) -> None:
        """A reason names category, live risk, limit and step."""
        (reason,) = decide({"violence": evidence_for(0.951)}, new_class(self.LIMITS))
        assert str(reason) == "violence: live risk 0.95 reached 0.90 (block)"
        assert reason.severity == 6

    @given(st.floats(allow_nan=False), st.floats(allow_nan=False))
    def test_more_evidence_is_never_milder(self, one: float, two: float) -> None:
        """The step grows with the evidence."""
        found = [decide({"violence": v}, new_class(self.LIMITS)) for v in sorted([one, two])]
        steps: list[Step] = [worst_step(r.step for r in reasons) for reasons in found]
        assert worst_step(steps) == steps[1]


class TestReason:
    """How a reason reads."""

    def test_a_failure_names_detector_and_status(self) -> None:
        """A detector that failed is named, with what `on_failure` made of it."""
        reason = Reason("detector:slow", "block", 1.0, status="timed_out")
        assert str(reason) == "detector:slow timed_out: on_failure is block"

    def test_an_escalation_says_that_no_rewrite_passed(self) -> None:
        """Where a rewritten text did not pass, the reason says so."""
        text = str(Reason(ESCALATION, "block", 1.0))
        assert text == "no rewrite of the unit passed when judged again (block)"


class TestVerdict:
    """What a caller reads."""

    def test_what_the_assessment_knows_is_at_hand(self) -> None:
        """Risks, findings and coverage are those of the assessment."""
        verdict = new_verdict()
        assert verdict.risks is verdict.assessment.risks
        assert verdict.findings is verdict.assessment.findings
        assert verdict.coverage is verdict.assessment.coverage

    def test_delivered_is_the_text_or_the_message(self) -> None:
        """Where nothing may be delivered, the class's message stands in."""
        assert new_verdict().delivered == "Pay [redacted: pii leak] now"
        assert new_verdict(text=None, message="Sorry.").delivered == "Sorry."
        assert not new_verdict(text="", message="Sorry.").delivered

    def test_the_journal_row_makes_no_difference(self) -> None:
        """Two verdicts that differ in their row alone are equal."""
        assert new_verdict(record="r1") == new_verdict(record=None)

    def test_a_verdict_cannot_change(self) -> None:
        """Verdicts are frozen."""
        with pytest.raises(dataclasses.FrozenInstanceError):
            new_verdict().action = "allow"  # type: ignore[misc]  # pyright: ignore[reportAttributeAccessIssue]


class TestToDict:
    """A verdict as JSON."""

    def test_it_survives_json(self) -> None:
        """The dictionary holds plain values only."""
        plain = new_verdict().to_dict()
        assert json.loads(json.dumps(plain)) == plain

    def test_it_names_what_was_decided_and_why(self) -> None:
        """Decision, text, reasons, risks, class and row are there."""
        plain = new_verdict().to_dict()
        expected = {
            "action": "rewrite",
            "text": "Pay [redacted: pii leak] now",
            "message": "",
            "reasons": ["pii_leak: live risk 0.94 reached 0.85 (redact)"],
            "risks": {"pii_leak": 0.9432},
            "intended": "rewrite",
            "shadow": False,
            "security_class": "public",
            "record": "r1",
        }
        assert {name: plain[name] for name in expected} == expected

    def test_a_finding_has_its_span_and_no_text(self) -> None:
        """Every finding is there, with where and how strong and by whom, without the words."""
        (finding,) = new_verdict().findings
        assert finding_dict(finding) == {
            "category": "pii_leak",
            "evidence": 8.123,
            "channel": "choices[0].content",
            "start": 3,
            "end": 9,
            "label": "card",
            "detector": "personal",
            "version": "1-ab",
        }

    def test_coverage_names_what_failed(self) -> None:
        """Every channel, detector and failure is listed."""
        assert coverage_dict(new_verdict().coverage) == {
            "complete": False,
            "judged": {"choices[0].content": 20},
            "units": 1,
            "detectors": {"personal": "ok", "slow": "timed_out"},
            "failures": [
                {
                    "detector": "slow",
                    "status": "timed_out",
                    "detail": "",
                    "channel": "choices[0].content",
                }
            ],
        }

    @given(st.text(st.characters() | st.sampled_from(["\x00", "\ud800", "\udfff"])))
    def test_any_text_can_be_written(self, text: str) -> None:
        """Lone surrogates and NUL in a delivered text do not break the JSON."""
        written = json.dumps(new_verdict(text=text).to_dict())
        assert json.loads(written)["text"] == text
