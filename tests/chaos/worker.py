"""`python -m tests.chaos.worker ARGUMENTS...`: the `headrace` command, with a test's hand on it.

- `CHAOS_POINT`, `CHAOS_HIT`: when it has passed this fault point so often, it leaves a file in `CHAOS_FIRED` and dies by
  SIGKILL, as if the power had gone.
- `CHAOS_CHECKPOINT_BYTES`: checkpoints after so little log. Trims then come some seconds late, so that the judge has
  read what they delete.
- `CHAOS_LEAK_BYTES`: every run that ends leaves so many bytes behind: does a soak see it?

Without a variable it is the plain command.
"""

import os
import signal
import sys
from pathlib import Path

import anyio

from headrace.__main__ import main
from headrace.service import checkpointer
from headrace.service.fault_point import FaultPoint, arm
from headrace.topics.log import TopicPartition
from headrace.topics.log_embedded import EmbeddedLog
from headrace.topics.log_kafka import KafkaLog

_TRIM_LATE_S = 3.0  # the recorder looks every 0.3 s


def die_at(wanted: FaultPoint, hit: int, fired: Path) -> None:
    """Arm the hook."""
    left = hit

    def hook(point: FaultPoint) -> None:
        nonlocal left
        if point is wanted:
            left -= 1
            if not left:
                (fired / f"fired.{os.getpid()}").write_text(point)
                os.kill(os.getpid(), signal.SIGKILL)

    arm(hook)


def leak(size_bytes: int) -> None:
    """Arm a hook that keeps memory for every run that has ended."""
    kept: list[bytes] = []

    def hook(point: FaultPoint) -> None:
        if point is FaultPoint.RUN_CLOSED:
            kept.append(os.urandom(size_bytes))

    arm(hook)


def checkpoint_often(log_bytes: int) -> None:
    """Hostile settings."""
    checkpointer.LOG_BYTES_MIN = log_bytes
    checkpointer.SIZE_FACTOR = 0
    checkpointer.EVERY_S = 0.2
    for log in (KafkaLog, EmbeddedLog):
        _trim_late(log)


def _trim_late(log: type[KafkaLog] | type[EmbeddedLog]) -> None:
    trim = log.trim

    async def late(self: KafkaLog | EmbeddedLog, at: TopicPartition, before: int) -> None:
        await anyio.sleep(_TRIM_LATE_S)
        await trim(self, at, before)  # pyright: ignore[reportArgumentType] - of its own class

    log.trim = late


if __name__ == "__main__":
    asked = os.environ
    if "CHAOS_POINT" in asked:
        die_at(FaultPoint(asked["CHAOS_POINT"]), int(asked.get("CHAOS_HIT", "1")), Path(asked["CHAOS_FIRED"]))
    if "CHAOS_LEAK_BYTES" in asked:
        leak(int(asked["CHAOS_LEAK_BYTES"]))
    if "CHAOS_CHECKPOINT_BYTES" in asked:
        checkpoint_often(int(asked["CHAOS_CHECKPOINT_BYTES"]))
    sys.exit(main())
