# pyright: reportMissingTypeStubs=false
"""Membership on Kafka: a place in a consumer group that reads nothing, by the group protocol's own requests.

                 ┌────────── rebalance in progress; leader: partitions added; retire ─────────┐
                 ▼                                                                            │
    find coordinator ──► JoinGroup ──► SyncGroup ──► a placement ──► Heartbeat now and then ──┘
          ▲                                                              │
          └───────────── no answer, another coordinator ────────────────┘

Whatever happens here, owners go on with the last placement. A member's name begins with its process (`local_process.py`), so that a death on this machine
can be told to the group by whoever sees it: the supervisor, or the next process that starts. Nobody waits for the session timeout then.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from time import perf_counter
from typing import TYPE_CHECKING, Any

import msgspec
from aiokafka import errors as kafka_errors
from aiokafka.errors import KafkaError
from aiokafka.protocol.admin import DescribeGroupsRequest, DescribeGroupsRequest_v1
from aiokafka.protocol.group import (
    HeartbeatRequest,
    JoinGroupRequest,
    JoinGroupRequest_v2,
    LeaveGroupRequest,
    SyncGroupRequest,
)

from headrace.topics import assignor_kafka, error_kafka, local_process
from headrace.topics.back_off import BackOff
from headrace.topics.client_kafka import KafkaClient, KafkaClientSettings, Lane, resolved
from headrace.topics.errors import HeadraceError
from headrace.topics.event_wait import set_within
from headrace.topics.log import LogUnavailable, TopicPartition
from headrace.topics.membership import GroupForbidden, GroupTaken, MembershipRefused, Placement
from headrace.topics.newest_placement import NewestPlacement

if TYPE_CHECKING:
    from headrace.topics.assignor_kafka import Assigned

_REBALANCE_TIMEOUT_S = 60.0
_ANSWER_S = 4.0  # for all but JoinGroup, which waits for the other members
_LOOK_EVERY_S = 30.0  # the leader's, for partitions that were added to a source topic
_LOOK_MISSING_S = 1.0  # the same while a source topic is not there
_BACK_OFF_S = (0.05, 2.0)
_LOOK_FOR_DEAD_S = 0.05  # between looks at the group while a first join is out
_LEAVE_S = 1.0

_REFUSED: Mapping[int, tuple[type[MembershipRefused], str, str]] = {  # by error: what it is, why, what to do
    23: (
        GroupTaken,
        "another program uses this group, or a version of Headrace that places in another way",
        "Stop what else is in the group, or choose another app.name.",
    ),
    24: (MembershipRefused, "the group's name is not allowed", "Choose another app.name."),
    26: (
        MembershipRefused,
        "the broker does not allow our session timeout (group.min.session.timeout.ms, group.max.session.timeout.ms)",
        "Choose kafka.extra.session.timeout.ms within what the broker allows, or change that there.",
    ),
    30: (
        GroupForbidden,
        "not allowed: READ on the group is missing",
        "Grant it on the group <app.name>.members, or choose another app.name.",
    ),
}
_UNKNOWN_MEMBER, _ILLEGAL_GENERATION, _REBALANCING, _NEEDS_ID = 25, 22, 27, 79
_ELSEWHERE = frozenset({14, 15, 16})  # loading, no coordinator, not this one

_numbers = itertools.count()


class _Join(JoinGroupRequest):
    """Version 2 where the broker has it: later ones make a first join two steps, and who dies between them holds up the whole group for a session."""

    def prepare(self, versions: dict[int, tuple[int, int]]) -> Any:
        low, high = versions.get(self.API_KEY, (0, 0))
        return self.build(JoinGroupRequest_v2) if low <= 2 <= high else super().prepare(versions)


class _Describe(DescribeGroupsRequest):
    """aiokafka reads the answer of its newest version with the layout of an older one."""

    def prepare(self, versions: dict[int, tuple[int, int]]) -> Any:
        return self.build(DescribeGroupsRequest_v1)


class _Again(Exception):
    """This generation is over: join again, as somebody new if `forgotten`."""

    def __init__(self, *, forgotten: bool = False) -> None:
        super().__init__()
        self.forgotten = forgotten


class Group:
    """One group, asked and told by requests. Its own client: the client id, which begins every member's name, says which process it is."""

    def __init__(self, settings: KafkaClientSettings, name: str) -> None:
        self.name = name
        self.client_id = f"{local_process.here()}_{next(_numbers)}"
        self.settings = resolved(settings)[0]
        self._client = KafkaClient(msgspec.structs.replace(settings, client_id=self.client_id))
        self._coordinator: int | None = None
        self._started = False

    async def stop(self) -> None:
        await self._client.stop()

    async def request(self, request: Any, lane: Lane = Lane.GROUP, *, answer_s: float | None = _ANSWER_S) -> Any:
        """One exchange with the coordinator. Raises `KafkaError`, `TimeoutError`, `LogUnavailable`: another one is looked for next time."""
        node = await self._find()
        try:
            async with asyncio.timeout(answer_s):
                response = await self._client.send(node, request, lane)
        except (KafkaError, TimeoutError) as error:
            self._coordinator = None
            if isinstance(error, TimeoutError):
                self._client.hang_up(node, lane)
            raise
        if getattr(response, "error_code", 0) in _ELSEWHERE:
            self._coordinator = None
            raise kafka_errors.for_code(response.error_code)
        return response

    async def _find(self) -> int:
        if not self._started:
            await self._client.start()
            self._started = True
        if self._coordinator is None:
            self._client.refresh_soon()
            async with asyncio.timeout(_ANSWER_S):
                self._coordinator = await self._client.coordinator(self.name)
        return self._coordinator

    async def members(self) -> tuple[str, ...]:
        """The names of all members, in whatever state the group is."""
        response = await self.request(_Describe([self.name]), Lane.GROUP_TALK)
        ((error, _, _, _, _, members),) = response.groups
        if error in _ELSEWHERE:
            self._coordinator = None
        if error:
            raise kafka_errors.for_code(error)
        return tuple(member[0] for member in members)

    def ours(self, members: Sequence[str]) -> list[str]:
        """Those of them that were made through this object."""
        return [member for member in members if member.startswith(f"{self.client_id}-")]

    async def leave_all_of_ours(self) -> None:
        """LeaveGroup for every member that was made through this object. Raises as `request`."""
        for member in self.ours(await self.members()):
            await self.leave(member)

    async def leave(self, member: str) -> None:
        """LeaveGroup. A member that the group does not know has left."""
        response = await self.request(LeaveGroupRequest(self.name, member), Lane.GROUP_TALK)
        if response.error_code not in {0, _UNKNOWN_MEMBER}:
            raise kafka_errors.for_code(response.error_code)

    async def expel(self) -> list[str]:
        """Tell the group who of this machine is dead. Raises as `request`."""
        gone: list[str] = []
        for member in await self.members():
            process = local_process.parsed(member)
            if process is not None and local_process.is_gone(process):
                await self.leave(member)
                gone.append(member)
        return gone


