"""The second net against non-deterministic workflows: what a workflow may not call raises `NotDeterministic` while it is stepping.

`install` patches attributes of `time`, `random`, `uuid`, `secrets`, `os` and `threading` and adds an audit hook, once per process, before the first app
is imported; importing this file does nothing. Everything keeps working as before, except in a thread that is inside `with stepping(...)`. There, asyncio
finds a loop that refuses everything. The first violation is kept, so that a body that swallows it is parked all the same.

Not seen from here: `datetime.now()`, which is C and cannot be patched; the scan at load looks for it. What slips past both nets shows as divergence.

Allowed all the same: what logging, warnings, tracebacks, imports, time zones, finalisers and debuggers do on their own account, although a workflow set
them off. They are told by the stack between the call and the workflow's coroutine.
"""

from __future__ import annotations

import asyncio
import functools
import gc
import inspect
import sys
import threading
from asyncio import events
from typing import TYPE_CHECKING, Any, Final, NoReturn, Self, cast

from headrace.service.definitions.determinism_table import AUDITED, FORBIDDEN, PATCHES, Patch
from headrace.topics.errors import NotDeterministic

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop
    from collections.abc import Callable
    from types import FrameType, TracebackType


class _Present(threading.local):
    """This thread's stepping run, if it has one; and whether the event loop's hands are off its asynchronous generators."""

    stepping: stepping | None = None
    unhooked = False


_present = _Present()
_install_once = threading.Lock()
_installed = False

# Modules that do forbidden things for reasons of their own; what they answer never reaches the workflow as a value it could branch on.
_ALLOWED: Final = frozenset(
    {"logging", "structlog", "warnings", "traceback", "linecache", "tracemalloc", "weakref", "tokenize", "zoneinfo"}
    | {"importlib", "_frozen_importlib", "_frozen_importlib_external", "zipimport", "encodings"}
    | {"pdb", "bdb", "cmd", "pydevd", "debugpy", "_pydevd_bundle", "_pydev_bundle", "_pydevd_frame_eval", "coverage"}
)


class unhooked:  # noqa: N801 - reads as `with unhooked():`
    """Around the stepping of many runs: the event loop must not finish their asynchronous generators, later. Nested ones cost nothing."""

    __slots__ = ("_hooks",)

    def __enter__(self) -> None:
        self._hooks = None if _present.unhooked else sys.get_asyncgen_hooks()
        if self._hooks is not None:
            _present.unhooked = True
            sys.set_asyncgen_hooks(None, None)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._hooks is not None:
            _present.unhooked = False
            sys.set_asyncgen_hooks(*self._hooks)


class stepping:  # noqa: N801 - reads as `with stepping(run_id):`
    """Marks this thread as stepping a workflow. Costs half a microsecond. `violation` is the first one, `None` if there was none."""

    __slots__ = ("_hooks", "_loop", "run_id", "violation")

    def __init__(self, run_id: str) -> None:
        self.run_id = run_id
        self.violation: NotDeterministic | None = None

    def __enter__(self) -> Self:
        if _SWAPS_LOOP:
            self._loop = _get_running_loop()
            _set_running_loop(_FORBIDDEN_LOOP)
        if _present.unhooked:
            self._hooks = None
        else:
            self._hooks = unhooked()
            self._hooks.__enter__()
        _present.stepping = self
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        _present.stepping = None
        if self._hooks is not None:
            self._hooks.__exit__(kind, error, trace)
        if _SWAPS_LOOP:
            _set_running_loop(self._loop)


def install() -> None:
    """Patch and listen. Idempotent; cannot be undone. Call it before user code is imported, so that `from time import time` gets what is patched."""
    global _installed  # noqa: PLW0603 - as an audit hook, it is the process's
    with _install_once:
        if _installed:
            return
        for patch in PATCHES:
            _put(patch)
        if not _SWAPS_LOOP:
            _hide_loop()
        sys.addaudithook(_audit)
        _installed = True


def refuse(what: str, instead: str) -> None:
    """Record and raise a violation if this thread is stepping a workflow and it was the workflow's own doing; else return."""
    step = _present.stepping
    if step is None or _is_allowed(sys._getframe(2)):  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]
        return
    violation = NotDeterministic(what, instead)
    if step.violation is None:
        step.violation = violation
    raise violation


def _is_allowed(frame: FrameType | None) -> bool:
    """Look from the call outwards to the nearest coroutine, which is the workflow or a helper of its."""
    while frame is not None:
        code = frame.f_code
        if code.co_flags & inspect.CO_COROUTINE:
            return False
        if any(getattr(callback, "__code__", None) is code for callback in gc.callbacks):
            return True  # the collector came by
        module = cast("str", frame.f_globals.get("__name__") or "")
        if code.co_name == "__del__" or module.partition(".")[0] in _ALLOWED:
            return True
        if module.startswith("headrace.service.engine"):
            return False
        frame = frame.f_back
    return False


