"""`guard classes`: the table, one class in detail, JSON, the schema and the check."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
import typer
from typer.testing import CliRunner

from guard.assess import live_risk, log_odds
from guard.cli.classes import classes, rows
from guard.policy import BUILTIN, builtin_classes, load_class, schema_text

if TYPE_CHECKING:
    from pathlib import Path

    from typer.testing import Result

APP = typer.Typer()
APP.command()(classes)

TWO = """\
version: 1
classes:
  - name: first
    rank: 1
    description: "Own \\e[31mred\\e[0m words."
    limits:
      violence: {flag: 0.0, act: 1.0, remedy: replace}
      bad_advice: {flag: 0.5}
    messages:
      en: {blocked: "No.", replaced: "Else."}
  - name: second
    rank: 2
    shadow: true
    on_failure: flag
    limits:
      secret_leak: {act: 0.5, remedy: redact}
    messages:
      en: {blocked: "No.", replaced: "Else."}
"""


def run(*arguments: object, width: int = 120) -> Result:
    """Run the command in a terminal of `width` columns."""
    return CliRunner().invoke(APP, [*map(str, arguments)], env={"COLUMNS": str(width)})


def cells(line: str) -> list[str]:
    """Return the cells of a table's line."""
    return [cell.strip() for cell in line.strip("│┃").replace("┃", "│").split("│")]


def table(result: Result) -> dict[str, list[str]]:
    """Return a table's lines by their first cell."""
    lines = [cells(line) for line in result.stdout.splitlines() if line.startswith("│")]
    return {line[0]: line[1:] for line in lines}


@pytest.fixture
def two(tmp_path: Path) -> Path:
    """Return a policy file of two classes."""
    path = tmp_path / "two.yaml"
    path.write_text(TWO, "utf-8")
    return path


class TestTable:
    """All classes at a glance."""

    def test_the_built_in_classes_by_rank(self) -> None:
        """Each class is a line: rank, name, what it is for, what a failure does, shadow."""
        result = run(width=200)
        assert result.exit_code == 0
        expected = {
            str(item.rank): [item.name, item.description, "block", "no"]
            for item in builtin_classes()
        }
        assert table(result) == expected

    def test_a_file_of_several_classes(self, two: Path) -> None:
        """A file's classes are shown like the built-in ones."""
        assert table(run(two)) == {
            "1": ["first", r"Own \x1b[31mred\x1b[0m words.", "block", "no"],
            "2": ["second", "", "flag", "yes"],
        }

    def test_several_names(self) -> None:
        """Classes can be put side by side by naming them."""
        assert [line[0] for line in table(run("research", "critical", width=200)).values()] == [
            "research",
            "critical",
        ]

    @pytest.mark.parametrize("width", [40, 80])
    def test_narrow_terminals(self, width: int) -> None:
        """In a narrow terminal no line is wider than it."""
        lines = run("public", width=width).stdout.splitlines()
        assert max(map(len, lines)) <= width


class TestDetail:
    """One class."""

    def test_every_limit_is_a_line(self) -> None:
        """Prior, limits, likelihood ratios and remedy of each category are shown."""
        shown = table(run("public"))
        own = load_class("public")
        assert set(shown) == set(own.limits)
        # Odds of 1 : 49 must become those of the limit.
        harm, code = own.limits["harmful_compliance"], own.limits["insecure_code"]
        assert harm.flag is not None
        assert harm.act is not None
        assert code.flag is not None
        flag, act = (49 * risk / (1 - risk) for risk in (harm.flag, harm.act))
        assert shown["harmful_compliance"] == [
            *("0.02", f"{harm.flag:g}", f"{flag:.2g}" if flag < 10 else f"{flag:.0f}"),
            *(f"{harm.act:g}", f"{act:.0f}", "block"),
        ]
        ratio = 49 * code.flag / (1 - code.flag)
        assert shown["insecure_code"] == ["0.02", f"{code.flag:g}", f"{ratio:.0f}", "-", "-", "-"]

    def test_limits_at_the_edges(self, two: Path) -> None:
        """A limit of 0 needs no evidence, and no evidence reaches 1."""
        shown = table(run(f"{two}#first"))
        assert shown["violence"] == ["0.02", "0", "0", "1", "-", "replace"]

    def test_what_else_the_class_says(self, two: Path) -> None:
        """Failure, shadow, time, journal and languages are shown, and foreign text is harmless."""
        result = run(f"{two}#second")
        assert "second, rank 2" in result.stdout
        assert "on failure: flag; shadow: yes" in result.stdout
        assert "journal: flag, rewrite, block (redacted)" in result.stdout
        assert "messages: en (en by default)" in result.stdout
        assert "\x1b[31m" not in run(f"{two}#first").stdout

    @pytest.mark.parametrize("name", ["research", "public", "critical"])
    def test_ratios_reach_their_limits(self, name: str) -> None:
        """Evidence of the ratio shown lifts the prior exactly to the limit."""
        own = load_class(name)
        for row in rows(own):
            for limit, ratio in ((row.flag, row.flag_ratio), (row.act, row.act_ratio)):
                if limit is not None and ratio is not None:
                    evidence = log_odds(ratio / (1 + ratio))
                    assert live_risk(evidence, row.prior) == pytest.approx(limit, rel=1e-9)


