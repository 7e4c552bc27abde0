"""A command to the run log: appended once the state as of now allows it, and read back, so that the answer is what every owner will see.

It has an identity of its own: appended twice, it takes effect once. Called by the files of commands: for runs, for approvals, for schedules.
"""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from typing import TYPE_CHECKING

import uuid_utils

from headrace.service.request_error import TimedOut
from headrace.topics.identity import ClientId
from headrace.topics.log import AppendFailed, LogUnavailable, NewRecord
from headrace.topics.run_record import CommandRecord, encode

if TYPE_CHECKING:
    from collections.abc import Callable

    from headrace.service.run_view.scan import Reading, Seen
    from headrace.topics.command import Command
    from headrace.topics.log import Log, TopicPartition

NOT_IN_TIME = "HR4103"
APPEND_TRIES = 5  # an append that may or may not have happened is repeated: its identity makes that harmless
_APPEND_WAIT_S = 0.5


async def sent(
    log: Log,
    reading: Reading,
    allowed: Callable[[], Command],
    *,
    see: Callable[[Seen], object] = lambda _: None,
    patience_s: float | None,
) -> tuple[ClientId, Seen]:
    """Append what is allowed once the partition's present state is known: the command's identity, and its record as it was read back.

    `see` gets every record that is read, this one too. Raises TimedOut, what `allowed` raises (then nothing was sent), and what the log raises.
    """
    identity = new_identity()
    appended = False
    try:
        async with asyncio.timeout(patience_s), aclosing(reading.following(log)) as records:
            async for seen in records:
                if seen is None:
                    record = CommandRecord(id=identity, body=allowed())
                    appended = True
                    await append(log, reading.at, record)
                    continue
                see(seen)
                if isinstance(seen.record, CommandRecord) and seen.record.id == identity:
                    return identity, seen
    except TimeoutError:
        raise not_in_time(sent=appended) from None
    raise AssertionError("a partition has no last record")


async def append(log: Log, at: TopicPartition, record: CommandRecord) -> None:
    """Append a command, again if nobody knows whether it is there."""
    for tries_left in reversed(range(APPEND_TRIES)):
        try:
            await log.append(at, [NewRecord(encode(record))])
        except (AppendFailed, LogUnavailable):
            if not tries_left:
                raise
            await asyncio.sleep(_APPEND_WAIT_S)
        else:
            return


def not_in_time(*, sent: bool) -> TimedOut:
    """What to say when a command was not read back in time."""
    if not sent:
        return TimedOut(
            "The run log was not read in time; nothing was sent.",
            code=NOT_IN_TIME,
            do="Is the broker there? Try again, with a longer --timeout on the command line.",
        )
    return TimedOut(
        "The command was sent, and not read back in time.",
        code=NOT_IN_TIME,
        why="It may be in the run log, or get there yet: the broker does not answer, or is slow.",
        do="Look what became of it before you send it again.",
    )


def new_identity() -> ClientId:
    """Of a command that nobody has sent before."""
    return ClientId(f"cli-{uuid_utils.uuid7()}")
