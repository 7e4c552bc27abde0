"""Which partitions this instance owns: follows the group's placements, one task for each partition that is placed here.

    gained ──► an owner's task: replay, announce, work
    kept   ──► nothing
    lost   ──► release at once; what runs has its grace, then the rest is cancelled and said to be abandoned

A partition that somebody else announces, though it is placed here, is dropped at once and taken again after a back-off: the loss of one partition is never the
end of the process. Owned by `service.py`.
"""

from __future__ import annotations

import asyncio
import contextlib
from hashlib import blake2b
from typing import TYPE_CHECKING, Any

from headrace.observability.label import LossReason, StopReason
from headrace.service.fault_point import FaultPoint, maybe
from headrace.service.owner import Owner, OwnershipLost
from headrace.topics.back_off import back_off_s
from headrace.topics.event_wait import set_within
from headrace.topics.log import TopicPartition

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from headrace.service.shared import Shared
    from headrace.topics.membership import Placement

_SUCCESSOR_S = 3.0  # for a successor to read the log; then it is released all the same
_LOOK_S = 0.1
_OUTPUTS_HOME_S = 2.0  # for outputs that are out when a partition is given away: they would leave twice
_BACK_OFF_S = (0.2, 10.0)  # before a partition that somebody else announced is taken again
_LIVED_S = 30.0  # an owner that worked for so long was no quarrel


