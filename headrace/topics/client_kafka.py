# pyright: reportMissingTypeStubs=false
"""The connection to Kafka: settings, and a thin typed face of aiokafka's client that the reader, producer and admin
share.

One client, one metadata view; each user has a connection of its own (a *lane*), because a broker answers one
connection's requests in order and a fetch may wait there. No request of ours ever lets a broker make a topic.
"""

from __future__ import annotations

import asyncio
import difflib
import random
import ssl
from enum import IntEnum
from pathlib import Path
from typing import Any

import msgspec
from aiokafka import conn as kafka_connections
from aiokafka import errors as kafka_errors
from aiokafka.client import AIOKafkaClient, ConnectionGroup, CoordinationType
from aiokafka.errors import KafkaError
from aiokafka.protocol.metadata import MetadataRequest
from aiokafka.structs import TopicPartition as KafkaTopicPartition

from headrace.topics.back_off import back_off_s
from headrace.topics.errors import SettingsError
from headrace.topics.log import MAKE_TOPIC, LogUnavailable, TopicMissing, TopicPartition

START_TIMEOUT_S = 10.0  # how long a start may look for a broker, so that the caller can say so and back off
_METADATA_TIMEOUT_S = 10.0
_BACK_OFF_S = (0.05, 1.0)
_LEADER_WAIT_S = 0.05  # between looks at a topic that has no leaders yet


class Lane(IntEnum):
    """A connection per broker and use."""

    ADMIN = 0
    APPEND = 10
    PUBLISH = 11
    READ_ALL = 12
    READ_ALL_CATCH_UP = 13
    READ_COMMITTED = 14
    READ_COMMITTED_CATCH_UP = 15
    GROUP = 16  # JoinGroup waits for other members, and heartbeats behind it need not go out meanwhile
    GROUP_TALK = 17  # what must get through while it waits


class KafkaClientSettings(msgspec.Struct, frozen=True, kw_only=True):
    """How to reach Kafka. `extra` has more settings by their librdkafka names; `EXTRA_NAMES` lists those that are
    known.
    """

    bootstrap_servers: tuple[str, ...]
    security_protocol: str = "PLAINTEXT"
    sasl_mechanism: str | None = None
    sasl_username: str | None = None
    sasl_password: str | None = None
    sasl_kerberos_service_name: str = "kafka"
    sasl_kerberos_domain_name: str | None = None
    ssl_ca_file: Path | None = None
    ssl_certificate_file: Path | None = None
    ssl_key_file: Path | None = None
    ssl_key_password: str | None = None
    ssl_check_hostname: bool = True
    client_id: str = "headrace"
    client_rack: str | None = None
    extra: dict[str, str | int | float | bool] = {}
    append_timeout_ms: int = 30_000
    """When a stuck append is given up. Above what fencing a dead broker takes (8 s), and two request timeouts."""
    decompressed_batch_bytes_max: int = 64 * 1024 * 1024
    """`limits.decompressed_batch`."""
    session_timeout_ms: int = 10_000
    """When the group gives up a member that says nothing. A death that somebody sees is told at once."""
    heartbeat_interval_ms: int = 300
    """How soon a member hears of a change of the group."""


_FIELDS = {
    "bootstrap.servers": "bootstrap_servers",
    "metadata.broker.list": "bootstrap_servers",
    "security.protocol": "security_protocol",
    "sasl.mechanism": "sasl_mechanism",
    "sasl.mechanisms": "sasl_mechanism",
    "sasl.username": "sasl_username",
    "sasl.password": "sasl_password",
    "sasl.kerberos.service.name": "sasl_kerberos_service_name",
    "ssl.ca.location": "ssl_ca_file",
    "ssl.certificate.location": "ssl_certificate_file",
    "ssl.key.location": "ssl_key_file",
    "ssl.key.password": "ssl_key_password",
    "client.id": "client_id",
    "client.rack": "client_rack",
    "delivery.timeout.ms": "append_timeout_ms",
    "message.timeout.ms": "append_timeout_ms",
    "session.timeout.ms": "session_timeout_ms",
    "heartbeat.interval.ms": "heartbeat_interval_ms",
}
_WHOLE = {field: name for name, field in _FIELDS.items() if field.endswith("_ms")}
_CLIENT_ARGUMENTS = {
    "metadata.max.age.ms": "metadata_max_age_ms",
    "topic.metadata.refresh.interval.ms": "metadata_max_age_ms",
    "request.timeout.ms": "request_timeout_ms",
    "socket.timeout.ms": "request_timeout_ms",
    "retry.backoff.ms": "retry_backoff_ms",
    "connections.max.idle.ms": "connections_max_idle_ms",
}
LOOK_AT_BROKERS = "Look at the brokers and at kafka.bootstrap_servers; `headrace doctor` tells more."
EXTRA_NAMES = tuple(sorted({*_FIELDS, *_CLIENT_ARGUMENTS, "ssl.endpoint.identification.algorithm"}))


