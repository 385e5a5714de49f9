"""Remedies: what a rewrite takes out, what it leaves, and when more is done than was asked for."""

from __future__ import annotations

import time
from itertools import combinations
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from guard.detectors.base import Finding
from guard.exchange import Choice, Exchange, ToolCall
from guard.journal.store import Journal
from guard.remedies import BLOCKS, excisions, redact
from guard.text.units import sentences, unit_end, units

if TYPE_CHECKING:
    from collections.abc import Callable, Collection
    from pathlib import Path

    from guard.detectors.base import Detector, Passage
    from guard.engine import Guard

FINE = "Fine weather today, they say, and the tide is low. "
PAD = FINE * 3
IBAN = "GB82 WEST 1234 5698 7654 32"
LETTERS = "abcdef"


def span(start: int, end: int, category: str = "secret_leak") -> Finding:
    """Return a finding of a span."""
    return Finding(category, 9.0, start, end, "by hand", "1")


class Together:
    """A detector that finds its category where all letters of one of its sets are in the unit."""

    name = "together"
    version = "1"

    def __init__(self, sets: Collection[Collection[str]], category: str = "to_excise") -> None:
        """Keep the sets."""
        self.categories = (category,)
        self._sets = [frozenset(letters) for letters in sets]

    def __call__(self, passage: Passage) -> list[Finding]:
        """Return one finding over the unit, or none."""
        if self.passes(passage.unit):
            return []
        category = self.categories[0]
        return [Finding(category, 9.0, passage.start, passage.end, self.name, "1", localised=False)]

    def passes(self, text: str) -> bool:
        """Return whether no set is complete in `text`."""
        there = set(text)
        return not any(letters <= there for letters in self._sets)


class OnText:
    """A detector that finds a category wherever a text stands in the unit."""

    name = "on_text"
    version = "1"

    def __init__(self, text: str, category: str) -> None:
        """Keep both."""
        self.categories = (category,)
        self._text = text

    def __call__(self, passage: Passage) -> list[Finding]:
        """Return a finding of the unit, or none."""
        if self._text not in passage.unit:
            return []
        return [Finding(self.categories[0], 9.0, passage.start, passage.end, self.name, "1")]


class TestRedact:
    """Placeholders in the place of spans."""

    @pytest.mark.parametrize(
        ("spans", "expected", "used"),
        [
            ([], "0123456789", 10),
            ([span(2, 4)], "01[x]456789", 10),
            ([span(0, 10)], "[x]", 10),
            # Two side by side are two; two that overlap are one, and so are two in one.
            ([span(2, 4), span(4, 6)], "01[x][x]6789", 10),
            ([span(2, 5), span(4, 6)], "01[x]6789", 10),
            ([span(2, 8), span(3, 4)], "01[x]89", 10),
            ([span(4, 6), span(2, 4)], "01[x][x]6789", 10),
            # What runs past the end is used up with the unit.
            ([span(8, 13)], "01234567[x]", 13),
            ([span(2, 3), span(9, 15), span(9, 12)], "01[x]345678[x]", 15),
        ],
    )
    def test_spans(self, spans: list[Finding], expected: str, used: int) -> None:
        """Spans are replaced, overlapping ones together, and look-ahead is used up by them."""
        assert redact("0123456789abcdef", 10, spans, "[x]") == (expected, used)

    def test_the_placeholder_names_what_begins_first(self) -> None:
        """`{category}` is filled in for people; of overlapping spans the first one counts."""
        found = [span(2, 5, "pii_leak"), span(1, 4, "secret_leak")]
        text, _ = redact("0123456789", 10, found, "[{category} gone]")
        assert text == "0[secret leak gone]56789"

    @given(
        st.text(st.sampled_from("abc "), max_size=40),
        st.lists(st.tuples(st.integers(0, 40), st.integers(0, 40)), max_size=6),
        st.integers(0, 40),
    )
    def test_nothing_covered_stays_and_nothing_else_goes(
        self, text: str, bounds: list[tuple[int, int]], end: int
    ) -> None:
        """Exactly the uncovered characters stay, in order, one placeholder for each overlap."""
        end = min(end, len(text))
        spans = [
            span(a, b)
            for a, b in (sorted(pair) for pair in bounds)
            if a < end and a < b <= len(text)
        ]
        found, used = redact(text, end, spans, "\x00")
        covered = {i for s in spans for i in range(s.start, s.end)}
        assert used == max([end, *(s.end for s in spans)])
        assert found.replace("\x00", "") == "".join(
            c for i, c in enumerate(text[:end]) if i not in covered
        )
        # A span opens a placeholder of its own unless an earlier one runs over its beginning.
        own = {s.start for s in spans if not any(o.start < s.start < o.end for o in spans)}
        assert found.count("\x00") == len(own)


