"""`guard scan`: real processes judge a log; what they say, what is kept, and the exit code."""

from __future__ import annotations

import gzip
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from typer.testing import CliRunner

from guard.cli import app
from guard.journal.store import Journal
from tests.scan.logs import BROKEN, FINE, LEAK, contents, line, log, rows

if TYPE_CHECKING:
    from typer.testing import Result


def run(*arguments: str, stdin: str | bytes = "") -> Result:
    """Run `guard scan` with one worker."""
    given = ["scan", *arguments, *(() if "--workers" in arguments else ("--workers", "1"))]
    return CliRunner().invoke(app, given, input=stdin)


@pytest.fixture(scope="module")
def scanned(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Result]:
    """Return a log, the folder of its scan with two workers, and how that ended."""
    place = tmp_path_factory.mktemp("scanned")
    log(place / "log.jsonl", 40)
    out = place / "out"
    given = ("--workers", "2", "--compare", "regulated")
    return place / "log.jsonl", out, run(str(place / "log.jsonl"), "--out", str(out), *given)


class TestWhatItSays:
    """Verdicts, errors, summary and exit code."""

    def test_rows_are_those_of_check(self, scanned: tuple[Path, Path, Result]) -> None:
        """Two processes say of each line what `guard check` says, in the order of the lines."""
        name, out, _ = scanned
        checked = CliRunner().invoke(app, ["check", str(name), "-o", "jsonl"]).stdout.splitlines()
        found = sorted(
            rows(out / "verdicts.jsonl") + rows(out / "errors.jsonl"), key=lambda row: row["n"]
        )
        assert [row["n"] for row in found] == list(range(40))
        for row, text in zip(found, checked, strict=True):
            said = json.loads(text)
            for key in ("file", "line", "id", "action", "reasons", "error"):
                assert row.get(key) == said.get(key)

    def test_bad_lines_are_named(self, scanned: tuple[Path, Path, Result]) -> None:
        """They are told with file and line, kept and counted, and the exit code is 2."""
        name, out, result = scanned
        assert result.exit_code == 2
        assert f"{name}:7: not JSON" in result.stderr
        assert [row["line"] for row in rows(out / "errors.jsonl")] == [7, 14, 21, 28, 35]

    def test_the_summary_counts(self, scanned: tuple[Path, Path, Result]) -> None:
        """Exchanges, actions and what another class would do."""
        summary = json.loads((scanned[1] / "summary.json").read_text("utf-8"))
        assert summary["exchanges"] == 35
        assert summary["bad"] == 5
        assert summary["actions"]["rewrite"]["count"] == 7
        assert list(summary["compare"]) == ["regulated"]
        assert "Scan under class public" in (scanned[1] / "report.html").read_text("utf-8")

    def test_the_same_command_judges_nothing_anew(self, scanned: tuple[Path, Path, Result]) -> None:
        """Over a folder that is done it says so, and leaves the rows as they are."""
        name, out, _ = scanned
        before = contents(out)
        result = run(str(name), "--out", str(out), "--compare", "regulated", "--workers", "1")
        assert "going on behind 40 lines" in result.stderr
        assert contents(out) == before

    @pytest.mark.parametrize(("given", "code"), [((), 0), (("--fail-on", "block"), 1)])
    def test_a_block_fails_on_request(
        self, tmp_path: Path, given: tuple[str, ...], code: int
    ) -> None:
        """Only with `--fail-on block` the exit code says that something would be blocked."""
        policy = tmp_path / "strict.yaml"
        policy.write_text(STRICT, "utf-8")
        out = ("--out", str(tmp_path / "out"))
        result = run("-", "--class", str(policy), *out, *given, stdin=line(LEAK))
        assert result.exit_code == code


STRICT = """\
version: 1
classes:
  - name: strict
    rank: 9
    limits:
      secret_leak: {flag: 0.3, act: 0.5, remedy: block}
    messages:
      en: {blocked: "Held back.", replaced: "Replaced."}
"""


