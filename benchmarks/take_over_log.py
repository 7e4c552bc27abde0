"""What the run log says of ownership, as it is appended: when each partition was taken, released and worked on, and by which process.

Times are the broker's append times, whole milliseconds, on the clock of this machine. Used by `takeover.py`.
"""

import asyncio
import itertools
from collections import defaultdict
from typing import NamedTuple

from headrace.service.engine.gate import Gate
from headrace.topics.command import Start
from headrace.topics.identity import Coordinates
from headrace.topics.log import Log, LogRecord, TopicPartition
from headrace.topics.run_record import Announce, CommandRecord, OutcomeRecord, Release, decode


class Taken(NamedTuple):
    """An accepted announce, and the process behind it."""

    at_ms: int
    pid: int


class OwnershipLog:
    """`follow` reads until cancelled; the rest is what was read."""

    def __init__(self, log: Log, topic: str, partitions: int) -> None:
        self.partitions = partitions
        self.taken: dict[int, list[Taken]] = defaultdict(list)
        self.released: dict[int, list[int]] = defaultdict(list)
        self.worked: dict[int, list[int]] = defaultdict(list)  # accepted outcomes
        self.routed: dict[int, list[int]] = defaultdict(list)  # starts, by source partition
        self._log = log
        self._topic = topic
        self._gates = [Gate() for _ in range(partitions)]

    async def follow(self) -> None:
        async with asyncio.TaskGroup() as tasks:
            for partition in range(self.partitions):
                tasks.create_task(self._follow(TopicPartition(self._topic, partition)))

    async def _follow(self, at: TopicPartition) -> None:
        start = (await self._log.offsets([at]))[at].start
        async with self._log.read(at, start) as batches:
            async for batch in batches:
                for record in batch.records:
                    assert isinstance(record, LogRecord)
                    self._see(at.partition, record)

    def _see(self, partition: int, raw: LogRecord) -> None:
        gate = self._gates[partition]
        match record := decode(raw.value):
            case Announce():
                if gate.announce(raw.offset, record) is None:
                    self.taken[partition].append(Taken(raw.timestamp_ms, int(record.instance.split("-")[-2])))
            case Release():
                if gate.admit(record) is None:
                    self.released[partition].append(raw.timestamp_ms)
            case OutcomeRecord():
                if gate.admit(record) is None:
                    self.worked[partition].append(raw.timestamp_ms)
            case CommandRecord(id=Coordinates() as identity, body=Start()):
                self.routed[identity.partition].append(raw.timestamp_ms)
            case _:
                pass

    # --- questions -----------------------------------------------------------------------------------------------------

    def owner(self, partition: int) -> int:
        """The pid that took it last; 0: nobody yet."""
        taken = self.taken[partition]
        return taken[-1].pid if taken else 0

    def owned_by(self, pid: int) -> set[int]:
        return {partition for partition in range(self.partitions) if self.owner(partition) == pid}

    def owners(self) -> dict[int, int]:
        """How many each process has."""
        counts: dict[int, int] = defaultdict(int)
        for partition in range(self.partitions):
            counts[self.owner(partition)] += 1
        return dict(counts)

    def first_taken(self, partition: int, since_ms: float) -> int | None:
        return next((taken.at_ms for taken in self.taken[partition] if taken.at_ms >= since_ms), None)

    def first_worked(self, partition: int, since_ms: float) -> int | None:
        return next((at_ms for at_ms in self.worked[partition] if at_ms >= since_ms), None)

    def pauses(self, partition: int, since_ms: float) -> list[tuple[int, int]]:
        """For every hand-over since then: from the release to the next announce, and from the last outcome before to the first one behind."""
        found: list[tuple[int, int]] = []
        for released_ms in self.released[partition]:
            if released_ms >= since_ms:
                taken_ms = self.first_taken(partition, released_ms)
                before = [at_ms for at_ms in self.worked[partition] if at_ms <= released_ms]
                after = None if taken_ms is None else self.first_worked(partition, taken_ms)
                if taken_ms is not None and after is not None and before:
                    found.append((taken_ms - released_ms, after - before[-1]))
        return found


def longest_gap(times_ms: list[int], since_ms: float, until_ms: float) -> int | None:
    """The longest time between two neighbours that touches the window; None without two."""
    near = [at_ms for at_ms in times_ms if since_ms - 1_000 <= at_ms <= until_ms]
    gaps = [after - before for before, after in itertools.pairwise(near) if after >= since_ms]
    return max(gaps, default=None)
