"""Words in other pieces: the same text, the same everything else."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from tokenizers import Tokenizer

from guard.encoding import Encoder
from guard.loading import BUNDLED_MODEL
from guard.training.passes import Bags, pack
from guard.training.subwords import INSIDE, LONGEST, Subwords
from tests.training.test_passes import example, spans

TEXTS = ("The ferry leaves at nine and the bar sells tea.", "Nobody answered yesterday, did they?")


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    """Return the bundled model's."""
    return Tokenizer.from_file(str(BUNDLED_MODEL / "tokenizer.json"))


@pytest.fixture(scope="module")
def bags(tokenizer: Tokenizer) -> Bags:
    """Return each text as an example, many times."""
    encoder = Encoder(tokenizer)
    windows = [encoder.encode("Tell me.", text)[0] for text in TEXTS * 100]
    return pack([replace(example([1], 1), windows=(window,)) for window in windows])


def text(tokenizer: Tokenizer, ids: list[int]) -> str:
    """Return what pieces spell, word by word."""
    pieces = [tokenizer.id_to_token(at) or "" for at in ids]
    return " ".join(pieces).replace(f" {INSIDE}", "")


class TestCuts:
    """`Subwords.cut`."""

    def test_the_text_stays(self, tokenizer: Tokenizer, bags: Bags) -> None:
        """Every window spells what it did, in more pieces, some of which are new to it."""
        made = Subwords(tokenizer.get_vocab(), 1.0).cut(bags, np.random.default_rng(1))
        for (before, types), (after, others) in zip(spans(bags), spans(made), strict=True):
            assert text(tokenizer, before) == text(tokenizer, after)
            assert len(after) == len(others) >= len(before) == len(types)
        assert len(made.ids) > 1.1 * len(bags.ids)
        assert np.array_equal(made.bags, bags.bags)
        assert np.array_equal(made.targets, bags.targets)

    def test_types_go_with_their_pieces(self, tokenizer: Tokenizer, bags: Bags) -> None:
        """What belongs to the unit is the same text as before."""
        made = Subwords(tokenizer.get_vocab(), 1.0).cut(bags, np.random.default_rng(1))
        for before, after in zip(spans(bags), spans(made), strict=True):
            own = [
                text(tokenizer, [at for at, kind in zip(*one, strict=True) if kind])
                for one in (before, after)
            ]
            assert own[0] == own[1]

    def test_a_share_of_the_windows_is_cut(self, tokenizer: Tokenizer, bags: Bags) -> None:
        """The others stay as they are, and without a share all do."""
        vocabulary = tokenizer.get_vocab()
        made = Subwords(vocabulary, 0.4).cut(bags, np.random.default_rng(1))
        same = np.mean(np.diff(made.windows) == np.diff(bags.windows))
        assert 0.5 < same < 0.75
        none = Subwords(vocabulary, 0.0).cut(bags, np.random.default_rng(1))
        assert np.array_equal(none.ids, bags.ids)

    def test_long_windows_stay(self, tokenizer: Tokenizer) -> None:
        """What could outgrow the encoder is left alone."""
        long = pack([example([LONGEST + 1], 2000)])
        made = Subwords(tokenizer.get_vocab(), 1.0).cut(long, np.random.default_rng(1))
        assert np.array_equal(made.ids, long.ids)

    def test_special_tokens_are_no_words(self, tokenizer: Tokenizer) -> None:
        """`[SEP]` is never cut."""
        vocabulary = tokenizer.get_vocab()
        special = [vocabulary[name] for name in ("[CLS]", "[SEP]", "[UNK]")]
        cuts = Subwords(vocabulary, 1.0)
        assert not cuts._count[special].any()
