"""`guard flagged`: the journal on a terminal, in pipes and in files."""

from __future__ import annotations

import csv
import json
import os
import stat
import subprocess
import sys
import time
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from io import StringIO
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import typer
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import text
from typer.testing import CliRunner, Result

from guard.cli.flagged import app, moment
from guard.cli.screen import console, fail, one_line, plain
from guard.journal.store import Journal

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from guard.engine import Guard
    from guard.journal.record import Record

NOON = datetime(2025, 6, 1, 12, 0, 30, tzinfo=UTC)
# Clears the screen, sets its title, hides behind a link, goes back, reorders, and is markup.
EVIL = (
    "\x1b[2J\x1b]0;title\x07\x1b]8;;https://x.example\x1b\\link\x9b31m\rback\x08\x7f"
    "\u202edrow\u2066\u200b\U000e0041 [bold red]loud[/] [/nothing] :boom: \ud800 end"
)
ANY_TEXT = st.text(st.characters() | st.sampled_from(["\x1b", "\x9b", "\u202e", "\ud800", "\r"]))


def run(*arguments: object) -> Result:
    """Run `guard flagged` with the given arguments."""
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def found(*arguments: object) -> str:
    """Return the letters of the rows that `list --json` finds, in their order."""
    result = run("list", "--json", *arguments)
    assert result.exit_code == 0, result.output
    return "".join(json.loads(line)["id"][0] for line in result.stdout.splitlines())


