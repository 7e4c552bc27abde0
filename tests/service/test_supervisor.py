"""The supervisor, with small programs for workers: restarts, back-off, signals, exit codes, and the end of either side."""

import asyncio
import json
import os
import signal
import sys
import textwrap
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from headrace.service.sd_notify import SdNotify
from headrace.service.settings import Settings
from headrace.service.supervisor import Supervisor
from tests.service.shell import until
from tests.service.systemd import Systemd

IMPORTS = """
    import os, signal, sys, time
"""
REPORTS = (
    IMPORTS
    + """
    index, lifeline, reports, discovery = os.environ["HEADRACE_WORKER"].split(":", 3)
    os.write(int(reports), b'{"metrics":"http://127.0.0.1:900%s","instance":"i"}\\n' % index.encode())
"""
)
FOR_EVER = """
    while True:
        time.sleep(60)
"""
WAITS = IMPORTS + "    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))" + REPORTS + FOR_EVER


class Watched:
    """A supervisor that runs in this process."""

    def __init__(
        self,
        program: str,
        *,
        workers: int = 2,
        notify: SdNotify | None = None,
        python: str = sys.executable,
        **settings: Any,
    ) -> None:
        self.said: list[str] = []
        self.expelled = 0
        tables = {
            "app": {"name": "shop"},
            "log": {"backend": "kafka"},
            "kafka": {"bootstrap_servers": "k:1"},
            **settings,
        }
        self.supervisor = Supervisor(
            Settings.model_validate(tables),
            workers=workers,
            command=[python, "-c", textwrap.dedent(program)],
            expel=self._expel,
            say=self.said.append,
            notify=notify,
        )
        self.code: int | None = None

    async def _expel(self) -> Sequence[str]:
        self.expelled += 1
        return ()

    async def run(self) -> None:
        self.code = await self.supervisor.run()

    def pids(self) -> list[int]:
        workers = self.supervisor._workers
        return [worker.pid for worker in workers if worker.process is not None and worker.metrics]

    def says(self, words: str) -> list[str]:
        return [line for line in self.said if words in line]


@asynccontextmanager
async def watched(program: str, **options: Any) -> AsyncIterator[Watched]:
    it = Watched(program, **options)
    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(it.run())
        try:
            yield it
        finally:
            if not task.done():
                os.kill(os.getpid(), signal.SIGTERM)


async def test_a_worker_that_dies_is_started_again_and_the_group_hears_of_it() -> None:
    async with watched(WAITS) as it:
        await until(lambda: len(it.pids()) == 2)
        await until(lambda: it.expelled == 1)  # tried once before it is needed
        before = it.pids()
        os.kill(before[1], signal.SIGKILL)
        await until(lambda: len(it.pids()) == 2 and it.pids() != before)
        await until(lambda: it.expelled == 2)
        assert it.pids()[0] == before[0]
        assert it.says("was ended by SIGKILL; it is started again now")
    assert it.code == 0


async def test_a_signal_for_more_lines_reaches_every_worker_that_works(tmp_path: Path) -> None:
    notes = f"    signal.signal(signal.SIGUSR1, lambda *_: open(os.path.join({str(tmp_path)!r}, str(os.getpid())), 'x').close())"
    async with watched(IMPORTS + notes + WAITS) as it:
        await until(lambda: len(it.pids()) == 2)
        os.kill(os.getpid(), signal.SIGUSR1)
        await until(lambda: {file.name for file in tmp_path.iterdir()} == {str(pid) for pid in it.pids()})
        assert not it.says("ended")
    assert it.code == 0


async def test_systemd_hears_of_it_when_all_workers_work_and_when_they_stop(tmp_path: Path) -> None:
    with Systemd(tmp_path, watchdog_s=0.03) as systemd:
        async with watched(WAITS, notify=SdNotify.from_environment(dict(systemd.environment))) as it:
            await until(lambda: systemd.heard("READY"))
            assert len(it.pids()) == 2
            assert systemd.heard("STATUS") == ["2 workers"]
            pings = len(systemd.heard("WATCHDOG"))
            await until(lambda: len(systemd.heard("WATCHDOG")) > pings + 2)
            assert not systemd.heard("STOPPING")
        assert systemd.heard("STOPPING") == ["1"]


async def test_the_discovery_document_lists_the_workers_that_live(tmp_path: Path) -> None:
    file = tmp_path / "targets.json"
    async with watched(WAITS, telemetry={"discovery_file": str(file)}) as it:
        await until(lambda: len(it.pids()) == 2)
        assert json.loads(file.read_bytes()) == [
            {"targets": ["127.0.0.1:9000"], "labels": {"app": "shop", "worker": "0"}},
            {"targets": ["127.0.0.1:9001"], "labels": {"app": "shop", "worker": "1"}},
        ]
    assert not file.exists()


