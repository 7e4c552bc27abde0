"""Whose turn it is to write a checkpoint: one partition of a process at a time.

One is due by itself when its log is long (`checkpointer.py`). Many short logs are a long one too: whoever takes over from a process that died folds what all
its partitions have behind their checkpoints. So while these exceed `_TOGETHER` times what makes one due, now and then the partition with the longest has its
turn.
Called by `checkpointer.py`.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from headrace.service.checkpointer import Checkpointer

EVERY_S = 1.0
"""Between two checkpoints that are not due by themselves: one takes some 10 ms, and under full load each partition's own are enough."""
_TOGETHER = 2  # times the log that makes one due: 2 MiB, which a successor folds in some 0.1 s
_SHORT = 8  # a log below this part of what makes one due is not worth a checkpoint


class Checkpoints:
    """`due` and `grown` never wait. `run` is the task that lets them write."""

    def __init__(self) -> None:
        self._due: dict[Checkpointer, None] = {}
        self._wake = asyncio.Event()
        self._working: dict[Checkpointer, None] = {}
        self._may_trim: dict[Checkpointer, None] = {}
        self._not_before = 0.0  # the next look, on the loop's clock
        self._alarm: asyncio.TimerHandle | None = None

    def due(self, checkpointer: Checkpointer) -> None:
        """Its turn will come."""
        self._due[checkpointer] = None
        self._wake.set()

    def grown(self, checkpointer: Checkpointer, least: int) -> None:
        """Its log is longer, and below `least`, what makes it due."""
        self._working[checkpointer] = None
        if asyncio.get_running_loop().time() >= self._not_before:
            self._look(least)

    def may_trim(self, checkpointer: Checkpointer) -> None:
        """What its last trim has waited for may have come."""
        self._may_trim[checkpointer] = None
        self._wake.set()

    def not_due(self, checkpointer: Checkpointer) -> None:
        """It cannot write any more."""
        self._due.pop(checkpointer, None)
        self._may_trim.pop(checkpointer, None)
        self._working.pop(checkpointer, None)

    def _look(self, least: int) -> None:
        """Are all logs together too long? Then again after a while, whether they grow or not."""
        loop = asyncio.get_running_loop()
        self._not_before = loop.time() + EVERY_S
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None
        if sum(each.log_bytes for each in self._working) <= _TOGETHER * least:
            return
        self._alarm = loop.call_later(EVERY_S, self._look, least)
        long = [each for each in self._working if each.log_bytes > least // _SHORT and each not in self._due]
        for each in sorted(long, key=_log_bytes, reverse=True):
            if each.early(least):
                self.due(each)
                return

    async def run(self) -> None:
        """Write, for ever."""
        try:
            while True:
                await self._wake.wait()
                self._wake.clear()
                while self._due or self._may_trim:
                    while self._may_trim:
                        waited = next(iter(self._may_trim))
                        del self._may_trim[waited]
                        await waited.trim_held()
                    if self._due:
                        checkpointer = next(iter(self._due))
                        del self._due[checkpointer]
                        await checkpointer.write()
        finally:
            if self._alarm is not None:
                self._alarm.cancel()


def _log_bytes(checkpointer: Checkpointer) -> int:
    return checkpointer.log_bytes
