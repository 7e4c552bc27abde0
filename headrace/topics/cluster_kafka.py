# pyright: reportMissingTypeStubs=false
"""What a Kafka cluster lets us do: the requests that its brokers speak, what we are allowed, how our groups stand. For `doctor`.

Permissions are asked as the brokers see them (KIP-430): whatever authorizer decides, and without the right to read ACLs. Nothing is changed.
"""

from __future__ import annotations

import asyncio
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Self

import msgspec
from aiokafka import errors as kafka_errors
from aiokafka.errors import KafkaError
from aiokafka.protocol.admin import (
    ApiVersionRequest,
    CreateTopicsRequest,
    DeleteRecordsRequest,
    DescribeConfigsRequest,
)
from aiokafka.protocol.api import RequestStruct, Response
from aiokafka.protocol.commit import OffsetCommitRequest, OffsetFetchRequest
from aiokafka.protocol.coordination import FindCoordinatorRequest
from aiokafka.protocol.group import HeartbeatRequest, JoinGroupRequest, LeaveGroupRequest, SyncGroupRequest
from aiokafka.protocol.metadata import MetadataRequest
from aiokafka.protocol.offset import OffsetRequest
from aiokafka.protocol.produce import ProduceRequest
from aiokafka.protocol.transaction import InitProducerIdRequest
from aiokafka.protocol.types import Array, Boolean, Bytes, Int16, Int32, Schema, String

from headrace.topics.client_kafka import LOOK_AT_BROKERS, KafkaClient, KafkaClientSettings, Lane
from headrace.topics.fetch_kafka import FetchRequest
from headrace.topics.log import LogUnavailable

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_TIMEOUT_S = 10.0  # of all questions together
_BACKOFF_S = 0.1
_TOPIC_FORBIDDEN, _GROUP_FORBIDDEN = 29, 30
_NOT_SAID = -(2**31)
_TEXT = String("utf-8")


class Operation(StrEnum):
    """Kafka's, by the names of its ACL tool."""

    READ = "Read"
    WRITE = "Write"
    CREATE = "Create"
    DELETE = "Delete"
    DESCRIBE = "Describe"
    DESCRIBE_CONFIGS = "DescribeConfigs"


_BITS = {
    Operation.READ: 3,
    Operation.WRITE: 4,
    Operation.CREATE: 5,
    Operation.DELETE: 6,
    Operation.DESCRIBE: 8,
    Operation.DESCRIBE_CONFIGS: 10,
}
Operations = frozenset[Operation]


class GroupFacts(msgspec.Struct, frozen=True):
    """`state` is Kafka's word: Stable, Empty, Dead (not there), PreparingRebalance, CompletingRebalance."""

    state: str
    members: int
    allowed: Operations | None


class ClusterFacts(msgspec.Struct, frozen=True, kw_only=True):
    """`unspoken`: requests that a broker does not speak in any version of ours, as lines for people.

    `allowed` is None where the broker does not say; topics that are not there are left out, and so are groups that cannot be asked.
    """

    brokers: int
    unspoken: tuple[str, ...]
    cluster: Operations | None
    topics: Mapping[str, Operations | None]
    groups: Mapping[str, GroupFacts]


async def cluster_facts(settings: KafkaClientSettings, topics: Sequence[str], groups: Sequence[str]) -> ClusterFacts:
    """Ask. Raises `LogUnavailable` if no broker answers, `SettingsError`."""
    client = KafkaClient(settings)
    await client.start()
    try:
        async with asyncio.timeout(_TIMEOUT_S):
            seen = await client.send(client.any_node(), _Metadata(topics), Lane.ADMIN)
            nodes = [node for node, *_ in seen.brokers]
            unspoken = [line for node in nodes for line in await _unspoken(client, node)]
            return ClusterFacts(
                brokers=len(nodes),
                unspoken=tuple(unspoken),
                cluster=_operations(seen.cluster_operations),
                topics={
                    name: frozenset() if error == _TOPIC_FORBIDDEN else _operations(operations)
                    for error, name, _, _, operations in seen.topics
                    if error in (0, _TOPIC_FORBIDDEN)
                },
                groups={group: await _patiently(client, group) for group in groups},
            )
    except (KafkaError, TimeoutError) as error:
        raise LogUnavailable(f"No Kafka broker answered: {error!r}.", do=LOOK_AT_BROKERS) from error
    finally:
        await client.stop()


async def _patiently(client: KafkaClient, group: str) -> GroupFacts:
    """A new cluster has no coordinator until somebody has asked for one, a while ago."""
    while True:
        try:
            return await _group(client, group)
        except KafkaError as error:
            if not getattr(error, "retriable", False):
                raise
        await asyncio.sleep(_BACKOFF_S)


async def _group(client: KafkaClient, group: str) -> GroupFacts:
    try:
        node = await client.coordinator(group)
    except kafka_errors.GroupAuthorizationFailedError:
        return GroupFacts("", 0, frozenset())
    response = await client.send(node, _Groups([group]), Lane.ADMIN)
    ((error, _, state, _, _, members, operations),) = response.groups
    if error == _GROUP_FORBIDDEN:
        return GroupFacts("", 0, frozenset())
    if error:
        raise kafka_errors.for_code(error)
    return GroupFacts(state, len(members), _operations(operations))


