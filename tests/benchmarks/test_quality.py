"""The quality benchmark: its figures, what it reads, and its one command from rows to pages."""

from __future__ import annotations

import html
import json
import re
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import quality
import quality_machine
import quality_parts
import quality_sets
from guard.loading import BUNDLED_MODEL
from guard.training.obfuscate import KINDS
from quality_figures import average_precision, recall_at, roc, share
from quality_formats import FORMATS
from quality_plots import Axis, lines_svg
from quality_scores import Scorer
from quality_sets import Rows, Set, Target, labelled
from quality_tables import PARTS, PLOTS, report

if TYPE_CHECKING:
    from pathlib import Path

SMALL = ["--class", "public", "--limit", "16", "--rounds", "2"]


class TestFigures:
    """Numbers from scores and truth."""

    def test_average_precision_of_a_known_order(self) -> None:
        """Hits at ranks one and three of four give (1 + 2/3) / 2."""
        truth = np.array([True, False, True, False])
        assert average_precision(np.array([4.0, 3, 2, 1]), truth) == pytest.approx(5 / 6)

    @given(st.permutations(list(range(8))))
    def test_the_order_of_rows_does_not_matter(self, order: list[int]) -> None:
        """Ties are one step, however they are sorted."""
        scores = np.array([3.0, 3, 2, 2, 2, 1, 1, 0])
        truth = np.array([1, 0, 1, 0, 1, 0, 1, 0], bool)
        expected = average_precision(scores, truth)
        assert average_precision(scores[order], truth[order]) == pytest.approx(expected)

    def test_recall_at_a_rate(self) -> None:
        """The threshold is what the given share of the negatives exceeds."""
        scores = np.concatenate([np.arange(100.0), [98.5, 99.5, 10]])
        truth = np.arange(103) >= 100
        assert recall_at(scores, truth, 0.01) == pytest.approx(2 / 3)

    def test_a_curve_claims_no_rate_that_its_rows_cannot_show(self) -> None:
        """With 50 negatives the lowest rate is 2 %."""
        scores, truth = np.arange(60.0), np.arange(60) >= 50
        points = roc(scores, truth)
        assert points[0][0] >= 0.02
        assert points[-1] == [1.0, 1.0]

    def test_a_share_of_nothing_is_unknown(self) -> None:
        """Without rows the interval is everything."""
        assert share(0, 0)["interval"] == [0.0, 1.0]


class TestFormats:
    """What stands around a plain answer."""

    @pytest.mark.parametrize("name", FORMATS)
    def test_every_word_is_still_said(self, name: str) -> None:
        """Only what stands around them, and how letters are written, differs."""
        said = "Water the fern on Monday. Don't drown it: a cup is enough.\n\nTurn it on Friday."
        numbers = re.compile(r"\\u([0-9a-f]{4})")
        shown = html.unescape(numbers.sub(lambda m: chr(int(m[1], 16)), FORMATS[name](said)))
        shown = shown.replace("\\n", "\n")
        assert shown != said
        assert set(re.findall(r"[A-Za-z']+", said)) <= set(re.findall(r"[A-Za-z']+", shown))


class TestRows:
    """What may be read."""

    def test_only_test_rows_are_read(self, folder: Path) -> None:
        """A row of training is never among them, and a trial run reads nothing else."""
        assert all(row["split"] == "test" for row in Rows(folder)("gptfuzz_responses", 0))
        trial = Rows(folder, smoke=True)("gptfuzz_responses", 0)
        assert [row["split"] for row in trial] == ["train"]

    def test_a_sample_is_fixed(self, folder: Path) -> None:
        """The same rows each time, a smaller sample within a larger one."""
        few, more = (Rows(folder)("benign_dolly", n) for n in (3, 8))
        assert more[:3] == few

    def test_a_pattern_reads_several_files(self, folder: Path) -> None:
        """Rows of each file that matches are there."""
        assert len(Rows(folder)("benign_*", 0)) == 24

    def test_negatives_may_come_from_another_file(self, folder: Path) -> None:
        """Only its fine rows stand beside."""
        item = Set("jbb_advbench_artifacts2", "unsafe", negatives="xstest_completions")
        rows, truth = labelled(Rows(folder), item, 0)
        assert (len(rows), sum(truth)) == (36, 12)

    def test_every_set_names_heads_that_exist(self, model: Path) -> None:
        """No figure is left out for a misspelt category."""
        heads = Scorer(model, "public").heads
        assert {item.category for item in quality_sets.SETS} <= set(heads)
        assert {category for _, category in quality_sets.OBFUSCATED} <= set(heads)


