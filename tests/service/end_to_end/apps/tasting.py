"""One step, one result; a filter and a key that can be made to fail."""

import os
from dataclasses import dataclass
from typing import Any

from headrace import Event, EventTrigger, Run, handler, workflow

NAME = os.environ["E2E_NAME"]


@dataclass
class Dish:
    key: str
    n: int
    note: str = ""


def wanted(event: Event[Any]) -> bool:
    note = event.data.get("note", "") if isinstance(event.data, dict) else ""
    if note == "filter raises":
        raise ValueError("secret-in-the-filter")
    if note == "filter exits":
        raise SystemExit(3)
    return note != "not for us"


def key_of(dish: Dish) -> str:
    match dish.note:
        case "key raises":
            raise ValueError("secret-in-the-key")
        case "key is empty":
            return ""
        case "key is a number":
            return dish.n  # pyright: ignore[reportReturnType] - users make mistakes
        case _:
            return dish.key


@handler
async def taste(dish: Dish) -> int:
    return dish.n


@workflow(on=EventTrigger(f"{NAME}.in", filter=wanted), key=key_of, emits=[f"{NAME}.out"])
async def tasting(run: Run, dish: Dish) -> None:
    n = await run.call(taste, dish)
    await run.emit("dish.tasted", {"n": n}, topic=f"{NAME}.out", key=dish.key)
