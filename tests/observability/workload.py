"""One call of each hook, as the shell would make it."""

from __future__ import annotations

from typing import Any

from headrace.observability import label, told_event, told_log, told_process, told_run
from headrace.observability.observer import Observer
from headrace.topics.approval import ApprovalEnding
from headrace.topics.errors import Cause
from headrace.topics.outcome import ParkReason, RunStatus

RUN = "3.00112233445566778899"
ANCHOR = "00-" + "a1" * 16 + "-" + "b2" * 8 + "-01"

ONE_OF_EACH: dict[str, Any] = {
    "events_consumed": told_event.EventsConsumed(
        topic="orders", partition=0, sizes_bytes=[100, 2000], delays_ms=[4.0, 70.0]
    ),
    "events_matched": told_event.EventsMatched(topic="orders", records=2, duration_ms=0.04, contexts_refused=1),
    "event_discarded": told_event.EventDiscarded(
        topic="orders", partition=0, offset=4, reason=label.DiscardReason.UNMATCHED
    ),
    "event_dead_lettered": told_event.EventDeadLettered(
        topic="orders", partition=0, offset=5, stage=label.Stage.DECODE, code="HR3001", message="no JSON"
    ),
    "record_redriven": told_event.RecordRedriven(
        topic="orders",
        partition=0,
        offset=20,
        letter="orders.dlq/0/3",
        count=1,
        result=label.RedriveResult.STARTED,
    ),
    "run_started": told_run.RunStarted(
        run=RUN,
        workflow="fulfil",
        version="1",
        trigger=label.TriggerKind.EVENT,
        started_at_ms=1_700_000_000_000,
        key="order-1",
        topic="orders",
        partition=0,
        offset=6,
        event_id="e-6",
        start_delay_ms=3.0,
        traceparent=ANCHOR,
    ),
    "run_finished": told_run.RunFinished(
        run=RUN,
        workflow="fulfil",
        status=RunStatus.FAILED,
        started_at_ms=1_700_000_000_000,
        duration_ms=84.0,
        key="order-1",
        retries=2,
        error="TaskFailed",
        message="charge failed",
        failed_step="/3/charge",
        traceparent=ANCHOR,
    ),
    "run_parked": told_run.RunParked(
        run=RUN,
        workflow="fulfil",
        reason=ParkReason.NONDETERMINISTIC,
        step="/1/charge",
        expected="/1/charge",
        found="/1/pay",
    ),
    "run_held": told_run.RunHeld(run=RUN, workflow="fulfil", version="2"),
    "run_resumed": told_run.RunResumed(run=RUN, workflow="fulfil"),
    "attempt_started": told_run.AttemptStarted(
        run=RUN, workflow="fulfil", step="/1/charge", handler="charge", number=1
    ),
    "attempt_ended": told_run.AttemptEnded(
        run=RUN,
        workflow="fulfil",
        step="/1/charge",
        handler="charge",
        number=2,
        ending=label.Ending.FAILED,
        started_at_ms=1_700_000_000_010,
        duration_ms=7.0,
        start_delay_ms=0.2,
        cause=Cause.RAISED,
        error="ConnectionError",
        message="refused",
        retry_after_ms=120,
        traceparent=ANCHOR,
    ),
    "compensation_ended": told_run.CompensationEnded(
        run=RUN, workflow="fulfil", step="/undo/1/release", handler="release", ending=label.Ending.FAILED
    ),
    "handler_abandoned": told_run.HandlerAbandoned(
        run=RUN,
        workflow="fulfil",
        step="/1/charge",
        handler="charge",
        number=1,
        reason=label.AbandonReason.THREAD,
        waited_ms=2000.0,
    ),
    "timer_armed": told_run.TimerArmed(run=RUN, workflow="fulfil", step="/2", due_at_ms=1_700_000_001_000),
    "timer_fired": told_run.TimerFired(
        run=RUN,
        workflow="fulfil",
        step="/2",
        armed_at_ms=1_700_000_000_500,
        due_at_ms=1_700_000_001_000,
        late_ms=3.0,
        traceparent=ANCHOR,
    ),
    "approval_requested": told_run.ApprovalRequested(
        run=RUN,
        workflow="fulfil",
        step="/3/approval",
        approval=f"{RUN}-3-approval",
        roles=("finance",),
        due_at_ms=1_700_000_090_000,
        traceparent=ANCHOR,
    ),
    "approval_decided": told_run.ApprovalDecided(
        run=RUN,
        workflow="fulfil",
        step="/3/approval",
        approval=f"{RUN}-3-approval",
        ending=ApprovalEnding.APPROVED,
        by="ann",
        requested_at_ms=1_700_000_000_600,
        decided_at_ms=1_700_000_040_000,
        traceparent=ANCHOR,
    ),
    "schedule_fired": told_run.ScheduleFired(
        schedule="report-0123456789", workflow="report", run=RUN, slot_ms=1_700_000_000_000, late_ms=2.0
    ),
    "schedule_missed": told_run.ScheduleMissed(
        schedule="report-0123456789",
        workflow="report",
        slots=3,
        until_ms=1_700_000_000_000,
        reason=label.MissReason.MISFIRE,
    ),
    "schedule_paused": told_run.SchedulePaused(schedule="report-0123456789", workflow="report"),
    "schedule_resumed": told_run.ScheduleResumed(schedule="report-0123456789", workflow="report"),
    "output_sent": told_event.OutputSent(
        run=RUN,
        workflow="fulfil",
        topic="orders.fulfilled",
        partition=1,
        offset=9,
        result_delay_ms=90.0,
        traceparent=ANCHOR,
    ),
    "output_resent": told_event.OutputResent(topic="orders.fulfilled"),
    "output_refused": told_event.OutputRefused(run=RUN, workflow="fulfil", topic="orders.fulfilled", code="HR5003"),
    "partition_taken": told_log.PartitionTaken(
        partition=3, token=17, reason=label.TakeReason.START, records=120, duration_ms=12.0, runs=4
    ),
    "partition_released": told_log.PartitionReleased(partition=3, token=17, reason=label.LossReason.SHUTDOWN),
    "partition_lost": told_log.PartitionLost(
        partition=3, token=17, reason=label.LossReason.NEWER_ANNOUNCE, newer_token=30
    ),
    "partition_stopped": told_log.PartitionStopped(
        topic="shop.runs", partition=3, reason=label.StopReason.UNKNOWN_RECORD, code="HR5101", message="newer", offset=8
    ),
    "outcome_skipped": told_log.OutcomeSkipped(partition=3, offset=31, token=17, reason=label.SkipReason.STALE_TOKEN),
    "appended": told_log.Appended(partition=3, records=20, duration_ms=0.8),
    "read_back": told_log.ReadBack(partition=3, records=20, duration_ms=0.9),
    "produced": told_log.Produced(
        topic="shop.runs", records=20, duration_ms=0.8, result=label.ProduceResult.ACKNOWLEDGED
    ),
    "checkpoint_written": told_log.CheckpointWritten(partition=3, as_of=90, size_bytes=70_000, duration_ms=5.0),
    "checkpoint_failed": told_log.CheckpointFailed(
        partition=3, code="HR9002", message="KeyError at checkpoint.py:7: 'x'"
    ),
    "http_answered": told_process.HttpAnswered(method="GET", route="/api/v1/runs/{run}", code=200, duration_ms=4.0),
    "http_failed": told_process.HttpFailed(
        method="POST", route="/api/v1/events", status=503, code="HR5002", message="no broker answers"
    ),
    "trim_failed": told_log.TrimFailed(topic="shop.runs", partition=3, offset=91, code="HR5003", message="not allowed"),
    "log_folded": told_log.LogFolded(
        partition=3, sizes_bytes={label.LogKind.OUTCOME: 4000, label.LogKind.COMMAND: 300}
    ),
    "topic_changed": told_log.TopicChanged(code="HR1202", message="shop.runs has retention.ms=1"),
    "history_gap": told_log.HistoryGap(partition=3, offset=40, records=200, reason="trimmed"),
    "history_refused": told_log.HistoryRefused(
        place="shop.runs/3", code="HR5204", message="another log", do="set another url"
    ),
    "rebalanced": told_log.Rebalanced(
        group="shop.members", event=label.GroupEvent.ASSIGNED, partitions=64, duration_ms=300.0
    ),
    "breaker_changed": told_process.BreakerChanged(
        breaker="inventory", before=label.BreakerState.CLOSED, after=label.BreakerState.OPEN, reason="60 % of 100"
    ),
    "breaker_called": told_process.BreakerCalled(breaker="inventory", result=label.BreakerResult.FAILED),
    "rate_limit_passed": told_process.RateLimitPassed(limiter="sms", wait_ms=120.0),
    "loop_delayed": told_process.LoopDelayed(delay_ms=0.4),
    "loop_blocked": told_process.LoopBlocked(blocked_ms=260.0, handler="charge", where="app.py:7 in charge"),
    "loop_fenced": told_process.LoopFenced(stalled_ms=6000.0, partitions=8),
    "resource_measured": told_process.ResourceMeasured(
        resource=label.Resource.MEMORY, used=900, limit=1000, short=True, changed=True
    ),
    "outage_began": told_process.OutageBegan(
        dependency=label.Dependency.BROKER, message="refused", retry_after_ms=500.0
    ),
    "outage_ended": told_process.OutageEnded(dependency=label.Dependency.BROKER, duration_ms=30_000.0),
    "service_started": told_process.ServiceStarted(
        app="shop", instance="i-1", version="0.1.0", backend="kafka", workflows=1, handlers=4
    ),
    "service_stopping": told_process.ServiceStopping(reason="SIGTERM", grace_ms=30_000.0),
    "service_stopped": told_process.ServiceStopped(duration_ms=120.0),
}


def tell_all(observer: Observer) -> None:
    """Each hook once."""
    for hook, told in ONE_OF_EACH.items():
        getattr(observer, hook)(told)