def resolved(settings: KafkaClientSettings) -> tuple[KafkaClientSettings, dict[str, int]]:
    """The settings with `extra` worked in, and arguments for aiokafka's client. Raises `SettingsError` for an unknown
    name or a wrong value.
    """
    changes: dict[str, Any] = {}
    arguments: dict[str, int] = {}
    for name, value in settings.extra.items():
        if name == "ssl.endpoint.identification.algorithm":
            changes["ssl_check_hostname"] = str(value).lower() not in {"", "none"}
        elif name in _FIELDS:
            changes[_FIELDS[name]] = value
        elif name in _CLIENT_ARGUMENTS:
            arguments[_CLIENT_ARGUMENTS[name]] = _whole(name, value)
        else:
            raise _unknown(name)
    if "bootstrap_servers" in changes:
        changes["bootstrap_servers"] = tuple(str(changes["bootstrap_servers"]).replace(" ", "").split(","))
    for field in ("ssl_ca_file", "ssl_certificate_file", "ssl_key_file"):
        if field in changes:
            changes[field] = Path(str(changes[field]))
    for field in changes.keys() & _WHOLE.keys():
        changes[field] = _whole(_WHOLE[field], changes[field])
    found = msgspec.structs.replace(settings, **changes, extra={})
    if 2 * found.heartbeat_interval_ms > found.session_timeout_ms:
        raise SettingsError(
            f"kafka.extra.heartbeat.interval.ms is {found.heartbeat_interval_ms}, more than half of session.timeout.ms, {found.session_timeout_ms}.",
            why="The group would give this process up between two heartbeats, again and again.",
            do="Leave heartbeat.interval.ms away (300), or choose a longer session.timeout.ms.",
        )
    return found, arguments


def _whole(name: str, value: str | float) -> int:
    try:
        number = int(value)
    except ValueError:
        number = 0
    if number <= 0:
        message = f"kafka.extra.{name} must be a number of milliseconds above 0, not {value!r}."
        raise SettingsError(message, do="Correct it, or leave it away.")
    return number


def _unknown(name: str) -> SettingsError:
    nearest = difflib.get_close_matches(name, EXTRA_NAMES, n=1, cutoff=0.0)[0]
    return SettingsError(
        f"kafka.extra.{name} is not a setting of Headrace's Kafka client.",
        why="Only what has a counterpart there is taken: a setting that does nothing would mislead.",
        do=f"Did you mean {nearest}? Known are {', '.join(EXTRA_NAMES)}.",
    )


def client_arguments(settings: KafkaClientSettings) -> dict[str, Any]:
    """Arguments for aiokafka's clients, also for those outside this part's log (membership). Raises `SettingsError`."""
    settings, arguments = resolved(settings)
    return {
        "bootstrap_servers": list(settings.bootstrap_servers),
        "client_id": settings.client_id,
        "security_protocol": settings.security_protocol,
        "ssl_context": _ssl_context(settings),
        "sasl_mechanism": settings.sasl_mechanism or "PLAIN",
        "sasl_plain_username": settings.sasl_username,
        "sasl_plain_password": settings.sasl_password,
        "sasl_kerberos_service_name": settings.sasl_kerberos_service_name,
        "sasl_kerberos_domain_name": settings.sasl_kerberos_domain_name,
        "request_timeout_ms": 15_000,
        "retry_backoff_ms": 50,
        **arguments,
    }


