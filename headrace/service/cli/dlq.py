"""`headrace dlq list|get|stats`: what lies in the dead-letter topics. Needs no user code, and no service that runs."""

from typing import Annotated

import msgspec
from cyclopts import Parameter

from headrace.service.cli.client import opened
from headrace.service.cli.dlq_option import LetterArgument, LetterOptions
from headrace.service.cli.option import Common, checked_limit, options
from headrace.service.cli.output import Format, show, show_one
from headrace.service.cli.terminal_table import Column
from headrace.service.letters.book import LetterState
from headrace.service.letters.letters import Letters
from headrace.service.names import Names

_LIST = (
    Column("DEAD LETTER", "id"),
    Column("TIME", "at", spare=1),
    Column("STATE", "state"),
    Column("STAGE", "stage", spare=4),
    Column("CODE", "code"),
    Column("WORKFLOW", "workflow", spare=2),
    Column("KEY", "key", spare=3),
    Column("SOURCE", "source", spare=5),
    Column("ATTEMPTS", "attempts", right=True, spare=6),
    Column("ERROR", "error"),
)
_STATS = (
    Column("TOPIC", "topic"),
    Column("STAGE", "stage"),
    Column("CODE", "code"),
    Column("WORKFLOW", "workflow"),
    Column("OPEN", "open", right=True),
    Column("REDRIVEN", "redriven", right=True),
    Column("RESOLVED", "resolved", right=True),
    Column("OLDEST OPEN", "oldest_at", spare=1),
    Column("NEWEST OPEN", "newest_at", spare=2),
)


async def list_(
    *,
    letters: LetterOptions | None = None,
    limit: Annotated[int, Parameter(help="At most so many; 0: all.")] = 50,
    common: Common | None = None,
) -> None:
    """List dead letters that nobody has dealt with, the newest first."""
    common, letters = options(common), letters or LetterOptions()
    limit = checked_limit(limit)
    settings = common.load().settings
    wanted = letters.filter(settings.app.name)
    async with opened(settings) as log:
        found = await Letters(log, Names(settings.app.name)).newest(wanted, limit)
    show([msgspec.structs.asdict(each) for each in found], _LIST, common.output, name="id")


async def get(letter: LetterArgument, /, *, common: Common | None = None) -> None:
    """Show one dead letter: what was wrong, what was done, and the record as it came."""
    common = options(common)
    settings = common.load().settings
    async with opened(settings) as log:
        found = await Letters(log, Names(settings.app.name)).get(letter)
    row = msgspec.structs.asdict(found)
    if common.output is Format.TABLE:
        headers = row.pop("headers")
        value = row.pop("value")
        row |= {f"header {name}": text for name, text in headers} | {"value": value}
    show_one(row, common.output, name="id")


async def stats(*, letters: LetterOptions | None = None, common: Common | None = None) -> None:
    """Count dead letters by topic, stage, code and workflow."""
    common, letters = options(common), letters or LetterOptions()
    settings = common.load().settings
    wanted = letters.filter(settings.app.name, frozenset(LetterState))
    async with opened(settings) as log:
        counts = await Letters(log, Names(settings.app.name)).counts(wanted)
    show([msgspec.structs.asdict(each) for each in counts], _STATS, common.output, name="code")
