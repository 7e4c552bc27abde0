"""`KafkaWire`: Kafka's protocol over single connections, for what records and what loads a session.

Nothing here runs by itself: aiokafka's clients keep tasks that try for ever, as fast as they can, while a broker is away, and outlive
their stop. It shares nothing with the product's Kafka code, which it judges.
"""

import asyncio
import time
from collections import defaultdict, deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, NamedTuple, TypeVar

from aiokafka import errors as kafka_errors
from aiokafka.conn import AIOKafkaConnection, create_conn
from aiokafka.errors import KafkaError
from aiokafka.protocol.api import Request
from aiokafka.protocol.coordination import FindCoordinatorRequest
from aiokafka.protocol.metadata import MetadataRequest

T = TypeVar("T")
_GROUP = 0  # the kind of a coordinator
_PAUSE_S = 0.1  # between tries
_CLOSE_S = 1.0


class Node(NamedTuple):
    """Where a broker listens."""

    host: str
    port: int


class KafkaWire:
    """One connection per broker, made when it is asked. A failure closes all of them: the next try begins anew, at another broker.

    `request_s`: what one request may take, its connection too. `patience_s`: how long `steady` tries again.
    """

    def __init__(self, servers: str, *, request_s: float, patience_s: float) -> None:
        self._servers = deque(
            Node(host, int(port)) for host, _, port in (s.rpartition(":") for s in servers.split(","))
        )
        self._request_s = request_s
        self._patience_s = patience_s
        self._connections: dict[Node, AIOKafkaConnection] = {}
        self._leaders: dict[tuple[str, int], Node] = {}
        self._turn = asyncio.Lock()
        self.failures = 0
        """Tries that failed."""

    async def steady(self, what: Callable[[], Awaitable[T]]) -> T:
        """Do it, again where another try may help. Whoever asks takes turns. Raises the last try's KafkaError or OSError."""
        async with self._turn:
            ends = time.monotonic() + self._patience_s
            while True:
                try:
                    return await what()
                except (KafkaError, OSError) as error:
                    self._hang_up()
                    self._servers.rotate(-1)  # the first may be behind
                    self.failures += 1
                    if time.monotonic() > ends or not (isinstance(error, OSError) or error.retriable):
                        raise
                except BaseException:
                    self._hang_up()
                    raise
                await asyncio.sleep(_PAUSE_S)

    async def ask(self, node: Node, request: Request[Any]) -> Any:
        """One request, its response."""
        async with asyncio.timeout(self._request_s):
            connection = self._connections.get(node)
            if connection is None or not connection.connected():
                connection = await create_conn(
                    *node, client_id="chaos", request_timeout_ms=round(self._request_s * 1000)
                )
                self._connections[node] = connection
            return await connection.send(request)

    async def ask_any(self, request: Request[Any]) -> Any:
        """The response of the first of the servers that gives one."""
        for _ in range(len(self._servers) - 1):
            try:
                return await self.ask(self._servers[0], request)
            except (KafkaError, OSError):
                self._servers.rotate(-1)
        return await self.ask(self._servers[0], request)

    async def metadata(self, topics: Sequence[str]) -> dict[str, list[tuple[int, int]]]:
        """Of topics that are there: partitions, each with its error. Remembers who leads them."""
        found: Any = await self.ask_any(MetadataRequest(list(topics), allow_auto_topic_creation=False))
        nodes = {number: Node(host, port) for number, host, port, *_ in found.brokers}
        partitions: dict[str, list[tuple[int, int]]] = {}
        for error, topic, _, each_partition in found.topics:
            if error != kafka_errors.UnknownTopicOrPartitionError.errno:
                check(error)
                partitions[topic] = [(number, code) for code, number, *_ in each_partition]
                self._leaders |= {
                    (topic, number): nodes[leader] for _, number, leader, *_ in each_partition if leader in nodes
                }
        return partitions

    async def led(self, at: Sequence[tuple[str, int]]) -> dict[Node, list[tuple[str, int]]]:
        """The partitions by who leads them. Raises LeaderNotAvailableError if nobody leads one."""
        if not all(each in self._leaders for each in at):
            await self.metadata(sorted({topic for topic, _ in at}))
        found: dict[Node, list[tuple[str, int]]] = defaultdict(list)
        for each in at:
            if each not in self._leaders:
                raise kafka_errors.LeaderNotAvailableError(f"{each}")
            found[self._leaders[each]].append(each)
        return found

    async def coordinator(self, group: str) -> Node:
        """Who keeps a group's positions."""
        found: Any = await self.ask_any(FindCoordinatorRequest(group, _GROUP))
        check(found.error_code)
        return Node(found.host, found.port)

    def _hang_up(self) -> list[asyncio.Future[None]]:
        self._leaders.clear()
        connections, self._connections = self._connections, {}
        return [closed for each in connections.values() if (closed := each.close()) is not None]

    async def close(self) -> None:
        """Let go of the connections. Whoever asks afterwards makes new ones."""
        if closed := self._hang_up():
            await asyncio.wait(closed, timeout=_CLOSE_S)


def check(code: int) -> None:
    """Raises the error of an answer, if it is one."""
    if code:
        raise kafka_errors.for_code(code)


def by_topic(at: Sequence[tuple[str, int]], what: Callable[[tuple[str, int]], T]) -> list[tuple[str, list[T]]]:
    """Something of each partition, in the shape of requests."""
    topics: dict[str, list[T]] = defaultdict(list)
    for each in at:
        topics[each[0]].append(what(each))
    return list(topics.items())
