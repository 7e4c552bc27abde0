"""Kafka is away: at start, or killed in the middle and back later. A clear line, not ready, then everything goes on; nothing lost, nothing doubled."""

import asyncio
import os
import time
from collections.abc import Iterator

import anyio
import pytest

from headrace.topics.outcome import RunStatus
from tests.kafka_broker.broker import KafkaBroker, free_port
from tests.service.end_to_end.backend import Backend
from tests.service.end_to_end.conftest import MakeStation
from tests.service.end_to_end.instance import status_of
from tests.service.end_to_end.judge import judge
from tests.service.end_to_end.ledger import Ledger
from tests.service.end_to_end.station import Station, View
from tests.service.end_to_end.test_kill import ORDERS, orders, publish_as_they_are_worked_off
from tests.service.end_to_end.waiting import eventually, eventually_now

ACTIVE = 40
BEGUN = 500  # effects; about a seventh of all: the rest is published, routed and done around the outage


@pytest.fixture(scope="module")
def fragile(kafka_available: None) -> Iterator[KafkaBroker]:
    """A broker of this module's own; it need not run when a test begins."""
    broker = KafkaBroker()
    yield broker
    broker.kill()
    broker.remove()


@pytest.fixture
async def running(fragile: KafkaBroker) -> KafkaBroker:
    if not fragile.pid:
        await fragile.start()
    return fragile


async def test_a_broker_that_is_away_at_start_is_waited_for(fragile: KafkaBroker, station: MakeStation) -> None:
    fragile.kill()
    port = free_port()
    place = station(Backend("kafka", fragile.bootstrap_servers), "orders.py", telemetry__metrics_port=port)
    waiting = place.spawn()
    await eventually_now(lambda: waiting.lines("outage.began"), "a line about the broker")
    [line] = waiting.lines("outage.began")
    assert fragile.bootstrap_servers in line["name"]
    ready, live = f"http://127.0.0.1:{port}/readyz", f"http://127.0.0.1:{port}/livez"
    assert (status_of(ready), status_of(live)) == (503, 200)
    await fragile.start()
    await waiting.ready()
    assert waiting.lines("outage.ended")
    tries = [line for line in waiting.lines("outage.began") if line.get("name") == fragile.bootstrap_servers]
    assert len(tries) == 1, "one line, not one a try"
    async with place.view() as view:
        await view.publish("orders", orders(range(20)))
        ledger = await view.all_ended(20)
        assert len(ledger.with_status(RunStatus.SUCCEEDED)) == 20
    assert "Traceback" not in waiting.stderr
    assert waiting.stop() == 0


async def test_sigterm_ends_a_service_that_waits_for_its_broker(kafka_available: None, station: MakeStation) -> None:
    place = station(Backend("kafka", f"127.0.0.1:{free_port()}"), "orders.py")
    waiting = place.spawn()
    await eventually_now(lambda: waiting.lines("outage.began"), "a line about the broker")
    assert waiting.stop() == 0
    assert "Traceback" not in waiting.stderr


async def all_done(view: View) -> tuple[Ledger, int]:
    """Wait until every record of the source topic has its run, and all runs have ended; and how many there are."""
    count = len(await eventually(lambda: view.records("orders"), "the broker answers again"))
    assert count >= ORDERS
    return await view.all_ended(count), count


@pytest.mark.parametrize("away_s", [5, pytest.param(30, marks=pytest.mark.slow)])
async def test_a_broker_that_dies_and_comes_back_loses_and_doubles_nothing(
    running: KafkaBroker, station: MakeStation, away_s: int
) -> None:
    if away_s > 10 and not os.environ.get("HEADRACE_LONG_TESTS"):
        pytest.skip("the long outage runs on demand: HEADRACE_LONG_TESTS=1")
    place = station(Backend("kafka", running.bootstrap_servers), "orders.py", worker__max_active_runs=ACTIVE)
    service = await place.spawn(env={"E2E_WORK_S": "0.03"}).ready()
    async with place.view() as view:
        async with asyncio.TaskGroup() as group:
            group.create_task(publish_as_they_are_worked_off(place, view))
            await eventually_now(lambda: place.effects.count() >= BEGUN, "work")
            await _outage(place, running, away_s)
        await eventually_now(lambda: service.probe("readyz") == 200, lambda: f"ready: {service.stderr[-3000:]}")
        ledger, count = await all_done(view)
        verdict = judge(ledger, place.effects, await view.records("results"), orders=count)
        assert len(ledger.with_status(RunStatus.SUCCEEDED)) == count
        assert verdict.repeated_attempts == 0, "the process lived: what it did, it knows"
        print(f"{away_s} s away: {verdict}, {ledger.skipped} records skipped")
        assert verdict.physical_duplicates <= ACTIVE
    assert len(place.instances) == 1
    assert "Traceback" not in service.stderr
    assert service.stop() == 0


async def _outage(place: Station, broker: KafkaBroker, away_s: float) -> None:
    """Kill the broker, hold it away for so long, and look at what the service says meanwhile."""
    service = place.now
    ends = time.monotonic() + away_s
    broker.kill()
    await eventually_now(lambda: service.probe("readyz") == 503, lambda: f"not ready: {service.stderr[-3000:]}")
    assert service.probe("livez") == 200
    await eventually_now(lambda: service.lines("outage.began"), "a line about it")
    while time.monotonic() < ends:  # the fault itself takes its time
        assert service.process.poll() is None, service.stderr[-3000:]
        assert service.probe("readyz") == 503
        await anyio.sleep(0.2)
    await broker.start()


async def test_a_broker_that_stops_answering_loses_and_doubles_nothing(
    running: KafkaBroker, station: MakeStation
) -> None:
    """Its connections stay open and nothing comes: requests are neither refused nor answered."""
    place = station(Backend("kafka", running.bootstrap_servers), "orders.py", worker__max_active_runs=ACTIVE)
    service = await place.spawn(env={"E2E_WORK_S": "0.03"}).ready()
    async with place.view() as view:
        async with asyncio.TaskGroup() as group:
            group.create_task(publish_as_they_are_worked_off(place, view))
            await eventually_now(lambda: place.effects.count() >= BEGUN, "work")
            running.pause()
            try:
                await anyio.sleep(5)  # the fault itself; a session of the broker's is 2 s
            finally:
                running.resume()
        ledger, count = await all_done(view)
        verdict = judge(ledger, place.effects, await view.records("results"), orders=count)
        assert verdict.repeated_attempts == 0
        print(f"5 s without an answer: {verdict}, {ledger.skipped} records skipped")
    assert service.stop() == 0


async def test_an_outage_that_the_process_does_not_survive(running: KafkaBroker, station: MakeStation) -> None:
    """The broker goes, the process is killed, both come back."""
    place = station(Backend("kafka", running.bootstrap_servers), "orders.py", worker__max_active_runs=ACTIVE)
    service = await place.spawn().ready()
    async with place.view() as view:
        async with asyncio.TaskGroup() as group:
            group.create_task(publish_as_they_are_worked_off(place, view))
            await eventually_now(lambda: place.effects.count() >= BEGUN, "work")
            running.kill()
            await eventually_now(lambda: service.lines("outage.began"), "it has noticed")
            service.kill()
            await running.start()
            await place.spawn().ready()
        ledger, count = await all_done(view)
        judge(ledger, place.effects, await view.records("results"), orders=count)
    assert place.now.stop() == 0
