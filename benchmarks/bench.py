"""One scenario, start to end: topics, load, collector, service, figures. Everything it starts, it ends."""

import asyncio
import tempfile
import uuid
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import NamedTuple

import msgspec

from benchmarks.figures import Completeness, Result, Spread, appended_us, completeness, cpu_s, delays_ms, spread
from benchmarks.load import Sent
from benchmarks.order import Schedule, number_of
from benchmarks.program import Program
from benchmarks.scenario import Scenario
from benchmarks.target import ROOT, Place, Target, target
from benchmarks.usage import Sampler, Usage

MIB = 1 << 20


class Setup(NamedTuple):
    """What all scenarios share. `settings` go to Headrace as --set; `profiles`: folder for cProfile files."""

    bootstrap_servers: str
    broker_pid: int
    settings: Sequence[str] = ()
    profiles: Path | None = None


class Figures(msgspec.Struct, frozen=True, kw_only=True):
    """What one scenario cost, without its warm-up.

    `runs_per_s`: from the first order (burst: taken up; else due) to the last result, which took `seconds`.
    `seconds_from_start`: the same from the start of the process. `delay_ms`: from the order being due to the append of
    its result; `received_ms`: to the collector having it; both `None` for a burst. `late_ms`, `acknowledged_ms`: the
    load's own. CPU is user and system, of the service with all its processes and of the broker. `repeats`: runs/s of
    all times that it was done; these are the figures of the median.
    """

    name: str
    target: str
    load: str
    orders: int
    warm_up: int
    runs_per_s: float
    seconds: float
    seconds_from_start: float | None
    delay_ms: Spread | None
    received_ms: Spread | None
    late_ms: Spread | None
    acknowledged_ms: Spread | None
    cpu_us_per_run: float
    broker_cpu_us_per_run: float
    peak_mib: float
    completeness: Completeness
    exit_code: int | None
    repeats: list[float]

    @property
    def sound(self) -> bool:
        """Every order has exactly one result, and the service stopped in order."""
        return self.completeness.complete and self.exit_code == 0


class _Seen(NamedTuple):
    """What was observed, before it is made into figures."""

    results: list[Result]
    sent: Sent
    service: list[Usage]
    broker: list[Usage]
    peak_bytes: int
    started_us: float
    first_us: float | None
    exit_code: int | None


async def measure_often(scenario: Scenario, setup: Setup, times: int) -> Figures:
    """The one in the middle by runs/s of `times` times; one that is not sound, if there is one."""
    done = [await measure(scenario, setup) for _ in range(times)]
    ordered = sorted(done, key=lambda one: one.runs_per_s)
    chosen = next((one for one in done if not one.sound), ordered[(times - 1) // 2])
    return msgspec.structs.replace(chosen, repeats=[one.runs_per_s for one in done])


async def measure(scenario: Scenario, setup: Setup) -> Figures:
    """Run one scenario. Raises `ProgramFailed` if a part of it does not work at all."""
    with tempfile.TemporaryDirectory(prefix="headrace-bench-") as folder:
        place = Place(
            app=f"bench-{scenario.target}-{scenario.load}-{uuid.uuid4().hex[:8]}",
            folder=Path(folder),
            bootstrap_servers=setup.bootstrap_servers,
            settings=setup.settings,
            profile=setup.profiles / f"{scenario.name}.prof" if setup.profiles else None,
        )
        return _figures(scenario, await _observe(scenario, place, setup.broker_pid))


async def _observe(scenario: Scenario, place: Place, broker_pid: int) -> _Seen:
    subject = target(scenario.target, place)
    await subject.prepare()
    into = place.folder / "results.json"
    environment = {"BENCH_ORDERS": place.orders, "BENCH_RESULTS": place.results}
    burst = not scenario.rate
    async with AsyncExitStack() as stack:
        load = await stack.enter_async_context(_helper(subject.load(scenario.rate, scenario.orders), place, "load"))
        await load.expect("ready")
        sent = await _send(load) if burst else None
        collector = await stack.enter_async_context(
            _helper(subject.collector(scenario.orders, into, lazy=burst), place, "collector")
        )
        await collector.expect("ready")
        service = await stack.enter_async_context(_service(subject, place, environment))
        with Sampler(service.pid) as of_service, Sampler(broker_pid) as of_broker:
            if sent is None:
                await subject.ready(service)
                sent = await _send(load, seconds=scenario.orders / scenario.rate)
            await _done(collector, service)
        last_words = await service.stop()
        return _Seen(
            results=msgspec.json.decode(into.read_bytes(), type=list[Result]),
            sent=sent,
            service=of_service.samples,
            broker=of_broker.samples,
            peak_bytes=of_service.peak_bytes,
            started_us=of_service.started_us,
            first_us=await subject.first_us(last_words) if burst else 0.0,
            exit_code=service.exit_code,
        )


def _helper(command: list[str], place: Place, name: str) -> Program:
    return Program(command, log=place.folder / f"{name}.log", folder=ROOT)


def _service(subject: Target, place: Place, environment: Mapping[str, str]) -> Program:
    return Program(
        subject.service(),
        log=place.folder / "service.log",
        folder=subject.folder,
        environment=environment,
        talking=subject.talking,
    )


async def _send(load: Program, seconds: float = 0.0) -> Sent:
    """Give the word and wait for the report; a log that cannot keep up may take several times as long."""
    await load.tell("go")
    return msgspec.json.decode(await load.line(120 + 4 * seconds), type=Sent)


async def _done(collector: Program, service: Program) -> None:
    """Wait for the collector. Raises `ProgramFailed` if the service ends first."""
    try:
        async with asyncio.TaskGroup() as group:
            done = group.create_task(collector.expect("done"))
            watch = group.create_task(service.ended())
            await asyncio.wait((done, watch), return_when=asyncio.FIRST_COMPLETED)
            if not done.done():
                raise service.failed("ended while orders were open")
            watch.cancel()
    except BaseExceptionGroup as group:
        raise group.exceptions[0] from None


def _figures(scenario: Scenario, seen: _Seen) -> Figures:
    burst = not scenario.rate
    schedule = Schedule(seen.sent.start_us, scenario.rate, scenario.orders)
    appended, received = delays_ms(seen.results, schedule, first=scenario.warm_up)
    measured = [appended_us(result) for result in seen.results if number_of(result.order) >= scenario.warm_up]
    first_us = min(measured, default=0.0) if seen.first_us is None else seen.first_us
    from_us = first_us if burst else schedule.due_us(scenario.warm_up)
    to_us = max(measured, default=from_us + 1)
    runs = max(1, scenario.measured)
    return Figures(
        name=scenario.name,
        target=scenario.target,
        load=scenario.load,
        orders=scenario.orders,
        warm_up=scenario.warm_up,
        runs_per_s=round(len(appended) / (to_us - from_us) * 1e6, 1),
        seconds=round((to_us - from_us) / 1e6, 3),
        seconds_from_start=round((to_us - seen.started_us) / 1e6, 3) if burst else None,
        delay_ms=None if burst else spread(appended),
        received_ms=None if burst else spread(received),
        late_ms=None if burst else seen.sent.late_ms,
        acknowledged_ms=None if burst else seen.sent.acknowledged_ms,
        cpu_us_per_run=round(cpu_s(seen.service, from_us, to_us) / runs * 1e6, 1),
        broker_cpu_us_per_run=round(cpu_s(seen.broker, from_us, to_us) / runs * 1e6, 1),
        peak_mib=round(seen.peak_bytes / MIB, 1),
        completeness=completeness(seen.results, scenario.orders),
        exit_code=seen.exit_code,
        repeats=[],
    )
