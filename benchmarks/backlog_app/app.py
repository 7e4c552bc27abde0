"""The app of `benchmarks.backlog`: orders that only pass through, and orders of one key at a time that take a while."""

import asyncio
import os

import msgspec

from headrace import EventTrigger, Run, handler, workflow

ORDERS = os.environ["BENCH_ORDERS"]
RESULTS = os.environ["BENCH_RESULTS"]


class Order(msgspec.Struct):
    n: int
    key: str
    ms: int = 0


@handler
async def work(order: Order) -> int:
    if order.ms:
        await asyncio.sleep(order.ms / 1000)
    return order.n


@workflow(on=EventTrigger(ORDERS, "bench.plain"), emits=[RESULTS])
async def plain(run: Run, order: Order) -> None:
    done = await run.call(work, order)
    await run.emit("bench.done", {"n": done}, topic=RESULTS)


@workflow(on=EventTrigger(ORDERS, "bench.keyed"), key=lambda order: order.key, on_conflict="queue", emits=[RESULTS])
async def keyed(run: Run, order: Order) -> None:
    done = await run.call(work, order)
    await run.emit("bench.done", {"n": done}, topic=RESULTS)
