"""Keeps journal rows in a database: SQLite in WAL by default, or any SQLAlchemy URL.

A row is durable when `write` returns: SQLite runs with `synchronous=FULL`, so that it
survives a power cut and not only a crash; other databases as they are configured. There
is no background writer. Several processes and threads may open, write and read at once.

This module does not know what a row means or who may read it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence  # noqa: TC003  # hints are read at run time
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, Unpack, cast
from weakref import finalize

import platformdirs
from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Engine,
    Float,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    create_engine,
    delete,
    event,
    func,
    insert,
    inspect,
    make_url,
    or_,
    select,
    update,
)
from sqlalchemy.exc import ArgumentError, SQLAlchemyError
from sqlalchemy.pool import QueuePool

from guard.errors import JournalError, MissingExtraError
from guard.forks import forget_at_fork, undivided
from guard.journal.filters import Filters, Place
from guard.journal.patience import NETWORK, impatient, patient
from guard.journal.record import Record, jsonable, storable
from guard.sqlite_files import identity, reading_engine

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from sqlalchemy import URL, Connection, RowMapping, Select

SCHEMA_VERSION: Final = 1
"""Of the tables below; a database of a newer version is refused."""

BUSY_SECONDS: Final = 30
"""How long a writer waits for others: for a lock on a SQLite file, for PostgreSQL to do it."""

ANSWER_SECONDS: Final = BUSY_SECONDS + 10
"""How long a writer waits for a PostgreSQL server that says nothing at all."""

_PAGE: Final = 200

_PLACES: Final = 20_000
"""Of so many rows at most the place is held at a time: the database sorts them once for all."""

PURGED_AT_ONCE: Final = 500
"""Rows deleted in one transaction: whoever writes waits for no more than that."""

_SCHEMA_LOCK: Final = 0x636C6561  # "clea": an advisory lock's number is any, but the same
_SECRET_OPTIONS: Final = ("pass", "secret", "token", "key")
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_SHORTEST_PREFIX: Final = 4
_ENCODINGS: Final = ("UTF8", "SQL_ASCII")  # the latter keeps any bytes as they are
_JSON_FIELDS: Final = ("risks", "reasons", "coverage", "findings", "detectors", "metadata")

_metadata: Final = MetaData()

_version: Final = Table("journal_version", _metadata, Column("version", Integer, primary_key=True))

_rows: Final = Table(
    "journal",
    _metadata,
    Column("id", String(32), primary_key=True),
    # Microseconds since 1970 in UTC: SQLite would lose a timestamp's zone.
    Column("created", BigInteger, nullable=False, index=True),
    Column("action", String(16), nullable=False),
    Column("delivered", String(8), nullable=False),
    Column("complete", Boolean, nullable=False),
    Column("security_class", Text, nullable=False),
    Column("rank", Integer, nullable=False),
    Column("shadow", Boolean, nullable=False),
    Column("model", Text, nullable=False),
    *(Column(name, Text, nullable=False) for name in _JSON_FIELDS),
    Column("prompt", Text),
    Column("response", Text),
    Column("outcome", Text),
    Column("text_mode", String(16), nullable=False),
    Column("released", Integer, nullable=False),
)

_risks: Final = Table(
    "journal_risk",
    _metadata,
    Column("record", String(32), ForeignKey("journal.id", ondelete="CASCADE"), primary_key=True),
    Column("category", String(128), primary_key=True),
    Column("risk", Float, nullable=False),
    Index("journal_risk_category", "category", "risk"),
)

Fact = Literal["action", "day", "model", "security_class"]
"""What rows are counted by."""

_TEXTS: Final = ("action", "delivered", "model", "security_class")
_FACTS: Final = (*_TEXTS, "shadow")
_DAY: Final = (_rows.c.created // 86_400_000_000).label("day")


def default_url() -> str:
    """Return `GUARD_JOURNAL`, else the URL of a file in the user's state directory."""
    given = os.environ.get("GUARD_JOURNAL")
    if given:
        return given
    return str(Path(platformdirs.user_state_dir("clearance")) / "journal.sqlite3")


