"""The model card: generated from what is committed, and current."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from guard.detectors.model_directory import verify_hashes
from guard.loading import BUNDLED_MODEL
from guard.training.card import digest, regenerated, write

QUALITY = Path(__file__).parent.parent / "docs" / "quality.json"


def measured(of: str) -> dict[str, Any]:
    """Return figures as the benchmark keeps them, measured with the model of a digest."""
    figure = {"auroc": 0.7, "auroc_interval": [0.6, 0.8], "positive": 12, "negative": 34}
    check = {
        "what": "a set: AUROC unsafe",
        "kind": "auroc",
        "value": 0.7,
        "floor": 0.9,
        "goal": 0.95,
        "below": False,
    }
    ranking = {
        "digest": of,
        "entries": [{"set": "a set", "category": "unsafe"} | figure],
        "categories": [{"category": "unsafe"} | figure],
        "checks": [check],
    }
    error = {"category": "unsafe", "ece": 0.02, "ece_interval": [0.01, 0.03]}
    calibration = {"digest": of, "entries": [error], "checks": []}
    passed = {"set": "calm", "rows": 50, "share": 0.02, "interval": [0.0, 0.1], "flagged": 3}
    benign = {"digest": of, "class": "public", "entries": [passed], "checks": []}
    return {"parts": {"ranking": ranking, "calibration": calibration, "benign": benign}}


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """Return a copy of the bundled model that may be written to."""
    return shutil.copytree(BUNDLED_MODEL, tmp_path / "model")


def digest_of(directory: Path) -> str:
    """Return what names the scores of a model."""
    return digest(json.loads((directory / "manifest.json").read_text("utf-8")))


@pytest.mark.skipif(not QUALITY.is_file(), reason="the figures are part of the checkout only")
def test_the_shipped_card_is_current() -> None:
    """It is what the manifest, the calibration and docs/quality.json give.

    If it is not: `python benchmarks/quality.py --card`.
    """
    expected = regenerated(BUNDLED_MODEL, json.loads(QUALITY.read_text("utf-8")))
    assert (BUNDLED_MODEL / "README.md").read_text("utf-8") == expected


def test_figures_are_shown(copy: Path) -> None:
    """Figures per category and per source, what passes, and what is weak."""
    text = regenerated(copy, measured(digest_of(copy)))
    assert "| unsafe | 0.700 (0.600-0.800) | 0.020 (0.010-0.030) | 12 | 34 |" in text
    assert "| a set | unsafe | 0.700 (0.600-0.800) | - | 12 | 34 |" in text
    assert "| calm | 2.0% (0.0%-10.0%) | 6.0% | 50 |" in text
    assert "a set: AUROC unsafe (0.700, floor 0.9)" in text


def test_figures_of_another_model_are_not(copy: Path) -> None:
    """What was measured with another graph or calibration is no figure of this one."""
    before = measured(digest_of(copy))
    manifest = json.loads((copy / "manifest.json").read_text("utf-8"))
    manifest["files"]["calibration.json"]["sha256"] = "0" * 64
    (copy / "manifest.json").write_text(json.dumps(manifest), "utf-8")
    text = regenerated(copy, before)
    assert "Not measured" in text
    assert "0.700 (0.600-0.800)" not in text


def test_every_experimental_category_says_why(copy: Path) -> None:
    """Name and reason stand in the card."""
    manifest = json.loads((copy / "manifest.json").read_text("utf-8"))
    text = regenerated(copy, {})
    for name, reason in manifest["experimental"].items():
        assert f"- `{name}`: {reason}" in text


def test_a_written_card_is_sealed(copy: Path) -> None:
    """The model loads with its new card; nothing else in the manifest changed."""
    before = json.loads((copy / "manifest.json").read_text("utf-8"))
    write(copy, measured(digest_of(copy)))
    assert verify_hashes(copy) == []
    after = json.loads((copy / "manifest.json").read_text("utf-8"))
    assert "0.700 (0.600-0.800)" in (copy / "README.md").read_text("utf-8")
    assert after["files"].pop("README.md") != before["files"].pop("README.md")
    assert after == before
