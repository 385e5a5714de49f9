"""`guard flagged review` and `guard demo --review`: the pages of a journal, until Ctrl-C."""

from __future__ import annotations

import re
import signal
import socket
import subprocess
import sys
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING, NamedTuple

import httpx2
import pytest
from typer.testing import CliRunner

from guard.audit.lines import LineFile
from guard.cli import app
from guard.journal.store import Journal

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from guard.engine import Guard

PATH = "/guard/review"
LEAK = "Use api_key = 'sk_" + "live_9fQ2mZ7xTb4LwR8vKc1YpD3n' for the test."


@pytest.fixture
def place(tmp_path: Path, make_pack_guard: Callable[..., Guard]) -> Path:
    """Return a journal with a row."""
    file = tmp_path / "journal.sqlite3"
    with closing(Journal(file)) as journal:
        make_pack_guard(journal=journal).check(LEAK, prompt="How?")
    return file


class Running(NamedTuple):
    """A command that serves pages.

    Attributes:
        link: what it printed.
        process: it.
    """

    link: str
    process: subprocess.Popen[str]

    def end(self) -> tuple[int, str]:
        """Press Ctrl-C; return the exit code and what it printed on the other stream."""
        self.process.send_signal(signal.SIGINT)
        return self.process.wait(60), self.process.communicate()[1]


@contextmanager
def running(*command: str) -> Iterator[Running]:
    """Run a command until it has printed the link."""
    with subprocess.Popen(
        [sys.executable, "-m", "guard", *command],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        encoding="utf-8",
    ) as process:
        assert process.stdout is not None
        wanted = re.compile(rf"http://127\.0\.0\.1:\d+{PATH}/enter\S+")
        link = next(filter(None, map(wanted.search, process.stdout)), None)
        try:
            assert link is not None
            yield Running(link[0], process)
        finally:
            process.kill()


@contextmanager
def opened(link: str) -> Iterator[httpx2.Client]:
    """Open the link in a browser."""
    base = link.partition(PATH)[0]
    with httpx2.Client(base_url=base, headers={"origin": base}, follow_redirects=True) as client:
        assert client.get(link).status_code == 200
        yield client


def label(client: httpx2.Client, what: str) -> httpx2.Response:
    """Label the next flag."""
    page = client.get(f"{PATH}/next").text
    fields = dict(re.findall(r'type="hidden" name="(\w+)" value="([^"]*)"', page))
    return client.post(f"{PATH}/label", data=fields | {"say": what})


@pytest.mark.skipif(sys.platform == "win32", reason="Ctrl-C comes otherwise there")
def test_from_the_link_to_ctrl_c(place: Path, tmp_path: Path) -> None:
    """The journal stays as it is, the label is in the file, and the end is clean."""
    labels = tmp_path / "labels.jsonl"
    before = place.read_bytes()
    with running("flagged", "review", str(labels), "--journal", str(place)) as command:
        with opened(command.link) as client:
            assert "1 row" in client.get(PATH).text
            assert "Nothing is left to label" in label(client, "right").text
        code, told = command.end()
    assert code == 0, told
    assert "Traceback" not in told
    assert str(labels) in told
    assert '"label":{"secret_leak":1}' in labels.read_text(encoding="utf-8")
    assert place.read_bytes() == before
    # The terminal goes on where the pages stopped.
    done = CliRunner().invoke(
        app, ["flagged", "label", str(labels), "--journal", str(place)], input="y"
    )
    assert "Nothing is left to label." in done.output


@pytest.mark.skipif(sys.platform == "win32", reason="Ctrl-C comes otherwise there")
def test_the_demo_shows_what_it_kept(tmp_path: Path) -> None:
    """Its own journal, with labels beside it."""
    place = tmp_path / "demo.sqlite3"
    with running("demo", "--fast", "--review", "--journal", str(place)) as command:
        with opened(command.link) as client:
            assert "rows, the newest first" in client.get(PATH).text
            assert "left" in label(client, "right").text
        code, told = command.end()
    assert code == 0, told
    assert (tmp_path / "demo.sqlite3-labels.jsonl").is_file()


class TestRefusals:
    """What it says where it cannot begin."""

    def test_no_journal(self, tmp_path: Path) -> None:
        """Nothing is made."""
        place = tmp_path / "none.sqlite3"
        done = CliRunner().invoke(app, ["flagged", "review", "--journal", str(place)])
        assert done.exit_code == 2
        assert "Nothing has been flagged yet" in done.output
        assert not place.exists()

    def test_a_port_that_is_taken(self, place: Path) -> None:
        """It says to take any other."""
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            taken.listen()
            port = str(taken.getsockname()[1])
            done = CliRunner().invoke(
                app, ["flagged", "review", "--journal", str(place), "--port", port]
            )
        assert done.exit_code == 2
        assert "leave `--port` out" in " ".join(done.output.split())

    def test_labels_that_are_open_elsewhere(self, place: Path, tmp_path: Path) -> None:
        """It does not begin what it could not keep."""
        labels = tmp_path / "labels.jsonl"
        with LineFile(labels, None):
            done = CliRunner().invoke(
                app, ["flagged", "review", str(labels), "--journal", str(place)]
            )
        assert done.exit_code == 2
        assert "another process has" in done.output

    def test_a_file_that_holds_something_else(self, place: Path, tmp_path: Path) -> None:
        """It is left as it is."""
        other = tmp_path / "other.jsonl"
        other.write_text('{"a": 1}\n', encoding="utf-8")
        done = CliRunner().invoke(app, ["flagged", "review", str(other), "--journal", str(place)])
        assert done.exit_code == 2
        assert "has no `label`" in done.output
        assert other.read_text(encoding="utf-8") == '{"a": 1}\n'
