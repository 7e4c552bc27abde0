"""The owner of one run-log partition: reads it in order, folds it, and has carried out what the fold and the woken runs ask for.

It acts only on what it has read back. Before its announce is accepted it runs no user code; once a newer announce is seen it stops at once.

    replay ──► wait ──► announce ──► accepted: wake every open run ──► live ──► release ──► gone
                           ▲                                           │ │          │
                           ├─── own outcome skipped, or an append failed ┘          │
                           └──────────────── placed here again ─────────────────────┘

It waits for the release of a holder who is still in the group, and knocks: whoever gives a partition away goes on until then, and lists what still runs.
"""

from __future__ import annotations

import asyncio
import uuid
from contextlib import asynccontextmanager
from enum import StrEnum, auto
from time import perf_counter
from typing import TYPE_CHECKING

from headrace.observability import told_log
from headrace.observability.label import LogKind, LossReason, SkipReason, TakeReason
from headrace.service.awake_runs import AwakeRuns
from headrace.service.checkpointer import Checkpointer
from headrace.service.definitions.determinism_guard import unhooked
from headrace.service.engine.fold import fold, new_state
from headrace.service.engine.folded import Folded
from headrace.service.engine.gate import NO_TOKEN
from headrace.service.fault_point import FaultPoint, maybe
from headrace.service.owner_position import OwnerPosition
from headrace.service.patience import Patience
from headrace.service.recovery import Recovery
from headrace.service.run_log_check import LogReplaced, check_identity, position_of
from headrace.service.stop import bug, reason_of
from headrace.service.tenure import Tenure
from headrace.topics.back_off import BackOff
from headrace.topics.command import Abandoned, Deliver
from headrace.topics.errors import Fatal, HeadraceError, Transient
from headrace.topics.identity import ClientId
from headrace.topics.log import LogRecord, NewRecord, OffsetOutOfRange, Offsets, TopicPartition, Unreadable
from headrace.topics.outcome import CheckpointChunk, RunningAttempt
from headrace.topics.run_record import (
    KNOCK,
    Announce,
    CommandRecord,
    OutcomeRecord,
    Release,
    decode,
    encode,
    unreadable,
)

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator

    from headrace.service.engine.state import PartitionState
    from headrace.service.shared import Shared
    from headrace.topics.log import Batch
    from headrace.topics.outcome import AttemptFailed, AttemptSucceeded

_SLICE_S = 0.01  # the longest stretch of folding before the loop gets its turn
_REPLAY_SLICE_S = 0.005  # the same while a partition is replayed, beside others that are worked on
# runs that a replay keeps unpacked: those that end soon are never packed, and many that wait cost bytes
_LIVE_MAX = 256
_BACK_OFF_S = (0.1, 5.0)  # first and longest wait before announcing again
_LOOKS_MAX = 2  # at what was acknowledged and does not come back, and is said again then


class OwnershipLost(Fatal):
    """A newer announce was accepted: another instance owns the partition."""

    code = "HR5102"

    def __init__(self, at: TopicPartition, newer: int) -> None:
        super().__init__(
            f"{at} was taken over by a newer announce at offset {newer}.",
            why="Another instance of this app announced itself as the owner.",
            do="Nothing: attempts were cancelled and go on there. If both believe to own it, they stop trying once the group has placed it.",
        )
        self.newer = newer


class _Succeeded(Exception):
    """The partition was released, and its next owner has announced."""


class _Stage(StrEnum):
    REPLAYING = auto()
    WAITING = auto()  # for the release of a holder who is still there
    ANNOUNCED = auto()
    LIVE = auto()
    RELEASING = auto()
    GONE = auto()


