"""The simulated group coordinator: who is a member, who is taken for dead, and who hears of a placement when.

Sessions expire, placements arrive late and at different times, and a member that was given up comes back under a new name. As in Kafka, a rebalance waits for
every member that is not given up yet.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence

from headrace.topics.log import TopicPartition
from headrace.topics.membership import Placement
from headrace.topics.newest_placement import NewestPlacement
from headrace.topics.placement import Candidate, place

_TICK_S = 0.3  # heartbeats
_FORGOTTEN = frozenset[TopicPartition]()


class SimMembership:
    """One member's side. `reachable` says whether its heartbeats arrive; `way_s` how long a message takes."""

    def __init__(
        self,
        group: "Group",
        *,
        runs: str,
        partitions: int,
        sources: Sequence[str],
        reachable: Callable[[], bool],
        dead: Callable[[], bool],
        way_s: Callable[[], float],
    ) -> None:
        self.member = ""
        self.runs = runs
        self.partitions = partitions
        self.sources = tuple(sources)
        self.reachable = reachable
        self.dead = dead
        self.way_s = way_s
        self.newest = NewestPlacement()
        self.held = _FORGOTTEN
        self.generation = -1
        self.retiring = False
        self.left = False
        self.joins = 0
        self.name = ""  # as the group knows it; "" while it does not
        self.seen_at = 0.0
        self._group = group

    def placements(self) -> AsyncIterator[Placement]:
        return self.newest.each()

    def look(self) -> None:
        """Sources are looked at with every heartbeat anyway."""

    async def retire(self) -> None:
        self.retiring = True
        self._group.later(self.way_s(), self._group.changed)

    async def leave(self) -> None:
        self.left = True
        if self.reachable():
            self._group.later(self.way_s(), self._group.remove, self.name)
            await asyncio.sleep(0)

    async def leave_for(self, member: str) -> None:
        self._group.later(self.way_s(), self._group.remove, member)


class Group:
    """`count` tells how many partitions a topic has, 0 if it is not there."""

    def __init__(self, name: str, count: Callable[[str], int], later: Callable[..., None]) -> None:
        self.session_s = 10.0
        self.notice_s = (0.01, 0.35)  # how long a change stays unnoticed
        self.late_s = 0.0  # by how much placements may come apart
        self.later = later
        self.uniform: Callable[[float, float], float] = lambda a, _b: a
        self.generation = 0
        self._name = name
        self._count = count
        self._members: list[SimMembership] = []  # all that have not left
        self._joined = 0
        self._due = False
        self._ticking = False
        self._counts: dict[str, int] = {}

    @property
    def members(self) -> list[SimMembership]:
        """Those that the group knows."""
        return [member for member in self._members if member.name]

    def add(self, member: SimMembership) -> None:
        """It asks to join."""
        self._members.append(member)
        self._join(member)
        if not self._ticking:
            self._ticking = True
            self.later(_TICK_S, self._tick)

    def _join(self, member: SimMembership) -> None:
        self._joined += 1
        member.joins += 1
        member.name = f"{self._name}-{self._joined}"
        member.seen_at = self._now()
        self.changed()

    def remove(self, name: str) -> None:
        """It leaves, or somebody says so of it."""
        for member in list(self._members):
            if name and member.name == name:
                member.name = ""
                if member.left:
                    self._members.remove(member)
                self.changed()

    def expel_dead(self) -> list[str]:
        """Remove members whose process is known to be dead."""
        gone = [member.name for member in self._members if member.name and member.dead()]
        for name in gone:
            self.remove(name)
        return gone

    def changed(self) -> None:
        """Place anew, soon."""
        if not self._due:
            self._due = True
            self.later(self.uniform(*self.notice_s), self._balance)

    def _now(self) -> float:
        return asyncio.get_running_loop().time()

    def _tick(self) -> None:
        now = self._now()
        for member in list(self._members):
            if member.left or member.dead():
                if not member.name:
                    self._members.remove(member)
                    continue
            elif member.reachable():
                member.seen_at = now
                if not member.name:  # it was given up, and hears of it
                    self._join(member)
            if member.name and now - member.seen_at > self.session_s:
                self.remove(member.name)
        counts = {topic: self._count(topic) for member in self._members for topic in member.sources}
        if counts != self._counts:
            self._counts = counts
            self.changed()
        if self._members:
            self.later(_TICK_S, self._tick)
        else:
            self._ticking = False

    def _balance(self) -> None:
        members = self.members
        if any(not member.reachable() for member in members):
            self.later(_TICK_S, self._balance)  # it waits for them, until their sessions are over
            return
        self._due = False
        self.generation += 1
        if not members:
            return
        partitions = {members[0].runs: members[0].partitions}
        for member in members:
            partitions |= {topic: self._count(topic) for topic in member.sources}
        placed = place(
            {topic: count for topic, count in partitions.items() if count},
            [
                Candidate(
                    name=member.name,
                    topics=frozenset((member.runs, *member.sources)),
                    held=member.held,
                    generation=member.generation,
                    retiring=member.retiring,
                )
                for member in members
            ],
        )
        names = tuple(sorted(member.name for member in members))
        retiring = tuple(sorted(member.name for member in members if member.retiring))
        for member in members:
            given = placed[member.name]
            placement = Placement(
                self.generation,
                frozenset(at.partition for at in given if at.topic == member.runs),
                frozenset(at for at in given if at.topic != member.runs),
                names,
                retiring=retiring,
            )
            member.held, member.generation = given, self.generation
            self.later(member.way_s() + self.uniform(0, self.late_s), self._tell, member, member.name, placement)

    def _tell(self, member: SimMembership, name: str, placement: Placement) -> None:
        newest = member.newest.newest
        if newest is None or newest.generation < placement.generation:
            member.member = name
            member.newest.tell(placement)
