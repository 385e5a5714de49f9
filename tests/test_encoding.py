"""Encoding: windows without gaps, special tokens by the tokenizer's own template."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, pre_tokenizers, processors
from tokenizers.models import BPE, WordLevel

from guard.encoding import (
    PROMPT_CHARACTERS,
    PROMPT_TOKENS,
    STRIDE_TOKENS,
    TEXT_TOKENS,
    Encoder,
    Sizes,
    windows,
)
from guard.loading import BUNDLED_MODEL

if TYPE_CHECKING:
    from collections.abc import Sequence

    from guard.encoding import Encoded

WORDS = ("tide", "pier", "lamp", "crate", "rope", "sail", "gull", "salt")
BERT = ("[PAD]", "[UNK]", "[CLS]", "[SEP]")
ROBERTA = ("<s>", "<pad>", "</s>", "<unk>")
T5 = ("<pad>", "</s>", "<unk>")


def word_tokenizer(
    special: Sequence[str], template: Any, words: Sequence[str] = WORDS
) -> Tokenizer:
    """Return a tokenizer that knows `words`, with ids in the order given."""
    vocabulary = {word: index for index, word in enumerate([*special, *words])}
    unknown = next((word for word in special if "unk" in word.lower()), "[UNK]")
    tokenizer = Tokenizer(WordLevel(vocabulary, unk_token=unknown))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.add_special_tokens(list(special))
    if template is not None:
        tokenizer.post_processor = template
    return tokenizer


def bert() -> Tokenizer:
    """Return a tokenizer whose template is BERT's."""
    template = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", 2), ("[SEP]", 3)],
    )
    return word_tokenizer(BERT, template)


def roberta() -> Tokenizer:
    """Return a tokenizer whose template is RoBERTa's."""
    return word_tokenizer(ROBERTA, processors.RobertaProcessing(("</s>", 2), ("<s>", 0)))


def shown(tokenizer: Tokenizer, window: Encoded) -> str:
    """Return a window's tokens as text."""
    return " ".join(str(tokenizer.id_to_token(int(i))) for i in window.ids)


@pytest.fixture(scope="module")
def real() -> Tokenizer:
    """Return the bundled model's tokenizer."""
    return Tokenizer.from_file(str(BUNDLED_MODEL / "tokenizer.json"))


class TestWindows:
    """Where the windows of a text begin and end."""

    @given(st.integers(0, 5000), st.builds(Sizes, st.just(1), st.integers(8, 300), st.just(8)))
    def test_they_cover_everything(self, length: int, sizes: Sizes) -> None:
        """Windows have no gap between them, are never too long and end where the text ends."""
        spans = windows(length, sizes)
        assert spans[0][0] == 0
        assert spans[-1][1] == length
        for (start, end), (next_start, next_end) in pairwise(spans):
            assert start < next_start <= end < next_end
        assert all(end - start <= sizes.text for start, end in spans)

    def test_a_short_text_is_one_window(self) -> None:
        """What fits is not cut, and an empty text is one empty window."""
        assert windows(0) == [(0, 0)]
        assert windows(TEXT_TOKENS) == [(0, TEXT_TOKENS)]

    def test_windows_overlap_by_the_stride(self) -> None:
        """Windows begin a stride apart; the last one is a full window up to the end."""
        assert windows(TEXT_TOKENS + 1) == [(0, TEXT_TOKENS), (1, TEXT_TOKENS + 1)]
        starts = [start for start, _ in windows(1000)]
        assert starts[:3] == [0, STRIDE_TOKENS, 2 * STRIDE_TOKENS]
        assert starts[-1] == 1000 - TEXT_TOKENS

    def test_smaller_windows_overlap_in_proportion(self) -> None:
        """Where a model reads less, text and stride shrink together, and the prompt stays."""
        assert Sizes(48, 176, 128).within(44) == Sizes(48, 44, 32)
        assert Sizes(48, 176, 128).within(500) == Sizes(48, 176, 128)
        assert Sizes(48, 176, 2).within(8).stride == 1