class TestWhatItReads:
    """Files, folders, standard input."""

    def test_a_folder_in_order(self, tmp_path: Path) -> None:
        """All files of JSON lines in it, packed or not, sorted; what it wrote itself is none."""
        (tmp_path / "b.jsonl").write_text(line(FINE), "utf-8")
        (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress(line(FINE).encode("utf-8")))
        (tmp_path / "notes.txt").write_text("no log", "utf-8")
        for _ in range(2):
            result = run(str(tmp_path), "--out", str(tmp_path / "out"))
            assert result.exit_code == 0, result.output
        found = rows(tmp_path / "out" / "verdicts.jsonl")
        assert [Path(row["file"]).name for row in found] == ["a.jsonl.gz", "b.jsonl"]

    def test_one_file_under_two_names_is_refused(self, tmp_path: Path) -> None:
        """Its lines would be judged and counted twice, so both names are said."""
        (tmp_path / "a.jsonl").write_text(line(FINE), "utf-8")
        (tmp_path / "b.jsonl").symlink_to(tmp_path / "a.jsonl")
        again = str(tmp_path / ".." / tmp_path.name / "a.jsonl")
        for names in ([str(tmp_path)], [str(tmp_path / "a.jsonl"), again]):
            result = run(*names, "--out", str(tmp_path / "out"))
            assert result.exit_code == 2
            assert f"is named twice, as `{tmp_path / 'a.jsonl'}`" in result.stderr

    @pytest.mark.skipif(
        not hasattr(os, "geteuid") or os.geteuid() == 0, reason="nothing is closed to root"
    )
    def test_a_folder_that_cannot_be_read_is_told(self, tmp_path: Path) -> None:
        """What is in it is not left out unnoticed."""
        (tmp_path / "a.jsonl").write_text(line(FINE), "utf-8")
        (tmp_path / "closed").mkdir(mode=0)
        result = run(str(tmp_path), "--out", str(tmp_path / "out"))
        assert result.exit_code == 2
        assert f"`{tmp_path / 'closed'}` cannot be read" in result.stderr

    def test_standard_input_cannot_be_gone_on_with(self, tmp_path: Path) -> None:
        """It is judged once; a second time is refused with what to do."""
        given = ("-", "--out", str(tmp_path / "out"))
        assert run(*given, stdin=line(FINE)).exit_code == 0
        again = run(*given, stdin=line(FINE))
        assert again.exit_code == 2
        assert "save the log to a file" in again.stderr

    @pytest.mark.parametrize(
        ("name", "words"),
        [("gone.jsonl", "is not there"), ("empty", "holds no file that ends in")],
    )
    def test_what_is_not_there_is_said_at_once(self, tmp_path: Path, name: str, words: str) -> None:
        """Before anything is judged or written."""
        (tmp_path / "empty").mkdir()
        result = run(str(tmp_path / name), "--out", str(tmp_path / "out"))
        assert result.exit_code == 2
        assert words in result.stderr
        assert not (tmp_path / "out").exists()

    def test_an_empty_log_is_no_success(self, tmp_path: Path) -> None:
        """Nothing was judged, and the exit code says so."""
        (tmp_path / "log.jsonl").write_text("\n\n", "utf-8")
        result = run(str(tmp_path / "log.jsonl"), "--out", str(tmp_path / "out"))
        assert result.exit_code == 2
        assert "nothing to judge" in result.stderr


