"""`guard calibrate`, on the bundled model: its scores may change, so labels shift it.

Mild answers that a classifier scores alike are labelled half as one and half as the other. Then
no score is evidence, and what the shipped calibration claims about them has to shrink.
"""

from __future__ import annotations

import json
import math
import random
import shutil
from dataclasses import asdict
from itertools import product
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree as ET

import numpy as np
import pytest
from typer.testing import CliRunner

from guard import Guard, labelled, refit
from guard.calibration import Confusion
from guard.cli import app
from guard.detectors.model_directory import read, verify_hashes
from guard.detectors.pooling import Scored
from guard.errors import ModelError
from guard.labelled import Labelled, LabelledRow
from guard.live import LiveRisk, LiveSettings
from guard.live.operating import Operating
from guard.live.watch import choose
from guard.loading import BUNDLED_MODEL
from guard.policy import load_class
from guard.sealing import seal

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from numpy.typing import NDArray
    from typer.testing import Result

    Floats = NDArray[np.float64]
    Made = Callable[..., refit.Change]

WHO = ("My aunt", "The baker", "Our neighbour", "The night porter", "A friend")
DID = ("waters the basil", "repairs the bell", "counts the crates", "bakes rye bread")
WHEN = ("on Sundays.", "before dawn.", "when it rains.")
TEXTS = [" ".join(parts) for parts in product(WHO, DID, WHEN)]
RUDE = [
    " ".join(parts)
    for parts in product(
        ("You are", "Your whole team is", "People like you are", "You, Tom, are"),
        ("a worthless idiot", "a pathetic liar", "a stupid pig", "disgusting trash", "a coward"),
        ("and everybody hates you.", "so shut up.", "and I will make you cry."),
    )
]
REASON = "harassment: live risk 0.62 reached 0.35 (excise)"


def rows() -> list[dict[str, Any]]:
    """Return sixty rows: one category half and half, one with too few of a side."""
    return [
        {
            "prompt": "What happens here?",
            "response": text,
            "labels": {"harassment": number % 2, "violence": int(number < 3)},
        }
        for number, text in enumerate(TEXTS)
    ]


def write(path: Path, lines: list[dict[str, Any]]) -> Path:
    """Write JSON lines."""
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), "utf-8")
    return path


def run(*arguments: object) -> Result:
    """Run `guard calibrate` with the given arguments."""
    return CliRunner().invoke(app, ["calibrate", *map(str, arguments)])


def report(*arguments: object) -> dict[str, Any]:
    """Return the report of a run that must succeed."""
    result = run(*arguments, "--json")
    assert result.exit_code == 0, result.output
    found: dict[str, Any] = json.loads(result.stdout)
    return found


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any], Path]:
    """Return a recalibrated model, the report and the plot."""
    folder = tmp_path_factory.mktemp("calibrated")
    labels = write(folder / "rows.jsonl", rows())
    out, plot = folder / "mine", folder / "plot.svg"
    return out, report("--labels", labels, "--out", out, "--plot", plot), plot


class TestCategoriesWithoutALabel:
    """Rows that name what the model does not score."""

    def test_they_are_named(self, tmp_path: Path) -> None:
        """The report says which were left out, and spells every category."""
        given = [row | {"labels": row["labels"] | {"pii_leak": 0}} for row in rows()[:4]]
        line = ["--labels", write(tmp_path / "rows.jsonl", given), "--dry-run"]
        assert report(*line)["unscored"] == ["pii_leak"]
        said = run(*line).output
        assert "left out: pii_leak" in said
        assert "harassment" in said

    def test_nothing_else_is_an_error(self, tmp_path: Path) -> None:
        """No model is written that would be a copy with another version."""
        given = [row | {"labels": {"pii_leak": 0}} for row in rows()[:4]]
        labels = write(tmp_path / "rows.jsonl", given)
        result = run("--labels", labels, "--out", tmp_path / "out")
        assert result.exit_code == 2
        assert "the rows label pii_leak" in " ".join(result.output.split())
        assert not (tmp_path / "out").exists()


