"""What topics an app needs, and the refusal when they are not like that."""

from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path

import msgspec
import pytest

from headrace.service.refusal import Refusal
from headrace.service.settings import Settings
from headrace.service.topic_plan import check, differences, plan, planned, prepare
from headrace.topics.errors import SettingsError
from headrace.topics.log import Log, NewRecord, TopicPartition
from headrace.topics.log_embedded import EmbeddedLog
from headrace.topics.spec import TopicSpec
from tests.kafka_broker.broker import KafkaBroker

KAFKA = Settings.model_validate({"app": {"name": "shop"}, "log": {"backend": "kafka"}})


@pytest.fixture
async def log(tmp_path: Path) -> AsyncIterator[Log]:
    async with EmbeddedLog(tmp_path / "log.sqlite", owner=True) as log:
        yield log


def settings(**log: object) -> Settings:
    return Settings.model_validate({"app": {"name": "shop"}, "log": log})


# --- the plan ---------------------------------------------------------------------------------------------------------


def test_the_run_log_is_kept_for_ever_and_never_loses_acknowledged_records() -> None:
    runs = plan(KAFKA, nodes=3).runs
    assert runs.name == "shop.runs"
    assert (runs.partitions, runs.replication, runs.min_insync_replicas) == (64, 3, 2)
    assert (runs.cleanup_policy, runs.retention_ms, runs.retention_bytes) == ("delete", -1, -1)
    assert (runs.timestamp_type, runs.unclean_leader_election) == ("LogAppendTime", False)
    assert runs.max_message_bytes == 1_048_588


@pytest.mark.parametrize(("nodes", "replication", "insync"), [(1, 1, 1), (2, 2, 1), (3, 3, 2), (9, 3, 2)])
def test_replication_follows_the_number_of_brokers(nodes: int, replication: int, insync: int) -> None:
    runs = plan(KAFKA, nodes=nodes).runs
    assert (runs.replication, runs.min_insync_replicas) == (replication, insync)


def test_larger_records_need_a_larger_run_log() -> None:
    runs = plan(settings(max_record_bytes="4MiB"), nodes=1).runs
    assert runs.max_message_bytes is not None
    assert runs.max_message_bytes > 4 << 20


def test_a_dead_letter_topic_has_room_for_its_source_and_its_partitions() -> None:
    source = TopicSpec(name="orders", partitions=12, max_message_bytes=5_000_000)
    wanted = plan(KAFKA, nodes=1, sources=["orders"], outputs=["done"], existing={"orders": source})
    letters = next(spec for spec in wanted.kept if spec.name == "orders.dlq")
    assert (letters.partitions, letters.max_message_bytes) == (12, 5_000_000 + 65_536)
    assert wanted.dead_letter_bytes == {"orders": 5_000_000 + 65_536}
    assert [spec.name for spec in wanted.all] == ["orders", "done", "shop.runs", "shop.audit", "shop.dlq", "orders.dlq"]


def test_a_topic_that_is_read_and_written_is_planned_once() -> None:
    wanted = plan(KAFKA, nodes=1, sources=["a", "b"], outputs=["b", "c", "c"])
    assert [spec.name for spec in wanted.sources] == ["a", "b"]
    assert [spec.name for spec in wanted.outputs] == ["c"]


@pytest.mark.parametrize(("sources", "outputs"), [(["shop.runs"], []), ([], ["shop.runs"])])
async def test_the_run_log_is_no_topic_of_an_app(log: Log, sources: list[str], outputs: list[str]) -> None:
    wanted = plan(settings(partitions=2), nodes=1, sources=sources, outputs=outputs)
    with pytest.raises(SettingsError) as caught:
        await prepare(log, wanted, create=True)
    assert caught.value.code == "HR1209"
    assert await log.describe(["shop.runs"]) == {}


# --- differences ------------------------------------------------------------------------------------------------------

RUNS = plan(KAFKA, nodes=3).runs


@pytest.mark.parametrize(
    ("field", "value", "code"),
    [
        ("partitions", 12, "HR1203"),
        ("cleanup_policy", "compact", "HR1202"),
        ("retention_ms", 604_800_000, "HR1202"),
        ("retention_bytes", 1, "HR1202"),
        ("replication", 1, "HR1204"),
        ("min_insync_replicas", 1, "HR1204"),
        ("max_message_bytes", 1_000_000, "HR1205"),
        ("timestamp_type", "CreateTime", "HR1206"),
        ("unclean_leader_election", True, "HR1207"),
    ],
)
def test_each_difference_has_its_code_says_what_is_there_and_how_to_mend_it(
    field: str, value: object, code: str
) -> None:
    (problem,) = differences(RUNS, msgspec.structs.replace(RUNS, **{field: value}), "k1:9092,k2:9092")
    assert problem.code == code
    assert "shop.runs" in problem.message
    assert str(value).lower() in problem.message.lower()
    assert problem.why
    assert problem.do
    if "kafka-configs.sh" in problem.do:
        assert "kafka-configs.sh --bootstrap-server k1:9092,k2:9092 --alter" in problem.do
    assert ("kafka-configs.sh" in problem.do) == (field not in {"partitions", "replication"})


