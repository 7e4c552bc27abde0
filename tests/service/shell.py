"""The parts of a service put together on a log with faults: the router alone, or all of it."""

import asyncio
import itertools
import json
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar

from headrace.observability.health import Health
from headrace.observability.silent import Silent
from headrace.observability.traces import contexts
from headrace.service.definitions.app import App
from headrace.service.history.link import HistoryLink
from headrace.service.outbox import Outbox
from headrace.service.publisher import Publisher
from headrace.service.router import Router
from headrace.service.service import Service
from headrace.service.settings import Settings
from headrace.service.shared import Shared
from headrace.topics.command import Start
from headrace.topics.log import Log, LogRecord, NewRecord, TopicPartition
from headrace.topics.log_embedded import EmbeddedLog
from headrace.topics.membership_embedded import EmbeddedMembership
from headrace.topics.new_event import NewEvent, encode_event
from headrace.topics.outcome import Outcome
from headrace.topics.run_record import CommandRecord, OutcomeRecord, RunRecord, decode
from headrace.topics.spec import TopicSpec
from tests.service.fault_log import FaultLog

# the hostile setting: the same tests pass when idle runs are dropped at once
IDLE_AFTER = os.environ.get("HEADRACE_WORKER__IDLE_AFTER")
PATIENCE_S = 60.0  # how long a test waits for what must happen; none asserts how fast it did
T = TypeVar("T")


async def until(condition: Callable[[], T]) -> T:
    """What the condition gives once it is true."""
    async with asyncio.timeout(PATIENCE_S):
        while not (found := condition()):
            await asyncio.sleep(0.001)
        return found


def app_of(*definitions: Any) -> App:
    """An app of these workflows and handlers."""
    workflows = tuple(each for each in definitions if hasattr(each, "triggers"))
    handlers = tuple(each for each in definitions if not hasattr(each, "triggers"))
    for each in handlers:
        each.load()
    return App(name="shop", root=Path(), modules=(), workflows=workflows, handlers=handlers)


_numbers = itertools.count()


def event(data: Any, *, type: str = "order.placed", key: str | None = None) -> NewRecord:
    return encode_event(
        NewEvent(id=f"e{next(_numbers)}", source="test", type=type, data=json.dumps(data).encode(), key=key)
    )


def order_of(record: CommandRecord) -> int:
    """The `n` in the input of a start."""
    assert isinstance(record.body, Start)
    return json.loads(bytes(record.body.input))["n"]


class Recorder(Silent):
    """An observer that keeps what it is told about."""

    def __init__(self) -> None:
        self.resent: list[Any] = []
        self.sent: list[Any] = []
        self.lost: list[Any] = []
        self.taken: list[Any] = []
        self.dead_lettered: list[Any] = []
        self.discarded: list[Any] = []
        self.outages: list[Any] = []
        self.outages_over: list[Any] = []
        self.stopped: list[Any] = []
        self.breaker_calls: list[Any] = []
        self.limits_passed: list[Any] = []
        self.breaker_changes: list[Any] = []
        self.finished: list[Any] = []
        self.checkpoints: list[Any] = []
        self.checkpoints_failed: list[Any] = []
        self.trims_failed: list[Any] = []
        self.folded: list[Any] = []
        self.parked: list[Any] = []
        self.fenced: list[Any] = []
        self.redriven: list[Any] = []
        self.started: list[Any] = []
        self.timers_fired: list[Any] = []
        self.asked: list[Any] = []
        self.decided: list[Any] = []
        self.gaps: list[Any] = []
        self.unfed: list[Any] = []

    def output_resent(self, told: Any, /) -> None:
        self.resent.append(told)

    def output_sent(self, told: Any, /) -> None:
        self.sent.append(told)

    def partition_lost(self, told: Any, /) -> None:
        self.lost.append(told)

    def partition_taken(self, told: Any, /) -> None:
        self.taken.append(told)

    def event_dead_lettered(self, told: Any, /) -> None:
        self.dead_lettered.append(told)

    def event_discarded(self, told: Any, /) -> None:
        self.discarded.append(told)

    def outage_began(self, told: Any, /) -> None:
        self.outages.append(told)

    def outage_ended(self, told: Any, /) -> None:
        self.outages_over.append(told)

    def partition_stopped(self, told: Any, /) -> None:
        self.stopped.append(told)

    def breaker_changed(self, told: Any, /) -> None:
        self.breaker_changes.append(told)

    def breaker_called(self, told: Any, /) -> None:
        self.breaker_calls.append(told)

    def rate_limit_passed(self, told: Any, /) -> None:
        self.limits_passed.append(told)

    def run_finished(self, told: Any, /) -> None:
        self.finished.append(told)

    def checkpoint_written(self, told: Any, /) -> None:
        self.checkpoints.append(told)

    def checkpoint_failed(self, told: Any, /) -> None:
        self.checkpoints_failed.append(told)

    def trim_failed(self, told: Any, /) -> None:
        self.trims_failed.append(told)

    def log_folded(self, told: Any, /) -> None:
        self.folded.append(told)

    def run_parked(self, told: Any, /) -> None:
        self.parked.append(told)

    def history_gap(self, told: Any, /) -> None:
        self.gaps.append(told)

    def history_refused(self, told: Any, /) -> None:
        self.unfed.append(told)

    def loop_fenced(self, told: Any, /) -> None:
        self.fenced.append(told)

    def record_redriven(self, told: Any, /) -> None:
        self.redriven.append(told)

    def run_started(self, told: Any, /) -> None:
        self.started.append(told)

    def timer_fired(self, told: Any, /) -> None:
        self.timers_fired.append(told)

    def approval_requested(self, told: Any, /) -> None:
        self.asked.append(told)

    def approval_decided(self, told: Any, /) -> None:
        self.decided.append(told)


