"""The router: where topics begin, partitions that are added, and its stop."""

from pathlib import Path
from typing import Any

from headrace import EventTrigger, Run, workflow
from headrace.service.definitions.app import App
from headrace.topics import membership_embedded
from headrace.topics.log import Log, TopicPartition
from tests.service.fault_log import FaultLog
from tests.service.shell import Place, app_of, event, order_of, place_at, routing, until


def shop(*topics: str) -> App:
    @workflow(on=[EventTrigger(topic, "order.placed") for topic in topics], name="order")
    async def order(run: Run, order: dict[str, Any]) -> None: ...

    return app_of(order)


async def orders(place: Place) -> list[int]:
    return sorted(order_of(start) for start in await place.starts())


class Growing(FaultLog):
    """A topic that seems smaller than it is, until it grows: the embedded log cannot add partitions."""

    def __init__(self, log: Log, shown: int) -> None:
        super().__init__(log)
        self.shown = shown

    async def partitions(self, topic: str) -> int:
        return min(self.shown, await super().partitions(topic))


async def test_a_topic_that_was_never_read_begins_at_its_start(place: Place) -> None:
    await place.publish("in", event({"n": 0}))
    async with routing(FaultLog(place.log), shop("in")) as process:
        await until(lambda: process.floor() == 1)
    assert await orders(place) == [0]


async def test_start_latest_begins_at_the_end_and_commits_that_before_it_reads(tmp_path: Path) -> None:
    async with place_at(tmp_path, sources=2) as place:
        await place.publish("in", event({"n": 0}), event({"n": 1}), partition=0)
        log = FaultLog(place.log)
        async with routing(log, shop("in"), router={"start": "latest"}) as process:
            await until(lambda: process.floor() == 2)
            assert {at: position.offset for at, position in log.commits[0].items()} == {
                TopicPartition("in", 0): 2,
                TopicPartition("in", 1): 0,
            }
            await place.publish("in", event({"n": 2}), partition=0)
            await place.publish("in", event({"n": 3}), partition=1)
            await until(lambda: process.floor() == 3 and process.floor(partition=1) == 1)
        assert await orders(place) == [2, 3]


async def test_a_partition_added_later_begins_at_zero_even_with_start_latest(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(membership_embedded, "LOOK_EVERY_S", 0.01)
    async with place_at(tmp_path, sources=2) as place:
        log = Growing(place.log, shown=1)
        await place.publish("in", event({"n": 0}), partition=0)
        await place.publish("in", event({"n": 1}), partition=1)
        async with routing(log, shop("in"), router={"start": "latest"}) as process:
            await until(lambda: process.floor() == 1)
            log.shown = 2
            await until(lambda: process.floor(partition=1) == 1)
        assert await orders(place) == [1]


async def test_a_lost_position_means_the_log_start(tmp_path: Path) -> None:
    async with place_at(tmp_path, sources=2) as place:
        await place.publish("in", event({"n": 0}), partition=1)
        log = FaultLog(place.log)
        async with (
            Growing(place.log, shown=1),
            routing(Growing(place.log, 1), shop("in"), router={"start": "latest"}) as one,
        ):
            await until(lambda: one.floor() == 0)  # partition 0 has a position, 1 has none
        async with routing(log, shop("in"), router={"start": "latest"}) as process:
            await until(lambda: process.floor(partition=1) == 1)
        assert await orders(place) == [0]


async def test_a_missing_topic_holds_back_no_other_and_is_read_once_it_is_there(place: Place) -> None:
    await place.publish("in", event({"n": 0}))
    log = FaultLog(place.log)
    log.missing.add("later")
    async with routing(log, shop("in", "later")) as process:
        await until(lambda: process.floor() == 1)
        await place.make(later=1, later__dlq=1)
        await place.publish("later", event({"n": 1}))
        log.missing.clear()
        await until(lambda: process.floor("later") == 1)
    assert await orders(place) == [0, 1]


async def test_a_broker_that_is_away_at_the_start_is_waited_for(place: Place) -> None:
    await place.publish("in", event({"n": 0}))
    log = FaultLog(place.log)
    log.away = True
    async with routing(log, shop("in")) as process:
        for _ in range(3):
            assert process.floor() == -1
        log.away = False
        await until(lambda: process.floor() == 1)


async def test_a_stop_waits_for_the_commit_that_is_out_and_has_the_last_word(place: Place) -> None:
    log = FaultLog(place.log)
    async with routing(log, shop("in")) as process:
        await until(lambda: process.floor() == 0)
        log.hold("shop.router")
        await place.publish("in", event({"n": 0}))
        await until(lambda: "shop.router" in log.waiting)
        assert (await place.position())[1]["clean"] is False
        log.release("shop.router")
        await until(lambda: process.floor() == 1)
    assert await place.position() == (1, {"touched": 1, "tries": 0, "clean": True})
