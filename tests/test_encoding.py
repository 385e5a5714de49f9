"""Encoding: windows without gaps, special tokens by the tokenizer's own template."""

from __future__ import annotations

from dataclasses import replace
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
    from collections.abc import Callable, Sequence

    from guard.categories import Side
    from guard.encoding import Encoded

WORDS = ("tide", "pier", "lamp", "crate", "rope", "sail", "gull", "salt")
BERT = ("[PAD]", "[UNK]", "[CLS]", "[SEP]")
ROBERTA = ("<s>", "<pad>", "</s>", "<unk>")
T5 = ("<pad>", "</s>", "<unk>")
SIDES: tuple[Side, ...] = ("response", "prompt")


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

    @given(
        st.integers(0, 2000),
        st.integers(0, 2000),
        st.builds(Sizes, st.just(1), st.integers(8, 300), st.just(8)),
    )
    def test_they_cover_the_unit_and_context_fills_the_rest(
        self, context: int, unit: int, sizes: Sizes
    ) -> None:
        """No token of the unit is missed, and context never costs a further window."""
        spans = windows(context + unit, sizes, context)
        assert spans[-1][1] == context + unit
        assert all(start < other <= end for (start, end), (other, _) in pairwise(spans))
        assert all(end - start <= sizes.text for start, end in spans)
        assert len(spans) == len(windows(unit, sizes))
        first = spans[0][0]
        if unit <= sizes.text:
            assert first == max(0, context + unit - sizes.text)
        else:
            assert first == context

    def test_the_sizes_that_were_measured(self) -> None:
        """A window holds a unit of the usual size with its context; long ones overlap."""
        assert (TEXT_TOKENS, STRIDE_TOKENS) == (128, 96)
        assert windows(200, context=110) == [(72, 200)]
        assert windows(110 + 200, context=110) == [(110, 238), (182, 310)]

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

    def test_a_unit_can_be_marked(self) -> None:
        """The prompt and the context are of the first type, the unit alone of the second."""
        tokenizer = bert()
        encoder = Encoder(tokenizer, marked=True)
        (window,) = encoder.encode("tide pier", "lamp crate rope", start=len("lamp crate "))
        assert shown(tokenizer, window) == "[CLS] tide pier [SEP] lamp crate rope [SEP]"
        assert window.types.tolist() == [0, 0, 0, 0, 0, 0, 1, 1]
        (prompt,) = encoder.encode("", "lamp crate rope", "prompt")
        assert not prompt.types.any()

    def test_an_encoder_can_be_made_again(self) -> None:
        """From its recipe, in another process say, comes one that does the same."""
        encoder = Encoder(bert(), marked=True, sizes=Sizes(2, 10, 5))
        text, settings = encoder.recipe()
        again = Encoder(Tokenizer.from_str(text), **settings)
        first, second = (
            each.encode("tide pier lamp", "rope lamp " * 9, start=len("rope "))
            for each in (encoder, again)
        )
        for one, other in zip(first, second, strict=True):
            assert (one.ids.tolist(), one.types.tolist()) == (
                other.ids.tolist(),
                other.types.tolist(),
            )

    def test_a_closing_read_is_one_window_of_the_end(self) -> None:
        """All of it is unit; of a text that does not fit, the end is read."""
        tokenizer = bert()
        encoder = Encoder(tokenizer, marked=True, sizes=Sizes(2, 4, 2, closing=6))
        window = encoder.encode_closing("tide pier", "lamp " * 9 + "rope")
        assert window is not None
        assert shown(tokenizer, window) == (
            "[CLS] tide pier [SEP] lamp lamp lamp lamp lamp rope [SEP]"
        )
        assert window.types.tolist() == [0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1]
        assert len(window.characters) == window.unit.stop - window.unit.start == 6

    def test_without_room_for_one_there_is_no_closing_read(self) -> None:
        """Sizes say whether a model reads an answer once more, and its limit how much of it."""
        assert Encoder(bert(), sizes=Sizes(2, 4, 2)).encode_closing("", "lamp") is None
        tight = Encoder(bert(), sizes=Sizes(2, 4, 2, closing=90), limit=15)
        assert tight.sizes == Sizes(2, 4, 2, closing=10)

    def test_a_closing_read_may_see_more_of_the_prompt(self) -> None:
        """Than a unit does; the answer's end comes first where a model reads little at once."""
        tokenizer = bert()
        sizes = Sizes(1, 4, 2, closing=3, closing_prompt=4)
        window = Encoder(tokenizer, sizes=sizes).encode_closing("tide pier " * 3, "lamp " * 9)
        assert window is not None
        assert shown(tokenizer, window) == "[CLS] tide pier tide pier [SEP] lamp lamp lamp [SEP]"
        (unit,) = Encoder(tokenizer, sizes=sizes).encode("tide pier " * 3, "lamp " * 4)
        assert shown(tokenizer, unit) == "[CLS] pier [SEP] lamp lamp lamp lamp [SEP]"
        tight = replace(sizes, closing=90, closing_prompt=9)
        assert Encoder(tokenizer, sizes=tight, limit=15).sizes == replace(
            sizes, closing=11, closing_prompt=1
        )

    def test_a_long_prompt_is_tokenised_from_its_end(self) -> None:
        """As far back as it is read, and hardly any further."""
        sizes = Sizes(1, 4, 2, closing=3, closing_prompt=200)
        encoder = Encoder(bert(), sizes=sizes)
        window = encoder.encode_closing("tide " * 10_000, "lamp")
        assert window is not None
        assert len(window.ids) == 200 + 1 + 3

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


