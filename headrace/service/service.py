"""One running instance: its tasks, its start and its stop.

Start: topics checked, writers, publisher, owners (all partitions of the run log for now), router. Stop, in this order:

    1. unready; the router ends and commits a clean position
    2. outputs that are out come home, and the log hears of them
    3. every partition is released, its running attempts listed
    4. within the grace each result is delivered as a command; then the rest is cancelled and said to be abandoned
    5. everything written; tasks end; the log is closed by who opened it
"""

from __future__ import annotations

import asyncio
import contextlib
from time import perf_counter
from typing import TYPE_CHECKING

from headrace.handlers.attempt_group import AttemptGroup, abandoned_count
from headrace.handlers.guard import Guard
from headrace.handlers.threads import HandlerThreads
from headrace.observability import observer as told
from headrace.observability.health import Condition
from headrace.observability.label import AbandonReason, Dependency
from headrace.service.attempts import Attempts
from headrace.service.fault_point import FaultPoint, maybe
from headrace.service.gauges import snapshot
from headrace.service.outbox import Outbox
from headrace.service.owner import Owner
from headrace.service.publisher import Publisher
from headrace.service.router import Router
from headrace.topics.errors import HeadraceError

if TYPE_CHECKING:
    from headrace.handlers.result import Abandoned
    from headrace.observability.health import Health
    from headrace.observability.snapshot import Snapshot
    from headrace.service.shared import Shared

_CANCEL_GRACE_MS = 1_000  # for a handler to end after its cancellation; then it is abandoned
_OUTPUTS_HOME_S = 5.0
_LAG_EVERY_S = 5.0
_REACHABLE_EVERY_S = 0.5


class Service:
    """`run` until `stop` is set. `attempts_left` tells afterwards whether handlers still run."""

    def __init__(self, shared: Shared, health: Health, stop: asyncio.Event) -> None:
        self._shared = shared
        self._health = health
        self._stop = stop
        self._threads = HandlerThreads(shared.settings.worker.thread_pool)
        self._group = AttemptGroup(
            Guard(
                threads=self._threads,
                result_bytes_max=shared.settings.limits.payload_bytes,
                abandoned=self._abandoned,
                clock=perf_counter,
            ),
            grace_ms=_CANCEL_GRACE_MS,
        )
        shared.publisher = Publisher(shared.log, shared.observer)
        shared.outbox = Outbox(shared)
        shared.attempts = Attempts(shared, self._group)
        self.owners = [Owner(shared, partition) for partition in range(shared.partitions)]
        self.router = Router(shared)

    @property
    def attempts_left(self) -> int:
        """Handlers that swallowed their cancellation, or threads, that still run."""
        return abandoned_count() + self._threads.statistics().abandoned

    def snapshot(self) -> Snapshot:
        """The gauges, now."""
        return snapshot(self._shared, self.owners, self.router.sources.values())

    async def run(self) -> None:
        """Work until `stop`, then leave in good order. Raises what stopped it otherwise, in an ExceptionGroup."""
        async with asyncio.TaskGroup() as background, self._group:
            self._shared.writers.open(background)
            tasks = [background.create_task(self._shared.publisher.run())]
            owners = [background.create_task(owner.run()) for owner in self.owners]
            router = background.create_task(self.router.run())
            tasks.append(background.create_task(self._shared.checkpoints.run()))
            tasks.append(background.create_task(self._shared.owner_positions.run()))
            tasks += [background.create_task(self._watch_broker()), background.create_task(self._watch_lag())]
            tasks.append(background.create_task(self._watch_replay()))
            try:
                await self._stop.wait()
                await self._leave(router)
            finally:
                for task in (*tasks, *owners, router):
                    task.cancel()
                self._group.cancel_all()
                self._shared.timers.stop()
                self._shared.writers.stop()
                self._threads.close()

    async def _leave(self, router: asyncio.Task[None]) -> None:
        shared = self._shared
        settings = shared.settings.worker
        self._health.drain("stopping")
        maybe(FaultPoint.STOPPING)
        began = perf_counter()
        shared.observer.service_stopping(
            told.ServiceStopping(reason="asked to stop", grace_ms=settings.handoff_grace_ms)
        )
        router.cancel()
        await asyncio.wait([router])
        maybe(FaultPoint.ROUTER_STOPPED)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_OUTPUTS_HOME_S):
                await shared.publisher.pause()
        maybe(FaultPoint.OUTPUTS_HOME)
        left = [owner.release(settings.handoff_grace_ms) for owner in self.owners]
        if any(left):
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(settings.handoff_grace_ms / 1000):
                    await shared.attempts.none_running()
        maybe(FaultPoint.GRACE_OVER)
        for owner in self.owners:
            owner.abandon()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(max(1.0, settings.shutdown_grace_ms / 1000 - (perf_counter() - began))):
                await shared.writers.flushed()
        maybe(FaultPoint.FLUSHED)
        shared.observer.service_stopped(
            told.ServiceStopped(duration_ms=(perf_counter() - began) * 1000, attempts_left=self.attempts_left)
        )

    async def _watch_replay(self) -> None:
        self._health.set(Condition.MEMBER, ok=True)
        for done, owner in enumerate(self.owners):
            self._health.set(Condition.REPLAYED, ok=False, detail=f"{done} of {len(self.owners)} partitions")
            await owner.ready.wait()
        self._health.set(Condition.REPLAYED, ok=True)
        self._health.start()

    async def _watch_broker(self) -> None:
        """Keep `/readyz` and the log honest about the broker."""
        down_since: float | None = None
        while True:
            ok = self._shared.log.reachable
            if ok and down_since is not None:
                self._shared.observer.outage_ended(
                    told.OutageEnded(dependency=Dependency.BROKER, duration_ms=(perf_counter() - down_since) * 1000)
                )
                down_since = None
            elif not ok and down_since is None:
                down_since = perf_counter()
                self._shared.observer.outage_began(
                    told.OutageBegan(dependency=Dependency.BROKER, message="the broker does not answer")
                )
            self._health.set(Condition.BROKER, ok=ok, detail="" if ok else "does not answer")
            await asyncio.sleep(_REACHABLE_EVERY_S)

    async def _watch_lag(self) -> None:
        """End offsets of sources that wait: their readers do not hear of new records."""
        while True:
            await asyncio.sleep(_LAG_EVERY_S)
            sources = dict(self.router.sources)
            with contextlib.suppress(HeadraceError):
                for at, offsets in (await self._shared.log.offsets(list(sources))).items():
                    sources[at].end_offset = max(sources[at].end_offset, offsets.end)

    def _abandoned(self, abandoned: Abandoned) -> None:
        self._shared.observer.handler_abandoned(
            told.HandlerAbandoned(
                run=abandoned.run_id,
                workflow="",
                step=abandoned.task,
                handler=abandoned.handler,
                number=abandoned.number,
                reason=AbandonReason.THREAD if abandoned.in_thread else AbandonReason.SWALLOWED_CANCELLATION,
                waited_ms=abandoned.after_ms,
            )
        )