class TestExcisions:
    """Proposals with ever more sentences taken out."""

    @given(
        st.integers(1, BLOCKS),
        st.lists(st.sets(st.sampled_from(LETTERS), min_size=1, max_size=3), max_size=5),
    )
    def test_the_first_that_passes_is_the_smallest_removal(
        self, count: int, sets: list[set[str]]
    ) -> None:
        """Brute force over all removals finds no smaller one."""
        parts = [f"{letter}. " for letter in LETTERS[:count]]
        passes = Together(sets).passes
        first = next((left for left in excisions("".join(parts)) if passes(left)), None)
        possible = [
            "".join(kept)
            for size in range(count)
            for kept in combinations(parts, size)
            if passes("".join(kept))
        ]
        assert first in possible
        assert len(f"{first}") == max(map(len, possible))

    def test_the_last_is_nothing(self) -> None:
        """In the end everything is taken out; nothing is proposed twice."""
        proposals = list(excisions("One. Two! Three? Four\nFive. Six. "))
        assert len(proposals) == len(set(proposals)) == 2**6 - 1
        assert proposals[-1] == ""
        assert "One. Two! Three? Four\nFive. Six. " not in proposals

    def test_a_script_without_white_space(self) -> None:
        """In Chinese one sentence goes, not all of them."""
        parts = [f"{sign * 6}\u3002" for sign in "\u4eca\u5929\u6c14\u597d"]
        bad = parts[2]
        first = next(left for left in excisions("".join(parts)) if bad not in left)
        assert first == "".join(part for part in parts if part != bad)

    @given(st.integers(1, 300))
    @example(1000)
    def test_many_sentences_are_taken_together(self, count: int) -> None:
        """However many sentences a unit has, the proposals stay few and in order."""
        text = "".join(f"{n}. " for n in range(count))
        proposals = list(excisions(text))
        assert len(proposals) < 2**BLOCKS
        whole = [text[a:b] for a, b in sentences(text)]
        for left in proposals[:3]:
            kept = [left[a:b] for a, b in sentences(left)]
            assert kept == [part for part in whole if part in set(kept)]

    def test_even_very_many_take_no_time(self) -> None:
        """The largest unit of the tiniest sentences is split up in well under a second."""
        began = time.process_time()
        next(excisions("a\n" * 5000))
        assert time.process_time() - began < 5


class TestGuardExcisesChinese:
    """`excise` in a text that is one run without white space."""

    def test_one_bad_sentence_does_not_cost_them_all(
        self, make_guard: Callable[..., Guard]
    ) -> None:
        """Most of 160 sentences leave, without the bad one."""
        fine = "\u4eca\u5929\u5929\u6c14\u5f88\u597d\u3002"
        text = fine * 100 + "\u574fzexcise\u53e5\u5b50\u3002" + fine * 60
        verdict = make_guard().check(text)
        assert verdict.action == "rewrite"
        assert "zexcise" not in (verdict.text or "")
        assert (verdict.text or "").count(fine) > 80


