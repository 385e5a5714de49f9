"""`guard scan --engine ray`: the same rows as local processes give, and clear errors."""

from __future__ import annotations

import os
import signal
import subprocess
from contextlib import closing
from typing import TYPE_CHECKING

import pytest

pytest.importorskip("ray", reason="ray is not installed")

import ray
from typer.testing import CliRunner

from guard.adapters.ray import judged
from guard.cli import app
from guard.errors import ConfigurationError
from guard.policy import load_class
from guard.scan.errors import ScanError
from guard.scan.local import judged as by_processes
from guard.scan.reading import lines
from guard.scan.scan import batches
from guard.scan.work import Settings
from tests.scan.logs import SETTINGS, contents, log

if TYPE_CHECKING:
    from pathlib import Path

    from typer.testing import Result

pytestmark = [
    # Ray leaves its processes and their files to the garbage collector,
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    # and warns of its own options when it makes them.
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
]


def run(name: str, out: Path, *arguments: str) -> Result:
    """Run `guard scan` with two workers."""
    given = ["scan", name, "--out", str(out), "--workers", "2", *arguments]
    return CliRunner().invoke(app, given)


@pytest.mark.usefixtures("cluster")
def test_rows_are_those_of_processes(tmp_path: Path) -> None:
    """Row for row the same bytes, bad lines included; one goes on where the other one was."""
    name = log(tmp_path / "log.jsonl", 40)
    first = run(name, tmp_path / "ray", "--engine", "ray", "--limit", "25")
    assert first.exit_code == 2, first.output
    assert run(name, tmp_path / "ray", "--engine", "local").exit_code == 2
    assert run(name, tmp_path / "local", "--engine", "local").exit_code == 2
    assert contents(tmp_path / "ray") == contents(tmp_path / "local")


@pytest.mark.usefixtures("cluster")
def test_results_are_those_of_processes(tmp_path: Path) -> None:
    """Rows, and what the journal would keep, but for times and names."""
    name = log(tmp_path / "log.jsonl", 20)
    given = list(batches(lines([name])))
    by_ray = [each for batch in judged(given, settings=SETTINGS, workers=2) for each in batch]
    local = [each for batch in by_processes(given, SETTINGS, 1) for each in batch]
    assert [each.row for each in by_ray] == [each.row for each in local]
    for one, other in zip(by_ray, local, strict=True):
        if one.record is None or other.record is None:
            assert one.record is other.record
        else:
            assert one.record.response == other.record.response


@pytest.mark.usefixtures("cluster")
def test_a_dead_actor_is_an_error(tmp_path: Path) -> None:
    """It says that a worker died, and that the same command goes on."""
    name = log(tmp_path / "log.jsonl", 2000)
    with closing(judged(batches(lines([name])), settings=SETTINGS, workers=1)) as results:
        next(results)
        for pid in actors():
            os.kill(pid, signal.SIGKILL)
        with pytest.raises(ScanError, match="a worker died"):
            list(results)


def actors() -> list[int]:
    """Return the processes of actors of this process's own Ray."""
    raylets = children(os.getpid(), "raylet")
    return [pid for raylet in raylets for pid in children(raylet, "ray::_Actor")]


def children(pid: int, name: str) -> list[int]:
    """Return the children of a process that are called by a name."""
    listed = subprocess.run(
        ["pgrep", "-P", str(pid), "-f", name], capture_output=True, text=True, check=True
    )
    return [int(line) for line in listed.stdout.split()]


@pytest.mark.usefixtures("cluster")
def test_an_error_of_an_actor_is_the_commands(tmp_path: Path) -> None:
    """A model that cannot be used: the same error as without Ray, and no traceback."""
    settings = Settings(load_class("public"), model=tmp_path)
    given = batches(lines([log(tmp_path / "log.jsonl", 3)]))
    with pytest.raises(ConfigurationError) as raised:
        list(judged(given, settings=settings, workers=1))
    assert "Traceback" not in str(raised.value)


@pytest.mark.usefixtures("cluster")
def test_more_actors_than_cores_are_refused(tmp_path: Path) -> None:
    """They would wait for ever."""
    given = batches(lines([log(tmp_path / "log.jsonl", 3)]))
    with pytest.raises(ScanError, match="--workers 2"):
        list(judged(given, settings=SETTINGS, workers=3))


def test_it_starts_and_stops_a_ray_of_its_own(tmp_path: Path) -> None:
    """Where none is connected one is started, for the scan alone."""
    ray.shutdown()
    result = run(log(tmp_path / "log.jsonl", 6), tmp_path / "out", "--engine", "ray")
    assert result.exit_code == 0, result.output
    assert not ray.is_initialized()
