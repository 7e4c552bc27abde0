"""One running instance: its tasks, its start and its stop.

Start: topics checked, writers, publisher, router; then a place in the group, and owners and sources as it says. Stop, in this order:

    1. unready; the group is asked for nothing more, and while it places anew everything goes on
    2. sources stop and commit clean positions
    3. for every partition, outputs that are out come home, and it is released, its running attempts listed
    4. within the grace each result is delivered as a command; then the rest is cancelled and said to be abandoned
    5. everything written; out of the group; tasks end; the log is closed by who opened it
"""

from __future__ import annotations

import asyncio
import contextlib
from time import perf_counter
from typing import TYPE_CHECKING

from headrace.handlers.attempt_group import AttemptGroup, abandoned_count
from headrace.handlers.guard import Guard
from headrace.handlers.threads import HandlerThreads
from headrace.observability import told_log, told_process, told_run
from headrace.observability.health import Condition
from headrace.observability.label import AbandonReason, Dependency, GroupEvent
from headrace.service.attempts import Attempts
from headrace.service.back_pressure import BackPressure
from headrace.service.fault_point import FaultPoint, maybe
from headrace.service.gauges import snapshot
from headrace.service.health_observer import STOPPED, UNFED
from headrace.service.log_watch import LogWatch
from headrace.service.open_letters import OpenLetters
from headrace.service.outbox import Outbox
from headrace.service.ownership import Ownership
from headrace.service.publisher import Publisher
from headrace.service.router import Router
from headrace.topics.errors import HeadraceError
from headrace.topics.event_wait import set_within
from headrace.topics.membership import Placement

if TYPE_CHECKING:
    from headrace.handlers.result import Abandoned
    from headrace.observability.health import Health
    from headrace.observability.snapshot import Snapshot
    from headrace.service.history.link import HistoryLink
    from headrace.service.owner import Owner
    from headrace.service.shared import Shared
    from headrace.topics.membership import Membership

_CANCEL_GRACE_MS = 1_000  # for a handler to end after its cancellation; then it is abandoned
_OUTPUTS_HOME_S = 5.0
_RELIEVED_S = 2.0  # for the group to place everything elsewhere, while all goes on here
_HISTORY_S = 2.0  # for the last records to come into the history; what is left is read after the next start
_REPLAYED_EVERY_S = 0.02
_LAG_EVERY_S = 5.0
_REACHABLE_EVERY_S = 0.5


