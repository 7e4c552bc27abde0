"""The embedded log: its file, its owner, its disk. What every log does is in tests/contract."""

import asyncio
import os
import signal
import sqlite3
import stat
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import anyio
import pytest

from headrace.topics.log import (
    LogCorrupt,
    LogOwned,
    LogRecord,
    LogUnavailable,
    NewRecord,
    Offsets,
    TopicPartition,
)
from headrace.topics.log_embedded import EmbeddedLog
from headrace.topics.log_embedded_reader import BUFFER_BYTES_MAX
from headrace.topics.spec import TopicSpec

AT = TopicPartition("orders", 0)
PATIENCE_S = 60.0


async def create(log: EmbeddedLog, partitions: int = 1) -> None:
    await log.create([TopicSpec(name=AT.topic, partitions=partitions)])


async def test_a_second_owner_is_refused_with_the_pid_of_the_first(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "log.sqlite"
    async with EmbeddedLog(path, owner=True):
        with pytest.raises(LogOwned) as caught:
            async with EmbeddedLog(path, owner=True):
                pass
        assert caught.value.pid == os.getpid()
        assert caught.value.code == "HR5005"
        assert str(os.getpid()) in caught.value.report()
    async with EmbeddedLog(path, owner=True):  # given back
        pass


async def test_a_killed_owner_leaves_no_lock(tmp_path: Path) -> None:
    path = tmp_path / "log.sqlite"
    program = (
        "import asyncio, sys\nfrom pathlib import Path\nfrom headrace.topics.log_embedded import EmbeddedLog\n"
        "async def main():\n    async with EmbeddedLog(Path(sys.argv[1]), owner=True):\n"
        "        print('open', flush=True)\n        await asyncio.Event().wait()\nasyncio.run(main())\n"
    )
    with subprocess.Popen([sys.executable, "-c", program, str(path)], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert await asyncio.to_thread(process.stdout.readline) == "open\n"
        with pytest.raises(LogOwned) as caught:
            async with EmbeddedLog(path, owner=True):
                pass
        assert caught.value.pid == process.pid
        process.send_signal(signal.SIGKILL)
    async with EmbeddedLog(path, owner=True):
        pass


async def test_the_files_are_for_us_alone(tmp_path: Path) -> None:
    path = tmp_path / "folder" / "log.sqlite"
    async with EmbeddedLog(path, owner=True) as log:
        await create(log)
        await log.append(AT, [NewRecord(b"x")])
        files = list(path.parent.iterdir())
        assert {file.name for file in files} >= {"log.sqlite", "log.sqlite-wal", "log.sqlite.lock"}
        assert {stat.S_IMODE(file.stat().st_mode) for file in files} == {0o600}
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


async def test_a_file_that_is_not_there_is_made_by_its_owner_only(tmp_path: Path) -> None:
    path = tmp_path / "log.sqlite"
    with pytest.raises(LogUnavailable, match="no embedded log"):
        async with EmbeddedLog(path, owner=False):
            pass
    assert not path.exists()


@pytest.mark.parametrize("content", [b"this is no database" * 100, None])
async def test_something_else_in_its_place_is_left_alone(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "log.sqlite"
    if content is None:
        with sqlite3.connect(path) as other:
            other.execute("CREATE TABLE somebody_elses (x)")
        other.close()
    else:
        path.write_bytes(content)
    before = path.read_bytes()
    with pytest.raises(LogCorrupt):
        async with EmbeddedLog(path, owner=True):
            pass
    if content is not None:
        assert path.read_bytes() == before
    with pytest.raises(LogCorrupt):  # and the lock was given back
        async with EmbeddedLog(path, owner=True):
            pass


async def test_a_file_of_another_format_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "log.sqlite"
    async with EmbeddedLog(path, owner=True):
        pass
    with sqlite3.connect(path) as file:
        file.execute("PRAGMA user_version = 99")
    file.close()
    with pytest.raises(LogCorrupt, match="format 99"):
        async with EmbeddedLog(path, owner=True):
            pass


def test_a_full_disk_fails_appends_visibly_and_harms_nothing(tmp_path: Path) -> None:
    """In a process of its own: a limit on file size stands for the full disk, and is lifted like one."""
    program = """
import asyncio, resource, signal, sys
from pathlib import Path
from headrace.topics.errors import Transient
from headrace.topics.log import NewRecord, TopicPartition
from headrace.topics.log_embedded import EmbeddedLog
from headrace.topics.spec import TopicSpec

async def main():
    at = TopicPartition("t", 0)
    async with EmbeddedLog(Path(sys.argv[1]), owner=True) as log:
        await log.create([TopicSpec(name="t", partitions=1)])
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (600_000, resource.RLIM_INFINITY))
        taken, failed = 0, 0
        assert log.reachable
        while failed < 3:
            try:
                await log.append(at, [NewRecord(b"%d:" % taken + b"x" * 50_000)])
                taken += 1
            except Transient as error:
                assert error.code in {"HR5001", "HR5002"}, error
                failed += 1
        assert taken > 3
        assert not log.reachable
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        for number in range(5):
            await log.append(at, [NewRecord(b"after")])
        assert log.reachable
        end = (await log.offsets([at]))[at].end
        found = []
        async with log.read(at, 0) as batches:
            while len(found) < end:
                found += (await anext(batches)).records
        assert [record.offset for record in found] == list(range(end))
        values = [record.value.split(b":")[0] for record in found]
        assert values == [b"%d" % number for number in range(taken)] + [b"after"] * 5, values
asyncio.run(main())
print("whole")
"""
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path / "log.sqlite")], capture_output=True, text=True, check=False
    )
    assert done.stdout == "whole\n", done.stderr
    with sqlite3.connect(tmp_path / "log.sqlite") as file:
        assert file.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    file.close()


