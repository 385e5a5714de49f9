"""`guard live`: what a person sees and does in the terminal."""

from __future__ import annotations

import json
import math
import re
import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING

import pytest
from typer.testing import CliRunner

from guard.cli import app
from guard.live import LiveRisk, LiveSettings, Operating
from guard.live.sqlite_store import SQLiteStore, names_in

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from typer.testing import Result

    Make = Callable[..., LiveRisk]
    Stream = Callable[..., Iterator[dict[str, float]]]


def run(*arguments: str) -> Result:
    """Run a command in a wide terminal."""
    return CliRunner().invoke(app, ["live", *arguments], env={"COLUMNS": "140"})


@pytest.fixture
def drifted(make_live: Make, stream: Stream, tmp_path: Path) -> str:
    """Return the file of a deployment that drifted and was tightened."""
    path = tmp_path / "live.sqlite3"
    live = make_live(store=SQLiteStore(path, "chat"), action="tighten")
    for evidence in stream(1500, 0.2, clean=1000):
        live.observe(evidence)
    live.close()
    return str(path)


@pytest.fixture
def foreign(tmp_path: Path) -> Path:
    """Return another program's SQLite file, in a folder of its own."""
    path = tmp_path / "theirs" / "app.db"
    path.parent.mkdir()
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE users (name TEXT)")
    return path


def contents(folder: Path) -> dict[str, bytes]:
    """Return all files of a folder."""
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


def clear_all(place: object, name: str = "default") -> Result:
    """Clear every alarm of a deployment."""
    who = ("--by", "ada", "--reason", "repaired")
    return run("clear", "all", "--store", str(place), "--name", name, *who)


