"""The log observer: hooks in, lines out. Which hook makes which line, at which level, and which lines are limited.

At the level INFO, what happens for every run costs one comparison here.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Final

from headrace.observability import told_event, told_log, told_process, told_run
from headrace.observability.label import BreakerState, DiscardReason, Ending, LossReason, MissReason
from headrace.observability.log_event import LogEvent
from headrace.observability.logs import Logs
from headrace.observability.silent import Silent
from headrace.topics.event import format_time
from headrace.topics.outcome import RunStatus
from headrace.topics.trace_context import attempt_span_id, span_id_in, trace_id_in

_DISCARDED: Final = {
    DiscardReason.UNMATCHED: LogEvent.EVENT_UNMATCHED,
    DiscardReason.DUPLICATE: LogEvent.EVENT_DUPLICATED,
    DiscardReason.EXPIRED: LogEvent.EVENT_EXPIRED,
}
_RUN_LEVELS: Final = {
    RunStatus.SUCCEEDED: logging.DEBUG,
    RunStatus.CANCELLED: logging.INFO,
    RunStatus.COMPENSATED: logging.INFO,
    RunStatus.FAILED: logging.WARNING,
    RunStatus.TIMED_OUT: logging.WARNING,
}
_LOSS_LEVELS: Final = {
    LossReason.REBALANCE: logging.INFO,
    LossReason.SHUTDOWN: logging.INFO,
    LossReason.TRUNCATED: logging.ERROR,  # acknowledged records are gone
}


class LogObserver(Silent):
    """Writes lines to `logs`."""

    def __init__(self, logs: Logs) -> None:
        self._logs = logs
        self._blocked_ms = 0.0

    # --- the process --------------------------------------------------------------------------------------------------

    def service_started(self, started: told_process.ServiceStarted, /) -> None:
        self._logs.write(
            LogEvent.SERVICE_STARTED,
            app=started.app,
            instance=started.instance,
            version=started.version,
            backend=started.backend,
            workflows=started.workflows,
            handlers=started.handlers,
        )

    def service_stopping(self, stopping: told_process.ServiceStopping, /) -> None:
        self._logs.write(LogEvent.SERVICE_STOPPING, reason=stopping.reason, grace_ms=_ms(stopping.grace_ms))

    def service_stopped(self, stopped: told_process.ServiceStopped, /) -> None:
        self._logs.write(
            LogEvent.SERVICE_STOPPED,
            at=logging.WARNING if stopped.attempts_left else None,
            duration_ms=_ms(stopped.duration_ms),
            attempts_left=stopped.attempts_left or None,
        )

    def loop_blocked(self, blocked: told_process.LoopBlocked, /) -> None:
        self._blocked_ms = blocked.blocked_ms
        self._logs.write(
            LogEvent.LOOP_BLOCKED,
            kind=blocked.handler,
            handler=blocked.handler,
            where=blocked.where,
            stack=" > ".join(blocked.stack),
            blocked_ms=_ms(blocked.blocked_ms),
        )

    def loop_delayed(self, delayed: told_process.LoopDelayed, /) -> None:
        if self._blocked_ms:
            # The turn that ended the block may have come before the watchdog told of it: then this is a later one.
            blocked_ms, self._blocked_ms = max(self._blocked_ms, delayed.delay_ms), 0.0
            self._logs.write(LogEvent.LOOP_RESUMED, kind="", blocked_ms=_ms(blocked_ms))

    def loop_fenced(self, fenced: told_process.LoopFenced, /) -> None:
        self._logs.write(LogEvent.LOOP_FENCED, stalled_ms=_ms(fenced.stalled_ms), partitions=fenced.partitions)

    def resource_measured(self, measured: told_process.ResourceMeasured, /) -> None:
        if measured.changed:
            self._logs.write(
                LogEvent.RESOURCE_SHORT if measured.short else LogEvent.RESOURCE_EASED,
                resource=measured.resource,
                used=measured.used,
                limit=measured.limit,
            )

    def outage_began(self, began: told_process.OutageBegan, /) -> None:
        self._logs.write(
            LogEvent.OUTAGE_BEGAN,
            kind=(began.dependency, began.name),
            dependency=began.dependency,
            name=began.name,
            message=began.message,
            retry_after_ms=_ms(began.retry_after_ms),
        )

    def outage_ended(self, ended: told_process.OutageEnded, /) -> None:
        self._logs.write(
            LogEvent.OUTAGE_ENDED, dependency=ended.dependency, name=ended.name, duration_ms=_ms(ended.duration_ms)
        )

    def breaker_changed(self, changed: told_process.BreakerChanged, /) -> None:
        self._logs.write(
            LogEvent.BREAKER_CHANGED,
            at=logging.WARNING if changed.after is BreakerState.OPEN else None,
            kind=(changed.breaker, changed.after),
            breaker=changed.breaker,
            before=changed.before,
            after=changed.after,
            reason=changed.reason,
        )

    # --- events in, outputs out ---------------------------------------------------------------------------------------

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
                trace_id=_trace_id(sent.traceparent),
                span_id=_span_id(sent.traceparent),
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
            trace_id=_trace_id(refused.traceparent),
            span_id=_span_id(refused.traceparent),
        )

    # --- runs and tasks -----------------------------------------------------------------------------------------------

    def run_started(self, started: told_run.RunStarted, /) -> None:
        if self._logs.enabled(logging.DEBUG):
            self._logs.write(
                LogEvent.RUN_STARTED,
                run_id=started.run,
                workflow=started.workflow,
                trigger=started.trigger,
                parent_run_id=started.parent,
                topic=started.topic,
                partition=started.partition,
                offset=started.offset,
                trace_id=_trace_id(started.traceparent),
                span_id=_span_id(started.traceparent),
            )

    def run_finished(self, finished: told_run.RunFinished, /) -> None:
        level = _RUN_LEVELS[finished.status]
        if self._logs.enabled(level):
            self._logs.write(
                LogEvent.RUN_FINISHED,
                at=level,
                kind=(finished.workflow, finished.error) if level == logging.WARNING else None,
                run_id=finished.run,
                workflow=finished.workflow,
                status=finished.status,
                duration_ms=_ms(finished.duration_ms),
                retries=finished.retries or None,
                error=finished.error,
                message=finished.message,
                task=finished.failed_step,
                trace_id=_trace_id(finished.traceparent),
                span_id=_span_id(finished.traceparent),
            )

    def run_parked(self, parked: told_run.RunParked, /) -> None:
        self._logs.write(
            LogEvent.RUN_PARKED,
            kind=(parked.workflow, parked.step, parked.found),
            run_id=parked.run,
            workflow=parked.workflow,
            reason=parked.reason,
            task=parked.step,
            expected=parked.expected,
            found=parked.found,
            trace_id=_trace_id(parked.traceparent),
            span_id=_span_id(parked.traceparent),
        )

    def run_held(self, held: told_run.RunHeld, /) -> None:
        self._logs.write(
            LogEvent.RUN_HELD,
            kind=(held.workflow, held.version),
            run_id=held.run,
            workflow=held.workflow,
            version=held.version,
            trace_id=_trace_id(held.traceparent),
            span_id=_span_id(held.traceparent),
        )

    def run_resumed(self, resumed: told_run.RunResumed, /) -> None:
        self._logs.write(
            LogEvent.RUN_RESUMED,
            kind=resumed.workflow,
            run_id=resumed.run,
            workflow=resumed.workflow,
            trace_id=_trace_id(resumed.traceparent),
            span_id=_span_id(resumed.traceparent),
        )

    def attempt_started(self, started: told_run.AttemptStarted, /) -> None:
        if self._logs.enabled(logging.DEBUG):
            self._logs.write(
                LogEvent.ATTEMPT_STARTED,
                run_id=started.run,
                workflow=started.workflow,
                task=started.step,
                handler=started.handler,
                attempt=started.number,
                trace_id=_trace_id(started.traceparent),
                span_id=_of_attempt(started),
            )

    def attempt_ended(self, ended: told_run.AttemptEnded, /) -> None:
        match ended.ending:
            case Ending.SUCCEEDED:
                event, level = LogEvent.ATTEMPT_SUCCEEDED, logging.DEBUG
            case Ending.CANCELLED:
                event, level = LogEvent.ATTEMPT_CANCELLED, logging.DEBUG
            case _:
                last = ended.retry_after_ms is None
                event, level = LogEvent.ATTEMPT_FAILED, logging.WARNING if last else logging.INFO
        if self._logs.enabled(level):
            self._logs.write(
                event,
                at=level,
                kind=(ended.workflow, ended.handler, ended.error, level) if level > logging.DEBUG else None,
                run_id=ended.run,
                workflow=ended.workflow,
                task=ended.step,
                handler=ended.handler,
                attempt=ended.number,
                cause=ended.cause,
                error=ended.error,
                message=ended.message,
                code=ended.code,
                duration_ms=_ms(ended.duration_ms),
                retry_after_ms=ended.retry_after_ms,
                trace_id=_trace_id(ended.traceparent),
                span_id=_of_attempt(ended),
            )

    def compensation_ended(self, ended: told_run.CompensationEnded, /) -> None:
        self._logs.write(
            LogEvent.COMPENSATION_FINISHED,
            at=None if ended.ending is Ending.SUCCEEDED else logging.ERROR,
            kind=(ended.workflow, ended.handler, ended.ending),
            run_id=ended.run,
            workflow=ended.workflow,
            task=ended.step,
            handler=ended.handler,
            result=ended.ending,
            trace_id=_trace_id(ended.traceparent),
            span_id=_span_id(ended.traceparent),
        )

    def handler_abandoned(self, abandoned: told_run.HandlerAbandoned, /) -> None:
        self._logs.write(
            LogEvent.HANDLER_ABANDONED,
            kind=(abandoned.handler, abandoned.reason),
            run_id=abandoned.run,
            workflow=abandoned.workflow,
            task=abandoned.step,
            handler=abandoned.handler,
            attempt=abandoned.number,
            reason=abandoned.reason,
            waited_ms=_ms(abandoned.waited_ms),
            trace_id=_trace_id(abandoned.traceparent),
            span_id=_of_attempt(abandoned),
        )

    def timer_armed(self, armed: told_run.TimerArmed, /) -> None:
        if self._logs.enabled(logging.DEBUG):
            self._logs.write(
                LogEvent.TIMER_ARMED,
                run_id=armed.run,
                workflow=armed.workflow,
                task=armed.step,
                due_at_ms=armed.due_at_ms,
                trace_id=_trace_id(armed.traceparent),
                span_id=_span_id(armed.traceparent),
            )

    def schedule_fired(self, fired: told_run.ScheduleFired, /) -> None:
        if self._logs.enabled(logging.DEBUG):
            self._logs.write(
                LogEvent.SCHEDULE_FIRED,
                schedule=fired.schedule,
                workflow=fired.workflow,
                run_id=fired.run,
                scheduled_at=format_time(fired.slot_ms),
                late_ms=_ms(fired.late_ms),
            )

    def schedule_missed(self, missed: told_run.ScheduleMissed, /) -> None:
        self._logs.write(
            LogEvent.SCHEDULE_MISSED,
            at=logging.INFO if missed.reason is MissReason.OVERLAP else None,
            kind=(missed.schedule, missed.reason),
            schedule=missed.schedule,
            workflow=missed.workflow,
            slots=missed.slots,
            until=format_time(missed.until_ms),
            reason=missed.reason,
            code=missed.code,
            message=missed.message,
        )

    def schedule_paused(self, paused: told_run.SchedulePaused, /) -> None:
        self._logs.write(LogEvent.SCHEDULE_PAUSED, schedule=paused.schedule, workflow=paused.workflow)

    def schedule_resumed(self, resumed: told_run.ScheduleResumed, /) -> None:
        self._logs.write(LogEvent.SCHEDULE_RESUMED, schedule=resumed.schedule, workflow=resumed.workflow)

    def timer_fired(self, fired: told_run.TimerFired, /) -> None:
        if self._logs.enabled(logging.DEBUG):
            self._logs.write(
                LogEvent.TIMER_FIRED,
                run_id=fired.run,
                workflow=fired.workflow,
                task=fired.step,
                late_ms=_ms(fired.late_ms),
                trace_id=_trace_id(fired.traceparent),
                span_id=_span_id(fired.traceparent),
            )

    def approval_requested(self, requested: told_run.ApprovalRequested, /) -> None:
        self._logs.write(
            LogEvent.APPROVAL_REQUESTED,
            run_id=requested.run,
            workflow=requested.workflow,
            task=requested.step,
            approval=requested.approval,
            roles=",".join(requested.roles),
            due_at_ms=requested.due_at_ms,
            trace_id=_trace_id(requested.traceparent),
            span_id=_span_id(requested.traceparent),
        )

    def approval_decided(self, decided: told_run.ApprovalDecided, /) -> None:
        self._logs.write(
            LogEvent.APPROVAL_DECIDED,
            run_id=decided.run,
            workflow=decided.workflow,
            task=decided.step,
            approval=decided.approval,
            decision=decided.ending,
            by=decided.by,
            waited_ms=decided.decided_at_ms - decided.requested_at_ms,
            trace_id=_trace_id(decided.traceparent),
            span_id=_span_id(decided.traceparent),
        )

    # --- ownership ----------------------------------------------------------------------------------------------------

    def partition_taken(self, taken: told_log.PartitionTaken, /) -> None:
        self._logs.write(
            LogEvent.PARTITION_TAKEN,
            partition=taken.partition,
            token=taken.token,
            reason=taken.reason,
            records=taken.records,
            runs=taken.runs,
            probing=taken.probing or None,
            duration_ms=_ms(taken.duration_ms),
        )

    def partition_released(self, released: told_log.PartitionReleased, /) -> None:
        self._logs.write(
            LogEvent.PARTITION_RELEASED,
            partition=released.partition,
            token=released.token,
            reason=released.reason,
            attempts=released.attempts,
        )

    def partition_lost(self, lost: told_log.PartitionLost, /) -> None:
        self._logs.write(
            LogEvent.PARTITION_LOST,
            at=_LOSS_LEVELS.get(lost.reason),
            partition=lost.partition,
            token=lost.token,
            reason=lost.reason,
            newer_token=lost.newer_token,
            offset=lost.offset,
        )

    def partition_stopped(self, stopped: told_log.PartitionStopped, /) -> None:
        self._logs.write(
            LogEvent.PARTITION_STOPPED,
            topic=stopped.topic,
            partition=stopped.partition,
            offset=stopped.offset,
            reason=stopped.reason,
            code=stopped.code,
            message=stopped.message,
        )

    def outcome_skipped(self, skipped: told_log.OutcomeSkipped, /) -> None:
        self._logs.write(
            LogEvent.OUTCOME_SKIPPED,
            kind=(skipped.partition, skipped.reason),
            partition=skipped.partition,
            offset=skipped.offset,
            token=skipped.token,
            reason=skipped.reason,
            records=skipped.records if skipped.records > 1 else None,
        )

    def checkpoint_written(self, written: told_log.CheckpointWritten, /) -> None:
        self._logs.write(
            LogEvent.CHECKPOINT_WRITTEN,
            partition=written.partition,
            as_of=written.as_of,
            size_bytes=written.size_bytes,
            chunks=written.chunks,
            duration_ms=_ms(written.duration_ms),
        )

    def checkpoint_failed(self, failed: told_log.CheckpointFailed, /) -> None:
        self._logs.write(
            LogEvent.CHECKPOINT_FAILED,
            kind=failed.code,
            partition=failed.partition,
            code=failed.code,
            message=failed.message,
        )

    def http_failed(self, failed: told_process.HttpFailed, /) -> None:
        self._logs.write(
            LogEvent.HTTP_FAILED,
            at=logging.ERROR if failed.code == "HR9001" else None,
            kind=(failed.route, failed.code),
            method=failed.method,
            route=failed.route,
            status=failed.status,
            code=failed.code,
            message=failed.message,
        )

    def trim_failed(self, failed: told_log.TrimFailed, /) -> None:
        self._logs.write(
            LogEvent.TRIM_FAILED,
            kind=(failed.topic, failed.code),
            topic=failed.topic,
            partition=failed.partition,
            offset=failed.offset,
            code=failed.code,
            message=failed.message,
        )

    def topic_changed(self, changed: told_log.TopicChanged, /) -> None:
        self._logs.write(
            LogEvent.TOPIC_CHANGED,
            code=changed.code,
            message=changed.message,
        )

    def history_gap(self, gap: told_log.HistoryGap, /) -> None:
        self._logs.write(
            LogEvent.HISTORY_GAP,
            kind=gap.partition,
            partition=gap.partition,
            offset=gap.offset,
            records=gap.records,
            reason=gap.reason,
        )

    def history_refused(self, refused: told_log.HistoryRefused, /) -> None:
        self._logs.write(
            LogEvent.HISTORY_REFUSED,
            kind=(refused.place, refused.code),
            name=refused.place,
            code=refused.code,
            message=refused.message,
            do=refused.do,
        )

    def rebalanced(self, rebalanced: told_log.Rebalanced, /) -> None:
        self._logs.write(
            LogEvent.GROUP_REBALANCED,
            group=rebalanced.group,
            change=rebalanced.event,
            partitions=rebalanced.partitions,
            duration_ms=_ms(rebalanced.duration_ms),
        )


def report_to(logs: Logs) -> Callable[[str, str, Exception], None]:
    """For `FanOut`: says which observer raised where, once."""

    def report(observer: str, hook: str, error: Exception) -> None:
        logs.write(LogEvent.OBSERVER_FAILED, observer=observer, hook=hook, raised=error)

    return report


def exceeded_to(logs: Logs) -> Callable[[str], None]:
    """For `PrometheusObserver`: says that the series budget is used up, once."""

    def exceeded(family: str) -> None:
        logs.write(LogEvent.SERIES_FOLDED, family=family)

    return exceeded


def _ms(duration_ms: float | None) -> float | None:
    """Microseconds are enough."""
    return None if duration_ms is None else round(duration_ms, 3)


def _trace_id(traceparent: str | None) -> str | None:
    return None if traceparent is None else trace_id_in(traceparent)


def _span_id(traceparent: str | None) -> str | None:
    """Of the run's anchor."""
    return None if traceparent is None else span_id_in(traceparent)


def _of_attempt(attempt: told_run.AttemptStarted | told_run.AttemptEnded | told_run.HandlerAbandoned) -> str | None:
    """The span of an attempt's own."""
    return None if attempt.traceparent is None else attempt_span_id(attempt.run, attempt.step, attempt.number)
