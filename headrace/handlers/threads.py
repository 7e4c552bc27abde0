"""The threads that synchronous handlers run in.

Not anyio's: a thread that outlives its attempt must stay counted in the limit, and must not keep the process from
ending, so these are daemons. One lock; jobs start in order. Called by the guard, on the event loop's thread.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import threading
from collections import deque
from enum import Enum, auto
from typing import TYPE_CHECKING, Any

import msgspec

if TYPE_CHECKING:
    from collections.abc import Callable


class _State(Enum):
    """QUEUED -> RUNNING -> DONE, QUEUED -> SKIPPED, RUNNING -> ABANDONED -> DONE."""

    QUEUED = auto()
    RUNNING = auto()
    ABANDONED = auto()
    SKIPPED = auto()
    DONE = auto()


class ThreadStatistics(msgspec.Struct, frozen=True):
    """A moment's counts. `busy` includes `abandoned`."""

    size: int
    busy: int
    waiting: int
    abandoned: int


class ThreadJob:
    """One call in a thread."""

    __slots__ = ("_call", "_context", "_error", "_future", "_loop", "_value", "state")

    def __init__(self, call: Callable[[], Any]) -> None:
        self._call: Callable[[], Any] | None = call
        self._context = contextvars.copy_context()
        self._loop = asyncio.get_running_loop()
        self._future: asyncio.Future[None] = self._loop.create_future()
        self._value: Any = None
        self._error: BaseException | None = None
        self.state = _State.QUEUED

    async def result(self) -> Any:
        """What the call returned or raised, SystemExit included. When cancelled, the caller must abandon the job."""
        await self._future
        if isinstance(self._error, StopIteration):  # cannot leave a coroutine as itself
            raise RuntimeError("the function raised StopIteration") from self._error  # noqa: TRY004 - no type is wrong
        if self._error is not None:
            raise self._error
        return self._value

    def run(self) -> None:
        """Call it, in this thread. Never raises."""
        call, self._call = self._call, None
        try:
            if call is not None:
                self._value = self._context.run(call)
        except BaseException as error:  # noqa: BLE001 - user code: SystemExit must not end the thread
            self._error = error

    def settle(self) -> None:
        """Wake who waits for the result; the loop may be gone by now."""
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._wake)

    def _wake(self) -> None:
        if not self._future.done():
            self._future.set_result(None)


class HandlerThreads:
    """At most `size` threads, started when needed."""

    def __init__(self, size: int) -> None:
        self.size = size
        self._changed = threading.Condition()
        self._queue: deque[ThreadJob] = deque()
        self._started = 0
        self._idle = 0
        self._busy = 0
        self._abandoned = 0
        self._skipped = 0
        self._closed = False

    def submit(self, call: Callable[[], Any]) -> ThreadJob:
        """Queue a call, in a copy of the present context. RuntimeError: no thread can be started at all, or closed."""
        job = ThreadJob(call)
        with self._changed:
            if self._closed:
                raise RuntimeError("The threads of synchronous handlers are closed.")
            if self._idle <= len(self._queue) - self._skipped and self._started < self.size:
                self._start_thread()
            self._queue.append(job)
            self._changed.notify()
        return job

    def abandon(self, job: ThreadJob) -> bool:
        """Nobody waits for it any more. True if its function still runs: it stays counted until it ends."""
        with self._changed:
            if job.state is _State.QUEUED:
                job.state = _State.SKIPPED
                self._skipped += 1
            elif job.state is _State.RUNNING:
                job.state = _State.ABANDONED
                self._abandoned += 1
            return job.state is _State.ABANDONED

    def close(self) -> None:
        """Let threads end when their queue is empty. Does not wait: they are daemons."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def statistics(self) -> ThreadStatistics:
        """A frozen snapshot."""
        with self._changed:
            waiting = len(self._queue) - self._skipped
            return ThreadStatistics(size=self.size, busy=self._busy, waiting=waiting, abandoned=self._abandoned)

    def _start_thread(self) -> None:
        thread = threading.Thread(target=self._work, name=f"headrace-handler-{self._started}", daemon=True)
        try:
            thread.start()
        except RuntimeError:  # the system's limit: those that run must do
            if self._started == 0:
                raise
        else:
            self._started += 1

    def _work(self) -> None:
        while (job := self._next()) is not None:
            job.run()
            with self._changed:
                self._busy -= 1
                self._abandoned -= job.state is _State.ABANDONED
                job.state = _State.DONE
            job.settle()

    def _next(self) -> ThreadJob | None:
        with self._changed:
            while True:
                while not self._queue:
                    if self._closed:
                        return None
                    self._idle += 1
                    self._changed.wait()
                    self._idle -= 1
                job = self._queue.popleft()
                if job.state is _State.QUEUED:
                    job.state = _State.RUNNING
                    self._busy += 1
                    return job
                self._skipped -= 1
