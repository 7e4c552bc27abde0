"""Takes a database to the newest schema, in the transaction that is open. Alembic's machinery, without its command line. Called by `database.py`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from alembic.config import Config
from alembic.runtime.environment import EnvironmentContext
from alembic.script import ScriptDirectory

from headrace.service.history.tables import VERSIONS

if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

    from sqlalchemy import Connection


def script() -> ScriptDirectory:
    """All migrations that this version knows."""
    config = Config()
    config.set_main_option("script_location", "headrace.service.history:migrations")
    return ScriptDirectory.from_config(config)


def upgrade(connection: Connection) -> None:
    """Run what is missing. Whoever calls holds the lock, and commits."""
    steps = script()

    def missing(found: Any, _context: Any) -> Iterable[Any]:
        return steps._upgrade_revs("head", found)  # pyright: ignore[reportPrivateUsage] # noqa: SLF001 - what alembic.command.upgrade calls

    with EnvironmentContext(Config(), steps, fn=missing) as environment:
        environment.configure(connection=connection, version_table=VERSIONS, transactional_ddl=False)
        environment.run_migrations()
