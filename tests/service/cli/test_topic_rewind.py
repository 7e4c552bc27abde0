"""`headrace topic rewind` on a topic whose records are known one by one."""

import asyncio
import json
from pathlib import Path

import pytest

from headrace.service.cli.exit_code import ExitCode
from headrace.topics.command import Epoch
from headrace.topics.log import LogRecord, TopicPartition
from headrace.topics.log_embedded import EmbeddedLog
from headrace.topics.run_record import CommandRecord, decode
from tests.service.cli.conftest import Headrace
from tests.service.cli.recorded import LOG, SOURCE, Recording


@pytest.fixture
def orders(headrace: Headrace) -> None:
    """Five records in partition 0, none in the others."""

    async def record() -> None:
        async with Recording():
            pass

    asyncio.run(record())
    for n in range(5):
        assert headrace("event", "publish", SOURCE, "--data", json.dumps({"n": n}), "--partition", "0").code == 0


def epochs() -> list[Epoch]:
    """In the run log, partition by partition."""

    async def read() -> list[Epoch]:
        found: list[Epoch] = []
        async with EmbeddedLog(LOG, owner=False) as log:
            for number in range(await log.partitions("headrace.runs")):
                at = TopicPartition("headrace.runs", number)
                end = (await log.offsets([at]))[at].end
                if not end:
                    continue
                async with log.read(at, 0) as batches:
                    async for batch in batches:
                        for record in batch.records:
                            assert isinstance(record, LogRecord)
                            entry = decode(record.value)
                            if isinstance(entry, CommandRecord) and isinstance(entry.body, Epoch):
                                found.append(entry.body)
                        if batch.records[-1].offset + 1 >= end:
                            break
        return found

    return asyncio.run(read())


def timestamps(headrace: Headrace) -> list[int]:
    async def read() -> list[int]:
        at = TopicPartition(SOURCE, 0)
        async with EmbeddedLog(LOG, owner=False) as log, log.read(at, 0) as batches:
            found: list[int] = []
            async for batch in batches:
                found += [record.timestamp_ms for record in batch.records]
                if len(found) == 5:
                    return found
        raise AssertionError

    return asyncio.run(read())


@pytest.mark.parametrize(
    ("to", "offset"),
    [("earliest", 0), ("latest", 5), ("3", 3), ("99", 5), ("2020-01-01T00:00:00Z", 0), ("2120-01-01T00:00:00Z", 5)],
)
def test_a_rewind_says_where_to_and_tells_every_partition_of_the_run_log(
    headrace: Headrace, orders: None, to: str, offset: int
) -> None:
    answer = headrace("topic", "rewind", SOURCE, "--to", to, "-o", "json")
    assert answer.code == 0, answer.err
    first = answer.json[0]
    assert first == {"topic": SOURCE, "partition": 0, "committed": None, "offset": offset, "end": 5, "epoch": 1}
    told = epochs()
    assert len(told) == 8
    assert {(each.topic, each.epoch, each.offsets[0]) for each in told} == {(SOURCE, 1, offset)}
    lag = headrace("topic", "lag", "-o", "json").json
    assert [(row["committed"], row["lag"]) for row in lag if row["topic"] == SOURCE and not row["partition"]] == [
        (offset, 5 - offset)
    ]


def test_a_time_finds_the_first_record_that_is_not_older(headrace: Headrace, orders: None) -> None:
    from headrace.topics.event import format_time

    for offset, timestamp_ms in enumerate(times := timestamps(headrace)):
        answer = headrace("topic", "rewind", SOURCE, "--to", format_time(timestamp_ms), "--dry-run", "-o", "json")
        assert answer.json[0]["offset"] == times.index(timestamp_ms) <= offset


def test_each_rewind_is_a_newer_epoch(headrace: Headrace, orders: None) -> None:
    for epoch in (1, 2, 3):
        assert headrace("topic", "rewind", SOURCE, "--to", "earliest", "-o", "json").json[0]["epoch"] == epoch


def test_a_dry_run_changes_nothing(headrace: Headrace, orders: None) -> None:
    answer = headrace("topic", "rewind", SOURCE, "--to", "2", "--dry-run", "-o", "json")
    assert answer.json[0]["offset"] == 2
    assert epochs() == []


@pytest.mark.parametrize("to", ["yesterday", "-1", "", "2026-13-01T00:00:00Z"])
def test_no_place_is_a_usage_error(headrace: Headrace, orders: None, to: str) -> None:
    assert headrace("topic", "rewind", SOURCE, f"--to={to}").code == ExitCode.USAGE
    assert epochs() == []


def test_an_unknown_topic_is_not_found(headrace: Headrace, orders: None) -> None:
    assert headrace("topic", "rewind", "nope", "--to", "earliest").code == ExitCode.NOT_FOUND


def test_without_to_nothing_is_guessed(headrace: Headrace, orders: None, here: Path) -> None:
    assert headrace("topic", "rewind", SOURCE).code == ExitCode.USAGE


def test_a_run_log_that_cannot_be_read_is_no_ground_to_count_from(headrace: Headrace, orders: None) -> None:
    unknown = ("--data", '{"kind":"future"}', "--partition", "3", "--unchecked")
    assert headrace("event", "publish", "headrace.runs", *unknown).code == 0
    answer = headrace("topic", "rewind", SOURCE, "--to", "earliest")
    assert answer.code == ExitCode.ERROR
    assert "HR5101" in answer.err
