"""The run log was deleted and made anew under its name: nobody may work on it, not the processes that run, and none that comes after them.

What was in it is gone, and everything that would be judged with it. What is looked at is only that all of it is refused, loudly, until somebody decides.
"""

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING

from headrace.service.run_log_check import LogReplaced
from headrace.topics.errors import SettingsError
from headrace.topics.log import LogRecord, TopicPartition
from headrace.topics.run_record import Announce, decode

if TYPE_CHECKING:
    from tests.simulation.instance import Instance
    from tests.simulation.world import World

_BOUND_S = 200.0
_SAID_S = 15.0  # until who refuses it has said so for others, behind a commit that is not answered
_NOBODY = -1  # the token before the first announce of a log


class Remade:
    """Make it just before the topic is."""

    def __init__(self, world: "World") -> None:
        self.open = False
        """Somebody was placed there in the moment before all others had seen it, or an announce of the old log has come late: it is no test any more."""
        self._world = world
        self._since = world.loop.now
        self._readers = {(each.name, owner.at.partition) for each in world.instances for owner in each.owners()}
        old = [
            record for at, each in world.broker.partitions.items() if at.topic == "sim.runs" for record in each.all()
        ]
        self._nonces = {each.nonce for each in (decode(record.value) for record in old) if isinstance(each, Announce)}

    def appended(self, at: TopicPartition, records: Sequence[LogRecord]) -> None:
        """Nobody begins in the new log."""
        for record in records if at.topic == "sim.runs" else ():
            entry = decode(record.value)
            if not isinstance(entry, Announce) or entry.previous_token != _NOBODY:
                continue
            knew = (entry.instance, at.partition) in self._readers
            if not self._begins(entry, at) or (not knew and self._world.loop.now < self._since + _SAID_S):
                self.open = True
            elif not self.open:
                self._world.violated(f"P1 {entry.instance} begins in {at}, which was made anew")

    def _begins(self, announce: Announce, at: TopicPartition) -> bool:
        """Whether anybody waits for this announce: it is none that was sent before, and came late or twice."""
        return announce.nonce not in self._nonces and any(
            owner.at == at and owner._nonce == announce.nonce
            for each in self._world.instances
            if each.name == announce.instance and each.running
            for owner in each.owners()
        )

    async def settle(self) -> None:
        """Every owner stops; then, one after the other, every process is started again."""
        world = self._world
        await self._refused()
        for number in range(world.plan.instances):
            old = [each for each in world.instances if each.number == number and each.running]
            for each in old:
                each.leave()
            while any(each.running for each in old):
                await asyncio.sleep(0.5)
            if world.violations or self.open:
                return
            await self._refused(world.start(number))

    async def _refused(self, begun: "Instance | None" = None) -> None:
        """Wait until all partitions of the run log stand still, at those who have them now. Who has begun now may end at once."""
        world = self._world
        until, calm_at = world.loop.now + _BOUND_S, world.loop.now + _SAID_S
        while not world.violations and not self.open:
            await asyncio.sleep(0.5)
            world.look_at_instances()
            running = [each for each in world.instances if each.running]
            stopped = {
                (each.name, told.partition)
                for each in running
                for told in each.watcher.stops
                if told.code == LogReplaced.code
            }
            has = {(each.name, owner.at.partition) for each in running for owner in each.owners()}
            everything = {partition for _, partition in has} == set(range(world.plan.partitions))
            ended = begun is not None and isinstance(begun.error, SettingsError)
            if not has <= stopped or not (everything or not running or ended):
                calm_at = world.loop.now + _SAID_S
            elif world.loop.now >= calm_at:
                return
            if world.loop.now > until:
                world.violated(f"I14 owned after {_BOUND_S} s: {sorted(has)}, refused: {sorted(stopped)}")