class Place:
    """An embedded file with the topics of the app `shop`, and a second way in to look at it."""

    def __init__(self, log: EmbeddedLog, view: EmbeddedLog) -> None:
        self.log = log
        self.view = view

    async def make(self, **partitions: int) -> None:
        """Topics by name; a `__` in it stands for a dot."""
        await self.log.create(
            [TopicSpec(name=name.replace("__", "."), partitions=count) for name, count in partitions.items()]
        )

    async def publish(self, topic: str, *records: NewRecord, partition: int = 0) -> int:
        """The offset of the first."""
        return (await self.log.publish(TopicPartition(topic, partition), records)).base_offset

    async def records(self, topic: str, partition: int | None = None) -> list[LogRecord]:
        """All that is there now, partition by partition."""
        found: list[LogRecord] = []
        for number in range(await self.view.partitions(topic)) if partition is None else (partition,):
            at = TopicPartition(topic, number)
            offsets = (await self.view.offsets([at]))[at]
            if offsets.end == offsets.start:
                continue
            async with self.view.read(at, offsets.start) as batches:
                async for batch in batches:
                    found += [record for record in batch.records if isinstance(record, LogRecord)]
                    if batch.records[-1].offset + 1 >= offsets.end:
                        break
        return found

    async def until(self, look: Callable[[], Any], enough: Callable[[Any], bool]) -> Any:
        async with asyncio.timeout(PATIENCE_S):
            while not enough(found := await look()):
                await asyncio.sleep(0.002)
            return found

    async def values(self, topic: str) -> list[Any]:
        return [json.loads(record.value or b"null") for record in await self.records(topic)]

    async def run_log(self) -> list[RunRecord]:
        return [decode(record.value) for record in await self.records("shop.runs")]

    async def starts(self) -> list[CommandRecord]:
        return [record for record in await self.run_log() if isinstance(record, CommandRecord)]

    async def outcomes(self, kind: type[Outcome] | None = None) -> list[Any]:
        """The bodies of all outcomes, accepted or not."""
        bodies = [record.body for record in await self.run_log() if isinstance(record, OutcomeRecord)]
        return bodies if kind is None else [body for body in bodies if isinstance(body, kind)]

    async def until_outcomes(self, kind: type[Any], count: int = 1) -> list[Any]:
        return await self.until(lambda: self.outcomes(kind), lambda found: len(found) >= count)

    async def position(self, topic: str = "in", partition: int = 0) -> tuple[int, dict[str, Any]]:
        """Committed offset and metadata of the router, or (-1, {}); without what it remembers of what was read."""
        at = TopicPartition(topic, partition)
        found = (await self.view.committed("shop.router", [at])).get(at)
        if found is None:
            return (-1, {})
        metadata = json.loads(found.metadata or "{}")
        metadata.pop("before", None)
        metadata.pop("made", None)
        return (found.offset, metadata)


