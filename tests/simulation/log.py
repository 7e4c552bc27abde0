"""`SimLog`: one simulated process's way to the simulated broker. It passes `tests/contract` like the real ones, and is never kinder than Kafka.

A request travels to the broker, is carried out there (whatever has become of its sender), and the answer travels back. Each part may be slow or lost. What was
sent before a process died or stopped may still arrive: that is how zombies and late batches come about.
"""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from types import TracebackType
from typing import Any, Self, TypeVar

from headrace.topics.log import (
    Appended,
    AppendFailed,
    AppendRefused,
    Batch,
    Isolation,
    LogUnavailable,
    NewRecord,
    OffsetOutOfRange,
    Offsets,
    Position,
    TopicMissing,
    TopicPartition,
)
from headrace.topics.membership import Membership
from headrace.topics.record_size import BATCH_FRAMING_BYTES, checked_sizes
from headrace.topics.spec import TopicSpec, check_creatable
from tests.simulation.broker import NEVER, Broker, Partition
from tests.simulation.group import SimMembership
from tests.simulation.loop import Life, Place

T = TypeVar("T")

_METADATA_BYTES_MAX = 4096
_AHEAD_BYTES = 1 << 20  # buffered by a reader
_FETCH_BYTES = 256 << 10

_Lane = tuple[bool, TopicPartition]
"""Idempotent or not, and where to: within a lane batches arrive in the order in which they left."""

_Flying = tuple[TopicPartition, Sequence[NewRecord], "asyncio.Future[Appended] | None", bool]


