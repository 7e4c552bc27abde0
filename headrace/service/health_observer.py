"""Tells health what people should know although the instance is ready: topics that are missing, partitions that stand still."""

from __future__ import annotations

from typing import TYPE_CHECKING

from headrace.observability.label import Dependency, Resource
from headrace.observability.silent import Silent
from headrace.topics.log import TopicPartition

if TYPE_CHECKING:
    from headrace.observability.health import Health
    from headrace.observability.told_log import HistoryRefused, PartitionStopped
    from headrace.observability.told_process import OutageBegan, OutageEnded, ResourceMeasured

STOPPED = "partition "
"""Begins the notes of partitions that stand still; `service.py` takes them back once they do not."""
UNFED = "history of "
"""Begins the notes of what the history cannot be fed with; taken back in the same way."""
_UNITS = {Resource.MEMORY: "bytes", Resource.DESCRIPTORS: "descriptors"}


class HealthObserver(Silent):
    """Notes make health `degraded`. The broker itself is a condition, which `service.py` keeps."""

    def __init__(self, health: Health) -> None:
        self._health = health

    def outage_began(self, began: OutageBegan, /) -> None:
        if began.dependency is Dependency.TOPIC:
            self._health.note(f"topic {began.name}", began.message or "does not answer")
        elif began.dependency is Dependency.HISTORY:
            self._health.note("history", began.message or "does not answer")

    def outage_ended(self, ended: OutageEnded, /) -> None:
        if ended.dependency is Dependency.TOPIC:
            self._health.note(f"topic {ended.name}", "")
        elif ended.dependency is Dependency.HISTORY:
            self._health.note("history", "")

    def history_refused(self, refused: HistoryRefused, /) -> None:
        self._health.note(f"{UNFED}{refused.place}", f"{refused.code} {refused.message}")

    def resource_measured(self, measured: ResourceMeasured, /) -> None:
        if measured.changed:
            used = f"{measured.used} of {measured.limit} {_UNITS[measured.resource]} are used"
            self._health.note(measured.resource, used if measured.short else "")

    def partition_stopped(self, stopped: PartitionStopped, /) -> None:
        at = TopicPartition(stopped.topic, stopped.partition)
        self._health.note(f"{STOPPED}{at}", f"stopped: {stopped.code} {stopped.message}")
