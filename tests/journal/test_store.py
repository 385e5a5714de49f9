"""Rows in real databases: kept whole, kept at once, kept apart, and refused with a mend."""

from __future__ import annotations

import os
import signal
import sqlite3
import stat
import subprocess
import sys
import tempfile
import traceback
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import fields, replace
from datetime import UTC, datetime, timedelta, timezone
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import event, inspect, text

from guard.errors import JournalError, MissingExtraError
from guard.journal import store
from guard.journal.record import Record, storable
from guard.journal.store import SCHEMA_VERSION, Journal, default_url, exists, location

if TYPE_CHECKING:
    from collections.abc import Callable

    Maker = Callable[..., Record]

NOON = datetime(2025, 6, 1, 12, 0, 0, 123456, tzinfo=UTC)
PASSWORD = "over-the-4-hills"
PATIENCE = 120
AWKWARD = (
    "",
    " \t\r\n ",
    "quotes ' \" ` and a \\ and a % and a _",
    "'); DROP TABLE journal; --",
    "שלום, 你好, नमस्ते, e\u0301, 👩‍👩‍👧, \U0001f3f4\U000e0067\U000e007f",
    "bidi \u202e mark, zero\u200bwidth, line\u2028separator, \ufeff, \x1b[31m, \x7f\x85",
    "NUL \x00 and \ud83d a lone half, \udcff",
    "long " * 200_000,
)
ANY_TEXT = st.text(st.characters() | st.sampled_from(["\x00", "\ud800", "\udfff", "\r"]))

# What a process of its own needs to make rows: it does not see the tests' helpers.
PRELUDE = """
import os, sys
from datetime import datetime, UTC
from uuid import uuid4
from guard.journal.record import Record
from guard.journal.store import Journal

def row():
    return Record(
        id=uuid4().hex, created=datetime.now(UTC), action="block", delivered="none",
        complete=True, security_class="public", rank=1, shadow=False, model="m",
        risks={"exposure": 0.5}, reasons=(), coverage={}, findings=(), detectors={},
        prompt=None, response="text", outcome=None, text_mode="full",
    )
"""


