"""The simulated broker: topics, partitions and positions, and what can be wrong with them. It outlives every client; `log.py` is a client's way to it.

It is hardly kinder than Kafka: append times may step back when a leader moves, offsets have gaps, a leader may be away, a tail may be lost, a topic deleted and
made anew. Trimmed records are kept aside, for the judge alone. One kindness: whoever has read what is lost asks for more before as much has come in its place;
Kafka's clients could not tell otherwise.
"""

import asyncio
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Callable, Sequence
from random import Random

import msgspec

from headrace.topics.log import LogRecord, NewRecord, Offsets, Position, TopicPartition
from headrace.topics.record_size import DEFAULT_MESSAGE_BYTES_MAX
from headrace.topics.spec import TopicSpec
from tests.simulation.clock import EPOCH_S
from tests.simulation.group import Group

NEVER = float("-inf")


class BrokerKnobs(msgspec.Struct, kw_only=True):
    """How the broker and the ways to it behave. Chances are per request; times are seconds. All zero: a broker on a quiet day."""

    latency_s: tuple[float, float] = (0.0001, 0.0003)  # one way
    slow: float = 0.0  # the chance that a way takes up to `slow_s`
    slow_s: float = 2.0
    lost: float = 0.0  # nothing is done and nobody answers: AppendFailed after the client's patience
    unanswered: float = 0.0  # it is done and nobody answers
    late: float = 0.0  # it is done up to `late_s` after the client gave up
    late_s: float = 20.0
    away: float = 0.0  # nothing is done, and the client knows
    twice: float = 0.0  # a publish is retried by the client although the first one was done
    gap: float = 0.0  # the chance that a batch leaves some offsets out
    back_ms: int = 0  # how far a new leader's clock may be from the old one's
    patience_s: float = 15.0
    batch_records_max: int = 500  # of a read
    prefetch: bool = True


class Partition:
    """One partition's records. `buried` are those that were trimmed."""

    def __init__(self) -> None:
        self.records: list[LogRecord] = []
        self.offsets: list[int] = []
        self.buried: list[LogRecord] = []
        self.start = 0
        self.end = 0
        self.leader_s = 0.0  # how far the leader's clock is ahead
        self.leaderless_until = NEVER
        self.waiting: list[Callable[[], None]] = []  # fetches that wait for records
        self.safe_end = 0  # where it ended when it was trimmed: the checkpoint that allows it lies below
        self.cuts: list[int] = []  # where it ended whenever its tail was lost

    def from_(self, offset: int, count: int, bytes_max: int) -> list[LogRecord]:
        """Records from an offset on; at least one if there is one."""
        index = bisect_left(self.offsets, offset)
        found: list[LogRecord] = []
        size = 0
        for record in self.records[index : index + count]:
            size += len(record.value or b"")
            if found and size > bytes_max:
                break
            found.append(record)
        return found

    def all(self) -> list[LogRecord]:
        """Every record that ever was."""
        return self.buried + self.records

    def trim(self, before: int) -> None:
        index = bisect_left(self.offsets, before)
        self.buried += self.records[:index]
        del self.records[:index], self.offsets[:index]
        self.start = max(self.start, before)
        self.safe_end = self.end

    def truncate(self, end: int) -> list[LogRecord]:
        """Lose what lies at `end` and behind it. Offsets are given out again. The records that are lost."""
        index = bisect_left(self.offsets, end)
        lost = self.records[index:]
        del self.records[index:], self.offsets[index:]
        self.end = self.offsets[-1] + 1 if self.offsets else end
        self.cuts.append(self.end)
        return lost


