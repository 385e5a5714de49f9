"""`guard model fit`: from examples to a verdict on text that nobody has labelled."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from guard import Guard
from guard.assess import live_risk
from guard.cli import app
from guard.cli.fit import _limit, _show
from guard.fitting.examples import Examples
from guard.heads import MAXIMUM_EVIDENCE, BelongsTo, HeadCalibration, OwnHead, read

if TYPE_CHECKING:
    from typer.testing import Result

EXAMPLES = Path(__file__).parent.parent / "data" / "competitor_pricing.jsonl"

POLICY = """\
version: 1
classes:
  - name: shop
    rank: 2
    heads: [competitor_pricing.json]
    limits:
      competitor_pricing: {{flag: {flag}, act: {act}, remedy: replace}}
    messages:
      en: {{blocked: "No.", replaced: "Let me tell you about our own prices."}}
"""

OF_IT = (
    "Fernway is at 22 a seat and we are at 14, so the choice is easy on price.",
    "The other provider charges 60 for setup, and their monthly fee is higher than ours, too.",
    "Compared with what Oakline asks for its yearly plan you would save about 90 euros with us.",
)
NOT_OF_IT = (
    "You can change the name of a board under settings, and everybody in the team will see it.",
    "Water the basil from below and turn the pot a little every morning.",
    "The meeting was moved to Thursday at ten; the notes of the last one are in the folder.",
)


def head_of(maximum: float) -> OwnHead:
    """Return a head whose evidence is at most `maximum`."""
    return OwnHead(
        category="own_talk",
        model=BelongsTo(name="tiny", version="1", digest="d"),
        weights=(1.0,),
        intercept=0.0,
        calibration=HeadCalibration(slope=1.0, intercept=0.0, minimum=-1.0, maximum=maximum),
    )


def run(*arguments: str) -> Result:
    """Run `guard model fit` with the given arguments."""
    return CliRunner().invoke(app, ["model", "fit", *arguments])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a head of the bundled model, and the report of its fit."""
    path = tmp_path_factory.mktemp("shop")
    out = path / "competitor_pricing.json"
    result = run(
        *("--category", "competitor_pricing", "--examples", str(EXAMPLES)),
        *("--out", str(out), "--json"),
    )
    assert result.exit_code == 0, result.output
    (path / "report.json").write_text(result.stdout, "utf-8")
    limit = json.loads(result.stdout)["limit"]
    (path / "policy.yaml").write_text(POLICY.format(**limit), "utf-8")
    return path


class TestFit:
    """From a file to a head."""

    def test_the_report(self, folder: Path) -> None:
        """Counts, figures, bounds and limits to begin with are in the JSON."""
        report = json.loads((folder / "report.json").read_text("utf-8"))
        assert report["category"] == "competitor_pricing"
        assert (report["figures"]["positives"], report["figures"]["negatives"]) == (22, 20)
        assert report["figures"]["auroc_own"]["value"] > 0.7
        assert 0 < report["limit"]["flag"] < report["limit"]["act"] < 1
        assert report["evidence"][0] < 0 < report["evidence"][1]

    def test_the_head_holds_no_text(self, folder: Path) -> None:
        """None of the examples can be read from the file."""
        content = (folder / "competitor_pricing.json").read_text("utf-8")
        rows = [json.loads(line) for line in EXAMPLES.read_text("utf-8").splitlines()]
        assert not any(row["text"][:20] in content for row in rows)
        assert read(folder / "competitor_pricing.json").category == "competitor_pricing"

    def test_unseen_text(self, folder: Path) -> None:
        """A policy that names the head replaces most talk of rivals' prices and no other."""
        guard = Guard.load(folder / "policy.yaml", journal=None)
        risky = [guard.check(text) for text in OF_IT]
        fine = [guard.check(text) for text in NOT_OF_IT]
        assert all("competitor_pricing" in verdict.risks for verdict in (*risky, *fine))
        highest = max(verdict.risks["competitor_pricing"] for verdict in fine)
        # Twenty-two examples do not teach every way to say it: one in three may be missed.
        assert sum(verdict.risks["competitor_pricing"] > highest for verdict in risky) >= 2
        assert {verdict.action for verdict in fine} == {"allow"}
        acted = next(verdict for verdict in risky if verdict.action == "rewrite")
        assert acted.text == "Let me tell you about our own prices."
        assert acted.reasons[0].startswith("competitor_pricing: live risk ")

    def test_a_stream_agrees(self, folder: Path) -> None:
        """Streamed in small pieces, the same text gets the same findings."""
        guard = Guard.load(folder / "policy.yaml", journal=None)
        text = f"{NOT_OF_IT[0]} {OF_IT[0]} {NOT_OF_IT[1]}"
        stream = guard.stream(text[n : n + 7] for n in range(0, len(text), 7))
        delivered = "".join(stream)
        whole = guard.check(text)
        assert stream.verdict.risks == whole.risks
        assert delivered == whole.streamed

    def test_the_journal_has_it(self, folder: Path, tmp_path: Path) -> None:
        """A row names the category, and the head in the detector's version."""
        guard = Guard.load(folder / "policy.yaml", journal=tmp_path / "journal.sqlite3")
        for text in OF_IT:
            guard.check(text)
        journal = guard.journal
        assert journal is not None
        row = next(iter(journal.list(category="competitor_pricing")))
        assert "competitor_pricing" in row.risks
        digest = read(folder / "competitor_pricing.json").digest
        assert f"competitor_pricing.{digest}" in row.detectors["clearance-minilm"]

    def test_the_command_line_knows_it(self, folder: Path) -> None:
        """`guard classes` shows and checks the class, `guard check` judges under it."""
        policy = str(folder / "policy.yaml")
        shown = CliRunner().invoke(app, ["classes", policy, "--json"])
        assert json.loads(shown.stdout)[0]["categories"][0]["category"] == "competitor_pricing"
        assert CliRunner().invoke(app, ["classes", "--check", policy]).exit_code == 0
        judged = CliRunner().invoke(app, ["check", "-c", policy, "-o", "jsonl"], input=OF_IT[0])
        assert "competitor_pricing" in json.loads(judged.stdout)["risks"]

    def test_for_people(self, tmp_path: Path) -> None:
        """Without `--json`: figures, advice, and what to write into the policy."""
        few = tmp_path / "few.jsonl"
        lines = EXAMPLES.read_text("utf-8").splitlines()
        few.write_text("\n".join([*lines[:6], *lines[-6:]]), "utf-8")
        out = tmp_path / "own.json"
        shown = run("--category", "own_talk", "--examples", str(few), "--out", str(out)).stdout
        assert "6 with label 1, 6 with label 0" in shown
        assert "6 different texts have label 1" in shown
        assert 'heads: ["own.json"]' in shown
        assert "own_talk: {flag: " in shown
        assert out.is_file()


