"""What a start came to, for who asks only when it was read already: an acknowledgement may be slower than a reader."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest

from headrace.observability.silent import Silent
from headrace.service.api.live_runs import Followed, LiveRuns, Took
from headrace.service.api.live_stream import LiveStream
from headrace.service.settings import Settings
from headrace.topics.command import OnConflict, Start
from headrace.topics.identity import ClientId, run_id
from headrace.topics.partition_hash import partition_of
from headrace.topics.run_record import CommandRecord
from tests.service.cli.recorded import LOG, RecordedPartition, Recording
from tests.service.shell import PATIENCE_S

PARTITIONS, KEY = 8, "one"
HOME = partition_of(KEY.encode(), PARTITIONS)
Following = tuple[Followed, RecordedPartition]


@pytest.fixture
async def following(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Following]:
    monkeypatch.chdir(tmp_path)
    settings = Settings.model_validate({"log": {"path": str(tmp_path / LOG)}})
    async with Recording() as recording, asyncio.timeout(PATIENCE_S), asyncio.TaskGroup() as group:
        live = LiveRuns(settings, PARTITIONS, LiveStream(), Silent())
        task = group.create_task(live.run())
        await asyncio.sleep(0)  # its own group is open
        with live.following(HOME) as followed:
            yield followed, await recording.partition(HOME)
        task.cancel()


async def started(partition: RecordedPartition, id_: str, policy: OnConflict) -> tuple[int, str]:
    """Offset and run."""
    identity = ClientId(id_)
    start = Start("default", "only", "1", msgspec.Raw(b"{}"), key=KEY, policy=policy)
    return await partition.append(CommandRecord(identity, start)), run_id(HOME, identity)


async def test_who_asks_later_hears_the_same(following: Following) -> None:
    followed, partition = following
    first = await started(partition, "first", OnConflict.REJECT)
    refused = await started(partition, "second", OnConflict.REJECT)
    joined = await started(partition, "third", OnConflict.JOIN)
    last = await started(partition, "last", OnConflict.ALLOW)
    await followed.took(*last)  # all of them were read by now
    took = followed.took(*first)
    assert took.done()
    summary = took.result().run
    assert summary is not None
    assert (summary.id, summary.status) == (first[1], "running")
    assert followed.took(*refused).result() == Took(refused=True, open_run=first[1])
    assert followed.took(*joined).result() == Took(joined=True, open_run=first[1])
