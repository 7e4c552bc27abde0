"""The owner of running attempts: one asyncio.Task each, directly around the user's coroutine.

Why not asyncio.TaskGroup: it waits for its tasks, always. A handler that swallows its cancellation would hold the
owner and its shutdown for ever. Here, an attempt whose grace is over is *abandoned*: its end is reported, its task is
moved aside, and nobody waits for it. Otherwise the rules are TaskGroup's: leaving waits, an error in the body
cancels, errors arrive in an ExceptionGroup.

Called by the owner of a run-log partition, on its event loop.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final, Self

from headrace.handlers.guard import abandoned_of
from headrace.handlers.result import AttemptCancelled
from headrace.topics.errors import HeadraceError

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from headrace.handlers.definition import Handler
    from headrace.handlers.guard import Guard
    from headrace.handlers.result import AttemptCall, AttemptEnd

    AnyHandler = Handler[*tuple[Any, ...], Any]
    Ended = Callable[[AttemptCall, AttemptEnd], None]

_abandoned_tasks: Final[set[asyncio.Task[None]]] = set()  # the loop itself holds its tasks weakly


def abandoned_count() -> int:
    """Coroutines of handlers that run on in this process. If any is left at the end, leave by `os._exit`."""
    return len(_abandoned_tasks)


class RunningAttempt:
    """An attempt that has a task. States: running -> (cancelled or timed out: in grace) -> ended or abandoned."""

    __slots__ = (
        "_began",
        "_cancel_asked",
        "_definition",
        "_ended",
        "_grace",
        "_group",
        "_task",
        "_told",
        "abandoned",
        "call",
    )

    def __init__(self, group: AttemptGroup, definition: AnyHandler, call: AttemptCall, ended: Ended) -> None:
        self.call = call
        self.abandoned = False
        self._group = group
        self._definition = definition
        self._ended = ended
        self._cancel_asked = False
        self._grace: asyncio.TimerHandle | None = None
        self._began = group.guard.clock()
        self._told = False
        self._task = group.loop.create_task(self._run())

    def cancel(self) -> None:
        """Ask it to stop. Its end comes within the grace: AttemptCancelled, or what it still returned. Idempotent."""
        if not self._cancel_asked and not self.abandoned:
            self._cancel_asked = True
            self._task.add_done_callback(self._never_began)
            self._task.cancel()
            self._begin_grace()

    async def _run(self) -> None:
        """The task. It tells its own end: a callback of the task would come a turn of the event loop later."""
        guard = self._group.guard
        try:
            end: AttemptEnd = await guard.invoke(
                self._definition, self.call, self._begin_grace, self._present, self._asked
            )
        except asyncio.CancelledError:
            end = AttemptCancelled(self._duration_ms())
        except BaseException as error:  # noqa: BLE001 - not the handler's: ours. It reaches the owner
            self._end_grace()
            if not self.abandoned:
                self._told = True
                self._group.fail(self, error)
            return
        self._end_grace()
        if not self.abandoned:
            self._report(end)

    def _present(self) -> asyncio.Task[None]:
        return self._task

    def _asked(self) -> bool:
        return self._cancel_asked

    def _begin_grace(self) -> None:
        if self._grace is None:
            self._grace = self._group.loop.call_later(self._group.grace_ms / 1000, self._abandon)

    def _abandon(self) -> None:
        if self._task.done():  # its callback is on the way
            return
        self.abandoned = True
        _abandoned_tasks.add(self._task)
        self._task.add_done_callback(_abandoned_tasks.discard)
        self._task.cancel()  # a last word: a handler in slow clean-up hears that its grace is over
        duration_ms = self._duration_ms()
        guard = self._group.guard
        guard.abandoned(abandoned_of(self._definition, self.call, duration_ms, in_thread=False))
        if self._cancel_asked:
            self._report(AttemptCancelled(duration_ms))
        else:
            self._report(guard.timeout_of(self._definition, self.call, duration_ms))

    def _never_began(self, task: asyncio.Task[None]) -> None:
        """A task that is cancelled before its first step runs nothing of its coroutine."""
        if not self._told and not self.abandoned:
            self._end_grace()
            self._report(AttemptCancelled(self._duration_ms()))

    def _end_grace(self) -> None:
        if self._grace is not None:
            self._grace.cancel()

    def _report(self, end: AttemptEnd) -> None:
        self._told = True
        try:
            self._ended(self.call, end)
        except BaseException as error:  # noqa: BLE001 - it reaches the owner
            self._group.fail(self, error)
        else:
            self._group.remove(self)

    def _duration_ms(self) -> float:
        return (self._group.guard.clock() - self._began) * 1000


class AttemptGroup:
    """`async with` it; `start` attempts inside. `grace_ms` is how long a cancelled or timed-out handler may take to
    end.
    """

    def __init__(self, guard: Guard, *, grace_ms: int) -> None:
        self.guard = guard
        self.grace_ms = grace_ms
        self.loop: asyncio.AbstractEventLoop
        self._owner: asyncio.Task[Any]
        self._running: dict[RunningAttempt, None] = {}  # in the order of their starts
        self._errors: list[BaseException] = []
        self._empty: asyncio.Future[None] | None = None
        self._leaving = False
        self._cancelled = False
        self._owner_cancelled = False

    def __len__(self) -> int:
        """How many run, without the abandoned."""
        return len(self._running)

    async def __aenter__(self) -> Self:
        owner = asyncio.current_task()
        if owner is None:
            raise HeadraceError("Attempts need an asyncio task as their owner.", code="HR9011")
        self._owner = owner
        self.loop = owner.get_loop()
        return self

    def start(self, definition: AnyHandler, call: AttemptCall, ended: Ended) -> RunningAttempt:
        """Start one attempt. `ended` is called once, from the event loop, never from inside `start`; it must not block.

        While the group is being cancelled, the handler is not called and the attempt ends as AttemptCancelled.
        RuntimeError: the group has been left.
        """
        if self._leaving and not self._running:
            raise RuntimeError("This group of attempts has been left.")
        running = RunningAttempt(self, definition, call, ended)
        self._running[running] = None
        if self._cancelled:
            running.cancel()
        return running

    def cancel_all(self) -> None:
        """Ask all to stop; what is started from now on is cancelled before it begins. Leaving then takes the grace at
        most.
        """
        self._cancelled = True
        for running in tuple(self._running):
            running.cancel()

    def remove(self, running: RunningAttempt) -> None:
        """It has ended or was abandoned, and its end is told."""
        self._running.pop(running, None)
        if not self._running and self._empty is not None and not self._empty.done():
            self._empty.set_result(None)

    def fail(self, running: RunningAttempt, error: BaseException) -> None:
        """Something of ours is broken: cancel everything and raise it in the owner."""
        self._errors.append(error)
        self.remove(running)
        self.cancel_all()
        if not self._leaving and not self._owner_cancelled:
            self._owner_cancelled = True
            self._owner.cancel()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._leaving = True
        cancellation = error if isinstance(error, asyncio.CancelledError) else None
        if self._owner_cancelled and self._owner.uncancel() == 0:
            cancellation = None  # it was ours
        if error is not None:
            self.cancel_all()
        cancellation = await self._all_ended() or cancellation
        if cancellation is not None and not self._errors:
            raise cancellation
        if error is not None and not isinstance(error, asyncio.CancelledError):
            self._errors.append(error)
        if self._errors:
            raise BaseExceptionGroup("errors around running attempts", self._errors) from None

    async def _all_ended(self) -> asyncio.CancelledError | None:
        """Wait until none runs; the cancellation that arrived meanwhile, if any."""
        arrived: asyncio.CancelledError | None = None
        while self._running:
            self._empty = self.loop.create_future()
            try:
                await self._empty
            except asyncio.CancelledError as cancellation:
                arrived = cancellation
                self.cancel_all()
        return arrived