class TestJson:
    """For programs."""

    def test_all_classes(self) -> None:
        """Each class is an object with its settings and categories."""
        found: list[dict[str, Any]] = json.loads(run("--json").stdout)
        assert [item["name"] for item in found] == [item.name for item in builtin_classes()]
        first = found[2]["categories"][0]
        limit = load_class("public").limits["harmful_compliance"]
        assert limit.flag is not None
        assert limit.act is not None
        assert first == {
            "category": "harmful_compliance",
            "prior": 0.02,
            "flag": limit.flag,
            "flag_ratio": pytest.approx(49 * limit.flag / (1 - limit.flag)),
            "act": limit.act,
            "act_ratio": pytest.approx(49 * limit.act / (1 - limit.act)),
            "remedy": "block",
        }
        assert found[2]["messages"]["en"]["blocked"]

    def test_one_class_is_a_list_too(self, two: Path) -> None:
        """The shape does not depend on how many there are, and what never happens is null."""
        (found,) = json.loads(run("--json", f"{two}#first").stdout)
        assert found["categories"][1]["category"] == "bad_advice"
        assert found["categories"][1]["act_ratio"] is None
        assert found["categories"][1]["remedy"] is None
        assert found["categories"][0]["act_ratio"] is None

    def test_the_schema(self) -> None:
        """`--schema` prints the published file, byte by byte."""
        result = run("--schema")
        assert result.stdout == schema_text()
        assert result.exit_code == 0


class TestProblems:
    """Names and files that are wrong."""

    def test_an_unknown_name(self) -> None:
        """A slip is named with the class that was meant, and the exit code is 2."""
        result = run("pubilc")
        assert result.exit_code == 2
        assert "no security class `pubilc` (did you mean `public`?)" in result.stderr
        assert not result.stdout

    def test_all_sources_are_looked_at(self, tmp_path: Path) -> None:
        """Two wrong sources are both named, and nothing is shown."""
        result = run("public", "nope", tmp_path / "none.yaml")
        assert result.exit_code == 2
        assert "`nope`" in result.stderr
        assert "none.yaml:1: cannot be read" in result.stderr
        assert not result.stdout


class TestCheck:
    """Only checking."""

    def test_good_files(self, two: Path) -> None:
        """Each good file is named with its classes, and the exit code is 0."""
        result = run("--check", two, BUILTIN / "public.yaml", "internal")
        assert result.exit_code == 0
        assert f"{two}: fine (first, second)" in result.stdout.replace("\n", "")
        assert "internal: fine (internal)" in result.stdout

    def test_every_problem_of_every_file(self, two: Path, tmp_path: Path) -> None:
        """Bad files have all their problems printed, good ones are still named, the code is 2."""
        bad = tmp_path / "bad.yaml"
        bad.write_text(TWO.replace("rank: 1", "rank: x").replace("0.5", "5"), "utf-8")
        result = run("--check", bad, two, tmp_path / "none.yaml")
        assert result.exit_code == 2
        assert [line.split("`")[0].removeprefix(str(tmp_path)) for line in _lines(result)] == [
            "/bad.yaml:4: ",
            "/bad.yaml:8: ",
            "/bad.yaml:16: ",
            "/none.yaml:1: cannot be read: No such file or directory",
        ]
        assert "fine (first, second)" in result.stdout.replace("\n", "")

    def test_own_categories(self, two: Path) -> None:
        """Categories of own detectors can be named; others are refused."""
        two.write_text(TWO.replace("bad_advice", "brand_voice"), "utf-8")
        assert run("--check", two).exit_code == 2
        assert run("--check", two, "--category", "brand_voice").exit_code == 0
        assert "brand_voice" in table(run(f"{two}#first", "--category", "brand_voice"))

    def test_nothing_to_check(self) -> None:
        """A check of nothing is a mistake."""
        result = run("--check")
        assert result.exit_code == 2
        assert "name the policy files" in result.stderr


def _lines(result: Result) -> list[str]:
    return [line for line in result.stderr.splitlines() if line]
