"""The event-loop watchdog: a thread that asks the loop to answer, and says who is in the way when it does not.

Four times a second it puts a callback on the loop and measures how long the loop takes to come round to it. If that
takes longer than `blocked_ms`, it looks at the stack of the loop's thread, a few times, and names the handler that is
running there, with the file and line where it was met most. It changes nothing itself, but after a stall of
`fence_ms` it has `fence` called on the loop: before anything that reached the loop after the stall had begun.
"""

from __future__ import annotations

import asyncio
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager
from inspect import unwrap
from types import CodeType, FrameType, TracebackType
from typing import Final, NamedTuple, Self

from headrace.observability.observer import Observer
from headrace.observability.told_process import LoopBlocked, LoopDelayed

INTERVAL_S: Final = 0.25
BLOCKED_MS: Final = 250.0
"""A loop that stands still this long delays every run of the process; heartbeats of the group live on it too."""
SAMPLES: Final = 5
SAMPLE_S: Final = 0.002
STACK_MAX: Final = 12
"""Frames from the handler inwards; deeper ones are left out of the middle."""


def _nobody(_stalled_s: float) -> None:
    pass


def codes_of(handlers: Iterable[tuple[str, Callable[..., object]]]) -> dict[CodeType, str]:
    """The table by which a stack's frame is a handler's.

    From (handler name, function). What has no code (built-ins) is left out.
    """
    found: dict[CodeType, str] = {}
    for name, function in handlers:
        code = getattr(unwrap(function), "__code__", None)
        if isinstance(code, CodeType):
            found[code] = name
    return found


class Watchdog(AbstractContextManager["Watchdog"]):
    """Enter it on the loop's thread.

    `hidden`: files whose innermost frames are not named. `loop_delayed` is told on the loop, `loop_blocked` from the watchdog's own thread, once per stall.
    """

    def __init__(
        self,
        observer: Observer,
        handlers: Mapping[CodeType, str],
        *,
        interval_s: float = INTERVAL_S,
        blocked_ms: float = BLOCKED_MS,
        fence_ms: float = float("inf"),
        fence: Callable[[float], None] = _nobody,
        hidden: frozenset[str] = frozenset(),
    ) -> None:
        self._observer = observer
        self._handlers = handlers
        self._interval_s = interval_s
        self._blocked_ms = blocked_ms
        self._fence_s = fence_ms / 1000
        self._fence = fence
        self._hidden = hidden
        self._stop = threading.Event()
        self._turned = threading.Event()
        self._turned_at_s = time.monotonic()
        self._thread: threading.Thread | None = None

    def silent_s(self) -> float:
        """Seconds since the loop answered last; from any thread. Below the interval while all is well."""
        return time.monotonic() - self._turned_at_s

    def __enter__(self) -> Self:
        loop = asyncio.get_running_loop()
        self._turned_at_s = time.monotonic()
        self._thread = threading.Thread(
            target=self._watch, args=(loop, threading.get_ident()), name="headrace-watchdog", daemon=True
        )
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._turned.set()
        if self._thread is not None:
            self._thread.join()

    def _watch(self, loop: asyncio.AbstractEventLoop, loop_thread: int) -> None:
        while not self._stop.wait(self._interval_s):
            self._turned.clear()
            if self._stop.is_set():
                return  # it was set in between: nobody would turn
            asked_at_s = time.monotonic()
            try:
                loop.call_soon_threadsafe(self._turn, asked_at_s)
            except RuntimeError:
                return  # the loop is closed
            if self._turned.wait(self._blocked_ms / 1000):
                continue
            seen = self._sampled(loop_thread)
            if seen is not None:
                blocked_ms = (time.monotonic() - asked_at_s) * 1000
                self._observer.loop_blocked(
                    LoopBlocked(blocked_ms=blocked_ms, handler=seen.handler, where=seen.where, stack=seen.stack)
                )
            self._turned.wait()

    def _sampled(self, loop_thread: int) -> Seen | None:
        """What was met most while the loop stood still; None if it turned before it was looked at."""
        met: Counter[Seen] = Counter()
        for number in range(SAMPLES):
            if number and self._turned.wait(SAMPLE_S):
                break
            frame = sys._current_frames().get(loop_thread)  # noqa: SLF001  # pyright: ignore[reportPrivateUsage] - the only way
            if frame is not None and not self._turned.is_set():
                met[seen_in(frame, self._handlers, self._hidden)] += 1
            del frame  # it holds the locals of whoever runs there
        return met.most_common(1)[0][0] if met else None

    def _turn(self, asked_at_s: float) -> None:
        now_s = time.monotonic()
        # Since the ask: a blocked loop. Since the last turn: a process that stood still, this thread with it.
        stalled_s = max(now_s - asked_at_s, now_s - self._turned_at_s - self._interval_s)
        self._turned_at_s = now_s
        self._turned.set()
        if stalled_s >= self._fence_s and not self._stop.is_set():
            self._fence(stalled_s)
        if not self._stop.is_set():
            self._observer.loop_delayed(LoopDelayed(delay_ms=(now_s - asked_at_s) * 1000))


class Seen(NamedTuple):
    """The handler on a stack ("" if there is none) and where it stands: its own line, and the innermost one if that is
    elsewhere. `stack`: from the handler inwards.
    """

    handler: str
    where: str
    stack: tuple[str, ...]


def seen_in(frame: FrameType, handlers: Mapping[CodeType, str], hidden: frozenset[str] = frozenset()) -> Seen:
    """What a stack says. Innermost frames in `hidden` files are left out: they stand around a call of the user's."""
    while frame.f_code.co_filename in hidden and frame.f_back is not None:
        frame = frame.f_back
    places = [_place(frame)]
    walked: FrameType | None = frame
    while walked is not None:
        handler = handlers.get(walked.f_code)
        if handler is not None:
            where = places[0] if len(places) == 1 else f"{places[-1]} > {places[0]}"
            return Seen(handler, where, _short(places))
        walked = walked.f_back
        if walked is not None:
            places.append(_place(walked))
    return Seen("", places[0], _short(places[:STACK_MAX]))


def _short(places: list[str]) -> tuple[str, ...]:
    inwards = places[::-1]
    if len(inwards) <= STACK_MAX:
        return tuple(inwards)
    half = STACK_MAX // 2
    return (*inwards[:half], f"... {len(inwards) - STACK_MAX} more", *inwards[-half:])


def _place(frame: FrameType) -> str:
    return f"{frame.f_code.co_filename}:{frame.f_lineno} in {frame.f_code.co_qualname}"
