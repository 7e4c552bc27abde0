"""Membership: which run-log and source partitions this process is asked to work on.

A placement is a hint. What decides who owns a run-log partition is the token in the log; a source partition that two read for a while is deduplicated by the
fold. So a placement may be late, doubled or wrong without harm, and who does not hear of a new one goes on with what it has.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import msgspec

from headrace.topics.errors import Fatal
from headrace.topics.log import TopicPartition

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


class Placement(msgspec.Struct, frozen=True):
    """What one member is asked to work on. `members` are the names of all that were in the group, sorted, this one included.

    Who is not in it is gone, as far as anybody knows. `generation` rises with every rebalance that this member saw.
    `rebalance_ms`: from the notice of a change to this placement. `retiring`: those of the members that ask for nothing more.
    """

    generation: int
    runs: frozenset[int]
    sources: frozenset[TopicPartition]
    members: tuple[str, ...]
    rebalance_ms: float = 0.0
    retiring: tuple[str, ...] = ()


class MembershipRefused(Fatal):
    """The brokers will not have us in the group: its name or our session timeout is not allowed, or what the two below say."""

    code = "HR5009"


class GroupForbidden(MembershipRefused):
    """We may not be a member: READ on the group is missing."""


class GroupTaken(MembershipRefused):
    """Other members are there that place in another way: of another program, or of a version of Headrace that does."""


class Membership(Protocol):
    """A place in the group, from `Log.join`. Joining, heartbeats and joining again happen behind it; an outage changes nothing."""

    @property
    def member(self) -> str:
        """This member's name now, as others find it in `Placement.members`: changes when the group had given it up. "" before the first placement."""
        ...

    def placements(self) -> AsyncIterator[Placement]:
        """Placements as they come, for ever; who is slow gets only the newest. One iterator at a time. Raises `MembershipRefused` before the first one."""
        ...

    def look(self) -> None:
        """The group has changed, says somebody who knows: do not wait for the next heartbeat. Never waits."""
        ...

    async def retire(self) -> None:
        """Ask for nothing more, and stay in the group: a placement without partitions follows, soon. Returns at once."""
        ...

    async def leave(self) -> None:
        """Leave the group now: the others are placed anew at once. Never raises; without an answer the session timeout does it."""
        ...

    async def leave_for(self, member: str) -> None:
        """Say that this member is dead. Harmless if it is not: it joins again, and the token decides. Raises `LogUnavailable`."""
        ...
