"""`headrace topic list|lag|create|check`."""

from typing import Annotated

import msgspec
from cyclopts import Parameter

from headrace.service.cli.app_option import loaded_app
from headrace.service.cli.client import opened
from headrace.service.cli.exit_code import ExitCode
from headrace.service.cli.option import Common, options, warn
from headrace.service.cli.output import show
from headrace.service.cli.terminal_table import Column
from headrace.service.topic_lag import topic_lag
from headrace.service.topic_plan import check as differences_of
from headrace.service.topic_plan import planned, prepare
from headrace.topics.log import TopicPartition

AppArgument = Annotated[str | None, Parameter(help="The app whose topics are meant too: a module, a file or a folder.")]

_LIST = (
    Column("TOPIC", "topic"),
    Column("PARTITIONS", "partitions", right=True),
    Column("REPLICAS", "replication", right=True),
    Column("RECORDS", "records", right=True),
    Column("CLEANUP", "cleanup_policy"),
    Column("RETENTION MS", "retention_ms", right=True),
    Column("MAX BYTES", "max_message_bytes", right=True),
)
_LAG = (
    Column("TOPIC", "topic"),
    Column("PARTITION", "partition", right=True),
    Column("COMMITTED", "committed", right=True),
    Column("END", "end", right=True),
    Column("LAG", "lag", right=True),
    Column("GROUP", "group"),
)
_CHECK = (Column("CODE", "code"), Column("TOPIC IS WRONG", "message"), Column("FIX", "fix"))


async def list_(*, common: Common | None = None) -> None:
    """List all topics and how many records they hold (offsets, so trimmed gaps of Kafka count)."""
    common = options(common)
    settings = common.load().settings
    async with opened(settings) as log:
        specs = await log.describe(await log.topics())
        places = [TopicPartition(spec.name, number) for spec in specs.values() for number in range(spec.partitions)]
        offsets = await log.offsets(places)
    records: dict[str, int] = {}
    for at, span in offsets.items():
        records[at.topic] = records.get(at.topic, 0) + span.end - span.start
    rows = [
        {
            "topic": name,
            "partitions": spec.partitions,
            "replication": spec.replication,
            "records": records.get(name, 0),
            "cleanup_policy": spec.cleanup_policy,
            "retention_ms": spec.retention_ms,
            "max_message_bytes": spec.max_message_bytes,
        }
        for name, spec in sorted(specs.items())
    ]
    show(rows, _LIST, common.output, name="topic")


async def lag(app: AppArgument = None, /, *, common: Common | None = None) -> None:
    """Show how far behind the routers are, per source partition, and how long the run log is.

    Without APP, sources are the topics for which the router has committed a position.
    """
    common = options(common)
    settings = common.load().settings
    wanted = loaded_app(app).source_topics if app is not None else None
    async with opened(settings) as log:
        rows = await topic_lag(log, settings.app.name, wanted)
    show([msgspec.to_builtins(row) for row in rows], _LAG, common.output, name="topic")


async def create(app: AppArgument = None, /, *, common: Common | None = None) -> None:
    """Make the topics that an app needs, and Headrace's own; those that exist are only checked."""
    common = options(common)
    settings = common.load().settings
    sources, outputs = _topics_of(app)
    async with opened(settings, make=True) as log:
        made = await prepare(log, await planned(log, settings, sources=sources, outputs=outputs), create=True)
    if not made:
        warn("All topics are there.")
        return
    show([{"topic": name} for name in made], (Column("MADE", "topic"),), common.output, name="topic")


async def check(app: AppArgument = None, /, *, common: Common | None = None) -> ExitCode:
    """Compare topics with what they must be like. Exit code 7 if one differs or is missing."""
    common = options(common)
    settings = common.load().settings
    sources, outputs = _topics_of(app)
    async with opened(settings) as log:
        wanted = await planned(log, settings, sources=sources, outputs=outputs)
        problems = await differences_of(log, wanted)
    rows = [
        {"code": problem.code, "message": problem.message, "why": problem.why, "fix": problem.do}
        for problem in problems
    ]
    if not rows:
        warn(f"{len(wanted.all)} topics are as they should be.")
        return ExitCode.OK
    show(rows, _CHECK, common.output, name="code")
    return ExitCode.INVALID


def _topics_of(app: str | None) -> tuple[tuple[str, ...], tuple[str, ...]]:
    if app is None:
        return (), ()
    loaded = loaded_app(app)
    return loaded.source_topics, loaded.emitted_topics
