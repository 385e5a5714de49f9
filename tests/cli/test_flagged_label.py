"""`guard flagged label`: which flags of the journal were right, one key each."""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
from typer.testing import CliRunner, Result

from guard import file_locks, labelled
from guard.audit import lines
from guard.cli.flagged import app
from guard.journal.store import Journal

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from guard.engine import Guard

    Keep = Callable[..., None]

NOON = datetime(2025, 6, 1, 12, 0, tzinfo=UTC)
KEYS = "[q] quit"
RUDE = "harassment: live risk 0.62 reached 0.35 (excise)"
FIERCE = "violence: live risk 0.91 reached 0.80 (block)"
OWN = "pricing: live risk 0.54 reached 0.50 (replace)"


@pytest.fixture
def keep(tmp_path: Path, make_guard: Callable[..., Guard], monkeypatch: pytest.MonkeyPatch) -> Keep:
    """Return a function that keeps a row with the given response, each a minute older."""
    place = tmp_path / "journal.sqlite3"
    monkeypatch.setenv("GUARD_JOURNAL", str(place))
    with closing(Journal("sqlite://")) as memory:
        make_guard(journal=memory).check("One zblock word.", prompt="Say a word.")
        (written,) = memory.list()
    ages = iter(range(1000))

    def one(response: str | None, *reasons: str, **changes: Any) -> None:
        age = next(ages)
        fresh: dict[str, Any] = {"id": f"{age:032x}", "created": NOON - timedelta(minutes=age)}
        fresh |= {"response": response, "reasons": reasons or (RUDE,)}
        with closing(Journal(place)) as journal:
            journal.write(replace(written, **(fresh | changes)))

    return one


def press(file: Path, keys: str, *options: str) -> Result:
    """Press keys."""
    return CliRunner().invoke(app, ["label", str(file), *options], input=keys)


def labels(file: Path) -> list[tuple[str, dict[str, bool]]]:
    """Return responses and labels as `guard calibrate` reads them."""
    found = labelled.read(file)
    assert found.journal
    return [(row.response, dict(row.labels)) for row in found.rows]


@pytest.mark.skipif(not hasattr(os, "openpty"), reason="no pseudo-terminals on this system")
class TestOnATerminal:
    """Keys that are pressed on a real pseudo-terminal."""

    @staticmethod
    def sit(file: Path, keys: str) -> tuple[int, str]:
        """Press each key once it is asked for; return the exit code and what was shown."""
        import termios  # there is none on Windows

        ours, theirs = os.openpty()
        command = [sys.executable, "-m", "guard", "flagged", "label", str(file)]
        shown, pressed = b"", 0
        with subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs) as process:
            while process.poll() is None:
                if select.select([ours], [], [], 0.02)[0]:
                    shown += os.read(ours, 65536)
                # A terminal that waits for single keys has no lines; what came before is lost.
                waits = not termios.tcgetattr(theirs)[3] & termios.ICANON
                if waits and pressed < min(shown.count(KEYS.encode()), len(keys)):
                    os.write(ours, keys[pressed].encode())
                    pressed += 1
        while select.select([ours], [], [], 0)[0]:
            shown += os.read(ours, 65536)
        os.close(ours)
        os.close(theirs)
        assert pressed == len(keys)
        return process.returncode, shown.decode()

    def test_a_sitting(self, keep: Keep, tmp_path: Path) -> None:
        """Yes, undone, no; skip; quit. Escapes are written out, and markup is none."""
        for text in ("You fool. \x1b[2J[red]boo", "You clown.", "You rock."):
            keep(text)
        code, shown = self.sit(tmp_path / "labels.jsonl", "yunsq")
        assert code == 0, shown
        assert "\\x1b[2J[red]boo" in shown
        assert "\x1b[2J" not in shown
        for part in ("Does the response carry", "live risk 0.62", "1 right, 0 wrong", "2 left"):
            assert part in shown
        assert "1 labels. See what they change: guard calibrate" in shown
        assert labels(tmp_path / "labels.jsonl") == [
            ("You fool. \x1b[2J[red]boo", {"harassment": False})
        ]
        assert (tmp_path / "labels.jsonl").stat().st_mode & 0o077 == 0

    def test_a_kill_loses_nothing(self, keep: Keep, tmp_path: Path) -> None:
        """Ctrl-C behind a label: it is on the disk, and the next sitting goes on behind it."""
        keep("You fool.")
        keep("You clown.")
        self.sit(tmp_path / "labels.jsonl", "y\x03")
        code, shown = self.sit(tmp_path / "labels.jsonl", "n")
        assert code == 0, shown
        assert "You fool." not in shown
        assert [list(label.values()) for _, label in labels(tmp_path / "labels.jsonl")] == [
            [True],
            [False],
        ]