class TestNewModel:
    """The directory that is written."""

    def test_it_is_sealed_and_loads(self, made: tuple[Path, dict[str, Any], Path]) -> None:
        """Hashes hold, the version tells it apart, and a guard judges."""
        out, told, _ = made
        assert verify_hashes(out) == []
        version = read(out, None, verify=True).version
        assert version == told["version"]
        assert version.startswith(f"{read(BUNDLED_MODEL, None, verify=True).version}+cal.")
        assert Guard.load("research", model=out, journal=None).check(TEXTS[0]).coverage.complete

    def test_only_what_was_refitted_changes(self, made: tuple[Path, dict[str, Any], Path]) -> None:
        """Every other label's calibration is the shipped one."""
        old = json.loads((BUNDLED_MODEL / "calibration.json").read_text("utf-8"))["labels"]
        new = json.loads((made[0] / "calibration.json").read_text("utf-8"))["labels"]
        assert {name for name in old if old[name] != new[name]} == {"harassment"}

    def test_figures_stand_beside_it(self, made: tuple[Path, dict[str, Any], Path]) -> None:
        """Error, reliability and confusion are those of the given rows."""
        heads = {head.category: head for head in read(made[0], None, verify=True).heads}
        calibration = heads["harassment"].calibration
        assert calibration.ece is not None
        assert calibration.reliability
        for each in calibration.confusion:
            assert each.true_positives + each.false_negatives == 30
            assert each.true_negatives + each.false_positives == 30

    def test_the_card_says_so(self, made: tuple[Path, dict[str, Any], Path]) -> None:
        """The card has a section, the manifest names rows and categories."""
        assert "## Calibrated again" in (made[0] / "README.md").read_text("utf-8")
        manifest = json.loads((made[0] / "manifest.json").read_text("utf-8"))
        assert manifest["calibrated"]["categories"] == ["harassment"]
        assert manifest["calibrated"]["rows"] == 60

    def test_the_bundled_model_is_untouched(self, made: tuple[Path, dict[str, Any], Path]) -> None:
        """Files are copies, not links."""
        for graph in ("onnx/model_quantized.onnx", "onnx/model_quantized.onnx.data"):
            assert not (made[0] / graph).is_symlink()
            assert (made[0] / graph).stat().st_ino != (BUNDLED_MODEL / graph).stat().st_ino
        assert verify_hashes(BUNDLED_MODEL) == []


class TestOtherModels:
    """Directories that were not made here."""

    @pytest.fixture
    def model(self, tmp_path: Path) -> Callable[..., Path]:
        """Return a function that seals a copy of the bundled model with another calibration."""

        def make(calibration: object) -> Path:
            path = shutil.copytree(BUNDLED_MODEL, tmp_path / "model")
            (path / "calibration.json").write_text(json.dumps(calibration), "utf-8")
            (path / "README.md").write_bytes("Für uns.\n".encode("latin-1"))
            seal(path, {"version": "1", "experimental": None})
            return path

        return make

    def test_no_label_is_calibrated(self, model: Callable[..., Path], tmp_path: Path) -> None:
        """`null` is no calibration, and a card in another encoding is kept as it is."""
        path, out = model({"labels": None}), tmp_path / "mine"
        given = labelled.read(write(tmp_path / "rows.jsonl", rows()[:4]))
        changes = refit.refit(path, given, refit.Settings(load_class("public")))
        assert {change.kept for change in changes} == {"fewer than 20 rows of either side"}
        refit.write(path, out, given, changes)
        assert (out / "README.md").read_bytes().startswith("Für uns.\n".encode("latin-1"))
        assert verify_hashes(out) == []
        assert read(out, None, verify=True).experimental == {}

    @pytest.mark.parametrize("count", ["many", -1, 1.5, None, True])
    def test_counts_that_are_none(
        self, count: object, model: Callable[..., Path], tmp_path: Path
    ) -> None:
        """What only a fit reads is checked before it is used."""
        entry = {"slope": 1.0, "intercept": 0.0, "maximum": 4.0, "negatives": count}
        given = labelled.read(write(tmp_path / "rows.jsonl", rows()[:1]))
        with pytest.raises(ModelError, match="`harassment`: `negatives` must be a whole number"):
            refit.refit(
                model({"labels": {"harassment": entry}}),
                given,
                refit.Settings(load_class("public")),
            )


