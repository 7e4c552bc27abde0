"""An event loop whose clock jumps to the next timer, and whose ready callbacks run in an order that a seed decides.

It knows of *places*: a place is one simulated process. Every callback and task belongs to the place in whose context it was made. The callbacks of a place that
is stopped are put aside until it goes on; those of a dead one are never run again, so that no `finally` and no `except` of it has a say.

There are no sockets, threads and subprocesses here. Nothing left to do while somebody waits is a `Deadlock`.
"""

import asyncio
import heapq
import itertools
from collections import deque
from collections.abc import Callable, Coroutine
from contextvars import Context, ContextVar, copy_context
from enum import Enum, auto
from random import Random
from typing import Any, NoReturn

TURNS_MAX = 1_000_000  # callbacks of one simulation; most need some ten thousand
_COMPACT = 200  # timers: past it, a heap with a cancelled majority is rebuilt


class Deadlock(Exception):
    """Somebody waits, and nothing will ever happen."""


class Livelock(Exception):
    """Everybody is busy, and nothing comes of it."""


class Life(Enum):
    """RUNNING <-> STOPPED (SIGSTOP, SIGCONT); either -> DEAD."""

    RUNNING = auto()
    STOPPED = auto()
    DEAD = auto()


class Place:
    """One simulated process, as far as the loop is concerned: a name, a life, and a clock of its own."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.life = Life.RUNNING
        self.skew_s = 0.0  # of its wall clock
        self.context = copy_context()
        self.context.run(PLACE.set, self)
        self.aside: list[asyncio.Handle] = []

    def __repr__(self) -> str:
        return f"<{self.name} {self.life.name.lower()}>"


PLACE: ContextVar[Place | None] = ContextVar("place", default=None)


class KeptByPlace:
    """Whatever the shell keeps for its loop is kept for the place that asks: processes share no loop, and a dead one's callbacks never come."""

    def __init__(self) -> None:
        self._kept: dict[Place | None, Any] = {}

    def get(self, _loop: asyncio.AbstractEventLoop) -> Any:
        return self._kept.get(PLACE.get())

    def __setitem__(self, _loop: asyncio.AbstractEventLoop, value: Any) -> None:
        self._kept[PLACE.get()] = value


class _Task(asyncio.Task[Any]):
    """A task whose hash is a number: sets of tasks (asyncio's own among them) then have the same order in every run."""

    def __init__(self, coroutine: Coroutine[Any, Any, Any], number: int, **options: Any) -> None:
        self.number = number
        super().__init__(coroutine, **options)

    def __hash__(self) -> int:
        return self.number

    def __eq__(self, other: object) -> bool:
        return self is other


class SimLoop(asyncio.BaseEventLoop):
    """`shuffled`: ready callbacks run in a random order, else first in, first out. `busy_s` is what one look at the clock costs: it makes code take time."""

    def __init__(self, random: Random, *, shuffled: bool = True, busy_s: float = 0.0) -> None:
        super().__init__()
        self.random = random
        self.shuffled = shuffled
        self.busy_s = busy_s
        self.now = 0.0
        self.turns = 0
        self.turns_max = TURNS_MAX
        self.place: Place | None = None  # whose callback is running
        self.failures: list[dict[str, Any]] = []
        self.outside = Context()  # of what belongs to no process: the broker, the network, the nemesis
        self._numbers = itertools.count(1)
        self._ready: deque[asyncio.Handle]
        self._scheduled: list[asyncio.TimerHandle]
        self._stopping: bool
        self.set_exception_handler(lambda _, failure: self.failures.append(failure))

    def time(self) -> float:
        if self.place is not None:  # code of a process, which takes time
            self.now += self.busy_s
        return self.now

    def look(self) -> float:
        """The time, for code that measures itself: time passes while it looks."""
        self.now += self.busy_s
        return self.now

    def at(self, when: float, call: Callable[..., object], *args: Any) -> asyncio.TimerHandle:
        """Call it then, outside of every process."""
        return self.call_at(when, call, *args, context=self.outside)

    def go_on(self, place: Place) -> None:
        """What was put aside for a stopped place is ready now."""
        self._ready.extend(place.aside)
        place.aside.clear()

    def create_task(self, coro: Any, *, name: object = None, context: Context | None = None) -> Any:
        number = next(self._numbers)
        return _Task(coro, number, loop=self, name=str(name or number), context=context)

    def _run_once(self) -> None:
        ready, scheduled = self._ready, self._scheduled
        if not ready:
            while scheduled and scheduled[0]._cancelled:
                self._forget(heapq.heappop(scheduled))
            if not scheduled:
                raise Deadlock
            self.now = max(self.now, scheduled[0].when())
        now = self.now
        while scheduled and scheduled[0].when() <= now:
            handle = heapq.heappop(scheduled)
            self._forget(handle)
            ready.append(handle)
        self._compact()
        turn = list(ready)
        ready.clear()
        if self.shuffled and len(turn) > 1:
            self.random.shuffle(turn)
        self.turns += len(turn)
        if self.turns > self.turns_max:
            self.turns_max = self.turns + TURNS_MAX
            raise Livelock
        for handle in turn:
            if handle.cancelled():
                continue
            place = handle._context.get(PLACE)
            if place is not None and place.life is not Life.RUNNING:
                place.aside.append(handle)
                continue
            self.place = place
            handle._run()
        self.place = None

    def _forget(self, handle: asyncio.TimerHandle) -> None:
        handle._scheduled = False
        if handle.cancelled():
            self._timer_cancelled_count -= 1

    def _compact(self) -> None:
        if self._timer_cancelled_count > _COMPACT and self._timer_cancelled_count * 2 > len(self._scheduled):
            for handle in self._scheduled:
                if handle.cancelled():
                    handle._scheduled = False
            self._scheduled = [handle for handle in self._scheduled if not handle.cancelled()]
            heapq.heapify(self._scheduled)
            self._timer_cancelled_count = 0

    def call_soon_threadsafe(self, *args: Any, **kwargs: Any) -> NoReturn:
        raise NotImplementedError("the simulation has no threads")

    def run_in_executor(self, *args: Any, **kwargs: Any) -> NoReturn:
        raise NotImplementedError("the simulation has no threads")

    def _make_socket_transport(self, *args: Any, **kwargs: Any) -> NoReturn:
        raise NotImplementedError("the simulation has no sockets")

    async def create_connection(self, *args: Any, **kwargs: Any) -> NoReturn:
        raise NotImplementedError("the simulation has no sockets")

    async def create_server(self, *args: Any, **kwargs: Any) -> NoReturn:
        raise NotImplementedError("the simulation has no sockets")

    async def subprocess_exec(self, *args: Any, **kwargs: Any) -> NoReturn:
        raise NotImplementedError("the simulation has no subprocesses")

    async def subprocess_shell(self, *args: Any, **kwargs: Any) -> NoReturn:
        raise NotImplementedError("the simulation has no subprocesses")

    def add_signal_handler(self, *args: Any, **kwargs: Any) -> NoReturn:
        raise NotImplementedError("the simulation has no signals")
