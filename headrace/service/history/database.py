"""The database: SQLite or PostgreSQL behind one small class. Connections, the schema at the start, and errors in our words.

Two pools: who asks never takes a connection from who feeds. Every call has an end; a database that is away is `HistoryUnavailable`.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING, Any

from sqlalchemy import event, func, inspect, select, text
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import DBAPIError, OperationalError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from headrace.service.history import tables
from headrace.service.history.url import shown, sqlite_path
from headrace.topics.errors import Fatal, SettingsError, Transient

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from sqlalchemy import Connection

_MIGRATIONS = "headrace.service.history.migrations.upgrade"
CONNECT_S = 5.0
FEED_S = 60.0  # one transaction of the feeder
ASK_S = 10.0  # one question of the API
_FEEDING, _ASKING = 2, 4  # connections: the writer and the retention; questions at once
_BUSY_S = 10.0  # SQLite: another process writes
_THREAD_S = 1.0  # for the thread of a connection that is closed to end
_LOCK = 0x68656164_72616365  # "headrace": of migrations, in PostgreSQL


class HistoryUnavailable(Transient):
    """The database does not answer, or says that it cannot now: try again."""

    code = "HR5201"


class HistoryRefused(Fatal):
    """The history cannot be kept in this database. Runs go on without it; the message says what to do."""

    code = "HR5202"


class DriverMissing(SettingsError):
    """`history.url` names PostgreSQL, and its client is not installed."""

    code = "HR1310"


class SchemaNewer(HistoryRefused):
    """A newer version of Headrace has migrated the database."""

    code = "HR5203"


class OtherApp(HistoryRefused):
    """The database has the history of another app, or of another run log of the same name."""

    code = "HR5204"


class Database:
    """`open` once, before anything else; `close` at the end."""

    def __init__(self, url: str) -> None:
        self.shown = shown(url)
        self.is_sqlite = sqlite_path(url) is not None
        self._url = url
        self._is_open = False
        self._threads: list[Thread] = []  # of SQLite's connections: they outlive them by a moment
        self._feeding = self._engine(_FEEDING)
        self._asking = self._engine(_ASKING)

    @property
    def insert(self) -> Any:
        """The dialect's own `insert`, which knows what to do on conflict."""
        return sqlite.insert if self.is_sqlite else postgresql.insert

    async def open(self, app: str) -> None:
        """See that it is there, migrated and ours. Raises `HistoryUnavailable`, `SchemaNewer`, `OtherApp`."""
        async with self._connection(self._feeding, FEED_S) as connection:
            if self.is_sqlite:
                await connection.exec_driver_sql("BEGIN IMMEDIATE")
            else:
                await connection.execute(select(func.pg_advisory_xact_lock(_LOCK)))
            if await connection.run_sync(_lacks_migrations):
                # 0.2 s that only a migration needs
                migrations = await asyncio.to_thread(importlib.import_module, _MIGRATIONS)
                await connection.run_sync(migrations.upgrade)
            insert = self.insert(tables.app).values(name=app)
            if (await connection.execute(select(func.count()).select_from(tables.app))).scalar_one() == 0:
                await connection.execute(insert)
            owner = (await connection.execute(select(tables.app.c.name))).scalar_one()
            await connection.commit()
        self._is_open = owner == app
        if owner != app:
            raise OtherApp(
                f"{self.shown} has the history of the app {owner}, not of {app}.",
                why="Ids of runs are only unique within an app.",
                do="Give each app a database of its own: set history.url.",
            )

    async def look(self) -> tuple[str | None, str]:
        """For `doctor`: which migration was the last (None: there is no table yet), and whose history it is. Changes nothing."""
        async with self._connection(self._asking, ASK_S) as connection:
            found = await connection.run_sync(_version)
            owner = None if found is None else (await connection.execute(select(tables.app.c.name))).scalar()
            return found, owner or ""

    @asynccontextmanager
    async def feeding(self) -> AsyncGenerator[AsyncConnection]:
        """A connection to write with: what was not committed at the end is undone. Raises `HistoryUnavailable`."""
        async with self._connection(self._feeding, FEED_S) as connection:
            yield connection

    @asynccontextmanager
    async def asking(self) -> AsyncGenerator[AsyncConnection]:
        """A connection to read with. Raises `HistoryUnavailable`."""
        if not self._is_open:
            raise HistoryUnavailable(f"{self.shown} is not open yet.", do="Ask again soon.")
        async with self._connection(self._asking, ASK_S) as connection:
            yield connection

    async def close(self) -> None:
        """Close all connections, those that could not be made too: their threads speak to the loop as the last thing they do."""
        await self._feeding.dispose()
        await self._asking.dispose()
        for thread in self._threads:
            await asyncio.to_thread(thread.join, _THREAD_S)

    @asynccontextmanager
    async def _connection(self, engine: AsyncEngine, within_s: float) -> AsyncGenerator[AsyncConnection]:
        try:
            async with asyncio.timeout(within_s), engine.connect() as connection:
                yield connection
        except (TimeoutError, PoolTimeout) as error:
            raise HistoryUnavailable(f"{self.shown} did not answer within {within_s:.0f} s.") from error
        except (OSError, SQLAlchemyError) as error:
            raise self._told(error) from error

    def _told(self, error: Exception) -> HistoryUnavailable:
        cause = error.orig if isinstance(error, DBAPIError) and error.orig is not None else error
        reason = " ".join(str(cause).split())[:300] or type(cause).__name__
        if isinstance(error, OperationalError | OSError):
            return HistoryUnavailable(f"{self.shown} cannot be used: {reason}", do="See that it runs and has room.")
        return HistoryUnavailable(
            f"{self.shown} refuses: {reason}", do="See what its own log says; `headrace doctor` tells more."
        )

    # --- engines -----------------------------------------------------------------------------------------------------

    def _engine(self, connections: int) -> AsyncEngine:
        path = sqlite_path(self._url)
        pool: dict[str, Any] = {"pool_size": connections, "max_overflow": 0, "pool_timeout": CONNECT_S}
        if path is None:
            return create_async_engine(
                "postgresql+asyncpg://", async_creator=self._connected, pool_pre_ping=True, **pool
            )
        file = Path(path).absolute()
        with contextlib.suppress(OSError):  # a place that cannot be had: each connection says so
            file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            file.touch(mode=0o600)  # it holds users' data, as the embedded log does
        engine = create_async_engine(f"sqlite+aiosqlite:///{path}", async_creator=partial(self._opened, file), **pool)
        event.listen(engine.sync_engine, "connect", _prepared)
        return engine

    async def _opened(self, file: Path) -> Any:
        aiosqlite: Any = importlib.import_module("aiosqlite")
        connection = aiosqlite.connect(file, timeout=_BUSY_S, check_same_thread=False)
        thread: Thread = connection._thread  # noqa: SLF001 - as SQLAlchemy does: nobody is to wait for it at the process's end
        thread.daemon = True
        self._threads = [*(each for each in self._threads if each.is_alive()), thread]
        return await connection  # which starts it

    async def _connected(self) -> Any:
        try:
            asyncpg: Any = importlib.import_module("asyncpg")  # an extra, without types
        except ImportError:
            raise driver_missing() from None
        dsn = "postgresql://" + self._url.partition("://")[2]
        try:
            return await asyncpg.connect(
                dsn, timeout=CONNECT_S, server_settings={"application_name": "headrace history"}
            )
        except (asyncpg.PostgresError, asyncpg.InterfaceError, ValueError) as error:
            raise ConnectionError(str(error)) from error