def flat(output: str) -> str:
    """Return `output` on one line: tables and messages may be wrapped anywhere."""
    return " ".join(output.split())


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the path that `GUARD_JOURNAL` names; there is nothing there yet."""
    path = tmp_path / "kept" / "journal.sqlite3"
    monkeypatch.setenv("GUARD_JOURNAL", str(path))
    return path


@pytest.fixture
def wide() -> Iterator[None]:
    """Make the screen 200 columns wide."""
    before, console.width = console._width, 200
    yield
    console._width = before  # setting `width` would pin it for all tests to come


@pytest.fixture(scope="session")
def written(make_guard: Callable[..., Guard]) -> Record:
    """Return a row as a guard writes it."""
    with closing(Journal("sqlite://")) as journal:
        make_guard(journal=journal).check("One zblock word.", prompt="Say a word.")
        (record,) = journal.list()
        return record


@pytest.fixture
def keep(place: Path, written: Record) -> Iterator[Callable[..., Record]]:
    """Return a function that keeps a row like `written` with changes, each a minute older."""
    number = count()
    with closing(Journal(place)) as journal:

        def one(**changes: Any) -> Record:
            n = next(number)
            fresh: dict[str, Any] = {"id": f"{n:032x}", "created": NOON - timedelta(minutes=n)}
            record = replace(written, **(fresh | changes))
            journal.write(record)
            return record

        yield one


@pytest.fixture
def four(keep: Callable[..., Record]) -> None:
    """Keep four rows, a day apart, `d` the newest."""
    kinds = [
        ("a", "flag", "public", {"sexual": 0.4}),
        ("b", "block", "public", {"sexual": 0.6}),
        ("c", "rewrite", "critical", {"sexual": 0.8}),
        ("d", "block", "critical", {"violence": 0.9}),
    ]
    for days, (letter, action, security_class, risks) in enumerate(kinds):
        keep(
            id=letter * 32,
            created=NOON + timedelta(days=days),
            action=action,
            security_class=security_class,
            risks=risks,
        )


class TestPlain:
    """Untrusted text, fit for a terminal."""

    @given(ANY_TEXT)
    def test_nothing_steers_the_terminal(self, said: str) -> None:
        """What is left prints, breaks a line, is a tab, or joins letters; and can be encoded."""
        shown = plain(said)
        assert all(c.isprintable() or not c.isascii() or c in "\n\t" for c in shown)
        assert not set(shown) & {"\x1b", "\r", "\x08", "\x7f", "\x85", "\x9b", "\u202e", "\u2066"}
        shown.encode("utf-8")

    @given(ANY_TEXT)
    def test_it_is_done_once(self, said: str) -> None:
        """What is plain stays as it is."""
        assert plain(plain(said)) == plain(said)

    def test_ordinary_text_stays(self) -> None:
        """Languages, emoji with joiners, brackets, tabs and line breaks are not touched."""
        said = "Grüße, नमस्ते, می‌خواهم, 👩‍👩‍👧 [bold] \\x1b\n\tend"
        assert plain(said) == said
        assert plain("a\r\nb") == "a\nb"

    def test_what_is_hidden_shows(self) -> None:
        """A reader sees what stood there."""
        assert plain("a\x1b[1mb\u202ec\x00") == "a\\x1b[1mb\\u202ec\\x00"

    @given(ANY_TEXT, st.integers(2, 40))
    def test_one_line(self, said: str, width: int) -> None:
        """The beginning of a text stands on one line within its width, cut where it is longer."""
        line = one_line(said, width)
        assert len(line) <= width
        assert not set(line) & {"\n", "\t"}
        if not line.endswith("…"):
            assert line == plain(" ".join(said.split()))

    def test_fail(self, capsys: pytest.CaptureFixture[str]) -> None:
        """A failure is a plain message on standard error and exit code 2."""
        with pytest.raises(typer.Exit) as caught:
            fail("no [red]\x1b[2J such file")
        assert caught.value.exit_code == 2
        assert capsys.readouterr() == ("", "error: no [red]\\x1b[2J such file\n")


class TestList:
    """The table of rows."""

    @pytest.mark.usefixtures("wide")
    def test_what_a_row_shows(
        self, keep: Callable[..., Record], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Short id, local time, action, class, worst risk, delivered, model, response."""
        monkeypatch.setenv("TZ", "Asia/Kolkata")
        time.tzset()
        record = keep(
            risks={"violence": 0.61, "sexual": 0.874, "refusal": 0.99},
            model="some-model",
            response="First line\n\nsecond line " + "and on " * 20,
        )
        output = run("list").stdout
        monkeypatch.undo()
        time.tzset()
        header, line = output.splitlines()[:2]
        for name in ("id", "time", "action", "class", "worst risk", "delivered", "model"):
            assert name in header
        shown = flat(line)
        assert shown.startswith(f"{record.id[:8]} 2025-06-01 17:30 block test sexual 0.87 none ")
        assert "some-model First line second line and on" in shown
        assert record.id not in output

    def test_a_narrow_screen_shows_the_same(self, keep: Callable[..., Record]) -> None:
        """On 80 columns every fact of a row is there as well, ids and times whole."""
        record = keep(risks={"sexual": 0.874}, model="some-model", response="A short answer.")
        output = flat(run("list").stdout)
        assert f"{record.id[:8]} 2025-06-01" in output
        for fact in ("block", "test", "sexual 0.87", "none", "some-model", "A short answer."):
            assert fact in output

    @pytest.mark.usefixtures("four")
    @pytest.mark.parametrize(
        ("options", "expected"),
        [
            ([], "dcba"),
            (["--action", "block"], "db"),
            (["--class", "critical"], "dc"),
            (["--category", "sexual"], "cb"),
            (["--category", "sexual", "--minimum", "0.7"], "c"),
            (["--category", "sexual", "--minimum", "0"], "cba"),
            (["--since", "2025-06-02T12:00:30+00:00"], "dcb"),
            (["--until", "2025-06-02T14:00:30+02:00"], "a"),
            (["--since", "2025-06-02T00:00+00:00", "--until", "2025-06-04T00:00+00:00"], "cb"),
            (["--since", "1h"], ""),
            (["--until", "1h"], "dcba"),
            (["--limit", "2"], "dc"),
            (["--action", "block", "--class", "public", "--limit", "1"], "b"),
        ],
    )
    def test_filters(self, options: list[str], expected: str) -> None:
        """Each option keeps its rows, together all of them, the newest first."""
        assert found(*options) == expected

    @pytest.mark.usefixtures("four")
    def test_the_last_line_counts(self) -> None:
        """What was cut off by the limit is said, and how to see one row whole."""
        assert (
            "2 of 4 rows. One of them whole: guard flagged show ID"
            in run("list", "--limit", 2).output
        )
        assert "\n4 rows." in run("list").output
        assert "\n1 row." in run("list", "--action", "flag").output

    def test_json(self, keep: Callable[..., Record]) -> None:
        """JSON lines hold the whole rows and nothing else."""
        records = [keep(response=EVIL.replace("\ud800", "")), keep(prompt=None)]
        result = run("list", "--json")
        assert [json.loads(line) for line in result.stdout.splitlines()] == [
            record.to_dict() for record in records
        ]
        assert result.stdout.isascii()
        assert result.stderr == ""

    def test_no_risk_and_no_text(self, keep: Callable[..., Record]) -> None:
        """A row without risks or texts says so."""
        keep(risks={}, response=None, model="")
        output = flat(run("list").stdout)
        for word in ("(risks unknown)", "(not kept)", "(unknown model)"):
            assert word in output

    def test_open_and_shadow(self, keep: Callable[..., Record]) -> None:
        """A stream that has not ended and a class that only watches are marked."""
        keep(complete=False, shadow=True, delivered="full")
        output = flat(run("list").stdout)
        assert "full (open)" in output
        assert "test (shadow)" in output


