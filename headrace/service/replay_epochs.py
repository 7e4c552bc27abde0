"""Replay epochs: which pass over a source topic counts. `headrace topic rewind` begins a new one.

The truth is in the run log: an `epoch` command in every partition, before anything is read anew. Routers learn of it from the owners beside them; a process
without an owner looks at what is committed in the group `<app>.epochs`, a hint. Positions of an older epoch are worth nothing: a router that finds one goes
to where the newest epoch began, or to what owners know to be done since. Changed by owners, asked by `router.py` and its sources.

Owners also know the newest source records that made starts: a position is gone with its topic, and they are what tells that a topic was made again.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

import msgspec

from headrace.service.source_position import Before, SourcePosition
from headrace.topics.log import Position, TopicPartition

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from headrace.service.engine.dedupe import Dedupe
    from headrace.topics.log import Log

_METADATA_BYTES_MAX = 4_000  # of a commit
_PATIENCE_S = 10.0  # with owners that replay; then nobody can tell
_LOOK_EVERY_S = 0.02


class ReplayEpochs:
    """What this process knows. `changed` is called when a topic has a newer epoch; `replayed` says how many owners of how many here can tell."""

    def __init__(self) -> None:
        self.changed: Callable[[], None] = _nobody
        self._newest: dict[str, int] = {}
        self._floors: dict[TopicPartition, int] = {}
        self._read: dict[TopicPartition, Before] = {}
        self.replayed: Callable[[], tuple[int, int]] = _none_of_none

    def of(self, topic: str) -> int:
        """The newest epoch of a topic; 0 if it was never rewound."""
        return self._newest.get(topic, 0)

    def learn(self, topic: str, epoch: int, floors: Mapping[int, int]) -> None:
        """There is this epoch, in which everything below these offsets, by partition, is done or not wanted."""
        newest = self.of(topic)
        if epoch < newest or not epoch:
            return
        for partition, floor in floors.items():
            at = TopicPartition(topic, partition)
            self._floors[at] = floor if epoch > newest else max(floor, self._floors.get(at, 0))
        if epoch > newest:
            self._newest[topic] = epoch
            for at in [at for at in self._read if at.topic == topic]:
                del self._read[at]
            self.changed()

    def learn_from(self, dedupe: Dedupe) -> None:
        """What a partition of the run log knows."""
        for topic, epoch in dedupe.epochs.items():
            floors = {
                partition: marks.floor for (origin, partition), marks in dedupe.origins.items() if origin == topic
            }
            self.learn(topic, epoch, floors)
        for (topic, partition), marks in dedupe.origins.items():
            at = TopicPartition(topic, partition)
            read = self._read.get(at)
            if marks.newest >= 0 and marks.epoch == self.of(topic) and (read is None or read.offset < marks.newest):
                self._read[at] = Before(marks.newest, marks.newest_ms)

    async def look(self, log: Log, group: str, topics: Iterable[str]) -> None:
        """Learn what is committed in the group. Raises what the log raises."""
        places = [TopicPartition(topic, 0) for topic in topics]
        for at, position in (await log.committed(group, places)).items():
            self.learn(at.topic, position.offset, dict(enumerate(_floors_in(position.metadata))))

    async def read_before(self, at: TopicPartition) -> Before | None:
        """A record that was read in this epoch: the newest one of which owners here knew when they took over. Waits for them, for a while."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_PATIENCE_S):
                while True:
                    done, count = self.replayed()
                    if done >= count:
                        break
                    await asyncio.sleep(_LOOK_EVERY_S)
        return self._read.get(at)

    def corrected(self, at: TopicPartition, found: SourcePosition) -> SourcePosition:
        """Where to read on: as found, unless that is of an older epoch."""
        epoch = self.of(at.topic)
        if found.epoch >= epoch:
            return found
        return SourcePosition(self._floors.get(at, 0), clean=True, epoch=epoch)


def committed_epoch(epoch: int, floors: Sequence[int]) -> Position:
    """What is committed in the group `<app>.epochs`, for the topic's partition 0."""
    metadata = msgspec.json.encode(list(floors)).decode()
    return Position(epoch, metadata if len(metadata) <= _METADATA_BYTES_MAX else "")


def _floors_in(metadata: str) -> list[int]:
    try:
        return msgspec.json.decode(metadata, type=list[int])
    except msgspec.DecodeError:
        return []  # from the log's start on: deduplication sorts it out


def _nobody() -> None: ...


def _none_of_none() -> tuple[int, int]:
    return 0, 0