def location(url: str | Path | None = None) -> str:
    """Return where the journal at `url` (as for `Journal`) is, for people and without password.

    Raises:
        JournalError: `url` is no database URL.
    """
    return _shown(_parse(default_url() if url is None else url))


def exists(url: str | Path | None = None) -> bool:
    """Return whether anything was ever kept at `url` (as for `Journal`).

    Looking makes and changes nothing: no file, no folder, no table.

    Raises:
        JournalError: the place cannot be read, or what is there is no database.
        MissingExtraError: the URL's driver is not installed.
    """
    parsed = _parse(default_url() if url is None else url)
    path = _file(parsed)
    with _errors(parsed, "read"):
        if path is not None and not path.exists():
            return False
        engine = _reader(parsed)
        try:
            return inspect(engine).has_table(_rows.name)
        finally:
            engine.dispose()


def place_of(record: Record) -> Place:
    """Return where a row stands among all."""
    return Place(_microseconds(record.created), record.id)


class Journal:
    """A database of rows; safe to share between threads and processes.

    Args:
        url: a path, a SQLAlchemy URL, or `None` for `default_url()`. `sqlite://` alone
            lives in memory until it is closed.
        reading: rows are only read; a file, which must be a journal, stays as it is, and need
            not be writable.

    Raises:
        JournalError: the database cannot be opened; says what to do.
        MissingExtraError: the URL's driver is not installed.
    """

    def __init__(self, url: str | Path | None = None, *, reading: bool = False) -> None:
        """Open the database and, unless it is only read, make its tables where they are missing."""
        self._url = _parse(default_url() if url is None else url)
        path = _file(self._url)
        with self._errors("opened"):
            if not reading:
                _prepare_file(self._url)
            self._engine = _reader(self._url) if reading else _engine(self._url)
            # Whoever drops a journal unclosed leaves no connection to the garbage collector.
            finalize(self, self._engine.dispose)
            try:
                self._prepare_tables(reading=reading)
            except BaseException:
                self._engine.dispose()
                raise
            self._identity = None if path is None else identity(path)

    def __repr__(self) -> str:
        return f"Journal({self.location!r})"

    @property
    def location(self) -> str:
        """Where the rows are, without any password."""
        return _shown(self._url)

    def write(self, record: Record) -> None:
        """Add a row; it is durable on return.

        Raises:
            JournalError: it could not be written.
        """
        with self._writing() as connection:
            connection.execute(insert(_rows).values(_values(record)))
            _write_risks(connection, record)

    def update(self, record: Record) -> None:
        """Replace the row of the same id; it is durable on return.

        Raises:
            JournalError: there is no such row, or it could not be written.
        """
        with self._writing() as connection:
            statement = update(_rows).where(_rows.c.id == record.id).values(_values(record))
            if connection.execute(statement).rowcount != 1:
                raise JournalError(f"the journal has no row `{record.id}` to update")
            connection.execute(delete(_risks).where(_risks.c.record == record.id))
            _write_risks(connection, record)

    def get(self, prefix: str) -> Record:
        """Return the row whose id is or begins with `prefix` (at least 4 characters).

        Raises:
            JournalError: there is none, or several.
        """
        if len(prefix) < _SHORTEST_PREFIX:
            raise JournalError(f"give at least {_SHORTEST_PREFIX} characters of the row's id")
        with self._reading() as connection:
            # Ids are lower case; SQLite would not care, other databases do.
            matching = _rows.c.id.startswith(storable(prefix).lower(), autoescape=True)
            found = connection.execute(select(_rows).where(matching).limit(2)).mappings().all()
        if len(found) != 1:
            problem = "no row" if not found else "several rows"
            raise JournalError(f"the journal has {problem} whose id begins with `{prefix}`")
        return _record(found[0])

    def list(
        self, *, limit: int | None = None, after: Place | None = None, **filters: Unpack[Filters]
    ) -> Iterator[Record]:
        """Yield rows, the newest first, without holding the database while the caller works.

        Args:
            limit: at most so many.
            after: only those behind this place.
            filters: what they must be.
        """
        query = _wanted(cast("Select[Any]", select(_rows.c.created, _rows.c.id)), filters)
        query, size = _in_order(query), _PAGE
        while limit is None or limit > 0:
            size = size if limit is None else min(limit, size)
            places = self._places(_behind(query, after).limit(size))
            for first in range(0, len(places), _PAGE):
                yield from self.rows_at(places[first : first + _PAGE])
            if len(places) < size:
                return
            limit = None if limit is None else limit - len(places)
            after = places[-1]
            # Whoever reads on reads much; where a category is asked for, each query sorts anew.
            size = min(_PLACES, size * 10)

    def places(
        self, limit: int, *, after: Place | None = None, **filters: Unpack[Filters]
    ) -> Sequence[Place]:
        """Return where the rows are that `list` would yield; far cheaper than the rows."""
        query = _wanted(cast("Select[Any]", select(_rows.c.created, _rows.c.id)), filters)
        return self._places(_behind(_in_order(query), after).limit(limit))

    def rows_at(self, places: Sequence[Place]) -> Iterator[Record]:
        """Yield the rows at `places`, a few hundred at most, without those deleted meanwhile."""
        found = self._fetched(select(_rows).where(_rows.c.id.in_([each.id for each in places])))
        rows = {row["id"]: row for row in found}
        yield from (_record(rows[each.id]) for each in places if each.id in rows)

    def count(self, **filters: Unpack[Filters]) -> int:
        """Return the number of rows that `list` would yield for the same filters."""
        query = _wanted(select(func.count()).select_from(_rows), filters)
        with self._reading() as connection:
            return int(connection.execute(query).scalar_one())

    def tally(self, *by: Fact, **filters: Unpack[Filters]) -> dict[tuple[Any, ...], int]:
        """Return how many rows there are of each kind.

        Args:
            by: what makes a kind; `day` is the days since 1970 in UTC.
            filters: which rows count.
        """
        columns = [_DAY if name == "day" else _rows.c[name] for name in by]
        query = _wanted(select(*columns, func.count()).select_from(_rows), filters)
        with self._reading() as connection:
            found = connection.execute(query.group_by(*columns)).all()
        return {tuple(kind): int(count) for *kind, count in found}

    def reasons(self, limit: int, **filters: Unpack[Filters]) -> Iterator[tuple[str, ...]]:
        """Yield the reasons of each of the newest `limit` rows."""
        query = _wanted(cast("Select[Any]", select(_rows.c.reasons)), filters)
        for row in self._fetched(_in_order(query).limit(limit)):
            yield tuple(json.loads(row["reasons"]))

    def purge(self, **filters: Unpack[Filters]) -> Iterator[int]:
        """Delete the rows that `list` would yield for the same filters, for good.

        Nothing is deleted until the result is iterated over; where that stops early, what was
        deleted stays so. A response that is still being delivered while its row goes is
        withheld from there on, as where it cannot be journalled.

        In a SQLite file what was deleted is overwritten, and its room is used again; the file
        gets no smaller. PostgreSQL overwrites it when it next vacuums.

        Yields:
            How many rows were deleted, after each `PURGED_AT_ONCE` of them.

        Raises:
            JournalError: they could not be deleted.
        """
        # Without an end it might go on for as long as rows are written.
        if filters.get("until") is None:
            filters["until"] = datetime.now(UTC)
        query = _wanted(cast("Select[Any]", select(_rows.c.id)), filters).limit(PURGED_AT_ONCE)
        try:
            while count := self._purged(query):
                yield count
        finally:
            self._empty_log()

    def _purged(self, query: Select[Any]) -> int:
        with self._writing() as connection:
            found = connection.execute(query).scalars().all()
            connection.execute(delete(_risks).where(_risks.c.record.in_(found)))
            connection.execute(delete(_rows).where(_rows.c.id.in_(found)))
        return len(found)

    def _empty_log(self) -> None:
        """Have SQLite take old pages out of its log, where deleted texts would stay a while."""
        if _file(self._url) is None:
            return
        with self._errors("written"), self._engine.connect() as connection:
            connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)")

    def close(self) -> None:
        """Close the connections; the journal can be used again and then reopens them.

        A journal in memory ends here.
        """
        with undivided():
            self._engine.dispose()

    @contextmanager
    def _writing(self) -> Iterator[Connection]:
        """Yield a connection whose transaction is durable behind the block."""
        with self._errors("written"):
            self._check_file()
            with self._engine.begin() as connection:
                _limit_waits(connection)
                yield connection

    @contextmanager
    def _reading(self) -> Iterator[Connection]:
        with self._errors("read"):
            self._check_file()
            with self._engine.connect() as connection, patient(connection):
                yield connection

    def _check_file(self) -> None:
        """Refuse a file that is not there any more: rows in it would be gone with the process."""
        path = _file(self._url)
        if path is not None and identity(path) != self._identity:
            raise JournalError(
                f"the journal at {path} was removed or replaced while it was open: put it back, "
                "or stop this process, remove what lies beside it with `-wal` and `-shm` at the "
                "end, and start again"
            )

    def _places(self, query: Select[Any]) -> Sequence[Place]:
        return [Place(row["created"], row["id"]) for row in self._fetched(query)]

    def _fetched(self, query: Select[Any]) -> Sequence[RowMapping]:
        with self._reading() as connection:
            return connection.execute(query).mappings().all()

    def _prepare_tables(self, *, reading: bool) -> None:
        with self._engine.begin() as connection:
            self._check_encoding(connection)
            version = _schema_version(connection)
            if version is None and reading:
                raise JournalError(f"there is no journal at {self.location} to read")
            if version is None:
                # Of several processes that come to an empty database at once, one makes them.
                _lock_schema(connection)
                version = _schema_version(connection) or _make_tables(connection)
        if version > SCHEMA_VERSION:
            raise JournalError(
                f"the journal at {self.location} has schema version {version}, this release "
                f"knows {SCHEMA_VERSION}: upgrade clearance-guard or name another journal"
            )

    def _check_encoding(self, connection: Connection) -> None:
        """Refuse a database that would refuse rows with the first emoji or Greek letter."""
        if connection.dialect.name != "postgresql":
            return
        encoding = connection.exec_driver_sql("SHOW server_encoding").scalar()
        if encoding not in _ENCODINGS:
            raise JournalError(
                f"the database of the journal at {self.location} has the encoding {encoding}, "
                "which does not hold every text: make one with `CREATE DATABASE name ENCODING "
                "'UTF8' TEMPLATE template0` and name that"
            )

    def _errors(self, verb: str) -> AbstractContextManager[None]:
        return _errors(self._url, verb)


