"""A process that has nothing to do keeps nothing of what it has read."""

import gc
from typing import Any

from headrace import EventTrigger, Run, workflow
from headrace.topics.log import LogRecord
from tests.service.fault_log import FaultLog
from tests.service.shell import Place, app_of, event, serving, until

EVENTS = 20


@workflow(on=EventTrigger("in"), name="count")
async def count(run: Run, _order: dict[str, Any]) -> None:
    pass


def batches() -> list[Any]:
    """Records that somebody still refers to, by batch. A `Batch` itself is not seen by the collector, its list of records is."""
    gc.collect()
    return [each for each in gc.get_objects() if type(each) is list and each and isinstance(each[0], LogRecord)]


async def test_the_last_batch_of_a_partition_is_not_kept_until_the_next_one(place: Place) -> None:
    """It may have a megabyte, and there are as many as partitions that are read."""
    others = batches()  # of tests before this one
    async with serving(FaultLog(place.log), app_of(count)) as process:
        await place.publish("in", *[event({"n": number}) for number in range(EVENTS)])
        await until(lambda: len(process.observer.finished) == EVENTS)
        await until(lambda: all(any(each is other for other in others) for each in batches()))
