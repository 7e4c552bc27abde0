"""kill -9 at any moment, and again, until the work is done: nothing is lost, nothing finished is done again."""

import asyncio
import os
import random
from pathlib import Path

import pytest

from headrace.service.history.database import Database
from headrace.service.history.link import HistoryLag
from headrace.service.history.queries import SqlQueries
from headrace.topics.log import NewRecord, TopicPartition
from headrace.topics.outcome import RunStatus
from tests.postgres_server import PostgresServer
from tests.service.end_to_end.backend import Backend
from tests.service.end_to_end.conftest import MakeStation
from tests.service.end_to_end.judge import judge
from tests.service.end_to_end.station import Station, View
from tests.service.end_to_end.waiting import eventually, eventually_now
from tests.service.history.truth import agrees

ORDERS = 400
KILLS = 5
ACTIVE = 60
SEEDS = range(int(os.environ.get("HEADRACE_KILL_SEEDS", "1")))  # more on demand


PORTION = 5
AHEAD = 80  # orders that are published and not worked off: the router works all the time, and so is hit too
EFFECTS_EACH = 9  # of an order, about


async def publish_as_they_are_worked_off(place: Station, view: View) -> None:
    """A producer that keeps some orders ahead, and does not give up while the broker is away.

    What it repeats after an error may be in the topic twice: another record, another run.
    """
    for first in range(0, ORDERS, PORTION):
        portion = orders(range(first, first + PORTION))
        partition = first // PORTION % 4

        async def put(first: int = first, partition: int = partition, portion: list[NewRecord] = portion) -> bool:
            if first * EFFECTS_EACH > place.effects.count() + AHEAD * EFFECTS_EACH:
                return False
            await view.publish("orders", portion, partition=partition)
            return True

        await eventually(put, lambda: f"published: {place.now.stderr[-2000:]}")


def orders(numbers: range) -> list[NewRecord]:
    return [NewRecord(key=b"o%d" % n, value=b'{"id":"o%d","n":%d}' % (n, n)) for n in numbers]


@pytest.mark.parametrize("seed", SEEDS)
async def test_nothing_is_lost_or_done_again_however_often_the_process_is_killed(
    backend: Backend, station: MakeStation, seed: int, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    """And the history is that of the log, on SQLite and on PostgreSQL, though its feeders were killed too."""
    url = f"sqlite:///{tmp_path / 'history.sqlite'}"
    if backend.servers:
        postgres: PostgresServer = request.getfixturevalue("postgres")
        url = postgres.database()
    place = station(backend, "orders.py", worker__max_active_runs=ACTIVE, history__url=url)
    rng = random.Random(seed)
    await place.spawn().ready()
    async with place.view() as view, asyncio.TaskGroup() as group:
        group.create_task(publish_as_they_are_worked_off(place, view))
        interrupted = 0
        for kill in range(KILLS):
            seen = place.effects.count()
            if kill % 2:  # somewhere in taking over: replay, announce, first attempts
                await eventually_now(lambda: place.now.lines("partition.taken"), "a partition taken")
            else:
                wanted = seen + rng.randrange(100, 400)
                await eventually_now(lambda wanted=wanted: place.effects.count() >= wanted, "work after a restart")
            pid = place.now.pid
            place.now.kill()
            interrupted += place.effects.interrupted(pid)
            place.spawn()
        ledger = await view.all_ended(ORDERS)
        verdict = judge(ledger, place.effects, await view.records("results"), orders=ORDERS)
        assert len(ledger.with_status(RunStatus.SUCCEEDED)) == ORDERS
        assert interrupted > 0, "no kill hit a running handler: this run proves nothing"
        print(f"{backend.kind} seed {seed}: {interrupted} attempts interrupted, {verdict}, {ledger.skipped} skipped")
        in_flight = KILLS * ACTIVE * 2  # two branches at most
        assert verdict.repeated_attempts <= in_flight
        assert verdict.physical_duplicates <= KILLS * ACTIVE
        assert await history_agrees(url, place, view) == ORDERS
    assert place.now.stop() == 0


async def history_agrees(url: str, place: Station, view: View) -> int:
    """The number of runs in it, which are all as the log says."""
    topic = place.topic("runs")
    places = [TopicPartition(topic, number) for number in range(await view.log.partitions(topic))]
    ends = {at.partition: offsets.end for at, offsets in (await view.log.offsets(places)).items()}
    records = {at.partition: await view.until(at, 0, ends[at.partition]) for at in places}
    database = Database(url)
    await database.open(place.name)

    async def look() -> bool:
        async with database.asking() as connection:
            found = await connection.exec_driver_sql("SELECT partition, next_offset FROM headrace_positions")
            read = {row.partition: row.next_offset for row in found}
        return all(read.get(partition, 0) >= end for partition, end in ends.items())

    try:
        await eventually(look, lambda: f"a history that has read everything: {place.now.stderr[-2000:]}")
        return await agrees(SqlQueries(database, HistoryLag), records, topic)
    finally:
        await database.close()
