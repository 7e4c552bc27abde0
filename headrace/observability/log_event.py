"""The vocabulary of log lines: every event name that Headrace writes, with its usual level and what it says.

Names are `noun.past`, fixed for ever: people search and alert by them. docs/logs.md shows this table; a test holds
the two together.
"""

from __future__ import annotations

import logging
from enum import StrEnum
from typing import Final, NamedTuple


class LogEvent(StrEnum):
    """The `event` field of a line."""

    SERVICE_STARTED = "service.started"
    SERVICE_STOPPING = "service.stopping"
    SERVICE_STOPPED = "service.stopped"
    RUN_STARTED = "run.started"
    RUN_FINISHED = "run.finished"
    RUN_PARKED = "run.parked"
    RUN_HELD = "run.held"
    RUN_RESUMED = "run.resumed"
    ATTEMPT_STARTED = "attempt.started"
    ATTEMPT_SUCCEEDED = "attempt.succeeded"
    ATTEMPT_FAILED = "attempt.failed"
    ATTEMPT_CANCELLED = "attempt.cancelled"
    COMPENSATION_FINISHED = "compensation.finished"
    HANDLER_ABANDONED = "handler.abandoned"
    TIMER_ARMED = "timer.armed"
    TIMER_FIRED = "timer.fired"
    APPROVAL_REQUESTED = "approval.requested"
    APPROVAL_DECIDED = "approval.decided"
    SCHEDULE_FIRED = "schedule.fired"
    SCHEDULE_MISSED = "schedule.missed"
    SCHEDULE_PAUSED = "schedule.paused"
    SCHEDULE_RESUMED = "schedule.resumed"
    EVENT_UNMATCHED = "event.unmatched"
    EVENT_DUPLICATED = "event.duplicated"
    EVENT_EXPIRED = "event.expired"
    EVENT_DEAD_LETTERED = "event.dead_lettered"
    EVENT_REDRIVEN = "event.redriven"
    OUTPUT_SENT = "output.sent"
    OUTPUT_RESENT = "output.resent"
    OUTPUT_REFUSED = "output.refused"
    PARTITION_TAKEN = "partition.taken"
    PARTITION_RELEASED = "partition.released"
    PARTITION_LOST = "partition.lost"
    PARTITION_STOPPED = "partition.stopped"
    OUTCOME_SKIPPED = "outcome.skipped"
    CHECKPOINT_WRITTEN = "checkpoint.written"
    CHECKPOINT_FAILED = "checkpoint.failed"
    TRIM_FAILED = "trim.failed"
    TOPIC_CHANGED = "topic.changed"
    HISTORY_GAP = "history.gap"
    HISTORY_REFUSED = "history.refused"
    GROUP_REBALANCED = "group.rebalanced"
    BREAKER_CHANGED = "breaker.changed"
    LOOP_BLOCKED = "loop.blocked"
    LOOP_RESUMED = "loop.resumed"
    LOOP_FENCED = "loop.fenced"
    RESOURCE_SHORT = "resource.short"
    RESOURCE_EASED = "resource.eased"
    OUTAGE_BEGAN = "outage.began"
    OUTAGE_ENDED = "outage.ended"
    OBSERVER_FAILED = "observer.failed"
    SERIES_FOLDED = "series.folded"
    LOG_REPEATED = "log.repeated"
    HTTP_FAILED = "http.failed"
    LEVEL_CHANGED = "level.changed"
    LIBRARY_LOGGED = "library.logged"
    APP_LOGGED = "app.logged"


class Meaning(NamedTuple):
    """Of an event name: its usual level (a number of `logging`) and one sentence."""

    level: int
    says: str