@contextmanager
def _errors(url: URL, verb: str) -> Iterator[None]:
    """Turn what the database layer raises into `JournalError`; a fork waits for the block."""
    try:
        with undivided():
            yield
    except (SQLAlchemyError, OSError) as error:
        raise JournalError(
            f"the journal at {_shown(url)} cannot be {verb}: {_cause(error, url)}. Check that the "
            "place exists, has room and may be written, or name another with `GUARD_JOURNAL`"
        ) from error
    except (TypeError, ValueError, OverflowError) as error:
        raise JournalError(
            f"the journal at {_shown(url)} cannot be {verb}: a value has a type or a size that "
            f"the database does not hold ({type(error).__name__})"
        ) from error


def _cause(error: Exception, url: URL) -> str:
    """Return the first line of the driver's message: the others may quote the row."""
    lines = str(getattr(error, "orig", None) or error).splitlines() or [type(error).__name__]
    cause = lines[0].rstrip(".")
    return cause.replace(str(url.password), "***") if url.password else cause


def _shown(url: URL) -> str:
    path = _file(url)
    if path is not None:
        return str(path)
    secret = {key: "***" for key in url.query if any(w in key.lower() for w in _SECRET_OPTIONS)}
    shown = url.update_query_dict(secret).render_as_string(hide_password=True)
    return shown.replace("%2A%2A%2A", "***")


