"""The schema, its migrations, and databases that are not ours."""

import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Connection, inspect, text

from headrace.service.cli.doctor_check import State
from headrace.service.cli.doctor_history import history_check
from headrace.service.history import tables
from headrace.service.history.database import Database, HistoryUnavailable, OtherApp, SchemaNewer
from headrace.service.history.migrations.upgrade import script
from headrace.service.history_url import history_url, shown
from headrace.service.settings import Settings
from headrace.topics.errors import HeadraceError
from tests.kafka_broker.broker import free_port

OPEN = """
import asyncio, sys
from headrace.service.history.database import Database
async def opened():
    database = Database(sys.argv[1])
    await database.open("shop")
    await database.close()
asyncio.run(opened())
"""
LOADED = """
import sys, headrace, headrace.service.composition, headrace.service.cli.command_line
print([name for name in ("sqlalchemy", "alembic", "aiosqlite", "asyncpg") if name in sys.modules])
"""


def settings_of(url: str, app: str = "shop") -> Settings:
    return Settings.model_validate({"app": {"name": app}, "history": {"url": url}})


@pytest.mark.filterwarnings("ignore:.*expression-based index")
async def test_the_migrations_make_the_tables_that_we_use(url: str) -> None:
    def differences(connection: Connection) -> list[object]:
        context = MigrationContext.configure(connection, opts={"version_table": tables.VERSIONS})
        return list(compare_metadata(context, tables.metadata))

    def indexes(connection: Connection) -> set[str]:
        return {str(each["name"]) for each in inspect(connection).get_indexes("headrace_runs")}

    database = Database(url)
    await database.open("shop")
    async with database.feeding() as connection:
        found = await connection.run_sync(differences)
        made = await connection.run_sync(indexes)
    await database.close()
    # what an expression's index is over cannot be compared: its name can
    assert [each for each in found if "headrace_runs_by_key" not in str(each)] == []
    assert {index.name for index in tables.runs.indexes} - {"headrace_runs_by_key"} <= made
    assert script().get_current_head() == tables.NEWEST


async def test_several_processes_that_migrate_at_once_do_it_once(url: str) -> None:
    starting = [subprocess.Popen([sys.executable, "-c", OPEN, url], stderr=subprocess.PIPE) for _ in range(3)]
    said = [each.communicate()[1].decode() for each in starting]
    assert [text for text, each in zip(said, starting, strict=True) if each.returncode] == []
    database = Database(url)
    await database.open("shop")
    assert await database.look() == (tables.NEWEST, "shop")
    await database.close()


async def test_a_newer_schema_and_another_app_are_refused(url: str) -> None:
    database = Database(url)
    await database.open("shop")
    with pytest.raises(OtherApp, match="of the app shop, not of bakery"):
        await database.open("bakery")
    async with database.feeding() as connection:
        await connection.execute(text(f"UPDATE {tables.VERSIONS} SET version_num = '9999'"))
        await connection.commit()
    with pytest.raises(SchemaNewer, match="9999"):
        await database.open("shop")
    await database.close()


async def test_doctor_says_what_the_database_is_like(url: str) -> None:
    async def said(app: str = "shop") -> tuple[State, str]:
        check = await history_check(settings_of(url, app))
        assert check is not None
        return check.state, check.code

    assert (await said())[0] in {State.OK, State.WARN}  # a file is not there, a server has no tables
    database = Database(url)
    await database.open("shop")
    assert await said() == (State.OK, "")
    assert await said("bakery") == (State.FAIL, "HR5204")
    async with database.feeding() as connection:
        await connection.execute(text(f"UPDATE {tables.VERSIONS} SET version_num = '9999'"))
        await connection.commit()
    assert await said() == (State.FAIL, "HR5203")
    await database.close()


async def test_a_server_that_is_away_is_no_secret_but_its_password_is() -> None:
    url = f"postgresql://ada:geheim@127.0.0.1:{free_port()}/shop?sslmode=disable"
    with pytest.raises(HistoryUnavailable) as raised:
        await Database(url).open("shop")
    check = await history_check(settings_of(url))
    assert check is not None
    assert (check.state, check.code) == (State.FAIL, "HR5201")
    for said in (raised.value.report(), check.found, shown(url)):
        assert "geheim" not in said
        assert "ada" not in said
        assert "127.0.0.1" in said


async def test_a_file_that_is_no_database_is_said(tmp_path: Path) -> None:
    (tmp_path / "x.sqlite").write_text("no database" * 100)
    with pytest.raises(HeadraceError, match="not a database"):
        await Database(f"sqlite:///{tmp_path / 'x.sqlite'}").open("shop")


async def test_the_file_is_readable_for_nobody_else(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "history.sqlite"
    database = Database(f"sqlite:///{path}")
    await database.open("shop")
    await database.close()
    assert path.stat().st_mode & 0o077 == 0
    with sqlite3.connect(path) as connection:
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)


@pytest.mark.parametrize(
    ("tables_", "expected"),
    [
        ({}, "sqlite:///.headrace/headrace.history.sqlite"),
        ({"app": {"name": "shop"}, "log": {"path": "/data/shop.sqlite"}}, "sqlite:////data/shop.history.sqlite"),
        ({"log": {"backend": "kafka"}, "kafka": {"bootstrap_servers": "k:9092"}}, None),
        ({"history": {"url": "none"}}, None),
        ({"history": {"url": "postgresql://h/db"}}, "postgresql://h/db"),
    ],
)
def test_where_the_history_is(tables_: dict[str, object], expected: str | None) -> None:
    assert history_url(Settings.model_validate(tables_)) == expected


@pytest.mark.parametrize("url", ["mysql://h/db", "shop.sqlite", "sqlite:///", "", "sqlite://x"])
def test_an_address_that_cannot_be_is_refused_without_repeating_it(url: str) -> None:
    with pytest.raises(ValueError, match="it should be postgresql://") as raised:
        settings_of(url)
    assert "SecretStr" not in str(raised.value) or url not in str(raised.value).split("input_value")[0]


async def test_nobody_who_has_no_history_loads_sql() -> None:
    done = subprocess.run([sys.executable, "-c", LOADED], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
