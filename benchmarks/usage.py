"""CPU and memory of a process and its descendants, from /proc. Only `bench.py` looks; the programs do not know."""

import os
import threading
import time
from pathlib import Path
from typing import Final, NamedTuple, Self

TICKS: Final = os.sysconf("SC_CLK_TCK")
EVERY_S: Final = 0.1  # 100 us a look: a thousandth of a core


class Usage(NamedTuple):
    """`cpu_s`: user and system since the start; `peak_bytes`: the most memory ever resident (VmHWM), summed over processes."""

    at_us: float
    cpu_s: float
    peak_bytes: int


def usage(pid: int) -> Usage:
    """Now. A process that has gone counts nothing."""
    pids = [pid, *_descendants(pid)]
    return Usage(time.time() * 1e6, sum(map(_cpu_s, pids)), sum(map(_peak_bytes, pids)))


class Sampler:
    """Looks at one process every 100 ms while the `with` block lasts. `started_us`: when it began to look."""

    def __init__(self, pid: int) -> None:
        self.started_us = time.time() * 1e6
        self.samples: list[Usage] = []
        self._pid = pid
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    @property
    def peak_bytes(self) -> int:
        return max((sample.peak_bytes for sample in self.samples), default=0)

    def _watch(self) -> None:
        while True:
            now = usage(self._pid)
            if now.cpu_s:
                self.samples.append(now)
            if self._stop.wait(EVERY_S):
                return


def _cpu_s(pid: int) -> float:
    """Fields 14 and 15 of stat: utime and stime, of all threads."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return 0.0
    fields = text.rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def _peak_bytes(pid: int) -> int:
    try:
        text = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0
    for line in text.splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    return 0


def _descendants(pid: int) -> list[int]:
    found: list[int] = []
    try:
        threads = list(Path(f"/proc/{pid}/task").iterdir())
        for thread in threads:
            for child in (thread / "children").read_text().split():
                found += [int(child), *_descendants(int(child))]
    except OSError:
        pass
    return found