def start(script: str, *arguments: str) -> subprocess.Popen[str]:
    """Start a Python process that runs `script` after `PRELUDE`."""
    return subprocess.Popen(
        [sys.executable, "-c", PRELUDE + script, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def alone(script: str, path: Path) -> subprocess.CompletedProcess[str]:
    """Run `script` after `PRELUDE` in a process in which every warning is an error."""
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", PRELUDE + script, str(path)],
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE,
    )


def ids(journal: Journal, **filters: Any) -> list[str]:
    """Return the ids of the rows that match, in the order in which they come."""
    return [record.id for record in journal.list(**filters)]


class TestRoundTrip:
    """What is written is what is read."""

    def test_every_field(self, journal: Journal, row: Maker) -> None:
        """A row comes back equal, field by field."""
        record = row(risks={"exposure": 0.123456789012345, "own category": 1.0, "sexual": 0.0})
        journal.write(record)
        read = journal.get(record.id)
        for field in fields(Record):
            assert getattr(read, field.name) == getattr(record, field.name), field.name

    @pytest.mark.parametrize("said", AWKWARD, ids=lambda said: repr(said[:8]))
    def test_awkward_text(self, journal: Journal, row: Maker, said: str) -> None:
        """Whatever was said comes back, but for NUL and lone surrogates, which are replaced."""
        parts = {"prompt": said, "response": said, "outcome": said, "model": said}
        record = row(**parts, reasons=(said,), metadata={said: [said]})
        journal.write(record)
        read, expected = journal.get(record.id), storable(said)
        assert {name: getattr(read, name) for name in parts} == dict.fromkeys(parts, expected)
        assert read.reasons == (expected,)
        assert read.metadata == {expected: [expected]}

    @given(said=ANY_TEXT, key=ANY_TEXT)
    def test_any_text(self, row: Maker, said: str, key: str) -> None:
        """No text keeps a row from being written, in whatever field it stands."""
        with closing(Journal("sqlite://")) as journal:
            journal.write(
                row(response=said, security_class=key, metadata={key: said}, risks={key: 1.0})
            )
            (read,) = journal.list(security_class=key, category=key)
        assert read.response == storable(said)
        assert read.metadata == {storable(key): storable(said)}

    def test_no_text_is_not_empty_text(self, journal: Journal, row: Maker) -> None:
        """`None` (nothing kept) and `""` (nothing said) stay apart."""
        record = row(prompt=None, response="", outcome=None)
        journal.write(record)
        read = journal.get(record.id)
        assert (read.prompt, read.response, read.outcome) == (None, "", None)

    def test_a_moment_of_another_zone(self, journal: Journal, row: Maker) -> None:
        """A time comes back as the same moment in UTC, to the microsecond."""
        moment = NOON.astimezone(timezone(timedelta(hours=5, minutes=45)))
        record = row(created=moment)
        journal.write(record)
        assert journal.get(record.id).created == moment
        assert journal.get(record.id).created.utcoffset() == timedelta()

    def test_metadata_that_json_does_not_know(self, journal: Journal, row: Maker) -> None:
        """Odd values of the application become text and never cost the row."""
        deep: list[Any] = []
        deep.append(deep)
        odd = {
            "when": NOON,
            "set": {1},
            "number": float("nan"),
            "huge": 10**5000,
            "rude": _Rude(),
            ("a", 1): b"\xff",
            "deep": deep,
        }
        record = row(metadata=odd)
        journal.write(record)
        read = journal.get(record.id).metadata
        assert set(read) == {"when", "set", "number", "huge", "rude", "('a', 1)", "deep"}
        assert read["when"].startswith("2025-06-01")
        assert read["set"] == [1]
        assert read["number"] == "nan"
        assert read["rude"] == "<_Rude>"

    def test_update_replaces_everything(self, journal: Journal, row: Maker) -> None:
        """An updated row has the new values alone, for filters too."""
        first = row(complete=False, risks={"exposure": 0.9, "sexual": 0.8})
        journal.write(first)
        second = replace(first, complete=True, action="flag", risks={"sexual": 0.7})
        journal.update(second)
        assert journal.get(first.id) == second
        assert ids(journal, category="exposure") == []
        assert ids(journal, category="sexual", minimum=0.75) == []
        assert ids(journal, category="sexual", minimum=0.7) == [first.id]
        assert journal.count() == 1

    def test_update_of_no_row(self, journal: Journal, row: Maker) -> None:
        """A row that was never written cannot be updated, and is not made."""
        with pytest.raises(JournalError, match="no row"):
            journal.update(row())
        assert journal.count() == 0

    def test_an_id_is_taken_once(self, journal: Journal, row: Maker) -> None:
        """A second row of the same id is refused and the first one stays."""
        record = row(response="the first")
        journal.write(record)
        with pytest.raises(JournalError, match="cannot be written"):
            journal.write(replace(record, response="the second"))
        assert journal.get(record.id).response == "the first"

    @pytest.mark.parametrize(
        "wrong",
        [{"released": 2**70}, {"created": NOON.replace(tzinfo=None)}, {"risks": {"sexual": "x"}}],
        ids=["too large", "no zone", "no number"],
    )
    def test_a_row_that_breaks_its_contract(
        self, journal: Journal, row: Maker, wrong: dict[str, Any]
    ) -> None:
        """A row that cannot be held is a `JournalError`, leaves nothing, and the next is kept."""
        with pytest.raises(JournalError):
            journal.write(row(**wrong))
        journal.write(row())
        assert journal.count() == 1


class TestGet:
    """A row by the beginning of its id."""

    @pytest.fixture
    def pair(self, journal: Journal, row: Maker) -> Journal:
        """Return a journal of two rows whose ids begin alike."""
        journal.write(row(id="abcd1" + "0" * 27))
        journal.write(row(id="abcd2" + "0" * 27))
        return journal

    @pytest.mark.parametrize("prefix", ["abcd1", "abcd1" + "0" * 27, "ABCD1"])
    def test_found(self, pair: Journal, prefix: str) -> None:
        """A beginning that is one row's alone finds it, in either case of letters."""
        assert pair.get(prefix).id == "abcd1" + "0" * 27

    @pytest.mark.parametrize(
        ("prefix", "problem"),
        [
            ("abcd", "several rows"),
            ("abcd3", "no row"),
            ("%%%%", "no row"),
            ("____", "no row"),
            ("abcd\udcff", "no row"),
            ("abc", "at least 4"),
            ("", "at least 4"),
        ],
    )
    def test_not_found(self, pair: Journal, prefix: str, problem: str) -> None:
        """None or several is an error that says which; wildcards are ordinary characters."""
        with pytest.raises(JournalError, match=problem):
            pair.get(prefix)


class TestList:
    """Rows by what they are."""

    @pytest.fixture
    def filled(self, journal: Journal, row: Maker) -> Journal:
        """Return a journal of four rows, an hour apart, `d` the newest."""
        kinds = [
            ("a", "flag", "public", {"exposure": 0.4, "sexual": 0.9}),
            ("b", "block", "public", {"exposure": 0.6}),
            ("c", "rewrite", "critical", {"exposure": 0.8}),
            ("d", "block", "critical", {}),
        ]
        for hours, (letter, action, security_class, risks) in enumerate(kinds):
            journal.write(
                row(
                    id=letter * 32,
                    created=NOON + timedelta(hours=hours),
                    action=action,
                    security_class=security_class,
                    risks=risks,
                )
            )
        return journal

    @pytest.mark.parametrize(
        ("filters", "expected"),
        [
            ({}, "dcba"),
            ({"action": "block"}, "db"),
            ({"action": "nonsense"}, ""),
            ({"security_class": "critical"}, "dc"),
            ({"category": "exposure"}, "cb"),
            ({"category": "exposure", "minimum": 0.6}, "cb"),
            ({"category": "exposure", "minimum": 0.0}, "cba"),
            ({"category": "sexual", "action": "flag"}, "a"),
            ({"category": "violence"}, ""),
            ({"since": NOON + timedelta(hours=1)}, "dcb"),
            ({"since": NOON + timedelta(hours=1, microseconds=1)}, "dc"),
            ({"until": NOON + timedelta(hours=1)}, "a"),
            ({"since": NOON, "until": NOON}, ""),
            ({"since": NOON + timedelta(hours=1), "until": NOON + timedelta(hours=3)}, "cb"),
            ({"since": (NOON + timedelta(hours=3)).astimezone(timezone(timedelta(hours=9)))}, "d"),
            ({"action": "block", "security_class": "critical"}, "d"),
            ({"security_class": "\udcff"}, ""),
        ],
    )
    def test_filters(self, filled: Journal, filters: dict[str, Any], expected: str) -> None:
        """Each filter keeps its rows, together all of them, newest first; `count` agrees."""
        assert "".join(found[0] for found in ids(filled, **filters)) == expected
        assert filled.count(**filters) == len(expected)

    @pytest.mark.parametrize(("limit", "expected"), [(0, ""), (1, "d"), (3, "dcb"), (9, "dcba")])
    def test_limit(self, filled: Journal, limit: int, expected: str) -> None:
        """No more rows than the limit come, and the newest do."""
        assert "".join(found[0] for found in ids(filled, limit=limit)) == expected

    @pytest.mark.parametrize("limit", [None, 1, 4, 5, 6, 12, 13, 100])
    def test_pages_join_without_a_seam(
        self, journal: Journal, row: Maker, monkeypatch: pytest.MonkeyPatch, limit: int | None
    ) -> None:
        """Rows of the same moment come once each, in the order of ids, over many pages."""
        monkeypatch.setattr(store, "_PAGE", 5)
        records = [row(created=NOON + timedelta(seconds=n // 6)) for n in range(13)]
        for record in records:
            journal.write(record)
        expected = sorted(records, key=lambda r: (-r.created.timestamp(), r.id))
        assert ids(journal, limit=limit) == [record.id for record in expected][:limit]

    def test_writing_while_reading(
        self, journal: Journal, row: Maker, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A reader may write between rows: it sees each row that was there, and no new one."""
        monkeypatch.setattr(store, "_PAGE", 3)
        before = [row(created=NOON + timedelta(seconds=n)) for n in range(10)]
        for record in before:
            journal.write(record)
        seen = []
        for record in journal.list():
            seen.append(record.id)
            journal.write(row(created=NOON + timedelta(hours=1)))
            journal.update(replace(record, action="flag"))
        assert seen == [record.id for record in reversed(before)]
        assert journal.count(action="flag") == 10
        assert journal.count() == 20

    def test_a_category_is_not_sorted_for_each_page(
        self, journal: Journal, row: Maker, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """All rows of a category come in order, and few queries look for them."""
        monkeypatch.setattr(store, "_PAGE", 2)
        records = [row(created=NOON + timedelta(seconds=n)) for n in range(60)]
        for record in records:
            journal.write(record)
        queries: list[str] = []
        event.listen(journal._engine, "before_cursor_execute", lambda *a: queries.append(a[2]))
        found = ids(journal, category="secret_leak")
        assert found == [record.id for record in reversed(records)]
        assert sum("journal_risk" in query for query in queries) <= 4

    def test_what_is_purged_meanwhile_is_passed_over(
        self, journal: Journal, row: Maker, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Rows that are deleted while others are read are left out, and the others come."""
        monkeypatch.setattr(store, "_PAGE", 2)
        records = [row(created=NOON + timedelta(seconds=n)) for n in range(30)]
        for record in records:
            journal.write(record)
        reading = journal.list()
        begun = [record.id for record in islice(reading, 3)]
        assert sum(journal.purge(until=NOON + timedelta(seconds=25), since=NOON)) == 25
        rest = [record.id for record in reading]
        kept = [record.id for record in reversed(records[25:])]
        assert begun + rest == kept

    def test_a_reader_that_stops_early_holds_nothing(
        self, journal: Journal, row: Maker, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Many half-read lists leave the journal free for others."""
        monkeypatch.setattr(store, "_PAGE", 2)
        monkeypatch.setattr(store, "BUSY_SECONDS", 1)
        for _ in range(5):
            journal.write(row())
        half_read = [journal.list() for _ in range(30)]
        assert all(len(list(islice(each, 3))) == 3 for each in half_read)
        journal.write(row())
        assert journal.count() == 6


class TestPurge:
    """Rows that are deleted."""

    @pytest.mark.parametrize(
        "filters",
        [
            {},
            {"until": NOON},
            {"action": "block"},
            {"category": "secret_leak", "minimum": 0.6},
            {"security_class": "nobody"},
        ],
    )
    def test_what_is_listed_goes(
        self, journal: Journal, row: Maker, filters: dict[str, Any]
    ) -> None:
        """Whatever `list` yields for the same filters is gone, and all else stays."""
        for hours in range(-3, 3):
            action = "block" if hours % 2 else "flag"
            risks = {"secret_leak": 0.5 + hours / 10}
            moment = NOON + timedelta(hours=hours)
            journal.write(row(action=action, created=moment, risks=risks))
        before, listed = set(ids(journal)), set(ids(journal, **filters))
        assert sum(journal.purge(**filters)) == len(listed)
        assert set(ids(journal)) == before - listed
        assert not ids(journal, **filters)

    def test_many(self, journal: Journal, row: Maker, monkeypatch: pytest.MonkeyPatch) -> None:
        """They go a few at a time; what was deleted before it stops early stays so."""
        monkeypatch.setattr(store, "PURGED_AT_ONCE", 2)
        for _ in range(7):
            journal.write(row(created=NOON))
        assert list(islice(journal.purge(), 2)) == [2, 2]
        assert journal.count() == 3
        assert list(journal.purge()) == [2, 1]

    def test_no_text_stays_in_the_file(self, tmp_path: Path, row: Maker) -> None:
        """Neither the file nor its log holds what was deleted."""
        with closing(Journal(tmp_path / "journal.sqlite3")) as journal:
            for number in range(40):
                journal.write(row(created=NOON, response=f"amber lantern {number} " * 300))
            assert sum(journal.purge()) == 40
            left = b"".join(path.read_bytes() for path in tmp_path.iterdir())
        assert b"amber lantern" not in left


class TestDurability:
    """A row is there once `write` has returned."""

    def test_settings_of_every_connection(self, tmp_path: Path) -> None:
        """SQLite logs ahead and waits for the disk, on each connection of the pool."""
        journal = Journal(tmp_path / "journal.sqlite3")
        with journal._engine.connect() as first, journal._engine.connect() as second:
            for connection in (first, second):
                assert connection.exec_driver_sql("PRAGMA journal_mode").scalar() == "wal"
                assert connection.exec_driver_sql("PRAGMA synchronous").scalar() == 2  # FULL
                assert connection.exec_driver_sql("PRAGMA foreign_keys").scalar() == 1
        journal.close()

    def test_killed_right_after_write(self, shared_url: str) -> None:
        """Every row whose `write` returned survives `kill -9` of the process."""
        script = """
journal = Journal(sys.argv[1])
while True:
    record = row()
    journal.write(record)
    print(record.id, flush=True)
"""
        with start(script, shared_url) as writer:
            assert writer.stdout is not None
            written = [writer.stdout.readline().strip() for _ in range(20)]
            writer.send_signal(signal.SIGKILL)
            # The last line may have been cut off within its id.
            written += [line.strip() for line in writer.stdout if line.endswith("\n")]
        assert writer.returncode == -signal.SIGKILL
        with closing(Journal(shared_url)) as journal:
            assert set(written) <= set(ids(journal))
            assert all(record.response == "text" for record in journal.list())

    def test_killed_right_after_update(self, shared_url: str) -> None:
        """So does an updated row."""
        script = """
from dataclasses import replace
journal = Journal(sys.argv[1])
record = row()
journal.write(record)
journal.update(replace(record, response="changed"))
print(record.id, flush=True)
sys.stdin.read()
"""
        with start(script, shared_url) as writer:
            assert writer.stdout is not None
            written = writer.stdout.readline().strip()
            writer.kill()
        with closing(Journal(shared_url)) as journal:
            assert journal.get(written).response == "changed"

    def test_reopened_after_close(self, shared_url: str, row: Maker) -> None:
        """A closed journal opens again when it is used, with its rows."""
        journal = Journal(shared_url)
        journal.write(row())
        journal.close()
        journal.write(row())
        assert journal.count() == 2
        journal.close()

    def test_dropped_unclosed(self, tmp_path: Path, row: Maker) -> None:
        """A journal that is merely dropped closes its file at once, as `close` does."""
        journal = Journal(tmp_path / "journal.sqlite3")
        journal.write(row())
        assert len(list(tmp_path.iterdir())) == 3  # with the log and its index
        del journal
        assert [path.name for path in tmp_path.iterdir()] == ["journal.sqlite3"]

    def test_unclosed_at_the_end(self, tmp_path: Path) -> None:
        """A process that ends with an open journal has no warning of it, and leaves one file."""
        script = """
kept = [Journal(sys.argv[1])]
kept[0].write(row())
kept.append(kept)  # so that it lives to the very end
"""
        ended = alone(script, tmp_path / "journal.sqlite3")
        assert (ended.returncode, ended.stderr) == (0, "")
        assert [path.name for path in tmp_path.iterdir()] == ["journal.sqlite3"]


class TestAtOnce:
    """Many writers at a time."""

    def test_threads(self, journal: Journal, row: Maker) -> None:
        """Eight threads write and update, and nothing is lost or mixed up."""

        def work(number: int) -> list[str]:
            written = []
            for _ in range(20):
                record = row(model=f"m{number}", complete=False)
                journal.write(record)
                journal.update(replace(record, complete=True))
                written.append(record.id)
            return written

        with ThreadPoolExecutor(8) as pool:
            written = dict(enumerate(pool.map(work, range(8))))
        assert journal.count() == 160
        for record in journal.list():
            assert record.complete
            assert record.id in written[int(record.model[1:])]
            assert set(record.risks) == {"secret_leak", "harassment", "sexual"}

    def test_processes_open_and_write(self, shared_url: str) -> None:
        """Four processes that come to an empty place at the same moment all get to write."""
        script = """
sys.stdin.readline()
journal = Journal(sys.argv[1])
for _ in range(20):
    record = row()
    journal.write(record)
    print(record.id)
"""
        writers = [start(script, shared_url) for _ in range(4)]
        for writer in writers:
            assert writer.stdin is not None
            writer.stdin.write("go\n")
            writer.stdin.flush()
        written = [
            line for writer in writers for line in writer.communicate(timeout=PATIENCE)[0].split()
        ]
        assert [writer.returncode for writer in writers] == [0] * 4
        with closing(Journal(shared_url)) as journal:
            assert sorted(ids(journal)) == sorted(written)
            assert len(written) == 80

    @pytest.mark.skipif(not hasattr(os, "fork"), reason="no `fork` on this system")
    def test_forked_processes(self, shared_url: str) -> None:
        """A server that forks after opening writes from parent and children alike."""
        script = """
journal = Journal(sys.argv[1])
journal.write(row())
children = []
for _ in range(3):
    child = os.fork()
    if not child:
        for _ in range(20):
            journal.write(row())
        os._exit(0)
    children.append(child)
for _ in range(20):
    journal.write(row())
sys.exit(any(os.waitpid(child, 0)[1] for child in children))
"""
        with start(script, shared_url) as parent:
            parent.communicate(timeout=PATIENCE)
        assert parent.returncode == 0
        with closing(Journal(shared_url)) as journal:
            assert journal.count() == 81

    @pytest.mark.skipif(not hasattr(os, "fork"), reason="no `fork` on this system")
    def test_a_forked_process_closes_nothing_of_its_parent(self, tmp_path: Path) -> None:
        """No connection is closed but where it was opened, not even at a child's end."""
        script = """
import gc
journal = Journal(sys.argv[1])
journal.write(row())
child = os.fork()
gc.collect()
journal.write(row())
if child:
    sys.exit(os.waitpid(child, 0)[1])
"""
        ended = alone(script, tmp_path / "journal.sqlite3")
        assert (ended.returncode, ended.stderr) == (0, "")
        with closing(Journal(tmp_path / "journal.sqlite3")) as journal:
            assert journal.count() == 3

    @pytest.mark.skipif(not hasattr(os, "fork"), reason="no `fork` on this system")
    def test_forked_while_others_write(self, shared_url: str) -> None:
        """A process forked in the middle of other threads' writes can write, and loses no row."""
        script = """
import signal, threading
journal = Journal(sys.argv[1])
ends = threading.Event()

def keep_writing():
    while not ends.is_set():
        journal.write(row())
        rows.append(1)

rows = []
writers = [threading.Thread(target=keep_writing) for _ in range(2)]
for writer in writers:
    writer.start()
for _ in range(4):
    child = os.fork()
    if not child:
        signal.alarm(20)  # ends who waits for a lock that nobody lets go of
        journal.write(row())
        os._exit(0)
    failed = os.waitpid(child, 0)[1] != 0
    if failed:
        break
ends.set()
for writer in writers:
    writer.join()
print(len(rows) + 4)
sys.exit(failed)
"""
        with start(script, shared_url) as parent:
            written, _ = parent.communicate(timeout=PATIENCE)
        assert parent.returncode == 0
        with closing(Journal(shared_url)) as journal:
            assert journal.count() == int(written)

    def test_a_reader_does_not_stop_a_writer(self, shared_url: str, row: Maker) -> None:
        """While another process's transaction reads, rows are written."""
        with closing(Journal(shared_url)) as journal, closing(Journal(shared_url)) as other:
            journal.write(row())
            with other._engine.connect() as reading:
                count = text("SELECT count(*) FROM journal")
                assert reading.execute(count).scalar() == 1
                journal.write(row())
            assert other.count() == 2


class TestPlace:
    """Where the rows are, and who may read them there."""

    def test_files_are_their_owners_alone(self, tmp_path: Path, row: Maker) -> None:
        """The database, its log and a folder made for it are closed to others, whatever umask."""
        path = tmp_path / "made" / "journal.sqlite3"
        before = os.umask(0)
        try:
            journal = Journal(path)
            journal.write(row())
            files = {each.name: stat.S_IMODE(each.stat().st_mode) for each in path.parent.iterdir()}
        finally:
            os.umask(before)
        journal.close()
        assert set(files) == {path.name, f"{path.name}-wal", f"{path.name}-shm"}
        assert set(files.values()) == {0o600}
        assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700

    def test_a_path_with_awkward_characters(self, tmp_path: Path, row: Maker) -> None:
        """Spaces, `?`, `#` and `%` in a path are parts of its name."""
        path = tmp_path / "a b?mode=ro#c%20d é" / "j.db"
        with closing(Journal(path)) as journal:
            journal.write(row())
        assert exists(path)
        assert [each.name for each in path.parent.iterdir()] == ["j.db"]

    def test_environment_names_the_default(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """`GUARD_JOURNAL` names the journal; without it the user's state folder holds it."""
        monkeypatch.setenv("GUARD_JOURNAL", "sqlite:///elsewhere.db")
        assert default_url() == "sqlite:///elsewhere.db"
        assert location() == "elsewhere.db"
        monkeypatch.setenv("GUARD_JOURNAL", "")
        assert Path(default_url()).parts[-2:] == ("clearance", "journal.sqlite3")

    def test_home_is_expanded(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        """`~` in a path is the user's home."""
        monkeypatch.setenv("HOME", str(tmp_path))
        assert location("~/j.db") == str(tmp_path / "j.db")

    def test_memory_is_apart(self, row: Maker) -> None:
        """Two journals in memory do not see each other's rows."""
        with closing(Journal("sqlite://")) as one, closing(Journal("sqlite://")) as other:
            one.write(row())
            assert (one.count(), other.count()) == (1, 0)


class TestExists:
    """Looking for a journal changes nothing."""

    def test_nowhere(self, tmp_path: Path) -> None:
        """A place without a journal has none afterwards either."""
        assert not exists(tmp_path / "folder" / "journal.sqlite3")
        assert list(tmp_path.iterdir()) == []
        assert not exists("sqlite://")

    def test_on_each_database(self, shared_url: str) -> None:
        """It is there once it was opened, also for those who look while it is open."""
        assert not exists(shared_url)
        with closing(Journal(shared_url)):
            assert exists(shared_url)
        assert exists(shared_url)

    def test_another_programs_database(self, tmp_path: Path) -> None:
        """Neither an empty file nor another program's database is a journal, or changed."""
        empty, other = tmp_path / "empty", tmp_path / "other.db"
        empty.touch()
        with closing(sqlite3.connect(other)) as connection:
            connection.execute("CREATE TABLE things (name)")
        before = other.read_bytes()
        assert not exists(empty)
        assert not exists(other)
        assert (empty.read_bytes(), other.read_bytes()) == (b"", before)
        assert len(list(tmp_path.iterdir())) == 2

    def test_no_database(self, tmp_path: Path) -> None:
        """A file of another kind and a folder are errors, not empty journals."""
        page = tmp_path / "page.txt"
        page.write_text("not a database, but long enough to look at" * 50, encoding="utf-8")
        for place in (page, tmp_path):
            with pytest.raises(JournalError, match="cannot be read"):
                exists(place)


class TestReading:
    """A journal that is only looked at."""

    @pytest.mark.parametrize("in_use", [False, True])
    def test_takes_no_right_to_write(self, row: Maker, *, in_use: bool) -> None:
        """Whoever may read the file and not write it lists its rows, and leaves nothing beside."""
        script = """
from typer.testing import CliRunner
from guard.cli import flagged
from guard.journal import export
list = ["list", "--json", "--journal"]
CliRunner().invoke(flagged.app, [*list, "sqlite://"])  # loads all while this user may
if os.geteuid() == 0:
    os.setegid(65534)
    os.seteuid(65534)
print(CliRunner().invoke(flagged.app, [*list, sys.argv[1]]).output)
"""
        # Not in pytest's folder, which other users may not even enter.
        with tempfile.TemporaryDirectory() as name:
            folder, path = Path(name), Path(name) / "journal.sqlite3"
            with closing(Journal(path)) as journal:
                record = row()
                journal.write(record)
                if not in_use:
                    journal.close()
                for each in folder.iterdir():
                    each.chmod(0o444)
                before = sorted(folder.iterdir())
                folder.chmod(0o555)
                with start(script, str(path)) as process:
                    output = process.communicate(timeout=PATIENCE)[0]
                folder.chmod(0o755)
                assert sorted(folder.iterdir()) == before
        assert record.id in output

    def test_sees_what_is_written_meanwhile(self, tmp_path: Path, row: Maker) -> None:
        """A process that begins to write after a look does not make the next look fail or stale."""
        path = tmp_path / "journal.sqlite3"
        Journal(path).close()
        with closing(Journal(path, reading=True)) as reading:
            assert reading.count() == 0
            with closing(Journal(path)) as journal:
                journal.write(row())
                assert reading.count() == 1
            assert reading.count() == 1
            with pytest.raises(JournalError, match="readonly"):
                reading.write(row())

    def test_makes_nothing(self, shared_url: str, tmp_path: Path) -> None:
        """Where there is no journal, reading it is an error and leaves none."""
        before = sorted(tmp_path.iterdir())
        with pytest.raises(JournalError):
            Journal(shared_url, reading=True)
        assert sorted(tmp_path.iterdir()) == before
        assert not exists(shared_url)


class TestRefused:
    """What cannot be done says why and how to mend it."""

    def test_a_newer_schema(self, shared_url: str) -> None:
        """A database of a newer release is refused and left as it is."""
        newer = SCHEMA_VERSION + 1
        with closing(Journal(shared_url)) as journal, journal._engine.begin() as connection:
            connection.execute(text("DROP TABLE journal_risk"))
            connection.execute(text(f"UPDATE journal_version SET version = {newer}"))
        with pytest.raises(JournalError, match=f"version {newer}.*upgrade clearance-guard"):
            Journal(shared_url)
        with closing(_raw(shared_url)) as raw, raw._engine.connect() as connection:
            assert set(inspect(connection).get_table_names()) == {"journal", "journal_version"}

    @pytest.mark.parametrize("place", ["file/journal.sqlite3", "folder", "file"])
    def test_an_unusable_place(self, tmp_path: Path, place: str) -> None:
        """Below a file, on a folder, in a file of another kind: an error that names the mend."""
        (tmp_path / "folder").mkdir()
        (tmp_path / "file").write_text("no database " * 100, encoding="utf-8")
        with pytest.raises(JournalError, match="GUARD_JOURNAL") as caught:
            Journal(tmp_path / place)
        assert str(tmp_path / place) in str(caught.value)

    def test_a_read_only_folder(self) -> None:
        """Where this user may not write, opening fails with the mend."""
        script = """
from guard.errors import JournalError
Journal("sqlite://").close()  # loads the driver while this user may still read all files
if os.geteuid() == 0:
    os.setegid(65534)
    os.seteuid(65534)
try:
    Journal(sys.argv[1])
except JournalError as error:
    print(error)
"""
        # Not in pytest's folder, which other users may not even enter.
        with tempfile.TemporaryDirectory() as folder:
            Path(folder).chmod(0o555)
            with start(script, f"{folder}/journal.sqlite3") as process:
                output = process.communicate(timeout=PATIENCE)[0]
            assert list(Path(folder).iterdir()) == []
        assert "Permission denied" in output
        assert "may be written" in output

    def test_a_full_disk(self, tmp_path: Path) -> None:
        """Where there is no room a write fails, and the rows before it stay readable."""
        path = str(tmp_path / "journal.sqlite3")
        script = """
import resource
from dataclasses import replace
from guard.errors import JournalError
journal = Journal(sys.argv[1])
journal.write(row())
resource.setrlimit(resource.RLIMIT_FSIZE, (400_000, 400_000))
try:
    for _ in range(50):
        journal.write(replace(row(), response="x" * 50_000))
except JournalError as error:
    print(error)
"""
        with start(script, path) as writer:
            output = writer.communicate(timeout=PATIENCE)[0]
        assert writer.returncode == 0
        assert "has room" in output
        with closing(Journal(path)) as journal:
            assert 1 <= journal.count() < 51

    def test_a_lock_that_is_never_released(
        self, tmp_path: Path, row: Maker, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A writer waits for its time and then gives up with an error."""
        monkeypatch.setattr(store, "BUSY_SECONDS", 0.2)
        path = tmp_path / "journal.sqlite3"
        with closing(Journal(path)) as journal, closing(sqlite3.connect(path)) as other:
            other.execute("BEGIN IMMEDIATE")
            with pytest.raises(JournalError, match="locked"):
                journal.write(row())
            other.rollback()
            journal.write(row())

    @pytest.mark.parametrize("replaced", [False, True])
    def test_a_file_that_was_taken_away(
        self, tmp_path: Path, row: Maker, *, replaced: bool
    ) -> None:
        """Rows that nobody would find again are no rows; with the file back, all is as before."""
        path, away = tmp_path / "journal.sqlite3", tmp_path / "rotated.sqlite3"
        with closing(Journal(path)) as journal:
            journal.write(row())
            path.rename(away)
            if replaced:
                path.touch()
            for attempt in (lambda: journal.write(row()), journal.count):
                with pytest.raises(JournalError, match=r"removed or replaced.*start again"):
                    attempt()
            assert path.exists() == replaced
            away.replace(path)
            journal.write(row())
            assert journal.count() == 2

    def test_a_table_that_stays_locked(
        self, postgres_url: str, row: Maker, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """PostgreSQL is not waited for without end: the row is refused, the next one written."""
        monkeypatch.setattr(store, "BUSY_SECONDS", 0.2)
        with closing(Journal(postgres_url)) as journal, closing(Journal(postgres_url)) as other:
            with other._engine.begin() as connection:
                connection.execute(text("LOCK TABLE journal IN ACCESS EXCLUSIVE MODE"))
                with pytest.raises(JournalError, match="timeout"):
                    journal.write(row())
            journal.write(row())
            assert journal.count() == 1

    def test_a_damaged_row(self, journal: Journal, row: Maker) -> None:
        """A row that another program broke is named, and is no crash."""
        record = row()
        journal.write(record)
        with journal._engine.begin() as connection:
            connection.execute(text("UPDATE journal SET coverage = '{half'"))
        with pytest.raises(JournalError, match=f"{record.id}.*damaged"):
            journal.get(record.id)
        with pytest.raises(JournalError, match="damaged"):
            list(journal.list())

    def test_errors_carry_no_text_of_a_row(self, journal: Journal, row: Maker) -> None:
        """Not even the traceback of a failed write quotes what was said."""
        record = row(response="a very private answer")
        journal.write(record)
        with pytest.raises(JournalError) as caught:
            journal.write(record)
        assert "private" not in "".join(traceback.format_exception(caught.value))
        nothing: Any = None
        with pytest.raises(JournalError) as caught:
            journal.write(row(delivered=nothing, response="a very private answer"))
        # PostgreSQL's own message goes on with the whole row.
        assert "private" not in str(caught.value)


class TestPassword:
    """A password in the URL is never shown."""

    @pytest.mark.parametrize(
        "url",
        [
            f"postgresql://keeper:{PASSWORD}@127.0.0.1:1/rows",
            f"postgresql://keeper@127.0.0.1:1/rows?password={PASSWORD}",
            f"postgresql://keeper:{PASSWORD}",
            f"postgresql://keeper:{PASSWORD}@127.0.0.1:port/rows",
            f"nonsense://keeper:{PASSWORD}@127.0.0.1/rows",
            f"oracle+oracledb://keeper:{PASSWORD}@127.0.0.1/rows",
        ],
    )
    def test_not_in_errors(self, url: str) -> None:
        """An unreachable server, a missing driver and a wrong URL fail without naming it."""
        for attempt in (Journal, exists):
            with pytest.raises(JournalError) as caught:
                attempt(url)
            assert PASSWORD not in "".join(traceback.format_exception(caught.value))

    def test_not_in_repr_or_location(self) -> None:
        """Neither the journal's `repr` nor its place shows it."""
        for url in (
            f"postgresql://keeper:{PASSWORD}@host/rows",
            f"postgresql://keeper@host/rows?password={PASSWORD}&sslmode=require",
        ):
            journal = Journal.__new__(Journal)
            journal._url = store._parse(url)
            shown = repr(journal) + journal.location + location(url)
            assert PASSWORD not in shown
            assert "keeper" in shown
            assert "***" in shown


class TestDrivers:
    """Databases beside SQLite."""

    def test_a_missing_driver_names_the_extra(self) -> None:
        """PostgreSQL without psycopg says what to install."""
        script = """
from guard.errors import MissingExtraError
sys.modules["psycopg"] = None
try:
    Journal("postgresql://keeper@127.0.0.1:1/rows")
except MissingExtraError as error:
    print(error)
"""
        with start(script) as process:
            assert (
                "pip install 'clearance-guard[postgres]'"
                in process.communicate(timeout=PATIENCE)[0]
            )

    def test_an_unknown_driver(self) -> None:
        """Another database's missing driver is named, and no extra of ours is promised."""
        with pytest.raises(JournalError, match="oracledb") as caught:
            Journal("oracle+oracledb://keeper@127.0.0.1/rows")
        assert not isinstance(caught.value, MissingExtraError)

    def test_a_database_of_another_encoding(self, postgres_server: Path, row: Maker) -> None:
        """One that cannot hold every text is refused at once; one that takes any bytes will do."""
        import psycopg

        names = {encoding: "d" + uuid4().hex for encoding in ("LATIN1", "SQL_ASCII")}
        with psycopg.connect(
            host=str(postgres_server), user="keeper", dbname="postgres", autocommit=True
        ) as connection:
            for encoding, name in names.items():
                making = f"CREATE DATABASE {name} ENCODING '{encoding}' TEMPLATE template0"
                connection.execute(making.encode())
        urls = {e: f"postgresql://keeper@/{n}?host={postgres_server}" for e, n in names.items()}
        with pytest.raises(JournalError, match=r"LATIN1.*ENCODING 'UTF8'"):
            Journal(urls["LATIN1"])
        with closing(Journal(urls["SQL_ASCII"])) as journal:
            record = row(response="basil \N{HERB}, βασιλικός")
            journal.write(record)
            assert journal.get(record.id) == record

    def test_nothing_stays_behind_in_a_session(self, postgres_url: str, row: Maker) -> None:
        """A pooler may give the session to anybody after each transaction, as PgBouncer does."""
        with closing(Journal(postgres_url)) as journal:
            for _ in range(10):
                journal.write(row())
            with journal._engine.connect() as connection:
                prepared = text("SELECT count(*) FROM pg_prepared_statements")
                timeout = connection.execute(text("SHOW statement_timeout")).scalar()
                assert (connection.execute(prepared).scalar(), timeout) == (0, "0")

    def test_a_server_that_wants_transactions_in_a_row(self, postgres_url: str, row: Maker) -> None:
        """Threads that write at once are no conflict, whatever the server's own isolation is."""
        url = postgres_url + "%20-cdefault_transaction_isolation%3Dserializable"
        with closing(Journal(url)) as journal:

            def work() -> None:
                for _ in range(20):
                    record = row()
                    journal.write(record)
                    journal.update(record)

            with ThreadPoolExecutor(6) as pool:
                for done in [pool.submit(work) for _ in range(6)]:
                    done.result()
            assert journal.count() == 120

    def test_a_server_that_says_nothing(
        self, postgres_url: str, row: Maker, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A frozen connection is not waited for without end: the row goes over another one."""
        monkeypatch.setattr(store, "ANSWER_SECONDS", 0.5)
        with closing(Journal(postgres_url)) as journal:
            journal.write(row())
            with journal._engine.connect() as connection:
                pid = connection.execute(text("SELECT pg_backend_pid()")).scalar_one()
            os.kill(pid, signal.SIGSTOP)
            try:
                journal.write(row())
                assert journal.count() == 2
            finally:
                os.kill(pid, signal.SIGCONT)

    def test_a_connection_that_broke(self, postgres_url: str, row: Maker) -> None:
        """After the server dropped all connections the next row is written all the same."""
        with closing(Journal(postgres_url)) as journal, closing(Journal(postgres_url)) as other:
            journal.write(row())
            with other._engine.connect() as connection:
                connection.execute(
                    text(
                        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                        "WHERE pid <> pg_backend_pid() AND usename = current_user"
                    )
                )
            journal.write(row())
            assert journal.count() == 2


class _Rude:
    """An object that does not want to be written."""

    def __str__(self) -> str:
        raise RuntimeError("no")


def _raw(url: str) -> Journal:
    """Return a journal that has looked at nothing yet."""
    journal = Journal.__new__(Journal)
    journal._url = store._parse(url)
    journal._engine = store._engine(journal._url)
    return journal


class TestReviewing:
    """What the review pages ask for."""

    def test_more_filters(self, journal: Journal, row: Maker) -> None:
        """By model, delivery, shadow and what was flagged; together they narrow."""
        flag = "violence: live risk 0.40 reached 0.35 (flag)"
        kinds: list[dict[str, Any]] = [
            {"model": ""},
            {"delivered": "part"},
            {"shadow": True},
            {"reasons": (flag,)},
            {"reasons": ("violence_: live risk 0.40 reached 0.35 (flag)",), "model": ""},
        ]
        rows = [row(**kind) for kind in kinds]
        for each in rows:
            journal.write(each)

        def found(**filters: Any) -> set[str]:
            assert journal.count(**filters) == len(list(journal.list(**filters)))
            return {each.id for each in journal.list(**filters)}

        assert found(model="") == {rows[0].id, rows[4].id}
        assert found(delivered="part") == {rows[1].id}
        assert found(shadow=True) == {rows[2].id}
        assert found(shadow=False) == {each.id for each in rows} - {rows[2].id}
        assert found(flagged="violence") == {rows[3].id}
        assert found(flagged="%iolence") == set()
        assert found(model="", flagged="violence_") == {rows[4].id}

    def test_on_behind_a_place(self, journal: Journal, row: Maker) -> None:
        """From any row on come those behind it, also of the same moment."""
        rows = [row(created=NOON - timedelta(minutes=number // 3)) for number in range(9)]
        for each in rows:
            journal.write(each)
        whole = [each.id for each in journal.list()]
        assert [each.id for each in journal.places(99)] == whole
        assert [each.id for each in journal.rows_at(journal.places(3))] == whole[:3]
        for number, each in enumerate(list(journal.list())):
            behind = journal.list(after=store.place_of(each))
            assert [other.id for other in behind] == whole[number + 1 :]
            assert len(journal.places(2, after=store.place_of(each))) == min(2, 8 - number)

    def test_tally(self, journal: Journal, row: Maker) -> None:
        """Rows are counted by day in UTC, action, class and model."""
        late = datetime(2025, 6, 1, 23, 59, 59, 999_999, tzinfo=UTC)
        for created in (late, late + timedelta(microseconds=1)):
            journal.write(row(created=created, action="flag"))
        journal.write(row(created=late, model="other"))
        day = (late - datetime(1970, 1, 1, tzinfo=UTC)).days
        assert journal.tally("day", "action") == {
            (day, "flag"): 1,
            (day, "block"): 1,
            (day + 1, "flag"): 1,
        }
        assert journal.tally("model", action="flag") == {("small-model",): 2}
        assert journal.tally("security_class") == {("public",): 3}

    def test_reasons(self, journal: Journal, row: Maker) -> None:
        """Of the newest rows."""
        for number in range(3):
            journal.write(row(created=NOON + timedelta(1) * number, reasons=(f"r{number}", "x")))
        assert list(journal.reasons(2)) == [("r2", "x"), ("r1", "x")]
