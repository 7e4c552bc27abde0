"""The event-loop watchdog: a thread that asks the loop to answer, and says who is in the way when it does not.

Four times a second it puts a callback on the loop and measures how long the loop takes to come round to it. If that
takes longer than `blocked_ms`, it looks at the stack of the loop's thread and names the handler that is running
there, with file and line. It changes nothing.
"""

from __future__ import annotations

import asyncio
import sys
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager
from inspect import unwrap
from types import CodeType, FrameType, TracebackType
from typing import Final, Self

from headrace.observability.observer import LoopBlocked, LoopDelayed, Observer

INTERVAL_S: Final = 0.25
BLOCKED_MS: Final = 250.0
"""A loop that stands still this long delays every run of the process; heartbeats of the group live on it too."""


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

    `loop_delayed` is told on the loop, `loop_blocked` from the watchdog's own thread, once per stall.
    """

    def __init__(
        self,
        observer: Observer,
        handlers: Mapping[CodeType, str],
        *,
        interval_s: float = INTERVAL_S,
        blocked_ms: float = BLOCKED_MS,
    ) -> None:
        self._observer = observer
        self._handlers = handlers
        self._interval_s = interval_s
        self._blocked_ms = blocked_ms
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
            asked_at_s = time.monotonic()
            try:
                loop.call_soon_threadsafe(self._turn, asked_at_s)
            except RuntimeError:
                return  # the loop is closed
            if self._turned.wait(self._blocked_ms / 1000):
                continue
            frame = sys._current_frames().get(loop_thread)  # noqa: SLF001  # pyright: ignore[reportPrivateUsage] - the only way
            if frame is not None and not self._turned.is_set():
                handler, where = named(frame, self._handlers)
                blocked_ms = (time.monotonic() - asked_at_s) * 1000
                self._observer.loop_blocked(LoopBlocked(blocked_ms=blocked_ms, handler=handler, where=where))
            del frame  # it holds the locals of whoever runs there
            self._turned.wait()

    def _turn(self, asked_at_s: float) -> None:
        now_s = time.monotonic()
        self._turned_at_s = now_s
        self._turned.set()
        if not self._stop.is_set():
            self._observer.loop_delayed(LoopDelayed(delay_ms=(now_s - asked_at_s) * 1000))


def named(frame: FrameType, handlers: Mapping[CodeType, str]) -> tuple[str, str]:
    """The handler on this stack ("" if there is none) and where it stands.

    Its own line, and the innermost one if that is elsewhere.
    """
    innermost = _place(frame)
    walked: FrameType | None = frame
    while walked is not None:
        handler = handlers.get(walked.f_code)
        if handler is not None:
            own = _place(walked)
            return handler, own if own == innermost else f"{own} > {innermost}"
        walked = walked.f_back
    return "", innermost


def _place(frame: FrameType) -> str:
    return f"{frame.f_code.co_filename}:{frame.f_lineno} in {frame.f_code.co_qualname}"