class TestShow:
    """`guard live show`."""

    def test_draws_priors_evidence_and_alarms(self, drifted: str) -> None:
        """Posture, each category, a plot and the latest transitions."""
        result = run("show", "--store", drifted, "--name", "chat")

        assert result.exit_code == 0
        assert "chat: 1,500 exchanges, posture tighten" in result.output
        assert "alarm ┤" in result.output
        assert "█" in result.output
        assert "not watched" in result.output
        assert "bad_advice raised" in result.output
        assert "(normal → tighten)" in result.output

    @pytest.mark.parametrize("columns", [60, 80, 89])
    def test_no_figure_is_cut_on_a_narrow_screen(
        self, make_live: Make, stream: Stream, tmp_path: Path, columns: int
    ) -> None:
        """Names may be broken and the little plots left out; a rate that is cut says nothing."""
        path = tmp_path / "live.sqlite3"
        live = make_live(store=SQLiteStore(path, "chat"), action="quarantine")
        for evidence in stream(1500, 0.2, clean=1000):
            live.observe(evidence)
        state = live.state()
        live.close()
        result = CliRunner().invoke(
            app,
            ["live", "show", "--store", str(path), "--name", "chat"],
            env={"COLUMNS": str(columns)},
        )
        table = result.output.partition("evidence for drift")[0]
        assert "…" not in table
        for category in state.categories.values():
            assert f" {category.prior:.2%} " in table
            assert f" {category.start:.2%} " in table
        assert "quarantine" in table.partition("category")[2]
        assert max(map(len, table.splitlines())) <= columns

    def test_tells_failed_detectors_from_a_model_that_drifts(
        self, make_live: Make, tmp_path: Path
    ) -> None:
        """How many exceedances nobody could judge stands below the figures, where there are any."""
        path = tmp_path / "live.sqlite3"
        live = make_live(store=SQLiteStore(path))
        live.observe({"bad_advice": 9.0, "violence": 9.0})
        live.flush()
        assert "failed" not in run("show", "--store", str(path)).output
        for _ in range(9):
            live.observe({"bad_advice": math.nan})
        live.close()

        shown = run("show", "--store", str(path)).output
        assert "exceedances in which a detector failed: bad_advice 9 of 10\n" in shown
        values = json.loads(run("show", "--store", str(path), "--json").stdout)
        assert values["categories"]["bad_advice"]["evidence"]["unjudged"] == 9

    def test_plots_what_is_asked_for(self, drifted: str) -> None:
        """Another category can be named; one that is not watched is an error."""
        named = run("show", "--store", drifted, "--name", "chat", "--category", "violence")
        assert "violence: evidence for drift" in named.output

        unwatched = run("show", "--store", drifted, "--name", "chat", "--category", "exposure")
        assert unwatched.exit_code == 2
        assert "bad_advice, violence" in unwatched.output

    def test_prints_json(self, drifted: str) -> None:
        """All of it, for programs."""
        result = run("show", "--store", drifted, "--name", "chat", "--json")

        values = json.loads(result.stdout)
        assert values["posture"] == "tighten"
        assert values["categories"]["bad_advice"]["alarm"]["action"] == "tighten"
        assert values["points"]

    def test_says_where_there_is_nothing(self, drifted: str, tmp_path: Path) -> None:
        """A wrong name and a missing file are errors, and no file is made."""
        assert run("show", "--store", drifted, "--name", "other").exit_code == 2
        missing = tmp_path / "missing.sqlite3"
        assert run("show", "--store", str(missing)).exit_code == 2
        assert not missing.exists()

    def test_changes_nothing(self, make_live: Make, tmp_path: Path) -> None:
        """Nothing in the file or beside it, whether or not a guard has it open."""
        path = tmp_path / "kept" / "live.sqlite3"
        live = make_live(store=SQLiteStore(path))
        live.observe({"bad_advice": 9.0})
        live.flush()

        def kept() -> dict[str, bytes]:
            # Readers mark in the shared memory how far they are.
            return {k: v for k, v in contents(path.parent).items() if not k.endswith("-shm")}

        before = kept()
        assert f"{path.name}-wal" in before
        assert "1 exchanges" in run("show", "--store", str(path)).output
        assert kept() == before
        live.close()
        before = contents(path.parent)
        assert f"{path.name}-wal" not in before
        assert "1 exchanges" in run("show", "--store", str(path)).output
        assert contents(path.parent) == before

    def test_reads_what_a_killed_guard_left(self, make_live: Make, tmp_path: Path) -> None:
        """The log beside the file counts, without the shared memory that went with it."""
        path = tmp_path / "live.sqlite3"
        live = make_live(store=SQLiteStore(path))
        live.observe({"bad_advice": 9.0})
        live.flush()
        left = tmp_path / "left"
        left.mkdir()
        for name in ("live.sqlite3", "live.sqlite3-wal"):
            (left / name).write_bytes((tmp_path / name).read_bytes())
        before = contents(left)

        assert "1 exchanges" in run("show", "--store", str(left / path.name)).output
        assert before.items() <= contents(left).items()

    def test_a_wrong_name_lists_those_there(self, drifted: str) -> None:
        """Whoever mistypes a name sees which there are, but not hundreds of them."""
        for result in (
            run("show", "--store", drifted, "--name", "caht"),
            clear_all(drifted, name="caht"),
        ):
            assert result.exit_code == 2
            assert "`caht`" in result.output
            assert "(did you mean `chat`?): it has `chat`\n" in result.output

        with closing(sqlite3.connect(drifted)) as connection, connection:
            for number in range(30):
                connection.execute(
                    "INSERT INTO live_profile SELECT ?, digest, profile, opened FROM live_profile "
                    "WHERE name = 'chat'",
                    [f"tenant{number:02}"],
                )
        output = run("show", "--store", drifted, "--name", "x").output
        assert "`tenant18` and 11 more" in output
        assert "tenant19" not in output

    def test_obeys_nothing_in_a_store(self, make_live: Make, tmp_path: Path) -> None:
        """What somebody wrote as a reason cannot move the cursor or style the text."""
        path = tmp_path / "live.sqlite3"
        live = make_live(store=SQLiteStore(path))
        for _ in range(30):
            live.observe({"bad_advice": 9.0})
        live.clear("bad_advice", by="[red]ada", reason="\x1b[2Jgone")
        live.close()

        output = run("show", "--store", str(path)).output
        assert "\x1b" not in output
        assert "[red]ada" in output


class TestForeignFiles:
    """Files that hold no live state."""

    @pytest.mark.parametrize("in_use", [False, True])
    def test_stay_as_they_are(self, foreign: Path, *, in_use: bool) -> None:
        """Neither command adds tables, changes the journal mode, or leaves files beside it."""
        with closing(sqlite3.connect(foreign)) as connection:
            if in_use:
                connection.execute("PRAGMA journal_mode=WAL")
                connection.execute("INSERT INTO users VALUES ('ada')")
                connection.commit()
            before = contents(foreign.parent)
            for result in (run("show", "--store", str(foreign)), clear_all(foreign)):
                assert result.exit_code == 2
                assert f"{foreign} holds no live state" in result.output
            # Readers mark in the shared memory how far they are.
            after = contents(foreign.parent)
            assert after.keys() == before.keys()
            assert all(after[name] == before[name] for name in after if not name.endswith("-shm"))

    def test_that_are_missing_empty_or_no_database(self, tmp_path: Path) -> None:
        """Each is an error that names the file, and nothing is made."""
        (tmp_path / "empty").touch()
        (tmp_path / "text").write_text("No database. " * 100)
        (tmp_path / "folder").mkdir()
        before = sorted(path.name for path in tmp_path.iterdir())
        for name, problem in {
            "missing/live.sqlite3": "there is no file",
            "empty": "holds no live state",
            "text": "cannot be used: file is not a database",
            "folder": "there is no file",
        }.items():
            for result in (
                run("show", "--store", str(tmp_path / name)),
                clear_all(tmp_path / name),
            ):
                assert result.exit_code == 2
                assert str(tmp_path / name) in result.output
                assert problem in result.output
        assert sorted(path.name for path in tmp_path.iterdir()) == before

    def test_a_store_that_nobody_opened(self, tmp_path: Path) -> None:
        """Tables without a deployment in them are told apart from none."""
        path = tmp_path / "live #1?.sqlite3"
        SQLiteStore(tmp_path / "live.sqlite3").close()
        (tmp_path / "live.sqlite3").rename(path)

        assert names_in(path) == []
        assert "no guard has opened it yet" in run("show", "--store", str(path)).output


