"""`guard live`: what a person sees and does in the terminal."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from typer.testing import CliRunner

from guard.cli import app
from guard.live.sqlite_store import SQLiteStore

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from typer.testing import Result

    from guard.live import LiveRisk

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


class TestClear:
    """`guard live clear`."""

    def test_clears_and_says_so(self, drifted: str) -> None:
        """The alarm is gone for every reader, with who and why."""
        arguments = ("--store", drifted, "--name", "chat", "--by", "ada", "--reason", "repaired")
        result = run("clear", "bad_advice", *arguments)

        assert result.exit_code == 0
        assert "bad_advice cleared by ada: repaired (tighten → normal)" in result.output
        assert "posture normal" in run("show", "--store", drifted, "--name", "chat").output

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
