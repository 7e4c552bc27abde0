"""`LogLines`: lines about the run log, its owners, and the history made of it. Part of `log_observer.py`."""

from __future__ import annotations

import logging
from typing import Final

from headrace.observability import told_log
from headrace.observability.label import LossReason
from headrace.observability.lines import Lines, rounded_ms
from headrace.observability.log_event import LogEvent

_LOSS_LEVELS: Final = {
    LossReason.REBALANCE: logging.INFO,
    LossReason.SHUTDOWN: logging.INFO,
    LossReason.TRUNCATED: logging.ERROR,  # acknowledged records are gone
}


class LogLines(Lines):
    """Writes what `told_log.py` tells."""

    def partition_taken(self, taken: told_log.PartitionTaken, /) -> None:
        self._logs.write(
            LogEvent.PARTITION_TAKEN,
            partition=taken.partition,
            token=taken.token,
            reason=taken.reason,
            records=taken.records,
            runs=taken.runs,
            probing=taken.probing or None,
            duration_ms=rounded_ms(taken.duration_ms),
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
            duration_ms=rounded_ms(written.duration_ms),
        )

    def checkpoint_failed(self, failed: told_log.CheckpointFailed, /) -> None:
        self._logs.write(
            LogEvent.CHECKPOINT_FAILED,
            kind=failed.code,
            partition=failed.partition,
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
            duration_ms=rounded_ms(rebalanced.duration_ms),
        )
