"""Handlers for workflows of these tests. None is ever run: the driver says how their attempts end."""

from typing import Any

from headrace import handler


@handler
async def work(value: Any) -> Any:
    return value


@handler
async def other(value: Any) -> Any:
    return value


@handler
async def number(value: int) -> int:
    return value


@handler
async def undo(value: Any) -> Any: ...


@handler
async def undo_other(value: Any) -> Any: ...
