"""The outbox's shell: entries of the partitions' state on their way out. An entry leaves the state when the log says that it left.

Events go to their topics, starts to the partition of their key, messages between parents and children to that of the other run, refusals to the dead
letters. Called by owners.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, NamedTuple, Protocol
from zlib import crc32

from headrace.observability import told_event
from headrace.observability.label import RedriveResult
from headrace.observability.label import Stage as StageLabel
from headrace.service.engine.state import Forward, Message, OutboxEntry, Output, Refusal, RefusedOutput
from headrace.service.fault_point import FaultPoint, maybe
from headrace.service.topic_plan import RUN_LOG_NAMED
from headrace.topics.dead_letter import Stage, dead_letter, dead_letter_topic
from headrace.topics.errors import HeadraceError, Rejected
from headrace.topics.identity import Coordinates
from headrace.topics.log import AppendRefused, LogRecord, NewRecord, TopicPartition
from headrace.topics.new_event import NewEvent, Provenance, encode_output
from headrace.topics.outcome import Sent
from headrace.topics.run_record import CommandRecord, encode
from headrace.topics.trace_context import kept_context

if TYPE_CHECKING:
    from collections.abc import Callable

    from headrace.service.shared import Shared
    from headrace.service.tenure import Tenure
    from headrace.topics.redrive import Redriven

REJECTED_KEY = "HR3201"
_AGAIN_S = 0.2


class _MakeLetter(Protocol):
    def __call__(self, *, whole: bool) -> NewRecord:
        """The dead letter with all that its topic takes, or with the facts alone."""
        ...


class _Forwards(NamedTuple):
    """Commands on their way from one partition to another under one token: offsets by entry, oldest first; and those that another one must go before."""

    token: int
    waiting: dict[str, int]
    behind: dict[str, list[Message]]  # by the entry that must be there first


class Outbox:
    """One per process. `send` never waits."""

    def __init__(self, shared: Shared) -> None:
        self._shared = shared
        self._run_log = shared.names.runs
        self._forwards: dict[tuple[int, int], _Forwards] = {}  # by (from, to)

    def send(self, tenure: Tenure, partition: int, entry: OutboxEntry, *, again: bool = False) -> None:
        """Send one entry. `again`: it was found in the state at take-over, so that it may have left before."""
        match entry:
            case Output():
                self._output(tenure, entry, again=again)
            case Forward() | Message():
                self._forward(tenure, partition, entry)
            case Refusal():
                self._refusal(tenure, entry)
            case RefusedOutput():
                self._refused_output(tenure, entry)

    def _output(self, tenure: Tenure, entry: Output, *, again: bool) -> None:
        observer = self._shared.observer
        emitted = entry.emitted
        if again:
            observer.output_resent(told_event.OutputResent(topic=emitted.topic))

        record = output_record(self._shared, entry)
        wanted = _wanted(tenure, entry)

        def gone(at: TopicPartition, offset: int, refused: Rejected | None) -> None:
            if refused is not None:
                observer.output_refused(
                    told_event.OutputRefused(
                        run=entry.run,
                        workflow=entry.workflow,
                        topic=at.topic,
                        code=refused.code,
                        message=refused.message,
                        traceparent=_traceparent(record),
                    )
                )
                tenure.refused(entry.id, refused.code, refused.message)
                return
            tenure.sent(Sent(entry.id, at.partition, offset))
            observer.output_sent(
                told_event.OutputSent(
                    run=entry.run,
                    workflow=entry.workflow,
                    topic=at.topic,
                    partition=at.partition,
                    offset=offset,
                    result_delay_ms=None
                    if entry.event_at_ms is None
                    else self._shared.clock.now_ms() - entry.event_at_ms,
                    traceparent=_traceparent(record),
                )
            )

        if emitted.topic == self._run_log:  # a record of another kind would stop its partition
            refused = AppendRefused(
                f"{emitted.topic} is the run log: no event may be in it.",
                code=RUN_LOG_NAMED,
                do="Emit to another topic.",
            )
            at = TopicPartition(emitted.topic, 0)
            asyncio.get_running_loop().call_soon(lambda: gone(at, -1, refused) if wanted() else None)
            return
        # One without a key has a partition of its own all the same: what is sent again comes behind the first, and is dropped if that one arrives.
        partition = None if emitted.key else crc32(entry.id.encode())
        self._shared.publisher.put(emitted.topic, partition, record, gone, wanted)

    def _forward(self, tenure: Tenure, partition: int, entry: Forward | Message) -> None:
        token = tenure.token
        forwards = self._forwards.get((partition, entry.partition))
        if forwards is None or forwards.token != token:  # a new token sends all that is left, oldest first
            forwards = self._forwards[partition, entry.partition] = _Forwards(token, {}, {})
        waiting = forwards.waiting
        waiting[entry.id] = entry.identity.offset
        if isinstance(entry, Message) and entry.after in waiting:
            forwards.behind.setdefault(entry.after, []).append(entry)
            return
        identity = entry.identity
        floor = next(iter(waiting.values()))
        record = CommandRecord(
            id=Coordinates(
                epoch=identity.epoch,
                origin=identity.origin,
                partition=identity.partition,
                offset=identity.offset,
                n=identity.n,
                floor=min(floor, identity.offset),
            ),
            body=entry.start if isinstance(entry, Forward) else entry.body,
        )

        def written(offset: int, error: HeadraceError | None) -> None:
            if error is None:
                maybe(FaultPoint.FORWARDED)
                waiting.pop(entry.id, None)
                tenure.sent(Sent(entry.id, entry.partition, offset))
                for message in forwards.behind.pop(entry.id, ()):
                    if tenure.token == token and tenure.wants(message.id):
                        self._forward(tenure, partition, message)
            else:
                asyncio.get_running_loop().call_later(_AGAIN_S, again)

        def again() -> None:
            if tenure.token == token and tenure.wants(entry.id):
                self._forward(tenure, partition, entry)

        self._shared.writers.runs(entry.partition).put(NewRecord(value=encode(record)), written)
        maybe(FaultPoint.FORWARDING)

    def _refusal(self, tenure: Tenure, entry: Refusal) -> None:
        start = entry.start
        event, source = start.event, start.record
        if event is None or source is None:  # not from a source record: nothing to keep but the log's own record
            tenure.sent(Sent(entry.id, -1, -1))
            return
        at = TopicPartition(event.topic, event.partition)
        error = f"Key {start.key!r} has an open run of {start.workflow}: {entry.open_run}."
        record = LogRecord(event.offset, source.timestamp_ms, source.key, source.value, source.headers)
        bytes_max = self._shared.dead_letter_bytes_max(at.topic)
        facts = told_event.EventDeadLettered(
            topic=at.topic,
            partition=at.partition,
            offset=event.offset,
            stage=StageLabel.START,
            code=REJECTED_KEY,
            message=error,
            workflow=start.workflow,
        )

        def letter(*, whole: bool) -> NewRecord:
            return dead_letter(
                record,
                at,
                stage=Stage.START,
                code=REJECTED_KEY,
                error=error,
                attempts=1 if start.redriven is None else 1 + start.redriven.count,
                workflow=start.workflow,
                app=self._shared.names.app,
                bytes_max=bytes_max if whole else 0,
            )

        self._letter(tenure, entry, dead_letter_topic(at.topic), letter, facts, redriven=start.redriven)

    def _refused_output(self, tenure: Tenure, entry: RefusedOutput) -> None:
        output = entry.output
        at = TopicPartition(output.emitted.topic, 0)
        record = output_record(self._shared, output)
        facts = told_event.EventDeadLettered(
            topic=at.topic,
            partition=at.partition,
            offset=-1,
            stage=StageLabel.EMIT,
            code=entry.code,
            message=entry.message,
            workflow=output.workflow,
        )

        def letter(*, whole: bool) -> NewRecord:
            return dead_letter(
                record,
                at,
                stage=Stage.EMIT,
                code=entry.code,
                error=entry.message,
                attempts=3,
                workflow=output.workflow,
                app=self._shared.names.app,
                bytes_max=None if whole else 0,
            )

        self._letter(tenure, entry, self._shared.names.refused, letter, facts)

    def _letter(
        self,
        tenure: Tenure,
        entry: OutboxEntry,
        topic: str,
        letter: _MakeLetter,
        facts: told_event.EventDeadLettered,
        *,
        redriven: Redriven | None = None,
        whole: bool = True,
    ) -> None:
        """Send a dead letter. One that is refused goes again with the facts alone."""

        def gone(at: TopicPartition, sent_at: int, refused: Rejected | None) -> None:
            if refused is None:
                maybe(FaultPoint.DEAD_LETTER_SENT)
                tenure.sent(Sent(entry.id, at.partition, sent_at))
                self._shared.observer.event_dead_lettered(facts)
                if redriven is not None:
                    source = TopicPartition(facts.topic, facts.partition)
                    self._shared.record_redriven(source, facts.offset, redriven, RedriveResult.DEAD_LETTERED)
            elif whole:
                self._letter(tenure, entry, topic, letter, facts, redriven=redriven, whole=False)
            else:
                self._shared.dead_letter_refused(at, refused)

        self._shared.publisher.put(topic, facts.partition, letter(whole=whole), gone, _wanted(tenure, entry))


def _wanted(tenure: Tenure, entry: OutboxEntry) -> Callable[[], bool]:
    """Whether the entry is still to be sent, by who put it: under a later token it is sent anew."""
    token = tenure.token
    return lambda: tenure.token == token and tenure.wants(entry.id)


def _traceparent(record: NewRecord) -> str | None:
    """The run's context, as the record carries it."""
    for name, value in record.headers:
        if name == "traceparent":
            return value.decode()
    return None


def output_record(shared: Shared, entry: Output) -> NewRecord:
    """The record of an emitted event: the same bytes and the same id however often it is made."""
    emitted = entry.emitted
    producer = kept_context(entry.traceparent, entry.tracestate)
    origin = entry.origin
    return encode_output(
        NewEvent(
            id=entry.id,
            source=f"headrace:{shared.names.app}/{entry.workflow}",
            type=emitted.type,
            data=bytes(emitted.data),
            subject=emitted.subject,
            time_ms=entry.at_ms,
            key=emitted.key,
        ),
        Provenance(
            run_id=entry.run,
            workflow=entry.workflow,
            source=f"{origin[0]}/{origin[1]}/{origin[2]}" if origin is not None else None,
            trace=shared.contexts.anchor(entry.run, producer, from_kafka=origin is not None, awaited=entry.awaited),
        ),
    )
