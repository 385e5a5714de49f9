"""`guard demo`: the walk that a newcomer sees, and the script behind it."""

from __future__ import annotations

import re
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from typer.testing import CliRunner

from guard.cli import app
from guard.cli.demo_script import ANSWERS
from guard.journal.store import Journal

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(scope="module")
def played(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    """Return what the demo printed and where its journal is."""
    place = tmp_path_factory.mktemp("demo") / "journal.sqlite3"
    result = CliRunner(env={"COLUMNS": "160"}).invoke(
        app, ["demo", "--fast", "--journal", str(place)]
    )
    assert result.exit_code == 0, result.output
    return result.stdout, place


class TestDemo:
    """What is shown."""

    def test_every_answer_is_played(self, played: tuple[str, Path]) -> None:
        """Each answer has its heading and its time."""
        shown = played[0]
        assert all(answer.title in shown for answer in ANSWERS)
        assert len(re.findall(r"\(\d+ ms\)", shown)) == len(ANSWERS)

    def test_all_four_actions_occur(self, played: tuple[str, Path]) -> None:
        """A newcomer sees responses allowed, flagged, rewritten and blocked."""
        shown = played[0]
        for action in ("allow", "flag", "rewrite", "block"):
            assert re.search(rf"^{action} ", shown, re.MULTILINE), action

    def test_secrets_never_show(self, played: tuple[str, Path]) -> None:
        """Neither the key nor the card number of the script reaches the screen."""
        assert "9fQ2mZ7xTb4LwR8vKc1YpD3n" not in played[0]
        assert "1234 5678" not in played[0]

    def test_the_journal_holds_what_was_held_back(self, played: tuple[str, Path]) -> None:
        """Rows are in the named journal, and the screen says how to read them."""
        shown, place = played
        rows = list(Journal(place).list())
        assert len(rows) >= 5
        assert all(row.id[:8] in shown for row in rows)
        assert "guard flagged list" in shown


class TestOptions:
    """What cannot be done is said before anything is played."""

    @pytest.mark.parametrize("place", ["nowhere/demo.svg", "."])
    def test_a_picture_that_cannot_be_saved(self, tmp_path: Path, place: str) -> None:
        """A message and exit code 2, no traceback."""
        given = ("--fast", "--journal", str(tmp_path / "j.sqlite3"), "--svg", str(tmp_path / place))
        result = CliRunner().invoke(app, ["demo", *given])
        assert result.exit_code == 2
        assert result.stderr.startswith("error: ")
        assert "cannot be written" in result.stderr

    @pytest.mark.parametrize("option", [["--class", "public"], ["--fast"], ["--svg", "x.svg"]])
    def test_drift_ignores_no_option(self, option: list[str]) -> None:
        """What it does not heed is refused: a picture that never comes would be missed too late."""
        result = CliRunner(env={"COLUMNS": "200"}).invoke(app, ["demo", "--drift", *option])
        assert result.exit_code == 2
        assert f"leave `{option[0]}` out" in result.stderr
        assert not result.stdout


class TestScript:
    """What the backend says."""

    def test_prompts_are_unique_and_titled(self) -> None:
        """A script answers each prompt once and says what it shows."""
        assert len({answer.prompt for answer in ANSWERS}) == len(ANSWERS) >= 12
        assert all(answer.title for answer in ANSWERS)

    def test_pieces_make_up_the_text(self) -> None:
        """Nothing is lost or added by streaming."""
        assert all("".join(answer.pieces()) == answer.text for answer in ANSWERS)


class TestDrift:
    """`guard demo --drift`."""

    def test_the_alarm_comes_and_the_class_tightens(self) -> None:
        """Not while the backend is clean, and soon after it turned."""
        result = CliRunner().invoke(app, ["demo", "--drift"])
        assert result.exit_code == 0
        before, _, after = result.output.partition("the backend turns")
        assert "ALARM" not in before
        assert "critical" not in before
        assert "ALARM" in after
        assert "critical: " in after


def test_the_command_line_runs_as_a_program() -> None:
    """`python -c` with the entry point shows the version and exits with 0."""
    script = "import sys; sys.argv = ['guard', '--version']; from guard.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert done.stdout.startswith("guard ")