def driver_missing() -> DriverMissing:
    """What to say without asyncpg."""
    return DriverMissing(
        "history.url names PostgreSQL, but its client is not installed.",
        why="asyncpg is part of the extra `postgres`.",
        do='Install it: pip install "headrace[postgres]".',
    )


def _prepared(connection: Any, _record: Any) -> None:
    """SQLite: others read while one writes, and what is committed survives a power cut: the run log is trimmed by it."""
    try:
        cursor = connection.cursor()
        cursor.execute("PRAGMA journal_mode=WAL")
        cursor.execute("PRAGMA synchronous=FULL")
        cursor.close()
    except BaseException:
        connection.close()  # it has a thread; nobody else knows of it yet
        raise


def _version(connection: Connection) -> str | None:
    if not inspect(connection).has_table(tables.VERSIONS):
        return None
    return connection.execute(text(f"SELECT version_num FROM {tables.VERSIONS}")).scalar()  # noqa: S608 - our own name


def load(url: str) -> None:
    """Import what this database needs: 0.3 s, for before a loop turns. Without a client nothing is said yet."""
    path = sqlite_path(url)
    wanted = ["sqlalchemy.dialects.postgresql.asyncpg", "asyncpg"]
    if path is not None:
        wanted = ["sqlalchemy.dialects.sqlite.aiosqlite", "aiosqlite"]
        wanted += [] if Path(path).exists() else [_MIGRATIONS]
    for name in wanted:
        with contextlib.suppress(ImportError):
            importlib.import_module(name)


def _lacks_migrations(connection: Connection) -> bool:
    """Raises `SchemaNewer`."""
    found = _version(connection)
    if found is not None and found > tables.NEWEST:
        raise SchemaNewer(
            f"The history's database has schema {found}, and this version of Headrace knows {tables.NEWEST}.",
            why="A newer version has migrated it.",
            do="Run that version everywhere, or set history.url to another database.",
        )
    return found != tables.NEWEST
