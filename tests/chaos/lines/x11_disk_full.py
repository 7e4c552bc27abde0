"""X11: no room for the embedded log: a full disk, and a limit of the file's size. It says so, and goes on when there is room."""

import contextlib
import resource
import subprocess
import tempfile
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Protocol

from tests.chaos.line import Bench, Scale, Tally
from tests.chaos.session import Place, Session
from tests.service.end_to_end.instance import Instance
from tests.service.end_to_end.waiting import happens

_TRIES = {Scale.CI: 1, Scale.FULL: 2, Scale.LONG: 10}
_FULL_S = 30.0  # patience with what notices it
_DISK_MB = 12


class Full(Protocol):
    """A way to have no room."""

    __name__: str

    def __call__(self, session: Session, worker: Instance) -> AbstractAsyncContextManager[None]: ...


async def run_line(bench: Bench, scale: Scale, seed: int, tally: Tally) -> None:
    """Both ways to have no room; a small disk of its own needs the right to mount one."""
    async with Session(Place(), seed=seed) as session:
        await _no_room(session, scale, tally, _limited)
    with tempfile.TemporaryDirectory(prefix="headrace-disk-") as name:
        disk = Path(name)
        mounted = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", f"size={_DISK_MB}m", "tmpfs", name], capture_output=True, check=False
        )
        if mounted.returncode:
            tally.note("not_made_here", f"a full disk: {mounted.stderr.decode().strip()}")
            return
        try:
            async with Session(Place(), seed=seed + 1, embedded_folder=disk) as session:
                await _no_room(session, scale, tally, _filled)
        finally:
            subprocess.run(["umount", "-l", name], check=True)


async def _no_room(session: Session, scale: Scale, tally: Tally, full: Full) -> None:
    await session.spawn().ready()
    async with session.load(ahead=40, rate=None):
        for _ in range(_TRIES[scale]):
            await session.works(100)
            worker = session.now
            async with session.fault("no room") as hit:
                async with full(session, worker):
                    hit.fired = await happens(lambda worker=worker: _noticed(worker), patience_s=_FULL_S)
                if worker.process.poll() is not None:
                    tally.note("ended_with", worker.process.poll())
                    if "Traceback" in worker.stderr:
                        tally.violations.append(f"X11: it ended in disorder: {worker.stderr[-1500:]}")
                    session.spawn()
                await session.works_again(session.now)
                await session.works(20)
    tally.add(session, await session.verdict())
    tally.note(full.__name__.strip("_"), sum(window.fired for window in session.windows))


def _noticed(worker: Instance) -> bool:
    """It says so, has ended, or is not ready."""
    if worker.process.poll() is not None or worker.probe("readyz") != 200:
        return True
    return any(worker.lines(event) for event in _SIGNS)


_SIGNS = ("outage.began", "partition.stopped", "partition.lost")


@asynccontextmanager
async def _limited(session: Session, worker: Instance) -> AsyncIterator[None]:
    """No file of the process may grow."""
    with contextlib.suppress(ProcessLookupError):
        resource.prlimit(worker.pid, resource.RLIMIT_FSIZE, (1024, resource.RLIM_INFINITY))
    try:
        yield
    finally:
        with contextlib.suppress(ProcessLookupError):
            resource.prlimit(worker.pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))


@asynccontextmanager
async def _filled(session: Session, worker: Instance) -> AsyncIterator[None]:
    """Nothing fits on its disk."""
    ballast = session.path.parent / "ballast"
    with ballast.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(b"\0" * 4096)
    try:
        yield
    finally:
        ballast.unlink()
