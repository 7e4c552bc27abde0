"""Retries in the shell: handlers see the keys, results are not computed again, outputs leave once, and a death in between changes nothing."""

from typing import Any

import headrace
from headrace import EventTrigger, Run, current_attempt, handler, workflow
from headrace.service.definitions.app import App
from headrace.topics.command import Retry
from headrace.topics.identity import ClientId
from headrace.topics.log import NewRecord, TopicPartition
from headrace.topics.outcome import RunEnded, RunStatus
from headrace.topics.run_record import CommandRecord, encode
from tests.service.fault_log import FaultLog
from tests.service.shell import Place, app_of, event, serving, until


class Shop:
    """Reserve, tell, pay: paying fails until the shop is mended."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, str, str]] = []
        self.mended = False

    def app(self) -> App:
        def called(name: str) -> None:
            now = current_attempt()
            self.calls.append((name, now.run_id, now.idempotency_key))

        @handler
        async def reserve(n: int) -> int:
            called("reserve")
            return n + 1

        @handler(retry=headrace.Retry(attempts=1))
        async def pay(n: int) -> int:
            called("pay")
            if not self.mended:
                raise ValueError("no money")
            return n + 1

        @workflow(on=EventTrigger("in", "order.placed"), name="order", emits=["out"])
        async def order(run: Run, order: dict[str, Any]) -> int:
            reserved = await run.call(reserve, order["n"])
            await run.emit("reserved", {"n": reserved}, topic="out")
            return await run.call(pay, reserved)

        return app_of(reserve, pay, order)


async def retry(place: Place, run: str, name: str) -> None:
    at = TopicPartition("shop.runs", int(run.partition(".")[0]))
    await place.view.append(at, [NewRecord(value=encode(CommandRecord(id=ClientId(name), body=Retry(run=run))))])


async def test_a_retry_goes_on_where_the_failed_run_ended(place: Place) -> None:
    shop = Shop()
    async with serving(FaultLog(place.log), shop.app()) as process:
        await place.publish("in", event({"n": 1}))
        (first,) = await place.until_outcomes(RunEnded)
        await retry(place, first.run, "again")
        (_, second) = await place.until_outcomes(RunEnded, 2)
        assert {first.status, second.status} == {RunStatus.FAILED}
        await until(lambda: len(process.observer.finished) == 2)
    shop.mended = True
    async with serving(FaultLog(place.log), shop.app(), instance="test-2"):
        await retry(place, second.run, "and again")
        ended = await place.until_outcomes(RunEnded, 3)
    third = ended[-1]
    assert (third.status, bytes(third.result)) == (RunStatus.SUCCEEDED, b"3")
    assert shop.calls == [
        ("reserve", first.run, f"{first.run}/1/reserve"),
        ("pay", first.run, f"{first.run}/3/pay"),
        ("pay", second.run, f"{first.run}/3/pay"),
        ("pay", third.run, f"{first.run}/3/pay"),
    ]
    assert len(await place.records("out")) == 1


async def test_a_retry_that_is_open_when_its_process_dies_goes_on_in_the_next(place: Place) -> None:
    shop = Shop()
    log = FaultLog(place.log)
    async with serving(log, shop.app()):
        await place.publish("in", event({"n": 1}))
        (first,) = await place.until_outcomes(RunEnded)
        log.dead = True
    shop.mended = True
    await retry(place, first.run, "again")
    async with serving(FaultLog(place.log), shop.app(), instance="test-2"):
        (_, ended) = await place.until_outcomes(RunEnded, 2)
    assert (ended.status, bytes(ended.result)) == (RunStatus.SUCCEEDED, b"3")
    assert [name for name, _, _ in shop.calls] == ["reserve", "pay", "pay"]
