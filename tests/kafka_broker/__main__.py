"""`python -m tests.kafka_broker [--port 9092] [--data DIR]`: one broker in the foreground, until Ctrl-C."""

import argparse
import asyncio
import signal
import sys
from pathlib import Path

from tests.kafka_broker.broker import BrokerFailed, KafkaBroker
from tests.kafka_broker.jars import KafkaUnavailable


async def run(port: int, data: Path | None) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    async with KafkaBroker(port=port, data=data, steady=True) as broker:
        print(f"Kafka is ready: {broker.bootstrap_servers} (pid {broker.pid}); Ctrl-C stops it", flush=True)
        await stop.wait()


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.kafka_broker", description=__doc__)
    parser.add_argument(
        "--port", type=int, default=9092, help="of the Kafka listener on 127.0.0.1 (default: 9092; 0: a free one)"
    )
    parser.add_argument("--data", type=Path, help="folder to keep the data in (default: a temporary one)")
    arguments = parser.parse_args()
    try:
        asyncio.run(run(arguments.port, arguments.data))
    except (BrokerFailed, KafkaUnavailable) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
