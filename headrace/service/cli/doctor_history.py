"""What `headrace doctor` finds out about the history: whether its database answers, and is migrated. Makes nothing."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from headrace.service.cli.doctor_check import Check, State, failed
from headrace.service.history.url import history_url, shown, sqlite_path
from headrace.topics.errors import HeadraceError

if TYPE_CHECKING:
    from headrace.service.settings import Settings

_CHECK = "history"


async def history_check(settings: Settings) -> Check | None:
    """None where there is to be no history."""
    url = history_url(settings)
    if url is None:
        return None
    where, path = shown(url), sqlite_path(url)
    if path is not None and not Path(path).exists():  # noqa: ASYNC240 - a look
        return Check(_CHECK, State.OK, f"{path} will be made at the first start")
    from headrace.service.history.database import Database, OtherApp, SchemaNewer
    from headrace.service.history.tables import NEWEST

    database = Database(url)
    try:
        found, owner = await database.look()
    except HeadraceError as error:
        check = failed(_CHECK, error)
        return Check(_CHECK, check.state, check.found, check.fix or "See that it runs and can be reached.", check.code)
    finally:
        await database.close()
    if found is None:
        return Check(_CHECK, State.WARN, f"{where} answers, and has no tables", "The first start makes them.")
    if found > NEWEST:
        fix = "Run the newer version everywhere, or set history.url to another database."
        return Check(
            _CHECK, State.FAIL, f"{where} has schema {found}; this version knows {NEWEST}", fix, SchemaNewer.code
        )
    if owner not in {"", settings.app.name}:
        fix = "Give each app a database of its own: set history.url."
        return Check(_CHECK, State.FAIL, f"{where} has the history of the app {owner}", fix, OtherApp.code)
    if found < NEWEST:
        fix = "The next start brings it up to date."
        return Check(_CHECK, State.WARN, f"{where} has schema {found}; this version makes {NEWEST} of it", fix)
    return Check(_CHECK, State.OK, f"{where} answers, schema {found}")
