"""The embedded log's SQLite file: its tables, how it is opened, and who owns it.

A row of `batch` holds neighbouring records of one partition as a MessagePack list of `LogRecord`; its rowid is the
partition's number in the file and
the last offset (`row_of`), so that reading from an offset is one range scan. `head` has the offsets, which survive
trimming everything.
"""

from __future__ import annotations

import fcntl
import os
import sqlite3
from pathlib import Path
from typing import IO

import msgspec

from headrace.topics.log import LogCorrupt, LogOwned, LogRecord, LogUnavailable

FORMAT = 1
_APPLICATION_ID = 0x48454144  # "HEAD"
_OFFSET_BITS = 42  # 4e12 records a partition, 2e6 partitions a file
_BUSY_TIMEOUT_S = 10.0  # how long another process may hold the write lock: a commit takes milliseconds
_CHECKPOINT_PAGES = 2000  # 8 MB of write-ahead log, then its pages go to their places

_SCHEMA = """
CREATE TABLE topic (name TEXT PRIMARY KEY, spec BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE partition (id INTEGER PRIMARY KEY, topic TEXT NOT NULL, number INTEGER NOT NULL, UNIQUE (topic, number));
CREATE TABLE head (
    id INTEGER PRIMARY KEY, start_offset INTEGER NOT NULL, end_offset INTEGER NOT NULL, timestamp_ms INTEGER NOT NULL
);
CREATE TABLE batch (id INTEGER PRIMARY KEY, records BLOB NOT NULL);
CREATE TABLE position (
    grp TEXT, id INTEGER, next_offset INTEGER NOT NULL, metadata TEXT NOT NULL, PRIMARY KEY (grp, id)
) WITHOUT ROWID;
"""

encode_records = msgspec.msgpack.Encoder().encode
decode_records = msgspec.msgpack.Decoder(list[LogRecord]).decode


def row_of(partition_id: int, offset: int) -> int:
    """The rowid of a batch whose last record has this offset."""
    return (partition_id << _OFFSET_BITS) | offset


def open_file(path: Path, *, create: bool) -> sqlite3.Connection:
    """A connection to the log file, which is made (mode 0600, with its folder) if `create`.

    Raises `LogUnavailable` if it is not there or cannot be opened, `LogCorrupt` if it is something else or damaged.
    """
    try:
        if create:
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
        elif not path.exists():
            raise LogUnavailable(
                f"There is no embedded log at {path}.",
                do="Start the service that keeps it (headrace dev), or give its path.",
            )
        connection = sqlite3.connect(
            path, timeout=_BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False, cached_statements=256
        )
    except (OSError, sqlite3.OperationalError) as error:
        do = "Correct log.path, or the permissions there."
        raise LogUnavailable(f"The embedded log {path} cannot be opened: {error}.", do=do) from error
    try:
        _prepare(connection, path)
    except sqlite3.Error as error:
        connection.close()
        raise broken_or_unavailable(path, error) from error
    except BaseException:
        connection.close()
        raise
    return connection


def _prepare(connection: sqlite3.Connection, path: Path) -> None:
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")  # the write-ahead log is synced at each commit
    connection.execute(f"PRAGMA wal_autocheckpoint = {_CHECKPOINT_PAGES}")
    connection.execute("PRAGMA journal_size_limit = 67108864")
    if (found := _format(connection)) == 0:
        connection.execute("BEGIN IMMEDIATE")
        try:
            if (found := _format(connection)) == 0:  # nobody else made it meanwhile
                for statement in _SCHEMA.split(";"):
                    connection.execute(statement)
                connection.execute(f"PRAGMA application_id = {_APPLICATION_ID}")
                connection.execute(f"PRAGMA user_version = {FORMAT}")
                found = FORMAT
            connection.execute("COMMIT")
        except BaseException:
            connection.execute("ROLLBACK")
            raise
    if found != FORMAT:
        raise LogCorrupt(
            f"The embedded log {path} has format {found}, this version knows {FORMAT}.",
            why="It was written by another version, or is not a log at all.",
            do="Use the version that wrote it, or another path.",
        )


def _format(connection: sqlite3.Connection) -> int:
    """0: a new, empty file. -1: another program's."""
    version: int = connection.execute("PRAGMA user_version").fetchone()[0]
    application: int = connection.execute("PRAGMA application_id").fetchone()[0]
    if application == _APPLICATION_ID:
        return version
    empty = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0] == 0
    return 0 if empty and version == 0 and application == 0 else -1


def broken_or_unavailable(path: Path, error: sqlite3.Error) -> LogUnavailable | LogCorrupt:
    """What an SQLite error means for the caller: wait (disk full, locked, I/O), or stop (the file is damaged)."""
    if isinstance(error, sqlite3.OperationalError):
        return LogUnavailable(
            f"The embedded log {path} cannot be used now: {error}.",
            do="See that the disk has room and works; the service tries again by itself.",
        )
    return LogCorrupt(
        f"The embedded log {path} is damaged: {error}.",
        why="The file was changed by something else, or the disk lost writes.",
        do="Stop the service and restore the file from a backup.",
    )


class OwnerLock:
    """The advisory lock `<path>.lock` with the owner's pid inside. The kernel drops it when the process dies."""

    def __init__(self, path: Path) -> None:
        self._path = path.with_name(path.name + ".lock")
        self._file: IO[str] | None = None

    def acquire(self) -> None:
        """Take the lock or raise `LogOwned` with the pid of the process that has it."""
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            lock = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise LogUnavailable(
                f"The embedded log cannot be kept in {self._path.parent}: {error.strerror}.",
                do="Choose another log.path (--log-path), in a folder that can be written.",
            ) from error
        file = os.fdopen(lock, "r+", encoding="ascii")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            found = file.read().strip()
            file.close()
            pid = int(found) if found.isdigit() else None
            raise LogOwned(
                f"The log {self._path.with_suffix('')} belongs to process {found or '(unknown)'}.",
                pid=pid,
                do=f"Stop process {found or 'that owns it'}, or use another log.path.",
            ) from None
        file.truncate(0)
        file.write(f"{os.getpid()}\n")
        file.flush()
        self._file = file

    def release(self) -> None:
        """Give the lock back. The file stays: removing it would race with the next owner."""
        if self._file is not None:
            self._file.close()
            self._file = None
