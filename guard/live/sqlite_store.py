"""Keeps live state in a SQLite file, for processes of one machine and across restarts.

A batch is counted in one transaction with its sequence number, in WAL and with
`synchronous=FULL`: it survives a kill and a power cut. What a process saw since its last
delivery lies in a spool beside the file and survives a kill.

This module does not know what is counted (`guard.live.stores.Book`).
"""

from __future__ import annotations

import json
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from weakref import finalize

from sqlalchemy import (
    Column,
    Float,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    create_engine,
    delete,
    event,
    func,
    inspect,
    select,
)
from sqlalchemy.dialects.sqlite import insert
from sqlalchemy.exc import SQLAlchemyError

from guard.errors import LiveStoreError
from guard.forks import forget_at_fork, undivided
from guard.live.alarms import Alarm, Transition
from guard.live.ledger import KEPT, State
from guard.live.profile import Profile
from guard.live.stores import Book, History, Snapshot, checked_name, opened_behind
from guard.sqlite_files import identity, reading_engine

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from contextlib import AbstractContextManager

    from sqlalchemy import Connection, Engine

    from guard.live.ledger import Batch

SECONDS: Final = 0.05
"""How long a process keeps what it saw to itself."""

BUSY_SECONDS: Final = 10
"""How long a delivery waits for another process's."""

_metadata: Final = MetaData()


def _keyed(table: str, *columns: Column[Any], key: str) -> Table:
    name = Column("name", String(200), primary_key=True)
    return Table(table, _metadata, name, Column(key, String(128), primary_key=True), *columns)


_states: Final = _keyed("live_state", Column("state", Text, nullable=False), key="digest")
_alarms: Final = _keyed("live_alarm", Column("alarm", Text, nullable=False), key="category")
_lives: Final = _keyed("live_life", Column("life", Integer, nullable=False), key="category")
_sequences: Final = _keyed(
    "live_sequence", Column("sequence", Integer, nullable=False), key="replica"
)
_profiles: Final = _keyed(
    "live_profile",
    Column("profile", Text, nullable=False),
    Column("opened", Float, nullable=False),
    key="digest",
)
_transitions: Final = Table(
    "live_transition",
    _metadata,
    Column("id", Integer, primary_key=True),
    Column("name", String(200), nullable=False, index=True),
    Column("transition", Text, nullable=False),
)
_points: Final = Table(
    "live_point",
    _metadata,
    Column("id", Integer, primary_key=True),
    Column("name", String(200), nullable=False, index=True),
    Column("digest", String(128), nullable=False),
    Column("point", Text, nullable=False),
)


def names_in(path: str | Path) -> list[str]:
    """Return the names of the deployments whose live state is in a file, in order.

    Looking changes nothing: no file, no folder, no table, and no mode of a file of others.

    Raises:
        LiveStoreError: there is no such file, it cannot be read, or holds no live state.
    """
    absolute = Path(path).expanduser().absolute()
    with _errors(absolute):
        there = absolute.is_file()
    if not there:
        raise LiveStoreError(
            f"there is no file {absolute}: name the SQLite file or the Redis URL in which the "
            "guard keeps its live state"
        )
    with _errors(absolute), reading_engine(absolute, BUSY_SECONDS).connect() as connection:
        if inspect(connection).has_table(_states.name):
            query = select(_profiles.c.name).distinct().order_by(_profiles.c.name)
            return list(connection.execute(query).scalars())
    raise LiveStoreError(
        f"{absolute} holds no live state, it has no table `{_states.name}`: name the file in "
        "which the guard keeps it"
    )


