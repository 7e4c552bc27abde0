"""What of a source partition starts no run: dead letters, and entries of the audit list. Owned by `source.py`."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from headrace.observability import told_event
from headrace.observability.label import DiscardReason, RedriveResult
from headrace.observability.label import Stage as StageLabel
from headrace.service.audit_entry import AuditEntry, encoded
from headrace.service.fault_point import FaultPoint, maybe
from headrace.topics.dead_letter import Stage, dead_letter, dead_letter_topic
from headrace.topics.errors import Rejected
from headrace.topics.log import LogUnavailable, NewRecord, TopicPartition, Unreadable, last_offset
from headrace.topics.redrive import Redriven

if TYPE_CHECKING:
    from collections.abc import Sequence

    from headrace.service.pending import Pending
    from headrace.service.shared import Shared
    from headrace.topics.log import LogRecord


class Letter(NamedTuple):
    """A dead letter to be."""

    record: LogRecord | Unreadable
    stage: Stage
    code: str
    error: str
    workflow: str | None = None
    attempts: int = 1


class SetAside:
    """Each method queues records and adds them to what is pending; they are counted once they are in."""

    def __init__(self, shared: Shared, at: TopicPartition, epoch: int) -> None:
        self._shared = shared
        self._at = at
        self._epoch = epoch

    def dead_letter(self, letter: Letter, pending: Pending, *, coordinates_only: bool = False) -> None:
        """One that is refused, because the topic takes less than we were told, goes again with the facts alone."""
        shared = self._shared
        topic = dead_letter_topic(self._at.topic)
        redriven = self._redriven(letter.record)
        record = dead_letter(
            letter.record,
            self._at,
            stage=letter.stage,
            code=letter.code,
            error=shared.mask(letter.error),
            attempts=letter.attempts + (0 if redriven is None else redriven.count),
            workflow=letter.workflow,
            app=shared.names.app,
            bytes_max=0 if coordinates_only else shared.dead_letter_bytes_max(self._at.topic),
        )

        def gone(_at: TopicPartition, _offset: int, refused: Rejected | None) -> None:
            if refused is None:
                maybe(FaultPoint.DEAD_LETTER_SENT)
                self._tell_dead_lettered(letter)
                if redriven is not None:
                    shared.record_redriven(self._at, letter.record.offset, redriven, RedriveResult.DEAD_LETTERED)
                pending.written(-1, None)
            elif not coordinates_only:
                self.dead_letter(letter, pending, coordinates_only=True)
                pending.written(-1, None)
            else:
                shared.dead_letter_refused(self._at, refused)
                pending.written(-1, LogUnavailable(f"{topic} takes no dead letters: {refused.message}"))

        pending.add()
        shared.publisher.put(topic, self._at.partition, record, gone)
        maybe(FaultPoint.DEAD_LETTER_QUEUED)

    def unmatched(self, unmatched: Sequence[tuple[int, str]], pending: Pending) -> None:
        """Offsets with their reasons, in `<app>.audit`: ranges of neighbours with one reason."""
        index = 0
        while index < len(unmatched):
            first, reason = unmatched[index]
            count = 1
            while index + count < len(unmatched) and unmatched[index + count] == (first + count, reason):
                count += 1
            self.discarded(DiscardReason.UNMATCHED, first, first + count - 1, reason, pending)
            index += count

    def discarded(self, why: DiscardReason, first: int, last: int, reason: str, pending: Pending) -> None:
        """Offsets `first` to `last`, in `<app>.audit`."""
        shared = self._shared
        entry = AuditEntry(
            kind=why,
            topic=self._at.topic,
            partition=self._at.partition,
            first=first,
            last=last,
            reason=reason,
            at_ms=shared.clock.now_ms(),
            epoch=self._epoch,
        )

        def gone(at: TopicPartition, _offset: int, refused: Rejected | None) -> None:
            if refused is not None:
                pending.written(-1, LogUnavailable(f"{at.topic} takes no records: {refused.message}"))
                return
            shared.observer.event_discarded(
                told_event.EventDiscarded(
                    topic=self._at.topic,
                    partition=self._at.partition,
                    offset=last,
                    reason=why,
                    detail=reason,
                    records=last - first + 1,
                )
            )
            pending.written(-1, None)

        pending.add()
        record = NewRecord(value=encoded(entry), key=str(self._at).encode())
        shared.publisher.put(shared.names.audit, None, record, gone)

    def _redriven(self, record: LogRecord | Unreadable) -> Redriven | None:
        found = None if isinstance(record, Unreadable) else self._shared.redriven(self._at, record)
        return found if isinstance(found, Redriven) else None

    def _tell_dead_lettered(self, letter: Letter) -> None:
        record = letter.record
        self._shared.observer.event_dead_lettered(
            told_event.EventDeadLettered(
                topic=self._at.topic,
                partition=self._at.partition,
                offset=record.offset,
                stage=StageLabel(letter.stage),
                code=letter.code,
                message=letter.error,
                workflow=letter.workflow or "",
                records=last_offset(record) - record.offset + 1,
            )
        )
