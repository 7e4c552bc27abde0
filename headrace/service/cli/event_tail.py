"""`headrace event tail`: what lies on a topic, decoded; dead letters with what was wrong."""

from collections.abc import Callable, Sequence
from typing import Annotated, Any, cast

import anyio
import msgspec
from anyio.streams.memory import MemoryObjectSendStream
from cyclopts import Parameter

from headrace.service.cli.client import opened
from headrace.service.cli.event import TopicArgument, no_partition
from headrace.service.cli.event_input import event_limits
from headrace.service.cli.exit_code import Usage
from headrace.service.cli.hang_up import reader_gone
from headrace.service.cli.option import Common, options
from headrace.service.cli.output import Format, Stream
from headrace.service.cli.terminal_table import TIME_WIDTH, Column
from headrace.service.first_record import READ_S
from headrace.topics.cloudevents import decode
from headrace.topics.dead_letter import DeadLetter, parse_dead_letter
from headrace.topics.event import format_time
from headrace.topics.event_data import EventLimits, EventRejected
from headrace.topics.log import Batch, Log, LogRecord, Offsets, TopicPartition, Unreadable

_COLUMNS = (
    (Column("PLACE", "place"), 9),
    (Column("TIME", "timestamp"), TIME_WIDTH),
    (Column("KEY", "key"), 14),
    (Column("TYPE", "type", spare=1), 24),
    (Column("ID", "id", spare=2), 36),
    (Column("DATA", "shown"), 0),
)
_BATCHES_AHEAD = 4  # batches of all partitions that wait to be printed: a slow terminal slows the reading


async def tail(
    topic: TopicArgument,
    /,
    *,
    from_: Annotated[str, Parameter(name="--from", help="start, end, or an offset of each partition.")] = "end",
    limit: Annotated[int | None, Parameter(help="Stop after this many.")] = None,
    partition: Annotated[int | None, Parameter(help="Only this partition.")] = None,
    follow: Annotated[bool, Parameter(help="Wait for more; --no-follow stops at the present end.")] = True,
    common: Common | None = None,
) -> None:
    """Print a topic's events as they come."""
    common = options(common)
    if limit is not None and limit < 0:
        raise Usage(f"--limit {limit} is negative.", do="Leave it out for no limit.")
    settings = common.load().settings
    stream = Stream(_COLUMNS, common.output, name="id")
    limits = event_limits(settings)
    async with opened(settings) as log:
        spans = await _spans(log, topic, partition, from_)
        left = limit
        table = common.output is Format.TABLE

        def wants_more(at: TopicPartition, record: LogRecord | Unreadable) -> bool:
            nonlocal left
            stream.row(_row(at, record, limits), hide=() if table else ("place", "shown"))
            left = None if left is None else left - 1
            return left != 0

        if left != 0:
            await _each(log, spans, wants_more, follow=follow)


async def _spans(log: Log, topic: str, partition: int | None, from_: str) -> dict[TopicPartition, Offsets]:
    """Where to begin in each partition, and where it ends now."""
    count = await log.partitions(topic)
    if partition is not None and not 0 <= partition < count:
        raise no_partition(topic, partition, count)
    places = [TopicPartition(topic, number) for number in (range(count) if partition is None else (partition,))]
    offsets = await log.offsets(places)
    match from_:
        case "start":
            return {at: offsets[at] for at in places}
        case "end":
            return {at: Offsets(offsets[at].end, offsets[at].end) for at in places}
        case _ if from_.isdecimal():
            begin = int(from_)
            return {at: Offsets(min(max(begin, offsets[at].start), offsets[at].end), offsets[at].end) for at in places}
        case _:
            raise Usage(f"--from {from_} is neither start nor end nor an offset.", do="Use one of these.")


_Records = tuple[TopicPartition, Sequence[LogRecord | Unreadable]]


async def _each(
    log: Log,
    spans: dict[TopicPartition, Offsets],
    wants_more: Callable[[TopicPartition, LogRecord | Unreadable], bool],
    *,
    follow: bool,
) -> None:
    """Hand over the records of all partitions as they come, those of one partition in order, until no more are wanted.

    Raises BrokenPipeError, in a group, if it follows and nobody reads stdout any more.
    """
    send, receive = anyio.create_memory_object_stream[_Records](_BATCHES_AHEAD)

    async def read(at: TopicPartition, span: Offsets, out: MemoryObjectSendStream[_Records]) -> None:
        async with out:
            if not follow and span.start >= span.end:
                return
            async with log.read(at, span.start, isolation="committed") as batches:
                while True:
                    batch: Batch | None = None
                    with anyio.move_on_after(None if follow else READ_S):
                        batch = await anext(batches)
                    if batch is None:
                        return
                    records = batch.records if follow else [one for one in batch.records if one.offset < span.end]
                    await out.send((at, records))
                    if not follow and batch.goes_on_at >= span.end:
                        return

    async def hang_up() -> None:
        await reader_gone()
        raise BrokenPipeError

    async with anyio.create_task_group() as group:
        if follow:
            group.start_soon(hang_up)
        for at, span in spans.items():
            group.start_soon(read, at, span, send.clone())
        send.close()
        async with receive:
            async for at, records in receive:
                if not all(wants_more(at, record) for record in records):
                    group.cancel_scope.cancel()
                    return


def _row(at: TopicPartition, record: LogRecord | Unreadable, limits: EventLimits) -> dict[str, Any]:
    row: dict[str, Any] = {
        "place": f"{at.partition}/{record.offset}",
        "topic": at.topic,
        "partition": at.partition,
        "offset": record.offset,
        "timestamp": format_time(record.timestamp_ms),
        "key": None,
        "type": None,
        "id": f"{at.partition}-{record.offset}",
    }
    if isinstance(record, Unreadable):
        return row | {
            "error": {"code": record.code, "message": record.reason},
            "shown": f"{record.code} {record.reason}",
        }
    row["key"] = None if record.key is None else record.key.decode("utf-8", "replace")
    letter = parse_dead_letter(record)
    if letter is not None:
        return row | _dead_letter(letter)
    try:
        event = decode(record, at, limits)
    except EventRejected as error:
        headers = {name: value.decode("utf-8", "replace") for name, value in record.headers}
        raw = None if record.value is None else record.value.decode("utf-8", "replace")
        return row | {
            "error": {"code": error.code, "message": error.message},
            "headers": headers,
            "value": raw,
            "shown": f"{error.code} {error.message}",
        }
    meta = event.meta
    return row | {
        "type": meta.type,
        "id": meta.id,
        "source": meta.source,
        "subject": meta.subject,
        "time": meta.time,
        "extensions": meta.extensions,
        "headers": _other_headers(record),
        "data": event.data,
        "shown": bytes(event.data).decode(),
    }


def _dead_letter(letter: DeadLetter) -> dict[str, Any]:
    facts = cast("dict[str, Any]", msgspec.to_builtins(letter, builtin_types=(bytes,)))
    del facts["key"]
    facts["value"] = None if letter.value is None else letter.value.decode("utf-8", "replace")
    facts["headers"] = {name: value.decode("utf-8", "replace") for name, value in letter.headers}
    place = letter.topic if letter.offset is None else f"{letter.topic}/{letter.partition}/{letter.offset}"
    shown = f"{letter.code} {letter.error} ({place})"
    return {"type": f"dead letter ({letter.stage})", "dead_letter": facts, "shown": shown}


def _other_headers(record: LogRecord) -> dict[str, str]:
    return {
        name: value.decode("utf-8", "replace")
        for name, value in record.headers
        if not name.startswith("ce_") and name != "content-type"
    }