async def test_another_process_wakes_a_waiting_reader(tmp_path: Path) -> None:
    path = tmp_path / "log.sqlite"
    async with EmbeddedLog(path, owner=True) as log:
        await create(log)
        async with log.read(AT, 0) as batches:
            program = (
                "import asyncio, sys\nfrom pathlib import Path\nfrom headrace.topics.log import *\n"
                "from headrace.topics.log_embedded import EmbeddedLog\n"
                "async def main():\n    async with EmbeddedLog(Path(sys.argv[1]), owner=False) as log:\n"
                "        await log.publish(TopicPartition('orders', 0), [NewRecord(b'from afar')])\nasyncio.run(main())\n"
            )
            process = await asyncio.create_subprocess_exec(sys.executable, "-c", program, str(path))
            with anyio.fail_after(PATIENCE_S):
                batch = await anext(batches)
            assert [record.value for record in batch.records if isinstance(record, LogRecord)] == [b"from afar"]
            assert await process.wait() == 0
        await log.append(AT, [NewRecord(b"mine")])
        assert (await log.offsets([AT]))[AT] == Offsets(0, 2)


async def test_everything_that_waits_goes_in_one_transaction(tmp_path: Path) -> None:
    path = tmp_path / "log.sqlite"
    async with EmbeddedLog(path, owner=True) as log:
        await create(log, partitions=64)
        commits: list[int] = []
        all_asked = threading.Event()
        writer = log._live_writer
        write = writer._write

        def count(requests: list[Any]) -> None:
            """On the writer's thread; its first transaction begins when everything waits."""
            commits.append(len(requests))
            assert all_asked.wait(PATIENCE_S)
            write(requests)

        writer._write = count
        async with asyncio.TaskGroup() as tasks:
            for number in range(64):
                tasks.create_task(log.append(TopicPartition(AT.topic, number), [NewRecord(b"x")]))
            with anyio.fail_after(PATIENCE_S):
                while sum(commits) + writer._queue.qsize() < 64:
                    await asyncio.sleep(0)
            all_asked.set()
        assert sum(commits) == 64
        assert len(commits) <= 2  # what came first, and the rest, which had queued behind it


