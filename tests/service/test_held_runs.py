"""Runs whose code is not loaded here."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from headrace import EventTrigger, Run, workflow
from headrace.topics.command import Cancel, Start
from headrace.topics.identity import ClientId, run_id
from headrace.topics.log import NewRecord, TopicPartition
from headrace.topics.outcome import RunEnded, RunStatus
from headrace.topics.run_record import CommandRecord, encode
from tests.service.fault_log import FaultLog
from tests.service.shell import Place, app_of, event, place_at, serving, until

RUNS = TopicPartition("shop.runs", 0)


@pytest.fixture
async def place(tmp_path: Path) -> AsyncIterator[Place]:
    async with place_at(tmp_path, partitions=1) as place:
        yield place


@workflow(on=EventTrigger("in", "here"), name="here")
async def here(run: Run, order: Any) -> None: ...


def command(name: str, body: Any) -> NewRecord:
    return NewRecord(value=encode(CommandRecord(id=ClientId(name), body=body)))


async def test_a_held_run_that_two_people_cancel_has_one_ending(place: Place) -> None:
    """M13: the second cancel comes before the end that the first one made is read back."""
    run = run_id(0, ClientId("start"))
    async with serving(FaultLog(place.log), app_of(here), partitions=1) as process:
        start = Start(namespace="default", workflow="gone", version="1", input=msgspec.Raw(b"null"))
        await place.log.publish(RUNS, [command("start", start)])
        await until(lambda: run in process.service.owners[0].runs.held)
        await place.log.publish(RUNS, [command("one", Cancel(run=run)), command("two", Cancel(run=run))])
        await until(lambda: process.observer.finished)
        await place.publish("in", event({}, type="here"))  # what comes behind has its end behind both
        await until(lambda: len(process.observer.finished) == 2)
    ends = [(ended.run == run, ended.status) for ended in await place.outcomes(RunEnded)]
    assert ends == [(True, RunStatus.CANCELLED), (False, RunStatus.SUCCEEDED)]
