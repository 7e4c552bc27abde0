"""Several processes of an app on Kafka: they share the partitions; whoever comes, goes, dies or is stopped for a while, nothing is lost or done twice."""

import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio

from headrace.topics.outcome import RunStatus
from tests.kafka_broker.broker import KafkaBroker
from tests.service.end_to_end.backend import PARTITIONS, Backend
from tests.service.end_to_end.conftest import MakeStation
from tests.service.end_to_end.event import event
from tests.service.end_to_end.instance import Instance
from tests.service.end_to_end.judge import Verdict, judge
from tests.service.end_to_end.ledger import Ledger
from tests.service.end_to_end.station import Station, View
from tests.service.end_to_end.test_kill import AHEAD, PORTION, orders
from tests.service.end_to_end.test_stop import open_gate
from tests.service.end_to_end.waiting import eventually, eventually_now

ACTIVE = 60
EFFECTS_EACH = 8  # of an order, about


class Load:
    """Orders are published, always some ahead of what is worked off, until somebody asks for the end."""

    def __init__(self, place: Station, view: View) -> None:
        self.place = place
        self.view = view
        self._orders = 0
        self._enough = False
        self._stopped = anyio.Event()

    async def publish(self) -> None:
        while not self._enough:
            await eventually(self._put, lambda: f"published: {self.place.now.stderr[-2000:]}")
        self._stopped.set()

    async def _put(self) -> bool:
        if self._enough:
            return True
        ended = self.place.effects.count() / EFFECTS_EACH
        if self._orders > ended + AHEAD:
            return False
        await self.view.publish(
            "orders", orders(range(self._orders, self._orders + PORTION)), partition=self._orders // PORTION % 4
        )
        self._orders += PORTION
        return True

    async def worked(self, more: int) -> None:
        """Wait until so many effects have come."""
        effects = self.place.effects
        wanted = effects.count() + more
        await eventually_now(lambda: effects.count() >= wanted, lambda: f"{wanted} effects: {effects.count()}")

    async def verdict(self) -> tuple[Verdict, Ledger]:
        """Publish no more, wait for the last run, and judge."""
        self._enough = True
        await self._stopped.wait()
        ledger = await self.view.all_ended(self._orders)
        assert len(ledger.with_status(RunStatus.SUCCEEDED)) == self._orders
        records = await self.view.records("results")
        return judge(ledger, self.place.effects, records, orders=self._orders), ledger


@asynccontextmanager
async def under_load(place: Station) -> AsyncIterator[Load]:
    async with place.view() as view, anyio.create_task_group() as group:
        load = Load(place, view)
        group.start_soon(load.publish)
        yield load


def owned(instance: Instance) -> set[int]:
    """The run-log partitions that the process took and did not release or lose, by its log lines."""
    found: set[int] = set()
    for line in instance.all_lines():
        match line["event"]:
            case "partition.taken":
                found.add(line["partition"])
            case "partition.released" | "partition.lost":
                found.discard(line["partition"])
    return found


async def shared(*instances: Instance) -> None:
    """Wait until these processes own everything, each about as much."""

    def even() -> bool:
        parts = [owned(each) for each in instances]
        sizes = [len(part) for part in parts]
        return (
            sum(sizes) == PARTITIONS and max(sizes) - min(sizes) <= 1 and set().union(*parts) == set(range(PARTITIONS))
        )

    await eventually_now(even, lambda: f"shared: {[owned(each) for each in instances]}")


async def test_processes_come_and_go_and_nothing_is_done_twice(kafka: KafkaBroker, station: MakeStation) -> None:
    place = station(Backend("kafka", kafka.bootstrap_servers), "orders.py", worker__max_active_runs=ACTIVE)
    first = await place.spawn().ready()
    async with under_load(place) as load:
        await load.worked(300)
        second = await place.spawn().ready()
        await shared(first, second)
        await load.worked(300)
        third = await place.spawn().ready()
        await shared(first, second, third)
        await load.worked(300)
        assert first.stop() == 0, first.stderr[-3000:]
        await shared(second, third)
        await load.worked(300)
        assert third.stop() == 0, third.stderr[-3000:]
        await shared(second)
        verdict, _ = await load.verdict()
        assert verdict.repeated_attempts == 0
        assert verdict.physical_duplicates == 0
        assert len({effect.pid for effect in place.effects.all()}) == 3
    assert second.stop() == 0
    for each in place.instances:
        assert "Traceback" not in each.stderr
        assert not each.lines("partition.lost"), "every move was a hand-over"


async def test_the_death_of_one_moves_its_partitions_and_no_others(kafka: KafkaBroker, station: MakeStation) -> None:
    place = station(Backend("kafka", kafka.bootstrap_servers), "orders.py", worker__max_active_runs=ACTIVE)
    first = await place.spawn().ready()
    second = await place.spawn().ready()
    await shared(first, second)
    kept = owned(first)
    async with under_load(place) as load:
        await load.worked(300)
        second.kill()
        assert await load.view.log.expel(f"{place.name}.members"), "as a supervisor does"
        await shared(first)
        await load.worked(300)
        third = await place.spawn().ready()
        await shared(first, third)
        verdict, _ = await load.verdict()
        assert verdict.repeated_attempts <= ACTIVE * 2
        assert verdict.physical_duplicates <= ACTIVE
    taken = [line for line in first.lines("partition.taken") if line["reason"] == "takeover"]
    assert {line["partition"] for line in taken} == set(range(PARTITIONS)) - kept
    released = {line["partition"] for line in first.lines("partition.released")}
    assert len(released) == PARTITIONS // 2, "only what the newcomer got"
    assert first.stop() == 0
    assert third.stop() == 0


