"""Why a partition stands still: the label for an error, and how a bug of ours is said."""

from __future__ import annotations

import traceback

from headrace.observability.label import StopReason
from headrace.service.recovery import LogGap
from headrace.service.run_log_check import LogReplaced, PartitionsChanged
from headrace.topics.errors import Fatal, HeadraceError
from headrace.topics.log import OffsetOutOfRange, TopicForbidden, TopicMissing


def reason_of(error: HeadraceError) -> StopReason:
    """The metric label."""
    match error:
        case OffsetOutOfRange():
            return StopReason.OUT_OF_RANGE
        case TopicMissing():
            return StopReason.TOPIC_MISSING
        case TopicForbidden():
            return StopReason.REFUSED
        case HeadraceError(code="HR9002"):
            return StopReason.BUG
        case LogGap():
            return StopReason.LOG_GAP
        case LogReplaced():
            return StopReason.LOG_REPLACED
        case PartitionsChanged():
            return StopReason.PARTITIONS_CHANGED
        case _:
            return StopReason.UNKNOWN_RECORD


def bug(error: Exception, code: str = "HR9002") -> Fatal:
    """An error that nobody expected, with the place where it was raised. The code is that of a stopped partition."""
    frame = traceback.extract_tb(error.__traceback__)[-1]
    return Fatal(
        f"{type(error).__name__} at {frame.filename}:{frame.lineno}: {error}",
        code=code,
        why="This is a bug in Headrace.",
        do="Report it, with the record at the offset that is named. The other partitions go on; a restart tries this one again.",
    )
