"""The feeder of one run-log partition: reads it from where the database stands, folds it as data, and puts the rows into the database.

    position in the database ──► checkpoint it names, else the log's first record ──► folded without rows up to the position ──► rows from there on, for ever
                                  └─ neither is there any more: a gap; what a checkpoint has of open runs stands for it

Two at once (a take-over) do no harm: rows count only where the database stands at their beginning. Owned by `history.py`; nothing waits for it.
"""

from __future__ import annotations

import asyncio
from time import perf_counter
from typing import TYPE_CHECKING

from sqlalchemy import select

from headrace.observability import told_log
from headrace.service.engine.checkpoint import CheckpointUnusable
from headrace.service.engine.fold import new_state
from headrace.service.history.database import OtherApp
from headrace.service.history.rows import OPEN, Checkpoint, Collector, Gap, Rows
from headrace.service.history.tables import positions, runs
from headrace.service.recovery import Recovery
from headrace.service.run_view.scan import Reading

if TYPE_CHECKING:
    from collections.abc import Iterator

    from headrace.service.engine.state import PartitionState
    from headrace.service.history.feeder_shared import FeederShared
    from headrace.service.recovery import Recovered
    from headrace.topics.log import Batch, Log, TopicPartition

LINGER_S = 0.25  # for more to come, before what has come is written
RECORDS_MAX = 2_000  # of one partition in one transaction
_SLICE_S = 0.003  # the longest stretch of folding before the loop gets its turn
_LIVE_MAX = 256  # runs that are kept unpacked
_PART_BYTES = 4 << 20  # of open runs that a checkpoint has, in one transaction


class Overtaken(Exception):
    """Somebody else has fed this partition: begin again where the database stands."""


