"""Where findings lie in what the journal kept: exactly, or not at all."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from guard.exchange import Exchange
from guard.server.review.kept import placed
from tests.server.review.conftest import LEAK, SECRET

if TYPE_CHECKING:
    from collections.abc import Callable

    from guard.engine import Guard
    from guard.journal.record import Record
    from guard.journal.store import Journal

TWICE = f"{LEAK} Then {LEAK} And the end is here."


def only(journal: Journal) -> Record:
    """Return the one row."""
    (row,) = journal.list()
    return row


def reads(row: Record) -> list[str | None]:
    """Return what is marked for each finding."""
    spans = placed(row).spans
    response = row.response or ""
    return [None if each is None else response[each.start : each.end] for each in spans]


class TestFull:
    """Texts that are kept as they are."""

    def test_a_finding_is_where_it_says(
        self, guard_keeping: Callable[[str], Guard], journal: Journal
    ) -> None:
        """The very secret is marked."""
        guard_keeping("full").check(TWICE)
        assert reads(only(journal)) == [SECRET, SECRET]

    def test_each_channel_has_its_place(
        self, guard_keeping: Callable[[str], Guard], journal: Journal
    ) -> None:
        """Spans count in their own channel, which stands behind others."""
        choice = {"content": LEAK, "reasoning": f"Hm. {LEAK}"}
        guard_keeping("full").check(Exchange.parse({"choices": [choice]}))
        assert reads(only(journal)) == [SECRET, SECRET]

    def test_a_text_that_looks_like_a_channel_makes_no_wrong_mark(
        self, guard_keeping: Callable[[str], Guard], journal: Journal
    ) -> None:
        """Where the line of a channel stands twice, nothing is marked."""
        fake = f"Well.\n[choices[0].content]\n{LEAK}"
        choice = {"content": LEAK, "reasoning": fake}
        guard_keeping("full").check(Exchange.parse({"choices": [choice]}))
        assert reads(only(journal)) == [None, None]


class TestRedacted:
    """Texts without the secrets and personal data that were in them."""

    def test_what_stands_in_their_place_is_marked(self, guard: Guard, journal: Journal) -> None:
        """The secrets are not there; what was put in their place is, and only that."""
        guard.check(TWICE)
        row = only(journal)
        assert SECRET not in (row.response or "")
        assert reads(row) == ["[redacted: stripe_key]"] * 2

    def test_behind_what_no_finding_tells_of_nothing_is_marked(
        self, guard: Guard, journal: Journal
    ) -> None:
        """A redaction of unknown length moves all behind it; what is before it stays in place."""
        guard.check(TWICE)
        row = only(journal)
        first = replace(row, findings=row.findings[:1])
        assert reads(first) == ["[redacted: stripe_key]"]
        second = replace(row, findings=row.findings[1:])
        assert reads(second) == [None]

    def test_lengths_that_do_not_add_up_mark_nothing_behind_a_redaction(
        self, guard: Guard, journal: Journal
    ) -> None:
        """What the journal says was judged must be what spans and text make together."""
        guard.check(f"{TWICE} zflag")
        row = only(journal)
        assert reads(row)[-1] == "zflag"
        short = {**row.coverage, "judged": {"choices[0].content": 5}}
        assert reads(replace(row, coverage=short)) == [None, None, None]

    def test_a_text_of_another_length_is_not_the_original(
        self, guard: Guard, journal: Journal
    ) -> None:
        """Whoever wrote a redactor of his own may have put anything into its place."""
        guard.check("Here is a zflag for you.")
        row = only(journal)
        assert reads(row) == ["zflag"]
        assert reads(replace(row, response="A zflag for you.")) == [None]


@pytest.mark.parametrize("mode", ["hashed", "omitted"])
def test_what_is_not_kept_has_no_marks(
    guard_keeping: Callable[[str], Guard], journal: Journal, mode: str
) -> None:
    """A hash is no text."""
    guard_keeping(mode).check(LEAK)
    assert reads(only(journal)) == [None]
    assert placed(only(journal)).missing == 1


def test_findings_that_are_none_are_passed_over(guard: Guard, journal: Journal) -> None:
    """A row may be of a later or an earlier release."""
    guard.check(LEAK)
    row = replace(only(journal), findings=({}, {"channel": 3, "start": "a"}, {"start": -1}))
    assert reads(row) == [None, None, None]
