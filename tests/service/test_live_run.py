"""A run that is awake: what it has open, and when it only waits."""

from pathlib import Path
from typing import Any

import msgspec

from headrace import Run, handler, workflow
from headrace.observability.traces import contexts
from headrace.service.engine.run_state import Phase, RunState
from headrace.service.engine.step import CallStep
from headrace.service.live_run import LiveRun
from headrace.topics.command import Start
from headrace.topics.identity import ClientId, run_id
from headrace.topics.log_embedded import EmbeddedLog
from headrace.topics.outcome import AttemptSucceeded, Emitted, StepsCancelled, TimerFired
from tests.service.shell import app_of, shared_of

IDENTITY = ClientId("c1")
ID = run_id(0, IDENTITY)
NO_LOG = EmbeddedLog(Path("never-opened.sqlite"), owner=False)


@handler
async def work() -> int:
    return 1


def state_of(workflow_name: str, **options: Any) -> RunState:
    start = Start(namespace="default", workflow=workflow_name, version="1", input=msgspec.Raw(b"null"), **options)
    return RunState(
        id=ID,
        offset=3,
        size=10,
        identity=IDENTITY,
        start=start,
        started_at_ms=1_000,
        began_at_ms=2_000,
        phase=Phase.OPEN,
        clock_ms=2_000,
    )


def alive(definition: Any, **options: Any) -> LiveRun:
    live = shared_of(NO_LOG, app_of(work, definition)).live_run(state_of(definition.name, **options))
    assert live is not None
    return live


def succeeded(step: str) -> AttemptSucceeded:
    return AttemptSucceeded(
        run=ID, step=step, handler="work", number=1, result=msgspec.Raw(b"1"), started_at_ms=1, duration_ms=1.0
    )


def test_it_waits_when_nothing_is_done_for_it() -> None:
    @workflow(name="both")
    async def both(run: Run, _input: None) -> None:
        await run.gather(run.call(work), run.sleep("1s"))
        await run.emit("done", {}, topic="out")

    live = alive(both)
    call, timer = live.replay().issued
    assert isinstance(call, CallStep)
    live.calls[call.ref] = call
    live.timers[timer.ref] = 3_000
    assert not live.waits()
    live.held.add(call.ref)
    assert live.waits()
    live.held.discard(call.ref)
    live.delayed.add(call.ref)
    assert live.waits()
    live.delayed.discard(call.ref)
    assert live.feed(succeeded(call.ref), 2_500).issued == []
    assert live.waits()
    assert live.calls == {}
    turn = live.feed(TimerFired(run=ID, step=timer.ref, due_at_ms=3_000), 3_000)
    (emit,) = turn.issued
    assert turn.ended is not None  # it comes behind the emit in the log, or not at all
    assert not live.timers
    assert not live.waits()  # the emit is on its way to the log
    emitted = Emitted(run=ID, step=emit.ref, topic="out", type="done", data=msgspec.Raw(b"{}"))
    assert live.feed(emitted, 3_001).ended is None
    assert not live.waits()  # its end is on its way, too: woken again it would say it again
    live.close()


def test_steps_that_were_cancelled_are_not_open_any_more() -> None:
    @workflow(name="racer")
    async def racer(run: Run, _input: None) -> None:
        await run.race(run.call(work), run.sleep("1h"))
        await run.sleep("1h")

    live = alive(racer)
    call, timer = live.replay().issued
    assert isinstance(call, CallStep)
    live.calls[call.ref] = call
    live.timers[timer.ref] = 3_000
    turn = live.feed(succeeded(call.ref), 2_500)
    assert list(turn.cancelled) == [timer.ref]
    assert not live.waits()  # the log does not know yet; dropped and woken again, it would say it again
    live.feed(StepsCancelled(run=ID, steps=(timer.ref,)), 2_501)
    assert not live.timers
    assert live.waits()
    live.close()


def test_the_runs_own_timeout_counts_from_its_turn_and_the_starts_comes_first() -> None:
    @workflow(name="plain", timeout="10s")
    async def plain(run: Run, _input: None) -> None: ...

    assert alive(plain, timeout_ms=5_000).timeout_at_ms == 7_000
    assert alive(plain).timeout_at_ms is None  # starts carry it; without one there is the setting's


def test_its_trace_goes_on_from_the_producers() -> None:
    @workflow(name="plain")
    async def plain(run: Run, _input: None) -> None: ...

    traceparent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    live = alive(plain, traceparent=traceparent, tracestate="vendor=1")
    again = alive(plain, traceparent=traceparent, tracestate="vendor=1")
    assert live.traceparent == again.traceparent  # the same at each waking
    assert "vendor=1" in live.trace.state
    assert alive(plain).traceparent == contexts({}).anchor(ID, None).traceparent


def test_a_version_that_is_not_loaded_has_no_live_run() -> None:
    assert shared_of(NO_LOG, app_of(work)).live_run(state_of("unknown")) is None
