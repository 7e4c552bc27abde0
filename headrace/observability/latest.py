"""`Latest`: the state of the event loop's thread, for readers in other threads.

A scrape asks in its own thread; the snapshot is taken on the loop's. If the loop does not turn in time, the last one
is good enough: a scrape must answer just when something is wrong.
"""

from __future__ import annotations

import asyncio
import threading
import time
from concurrent.futures import Future
from typing import Final

from headrace.observability.snapshot import EMPTY, Snapshot, Snapshots

WAIT_S: Final = 1.0
"""How long a scrape waits for the loop; Prometheus itself gives up after 10 s."""
REUSE_S: Final = 0.25
"""A snapshot this young is given again: many scrapers cost the loop no more than one."""


class Latest:
    """Callable as `Snapshots` from any thread but the loop's own."""

    def __init__(
        self, snapshots: Snapshots, loop: asyncio.AbstractEventLoop, *, wait_s: float = WAIT_S, reuse_s: float = REUSE_S
    ) -> None:
        self._snapshots = snapshots
        self._loop = loop
        self._wait_s = wait_s
        self._reuse_s = reuse_s
        self._taken: Snapshot = EMPTY
        self._taken_at_s = float("-inf")
        self._one = threading.Lock()

    def __call__(self) -> Snapshot:
        """A snapshot not older than `reuse_s`, if the loop turns.

        Else the last one. An error of the source is raised to the reader.
        """
        with self._one:
            if time.monotonic() - self._taken_at_s < self._reuse_s:
                return self._taken
            answer: Future[Snapshot] = Future()
            try:
                self._loop.call_soon_threadsafe(self._take, answer)
            except RuntimeError:  # the loop is closed: we are stopping
                return self._taken
            try:
                self._taken = answer.result(self._wait_s)
                self._taken_at_s = time.monotonic()
            except TimeoutError:
                answer.cancel()
            return self._taken

    def _take(self, answer: Future[Snapshot]) -> None:
        if not answer.set_running_or_notify_cancel():
            return
        try:
            answer.set_result(self._snapshots())
        except Exception as error:  # noqa: BLE001 - belongs to the reader, not to the loop
            answer.set_exception(error)