async def test_a_restarted_process_tells_the_group_of_its_predecessor(kafka: KafkaBroker, station: MakeStation) -> None:
    """Nobody waits for the session of a process that is known to be dead: here it would last ten minutes."""
    place = station(
        Backend("kafka", kafka.bootstrap_servers), "orders.py", **{"kafka__extra.session.timeout.ms": 600_000}
    )
    for _ in range(3):
        await place.spawn().ready()
        place.now.kill()
    await shared(await place.spawn().ready())
    assert place.now.stop() == 0


async def test_a_process_that_was_stopped_and_continued_does_no_harm(kafka: KafkaBroker, station: MakeStation) -> None:
    place = station(
        Backend("kafka", kafka.bootstrap_servers),
        "orders.py",
        worker__max_active_runs=ACTIVE,
        **{"kafka__extra.session.timeout.ms": 1_500, "kafka__extra.heartbeat.interval.ms": 200},
    )
    first = await place.spawn().ready()
    second = await place.spawn().ready()
    await shared(first, second)
    async with under_load(place) as load:
        for zombie, other in ((first, second), (second, first)):
            await load.worked(300)
            os.kill(zombie.pid, signal.SIGSTOP)
            await eventually_now(lambda other=other: len(owned(other)) == PARTITIONS, "taken over")
            await load.worked(100)
            os.kill(zombie.pid, signal.SIGCONT)
            await eventually_now(lambda zombie=zombie: zombie.lines("partition.lost"), "it sees that it has lost")
            await shared(first, second)
        verdict, ledger = await load.verdict()
        assert verdict.repeated_attempts <= 2 * ACTIVE * 2
        assert verdict.physical_duplicates <= 2 * ACTIVE
        print(f"{verdict}, {ledger.skipped} records skipped")
    assert first.stop() == 0
    assert second.stop() == 0


async def test_what_runs_when_a_partition_moves_ends_where_it_runs(kafka: KafkaBroker, station: MakeStation) -> None:
    """Scale-out and SIGTERM: the attempts are listed, left alone by the successor, and their results delivered."""
    place = station(
        Backend("kafka", kafka.bootstrap_servers),
        "patience.py",
        worker__handoff_grace="60s",  # none of it is waited for: the gates open when both moves are over
        worker__shutdown_grace="90s",
    )
    first = await place.spawn().ready()
    async with place.view() as view:
        runs = 16
        await view.publish("in", [event("gate", {"id": f"g{number}"}) for number in range(runs)])
        await eventually_now(lambda: place.effects.count() >= 3 * runs, "all are in their handlers")
        second = await place.spawn().ready()
        await shared(first, second)
        first.terminate()
        await shared(second)
        for number in range(runs):
            open_gate(place, f"g{number}")
        assert first.ended() == 0
        ledger = await view.all_ended(runs)
        assert len(ledger.with_status(RunStatus.SUCCEEDED)) == runs
        assert all(len(attempts) == 1 for attempts in place.effects.began().values())
        assert len(await view.records("out")) == runs
    assert second.stop() == 0


async def test_a_process_whose_loop_stood_still_fences_itself_before_kafka_would(
    kafka: KafkaBroker, station: MakeStation
) -> None:
    """After half a session nobody else has its partitions yet, and it takes nothing for granted: it announces them anew."""
    session_ms, stall_ms = 10_000, 6_000
    place = station(
        Backend("kafka", kafka.bootstrap_servers),
        "patience.py",
        **{"kafka__extra.session.timeout.ms": session_ms, "kafka__extra.heartbeat.interval.ms": 200},
    )
    first = await place.spawn().ready()
    second = await place.spawn().ready()
    await shared(first, second)
    async with place.view() as view:
        await view.publish("in", [event("hog", {"id": "h", "ms": stall_ms})])
        await eventually_now(lambda: first.lines("loop.fenced") or second.lines("loop.fenced"), "fenced")
        fenced, other = (first, second) if first.lines("loop.fenced") else (second, first)
        held = PARTITIONS // 2
        await eventually_now(lambda: len(owned(fenced)) == held and len(owned(other)) == held, "announced anew")
        await view.publish("in", [event("later", {"id": f"l{number}", "ms": 1}) for number in range(20)])
        ledger = await view.all_ended(21)
        results = await view.records("out")
    assert len(ledger.with_status(RunStatus.SUCCEEDED)) == 21
    assert len(results) == 21
    assert len([effect for effect in place.effects.all() if effect.order == "h"]) == 2  # begun once, ended once
    (line,) = fenced.lines("loop.fenced")
    assert line["stalled_ms"] >= session_ms / 2
    assert line["partitions"] == held
    assert [lost["reason"] for lost in fenced.lines("partition.lost")] == ["stalled"] * held
    (blocked,) = [line for line in fenced.lines("loop.blocked") if "handler" in line]  # a busy machine blocks it, too
    assert (blocked["handler"], blocked["level"]) == ("hog", "warning")
    assert "patience.py" in blocked["where"]
    assert not other.lines("partition.lost")
    assert {taken["reason"] for taken in other.lines("partition.taken")} <= {"start", "rebalance", "handover"}
    for instance in (first, second):
        assert instance.stop() == 0
