"""Time and chance of the shell, made virtual in one place.

Every name in `headrace` that stands for a clock or for dice (`time`, `perf_counter`, `monotonic`, `uuid4`, `token_hex`, ... or a module that has them) is
replaced while a simulation runs. None is listed by hand: all loaded modules of the package are searched, so a new one is found by itself.
"""

import asyncio
import random
import secrets
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

from tests.simulation.loop import SimLoop

EPOCH_S = 1_800_000_000.0  # virtual zero


def _loop() -> SimLoop:
    loop = asyncio.get_running_loop()
    assert isinstance(loop, SimLoop)
    return loop


def _time() -> float:
    loop = _loop()
    place = loop.place
    return EPOCH_S + loop.look() + (0.0 if place is None else place.skew_s)


def _steady() -> float:
    return _loop().look()


def _uuid4() -> uuid.UUID:
    return uuid.UUID(int=_loop().random.getrandbits(128), version=4)


def _token_hex(size: int = 16) -> str:
    return f"{_loop().random.getrandbits(size * 8):0{size * 2}x}"


def _random() -> float:
    return _loop().random.random()


def _uniform(a: float, b: float) -> float:
    return _loop().random.uniform(a, b)


_FUNCTIONS: dict[Any, Callable[..., Any]] = {
    time.time: _time,
    time.perf_counter: _steady,
    time.monotonic: _steady,
    time.clock_gettime: lambda _clock: _steady(),
    uuid.uuid4: _uuid4,
    secrets.token_hex: _token_hex,
    random.random: _random,
    random.uniform: _uniform,
}


class _Module(ModuleType):
    """A module with some of its functions replaced."""

    def __init__(self, real: ModuleType) -> None:
        super().__init__(real.__name__)
        self._real = real

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._real, name)
        return _FUNCTIONS.get(value, value) if callable(value) else value


_MODULES = {id(module): _Module(module) for module in (time, uuid, secrets, random)}
_EXEMPT = (
    "headrace.service.definitions.",  # the nets against clocks in workflows name them all
    "headrace.service.cli.",
    "headrace.observability.",  # has threads of its own, and the simulation brings its own observer
    "headrace.topics.log_",  # the real logs
    "headrace.topics.producer_kafka",
    "headrace.topics.client_kafka",
    "headrace.service.composition",
)


def places_of_clocks() -> list[tuple[ModuleType, str, Any, Any]]:
    """Module, name, what it is, and what it becomes."""
    found: list[tuple[ModuleType, str, Any, Any]] = []
    for module_name, module in sorted(sys.modules.items()):
        if not module_name.startswith("headrace") or module_name.startswith(_EXEMPT) or "kafka" in module_name:
            continue
        for name, value in list(vars(module).items()):
            if isinstance(value, ModuleType):
                replacement: Any = _MODULES.get(id(value))
            else:
                try:
                    replacement = _FUNCTIONS.get(value)
                except TypeError:  # cannot be hashed
                    continue
            if replacement is not None:
                found.append((module, name, value, replacement))
    return found


_found: list[tuple[ModuleType, str, Any, Any]] = []


@contextmanager
def virtual() -> Iterator[None]:
    """Clocks and dice of the shell are the running loop's."""
    if not _found:
        _found.extend(places_of_clocks())
    for module, name, _, replacement in _found:
        setattr(module, name, replacement)
    try:
        yield
    finally:
        for module, name, real, _ in _found:
            setattr(module, name, real)