class Owner:
    """One partition, one task (`run`). Attempts, timers and the outbox call back on the loop. `stopped` is called if it stands still for good."""

    def __init__(self, shared: Shared, partition: int, stopped: Callable[[], None]) -> None:
        self._shared = shared
        self._stopped = stopped
        self.at = TopicPartition(shared.names.runs, partition)
        self.state = self._new_state()
        # of the batch that is folded
        self._batch_bytes = self._command_bytes = self._chunk_bytes = self._ownership_bytes = 0
        self.ready = asyncio.Event()
        self.gone = asyncio.Event()  # its log is not read any more
        self.knocked = asyncio.Event()  # a successor has read the log and waits for the release
        self._writer = shared.writers.runs(partition)
        self._tenure = Tenure(shared, self._writer, self.state, self._break)
        self.checkpointer = Checkpointer(shared, self.at, self.state, self._tenure)
        self.runs = AwakeRuns(shared, self.state, self._tenure, self._attempt_ended, self._stop_partition)
        self._stage = _Stage.REPLAYING
        self._nonce = ""
        self._take_reason = TakeReason.START
        self._began = perf_counter()
        self._replayed = 0
        self._back_off = BackOff(_BACK_OFF_S)  # of announces
        self._given_token = -1  # of the release, for what is delivered after it
        self._retry_at: asyncio.TimerHandle | None = None
        self._missed: tuple[str, int] | None = None  # what was not back at the last look
        self._looks = 0  # since it is missed
        self._replaying: tuple[int, asyncio.Timeout] | None = None  # up to where, and what ends it
        self._patience = Patience(self._announce_if_waiting)

    # --- the loop --------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Own the partition until cancelled, lost (`OwnershipLost`), or given away and announced by a successor.

        A record that cannot be read, or a bug, stops it: reported, then it waits for ever.
        """
        try:
            await self._own()
        except OwnershipLost:
            raise
        except _Succeeded:
            return
        except LogReplaced as error:
            self._stop_partition(error)
            await self._shared.owner_positions.refused(self.at, error.first, self._shared.partitions)
            await asyncio.Event().wait()
        except Exception as error:  # noqa: BLE001 - a bug of ours stops this partition, not its neighbours
            self._stop_partition(error if isinstance(error, HeadraceError) else bug(error))
            await asyncio.Event().wait()
        finally:
            self._drop()

    async def _own(self) -> None:
        while True:
            try:
                await self._follow()
            except OffsetOutOfRange as error:
                if self._stage is _Stage.RELEASING:
                    raise _Succeeded from error  # who trims has a token
                if error.offset > error.offsets.end:
                    self._tell_truncated(error.offset)
                self._begin_anew()  # else another owner has trimmed what was not read yet: its checkpoint has it

    async def _follow(self) -> None:
        """Fold the log from where the state begins, announce, and go on for ever."""
        read_before = self.state.gate.first
        known = await position_of(self._shared, self.at)  # before the offsets: what it knows of lies below them
        offsets = await self._offsets()
        if known.offset > offsets.end:
            self._tell_truncated(known.offset)
        async with self._up_to(offsets.end):
            await self._recover(offsets, known)
        async with self._shared.log.read(self.at, self.state.next_offset) as batches:
            if self.state.next_offset < offsets.end:
                await self._replay(batches, offsets.end)
            check_identity(self.at, self.state, known, self._shared.partitions, read_before=read_before)
            maybe(FaultPoint.REPLAYED)
            self._stage = _Stage.WAITING
            self._announce_if_free()
            async for batch in batches:
                await self._fold_batch(batch)
                del batch  # the next one may be long in coming

    async def _recover(self, offsets: Offsets, known: OwnerPosition) -> None:
        """The state as of the newest checkpoint, or a new one."""
        recovery = Recovery(self._shared.log, self.at, self._new_state, offsets, self._shared.replay_turn)
        recovered = await recovery.newest(known.checkpoint)
        self.state.become(recovered.state)
        self.checkpointer.recovered(recovered, known.held)
        self._replayed = recovered.records
        maybe(FaultPoint.RECOVERED)

    def _new_state(self) -> PartitionState:
        return new_state(
            topic=self.at.topic,
            partition=self.at.partition,
            partitions=self._shared.partitions,
            client_retention_ms=self._shared.settings.runs.client_id_retention_ms,
            retry_retention_ms=self._shared.settings.runs.retry_retention_ms,
        )

    def _tell_truncated(self, position: int) -> None:
        """The log ends before what was read, or committed: an alarm."""
        self._shared.observer.partition_lost(
            told_log.PartitionLost(
                partition=self.at.partition,
                token=self._tenure.token,
                reason=LossReason.TRUNCATED,
                offset=position,
            )
        )

    def _begin_anew(self) -> None:
        """What was folded counts for nothing."""
        self.checkpointer.drop()
        self._tenure.end()
        self.runs.forget_all()
        self._shared.attempts.cancel_all(self._attempt_ended)
        self._cancel_alarms()
        if self._stage is not _Stage.REPLAYING:
            self._stage = _Stage.REPLAYING
            self._take_reason = TakeReason.RETAKEN
            self._began = perf_counter()

    async def _offsets(self) -> Offsets:
        """Where the log begins and ends; a broker that is away is waited for."""
        back_off = BackOff(_BACK_OFF_S)
        while True:
            try:
                return (await self._shared.log.offsets([self.at]))[self.at]
            except Transient:
                await back_off.wait()

    @asynccontextmanager
    async def _up_to(self, end: int) -> AsyncGenerator[None]:
        """While the log is read up to here. Raises `OffsetOutOfRange` if `look` sees that it ends before."""
        patience = asyncio.timeout(None)
        self._replaying = end, patience
        try:
            async with patience:
                yield
        except TimeoutError:
            if not patience.expired():
                raise
            raise OffsetOutOfRange(self.at, end, await self._offsets()) from None
        finally:
            self._replaying = None

    async def _replay(self, batches: AsyncIterator[Batch], end: int) -> None:
        """Fold what is there as data: no instruction is carried out, no user code runs."""
        async with self._up_to(end):
            async for batch in batches:
                await self._fold_batch(batch)
                if self.state.runs.live_count > _LIVE_MAX:
                    self.state.runs.pack_all()
                if self.state.next_offset >= end:
                    return

    async def _fold_batch(self, batch: Batch) -> None:
        maybe(FaultPoint.READ_BACK)
        if self._stage is _Stage.REPLAYING:
            # partitions that are worked on wait for one slice in a turn, not for one each
            async with self._shared.replay_turn:
                await self._fold_all(batch, _REPLAY_SLICE_S)
        else:
            await self._fold_all(batch, _SLICE_S)
        self._count_bytes()
        if self.state.runs.unpacked:
            self.runs.put_away()
        self._shared.admission.read_back()
        maybe(FaultPoint.FOLDED)

    def _count_bytes(self) -> None:
        """Say how large the batch was, and let a checkpoint begin if it is time."""
        self.checkpointer.folded(self._batch_bytes)
        if self._stage is not _Stage.REPLAYING and self._stage is not _Stage.WAITING:
            others = self._command_bytes + self._chunk_bytes + self._ownership_bytes
            sizes = {
                LogKind.COMMAND: self._command_bytes,
                LogKind.OUTCOME: self._batch_bytes - others,
                LogKind.CHECKPOINT: self._chunk_bytes,
                LogKind.OWNERSHIP: self._ownership_bytes,
            }
            self._shared.observer.log_folded(told_log.LogFolded(partition=self.at.partition, sizes_bytes=sizes))
        self._batch_bytes = self._command_bytes = self._chunk_bytes = self._ownership_bytes = 0

    async def _fold_all(self, batch: Batch, slice_s: float) -> None:
        records = iter(batch.records)
        while self._fold_slice(records, slice_s):  # noqa: ASYNC110 - nobody is waited for: others have their turn
            await asyncio.sleep(0)

    def _fold_slice(self, records: Iterator[LogRecord | Unreadable], slice_s: float) -> bool:
        """Fold until the time of a slice is over: True, or until there are no more."""
        ends = perf_counter() + slice_s
        with unhooked():
            for record in records:
                if isinstance(record, Unreadable):
                    raise unreadable(self.at, record)
                self._fold_record(record)
                if perf_counter() > ends:
                    return True
        return False

    def _fold_record(self, record: LogRecord) -> None:
        value = record.value or b""
        entry = self._tenure.proposed(value) or decode(record.value)
        size = len(value)
        self._batch_bytes += size
        dump = self.checkpointer.dump
        if dump is not None:
            self.checkpointer.before(entry)
        folded = fold(self.state, record.offset, record.timestamp_ms, size, entry)
        if self._stage is _Stage.REPLAYING or self._stage is _Stage.WAITING:
            self._replayed += 1
            if self._stage is _Stage.WAITING and folded.skip is None:
                if isinstance(entry, Announce | Release):
                    self._patience.renew()
                    self._announce_if_free()
                elif isinstance(entry, OutcomeRecord):
                    self._patience.heard()
            return
        if isinstance(entry, OutcomeRecord):
            if folded.skip is not None:
                self._skipped(record, entry.token, folded.skip)
                return
            if entry.token == self._tenure.token:
                self._tenure.confirm(entry.seq, entry.body)
                if dump is not None and isinstance(entry.body, CheckpointChunk):
                    self._chunk_bytes += size
                    self.checkpointer.confirm(record.offset, entry.body, size)
        elif isinstance(entry, Announce):
            self._ownership_bytes += size
            self._saw_announce(record, entry, folded)
        elif isinstance(entry, CommandRecord):
            self._command_bytes += size
            if folded.skip is not None:
                self._shared.duplicate_command(self.at, entry)
                return
        elif folded.skip is not None:
            return
        if self._stage is _Stage.LIVE:
            for instruction in folded.instructions:
                self.runs.carry_out(instruction)

    def _skipped(self, record: LogRecord, token: int, skip: str) -> None:
        self._shared.observer.outcome_skipped(
            told_log.OutcomeSkipped(
                partition=self.at.partition, offset=record.offset, token=token, reason=SkipReason(skip)
            )
        )
        if token == self._tenure.token and self._stage is _Stage.LIVE:
            self._break()

    # --- taking ----------------------------------------------------------------------------------------------------

    def members_changed(self) -> None:
        """The group is another one: a holder that is gone releases nothing, and a giver that is gone ends nothing."""
        if self._stage is _Stage.WAITING:
            self._announce_if_free()
        elif self._stage is _Stage.LIVE:
            self.runs.repeat_for_the_gone()

    def _announce_if_free(self) -> None:
        """Announce, unless the holder is expected to release. Then its release, its end or our patience calls again."""
        holder = self.state.gate.holder
        if self.state.gate.token == NO_TOKEN or self._patience.over or not self._shared.is_other_member(holder):
            self._announce()
        elif self._patience.begin():
            self._writer.put(NewRecord(value=encode(self._announcement(uuid.uuid4().hex, KNOCK))))

    def _announcement(self, nonce: str, previous_token: int) -> Announce:
        return Announce(
            app=self._shared.settings.app.name,
            instance=self._shared.instance,
            member=self._shared.member or self._shared.instance,
            nonce=nonce,
            previous_token=previous_token,
            partitions=self._shared.partitions,
        )

    def _announce_if_waiting(self) -> None:
        if self._stage is _Stage.WAITING:
            self._announce_if_free()

    def _why(self) -> TakeReason:
        gate = self.state.gate
        if gate.last == NO_TOKEN:
            return TakeReason.START
        if gate.token == NO_TOKEN:
            return TakeReason.HANDOVER
        return TakeReason.REBALANCE if self._patience.over else TakeReason.TAKEOVER

    def _announce(self) -> None:
        if self._stage is _Stage.WAITING:
            self._take_reason = self._why()
        self._stage = _Stage.ANNOUNCED
        self._nonce = uuid.uuid4().hex
        self._put_announce()
        maybe(FaultPoint.ANNOUNCING)

    def _put_announce(self) -> None:
        record = self._announcement(self._nonce, self.state.gate.last)
        self._writer.put(NewRecord(value=encode(record)), self._announce_written)

    def _announce_written(self, _offset: int, error: HeadraceError | None) -> None:
        if error is not None:
            self._announce_later()

    def _announce_later(self) -> None:
        """Back off, then announce with what is the newest token by then."""
        if self._stage is not _Stage.ANNOUNCED or self._retry_at is not None:
            return
        self._retry_at = asyncio.get_running_loop().call_later(self._back_off.next_s(), self._announce_again)

    def _announce_again(self) -> None:
        self._retry_at = None
        if self._stage is _Stage.ANNOUNCED:
            self._announce()

    def _saw_announce(self, record: LogRecord, announce: Announce, folded: Folded) -> None:
        if folded.skip is not None:
            if announce.nonce == self._nonce and self._stage is _Stage.ANNOUNCED:
                self._announce_later()  # someone was first
            elif announce.previous_token == KNOCK and announce.instance != self._shared.instance:
                self.knocked.set()
            return
        if announce.nonce == self._nonce and self._stage is _Stage.ANNOUNCED:
            self._taken(record.offset)
        elif self._stage is _Stage.RELEASING:
            raise _Succeeded
        elif self._stage is _Stage.ANNOUNCED and self._take_reason is not TakeReason.RETAKEN:
            # someone was first, and nothing of ours runs: our own announce will be skipped
            self._stage = _Stage.WAITING
            self._patience.renew()
            self._announce_if_free()
        elif self._stage is _Stage.LIVE or self._stage is _Stage.ANNOUNCED:
            self._shared.observer.partition_lost(
                told_log.PartitionLost(
                    partition=self.at.partition,
                    token=self._tenure.token,
                    reason=LossReason.NEWER_ANNOUNCE,
                    newer_token=record.offset,
                )
            )
            raise OwnershipLost(self.at, record.offset)

    def _taken(self, offset: int) -> None:
        maybe(FaultPoint.TAKEN)
        self._back_off.reset()
        self._stage = _Stage.LIVE
        self._shared.observer.partition_taken(
            told_log.PartitionTaken(
                partition=self.at.partition,
                token=offset,
                reason=self._take_reason,
                records=self._replayed,
                duration_ms=(perf_counter() - self._began) * 1000,
                runs=len(self.state.runs),
                probing=self.state.probation.probing(self.state.clock_ms),
            )
        )
        self.runs.forget_all()
        self._tenure.begin(offset)
        self._shared.owner_positions.taken(
            self.at,
            OwnerPosition(
                offset=self.checkpointer.as_of + 1,
                checkpoint=self.checkpointer.first,
                token=offset,
                log=self.state.gate.first,
                partitions=self.state.gate.partitions,
                held=self.checkpointer.held_bytes,
            ),
        )
        self.runs.begin_all()
        again = self._take_reason is not TakeReason.HANDOVER  # a giver's come home before it releases
        for entry in list(self.state.outbox.values()):
            if not self._tenure.has_sent(entry.id):
                self._shared.outbox.send(self._tenure, self.at.partition, entry, again=again)
        self.ready.set()
        maybe(FaultPoint.WOKEN)

    def _break(self, reason: LossReason = LossReason.APPEND_FAILED) -> None:
        """Stop proposing, and announce anew. Attempts that run go on: their results are proposed under the next token."""
        if self._stage is not _Stage.LIVE:
            return
        maybe(FaultPoint.BROKEN)
        self._shared.observer.partition_lost(
            told_log.PartitionLost(partition=self.at.partition, token=self._tenure.token, reason=reason)
        )
        self._tenure.end()
        self._retake()
        self._announce_later()

    async def look(self) -> None:
        """Called every few seconds. What is there, or was acknowledged, comes; unless the log lost it before it was read. Nobody else would ever notice.

        Said again it does no harm: an announce has its nonce, and whatever was proposed counts once. Raises what the log raises.
        """
        missed = self._waits_for()
        self._looks = self._looks + 1 if missed is not None and missed == self._missed else 0
        self._missed = missed
        if self._looks < _LOOKS_MAX:
            return
        self._missed = None
        if self._replaying is not None:
            replaying = end, patience = self._replaying
            if (await self._shared.log.offsets([self.at]))[self.at].end < end and self._replaying is replaying:
                patience.reschedule(asyncio.get_running_loop().time())
        elif self._stage is _Stage.ANNOUNCED:
            self._put_announce()
        else:
            self._break()

    def _waits_for(self) -> tuple[str, int] | None:
        """What should come without anybody's doing."""
        if self._replaying is not None:
            return "", self.state.next_offset
        if not self._writer.idle or self._retry_at is not None:
            return None
        if self._stage is _Stage.ANNOUNCED:
            return self._nonce, -1
        oldest = self._tenure.oldest if self._stage is _Stage.LIVE else None
        return None if oldest is None else (self._nonce, oldest)

    def doubt(self) -> bool:
        """Somebody else may own the partition by now: nothing is begun until an announce of ours came back, behind whatever they wrote. False: no need."""
        if self._stage is not _Stage.LIVE:
            return False
        self._break(LossReason.STALLED)
        return True

    def _retake(self) -> None:
        """What was folded stays, and so do attempts; a new token is needed."""
        self._take_reason = TakeReason.RETAKEN
        self._began = perf_counter()
        self._replayed = 0
        self.checkpointer.drop()
        self._stage = _Stage.ANNOUNCED

    # --- leaving ---------------------------------------------------------------------------------------------------

    @property
    def live(self) -> bool:
        """Whether there is anything to give away: a token, or attempts that one left."""
        return self._stage is _Stage.LIVE or (
            self._stage is _Stage.ANNOUNCED and self._take_reason is TakeReason.RETAKEN
        )

    def stop_sending(self) -> None:
        """The partition is about to be released: what is in the outbox and not out yet is the successor's."""
        self._tenure.stop_sending()

    def release(self, grace_ms: int, reason: LossReason) -> int:
        """Give the partition away: say which attempts still run. Their results follow as deliver commands. The number of attempts."""
        if self._stage is _Stage.GONE:
            return 0  # somebody else announced; and perhaps it is placed here again, and its runs are another owner's
        self._shared.attempts.give_up_waiting(self._attempt_ended)
        running = tuple(
            RunningAttempt(run=run, step=step, number=number)
            for run, step, number in self._shared.attempts.running_of(self._attempt_ended)
        )
        if self._stage is _Stage.LIVE:
            self._given_token = self._tenure.token
            self._tenure.release(running, grace_ms)
            maybe(FaultPoint.RELEASED)
            self._shared.observer.partition_released(
                told_log.PartitionReleased(
                    partition=self.at.partition, token=self._given_token, reason=reason, attempts=len(running)
                )
            )
        self.checkpointer.drop()
        self._cancel_alarms()
        self._stage = _Stage.RELEASING
        self.knocked.clear()
        self.runs.forget_all()
        return len(running)

    def take_back(self) -> bool:
        """The partition is placed here again, before anybody else announced. False: too late, it is somebody else's."""
        if self._stage is _Stage.LIVE:
            self._tenure.end()  # about to be released: what was not sent any more goes out under the next token
        elif self._stage is not _Stage.RELEASING or self.gone.is_set():
            return self._stage is _Stage.ANNOUNCED
        self._retake()
        self._announce()
        return True

    async def attempts_over(self) -> None:
        """Return when none of its handlers runs."""
        await self._shared.attempts.none_running(self._attempt_ended)

    def abandon(self) -> None:
        """The grace is over: what still runs is cancelled, and its repetition may begin at once."""
        for run, step, number in self._shared.attempts.running_of(self._attempt_ended):
            self._shared.attempts.cancel(run, step)
            self._deliver(Abandoned(run=run, step=step, number=number))

    def _attempt_ended(self, outcome: AttemptSucceeded | AttemptFailed) -> None:
        """An attempt is over: say so in the log. After a release, as a command to whoever owns the partition next."""
        if self._stage is _Stage.RELEASING:
            self._deliver(outcome)
        elif self._stage is not _Stage.GONE:
            self._tenure.propose_result(outcome)

    def _deliver(self, result: AttemptSucceeded | AttemptFailed | Abandoned) -> None:
        identity = ClientId(f"deliver/{self._given_token}/{result.run}{result.step}/{result.number}")
        record = CommandRecord(id=identity, body=Deliver(token=self._given_token, result=result))
        self._writer.put(NewRecord(value=encode(record)))
        maybe(FaultPoint.RESULT_DELIVERING)

    def _drop(self) -> None:
        """Not ours any more. What still runs after a release has its grace, and `abandon` ends it; anything else ends here."""
        self.gone.set()
        self._cancel_alarms()
        self.checkpointer.drop()
        self._shared.owner_positions.forget(self.at)
        self._tenure.end()
        self.runs.forget_all()
        if self._stage is not _Stage.RELEASING:
            self._stage = _Stage.GONE
            self._shared.attempts.cancel_all(self._attempt_ended)

    def _cancel_alarms(self) -> None:
        if self._retry_at is not None:
            self._retry_at.cancel()
            self._retry_at = None
        self._patience.cancel()

    def _stop_partition(self, error: HeadraceError) -> None:
        self._drop()
        self.ready.set()
        self._shared.stopped(self.at, reason_of(error), error, self.state.next_offset)
        self._stopped()
