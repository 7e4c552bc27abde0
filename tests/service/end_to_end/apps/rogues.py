"""Handlers that misbehave, each in a workflow of its own, and a workflow of good ones."""

import asyncio
import os
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from effect_file import effect

from headrace import EventTrigger, NonRetryable, Retry, Run, TaskFailed, handler, workflow

NAME = os.environ["E2E_NAME"]
TOPIC = f"{NAME}.out"
RELEASED = threading.Event()
GATES = Path(os.environ["E2E_EFFECTS"]).parent


@dataclass
class Job:
    id: str


@handler(retry=Retry(attempts=3, delay="5ms"))
async def raises(job: Job) -> str:
    effect("start")
    raise ValueError("no such thing")


@handler(retry=Retry(attempts=5, delay="5ms"))
async def gives_up(job: Job) -> str:
    effect("start")
    raise NonRetryable("never again")


@handler(timeout="200ms", retry=Retry(attempts=2, delay="5ms"))
async def never_returns(job: Job) -> str:
    effect("start")
    await asyncio.Event().wait()
    return "never"


@handler(retry=Retry(attempts=1))
async def blocks_the_loop(job: Job) -> str:
    """Until somebody makes a file of its name."""
    effect("start")
    while not (GATES / "blocks_the_loop").exists():
        time.sleep(0.01)  # noqa: ASYNC251 - the mistake is meant
    return "late"


@handler(retry=Retry(attempts=3, delay="5ms"))
async def returns_a_set(job: Job) -> Any:
    effect("start")
    return {1, 2, 3}


@handler(retry=Retry(attempts=3, delay="5ms"))
async def returns_too_much(job: Job) -> str:
    effect("start")
    return "x" * 5_000_000


@handler(retry=Retry(attempts=2, delay="5ms"))
async def raises_keyboard_interrupt(job: Job) -> str:
    effect("start")
    raise KeyboardInterrupt


@handler(retry=Retry(attempts=2, delay="5ms"))
async def raises_system_exit(job: Job) -> str:
    effect("start")
    raise SystemExit(9)


@handler(retry=Retry(attempts=2, delay="5ms"))
def raises_system_exit_in_a_thread(job: Job) -> str:
    effect("start")
    raise SystemExit(9)


@handler(timeout="200ms", retry=Retry(attempts=1))
async def swallows_cancellation(job: Job) -> str:
    effect("start")
    while True:
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            pass


@handler(timeout="200ms", retry=Retry(attempts=1))
def hangs_in_a_thread(job: Job) -> str:
    effect("start")
    RELEASED.wait()
    return "never"


@handler(retry=Retry(attempts=2, delay="5ms"))
async def cancels_itself(job: Job) -> str:
    effect("start")
    raise asyncio.CancelledError


@handler
async def behaves(job: Job) -> str:
    effect("start")
    await asyncio.sleep(0)
    return job.id


def rogue(called: Any) -> Any:
    """A workflow whose only task is this handler."""

    async def body(run: Run, job: Job) -> str:
        return await run.call(called, job)

    return workflow(name=called.name, on=EventTrigger(f"{NAME}.in", type=called.name))(body)


w1 = rogue(raises)
w2 = rogue(gives_up)
w3 = rogue(never_returns)
w4 = rogue(blocks_the_loop)
w5 = rogue(returns_a_set)
w6 = rogue(returns_too_much)
w7 = rogue(raises_keyboard_interrupt)
w8 = rogue(raises_system_exit)
w9 = rogue(raises_system_exit_in_a_thread)
w10 = rogue(swallows_cancellation)
w11 = rogue(hangs_in_a_thread)
w12 = rogue(cancels_itself)


@workflow(on=EventTrigger(f"{NAME}.in", type="good"), emits=[TOPIC])
async def good(run: Run, job: Job) -> str:
    for _ in range(3):
        await run.call(behaves, job)
    await run.emit("good.done", {"id": job.id}, topic=TOPIC)
    return job.id


@workflow(on=EventTrigger(f"{NAME}.in", type="careful"), emits=[TOPIC])
async def careful(run: Run, job: Job) -> str:
    try:
        await run.call(raises, job)
    except TaskFailed as failed:
        message = {"id": job.id, "cause": failed.cause, "error": failed.error, "attempts": failed.attempts}
        await run.emit("careful.done", message, topic=TOPIC)
    return "recovered"