class TestClear:
    """`guard live clear`."""

    def test_clears_and_says_so(self, drifted: str) -> None:
        """The alarm is gone for every reader, with who and why."""
        arguments = ("--store", drifted, "--name", "chat", "--by", "ada", "--reason", "repaired")
        result = run("clear", "bad_advice", *arguments)

        assert result.exit_code == 0
        assert "bad_advice cleared by ada: repaired (tighten → normal)" in result.output
        assert "posture normal" in run("show", "--store", drifted, "--name", "chat").output

    def test_says_which_priors_stay_raised(self, drifted: str) -> None:
        """Clearing takes back what the alarm did, and not what the answers said of the model."""
        arguments = ("--store", drifted, "--name", "chat")
        who = ("--by", "ada", "--reason", "repaired")
        told = run("clear", "all", *arguments, *who).output
        state = json.loads(run("show", *arguments, "--json").stdout)

        prior = state["categories"]["bad_advice"]["prior"]
        assert prior > 0.02
        assert f"until enough answers are fine: bad_advice {prior:.2%} (start 2.00%)\n" in told

    def test_of_nothing_is_an_error(self, drifted: str) -> None:
        """No alarm of that name stands."""
        arguments = ("--store", drifted, "--name", "chat", "--by", "ada", "--reason", "why")

        assert run("clear", "violence", *arguments).exit_code == 2
        assert run("clear", "all", *arguments).exit_code == 0
        assert run("clear", "all", *arguments).exit_code == 2

    def test_takes_who_and_why(self, drifted: str) -> None:
        """Neither may be left out or blank."""
        assert run("clear", "all", "--store", drifted, "--by", "ada").exit_code == 2
        blank = run(
            "clear", "all", "--store", drifted, "--name", "chat", "--by", " ", "--reason", "x"
        )
        assert blank.exit_code == 2
        assert "who, and why" in blank.output

    def test_reaches_redis(self, make_live: Make, redis_server: object) -> None:
        """A URL works as a file does."""
        from guard.live.redis_store import RedisStore

        url = str(getattr(redis_server, "url"))  # noqa: B009  # the fixture's type is a test's
        live = make_live(store=RedisStore(url), action="fallback")
        for _ in range(30):
            live.observe({"bad_advice": 9.0})
        live.flush()

        assert "posture fallback" in run("show", "--store", url).output
        cleared = run("clear", "all", "--store", url, "--by", "ada", "--reason", "tried")
        assert cleared.exit_code == 0
        live.flush()
        assert live.posture == "normal"


class TestWhatIsTold:
    """The lines below the plot: since when alarms stand, who cleared which, and why."""

    @pytest.fixture
    def shown(self, tmp_path: Path) -> str:
        """Return what is printed of seven alarms, of which one was cleared at length."""
        names = ["bad_advice", "deception", "harassment", "self_harm", "sexual", "sycophancy"]
        names.append("violence")
        path = tmp_path / "live.sqlite3"
        live = LiveRisk(
            LiveSettings(tolerated=0.001, action="tighten"),
            start=dict.fromkeys(names, 0.02),
            confusion=dict.fromkeys(names, Operating(4.0, 454, 564, 1, 1982)),
            store=SQLiteStore(path, "chat"),
        )
        for name in names:
            for _ in range(12):
                live.observe({name: 5.0})
        live.clear(
            "violence", by="ada", reason="mended\n2026-01-01 00:00:00  sexual cleared by eve"
        )
        live.close()
        return run("show", "--store", str(path), "--name", "chat").output

    def test_each_alarm_that_stands_says_since_when_and_why(self, shown: str) -> None:
        """Also those that were raised before the latest transitions."""
        told = re.findall(r"^\d{4}-\S+ \S+  (\w+) raised: \d+ exceedances in", shown, re.MULTILINE)
        assert len(told) == len(set(told)) == 7

    def test_a_reason_looks_like_no_other_transition(self, shown: str) -> None:
        """A line break in it is written out."""
        assert re.findall(r"^\S+ \S+  (\w+) cleared", shown, re.MULTILINE) == ["violence"]
