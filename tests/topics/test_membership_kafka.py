"""Membership under brokers that answer with errors. What every log does is in tests/contract."""

import asyncio
import itertools
from collections.abc import Iterator

import anyio
import pytest

from headrace.service.cli.exit_code import ExitCode, exit_code_of
from headrace.topics.log_kafka import KafkaClientSettings, KafkaLog
from headrace.topics.membership import MembershipRefused
from headrace.topics.spec import TopicSpec
from tests.chaos.error_proxy import ErrorProxy
from tests.kafka_broker.broker import KafkaBroker, free_port

PATIENCE_S = 60.0
JOIN, SYNC = 11, 14
_numbers = itertools.count()


@pytest.fixture(scope="module")
def erring(kafka_available: None) -> Iterator[ErrorProxy]:
    """The only way to a broker of its own."""
    told, behind = free_port(), free_port()
    broker = KafkaBroker(advertised={told: behind})
    try:
        asyncio.run(broker.start())
        proxy = ErrorProxy({told: behind})
        yield proxy
        proxy.close()
    finally:
        asyncio.run(broker.stop())
        broker.remove()


@pytest.mark.parametrize("api", [JOIN, SYNC])
@pytest.mark.parametrize("code", [-1, 15, 27])
async def test_a_member_whose_placement_was_lost_on_its_way_asks_again(erring: ErrorProxy, api: int, code: int) -> None:
    """The group has it as a member in good standing, so heartbeats tell it nothing."""
    name = f"members.{next(_numbers)}"
    async with KafkaLog(KafkaClientSettings(bootstrap_servers=(f"127.0.0.1:{erring.ports[0]}",))) as log:
        await log.create([TopicSpec(name=name, partitions=2)])
        erring.begin(api, code, 2)
        async with log.join(name, runs=f"{name}.runs", partitions=8, sources=[name]) as membership:
            placements = membership.placements()
            with anyio.fail_after(PATIENCE_S):
                placement = await anext(placements)
            assert placement.runs == frozenset(range(8))
            assert erring.heal() == 2
            erring.begin(api, code, 2)
            await membership.retire()
            with anyio.fail_after(PATIENCE_S):
                while (await anext(placements)).runs:
                    pass
            assert erring.heal() == 2


@pytest.mark.parametrize(
    ("code", "exit_code", "remedy"),
    [
        (23, ExitCode.CONFLICT, "Stop what else is in the group"),
        (24, ExitCode.INVALID, "app.name"),
        (26, ExitCode.INVALID, "session.timeout.ms"),
        (30, ExitCode.NOT_ALLOWED, "Grant"),
    ],
)
async def test_who_is_refused_hears_what_to_do_and_its_supervisor_that_no_second_start_helps(
    erring: ErrorProxy, code: int, exit_code: ExitCode, remedy: str
) -> None:
    name = f"members.{next(_numbers)}"
    async with KafkaLog(KafkaClientSettings(bootstrap_servers=(f"127.0.0.1:{erring.ports[0]}",))) as log:
        await log.create([TopicSpec(name=name, partitions=2)])
        erring.begin(JOIN, code, -1)
        try:
            async with log.join(name, runs=f"{name}.runs", partitions=8, sources=[name]) as membership:
                with anyio.fail_after(PATIENCE_S), pytest.raises(MembershipRefused) as refused:
                    await anext(membership.placements())
        finally:
            erring.heal()
    assert exit_code_of(refused.value) is exit_code
    assert remedy in refused.value.do
