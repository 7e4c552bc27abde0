"""How far the service's groups are behind the ends of their topics, by committed positions: what `topic lag` prints and the API says."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from headrace.service.names import Names
from headrace.topics.log import every_partition

if TYPE_CHECKING:
    from collections.abc import Sequence

    from headrace.topics.log import Log


class TopicLag(msgspec.Struct, frozen=True, kw_only=True):
    """One partition. `committed` is None where the group has no position; `lag` then counts from the start, or is None for the run log."""

    topic: str
    partition: int
    committed: int | None
    end: int
    lag: int | None
    group: str


async def topic_lag(log: Log, app: str, sources: Sequence[str] | None) -> list[TopicLag]:
    """Every source partition and the run log. `sources=None`: the topics for which the router has committed a position."""
    names = Names(app)
    wanted = await log.topics() if sources is None else sources
    rows = await _of_group(log, wanted, names.router, all_=sources is not None)
    return rows + await _of_group(log, [names.runs], names.owners, all_=True)


async def _of_group(log: Log, topics: Sequence[str], group: str, *, all_: bool) -> list[TopicLag]:
    """Rows of all partitions, or only of those that the group has a position in."""
    places = [at for topic in topics for at in await every_partition(log, topic)]
    if not places:
        return []
    positions = await log.committed(group, places)
    shown = places if all_ else [at for at in places if at in positions]
    offsets = await log.offsets(shown)
    rows: list[TopicLag] = []
    for at in shown:
        committed = positions[at].offset if at in positions else None
        end = offsets[at].end
        behind = None if committed is None and group.endswith(".owners") else end - (committed or offsets[at].start)
        rows.append(
            TopicLag(topic=at.topic, partition=at.partition, committed=committed, end=end, lag=behind, group=group)
        )
    return rows