def _parse(url: str | Path) -> URL:
    """Return a URL; a bare path is a SQLite file, PostgreSQL goes through psycopg 3."""
    text = str(url)
    if "://" not in text:
        return make_url("sqlite://").set(database=str(Path(text).expanduser()))
    try:
        parsed = make_url(text)
    except (ArgumentError, ValueError):
        scheme = text.partition("://")[0]
        # Without the cause and most of the text: a password may be anywhere in it.
        raise JournalError(
            f"the journal's URL, which begins with `{scheme}://`, cannot be understood: "
            "write `postgresql://user:password@host:port/database` with special "
            "characters percent-encoded, or a path"
        ) from None
    if parsed.drivername in ("postgresql", "postgres"):
        parsed = parsed.set(drivername="postgresql+psycopg")
    return parsed


def _file(url: URL) -> Path | None:
    """Return the path of a SQLite file, `None` for memory and for other databases."""
    if not url.drivername.startswith("sqlite") or "uri" in url.query:
        return None
    return None if url.database in (None, "", ":memory:") else Path(str(url.database))


def _prepare_file(url: URL) -> None:
    """Make a SQLite file readable by its owner alone before anything is written to it."""
    path = _file(url)
    if path is not None:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not path.exists():
            path.touch(mode=0o600)