class TestScores:
    """Scores are the runtime's."""

    def test_the_guard_needs_no_further_pass(self, model: Path, folder: Path) -> None:
        """After the scores of a row, its verdict runs the model on no other unit."""
        scorer = Scorer(model, "research")
        rows = Rows(folder)("gptfuzz_responses", 0)
        scorer.scores(rows, "unsafe")
        passes = scorer.classifier.passes
        scorer.verdicts(rows)
        assert scorer.classifier.passes == passes > len(rows)

    def test_risks_are_those_of_the_verdict(self, model: Path, folder: Path) -> None:
        """What is called a row's live risk is what a verdict says, several units included."""
        scorer = Scorer(model, "research")
        rows = Rows(folder)("gptfuzz_responses", 0)
        expected = [verdict.risks["hate_toxicity"] for verdict in scorer.verdicts(rows)]
        assert scorer.risks(rows, "hate_toxicity") == pytest.approx(expected)

    def test_a_closing_read_is_the_verdicts_too(self) -> None:
        """Of answers of several units the bundled model reads the whole, here as there."""
        scorer = Scorer(BUNDLED_MODEL, "research")
        text = "Your plan looks perfect to me, and you should trust it fully. "
        rows = [{"prompt": "Is it good?", "response": text * count} for count in (1, 2, 5, 30)]
        verdicts = scorer.verdicts(rows)
        for category in ("misaligned_persona", "sycophancy"):
            assert scorer.heads[category].pooling.closing > 0
            expected = [verdict.risks[category] for verdict in verdicts]
            assert scorer.risks(rows, category) == pytest.approx(expected)

    def test_hidden_text_is_the_same_each_time(self, folder: Path) -> None:
        """Every kind changes a text, and not by chance."""
        (row,) = Rows(folder)("gptfuzz_responses", 1)
        row |= {"response": "The harbour master wrote down every ship that passed the lighthouse."}
        for kind in KINDS:
            once = quality_parts.hidden(row, kind)["response"]
            assert once == quality_parts.hidden(row, kind)["response"] != row["response"]