class TestTemplates:
    """Special tokens stand where the tokenizer puts them."""

    def test_a_pair_for_bert(self) -> None:
        """Prompt and text stand in one window, told apart by their type."""
        tokenizer = bert()
        (window,) = Encoder(tokenizer).encode("tide pier", "lamp crate rope")
        assert shown(tokenizer, window) == "[CLS] tide pier [SEP] lamp crate rope [SEP]"
        assert window.types.tolist() == [0, 0, 0, 0, 1, 1, 1, 1]
        assert window.ids.dtype == window.types.dtype == np.int64

    def test_a_pair_for_roberta(self) -> None:
        """RoBERTa puts two separators between the parts and knows one type."""
        tokenizer = roberta()
        (window,) = Encoder(tokenizer).encode("tide", "lamp rope")
        assert shown(tokenizer, window) == "<s> tide </s> </s> lamp rope </s>"
        assert not window.types.any()

    def test_a_single_text(self) -> None:
        """A model that was not trained on pairs reads the text alone."""
        tokenizer = roberta()
        (window,) = Encoder(tokenizer, pair=False).encode("tide", "lamp rope")
        assert shown(tokenizer, window) == "<s> lamp rope </s>"

    def test_only_an_end(self) -> None:
        """A tokenizer that only closes texts only closes them."""
        template = processors.TemplateProcessing(
            single="$A </s>", pair="$A </s> $B </s>", special_tokens=[("</s>", 1)]
        )
        tokenizer = word_tokenizer(T5, template)
        (window,) = Encoder(tokenizer).encode("tide", "lamp rope")
        assert shown(tokenizer, window) == "tide </s> lamp rope </s>"

    def test_none_at_all(self) -> None:
        """A tokenizer without a template adds nothing."""
        tokenizer = word_tokenizer(("[UNK]",), None)
        (window,) = Encoder(tokenizer, pair=False).encode("", "lamp rope")
        assert shown(tokenizer, window) == "lamp rope"

    def test_the_template_is_the_tokenizers_own(self, real: Tokenizer) -> None:
        """A window of a short text is what the tokenizer itself makes of a pair, or of one."""
        prompt, text = "where is the ferry?", "it leaves at noon, from the third pier."
        encoder = Encoder(real)
        (paired,) = encoder.encode(prompt, text)
        (alone,) = encoder.encode("", text, "prompt")
        expected = real.encode(prompt, text)
        assert (paired.ids.tolist(), paired.types.tolist()) == (expected.ids, expected.type_ids)
        assert alone.ids.tolist() == real.encode(text).ids

    def test_special_tokens_in_a_text_are_words(self, real: Tokenizer) -> None:
        """Who writes `[SEP]` into an answer does not end the window."""
        encoder = Encoder(real)
        (window,) = encoder.encode("", "one [SEP] two [CLS] [PAD] three", "prompt")
        special = {real.token_to_id(token) for token in ("[CLS]", "[SEP]", "[PAD]")}
        assert not special & set(window.ids[1:-1].tolist())

    def test_a_tokenizer_that_knows_no_word_is_refused(self) -> None:
        """Without a single token nothing could be judged."""
        tokenizer = Tokenizer(BPE({}, []))
        with pytest.raises(ValueError, match="no tokens for any word"):
            Encoder(tokenizer)

    def test_rare_vocabularies_are_probed(self) -> None:
        """A tokenizer that knows none of the usual letters works too."""
        tokenizer = Tokenizer(BPE({"ж": 0, "ю": 1}, []))
        (window,) = Encoder(tokenizer, pair=False).encode("", "юж")
        assert window.ids.tolist() == [1, 0]


