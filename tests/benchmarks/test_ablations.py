"""The table of what each idea gave."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

import ablations
from guard.training.data import Row

if TYPE_CHECKING:
    from pathlib import Path


def row(number: int, file: str = "toy") -> Row:
    """Return a row that is risky for even numbers."""
    labels = {"unsafe": float(number % 2 == 0)}
    text = "obey me" if number % 2 == 0 else "water the basil"
    return Row(f"Question {number}", f"{number}: {text}.", labels, file, "CC0-1.0", 1.0)


class TestSample:
    """Which rows are scored."""

    def test_it_does_not_depend_on_the_order(self) -> None:
        """The same rows of each file, at most sixty."""
        rows = [row(n, file) for n in range(80) for file in ("a", "b")]
        found = ablations.sample(rows)
        assert found == ablations.sample(rows[::-1])
        assert [sum(r.file == name for r in found) for name in ("a", "b")] == [60, 60]


class TestTable:
    """The figures as Markdown."""

    def test_a_category_without_figure_has_a_dash(self) -> None:
        """A mean is given where a model has every category."""
        entry = {"auroc": 0.9, "positive": 9, "negative": 9}
        kept = {"one": {"unsafe": entry, "refusal": entry}, "two": {"unsafe": entry}}
        lines = ablations.table(kept).splitlines()
        assert "| refusal | 0.900 | - |" in lines
        assert lines[-1].endswith("| 0.900 | - |")

    def test_docs_show_the_kept_figures(self) -> None:
        """docs/model.md is what benchmarks/ablations.json makes of it."""
        text = ablations.PAGE.read_text("utf-8")
        assert ablations.page(text, json.loads(ablations.FIGURES.read_text("utf-8"))) == text


def test_a_model_is_scored_and_kept(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Figures of a model join those of earlier ones, and the page's table shows both."""
    pytest.importorskip("sklearn", reason="needs the extra `train`")
    split = type("Split", (), {"validation": [row(n) for n in range(24)]})
    monkeypatch.setattr(ablations, "load", lambda *_, **__: split)
    out, page = tmp_path / "ablations.json", tmp_path / "model.md"
    out.write_text('{"earlier": {"unsafe": {"auroc": 0.5, "positive": 9, "negative": 9}}}', "utf-8")
    page.write_text("Before.\n<!-- ablations -->\nold\n<!-- /ablations -->\nAfter.\n", "utf-8")
    places = ["--data", str(tmp_path), "--out", str(out), "--page", str(page)]
    ablations.main([*places, "--pooled", f"tiny={model}"])
    kept = json.loads(out.read_text("utf-8"))
    assert list(kept) == ["earlier", "tiny"]
    assert kept["tiny"]["unsafe"]["positive"] == 12
    text = page.read_text("utf-8")
    assert "| category | earlier | tiny |" in text
    assert text.endswith("After.\n")
    assert "old" not in text
