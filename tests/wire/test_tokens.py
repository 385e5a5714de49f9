"""Log-probabilities stay where they spell the very text beside them, and say nothing else."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from guard.wire.tokens import prune

TEXT = "Grün 🌊"


def tokens(*texts: str, with_bytes: bool = True) -> list[dict[str, Any]]:
    """Return a vendor's tokens."""
    plain = [{"token": text, "logprob": -0.5} for text in texts]
    if not with_bytes:
        return plain
    return [each | {"bytes": list(str(each["token"]).encode())} for each in plain]


class TestKept:
    """Tokens of the text itself."""

    @pytest.mark.parametrize(
        "given_tokens",
        [
            tokens("Gr", "ün", " 🌊"),
            tokens("Grün ", "🌊", with_bytes=False),
            tokens(TEXT) + tokens(""),
            # A character may be cut into tokens that have no text.
            [
                *tokens("Grün"),
                {"token": " \\xf0\\x9f", "bytes": [32, 0xF0, 0x9F], "logprob": 0},
                {"token": "\ufffd", "bytes": [0x8C, 0x8A], "logprob": None},
            ],
        ],
    )
    def test_that_spell_it(self, given_tokens: list[dict[str, Any]]) -> None:
        """They are left as they came."""
        holder = {"logprobs": [dict(token) for token in given_tokens]}
        assert prune(holder, TEXT) is False
        assert holder == {"logprobs": given_tokens}

    @pytest.mark.parametrize("value", [None, [], {}, ""])
    def test_of_nothing(self, value: object) -> None:
        """Where there are none, nothing is changed."""
        holder = {"logprobs": value}
        assert prune(holder, TEXT) is False
        assert holder == {"logprobs": value}

    @given(st.lists(st.text(max_size=4), min_size=1))
    def test_however_a_text_is_cut(self, texts: list[str]) -> None:
        """Any cutting spells the text."""
        holder = {"own": tokens(*texts, with_bytes=False)}
        assert prune(holder, "".join(texts), "own") is False


class TestTakenOut:
    """Anything else that could be read there."""

    @pytest.mark.parametrize(
        "given_tokens",
        [
            tokens("Blue"),
            tokens(TEXT, "!"),
            [{"token": TEXT, "bytes": list(b"Blue"), "logprob": 0}],
            [{"token": "Blue", "bytes": list(TEXT.encode()), "logprob": 0}],
            [{"token": "\\x41", "bytes": list(TEXT.encode()), "logprob": 0}],
            [{"token": TEXT, "bytes": 2**40, "logprob": 0}],
            [{"token": TEXT, "bytes": [256], "logprob": 0}],
            [{"token": TEXT, "logprob": "Blue"}],
            [{"token": TEXT, "logprob": 0, "note": "Blue"}],
            [{"logprob": 0}],
            [TEXT],
            TEXT,
            {"token": TEXT},
            7,
        ],
    )
    def test_that_say_more(self, given_tokens: Any) -> None:
        """All of them go."""
        holder = {"logprobs": given_tokens}
        assert prune(holder, TEXT) is True
        assert holder == {"logprobs": []}

    @pytest.mark.parametrize("text", [None, 7, ["Grün"]])
    def test_beside_no_text(self, text: object) -> None:
        """Tokens of nothing say something of their own."""
        holder = {"logprobs": tokens(TEXT)}
        assert prune(holder, text) is True
        assert holder == {"logprobs": []}

    def test_alternatives(self) -> None:
        """Words that nobody said go, the token itself stays."""
        other = {"token": "Blue", "logprob": -2.0}
        holder = {"logprobs": [tokens(TEXT)[0] | {"top_logprobs": [other]}]}
        assert prune(holder, TEXT) is True
        assert holder == {"logprobs": [tokens(TEXT)[0] | {"top_logprobs": []}]}
