"""Checkpoints of one partition: when one is due, its writing between normal commits, and the trim once all of it was read back.

    due ──► capture a piece ──► propose a chunk ──► read back, accepted ──► ... last chunk back ──► committed as a hint ──► trimmed ──► idle
                  ▲                                        │
                  └────────────────────────────────────────┘        token lost anywhere: dropped, it never counts

One chunk is out at a time: normal commits go on between them. A state that changes meanwhile is captured first (`before`). `checkpoints.py` says whose turn
it is: one partition of a process writes at a time. Whatever goes wrong, a bug of ours included, ends this checkpoint and nothing else: an alarm, and the log
grows until a later one succeeds.
"""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from time import perf_counter
from typing import TYPE_CHECKING

from headrace.observability import told_log
from headrace.service.engine.checkpoint import Chunker, Dump, LeftRun, estimated_bytes
from headrace.service.fault_point import FaultPoint, maybe
from headrace.service.stop import bug
from headrace.service.trim_hold import TrimHold
from headrace.topics.errors import HeadraceError, Transient

if TYPE_CHECKING:
    from headrace.service.engine.state import PartitionState
    from headrace.service.recovery import Recovered
    from headrace.service.shared import Shared
    from headrace.service.start_reader import Starts
    from headrace.service.tenure import Tenure
    from headrace.topics.log import TopicPartition
    from headrace.topics.outcome import CheckpointChunk
    from headrace.topics.run_record import RunRecord

LOG_BYTES_MIN: int | None = None
"""What tests put in the place of `log.checkpoint_bytes`."""
EVERY_S = 5.0
"""At most one checkpoint of a partition in this time: a burst that is over by then pays for none."""
SIZE_FACTOR = 2
"""Log bytes that are there for each byte of checkpoint: all that is written is at most 1 + 1/2 times the log without checkpoints, however long runs wait.

The next checkpoint's size counts, not the last one's: a log in which all runs wait is shorter than its checkpoint would be, and is better replayed.
"""
_LOOK_SHARE = 4  # how large a checkpoint would be is estimated again after this part of what is missing
_SLICE_S = 0.005  # the longest stretch of capturing before the event loop gets its turn
_BUG = "HR9003"


class _Dropped(Exception):
    """No error: the token is gone, and the checkpoint that was begun under it never counts."""