class Service:
    """`run` until `stop` is set. `attempts_left` tells afterwards whether handlers still run."""

    def __init__(
        self, shared: Shared, health: Health, stop: asyncio.Event, group_changed: asyncio.Event | None = None
    ) -> None:
        self._shared = shared
        self._health = health
        self._stop = stop
        self._group_changed = group_changed or asyncio.Event()
        self._threads = HandlerThreads(shared.settings.worker.thread_pool)
        self._group = AttemptGroup(
            Guard(
                threads=self._threads,
                result_bytes_max=shared.settings.limits.payload_bytes,
                abandoned=self._abandoned,
                clock=perf_counter,
                mask=shared.mask,
            ),
            grace_ms=_CANCEL_GRACE_MS,
        )
        shared.publisher = Publisher(shared.log, shared.observer)
        shared.outbox = Outbox(shared)
        shared.attempts = Attempts(shared, self._group)
        self.ownership = Ownership(shared)
        self._letters = OpenLetters(shared)
        self.router = Router(shared)
        shared.epochs.replayed = self.ownership.replayed
        self._relieved = asyncio.Event()  # the group has placed everything elsewhere

    @property
    def owners(self) -> list[Owner]:
        """Of the partitions that are placed here, in order."""
        return self.ownership.owners

    @property
    def attempts_left(self) -> int:
        """Handlers that swallowed their cancellation, or threads, that still run."""
        return abandoned_count() + self._threads.statistics().abandoned

    def fence(self, stalled_s: float) -> None:
        """Called first when the loop turns again after it stood still for half a session of the group."""
        partitions = self.ownership.doubt()
        self._shared.observer.loop_fenced(told_process.LoopFenced(stalled_ms=stalled_s * 1000, partitions=partitions))

    def snapshot(self) -> Snapshot:
        """The gauges, now."""
        return snapshot(
            self._shared,
            self.owners,
            self.router.sources.values(),
            threads_abandoned=self._threads.statistics().abandoned,
            dead_letters=self._letters.counts,
        )

    async def run(self) -> None:
        """Work until `stop`, then leave in good order. Raises what stopped it otherwise, in an ExceptionGroup."""
        shared = self._shared
        place = shared.log.join(
            shared.names.members,
            runs=shared.names.runs,
            partitions=shared.partitions,
            sources=shared.matcher.topics,
            definitions={f"{each.namespace}/{each.name}": each.version for each in shared.app.newest()},
        )
        async with asyncio.TaskGroup() as background, self._group, place as membership:
            shared.writers.open(background)
            self.ownership.open(background)
            tasks = [background.create_task(shared.publisher.run())]
            router = background.create_task(self.router.run())
            tasks.append(background.create_task(shared.checkpoints.run()))
            tasks.append(background.create_task(shared.start_reader.run()))
            tasks.append(background.create_task(BackPressure(shared, self.ownership).run()))
            tasks.append(background.create_task(shared.owner_positions.run()))
            if shared.history is not None:
                tasks.append(background.create_task(shared.history.run(self._is_replayed)))
                tasks.append(background.create_task(self._let_trim(shared.history)))
            if shared.topics is not None:
                tasks.append(background.create_task(self._letters.run()))
                tasks.append(background.create_task(LogWatch(shared, lambda: self.owners).run(shared.topics)))
            tasks.append(background.create_task(self._follow(membership)))
            tasks.append(background.create_task(self._look_when_told(membership)))
            tasks += [background.create_task(self._watch_broker()), background.create_task(self._watch_lag())]
            tasks.append(background.create_task(self._watch_replay()))
            try:
                await self._stop.wait()
                await self._leave(router, membership)
            finally:
                self.ownership.stop()
                for task in (*tasks, router):
                    task.cancel()
                self._group.cancel_all()
                shared.timers.stop()
                shared.writers.stop()
                self._threads.close()

    async def _follow(self, membership: Membership) -> None:
        """Whatever the group places, owners and sources follow. Nothing else ever makes them stop."""
        shared = self._shared
        before = Placement(0, frozenset(), frozenset(), ())
        async for placement in membership.placements():
            if shared.member and membership.member != shared.member:
                self._tell_rebalanced(GroupEvent.LOST, len(before.runs) + len(before.sources))
            shared.member, shared.members = membership.member, frozenset(placement.members)
            self.router.follow(placement.sources)
            self.ownership.follow(placement)
            self._letters.follow(placement)
            if (
                shared.history is not None and not self.ownership.leaving
            ):  # it reads to the end of what was written here
                shared.history.follow(placement.runs)
            revoked = len(before.runs - placement.runs) + len(before.sources - placement.sources)
            if revoked:
                self._tell_rebalanced(GroupEvent.REVOKED, revoked)
            count = len(placement.runs) + len(placement.sources)
            self._tell_rebalanced(GroupEvent.ASSIGNED, count, placement.rebalance_ms)
            if self.ownership.leaving and not count:
                self._relieved.set()
            before = placement

    async def _look_when_told(self, membership: Membership) -> None:
        """Somebody who knows better says that the group has changed."""
        while True:
            await self._group_changed.wait()
            self._group_changed.clear()
            membership.look()

    def _tell_rebalanced(self, event: GroupEvent, partitions: int, duration_ms: float | None = None) -> None:
        self._shared.observer.rebalanced(
            told_log.Rebalanced(
                group=self._shared.names.members, event=event, partitions=partitions, duration_ms=duration_ms
            )
        )

    async def _leave(self, router: asyncio.Task[None], membership: Membership) -> None:
        shared = self._shared
        settings = shared.settings.worker
        self._health.drain("stopping")
        maybe(FaultPoint.STOPPING)
        began = perf_counter()
        shared.observer.service_stopping(
            told_process.ServiceStopping(reason="asked to stop", grace_ms=settings.handoff_grace_ms)
        )
        self.ownership.leaving = True
        await membership.retire()
        await set_within(self._relieved, _RELIEVED_S)
        self.ownership.lose_all()  # what is left, where no group answers
        router.cancel()
        await asyncio.wait([router])
        maybe(FaultPoint.ROUTER_STOPPED)
        await self.ownership.given()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_OUTPUTS_HOME_S):
                await shared.publisher.pause()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(max(1.0, settings.shutdown_grace_ms / 1000 - (perf_counter() - began))):
                await shared.writers.flushed()
        if shared.history is not None:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_HISTORY_S):
                    await shared.history.flushed()
        await membership.leave()
        maybe(FaultPoint.FLUSHED)
        shared.observer.service_stopped(
            told_process.ServiceStopped(duration_ms=(perf_counter() - began) * 1000, attempts_left=self.attempts_left)
        )

    async def _watch_replay(self) -> None:
        """Keep `/readyz` honest: a member, and what is placed here is worked on, but for partitions that have stopped; unless all have.

        A spare has nothing, and is ready.
        """
        ownership = self.ownership
        await ownership.placed.wait()
        self._health.set(Condition.MEMBER, ok=True)
        while True:
            ownership.changed.clear()
            done, count = ownership.replayed()
            stopped = ownership.stopped()
            detail = ""
            if done < count:
                detail = f"{done} of {count} partitions"
            elif stopped and len(stopped) == count:
                detail = f"stopped, all {count} partitions: {', '.join(sorted(set(stopped)))}"
            self._health.set(Condition.REPLAYED, ok=not detail, detail=detail)
            if done == count:
                self._health.start()
                await ownership.changed.wait()
            else:
                await asyncio.sleep(_REPLAYED_EVERY_S)

    def _is_replayed(self) -> bool:
        done, count = self.ownership.replayed()
        return self.ownership.placed.is_set() and done == count

    async def _let_trim(self, history: HistoryLink) -> None:
        """Trims of the run log wait for the history: say when it has read on."""
        while True:
            await history.moved.wait()
            history.moved.clear()
            for owner in self.owners:
                owner.checkpointer.history_moved()

    async def _watch_broker(self) -> None:
        """Keep `/readyz` and the log honest about the broker, and about partitions that go on elsewhere or anew."""
        down_since: float | None = None
        while True:
            ok = self._shared.log.reachable
            if ok and down_since is not None:
                self._shared.observer.outage_ended(
                    told_process.OutageEnded(
                        dependency=Dependency.BROKER, duration_ms=(perf_counter() - down_since) * 1000
                    )
                )
                down_since = None
            elif not ok and down_since is None:
                down_since = perf_counter()
                self._shared.observer.outage_began(
                    told_process.OutageBegan(dependency=Dependency.BROKER, message="the broker does not answer")
                )
            self._health.set(Condition.BROKER, ok=ok, detail="" if ok else "does not answer")
            self._health.keep(STOPPED, {f"{STOPPED}{at}" for at in self._shared.stops})
            if self._shared.history is not None:
                self._health.keep(UNFED, {f"{UNFED}{place}" for place in self._shared.history.unfed})
            await asyncio.sleep(_REACHABLE_EVERY_S)

    async def _watch_lag(self) -> None:
        """End offsets of sources that wait: their readers do not hear of new records. And what owners wait for."""
        while True:
            await asyncio.sleep(_LAG_EVERY_S)
            sources = dict(self.router.sources)
            with contextlib.suppress(HeadraceError):
                for owner in self.owners:
                    await owner.look()
                for at, offsets in (await self._shared.log.offsets(list(sources))).items():
                    sources[at].ends_at(offsets.end)

    def _abandoned(self, abandoned: Abandoned) -> None:
        self._shared.observer.handler_abandoned(
            told_run.HandlerAbandoned(
                run=abandoned.run_id,
                workflow=abandoned.workflow,
                step=abandoned.task,
                handler=abandoned.handler,
                number=abandoned.number,
                reason=AbandonReason.THREAD if abandoned.in_thread else AbandonReason.SWALLOWED_CANCELLATION,
                waited_ms=abandoned.after_ms,
                traceparent=abandoned.anchor,
            )
        )