@asynccontextmanager
async def place_at(path: Path, *, partitions: int = 2, sources: int = 1) -> AsyncIterator[Place]:
    async with EmbeddedLog(path / "log.sqlite", owner=True) as log, EmbeddedLog(log.path, owner=False) as view:
        place = Place(log, view)
        internal = {"shop__runs": partitions, "shop__audit": 1, "shop__dlq": 1}
        await place.make(**internal, **{"in": sources}, in__dlq=sources, out=1)
        yield place


def shared_of(
    log: Log,
    app: App,
    /,
    *,
    partitions: int = 2,
    observer: Silent | None = None,
    instance: str = "test-1",
    history: HistoryLink | None = None,
    **settings: Any,
) -> Shared:
    """`settings` are tables, as in `worker={"max_active_runs": 2}`."""
    tables: dict[str, Any] = {"app": {"name": "shop"}, "telemetry": {"metrics_port": 0}, **settings}
    if IDLE_AFTER is not None:
        tables["worker"] = {"idle_after": IDLE_AFTER, **tables.get("worker", {})}
    shared = Shared(
        settings=Settings.model_validate(tables),
        app=app,
        log=log,
        observer=observer or Silent(),
        contexts=contexts({}),
        instance=instance,
        partitions=partitions,
        listens_to_starts=False,
        dead_letter_bytes={},
        history=history,
    )
    shared.publisher = Publisher(log, shared.observer)
    shared.outbox = Outbox(shared)
    return shared


class Routing:
    """The router, its writers and its publisher: what lies before the run log, and no owner behind it."""

    def __init__(self, shared: Shared, router: Router) -> None:
        self.shared = shared
        self.router = router

    def floor(self, topic: str = "in", partition: int = 0) -> int:
        source = self.router.sources.get(TopicPartition(topic, partition))
        return -1 if source is None else source.floor


@asynccontextmanager
async def routing(log: FaultLog, app: App, /, **options: Any) -> AsyncIterator[Routing]:
    """One process. Leaving is a graceful stop; with `log.dead` it is a death, for nothing reaches the log any more."""
    shared = shared_of(log, app, **options)
    router = Router(shared)
    async with asyncio.TaskGroup() as group:
        shared.writers.open(group)
        publisher = group.create_task(shared.publisher.run())
        task = group.create_task(router.run())
        membership = EmbeddedMembership(
            partitions=shared.partitions, sources=shared.matcher.topics, count=log.partitions, member=""
        )
        member = group.create_task(membership.run())
        following = group.create_task(_follow(membership, router))
        try:
            yield Routing(shared, router)
        finally:
            for each in (member, following, task):
                each.cancel()
            await asyncio.wait([task])
            log.release_all()
            publisher.cancel()
            shared.writers.stop()


async def _follow(membership: EmbeddedMembership, router: Router) -> None:
    async for placement in membership.placements():
        router.follow(placement.sources)


class Serving:
    """A whole service."""

    def __init__(self, service: Service, shared: Shared, observer: Recorder, health: Health) -> None:
        self.service = service
        self.shared = shared
        self.health = health
        self.observer = observer

    def running(self) -> int:
        """Attempts whose handlers run."""
        return sum(running for *_, running in self.shared.attempts.in_progress())


@asynccontextmanager
async def serving(
    log: FaultLog, app: App, /, *, observer: Recorder | None = None, ready: bool = True, **options: Any
) -> AsyncIterator[Serving]:
    """One process, ready unless that is not waited for. Leaving is a graceful stop; with `log.dead` it is a death."""
    observer = observer or Recorder()
    options.setdefault("worker", {"handoff_grace": "10ms"})  # tests hold their handlers for as long as they like
    shared = shared_of(log, app, observer=observer, **options)
    stop = asyncio.Event()
    health = Health()
    service = Service(shared, health, stop)
    async with asyncio.TaskGroup() as group:
        task = group.create_task(service.run())
        try:
            if ready:
                await until(lambda: service.ownership.replayed() == (shared.partitions, shared.partitions))
            yield Serving(service, shared, observer, health)
        finally:
            stop.set()
            if log.dead:
                task.cancel()
            await asyncio.wait([task])
