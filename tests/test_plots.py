"""Figures as SVG."""

from __future__ import annotations

from itertools import pairwise
from xml.etree import ElementTree as ET

from hypothesis import given
from hypothesis import strategies as st

from guard.calibration import Bin
from guard.plots import histogram_svg, reliability_svg

BINS = (Bin(0.1, 0.05, 0.5, 1, 19), Bin(0.9, 0.95, 0.5, 19, 1))
SVG = "{http://www.w3.org/2000/svg}"


def test_it_is_a_picture_that_loads_nothing() -> None:
    """It is well-formed, has a dot per bin and refers to nothing outside itself."""
    text = reliability_svg({"violence": {"before": BINS, "after": BINS}, "sexual": {"after": BINS}})
    root = ET.fromstring(text)
    dots = [dot for dot in root.iter(f"{SVG}circle") if dot.find(f"{SVG}title") is not None]
    assert len(dots) == 6
    assert "href" not in text
    assert "script" not in text


def test_a_calibrated_bin_is_on_the_diagonal() -> None:
    """What is observed as predicted lies as far from the left as from the bottom."""
    root = ET.fromstring(reliability_svg({"a": {"b": (Bin(0.25, 0.25, 1.0, 1, 3),)}}))
    (line,) = root.iter(f"{SVG}polyline")
    x, y = map(float, line.attrib["points"].split(","))
    (frame,) = [r for r in root.iter(f"{SVG}rect") if r.attrib.get("class") == "axis"]
    side = float(frame.attrib["width"])
    assert x == side - y == side / 4


def test_names_are_escaped() -> None:
    """A name cannot become markup."""
    text = reliability_svg({"<b>&": {"<i>": BINS}})
    ET.fromstring(text)
    assert "<b>" not in text


def test_nothing_to_draw() -> None:
    """Without panels there is still a picture."""
    assert ET.fromstring(reliability_svg({})).tag == f"{SVG}svg"


@given(st.lists(st.integers(0, 10**9), min_size=1, max_size=30))
def test_a_histogram_has_a_bar_for_each_bin(counts: list[int]) -> None:
    """It is well-formed, and what is more is never lower."""
    root = ET.fromstring(histogram_svg(counts, name="h", title="<b>"))
    heights = [float(bar.attrib["height"]) for bar in root.iter(f"{SVG}rect")]
    assert len(heights) == len(counts)
    assert all(
        low <= high
        for (a, low), (b, high) in pairwise(sorted(zip(counts, heights, strict=True)))
        if a <= b
    )