class Checkpointer:
    """One per partition, as long as it is owned. The owner tells it what it folds; `Checkpoints` lets it write."""

    def __init__(self, shared: Shared, at: TopicPartition, state: PartitionState, tenure: Tenure) -> None:
        self.at = at
        self.dump: Dump | None = None
        """While one is written: the owner calls our `before` for every record that it folds."""
        self.as_of = -1  # of the newest complete one
        self.first = -1  # offset of its first chunk
        self.size_bytes = 0  # of its records
        self.log_bytes = 0  # of the log behind `as_of`, without checkpoints
        self._shared = shared
        self._state = state
        self._tenure = tenure
        self._next = 0  # chunk that is not read back yet
        self._first = -1  # offset of the first chunk
        self._written_bytes = 0  # of chunks' records
        self._since_bytes = 0  # of the log since the dump was made
        self._look_at = 0  # log bytes
        self._not_before = 0.0  # on the loop's clock
        self._alarm: asyncio.TimerHandle | None = None
        self._moved = asyncio.Event()
        # with a history: its trims wait for it
        self._hold = None if shared.history is None else TrimHold(shared.settings.history.trim_wait_bytes)

    @property
    def held_bytes(self) -> int:
        """Of log before the newest checkpoint, which only the history needs."""
        return 0 if self._hold is None else self._hold.size_bytes

    @property
    def open(self) -> bool:
        """Whether its owner has a token."""
        return self._tenure.open

    # --- what the owner tells ----------------------------------------------------------------------------------------

    def recovered(self, recovered: Recovered, held_bytes: int = 0) -> None:
        """The partition's state began like this. `held_bytes`: what the owner before us said of its own."""
        found = recovered.candidate
        self.as_of, self.first, self.size_bytes = (
            (-1, -1, 0) if found is None else (found.as_of, found.offsets[0], found.size_bytes)
        )
        self.log_bytes = recovered.size_bytes
        if self._hold is not None and found is not None:
            self._hold = TrimHold(self._shared.settings.history.trim_wait_bytes)
            self._hold.completed(found.as_of + 1, held_bytes)
        self._state.runs.readable_from = self.as_of + 1
        # a partition that moves again and again has its checkpoint between two moves
        wait_s = EVERY_S / 5 if self.log_bytes > self._least() else EVERY_S
        self._not_before = asyncio.get_running_loop().time() + wait_s

    def folded(self, size_bytes: int) -> None:
        """So many bytes were folded, the chunks that were confirmed included."""
        self.log_bytes += size_bytes
        self._since_bytes += size_bytes
        self._look()

    def before(self, record: RunRecord) -> None:
        """This record is about to be folded, while a checkpoint is written."""
        if self.dump is not None:
            try:
                self.dump.before(record)
            except Exception as error:  # noqa: BLE001 - a bug of ours: see above
                self._give_up(error)

    def _least(self) -> int:
        return self._shared.settings.log.checkpoint_bytes if LOG_BYTES_MIN is None else LOG_BYTES_MIN

    def _look(self) -> None:
        """Is it time?"""
        if self.dump is not None or not self._tenure.open:
            return
        least = self._least()
        if self.log_bytes <= max(least, self._look_at):
            self._shared.checkpoints.grown(self, least)
            return
        loop = asyncio.get_running_loop()
        if loop.time() < self._not_before:
            if self._alarm is None:
                self._alarm = loop.call_at(self._not_before, self._rung)
        elif self._is_cheap(least):
            self._shared.checkpoints.due(self)

    def _is_cheap(self, least: int) -> bool:
        """Whether the log since the last checkpoint is long beside the next one. If not, that is asked again after a while."""
        try:
            missing = SIZE_FACTOR * estimated_bytes(self._state) - self.log_bytes
        except Exception as error:  # noqa: BLE001 - a bug of ours: see above
            self._give_up(error)
            return False
        if missing < 0:
            return True
        self._look_at = self.log_bytes + max(least, missing) // _LOOK_SHARE
        return False

    def early(self, least: int) -> bool:
        """Whether one may be written though the log is shorter than `least`."""
        if self.dump is not None or not self._tenure.open or self.log_bytes <= self._look_at:
            return False
        return asyncio.get_running_loop().time() >= self._not_before and self._is_cheap(least)

    def _rung(self) -> None:
        self._alarm = None
        self._look()

    def confirm(self, offset: int, chunk: CheckpointChunk, size_bytes: int) -> None:
        """A chunk under the present token was read back and accepted."""
        if self.dump is None or chunk.as_of != self.dump.as_of or chunk.index != self._next:
            return
        if chunk.index == 0:
            self._first = offset
        self._next += 1
        self._written_bytes += size_bytes
        self.log_bytes -= size_bytes
        self._since_bytes -= size_bytes
        self._moved.set()

    def drop(self) -> None:
        """The token is gone: a checkpoint that is being written never counts."""
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None
        self.dump = None
        self._moved.set()
        self._shared.checkpoints.not_due(self)

    # --- writing -----------------------------------------------------------------------------------------------------

    async def write(self) -> None:
        """Write one checkpoint, whole, and trim. Returns early if the token is lost on the way, or it is given up."""
        if not self._tenure.open:
            return
        try:
            await self._write_and_trim()
        except (_Dropped, Transient):
            return  # the token is gone, or the broker is away: the log goes on without this checkpoint
        except Exception as error:  # noqa: BLE001 - a bug of ours: see above
            self._give_up(error)

    def _give_up(self, error: Exception) -> None:
        """No checkpoint for a while. The owner, and all others, work on."""
        self.dump = None
        self._moved.set()
        self._not_before = asyncio.get_running_loop().time() + EVERY_S
        told_of = error if isinstance(error, HeadraceError) else bug(error, _BUG)
        self._shared.observer.checkpoint_failed(
            told_log.CheckpointFailed(partition=self.at.partition, code=told_of.code, message=told_of.message)
        )

    async def _write_and_trim(self) -> None:
        maybe(FaultPoint.CHECKPOINT_BEGINNING)
        self._not_before = asyncio.get_running_loop().time() + EVERY_S
        began = perf_counter()
        self.dump = dump = Dump(self._state)
        self._next, self._first, self._written_bytes, self._since_bytes = 0, -1, 0, 0
        try:
            await self._write(dump)
        except HeadraceError as error:
            if self.dump is not dump:
                raise _Dropped from error  # who has the token now may have trimmed what we read
            raise
        finally:
            if self.dump is dump:
                self.dump = None
        self.as_of, self.first = dump.as_of, self._first
        before_bytes = (
            self.log_bytes - self._since_bytes + self.size_bytes
        )  # from the last checkpoint's records to this one's
        self.size_bytes, self.log_bytes, self._look_at = self._written_bytes, self._since_bytes, 0
        self._shared.observer.checkpoint_written(
            told_log.CheckpointWritten(
                partition=self.at.partition,
                as_of=dump.as_of,
                size_bytes=self.size_bytes,
                duration_ms=(perf_counter() - began) * 1000,
                chunks=self._next,
            )
        )
        maybe(FaultPoint.CHECKPOINT_COMPLETE)
        if self._hold is not None:
            self._hold.completed(dump.as_of + 1, before_bytes)
        await self._commit(dump.as_of, self._first)
        maybe(FaultPoint.CHECKPOINT_COMMITTED)
        await self.trim_held(dump.as_of + 1)
        maybe(FaultPoint.LOG_TRIMMED)
        self._look()

    def history_moved(self) -> None:
        """The history has read on: perhaps a trim has waited for that."""
        if self._hold is not None and self._hold.waits and self._tenure.open:
            self._shared.checkpoints.may_trim(self)

    async def trim_held(self, newest: int | None = None) -> None:
        """Trim to the newest checkpoint; where there is a history, as far as it has read."""
        hold, history = self._hold, self._shared.history
        if hold is not None and history is not None:
            newest = hold.until(history.floor(self.at.partition)) if self._tenure.open else None
        if newest is not None:
            await self._trim(newest)

    async def _write(self, dump: Dump) -> None:
        loop = asyncio.get_running_loop()
        chunker = Chunker(dump.as_of)
        slice_ends = loop.time() + _SLICE_S
        async with AsyncExitStack() as stack:
            starts: Starts | None = None
            for item in dump.items():
                if isinstance(item, LeftRun):
                    if starts is None:
                        starts = await stack.enter_async_context(self._shared.start_reader.starts(self.at))
                    whole = item.whole(await starts.at(item.offset))
                else:
                    whole = item
                for chunk in chunker.add(whole):
                    await self._put(dump, chunk)
                    slice_ends = loop.time() + _SLICE_S
                if loop.time() > slice_ends:
                    await asyncio.sleep(0)
                    if self.dump is not dump:
                        raise _Dropped
                    slice_ends = loop.time() + _SLICE_S
        await self._put(dump, chunker.finish())

    async def _put(self, dump: Dump, chunk: CheckpointChunk) -> None:
        """Propose a chunk, and return when it was read back."""
        maybe(FaultPoint.CHUNK_PROPOSING)
        self._tenure.propose(chunk)
        maybe(FaultPoint.CHUNK_PROPOSED)
        while self.dump is dump and self._next <= chunk.index:
            self._moved.clear()
            await self._moved.wait()
        if self.dump is not dump:
            raise _Dropped

    async def _commit(self, as_of: int, first: int) -> None:
        try:
            await self._shared.owner_positions.checkpointed(self.at, as_of, first, self.held_bytes)
        except HeadraceError:
            return  # a hint: it is committed later, and the log itself has all that counts

    async def _trim(self, before: int) -> None:
        """Give the log up below `before`, but no start that lies there alone: the checkpoint has it, and we have not."""
        runs = self._state.runs
        oldest = runs.oldest_left()
        before = runs.readable_from = before if oldest is None else min(before, oldest)
        try:
            await self._shared.log.trim(self.at, before)
        except HeadraceError as error:
            self._shared.observer.trim_failed(
                told_log.TrimFailed(
                    topic=self.at.topic,
                    partition=self.at.partition,
                    offset=before,
                    code=error.code,
                    message=error.message,
                )
            )
