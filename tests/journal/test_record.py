"""Rows as values: how texts are kept, how a row is written out and what is logged."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from structlog.testing import capture_logs

from guard.journal.record import EVENTS, emit, jsonable, keep_text, storable

if TYPE_CHECKING:
    from collections.abc import Callable

    from guard.journal.record import Record

# Hypothesis leaves surrogates out of plain `text()`, and they are the point here.
ANY_TEXT = st.text(st.characters() | st.sampled_from(["\x00", "\ud800", "\udfff", "🙂"]))
SAID = "the pin is four times seven"


def mask(text: str) -> str:
    """Return `text` without its digits: a redactor whose work can be seen."""
    return "".join("#" if c.isdigit() else c for c in text)


class TestKeepText:
    """What remains of a text in each mode."""

    def test_full_keeps_every_character(self) -> None:
        """`full` keeps ordinary text as it is and asks no redactor."""
        assert keep_text("room 12 🙂", "full", mask) == "room 12 🙂"

    def test_redacted_keeps_what_the_redactor_leaves(self) -> None:
        """`redacted` keeps the redactor's result."""
        assert keep_text("room 12", "redacted", mask) == "room ##"

    def test_hashed_keeps_only_the_digest(self) -> None:
        """`hashed` keeps the SHA-256 of the UTF-8 bytes."""
        expected = "sha256:" + hashlib.sha256("Grüße".encode()).hexdigest()
        assert keep_text("Grüße", "hashed", mask) == expected

    def test_hashes_tell_unstorable_texts_apart(self) -> None:
        """Texts that differ in a lone surrogate alone have different digests."""
        assert keep_text("a\ud800", "hashed", mask) != keep_text("a\ud801", "hashed", mask)

    def test_omitted_keeps_nothing(self) -> None:
        """`omitted` keeps no text at all."""
        assert keep_text("room 12", "omitted", mask) is None

    def test_an_unknown_mode_does_not_keep_the_full_text(self) -> None:
        """A mode from a newer policy or a typing error redacts and does not keep all."""
        unknown: Any = "maskd"
        assert keep_text("room 12", unknown, mask) == "room ##"

    @given(ANY_TEXT, st.sampled_from(["full", "redacted", "hashed", "omitted"]))
    def test_every_kept_text_can_be_stored(self, text: str, mode: Any) -> None:
        """No mode raises, and what is kept is valid UTF-8 without NUL."""
        kept = keep_text(text, mode, mask)
        assert kept is None or b"\x00" not in kept.encode()


class TestStorable:
    """What a database cannot hold is replaced, one character by one."""

    def test_nul_and_lone_surrogates_are_replaced(self) -> None:
        """NUL becomes U+2400 and a lone surrogate U+FFFD."""
        assert storable("a\x00b\ud83dc") == "a\u2400b\ufffdc"

    @given(ANY_TEXT)
    def test_only_those_change(self, text: str) -> None:
        """Positions hold: every other character stays in its place."""
        result = storable(text)
        assert len(result) == len(text)
        changed = {a for a, b in zip(text, result, strict=True) if a != b}
        assert all(c == "\x00" or "\ud800" <= c <= "\udfff" for c in changed)