class TestReport:
    """What is said."""

    def test_claims_without_ground_shrink(self, made: tuple[Path, dict[str, Any], Path]) -> None:
        """The error falls on rows that were held out, and the slope with it."""
        told = made[1]["categories"]["harassment"]
        before, after = told["ece"]
        assert after < before
        assert told["slope"][0] > told["slope"][1] > 0
        assert told["kept"] is None
        assert (told["positives"], told["negatives"]) == (30, 30)

    def test_few_rows_are_left_alone(self, made: tuple[Path, dict[str, Any], Path]) -> None:
        """A category with fewer rows than demanded keeps its calibration, and it is said."""
        told = made[1]["categories"]["violence"]
        assert "fewer than 20 rows" in told["kept"]
        assert told["slope"][0] == told["slope"][1]
        assert told["ece"] == [None, None]

    def test_the_plot_is_a_picture(self, made: tuple[Path, dict[str, Any], Path]) -> None:
        """The SVG has a panel for the category that could be measured."""
        text = made[2].read_text("utf-8")
        ET.fromstring(text)
        assert "harassment" in text
        assert "violence" not in text

    def test_in_words(self, tmp_path: Path) -> None:
        """The table names both categories, and a dry run says that it wrote nothing."""
        labels = write(tmp_path / "rows.jsonl", rows())
        result = run("--labels", labels, "--out", tmp_path / "mine", "--dry-run", "--fewest", 35)
        assert result.exit_code == 0, result.output
        assert "60 labelled rows" in result.stdout
        assert "Nothing was written" in result.stdout
        assert "change their verdict under public" in result.stdout
        assert not (tmp_path / "mine").exists()

    def test_the_order_of_rows_does_not_matter(
        self, made: tuple[Path, dict[str, Any], Path], tmp_path: Path
    ) -> None:
        """Shuffled rows give the same version and the same line."""
        lines = rows()
        random.Random(5).shuffle(lines)
        told = report("--labels", write(tmp_path / "rows.jsonl", lines), "--dry-run")
        assert told["version"] == made[1]["version"]
        for name in ("slope", "intercept", "ece"):
            expected = made[1]["categories"]["harassment"][name]
            assert told["categories"]["harassment"][name] == pytest.approx(expected, abs=1e-4)

    def test_a_second_time(self, made: tuple[Path, dict[str, Any], Path], tmp_path: Path) -> None:
        """A recalibrated model can be calibrated again; its version has one suffix."""
        labels = write(tmp_path / "rows.jsonl", rows()[:50])
        told = report("--labels", labels, "--model", made[0], "--dry-run")
        assert told["version"].count("+cal.") == 1
        first = made[1]["categories"]["harassment"]
        assert told["categories"]["harassment"]["slope"][0] == pytest.approx(first["slope"][1])


class TestJournal:
    """Rows of a journal with a label."""

    def test_flags_that_were_wrong(self, tmp_path: Path) -> None:
        """Where most flags were wrong, evidence falls; hashed rows are counted."""
        lines: list[dict[str, Any]] = [
            {"response": text, "reasons": [REASON], "label": int(number % 3 == 0)}
            for number, text in enumerate(RUDE)
        ]
        lines.append({"response": "sha256:00", "reasons": [REASON], "label": 1})
        out = tmp_path / "mine"
        told = report("--labels", write(tmp_path / "rows.jsonl", lines), "--out", out)
        assert (told["journal"], told["textless"]) == (True, 1)
        category = told["categories"]["harassment"]
        assert (category["positives"], category["negatives"]) == (20, 40)
        # At the class's prior, their evidence said that two thirds of them were right.
        assert category["kept"] is None
        assert category["slope"][0] == category["slope"][1]
        assert category["intercept"][0] - 2.5 < category["intercept"][1]
        assert category["intercept"][1] < category["intercept"][0] - 0.5
        heads = {head.category: head for head in read(out, None, verify=True).heads}
        assert heads["harassment"].calibration.reliability == ()

    def test_ordinary_answers_are_no_flags(self, tmp_path: Path) -> None:
        """Rows that no class flagged, with every third right, would make all answers suspicious."""
        lines = [
            {"response": text, "reasons": [REASON], "label": int(number % 3 == 0)}
            for number, text in enumerate(TEXTS)
        ]
        told = report("--labels", write(tmp_path / "rows.jsonl", lines), "--dry-run")
        category = told["categories"]["harassment"]
        assert "raise the class's prior" in category["kept"]
        assert category["intercept"][0] == category["intercept"][1]


