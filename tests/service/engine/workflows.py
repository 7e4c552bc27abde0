"""Workflows that several of these tests use."""

from typing import Any

from headrace import Run, workflow
from tests.service.engine.handlers import other, work


@workflow(name="shop")
async def shop(run: Run, _: Any) -> Any:
    return await run.call(work, 1)


@workflow(name="emits")
async def emits(run: Run, _: Any) -> None:
    await run.emit("shop.done", 1, topic="out")
    await run.call(other, 1)