# --- patched attributes -----------------------------------------------------------------------------------------------


def _put(patch: Patch) -> None:
    original = patch.owner.__dict__.get(patch.name)
    if original is None:  # not on this platform, or not in this version of Python
        return
    guarded = _guarded(cast("Callable[..., Any]", original), patch)
    setattr(patch.owner, patch.name, guarded)


def _guarded(original: Callable[..., Any], patch: Patch) -> Callable[..., Any]:
    guarded = _bare(original, patch) if patch.bare else _with_arguments(original, patch)
    functools.update_wrapper(guarded, original)
    guarded.__module__ = patch.module
    guarded.__qualname__ = patch.qualname
    return guarded


def _bare(original: Callable[[], Any], patch: Patch) -> Callable[[], Any]:
    """For functions without parameters: the event loop asks for the time in each turn, and this is 40 ns less."""
    present, what, instead = _present, patch.what, patch.instead

    def guarded() -> Any:
        if present.stepping is not None:
            refuse(what, instead)
        return original()

    return guarded


def _with_arguments(original: Callable[..., Any], patch: Patch) -> Callable[..., Any]:
    present, what, instead, harmless = _present, patch.what, patch.instead, patch.harmless

    def guarded(*args: Any, **kwargs: Any) -> Any:
        if present.stepping is not None and (harmless is None or not harmless(args, kwargs)):
            refuse(what, instead)
        return original(*args, **kwargs)

    return guarded


# --- the audit hook ---------------------------------------------------------------------------------------------------


def _audit(
    event: str, args: tuple[Any, ...], _audited: dict[str, tuple[str, str]] = AUDITED, _now: _Present = _present
) -> None:
    found = _audited.get(event)
    if found is not None and _now.stepping is not None and not (event == "open" and _is_time_zone(args[0])):
        refuse(*found)


def _is_time_zone(path: object) -> bool:
    """ZoneInfo("Europe/Berlin") reads a file, in C and once per process."""
    zones = sys.modules.get("zoneinfo")
    return zones is not None and isinstance(path, str) and path.startswith(tuple(zones.TZPATH))


# --- asyncio ----------------------------------------------------------------------------------------------------------

_get_running_loop: Final = events._get_running_loop  # noqa: SLF001
_set_running_loop: Final = events._set_running_loop  # noqa: SLF001


_SWAPS_LOOP: Final = sys.version_info >= (3, 12)
"""Whether stepping replaces the running loop itself. Until 3.11 each look at it is a system call (getpid), three of them cost more than stepping a workflow:
there, the functions that find it are patched."""


def _hide_loop() -> None:
    for name in ("get_running_loop", "_get_running_loop", "get_event_loop", "_get_event_loop"):
        found = _finder(getattr(events, name))
        for module in (events, asyncio):
            if hasattr(module, name):
                setattr(module, name, found)


def _finder(original: Callable[..., Any]) -> Callable[..., Any]:
    present = _present

    @functools.wraps(original)
    def find(*args: Any, **kwargs: Any) -> Any:
        return _FORBIDDEN_LOOP if present.stepping is not None else original(*args, **kwargs)

    return find


class _ForbiddenLoop:
    """What asyncio finds as the running loop. Whatever it asks of it is the workflow's doing, and is refused."""

    def __getattr__(self, name: str) -> Any:
        _refuse_asyncio(name)

    def __hash__(self) -> int:  # noqa: PLE0309 - it always raises: `current_task` looks the loop up in a dict
        _refuse_asyncio("current_task")

    def __eq__(self, other: object) -> bool:
        return self is other


def _refuse_asyncio(method: str) -> NoReturn:
    """Refuse in the words of the function that the workflow called: `asyncio.sleep()`, not what it asks of the loop."""
    what, instead = (
        f"asyncio ({method} of the running loop)",
        _LOOP_METHODS.get(method, "the methods of `run`, or a handler"),
    )
    frame = sys._getframe(2)  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]
    while frame is not None and cast("str", frame.f_globals.get("__name__") or "").startswith("asyncio."):
        title = f"asyncio.{frame.f_code.co_name}"
        if title in FORBIDDEN:
            what, instead = f"{title}()", FORBIDDEN[title]
        frame = frame.f_back
    refuse(what, instead)
    raise RuntimeError("no running event loop")  # what logging and its like, which are allowed, are prepared for


_LOOP_METHODS: Final = {
    "create_future": "run.sleep(), run.gather() or a handler",
    "call_later": "run.sleep()",
    "call_at": "run.sleep_until()",
    "time": "run.now()",
    "create_task": "run.gather() or run.map(); a step begins without being awaited",
    "run_in_executor": "run.call() of a handler: a plain `def` runs in a thread",
    "current_task": "run.race(step, run.sleep(...)) for a time limit",
}
_FORBIDDEN_LOOP: Final = cast("AbstractEventLoop", _ForbiddenLoop())