class TestGuardRedacts:
    """`redact` at work."""

    @pytest.mark.parametrize("offset", range(0, 60, 3))
    def test_a_span_into_the_look_ahead_leaves_no_tail(
        self, pack_guard: Guard, offset: int
    ) -> None:
        """A number that a unit's end cuts in two is taken out whole, and the text goes on."""
        before = ("lorem ipsum " * 40)[: 360 + offset].rsplit(" ", 1)[0] + " "
        text = before + IBAN + " is the account. " + FINE * 6
        verdict = pack_guard.check(text)
        assert verdict.text == text.replace(IBAN, "[redacted: pii leak]")
        assert "".join(pack_guard.stream(text)) == verdict.text

    def test_the_cases_above_cut_numbers(self) -> None:
        """At least one of them has a unit that ends inside of the number."""
        inside = 0
        for offset in range(0, 60, 3):
            before = ("lorem ipsum " * 40)[: 360 + offset].rsplit(" ", 1)[0] + " "
            end = unit_end(before + IBAN + " is the account. " + FINE * 6, 0, final=True)
            inside += end is not None and len(before) < end < len(before) + len(IBAN)
        assert inside

    def test_several_detectors(
        self, make_guard: Callable[..., Guard], word_detector: Callable[..., Detector]
    ) -> None:
        """Spans of two detectors that overlap become one placeholder."""

        class Wider:
            name = "wider"
            version = "1"
            categories = ("to_redact",)

            def __call__(self, passage: Passage) -> list[Finding]:
                at = passage.text.find("is zredact")
                return [span(at, at + 10, "to_redact")] if passage.start <= at else []

        guard = make_guard(word_detector(), Wider())
        verdict = guard.check("This is zredact and zredact. Fine.")
        assert verdict.text == "This [redacted: to redact] and [redacted: to redact]. Fine."
        assert verdict.action == "rewrite"

    def test_a_finding_that_points_at_nothing_takes_the_unit(
        self, make_guard: Callable[..., Guard]
    ) -> None:
        """Where only the unit is known to be risky, the unit is replaced."""
        guard = make_guard(
            Together(["q"], "to_redact"), limits={"to_redact": {"act": 0.9, "remedy": "redact"}}
        )
        text = "q. " + FINE * 9
        assert guard.check(text).text == "[redacted: to redact]" + text[next(units(text))[1] :]

    def test_only_what_reaches_the_limit(self, make_guard: Callable[..., Guard]) -> None:
        """Weaker findings of the same category stay where they are."""

        class TwoStrengths:
            name = "strengths"
            version = "1"
            categories = ("to_redact",)

            def __call__(self, passage: Passage) -> list[Finding]:
                weak = Finding("to_redact", 1.0, 0, 4, self.name, "1")
                strong = span(9, 15, "to_redact")
                return [weak, strong] if "strong" in passage.unit else [weak]

        guard = make_guard(TwoStrengths(), limits={"to_redact": {"act": 0.9, "remedy": "redact"}})
        assert guard.check("weak and strong").text == "weak and [redacted: to redact]"


class TestGuardExcises:
    """`excise` at work."""

    @given(
        st.lists(st.sets(st.sampled_from(LETTERS), min_size=1, max_size=3), min_size=1, max_size=4),
    )
    def test_the_smallest_set_of_sentences_goes(
        self, make_guard: Callable[..., Guard], sets: list[set[str]]
    ) -> None:
        """What is delivered passes, and brute force finds nothing longer that would."""
        detector = Together(sets)
        guard = make_guard(detector, limits={"to_excise": {"act": 0.9, "remedy": "excise"}})
        parts = [f"{letter}. " for letter in LETTERS]
        verdict = guard.check("".join(parts))
        passing = [
            "".join(kept)
            for size in range(len(parts) + 1)
            for kept in combinations(parts, size)
            if detector.passes("".join(kept))
        ]
        assert verdict.text in passing
        assert len(verdict.text) == max(map(len, passing))

    def test_the_rest_goes_on(self, make_guard: Callable[..., Guard]) -> None:
        """One sentence goes; the sentences around it and the units behind it stay."""
        guard = make_guard()
        verdict = guard.check(f"First. Here is zexcise. Then. {PAD}{PAD}")
        assert verdict.text == f"First. Then. {PAD}{PAD}"
        assert verdict.action == "rewrite"
        assert verdict.coverage.complete

    def test_redaction_comes_first(self, make_guard: Callable[..., Guard]) -> None:
        """With both in one unit, the span is redacted and the sentence goes."""
        verdict = make_guard().check("First zredact. Here is zexcise. Then.")
        assert verdict.text == "First [redacted: to redact]. Then."


class TestEscalation:
    """Where a rewrite does not pass, more is done."""

    NOTE = "no rewrite of the unit passed when judged again"

    @pytest.mark.parametrize(("step", "action"), [("block", "block"), ("replace", "rewrite")])
    def test_a_redacted_text_that_is_worse(
        self,
        make_guard: Callable[..., Guard],
        word_detector: Callable[..., Detector],
        step: str,
        action: str,
    ) -> None:
        """What the redacted text would lead to is done, and the reasons say so."""
        guard = make_guard(word_detector(), OnText("[redacted", f"to_{step}"))
        verdict = guard.check("It was zredact that day.")
        assert verdict.action == action
        assert f"{self.NOTE} ({step})" in verdict.reasons
        assert verdict.delivered == {"block": "[blocked]", "replace": "[replaced]"}[step]

    def test_a_redacted_text_that_is_no_better(
        self, make_guard: Callable[..., Guard], word_detector: Callable[..., Detector]
    ) -> None:
        """Where the placeholder itself is found, sentences are taken out."""
        guard = make_guard(word_detector(), OnText("[redacted", "to_redact"))
        verdict = guard.check("First. It was zredact that day. Then.")
        assert (verdict.action, verdict.text) == ("rewrite", "First. Then.")

    def test_nothing_that_passes(self, make_guard: Callable[..., Guard]) -> None:
        """Where no rest of a unit passes, the unit goes."""
        guard = make_guard(
            Together(LETTERS), limits={"to_excise": {"act": 0.9, "remedy": "excise"}}
        )
        verdict = guard.check("a. b. c. d. e. f. " * 7 + "xyz " * 3)
        assert set(verdict.text or "") <= set("xyz ")
        assert verdict.action == "rewrite"


