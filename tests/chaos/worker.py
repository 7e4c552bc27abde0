"""`python -m tests.chaos.worker ARGUMENTS...`: the `headrace` command, with a test's hand on it.

- `CHAOS_POINT`, `CHAOS_HIT`: when it has passed this fault point so often, it leaves a file in `CHAOS_FIRED` and dies by
  SIGKILL, as if the power had gone.
- `CHAOS_CHECKPOINT_BYTES`: checkpoints after so little log. Trims then end where `CHAOS_JUDGED` says that the judge has
  read: what it has not seen it could not judge.
- `CHAOS_LEAK_BYTES`: every run that ends leaves so many bytes behind: does a soak see it?
- `CHAOS_MEMORY`: at SIGUSR2 what is in use is written there, without garbage and caches of a fixed size. `COUNTED` belongs to it.

Without a variable it is the plain command.
"""

import ctypes
import gc
import os
import signal
import sys
from functools import cache, lru_cache
from pathlib import Path
from types import FrameType

import msgspec

from headrace.__main__ import main
from headrace.service import checkpointer
from headrace.service.fault_point import FaultPoint, arm
from headrace.topics.log import TopicPartition
from headrace.topics.log_embedded import EmbeddedLog
from headrace.topics.log_kafka import KafkaLog


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


_Cache = type(lru_cache(lambda: None))


class _MallocInfo(ctypes.Structure):
    """glibc's `struct mallinfo2`: what is handed out is in `uordblks`, larger blocks of their own in `hblkhd`."""

    _names = ("arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks", "fsmblks", "uordblks", "fordblks", "keepcost")
    _fields_ = [(name, ctypes.c_size_t) for name in _names]


COUNTED = {"PYTHONMALLOC": "malloc", "GLIBC_TUNABLES": "glibc.malloc.tcache_count=0"}
"""For the environment: every object is a block of glibc's, and one that is freed is in use no more.

Else each thread keeps freed blocks of 64 sizes, some 200 KB, which glibc counts as in use: in a process of 20 threads that looks like a leak for hours.
"""


@cache
def _glibc() -> ctypes.CDLL:
    libc = ctypes.CDLL(None)
    libc.mallinfo2.restype = _MallocInfo
    return libc


def in_use() -> int:
    """Bytes that are allocated, without garbage and caches of a fixed size. Of everything, where `COUNTED` is in the environment."""
    for module in list(sys.modules.values()):
        for found in vars(module).values():
            if isinstance(found, _Cache) and found.cache_parameters()["maxsize"] is not None:
                found.cache_clear()
    gc.collect()
    info = _glibc().mallinfo2()
    return info.uordblks + info.hblkhd


def tell_memory(path: Path) -> None:
    """Arm SIGUSR2."""

    def tell(number: int, frame: FrameType | None) -> None:
        fresh = path.with_suffix(".new")
        fresh.write_text(str(in_use()))
        fresh.replace(path)

    signal.signal(signal.SIGUSR2, tell)


def checkpoint_often(log_bytes: int, judged: Path) -> None:
    """Hostile settings."""
    checkpointer.LOG_BYTES_MIN = log_bytes
    checkpointer.SIZE_FACTOR = 0
    checkpointer.EVERY_S = 0.2
    for log in (KafkaLog, EmbeddedLog):
        _trim_what_was_judged(log, judged)


def _trim_what_was_judged(log: type[KafkaLog] | type[EmbeddedLog], judged: Path) -> None:
    trim = log.trim

    async def less(self: KafkaLog | EmbeddedLog, at: TopicPartition, before: int) -> None:
        read: dict[int, int] = msgspec.json.decode(judged.read_bytes(), type=dict[int, int]) if judged.exists() else {}
        await trim(self, at, min(before, read.get(at.partition, 0)))  # pyright: ignore[reportArgumentType] - of its own class

    log.trim = less


if __name__ == "__main__":
    asked = os.environ
    if "CHAOS_POINT" in asked:
        die_at(FaultPoint(asked["CHAOS_POINT"]), int(asked.get("CHAOS_HIT", "1")), Path(asked["CHAOS_FIRED"]))
    if "CHAOS_LEAK_BYTES" in asked:
        leak(int(asked["CHAOS_LEAK_BYTES"]))
    if "CHAOS_CHECKPOINT_BYTES" in asked:
        checkpoint_often(int(asked["CHAOS_CHECKPOINT_BYTES"]), Path(asked["CHAOS_JUDGED"]))
    if "CHAOS_MEMORY" in asked:
        tell_memory(Path(asked["CHAOS_MEMORY"]))
    sys.exit(main())
