"""`Facade`: what the handlers of routes may use of the service. Made by `server.py`; nothing here is of aiohttp."""

from __future__ import annotations

import asyncio
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

from headrace.service.run_view.summary import RunFilter

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from headrace.observability.forecast import Forecast
    from headrace.observability.snapshot import Snapshot
    from headrace.service.api.live_runs import LiveRuns
    from headrace.service.api.live_stream import LiveStream
    from headrace.service.run_view.queries import RunCounts, RunQueries
    from headrace.service.settings import Settings
    from headrace.service.shared import Shared

WAITING_MAX = 256
"""Requests that wait for a run at once. Past it nobody waits: a preference for it is not honoured."""
_COUNTED_FOR_S = 2.0  # several people look at the same overview


class Facade:
    """`stopping` is done once the service has been asked to stop: who waits for something answers then."""

    def __init__(
        self,
        shared: Shared,
        queries: RunQueries,
        live: LiveRuns,
        stream: LiveStream,
        *,
        snapshot: Callable[[], Snapshot],
        forecast: Callable[[], Forecast | None],
    ) -> None:
        self.shared = shared
        self.queries = queries
        self.live = live
        self.stream = stream
        self.snapshot = snapshot
        self.forecast = forecast
        self.stopping: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._counts: tuple[float, RunCounts] | None = None
        self._counting = asyncio.Lock()
        self._waiting = 0
        self.listing = asyncio.Lock()
        self.listed: tuple[RunCounts, bytes] | None = None
        """The list of workflows as it was sent last, with its counts."""
        self.scanning = asyncio.Lock()
        """Held by who reads the whole run log for an answer: two at once would need twice its memory."""

    @contextmanager
    def waiting(self) -> Generator[bool]:
        """Wait for something, in the block: whether there is room for one more who does."""
        room = self._waiting < WAITING_MAX
        self._waiting += room
        try:
            yield room
        finally:
            self._waiting -= room

    def stop(self) -> None:
        """Let go of everybody who waits."""
        if not self.stopping.done():
            self.stopping.set_result(None)
        self.stream.close()

    @property
    def settings(self) -> Settings:
        """Of this process."""
        return self.shared.settings

    @property
    def default_topic(self) -> str:
        """Where events go that no trigger claims."""
        return f"{self.settings.app.name}.events"

    async def counts(self) -> RunCounts:
        """All runs by workflow and status, at most some seconds old."""
        async with self._counting:
            now_s = time.monotonic()
            if self._counts is None or now_s - self._counts[0] > _COUNTED_FOR_S:
                self._counts = (now_s, await self.queries.counts(RunFilter()))
            return self._counts[1]
