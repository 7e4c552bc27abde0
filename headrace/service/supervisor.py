"""The supervisor of `serve --workers N`: N processes of the same command, each a member of the group and with a metrics port of its own.

    started ──► works ──► dead ──► the group is told at once ──► started again: at once, later if it dies over and over
                  │
                  └── the supervisor is asked to stop, or gone: every worker stops in good order

It runs no user code and owns nothing. A worker whose start can never work (wrong settings, a definition that does not load) ends everything with its exit code.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from headrace.service import discovery
from headrace.service.sd_notify import SdNotify
from headrace.service.stop_signal import LEVEL_SIGNAL, stop_signals
from headrace.service.worker_link import VARIABLE, WorkerLink, WorkerStarted
from headrace.topics.back_off import back_off_s
from headrace.topics.errors import HeadraceError

if TYPE_CHECKING:
    from headrace.service.settings import Settings

_BACK_OFF_S = (0.5, 30.0)  # after the second death in a row; the first one costs nothing
_LIVED_S = 60.0  # a worker that lived for so long did not die "again"
_EXTRA_S = 5.0  # beyond `worker.shutdown_grace`, before a worker is killed
_TELL_S = 10.0
# exit codes of a start that can never work: usage, not found, conflict, not allowed, invalid
_NEVER = frozenset({2, 3, 4, 5, 7})
_INTERRUPTED = 130


class Supervisor:
    """`run` until it is asked to stop, or no start can work. `expel` tells the group of dead members; `say` is for people."""

    def __init__(
        self,
        settings: Settings,
        *,
        workers: int,
        command: Sequence[str],
        expel: Callable[[], Awaitable[Sequence[str]]],
        say: Callable[[str], None],
        notify: SdNotify | None = None,
    ) -> None:
        self._settings = settings
        self._command = tuple(command)
        self._expel = expel
        self._say = say
        self._notify = notify or SdNotify()
        self._workers = [_Worker(index) for index in range(workers)]
        self._stopping = asyncio.Event()
        self._signals = 0
        self._code = 0
        self._folder = Path(tempfile.mkdtemp(prefix="headrace-workers-"))
        self._file = (settings.telemetry.discovery_file or self._folder / "discovery.json").absolute()

    async def run(self) -> int:
        """The exit code."""
        loop = asyncio.get_running_loop()
        for number in stop_signals():
            loop.add_signal_handler(number, self._signalled)
        loop.add_signal_handler(LEVEL_SIGNAL, self._hand_on)
        self._say(f"Headrace supervises {len(self._workers)} workers; metrics of all: {self._file}")
        self._write_discovery()
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._warm_up())
                tasks.create_task(self._tell_ready())
                alive = tasks.create_task(self._notify.keep_alive())
                first, *others = self._workers
                tasks.create_task(self._keep(first))
                await _first_of(first.started, self._stopping)  # topics are made, and errors said, once
                for worker in others:
                    tasks.create_task(self._keep(worker))
                await self._stopping.wait()
                self._notify.stopping()
                await self._stop_all()
                alive.cancel()
        finally:
            shutil.rmtree(self._folder, ignore_errors=True)
            if self._settings.telemetry.discovery_file is not None:
                self._file.unlink(missing_ok=True)
        return self._code

    # --- one worker ------------------------------------------------------------------------------------------------

    async def _keep(self, worker: _Worker) -> None:
        """Start it, and again whenever it ends."""
        loop = asyncio.get_running_loop()
        deaths = 0
        while not self._stopping.is_set():
            began = loop.time()
            code = await self._live(worker)
            if self._stopping.is_set():
                return
            if code in _NEVER and not worker.ever_started:
                self._code = code
                self._stopping.set()
                return
            deaths = 1 if loop.time() - began > _LIVED_S else deaths + 1
            wait_s = 0.0 if deaths == 1 else back_off_s(_BACK_OFF_S, deaths - 2)
            again = f"in {wait_s:g} s" if wait_s else "now"
            self._say(f"Worker {worker.index} {_ending(worker.pid, code)}; it is started again {again}.")
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._tell_group())
                if wait_s:
                    await _first_of(self._stopping, timeout_s=wait_s)

    async def _live(self, worker: _Worker) -> int | OSError:
        """One life: its exit code, negative for a signal; or why there was none."""
        try:
            process, down, up = await self._start(worker)
        except OSError as error:  # no room for another process; or the installation is being replaced
            return error
        worker.process, worker.pid, worker.lifeline = process, process.pid, down
        worker.ended.clear()
        try:
            async with asyncio.TaskGroup() as tasks:
                reading = tasks.create_task(self._read_reports(worker, up))
                if self._stopping.is_set():
                    worker.signal(signal.SIGTERM)
                code = await process.wait()
                reading.cancel()
        finally:
            os.close(down)
            os.close(up)
            worker.process, worker.lifeline, worker.metrics = None, -1, ""
            worker.ended.set()
            self._write_discovery()
        return code

    async def _start(self, worker: _Worker) -> tuple[asyncio.subprocess.Process, int, int]:
        """Its process, and our ends of the pipes: down and up."""
        with contextlib.ExitStack() as ours, contextlib.ExitStack() as theirs:
            lifeline, down = os.pipe()
            theirs.callback(os.close, lifeline)
            ours.callback(os.close, down)
            up, reports = os.pipe()
            theirs.callback(os.close, reports)
            ours.callback(os.close, up)
            process = await asyncio.create_subprocess_exec(
                *self._command,
                stdin=asyncio.subprocess.DEVNULL,
                env=self._environment(WorkerLink(worker.index, lifeline, reports, self._file)),
                pass_fds=(lifeline, reports),
                start_new_session=True,  # Ctrl-C is for the supervisor, which asks each worker once
            )
            ours.pop_all()
            return process, down, up

    async def _read_reports(self, worker: _Worker, up: int) -> None:
        loop = asyncio.get_running_loop()
        reader = asyncio.StreamReader()
        with os.fdopen(os.dup(up), "rb", buffering=0) as pipe:
            transport, _ = await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), pipe)
            try:
                while line := await reader.readline():
                    report = msgspec.json.decode(line, type=WorkerStarted)
                    worker.metrics, worker.ever_started = report.metrics, True
                    self._write_discovery()
                    worker.started.set()
            finally:
                transport.close()

    def _environment(self, link: WorkerLink) -> dict[str, str]:
        inherited: Mapping[str, str] = os.environ
        return {**inherited, VARIABLE: str(link)}

    async def _tell_ready(self) -> None:
        """Once every worker has said where its metrics are."""
        for worker in self._workers:
            await _first_of(worker.started, self._stopping)
        if not self._stopping.is_set():
            self._notify.ready(f"{len(self._workers)} workers")

    # --- all of them -----------------------------------------------------------------------------------------------

    async def _tell_group(self) -> None:
        """LeaveGroup for the dead: the living are placed anew at once, not after the session timeout. Then hurry them."""
        with contextlib.suppress(HeadraceError, TimeoutError):
            async with asyncio.timeout(_TELL_S):
                await self._expel()
        for worker in self._workers:
            worker.hint()

    async def _warm_up(self) -> None:
        """Whatever telling the group needs is loaded and tried before it is needed."""
        await _first_of(self._workers[0].started, self._stopping)
        if self._stopping.is_set():
            return
        with contextlib.suppress(HeadraceError, TimeoutError):
            async with asyncio.timeout(_TELL_S):
                await self._expel()

    def _hand_on(self) -> None:
        for worker in self._workers:
            if worker.metrics:  # it has said that it works: before that, the signal would end it
                worker.signal(LEVEL_SIGNAL)

    def _signalled(self) -> None:
        self._signals += 1
        if self._signals == 1:
            self._say("Stopping all workers in good order; once more leaves at once.")
            self._stopping.set()
            return
        self._code = _INTERRUPTED
        for worker in self._workers:
            worker.signal(signal.SIGKILL)  # a second SIGTERM might melt into the first; the log survives either

    async def _stop_all(self) -> None:
        """SIGTERM to all. Who has not ended after the grace is killed."""
        for worker in self._workers:
            worker.signal(signal.SIGTERM)
        grace_s = self._settings.worker.shutdown_grace_ms / 1000 + _EXTRA_S
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(grace_s):
                for worker in self._workers:
                    await worker.ended.wait()
        for worker in self._workers:
            if worker.process is not None:
                self._code = self._code or 1
                self._say(f"Worker {worker.index} (pid {worker.pid}) did not stop within {grace_s:g} s and is killed.")
                worker.signal(signal.SIGKILL)

    def _write_discovery(self) -> None:
        metrics = {worker.index: worker.metrics for worker in self._workers if worker.metrics}
        try:
            discovery.write(self._file, discovery.document(self._settings.app.name, metrics))
        except OSError as error:
            self._say(f"The discovery document {self._file} cannot be written: {error}.")


class _Worker:
    """One place among the workers, whichever process holds it."""

    def __init__(self, index: int) -> None:
        self.index = index
        self.process: asyncio.subprocess.Process | None = None
        self.pid = 0
        self.lifeline = -1
        self.metrics = ""
        self.started = asyncio.Event()
        self.ended = asyncio.Event()  # no process is there now
        self.ended.set()
        self.ever_started = False

    def signal(self, number: signal.Signals) -> None:
        if self.process is not None and self.process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self.process.send_signal(number)

    def hint(self) -> None:
        """The group has changed: look now, not at the next heartbeat."""
        if self.lifeline >= 0:
            with contextlib.suppress(OSError):
                os.write(self.lifeline, b"c")


def _ending(pid: int, code: int | OSError) -> str:
    if isinstance(code, OSError):
        return f"cannot be started: {code}"
    if code >= 0:
        return f"(pid {pid}) ended with exit code {code}"
    with contextlib.suppress(ValueError):
        return f"(pid {pid}) was ended by {signal.Signals(-code).name}"
    return f"(pid {pid}) was ended by signal {-code}"


async def _first_of(*events: asyncio.Event, timeout_s: float | None = None) -> None:
    """Return when one of them is set, or the time is over."""
    async with asyncio.TaskGroup() as tasks:
        waiting = [tasks.create_task(event.wait()) for event in events]
        await asyncio.wait(waiting, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
        for task in waiting:
            task.cancel()


def worker_command() -> list[str]:
    """The command line of this process, for a worker: the same one."""
    return [sys.executable, *sys.orig_argv[1:]]


def cores() -> int:
    """What `worker.processes = auto` means: the cores that this process may use."""
    if sys.platform == "linux":
        return max(1, len(os.sched_getaffinity(0)))
    return os.cpu_count() or 1
