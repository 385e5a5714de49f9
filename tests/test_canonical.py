"""Canonical scores: the bundled model gives on this machine what it gave when it was made."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING

import pytest

from guard import canonical
from guard.loading import BUNDLED_MODEL

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """Return a copy of the bundled model that may be damaged."""
    return shutil.copytree(BUNDLED_MODEL, tmp_path / "model")


def reseal(directory: Path, name: str) -> None:
    """Have the manifest agree with a changed file."""
    from hashlib import sha256

    path = directory / "manifest.json"
    manifest = json.loads(path.read_text("utf-8"))
    content = (directory / name).read_bytes()
    manifest["files"][name] = {"sha256": sha256(content).hexdigest(), "bytes": len(content)}
    path.write_text(json.dumps(manifest), "utf-8")


class TestBundledModel:
    """What is shipped."""

    def test_scores_are_those_of_when_it_was_made(self) -> None:
        """Hashes hold, and no logit of a canonical text has moved."""
        found = canonical.check(BUNDLED_MODEL)
        assert found.problems == ()
        assert 0 <= found.difference <= canonical.TOLERANCE

    def test_every_text_is_scored(self) -> None:
        """The file holds this version's texts, each with a logit per label."""
        kept = json.loads((BUNDLED_MODEL / canonical.FILE).read_text("utf-8"))
        labels = json.loads((BUNDLED_MODEL / "config.json").read_text("utf-8"))["id2label"]
        assert [(e["side"], e["prompt"], e["text"]) for e in kept] == list(canonical.TEXTS)
        assert {len(e["logits"]) for e in kept} == {len(labels)}


class TestDamage:
    """What is noticed."""

    def test_an_altered_file(self, copy: Path) -> None:
        """A file that is not as sealed is named."""
        (copy / "calibration.json").write_text("{}", "utf-8")
        (problem,) = canonical.check(copy).problems
        assert "calibration.json" in problem

    def test_other_scores(self, copy: Path) -> None:
        """Scores that moved by more than the tolerance are a problem, with the size."""
        path = copy / canonical.FILE
        kept = json.loads(path.read_text("utf-8"))
        kept[0]["logits"][0] += 0.5
        path.write_text(json.dumps(kept), "utf-8")
        reseal(copy, canonical.FILE)
        found = canonical.check(copy)
        assert found.difference == pytest.approx(0.5, abs=canonical.TOLERANCE)
        assert "0.5" in found.problems[0]

    def test_kept_scores_that_are_no_numbers(self, copy: Path) -> None:
        """Nothing can be compared with them, so that they are a problem wherever they stand."""
        path = copy / canonical.FILE
        kept = json.loads(path.read_text("utf-8"))
        kept[2]["logits"][1] = float("nan")
        path.write_text(json.dumps(kept), "utf-8")
        reseal(copy, canonical.FILE)
        (problem,) = canonical.check(copy).problems
        assert "no numbers" in problem

    @pytest.mark.parametrize("content", ["nonsense", "[]", '[{"text": "no more"}]'])
    def test_an_unusable_file(self, copy: Path, content: str) -> None:
        """A file that holds no scores is a problem and no crash."""
        (copy / canonical.FILE).write_text(content, "utf-8")
        reseal(copy, canonical.FILE)
        assert canonical.FILE in canonical.check(copy).problems[0]