class SimLog:
    """One client. `cut` = nothing of it reaches the broker any more and nothing comes back: its process is dead."""

    def __init__(self, broker: Broker, place: Place | None = None) -> None:
        self.broker = broker
        self.place = place
        self.cut = False
        self.over = False  # the simulation is being cleared away: fail at once
        self.next_batch = ""  # what becomes of the next one that goes to a run log: lose, unheard or late
        self.partitioned_until = NEVER  # the network between this process and the broker is gone
        self._lanes: dict[_Lane, float] = {}  # when the last one arrives at the broker
        self._queues: dict[_Lane, deque[_Flying]] = {}
        self._appending: set[TopicPartition] = set()
        self._readers: dict[tuple[TopicPartition, Isolation], SimReader] = {}
        self._open = False
        self._membership: SimMembership | None = None
        self._unheard: list[asyncio.Future[Any]] = []  # answers that a dead process waits for

    @property
    def reachable(self) -> bool:
        return self.broker.reachable and self._loop.time() >= self.partitioned_until

    @property
    def lonely(self) -> bool:
        """It is no member of a group now, or was given up since it began."""
        return self._membership is None or self._membership.joins != 1 or not self._membership.name

    @property
    def _loop(self) -> asyncio.AbstractEventLoop:
        return asyncio.get_running_loop()

    async def __aenter__(self) -> Self:
        self._open = True
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._open = False

    # --- the way there and back ---------------------------------------------------------------------------------------

    def way_s(self) -> float:
        """One way takes this long."""
        knobs, random = self.broker.knobs, self.broker.random
        if knobs.slow and random.random() < knobs.slow:
            return random.uniform(0, knobs.slow_s)
        return random.uniform(*knobs.latency_s)

    def _away_s(self, partition: Partition | None = None) -> float:
        """How long nothing gets through."""
        return max(0.0, max(self.broker.free_at(partition), self.partitioned_until) - self._loop.time())

    def _check(self) -> None:
        if self.over:
            raise LogUnavailable("The simulation is over.")

    async def _ask(self, do: Callable[[], T]) -> T:
        """A request that may be repeated: offsets, positions, topics."""
        self._check()
        answer: asyncio.Future[T] = self._loop.create_future()
        if self.cut:
            self._unheard.append(answer)
            return await answer
        broker = self.broker
        knobs, chance = broker.knobs, broker.random.random()
        away_s = self._away_s()
        if away_s or chance < knobs.away:
            self.broker.later(
                min(away_s, 10.0) + self.way_s(), _fail, answer, LogUnavailable("The broker does not answer.")
            )
            return await answer
        unanswered = chance < knobs.away + knobs.unanswered

        def arrive() -> None:
            try:
                result = do()
            except Exception as error:
                self.broker.later(self.way_s(), self._answer, answer, None, error)
                return
            if unanswered:
                self.broker.later(10.0, self._answer, answer, None, LogUnavailable("No answer."))
            else:
                self.broker.later(self.way_s(), self._answer, answer, result, None)

        self.broker.later(self.way_s(), arrive)
        return await answer

    def _answer(self, answer: asyncio.Future[Any], result: object, error: Exception | None) -> None:
        if self.over:
            _fail(answer, LogUnavailable("The simulation is over."))
        elif self.cut:
            self._unheard.append(answer)
        elif answer.done():
            pass
        elif error is not None:
            answer.set_exception(error)
        else:
            answer.set_result(result)

    def end(self) -> None:
        """The simulation is over: whoever waits here, or will, is told so."""
        self.over = True
        for answer in self._unheard:
            _fail(answer, LogUnavailable("The simulation is over."))
        for reader in self._readers.values():
            reader.wake()

    # --- records ------------------------------------------------------------------------------------------------------

    async def append(self, at: TopicPartition, records: Sequence[NewRecord]) -> Appended:
        if at in self._appending:
            raise RuntimeError(f"another append to {at} is outstanding")
        self._appending.add(at)
        try:
            return await self._write(at, records, idempotent=True)
        finally:
            self._appending.discard(at)

    async def publish(self, at: TopicPartition, records: Sequence[NewRecord]) -> Appended:
        return await self._write(at, records, idempotent=False)

    async def _write(self, at: TopicPartition, records: Sequence[NewRecord], *, idempotent: bool) -> Appended:
        self._check()
        if at not in self.broker.partitions:
            raise _missing(at)
        limit = self.broker.message_bytes_max(at.topic)
        sizes = checked_sizes(at, records, limit)
        for record in records:
            for name, _ in record.headers:
                try:
                    name.encode()
                except UnicodeError as error:
                    raise AppendRefused(f"A record for {at} cannot be encoded: {error}.") from error
        room = limit - BATCH_FRAMING_BYTES
        if sum(sizes) <= room:
            return await self._send(at, records, idempotent=idempotent)
        first: Appended | None = None
        for begin, end in _cuts(sizes, room):
            try:
                appended = await self._send(at, records[begin:end], idempotent=idempotent)
            except (AppendRefused, LogUnavailable) as error:
                if first is None:
                    raise
                raise AppendFailed("Only a first part was appended.") from error
            first = first or appended
        assert first is not None
        return first

    def _send(self, at: TopicPartition, records: Sequence[NewRecord], *, idempotent: bool) -> asyncio.Future[Appended]:
        """One batch. Its place in the order is taken at once; a batch whose sender gave up has none any more."""
        answer: asyncio.Future[Appended] = self._loop.create_future()
        if self.cut:
            self._unheard.append(answer)
            return answer
        broker, loop = self.broker, self._loop
        knobs, random = broker.knobs, broker.random
        partition = broker.partitions[at]
        chance = random.random()
        away_s = self._away_s(partition)
        if (away_s and chance < 0.3) or chance < knobs.away:
            self.broker.later(self.way_s(), self._answer, answer, None, LogUnavailable(f"{at} cannot be reached."))
            return answer
        chance = random.random()
        lost = chance < knobs.lost
        late = not lost and chance < knobs.lost + knobs.late
        unanswered = not lost and not late and chance < knobs.lost + knobs.late + knobs.unanswered
        twice = knobs.twice > 0 and random.random() < knobs.twice
        if self.next_batch and idempotent:
            fate, self.next_batch = self.next_batch, ""
            lost, late, unanswered = fate == "lose", fate == "late", fate == "unheard"
        if twice and idempotent:  # a copy in the network outlives what the broker remembers of its producer
            twice = False
            self.broker.later(random.uniform(0, 2 * knobs.late_s), self._arrive, at, records, None, False)
        gives_up = AppendFailed(f"No answer from {at}.")
        if away_s > knobs.patience_s and not late:  # longer than the client waits: it may have left before, or not
            lost = True
        if lost or late:
            self.broker.later(knobs.patience_s, self._answer, answer, None, gives_up)
            if late:
                self.broker.later(
                    max(away_s, knobs.patience_s * random.random()) + random.uniform(0, knobs.late_s),
                    self._arrive,
                    at,
                    records,
                    None,
                    twice,
                )
            return answer
        lane = (idempotent, at)
        arrives_at = max(loop.time() + away_s + self.way_s(), self._lanes.get(lane, NEVER))
        self._lanes[lane] = arrives_at
        if unanswered:
            self.broker.later(knobs.patience_s, self._answer, answer, None, gives_up)
        self._queues.setdefault(lane, deque()).append((at, records, None if unanswered else answer, twice))
        loop.call_at(arrives_at, self._arrive_in_order, lane, context=getattr(loop, "outside", None))
        return answer

    def _arrive_in_order(self, lane: _Lane) -> None:
        """Whichever alarm of a lane rings first: the oldest batch of the lane has arrived."""
        queue = self._queues[lane]
        at, _, answer, _ = queue[0]
        broker = self.broker
        away_s = max(0.0, broker.free_at(broker.partitions.get(at)) - self._loop.time())
        if away_s:  # the broker went away meanwhile: the client asks again until it is back, or gives up
            if answer is not None:
                self.broker.later(
                    broker.knobs.patience_s, self._answer, answer, None, AppendFailed(f"No answer from {at}.")
                )
            if broker.random.random() < 0.7:
                self.broker.later(away_s + self.way_s(), self._arrive_in_order, lane)
            else:
                queue.popleft()
            return
        self._arrive(*queue.popleft())

    def _arrive(
        self,
        at: TopicPartition,
        records: Sequence[NewRecord],
        answer: asyncio.Future[Appended] | None,
        twice: bool,
    ) -> None:
        broker = self.broker
        if at not in broker.partitions:
            if answer is not None:
                self.broker.later(self.way_s(), self._answer, answer, None, _missing(at))
            return
        if any(broker.refuses(at, record) for record in records):
            if answer is not None:
                self.broker.later(self.way_s(), self._answer, answer, None, AppendRefused(f"{at} does not take this."))
            return
        base, at_ms = broker.append(at, records)
        if twice:
            broker.append(at, records)
        if answer is not None:
            self.broker.later(self.way_s(), self._answer, answer, Appended(base, at_ms), None)

    @asynccontextmanager
    async def read(
        self, at: TopicPartition, start: int, *, isolation: Isolation = "all"
    ) -> AsyncGenerator[AsyncIterator[Batch]]:
        self._check()
        name = (at, isolation)
        if name in self._readers:
            raise RuntimeError(f"another reader of {at} is open")
        if at not in self.broker.partitions:
            raise _missing(at)
        reader = self._readers[name] = SimReader(self, at, start)
        try:
            yield reader
        finally:
            reader.closed = True
            del self._readers[name]

    async def offsets(self, at: Sequence[TopicPartition]) -> Mapping[TopicPartition, Offsets]:
        def look() -> dict[TopicPartition, Offsets]:
            self._exist(at)
            return {partition: self.broker.offsets(partition) for partition in at}

        return await self._ask(look)

    async def trim(self, at: TopicPartition, before: int) -> None:
        def write() -> None:
            self._exist([at])
            offsets = self.broker.offsets(at)
            if not 0 <= before <= offsets.end:
                raise OffsetOutOfRange(at, before, offsets)
            if before > offsets.start:
                self.broker.trimming(at, before)
                self.broker.partitions[at].trim(before)

        await self._ask(write)

    # --- positions ----------------------------------------------------------------------------------------------------

    async def committed(self, group: str, at: Sequence[TopicPartition]) -> Mapping[TopicPartition, Position]:
        def look() -> dict[TopicPartition, Position]:
            self._exist(at)
            found = self.broker.positions[group]
            return {partition: found[partition] for partition in at if partition in found}

        return await self._ask(look)

    async def commit(self, group: str, positions: Mapping[TopicPartition, Position]) -> None:
        for at, position in positions.items():
            if len(position.metadata.encode()) > _METADATA_BYTES_MAX:
                raise AppendRefused(f"The metadata of {group}'s position on {at} are too long.")
        copied = dict(positions)

        def write() -> None:
            self._exist(list(copied))
            self.broker.commit(group, copied)

        await self._ask(write)

    @asynccontextmanager
    async def join(
        self,
        group: str,
        *,
        runs: str,
        partitions: int,
        sources: Sequence[str],
        definitions: Mapping[str, str] | None = None,
    ) -> AsyncGenerator[Membership]:
        place = self.place
        membership = SimMembership(
            self.broker.group(group),
            runs=runs,
            partitions=partitions,
            sources=sources,
            reachable=lambda: self.reachable and not self.cut and (place is None or place.life is Life.RUNNING),
            dead=lambda: self.cut,
            way_s=self.way_s,
        )
        self._membership = membership
        self.broker.later(self.way_s(), self._join, group, membership)
        try:
            yield membership
        finally:
            await membership.leave()

    def _join(self, group: str, membership: SimMembership) -> None:
        if self.cut or membership.left:
            return
        if away_s := self._away_s():
            self.broker.later(away_s + self.way_s(), self._join, group, membership)
            return
        self.broker.group(group).add(membership)

    async def expel(self, group: str) -> Sequence[str]:
        return await self._ask(lambda: self.broker.group(group).expel_dead())

    # --- topics -------------------------------------------------------------------------------------------------------

    async def partitions(self, topic: str) -> int:
        def look() -> int:
            if topic not in self.broker.topics:
                raise TopicMissing(f"{topic} does not exist.")
            return self.broker.topics[topic].partitions

        return await self._ask(look)

    async def describe(self, topics: Sequence[str]) -> Mapping[str, TopicSpec]:
        return await self._ask(
            lambda: {name: self.broker.topics[name] for name in topics if name in self.broker.topics}
        )

    async def topics(self) -> Sequence[str]:
        return await self._ask(lambda: sorted(self.broker.topics))

    async def create(self, specs: Sequence[TopicSpec]) -> Sequence[str]:
        for spec in specs:
            check_creatable(spec, 1)

        def write() -> list[str]:
            made = [spec for spec in specs if spec.name not in self.broker.topics]
            for spec in made:
                self.broker.make(spec)
            return [spec.name for spec in made]

        return await self._ask(write)

    async def nodes(self) -> int:
        return 1

    def _exist(self, at: Sequence[TopicPartition]) -> None:
        for partition in at:
            if partition not in self.broker.partitions:
                raise _missing(partition)


