"""Is this run log the one that it was? What owners know of their partitions, held against what is there.

A topic that was made anew under its name, or that has other partitions than its records say, is refused: runs would be lost or reach the wrong owner.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from headrace.service.names import Names
from headrace.service.owner_position import OwnerPosition, of
from headrace.service.topic_plan import OTHER_PARTITIONS
from headrace.topics.errors import Fatal, SettingsError, Transient
from headrace.topics.log import TopicPartition

if TYPE_CHECKING:
    from headrace.service.engine.state import PartitionState
    from headrace.service.shared import Shared
    from headrace.topics.log import Log

_UNKNOWN = OwnerPosition(offset=-1)


class LogReplaced(Fatal):
    """The topic has the name of the run log, but it is another one."""

    code = "HR1208"

    def __init__(self, at: TopicPartition) -> None:
        super().__init__(
            f"{at} is not the run log that it was: its first announce is another one.",
            why="The topic was deleted and made anew; all open runs were in the old one.",
            do="Restore the topic from a copy. If those runs may be forgotten, choose a new app.name, or delete the positions of the groups of this app.",
        )


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


async def position_of(shared: Shared, at: TopicPartition) -> OwnerPosition:
    """What the partition's last owner committed; nothing, if it cannot be had: it is a hint."""
    try:
        found = (await shared.log.committed(shared.names.owners, [at])).get(at)
    except Transient:
        return _UNKNOWN
    return _UNKNOWN if found is None else of(found)


def check_identity(at: TopicPartition, state: PartitionState, known: OwnerPosition, partitions: int) -> None:
    """Raises `LogReplaced` or `PartitionsChanged` if the folded log is not what it should be."""
    gate = state.gate
    if known.log and gate.first != known.log:
        raise LogReplaced(at)
    if gate.partitions and gate.partitions != partitions:
        raise PartitionsChanged(at, gate.partitions, partitions)