WATCHED = "bad_advice"


def likely(evidence: Floats, rise: float = 0.0) -> Floats:
    """Return the share of risky answers at evidence that should have been higher by `rise`."""
    return np.asarray(1 / (1 + np.exp(-(evidence + rise) + math.log(0.98 / 0.02))), np.float64)


@pytest.fixture(name="refitted")
def _refitted(monkeypatch: pytest.MonkeyPatch) -> Made:
    """Return a function that refits one category to rows of the given shipped evidence."""
    heads = {head.category: head for head in read(BUNDLED_MODEL, None, verify=False).heads}
    head, width = heads[WATCHED], max(each.index for each in heads.values()) + 1

    def logits(_: object, row: LabelledRow) -> dict[str, Scored]:
        scores = np.zeros((1, width))
        line = head.calibration
        scores[0, head.index] = (float(row.response) - line.intercept) / line.slope
        return {"response": Scored(scores)}

    monkeypatch.setattr(refit, "_logits", logits)
    monkeypatch.setattr(refit, "Classifier", lambda _: None)

    def make(
        evidence: Floats,
        truth: NDArray[np.bool_],
        *,
        journal: bool,
        copies: int = 1,
        model: Path = BUNDLED_MODEL,
    ) -> refit.Change:
        rows = tuple(
            LabelledRow("", repr(float(e)), {WATCHED: bool(t)})
            for e, t in zip(evidence, truth, strict=True)
        )
        given = Labelled(rows * copies, journal, 0)
        (change,) = refit.refit(model, given, refit.Settings(load_class("public")))
        return change

    return make


class TestFlagged:
    """What flagged rows can teach, and what they cannot."""

    @pytest.mark.parametrize("share", [0.6, 0.85])
    def test_a_slope_is_not_drawn_out_to_what_was_not_flagged(
        self, refitted: Made, share: float
    ) -> None:
        """Flags that are right alike at every score leave ordinary answers ordinary."""
        rng = np.random.default_rng(0)
        evidence = rng.uniform(3, 8, 400)
        change = refitted(evidence, rng.random(400) < share, journal=True)
        assert change.kept == ""
        assert change.new.slope == change.old.slope
        rise = change.new.intercept - change.old.intercept
        assert rise <= refit.MOST_RISE
        live = LiveRisk(LiveSettings(), {WATCHED: 0.02}, confusion={})
        for clean in rng.normal(-6, 1.5, 1000):
            live.observe({WATCHED: float(clean) + rise})
        assert live.priors()[WATCHED] < 0.02

    @pytest.mark.parametrize("rise", [-1.5, 0.7])
    def test_an_offset_is_found(self, refitted: Made, rise: float) -> None:
        """Evidence that is too high or too low by as much everywhere is mended."""
        rng = np.random.default_rng(1)
        evidence = rng.uniform(3, 8, 2000)
        truth = rng.random(2000) < likely(evidence, rise)
        change = refitted(evidence, truth, journal=True)
        assert change.kept == ""
        assert change.new.intercept - change.old.intercept == pytest.approx(rise, abs=0.2)

    def test_a_rise_of_everything_is_refused(self, refitted: Made) -> None:
        """Ordinary answers would rise with it, and the reason says what to do."""
        rng = np.random.default_rng(2)
        evidence = rng.uniform(3, 8, 900)
        truth = rng.random(900) < likely(evidence, 2.2)
        change = refitted(evidence, truth, journal=True)
        assert "raise the class's prior" in change.kept
        assert change.new == change.old
        assert change.after is not None

    def test_the_alarm_can_be_raised(self, refitted: Made, tmp_path: Path) -> None:
        """A limit that moves beyond the bound would be chosen for its counts, and never reached."""
        path = shutil.copytree(BUNDLED_MODEL, tmp_path / "model")
        content = json.loads((path / "calibration.json").read_text("utf-8"))
        quiet = Confusion(7.5, 700, 0, 3839, 68)
        content["labels"][WATCHED]["confusion"].append(asdict(quiet))
        (path / "calibration.json").write_text(json.dumps(content), "utf-8")
        seal(path, {"version": "1", "experimental": None})
        rng = np.random.default_rng(3)
        evidence = rng.uniform(3, 8, 2000)
        truth = rng.random(2000) < likely(evidence, 0.8)

        change = refitted(evidence, truth, journal=True, model=path)

        assert change.kept == ""
        assert len(change.entry["confusion"]) == len(content["labels"][WATCHED]["confusion"]) - 1
        known = [Operating.of(Confusion(**each)) for each in change.entry["confusion"]]
        chosen = choose(known, LiveSettings())
        assert chosen is not None
        live = LiveRisk(LiveSettings(), {WATCHED: 0.02}, confusion={WATCHED: chosen})
        for _ in range(100):
            live.observe({WATCHED: change.entry["maximum"]})
        assert WATCHED in live.alarms


