"""Windows end to end are read as padded ones are."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("torch", reason="training needs the extra `train`")

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from guard.encoding import Encoded
from guard.training import reading
from guard.training.data import HEADS
from guard.training.examples import Example
from guard.training.model import GuardModel
from guard.training.passes import Bags, pack
from guard.training.reading import laid, laid_logits, padded, read

CPU = torch.device("cpu")
NONE = np.zeros(len(HEADS), np.float32)


def batch(lengths: list[int], before: list[int], seed: int = 1) -> Bags:
    """Return an example of these windows, so much of each before its own tokens."""
    rng = np.random.default_rng(seed)
    windows = []
    for length, other in zip(lengths, before, strict=True):
        types = (np.arange(length) >= min(other, length)).astype(np.int64)
        ids = rng.integers(1000, 20000, length)
        windows.append(Encoded(ids, types, slice(0, length), np.ones(length, np.int64)))
    return pack([Example(tuple(windows), NONE, NONE)])


@pytest.fixture(scope="module")
def model() -> GuardModel:
    """Return the network as training begins with it, without dropout."""
    torch.manual_seed(1)
    return GuardModel(len(HEADS)).eval()


class TestLaid:
    """`laid_logits` against the network itself."""

    @settings(max_examples=12)
    @given(
        parts=st.lists(st.tuples(st.integers(2, 60), st.integers(0, 60)), min_size=1, max_size=5),
        seed=st.integers(0, 99),
    )
    def test_it_is_what_the_network_computes(
        self, model: GuardModel, parts: list[tuple[int, int]], seed: int
    ) -> None:
        """Whatever the lengths, and where none or all of a window's tokens are its own."""
        one = batch([length for length, _ in parts], [other for _, other in parts], seed)
        with torch.no_grad():
            expected = model(*padded(one))[0]
            found = laid_logits(model, laid(one, CPU), torch.float32)
        assert torch.allclose(found, expected, rtol=0, atol=1e-4)

    def test_16_bits_are_near(self, model: GuardModel) -> None:
        """What a GPU computes in differs by hundredths."""
        one = batch([40, 17, 90], [10, 0, 90])
        with torch.no_grad():
            exact = laid_logits(model, laid(one, CPU), torch.float32)
            found = laid_logits(model, laid(one, CPU))
        assert found.dtype == torch.float32
        assert 0 < float((found - exact).abs().max()) < 0.05

    def test_gradients_are_the_same(self, model: GuardModel) -> None:
        """Every weight would move alike."""
        one = batch([30, 12], [8, 3])
        moved = []
        for logits in (model(*padded(one))[0], laid_logits(model, laid(one, CPU), torch.float32)):
            model.zero_grad()
            logits.square().sum().backward()
            found = [p.grad.flatten() for p in model.parameters() if p.grad is not None]
            moved.append(torch.cat(found))
        model.zero_grad()
        assert float((moved[0] - moved[1]).norm() / moved[0].norm()) < 1e-4

    def test_dropout_is_drawn(self) -> None:
        """In training, as the network draws it."""
        torch.manual_seed(1)
        model = GuardModel(len(HEADS), inner_dropout=0.3).train()
        one = batch([30, 12], [8, 3])
        first, second = (laid_logits(model, laid(one, CPU)) for _ in range(2))
        assert not torch.allclose(first, second, atol=1e-2)


class TestRead:
    """Which of both reads."""

    def test_windows_are_laid_end_to_end(
        self, model: GuardModel, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """But layers that round as the int8 graph does are asked themselves."""
        seen: list[bool] = []

        def watched(*_: object) -> torch.Tensor:
            seen.append(True)
            return torch.zeros(1, len(HEADS))

        monkeypatch.setattr(reading, "_lays", lambda _: True)
        monkeypatch.setattr(reading, "laid_logits", watched)
        one = batch([12], [3])
        with torch.no_grad():
            read(model, one, CPU)
            assert seen == [True]
            rounding = GuardModel(len(HEADS)).eval()
            rounding.plain = False
            read(rounding, one, CPU)
        assert seen == [True]

    def test_a_cpu_lays_too(self) -> None:
        """There as well less is computed, with attention in one table."""
        assert reading._lays("cpu")

    @pytest.mark.parametrize("multiplies", [True, False])
    def test_16_bits_are_for_processors_that_multiply_them(
        self, model: GuardModel, monkeypatch: pytest.MonkeyPatch, *, multiplies: bool
    ) -> None:
        """Others compute in 32 bits: emulated they would take 100 times as long."""
        monkeypatch.setattr(reading, "_has_bfloat16", lambda _: multiplies)
        one = batch([40, 17, 90], [10, 0, 90])
        with torch.no_grad():
            expected = model(*padded(one))[0]
            found = read(model, one, CPU)
        assert bool((found - expected).abs().max() < 1e-4) is not multiplies

    def test_examples_share_one_reading(self, model: GuardModel) -> None:
        """A window's logits do not depend on the windows beside it."""
        both = batch([20, 33], [5, 5])
        alone = both.taken([0])
        first = replace(
            alone,
            ids=both.ids[:20],
            types=both.types[:20],
            windows=np.array([0, 20]),
            bags=np.array([0, 1]),
        )
        with torch.no_grad():
            together = laid_logits(model, laid(both, CPU), torch.float32)
            single = laid_logits(model, laid(first, CPU), torch.float32)
        assert torch.allclose(together[:1], single, atol=1e-5)
