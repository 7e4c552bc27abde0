"""Runs that wait: asleep, for somebody, between attempts, in a handler that takes its time, for ever."""

import asyncio
import os
import time
from dataclasses import dataclass
from pathlib import Path

from effect_file import effect

from headrace import EventTrigger, Retry, Retryable, Run, current_attempt, handler, workflow

NAME = os.environ["E2E_NAME"]
SOURCE, TOPIC = f"{NAME}.in", f"{NAME}.out"
GATES = Path(os.environ["E2E_EFFECTS"]).parent


@dataclass
class Job:
    id: str
    ms: int = 0


@handler
async def note(job: Job) -> str:
    effect("start", job.id)
    effect("end", job.id)
    return job.id


@handler
async def behind_gate(job: Job) -> str:
    """Ends when a file of the job's name appears."""
    effect("start", job.id)
    while not (GATES / job.id).exists():
        await asyncio.sleep(0.01)
    effect("end", job.id)
    return job.id


@handler
def behind_gate_in_thread(job: Job) -> str:
    effect("start", job.id)
    while not (GATES / job.id).exists():
        time.sleep(0.01)
    effect("end", job.id)
    return job.id


@handler(retry=Retry(attempts=3))
async def later(job: Job) -> str:
    """Fails once and asks for a wait before the next attempt."""
    effect("start", job.id)
    if current_attempt().number == 1:
        raise Retryable("not yet", after=f"{job.ms}ms")
    effect("end", job.id)
    return job.id


@handler(timeout="1h")
async def for_ever(job: Job) -> str:
    effect("start", job.id)
    await asyncio.Event().wait()
    return job.id


@handler
async def hog(job: Job) -> str:
    """Lets nobody else have the event loop."""
    effect("start", job.id)
    time.sleep(job.ms / 1000)  # noqa: ASYNC251 - that is the fault
    effect("end", job.id)
    return job.id


@workflow(on=EventTrigger(SOURCE, type="hog"), emits=[TOPIC])
async def hogs(run: Run, job: Job) -> None:
    await run.call(hog, job)
    await run.emit("let go", {"id": job.id}, topic=TOPIC)


@workflow(on=EventTrigger(SOURCE, type="sleep"), emits=[TOPIC])
async def sleeps(run: Run, job: Job) -> None:
    await run.call(note, job)
    await run.sleep(f"{job.ms}ms")
    await run.call(note, job)
    await run.emit("slept", {"id": job.id}, topic=TOPIC)


@workflow(on=EventTrigger(SOURCE, type="later"), emits=[TOPIC])
async def retries(run: Run, job: Job) -> None:
    await run.call(later, job)
    await run.emit("retried", {"id": job.id}, topic=TOPIC)


@workflow(on=EventTrigger(SOURCE, type="late"), timeout="2s")
async def times_out(run: Run, job: Job) -> None:
    await run.call(for_ever, job)


@workflow(on=EventTrigger(SOURCE, type="gate"), emits=[TOPIC])
async def gated(run: Run, job: Job) -> None:
    await run.call(note, job)
    await run.call(behind_gate, job)
    await run.emit("passed", {"id": job.id}, topic=TOPIC)


@workflow(on=EventTrigger(SOURCE, type="thread"), emits=[TOPIC])
async def gated_thread(run: Run, job: Job) -> None:
    await run.call(behind_gate_in_thread, job)
    await run.emit("passed", {"id": job.id}, topic=TOPIC)


@workflow(on=EventTrigger(SOURCE, type="queue"), key=lambda job: job.id, on_conflict="queue", emits=[TOPIC])
async def queues(run: Run, job: Job) -> None:
    await run.call(behind_gate, job)
    await run.emit("queued", {"ms": job.ms}, topic=TOPIC, key=job.id)


@workflow(on=EventTrigger(SOURCE, type="reject"), key=lambda job: job.id, on_conflict="reject", emits=[TOPIC])
async def rejects(run: Run, job: Job) -> None:
    await run.call(behind_gate, job)
    await run.emit("rejecting", {"ms": job.ms}, topic=TOPIC, key=job.id)


@workflow(on=EventTrigger(SOURCE, type="join"), key=lambda job: job.id, on_conflict="join", emits=[TOPIC])
async def joins(run: Run, job: Job) -> None:
    await run.call(behind_gate, job)
    await run.emit("joined", {"ms": job.ms}, topic=TOPIC, key=job.id)


@workflow(on=EventTrigger(SOURCE, type="allow"), key=lambda job: job.id, on_conflict="allow", emits=[TOPIC])
async def allows(run: Run, job: Job) -> None:
    await run.call(behind_gate, job)
    await run.emit("allowed", {"ms": job.ms}, topic=TOPIC, key=job.id)


@workflow(on=EventTrigger(SOURCE, type="ask"), emits=[TOPIC])
async def asks(run: Run, job: Job) -> None:
    await run.call(note, job)
    said = await run.approval(title=job.id, roles=["boss"], timeout=f"{job.ms}ms" if job.ms else None)
    await run.call(note, job)
    await run.emit("decided", {"id": job.id, "decision": said.decision, "by": said.by}, topic=TOPIC)