def _ssl_context(settings: KafkaClientSettings) -> ssl.SSLContext | None:
    if settings.security_protocol not in {"SSL", "SASL_SSL"}:
        return None
    try:
        context = ssl.create_default_context(cafile=settings.ssl_ca_file)
        context.check_hostname = settings.ssl_check_hostname
        if settings.ssl_certificate_file is not None:
            context.load_cert_chain(
                settings.ssl_certificate_file, settings.ssl_key_file, password=settings.ssl_key_password or ""
            )
    except (OSError, ssl.SSLError) as error:
        raise SettingsError(
            f"The certificates of kafka.ssl_* cannot be used: {error}.",
            do="Give PEM files that exist, and ssl_key_password if the key has one.",
        ) from error
    return context


class _CorrectedClient(AIOKafkaClient):
    """aiokafka's client, except that its metadata requests forbid topic creation and ask for our topics only, and that a time-out
    and a connection that was just closed are always told as such.
    """

    async def send(self, node_id: int, request: Any, *, group: Any = ConnectionGroup.DEFAULT) -> Any:
        """After a time-out aiokafka closes the connection by its name, under which another's next try may have begun a new one."""
        base: Any = super()  # which has no types
        try:
            return await base.send(node_id, request, group=group)
        except KeyError as error:
            if error.args != ((node_id, group),):
                raise
            raise kafka_errors.RequestTimedOutError from error
        except RuntimeError as error:
            self._broken(error, node_id, group)
            raise kafka_errors.KafkaConnectionError(f"Connection to broker {node_id} broken: {error}") from error

    def _broken(self, error: RuntimeError, node_id: int, group: Any) -> None:
        """Transports of uvloop raise it where a connection was just closed and asyncio's say nothing; aiokafka expects an `OSError`. Others go on."""
        if "is closed" not in str(error):
            raise error
        base: Any = self
        connection = base._conns.get((node_id, group))  # noqa: SLF001 - of the base class
        if connection is not None:
            connection.close(reason=kafka_connections.CloseReason.CONNECTION_BROKEN)

    async def _metadata_update(self, cluster_metadata: Any, topics: Any) -> bool:
        request = MetadataRequest(sorted(topics or ()), allow_auto_topic_creation=False)
        base: Any = self  # which has no types
        nodes: list[int] = [broker.nodeId for broker in base.cluster.brokers()]
        random.shuffle(nodes)
        for node in nodes:
            try:
                connection = await base._get_conn(node)  # noqa: SLF001 - of the base class
                if connection is None:
                    continue
                metadata = await connection.send(request)
            except (TimeoutError, KafkaError):
                continue
            except RuntimeError as error:
                self._broken(error, node, ConnectionGroup.DEFAULT)
                continue
            if not metadata.brokers:
                return False
            cluster_metadata.update_metadata(metadata)
            return True
        cluster_metadata.failed_update(None)
        return False