async def test_a_worker_that_dies_over_and_over_waits_longer_each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("headrace.service.supervisor._BACK_OFF_S", (0.01, 0.03))
    async with watched(REPORTS + "    os.kill(os.getpid(), signal.SIGKILL)", workers=1) as it:
        await until(lambda: len(it.says("is started again")) >= 5)
        waits = [line.split("again ")[1] for line in it.says("is started again")[:5]]
        assert waits == ["now.", "in 0.01 s.", "in 0.02 s.", "in 0.03 s.", "in 0.03 s."]
    assert it.code == 0


async def test_a_worker_that_cannot_be_started_now_is_tried_again_and_the_others_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As while the installation is replaced, or where the machine has no more processes."""
    monkeypatch.setattr("headrace.service.supervisor._BACK_OFF_S", (0.01, 0.03))
    python = tmp_path / "python"
    python.symlink_to(sys.executable)
    async with watched(WAITS, python=str(python)) as it:
        await until(lambda: len(it.pids()) == 2)
        before, descriptors = it.pids(), len(list(Path("/proc/self/fd").iterdir()))
        python.unlink()
        os.kill(before[1], signal.SIGKILL)
        await until(lambda: len(it.says("Worker 1 cannot be started: [Errno 2]")) >= 3)
        assert it.pids() == before[:1]
        assert (
            len(list(Path("/proc/self/fd").iterdir())) <= descriptors
        )  # those of the dead one are closed, and no others opened
        python.symlink_to(sys.executable)
        await until(lambda: len(it.pids()) == 2)
        assert it.pids()[0] == before[0]
    assert it.code == 0


async def test_the_group_is_not_asked_for_by_who_was_stopped_before_anything_worked() -> None:
    """A broker that is away would hold up the stop."""
    async with watched(IMPORTS + FOR_EVER) as it:
        await until(lambda: it.supervisor._workers[0].process is not None)
    assert it.code == 0
    assert it.expelled == 0


async def test_a_start_that_can_never_work_ends_with_its_exit_code_and_one_worker_tried() -> None:
    async with watched("import sys; sys.exit(7)", workers=3) as it:
        await until(lambda: it.code is not None)
    assert it.code == 7
    assert [worker.pid > 0 for worker in it.supervisor._workers] == [True, False, False]


async def test_the_same_exit_code_of_a_worker_that_had_started_is_a_death() -> None:
    program = REPORTS + "    sys.exit(7)"
    async with watched(program, workers=1) as it:
        await until(lambda: it.says("ended with exit code 7; it is started again"))
    assert it.code == 0


async def test_a_second_signal_ends_the_workers_at_once_and_is_the_exit_code() -> None:
    program = IMPORTS + "    signal.signal(signal.SIGTERM, signal.SIG_IGN)" + REPORTS + FOR_EVER
    async with watched(program) as it:
        await until(lambda: len(it.pids()) == 2)
        os.kill(os.getpid(), signal.SIGINT)
        await until(lambda: it.says("Stopping all workers"))
        os.kill(os.getpid(), signal.SIGINT)
        await until(lambda: it.code is not None)
    assert it.code == 130


async def test_a_terminal_that_is_gone_stops_all_in_good_order() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)  # the tests themselves may run under nohup
    try:
        async with watched(WAITS) as it:
            await until(lambda: len(it.pids()) == 2)
            os.kill(os.getpid(), signal.SIGHUP)
            await until(lambda: it.code is not None)
    finally:
        signal.signal(signal.SIGHUP, before)
    assert it.code == 0


async def test_one_that_was_started_to_outlive_its_terminal_does() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as nohup does
    try:
        async with watched(WAITS, workers=1) as it:
            (pid,) = await until(it.pids)
            os.kill(os.getpid(), signal.SIGHUP)
            os.kill(pid, signal.SIGKILL)
            await until(lambda: it.pids() not in ([], [pid]))  # it goes on with its work
        assert it.code == 0
    finally:
        signal.signal(signal.SIGHUP, before)


async def test_a_worker_that_does_not_stop_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("headrace.service.supervisor._EXTRA_S", 0.1)
    program = IMPORTS + "    signal.signal(signal.SIGTERM, signal.SIG_IGN)" + REPORTS + FOR_EVER
    settings = {"worker": {"handoff_grace": "10ms", "shutdown_grace": "100ms"}}
    async with watched(program, workers=1, **settings) as it:
        await until(lambda: len(it.pids()) == 1)
    assert it.code == 1
    assert it.says("is killed")
