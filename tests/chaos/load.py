"""A producer that is not ours: jobs with known answers, and now and then a record that is no job at all.

It keeps some jobs ahead of what is done, so that every part works all the time and a fault hits something.
"""

import asyncio
import itertools
import random
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Literal, NamedTuple, Protocol, Self
from zlib import crc32

import msgspec
from aiokafka.errors import KafkaError

from headrace.topics.errors import HeadraceError
from headrace.topics.log import NewRecord, TopicPartition
from headrace.topics.log_embedded import EmbeddedLog
from tests.chaos.program import Job, random_job

What = Literal["job", "turn", "malformed", "unmatched"]
Headers = tuple[tuple[str, bytes], ...]
PARTITIONS = 4
_PUT_S = 30.0  # above the producer's own patience


class Input(msgspec.Struct, frozen=True, kw_only=True):
    """A record of the source topic, as it was meant. `ordered`: its key is its group's, so that its place in the topic is its turn."""

    id: str
    what: What
    job: Job | None = None
    ordered: bool = False


class Try(NamedTuple):
    """When a record was put, from the first attempt to the end of the last, by this machine's clock."""

    began_ms: float
    ended_ms: float


class Door(Protocol):
    """The way into the source topic. Raises KafkaError, OSError or HeadraceError where a record may or may not be in."""

    async def put(self, topic: str, partition: int, key: bytes, value: bytes, headers: Headers) -> None: ...
    async def close(self) -> None: ...


class EmbeddedDoor:
    """Another process's publish into the embedded file."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._log: EmbeddedLog | None = None

    async def put(self, topic: str, partition: int, key: bytes, value: bytes, headers: Headers) -> None:
        if self._log is None:
            self._log = await EmbeddedLog(self._path, owner=False).__aenter__()
        count = await self._log.partitions(topic)
        await self._log.publish(TopicPartition(topic, partition % count), [NewRecord(value, key, headers)])

    async def close(self) -> None:
        log, self._log = self._log, None
        if log is not None:
            await log.__aexit__(None, None, None)


class Load:
    """`async with load:` publishes until the block ends. `inputs`: what was tried, by id, `tries`: when; `acknowledged`: what is in for sure."""

    def __init__(
        self,
        door: Door,
        topic: str,
        *,
        seed: int,
        ahead: int,
        done: Callable[[], int],
        rate: float | None = None,
        make: Callable[[random.Random, int], Job] = random_job,
    ) -> None:
        self._door = door
        self._topic = topic
        self._rng = random.Random(seed)
        self._ahead = ahead
        self._rate = rate
        self._done = done
        self._make = make
        self._task: asyncio.Task[None] | None = None
        self._stop = asyncio.Event()
        self._number = 0
        self.inputs: dict[str, Input] = {}
        self.tries: dict[str, Try] = {}
        self.acknowledged: set[str] = set()
        self.doubtful = 0
        self.turned_at = time.monotonic()
        """When the producer was last seen going on."""
        self.jobs = 0

    async def put(self, job: Job) -> None:
        """One job, now."""
        stranger = (
            job.turn and crc32(job.id.encode()) % 3 == 0
        )  # its turn is taken in another partition than its record's
        key = (job.group if job.turn and not stranger else job.id).encode()
        kind = "turn" if job.turn else "job"
        value = msgspec.json.encode({"id": job.id, "group": job.group, "program": job.program})
        self.jobs += 1
        ordered = job.turn and not stranger
        await self._put(Input(id=job.id, what=kind, job=job, ordered=ordered), key, value, kind)

    async def put_unwanted(self, partition: int) -> None:
        """A record that nobody wants, in this partition."""
        id_ = next(
            id_
            for id_ in (f"unwanted{number}" for number in itertools.count())
            if id_ not in self.inputs and crc32(id_.encode()) % PARTITIONS == partition
        )
        await self._put(Input(id=id_, what="unmatched"), id_.encode(), b"{}", "nobody")

    async def _put(self, meant: Input, key: bytes, value: bytes, type_: str) -> None:
        self.inputs[meant.id] = meant
        headers = (
            ("ce_specversion", b"1.0"),
            ("ce_id", meant.id.encode()),
            ("ce_source", b"/chaos"),
            ("ce_type", type_.encode()),
        )
        began_ms = time.time() * 1000
        try:
            async with asyncio.timeout(_PUT_S):
                await self._door.put(self._topic, crc32(key) % PARTITIONS, key, value, headers)
        except (KafkaError, OSError, HeadraceError) as error:
            self.doubtful += 1  # in or not in: the topic will tell; never sent again
            if isinstance(error, TimeoutError):
                await self.close()  # a producer that hangs: the next one is new
            await asyncio.sleep(0.2)
        else:
            self.acknowledged.add(meant.id)
        finally:
            self.tries[meant.id] = Try(began_ms, time.time() * 1000)

    async def _publish(self) -> None:
        began, begin = time.monotonic(), self._number
        while not self._stop.is_set():
            self.turned_at = time.monotonic()
            ahead = self.jobs - self.doubtful - self._done() >= self._ahead  # what is not in is never done
            late = self._rate is not None and self._number - begin > (time.monotonic() - began) * self._rate
            if ahead or late:
                await asyncio.sleep(0.005)
                continue
            number = self._number
            self._number += 1
            await self.put(self._make(self._rng, number))
            if number % 40 == 17:
                id_ = f"bad{number}"
                await self._put(Input(id=id_, what="malformed"), id_.encode(), b'{"id":', "job")
            if number % 40 == 31:
                id_ = f"nobody{number}"
                await self._put(Input(id=id_, what="unmatched"), id_.encode(), b"{}", "nobody")

    async def __aenter__(self) -> Self:
        self._stop.clear()
        self._task = asyncio.get_running_loop().create_task(self._publish())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        assert self._task is not None
        if error is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
        else:
            await self._task

    async def close(self) -> None:
        """Let go."""
        await self._door.close()

    @property
    def ended_with(self) -> BaseException | None:
        """What ended the producer, if anything has."""
        done = self._task is not None and self._task.done() and not self._task.cancelled()
        return self._task.exception() if done and self._task is not None else None

    @property
    def publishes(self) -> bool:
        """Between begin and end of its block."""
        return self._task is not None and not self._task.done()