class TestQueue:
    """What is asked, and what is not."""

    def test_each_category_is_asked_for(self, keep: Keep, tmp_path: Path) -> None:
        """A row may be rude and not fierce; `--category` asks for one of them."""
        keep("You fool.", RUDE, FIERCE, risks={"violence": 0.9})
        result = press(tmp_path / "one", "y", "--category", "violence")
        assert result.exit_code == 0, result.output
        assert labels(tmp_path / "one") == [("You fool.", {"violence": True})]
        press(tmp_path / "two", "yn")
        assert [label for _, label in labels(tmp_path / "two")] == [
            {"harassment": True},
            {"violence": False},
        ]

    def test_rows_without_a_text_are_counted(self, keep: Keep, tmp_path: Path) -> None:
        """Hashed, omitted, and of a category of one's own; copies are asked about once."""
        keep("sha256:00")
        keep(None)
        keep("Ours is cheaper.", OWN)
        keep("You fool.")
        keep("You fool.")
        result = press(tmp_path / "labels", "ys")
        assert result.exit_code == 0
        assert result.output.count(KEYS) == 1
        assert "Rows passed over: 2 (their class keeps no text" in result.stderr
        assert "Rows passed over: 1 (flagged for none" in result.stderr
        assert "Nothing is left" in press(tmp_path / "labels", "").output

    def test_labels_of_a_hand_count(self, keep: Keep, tmp_path: Path) -> None:
        """An export that somebody labelled is gone on with, a last line without its end too."""
        keep("You fool.")
        keep("You clown.")
        file = tmp_path / "labels.jsonl"
        row = {"prompt": "Say a word.", "response": "You fool.", "reasons": [RUDE], "label": 1}
        file.write_text("\n" + json.dumps(row), "utf-8")
        assert press(file, "n").exit_code == 0
        assert labels(file) == [
            ("You fool.", {"harassment": True}),
            ("You clown.", {"harassment": False}),
        ]

    def test_undo_ends_where_this_sitting_began(self, keep: Keep, tmp_path: Path) -> None:
        """What an earlier one said stays."""
        keep("You fool.")
        keep("You clown.")
        press(tmp_path / "labels", "yq")
        assert "Nothing to undo" in press(tmp_path / "labels", "uq").output
        assert labels(tmp_path / "labels") == [("You fool.", {"harassment": True})]

    def test_a_row_that_is_deleted_meanwhile_is_passed_over(
        self, keep: Keep, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A timer may purge the journal while somebody sits before it."""
        keep("You fool.")
        keep("You clown.")

        def purging() -> str:
            with closing(Journal(tmp_path / "journal.sqlite3")) as journal:
                assert sum(journal.purge()) == 2
            return "y"

        monkeypatch.setattr("typer.getchar", purging)
        assert press(tmp_path / "labels", "").exit_code == 0
        assert labels(tmp_path / "labels") == [("You fool.", {"harassment": True})]


class TestRefused:
    """What is wrong is said, and no file is harmed."""

    @pytest.mark.parametrize(
        ("content", "said"),
        [
            (b"SQLite format 3\0\n\xff", "cannot be read"),
            (b"a note without an end", "cannot be read"),
            (b'{"response": "x", "labels": {"violence": 1}}\n', "has no `label`"),
            (b'{"response": "x", "label": 1}\n', "needs `reasons`"),
        ],
    )
    def test_another_file(self, keep: Keep, tmp_path: Path, content: bytes, said: str) -> None:
        """A database, a note, rows of one's own: each stays as it was."""
        keep("You fool.")
        (tmp_path / "file").write_bytes(content)
        result = press(tmp_path / "file", "y")
        assert result.exit_code == 2
        assert said in " ".join(result.stderr.split())
        assert (tmp_path / "file").read_bytes() == content

    def test_a_line_that_was_cut_is_dropped(self, keep: Keep, tmp_path: Path) -> None:
        """As by a power cut; its row is asked about again."""
        keep("You fool.")
        (tmp_path / "file").write_bytes(b'{"id": "00')
        assert press(tmp_path / "file", "y").exit_code == 0
        assert labels(tmp_path / "file") == [("You fool.", {"harassment": True})]

    def test_a_packed_file(self, keep: Keep, tmp_path: Path) -> None:
        """`guard calibrate` would unpack what is not packed."""
        keep("You fool.")
        assert "without `.gz`" in press(tmp_path / "file.gz", "y").stderr

    def test_without_a_terminal(self, keep: Keep, tmp_path: Path) -> None:
        """Where there are no keys to press, it says so."""
        keep("You fool.")
        done = subprocess.run(
            [sys.executable, "-m", "guard", "flagged", "label", str(tmp_path / "labels")],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
            start_new_session=True,
        )
        assert done.returncode == 2
        assert "run this in a terminal" in done.stderr
        assert not (tmp_path / "labels").exists()

    def test_a_file_without_a_label_is_not_left_behind(self, keep: Keep, tmp_path: Path) -> None:
        """Quitting, or taking the only label back, leaves nothing; a file that was there stays."""
        keep("You fool.")
        keep("You clown.")
        there = tmp_path / "there"
        there.touch()
        for keys in ("q", "yuq"):
            assert press(tmp_path / "labels", keys).exit_code == 0
            assert press(there, keys).exit_code == 0
        assert (there.exists(), (tmp_path / "labels").exists()) == (True, False)

    def test_a_file_that_another_process_put_there_stays(self, tmp_path: Path) -> None:
        """An editor saves by putting another file in the place of one."""
        path, saved = tmp_path / "labels", tmp_path / "saved"
        with lines.LineFile(path, None):
            saved.write_text("mine")
            saved.replace(path)
        assert path.read_text() == "mine"

    def test_a_file_that_another_process_removed(
        self, keep: Keep, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Labels are not written where nobody would find them."""
        keep("You fool.")
        file = tmp_path / "labels"
        whole, removed = file_locks.try_lock, list[bool]()

        def late(opened: int) -> bool:
            file.unlink()
            removed.append(True)
            return whole(opened)

        monkeypatch.setattr(lines, "try_lock", late)
        result = press(file, "y")
        assert (removed, result.exit_code) == ([True], 2)
        assert "another process" in result.stderr

    def test_without_a_journal(self, tmp_path: Path) -> None:
        """There is nothing to label, and no file is made."""
        result = press(tmp_path / "labels", "y", "--journal", str(tmp_path / "none"))
        assert result.exit_code == 2
        assert "there is no journal" in result.stderr
        assert not (tmp_path / "labels").exists()
