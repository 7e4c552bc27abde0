"""Log lines of runs: each names its run, its workflow and its trace, whatever becomes of the run."""

import asyncio
import io
import json
import logging
import threading
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import pytest

from headrace import EventTrigger, Retry, Run, handler, workflow
from headrace.observability.log_observer import LogObserver
from headrace.observability.logs import Format, Logs
from headrace.observability.observer import HOOKS
from headrace.service import service
from headrace.topics.command import Cancel, Resume, Start
from headrace.topics.identity import ClientId, run_id
from headrace.topics.log import NewRecord, TopicPartition
from headrace.topics.run_record import CommandRecord, encode
from headrace.topics.trace_context import attempt_span_id, span_id_of, trace_id_of
from tests.service.fault_log import FaultLog
from tests.service.shell import PATIENCE_S, Recorder, app_of, event, place_at, serving, until

RUNS = TopicPartition("shop.runs", 0)
ONCE = Retry(attempts=1)


class Lines(Recorder):
    """Keeps what it is told, and writes the log's lines of it."""

    def __init__(self) -> None:
        super().__init__()
        self._stream = io.StringIO()
        self._log = LogObserver(Logs(stream=self._stream, style=Format.JSON, level=logging.DEBUG))
        for hook in HOOKS:
            setattr(self, hook, partial(self._tell, hook))

    def _tell(self, hook: str, told: Any) -> None:
        getattr(type(self), hook)(self, told)
        getattr(self._log, hook)(told)

    def of_runs(self) -> list[dict[str, Any]]:
        """All lines with a run so far."""
        lines = [json.loads(line) for line in self._stream.getvalue().splitlines()]
        return [line for line in lines if "run_id" in line]

    def events(self) -> set[str]:
        return {line["event"] for line in self.of_runs()}


def assert_traced(lines: Lines, *events: str) -> None:
    """These lines are there, and every line of a run has its workflow and its trace."""
    assert set(events) <= lines.events()
    for line in lines.of_runs():
        run = line["run_id"]
        assert line["workflow"], line
        assert line["trace_id"] == trace_id_of(run), line
        attempt = line.get("attempt")
        assert line["span_id"] == (
            span_id_of(run, "start") if attempt is None else attempt_span_id(run, line["task"], attempt)
        ), line


def command(name: str, body: Any) -> NewRecord:
    return NewRecord(value=encode(CommandRecord(id=ClientId(name), body=body)))


async def test_of_runs_that_sleep_fail_and_emit(tmp_path: Path) -> None:
    @handler(retry=ONCE)
    async def fails() -> None:
        raise ValueError("no")

    @handler
    async def undo() -> None: ...

    @handler
    async def works() -> None: ...

    @workflow(on=EventTrigger("in", "here"), name="eventful", emits=["out"])
    async def eventful(run: Run, order: dict[str, Any]) -> None:
        await run.sleep("1ms")
        await run.emit("done", {"fine": True}, topic="out")
        await run.call(works, compensate=undo)
        await run.call(fails)

    @workflow(on=EventTrigger("in", "refused"), name="refused", emits=["out"])
    async def refused(run: Run, order: dict[str, Any]) -> None:
        await run.emit("done", {"fine": False}, topic="out")

    lines = Lines()
    async with place_at(tmp_path, partitions=1) as place:
        log = FaultLog(place.log)
        log.refuses = lambda topic, record: topic == "out" and not json.loads(record.value or b"")["fine"]
        async with serving(log, app_of(fails, undo, works, eventful, refused), partitions=1, observer=lines):
            await place.publish("in", event({}, type="here"), event({}, type="refused"))
            await until(lambda: len(lines.finished) == 2 and "output.refused" in lines.events())
    assert_traced(
        lines,
        *("run.started", "timer.armed", "timer.fired", "output.sent", "output.refused"),
        *("attempt.succeeded", "attempt.failed", "compensation.finished", "run.finished"),
    )


async def test_of_handlers_that_nobody_waits_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service, "_CANCEL_GRACE_MS", 10)
    gate, thread_gate = asyncio.Event(), threading.Event()

    @handler(timeout="10ms", retry=ONCE)
    async def clings() -> None:
        for _ in range(3):  # its timeout, the end of its grace, and not the end of the test
            try:
                await gate.wait()
            except asyncio.CancelledError:
                continue

    @handler(timeout="10ms", retry=ONCE)
    def hangs() -> None:
        thread_gate.wait(PATIENCE_S)

    @workflow(on=EventTrigger("in", "clings"), name="clinging")
    async def clinging(run: Run, order: dict[str, Any]) -> None:
        await run.call(clings)

    @workflow(on=EventTrigger("in", "hangs"), name="hanging")
    async def hanging(run: Run, order: dict[str, Any]) -> None:
        await run.call(hangs)

    lines = Lines()
    async with place_at(tmp_path, partitions=1) as place:
        app = app_of(clings, hangs, clinging, hanging)
        async with serving(FaultLog(place.log), app, partitions=1, observer=lines) as process:
            await place.publish("in", event({}, type="clings"), event({}, type="hangs"))
            await until(lambda: len(lines.finished) == 2)
            assert process.service.snapshot().threads_abandoned == 1
            gate.set()
            thread_gate.set()
    assert_traced(lines, "handler.abandoned")
    abandoned = [line for line in lines.of_runs() if line["event"] == "handler.abandoned"]
    assert {(line["workflow"], line["handler"], line["reason"]) for line in abandoned} == {
        ("clinging", "clings", "swallowed_cancellation"),
        ("hanging", "hangs", "thread"),
    }


async def test_of_runs_that_are_held_parked_or_never_awake(tmp_path: Path) -> None:
    first = True
    gate = asyncio.Event()

    @handler
    async def one() -> None: ...

    @handler
    async def another() -> None: ...

    @handler(timeout="1h")
    async def waits() -> None:
        await gate.wait()

    @workflow(on=EventTrigger("in", "here"), name="fickle")
    async def fickle(run: Run, order: dict[str, Any]) -> None:
        await run.call(one if first else another)
        await run.call(waits)

    app = app_of(one, another, waits, fickle)
    held = run_id(0, ClientId("start"))
    gone = Start(namespace="default", workflow="gone", version="1", input=msgspec.Raw(b"null"))
    async with place_at(tmp_path, partitions=1) as place:
        async with serving(FaultLog(place.log), app, partitions=1, observer=(before := Lines())) as process:
            await place.publish("in", event({}, type="here"))
            await until(process.running)
        first = False
        async with serving(FaultLog(place.log), app, partitions=1, observer=(lines := Lines())) as process:
            (parked,) = await until(lambda: lines.parked)
            first = True
            await place.log.publish(RUNS, [command("start", gone), command("resume", Resume(run=parked.run))])
            await until(lambda: process.running() and process.service.owners[0].runs.held)
            await place.log.publish(RUNS, [command("cancel", Cancel(run=held))])
            await until(lambda: lines.finished)
            gate.set()
            await until(lambda: len(lines.finished) == 2)
    assert_traced(before, "run.started")
    assert_traced(lines, "run.parked", "run.resumed", "run.held", "run.finished")
    assert lines.finished[0].run == held