class TestCopies:
    """A copy of a row is no second observation."""

    @pytest.mark.parametrize("journal", [True, False])
    def test_they_change_nothing(self, refitted: Made, *, journal: bool) -> None:
        """Ten of each give what one of each gives."""
        rng = np.random.default_rng(4)
        truth = np.arange(60) % 2 == 0
        evidence = rng.uniform(3, 8, 60) if journal else np.where(truth, 1.0, -6.0)
        evidence = evidence + rng.normal(size=60)
        once = refitted(evidence, truth, journal=journal)
        often = refitted(evidence, truth, journal=journal, copies=10)
        assert once.kept == ""
        assert often == once

    def test_they_do_not_make_rows_many(self, refitted: Made) -> None:
        """Ten texts of either side are fewer than twenty, however often they are given."""
        truth = np.arange(20) % 2 == 0
        change = refitted(np.linspace(-3, 3, 20), truth, journal=False, copies=10)
        assert change.kept == "fewer than 20 rows of either side"
        assert (change.positives, change.negatives) == (10, 10)

    def test_evidence_that_is_right_is_rarely_refitted(self, refitted: Made) -> None:
        """Noise on rows that were left out is no reason to move."""
        accepted = 0
        for seed in range(12):
            truth = np.arange(40) % 2 == 0
            mean = np.where(truth, 3.125, -3.125)
            evidence = mean + 2.5 * np.random.default_rng(seed).standard_normal(40)
            accepted += not refitted(evidence, truth, journal=False, copies=10).kept
        assert accepted <= 3


class TestFailure:
    """What cannot be done is said, and nothing is left behind."""

    def test_a_directory_that_is_there(self, tmp_path: Path) -> None:
        """Nothing is overwritten."""
        (tmp_path / "mine").mkdir()
        labels = write(tmp_path / "rows.jsonl", rows())
        result = run("--labels", labels, "--out", tmp_path / "mine")
        assert (result.exit_code, "is there already" in result.stderr) == (2, True)

    def test_a_plot_over_the_rows(self, tmp_path: Path) -> None:
        """The rows are not overwritten by their own picture."""
        labels = write(tmp_path / "rows.jsonl", rows())
        before = labels.read_bytes()
        result = run("--labels", labels, "--plot", labels, "--dry-run")
        assert (result.exit_code, "give another `--plot`" in result.stderr) == (2, True)
        assert labels.read_bytes() == before

    def test_wrong_rows(self, tmp_path: Path) -> None:
        """Lines are named."""
        labels = write(tmp_path / "rows.jsonl", [{"response": "x", "labels": {"violense": 1}}])
        result = run("--labels", labels, "--dry-run")
        assert (result.exit_code, "rows.jsonl:1" in result.stderr) == (2, True)

    def test_a_model_that_is_not_there(self, tmp_path: Path) -> None:
        """The directory is named."""
        labels = write(tmp_path / "rows.jsonl", rows())
        result = run("--labels", labels, "--model", tmp_path / "none", "--dry-run")
        assert (result.exit_code, "no model directory" in result.stderr) == (2, True)

    def test_help_teaches(self) -> None:
        """Help says what a row looks like and how journal rows are labelled."""
        text = " ".join(run("--help").stdout.split())
        for part in ("labels", "guard flagged export", "--dry-run", "shipped"):
            assert part in text
