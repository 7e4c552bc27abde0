"""The owner of one run-log partition: reads it in order, folds it, and carries out what the fold and the woken runs ask for.

It acts only on what it has read back. Before its announce is accepted it runs no user code; once a newer announce is seen it stops at once.

    replay ──► announce ──► accepted: wake every open run ──► live ──► release ──► gone
                  ▲                                             │
                  └── own outcome skipped, or an append failed ─┘
"""

from __future__ import annotations

import asyncio
import uuid
from enum import StrEnum, auto
from time import perf_counter
from typing import TYPE_CHECKING, Any

import msgspec

from headrace.observability import observer as told
from headrace.observability.label import LossReason, SkipReason, StopReason, TakeReason, TriggerKind
from headrace.service.engine.fold import Folded, fold, new_state
from headrace.service.engine.instruction import (
    Advance,
    Begin,
    Close,
    Instruction,
    Joined,
    Park,
    Rearm,
    Send,
    TryAgain,
    Unpark,
)
from headrace.service.engine.interpreter import TIMEOUT_STEP, Turn
from headrace.service.engine.state import Phase, RunState
from headrace.service.engine.step import CallStep, EmitStep, TimerStep
from headrace.service.live_run import LiveRun
from headrace.topics.command import Abandoned, Deliver
from headrace.topics.errors import Fatal, HeadraceError
from headrace.topics.identity import ClientId
from headrace.topics.log import LogRecord, NewRecord, TopicPartition, Unreadable
from headrace.topics.outcome import (
    AttemptFailed,
    AttemptSucceeded,
    Emitted,
    OutboxProgress,
    Outcome,
    OutputRefused,
    RunEnded,
    RunStatus,
    Sent,
    StepsCancelled,
    TimerArmed,
    TimerFired,
)
from headrace.topics.run_record import (
    Announce,
    CommandRecord,
    OutcomeRecord,
    Release,
    RunningAttempt,
    UnknownRecord,
    decode,
    encode,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from headrace.service.attempts import Ended
    from headrace.service.shared import Shared
    from headrace.topics.log import Batch

_SLICE_S = 0.01  # the longest stretch of folding before the loop gets its turn
_GRACE_EXTRA_MS = 1_000  # a successor waits this much longer than the giver
_BACK_OFF_S = (0.1, 5.0)  # first and longest wait before announcing again
_TIMER_SKEW_MS = 1


class OwnershipLost(Fatal):
    """A newer announce was accepted: another instance owns the partition."""

    code = "HR5102"

    def __init__(self, at: TopicPartition, newer: int) -> None:
        super().__init__(
            f"{at} was taken over by a newer announce at offset {newer}.",
            why="Another instance of this app announced itself as the owner.",
            do="Run one `headrace serve` per app for now, or give the other one another app.name.",
        )
        self.newer = newer


class _Stage(StrEnum):
    REPLAYING = auto()
    ANNOUNCED = auto()
    LIVE = auto()
    RELEASING = auto()
    GONE = auto()


class Owner:
    """One partition, one task (`run`). Attempts, timers and the outbox call back on the loop."""

    def __init__(self, shared: Shared, partition: int) -> None:
        self._shared = shared
        self.at = TopicPartition(shared.names.runs, partition)
        self.state = new_state(
            topic=self.at.topic,
            partition=partition,
            partitions=shared.partitions,
            client_retention_ms=shared.settings.runs.client_id_retention_ms,
        )
        self.writer = shared.writers.runs(partition)
        self.live: dict[str, LiveRun] = {}
        self.held: dict[str, str] = {}  # runs whose definition version is not loaded here
        self.folded_bytes = 0  # of the log, since it was taken
        self.ready = asyncio.Event()
        self._stage = _Stage.REPLAYING
        self._token = -1
        self._seq = 0
        self._nonce = ""
        self._announced_at = -1
        self._take_reason = TakeReason.START
        self._began = perf_counter()
        self._replayed = 0
        self._broken = False  # an append failed, or an own record was skipped: announce anew
        self._failures = 0
        self._unconfirmed: dict[tuple[str, str, int], Outcome] = {}  # results of attempts that are not read back yet
        self._sent: dict[str, Sent] = {}  # outbox entries that left and whose progress is not read back yet
        self._progress: list[Sent] = []
        self._progress_due = False
        self._retry_at: asyncio.TimerHandle | None = None
        self._sample: tuple[int, float] | None = None  # one proposal whose way to the log and back is being measured

    # --- the loop --------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Own the partition until cancelled, lost (`OwnershipLost`), or stopped by a record that cannot be read (reported, then waits for ever)."""
        try:
            await self._own()
        except (UnknownRecord, HeadraceError) as error:
            if isinstance(error, OwnershipLost):
                raise
            self._stop_partition(error)
            await asyncio.Event().wait()
        finally:
            self._drop()

    async def _own(self) -> None:
        log = self._shared.log
        offsets = (await log.offsets([self.at]))[self.at]
        end = offsets.end
        self.state.next_offset = offsets.start
        async with log.read(self.at, offsets.start) as batches:
            if offsets.start < end:
                await self._replay(batches, end)
            self._announce()
            async for batch in batches:
                await self._fold_batch(batch)

    async def _replay(self, batches: AsyncIterator[Batch], end: int) -> None:
        """Fold what is there as data: no instruction is carried out, no user code runs."""
        async for batch in batches:
            await self._fold_batch(batch)
            if self.state.next_offset >= end:
                return

    async def _fold_batch(self, batch: Batch) -> None:
        slice_ends = perf_counter() + _SLICE_S
        for record in batch.records:
            if isinstance(record, Unreadable):
                message = (
                    f"Records {record.offset} to {record.last_offset} of {self.at} cannot be read: {record.reason}"
                )
                raise UnknownRecord(message, code=record.code)
            self._fold_record(record)
            if perf_counter() > slice_ends:
                await asyncio.sleep(0)
                slice_ends = perf_counter() + _SLICE_S

    def _fold_record(self, record: LogRecord) -> None:
        value = record.value
        entry = decode(value)
        size = len(value or b"")
        self.folded_bytes += size
        folded = fold(self.state, record.offset, record.timestamp_ms, size, entry)
        if self._stage is _Stage.REPLAYING:
            self._replayed += 1
            return
        if isinstance(entry, OutcomeRecord):
            if folded.skip is not None:
                self._skipped(record, entry.token, folded.skip)
                return
            if entry.token == self._token:
                self._confirm(entry.seq, entry.body)
        elif isinstance(entry, Announce):
            self._saw_announce(record, entry, folded)
        elif folded.skip is not None:
            if isinstance(entry, CommandRecord):
                self._shared.duplicate_command(self.at, entry)
            return
        if self._stage is _Stage.LIVE:
            for instruction in folded.instructions:
                self._carry_out(instruction)

    def _skipped(self, record: LogRecord, token: int, skip: str) -> None:
        self._shared.observer.outcome_skipped(
            told.OutcomeSkipped(partition=self.at.partition, offset=record.offset, token=token, reason=SkipReason(skip))
        )
        if token == self._token and self._stage is _Stage.LIVE:
            self._break()

    # --- taking ----------------------------------------------------------------------------------------------------

    def _announce(self) -> None:
        self._stage = _Stage.ANNOUNCED
        self._broken = False
        self._nonce = uuid.uuid4().hex
        self._announced_at = -1
        record = Announce(
            app=self._shared.settings.app.name,
            instance=self._shared.instance,
            member=self._shared.instance,
            nonce=self._nonce,
            previous_token=self.state.gate.last,
            partitions=self._shared.partitions,
        )
        self.writer.put(NewRecord(value=encode(record)), self._announce_written)

    def _announce_written(self, offset: int, error: HeadraceError | None) -> None:
        if error is None:
            self._announced_at = offset
        else:
            self._announce_later()

    def _announce_later(self) -> None:
        """Back off, then announce with what is the newest token by then."""
        if self._stage in {_Stage.RELEASING, _Stage.GONE} or self._retry_at is not None:
            return
        first, longest = _BACK_OFF_S
        wait = min(longest, first * 2 ** min(self._failures, 10))
        self._failures += 1
        self._retry_at = asyncio.get_running_loop().call_later(wait, self._announce_again)

    def _announce_again(self) -> None:
        self._retry_at = None
        if self._stage not in {_Stage.RELEASING, _Stage.GONE}:
            self._announce()

    def _saw_announce(self, record: LogRecord, announce: Announce, folded: Folded) -> None:
        if folded.skip is not None:
            if announce.nonce == self._nonce and self._stage is _Stage.ANNOUNCED:
                self._announce_later()  # someone was first
            return
        if announce.nonce == self._nonce and self._stage is _Stage.ANNOUNCED:
            self._taken(record.offset)
        elif self._stage is _Stage.LIVE or (
            self._stage is _Stage.ANNOUNCED and announce.instance != self._shared.instance
        ):
            self._shared.observer.partition_lost(
                told.PartitionLost(
                    partition=self.at.partition,
                    token=self._token,
                    reason=LossReason.NEWER_ANNOUNCE,
                    newer_token=record.offset,
                )
            )
            raise OwnershipLost(self.at, record.offset)

    def _taken(self, offset: int) -> None:
        self._token, self._seq, self._failures, self._sample = offset, 0, 0, None
        self._stage = _Stage.LIVE
        self._shared.observer.partition_taken(
            told.PartitionTaken(
                partition=self.at.partition,
                token=offset,
                reason=self._take_reason,
                records=self._replayed,
                duration_ms=(perf_counter() - self._began) * 1000,
                runs=len(self.state.runs),
            )
        )
        self._forget_live()
        self._propose_again()
        for run in list(self.state.runs.values()):
            if run.phase is Phase.OPEN:
                self._begin(run)
        for entry in list(self.state.outbox.values()):
            if entry.id not in self._sent:
                self._shared.outbox.send(self, entry, again=True)
        self.ready.set()

    def _propose_again(self) -> None:
        """What was appended under the old token and never read back: results of attempts, and what left the outbox."""
        unconfirmed, self._unconfirmed = self._unconfirmed, {}
        for key, outcome in unconfirmed.items():
            run = self.state.runs.get(key[0])
            if run is not None and key[1] not in run.settled:
                self._propose_result(key, outcome)
        self._progress = [sent for id_, sent in self._sent.items() if id_ in self.state.outbox]
        self._sent = {sent.entry: sent for sent in self._progress}
        self._flush_progress()

    def _break(self) -> None:
        """Stop proposing, and announce anew. Attempts that run go on: their results are proposed under the next token."""
        if self._stage is not _Stage.LIVE:
            return
        self._shared.observer.partition_lost(
            told.PartitionLost(partition=self.at.partition, token=self._token, reason=LossReason.APPEND_FAILED)
        )
        self._take_reason = TakeReason.RETAKEN
        self._began = perf_counter()
        self._replayed = 0
        self._token = -1
        self._stage = _Stage.ANNOUNCED
        self._announce_later()

    # --- proposing -------------------------------------------------------------------------------------------------

    def _propose(self, outcome: Outcome) -> None:
        """Append an outcome under the token. It has no effect before it is read back."""
        if self._stage is not _Stage.LIVE:
            return
        record = OutcomeRecord(token=self._token, seq=self._seq, body=outcome)
        if self._sample is None:
            self._sample = (self._seq, perf_counter())
        self._seq += 1
        self.writer.put(NewRecord(value=encode(record)), self._written)

    def _written(self, _offset: int, error: HeadraceError | None) -> None:
        if error is not None:
            self._break()

    def _propose_result(self, key: tuple[str, str, int], outcome: AttemptSucceeded | AttemptFailed | Any) -> None:
        self._unconfirmed[key] = outcome
        self._propose(outcome)

    def _confirm(self, seq: int, body: Outcome) -> None:
        if self._sample is not None and seq == self._sample[0]:
            duration_ms = (perf_counter() - self._sample[1]) * 1000
            self._sample = None
            self._shared.observer.read_back(
                told.ReadBack(partition=self.at.partition, records=1, duration_ms=duration_ms)
            )
        if isinstance(body, AttemptSucceeded | AttemptFailed):
            self._unconfirmed.pop((body.run, body.step, body.number), None)
        elif isinstance(body, OutboxProgress):
            for sent in body.sent:
                self._sent.pop(sent.entry, None)

    # --- carrying out ----------------------------------------------------------------------------------------------

    def _carry_out(self, instruction: Instruction) -> None:
        match instruction:
            case Advance(run=run, record=record, at_ms=at_ms):
                self._advance(run, record, at_ms)
            case Begin(run=run) | Unpark(run=run):
                if isinstance(instruction, Unpark):
                    self._shared.observer.run_resumed(told.RunResumed(run=run.id, workflow=run.start.workflow))
                self._begin(run)
            case Send(entry=entry):
                self._shared.outbox.send(self, entry)
            case Close(run=run, ended=ended, at_ms=at_ms):
                self._close(run, ended, at_ms)
            case TryAgain(run=run, step=step, number=number, due_at_ms=due_at_ms):
                live = self.live.get(run.id)
                call = live.calls.get(step) if live is not None else None
                if live is not None and call is not None:
                    self._schedule(live, call, number, due_at_ms)
            case Rearm(run=run, step=step, due_at_ms=due_at_ms, early_ms=early_ms):
                self._arm(run, step, due_at_ms, skew_ms=early_ms + _TIMER_SKEW_MS)
            case Park(run=run, parked=parked):
                self._forget(run.id)
                self._shared.observer.run_parked(
                    told.RunParked(
                        run=run.id,
                        workflow=run.start.workflow,
                        reason=parked.reason,
                        step=parked.step,
                        expected=parked.expected,
                        found=parked.found,
                    )
                )
            case Joined():
                pass

    def _begin(self, run: RunState) -> None:
        self._shared.admission.ask(run.id, run.start.workflow, run.size, lambda: self._wake(run))

    def _wake(self, run: RunState) -> None:
        """Bring a run to life: from nothing, or by replaying what its coroutine has noticed."""
        if self._stage is not _Stage.LIVE or self.state.runs.get(run.id) is not run or run.phase is not Phase.OPEN:
            self._shared.admission.idle(run.id)
            return
        live = self._shared.live_run(run)
        if live is None:
            self._hold(run)
            return
        self.live[run.id] = live
        if not run.history:
            self._tell_started(run)
        if live.timeout_at_ms is not None and TIMEOUT_STEP not in run.settled:
            self._arm(run, TIMEOUT_STEP, live.timeout_at_ms)
        self._act(live, live.replay())

    def _hold(self, run: RunState) -> None:
        """Its version is not loaded: a cancel still ends it, anything else waits for an instance that has it."""
        self.held[run.id] = f"{run.start.workflow} {run.start.version}"
        self._shared.admission.idle(run.id)
        self._shared.observer.run_held(told.RunHeld(run=run.id, workflow=run.start.workflow, version=run.start.version))
        self._end_without_code(run)

    def _end_without_code(self, run: RunState) -> None:
        reason = run.cancelled_by()
        if reason is not None:
            self._propose(RunEnded(run=run.id, status=RunStatus.CANCELLED, error="Cancelled", message=reason))

    def _advance(self, run: RunState, record: Any, at_ms: int) -> None:
        live = self.live.get(run.id)
        if live is not None:
            self._act(live, live.feed(record, at_ms))
        elif run.id in self.held:
            self._end_without_code(run)
        # else: unadmitted; it will find the record in its history when its turn comes

    def _act(self, live: LiveRun, turn: Turn) -> None:
        run = live.state
        if turn.parked is not None:
            self._propose(turn.parked)
            return
        for step in turn.issued:
            if isinstance(step, CallStep):
                self._call(live, step)
            elif isinstance(step, TimerStep):
                if run.timers.get(step.ref) != step.due_at_ms:
                    self._propose(TimerArmed(run=run.id, step=step.ref, due_at_ms=step.due_at_ms))
                self._arm(run, step.ref, step.due_at_ms)
            elif isinstance(step, EmitStep):
                self._propose(
                    Emitted(
                        run=run.id,
                        step=step.ref,
                        topic=step.topic,
                        type=step.type,
                        data=msgspec.Raw(step.data),
                        key=step.key,
                        subject=step.subject,
                    )
                )
        if turn.cancelled:
            for ref in turn.cancelled:
                self._drop_step(live, ref)
            self._propose(StepsCancelled(run=run.id, steps=tuple(turn.cancelled)))
        if turn.ended is not None:
            self._propose(turn.ended)
        elif live.waits():
            self._shared.admission.idle(run.id)

    def _call(self, live: LiveRun, step: CallStep[Any]) -> None:
        run = live.state
        live.calls[step.ref] = step
        number, due_at_ms = 1, 0
        if run.tries:
            tries = run.tries.get(step.ref)
            if tries is not None:
                number, due_at_ms = tries.failed + 1, tries.not_before_ms
        if self.state.given:
            given = self.state.given.get((run.id, step.ref))
            if given is not None and given.number == number:
                due_at_ms = max(due_at_ms, given.until_ms + _GRACE_EXTRA_MS)
        self._schedule(live, step, number, due_at_ms)

    def _schedule(self, live: LiveRun, step: CallStep[Any], number: int, due_at_ms: int) -> None:
        if due_at_ms and due_at_ms > self._shared.clock.now_ms():
            live.delayed.add(step.ref)
            self._shared.timers.arm((live.state.id, step.ref), due_at_ms, lambda: self._start(live, step, number))
            if live.waits():
                self._shared.admission.idle(live.state.id)
        else:
            self._start(live, step, number)

    def _start(self, live: LiveRun, step: CallStep[Any], number: int) -> None:
        run = live.state
        live.delayed.discard(step.ref)
        if self._stage is not _Stage.LIVE or self.live.get(run.id) is not live:
            return
        if (run.id, step.ref, number) in self._unconfirmed:
            return  # it has ended; its outcome is on its way
        self._shared.admission.active(run.id, run.start.workflow)
        self._shared.attempts.start(self, live, step, number)

    def attempt_ended(self, ended: Ended) -> None:
        """An attempt is over: say so in the log. After a release, as a command to whoever owns the partition next."""
        if self._stage is _Stage.RELEASING:
            self._deliver(ended.outcome)
        elif self._stage is not _Stage.GONE:
            outcome = ended.outcome
            self._propose_result((outcome.run, outcome.step, outcome.number), outcome)

    def _drop_step(self, live: LiveRun, ref: str) -> None:
        self._shared.timers.disarm((live.state.id, ref))
        live.delayed.discard(ref)
        if live.calls.pop(ref, None) is not None:
            self._shared.attempts.cancel(live.state.id, ref)

    def _close(self, run: RunState, ended: RunEnded, at_ms: int) -> None:
        live = self._forget(run.id)
        self.held.pop(run.id, None)
        self._shared.observer.run_finished(
            told.RunFinished(
                run=run.id,
                workflow=run.start.workflow,
                status=ended.status,
                started_at_ms=run.started_at_ms,
                duration_ms=at_ms - run.started_at_ms,
                key=run.start.key,
                version=run.start.version,
                attempts=live.attempts if live is not None else 0,
                retries=live.retries if live is not None else 0,
                error=ended.error,
                message=ended.message,
                failed_step=ended.failed_step,
            )
        )

    def _tell_started(self, run: RunState) -> None:
        start = run.start
        event = start.event
        self._shared.observer.run_started(
            told.RunStarted(
                run=run.id,
                workflow=start.workflow,
                version=start.version,
                trigger=TriggerKind(start.trigger),
                started_at_ms=run.started_at_ms,
                key=start.key,
                topic=event.topic if event is not None else None,
                partition=event.partition if event is not None else None,
                offset=event.offset if event is not None else None,
                event_id=event.id if event is not None else None,
                start_delay_ms=self._shared.clock.now_ms() - (start.event_at_ms or run.started_at_ms),
                producer_traceparent=start.traceparent,
                tracestate=start.tracestate,
            )
        )

    # --- timers ----------------------------------------------------------------------------------------------------

    def _arm(self, run: RunState, step: str, due_at_ms: int, *, skew_ms: int = 0) -> None:
        def fire() -> None:
            self._propose(TimerFired(run=run.id, step=step, due_at_ms=due_at_ms))

        live = self.live.get(run.id)
        if live is not None:
            live.timers.add(step)
        self._shared.timers.arm((run.id, step), due_at_ms + skew_ms, fire)

    # --- outbox ----------------------------------------------------------------------------------------------------

    def sent(self, entry: Sent) -> None:
        """An outbox entry was acknowledged where it went. Told to the log in one record for all that left by then."""
        self._sent[entry.entry] = entry
        self._progress.append(entry)
        if not self._progress_due:
            self._progress_due = True
            asyncio.get_running_loop().call_soon(self._flush_progress)

    def _flush_progress(self) -> None:
        self._progress_due = False
        progress, self._progress = self._progress, []
        if progress:
            self._propose(OutboxProgress(sent=tuple(progress)))

    def owns(self, entry: str) -> bool:
        """Whether this entry is still to be sent by us."""
        return self._stage is _Stage.LIVE and entry in self.state.outbox and entry not in self._sent

    def refused(self, entry: str, code: str, message: str) -> None:
        """A topic will never take this entry."""
        self._propose(OutputRefused(entry=entry, code=code, message=message))

    # --- leaving ---------------------------------------------------------------------------------------------------

    def release(self, grace_ms: int) -> int:
        """Give the partition away: say which attempts still run. Their results follow as deliver commands. The number of attempts."""
        self._flush_progress()
        running = tuple(
            RunningAttempt(run=run, step=step, number=number)
            for run, step, number in self._shared.attempts.running_of(self)
        )
        if self._stage is _Stage.LIVE:
            record = Release(token=self._token, seq=self._seq, attempts=running, grace_ms=grace_ms)
            self.writer.put(NewRecord(value=encode(record)))
            self._shared.observer.partition_released(
                told.PartitionReleased(
                    partition=self.at.partition,
                    token=self._token,
                    reason=LossReason.SHUTDOWN,
                    attempts=len(running),
                )
            )
        if self._retry_at is not None:
            self._retry_at.cancel()
        self._stage = _Stage.RELEASING
        return len(running)

    def abandon(self) -> None:
        """The grace is over: what still runs is cancelled, and its repetition may begin at once."""
        for run, step, number in self._shared.attempts.running_of(self):
            self._shared.attempts.cancel(run, step)
            self._deliver(Abandoned(run=run, step=step, number=number))

    def _deliver(self, result: AttemptSucceeded | AttemptFailed | Abandoned) -> None:
        identity = ClientId(f"deliver/{self._token}/{result.run}{result.step}/{result.number}")
        record = CommandRecord(id=identity, body=Deliver(token=self._token, result=result))
        self.writer.put(NewRecord(value=encode(record)))

    def _forget(self, run_id: str) -> LiveRun | None:
        live = self.live.pop(run_id, None)
        if live is not None:
            for ref in live.calls:
                self._shared.attempts.cancel(run_id, ref)
                self._shared.timers.disarm((run_id, ref))
            for ref in live.timers:
                self._shared.timers.disarm((run_id, ref))
            live.close()
        self._shared.admission.idle(run_id)
        return live

    def _forget_live(self) -> None:
        """Coroutines are a cache: drop them all. Attempts that run stay, for their results are facts."""
        for run_id, live in list(self.live.items()):
            for ref in (*live.calls, *live.timers):
                self._shared.timers.disarm((run_id, ref))
            live.close()
        self._shared.admission.forget(set(self.live) | set(self.state.runs))
        self.live.clear()
        self.held.clear()

    def _drop(self) -> None:
        """Not ours any more: nothing of it goes on here."""
        self._stage = _Stage.GONE
        if self._retry_at is not None:
            self._retry_at.cancel()
            self._retry_at = None
        for run_id in list(self.live):
            self._forget(run_id)
        self._shared.admission.forget(set(self.state.runs))

    def _stop_partition(self, error: HeadraceError) -> None:
        self._drop()
        self.ready.set()
        self._shared.stopped(self.at, StopReason.UNKNOWN_RECORD, error, self.state.next_offset)
