"""`guard model`: the card and the check of a model."""

from __future__ import annotations

import json
import shutil
from importlib.util import find_spec
from typing import TYPE_CHECKING

import pytest
from typer.testing import CliRunner

from guard.cli import app
from guard.loading import BUNDLED_MODEL

if TYPE_CHECKING:
    from pathlib import Path

    from typer.testing import Result


def run(*arguments: str) -> Result:
    """Run `guard model` with the given arguments."""
    return CliRunner().invoke(app, ["model", *arguments])


def test_the_card_is_shown() -> None:
    """The bundled model's card names its categories and its weak spots."""
    shown = run("card").stdout
    assert "misaligned_persona" in shown
    assert "English only" in shown


def test_a_sealed_model_passes() -> None:
    """The bundled model is as it was made, in words and in JSON."""
    assert "as sealed" in run("verify").stdout
    result = run("verify", "--json")
    assert json.loads(result.stdout)["problems"] == []
    assert result.exit_code == 0


def test_a_damaged_model_is_exit_code_2(tmp_path: Path) -> None:
    """A changed file is named, in words and in JSON."""
    copy = shutil.copytree(BUNDLED_MODEL, tmp_path / "model")
    (copy / "config.json").write_text("{}", "utf-8")
    result = run("verify", str(copy))
    assert (result.exit_code, "config.json" in result.stderr) == (2, True)
    result = run("verify", str(copy), "--json")
    assert result.exit_code == 2
    assert "config.json" in json.loads(result.stdout)["problems"][0]


def test_a_model_without_card_says_so(tmp_path: Path) -> None:
    """A directory without a card is an error that names the file."""
    result = run("card", str(tmp_path))
    assert (result.exit_code, "README.md" in result.stderr) == (2, True)


def test_a_card_in_another_encoding(tmp_path: Path) -> None:
    """It is an error that names the file and how it must be."""
    (tmp_path / "README.md").write_bytes("Für uns.".encode("latin-1"))
    result = run("card", str(tmp_path))
    assert (result.exit_code, "UTF-8" in result.stderr) == (2, True)


@pytest.mark.skipif(find_spec("torch") is not None, reason="torch is installed here")
def test_training_names_the_extra() -> None:
    """Without torch the error gives the command that installs it."""
    result = run("train", "--data", "x", "--out", "y")
    assert result.exit_code == 2
    assert "clearance-guard[train]" in result.stderr
