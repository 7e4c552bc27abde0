"""Runs that end badly leave no cycles: thousands of them shall not wait for the collector, which stops everything while it looks."""

import gc
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

import msgspec
import pytest

from headrace import Cancelled, Run, TaskFailed, handler, workflow
from headrace.observability.traces import contexts
from headrace.service.engine.limit import RunLimits
from headrace.service.engine.run_state import Phase, RunState, Woke
from headrace.service.live_run import LiveRun
from headrace.topics.command import Cancel, Start
from headrace.topics.errors import Cause
from headrace.topics.identity import ClientId, run_id
from headrace.topics.outcome import AttemptFailed

ID = run_id(0, ClientId("c1"))
CONTEXTS = contexts({})


@handler
async def work() -> int:
    return 1


work.load()


@workflow()
async def fails(run: Run, _input: None) -> None:
    await run.call(work)


@workflow()
async def raises(run: Run, _input: None) -> None:
    raise ValueError("no")


@workflow()
async def goes_on(run: Run, _input: None) -> str:
    try:
        await run.call(work)
    except TaskFailed as failed:
        return failed.error
    return ""


@workflow()
async def says_it_otherwise(run: Run, _input: None) -> None:
    try:
        await run.call(work)
    except TaskFailed as failed:
        raise ValueError("no") from failed


@workflow()
async def fails_in_a_branch(run: Run, _input: None) -> None:
    async def branch() -> None:
        await run.call(work)

    await run.gather(branch(), run.sleep("1h"))


@workflow()
async def cleans_up(run: Run, _input: None) -> None:
    try:
        await run.sleep("1h")
    except Cancelled:
        await run.call(work)
        raise


FAILED = AttemptFailed(
    run=ID,
    step="/1/work",
    handler="work",
    number=1,
    cause=Cause.RAISED,
    error="ConnectionError",
    message="no",
    started_at_ms=1,
    duration_ms=1.0,
    retry_after_ms=None,
)
IN_BRANCH = msgspec.structs.replace(FAILED, step="/1/gather/0/1/work")


@pytest.fixture
def garbage() -> Iterator[Callable[[], list[str]]]:
    """What only the collector could free, of ours, of what was made since the test began: a thread of a test before may let go of things only now."""
    gc.collect()
    gc.disable()
    gc.freeze()

    def found() -> list[str]:
        gc.set_debug(gc.DEBUG_SAVEALL)
        gc.collect()
        ours = [each for each in gc.garbage if isinstance(each, FrameType) or of_ours(each)]
        return sorted({each.f_code.co_name if isinstance(each, FrameType) else type(each).__name__ for each in ours})

    yield found
    gc.set_debug(0)
    gc.garbage.clear()
    gc.unfreeze()
    gc.enable()


def of_ours(each: object) -> bool:
    return type(each).__module__.startswith("headrace.")


def lives(code: Any, *records: Woke) -> None:
    """A run's whole life here."""
    state = RunState(
        id=ID,
        offset=3,
        size=10,
        identity=ClientId("c1"),
        start=Start(namespace="default", workflow=code.name, version="1", input=msgspec.Raw(b"null")),
        started_at_ms=1_000,
        began_at_ms=2_000,
        phase=Phase.OPEN,
        clock_ms=2_000,
    )
    live = LiveRun(
        state,
        code,
        contexts=CONTEXTS,
        limits=RunLimits(),
        timeout_at_ms=None,
        loaded=lambda *_: None,
    )
    live.replay()
    for record in records:
        live.feed(record, 3_000)
    live.close()


@pytest.mark.parametrize(
    ("code", "records"),
    [
        (fails, [FAILED]),
        (raises, []),
        (goes_on, [FAILED]),
        (says_it_otherwise, [FAILED]),
        (fails_in_a_branch, [IN_BRANCH]),
        (cleans_up, [Cancel(run=ID)]),
        (cleans_up, []),
    ],
    ids=lambda value: value.name if hasattr(value, "name") else "",
)
def test_an_ended_run_is_freed_at_once(code: Any, records: list[Woke], garbage: Callable[[], list[str]]) -> None:
    lives(code, *records)
    assert garbage() == []
