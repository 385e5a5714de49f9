"""Rows: however ids come and whatever they may be read as, what was not judged is read nowhere."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("torch", reason="torch is not installed")
pytest.importorskip("transformers", reason="transformers is not installed")

from guard.adapters.transformers_rows import Growing, Reading, Row, closing_of, lead_of
from guard.exchange import Exchange
from tests.adapters.leak_lab import FINE
from tests.adapters.transformers.scripted import byte_fallback, byte_pairs, word_pieces

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from guard.engine import Guard

    Make = Callable[..., Guard]
    Ids = list[int]

TOKENIZERS: Final = {
    "byte pairs": byte_pairs(),
    "byte fallback": byte_fallback(),
    "word pieces": word_pieces(),
}

EXACT: Final = ("byte pairs", "byte fallback")
"""Tokenizers that spell every text."""

PIECES: Final = (
    *("zb", "lock", "zblock", "zredact", "zexcise", "zreplace", "zflag", "z"),
    *(" ", ". ", "\n\n", " ferns grow here", "é", "🌿", "日本", " n't", " .", FINE),
)

HIDING: Final = ("zb", "lock", "##lock", "<|pad|>", "<|end|>", " ", "here")
"""Of what a word may be made so that only some readers see it."""

words = st.lists(st.sampled_from(PIECES), max_size=12)

cuts = st.lists(st.integers(0, 400), max_size=12)


def spelled(tokenizer: Any, pieces: Sequence[str]) -> Ids:
    """Return the ids of pieces that were spelled one by one."""
    return [
        number
        for piece in pieces
        for number in tokenizer(piece, add_special_tokens=False)["input_ids"]
    ]


def coming(ids: Ids, places: Sequence[int]) -> list[Ids]:
    """Return the ids as they are known at some places on the way."""
    ends = sorted({min(place, len(ids)) for place in places} | {len(ids)})
    return [ids[:end] for end in ends]


def run(row: Row, ids: Ids, places: Sequence[int] = ()) -> Row:
    """Have a row judged."""
    for known in coming(ids, places):
        row.take(known)
    row.finish(ids)
    return row


class TestGrowing:
    """Text that is settled before the end."""

    @pytest.mark.parametrize("name", EXACT)
    @given(text=st.text(max_size=80), places=cuts)
    def test_pieces_make_up_the_text(self, name: str, text: str, places: list[int]) -> None:
        """Characters of several bytes come whole, spaces are where they belong."""
        tokenizer = TOKENIZERS[name]
        reading = Reading(tokenizer, [])
        ids = spelled(tokenizer, [text])
        growing = Growing(reading.alone)
        pieces = [growing.settled(known) for known in coming(ids, places)]
        assert not growing.astray(ids)
        assert "".join(pieces) + growing.rest(ids) == reading.alone(ids)

    @pytest.mark.parametrize("name", TOKENIZERS)
    @given(data=st.data())
    def test_ids_that_are_no_text(self, name: str, data: st.DataObject) -> None:
        """Whatever a model may write, broken characters too, pieces make up what it reads as."""
        tokenizer = TOKENIZERS[name]
        ids = data.draw(st.lists(st.integers(0, len(tokenizer) - 1), max_size=60))
        reading = Reading(tokenizer, data.draw(st.lists(st.integers(0, 9), max_size=3)))
        for read in (reading.alone, reading.joined):
            growing = Growing(read)
            said = [growing.settled(known) for known in coming(ids, data.draw(cuts))]
            if not growing.astray(ids):
                assert "".join(said) + growing.rest(ids) == read(ids)


class TestRow:
    """A row beside the guard's own judgement of the text."""

    @pytest.mark.parametrize("name", EXACT)
    @given(pieces=words, places=cuts)
    def test_a_whole_answer(
        self, name: str, make_guard: Make, pieces: list[str], places: list[int]
    ) -> None:
        """It is delivered as `check` would deliver it, however its ids came."""
        tokenizer, guard = TOKENIZERS[name], make_guard()
        reading = Reading(tokenizer, [], closing_of(tokenizer))
        ids = spelled(tokenizer, pieces)
        row = run(Row(guard, Exchange(()), reading, reading.alone), ids, places)
        wanted = guard.check(reading.alone(ids))
        assert row.text == wanted.delivered
        assert row.verdict.action == wanted.action
        assert reading.alone(row.ids).strip() == row.text.strip()

    @pytest.mark.parametrize("name", EXACT)
    @given(pieces=words, places=cuts)
    def test_a_stream(
        self, name: str, make_guard: Make, pieces: list[str], places: list[int]
    ) -> None:
        """It says what `stream` would say, and the ids say the same."""
        tokenizer, guard = TOKENIZERS[name], make_guard()
        reading = Reading(tokenizer, [], closing_of(tokenizer))
        ids, said = spelled(tokenizer, pieces), list[str]()
        row = run(Row(guard, Exchange(()), reading, reading.alone, "", said.append), ids, places)
        assert "".join(said) == guard.check(reading.alone(ids)).streamed
        assert row.text == "".join(said)
        # Llama's tokenizer cannot spell a space in front.
        assert reading.alone(row.ids).strip() == row.text.strip()

    @pytest.mark.parametrize("name", TOKENIZERS)
    @given(
        before=st.lists(st.sampled_from(("here", "zb", " ")), max_size=2),
        pieces=st.lists(st.sampled_from(HIDING), max_size=4) | words,
        places=cuts,
        streamed=st.booleans(),
    )
    def test_no_way_to_read_it_shows_what_was_blocked(  # noqa: PLR0913  # what varies
        self,
        name: str,
        make_guard: Make,
        before: list[str],
        pieces: list[str],
        places: list[int],
        *,
        streamed: bool,
    ) -> None:
        """Alone, behind the prompt, with special tokens and without."""
        tokenizer, guard = TOKENIZERS[name], make_guard()
        prompt, known = spelled(tokenizer, before), tokenizer.get_vocab()
        ids = [n for p in pieces for n in ([known[p]] if p in known else spelled(tokenizer, [p]))]
        reading = Reading(tokenizer, prompt, closing_of(tokenizer))
        lead, said = lead_of(reading.alone(prompt)), list[str]()
        say = said.append if streamed else None
        row = run(Row(guard, Exchange(()), reading, reading.joined, lead, say), ids, places)
        for skip in (True, False):
            asked = tokenizer.decode(prompt, skip_special_tokens=skip)
            alone = tokenizer.decode(row.ids, skip_special_tokens=skip)
            whole = tokenizer.decode([*prompt, *row.ids], skip_special_tokens=skip)
            assert "zblock" not in alone
            assert whole.count("zblock") == asked.count("zblock")
        assert "zblock" not in "".join(said)