class Ownership:
    """`follow` never waits. `run` is the entry of the task group in which owners live."""

    def __init__(self, shared: Shared) -> None:
        self._shared = shared
        self._group: asyncio.TaskGroup | None = None
        self._placed: frozenset[int] = frozenset()
        self._owners: dict[int, Owner] = {}
        self._tasks: dict[int, asyncio.Task[None]] = {}
        self._giving: dict[Owner, asyncio.Task[None]] = {}
        # ends the back-off of a partition that is placed elsewhere meanwhile
        self._moved: dict[int, asyncio.Event] = {}
        self.placed = asyncio.Event()  # the first placement is known
        self.changed = asyncio.Event()  # set at every placement and stop of a partition; whoever waits for it clears it
        self.leaving = False
        self._takers = False  # somebody else is there, and stays

    @property
    def owners(self) -> list[Owner]:
        """Those of partitions that are placed here, by partition."""
        return [self._owners[partition] for partition in sorted(self._owners) if partition in self._placed]

    def replayed(self) -> tuple[int, int]:
        """How many of the partitions that are placed here are worked on, and how many there are."""
        return sum(owner.ready.is_set() for owner in self.owners), len(self._placed)

    def stopped(self) -> list[StopReason]:
        """Why partitions stand still: of those that are placed here and were stopped, by partition."""
        places = [TopicPartition(self._shared.names.runs, partition) for partition in sorted(self._placed)]
        return [self._shared.stops[at] for at in places if at in self._shared.stops]

    def open(self, group: asyncio.TaskGroup) -> None:
        """Where the tasks live: whoever ends it ends them."""
        self._group = group

    def follow(self, placement: Placement) -> None:
        """Take what is gained, give what is lost, leave the rest alone."""
        lost, gained = self._placed - placement.runs, placement.runs - self._placed
        self._placed = placement.runs
        self._takers = any(
            member not in placement.retiring and self._shared.is_other_member(member) for member in placement.members
        )
        for partition in sorted(lost):
            self._lose(partition)
        for partition in sorted(gained):
            self._gain(partition)
        for owner in self.owners:
            owner.members_changed()
        self.placed.set()
        self.changed.set()

    async def given(self) -> None:
        """Return when nothing is being given away: all graces are over, or were not needed."""
        while self._giving:
            await asyncio.wait(list(self._giving.values()))

    def lose_all(self) -> None:
        """Give everything away that is left, whatever the group says: it did not answer, so there is no successor to wait for."""
        lost, self._placed = self._placed, frozenset()
        if lost:
            self._takers = False
        for partition in sorted(lost):
            self._lose(partition)

    def doubt(self) -> int:
        """The loop stood still for so long that others may own what is placed here: announce all of it anew before anything is begun. How many there are."""
        return sum(owner.doubt() for owner in self.owners)

    def stop(self) -> None:
        """End all tasks."""
        for task in (*self._tasks.values(), *self._giving.values()):
            task.cancel()

    # --- gaining ---------------------------------------------------------------------------------------------------

    def _gain(self, partition: int) -> None:
        owner = self._owners.get(partition)
        if owner is not None and owner.take_back():
            giving = self._giving.pop(owner, None)
            if giving is not None:
                giving.cancel()
            return
        self._moved[partition] = asyncio.Event()
        self._tasks[partition] = self._task(self._own(partition, self._tasks.get(partition)), f"own-{partition}")

    async def _own(self, partition: int, before: asyncio.Task[None] | None) -> None:
        if before is not None:  # a partition has one reader at a time
            await asyncio.wait([before])
        loop = asyncio.get_running_loop()
        failures = 0
        while partition in self._placed:
            owner = self._owners[partition] = Owner(self._shared, partition, self.changed.set)
            began = loop.time()
            try:
                await owner.run()
            except OwnershipLost:
                failures = 0 if loop.time() - began > _LIVED_S else failures + 1
            else:
                return  # given away
            finally:
                del self._owners[partition]
            await self._back_off(partition, failures)

    async def _back_off(self, partition: int, failures: int) -> None:
        """Whoever announced may be right, and our placement old: then the next one says so. If not, one of us gives way for longer."""
        jitter = blake2b(f"{self._shared.instance}/{partition}/{failures}".encode(), digest_size=2).digest()
        wait_s = back_off_s(_BACK_OFF_S, failures) * (0.5 + int.from_bytes(jitter, "big") / 65_536)
        await set_within(self._moved[partition], wait_s)

    # --- losing ----------------------------------------------------------------------------------------------------

    def _lose(self, partition: int) -> None:
        self._moved[partition].set()
        self._shared.stops.pop(TopicPartition(self._shared.names.runs, partition), None)
        owner = self._owners.get(partition)
        task = self._tasks[partition]
        if owner is None or not owner.live:
            task.cancel()
        elif owner not in self._giving:
            self._giving[owner] = self._task(self._give(owner, task), f"give-{partition}")

    async def _give(self, owner: Owner, task: asyncio.Task[None]) -> None:
        """Hand over in good order. Outputs that are out come home first, so that the successor does not send them again."""
        loop = asyncio.get_running_loop()
        grace_ms = self._shared.settings.worker.handoff_grace_ms
        try:
            await self._successor(owner)
            owner.stop_sending()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_OUTPUTS_HOME_S):
                    await self._shared.publisher.home()
            maybe(FaultPoint.OUTPUTS_HOME)
            ends_at = loop.time() + grace_ms / 1000
            if owner.release(grace_ms, LossReason.SHUTDOWN if self.leaving else LossReason.REBALANCE):
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout_at(ends_at):
                        await owner.attempts_over()
                maybe(FaultPoint.GRACE_OVER)
                owner.abandon()
        finally:
            self._giving.pop(owner, None)
        if not self.leaving:  # what was folded is kept for a while: the next placement may bring the partition back
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout_at(ends_at):
                    await owner.gone.wait()
            if owner.at.partition not in self._placed:
                task.cancel()

    async def _successor(self, owner: Owner) -> None:
        """Work on until whoever is next has read the log: the partition stands still for an announce then, not for a replay. Not for ever, and for nobody."""
        loop = asyncio.get_running_loop()
        ends_at = loop.time() + _SUCCESSOR_S
        while self._takers and not owner.knocked.is_set() and loop.time() < ends_at:
            await set_within(owner.knocked, _LOOK_S)

    def _task(self, work: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        if self._group is None:
            raise RuntimeError("no task group is open")
        return self._group.create_task(work, name=name)