async def test_trimmed_rows_leave_the_file_also_after_a_crash(tmp_path: Path) -> None:
    path = tmp_path / "log.sqlite"

    def rows() -> int:
        with sqlite3.connect(path) as file:
            found: int = file.execute("SELECT count(*) FROM batch").fetchone()[0]
        file.close()
        return found

    async with EmbeddedLog(path, owner=True) as log:
        await create(log)
        for _ in range(600):
            await log.append(AT, [NewRecord(b"x")])
        await log.trim(AT, 500)
        with anyio.fail_after(PATIENCE_S):
            while rows() > 100:
                await log.append(AT, [NewRecord(b"y")])
                await log.trim(AT, (await log.offsets([AT]))[AT].end - 50)
    with sqlite3.connect(path) as file:  # as a process leaves it that dies after the trim
        file.execute("UPDATE head SET start_offset = end_offset")
    file.close()
    async with EmbeddedLog(path, owner=True) as log:
        with anyio.fail_after(PATIENCE_S):
            while rows():
                await anyio.lowlevel.checkpoint()
        offsets = (await log.offsets([AT]))[AT]
        assert offsets.start == offsets.end >= 600


async def test_a_reader_far_behind_reads_in_bounded_steps(tmp_path: Path) -> None:
    async with EmbeddedLog(tmp_path / "log.sqlite", owner=True) as log:
        await create(log)
        for _ in range(50):
            await log.append(AT, [NewRecord(bytes(100_000))] * 2)
        await log.append(AT, [NewRecord(b"")] * 20_000)
        seen = 0
        async with log.read(AT, 0) as batches:
            while seen < 20_100:
                batch = await anext(batches)
                assert [record.offset for record in batch.records] == list(range(seen, seen + len(batch.records)))
                size = sum(len(record.value or b"") for record in batch.records if isinstance(record, LogRecord))
                assert size <= BUFFER_BYTES_MAX + 512 * 1024
                assert batch.end_offset == 20_100
                seen += len(batch.records)


async def test_threads_switch_quickly_while_an_owner_has_the_file_open(tmp_path: Path) -> None:
    before = sys.getswitchinterval()
    async with EmbeddedLog(tmp_path / "log.sqlite", owner=True):
        assert sys.getswitchinterval() < before
    assert sys.getswitchinterval() == before


async def test_the_log_says_that_it_is_closed(tmp_path: Path) -> None:
    log = EmbeddedLog(tmp_path / "log.sqlite", owner=True)
    async with log:
        await create(log)
        await log.append(AT, [NewRecord(b"x")])
    with pytest.raises(RuntimeError, match="not open"):
        await log.append(AT, [NewRecord(b"x")])


def test_it_runs_on_uvloop(tmp_path: Path) -> None:
    uvloop = pytest.importorskip("uvloop")

    async def scenario() -> list[bytes | None]:
        async with EmbeddedLog(tmp_path / "log.sqlite", owner=True) as log:
            await create(log)
            async with log.read(AT, 0) as batches:
                for number in range(100):
                    await log.append(AT, [NewRecord(str(number).encode())])
                found: list[bytes | None] = []
                while len(found) < 100:
                    found += [
                        record.value for record in (await anext(batches)).records if isinstance(record, LogRecord)
                    ]
                return found

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        assert runner.run(scenario()) == [str(number).encode() for number in range(100)]


async def test_a_reader_hears_of_others_records_though_its_own_writer_met_them_first(tmp_path: Path) -> None:
    path = tmp_path / "log.sqlite"
    async with EmbeddedLog(path, owner=True) as ours, EmbeddedLog(path, owner=False) as theirs:
        await ours.create([TopicSpec(name="t", partitions=2)])
        async with asyncio.timeout(60), ours.read(TopicPartition("t", 0), 0) as batches:
            # a race: each round has the chance that our turn comes between their commit and our look
            for number in range(200):
                value = str(number).encode()
                async with asyncio.TaskGroup() as group:
                    group.create_task(theirs.append(TopicPartition("t", 0), [NewRecord(value=value)]))
                    group.create_task(ours.append(TopicPartition("t", 1), [NewRecord(value=value)]))
                batch = await anext(batches)
                assert [record.value for record in batch.records if isinstance(record, LogRecord)] == [value]
