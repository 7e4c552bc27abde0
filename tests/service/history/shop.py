"""A service with a history, and what its history must say: the same as the run log itself, run by run, field by field."""

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from headrace import EventTrigger, NonRetryable, Retry, Run, current_attempt, handler, workflow
from headrace.service.definitions.app import App
from headrace.service.history.database import HistoryUnavailable
from headrace.service.history.history import History
from headrace.service.run_view.summary import RunFilter
from headrace.service.settings import Settings
from headrace.topics.log import Log, LogRecord, TopicPartition
from headrace.topics.log_embedded import EmbeddedLog
from tests.service.fault_log import FaultLog
from tests.service.shell import PATIENCE_S, Place, Recorder, Serving, app_of, event, serving

ALL = RunFilter()


def app(held: asyncio.Event | None = None) -> App:
    """A little of everything: retries, failures, undos, sleeps, outputs, keys with queues and joined starts. Orders with n % 11 == 10 wait for `held`."""

    @handler(retry=Retry(attempts=3, delay="1ms"))
    async def reserve(n: int) -> str:
        if n % 3 == 0 and current_attempt().number < 2:
            raise ConnectionError("busy")
        if held is not None and n % 11 == 10:
            await held.wait()
        return f"r{n}"

    @handler
    async def release(n: int) -> None:
        """The undo of `reserve`."""

    @handler
    async def pay(n: int) -> str:
        if n % 5 == 4:
            raise NonRetryable("no money\0 left")
        return "paid"

    @workflow(
        on=EventTrigger("in", "order.placed"),
        name="order",
        emits=["out"],
        key=lambda order: f"customer-{order['n'] % 7}",
        on_conflict="queue",
    )
    async def order(run: Run, order: dict[str, Any]) -> dict[str, Any]:
        await run.call(reserve, order["n"], compensate=release)
        await run.sleep("2ms")
        await run.call(pay, order["n"])
        await run.emit("order.done", {"n": order["n"]}, topic="out")
        return {"n": order["n"]}

    @workflow(name="part")
    async def part(run: Run, n: int) -> str:
        return await run.call(pay, n)

    @workflow(on=EventTrigger("in", "look"), name="look", key=lambda _order: "one", on_conflict="join")
    async def look(run: Run, order: dict[str, Any]) -> str:
        await run.call_child(part, order["n"] * 5)
        await run.start_child(part, order["n"] * 5)
        return await run.call(reserve, order["n"])

    @workflow(on=EventTrigger("in", "ask"), name="ask")
    async def ask(run: Run, order: dict[str, Any]) -> None:
        await run.approval(title="May it?", roles=["finance"])

    return app_of(reserve, release, pay, order, part, look, ask)


def settings_of(**history: Any) -> Settings:
    return Settings.model_validate({"app": {"name": "shop"}, "history": history})


@asynccontextmanager
async def _own_way(place: Place) -> AsyncIterator[Log]:
    async with EmbeddedLog(place.log.path, owner=False) as log:
        yield log


def history_of(
    place: Place, url: str, *, observer: Recorder | None = None, partitions: int = 2, settings: Settings | None = None
) -> History:
    return History(
        settings or settings_of(),
        url,
        observer=observer or Recorder(),
        partitions=partitions,
        open_log=lambda: _own_way(place),
    )


@asynccontextmanager
async def kept(place: Place, url: str, shop: App, **options: Any) -> AsyncIterator[tuple[Serving, History]]:
    """A whole service with a history."""
    observer = options.setdefault("observer", Recorder())
    partitions = options.setdefault("partitions", 2)
    log = options.pop("log", None) or FaultLog(place.log)
    history = history_of(place, url, observer=observer, partitions=partitions)
    await history.check()
    async with serving(log, shop, history=history, **options) as process:
        yield process, history


async def publish(place: Place, numbers: range, type: str = "order.placed") -> None:
    await place.publish("in", *[event({"n": n}, type=type) for n in numbers])


async def until_ended(history: History, count: int) -> None:
    """So many runs have ended, the history says."""
    await until_asked(history, lambda statuses: statuses.total() - statuses["running"] - statuses["queued"] >= count)


async def until_asked(history: History, enough: Callable[[Counter[str]], bool]) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while True:
            with contextlib.suppress(HistoryUnavailable):
                if enough(await statuses(history)):
                    return
            await asyncio.sleep(0.01)


async def statuses(history: History) -> Counter[str]:
    counts = await history.queries.counts(ALL)
    found: Counter[str] = Counter()
    for each in counts.counts:
        found[each.status] += each.runs
    return found


async def until_read(place: Place, history: History, partitions: int = 2) -> None:
    """Everything that is in the run log now is in the history."""
    places = [TopicPartition("shop.runs", number) for number in range(partitions)]
    async with asyncio.timeout(PATIENCE_S):
        for at, offsets in (await place.view.offsets(places)).items():
            while history.position(at.partition) < offsets.end:
                await asyncio.sleep(0.005)


async def until_still(place: Place, process: Serving, *, open_: int = 0) -> None:
    """So many runs are open and nothing is on its way any more: no record about a run will come."""
    owners = process.service.owners
    async with asyncio.timeout(PATIENCE_S):
        while True:
            offsets = await place.view.offsets([owner.at for owner in owners])
            states = [owner.state for owner in owners]
            read = all(owner.state.next_offset >= offsets[owner.at].end for owner in owners)
            if read and not any(state.outbox for state in states) and sum(len(s.runs) for s in states) == open_:
                return
            await asyncio.sleep(0.005)


@asynccontextmanager
async def fed(place: Place, url: str, **options: Any) -> AsyncIterator[History]:
    """The history alone, without a service: it reads what is there."""
    history = history_of(place, url, **options)
    history.follow(frozenset(range(options.get("partitions", 2))))
    async with asyncio.TaskGroup() as group:
        task = group.create_task(history.run(lambda: True))
        yield history
        task.cancel()


async def whole(place: Place, partitions: int = 2) -> dict[int, list[LogRecord]]:
    """The records of a log that was never trimmed."""
    return {number: await place.records("shop.runs", number) for number in range(partitions)}
