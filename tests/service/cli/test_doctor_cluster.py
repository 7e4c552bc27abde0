"""`headrace doctor` on a real Kafka with an authorizer: what the cluster speaks, what we may do, how our groups stand."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from headrace.service.cli.doctor_check import Check, State
from headrace.service.cli.doctor_cluster import cluster_checks
from headrace.service.cli.exit_code import ExitCode, exit_code_of
from headrace.service.log_backend import kafka_client_settings
from headrace.service.settings import Settings
from headrace.service.topic_plan import TopicPlan, planned
from headrace.topics import cluster_kafka, fetcher_kafka
from headrace.topics.client_kafka import KafkaClient, Lane
from headrace.topics.log import AppendForbidden, NewRecord, TopicForbidden, TopicPartition
from headrace.topics.log_kafka import KafkaLog
from tests.kafka_broker.broker import KafkaBroker
from tests.service.end_to_end.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Iterable

OPEN_UNTIL_NAMED = {
    "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
    "allow.everyone.if.no.acl.found": "true",
}
"""Everybody may do anything to what no rule names. Clients are `User:ANONYMOUS`."""
TOPIC, GROUP = 2, 3
READ, WRITE = 3, 4


async def allowed_only(settings: Settings, kind: int, name: str, operation: int) -> None:
    """From now on everybody may do this to it, and nothing else."""
    from aiokafka.protocol.admin import CreateAclsRequest

    client = KafkaClient(kafka_client_settings(settings))
    await client.start()
    try:
        rule = CreateAclsRequest(kind, name, 3, "User:ANONYMOUS", "*", operation, 3)
        response: Any = await client.send(client.any_node(), rule, Lane.ADMIN)
        ((error, message),) = response.creation_responses
        assert error == 0, message
    finally:
        await client.stop()


def by_name(checks: Iterable[Check]) -> dict[str, Check]:
    return {check.check: check for check in checks}


async def looked(settings: Settings, wanted: TopicPlan) -> dict[str, Check]:
    return by_name(await cluster_checks(settings, wanted))


async def test_permissions_api_versions_and_groups_are_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    async with KafkaBroker(properties=OPEN_UNTIL_NAMED) as broker:
        settings = Settings.model_validate(
            {
                "app": {"name": "shop"},
                "log": {"backend": "kafka", "partitions": 2},
                "kafka": {"bootstrap_servers": [broker.bootstrap_servers]},
            }
        )
        async with KafkaLog(kafka_client_settings(settings)) as log:
            wanted = await planned(log, settings, sources=["orders"], outputs=["results"])
            await log.create(wanted.all)
            found = await looked(settings, wanted)
            assert {check.state for check in found.values()} == {State.OK}
            assert found["api versions"].found == "1 broker speaks what we speak"
            assert found["permissions"].found == "all that a service needs"
            assert found["group"].found == "no service runs"

            async with log.join("shop.members", runs="shop.runs", partitions=2, sources=[]) as membership:
                async for _ in membership.placements():
                    break
                found = await looked(settings, wanted)
            assert found["group"].found == "group shop.members is Stable, 1 member"
            async with log.join("shop.router", runs="shop.runs", partitions=2, sources=[]) as stranger:
                async for _ in stranger.placements():
                    break
                found = await looked(settings, wanted)
            assert found["group"].state is State.WARN
            assert "shop.router has members" in found["group"].found

            await allowed_only(settings, TOPIC, "shop.runs", WRITE)
            await allowed_only(settings, TOPIC, "orders", WRITE)
            await allowed_only(settings, TOPIC, "shop.dlq", WRITE)
            await allowed_only(settings, TOPIC, "orders.dlq", WRITE)
            await allowed_only(settings, GROUP, "shop.owners", READ)
            letters = "Read on topic shop.dlq; Read on topic orders.dlq"
            refused = f"not allowed: Read on topic orders; {letters}; Delete, DescribeConfigs, Read on topic shop.runs"

            async def permissions() -> Check | None:  # a broker hears of a rule after who made it has its answer
                check = (await looked(settings, wanted))["permissions"]
                return check if check.found == refused else None

            assert (await eventually(permissions, refused)).state is State.FAIL

            monkeypatch.setattr(fetcher_kafka, "_REFUSED_S", 0.0)
            with pytest.raises(TopicForbidden) as unread:
                async with log.read(TopicPartition("orders", 0), 0, isolation="committed") as batches:
                    await anext(batches)
            await allowed_only(settings, TOPIC, "results", READ)
            while "Write on topic results" not in (await looked(settings, wanted))["permissions"].found:
                pass
            with pytest.raises(AppendForbidden) as unwritten:
                await log.publish(TopicPartition("results", 0), [NewRecord(value=b"{}")])
            for error, right in ((unread.value, "READ on orders"), (unwritten.value, "WRITE on results")):
                assert right in error.do
                assert exit_code_of(error) is ExitCode.NOT_ALLOWED

            monkeypatch.setitem(cluster_kafka._SPOKEN_BY_US, "Fetch", (1, (99,)))
            found = await looked(settings, wanted)
            assert found["api versions"].state is State.FAIL
            assert "speaks Fetch versions" in found["api versions"].found
