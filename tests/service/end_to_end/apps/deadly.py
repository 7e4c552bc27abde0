"""Orders of which some end the process: in a task, and in the workflow's own code."""

import os
from dataclasses import dataclass

from headrace import EventTrigger, Run, handler, workflow

NAME = os.environ["E2E_NAME"]
CRASH = [os._exit]  # where the loader does not look, as a library in C is


@dataclass
class Order:
    id: str


@handler
async def prepare(order: Order) -> str:
    return order.id


@handler
async def cook(order: Order) -> str:
    if order.id == "deadly":
        os._exit(67)
    return order.id


@workflow(on=EventTrigger(f"{NAME}.in", type="task"))
async def in_a_task(run: Run, order: Order) -> str:
    await run.call(prepare, order)
    return await run.call(cook, order)


@workflow(on=EventTrigger(f"{NAME}.in", type="body"))
async def in_its_own_code(run: Run, order: Order) -> str:
    await run.call(prepare, order)
    CRASH[0](68)
