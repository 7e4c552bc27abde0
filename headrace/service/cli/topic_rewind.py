"""`headrace topic rewind`: read a source topic anew from somewhere on, as a new replay epoch; also the answer to a topic that was deleted and made again.

First every partition of the run log hears of the epoch: from there on commands of older ones have no effect. Then the routers' positions are set.
Services may run meanwhile: their routers hear of the epoch from the run log and go where it begins.
"""

from typing import Annotated, Any

import uuid_utils
from cyclopts import Parameter

from headrace.service import source_position
from headrace.service.cli.client import opened
from headrace.service.cli.exit_code import Conflict, ExitCode, Usage
from headrace.service.cli.option import Common, options, warn
from headrace.service.cli.output import show
from headrace.service.cli.terminal_table import Column
from headrace.service.engine.state import PartitionState
from headrace.service.first_record import first_record_from
from headrace.service.names import Names
from headrace.service.replay_epochs import committed_epoch
from headrace.service.run_view.scan import Seen, scan
from headrace.service.sent_command import append
from headrace.service.settings import Settings
from headrace.service.source_position import SourcePosition
from headrace.topics.command import Epoch
from headrace.topics.event import parse_time
from headrace.topics.identity import ClientId
from headrace.topics.log import Log, Offsets, TopicPartition, every_partition
from headrace.topics.run_record import CommandRecord

_REWOUND = (
    Column("TOPIC", "topic"),
    Column("PARTITION", "partition", right=True),
    Column("FROM", "committed", right=True),
    Column("TO", "offset", right=True),
    Column("END", "end", right=True),
    Column("EPOCH", "epoch", right=True),
)

_To = Annotated[str, Parameter(help="earliest, latest, an offset, or a time such as 2026-11-21T13:00:00Z.")]
_DryRun = Annotated[bool, Parameter(name="--dry-run", negative="", help="Say where to; change nothing.")]


async def rewind(
    topic: Annotated[str, Parameter(help="The source topic.")],
    /,
    *,
    to: _To,
    dry_run: _DryRun = False,
    common: Common | None = None,
) -> ExitCode:
    """Read a source topic anew: its records from there on start runs again, whatever was made of them before."""
    common = options(common)
    settings = common.load().settings
    names = Names(settings.app.name)
    async with opened(settings) as log:
        places = await every_partition(log, topic)
        spans = await log.offsets(places)
        offsets = tuple([await _offset(log, at, spans[at], to) for at in places])
        committed = await log.committed(names.router, places)
        hints = (await log.committed(names.epochs, places[:1])).values()
        known = [await _newest_in_run_log(log, settings, topic)]
        known += [position.offset for position in hints]
        known += [source_position.of(position).epoch for position in committed.values()]
        epoch = max(known) + 1
        if not dry_run:
            await begin_epoch(log, names, Epoch(topic=topic, epoch=epoch, offsets=offsets))
    rows: list[dict[str, Any]] = [
        {
            "topic": topic,
            "partition": at.partition,
            "committed": committed[at].offset if at in committed else None,
            "offset": offset,
            "end": spans[at].end,
            "epoch": epoch,
        }
        for at, offset in zip(places, offsets, strict=True)
    ]
    show(rows, _REWOUND, common.output, name="partition")
    return ExitCode.OK


async def begin_epoch(log: Log, names: Names, epoch: Epoch) -> None:
    """Tell every partition of the run log, then the routers' groups. Raises `Conflict` if another rewind told them something as new meanwhile."""
    identity = ClientId(f"cli-{uuid_utils.uuid7()}")
    for at in await every_partition(log, names.runs):
        await append(log, at, CommandRecord(id=identity, body=epoch))
    positions = {
        TopicPartition(epoch.topic, number): SourcePosition(offset, clean=True, epoch=epoch.epoch).position()
        for number, offset in enumerate(epoch.offsets)
    }
    hint = TopicPartition(epoch.topic, 0)
    newest = (await log.committed(names.epochs, [hint])).get(hint)
    if newest is not None and newest.offset >= epoch.epoch:
        message = f"Another rewind of {epoch.topic!r} was made meanwhile: epoch {newest.offset}, and this one was {epoch.epoch}."
        raise Conflict(message, do="Rewind once more, when nobody else does.")
    await log.commit(names.epochs, {hint: committed_epoch(epoch.epoch, epoch.offsets)})
    await log.commit(names.router, positions)


class _Epochs:
    """Watches a scan for the newest epoch of a topic."""

    def __init__(self, topic: str) -> None:
        self._topic = topic
        self.newest = 0

    def begin(self, state: PartitionState) -> None: ...

    def see(self, seen: Seen) -> None: ...

    def end(self, state: PartitionState) -> None:
        self.newest = max(self.newest, state.dedupe.epochs.get(self._topic, 0))


async def _newest_in_run_log(log: Log, settings: Settings, topic: str) -> int:
    """The newest epoch that any partition of the run log knows. Raises what makes one unreadable: a lower epoch would have no effect there."""
    epochs = _Epochs(topic)
    for problem in await scan(log, settings, epochs):
        raise problem
    return epochs.newest


async def _offset(log: Log, at: TopicPartition, span: Offsets, to: str) -> int:
    """Where to begin in one partition."""
    if to == "earliest":
        return span.start
    if to == "latest":
        return span.end
    if to.isdecimal():
        wanted = int(to)
        if not span.start <= wanted <= span.end:
            warn(f"{at} has offsets {span.start} to {span.end}: it begins at the nearest of them.")
        return min(max(wanted, span.start), span.end)
    return await _first_at(log, at, span, _milliseconds(to))


def _milliseconds(to: str) -> int:
    try:
        return round(parse_time(to).timestamp() * 1000)
    except (ValueError, OverflowError):
        do = "Use earliest, latest, an offset, or a time such as 2026-11-21T13:00:00Z."
        raise Usage(f"--to {to!r} is no place.", do=do) from None


async def _first_at(log: Log, at: TopicPartition, span: Offsets, at_ms: int) -> int:
    """The first offset whose record is not older, as far as timestamps rise: a search by halves, some twenty reads for a million records."""
    low, high = span.start, span.end
    while low < high:
        middle = (low + high) // 2
        record = await first_record_from(log, at, middle, high)
        if record is None or record.timestamp_ms >= at_ms:
            high = middle
        else:
            low = record.offset + 1
    return low
