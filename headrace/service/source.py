"""One source partition: reads it in order, turns each record into commands, an unmatched entry or a dead letter, and moves its position on.

At least once: the position moves only after all that was made from a record is acknowledged. What is made twice has the same identity and is dropped by the
fold. A record over which the process ended three times becomes a dead letter, undecoded, unless something was made of it before. Owned by `router.py`.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from functools import lru_cache
from time import perf_counter
from typing import TYPE_CHECKING

from msgspec.structs import replace

from headrace.observability import told_event
from headrace.observability.label import DiscardReason, RedriveResult, StopReason
from headrace.service.definitions.matcher import Matched, Refused, Unmatched
from headrace.service.fault_point import FaultPoint, maybe
from headrace.service.made_before import home_of, made_before
from headrace.service.pending import Pending
from headrace.service.set_aside import Letter, SetAside
from headrace.service.source_check import TopicRemade, check, ends_before
from headrace.service.source_position import Before, SourcePosition
from headrace.service.stop import bug, reason_of
from headrace.topics.back_off import BackOff
from headrace.topics.cloudevents import decode
from headrace.topics.command import Start
from headrace.topics.dead_letter import Stage
from headrace.topics.errors import HeadraceError, Transient
from headrace.topics.event_data import EventRejected
from headrace.topics.identity import Coordinates, start_digest
from headrace.topics.log import (
    AppendRefused,
    LogRecord,
    NewRecord,
    OffsetOutOfRange,
    TopicPartition,
    Unreadable,
    last_offset,
)
from headrace.topics.redrive import OfOtherApp
from headrace.topics.run_record import CommandRecord, encode

if TYPE_CHECKING:
    from headrace.service.position_writer import PositionWriter
    from headrace.service.shared import Shared
    from headrace.topics.event import DecodedEvent
    from headrace.topics.log import Batch
    from headrace.topics.redrive import Redriven

START_TOO_LARGE = "HR3202"
TRIED_TOO_OFTEN = "HR3203"
_TRIES_MAX = 3
_TRIES_MADE_MAX = 6  # of a record of which something was made: nothing is owed to it any more
_CHUNK = 100  # records between two looks at admission: so many more than it wants may come from each source
_TOUCHED_AHEAD = 500  # records by which a commit says that more may be touched soon: one commit for so many
_SLICE_S = 0.01
_BACK_OFF_S = (0.1, 5.0)

_digest_of = lru_cache(maxsize=1_024)(start_digest)  # a workflow's is the same for every record


class Source:
    """`run` is its task. `floor`: everything below is done for good. `trial` is shared by all sources of the process."""

    def __init__(
        self,
        shared: Shared,
        at: TopicPartition,
        positions: PositionWriter,
        position: SourcePosition,
        trial: asyncio.Lock,
    ) -> None:
        self._shared = shared
        self._trial = trial  # while it is held nobody else decodes: a death is one record's
        self.at = at
        self.floor = position.offset
        self.epoch = position.epoch
        self._before = position.before
        self._made = position.made
        self.end_offset = position.offset
        self.waiting_since_ms: int | None = None  # timestamp of the oldest record that is read and not done
        self._behind_since_ms: int | None = None  # when it was seen that there is more than was read
        self.stopped = False
        self._positions = positions
        self._found = position
        self._aside = SetAside(shared, at, position.epoch)
        self._careful_until = 0 if position.clean else position.touched
        self._touched = 0 if position.clean else position.touched
        self._noted = -1  # the record whose try was noted last: once a process, for a broker that is away ends none
        self._chunk = max(1, min(_CHUNK, shared.settings.router.max_uncommitted // 2))
        self._ahead = max(1, min(_TOUCHED_AHEAD, shared.settings.router.max_uncommitted // 2))

    def ends_at(self, end: int) -> None:
        """The topic says where it ends; nobody has read that far, perhaps."""
        self.end_offset = max(self.end_offset, end)
        if self._behind_since_ms is None and self.end_offset > self.floor:
            self._behind_since_ms = self._shared.clock.now_ms()

    def lag_ms(self) -> int:
        """Age of the first record that is not done. Of one that was never read, since it is known to be there."""
        if self.end_offset <= self.floor:
            return 0
        since_ms = self._behind_since_ms if self.waiting_since_ms is None else self.waiting_since_ms
        return 0 if since_ms is None else max(0, self._shared.clock.now_ms() - since_ms)

    # --- the task --------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Read until cancelled. A broker that is away is waited for; a topic that is not what it was stops this source, with an alarm."""
        back_off = BackOff(_BACK_OFF_S)
        while True:
            floor = self.floor
            try:
                await self._read()
            except Transient:
                if self.floor > floor:
                    back_off.reset()
                await back_off.wait()
            except OffsetOutOfRange as error:
                if self.floor >= error.offsets.start:
                    await self._stop(StopReason.TOPIC_REMADE, ends_before(self.at, self.floor, error.offsets))
                # else: expired while we were behind; `_read` tells
            except TopicRemade as error:
                await self._stop(StopReason.TOPIC_REMADE, error)
            except HeadraceError as error:
                await self._stop(StopReason.REFUSED if isinstance(error, AppendRefused) else reason_of(error), error)
            except Exception as error:  # noqa: BLE001 - a bug of ours stops this source, not its neighbours
                await self._stop(StopReason.BUG, bug(error))

    async def _stop(self, reason: StopReason, error: HeadraceError) -> None:
        """Stand still, with an alarm, until somebody acts. The position stays as it is."""
        self.stopped = True
        self._shared.stopped(self.at, reason, error, self.floor)
        await asyncio.Event().wait()

    async def _read(self) -> None:
        # before the offsets: what is known of lies below them, whoever reads here still
        before = self._before or await self._shared.epochs.read_before(self.at)
        offsets = (await self._shared.log.offsets([self.at]))[self.at]
        self.end_offset = offsets.end
        self._careful_until = min(self._careful_until, offsets.end)  # what came later was not touched by who died
        if self.floor > offsets.end:
            raise OffsetOutOfRange(self.at, self.floor, offsets)
        if before is not None:
            await check(self._shared.log, self.at, before, offsets)
        if self.floor < offsets.start:
            await self._expired(offsets.start)
        async with self._shared.log.read(self.at, self.floor, isolation="committed") as batches:
            async for batch in batches:
                await self._do(batch)
                del batch  # the next one may be long in coming

    async def _expired(self, start: int) -> None:
        """Retention deleted records before they were read. Said, counted and listed; nothing can bring them back."""
        pending = Pending()
        reason = "deleted by the topic's retention before it was read"
        self._aside.discarded(DiscardReason.EXPIRED, self.floor, start - 1, reason, pending)
        await pending.all_out()
        self._move(start, None)

    # --- records ---------------------------------------------------------------------------------------------------

    async def _do(self, batch: Batch) -> None:
        self.end_offset = max(self.end_offset, batch.end_offset)
        maybe(FaultPoint.SOURCE_POLLED)
        records = batch.records
        for begin in range(0, len(records), self._chunk):
            chunk = records[begin : begin + self._chunk]
            self.waiting_since_ms = chunk[0].timestamp_ms
            await self._shared.admission.intake(self.at.topic)
            rest = await self._without_careful(chunk) if chunk[0].offset < self._careful_until else chunk
            if rest:
                await self._note_touched(last_offset(rest[-1]) + 1)
                await self._do_chunk(rest)
        self.waiting_since_ms = None
        if batch.next_offset > self.floor:  # what was aborted, or ends a transaction, is no record
            self._pass_to(batch.next_offset)

    async def _note_touched(self, end: int) -> None:
        if end > self._touched:
            touched = end + self._ahead
            await self._note(self._position(self.floor, touched))
            self._touched = touched
            maybe(FaultPoint.SOURCE_TOUCHED)

    async def _without_careful(self, chunk: Sequence[LogRecord | Unreadable]) -> Sequence[LogRecord | Unreadable]:
        """Do what has to be done with care, and return the rest."""
        careful = [record for record in chunk if record.offset < self._careful_until]
        async with self._shared.probes.none_alone():
            for record in careful:
                await self._do_carefully(record)
        return chunk[len(careful) :]

    async def _do_carefully(self, record: LogRecord | Unreadable) -> None:
        """One record at a time, the try noted before it is touched: it may be what ended the process."""
        if isinstance(record, LogRecord) and self._noted != record.offset:
            tries = self._found.tries if record.offset == self._found.offset else 0
            if tries >= _TRIES_MAX and await self._given_up(record, tries):
                return
            if tries:
                await self._try_again(record, tries)
            else:
                await self._note(self._position(record.offset, self._touched, 1))
                maybe(FaultPoint.SOURCE_TRIED)
            self._noted = record.offset
        await self._do_chunk([record])

    async def _given_up(self, record: LogRecord, tries: int) -> bool:
        """Pass over a record that was tried too often: with a dead letter, unless it has come to something. False: it may be tried again.

        A run or an entry of the audit list stands for it then, and a letter would be a second end. The commands of one record may be torn by a death, so it
        is done anew; but not for ever.
        """
        if await made_before(self._shared, self.at, self.epoch, record):
            if tries < _TRIES_MADE_MAX:
                return False
            self._tell_made_before(record)
        else:
            message = f"The process ended {tries} times while this record was being read; it was not decoded again."
            pending = Pending()
            self._aside.dead_letter(Letter(record, Stage.DECODE, TRIED_TOO_OFTEN, message, attempts=tries), pending)
            await pending.all_out()
        self._move(record.offset + 1, record)
        return True

    async def _try_again(self, record: LogRecord, tries: int) -> None:
        """Decode and match it for nothing, alone in this process: what ends the process does so here, before the record can have made anything.

        Deaths behind this are not the record's: they do not count as tries. That it was survived clears it of the earlier ones.
        """
        async with self._shared.probes.none(), self._trial:
            await self._note_surely(self._position(record.offset, self._touched, tries + 1))
            maybe(FaultPoint.SOURCE_TRIED)
            with contextlib.suppress(EventRejected):
                self._shared.matcher.match(decode(record, self.at, self._shared.event_limits), record)
            maybe(FaultPoint.SOURCE_LOOKED_AT)
            self._found = self._position(record.offset, self._touched, 1)
            await self._note_surely(self._found)

    async def _note_surely(self, position: SourcePosition) -> None:
        """However long the broker is away: nobody else's trial may begin while this one's is noted."""
        back_off = BackOff(_BACK_OFF_S)
        while True:
            try:
                return await self._note(position)
            except Transient:
                await back_off.wait()

    async def _no_trial(self) -> None:
        """Return when no record is on trial."""
        async with self._trial:
            pass

    async def _do_chunk(self, records: Sequence[LogRecord | Unreadable]) -> None:
        if self._trial.locked():
            await self._no_trial()
        pending = Pending()
        unmatched: list[tuple[int, str]] = []
        redriven: list[tuple[int, Redriven, RedriveResult]] = []  # and no dead letter again
        refused, made = 0, self._made
        now_ms = self._shared.clock.now_ms()
        began = perf_counter()
        slice_ends = began + _SLICE_S
        for record in records:
            if isinstance(record, Unreadable):
                self._aside.dead_letter(Letter(record, Stage.DECODE, record.code, record.reason), pending)
                continue
            try:
                event = decode(record, self.at, self._shared.event_limits)
            except EventRejected as rejected:
                self._aside.dead_letter(Letter(record, Stage.DECODE, rejected.code, rejected.message), pending)
                continue
            if event.trace_refused:
                refused += 1
            if event.redriven:
                made = self._do_redriven(record, event, pending, unmatched, redriven) or made
            else:
                match self._shared.matcher.match(event, record):
                    case Matched(starts=starts):
                        made = self._put(record, starts, pending) or made
                    case Unmatched(reason=reason):
                        unmatched.append((record.offset, reason))
                    case Refused(stage=stage, code=code, error=error, workflow=workflow):
                        self._aside.dead_letter(Letter(record, stage, code, error, workflow), pending)
            if perf_counter() > slice_ends:
                await asyncio.sleep(0)
                if pending.error is not None:
                    break  # what follows may not overtake what failed
                if self._trial.locked():
                    await self._no_trial()
                slice_ends = perf_counter() + _SLICE_S
        self._tell_consumed(records, now_ms, (perf_counter() - began) * 1000, refused)
        self._aside.unmatched(unmatched, pending)
        maybe(FaultPoint.SOURCE_DECODED)
        await pending.all_out()
        maybe(FaultPoint.SOURCE_ACKNOWLEDGED)
        self._made = made
        self._move(last_offset(records[-1]) + 1, records[-1])
        for offset, copy, result in redriven:
            self._shared.record_redriven(self.at, offset, copy, result)

    def _do_redriven(
        self,
        record: LogRecord,
        event: DecodedEvent,
        pending: Pending,
        unmatched: list[tuple[int, str]],
        redriven: list[tuple[int, Redriven, RedriveResult]],
    ) -> bool:
        """The same with a record that comes, or says that it comes, from the dead letters. True: commands are queued."""
        found = self._shared.redriven(self.at, record)
        if isinstance(found, OfOtherApp):
            unmatched.append((record.offset, f"redriven for {found.app}"))
            return False
        result, made = RedriveResult.STARTED, False
        match self._shared.matcher.match(event, record):
            case Matched(starts=starts):
                if found is not None:
                    starts = tuple(replace(start, trigger="redrive", redriven=found) for start in starts)
                made = self._put(record, starts, pending, found)
                if not made:
                    return False
            case Unmatched(reason=reason):
                unmatched.append((record.offset, reason))
                result = RedriveResult.UNMATCHED
            case Refused(stage=stage, code=code, error=error, workflow=workflow):
                self._aside.dead_letter(Letter(record, stage, code, error, workflow), pending)
                return False
        if found is not None:
            redriven.append((record.offset, found, result))
        return made

    def _put(
        self, record: LogRecord, starts: tuple[Start, ...], pending: Pending, redriven: Redriven | None = None
    ) -> bool:
        """Queue the commands of one record: all of them, or a dead letter if one is too large. False: that."""
        shared = self._shared
        at = self.at
        bytes_max = shared.settings.log.max_record_bytes
        commands: list[NewRecord] = []
        for start in starts:
            identity = Coordinates(
                epoch=self.epoch,
                origin=at.topic,
                partition=at.partition,
                offset=record.offset,
                n=_digest_of("start", start.namespace, start.workflow),
                floor=self.floor,
            )
            value = encode(CommandRecord(id=identity, body=start))
            if len(value) > bytes_max:
                message = f"The start of {start.workflow} has {len(value)} bytes; log.max_record_bytes is {bytes_max}."
                self._aside.dead_letter(Letter(record, Stage.START, START_TOO_LARGE, message, start.workflow), pending)
                return False
            commands.append(NewRecord(value=value))
        writer = shared.writers.runs(home_of(at, record, shared.partitions, redriven))
        for command in commands:
            pending.add()
            writer.put(command, pending.written)
        return True

    # --- what is told ------------------------------------------------------------------------------------------------

    def _tell_made_before(self, record: LogRecord) -> None:
        self._shared.observer.event_discarded(
            told_event.EventDiscarded(
                topic=self.at.topic,
                partition=self.at.partition,
                offset=record.offset,
                reason=DiscardReason.DUPLICATE,
                detail=f"the process ended {self._found.tries} times over it, after something had been made of it",
            )
        )

    def _tell_consumed(
        self, records: Sequence[LogRecord | Unreadable], now_ms: int, duration_ms: float, contexts_refused: int = 0
    ) -> None:
        readable = [record for record in records if isinstance(record, LogRecord)]
        if readable:
            self._shared.observer.events_consumed(
                told_event.EventsConsumed(
                    topic=self.at.topic,
                    partition=self.at.partition,
                    sizes_bytes=[len(record.value or b"") for record in readable],
                    delays_ms=[max(0, now_ms - record.timestamp_ms) for record in readable],
                )
            )
            self._shared.observer.events_matched(
                told_event.EventsMatched(
                    topic=self.at.topic,
                    records=len(readable),
                    duration_ms=duration_ms,
                    contexts_refused=contexts_refused,
                )
            )

    # --- positions -------------------------------------------------------------------------------------------------

    def _position(self, offset: int, touched: int, tries: int = 0, *, clean: bool = False) -> SourcePosition:
        return SourcePosition(offset, touched, tries, clean, epoch=self.epoch, before=self._before, made=self._made)

    def _move(self, floor: int, done: LogRecord | Unreadable | None) -> None:
        """Everything below is done; `done` is the last record of it."""
        self._before = Before(done.offset, done.timestamp_ms) if isinstance(done, LogRecord) else None
        self._pass_to(floor)

    def _pass_to(self, floor: int) -> None:
        """Everything below is done, and the last record of it is the one that was."""
        self.floor = floor
        self._behind_since_ms = None
        self._positions.move(self.at, self._position(floor, self._touched))

    async def _note(self, position: SourcePosition) -> None:
        await self._positions.note({self.at: position})

    def stop_cleanly(self) -> None:
        """Nothing more will be touched. What ended a process earlier may still lie ahead, and is met as carefully as before."""
        if self.stopped:
            return
        if self.floor >= self._careful_until:
            position = self._position(self.floor, self.floor, clean=True)
        else:  # the try of this process ended no process
            tries = self._found.tries if self.floor == self._found.offset else 0
            position = self._position(self.floor, self._touched, tries)
        self._positions.move(self.at, position)
