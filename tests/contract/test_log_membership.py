"""Who works on what: a group of one everywhere, groups of several where a log can have them."""

from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager

import anyio
import pytest

from headrace.topics.log import Log, TopicPartition
from headrace.topics.membership import Membership, Placement
from headrace.topics.spec import TopicSpec
from tests.contract.conftest import make_topic
from tests.contract.station import PATIENCE_S, KafkaStation, SimStation, Station

RUNS = 8


@pytest.fixture(params=["kafka", "simulated"])
def cluster(request: pytest.FixtureRequest) -> Station:
    """A log that several instances may have open. The embedded one has one owner."""
    if request.param == "simulated":
        return SimStation()
    return KafkaStation(request.getfixturevalue("kafka").bootstrap_servers)


class Member:
    """A membership and its newest placement."""

    def __init__(self, log: Log, membership: Membership) -> None:
        self.log = log
        self.membership = membership
        self.placements = membership.placements()
        self.seen: list[Placement] = []

    async def until(self, enough: Callable[[Placement], bool]) -> Placement:
        with anyio.fail_after(PATIENCE_S):
            while not self.seen or not enough(self.seen[-1]):
                self.seen.append(await anext(self.placements))
        return self.seen[-1]

    async def with_members(self, *others: "Member") -> Placement:
        for member in others:  # before its first placement it may not know what it is called
            await member.until(lambda _: True)
        return await self.until(
            lambda placement: {member.membership.member for member in others} == set(placement.members)
        )


@asynccontextmanager
async def joined(station: Station, topic: str) -> AsyncIterator[Member]:
    async with station.open() as log, member(log, topic) as found:
        yield found


@asynccontextmanager
async def member(log: Log, topic: str) -> AsyncIterator[Member]:
    async with log.join(f"{topic}.members", runs=f"{topic}.runs", partitions=RUNS, sources=[topic]) as membership:
        yield Member(log, membership)


async def test_one_member_gets_everything(station: Station) -> None:
    async with station.open() as log:
        topic = await make_topic(log, partitions=3)
        async with member(log, topic) as one:
            placement = await one.until(lambda _: True)
            assert placement.runs == frozenset(range(RUNS))
            assert placement.sources == {TopicPartition(topic, number) for number in range(3)}
            assert placement.members == (one.membership.member,)
            assert one.membership.member


async def test_who_retires_gets_an_empty_placement_and_stays_a_member(station: Station) -> None:
    async with station.open() as log:
        topic = await make_topic(log)
        async with member(log, topic) as one:
            first = await one.until(lambda _: True)
            await one.membership.retire()
            last = await one.until(lambda placement: not placement.runs)
            assert last.sources == frozenset()
            assert last.members == (one.membership.member,)
            assert last.generation > first.generation
            await one.membership.leave()
            await one.membership.leave()


async def test_a_source_that_is_made_later_is_placed_then(station: Station, monkeypatch: pytest.MonkeyPatch) -> None:
    async with station.open() as log:
        topic = await make_topic(log)
        late = f"{topic}.late"
        async with log.join(
            f"{topic}.members", runs=f"{topic}.runs", partitions=RUNS, sources=[late, topic]
        ) as membership:
            one = Member(log, membership)
            placement = await one.until(lambda _: True)
            assert placement.runs == frozenset(range(RUNS))
            assert {at.topic for at in placement.sources} == {topic}
            await log.create([TopicSpec(name=late, partitions=1)])
            placement = await one.until(lambda found: len(found.sources) == 3)
            assert TopicPartition(late, 0) in placement.sources


async def test_two_members_share_and_one_that_leaves_gives_all_back(cluster: Station) -> None:
    async with cluster.open() as log:
        topic = await make_topic(log, partitions=4)
    async with joined(cluster, topic) as one:
        first = await one.until(lambda _: True)
        async with joined(cluster, topic) as two:
            theirs = await two.until(lambda _: True)
            mine = await one.with_members(one, two)
            assert len(mine.runs) == len(theirs.runs) == RUNS // 2
            assert mine.runs | theirs.runs == first.runs
            assert len(mine.sources) == len(theirs.sources) == 2
            assert mine.sources | theirs.sources == first.sources
            assert theirs.members == mine.members == tuple(sorted([one.membership.member, two.membership.member]))
        alone = await one.with_members(one)
        assert (alone.runs, alone.sources) == (first.runs, first.sources)


async def test_the_others_keep_what_they_have(cluster: Station) -> None:
    async with cluster.open() as log:
        topic = await make_topic(log, partitions=4)
    async with AsyncExitStack() as stack:
        members = [await stack.enter_async_context(joined(cluster, topic)) for _ in range(3)]
        before = [await each.with_members(*members) for each in members]
        async with joined(cluster, topic) as fourth:
            during = [await each.with_members(*members, fourth) for each in members]
            theirs = await fourth.with_members(*members, fourth)
            assert theirs.runs == frozenset(range(RUNS)) - frozenset().union(*(each.runs for each in during))
            assert all(now.runs <= was.runs for was, now in zip(before, during, strict=True))
        after = [await each.with_members(*members) for each in members]
        assert all(now.runs <= later.runs for now, later in zip(during, after, strict=True))


async def test_a_member_that_retires_is_relieved_while_it_is_still_there(cluster: Station) -> None:
    async with cluster.open() as log:
        topic = await make_topic(log, partitions=4)
    async with joined(cluster, topic) as one, joined(cluster, topic) as two:
        await one.with_members(one, two)
        await two.with_members(one, two)
        await one.membership.retire()
        theirs = await two.until(lambda placement: len(placement.runs) == RUNS)
        mine = await one.until(lambda placement: not placement.runs)
        assert theirs.members == mine.members
        assert len(theirs.members) == 2
        assert theirs.retiring == mine.retiring == (one.membership.member,)


async def test_a_death_that_is_told_places_the_others_at_once(cluster: Station) -> None:
    """It is none: so it comes back as somebody new, and both go on."""
    async with cluster.open() as log:
        topic = await make_topic(log)
    async with joined(cluster, topic) as one, joined(cluster, topic) as two:
        await one.with_members(one, two)
        await two.with_members(one, two)
        before = two.membership.member
        await one.membership.leave_for(before)
        placement = await one.until(lambda found: len(found.members) == 2 and before not in found.members)
        back = await two.until(lambda found: before not in found.members and len(found.members) == 2)
        assert back.runs | placement.runs == frozenset(range(RUNS))
        assert two.membership.member in placement.members
        await one.membership.leave_for("nobody")
