"""The report of a scan: figures as they are, and no text from a log that changes the page."""

from __future__ import annotations

from html import unescape
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree as ET

from hypothesis import given
from hypothesis import strategies as st

from guard.scan.report import page
from guard.scan.tally import ACTIONS, tally

if TYPE_CHECKING:
    from collections.abc import Iterator

ANY = st.text(st.characters(exclude_categories=[]), max_size=40)
ROWS = st.lists(
    st.fixed_dictionaries(
        {
            "action": st.sampled_from(ACTIONS),
            "reached": st.dictionaries(
                st.sampled_from(["violence", "bias_stereotype"]), st.sampled_from(["flag", "act"])
            ),
            "risks": st.just({"violence": 0.5, "bias_stereotype": 1.0}),
            "coverage": st.fixed_dictionaries(
                {
                    "complete": st.booleans(),
                    "failures": st.just([]),
                }
            ),
        },
        optional={
            "model": st.sampled_from(["(others)", "(not said)", *(f"m{n}" for n in range(70))]),
            "compare": st.fixed_dictionaries({"other": st.sampled_from(ACTIONS)}),
        },
    ),
    max_size=90,
)


def summary(rows: list[dict[str, Any]], **more: Any) -> dict[str, Any]:
    """Return a summary of rows, with what a folder adds."""
    facts = {"class": "public", "class_digest": "d" * 64, "version": "1", "model": "m", "sample": 1}
    speed = {"engine": "local", "workers": 1, "exchanges": 1, "seconds": 1.0, "rate": 1.0}
    given = {"files": [], "finished": "now", "speed": speed}
    return facts | given | tally(rows).summary() | more


def shape(html: str) -> list[tuple[int, str]]:
    """Return the elements of a page, each with its depth."""

    def walk(node: ET.Element, depth: int) -> Iterator[tuple[int, str]]:
        yield depth, node.tag
        for child in node:
            yield from walk(child, depth + 1)

    return list(walk(ET.fromstring(html.partition("\n")[2]), 0))


@given(ROWS)
def test_every_row_counts_once(rows: list[dict[str, Any]]) -> None:
    """Actions, models and what another class would do add up to all exchanges."""
    found = summary(rows)
    assert found["exchanges"] == len(rows)
    assert sum(each["count"] for each in found["actions"].values()) == len(rows)
    if any("model" in row for row in rows):
        assert sum(sum(each.values()) for each in found["models"].values()) == len(rows)
        assert len(found["models"]) <= 51
    for each in found["actions"].values():
        assert 0 <= each["low"] <= each["share"] <= each["high"] <= 1
    assert shape(page(found, [], []))


def test_models_that_are_called_as_groups_count() -> None:
    """A name that the summary gives to a group of its own hides no row."""
    given: dict[str, Any] = {
        "action": "allow",
        "reached": {},
        "risks": {},
        "coverage": {"complete": True, "failures": []},
    }
    names = ["", "(not said)", *["(others)"] * 3, *(f"m{n}" for n in range(60))]
    found = summary([given | {"model": name} for name in names])["models"]
    assert sum(sum(each.values()) for each in found.values()) == len(names)


@given(ANY, ANY)
def test_no_text_changes_the_page(one: str, two: str) -> None:
    """Whatever stands in texts, names and errors: the same elements, all of it well-formed."""

    def made(a: str, b: str) -> str:
        place = {"n": 0, "file": f"f{a}", "line": 3, "id": f"i{b}"}
        example = place | {
            "category": "violence",
            "risk": 1.0,
            "action": "block",
            "reasons": [f"r{b}"],
            "texts": "redacted",
            "prompt": f"p{a}",
            "response": f"r{b}",
        }
        coverage = {
            "complete": False,
            "failures": [{"detector": f"d{a}", "status": "failed"}],
        }
        row = {"action": "block", "reached": {}, "risks": {}, "coverage": coverage}
        named = row | {"model": f"m{a}", "day": f"d{b}", "compare": {f"c{a}": "allow"}}
        errors = [place | {"error": f"e{b}"}]
        return page(summary([named, {"error": ""}]), [example], errors)

    assert shape(made(one, two)) == shape(made("r", "s"))


def test_it_loads_nothing_and_runs_nothing() -> None:
    """No script, no address, and a policy that allows neither."""
    html = page(summary([]), [], [])
    assert "<script" not in html
    assert "http://" not in html.replace("http://www.w3.org/", "")
    assert "default-src 'none'" in unescape(html)
