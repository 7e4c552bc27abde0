"""Memory and descriptors of this process against their limits: told while there is time to act.

A container that reaches its memory limit is killed without a word, and a process without descriptors can neither
answer nor connect. `Judgement` is pure; `ResourceWatch` measures in a thread of its own and tells on the event loop.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from headrace.observability.label import Resource
from headrace.observability.observer import Observer
from headrace.observability.told_process import ResourceMeasured

EVERY_S: Final = 5.0
SHORT_FROM: Final = 0.85
EASED_BELOW: Final = 0.75
"""Apart, so that a process at the edge is told once."""

Measured = tuple[int, int]
"""Used, and the limit."""


class Judgement:
    """Remembers what was short."""

    def __init__(self) -> None:
        self._short: set[Resource] = set()

    def judged(self, resource: Resource, used: int, limit: int) -> ResourceMeasured:
        """What to tell about one measurement."""
        was = resource in self._short
        short = used >= limit * (EASED_BELOW if was else SHORT_FROM)
        (self._short.add if short else self._short.discard)(resource)
        return ResourceMeasured(resource=resource, used=used, limit=limit, short=short, changed=short != was)


class ResourceWatch(AbstractContextManager["ResourceWatch"]):
    """Enter it on the loop. `measures` are asked in a thread; what answers None is not known here."""

    def __init__(
        self,
        observer: Observer,
        measures: dict[Resource, Callable[[], Measured | None]] | None = None,
        *,
        every_s: float = EVERY_S,
    ) -> None:
        self._observer = observer
        self._measures = {Resource.MEMORY: memory, Resource.DESCRIPTORS: descriptors} if measures is None else measures
        self._every_s = every_s
        self._judgement = Judgement()
        self._stop = threading.Event()

    def __enter__(self) -> Self:
        loop = asyncio.get_running_loop()
        threading.Thread(target=self._watch, args=(loop,), name="headrace-resources", daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()

    def _watch(self, loop: asyncio.AbstractEventLoop) -> None:
        while not self._stop.is_set():
            for resource, measure in self._measures.items():
                found = measure()
                if found is None:
                    continue
                try:
                    loop.call_soon_threadsafe(self._tell, resource, *found)
                except RuntimeError:
                    return  # the loop is closed
            self._stop.wait(self._every_s)

    def _tell(self, resource: Resource, used: int, limit: int) -> None:
        if not self._stop.is_set():
            self._observer.resource_measured(self._judgement.judged(resource, used, limit))


def memory(process: Path = Path("/proc/self"), groups: Path = Path("/sys/fs/cgroup")) -> Measured | None:
    """Resident bytes against the machine's memory, or what a control group of ours uses against its limit, whichever is fuller. None: not Linux.

    A group is ended as a whole: several workers in one container share its limit.
    """
    try:
        pages = int((process / "statm").read_text().split()[1])
        page = os.sysconf("SC_PAGE_SIZE")
        machine = os.sysconf("SC_PHYS_PAGES") * page
    except (OSError, ValueError, IndexError):
        return None
    own = pages * page
    return max([(own, machine), *_groups(own, process, groups)], key=lambda found: found[0] / found[1])


def _groups(own: int, process: Path, groups: Path) -> list[Measured]:
    """Our control group and those above it, versions 2 and 1. None in a group without limits."""
    found: list[Measured] = []
    try:
        lines = (process / "cgroup").read_text().splitlines()
    except OSError:
        return found
    for line in lines:
        _, controllers, group = line.split(":", 2)
        if controllers and "memory" not in controllers.split(","):
            continue
        root = groups / ("memory" if controllers else "")
        inside = root / group.lstrip("/")
        for folder in (inside, *inside.parents):
            if root not in (folder, *folder.parents):
                break
            try:
                limit = int((folder / ("memory.limit_in_bytes" if controllers else "memory.max")).read_text())
            except (OSError, ValueError):
                continue  # "max", or not ours to see
            if limit > 0:
                found.append((max(own, _working_set(folder, first=bool(controllers))), limit))
    return found


def _working_set(folder: Path, *, first: bool) -> int:
    """What a group uses without files that can be read again, as Kubernetes counts it; 0 if that is not ours to see. `first`: version 1."""
    try:
        used = int((folder / ("memory.usage_in_bytes" if first else "memory.current")).read_text())
        facts = dict(line.split(" ", 1) for line in (folder / "memory.stat").read_text().splitlines())
        return used - int(facts["total_inactive_file" if first else "inactive_file"])
    except (OSError, ValueError, KeyError):
        return 0


def descriptors() -> Measured | None:
    """Open ones against the soft limit. None where that cannot be known, or there is none."""
    try:
        import resource  # noqa: PLC0415 - not on every platform

        limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        used = len(os.listdir("/proc/self/fd"))  # noqa: PTH208 - Path objects would be made for each
    except (ImportError, OSError):
        return None
    return None if limit in (resource.RLIM_INFINITY, 0) else (used, limit)
