"""Whatever an alert looks at begins at 0 before anything happens: a counter that first appears as 1 has never risen."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Final

import pytest

from headrace.observability.scrape import samples_of
from headrace.observability.silent import Silent
from headrace.observability.told_event import EventDeadLettered
from headrace.observability.told_run import RunFinished
from headrace.service.composition import Started, serve
from headrace.service.definitions.loader import load_app
from headrace.service.log_backend import log_of
from headrace.service.settings_source import load
from headrace.topics.log import NewRecord, TopicPartition
from tests.service.test_canary import asked

APP: Final = """
from headrace import EventTrigger, Run, workflow

@workflow(on=EventTrigger("orders", filter=lambda event: event.data["wanted"]))
async def fulfil(run: Run, order: dict[str, bool]) -> None:
    raise ValueError("no")

@workflow(on=EventTrigger("returns"))
async def refund(run: Run, number: int) -> None: ...
"""
RECORDS: Final = {"orders": [b"{}", b"no event", b'{"wanted": true}'], "returns": [b'"one"']}
COUNTED: Final = (
    "headrace_dead_letters_total",
    "headrace_runs_finished_total",
    "headrace_run_start_delay_seconds_count",
)


class Told(Silent):
    """Counts what the records come to: a run that ends, and a dead letter for each of the others."""

    def __init__(self) -> None:
        self.left = sum(map(len, RECORDS.values()))
        self.over = asyncio.Event()

    def run_finished(self, _: RunFinished, /) -> None:
        self._count()

    def event_dead_lettered(self, _: EventDeadLettered, /) -> None:
        self._count()

    def _count(self) -> None:
        self.left -= 1
        if not self.left:
            self.over.set()


def counted(scrape: str) -> dict[tuple[str, ...], float]:
    samples = samples_of(scrape)
    return {
        (family, *(f"{name}={value}" for name, value in sorted(labels.items()))): value
        for family in COUNTED
        for labels, value in samples[family]
    }


async def before_and_after(folder: Path) -> tuple[str, str]:
    (folder / "app.py").write_text(APP)
    (folder / "headrace.toml").write_text(
        '[log]\npath = "log.sqlite"\npartitions = 1\n[api]\nenabled = false\n[telemetry]\nmetrics_port = 0\n'
    )
    settings = load(file=folder / "headrace.toml").settings
    told, stop, started = Told(), asyncio.Event(), asyncio.Event()
    facts: list[Started] = []

    def ready(fact: Started) -> None:
        facts.append(fact)
        started.set()

    async with asyncio.TaskGroup() as group, asyncio.timeout(60):
        app = load_app(folder / "app.py")
        group.create_task(serve(settings, app, stop=stop, create_topics=True, started=ready, observers=[told]))
        await started.wait()
        before = await asyncio.to_thread(asked, facts[0].metrics_url, "/metrics")
        async with log_of(settings, owner=False) as log:
            for topic, values in RECORDS.items():
                await log.publish(TopicPartition(topic, 0), [NewRecord(value=value) for value in values])
            await told.over.wait()
        after = await asyncio.to_thread(asked, facts[0].metrics_url, "/metrics")
        stop.set()
    return before, after


def test_dead_letters_of_every_stage_and_failed_runs_rise_from_0(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    before, after = map(counted, asyncio.run(before_and_after(tmp_path)))
    risen = {series for series, value in after.items() if value}
    stages = {part for series in risen for part in series if part.startswith("reason=")}
    assert stages == {"reason=decode", "reason=match", "reason=start"}
    assert {series for series in risen if before.get(series) != 0} == set()
