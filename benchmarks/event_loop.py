"""The same event loop for all of the benchmark's programs: uvloop where it is installed, as Headrace takes it."""

import asyncio
import importlib.util
from collections.abc import Coroutine
from typing import Any


def loop_name() -> str:
    return "uvloop" if importlib.util.find_spec("uvloop") else "asyncio"


def run(main: Coroutine[Any, Any, None]) -> None:
    if loop_name() == "uvloop":
        import uvloop  # noqa: PLC0415 - an extra

        uvloop.run(main)
    else:
        asyncio.run(main)