class TestLimits:
    """Models that read less at once."""

    @pytest.mark.parametrize("limit", [64, 128, 230, 512])
    @pytest.mark.parametrize("pair", [True, False])
    def test_no_window_is_longer(self, limit: int, pair: bool) -> None:  # noqa: FBT001
        """Every window of any text fits, special tokens and prompt included."""
        encoder = Encoder(bert(), pair=pair, limit=limit)
        for count in (0, 1, limit, 3 * limit, 700):
            encoded = encoder.encode("pier " * 100, "lamp " * count)
            assert max(len(window.ids) for window in encoded) <= limit

    def test_all_of_the_text_is_read(self) -> None:
        """The windows of a small model hold every token of the text, in order."""
        words = [WORDS[i * i % 7] for i in range(300)]
        encoder = Encoder(roberta(), pair=False, limit=64)
        encoded = encoder.encode("", " ".join(words))
        spans = windows(300, encoder.sizes)
        read: list[int] = []
        for window, (start, _) in zip(encoded, spans, strict=True):
            read[start:] = window.ids[1:-1].tolist()
        assert [roberta().id_to_token(i) for i in read] == words

    def test_sizes_of_its_own(self) -> None:
        """A model that says how it was trained is read that way."""
        encoder = Encoder(bert(), sizes=Sizes(2, 10, 5), limit=512)
        first, *_ = encoder.encode("tide pier lamp", "rope " * 30)
        assert first.types.tolist() == [0, 0, 0, 0] + [1] * 11

    def test_without_a_limit_nothing_shrinks(self) -> None:
        """A model that reads any number gets the bundled model's windows."""
        assert Encoder(bert(), limit=None).sizes == Sizes()

    def test_a_window_of_next_to_nothing_is_refused(self) -> None:
        """A model whose window would be all prompt is an error at start."""
        with pytest.raises(ValueError, match="leaves 5 for text"):
            Encoder(bert(), limit=PROMPT_TOKENS + 3 + 5)


class TestText:
    """What becomes of prompt and text."""

    def test_the_prompts_end_is_kept(self) -> None:
        """Of a long prompt the model sees the last tokens."""
        tokenizer = bert()
        prompt = "pier " * 200 + "tide"
        (window,) = Encoder(tokenizer).encode(prompt, "lamp")
        tokens = shown(tokenizer, window).split()
        assert tokens[: PROMPT_TOKENS + 2] == ["[CLS]", *["pier"] * 47, "tide", "[SEP]"]
        assert len(prompt) > PROMPT_CHARACTERS

    def test_a_text_on_the_prompt_side_stands_alone(self) -> None:
        """A user's message is judged without another prompt before it."""
        tokenizer = bert()
        (window,) = Encoder(tokenizer).encode("tide", "lamp rope", "prompt")
        assert shown(tokenizer, window) == "[CLS] lamp rope [SEP]"
        assert not window.types.any()

    def test_obfuscated_text_is_read_plainly(self) -> None:
        """Prompt and text are normalised before they become tokens."""
        tokenizer = bert()
        hidden = "l\u200bamp r\u043epe"
        (window,) = Encoder(tokenizer).encode(hidden, hidden)
        assert shown(tokenizer, window) == "[CLS] lamp rope [SEP] lamp rope [SEP]"

    def test_truncation_and_padding_are_switched_off(self) -> None:
        """What the tokenizer's file says about truncation and padding is not followed."""
        tokenizer = bert()
        tokenizer.enable_truncation(4)
        tokenizer.enable_padding(length=50)
        (window,) = Encoder(tokenizer, pair=False).encode("", "lamp " * 10)
        assert len(window.ids) == 12

    @given(st.text(st.characters() | st.sampled_from(["\x00", "\ud800"]), max_size=60))
    def test_any_text_can_be_encoded(self, text: str) -> None:
        """Whatever a string holds, there is at least one window that begins and ends."""
        for window in Encoder(bert()).encode(text, text):
            assert window.ids[0] == 2
            assert window.ids[-1] == 3
            assert len(window.ids) == len(window.types)
