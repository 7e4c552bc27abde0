"""One source partition: reads it in order, turns each record into commands, an unmatched entry or a dead letter, and moves its position on.

At least once: the position moves only after all that was made from a record is acknowledged. What is made twice has the same identity and is dropped by the
fold. A record that was tried three times before unclean stops becomes a dead letter, undecoded. Owned by `router.py`.
"""

from __future__ import annotations

import asyncio
from time import perf_counter
from typing import TYPE_CHECKING

import msgspec

from headrace.observability import observer as told
from headrace.observability.label import DiscardReason, StopReason
from headrace.observability.label import Stage as StageLabel
from headrace.service import source_position
from headrace.service.definitions.matcher import Matched, Refused, Unmatched
from headrace.service.source_position import SourcePosition
from headrace.topics.cloudevents import decode
from headrace.topics.command import Start
from headrace.topics.dead_letter import Stage, dead_letter, dead_letter_topic
from headrace.topics.errors import HeadraceError
from headrace.topics.event_data import EventRejected
from headrace.topics.identity import Coordinates, start_digest
from headrace.topics.log import (
    AppendFailed,
    LogRecord,
    LogUnavailable,
    NewRecord,
    OffsetOutOfRange,
    TopicMissing,
    TopicPartition,
    Unreadable,
)
from headrace.topics.partition_hash import partition_of
from headrace.topics.run_record import CommandRecord, encode

if TYPE_CHECKING:
    from collections.abc import Sequence

    from headrace.service.shared import Shared
    from headrace.topics.log import Batch

START_TOO_LARGE = "HR3202"
TRIED_TOO_OFTEN = "HR3203"
_TRIES_MAX = 3
_CHUNK = 500  # records between two looks at admission; also how far ahead of a commit `touched` is noted
_SLICE_S = 0.01
_BACK_OFF_S = (0.1, 5.0)


class _Pending:
    """Commands of one chunk that are out."""

    __slots__ = ("_done", "_left", "error")

    def __init__(self) -> None:
        self._left = 1  # until `all_out`
        self._done = asyncio.Event()
        self.error: HeadraceError | None = None

    def add(self) -> None:
        self._left += 1

    def written(self, _offset: int, error: HeadraceError | None) -> None:
        if error is not None and self.error is None:
            self.error = error
        self._left -= 1
        if not self._left:
            self._done.set()

    async def all_out(self) -> None:
        """Wait for every acknowledgement; raises the first failure."""
        self.written(-1, None)
        await self._done.wait()
        if self.error is not None:
            raise self.error