class SimReader:
    """Fetches ahead, one fetch out at a time, and gives batches in order."""

    def __init__(self, log: SimLog, at: TopicPartition, start: int) -> None:
        self.closed = False
        self.queued_bytes = 0
        self._log = log
        self._at = at
        self._position = start
        partition = log.broker.partitions[at]
        self._cuts = len(partition.cuts)  # of which this reader need not hear any more
        if self._cuts and partition.leaderless_until > asyncio.get_running_loop().time():
            self._cuts -= 1
        self._buffer: deque[Batch] = deque()
        self._error: Exception | None = None
        self._fetching = False
        self._waiter: asyncio.Future[None] | None = None

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Batch:
        while True:
            if self._buffer:
                batch = self._buffer.popleft()
                self.queued_bytes -= _size(batch)
                if self._log.broker.knobs.prefetch:
                    self._fetch()
                return batch
            if self._error is not None:
                raise self._error
            self._fetch()
            self._waiter = asyncio.get_running_loop().create_future()
            await self._waiter

    def _fetch(self) -> None:
        if not self._fetching and self._error is None and self.queued_bytes < _AHEAD_BYTES:
            self._fetching = True
            self._log.broker.later(self._log._away_s() + self._log.way_s(), self._serve)

    def _serve(self) -> None:
        log, broker = self._log, self._log.broker
        if self.closed or log.cut:
            return
        partition = broker.partitions.get(self._at)
        if partition is None:
            self._deliver(None, _missing(self._at))
            return
        away_s = log._away_s(partition)
        if away_s:
            broker.later(away_s + log.way_s(), self._serve)
            return
        end = min((partition.end, *partition.cuts[self._cuts :]))
        self._cuts = len(partition.cuts)
        if not partition.start <= self._position <= end:
            error = OffsetOutOfRange(self._at, self._position, Offsets(partition.start, end))
            broker.later(log.way_s(), self._deliver, None, error)
            return
        found = partition.from_(self._position, broker.random.randint(1, broker.knobs.batch_records_max), _FETCH_BYTES)
        if not found:
            partition.waiting.append(self._woken)
            return
        self._position = found[-1].offset + 1
        broker.later(log.way_s(), self._deliver, Batch(self._at, found, partition.end), None)

    def wake(self) -> None:
        """There is nothing to wait for any more."""
        self._error = LogUnavailable("The simulation is over.")
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _woken(self) -> None:
        """Records have come. Not at once: who wakes is the broker's append itself."""
        self._log.broker.later(self._log.way_s(), self._serve)

    def _deliver(self, batch: Batch | None, error: Exception | None) -> None:
        if self.closed or self._log.cut:
            return
        self._fetching = False
        self._error = error
        if batch is not None:
            self._buffer.append(batch)
            self.queued_bytes += _size(batch)
            if self._log.broker.knobs.prefetch:
                self._fetch()
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


def _size(batch: Batch) -> int:
    return sum(len(record.value or b"") for record in batch.records)  # pyright: ignore[reportAttributeAccessIssue]


def _cuts(sizes: Sequence[int], room: int) -> list[tuple[int, int]]:
    cuts: list[tuple[int, int]] = []
    begin, size = 0, 0
    for index, each in enumerate(sizes):
        if size + each > room and index > begin:
            cuts.append((begin, index))
            begin, size = index, 0
        size += each
    return [*cuts, (begin, len(sizes))]


def _fail(answer: asyncio.Future[Any], error: Exception) -> None:
    if not answer.done():
        answer.set_exception(error)


def _missing(at: TopicPartition) -> TopicMissing:
    return TopicMissing(f"{at} does not exist.")