MEANINGS: Final[dict[LogEvent, Meaning]] = {
    LogEvent.SERVICE_STARTED: Meaning(logging.INFO, "The instance works."),
    LogEvent.SERVICE_STOPPING: Meaning(logging.INFO, "A stop began; `grace_ms` is what it may take."),
    LogEvent.SERVICE_STOPPED: Meaning(logging.INFO, "Everything is flushed."),
    LogEvent.RUN_STARTED: Meaning(logging.DEBUG, "A run was admitted."),
    LogEvent.RUN_FINISHED: Meaning(logging.DEBUG, "A run ended; at warning if it failed or timed out."),
    LogEvent.RUN_PARKED: Meaning(logging.ERROR, "A run needs somebody: `expected` by the log, `found` in the code."),
    LogEvent.RUN_HELD: Meaning(logging.WARNING, "An open run waits: the version of its workflow is not loaded here."),
    LogEvent.RUN_RESUMED: Meaning(logging.INFO, "A parked run goes on."),
    LogEvent.ATTEMPT_STARTED: Meaning(logging.DEBUG, "A handler begins."),
    LogEvent.ATTEMPT_SUCCEEDED: Meaning(logging.DEBUG, "A handler gave its result."),
    LogEvent.ATTEMPT_FAILED: Meaning(logging.INFO, "An attempt failed; at warning if there will be no other."),
    LogEvent.ATTEMPT_CANCELLED: Meaning(logging.DEBUG, "The run no longer wants this attempt."),
    LogEvent.COMPENSATION_FINISHED: Meaning(logging.INFO, "An undo is over; at error if it failed."),
    LogEvent.HANDLER_ABANDONED: Meaning(logging.WARNING, "A handler did not end when it had to."),
    LogEvent.TIMER_ARMED: Meaning(logging.DEBUG, "A run sleeps."),
    LogEvent.TIMER_FIRED: Meaning(logging.DEBUG, "A sleep is over."),
    LogEvent.APPROVAL_REQUESTED: Meaning(logging.INFO, "A run waits for somebody's decision."),
    LogEvent.APPROVAL_DECIDED: Meaning(logging.INFO, "An approval is over; `decision` says how, `by` who decided."),
    LogEvent.SCHEDULE_FIRED: Meaning(logging.DEBUG, "A schedule started the run of a slot."),
    LogEvent.SCHEDULE_MISSED: Meaning(
        logging.WARNING, "Slots of a schedule start nothing; at info if that is because a run of it is open."
    ),
    LogEvent.SCHEDULE_PAUSED: Meaning(logging.INFO, "Somebody paused a schedule."),
    LogEvent.SCHEDULE_RESUMED: Meaning(logging.INFO, "A paused schedule goes on."),
    LogEvent.EVENT_UNMATCHED: Meaning(logging.DEBUG, "No trigger wanted a source record."),
    LogEvent.EVENT_DUPLICATED: Meaning(logging.DEBUG, "A source record had made its commands before."),
    LogEvent.EVENT_EXPIRED: Meaning(logging.INFO, "A buffered event waited too long for a run."),
    LogEvent.EVENT_DEAD_LETTERED: Meaning(logging.WARNING, "A record went to the dead letters; `code` says why."),
    LogEvent.EVENT_REDRIVEN: Meaning(
        logging.INFO, "A redriven dead letter was taken up; `result` says what came of it."
    ),
    LogEvent.OUTPUT_SENT: Meaning(logging.DEBUG, "An emitted event was acknowledged."),
    LogEvent.OUTPUT_RESENT: Meaning(logging.INFO, "Outputs are sent again; readers dedupe by id."),
    LogEvent.OUTPUT_REFUSED: Meaning(logging.ERROR, "A topic will never take this output."),
    LogEvent.PARTITION_TAKEN: Meaning(logging.INFO, "This instance owns a run-log partition now."),
    LogEvent.PARTITION_RELEASED: Meaning(logging.INFO, "A run-log partition was given away in good order."),
    LogEvent.PARTITION_LOST: Meaning(
        logging.WARNING,
        "A run-log partition was taken away or given up; at error if the log lost acknowledged records (`truncated`).",
    ),
    LogEvent.PARTITION_STOPPED: Meaning(logging.ERROR, "A partition stands still until somebody acts."),
    LogEvent.OUTCOME_SKIPPED: Meaning(logging.INFO, "The accept rule skipped outcomes; harmless."),
    LogEvent.CHECKPOINT_WRITTEN: Meaning(logging.DEBUG, "A checkpoint is complete."),
    LogEvent.CHECKPOINT_FAILED: Meaning(
        logging.ERROR, "A checkpoint was given up; work goes on, and the run log grows until one succeeds."
    ),
    LogEvent.TRIM_FAILED: Meaning(logging.WARNING, "The run log could not be trimmed; it grows until the next try."),
    LogEvent.TOPIC_CHANGED: Meaning(
        logging.ERROR, "Somebody changed a topic that must not be changed; `code` says what."
    ),
    LogEvent.HISTORY_GAP: Meaning(
        logging.WARNING, "The history lacks records: the run log was trimmed before they were read, or has lost them."
    ),
    LogEvent.HISTORY_REFUSED: Meaning(
        logging.ERROR, "The history is not fed until somebody acts; `code` says why. Runs go on."
    ),
    LogEvent.GROUP_REBALANCED: Meaning(logging.INFO, "Partitions were placed anew."),
    LogEvent.BREAKER_CHANGED: Meaning(logging.INFO, "A breaker changed its state; at warning if it opened."),
    LogEvent.LOOP_BLOCKED: Meaning(logging.WARNING, "The event loop stands still; `handler` and `where` say in what."),
    LogEvent.LOOP_RESUMED: Meaning(logging.INFO, "The event loop turns again."),
    LogEvent.LOOP_FENCED: Meaning(
        logging.WARNING, "The loop stood still for too long: partitions are announced anew before anything goes on."
    ),
    LogEvent.RESOURCE_SHORT: Meaning(logging.WARNING, "Memory or descriptors: 85 % of a limit are used."),
    LogEvent.RESOURCE_EASED: Meaning(logging.INFO, "Less than 75 % of that limit are used again."),
    LogEvent.OUTAGE_BEGAN: Meaning(logging.WARNING, "Something outside does not answer; Headrace keeps trying."),
    LogEvent.OUTAGE_ENDED: Meaning(logging.INFO, "It answers again."),
    LogEvent.OBSERVER_FAILED: Meaning(logging.ERROR, "An observer raised and is switched off."),
    LogEvent.SERIES_FOLDED: Meaning(logging.WARNING, "The series budget is used up: new label sets are folded."),
    LogEvent.LOG_REPEATED: Meaning(logging.INFO, "Lines like `of` were left out, `repeated` times."),
    LogEvent.HTTP_FAILED: Meaning(
        logging.WARNING,
        "A request of the API could not be answered (a status from 500 on); at error if it is a bug of ours.",
    ),
    LogEvent.LEVEL_CHANGED: Meaning(logging.INFO, "SIGUSR1: lines from `least` on are written now."),
    LogEvent.LIBRARY_LOGGED: Meaning(logging.INFO, "A line of a library, at its own level."),
    LogEvent.APP_LOGGED: Meaning(logging.INFO, "A line of the app's own code, at its own level."),
}
