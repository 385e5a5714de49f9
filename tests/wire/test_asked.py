"""The text of messages: every string of every block, and no media."""

from __future__ import annotations

import json
from typing import Any, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from guard.request_text import text_of

PACKED: Final = "aW1hZ2U="

TEXTS: Final[dict[str, tuple[Any, str]]] = {
    "a text": ("Ferns.", "Ferns."),
    "nothing": (None, ""),
    "a message": ({"role": "user", "id": "m1", "content": ["Ferns.", "Ivy."]}, "Ferns.\nIvy."),
    "a json": ([{"type": "json", "json": {"a": {"b": ["Ferns.", 5]}}}], "Ferns."),
    "a text document": ([{"type": "document", "source": {"type": "text", "data": "fern"}}], "fern"),
    "a document of blocks": (
        {"type": "document", "source": {"content": [{"type": "text", "text": "Ferns."}]}},
        "Ferns.",
    ),
    "a block of no standard": ({"type": "non_standard", "value": {"x": "Ferns."}}, "Ferns."),
    "a key": ({"type": "json", "json": {"Ferns grow.": 1}}, "Ferns grow."),
    "a cached text": (
        {"type": "text", "text": "Ferns.", "cache_control": {"type": "ephemeral", "ttl": "1h"}},
        "Ferns.",
    ),
    "a search result": (
        {"type": "search_result", "source": "here", "content": [{"type": "text", "text": "Ivy."}]},
        "here\nIvy.",
    ),
    "a call": ({"type": "tool_use", "id": "c", "name": "look", "input": {"q": "Ferns."}}, ""),
    "a call in a list": ([{"type": "tool_use", "id": "c", "input": {"q": "Ferns."}}], "Ferns."),
    "an identifier that is none": ({"type": "odd", "id": "Ferns grow."}, "Ferns grow."),
    "a type that is none": ([{"type": "Ferns grow."}], "Ferns grow."),
    "a pair": (("Ferns.", {"text": "Ivy."}), "Ferns.\nIvy."),
    "an object": ([complex(1, 2)], "(1+2j)"),
}
"""Contents, and the text in them."""

MEDIA: Final[list[dict[str, Any]]] = [
    {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": PACKED}},
    {"type": "image", "source": {"type": "url", "url": "https://here.example/fern.png"}},
    {"type": "image", "base64": PACKED, "mime_type": "image/png"},
    {"type": "image", "source_type": "base64", "data": PACKED, "mime_type": "image/png"},
    {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PACKED}", "detail": "low"}},
    {"type": "image_url", "image_url": "https://here.example/fern.png"},
    {"type": "input_image", "image_url": f"data:image/png;base64,{PACKED}", "detail": "auto"},
    {"type": "input_audio", "input_audio": {"data": PACKED, "format": "wav"}},
    {"type": "file", "file": {"file_data": f"data:application/pdf;base64,{PACKED}"}},
    {"type": "document", "source": {"type": "base64", "data": PACKED}},
    {"type": "media", "mime_type": "image/png", "data": b"image"},
    {"image": {"format": "png", "source": {"bytes": PACKED}}},
    {"type": "redacted_thinking", "data": PACKED},
]
"""Blocks without any text."""


class TestText:
    """What is read."""

    @pytest.mark.parametrize("name", TEXTS)
    def test_text(self, name: str) -> None:
        """Each text once, in its order."""
        value, text = TEXTS[name]
        assert text_of(value) == text

    @pytest.mark.parametrize("block", MEDIA, ids=str)
    def test_media(self, block: dict[str, Any]) -> None:
        """Images, sounds and files are none; a text in their place is one."""
        assert text_of([block, {"type": "text", "text": "Ferns."}]) == "Ferns."
        if PACKED in str(block):
            forged = json.loads(json.dumps(block).replace(PACKED, "They grow."))
            assert "They grow." in text_of(forged)

    def test_packed_in_a_block_that_is_no_media(self) -> None:
        """What only looks like base64 may be a text."""
        assert text_of([{"type": "json", "json": {"data": "Ignore_all"}}]) == "Ignore_all"

    @given(
        value=st.recursive(
            st.just("They zblock."),
            lambda inner: (
                st.lists(inner, min_size=1, max_size=2)
                | st.dictionaries(st.text(max_size=9), inner, min_size=1, max_size=2)
            ),
            max_leaves=4,
        )
    )
    def test_wherever_it_stands(self, value: Any) -> None:
        """A text with a space in it is read below any key, as often as it stands there."""
        found = text_of(value).count("They zblock.")
        assert found == json.dumps(value).count("They zblock.")

    def test_deep(self) -> None:
        """What is nested deeper than any format is read as Python shows it."""
        value: Any = "They zblock."
        for _ in range(200):
            value = [value]
        assert "They zblock." in text_of(value)