class TestWhatItKeeps:
    """The journal, and a model that cannot be used."""

    def test_the_journal_on_request(self, tmp_path: Path) -> None:
        """What is flagged is in the journal that is named, under the id that the row has."""
        (tmp_path / "log.jsonl").write_text(f"{line(FINE)}\n{line(LEAK)}\n", "utf-8")
        place = str(tmp_path / "journal.sqlite3")
        given = (str(tmp_path / "log.jsonl"), "--out", str(tmp_path / "out"))
        assert run(*given, "--journal", place).exit_code == 0
        journal = Journal(place)
        (record,) = journal.list(limit=10)
        journal.close()
        assert record.id == rows(tmp_path / "out" / "verdicts.jsonl")[1]["record"]

    def test_no_journal_by_default(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Without the option nothing is written, not even where `GUARD_JOURNAL` says."""
        monkeypatch.setenv("GUARD_JOURNAL", str(tmp_path / "journal.sqlite3"))
        (tmp_path / "log.jsonl").write_text(line(LEAK), "utf-8")
        assert run(str(tmp_path / "log.jsonl"), "--out", str(tmp_path / "out")).exit_code == 0
        assert not (tmp_path / "journal.sqlite3").exists()

    def test_a_model_that_cannot_be_used_is_an_error(self, tmp_path: Path) -> None:
        """The error of the worker process is the command's."""
        (tmp_path / "log.jsonl").write_text(line(FINE), "utf-8")
        (tmp_path / "model").mkdir()
        given = ("--out", str(tmp_path / "out"), "--model", str(tmp_path / "model"))
        result = run(str(tmp_path / "log.jsonl"), *given)
        assert result.exit_code == 2
        assert "model" in result.stderr


@pytest.mark.skipif(os.name == "nt", reason="signals of POSIX")
class TestWhatStopsIt:
    """Ctrl-C, a worker that is killed, the command itself killed."""

    @pytest.mark.parametrize("how", ["interrupt", "worker", "kill"])
    def test_it_goes_on_behind_what_is_kept(self, tmp_path: Path, how: str) -> None:
        """It ends, leaves no process behind, and the same command makes the whole."""
        name, out = log(tmp_path / "log.jsonl", 2000), tmp_path / "out"
        process = begun(name, out)
        verdicts = out / "verdicts.jsonl"
        wait_until(lambda: verdicts.exists() and verdicts.stat().st_size > 0, process)
        workers = children(process.pid)
        if how == "worker":
            os.kill(workers[0], signal.SIGKILL)
        elif how == "interrupt":
            os.killpg(process.pid, signal.SIGINT)
        else:
            process.kill()
        _, said = process.communicate(timeout=60)
        code, words = {
            "interrupt": (130, "the same command goes on"),
            "worker": (2, "a worker died"),
            "kill": (-signal.SIGKILL, ""),
        }[how]
        assert process.returncode == code, said
        assert words in said
        wait_until(lambda: not any(map(alive, workers)))
        done = len(rows_so_far(out))
        assert 0 < done < 2000
        result = run(name, "--out", str(out), "--limit", str(done + 3))
        assert "going on behind" in result.stderr
        found = rows_so_far(out)
        assert [row["n"] for row in found] == list(range(done + 3))
        assert all(("error" in row) == (row["n"] % 7 == 6) for row in found)


_SCAN = """\
import signal, sys
if __name__ == "__main__":
    # Whoever runs the tests may have it ignored.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    from guard.cli import main
    main()
"""


def begun(name: str, out: Path) -> subprocess.Popen[str]:
    """Begin a scan with two workers, in a process group of its own."""
    return subprocess.Popen(
        [sys.executable, "-c", _SCAN, "scan", name, "--out", str(out), "--workers", "2"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def children(pid: int) -> list[int]:
    """Return the worker processes of a scan."""
    listed = subprocess.run(
        ["pgrep", "-P", str(pid), "-f", "spawn_main"], capture_output=True, text=True, check=True
    )
    return [int(line) for line in listed.stdout.split()]


def alive(pid: int) -> bool:
    """Return whether a process is there."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return Path(f"/proc/{pid}/stat").read_text("utf-8").split()[2] != "Z"


def wait_until(there: Any, process: subprocess.Popen[str] | None = None) -> None:
    """Wait for something; a process that ended before is an error."""
    while not there():
        assert process is None or process.poll() is None
        time.sleep(0.01)


def rows_so_far(out: Path) -> list[dict[str, Any]]:
    """Return the whole rows of both files, in order."""
    whole = []
    for name in ("verdicts.jsonl", "errors.jsonl"):
        text = (out / name).read_text("utf-8")
        whole += [json.loads(each) for each in text[: text.rfind("\n") + 1].splitlines()]
    return sorted(whole, key=lambda row: row["n"])


def test_broken_lines_alone_are_told(tmp_path: Path) -> None:
    """A log in which nothing can be judged ends with 2 and the reason."""
    (tmp_path / "log.jsonl").write_text(BROKEN, "utf-8")
    result = run(str(tmp_path / "log.jsonl"), "--out", str(tmp_path / "out"))
    assert result.exit_code == 2
    assert "log.jsonl:1: not JSON" in result.stderr