class TestJsonable:
    """What an application puts into metadata, made fit for JSON and for every database."""

    @pytest.mark.parametrize(
        "value", [None, True, 0, -(2**63), 1.5, "text", [], {}, {"a": [1, {"b": None}]}]
    )
    def test_json_stays_as_it_is(self, value: Any) -> None:
        """What JSON holds is not changed, and stays of its type."""
        result = jsonable(value)
        assert result == value
        assert type(result) is type(value)

    @pytest.mark.parametrize(
        ("value", "expected"),
        [
            ((1, 2), [1, 2]),
            ({3}, [3]),
            (MappingProxyType({"a": (1,)}), {"a": [1]}),
            ({1: "one", None: "none"}, {"1": "one", "None": "none"}),
            (float("inf"), "inf"),
            (2**63, "0x8000000000000000"),
            (Path("a/b"), "a/b"),
            (datetime(2025, 1, 2, tzinfo=UTC), "2025-01-02 00:00:00+00:00"),
            ({"k\udfff": "v\x00"}, {"k\ufffd": "v\u2400"}),
        ],
    )
    def test_the_rest_becomes_json(self, value: Any, expected: Any) -> None:
        """Other collections become lists and objects, other values text."""
        assert jsonable(value) == expected

    def test_depth_ends(self) -> None:
        """What contains itself is cut off and does not run for ever."""
        ring: dict[str, Any] = {}
        ring["self"] = ring
        assert json.dumps(jsonable(ring)).count("self") == 32
        assert jsonable(ring, 1) == {"self": "<dict>"}

    @given(
        st.recursive(
            ANY_TEXT | st.floats() | st.integers() | st.binary() | st.none(),
            lambda inner: st.lists(inner) | st.dictionaries(ANY_TEXT | st.integers(), inner),
            max_leaves=10,
        )
    )
    def test_anything_can_be_written(self, value: Any) -> None:
        """Whatever comes in, strict JSON in valid UTF-8 comes out, and nothing changes twice."""
        result = jsonable(value)
        json.dumps(result, allow_nan=False, ensure_ascii=False).encode("utf-8")
        assert jsonable(result) == result


class TestRecord:
    """The row as a value."""

    def test_to_dict_is_json(self, row: Callable[..., Record]) -> None:
        """A row's dictionary survives JSON and names every field."""
        plain = row().to_dict()
        assert json.loads(json.dumps(plain))["findings"][0]["end"] == 24
        assert list(plain) == [field.name for field in dataclasses.fields(row())]

    def test_time_is_iso_8601_in_utc(self, row: Callable[..., Record]) -> None:
        """The moment is written with all six digits and its offset."""
        assert row().to_dict()["created"] == "2025-03-04T05:06:07.890123+00:00"

    def test_a_row_cannot_change(self, row: Callable[..., Record]) -> None:
        """Rows are frozen."""
        with pytest.raises(dataclasses.FrozenInstanceError):
            row().action = "flag"  # type: ignore[misc]  # pyright: ignore[reportAttributeAccessIssue]


class TestEmit:
    """The log event of a row."""

    @pytest.mark.parametrize(("action", "name"), EVENTS.items())
    def test_each_action_has_its_constant_name(
        self, row: Callable[..., Record], action: str, name: str
    ) -> None:
        """The event's name tells the action, and one event is logged per row."""
        with capture_logs() as logs:
            emit(row(action=action))
        assert [entry["event"] for entry in logs] == [name]
        assert name in {"guard.flagged", "guard.rewritten", "guard.blocked"}

    def test_fields(self, row: Callable[..., Record]) -> None:
        """The event carries what an operator filters by."""
        record = row()
        with capture_logs() as logs:
            emit(record)
        expected = {
            "record": record.id,
            "action": "block",
            "delivered": "none",
            "complete": True,
            "security_class": "public",
            "shadow": False,
            "model": "small-model",
            "reasons": ["secret_leak 0.97 is above 0.5"],
            "released": 3,
        }
        assert {name: logs[0][name] for name in expected} == expected

    def test_only_the_three_worst_risks_are_shown(self, row: Callable[..., Record]) -> None:
        """Of many categories the event shows the three of highest live risk, worst first."""
        risks = {"sexual": 0.1, "violence": 0.7, "deception": 0.90004, "harassment": 0.3}
        with capture_logs() as logs:
            emit(row(risks=risks))
        shown = list(logs[0]["risks"].items())
        assert shown == [("deception", 0.9), ("violence", 0.7), ("harassment", 0.3)]

    def test_no_text_of_the_exchange_is_logged(self, row: Callable[..., Record]) -> None:
        """Prompt, response, outcome and the application's facts stay out of the log."""
        record = row(prompt=SAID, response=SAID, outcome=SAID, metadata={"note": SAID})
        with capture_logs() as logs:
            emit(record)
        assert SAID not in repr(logs)


def test_importing_the_record_loads_no_database() -> None:
    """`guard.journal.record` is light: SQLAlchemy loads with the store only."""
    script = "import sys, guard.journal.record; sys.exit('sqlalchemy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0
