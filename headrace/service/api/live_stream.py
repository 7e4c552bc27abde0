"""Live updates (server-sent events): changes of runs, to as many browsers as the settings allow, none of which may hold up anything.

The newest changes are kept, so that a client that comes back with `Last-Event-ID` misses nothing; one that was away for longer is told to `reset`, and lists
anew. A client that does not read is cut: what waits for it is bounded.
"""

from __future__ import annotations

import asyncio
import secrets
from collections import deque
from contextlib import contextmanager
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from collections.abc import Generator

    from headrace.service.api.live_runs import Change
    from headrace.service.run_view.summary import RunSummary

KEPT = 2_000
"""Changes that a client may have missed."""
WAITING = 500
"""Changes that may wait for one client; past it the client is cut."""


class LiveEvent(msgspec.Struct, frozen=True):
    """One event of the stream: its id, its name, its data as JSON text."""

    id: str
    name: str
    data: str


class Client:
    """One open stream. `next` waits; None: it is over."""

    def __init__(self, missed: list[LiveEvent]) -> None:
        self._waiting: deque[LiveEvent] = deque(missed)
        self._wake = asyncio.Event()
        self._closed = False
        self._wake.set()

    def put(self, event: LiveEvent) -> None:
        """Never waits. One that has too many waiting is closed."""
        if len(self._waiting) >= WAITING:
            self.close()
            return
        self._waiting.append(event)
        self._wake.set()

    def close(self) -> None:
        """End it, whatever waits."""
        self._closed = True
        self._wake.set()

    async def next(self) -> LiveEvent | None:
        """The next event, in order."""
        while True:
            if self._closed:
                return None
            if self._waiting:
                return self._waiting.popleft()
            self._wake.clear()
            await self._wake.wait()


class LiveStream:
    """Changes go in, events go out to every client."""

    def __init__(self) -> None:
        self._nonce = secrets.token_hex(4)
        self._number = 0
        self._kept: deque[LiveEvent] = deque(maxlen=KEPT)
        self._clients: set[Client] = set()

    def __len__(self) -> int:
        return len(self._clients)

    def tell(self, change: Change, summary: RunSummary) -> None:
        """A run has changed."""
        self._send(change, msgspec.json.encode(summary).decode())

    def reset(self) -> None:
        """Changes may have been missed: nothing that was sent before is a way back."""
        self._nonce = secrets.token_hex(4)
        self._kept.clear()
        self._send("reset", "{}")

    def anew(self) -> LiveEvent:
        """Tells one client to list anew: from here on it hears of everything."""
        return LiveEvent(self._id(), "reset", "{}")

    def close(self) -> None:
        """End all streams."""
        for client in tuple(self._clients):
            client.close()

    @contextmanager
    def client(self, last_id: str | None) -> Generator[Client]:
        """A stream that goes on behind `last_id`."""
        client = Client(self._missed(last_id))
        self._clients.add(client)
        try:
            yield client
        finally:
            self._clients.discard(client)

    def _missed(self, last_id: str | None) -> list[LiveEvent]:
        if last_id is None:
            return []
        if last_id == self._id():
            return []
        for place, event in enumerate(self._kept):
            if event.id == last_id:
                missed = list(self._kept)[place + 1 :]
                return missed if len(missed) < WAITING else [self.anew()]
        return [self.anew()]

    def _send(self, name: str, data: str) -> None:
        self._number += 1
        event = LiveEvent(self._id(), str(name), data)
        self._kept.append(event)
        for client in tuple(self._clients):
            client.put(event)

    def _id(self) -> str:
        return f"{self._nonce}-{self._number}"