class Source:
    """`run` is its task. `floor`: everything below is done for good."""

    def __init__(self, shared: Shared, at: TopicPartition) -> None:
        self._shared = shared
        self.at = at
        self.floor = 0
        self.end_offset = 0
        self.waiting_since_ms: int | None = None  # timestamp of the oldest record that is read and not done
        self.committed = SourcePosition(-1)
        self.stopped = False
        self.started = asyncio.Event()
        self._touched = 0
        self._careful_until = 0
        self._tries = 0
        self._clean = False

    # --- the task --------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Read until cancelled. A broker that is away is waited for; a topic that is not what it was stops this source, with an alarm."""
        wait = _BACK_OFF_S[0]
        while True:
            try:
                await self._read()
            except (AppendFailed, LogUnavailable):
                await asyncio.sleep(wait)
                wait = min(_BACK_OFF_S[1], wait * 2)
                continue
            except OffsetOutOfRange as error:
                if self.floor < error.offsets.start:
                    continue  # expired while we were behind: `_position` tells
                self._stop(StopReason.TOPIC_REMADE, error)
            except TopicMissing as error:
                self._stop(StopReason.TOPIC_MISSING, error)
            await asyncio.Event().wait()

    def _stop(self, reason: StopReason, error: HeadraceError) -> None:
        self.stopped = True
        self.started.set()
        self._shared.stopped(self.at, reason, error, self.floor)

    async def _read(self) -> None:
        position = await self._position()
        self.floor = position
        self.started.set()
        async with self._shared.log.read(self.at, position, isolation="committed") as batches:
            async for batch in batches:
                await self._do(batch)

    async def _position(self) -> int:
        """Where to go on. A first position is committed before the first read."""
        shared = self._shared
        offsets = (await shared.log.offsets([self.at]))[self.at]
        self.end_offset = offsets.end
        found = (await shared.log.committed(shared.names.router, [self.at])).get(self.at)
        if found is None:
            first = offsets.start if shared.settings.router.start == "earliest" else offsets.end
            await self._commit(SourcePosition(first))
            return first
        committed = source_position.of(found)
        self.committed = committed
        self._touched = committed.touched
        if committed.offset > offsets.end:
            raise OffsetOutOfRange(self.at, committed.offset, offsets)
        if not committed.clean:
            self._careful_until, self._tries = committed.touched, committed.tries
        if committed.offset < offsets.start:
            await self._expired(committed.offset, offsets.start)
            return offsets.start
        return committed.offset

    async def _expired(self, first: int, start: int) -> None:
        """Retention deleted records before they were read. Said, counted and listed; nothing can bring them back."""
        await self._list_discarded(
            DiscardReason.EXPIRED, first, start - 1, "deleted by the topic's retention before it was read"
        )
        self._tries = 0

    # --- records ---------------------------------------------------------------------------------------------------

    async def _do(self, batch: Batch) -> None:
        self.end_offset = max(self.end_offset, batch.end_offset)
        records = batch.records
        for begin in range(0, len(records), _CHUNK):
            chunk = records[begin : begin + _CHUNK]
            self.waiting_since_ms = chunk[0].timestamp_ms
            await self._shared.admission.intake()
            careful = [record for record in chunk if record.offset < self._careful_until]
            for record in careful:
                await self._do_carefully(record)
            rest = chunk[len(careful) :]
            if rest:
                await self._note_touched(_last(rest[-1]) + 1)
                await self._do_chunk(rest)
        self.waiting_since_ms = None

    async def _note_touched(self, end: int) -> None:
        if end > self._touched:
            self._touched = end + _CHUNK
            await self._commit(SourcePosition(self.floor, self._touched))

    async def _do_carefully(self, record: LogRecord | Unreadable) -> None:
        """One record at a time, the try noted before it is touched: it may be what ended the process."""
        tries = self._tries if record.offset == self.committed.offset else 0
        self._touched = max(self._touched, self._careful_until)
        if tries >= _TRIES_MAX:
            message = f"The process ended {tries} times while this record was being read; it was not decoded again."
            await self._dead_letter(record, Stage.DECODE, TRIED_TOO_OFTEN, message, attempts=tries)
            self._move(record)
        else:
            await self._commit(SourcePosition(record.offset, self._touched, tries + 1))
            await self._do_chunk([record])
        self._tries = 0

    async def _do_chunk(self, records: Sequence[LogRecord | Unreadable]) -> None:
        pending = _Pending()
        unmatched: list[tuple[int, str]] = []
        letters: list[tuple[LogRecord | Unreadable, Stage, str, str, str | None]] = []
        now_ms = self._shared.clock.now_ms()
        began = perf_counter()
        slice_ends = began + _SLICE_S
        for record in records:
            if isinstance(record, Unreadable):
                letters.append((record, Stage.DECODE, record.code, record.reason, None))
                continue
            try:
                event = decode(record, self.at, self._shared.event_limits)
            except EventRejected as rejected:
                letters.append((record, Stage.DECODE, rejected.code, rejected.message, None))
                continue
            match self._shared.matcher.match(event, record):
                case Matched(starts=starts):
                    refused = self._put(record, starts, pending)
                    if refused is not None:
                        letters.append(refused)
                case Unmatched(reason=reason):
                    unmatched.append((record.offset, reason))
                case Refused(stage=stage, code=code, error=error, workflow=workflow):
                    letters.append((record, stage, code, error, workflow))
            if perf_counter() > slice_ends:
                await asyncio.sleep(0)
                slice_ends = perf_counter() + _SLICE_S
        self._tell_consumed(records, now_ms, (perf_counter() - began) * 1000)
        for letter in letters:
            record, stage, code, error, workflow = letter
            await self._dead_letter(record, stage, code, error, workflow=workflow)
        await self._list_unmatched(unmatched)
        await pending.all_out()
        self._move(records[-1])

    def _put(
        self, record: LogRecord, starts: tuple[Start, ...], pending: _Pending
    ) -> tuple[LogRecord, Stage, str, str, str | None] | None:
        """Queue the commands of one record: all of them, or a dead letter if one is too large."""
        shared = self._shared
        at = self.at
        commands: list[NewRecord] = []
        for start in starts:
            identity = Coordinates(
                epoch=0,
                origin=at.topic,
                partition=at.partition,
                offset=record.offset,
                n=start_digest("start", start.namespace, start.workflow),
                floor=self.floor,
            )
            value = encode(CommandRecord(id=identity, body=start))
            if len(value) > shared.settings.log.max_record_bytes:
                message = f"The start of {start.workflow} has {len(value)} bytes; log.max_record_bytes is {shared.settings.log.max_record_bytes}."
                return record, Stage.START, START_TOO_LARGE, message, start.workflow
            commands.append(NewRecord(value=value))
        key = record.key if record.key is not None else f"{at.topic}/{at.partition}/{record.offset}".encode()
        writer = shared.writers.runs(partition_of(key, shared.partitions))
        for command in commands:
            pending.add()
            writer.put(command, pending.written)
        return None

    def _move(self, record: LogRecord | Unreadable) -> None:
        self.floor = _last(record) + 1

    # --- what does not start a run -----------------------------------------------------------------------------------

    async def _dead_letter(
        self,
        record: LogRecord | Unreadable,
        stage: Stage,
        code: str,
        error: str,
        *,
        workflow: str | None = None,
        attempts: int = 1,
    ) -> None:
        shared = self._shared
        topic = dead_letter_topic(self.at.topic)
        bytes_max = shared.dead_letter_bytes_max(self.at.topic)
        letter = dead_letter(
            record,
            self.at,
            stage=stage,
            code=code,
            error=error,
            attempts=attempts,
            workflow=workflow,
            bytes_max=bytes_max,
        )
        refused = await shared.publisher.publish(topic, self.at.partition, letter)
        if refused is not None:  # the topic takes less than we were told: keep the facts
            letter = dead_letter(record, self.at, stage=stage, code=code, error=error, attempts=attempts, bytes_max=0)
            refused = await shared.publisher.publish(topic, self.at.partition, letter)
        if refused is not None:
            shared.dead_letter_refused(self.at, refused)
            raise LogUnavailable(f"{topic} takes no dead letters: {refused.message}")
        shared.observer.event_dead_lettered(
            told.EventDeadLettered(
                topic=self.at.topic,
                partition=self.at.partition,
                offset=record.offset,
                stage=StageLabel(stage),
                code=code,
                message=error,
                workflow=workflow or "",
                records=_last(record) - record.offset + 1,
            )
        )

    async def _list_unmatched(self, unmatched: list[tuple[int, str]]) -> None:
        """Ranges of neighbours with one reason, in `<app>.audit`."""
        index = 0
        while index < len(unmatched):
            first, reason = unmatched[index]
            count = 1
            while index + count < len(unmatched) and unmatched[index + count] == (first + count, reason):
                count += 1
            await self._list_discarded(DiscardReason.UNMATCHED, first, first + count - 1, reason)
            index += count

    async def _list_discarded(self, why: DiscardReason, first: int, last: int, reason: str) -> None:
        entry = {
            "kind": why,
            "topic": self.at.topic,
            "partition": self.at.partition,
            "first": first,
            "last": last,
            "reason": reason,
            "at_ms": self._shared.clock.now_ms(),
        }
        record = NewRecord(value=msgspec.json.encode(entry), key=str(self.at).encode())
        refused = await self._shared.publisher.publish(self._shared.names.audit, None, record)
        if refused is not None:
            raise LogUnavailable(f"{self._shared.names.audit} takes no records: {refused.message}")
        self._shared.observer.event_discarded(
            told.EventDiscarded(
                topic=self.at.topic,
                partition=self.at.partition,
                offset=last,
                reason=why,
                detail=reason,
                records=last - first + 1,
            )
        )

    def _tell_consumed(self, records: Sequence[LogRecord | Unreadable], now_ms: int, duration_ms: float) -> None:
        readable = [record for record in records if isinstance(record, LogRecord)]
        if readable:
            self._shared.observer.events_consumed(
                told.EventsConsumed(
                    topic=self.at.topic,
                    partition=self.at.partition,
                    sizes_bytes=[len(record.value or b"") for record in readable],
                    delays_ms=[max(0, now_ms - record.timestamp_ms) for record in readable],
                )
            )
            self._shared.observer.events_matched(
                told.EventsMatched(topic=self.at.topic, records=len(readable), duration_ms=duration_ms)
            )

    # --- positions -------------------------------------------------------------------------------------------------

    def to_commit(self) -> SourcePosition | None:
        """What the next commit should say, or None if that is known."""
        tries = self.committed.tries if self.committed.offset == self.floor else 0  # a try that is noted stays noted
        wanted = SourcePosition(self.floor, self._touched, tries, self._clean)
        return None if self.committed == wanted or self.committed.offset < 0 else wanted

    def stop_cleanly(self) -> None:
        """Nothing more will be touched."""
        self._clean = not self.stopped and self.committed.offset >= 0
        self._touched = self.floor

    async def _commit(self, position: SourcePosition) -> None:
        await self._shared.log.commit(self._shared.names.router, {self.at: position.position()})
        self.committed = position


def _last(record: LogRecord | Unreadable) -> int:
    return record.last_offset if isinstance(record, Unreadable) else record.offset
