"""Is this run log the one that it was? What owners know of their partitions, held against what is there.

A topic that was made anew under its name, or that has other partitions than its records say, is refused: runs would be lost or reach the wrong owner.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from headrace.service import source_position
from headrace.service.names import Names
from headrace.service.owner_position import OwnerPosition, of
from headrace.service.topic_plan import OTHER_PARTITIONS
from headrace.topics.errors import Fatal, SettingsError, Transient
from headrace.topics.log import TopicPartition, every_partition

if TYPE_CHECKING:
    from collections.abc import Iterable

    from headrace.service.engine.state import PartitionState
    from headrace.service.shared import Shared
    from headrace.topics.log import Log

_UNKNOWN = OwnerPosition(offset=-1)
_MADE_ANEW = "The topic was deleted and made anew; all open runs were in the old one."
_RESTORE = "Restore the topic from a copy. If those runs may be forgotten, choose a new app.name, or delete the positions of the groups of this app."


class LogReplaced(Fatal):
    """The topic has the name of the run log, but it is another one. `first` tells which one it was (`Gate.first`)."""

    code = "HR1208"

    def __init__(self, at: TopicPartition, first: str) -> None:
        super().__init__(
            f"{at} is not the run log that it was: its first announce is another one.",
            why=_MADE_ANEW,
            do=_RESTORE,
        )
        self.first = first


class PartitionsChanged(Fatal):
    """The records of the run log were written for another number of partitions."""

    code = OTHER_PARTITIONS

    def __init__(self, at: TopicPartition, log: int, expected: int) -> None:
        super().__init__(
            f"{at.topic} was made with {log} partitions, as its records say, but {expected} are expected.",
            why="Run ids contain the partition number: commands would reach the wrong owner.",
            do=f"Restore {at.topic} with {log} partitions and set log.partitions = {log}, or choose a new app.name. Nothing was written.",
        )


async def refuse_other_partitions(log: Log, app: str, partitions: int) -> None:
    """At the start, before anything is read: the run log was written for another number of partitions. Raises `SettingsError`."""
    names = Names(app)
    places = [TopicPartition(names.runs, number) for number in range(partitions)]
    try:
        found = await log.committed(names.owners, places)
    except Transient:
        return  # a hint; every owner looks at the records themselves
    for at, position in found.items():
        known = of(position)
        if known.partitions and known.partitions != partitions:
            changed = PartitionsChanged(at, known.partitions, partitions)
            raise SettingsError(changed.message, code=changed.code, why=changed.why, do=changed.do)


async def refuse_emptied(log: Log, app: str, sources: Iterable[str], partitions: int) -> None:
    """At the start, before anything is read: the run log is empty, but commands went into it. Raises `SettingsError`.

    With a topic brokers forget the positions of its owners, and so which log it was. Those of the sources stay.
    """
    names = Names(app)
    try:
        runs = await log.offsets([TopicPartition(names.runs, number) for number in range(partitions)])
        if any(offsets.end for offsets in runs.values()):
            return
        places = [at for topic in sources for at in await every_partition(log, topic)]
        if not places:
            return
        found = await log.committed(names.router, places)
    except Transient:
        return  # as above
    for at, position in sorted(found.items()):
        if source_position.of(position).made:
            message = f"{names.runs} is empty, but runs were started in it from {at}."
            raise SettingsError(message, code=LogReplaced.code, why=_MADE_ANEW, do=_RESTORE)


async def position_of(shared: Shared, at: TopicPartition) -> OwnerPosition:
    """What the partition's last owner committed; nothing, if it cannot be had: it is a hint."""
    try:
        found = (await shared.log.committed(shared.names.owners, [at])).get(at)
    except Transient:
        return _UNKNOWN
    return _UNKNOWN if found is None else of(found)


def check_identity(
    at: TopicPartition, state: PartitionState, known: OwnerPosition, partitions: int, *, read_before: str = ""
) -> None:
    """Raises `LogReplaced` or `PartitionsChanged` if the folded log is not what it should be. `read_before`: which one we have read before, if any."""
    gate = state.gate
    first = known.log or read_before
    if first and gate.first != first:
        raise LogReplaced(at, first)
    if gate.partitions and gate.partitions != partitions:
        raise PartitionsChanged(at, gate.partitions, partitions)