class TestReplaceAndBlock:
    """Nothing of a whole text is delivered; of a stream what had left by then."""

    def test_replace(self, make_guard: Callable[..., Guard]) -> None:
        """The class's message is the text; the action is a rewrite."""
        verdict = make_guard().check(PAD + "zreplace " + PAD)
        assert (verdict.action, verdict.text, verdict.delivered) == (
            "rewrite",
            "[replaced]",
            "[replaced]",
        )
        assert verdict.streamed == PAD + "\n\n[replaced]"
        assert not verdict.coverage.complete

    def test_block(self, make_guard: Callable[..., Guard]) -> None:
        """There is no text, and a message to show in its place."""
        verdict = make_guard().check(PAD + "zblock " + PAD)
        assert (verdict.action, verdict.text, verdict.message) == ("block", None, "[blocked]")
        assert verdict.choices == (None,)
        assert verdict.streamed == PAD + "\n\n[blocked]"

    def test_the_language(
        self, make_class: Callable[..., Any], word_detector: Callable[..., Detector]
    ) -> None:
        """Messages come in the guard's language."""
        from guard.engine import Guard

        messages = {
            "en": {"blocked": "no", "replaced": "other"},
            "de": {"blocked": "nein", "replaced": "anders", "redacted": "[weg]"},
        }
        guard = Guard(make_class(messages=messages), [word_detector()], language="de-AT")
        assert guard.check("zblock").delivered == "nein"
        assert guard.check("zreplace").delivered == "anders"
        assert guard.check("zredact").delivered == "[weg]"


class TestToolCall:
    """The arguments of a tool call are data: a message or half a sentence has no place there."""

    @staticmethod
    def call(arguments: str) -> Exchange:
        """Return an exchange with one tool call beside a text."""
        return Exchange((Choice("On it.", tool_calls=(ToolCall("send", arguments, "1"),)),))

    @pytest.mark.parametrize("word", ["zreplace", "zexcise", "zblock"])
    def test_it_is_blocked(self, make_guard: Callable[..., Guard], word: str) -> None:
        """What would be replaced or cut is blocked, and the reasons say so."""
        verdict = make_guard().check(self.call(f'{{"text": "Fine. {word}. Fine."}}'))
        assert (verdict.action, verdict.choices, verdict.text) == ("block", (None,), None)
        assert verdict.message == "[blocked]"
        assert any("(block)" in reason for reason in verdict.reasons)

    @pytest.mark.parametrize("on_failure", ["replace", "block"])
    def test_a_failure_blocks_it(self, make_guard: Callable[..., Guard], on_failure: str) -> None:
        """A detector that fails on a tool call never puts a message into it."""

        class OnTool:
            name = "on_tool"
            version = "1"
            categories = ("nothing",)

            def __call__(self, passage: Passage) -> list[Finding]:
                if passage.tool:
                    raise ValueError
                return []

        guard = make_guard(OnTool(), limits={"nothing": {"act": 0.9}}, on_failure=on_failure)
        verdict = guard.check(self.call('{"text": "Fine."}'))
        assert (verdict.action, verdict.choices) == ("block", (None,))

    def test_it_is_redacted(self, make_guard: Callable[..., Guard]) -> None:
        """A span is redacted, and name and id stay."""
        verdict = make_guard().check(self.call('{"text": "zredact"}'))
        (choice,) = verdict.choices
        assert choice is not None
        assert choice.tool_calls == (ToolCall("send", '{"text": "[redacted: to redact]"}', "1"),)
        assert choice.content == "On it."


