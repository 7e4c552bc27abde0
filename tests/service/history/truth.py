"""What a history must say: the same as the run log itself, run by run, field by field."""

from collections.abc import Mapping
from typing import Any

import msgspec

from headrace.service.run_view.history_entry import runs_of
from headrace.service.run_view.queries import RunQueries
from headrace.service.run_view.run_history import RunHistory
from headrace.service.run_view.scan import Reading
from headrace.service.run_view.summary import RunFilter, Summaries
from headrace.service.settings import Settings
from headrace.topics.log import Batch, LogRecord, TopicPartition

ALL = RunFilter()


class Truth:
    """What records say, folded from the first one on, by the code that reads the run log for people."""

    def __init__(self) -> None:
        self.summaries = Summaries(ALL)
        self.runs: dict[str, RunHistory] = {}

    def fold(self, records: list[LogRecord], at: TopicPartition, partitions: int) -> None:
        reading = Reading(at, Settings(), partitions=partitions)
        for seen in reading.folded(Batch(at, records, 0)):
            self.summaries.see(seen)
            for run in runs_of(seen):
                if run in reading.state.runs:
                    self.runs.setdefault(run, RunHistory(run))
                if run in self.runs:
                    self.runs[run].see(seen)
        self.summaries.end(reading.state)
        for run in self.runs.values():
            if run.run.startswith(f"{at.partition}."):
                run.end(reading.state)


async def agrees(queries: RunQueries, records: Mapping[int, list[LogRecord]], topic: str = "shop.runs") -> int:
    """Hold the history against the log: all runs, all their fields, all their records. The number of runs.

    `records`: all that ever were, by partition.
    """
    truth = Truth()
    for partition, found in records.items():
        truth.fold(found, TopicPartition(topic, partition), len(records))
    expected = truth.summaries.newest_first()
    page = await queries.runs(ALL)
    assert [plain(run) for run in page.runs] == [plain(run) for run in expected]
    for run in truth.runs.values():
        assert plain(await queries.run(run.run)) == plain(run.detail)
        history = await queries.history(run.run)
        assert history is not None
        assert plain(history.entries) == plain(run.entries)
    counts = {
        (each.namespace, each.workflow, each.version, each.status): each.runs
        for each in (await queries.counts(ALL)).counts
    }
    assert counts == truth.summaries.counts
    return len(expected)


def plain(value: Any) -> Any:
    """Values with raw JSON in them, to be compared."""
    return msgspec.json.decode(msgspec.json.encode(value))