class KafkaClient:
    """Requests to brokers, and who leads which partition. `reachable` is what the last exchange with any broker said."""

    def __init__(self, settings: KafkaClientSettings) -> None:
        """Raises `SettingsError`. Call it where an event loop runs."""
        self.settings = resolved(settings)[0]
        self._arguments = client_arguments(settings)
        try:
            self._client: Any = _CorrectedClient(**self._arguments)
        except ValueError as error:
            do = "Correct them; `headrace config show --sources` says where each one came from."
            raise SettingsError(f"The kafka settings do not go together: {error}.", do=do) from error
        self.reachable = False
        self._leaders: dict[TopicPartition, int | None] = {}  # of the newest metadata
        self.leader_changes = 0
        self._client.cluster.add_listener(self._forget_leaders)
        self._failures = 0  # exchanges with brokers, since the last one that went well

    @property
    def backoff_s(self) -> float:
        """How long to wait before the next try: 0.05 s, and up to 1 s while nothing answers."""
        return back_off_s(_BACK_OFF_S, self._failures)

    async def start(self) -> None:
        """Find a broker. Raises `LogUnavailable` within `START_TIMEOUT_S`."""
        try:
            async with asyncio.timeout(START_TIMEOUT_S):
                await self._client.bootstrap()
        except (KafkaError, OSError, TimeoutError) as error:
            await self.stop()
            raise LogUnavailable(
                f"No Kafka broker answers at {', '.join(self.settings.bootstrap_servers)}{await self._reason()}.",
                do="See that the brokers run, and that kafka.bootstrap_servers and kafka.security_protocol are right.",
            ) from error
        self.reachable = True

    async def _reason(self) -> str:
        """Why: aiokafka only logs it."""
        host, port, _ = self._client.hosts[0]
        arguments = {name: value for name, value in self._arguments.items() if name in _CONNECTION_ARGUMENTS}
        try:
            async with asyncio.timeout(2):
                connections: Any = kafka_connections  # which have no types
                connection = await connections.create_conn(host, port, **arguments)
                connection.close()
        except (KafkaError, OSError, TimeoutError) as error:
            return f": {str(error) or type(error).__name__}".rstrip(".")
        return ""

    async def stop(self) -> None:
        """Close all connections."""
        self.reachable = False
        await self._client.close()

    async def send(self, node: int, request: Any, lane: Lane) -> Any:
        """One request, its response. Raises aiokafka's `KafkaError`; `NodeNotReadyError` means that nothing was sent."""
        try:
            response = await self._client.send(node, request, group=lane)
        except kafka_errors.KafkaError:
            self.reachable = False
            self._failures += 1
            raise
        self.reachable = True
        self._failures = 0
        return response

    def hang_up(self, node: int, lane: Lane) -> None:
        """Close a connection that does not answer; the next request makes a new one."""
        connection = self._client._conns.pop((node, lane), None)  # noqa: SLF001 - aiokafka does it only after its own timeout
        if connection is not None:
            connection.close()

    def leader(self, at: TopicPartition) -> int | None:
        """The broker that leads the partition, or None while nobody is known to."""
        if at not in self._leaders:
            leader = self._client.cluster.leader_for_partition(KafkaTopicPartition(at.topic, at.partition))
            self._leaders[at] = None if leader == -1 else leader
        return self._leaders[at]

    def _forget_leaders(self, _: Any) -> None:
        before, self._leaders = self._leaders, {}
        if any(self.leader(at) != node for at, node in before.items()):
            self.leader_changes += 1

    def any_node(self) -> int:
        """Some broker."""
        node: int | None = self._client.get_random_node()
        if node is None:
            raise kafka_errors.KafkaConnectionError("no broker is known")
        return node

    def controller(self) -> int:
        """The broker that makes topics."""
        controller = self._client.cluster.controller
        return self.any_node() if controller is None else controller.nodeId

    def partitions(self, topic: str) -> int | None:
        """How many partitions a followed topic has; None: not there, or not followed."""
        found: set[int] | None = self._client.cluster.partitions_for_topic(topic)
        return len(found) if found else None

    async def refresh(self) -> None:
        """Get new metadata now."""
        await self._client.force_metadata_update()

    def refresh_soon(self) -> None:
        """Have new metadata fetched."""
        self._client.force_metadata_update()

    async def coordinator(self, group: str) -> int:
        """The broker that keeps the group's positions."""
        node: int = await self._client.coordinator_lookup(CoordinationType.GROUP, group)
        return node

    async def follow(self, topic: str) -> int:
        """Keep metadata of a topic from now on; its number of partitions.

        Raises `TopicMissing` if it is not there, `LogUnavailable` if no broker says.
        """
        if known := self.partitions(topic):
            return known
        try:
            async with asyncio.timeout(_METADATA_TIMEOUT_S):
                while True:
                    error = await self._topic_error(topic)
                    if error == 0:
                        await self._client.add_topic(topic)
                        if known := self.partitions(topic):
                            return known
                        await self.refresh()
                        if known := self.partitions(topic):
                            return known
                    elif error != kafka_errors.LeaderNotAvailableError.errno:
                        raise TopicMissing(
                            f"{topic} does not exist, or may not be described.",
                            do=MAKE_TOPIC,
                        )
                    await asyncio.sleep(_LEADER_WAIT_S)
        except (KafkaError, TimeoutError) as error:
            raise LogUnavailable(f"No broker says anything about {topic}: {error!r}.", do=LOOK_AT_BROKERS) from error

    async def _topic_error(self, topic: str) -> int:
        request = MetadataRequest([topic], allow_auto_topic_creation=False)
        response = await self.send(self.any_node(), request, Lane.ADMIN)
        return response.topics[0][0]


_CONNECTION_ARGUMENTS = frozenset(
    {
        "client_id",
        "request_timeout_ms",
        "ssl_context",
        "security_protocol",
        "sasl_mechanism",
        "sasl_plain_username",
        "sasl_plain_password",
        "sasl_kerberos_service_name",
        "sasl_kerberos_domain_name",
    }
)