class TestChannels:
    """Everything that came back is judged, each choice by itself."""

    @pytest.mark.parametrize("channel", ["content", "reasoning", "refusal"])
    def test_every_text(self, make_guard: Callable[..., Guard], channel: str) -> None:
        """Content, reasoning and refusal are judged and mended, and findings name the channel."""
        given: dict[str, Any] = {channel: "It was zredact that day."}
        verdict = make_guard().check(Exchange((Choice(**given),)))
        (choice,) = verdict.choices
        assert getattr(choice, channel) == "It was [redacted: to redact] that day."
        assert [finding.channel for finding in verdict.findings] == [f"choices[0].{channel}"]

    def test_every_choice(self, make_guard: Callable[..., Guard]) -> None:
        """Each choice gets what it deserves; the verdict tells the gravest."""
        said = ("Fine.", "zredact", "zreplace", "zblock", "zflag")
        verdict = make_guard().check(Exchange(tuple(Choice(text) for text in said)))
        contents = [choice and choice.content for choice in verdict.choices]
        assert contents == ["Fine.", "[redacted: to redact]", "[replaced]", None, "zflag"]
        assert (verdict.action, verdict.text) == ("block", None)

    def test_a_bad_channel_takes_its_choice_along(self, make_guard: Callable[..., Guard]) -> None:
        """Where the reasoning is blocked, the content of that choice is not delivered either."""
        bad = Choice("Fine.", reasoning="zblock", tool_calls=(ToolCall("send", "{}"),))
        replaced = Choice("Fine.", reasoning="zreplace", tool_calls=(ToolCall("send", "{}"),))
        verdict = make_guard().check(Exchange((Choice("Good."), bad, replaced)))
        assert verdict.choices == (Choice("Good."), None, Choice("[replaced]"))


class TestAssessment:
    """What was taken out still counts."""

    @pytest.mark.parametrize("remedy", ["redact", "excise", "replace", "block"])
    def test_the_risk_of_a_removed_unit_stays(
        self, make_guard: Callable[..., Guard], remedy: str
    ) -> None:
        """Risks and findings are those of the original, whatever was delivered."""
        text = f"{PAD}It was z{remedy} that day. {PAD}"
        verdict = make_guard().check(text)
        assert verdict.risks[f"to_{remedy}"] > 0.9
        (finding,) = verdict.findings
        assert f"z{remedy}" in text[finding.start : finding.end]
        assert verdict.reasons[0].startswith(f"to_{remedy}: live risk 0.99 reached 0.90")
        assert verdict.risks["to_flag"] < 0.1


class TestShadow:
    """A class that only watches."""

    @pytest.mark.parametrize(
        ("word", "intended"),
        [
            ("zflag", "flag"),
            ("zredact", "rewrite"),
            ("zexcise", "rewrite"),
            ("zreplace", "rewrite"),
            ("zblock", "block"),
        ],
    )
    def test_it_delivers_unchanged_and_journals(
        self, make_guard: Callable[..., Guard], tmp_path: Path, word: str, intended: str
    ) -> None:
        """Everything leaves as it came; verdict and row say what would have been done."""
        journal = Journal(tmp_path / "journal.sqlite3")
        guard = make_guard(journal=journal, shadow=True)
        text = f"{PAD}It was {word} that day. {PAD}"
        choices = (Choice(text), Choice("Fine.", reasoning=text))
        stream = guard.stream(text)
        assert "".join(stream) == text
        whole = guard.check(Exchange(choices))
        assert whole.choices == choices
        for verdict in (stream.verdict, whole):
            assert (verdict.action, verdict.intended, verdict.text) == ("flag", intended, text)
            assert verdict.coverage.complete
        assert [row.action for row in journal.list()] == [intended, intended]
        assert {row.delivered for row in journal.list()} == {"full"}

    @pytest.mark.parametrize("word", ["zredact", "zexcise", "zreplace", "zblock"])
    def test_a_tool_call(self, make_guard: Callable[..., Guard], word: str) -> None:
        """A tool call leaves as it came, and the verdict says what it would have been."""
        exchange = TestToolCall.call(f'{{"text": "Fine. {word}. Fine."}}')
        verdict = make_guard(shadow=True).check(exchange)
        assert verdict.choices == exchange.choices
        assert verdict.intended == make_guard().check(exchange).action

    def test_what_is_fine_is_allowed(self, make_guard: Callable[..., Guard]) -> None:
        """Where nothing was found there is nothing to watch."""
        verdict = make_guard(shadow=True).check(FINE)
        assert (verdict.action, verdict.intended, verdict.reasons) == ("allow", "allow", ())
