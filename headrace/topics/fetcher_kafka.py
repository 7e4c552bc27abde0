# pyright: reportMissingTypeStubs=false
"""`Fetcher`: one long poll per broker for all readers of an isolation.

A reader whose queue is full is left out of the poll; the others go on. A reader that has a backlog while the poll waits is
served by a second connection that does not wait. Positions belong to the readers alone: adding or closing one disturbs no other.

What this process appends itself need not be fetched to be known: an append that all in-sync replicas acknowledged, right
at the offset where a reader stands, is what a poll would bring. The reader gets it at once (`Fetcher.appended`), and polls
that bring nothing else are made less often.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from typing import NamedTuple

from aiokafka import errors as kafka_errors

from headrace.topics import error_kafka
from headrace.topics.client_kafka import KafkaClient, Lane
from headrace.topics.fetch_kafka import SESSION_ERRORS, FetchRequest, FetchResponse, FetchSession, Wanted
from headrace.topics.log import (
    Appended,
    Isolation,
    LogUnavailable,
    NewRecord,
    OffsetOutOfRange,
    Offsets,
    TopicForbidden,
    TopicMissing,
    TopicPartition,
)
from headrace.topics.reader_kafka import PARTITION_BYTES_MAX, Reader

WAIT_MS = 100  # how long a poll waits for records; a reader that is added at the tail may wait that long once
_PARTITION_BYTES_MIN = 128 * 1024
_ALL_PARTITIONS_BYTES = 8 * 1024 * 1024  # shared by all readers: 64 readers get 128 KiB each
_POLL_BYTES_MAX = 16 * 1024 * 1024
_PACE_S = 0.005  # between polls while they bring nothing that is not known: so long another process's record may wait
# A broker that starts may not know a topic or its rules yet; after this long it is gone, or forbidden.
_REFUSED_S = 10.0

_OUT_OF_RANGE = kafka_errors.OffsetOutOfRangeError.errno

OffsetsOf = Callable[[Sequence[TopicPartition]], Awaitable[Mapping[TopicPartition, Offsets]]]


class _Brought(NamedTuple):
    """Who got something from a poll, and whether anybody got what was not known."""

    fed: list[Reader]
    news: bool


class Fetcher:
    """Polls for all readers of one isolation. `run` is its task."""

    def __init__(self, client: KafkaClient, isolation: Isolation, offsets: OffsetsOf) -> None:
        self._client = client
        self._isolation: Isolation = isolation
        self._offsets = offsets
        self._readers: dict[TopicPartition, Reader] = {}
        self._ahead: set[Reader] = set()  # they stand further than their broker was told
        self._nodes: dict[int, _Node] = {}
        self._work = asyncio.Event()
        self._ended: Exception | None = None  # why nothing is fetched any more
        self._changes = 0  # of who is to be polled: readers that came, went, or have room again
        self._lanes = (
            (Lane.READ_ALL, Lane.READ_ALL_CATCH_UP)
            if isolation == "all"
            else (Lane.READ_COMMITTED, Lane.READ_COMMITTED_CATCH_UP)
        )

    def add(self, at: TopicPartition, position: int) -> Reader:
        """A reader from `position` on. `RuntimeError` if the partition has one."""
        if at in self._readers:
            raise RuntimeError(f"another reader of {at} is open")
        reader = Reader(at, position, self._isolation, self.kick, self._client.settings.decompressed_batch_bytes_max)
        self._readers[at] = reader
        self._changes += 1
        self.kick(reader)
        if self._ended is not None:
            reader.fail(self._ended)
        return reader

    def remove(self, reader: Reader) -> None:
        if self._readers.get(reader.at) is reader:
            del self._readers[reader.at]
            self._ahead.discard(reader)
            self._changes += 1

    def appended(self, at: TopicPartition, appended: Appended, records: Sequence[NewRecord]) -> None:
        """This process appended these, and all in-sync replicas have them."""
        reader = self._readers.get(at)
        if reader is not None and reader.appended(appended.base_offset, appended.timestamp_ms, records):
            self._ahead.add(reader)

    def fail_all(self, error: Exception) -> None:
        """Nothing more will be fetched."""
        self._ended = error
        for reader in self._readers.values():
            reader.fail(error)

    def kick(self, reader: Reader) -> None:
        """The reader wants more."""
        if reader.in_flight:
            return
        self._changes += 1
        node = self._client.leader(reader.at)
        if node is None or node not in self._nodes:
            self._work.set()
            return
        self._nodes[node].wake(catch_up=not reader.caught_up)

    async def run(self) -> None:
        """Start the polls of each broker that leads a partition; look after partitions without a leader. Ends by cancellation."""
        async with asyncio.TaskGroup() as group:
            while True:
                self._work.clear()
                leaderless = False
                for reader in list(self._readers.values()):
                    node = self._client.leader(reader.at)
                    if node is None:
                        leaderless = True
                    elif node not in self._nodes:
                        self._nodes[node] = _Node()
                        for index, lane in enumerate(self._lanes):
                            group.create_task(self._poll(node, lane, catching_up=index == 1))
                    elif not reader.in_flight:
                        self._changes += 1  # a poll that is out knows nothing of it: it was its old leader's until now
                        self._nodes[node].wake(catch_up=not reader.caught_up)
                if leaderless:
                    await self._client.refresh()
                    await self._check_missing()
                    await asyncio.sleep(self._client.backoff_s)
                else:
                    await self._work.wait()

    async def _poll(self, node: int, lane: Lane, *, catching_up: bool) -> None:
        state = self._nodes[node]
        session = _NoSession() if catching_up else FetchSession()
        turn = 0
        leaders = self._client.leader_changes
        while True:
            if leaders != self._client.leader_changes:  # what was asked for here may be another's, whose poll is out
                leaders = self._client.leader_changes
                self._work.set()
            wake = state.catch_up if catching_up else state.tail
            wake.clear()
            readers = [
                reader
                for reader in self._readers.values()
                if not reader.in_flight
                and reader.has_room
                and self._client.leader(reader.at) == node
                and not (catching_up and (reader.caught_up or not state.polling))
            ]
            if not readers:
                await wake.wait()
                continue
            turn += 1
            if not catching_up:
                state.polling = True
            if catching_up:
                await self._exchange(node, lane, session, _rotated(readers, turn))
                self._changes += 1  # the tail's poll left these out: it must take them in now
                state.tail.set()
                continue
            try:
                await self._follow(node, lane, session, _rotated(readers, turn))
            finally:
                state.polling = False

    async def _exchange(self, node: int, lane: Lane, session: FetchSession, readers: list[Reader]) -> None:
        """Ask once for what is there now."""
        share = self._share()
        asked = {reader.at: reader for reader in readers}
        with _in_flight(readers):
            changed, forgotten, key = session.next({at: reader.wanted(share) for at, reader in asked.items()})
            request = self._request(changed, readers, key, forgotten, wait_ms=0)
            await self._ask(node, lane, session, request, asked)

    async def _follow(self, node: int, lane: Lane, session: FetchSession, readers: list[Reader]) -> None:
        """Poll for these until others are to be polled. A poll costs what it brought, however many are waited for."""
        share = self._share()
        asked = {reader.at: reader for reader in readers}
        changes, leaders = self._changes, self._client.leader_changes
        with _in_flight(readers):
            changed, forgotten, key = session.next({at: reader.wanted(share) for at, reader in asked.items()})
            request = self._request(changed, readers, key, forgotten, wait_ms=WAIT_MS)
            while True:
                brought = await self._ask(node, lane, session, request, asked)
                if (
                    brought is None
                    or changes != self._changes
                    or leaders != self._client.leader_changes
                    or not all(reader.has_room for reader in brought.fed)
                ):
                    return
                if brought.fed and not brought.news:
                    await asyncio.sleep(_PACE_S)
                ahead = [reader for reader in self._ahead if asked.get(reader.at) is reader]
                self._ahead.difference_update(ahead)
                moved, key = session.moved({reader.at: reader.wanted(share) for reader in (*brought.fed, *ahead)})
                request = self._request(moved, brought.fed, key, {}, wait_ms=WAIT_MS)

    def _share(self) -> int:
        return max(_PARTITION_BYTES_MIN, min(PARTITION_BYTES_MAX, _ALL_PARTITIONS_BYTES // len(self._readers)))

    def _request(
        self,
        changed: dict[str, list[Wanted]],
        readers: list[Reader],
        session: tuple[int, int],
        forgotten: dict[str, list[int]],
        *,
        wait_ms: int,
    ) -> FetchRequest:
        return FetchRequest(
            changed,
            wait_ms=wait_ms,
            bytes_max=max(_POLL_BYTES_MAX, *(reader.ask_bytes for reader in readers), 0),
            committed=self._isolation == "committed",
            rack=self._client.settings.client_rack or "",
            session=session,
            forgotten=forgotten,
        )

    async def _ask(
        self,
        node: int,
        lane: Lane,
        session: FetchSession,
        request: FetchRequest,
        asked: dict[TopicPartition, Reader],
    ) -> _Brought | None:
        """Send, and hand out what comes. None: there was trouble, begin anew."""
        try:
            response: FetchResponse = await self._client.send(node, request, lane)
        except kafka_errors.KafkaError:
            session.reset()
            self._client.refresh_soon()
            await asyncio.sleep(self._client.backoff_s)
            self._work.set()
            return None
        session.answered(response)
        if response.error in SESSION_ERRORS:
            return None
        fed: list[Reader] = []
        news = False
        troubled: list[tuple[Reader, int]] = []
        for found in response.found:
            reader = asked.get(TopicPartition(found.topic, found.partition))
            if reader is None or self._readers.get(reader.at) is not reader:  # closed meanwhile
                continue
            if found.error:
                troubled.append((reader, found.error))
            else:
                news = reader.feed(found) or news
                fed.append(reader)
        if response.error:
            troubled = [(reader, response.error) for reader in asked.values()]
        if troubled:
            await self._heal(troubled)
            return None
        return _Brought(fed, news)

    async def _heal(self, troubled: list[tuple[Reader, int]]) -> None:
        """Partitions that gave an error: stop at a wrong offset and at a topic that stays missing or forbidden, wait out everything else."""
        for reader, error in troubled:
            if error == _OUT_OF_RANGE:
                await self._check_range(reader)
            elif error == error_kafka.UNKNOWN_TOPIC:
                self._note_missing(reader)
            elif error_kafka.is_forbidden(error) and self._lasts(reader):
                reader.fail(_forbidden(reader.at))
        self._client.refresh_soon()
        await asyncio.sleep(self._client.backoff_s)
        self._work.set()

    async def _check_range(self, reader: Reader) -> None:
        try:
            offsets = (await self._offsets([reader.at]))[reader.at]
        except (LogUnavailable, TopicMissing):
            return  # asked again with the next poll
        if not offsets.start <= reader.fetch_offset <= offsets.end:
            reader.fail(OffsetOutOfRange(reader.at, reader.fetch_offset, offsets))

    async def _check_missing(self) -> None:
        for reader in list(self._readers.values()):
            if self._client.leader(reader.at) is None and self._client.reachable:
                if self._client.partitions(reader.at.topic) is None:
                    self._note_missing(reader)
            else:
                reader.refused_since = None

    def _note_missing(self, reader: Reader) -> None:
        if self._lasts(reader):
            reader.fail(TopicMissing(f"{reader.at} does not exist any more.", do="Make the topic again, or remove it."))

    def _lasts(self, reader: Reader) -> bool:
        """Whether it has been like this for so long that it will stay."""
        now = asyncio.get_running_loop().time()
        if reader.refused_since is None:
            reader.refused_since = now
        return now - reader.refused_since > _REFUSED_S


def _forbidden(at: TopicPartition) -> TopicForbidden:
    return TopicForbidden(
        f"The broker does not let us read {at.topic}.",
        why="READ on the topic is missing.",
        do=f"Grant READ on {at.topic}, then start again; `headrace doctor` says what else is missing.",
    )


@contextmanager
def _in_flight(readers: list[Reader]) -> Generator[None]:
    for reader in readers:
        reader.in_flight = True
    try:
        yield
    finally:
        for reader in readers:
            reader.in_flight = False


class _NoSession(FetchSession):
    """For polls of ever other partitions: complete requests."""

    def next(
        self, wanted: dict[TopicPartition, Wanted]
    ) -> tuple[dict[str, list[Wanted]], dict[str, list[int]], tuple[int, int]]:
        changed, _, _ = super().next(wanted)
        return changed, {}, (0, -1)

    def answered(self, response: FetchResponse) -> None:
        """Nothing to go on with."""


class _Node:
    """What the two polls of one broker know of each other."""

    def __init__(self) -> None:
        self.tail = asyncio.Event()
        self.catch_up = asyncio.Event()
        self.polling = False  # the long poll is out

    def wake(self, *, catch_up: bool) -> None:
        self.tail.set()
        if catch_up and self.polling:
            self.catch_up.set()


def _rotated(readers: list[Reader], turn: int) -> list[Reader]:
    """Another partition first each time: a broker fills its answer from the front, and returns a large batch only there."""
    at = turn % len(readers)
    return readers[at:] + readers[:at]