class KafkaMembership:
    """`run` is its task; it ends after `leave`, or when the group refuses us. `count` says how many partitions a topic has."""

    def __init__(
        self,
        group: Group,
        *,
        runs: str,
        partitions: int,
        sources: Sequence[str],
        count: Callable[[str], Awaitable[int]],
        definitions: Mapping[str, str] | None = None,
    ) -> None:
        self.member = ""
        self._definitions = definitions or {}
        self._group = group
        self._runs = runs
        self._partitions = partitions
        self._topics = (runs, *sources)
        self._count = count
        self._newest = NewestPlacement()
        self._held: frozenset[TopicPartition] = frozenset()
        self._generation = -1
        self._told = 0  # placements
        self._counts: dict[str, int] | None = None  # what the leader placed
        self._retiring = False
        self._left = False
        self._asked = False  # JoinGroup was sent, at least once
        # the placement of this generation has come: heartbeats do not tell that it was lost on its way
        self._placed = False
        self._again = asyncio.Event()  # join again, or leave
        self._soon = asyncio.Event()  # the heartbeat is due now
        self._noticed_at = perf_counter()

    # --- for the service ------------------------------------------------------------------------------------------

    def placements(self) -> AsyncIterator[Placement]:
        return self._newest.each()

    def look(self) -> None:
        self._soon.set()

    async def retire(self) -> None:
        self._retiring = True
        self._noticed_at = perf_counter()
        self._again.set()
        self._soon.set()

    async def leave(self) -> None:
        self._left = True
        self._again.set()
        self._soon.set()
        if not self._asked:
            return
        member, self.member = self.member, ""
        try:
            async with asyncio.timeout(_LEAVE_S):
                await (self._group.leave(member) if member else self._group.leave_all_of_ours())
        except (KafkaError, HeadraceError, TimeoutError):
            pass  # the session timeout will do it

    async def leave_for(self, member: str) -> None:
        try:
            await self._group.leave(member)
        except (KafkaError, TimeoutError) as error:
            raise LogUnavailable(f"The group {self._group.name} could not be told of a death: {error!r}.") from error

    # --- the task -------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Be a member until `leave` or cancellation."""
        try:
            await self._be_member()
        except Exception as error:  # noqa: BLE001 - whatever it was, who waits for a placement must hear of it
            self._newest.fail(error)

    async def _be_member(self) -> None:
        back_off = BackOff(_BACK_OFF_S)
        while not self._left:
            try:
                if not self._placed or self._again.is_set():
                    await self._join()
                back_off.reset()
                await self._stay()
            except _Again as again:
                self._noticed_at = perf_counter()
                self._again.set()
                if again.forgotten:
                    self.member = ""
            except (KafkaError, HeadraceError, TimeoutError) as error:
                if isinstance(error, MembershipRefused) and self._newest.newest is None:
                    raise
                await back_off.wait()

    async def _stay(self) -> None:
        """Heartbeats, until something changes."""
        loop = asyncio.get_running_loop()
        look_at = loop.time()
        while not self._again.is_set():
            await set_within(self._soon, self._group.settings.heartbeat_interval_ms / 1000)
            self._soon.clear()
            if self._left or self._again.is_set():
                return
            request = HeartbeatRequest(self._group.name, self._generation, self.member)
            _judge((await self._group.request(request)).error_code)
            if self._counts is not None and loop.time() >= look_at:
                counts = await self._look()
                look_at = loop.time() + (_LOOK_EVERY_S if len(counts) == len(self._topics) else _LOOK_MISSING_S)
                if counts != self._counts:
                    raise _Again

    # --- joining --------------------------------------------------------------------------------------------------

    async def _join(self) -> None:
        self._again.clear()
        self._placed = False
        metadata = assignor_kafka.wish(
            self._topics, self._held, self._generation, retiring=self._retiring, definitions=self._definitions
        )
        response = await self._joined(metadata)
        if self._left:
            await self._group.leave(response.member_id)
            return
        self.member, self._generation = response.member_id, response.generation_id
        answers: list[tuple[str, bytes]] = []
        self._counts = None
        if response.leader_id == response.member_id:
            self._counts = await self._look()
            names = [(member[0], member[-1]) for member in response.members]
            answers = assignor_kafka.assign([assignor_kafka.candidate(*each) for each in names], self._counts)
        request = SyncGroupRequest(self._group.name, self._generation, self.member, _NOT_STATIC, answers)
        synced = await self._group.request(request)
        _judge(synced.error_code)
        self._tell(assignor_kafka.assigned(synced.member_assignment))
        self._placed = True

    async def _joined(self, metadata: bytes) -> Any:
        """The answer to JoinGroup. While a first one is out, the dead of this machine are told to the group, which would wait for them."""
        request = _Join(
            self._group.name,
            self._group.settings.session_timeout_ms,
            int(_REBALANCE_TIMEOUT_S * 1000),
            self.member,
            _NOT_STATIC,
            assignor_kafka.PROTOCOL_TYPE,
            [(assignor_kafka.NAME, metadata)],
        )
        response = await (self._group.request(request, answer_s=None) if self.member else self._first_joined(request))
        if response.error_code == _NEEDS_ID:
            self.member = response.member_id
            raise _Again
        _judge(response.error_code)
        return response

    async def _first_joined(self, request: Any) -> Any:
        if self._asked:
            await self._group.leave_all_of_ours()  # an answer was lost, or the group gave us up: nobody is that member
        self._asked = True
        failure: Exception | None = None
        async with asyncio.TaskGroup() as tasks:
            expelling = tasks.create_task(self._expel_dead())
            try:
                return await self._group.request(request, answer_s=None)
            except (KafkaError, HeadraceError, TimeoutError) as error:
                failure = error  # not as a group of one
            finally:
                expelling.cancel()
        raise failure

    async def _expel_dead(self) -> None:
        """Not before we are in the group ourselves: into an empty one, brokers let nobody for `group.initial.rebalance.delay.ms`."""
        while True:
            await asyncio.sleep(_LOOK_FOR_DEAD_S)
            try:
                if self._group.ours(await self._group.members()):
                    await self._group.expel()
            except (KafkaError, HeadraceError, TimeoutError):
                pass

    async def _look(self) -> dict[str, int]:
        """How many partitions each topic has; one that is not there is left out, and so is one that nobody tells us about."""
        counts = {self._runs: self._partitions}
        for topic in self._topics[1:]:
            try:
                counts[topic] = await self._count(topic)
            except HeadraceError:
                if self._counts is not None and topic in self._counts:
                    counts[topic] = self._counts[topic]
        return counts

    def _tell(self, assigned: Assigned) -> None:
        self._held = assigned.partitions
        self._told += 1
        self._newest.tell(
            Placement(
                generation=self._told,
                runs=frozenset(at.partition for at in assigned.partitions if at.topic == self._runs),
                sources=frozenset(at for at in assigned.partitions if at.topic != self._runs),
                members=assigned.members or (self.member,),
                rebalance_ms=(perf_counter() - self._noticed_at) * 1000,
                retiring=assigned.retiring,
            )
        )


_NOT_STATIC: Any = None  # of both kinds of membership, the one whose members may be two for a while


def _judge(error: int) -> None:
    if not error:
        return
    if error in {_REBALANCING, _ILLEGAL_GENERATION}:
        raise _Again
    if error == _UNKNOWN_MEMBER:
        raise _Again(forgotten=True)
    if error in _REFUSED:
        refused, why, do = _REFUSED[error]
        raise refused(f"The group refuses this member: {error_kafka.words(error)}.", why=f"Probably {why}.", do=do)
    raise kafka_errors.for_code(error)
