"""What the run log says of ownership, as it is appended: when each partition was taken, released and worked on, and by which process.

Times are the broker's append times, whole milliseconds, on the clock of this machine. Used by `takeover.py`.
"""

import asyncio
from collections import defaultdict
from typing import NamedTuple

from headrace.service.engine.gate import Gate
from headrace.topics.command import Start
from headrace.topics.identity import Coordinates, run_id
from headrace.topics.log import Log, LogRecord, OffsetOutOfRange, TopicPartition
from headrace.topics.run_record import Announce, CommandRecord, OutcomeRecord, Release, decode


class Taken(NamedTuple):
    """An accepted announce, and the process behind it."""

    at_ms: int
    pid: int


class Delay(NamedTuple):
    """How long something that happened at `at_ms` waited for its answer."""

    at_ms: int
    took_ms: int


class OwnershipLog:
    """`follow` reads until cancelled; the rest is what was read."""

    def __init__(self, log: Log, topic: str, partitions: int) -> None:
        self.partitions = partitions
        self.taken: dict[int, list[Taken]] = defaultdict(list)
        self.released: dict[int, list[int]] = defaultdict(list)
        self.worked: dict[int, list[int]] = defaultdict(list)  # accepted outcomes
        self.begun: dict[int, list[Delay]] = defaultdict(list)  # from a start to the run's first outcome
        # from the source record to its start, by source partition
        self.routed: dict[int, list[Delay]] = defaultdict(list)
        self._log = log
        self._topic = topic
        self._gates = [Gate() for _ in range(partitions)]
        self._starts: dict[str, int] = {}  # when each run was started that has no outcome yet
        self._missed: set[int] = set()  # partitions of which some records were not seen, up to the next outcome
        self._known: set[str] = set()  # runs that were ever started

    async def follow(self) -> None:
        async with asyncio.TaskGroup() as tasks:
            for partition in range(self.partitions):
                tasks.create_task(self._follow(TopicPartition(self._topic, partition)))

    async def _follow(self, at: TopicPartition) -> None:
        start = (await self._log.offsets([at]))[at].start
        while True:
            try:
                async with self._log.read(at, start) as batches:
                    async for batch in batches:
                        for record in batch.records:
                            assert isinstance(record, LogRecord)
                            self._see(at.partition, record)
            except OffsetOutOfRange as trimmed:  # by an owner, before it was read here
                start = trimmed.offsets.start
                self._missed.add(at.partition)

    def _see(self, partition: int, raw: LogRecord) -> None:
        gate = self._gates[partition]
        record = decode(raw.value)
        if partition in self._missed and isinstance(record, OutcomeRecord) and record.token == gate.token:
            self._missed.discard(partition)
            gate.seq = record.seq - 1
        match record:
            case Announce():
                if gate.announce(raw.offset, record) is None:
                    self.taken[partition].append(Taken(raw.timestamp_ms, int(record.instance.split("-")[-2])))
            case Release():
                if gate.admit(record) is None:
                    self.released[partition].append(raw.timestamp_ms)
            case OutcomeRecord():
                if gate.admit(record) is None:
                    self.worked[partition].append(raw.timestamp_ms)
                    started_ms = self._starts.pop(getattr(record.body, "run", ""), None)
                    if started_ms is not None:
                        self.begun[partition].append(Delay(started_ms, raw.timestamp_ms - started_ms))
            case CommandRecord(id=Coordinates() as identity, body=Start(event_at_ms=int() as event_at_ms)):
                run = run_id(partition, identity)
                if run not in self._known:
                    self._known.add(run)
                    self._starts[run] = raw.timestamp_ms
                    self.routed[identity.partition].append(Delay(event_at_ms, raw.timestamp_ms - event_at_ms))
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


def longest(delays: list[Delay], since_ms: float, until_ms: float) -> int | None:
    """The longest delay of what happened in the window, or waited when it began; None if nothing did."""
    return max(
        (each.took_ms for each in delays if each.at_ms + each.took_ms >= since_ms and each.at_ms <= until_ms),
        default=None,
    )