class Broker:
    """`appended` is told of each batch when it is there, before anybody else; `committed` of each commit."""

    def __init__(self, random: Random, knobs: BrokerKnobs | None = None) -> None:
        self.random = random
        self.knobs = knobs or BrokerKnobs()
        self.topics: dict[str, TopicSpec] = {}
        self.partitions: dict[TopicPartition, Partition] = {}
        self.positions: dict[str, dict[TopicPartition, Position]] = defaultdict(dict)
        self.groups: dict[str, Group] = {}
        self.away_until = NEVER
        self.refuses: Callable[[TopicPartition, NewRecord], bool] = lambda _at, _record: False
        self.appended: Callable[[TopicPartition, Sequence[LogRecord]], None] = lambda _at, _records: None
        self.committing: Callable[[str, TopicPartition, Position], None] = lambda _group, _at, _position: None
        self.trimming: Callable[[TopicPartition, int], None] = lambda _at, _before: None

    # --- time ---

    def now_ms(self, partition: Partition | None = None) -> int:
        """The broker's clock; a partition's leader has its own."""
        seconds = EPOCH_S + asyncio.get_running_loop().time() + (0.0 if partition is None else partition.leader_s)
        return int(seconds * 1000)

    def free_at(self, partition: Partition | None = None) -> float:
        """When the broker (and the partition's leader) is there; not after now: it is."""
        return self.away_until if partition is None else max(self.away_until, partition.leaderless_until)

    @property
    def reachable(self) -> bool:
        return asyncio.get_running_loop().time() >= self.away_until

    def move_leader(self, at: TopicPartition, away_s: float) -> None:
        """Nobody leads for a while; then somebody whose clock differs a little."""
        partition = self.partitions[at]
        partition.leaderless_until = asyncio.get_running_loop().time() + away_s
        partition.leader_s = self.random.uniform(-1, 1) * self.knobs.back_ms / 1000

    def truncate(self, at: TopicPartition, end: int, away_s: float) -> list[LogRecord]:
        """Somebody leads who has not got everything, after nobody did for a while. The records that are lost."""
        self.move_leader(at, away_s)
        partition = self.partitions[at]
        lost = partition.truncate(end)
        self._wake(partition)
        return lost

    # --- topics ---

    def make_anew(self, topic: str) -> None:
        """Delete a topic and make it again, empty. What was committed for it is gone with it."""
        for at in [at for at in self.partitions if at.topic == topic]:
            before, partition = self.partitions[at], Partition()
            partition.cuts = [*before.cuts, 0]
            self.partitions[at] = partition
            self._wake(before)
            for positions in self.positions.values():
                positions.pop(at, None)

    @staticmethod
    def _wake(partition: Partition) -> None:
        waiting, partition.waiting = partition.waiting, []
        for wake in waiting:
            wake()

    def make(self, spec: TopicSpec) -> None:
        self.topics[spec.name] = msgspec.structs.replace(
            spec,
            cleanup_policy=spec.cleanup_policy or "delete",
            retention_ms=604_800_000 if spec.retention_ms is None else spec.retention_ms,
            retention_bytes=-1 if spec.retention_bytes is None else spec.retention_bytes,
            max_message_bytes=spec.max_message_bytes or DEFAULT_MESSAGE_BYTES_MAX,
            min_insync_replicas=spec.min_insync_replicas or 1,
            timestamp_type=spec.timestamp_type or "CreateTime",
            segment_bytes=spec.segment_bytes or 1 << 30,
            unclean_leader_election=bool(spec.unclean_leader_election),
        )
        for number in range(spec.partitions):
            self.partitions[TopicPartition(spec.name, number)] = Partition()

    def message_bytes_max(self, topic: str) -> int:
        return self.topics[topic].max_message_bytes or DEFAULT_MESSAGE_BYTES_MAX

    # --- records ---

    def append(self, at: TopicPartition, records: Sequence[NewRecord]) -> tuple[int, int]:
        """Now. Base offset and append time."""
        partition = self.partitions[at]
        gap = self.knobs.gap
        if gap and self.random.random() < gap:
            partition.end += self.random.randint(1, 3)
        base, at_ms = partition.end, self.now_ms(partition)
        stored = [
            LogRecord(base + index, at_ms, record.key, record.value, record.headers)
            for index, record in enumerate(records)
        ]
        partition.records += stored
        partition.offsets.extend(range(base, base + len(stored)))
        partition.end = base + len(stored)
        self.appended(at, stored)
        if partition.waiting:
            self._wake(partition)
        return base, at_ms

    def offsets(self, at: TopicPartition) -> Offsets:
        partition = self.partitions[at]
        return Offsets(partition.start, partition.end)

    def group(self, name: str) -> Group:
        """The group with members of that name."""
        found = self.groups.get(name)
        if found is None:
            found = self.groups[name] = Group(name, self._partition_count, self.later)
            found.uniform = self.random.uniform
        return found

    def _partition_count(self, topic: str) -> int:
        spec = self.topics.get(topic)
        return 0 if spec is None else spec.partitions

    def later(self, delay_s: float, call: Callable[..., object], *args: object) -> None:
        """Something happens at the broker or in the network: no process's business."""
        loop = asyncio.get_running_loop()
        loop.call_later(delay_s, call, *args, context=getattr(loop, "outside", None))

    def commit(self, group: str, positions: dict[TopicPartition, Position]) -> None:
        for at, position in positions.items():
            self.committing(group, at, position)
            self.positions[group][at] = position