class Feeder:
    """`run` until cancelled, or until it raises: `Overtaken`, `OffsetOutOfRange`, `OtherApp`, what the log and the database raise."""

    def __init__(self, shared: FeederShared, log: Log, at: TopicPartition) -> None:
        self.at = at
        self.position = -1
        """Everything before this offset is in the database; -1: not known yet."""
        self.end_offset = 0
        """One past the newest record that is known to exist."""
        self.checkpoint = Checkpoint()
        """The newest one that the database names."""
        self.behind_since_ms: int | None = None
        """When it was seen that there is more than was read; None: all was read then."""
        self._shared = shared
        self._log = log
        self._reading = Reading(at, shared.settings, partitions=shared.partitions)
        self._collector = Collector(at.partition, shared.settings.history.payload_bytes)
        self._folding = asyncio.Lock()  # the state stands still for who holds it
        self._more = asyncio.Event()
        self._room = asyncio.Event()
        self._statements_bytes = 0  # of rows that are being written
        self._statements_since_ms: int | None = None
        self._counted = 0  # bytes that the process' budget has of us

    @property
    def floor(self) -> int:
        """The log must be kept from here on: for a reader that begins where this one stands."""
        return self.checkpoint.as_of + 1

    @property
    def waiting_since_ms(self) -> int | None:
        """Append time of the first record that was read and is not in the database."""
        return self._collector.first_ms if self._statements_since_ms is None else self._statements_since_ms

    def ends_at(self, offset: int, now_ms: int) -> None:
        """Where the log ends now."""
        self.end_offset = max(self.end_offset, offset)
        if self.end_offset <= self._collector.next_offset:
            self.behind_since_ms = None
        elif self.behind_since_ms is None:
            self.behind_since_ms = now_ms

    async def run(self) -> None:
        """Feed."""
        try:
            await self._begin()
            async with asyncio.TaskGroup() as group:
                group.create_task(self._read())
                group.create_task(self._flush())
        finally:
            self._shared.budget.used_bytes -= self._counted
            self._counted = 0

    # --- beginning ---------------------------------------------------------------------------------------------------

    async def _begin(self) -> None:
        """Fold up to where the database stands."""
        position, log, checkpoint = await self._place()
        offsets = (await self._log.offsets([self.at]))[self.at]
        self.end_offset = offsets.end
        recovery = Recovery(self._log, self.at, self._new_state, offsets, self._shared.turn)
        if position > offsets.end:
            recovered = await recovery.newest()
            self._reading.state = recovered.state
            await self._fold_to(offsets.end)
            self._refuse_other(recovered.state, log or "(unknown)")
            await self._anew(recovered, position, "truncated")
            return
        recovered = await self._recovered(recovery, position, checkpoint)
        if recovered.state.next_offset > position:
            self._refuse_other(recovered.state, log)
            await self._anew(recovered, position, "trimmed")
            return
        self._reading.state = recovered.state
        await self._fold_to(position)
        self._refuse_other(self._reading.state, log)
        self._stand(position, self._collector.checkpoint)
        self._collector.begin(self._reading.state, self._collector.checkpoint)

    async def _place(self) -> tuple[int, str, Checkpoint]:
        async with self._shared.database.feeding() as connection:
            query = select(positions).where(positions.c.partition == self.at.partition)
            found = (await connection.execute(query)).one_or_none()
        if found is None:
            return 0, "", Checkpoint()
        return found.next_offset, found.log, Checkpoint(found.as_of, found.checkpoint)

    async def _recovered(self, recovery: Recovery, position: int, checkpoint: Checkpoint) -> Recovered:
        """The state to begin with: at the position or before it, if the log allows."""
        if checkpoint.as_of < position:
            try:
                recovered = await recovery.known(checkpoint.first)
            except CheckpointUnusable:
                recovered = None
            found = None if recovered is None else recovered.candidate
            if recovered is not None and found is not None and found.as_of == checkpoint.as_of:
                self._collector.checkpoint = checkpoint
                return recovered
        recovered = await recovery.oldest()
        found = recovered.candidate
        if found is not None:
            self._collector.checkpoint = Checkpoint(found.as_of, found.offsets[0])
        return recovered

    def _refuse_other(self, state: PartitionState, log: str) -> None:
        if log and state.gate.first != log:
            raise OtherApp(
                f"{self._shared.database.shown} has the history of another run log than {self.at}.",
                why="The topic was deleted and made anew, or is of another cluster: the same ids would stand for other runs.",
                do="Set history.url to a new database, or empty this one.",
            )

    async def _fold_to(self, position: int) -> None:
        """What the database has already: no rows."""
        state = self._reading.state
        if state.next_offset >= position:
            return
        async with self._log.read(self.at, state.next_offset) as batches:
            async for batch in batches:
                async with self._shared.turn:
                    await _slowly(self._watched(batch, position))
                if state.next_offset >= position or batch.goes_on_at >= position:
                    break
        state.next_offset = max(state.next_offset, position)  # offsets may have gaps

    def _watched(self, batch: Batch, position: int) -> Iterator[None]:
        for seen in self._reading.folded(batch):
            self._collector.watch(seen)
            yield
            if self._reading.state.next_offset >= position:
                return

    async def _anew(self, recovered: Recovered, position: int, kind: str) -> None:
        """What lies between the position and the state was never read, or is in the log no more."""
        state, found = recovered.state, recovered.candidate
        checkpoint = Checkpoint() if found is None else Checkpoint(found.as_of, found.offsets[0])
        self._reading.state = state
        first, behind = sorted((position, state.next_offset))
        gap = Gap(first, behind, kind, state.clock_ms)
        lost = await self._lost(gap)
        forget_from = state.next_offset if kind == "truncated" else None
        rows = Rows(
            partition=self.at.partition,
            before=position,
            after=position,
            log=state.gate.first,
            lost=lost,
            unflag=True,
            forget_from=forget_from,
        )
        await self._put(rows)
        collector = self._collector
        steps = collector.anew(state, checkpoint)
        while await _slice(steps):
            if collector.size_bytes > _PART_BYTES:
                rows = collector.take(state, position)
                rows.after, rows.checkpoint = position, Checkpoint()  # the position moves last
                await self._put(rows)
        rows = collector.take(state, position)
        rows.flags, rows.gap = collector.flags(), gap
        await self._put(rows)
        self._stand(rows.after, checkpoint)
        self._shared.observer.history_gap(
            told_log.HistoryGap(
                partition=self.at.partition, offset=gap.first, records=gap.behind - gap.first, reason=kind
            )
        )

    async def _lost(self, gap: Gap) -> list[dict[str, object]]:
        """Runs that the database believes to be open, and that a checkpoint does not have any more: how they ended lies in the gap."""
        query = select(runs.c.id).where(runs.c.partition == self.at.partition, runs.c.status.in_(OPEN))
        async with self._shared.database.feeding() as connection:
            known = (await connection.execute(query)).scalars().all()
        why = "were trimmed before they were read" if gap.kind == "trimmed" else "are in the log no more"
        said = f"How it ended is not known: records {gap.first} to {gap.behind - 1} of {self.at} {why}."
        state = self._reading.state
        return [{"b_id": run, "at_ms": gap.at_ms, "said": said} for run in known if run not in state.runs]

    # --- going on ----------------------------------------------------------------------------------------------------

    async def _read(self) -> None:
        collector, budget = self._collector, self._shared.budget
        async with self._log.read(self.at, self._reading.state.next_offset) as batches:
            async for batch in batches:
                self.end_offset = max(self.end_offset, batch.end_offset)
                async with self._folding:
                    await _slowly(self._collected(batch))
                    if self._reading.state.runs.live_count > _LIVE_MAX:
                        self._reading.state.runs.pack_all()
                self._count()
                self._more.set()
                while collector.records_count > RECORDS_MAX or (collector.records_count and budget.is_used_up):
                    self._room.clear()
                    await self._room.wait()

    def _collected(self, batch: Batch) -> Iterator[None]:
        for seen in self._reading.folded(batch):
            self._collector.see(seen)
            yield
        self._collector.next_offset = max(self._collector.next_offset, batch.goes_on_at)

    async def _flush(self) -> None:
        """Write what has come, a little later; what is much, at once."""
        collector = self._collector
        while True:
            await self._more.wait()
            if collector.records_count < RECORDS_MAX:
                await asyncio.sleep(LINGER_S)
            async with self._folding:
                self._more.clear()
                await _slowly(collector.touched(self._reading.state))
                self._statements_since_ms, self._statements_bytes = collector.first_ms, collector.size_bytes
                rows = collector.take(self._reading.state, self.position)
            self._count()
            self._room.set()
            await self._put(rows)
            self._statements_since_ms, self._statements_bytes = None, 0
            self._count()
            self._stand(rows.after, rows.checkpoint)

    async def _put(self, rows: Rows) -> None:
        if not await self._shared.writer.put(rows):
            raise Overtaken

    def _stand(self, position: int, checkpoint: Checkpoint) -> None:
        """The database has everything up to here."""
        self.position, self.checkpoint = position, checkpoint
        self.end_offset = max(self.end_offset, position)
        self._shared.moved(self)

    def _count(self) -> None:
        """What we hold in memory."""
        now = self._collector.size_bytes + self._statements_bytes
        self._shared.budget.used_bytes += now - self._counted
        self._counted = now

    def _new_state(self) -> PartitionState:
        settings = self._shared.settings.runs
        return new_state(
            topic=self.at.topic,
            partition=self.at.partition,
            partitions=self._shared.partitions,
            client_retention_ms=settings.client_id_retention_ms,
            retry_retention_ms=settings.retry_retention_ms,
        )


async def _slowly(steps: Iterator[None]) -> None:
    """Take all steps; the loop has its turn in between."""
    while await _slice(steps):
        pass


async def _slice(steps: Iterator[None]) -> bool:
    """Take steps until the time of a slice is over: True; or until there are no more."""
    ends = perf_counter() + _SLICE_S
    for _ in steps:
        if perf_counter() > ends:
            await asyncio.sleep(0)
            return True
    return False
