"""A filter that ends the process, outputs that no topic takes, and workflow bodies that misbehave."""

import os
from dataclasses import dataclass
from typing import Any

from headrace import Event, EventTrigger, Run, handler, workflow

NAME = os.environ["E2E_NAME"]
SOURCE, TOPIC = f"{NAME}.in", f"{NAME}.out"


@dataclass
class Job:
    id: str


def deadly(event: Event[Any]) -> bool:
    if event.data["id"] == "deadly":
        os._exit(66)
    return True


@handler
async def work(job: Job) -> str:
    return job.id


@workflow(on=EventTrigger(SOURCE, type="good", filter=deadly), emits=[TOPIC])
async def good(run: Run, job: Job) -> None:
    await run.call(work, job)
    await run.emit("done", {"id": job.id}, topic=TOPIC, key=job.id)


@workflow(on=EventTrigger(SOURCE, type="missing"))
async def emits_to_a_topic_that_is_missing(run: Run, job: Job) -> None:
    await run.emit("done", {"id": job.id}, topic=f"{NAME}.{job.id}", key=job.id)
    await run.call(work, job)


@workflow(on=EventTrigger(SOURCE, type="illegal"))
async def emits_to_no_topic_name(run: Run, job: Job) -> None:
    await run.emit("done", {"id": job.id}, topic="no topic/name", key=job.id)
    await run.sleep("1h")


@workflow(on=EventTrigger(SOURCE, type="huge"), emits=[TOPIC])
async def emits_too_much(run: Run, job: Job) -> None:
    await run.emit("done", {"id": "x" * 5_000_000}, topic=TOPIC, key=job.id)


@workflow(on=EventTrigger(SOURCE, type="exit"))
async def exits(run: Run, job: Job) -> None:
    await run.call(work, job)
    raise SystemExit(5)


@workflow(on=EventTrigger(SOURCE, type="interrupt"))
async def interrupts(run: Run, job: Job) -> None:
    await run.call(work, job)
    raise KeyboardInterrupt


@workflow(on=EventTrigger(SOURCE, type="set"))
async def returns_a_set(run: Run, job: Job) -> Any:
    await run.call(work, job)
    return {1, 2}


@workflow(on=EventTrigger(SOURCE, type="large"))
async def returns_too_much(run: Run, job: Job) -> str:
    await run.call(work, job)
    return "x" * 5_000_000


@workflow(on=EventTrigger(SOURCE, type="argument"))
async def passes_too_much(run: Run, job: Job) -> str:
    return await run.call(work, Job("x" * 5_000_000))


@workflow(on=EventTrigger(SOURCE, type="recursion"))
async def recurses(run: Run, job: Job) -> int:
    def deeper(n: int) -> int:
        return deeper(n + 1)

    return deeper(0)


@workflow(on=EventTrigger(SOURCE, type="raises"))
async def raises(run: Run, job: Job) -> None:
    await run.call(work, job)
    raise ValueError("the body's own")