@pytest.mark.parametrize(
    ("field", "value"),
    [("max_message_bytes", 5_000_000), ("replication", 5), ("min_insync_replicas", 3), ("segment_bytes", 1 << 30)],
)
def test_more_than_asked_for_is_fine(field: str, value: object) -> None:
    assert differences(RUNS, msgspec.structs.replace(RUNS, **{field: value}), "k1:9092,k2:9092") == []


def test_what_the_broker_does_not_say_is_not_compared() -> None:
    bare = TopicSpec(name="shop.runs", partitions=RUNS.partitions, replication=RUNS.replication)
    assert differences(RUNS, bare, "k1:9092") == []


# --- the check at start -----------------------------------------------------------------------------------------------


async def test_missing_topics_are_named_together_and_not_made(log: Log) -> None:
    wanted = await planned(log, settings(), sources=["orders"])
    with pytest.raises(SettingsError) as caught:
        await prepare(log, wanted, create=False)
    assert caught.value.code == "HR1201"
    for name in ("orders", "shop.runs", "shop.audit", "shop.dlq", "orders.dlq"):
        assert name in caught.value.message
    assert list(await log.topics()) == []


async def test_topics_are_made_once_and_pass_the_check(log: Log) -> None:
    wanted = await planned(log, settings(), sources=["orders"], outputs=["done"])
    made = await prepare(log, wanted, create=True)
    assert sorted(made) == sorted(spec.name for spec in wanted.all)
    assert await prepare(log, await planned(log, settings(), sources=["orders"], outputs=["done"]), create=True) == ()
    assert await prepare(log, wanted, create=False) == ()


async def test_all_differences_are_said_at_once_and_nothing_is_made(log: Log) -> None:
    await log.create(
        [
            TopicSpec(name="shop.runs", partitions=3, cleanup_policy="compact", retention_ms=1000),
            TopicSpec(name="shop.audit", partitions=1, cleanup_policy="compact"),
        ]
    )
    wanted = await planned(log, settings(), sources=["orders"])
    with pytest.raises(Refusal) as caught:
        await prepare(log, wanted, create=True)
    assert [problem.code for problem in caught.value.problems] == ["HR1203", "HR1202", "HR1202", "HR1202"]
    report = caught.value.report()
    assert report.count("Why     ") == 4
    assert "log.partitions = 3" in report
    assert list(await log.topics()) == ["shop.audit", "shop.runs"]


async def test_audit_and_dead_letters_may_be_kept_as_long_as_the_operator_likes(log: Log) -> None:
    await log.create([TopicSpec(name="shop.audit", partitions=3, cleanup_policy="delete", retention_ms=1000)])
    await prepare(log, await planned(log, settings()), create=True)
    await log.append(TopicPartition("shop.audit", 2), [NewRecord(b"{}")])


async def test_the_same_holds_on_kafka(kafka: KafkaBroker) -> None:
    from headrace.service.log_backend import log_of

    there = Settings.model_validate(
        {
            "app": {"name": "planned"},
            "log": {"backend": "kafka", "partitions": 4},
            "kafka": {"bootstrap_servers": kafka.bootstrap_servers},
        }
    )
    async with log_of(there, owner=False) as log:
        wanted = await planned(log, there, sources=["planned-orders"])
        assert len(await prepare(log, wanted, create=True)) == 5
        assert await check(log, await planned(log, there, sources=["planned-orders"])) == []
        other = await planned(log, Settings.model_validate({"app": {"name": "planned"}, "log": {"partitions": 5}}))
        assert [problem.code for problem in await check(log, other)] == ["HR1203"]


class SlowToHear(EmbeddedLog):
    """Like brokers of a cluster, of which some have not heard of a new topic yet: some looks find nothing after a topic was made."""

    blind_looks = 0

    async def create(self, specs: Sequence[TopicSpec]) -> Sequence[str]:
        self.blind_looks = 4
        return await super().create(specs)

    async def describe(self, topics: Sequence[str]) -> Mapping[str, TopicSpec]:
        if self.blind_looks:
            self.blind_looks -= 1
            return {}
        return await super().describe(topics)


async def test_topics_that_were_just_made_are_waited_for_until_the_brokers_know_them(tmp_path: Path) -> None:
    async with SlowToHear(tmp_path / "log.sqlite", owner=True) as log:
        wanted = await planned(log, settings(), sources=["orders"], outputs=["done"])
        assert set(await prepare(log, wanted, create=True)) == {spec.name for spec in wanted.all}
