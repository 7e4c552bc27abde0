"""SIGTERM: what runs ends within the grace and is delivered, nothing finished is done again, the exit code is 0; the second signal leaves at once."""

import signal

from headrace.topics.command import Deliver
from headrace.topics.outcome import RunStatus
from tests.service.end_to_end.backend import PARTITIONS, Backend
from tests.service.end_to_end.conftest import MakeStation
from tests.service.end_to_end.event import event
from tests.service.end_to_end.judge import judge
from tests.service.end_to_end.station import Station
from tests.service.end_to_end.test_kill import orders
from tests.service.end_to_end.waiting import eventually_now

ORDERS = 200


def open_gate(place: Station, name: str) -> None:
    (place.folder / name).touch()


async def test_a_running_attempt_is_delivered_within_the_grace_and_not_made_again(
    backend: Backend, station: MakeStation
) -> None:
    place = station(backend, "patience.py")
    first = await place.spawn().ready()
    async with place.view() as view:
        await view.publish("in", [event("gate", {"id": "coroutine"}), event("thread", {"id": "thread"})])
        await eventually_now(lambda: place.effects.count() >= 4, "both are in their handlers")
        first.terminate()
        await eventually_now(lambda: len(first.lines("partition.released")) == PARTITIONS, "all are released")
        assert first.probe("readyz") != 200
        open_gate(place, "coroutine")
        open_gate(place, "thread")
        assert first.ended() == 0
        ledger = await view.ledger.refresh()
        delivered = [body for run in ledger.entries for body in ledger.bodies(run) if isinstance(body, Deliver)]
        assert len(delivered) == 2
        assert sum(len(release.attempts) for release in ledger.releases) == 2
        await place.spawn().ready()
        ledger = await view.all_ended(2)
        assert len(ledger.with_status(RunStatus.SUCCEEDED)) == 2
        begun = place.effects.began()
        assert all(len(attempts) == 1 for attempts in begun.values()), begun
        assert len(await view.records("out")) == 2
    assert place.now.stop() == 0


async def test_an_attempt_that_outlives_the_grace_is_made_again_with_its_key_and_number(
    backend: Backend, station: MakeStation
) -> None:
    place = station(backend, "patience.py", worker__handoff_grace="300ms", worker__shutdown_grace="3s")
    await place.spawn().ready()
    async with place.view() as view:
        await view.publish("in", [event("gate", {"id": "coroutine"}), event("thread", {"id": "thread"})])
        await eventually_now(lambda: place.effects.count() >= 4, "both are in their handlers")
        assert place.now.stop() == 0, "although a thread still runs"
        open_gate(place, "coroutine")
        open_gate(place, "thread")
        await place.spawn().ready()
        ledger = await view.all_ended(2)
        assert len(ledger.with_status(RunStatus.SUCCEEDED)) == 2
        again = [begun for begun in place.effects.began().values() if len(begun) > 1]
        assert len(again) == 2
        assert all({effect.number for effect in begun} == {1} for begun in again)
    assert place.now.stop() == 0


async def test_a_stop_under_load_loses_nothing_and_repeats_nothing(backend: Backend, station: MakeStation) -> None:
    place = station(backend, "orders.py")
    await place.spawn().ready()
    async with place.view() as view:
        for partition in range(4):
            await view.publish("orders", orders(range(partition, ORDERS, 4)), partition=partition)
        for stop in range(3):
            await eventually_now(lambda stop=stop: place.effects.count() >= 250 * (stop + 1), "work")
            assert place.now.stop() == 0, place.now.stderr[-3000:]
            assert "Traceback" not in place.now.stderr
            await place.spawn().ready()
        ledger = await view.all_ended(ORDERS)
        verdict = judge(ledger, place.effects, await view.records("results"), orders=ORDERS)
        assert verdict.repeated_attempts == 0
        assert verdict.physical_duplicates == 0
        assert len(ledger.with_status(RunStatus.SUCCEEDED)) == ORDERS
    assert place.now.stop() == 0


async def test_the_second_signal_leaves_at_once_and_the_log_survives_it(backend: Backend, station: MakeStation) -> None:
    place = station(backend, "patience.py", worker__handoff_grace="3s")  # for so long its successor will wait
    first = await place.spawn().ready()
    async with place.view() as view:
        await view.publish("in", [event("gate", {"id": "gate"})])
        await eventually_now(lambda: place.effects.count() >= 3, "it is in its handler")
        first.terminate()
        await eventually_now(lambda: first.lines("service.stopping"), "the stop has begun")
        first.process.send_signal(signal.SIGINT)
        assert first.ended() == 130
        open_gate(place, "gate")
        await place.spawn().ready()
        ledger = await view.all_ended(1)
        assert len(ledger.with_status(RunStatus.SUCCEEDED)) == 1
    assert place.now.stop() == 0
