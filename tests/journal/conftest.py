"""What the journal's tests share: a row to start from, and three databases to keep it in."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pytest

from guard.journal.record import Record
from guard.journal.store import Journal

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

MOMENT = datetime(2025, 3, 4, 5, 6, 7, 890123, tzinfo=UTC)


def new_row(**changes: Any) -> Record:
    """Return a row with a fresh id, every field filled, and `changes` applied."""
    values: dict[str, Any] = {
        "id": uuid4().hex,
        "created": MOMENT,
        "action": "block",
        "delivered": "none",
        "complete": True,
        "security_class": "public",
        "rank": 20,
        "shadow": False,
        "model": "small-model",
        "risks": {"secret_leak": 0.97, "harassment": 0.031, "sexual": 0.02},
        "reasons": ("secret_leak 0.97 is above 0.5",),
        "coverage": {"complete": True, "judged": {"choices[0].content": 48}, "units": 1},
        "findings": ({"category": "secret_leak", "evidence": 7.25, "start": 4, "end": 24},),
        "detectors": {"secrets": "1"},
        "prompt": "What is the key of the test machine?",
        "response": "The key is [redacted].",
        "outcome": "I cannot answer that.",
        "text_mode": "redacted",
        "released": 3,
        "metadata": {"request": "r-17", "tries": 2},
    }
    return Record(**(values | changes))


@pytest.fixture(scope="session")
def row() -> Callable[..., Record]:
    """Return the maker of rows."""
    return new_row


@pytest.fixture(params=["file", "memory", "postgres"])
def journal(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Journal]:
    """Yield an empty journal on each kind of database in turn."""
    opened = Journal(_url(request, tmp_path))
    yield opened
    opened.close()


@pytest.fixture(params=["file", "postgres"])
def shared_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Return the URL of an empty database that several processes can open."""
    return _url(request, tmp_path)


def _url(request: pytest.FixtureRequest, folder: Path) -> str:
    if request.param == "memory":
        return "sqlite://"
    if request.param == "file":
        return str(folder / "journal.sqlite3")
    return str(request.getfixturevalue("postgres_url"))


@pytest.fixture
def postgres_url(postgres_server: Path) -> str:
    """Return the URL of an empty schema on the private PostgreSQL server."""
    import psycopg

    schema = "t" + uuid4().hex
    with psycopg.connect(host=str(postgres_server), user="keeper", dbname="postgres") as connection:
        connection.execute(f"CREATE SCHEMA {schema}".encode())
    return f"postgresql://keeper@/postgres?host={postgres_server}&options=-csearch_path%3D{schema}"


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[Path]:
    """Yield the socket folder of a PostgreSQL server that lives as long as the tests."""
    binaries = _postgres_binaries()
    if binaries is None:
        pytest.skip("no `initdb` and `pg_ctl` here; on Debian and Ubuntu: apt install postgresql")
    pytest.importorskip("psycopg", reason="no psycopg here: pip install 'psycopg[binary]'")
    # The socket's path must stay below 108 bytes, which pytest's own folders may not.
    with tempfile.TemporaryDirectory(prefix="pg") as name, _serving(binaries, Path(name)):
        yield Path(name)


@contextmanager
def _serving(binaries: Path, folder: Path) -> Iterator[None]:
    # PostgreSQL refuses to run as root.
    user = _unprivileged() if os.geteuid() == 0 else None
    if user is not None:
        os.chown(folder, user.pw_uid, user.pw_gid)
    data = f"{folder}/data"
    log = f"{folder}/log"
    options = f"-c listen_addresses= -c unix_socket_directories={folder}"

    def run(*command: str) -> None:
        subprocess.run(
            [str(binaries / command[0]), *command[1:]],
            check=True,
            stdout=subprocess.DEVNULL,
            cwd=folder,
            user=user.pw_uid if user else None,
            group=user.pw_gid if user else None,
            extra_groups=[] if user else None,
        )

    run("initdb", "-D", data, "-U", "keeper", "-A", "trust", "-E", "UTF8", "--locale=C", "-N")
    run("pg_ctl", "-D", data, "-l", log, "-o", options, "-w", "start")
    try:
        yield
    finally:
        run("pg_ctl", "-D", data, "-m", "immediate", "-w", "stop")


def _unprivileged() -> pwd.struct_passwd:
    try:
        return pwd.getpwnam("postgres")
    except KeyError:
        return pwd.getpwnam("nobody")


def _postgres_binaries() -> Path | None:
    found = shutil.which("pg_ctl")
    if found is not None:
        return Path(found).resolve().parent
    # Debian keeps the server's programs out of the search path, one folder a version.
    installed = sorted(Path("/usr/lib/postgresql").glob("*/bin/pg_ctl"))
    return installed[-1].parent if installed else None