async def _unspoken(client: KafkaClient, node: int) -> list[str]:
    response = await client.send(node, ApiVersionRequest(), Lane.ADMIN)
    spoken = {key: (low, high) for key, low, high in response.api_versions}
    lines: list[str] = []
    for name, (key, ours) in _SPOKEN_BY_US.items():
        low, high = spoken.get(key, (0, -1))
        if not any(low <= version <= high for version in ours):
            theirs = f"versions {low} to {high}" if key in spoken else "not at all"
            lines.append(f"broker {node} speaks {name} {theirs}, we speak {min(ours)} to {max(ours)}")
    return lines


def _operations(bits: int) -> Operations | None:
    return None if bits == _NOT_SAID else frozenset(each for each, bit in _BITS.items() if bits >> bit & 1)


def _versions(*requests: Any) -> dict[str, tuple[int, tuple[int, ...]]]:
    return {
        request.__name__.removesuffix("Request"): (
            request.API_KEY,
            tuple(each.API_VERSION for each in request._CLASSES),  # noqa: SLF001 - aiokafka's table of what it can build
        )
        for request in requests
    }


_SPOKEN_BY_US = {
    **_versions(ProduceRequest, OffsetRequest, MetadataRequest, OffsetCommitRequest, OffsetFetchRequest),
    **_versions(FindCoordinatorRequest, JoinGroupRequest, HeartbeatRequest, LeaveGroupRequest, SyncGroupRequest),
    **_versions(CreateTopicsRequest, DeleteRecordsRequest, InitProducerIdRequest, DescribeConfigsRequest),
    "Fetch": (FetchRequest.API_KEY, (FetchRequest.API_VERSION,)),
}


class _OneVersion:
    """A request of aiokafka's client and its wire form in one: it has a single version."""

    def prepare(self, versions: dict[int, tuple[int, int]]) -> Self:
        return self


class _MetadataAnswer(Response):
    API_KEY = 3  # pyright: ignore[reportAssignmentType, reportIncompatibleMethodOverride] - as aiokafka's own do
    API_VERSION = 8  # pyright: ignore[reportAssignmentType, reportIncompatibleMethodOverride]
    SCHEMA = Schema(
        ("throttle_time_ms", Int32),
        ("brokers", Array(("node", Int32), ("host", _TEXT), ("port", Int32), ("rack", _TEXT))),
        ("cluster_id", _TEXT),
        ("controller", Int32),
        (
            "topics",
            Array(
                ("error", Int16),
                ("name", _TEXT),
                ("internal", Boolean),
                (
                    "partitions",
                    Array(
                        ("error", Int16),
                        ("partition", Int32),
                        ("leader", Int32),
                        ("leader_epoch", Int32),
                        ("replicas", Array(Int32)),
                        ("isr", Array(Int32)),
                        ("offline", Array(Int32)),
                    ),
                ),
                ("operations", Int32),
            ),
        ),
        ("cluster_operations", Int32),
    )


class _Metadata(_OneVersion, RequestStruct):
    """Metadata version 8 (Kafka 2.3 and newer), with what we are allowed; aiokafka's end at version 5."""

    API_KEY = 3
    API_VERSION = 8
    RESPONSE_TYPE = _MetadataAnswer
    SCHEMA = Schema(("topics", Array(_TEXT)), ("create", Boolean), ("cluster", Boolean), ("operations", Boolean))

    def __init__(self, topics: Sequence[str]) -> None:
        super().__init__(sorted(set(topics)), False, True, True)  # noqa: FBT003 - the wire's order


class _GroupsAnswer(Response):
    API_KEY = 15  # pyright: ignore[reportAssignmentType, reportIncompatibleMethodOverride]
    API_VERSION = 3  # pyright: ignore[reportAssignmentType, reportIncompatibleMethodOverride]
    SCHEMA = Schema(
        ("throttle_time_ms", Int32),
        (
            "groups",
            Array(
                ("error", Int16),
                ("group", _TEXT),
                ("state", _TEXT),
                ("protocol_type", _TEXT),
                ("protocol", _TEXT),
                (
                    "members",
                    Array(
                        ("member", _TEXT),
                        ("client", _TEXT),
                        ("host", _TEXT),
                        ("metadata", Bytes),
                        ("assignment", Bytes),
                    ),
                ),
                ("operations", Int32),
            ),
        ),
    )


class _Groups(_OneVersion, RequestStruct):
    """DescribeGroups version 3 (Kafka 2.3 and newer); aiokafka reads its answer with an older layout."""

    API_KEY = 15
    API_VERSION = 3
    RESPONSE_TYPE = _GroupsAnswer
    SCHEMA = Schema(("groups", Array(_TEXT)), ("operations", Boolean))

    def __init__(self, groups: Sequence[str]) -> None:
        super().__init__(list(groups), True)  # noqa: FBT003 - as above
