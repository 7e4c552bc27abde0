"""All kinds of steps in one run: tasks with undos, a sleep, a race, a map, threads, a queue per key that is not the record's key."""

import asyncio
import os
import time
from dataclasses import dataclass

from effect_file import effect

from headrace import EventTrigger, NonRetryable, Retry, Run, TaskFailed, current_attempt, handler, workflow

NAME = os.environ["E2E_NAME"]
SOURCE, TOPIC = f"{NAME}.in", f"{NAME}.out"


@dataclass
class Trip:
    id: str
    n: int
    group: str


@handler(retry=Retry(attempts=4, delay="10ms"))
async def book(trip: Trip, what: str) -> str:
    effect("start", trip.id)
    await asyncio.sleep(0.002 * (trip.n % 4))
    if (trip.n + len(what)) % 3 == 0 and current_attempt().number < 3:
        raise ConnectionError("busy")
    effect("end", trip.id)
    return f"{what}-{trip.id}"


@handler
async def unbook(trip: Trip, what: str) -> None:
    effect("start", trip.id)
    await asyncio.sleep(0.002)
    effect("end", trip.id)


@handler
def write(trip: Trip, place: int) -> int:
    effect("start", trip.id)
    time.sleep(0.002)
    effect("end", trip.id)
    return place * place


@handler
async def pay(trip: Trip) -> str:
    effect("start", trip.id)
    await asyncio.sleep(0.003)
    if trip.n % 5 == 0:
        raise NonRetryable("no money")
    effect("end", trip.id)
    return f"paid-{trip.id}"


@handler
async def slow_answer(trip: Trip) -> str:
    effect("start", trip.id)
    await asyncio.sleep(60)
    return "slow"


async def answer_in_time(run: Run) -> str:
    await run.sleep("20ms")
    return "in time"


@workflow(
    on=EventTrigger(SOURCE, type="trip"), key=lambda trip: trip.group, on_conflict="queue", emits=[TOPIC], timeout="10m"
)
async def travel(run: Run, trip: Trip) -> dict[str, object]:
    flight = await run.call(book, trip, "flight", compensate=unbook)
    hotel, car = await run.gather(
        run.call(book, trip, "hotel", compensate=unbook), run.call(book, trip, "car", compensate=unbook)
    )
    await run.sleep("30ms")
    squares = await run.map(lambda place: run.call(write, trip, place), [1, 2, 3], concurrency=2)
    winner = await run.race(run.call(slow_answer, trip), answer_in_time(run))
    await run.call(pay, trip)
    result = {
        "id": trip.id,
        "n": trip.n,
        "parts": [flight, hotel, car],
        "squares": squares,
        "winner": winner,
        "chance": run.random(),
        "uuid": str(run.uuid()),
        "now": run.now().isoformat(),
    }
    await run.emit("trip.booked", result, topic=TOPIC, key=trip.group, subject=trip.id)
    return result


@workflow(on=EventTrigger(SOURCE, type="quote"), emits=[TOPIC])
async def quote(run: Run, trip: Trip) -> str:
    try:
        return await run.call(pay, trip)
    except TaskFailed as failed:
        await run.emit("trip.refused", {"id": trip.id, "why": failed.message}, topic=TOPIC)
        return "refused"