def _reader(url: URL) -> Engine:
    path = _file(url)
    return _engine(url) if path is None else reading_engine(path, BUSY_SECONDS)


def _engine(url: URL) -> Engine:
    made = _sqlite_engine(url) if url.drivername.startswith("sqlite") else _server_engine(url)
    return forget_at_fork(made)


def _server_engine(url: URL) -> Engine:
    arguments: dict[str, Any] = {}
    options: dict[str, Any] = {}
    if url.drivername.startswith("postgresql"):
        # Under a stricter one writers that only come at once would be refused.
        options["isolation_level"] = "READ COMMITTED"
    if "psycopg" in url.drivername:
        # The server's own encoding may be none, and the environment may name any.
        wanted = {**NETWORK, "client_encoding": "utf8"}
        arguments = {key: value for key, value in wanted.items() if key not in url.query}
    if "psycopg" in url.drivername.split("+"):
        # A pooler may give each transaction another session, which knows no statement of ours.
        arguments["prepare_threshold"] = None
    try:
        # Parameters hidden: an error's traceback must not carry the row's texts into a log.
        engine = create_engine(
            url, pool_pre_ping=True, hide_parameters=True, connect_args=arguments, **options
        )
    except ModuleNotFoundError as error:
        if "psycopg" in url.drivername:
            raise MissingExtraError("psycopg", "postgres") from error
        raise JournalError(
            f"the driver of the journal at {_shown(url)} is not installed: "
            f"install the package that brings `{error.name}`"
        ) from error
    if "psycopg" in url.drivername.split("+"):
        impatient(engine, ANSWER_SECONDS)
    return engine


def _sqlite_engine(url: URL) -> Engine:
    arguments = {"timeout": BUSY_SECONDS, "check_same_thread": False}
    if _file(url) is not None:
        engine = create_engine(url, hide_parameters=True, connect_args=arguments)
    else:
        # One connection is the whole database, and one thread at a time may have it.
        engine = create_engine(
            url,
            hide_parameters=True,
            connect_args=arguments,
            poolclass=QueuePool,
            pool_size=1,
            max_overflow=0,
            pool_timeout=BUSY_SECONDS,
        )

    @event.listens_for(engine, "connect")
    def prepare(connection: Any, _: object) -> None:
        cursor = connection.cursor()
        cursor.execute("PRAGMA journal_mode=WAL")
        cursor.execute("PRAGMA synchronous=FULL")
        cursor.execute("PRAGMA foreign_keys=ON")
        # What is deleted is overwritten: it may be what somebody must not keep.
        cursor.execute("PRAGMA secure_delete=ON")
        cursor.close()

    return engine


