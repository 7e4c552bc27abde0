"""What the feeders of one process share."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from collections.abc import Callable

    from headrace.observability.observer import Observer
    from headrace.service.history.database import Database
    from headrace.service.history.feeder import Feeder
    from headrace.service.history.writer import HistoryWriter
    from headrace.service.settings import Settings

BYTES_MAX = 32 << 20
"""Rows in memory, of all partitions of a process: past it no more is read until some are written."""


class Budget(msgspec.Struct):
    """Of memory."""

    used_bytes: int = 0

    @property
    def is_used_up(self) -> bool:
        """Read no more."""
        return self.used_bytes > BYTES_MAX


class FeederShared:
    """`moved` is called when a feeder's position has moved."""

    def __init__(
        self,
        *,
        settings: Settings,
        partitions: int,
        database: Database,
        writer: HistoryWriter,
        observer: Observer,
        moved: Callable[[Feeder], None],
    ) -> None:
        self.settings = settings
        self.partitions = partitions
        self.database = database
        self.writer = writer
        self.observer = observer
        self.moved = moved
        self.turn = asyncio.Lock()  # held while the log is folded up to a position: one partition at a time
        self.budget = Budget()
