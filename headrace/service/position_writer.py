"""Group commit of positions: one commit is out, the next one fills meanwhile.

All positions of a process in a group go through its one writer, each partition's in the order in which it gave them, so that nothing old ever lands on
something new. Called by `router.py` and its sources, and by `owner_position.py`.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Protocol

from headrace.service.fault_point import FaultPoint, maybe
from headrace.topics.errors import HeadraceError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from headrace.topics.log import Log, Position, TopicPartition

_COMMIT_EVERY_S = 0.25
_RECOMMIT_EVERY_S = 86_400.0  # a position that nobody commits for seven days is gone


class Committable(Protocol):
    """What is known of a partition, as it is kept in a group."""

    def position(self, by: str = "", /) -> Position:
        """As it is committed by this member of the group."""
        raise NotImplementedError


class PositionWriter:
    """`move` never waits; `note` returns when its positions are there. `run` is the task that commits."""

    def __init__(self, log: Log, group: str, member: Callable[[], str] = str) -> None:
        self._log = log
        self._member = member  # who is doing what is not clean yet
        self._group = group
        self._newest: dict[TopicPartition, Committable] = {}
        self._moved: set[TopicPartition] = set()
        self._left: set[TopicPartition] = set()  # to be forgotten once they are committed
        self._waiting: list[asyncio.Future[None]] = []
        self._wake = asyncio.Event()
        self._alarm: asyncio.TimerHandle | None = None
        self._stopped = False

    def known(self, positions: Mapping[TopicPartition, Committable]) -> None:
        """These are committed already, and are kept alive from now on."""
        self._newest.update(positions)
        self._left.difference_update(positions)

    def leave(self, at: TopicPartition) -> None:
        """It is somebody else's from now on: what was given is committed at once, and not kept alive."""
        self._left.add(at)
        self._wake.set()

    def move(self, at: TopicPartition, position: Committable) -> None:
        """Commit it soon."""
        self._newest[at] = position
        self._moved.add(at)
        self._left.discard(at)
        if self._alarm is None:
            self._alarm = asyncio.get_running_loop().call_later(_COMMIT_EVERY_S, self._wake.set)

    def forget(self, at: TopicPartition) -> None:
        """Somebody else keeps it from now on."""
        self._newest.pop(at, None)
        self._moved.discard(at)

    async def note(self, positions: Mapping[TopicPartition, Committable]) -> None:
        """Commit them now, and return when they are there. Raises what the log raises; they are committed later then."""
        self._newest.update(positions)
        self._moved.update(positions)
        self._left.difference_update(positions)
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(done)
        self._wake.set()
        await done

    def stop(self) -> None:
        """Let `run` return after a last commit."""
        self._stopped = True
        self._wake.set()

    async def run(self) -> None:
        """Commit until stopped. Once a day everything is committed again."""
        loop = asyncio.get_running_loop()
        daily = loop.call_later(_RECOMMIT_EVERY_S, self._wake.set)
        try:
            while True:
                await self._wake.wait()
                self._wake.clear()
                if loop.time() >= daily.when():
                    daily = loop.call_later(_RECOMMIT_EVERY_S, self._wake.set)
                    self._moved.update(self._newest)
                await self._commit()
                if self._stopped and not self._wake.is_set():
                    return
        finally:
            daily.cancel()
            if self._alarm is not None:
                self._alarm.cancel()

    async def _commit(self) -> None:
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None
        moved, self._moved = self._moved, set()
        waiting, self._waiting = self._waiting, []
        error: HeadraceError | None = None
        try:
            if moved:
                maybe(FaultPoint.POSITION_COMMITTING)
                by = self._member()
                await self._log.commit(self._group, {at: self._newest[at].position(by) for at in moved})
                maybe(FaultPoint.POSITION_COMMITTED)
        except HeadraceError as failed:
            error = failed
            for at in (moved - self._left) & self._newest.keys():  # of those that are left, others know better by now
                self.move(at, self._newest[at])
        for at in self._left - self._moved:
            self._newest.pop(at, None)
        self._left &= self._moved
        for done in waiting:
            with contextlib.suppress(asyncio.InvalidStateError):  # who waited was cancelled
                if error is None:
                    done.set_result(None)
                else:
                    done.set_exception(error)
