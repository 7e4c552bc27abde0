"""`RunLines`: lines about runs, their steps, and the schedules that start them. Part of `log_observer.py`."""

from __future__ import annotations

import logging
from typing import Final

from headrace.observability import told_run
from headrace.observability.label import Ending, MissReason
from headrace.observability.lines import Lines, of_attempt, of_run, rounded_ms
from headrace.observability.log_event import LogEvent
from headrace.topics.event import format_time
from headrace.topics.outcome import RunStatus

_RUN_LEVELS: Final = {
    RunStatus.SUCCEEDED: logging.DEBUG,
    RunStatus.CANCELLED: logging.INFO,
    RunStatus.COMPENSATED: logging.INFO,
    RunStatus.FAILED: logging.WARNING,
    RunStatus.TIMED_OUT: logging.WARNING,
}


class RunLines(Lines):
    """Writes what `told_run.py` tells."""

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
                **of_run(started.traceparent),
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
                duration_ms=rounded_ms(finished.duration_ms),
                retries=finished.retries or None,
                error=finished.error,
                message=finished.message,
                task=finished.failed_step,
                **of_run(finished.traceparent),
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
            **of_run(parked.traceparent),
        )

    def run_held(self, held: told_run.RunHeld, /) -> None:
        self._logs.write(
            LogEvent.RUN_HELD,
            kind=(held.workflow, held.version),
            run_id=held.run,
            workflow=held.workflow,
            version=held.version,
            **of_run(held.traceparent),
        )

    def run_resumed(self, resumed: told_run.RunResumed, /) -> None:
        self._logs.write(
            LogEvent.RUN_RESUMED,
            kind=resumed.workflow,
            run_id=resumed.run,
            workflow=resumed.workflow,
            **of_run(resumed.traceparent),
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
                **of_attempt(started),
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
                duration_ms=rounded_ms(ended.duration_ms),
                retry_after_ms=ended.retry_after_ms,
                **of_attempt(ended),
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
            **of_run(ended.traceparent),
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
            waited_ms=rounded_ms(abandoned.waited_ms),
            **of_attempt(abandoned),
        )

    def timer_armed(self, armed: told_run.TimerArmed, /) -> None:
        if self._logs.enabled(logging.DEBUG):
            self._logs.write(
                LogEvent.TIMER_ARMED,
                run_id=armed.run,
                workflow=armed.workflow,
                task=armed.step,
                due_at_ms=armed.due_at_ms,
                **of_run(armed.traceparent),
            )

    def schedule_fired(self, fired: told_run.ScheduleFired, /) -> None:
        if self._logs.enabled(logging.DEBUG):
            self._logs.write(
                LogEvent.SCHEDULE_FIRED,
                schedule=fired.schedule,
                workflow=fired.workflow,
                run_id=fired.run,
                scheduled_at=format_time(fired.slot_ms),
                late_ms=rounded_ms(fired.late_ms),
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
                late_ms=rounded_ms(fired.late_ms),
                **of_run(fired.traceparent),
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
            **of_run(requested.traceparent),
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
            **of_run(decided.traceparent),
        )
