"""A process that appends numbered records until it is killed: `KIND ADDRESS TOPIC`.

Batch n has n % 5 + 1 records `n:index:size:filler`. After the acknowledgement it writes the line `n`.
"""

import asyncio
import sys
from pathlib import Path

from headrace.topics.log import Log, NewRecord, TopicPartition
from headrace.topics.log_embedded import EmbeddedLog
from headrace.topics.log_kafka import KafkaClientSettings, KafkaLog


def batch(number: int) -> list[NewRecord]:
    size = number % 5 + 1
    return [NewRecord(f"{number}:{index}:{size}:".encode() + b"x" * (number * 37 % 3000)) for index in range(size)]


async def write(log: Log, topic: str) -> None:
    async with log:
        number = 0
        while True:
            await log.append(TopicPartition(topic, 0), batch(number))
            print(number, flush=True)
            number += 1


def main() -> None:
    kind, address, topic = sys.argv[1:]
    if kind == "embedded":
        log: Log = EmbeddedLog(Path(address), owner=False)
    else:
        log = KafkaLog(KafkaClientSettings(bootstrap_servers=(address,)))
    asyncio.run(write(log, topic))


if __name__ == "__main__":
    main()
