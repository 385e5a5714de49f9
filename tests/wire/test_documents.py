"""Packed documents: what is a text is read, whatever it is called, and what is none is not."""

from __future__ import annotations

import base64
from typing import Any, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from guard.documents import document_text
from guard.request_text import text_of

TEXT: Final = "Dear model: they zblock. Grüße!"


def packed(data: bytes) -> str:
    """Return bytes in base64."""
    return base64.b64encode(data).decode()


PACKED: Final = packed(TEXT.encode())
ADDRESS: Final = f"data:text/csv;base64,{PACKED}"

DOCUMENTS: Final[dict[str, Any]] = {
    "chat completions": {"type": "file", "file": {"filename": "a.csv", "file_data": ADDRESS}},
    "responses": {"type": "input_file", "filename": "a.csv", "file_data": ADDRESS},
    "a name alone": {"type": "input_file", "filename": "a.md", "file_data": PACKED},
    "a tool of responses": {"type": "function_call_output", "output": [{"file_url": ADDRESS}]},
    "an image that is none": {"type": "image_url", "image_url": {"url": ADDRESS}},
    "messages": {
        "type": "document",
        "source": {"type": "base64", "media_type": "text/plain", "data": PACKED},
    },
    "a tool of messages": {
        "type": "tool_result",
        "content": [{"source": {"type": "base64", "media_type": "text/plain", "data": PACKED}}],
    },
    "gemini": {"inlineData": {"mimeType": "text/markdown", "data": PACKED}},
    "langchain": {"type": "file", "base64": PACKED, "mime_type": "application/json"},
    "bedrock": {"document": {"format": "txt", "name": "a", "source": {"bytes": TEXT.encode()}}},
    "mcp": {"resource": {"uri": "file:///a", "mimeType": "text/plain", "blob": PACKED}},
}
"""A text document as each vendor and framework has it."""


class TestDocumentText:
    """One document."""

    @pytest.mark.parametrize(
        ("value", "kind"),
        [
            (ADDRESS, ""),
            (f"DATA:text/plain;charset=utf-8;base64,{PACKED}", "application/pdf"),
            ("data:,Dear%20model%3A%20they%20zblock.%20Gr%C3%BC%C3%9Fe!", ""),
            (PACKED, "text/plain; charset=utf-8"),
            (PACKED.rstrip("="), "application/octet-stream"),
            (f"{PACKED[:20]}\n{PACKED[20:]}", "notes.txt"),
            (PACKED, "app.ts"),
            (PACKED.encode(), "text/x-python"),
            (TEXT.encode(), "application/json"),
            (packed(TEXT.encode("utf-16")), "text/plain"),
            (packed(TEXT.encode("utf-16-be")), "text/plain"),
            (packed(TEXT.encode("latin-1")), "text/plain"),
            (packed(f"\ufeff{TEXT}".encode()), "text/html"),
            (PACKED, "image/svg+xml"),
        ],
    )
    def test_a_text_is_read(self, value: Any, kind: str) -> None:
        """However it is packed, encoded and called."""
        assert document_text(value, kind) == TEXT

    @pytest.mark.parametrize(
        ("value", "kind"),
        [
            (f"data:image/png;base64,{PACKED}", "text/plain"),
            (PACKED, "image/png"),
            (PACKED, "wav"),
            (PACKED, "application/pdf"),
            (PACKED, ""),
            (packed(b"PK\x03\x04\x00\x00zip"), "report.docx"),
            ("https://here.example/a.txt", "text/plain"),
            (None, "text/plain"),
            ("", "text/plain"),
        ],
    )
    def test_what_is_no_text_is_not(self, value: Any, kind: str) -> None:
        """Nor is what stands elsewhere, or of which nothing says that it is a document."""
        assert document_text(value, kind) == ""

    @given(value=st.binary() | st.text(), kind=st.sampled_from(["text/plain", "a.csv", "x/y"]))
    def test_anything_may_come(self, value: Any, kind: str) -> None:
        """Nothing that is sent makes it fail."""
        assert isinstance(document_text(value, kind), str)


class TestInMessages:
    """Documents where they stand."""

    @pytest.mark.parametrize("name", DOCUMENTS)
    def test_every_vendors_way(self, name: str) -> None:
        """A text document of a request is judged as a text."""
        assert TEXT in text_of([DOCUMENTS[name]])

    def test_a_text_that_looks_packed_is_read_as_it_stands_too(self) -> None:
        """A document whose source is a text is not taken for base64."""
        source = {"type": "text", "media_type": "text/plain", "data": "fern"}
        assert "fern" in text_of([{"type": "document", "source": source}]).splitlines()

    @pytest.mark.parametrize("words", ["water the basil from below every week", "fern"])
    def test_plain_words_stand_for_nothing_else(self, words: str) -> None:
        """What is said to stand there as text brings no signs that nobody wrote."""
        source = {"type": "text", "media_type": "text/plain", "data": words}
        assert text_of([{"type": "document", "source": source}]) == words
        assert TEXT in text_of([{"type": "document", "source": source | {"data": PACKED}}])
        older = base64.b64encode("sow it in f\xfcnf rows".encode("latin-1")).decode()
        assert "f\xfcnf" in text_of([{"type": "document", "source": source | {"data": older}}])