def _limit_waits(connection: Connection) -> None:
    """Have PostgreSQL give up in good time; it waits for a locked table for ever."""
    if connection.dialect.name == "postgresql":
        # Of this transaction alone: behind a pooler the next one may be somebody else's.
        limit = f"SET LOCAL statement_timeout = {round(BUSY_SECONDS * 1000)}"
        connection.exec_driver_sql(limit)


def _schema_version(connection: Connection) -> int | None:
    """Return the version of the tables in the database, `None` where there are none."""
    if not inspect(connection).has_table(_version.name):
        return None
    return connection.execute(select(func.max(_version.c.version))).scalar()


def _lock_schema(connection: Connection) -> None:
    """Have other processes wait until the transaction ends."""
    if connection.dialect.name == "sqlite":
        connection.exec_driver_sql("BEGIN IMMEDIATE")
    elif connection.dialect.name == "postgresql":
        connection.execute(select(func.pg_advisory_xact_lock(_SCHEMA_LOCK)))


def _make_tables(connection: Connection) -> int:
    _metadata.create_all(connection)
    connection.execute(insert(_version).values(version=SCHEMA_VERSION))
    return SCHEMA_VERSION


def _wanted(query: Select[Any], filters: Filters) -> Select[Any]:
    """Return `query` for the rows that are as `filters` say."""
    for name in _FACTS:
        value: Any = filters.get(name)
        if value is not None:
            query = query.where(_rows.c[name] == (storable(value) if name in _TEXTS else value))
    if flagged := filters.get("flagged"):
        # As `str` of a reason and `_values` write it.
        began = json.dumps(f"{storable(flagged)}: live risk ")[:-1]
        query = query.where(_rows.c.reasons.contains(began, autoescape=True))
    since, until, category = filters.get("since"), filters.get("until"), filters.get("category")
    if since is not None:
        query = query.where(_rows.c.created >= _microseconds(since))
    if until is not None:
        query = query.where(_rows.c.created < _microseconds(until))
    if category is None:
        return query
    query = query.join(_risks, _risks.c.record == _rows.c.id)
    least = filters.get("minimum", 0.5)
    return query.where(_risks.c.category == storable(category), _risks.c.risk >= least)


def _in_order(query: Select[Any]) -> Select[Any]:
    return query.order_by(_rows.c.created.desc(), _rows.c.id)


def _behind(query: Select[Any], last: Place | None) -> Select[Any]:
    """Return `query` for what comes after the row at `last`; the index finds the place."""
    if last is None:
        return query
    return query.where(
        _rows.c.created <= last.created,
        or_(_rows.c.created < last.created, _rows.c.id > last.id),
    )


def _values(record: Record) -> dict[str, Any]:
    values = {name: getattr(record, name) for name in _rows.c.keys()}  # noqa: SIM118  # columns
    texts = {name: storable(value) for name, value in values.items() if isinstance(value, str)}
    nested = {name: json.dumps(jsonable(values[name])) for name in _JSON_FIELDS}
    return values | texts | nested | {"created": _microseconds(record.created)}


def _write_risks(connection: Connection, record: Record) -> None:
    if record.risks:
        risks = {storable(category): risk for category, risk in record.risks.items()}
        rows = [{"record": record.id, "category": c, "risk": r} for c, r in risks.items()]
        connection.execute(insert(_risks), rows)


def _record(row: RowMapping) -> Record:
    try:
        nested = {name: json.loads(row[name]) for name in _JSON_FIELDS}
    except ValueError as error:
        raise JournalError(
            f"the journal's row `{row['id']}` is damaged ({error}): restore it or delete it"
        ) from error
    nested["reasons"] = tuple(nested["reasons"])
    nested["findings"] = tuple(nested["findings"])
    created = _EPOCH + timedelta(microseconds=row["created"])
    return Record(**{**row, **nested, "created": created})


def _microseconds(moment: datetime) -> int:
    return (moment - _EPOCH) // timedelta(microseconds=1)