class TestCommand:
    """From a folder of rows to tables, figures and plots."""

    @pytest.fixture
    def run(
        self, model: Path, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> Any:
        """Return a runner that logs beside its output."""
        monkeypatch.setattr(quality, "LOG", tmp_path / "runs.jsonl")
        (tmp_path / "runs.jsonl").touch()
        exact = model / "onnx" / "model_quantized.onnx"
        out = tmp_path / "quality.md"

        def runner(*options: str) -> dict[str, Any]:
            places = ["--data", str(folder), "--model", str(model), "--out", str(out)]
            quality.main(
                [*SMALL, *places, "--float", str(exact), "--left-out", str(model), *options]
            )
            found: dict[str, Any] = json.loads(out.with_suffix(".json").read_text("utf-8"))
            return found

        return runner

    def test_everything_is_measured_and_written(self, run: Any, tmp_path: Path) -> None:
        """All parts have figures, a table and their plots, and the run is logged."""
        facts = run()
        assert list(facts["parts"]) == list(PARTS)
        page = (tmp_path / "quality.md").read_text("utf-8")
        assert page == report(facts)
        for image in re.findall(r"\((quality-\w+\.svg)\)", page):
            assert 500 < (tmp_path / image).stat().st_size < 150_000
        assert len(re.findall(r"!\[", page)) == len(PLOTS)
        (logged,) = (tmp_path / "runs.jsonl").read_text("utf-8").splitlines()
        assert json.loads(logged)["part"] == "all"
        assert facts["runs"] == {"all": 1, "model": 1}
        # One graph against itself.
        parity = facts["parts"]["parity"]
        assert parity["flips"]["hits"] == 0
        assert all(entry["lost"] == 0 for entry in parity["entries"])

    def test_a_part_alone_leaves_the_others(self, run: Any, tmp_path: Path) -> None:
        """Figures of a part that is not run are kept, and the log names what was run."""
        before = run("--part", "benign")
        after = run("--part", "stream")
        assert after["parts"]["benign"] == before["parts"]["benign"]
        assert list(after["parts"]) == ["benign", "stream"]
        logged = (tmp_path / "runs.jsonl").read_text("utf-8").splitlines()
        assert [json.loads(line)["part"] for line in logged] == ["benign", "stream"]

    def test_a_trial_run_is_not_logged(self, run: Any, tmp_path: Path) -> None:
        """It reads training rows, of which these sets have too few, and says so."""
        facts = run("--smoke", "--part", "ranking,benign")
        assert (tmp_path / "runs.jsonl").read_text("utf-8") == ""
        counts = {entry["rows"] for entry in facts["parts"]["benign"]["entries"]}
        assert counts <= {0, 1}

    def test_a_trial_run_must_not_write_the_docs(self, folder: Path) -> None:
        """Without an output of its own it is refused."""
        with pytest.raises(SystemExit):
            quality.main(["--data", str(folder), "--smoke"])

    def test_an_unknown_part_is_refused(self, folder: Path) -> None:
        """A misspelt part is no empty run."""
        with pytest.raises(SystemExit):
            quality.main(["--data", str(folder), "--part", "rankings"])


class TestTables:
    """Figures beside what is aimed at."""

    @pytest.mark.parametrize(
        ("value", "below", "marks"),
        [
            (0.95, False, ("met", "**missed**")),
            (0.80, False, ("**missed**", "**missed**")),
            (0.99, False, ("met", "met")),
            (0.02, True, ("met", "met")),
        ],
    )
    def test_marks(self, value: float, below: bool, marks: tuple[str, str]) -> None:  # noqa: FBT001
        """Floor and goal are each met or missed, whichever way is better."""
        target = Target(0.9, 0.98, below=below)
        check = target.check("a figure", "auroc", value, [value, value])
        stamp = {"date": "2026-01-01", "limit": 5, "version": "1", "digest": "d"}
        facts = {"parts": {"stream": {"entries": [], "checks": [check]} | stamp}}
        whole = {"model": "m", "class": "public", "runs": {"all": 1, "model": 1}} | stamp | facts
        (line,) = (x for x in report(whole).splitlines() if x.startswith("| a figure"))
        cells = [cell.strip() for cell in line.split("|")[3:5]]
        assert tuple(cell.split()[-1] for cell in cells) == marks

    def test_the_page_is_what_the_figures_say(self) -> None:
        """docs/quality.md is written from docs/quality.json and from nothing else."""
        facts = json.loads(quality.REPORT.with_suffix(".json").read_text("utf-8"))
        assert quality.REPORT.read_text("utf-8") == report(facts)


class TestMachine:
    """Speed and memory."""

    def test_the_floor_grows_with_the_window(self) -> None:
        """Twice the tokens take twice the linear and four times the attention work."""
        peaks = {"int8": 1e12, "float": 1e11}
        once, twice = (quality_machine.floor(n, peaks) for n in (128, 256))
        assert 2 * once < twice < 4 * once

    def test_a_peak_is_a_rate(self) -> None:
        """Products take time, on any processor between 10 million and 100 trillion a second."""
        assert 1e7 < quality_machine.peak(np.float32, seconds=0.02) < 1e14


class TestPlots:
    """Drawings."""

    def test_a_logarithmic_axis(self) -> None:
        """Equal ratios are equal steps, and what is outside stays at the edge."""
        axis = Axis("rate", (0.01, 0.1, 1.0), log=True)
        assert axis.at(0.1) == pytest.approx(0.5)
        assert (axis.at(0.0), axis.at(5.0)) == (0.0, 1.0)

    def test_names_are_escaped(self) -> None:
        """A name cannot break the drawing."""
        axis = Axis("x", (0.0, 1.0))
        assert "&lt;b&gt;" in lines_svg("<b>", {"<b>": [(0, 0), (1, 1)]}, axis, axis, 200)