class TestLimit:
    """The limits to begin with."""

    @given(maximum=st.floats(0, MAXIMUM_EVIDENCE))
    def test_ordinary_text_stays_below(self, maximum: float) -> None:
        """Text without evidence is never acted on or flagged, and the limits can be reached."""
        limit = _limit(head_of(maximum))
        neutral, highest = live_risk(0.0, 0.02), live_risk(maximum, 0.02)
        assert all(neutral < value <= highest for value in limit.values())
        assert set(limit) in (set(), {"flag"}, {"flag", "act"})
        assert limit.get("flag", 0.0) <= limit.get("act", 1.0)

    @pytest.mark.parametrize(
        ("maximum", "names"),
        [(0.0, ()), (0.3, ()), (0.6, ("flag",)), (0.9, ("flag",)), (1.5, ("flag", "act"))],
    )
    def test_weak_evidence_is_not_acted_on(self, maximum: float, names: tuple[str, ...]) -> None:
        """Where there is no room for it there is no `act`, or no limit."""
        assert tuple(_limit(head_of(maximum))) == names

    @pytest.mark.parametrize(("maximum", "printed"), [(0.0, 0), (0.6, 1)])
    def test_it_is_said(
        self, maximum: float, printed: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """The reason is printed, and of the policy no more than there is."""
        figures = {"positives": 6, "negatives": 6, "benign": 0}
        head = head_of(maximum).model_copy(update={"figures": figures})
        _show(head, tmp_path / "own.json", Examples(()))
        shown = capsys.readouterr().out
        assert "at most: too weak to act on. Add examples." in shown
        assert shown.count("own_talk: {flag: 0.03}") == printed
        assert "act:" not in shown


class TestOverwriting:
    """Files that are there."""

    @pytest.mark.parametrize("force", [(), ("--force",)])
    def test_the_examples_are_never_overwritten(
        self, force: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A file of examples that is called as the head would be stays as it is."""
        monkeypatch.chdir(tmp_path)
        path = tmp_path / "own_talk.json"
        path.write_bytes(EXAMPLES.read_bytes())
        result = run("--category", "own_talk", "--examples", str(path), *force)
        assert (result.exit_code, "`--out`" in result.stderr) == (2, True)
        assert path.read_bytes() == EXAMPLES.read_bytes()

    def test_a_file_that_is_there(self, tmp_path: Path) -> None:
        """It is refused before the examples are read, and overwritten where that is asked for."""
        few, out = tmp_path / "few.jsonl", tmp_path / "own.json"
        out.write_text("mine", "utf-8")
        arguments = ("--category", "own_talk", "--examples", str(few), "--out", str(out))
        refused = run(*arguments)
        assert (refused.exit_code, "`--force`" in refused.stderr) == (2, True)
        assert out.read_text("utf-8") == "mine"
        lines = EXAMPLES.read_text("utf-8").splitlines()
        few.write_text("\n".join([*lines[:6], *lines[-6:]]), "utf-8")
        assert run(*arguments, "--force").exit_code == 0
        assert read(out).category == "own_talk"


class TestProblems:
    """What is wrong with a call."""

    def test_a_name_that_is_taken(self, tmp_path: Path) -> None:
        """A category of the taxonomy is refused before anything is read."""
        result = run("--category", "sexual", "--examples", str(tmp_path / "missing.jsonl"))
        assert (result.exit_code, "is a category already" in result.stderr) == (2, True)

    def test_wrong_rows(self, tmp_path: Path) -> None:
        """Lines that cannot be used are named, and nothing is written."""
        rows = tmp_path / "rows.jsonl"
        rows.write_text('{"text": "a"}\n{"text": 1}\n', "utf-8")
        out = tmp_path / "own.json"
        result = run("--category", "own", "--examples", str(rows), "--out", str(out))
        assert (result.exit_code, out.exists()) == (2, False)
        assert "rows.jsonl:2: `text` and `response` must be text" in result.stderr.replace("\n", "")

    def test_too_few_rows(self, tmp_path: Path) -> None:
        """A file with hardly any row says how many are needed."""
        rows = tmp_path / "rows.jsonl"
        rows.write_text('{"text": "They charge more."}\n', "utf-8")
        result = run("--category", "own", "--examples", str(rows))
        assert (result.exit_code, "give at least 5" in result.stderr) == (2, True)
