"""A handler cannot stop the event loop."""

import asyncio
import contextvars
from collections.abc import Callable
from typing import Any

import pytest

from headrace.handlers.attempt import Attempt, enter_attempt
from headrace.handlers.loop_stop import refuse_stop_to_handlers

ATTEMPT = Attempt(idempotency_key="0.1/3/charge", number=1, run_id="0.1", task="/3/charge", deadline_ms=0)
NAMED = "/3/charge of run 0.1 may not stop the event loop"


def _uvloop() -> asyncio.AbstractEventLoop:
    return pytest.importorskip("uvloop").new_event_loop()


def in_attempt() -> contextvars.Context:
    context = contextvars.copy_context()
    context.run(enter_attempt, ATTEMPT)
    return context


@pytest.fixture(params=[asyncio.new_event_loop, _uvloop], ids=["asyncio", "uvloop"])
def run(request: pytest.FixtureRequest) -> Callable[[Any], Any]:
    def run(main: Any) -> Any:
        with asyncio.Runner(loop_factory=request.param) as runner:
            refuse_stop_to_handlers(runner.get_loop())
            return runner.run(main)

    return run


def test_it_raises_in_an_attempt_and_in_what_the_attempt_began(run: Callable[[Any], Any]) -> None:
    async def handler() -> str:
        with pytest.raises(RuntimeError, match=NAMED):
            asyncio.get_running_loop().stop()
        async with asyncio.TaskGroup() as group:
            group.create_task(began())
        return "ended"

    async def began() -> None:
        with pytest.raises(RuntimeError, match=NAMED):
            asyncio.get_running_loop().stop()

    async def main() -> str:
        return await asyncio.get_running_loop().create_task(handler(), context=in_attempt())

    assert run(main()) == "ended"


def test_a_callback_that_stops_it_is_told_to_the_loop_which_goes_on(run: Callable[[Any], Any]) -> None:
    told: list[str] = []

    async def main() -> None:
        loop, heard = asyncio.get_running_loop(), asyncio.Event()

        def hear(_: asyncio.AbstractEventLoop, facts: dict[str, Any]) -> None:
            told.append(str(facts["exception"]))
            heard.set()

        loop.set_exception_handler(hear)
        in_attempt().run(loop.call_soon, loop.stop)
        await heard.wait()

    run(main())
    assert len(told) == 1
    assert told[0].startswith(NAMED)


def test_who_runs_the_loop_still_stops_it(run: Callable[[Any], Any]) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        loop.call_soon(loop.stop)
        await asyncio.Event().wait()

    with pytest.raises(RuntimeError, match="stopped before Future completed"):
        run(main())
