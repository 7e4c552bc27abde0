"""A workflow whose code changes between two starts, by the environment; one that stays; one whose version goes."""

import asyncio
import os
from dataclasses import dataclass
from pathlib import Path

from headrace import EventTrigger, Run, handler, workflow

NAME = os.environ["E2E_NAME"]
CHANGED = os.environ.get("E2E_CHANGED") == "1"
VERSION = os.environ.get("E2E_VERSION", "1")
SOURCE, TOPIC = f"{NAME}.in", f"{NAME}.out"
GATES = Path(os.environ["E2E_EFFECTS"]).parent


@dataclass
class Job:
    id: str


@handler
async def first(job: Job) -> str:
    return job.id


@handler
async def other(job: Job) -> str:
    return job.id


@handler
async def gate(job: Job) -> str:
    while not (GATES / job.id).exists():
        await asyncio.sleep(0.01)
    return job.id


@workflow(on=EventTrigger(SOURCE, type="changes"), emits=[TOPIC])
async def changes(run: Run, job: Job) -> None:
    if CHANGED:
        await run.call(other, job)
    await run.call(first, job)
    await run.call(gate, job)
    await run.emit("changed", {"id": job.id}, topic=TOPIC)


@workflow(on=EventTrigger(SOURCE, type="stays"), emits=[TOPIC])
async def stays(run: Run, job: Job) -> None:
    await run.call(first, job)
    await run.call(gate, job)
    await run.emit("stayed", {"id": job.id}, topic=TOPIC)


@workflow(on=EventTrigger(SOURCE, type="versioned"), version=VERSION, emits=[TOPIC])
async def versioned(run: Run, job: Job) -> None:
    await run.call(first, job)
    await run.call(gate, job)
    await run.emit("versioned", {"id": job.id, "version": VERSION}, topic=TOPIC)