class SQLiteStore:
    """Keeps live state in a SQLite file.

    Args:
        path: of the file; it is made, readable by its owner alone, where it is missing.
        name: of the deployment.
        spool: folder for what is not delivered yet; `PATH-spool` by default.
        reading: the file, which must have live state, is only read and stays as it is.

    Raises:
        ConfigurationError: `name` cannot be used.
        LiveStoreError: the file cannot be opened.
    """

    def __init__(
        self,
        path: str | Path,
        name: str = "default",
        *,
        spool: str | Path | None = None,
        reading: bool = False,
    ) -> None:
        """Open the file and, unless it is only read, make its tables where they are missing."""
        self.name = checked_name(name)
        self.seconds: float | None = SECONDS
        self._path = Path(path).expanduser().absolute()
        self.spool: Path | None = Path(spool or f"{self._path}-spool")
        self._identity: tuple[int, int] | None = None
        if reading:
            self._engine = reading_engine(self._path, BUSY_SECONDS)
            return
        with self._errors():
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            if not self._path.exists():
                self._path.touch(mode=0o600)
            self._engine = forget_at_fork(_engine(self._path))
        # Whoever drops a store unclosed leaves no connection to the garbage collector.
        finalize(self, self._engine.dispose)
        with self._writing() as connection:
            _metadata.create_all(connection)
        with self._errors():
            self._identity = identity(self._path)

    def __repr__(self) -> str:
        return f"SQLiteStore({str(self._path)!r}, {self.name!r})"

    def open(self, profile: Profile) -> None:
        """See `Store`."""
        with self._writing() as connection:
            latest = select(func.max(_profiles.c.opened)).where(_profiles.c.name == self.name)
            opened = opened_behind(connection.execute(latest).scalar())
            values = {"profile": json.dumps(profile.as_dict()), "opened": opened}
            self._put(connection, _profiles, profile.digest, values)

    def read(self, digest: str, replica: str = "") -> Snapshot:
        """See `Store`."""
        with self._reading() as connection:
            return self._book(connection, digest, replica).snapshot(digest, replica)

    def merge(self, replica: str, sequence: int, batch: Batch) -> Snapshot:
        """See `Store`."""
        with self._writing() as connection:
            book = self._book(connection, batch.digest, replica)
            alarms, lives = dict(book.alarms), dict(book.lives)
            if book.count(replica, sequence, batch):
                state = json.dumps(book.states[batch.digest].as_dict())
                self._put(connection, _states, batch.digest, {"state": state})
                self._put(connection, _sequences, replica, {"sequence": sequence})
                self._put_changes(connection, book, alarms, lives)
                self._append(connection, book, batch.digest)
            return book.snapshot(batch.digest, replica)

    def clear(self, transition: Transition) -> bool:
        """See `Store`."""
        with self._writing() as connection:
            book = self._book(connection, "", "")
            alarms, lives = dict(book.alarms), dict(book.lives)
            if not book.clear(transition):
                return False
            self._put_changes(connection, book, alarms, lives)
            self._append(connection, book, "")
            return True

    def history(self, digest: str) -> History:
        """See `Store`."""
        with self._reading() as connection:
            rows = connection.execute(
                select(_transitions.c.transition)
                .where(_transitions.c.name == self.name)
                .order_by(_transitions.c.id)
            ).scalars()
            points = connection.execute(
                select(_points.c.point)
                .where(_points.c.name == self.name, _points.c.digest == digest)
                .order_by(_points.c.id)
            ).scalars()
            return History(
                tuple(Transition.from_dict(json.loads(row)) for row in rows),
                tuple(json.loads(point) for point in points),
            )

    def profile(self) -> Profile | None:
        """See `Store`."""
        with self._reading() as connection:
            latest = connection.execute(
                select(_profiles.c.profile)
                .where(_profiles.c.name == self.name)
                .order_by(_profiles.c.opened.desc())
                .limit(1)
            ).scalar()
            return None if latest is None else Profile.from_dict(json.loads(latest))

    def close(self) -> None:
        """See `Store`."""
        with undivided():
            self._engine.dispose()

    def _book(self, connection: Connection, digest: str, replica: str) -> Book:
        """Return what the rules need of the database; transitions and points begin empty."""
        state = self._get(connection, _states, digest, "state")
        sequence = self._get(connection, _sequences, replica, "sequence")
        return Book(
            states={} if state is None else {digest: State.from_dict(json.loads(state))},
            alarms={
                category: Alarm(**json.loads(alarm))
                for category, alarm in self._all(connection, _alarms)
            },
            lives=dict(self._all(connection, _lives)),
            sequences={} if sequence is None else {replica: sequence},
        )

    def _get(self, connection: Connection, table: Table, key: str, column: str) -> Any:
        name, second = table.primary_key.columns
        query = select(table.c[column]).where(name == self.name, second == key)
        return connection.execute(query).scalar()

    def _all(self, connection: Connection, table: Table) -> Sequence[tuple[str, Any]]:
        _, key, value = table.columns
        rows = connection.execute(select(key, value).where(table.c.name == self.name))
        return [(first, second) for first, second in rows]  # rows are no tuples

    def _put(self, connection: Connection, table: Table, key: str, values: dict[str, Any]) -> None:
        name, second = table.primary_key.columns
        row = insert(table).values({"name": self.name, second.name: key, **values})
        connection.execute(row.on_conflict_do_update(index_elements=[name, second], set_=values))

    def _put_changes(
        self,
        connection: Connection,
        book: Book,
        alarms: dict[str, Alarm],
        lives: dict[str, int],
    ) -> None:
        for category in alarms.keys() - book.alarms.keys():
            gone = (_alarms.c.name == self.name) & (_alarms.c.category == category)
            connection.execute(delete(_alarms).where(gone))
        for category, alarm in book.alarms.items():
            if alarms.get(category) != alarm:
                value = json.dumps(alarm.as_dict())
                self._put(connection, _alarms, category, {"alarm": value})
        for category, life in book.lives.items():
            if lives.get(category) != life:
                self._put(connection, _lives, category, {"life": life})

    def _append(self, connection: Connection, book: Book, digest: str) -> None:
        """Write what is new of transitions and points; drop what is too old to keep."""
        for transition in book.transitions:
            value = json.dumps(transition.as_dict())
            connection.execute(insert(_transitions).values(name=self.name, transition=value))
        points = [
            {"name": self.name, "digest": digest, "point": json.dumps(point)}
            for point in book.points.get(digest, ())
        ]
        if points:
            connection.execute(insert(_points), points)
        for table, new in ((_transitions, book.transitions), (_points, points)):
            if new:
                kept = (
                    select(table.c.id)
                    .where(table.c.name == self.name)
                    .order_by(table.c.id.desc())
                    .limit(KEPT)
                )
                old = (table.c.name == self.name) & table.c.id.not_in(kept)
                connection.execute(delete(table).where(old))

    @contextmanager
    def _writing(self) -> Iterator[Connection]:
        """Yield a connection whose transaction nobody else's can interleave with."""
        self._check_file()
        with self._errors(), self._engine.connect() as connection:
            connection.exec_driver_sql("BEGIN IMMEDIATE")
            yield connection
            connection.commit()

    @contextmanager
    def _reading(self) -> Iterator[Connection]:
        """Yield a connection that sees one moment."""
        self._check_file()
        with self._errors(), self._engine.connect() as connection:
            connection.exec_driver_sql("BEGIN")
            yield connection

    def _check_file(self) -> None:
        """Refuse a file that is not there any more: alarms in it would be gone with the process."""
        with self._errors():
            there = self._identity is None or identity(self._path) == self._identity
        if not there:
            raise LiveStoreError(
                f"live state at {self._path} was removed or replaced while it was open: put the "
                "file back, or stop this process, remove what lies beside it with `-wal` and "
                "`-shm` at the end, and start again"
            )

    def _errors(self) -> AbstractContextManager[None]:
        return _errors(self._path)


@contextmanager
def _errors(path: Path) -> Iterator[None]:
    """Turn what reading or writing the file raises into `LiveStoreError`; a fork waits for it."""
    try:
        with undivided():
            yield
    except (SQLAlchemyError, OSError) as error:
        cause = str(getattr(error, "orig", None) or error).splitlines()[0].rstrip(".")
        raise LiveStoreError(
            f"live state at {path} cannot be used: {cause}. Check that the place "
            "exists, has room and may be written, or take another file"
        ) from error
    except (ValueError, KeyError, TypeError) as error:
        raise LiveStoreError(
            f"live state at {path} is damaged or of another version ({error}): "
            "restore it or take another file"
        ) from error


def _engine(path: Path) -> Engine:
    engine = create_engine(
        f"sqlite:///{path}",
        hide_parameters=True,
        connect_args={"timeout": BUSY_SECONDS, "check_same_thread": False},
    )

    @event.listens_for(engine, "connect")
    def prepare(connection: Any, _: object) -> None:
        cursor = connection.cursor()
        cursor.execute("PRAGMA journal_mode=WAL")
        cursor.execute("PRAGMA synchronous=FULL")
        cursor.close()

    return engine
