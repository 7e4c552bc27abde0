# pyright: reportMissingTypeStubs=false
"""Topics, offsets and positions on a Kafka cluster. No request here lets a broker make a topic by itself."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Any, TypeVar

import msgspec
from aiokafka import errors as kafka_errors
from aiokafka.errors import KafkaError
from aiokafka.protocol.admin import CreateTopicsRequest, DeleteRecordsRequest, DescribeConfigsRequest
from aiokafka.protocol.commit import OffsetCommitRequest, OffsetFetchRequest
from aiokafka.protocol.metadata import MetadataRequest
from aiokafka.protocol.offset import OffsetRequest

from headrace.topics import error_kafka
from headrace.topics.client_kafka import LOOK_AT_BROKERS, KafkaClient, Lane
from headrace.topics.log import (
    MAKE_TOPIC,
    AppendRefused,
    LogUnavailable,
    OffsetOutOfRange,
    Offsets,
    Position,
    TopicMissing,
    TopicPartition,
    TopicRefused,
    partition_missing,
)
from headrace.topics.record_size import DEFAULT_MESSAGE_BYTES_MAX
from headrace.topics.spec import TopicSpec, check_creatable

T = TypeVar("T")

_TIMEOUT_S = 10.0  # of one question, with all its retries
_BACKOFF_S = 0.1
_METADATA_BYTES_MAX = 4096  # offset.metadata.max.bytes
_EARLIEST, _LATEST = -2, -1
_TOPIC_RESOURCE = 2
_NO_GENERATION, _BROKERS_RETENTION = -1, -1
_OFFSET_OUT_OF_RANGE, _UNKNOWN_TOPIC, _TOPIC_EXISTS, _NO_OFFSET = 1, 3, 36, -1

_CONFIGS = {
    "cleanup_policy": "cleanup.policy",
    "retention_ms": "retention.ms",
    "retention_bytes": "retention.bytes",
    "max_message_bytes": "max.message.bytes",
    "min_insync_replicas": "min.insync.replicas",
    "timestamp_type": "message.timestamp.type",
    "segment_bytes": "segment.bytes",
    "unclean_leader_election": "unclean.leader.election.enable",
}
_WORDS = frozenset({"cleanup_policy", "timestamp_type"})


class Admin:
    """Questions to the cluster. Each raises `LogUnavailable` if no broker answers within 10 s."""

    def __init__(self, client: KafkaClient) -> None:
        self._client = client
        self._coordinators: dict[str, int] = {}

    # --- topics -------------------------------------------------------------------------------------------------------

    async def nodes(self) -> int:
        """How many brokers there are now."""
        return len((await self._ask(lambda: self._metadata([]))).brokers)

    async def topics(self) -> list[str]:
        response = await self._ask(lambda: self._metadata(None))
        return sorted(name for error, name, internal, _ in response.topics if not internal and not error)

    async def describe(self, topics: Sequence[str]) -> dict[str, TopicSpec]:
        """What is there, with configuration; topics that are not there are left out."""
        if not topics:
            return {}
        response = await self._ask(lambda: self._metadata(sorted(set(topics))))
        shapes: dict[str, TopicSpec] = {}
        for error, name, _, partitions in response.topics:
            if error == 0:
                replication = min((len(replicas) for _, _, _, replicas, *_ in partitions), default=0)
                shapes[name] = TopicSpec(name=name, partitions=len(partitions), replication=replication)
        configs = await self._configs(list(shapes))
        return {name: _with_configs(shape, configs.get(name, {})) for name, shape in shapes.items()}

    async def message_bytes_max(self, topic: str) -> int:
        """`max.message.bytes` of a topic, or Kafka's default if we may not know."""
        configs = await self._configs([topic])
        return int(configs.get(topic, {}).get("max.message.bytes", DEFAULT_MESSAGE_BYTES_MAX))

    async def create(self, specs: Sequence[TopicSpec]) -> list[str]:
        """Make the missing ones and wait until they have leaders; the names that were made. Raises `TopicRefused`."""
        nodes = await self.nodes()
        for spec in specs:
            check_creatable(spec, nodes)
        there = await self.describe([spec.name for spec in specs])
        missing = [spec for spec in specs if spec.name not in there]
        if not missing:
            return []
        request = CreateTopicsRequest(
            [_creation(spec) for spec in missing], int(_TIMEOUT_S * 1000), validate_only=False
        )
        response = await self._ask(lambda: self._client.send(self._client.controller(), request, Lane.ADMIN))
        made: list[str] = []
        for name, error, *message in response.topic_errors:
            if error == 0:
                made.append(name)
            elif error != _TOPIC_EXISTS:
                raise TopicRefused(
                    f"{name} cannot be made: {(message and message[0]) or error_kafka.words(error)}",
                    do="See the broker's settings and what we are allowed to do.",
                )
        await self._ask(lambda: self._has_leaders(made))
        return made

    async def _has_leaders(self, topics: Sequence[str]) -> None:
        if topics:
            response = await self._metadata(list(topics))
            for error, _, _, partitions in response.topics:
                if error or any(leader < 0 for _, _, leader, *_ in partitions):
                    raise kafka_errors.LeaderNotAvailableError

    async def _metadata(self, topics: list[str] | None) -> Any:
        request = MetadataRequest(topics, allow_auto_topic_creation=False)
        return await self._client.send(self._client.any_node(), request, Lane.ADMIN)

    async def _configs(self, topics: Sequence[str]) -> dict[str, dict[str, str]]:
        if not topics:
            return {}
        request = DescribeConfigsRequest(
            resources=[(_TOPIC_RESOURCE, topic, list(_CONFIGS.values())) for topic in topics], include_synonyms=False
        )
        response = await self._ask(lambda: self._client.send(self._client.any_node(), request, Lane.ADMIN))
        return {
            name: {entry[0]: entry[1] for entry in entries if entry[1] is not None}
            for error, _, _, name, entries in response.resources
            if error == 0
        }

    # --- offsets ------------------------------------------------------------------------------------------------------

    async def offsets(self, at: Sequence[TopicPartition]) -> dict[TopicPartition, Offsets]:
        """First and next offsets. Raises `TopicMissing`."""
        await self._follow(at)
        start = await self._ask(lambda: self._offsets(at, _EARLIEST))
        end = await self._ask(lambda: self._offsets(at, _LATEST))
        return {partition: Offsets(start[partition], end[partition]) for partition in at}

    async def _offsets(self, at: Sequence[TopicPartition], when: int) -> dict[TopicPartition, int]:
        found: dict[TopicPartition, int] = {}
        for node, partitions in self._by_leader(at).items():
            topics = [(topic, [(number, when) for number in numbers]) for topic, numbers in _by_topic(partitions)]
            response = await self._client.send(node, OffsetRequest(-1, 0, topics), Lane.ADMIN)
            for topic, parts in response.topics:
                for number, error, _, offset in parts:
                    _raise(error, TopicPartition(topic, number))
                    found[TopicPartition(topic, number)] = offset
        return found

    async def trim(self, at: TopicPartition, before: int) -> None:
        """DeleteRecords. Raises `OffsetOutOfRange`, `TopicMissing`."""
        await self._follow([at])
        if before < 0:
            raise OffsetOutOfRange(at, before, (await self.offsets([at]))[at])
        if await self._ask(lambda: self._trim(at, before)) == _OFFSET_OUT_OF_RANGE:
            offsets = (await self.offsets([at]))[at]
            if before > offsets.start:  # below the start there is nothing to do
                raise OffsetOutOfRange(at, before, offsets)

    async def _trim(self, at: TopicPartition, before: int) -> int:
        request = DeleteRecordsRequest([(at.topic, [(at.partition, before)])], int(_TIMEOUT_S * 1000))
        (node,) = self._by_leader([at])
        response = await self._client.send(node, request, Lane.ADMIN)
        error: int = response.topics[0][1][0][2]
        if error != _OFFSET_OUT_OF_RANGE:
            _raise(error, at)
        return error

    async def _follow(self, at: Iterable[TopicPartition]) -> None:
        for topic, numbers in _by_topic(at):
            partitions = await self._client.follow(topic)
            if not 0 <= min(numbers) <= max(numbers) < partitions:
                raise partition_missing(TopicPartition(topic, max(numbers)), partitions)

    def _by_leader(self, at: Iterable[TopicPartition]) -> dict[int, list[TopicPartition]]:
        led: dict[int, list[TopicPartition]] = {}
        for partition in at:
            leader = self._client.leader(partition)
            if leader is None:
                raise kafka_errors.LeaderNotAvailableError
            led.setdefault(leader, []).append(partition)
        return led

    # --- positions ----------------------------------------------------------------------------------------------------

    async def committed(self, group: str, at: Sequence[TopicPartition]) -> dict[TopicPartition, Position]:
        await self._follow(at)
        request = OffsetFetchRequest(group, _by_topic(at))
        response = await self._ask(lambda: self._to_coordinator(group, request))
        return {
            TopicPartition(topic, number): Position(offset, metadata or "")
            for topic, parts in response.topics
            for number, offset, metadata, _ in parts
            if offset != _NO_OFFSET
        }

    async def commit(self, group: str, positions: Mapping[TopicPartition, Position]) -> None:
        if not positions:
            return
        for partition, position in positions.items():
            if len(position.metadata.encode()) > _METADATA_BYTES_MAX:
                raise AppendRefused(
                    f"The metadata of {group}'s position on {partition} is longer than {_METADATA_BYTES_MAX} bytes."
                )
        await self._follow(positions)
        topics = [
            (
                topic,
                [
                    (number, position.offset, position.metadata)
                    for number in numbers
                    for position in [positions[TopicPartition(topic, number)]]
                ],
            )
            for topic, numbers in _by_topic(positions)
        ]
        request = OffsetCommitRequest(group, _NO_GENERATION, "", _BROKERS_RETENTION, topics)
        await self._ask(lambda: self._to_coordinator(group, request))

    async def _to_coordinator(self, group: str, request: Any) -> Any:
        node = self._coordinators.get(group)
        if node is None:
            node = self._coordinators[group] = await self._client.coordinator(group)
        try:
            response = await self._client.send(node, request, Lane.ADMIN)
            _raise(getattr(response, "error_code", 0))
            for topic, parts in response.topics:
                for part in parts:
                    _raise(part[-1], TopicPartition(topic, part[0]))
        except KafkaError:
            self._coordinators.pop(group, None)
            raise
        return response

    # --- all ----------------------------------------------------------------------------------------------------------

    async def _ask(self, question: Callable[[], Awaitable[T]]) -> T:
        """Ask until there is an answer, for `_TIMEOUT_S`."""
        last: Exception | None = None
        try:
            async with asyncio.timeout(_TIMEOUT_S):
                while True:
                    try:
                        return await question()
                    except KafkaError as error:
                        last = error
                        if not getattr(error, "retriable", False) and not isinstance(
                            error, kafka_errors.NodeNotReadyError
                        ):
                            break
                        self._client.refresh_soon()
                    await asyncio.sleep(_BACKOFF_S)
        except TimeoutError:
            pass
        raise LogUnavailable(f"No Kafka broker answered: {last!r}.", do=LOOK_AT_BROKERS) from last


def _raise(error: int, at: TopicPartition | None = None) -> None:
    if error == _UNKNOWN_TOPIC and at is not None:
        raise TopicMissing(f"{at} does not exist.", do=MAKE_TOPIC)
    if error:
        raise kafka_errors.for_code(error)


def _by_topic(at: Iterable[TopicPartition]) -> list[tuple[str, list[int]]]:
    topics: dict[str, list[int]] = {}
    for topic, number in at:
        topics.setdefault(topic, []).append(number)
    return list(topics.items())


def _creation(spec: TopicSpec) -> Any:
    configs = [(name, _text(value)) for field, name in _CONFIGS.items() if (value := getattr(spec, field)) is not None]
    return (spec.name, spec.partitions, spec.replication, [], configs)


def _text(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _with_configs(shape: TopicSpec, configs: Mapping[str, str]) -> TopicSpec:
    changes: dict[str, Any] = {}
    for field, name in _CONFIGS.items():
        if (value := configs.get(name)) is None:
            continue
        if field in _WORDS:
            changes[field] = value
        elif field == "unclean_leader_election":
            changes[field] = value == "true"
        else:
            changes[field] = int(value)
    return msgspec.structs.replace(shape, **changes)
