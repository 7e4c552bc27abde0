"""The collector on the embedded log: reads the result topic from the file, as another process on the machine would."""

import argparse
import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path

from benchmarks.collect import collect, options, result_of
from benchmarks.event_loop import run
from benchmarks.figures import Result
from benchmarks.order import PARTITIONS
from headrace.topics.log import LogRecord, TopicPartition
from headrace.topics.log_embedded import EmbeddedLog

LOOK_S = 0.2


class Inbox:
    """Results of all partitions, in order of arrival."""

    def __init__(self, log: EmbeddedLog, topic: str) -> None:
        self._log = log
        self._topic = topic
        self._new: list[Result] = []
        self._wake = asyncio.Event()

    async def read(self, partition: int) -> None:
        """Read one partition until cancelled."""
        async with self._log.read(TopicPartition(self._topic, partition), 0) as batches:
            async for batch in batches:
                received_us = time.time() * 1e6
                self._new += [
                    result_of(record.value, record.timestamp_ms, received_us)
                    for record in batch.records
                    if isinstance(record, LogRecord)
                ]
                self._wake.set()

    async def results(self) -> AsyncIterator[list[Result]]:
        while True:
            try:
                async with asyncio.timeout(LOOK_S):
                    await self._wake.wait()
            except TimeoutError:
                pass
            self._wake.clear()
            new, self._new = self._new, []
            yield new


async def main(arguments: argparse.Namespace) -> None:
    async with EmbeddedLog(Path(arguments.log_path), owner=False) as log, asyncio.TaskGroup() as group:
        inbox = Inbox(log, arguments.topic)
        readers = [group.create_task(inbox.read(partition)) for partition in range(PARTITIONS)]
        await collect(arguments, inbox.results())
        for reader in readers:
            reader.cancel()


if __name__ == "__main__":
    run(main(options(__doc__, "--log-path")))
