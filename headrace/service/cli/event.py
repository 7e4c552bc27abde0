"""`headrace event publish`: write source records, as any producer would."""

import random
from typing import Annotated

from cyclopts import Parameter

from headrace.service.cli.client import opened
from headrace.service.cli.event_input import EventInput
from headrace.service.cli.exit_code import Usage
from headrace.service.cli.option import Common, options
from headrace.service.cli.output import Format, counted, show
from headrace.service.cli.terminal_table import Column
from headrace.service.names import Names
from headrace.topics.log import Log, NewRecord, TopicPartition
from headrace.topics.partition_hash import kafka_partition_of

TopicArgument = Annotated[str, Parameter(help="The topic.")]

_PUBLISHED = (
    Column("TOPIC", "topic"),
    Column("PARTITION", "partition", right=True),
    Column("OFFSET", "offset", right=True),
    Column("ID", "id"),
)
_BATCH = 500  # records read from stdin before they are written
_BATCH_BYTES = 4 << 20


def no_partition(topic: str, partition: int, count: int) -> Usage:
    """The topic has `count` partitions, and this is none of them."""
    return Usage(f"{topic} has no partition {partition}: it has {count}.", do=f"Name one from 0 to {count - 1}.")


async def publish(
    topic: TopicArgument,
    /,
    *,
    partition: Annotated[int | None, Parameter(help="This partition; else by the key, as Kafka does.")] = None,
    event: EventInput | None = None,
    common: Common | None = None,
) -> None:
    """Publish events, in order, and print where they lie."""
    common, event = options(common), event or EventInput()
    event.judge()
    settings = common.load().settings
    rows: list[dict[str, object]] = []
    async with opened(settings) as log:
        count = await log.partitions(topic)
        if topic == Names(settings.app.name).runs and not event.unchecked:
            raise Usage(
                f"{topic} is the run log: commands and outcomes of runs, not events.",
                why="A record of another kind stops its partition, with all runs in it.",
                do="Publish to a topic that a trigger names. With --unchecked it is sent all the same.",
            )
        if partition is not None and not 0 <= partition < count:
            raise no_partition(topic, partition, count)
        batch: list[NewRecord] = []
        size = 0
        wrong: Usage | None = None
        try:
            for record in event.records(topic, settings):
                batch.append(record)
                size += record.size
                if len(batch) >= _BATCH or size >= _BATCH_BYTES:
                    rows += await _published(log, topic, count, partition, batch)
                    batch, size = [], 0
        except Usage as error:
            wrong = error
        if batch:
            rows += await _published(log, topic, count, partition, batch)
    if wrong is not None:
        raise _stopped(wrong, len(rows))
    if len(rows) != 1 and common.output is Format.TABLE:
        print(f"{counted(len(rows), 'event')} published to {topic}.")
    else:
        show(rows, _PUBLISHED, common.output, name="id")


def _stopped(wrong: Usage, published: int) -> Usage:
    """What is before a line that cannot be is published, so that one can go on from there."""
    if not published:
        return wrong
    before = f"{counted(published, 'event')} before it {'is' if published == 1 else 'are'} published."
    return Usage(
        wrong.message, code=wrong.code, why=f"{wrong.why} {before}".strip(), do=wrong.do or "Go on from there."
    )


async def _published(
    log: Log, topic: str, count: int, partition: int | None, batch: list[NewRecord]
) -> list[dict[str, object]]:
    """Write one batch, each partition's share in order; where each record lies, in the order given."""
    without_key = random.randrange(count)
    shares: dict[int, list[int]] = {}
    for index, record in enumerate(batch):
        if partition is not None:
            number = partition
        elif record.key is not None:
            number = kafka_partition_of(record.key, count)
        else:
            number = (without_key + index) % count
        shares.setdefault(number, []).append(index)
    rows: dict[int, dict[str, object]] = {}
    for number, indexes in shares.items():
        appended = await log.publish(TopicPartition(topic, number), [batch[index] for index in indexes])
        for place, index in enumerate(indexes):
            offset = appended.base_offset + place
            given = dict(batch[index].headers).get("ce_id")
            id_ = f"{number}-{offset}" if given is None else given.decode("utf-8", "replace")
            rows[index] = {"topic": topic, "partition": number, "offset": offset, "id": id_}
    return [rows[index] for index in sorted(rows)]