class TestContext:
    """Text before the unit."""

    def test_it_fills_what_the_unit_leaves(self) -> None:
        """The window ends with the unit, and as much of the context as fits stands before it."""
        tokenizer = bert()
        encoder = Encoder(tokenizer, sizes=Sizes(2, 10, 5))
        context, unit = "tide pier lamp crate rope sail gull ", "salt " * 6
        (window,) = encoder.encode("", context + unit, start=len(context))
        assert (
            shown(tokenizer, window).split()[2:-1]
            == ["crate", "rope", "sail", "gull"] + ["salt"] * 6
        )

    def test_it_takes_no_room_from_a_long_unit(self) -> None:
        """A unit that fills windows of its own is read in the same ones with any context."""
        encoder = Encoder(bert(), sizes=Sizes(2, 10, 5))
        unit = "salt lamp rope " * 9
        alone = [window.ids.tolist() for window in encoder.encode("tide", unit)]
        behind = encoder.encode("tide", "gull " * 30 + unit, start=5 * 30)
        assert len(alone) > 2
        assert [window.ids.tolist() for window in behind] == alone

    def test_the_units_own_tokens_are_known(self) -> None:
        """Each window says which tokens are the unit's and how many characters each stands for."""
        tokenizer = bert()
        encoder = Encoder(tokenizer, sizes=Sizes(2, 10, 5))
        (window,) = encoder.encode("tide", "gull sail salt lamp", start=len("gull sail "))
        assert [tokenizer.id_to_token(int(i)) for i in window.ids[window.unit]] == ["salt", "lamp"]
        assert window.characters.tolist() == [4, 4]
        for part in encoder.encode("tide", "gull " * 3 + "crate " * 25, start=15):
            assert {tokenizer.id_to_token(int(i)) for i in part.ids[part.unit]} == {"crate"}
            assert part.characters.tolist() == [5] * 10

    def test_without_a_start_all_is_unit(self) -> None:
        """A text of which nothing is context is read whole."""
        encoder = Encoder(bert(), sizes=Sizes(2, 10, 5))
        text = "gull " * 20 + "salt " * 5
        assert len(encoder.encode("", text)) > len(encoder.encode("", text, start=100)) == 1

    @given(
        st.text(st.sampled_from("abe4 .\u200b\u0430\u0301\U0001f437\n"), max_size=60),
        st.text(st.sampled_from("abe4 .\u200b\u0430\u0301\U0001f437\n"), max_size=60),
    )
    def test_hidden_and_spelled_characters_keep_the_start(self, context: str, unit: str) -> None:
        """However normalisation moves the start, every window fits and the end is the unit's."""
        encoder = Encoder(bert(), sizes=Sizes(2, 10, 5))
        encoded = encoder.encode("", context + unit, start=len(context))
        whole = encoder.encode("", context + unit)
        assert all(len(window.ids) <= 13 for window in encoded)
        assert len(encoded) <= len(whole)
        assert encoded[-1].ids.tolist() == whole[-1].ids.tolist()

    def test_emoji_in_the_context_do_not_shift_the_start(self, real: Tokenizer) -> None:
        """Emoji are spelled in the context, too, and the unit's own tokens stay its own."""
        encoder = Encoder(real)
        context, unit = "Look \U0001f437\U0001f437! ", "They are all \U0001f40d. " * 40
        behind = encoder.encode("", context + unit, start=len(context))
        alone = encoder.encode("", unit)
        assert [w.ids.tolist() for w in behind] == [w.ids.tolist() for w in alone]
        assert real.token_to_id("snake") in behind[0].ids


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


class TestUnit:
    """Which tokens of a window are the unit's own."""

    def test_neither_prompt_nor_context(self) -> None:
        """Prompt, context and special tokens are not the unit's."""
        tokenizer = bert()
        (window,) = Encoder(tokenizer).encode("tide pier", "lamp crate rope", start=5)
        assert [tokenizer.id_to_token(int(i)) for i in window.ids[window.unit]] == ["crate", "rope"]
        assert window.characters.tolist() == [5, 4]

    @pytest.mark.parametrize("make", [bert, roberta])
    def test_a_text_without_context_is_the_unit(self, make: Callable[[], Tokenizer]) -> None:
        """On either side, and for any template, everything but special tokens is."""
        tokenizer = make()
        for side in SIDES:
            (window,) = Encoder(tokenizer).encode("", "lamp crate", side)
            assert [tokenizer.id_to_token(int(i)) for i in window.ids[window.unit]] == [
                "lamp",
                "crate",
            ]

    def test_every_token_of_a_long_unit_is_in_some_window(self) -> None:
        """Windows of a unit that is longer than one leave the context out and no token."""
        tokenizer = bert()
        given_ = Encoder(tokenizer).encode("", "tide " * 7 + "sail " * 300, start=35)
        (sail,) = tokenizer.encode("sail", add_special_tokens=False).ids
        assert len(given_) > 1
        assert all(set(window.ids[window.unit].tolist()) == {sail} for window in given_)
        assert sum(len(window.ids[window.unit]) for window in given_) >= 300
