"""`EventLines`: lines about source records on their way in, and outputs on their way out. Part of `log_observer.py`."""

from __future__ import annotations

import logging
from typing import Final

from headrace.observability import told_event
from headrace.observability.label import DiscardReason
from headrace.observability.lines import Lines, of_run
from headrace.observability.log_event import LogEvent

_DISCARDED: Final = {
    DiscardReason.UNMATCHED: LogEvent.EVENT_UNMATCHED,
    DiscardReason.DUPLICATE: LogEvent.EVENT_DUPLICATED,
    DiscardReason.EXPIRED: LogEvent.EVENT_EXPIRED,
}


class EventLines(Lines):
    """Writes what `told_event.py` tells."""

    def event_discarded(self, discarded: told_event.EventDiscarded, /) -> None:
        event = _DISCARDED[discarded.reason]
        if discarded.reason is not DiscardReason.EXPIRED and not self._logs.enabled(logging.DEBUG):
            return
        self._logs.write(
            event,
            topic=discarded.topic,
            partition=discarded.partition,
            offset=discarded.offset,
            detail=discarded.detail,
            records=discarded.records if discarded.records > 1 else None,
        )

    def event_dead_lettered(self, lettered: told_event.EventDeadLettered, /) -> None:
        self._logs.write(
            LogEvent.EVENT_DEAD_LETTERED,
            kind=(lettered.topic, lettered.code),
            topic=lettered.topic,
            partition=lettered.partition,
            offset=lettered.offset,
            stage=lettered.stage,
            code=lettered.code,
            message=lettered.message,
            workflow=lettered.workflow,
            records=lettered.records if lettered.records > 1 else None,
        )

    def record_redriven(self, redriven: told_event.RecordRedriven, /) -> None:
        self._logs.write(
            LogEvent.EVENT_REDRIVEN,
            kind=(redriven.topic, redriven.result),
            topic=redriven.topic,
            partition=redriven.partition,
            offset=redriven.offset,
            letter=redriven.letter,
            count=redriven.count,
            result=redriven.result,
        )

    def output_sent(self, sent: told_event.OutputSent, /) -> None:
        if self._logs.enabled(logging.DEBUG):
            self._logs.write(
                LogEvent.OUTPUT_SENT,
                run_id=sent.run,
                workflow=sent.workflow,
                topic=sent.topic,
                partition=sent.partition,
                offset=sent.offset,
                **of_run(sent.traceparent),
            )

    def output_resent(self, resent: told_event.OutputResent, /) -> None:
        self._logs.write(LogEvent.OUTPUT_RESENT, kind=resent.topic, topic=resent.topic, records=resent.records)

    def output_refused(self, refused: told_event.OutputRefused, /) -> None:
        self._logs.write(
            LogEvent.OUTPUT_REFUSED,
            kind=(refused.topic, refused.code),
            run_id=refused.run,
            workflow=refused.workflow,
            topic=refused.topic,
            code=refused.code,
            message=refused.message,
            **of_run(refused.traceparent),
        )