class TestNothingToShow:
    """An empty journal and none at all."""

    @pytest.mark.parametrize("options", [[], ["--json"]])
    def test_no_journal(self, place: Path, options: list[str]) -> None:
        """`list` says where it looked, succeeds, and makes neither file nor folder."""
        result = run("list", *options)
        assert result.exit_code == 0
        message = result.stderr if options else result.stdout
        assert "Nothing has been flagged yet" in message
        assert str(place) in message
        assert not place.parent.exists()
        assert result.stdout == "" or not options

    def test_no_default_journal(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Without any setting the place named is the one in the user's state folder."""
        monkeypatch.delenv("GUARD_JOURNAL")
        monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
        result = run("list")
        assert result.exit_code == 0
        assert "journal.sqlite3" in result.stdout
        assert not (tmp_path / "state").exists()

    @pytest.mark.parametrize("command", [["show", "abcdef"], ["export"], ["export", "rows.csv"]])
    def test_other_commands_fail(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: list[str]
    ) -> None:
        """Where there is nothing to show or export, that is an error and nothing is made."""
        monkeypatch.chdir(tmp_path)
        result = run(*command)
        assert result.exit_code == 2
        assert result.stdout == ""
        assert "Nothing has been flagged yet" in result.stderr
        assert list(tmp_path.iterdir()) == []

    def test_an_empty_journal(self, place: Path) -> None:
        """A journal without rows is told apart from none."""
        Journal(place).close()
        assert f"The journal at {place} is empty" in run("list").stdout
        assert found() == ""

    @pytest.mark.usefixtures("four")
    def test_no_match(self) -> None:
        """Where filters leave nothing, the rows there are counted and a typing error is guessed."""
        assert "None of the 4 rows" in flat(run("list", "--class", "other").stdout)
        output = flat(run("list", "--category", "harrassment").stdout)
        assert "`harrassment` is no built-in category (did you mean `harassment`?)." in output
        assert "no built-in" not in run("list", "--category", "self_harm").stdout

    @pytest.mark.usefixtures("four")
    def test_a_part_of_a_name(self) -> None:
        """A word of one category's name means that one; of several, none is guessed."""
        output = flat(run("list", "--category", "hate").stdout)
        assert "`hate` is no built-in category (did you mean `hate_toxicity`?)." in output
        output = flat(run("list", "--category", "leak").stdout)
        assert "`leak` is no built-in category." in output

    def test_another_journal(self, tmp_path: Path, keep: Callable[..., Record]) -> None:
        """`--journal` goes before the environment, as a path and as a URL."""
        keep(id="e" * 32)
        other = tmp_path / "other.db"
        with closing(Journal(other)) as journal:
            journal.write(keep(id="f" * 32))
        assert found() == "ef"
        assert found("--journal", other) == "f"
        assert found("--journal", f"sqlite:///{other}") == "f"


class TestShow:
    """One row, whole."""

    def test_everything(self, keep: Callable[..., Record]) -> None:
        """Reasons, bars from 0.05 on, findings, coverage and all three texts are shown."""
        record = keep(
            risks={"sexual": 0.51, "violence": 0.05, "harassment": 0.049, "refusal": 0.9},
            reasons=("the first reason", "the second reason"),
            findings=(
                {
                    "category": "sexual",
                    "evidence": 3.25,
                    "channel": "choices[0].content",
                    "start": 4,
                    "end": 17,
                    "label": "a label",
                    "detector": "words",
                    "version": "7",
                },
            ),
            metadata={"request": "r-17", "tries": [1, 2]},
            model="some-model",
            released=1234,
            outcome="What the user read.",
        )
        result = run("show", record.id[:30])
        output = flat(result.stdout)
        assert result.exit_code == 0
        for fact in (
            record.id,
            "• the first reason",
            "• the second reason",
            "choices[0].content 4 to 17",
            "3.25",
            "a label",
            "words 7",
            "test (rank 1)",
            "some-model",
            "r-17",
            "[1, 2]",
            "1,234 characters",
            "Say a word.",
            "One zblock word.",
            "What the user read.",
            "characters judged",
            "refusal (a signal, no risk) 0.90",
        ):
            assert fact in output, fact
        bars = [line for line in result.stdout.splitlines() if "█" in line or "░" in line]
        assert [line.split()[0] for line in bars] == ["refusal", "sexual", "violence"]
        assert [line.count("█") for line in bars] == [22, 12, 1]

    def test_incomplete_coverage(self, keep: Callable[..., Record]) -> None:
        """What was not judged, and what failed, stands out."""
        failure = {"detector": "slow", "status": "timed_out", "detail": "5 s", "channel": "c"}
        coverage = {
            "complete": False,
            "judged": {"choices[0].content": 48},
            "units": 3,
            "detectors": {"words": "ok", "slow": "timed_out"},
            "failures": [failure],
        }
        output = flat(run("show", keep(coverage=coverage, complete=False).id).stdout)
        for fact in (
            "complete no",
            "slow timed_out",
            "choices[0].content 48 characters judged",
            '"detail": "5 s"',
            "open: the stream is running or broke off",
        ):
            assert fact in output, fact

    def test_missing_texts(self, keep: Callable[..., Record]) -> None:
        """A text that was not kept is told apart from an empty one."""
        output = run("show", keep(prompt=None, response="", outcome=None).id).stdout
        assert output.count("(not kept)") == 2
        assert output.count("(empty)") == 1

    def test_json(self, keep: Callable[..., Record]) -> None:
        """One line of JSON is the whole row."""
        record = keep()
        assert json.loads(run("show", record.id, "--json").stdout) == record.to_dict()

    @pytest.mark.parametrize(
        ("identifier", "problem"),
        [("000", "at least 4"), ("00000", "several rows"), ("ffff", "no row"), ("[/x]y", "no row")],
    )
    def test_no_such_row(self, keep: Callable[..., Record], identifier: str, problem: str) -> None:
        """An id that is too short, ambiguous or unknown is an error that says so."""
        keep()
        keep()
        result = run("show", identifier)
        assert result.exit_code == 2
        assert problem in result.stderr
        assert result.stdout == ""


class TestHostileText:
    """A response cannot act on the terminal of whoever reads about it."""

    @pytest.fixture
    def hostile(self, keep: Callable[..., Record]) -> Record:
        """Keep a row whose every text is hostile."""
        return keep(
            security_class=EVIL,
            model=EVIL,
            reasons=(EVIL,),
            risks={EVIL: 0.9},
            findings=({"category": EVIL, "label": EVIL, "detector": EVIL, "channel": EVIL},),
            coverage={"complete": False, "judged": {EVIL: EVIL}, "failures": [{"detail": EVIL}]},
            detectors={EVIL: EVIL},
            prompt=EVIL,
            response=EVIL,
            outcome=EVIL,
            metadata={EVIL: {EVIL: EVIL}},
        )

    @pytest.mark.parametrize("command", [["list"], ["show", "0000"]])
    def test_no_control_character_is_printed(self, hostile: Record, command: list[str]) -> None:
        """Nothing but printable characters and line ends comes out, and no markup is obeyed."""
        output = run(*command).stdout
        assert hostile.id[:8] in output
        assert output.replace("\n", "").isprintable()
        assert "\\x1b[2J" in output

    def test_markup_is_shown(self, hostile: Record) -> None:
        """What looks like the terminal library's markup or emoji codes stays as it was."""
        output = "".join(run("show", hostile.id).stdout.split())
        assert "[boldred]loud[/][/nothing]:boom:" in output

    @pytest.mark.skipif(not hasattr(os, "openpty"), reason="no pseudo-terminals on this system")
    @pytest.mark.parametrize(
        "command", [["list"], ["show", "0000"], ["export", "--format", "csv"], ["export"]]
    )
    def test_on_a_real_terminal(self, hostile: Record, command: list[str]) -> None:
        """On a terminal with colours the text's own sequences are not among those sent."""
        sent = on_a_terminal(*command)
        for sequence in ("\x1b[2J", "\x1b]", "\x9b", "\x07", "\x08", "\u202e"):
            assert sequence not in sent
        assert hostile.id[:8] in sent
        assert "title" in sent

    def test_in_messages(self) -> None:
        """Neither are those of an option's value in an error."""
        result = run("show", "\x1b[2J\x1b]0;title")
        assert "\x1b" not in result.output


@pytest.mark.usefixtures("four")
class TestPurge:
    """Deleting rows."""

    def test_what_matches_goes(self) -> None:
        """With `--yes` nobody is asked, and all else stays."""
        before, listed = found(), found("--action", "block")
        result = run("purge", "--action", "block", "--yes")
        assert result.exit_code == 0, result.output
        rows = "row" if len(listed) == 1 else "rows"
        assert f"{len(listed)} {rows} deleted from" in flat(result.stdout)
        assert set(found()) == set(before) - set(listed)

    @pytest.mark.parametrize("options", [[], ["--all", "--action", "block"]])
    def test_which_rows_must_be_said(self, options: list[str]) -> None:
        """Neither no filter nor both ways of saying it deletes anything."""
        before = found()
        assert run("purge", "--yes", *options).exit_code == 2
        assert found() == before

    def test_nobody_to_ask(self) -> None:
        """Without a terminal and `--yes` nothing is deleted."""
        before = found()
        result = run("purge", "--all")
        assert result.exit_code == 2
        assert "give `--yes`" in flat(result.output)
        assert found() == before

    def test_everything(self) -> None:
        """`--all` deletes every row, and doing it again is no error."""
        assert run("purge", "--all", "--yes").exit_code == 0
        assert not found()
        assert run("purge", "--all", "--yes").exit_code == 0


class TestExport:
    """Rows in files for other tools."""

    @pytest.mark.usefixtures("four")
    def test_standard_output(self) -> None:
        """Without a file or with `-`, rows go to standard output and nothing else does."""
        expected = run("list", "--json").stdout
        assert run("export").stdout == run("export", "-").stdout == expected
        assert run("export").stderr == ""

    @pytest.mark.usefixtures("four")
    def test_csv_with_filters(self) -> None:
        """The filters are those of `list`, without its limit."""
        result = run("export", "--format", "csv", "--class", "critical")
        read = list(csv.DictReader(StringIO(result.stdout, newline="")))
        assert [each["id"][0] for each in read] == ["d", "c"]

    def test_formulas_are_disarmed(self, keep: Callable[..., Record], tmp_path: Path) -> None:
        """A response that a spreadsheet would run is text in the CSV."""
        keep(response="=HYPERLINK('x')")
        assert run("export", tmp_path / "rows.csv", "--format", "csv").exit_code == 0
        with (tmp_path / "rows.csv").open(encoding="utf-8", newline="") as file:
            (read,) = csv.DictReader(file)
        assert read["response"] == "'=HYPERLINK('x')"

    @pytest.mark.usefixtures("four")
    def test_a_file(self, tmp_path: Path) -> None:
        """A file is whole, its owner's alone, beside nothing else, and its rows are counted."""
        target = tmp_path / "out" / "rows.jsonl"
        target.parent.mkdir()
        result = run("export", target)
        assert result.exit_code == 0
        assert target.read_text(encoding="utf-8") == run("export").stdout
        assert stat.S_IMODE(target.stat().st_mode) == 0o600
        assert [each.name for each in target.parent.iterdir()] == [target.name]
        assert "4 rows written" in result.stderr
        assert result.stdout == ""

    @pytest.mark.usefixtures("four")
    def test_overwriting_needs_force(self, tmp_path: Path) -> None:
        """A file that is there stays as it is without `--force`."""
        target = tmp_path / "rows.jsonl"
        target.write_text("precious", encoding="utf-8")
        result = run("export", target)
        assert result.exit_code == 2
        assert "--force" in result.stderr
        assert target.read_text(encoding="utf-8") == "precious"
        assert run("export", target, "--force").exit_code == 0
        assert len(target.read_text(encoding="utf-8").splitlines()) == 4

    @pytest.mark.usefixtures("four")
    def test_a_failure_leaves_no_half_file(self, tmp_path: Path, place: Path) -> None:
        """Where reading fails on the way, the old file stays and no other is left behind."""
        with closing(Journal(place)) as journal, journal._engine.begin() as connection:
            connection.execute(text("UPDATE journal SET coverage = '{' WHERE id LIKE 'a%'"))
        target = tmp_path / "out" / "rows.jsonl"
        target.parent.mkdir()
        target.write_text("precious", encoding="utf-8")
        result = run("export", target, "--force")
        assert result.exit_code == 2
        assert "damaged" in result.stderr
        assert target.read_text(encoding="utf-8") == "precious"
        assert [each.name for each in target.parent.iterdir()] == [target.name]

    @pytest.mark.usefixtures("four")
    @pytest.mark.parametrize("target", ["nowhere/rows.jsonl", "folder", os.devnull])
    def test_what_is_no_place_for_a_file(self, tmp_path: Path, target: str) -> None:
        """A missing folder, a folder and a device are refused, also with `--force`."""
        (tmp_path / "folder").mkdir()
        result = run("export", tmp_path / target, "--force")
        assert result.exit_code == 2
        assert result.stderr.startswith("error: ")
        assert list((tmp_path / "folder").iterdir()) == []
        assert not Path(os.devnull).is_file()

    def test_no_rows(self, place: Path, tmp_path: Path) -> None:
        """An empty journal gives an empty file, not none."""
        Journal(place).close()
        assert run("export", tmp_path / "rows.jsonl").exit_code == 0
        assert (tmp_path / "rows.jsonl").read_text(encoding="utf-8") == ""

    @pytest.mark.skipif(not hasattr(os, "openpty"), reason="no pseudo-terminals on this system")
    @pytest.mark.usefixtures("four")
    def test_progress_on_a_terminal(self, tmp_path: Path) -> None:
        """On a terminal a bar counts the rows."""
        sent = on_a_terminal("export", str(tmp_path / "rows.jsonl"))
        assert "4/4" in sent
        assert "4 rows written" in sent
        assert len((tmp_path / "rows.jsonl").read_text(encoding="utf-8").splitlines()) == 4


class TestErrors:
    """What cannot be done is a message and exit code 2, never a traceback."""

    @pytest.mark.usefixtures("four")
    @pytest.mark.parametrize(
        "options",
        [
            ["--action", "allow"],
            ["--since", "yesterday"],
            ["--until", "99999999999d"],
            ["--category", "sexual", "--minimum", "1.5"],
            ["--minimum", "0.5"],
            ["--limit", "0"],
            ["--nonsense"],
        ],
    )
    def test_wrong_options(self, options: list[str]) -> None:
        """A wrong value is refused before anything is read."""
        result = run("list", *options)
        assert result.exit_code == 2
        assert result.stdout == ""
        assert options[-2 if len(options) > 1 else 0] in result.stderr

    @pytest.mark.parametrize("command", [["list"], ["show", "abcdef"], ["export"]])
    def test_no_database(self, place: Path, command: list[str]) -> None:
        """A file of another kind is named, left alone, and the mend is told."""
        place.parent.mkdir()
        place.write_text("no database " * 100, encoding="utf-8")
        result = run(*command)
        assert result.exit_code == 2
        assert str(place) in flat(result.stderr)
        assert "GUARD_JOURNAL" in result.stderr
        assert place.read_text(encoding="utf-8").startswith("no database")

    def test_a_password_is_not_shown(self) -> None:
        """A journal on an unreachable server is named without its password."""
        result = run("list", "--journal", "postgresql://keeper:over-the-4-hills@127.0.0.1:1/rows")
        assert result.exit_code == 2
        assert "keeper" in result.stderr
        assert "over-the-4-hills" not in result.output

    def test_a_reader_that_goes_away(self, keep: Callable[..., Record]) -> None:
        """`guard flagged export | head` ends without a traceback."""
        for _ in range(30):
            keep(response="long " * 2000)
        with subprocess.Popen(
            [sys.executable, "-c", MAIN, "export"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        ) as process:
            assert process.stdout is not None
            assert process.stderr is not None
            process.stdout.readline()
            process.stdout.close()
            assert process.stderr.read() == b""

    def test_a_terminal_of_another_encoding(self, keep: Callable[..., Record]) -> None:
        """What the terminal's encoding lacks is written as an escape."""
        keep(response="Grüße 🙂")
        result = subprocess.run(
            [sys.executable, "-c", MAIN, "show", "0000"],
            capture_output=True,
            check=True,
            env=os.environ | {"PYTHONIOENCODING": "ascii"},
        )
        assert b"Gr\\xfc\\xdfe \\U0001f642" in result.stdout

    @pytest.mark.parametrize("encoding", ["ascii", "cp1252"])
    def test_bars_on_a_terminal_of_another_encoding(
        self, keep: Callable[..., Record], encoding: str
    ) -> None:
        """A bar stays a bar, as wide as it was: nobody can read two dozen escapes as one."""
        keep(risks={"harassment": 0.5})
        result = subprocess.run(
            [sys.executable, "-c", MAIN, "show", "0000"],
            capture_output=True,
            check=True,
            env=os.environ | {"PYTHONIOENCODING": encoding},
        )
        assert b"harassment  0.50  " + b"#" * 12 + b"." * 12 + b" " in result.stdout

    @pytest.mark.parametrize("form", ["csv", "jsonl"])
    def test_a_redirected_export_is_what_a_file_holds(
        self, keep: Callable[..., Record], tmp_path: Path, form: str
    ) -> None:
        """To the byte, whatever a terminal's encoding is: who reads it knows none."""
        keep(response="Grüße → █ 🙂\nend")
        named = tmp_path / "rows"
        for target in (named, "-"):
            result = subprocess.run(
                [sys.executable, "-c", MAIN, "export", str(target), "--format", form],
                capture_output=True,
                check=True,
                env=os.environ | {"PYTHONIOENCODING": "cp1252"},
            )
        assert result.stdout == named.read_bytes()


class TestMoment:
    """Times as people write them."""

    @pytest.mark.parametrize(
        ("written", "ago"),
        [
            ("30m", timedelta(minutes=30)),
            ("2h", timedelta(hours=2)),
            ("7d", timedelta(days=7)),
            (" 4w ", timedelta(weeks=4)),
            ("0h", timedelta()),
        ],
    )
    def test_so_long_ago(self, written: str, ago: timedelta) -> None:
        """A number and a unit count back from now."""
        before = datetime.now(UTC)
        assert before <= moment(written) + ago <= datetime.now(UTC)

    def test_iso_8601(self) -> None:
        """A date or time stands for itself; without a zone it is local."""
        assert moment("2025-06-01T12:00:30Z") == NOON
        assert moment("2025-06-01T17:30:30+05:30") == NOON
        assert moment("2025-06-01") == datetime(2025, 6, 1).astimezone()

    @pytest.mark.parametrize("wrong", ["", "2", "h", "-2h", "1.5h", "2y", "now", "9" * 40 + "w"])
    def test_nonsense(self, wrong: str) -> None:
        """Anything else is refused with examples."""
        with pytest.raises(typer.BadParameter, match="2h"):
            moment(wrong)


class TestHelp:
    """What `--help` teaches."""

    @pytest.mark.parametrize("command", ["list", "show", "export"])
    def test_each_command_has_an_example(self, command: str) -> None:
        """The example stands on one line and can be copied."""
        result = run(command, "--help")
        assert result.exit_code == 0
        assert any(
            line.strip(" │").startswith(f"guard flagged {command} ")
            for line in result.stdout.splitlines()
        )

    def test_without_a_command(self) -> None:
        """The three commands are listed."""
        output = run().output
        assert all(f" {command} " in output for command in ("list", "show", "export"))

    def test_it_is_light(self) -> None:
        """Help needs no database layer: that loads with the first row."""
        script = "import sys, guard.cli.flagged; sys.exit('sqlalchemy' in sys.modules)"
        assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0


MAIN = """
import sys
from guard.cli.flagged import app
from guard.cli.screen import tolerate_encodings
tolerate_encodings()
app(sys.argv[1:])
"""


def on_a_terminal(*arguments: str) -> str:
    """Return what the command sends to a pseudo-terminal."""
    master, slave = os.openpty()
    with subprocess.Popen(
        [sys.executable, "-c", MAIN, *arguments],
        stdout=slave,
        stderr=slave,
        stdin=subprocess.DEVNULL,
        env=os.environ | {"TERM": "xterm-256color", "COLUMNS": "120"},
    ):
        os.close(slave)
        sent = b""
        while True:
            try:
                piece = os.read(master, 65536)
            except OSError:  # how Linux says that the other side has closed
                break
            if not piece:
                break
            sent += piece
    os.close(master)
    return sent.decode("utf-8")
