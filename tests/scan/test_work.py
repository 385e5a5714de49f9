"""Judging lines: rows are what `Guard.check` says, and other classes say what they would do."""

from __future__ import annotations

import json
import pickle
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from guard.engine import Guard
from guard.errors import ConfigurationError
from guard.heads import BelongsTo, HeadCalibration, OwnHead
from guard.policy import builtin_classes, load_class
from guard.scan.reading import Line
from guard.scan.work import LineJudge, Settings
from tests.scan.logs import FINE, LEAK, line

if TYPE_CHECKING:
    from pathlib import Path

PIECES = (FINE, LEAK, "Call me at +1 415 555 0132.", "You are the best, as always!", "No.", "\n\n")
CLASSES = tuple(each.name for each in builtin_classes())


def row(judge: LineJudge, text: str) -> dict[str, Any]:
    """Return what comes of one line."""
    (result,) = judge([Line("log.jsonl", 1, text.encode("utf-8"))])
    return dict(result.row)


@pytest.fixture(scope="module")
def wide() -> LineJudge:
    """Return a judge under the first class, compared with all others."""
    first, *others = map(load_class, CLASSES)
    return LineJudge(Settings(first, compare=tuple(others)))


@pytest.fixture(scope="module")
def guards() -> dict[str, Guard]:
    """Return a guard of each built-in class, as users load them."""
    return {name: Guard.load(name, journal=None) for name in CLASSES}


@given(st.lists(st.sampled_from(PIECES), min_size=1, max_size=5))
@settings(max_examples=15)
def test_other_classes_say_what_they_do(
    wide: LineJudge, guards: dict[str, Guard], pieces: list[str]
) -> None:
    """What is said of each class is the verdict of a guard of that class."""
    text = " ".join(pieces)
    found = row(wide, line(text))
    said = {CLASSES[0]: found["action"], **found["compare"]}
    assert said == {name: guard.check(text).intended for name, guard in guards.items()}


@given(st.lists(st.sampled_from(PIECES), min_size=1, max_size=5), st.sampled_from(["", "Basil?"]))
@settings(max_examples=15)
def test_a_row_is_the_verdict(
    judge: LineJudge, guards: dict[str, Guard], pieces: list[str], prompt: str
) -> None:
    """Action, reasons and risks are those of `Guard.check`."""
    text = " ".join(pieces)
    found = row(judge, line(text, prompt=prompt))
    verdict = guards["public"].check(text, prompt=prompt)
    assert found["action"] == verdict.action
    assert found["reasons"] == list(verdict.reasons)
    assert found["risks"] == {name: round(risk, 6) for name, risk in verdict.risks.items()}


@pytest.mark.parametrize(
    ("more", "day"),
    [
        ({"created": 1_700_000_000}, "2023-11-14"),
        ({"created": 1_700_000_000_000}, "2023-11-14"),
        ({"created": "1700000000.5"}, "2023-11-14"),
        ({"created": "1710110112345"}, "2024-03-10"),
        ({"metadata": {"time": "2024-02-29T23:30:00-02:00"}}, "2024-03-01"),
        ({"timestamp": "2024-02-29"}, "2024-02-29"),
        ({"time": "yesterday", "metadata": {"created": 86400}}, "1970-01-02"),
        ({"created": True}, None),
        ({"created": 1e300}, None),
        ({"created": float("nan")}, None),
        ({}, None),
    ],
    ids=[
        "seconds",
        "milliseconds",
        "text",
        "digits",
        "zone",
        "date",
        "metadata",
        "bool",
        "huge",
        "nan",
        "none",
    ],
)
def test_the_day_of_a_line(judge: LineJudge, more: dict[str, Any], day: str | None) -> None:
    """Seconds, milliseconds and ISO 8601 are read; what is no time is none."""
    assert row(judge, line(FINE, **more)).get("day") == day


@pytest.mark.parametrize("text", ["{", "[1]", '{"prompt": "a"}', '{"response": 5}', "\x80"])
def test_a_bad_line_is_an_error(judge: LineJudge, text: str) -> None:
    """It has a reason and no action."""
    found = row(judge, text)
    assert found["error"]
    assert "action" not in found


@pytest.mark.parametrize("key", ["id", "metadata"])
def test_what_is_nested_deeply_costs_no_other_line(judge: LineJudge, key: str) -> None:
    """A line is judged whatever is around its answer, and its result can leave a process."""
    deep = "[" * 800 + "]" * 800
    text = line(LEAK)[:-1] + f', "{key}": {{"a": {deep}}}}}'
    (result,) = judge([Line("log.jsonl", 1, text.encode("utf-8"))])
    assert result.row["action"] == "rewrite"
    assert pickle.loads(pickle.dumps(result)) == result


def test_delivered_text_is_kept_on_request() -> None:
    """With `texts` a row has what may be delivered, without the secret."""
    found = row(LineJudge(Settings(load_class("public"), texts=True)), line(LEAK))
    assert found["text"].startswith("Use this: ")
    assert "4eC39" not in json.dumps(found)


def test_a_class_that_nothing_can_judge_is_refused(tmp_path: Path) -> None:
    """A model that is not there is an error of its own, before any line."""
    with pytest.raises(ConfigurationError):
        LineJudge(Settings(load_class("public"), model=tmp_path))


def test_a_class_with_other_heads_cannot_be_compared(tmp_path: Path) -> None:
    """What other heads would find is not known, so that it is refused and not guessed."""
    head = OwnHead(
        category="rival_talk",
        model=BelongsTo(name="clearance-minilm", version="1", digest=""),
        weights=(0.0,),
        intercept=1.0,
        calibration=HeadCalibration(slope=1.0, intercept=0.0, minimum=-3.0, maximum=3.0),
    )
    head.write(tmp_path / "rival.json")
    (tmp_path / "own.yaml").write_text(WITH_HEAD, "utf-8")
    own = load_class(tmp_path / "own.yaml")
    with pytest.raises(ConfigurationError, match="class `own` has heads that class `public` has"):
        LineJudge(Settings(load_class("public"), compare=(own,)))


WITH_HEAD = """\
version: 1
classes:
  - name: own
    rank: 2
    heads: [rival.json]
    limits:
      rival_talk: {flag: 0.3, act: 0.8, remedy: block}
    messages:
      en: {blocked: "No.", replaced: "Else."}
"""
