"""The closed words that the shell tells the observer: each may be a metric label, none ever carries a user's value.

A word is added, never renamed: dashboards and alert rules hold these texts.
"""

from __future__ import annotations

from enum import StrEnum


class DiscardReason(StrEnum):
    """Why a source record made no command."""

    UNMATCHED = "unmatched"
    DUPLICATE = "duplicate"
    EXPIRED = "expired"


class Stage(StrEnum):
    """Where a record became a dead letter."""

    DECODE = "decode"
    MATCH = "match"
    START = "start"
    EMIT = "emit"


class TriggerKind(StrEnum):
    """What started a run."""

    EVENT = "event"
    HTTP = "http"
    SCHEDULE = "schedule"
    MANUAL = "manual"
    CHILD = "child"
    REDRIVE = "redrive"


class Ending(StrEnum):
    """How an attempt ended. `rejected`: a policy (an open breaker with `on_open="fail"`) did not let it begin."""

    SUCCEEDED = "succeeded"
    FAILED = "failed"
    TIMED_OUT = "timed_out"
    CANCELLED = "cancelled"
    REJECTED = "rejected"


class AbandonReason(StrEnum):
    """Why a handler still runs although nobody waits for it."""

    SWALLOWED_CANCELLATION = "swallowed_cancellation"
    THREAD = "thread"


class TakeReason(StrEnum):
    """Why this instance took a run-log partition."""

    START = "start"
    REBALANCE = "rebalance"
    HANDOVER = "handover"
    TAKEOVER = "takeover"
    RETAKEN = "retaken"  # own outcome was skipped, or an append failed: announced anew


class LossReason(StrEnum):
    """Why this instance no longer owns a run-log partition."""

    NEWER_ANNOUNCE = "newer_announce"
    REBALANCE = "rebalance"
    SHUTDOWN = "shutdown"
    APPEND_FAILED = "append_failed"
    STALLED = "stalled"  # our loop stood still: announced anew before anything else
    TRUNCATED = "truncated"  # the log ends before what was read: the state is folded anew


class StopReason(StrEnum):
    """Why a partition (run log or source) stands still until somebody acts."""

    UNKNOWN_RECORD = "unknown_record"
    OUT_OF_RANGE = "out_of_range"
    LOG_GAP = "log_gap"
    LOG_REPLACED = "log_replaced"
    PARTITIONS_CHANGED = "partitions_changed"
    TOPIC_REMADE = "topic_remade"
    TOPIC_MISSING = "topic_missing"
    REFUSED = "refused"
    BUG = "bug"


class SkipReason(StrEnum):
    """Why the accept rule skipped a record of the run log."""

    STALE_TOKEN = "stale_token"  # noqa: S105 - a fencing token
    SEQUENCE_GAP = "sequence_gap"
    DUPLICATE = "duplicate"


class LogKind(StrEnum):
    """What was appended to the run log."""

    COMMAND = "command"
    OUTCOME = "outcome"
    CHECKPOINT = "checkpoint"
    OWNERSHIP = "ownership"


class ProduceResult(StrEnum):
    """How an append or publish ended."""

    ACKNOWLEDGED = "acknowledged"
    FAILED = "failed"
    REFUSED = "refused"


class BreakerState(StrEnum):
    """resilience4j's states."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"


class BreakerResult(StrEnum):
    """What a breaker saw of a call. `slow` calls succeeded; `held` counts each task that had to wait."""

    SUCCEEDED = "succeeded"
    FAILED = "failed"
    SLOW = "slow"
    IGNORED = "ignored"
    HELD = "held"
    REJECTED = "rejected"


class MissReason(StrEnum):
    """Why a slot of a schedule started no run."""

    MISFIRE = "misfire"  # nobody was there when it was due, and the rule leaves it out
    OVERLAP = "overlap"  # a run of the schedule was open, as its rule says


class GroupEvent(StrEnum):
    """What changed in the membership group, as seen here."""

    ASSIGNED = "assigned"
    REVOKED = "revoked"
    LOST = "lost"


class Dependency(StrEnum):
    """What an outage is of."""

    BROKER = "broker"
    TOPIC = "topic"
    HISTORY = "history"


class SpanResult(StrEnum):
    """What became of spans. Those made and neither exported nor failed wait, or did not fit into the queue."""

    MADE = "made"
    EXPORTED = "exported"
    FAILED = "failed"


class PortError(StrEnum):
    """Why a request of the metrics port got no whole and good answer."""

    CROWDED = "crowded"  # ended to make room for a newer connection
    TIMED_OUT = "timed_out"  # ended because it was too old: the peer neither wrote nor read
    GONE = "gone"  # the peer went away before it had all
    FAILED = "failed"  # ours: what was asked for could not be made


class RedriveResult(StrEnum):
    """What came of a redriven dead letter when it was taken up."""

    STARTED = "started"  # its starts are in the run log
    DUPLICATE = "duplicate"  # one of these was dropped: a copy had made it before
    UNMATCHED = "unmatched"  # no trigger wants it
    DEAD_LETTERED = "dead_lettered"  # again


class Resource(StrEnum):
    """What a process has a limit of."""

    MEMORY = "memory"  # resident bytes, or those of a control group
    DESCRIPTORS = "descriptors"  # open files and sockets
