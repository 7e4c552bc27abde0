"""Brokers that answer with errors: a proxy that understands Kafka's frames and puts an error code into answers of one API.

The broker has done what was asked; its client is told that it failed. That is what a leader that moves, or a coordinator that loads, looks like at its
worst. `python -m tests.chaos.error_proxy LISTEN:TARGET ...`: a command a line on standard input, an answer a line on standard output.
"""

import asyncio
import json
import os
import struct
import sys
from collections.abc import Mapping
from io import BytesIO
from typing import Any

from aiokafka.protocol import admin, commit, coordination, group, metadata, offset, produce, transaction
from aiokafka.protocol.api import Response
from aiokafka.protocol.types import Array, Int16, Int32, Int64, Schema, String, TaggedFields, UnsignedVarInt32

from tests.chaos.tcp_proxy import ProxyProcess

FETCH, FETCH_VERSION = 1, 11
_FETCH_PARTITION = struct.Struct(">ihqqqi")
_SESSION_ERRORS = {70, 71}  # of the whole answer
_MODULES = (admin, commit, coordination, group, metadata, offset, produce, transaction)


class ErrorProxy(ProxyProcess):
    """For one API and error at a time."""

    def __init__(self, routes: Mapping[int, int]) -> None:
        super().__init__("tests.chaos.error_proxy", routes)

    def begin(self, api: int, code: int, times: int) -> None:
        """So many answers; -1: all until `heal`."""
        self._ask(api=api, code=code, times=times)

    def heal(self) -> int:
        """No more of it. How many answers were changed."""
        return int(self._ask(api=-1, code=0, times=0)["hits"])


# --- answers ------------------------------------------------------------------------------------------------------------


def responses() -> dict[tuple[int, int], type[Response]]:
    """What aiokafka can read, by API and version."""
    found: dict[tuple[int, int], type[Response]] = {}
    for module in _MODULES:
        for each in vars(module).values():
            if isinstance(each, type) and issubclass(each, Response) and each is not Response:
                found[int(each.API_KEY), int(each.API_VERSION)] = each  # pyright: ignore[reportArgumentType] - numbers there
    return found


_RESPONSES = responses()


def changed(api: int, version: int, frame: bytes, code: int) -> bytes | None:
    """The answer (from its correlation id on) with this error wherever it has one; None if it has none to change."""
    if api == FETCH:
        return _changed_fetch(frame, code) if version == FETCH_VERSION else None
    response = _RESPONSES.get((api, version))
    if response is None:
        return None
    data = BytesIO(frame)
    head = Int32.encode(Int32.decode(data))
    if any(field is TaggedFields for field in response.SCHEMA.fields):
        TaggedFields.decode(data)
        head += UnsignedVarInt32.encode(0)
    values = list(response.SCHEMA.decode(data))
    new, count = _with_error(response.SCHEMA, values, code)
    return head + response.SCHEMA.encode(new) if count else None


def _with_error(schema: Schema, values: Any, code: int) -> tuple[list[Any], int]:
    new: list[Any] = []
    count = 0
    for name, field, value in zip(schema.names, schema.fields, values, strict=True):
        if name.startswith("error") and field is Int16:
            new.append(code)
            count += 1
        elif isinstance(field, Array) and isinstance(field.array_of, Schema) and value:
            inner = [_with_error(field.array_of, each, code) for each in value]
            new.append([tuple(each) for each, _ in inner])
            count += sum(found for _, found in inner)
        else:
            new.append(value)
    return new, count


def _changed_fetch(frame: bytes, code: int) -> bytes | None:
    """All partitions that came with news, or the session."""
    new = bytearray(frame)
    if code in _SESSION_ERRORS:
        struct.pack_into(">h", new, 8, code)  # behind correlation id and throttle time
        return bytes(new)
    data = BytesIO(frame)
    data.seek(14)
    count = 0
    for _ in range(Int32.decode(data)):
        String("utf-8").decode(data)
        for _ in range(Int32.decode(data)):
            struct.pack_into(">h", new, data.tell() + 4, code)
            count += 1
            *_, aborted = _FETCH_PARTITION.unpack(data.read(_FETCH_PARTITION.size))
            for _ in range(2 * max(0, aborted)):
                Int64.decode(data)
            Int32.decode(data)  # the preferred replica
            data.seek(max(0, Int32.decode(data)), os.SEEK_CUR)
    return bytes(new) if count else None


# --- the process --------------------------------------------------------------------------------------------------------


class _Fault:
    api = -1
    code = 0
    times = 0
    hits = 0

    def set(self, api: int, code: int, times: int) -> int:
        """The hits of the one before."""
        hits, self.hits = self.hits, 0
        self.api, self.code, self.times = api, code, times
        return hits

    def on(self, api: int, version: int, frame: bytes) -> bytes:
        if api != self.api or not self.times:
            return frame
        new = changed(api, version, frame, self.code)
        if new is None:
            return frame
        self.times -= self.times > 0
        self.hits += 1
        return new


async def _frame(reader: asyncio.StreamReader) -> bytes:
    (size,) = struct.unpack(">i", await reader.readexactly(4))
    return await reader.readexactly(size)


class _Link:
    def __init__(self, fault: _Fault, port: int) -> None:
        self._fault = fault
        self._port = port

    async def accept(self, client: asyncio.StreamReader, back: asyncio.StreamWriter) -> None:
        asked: dict[int, tuple[int, int]] = {}  # correlation id: api, version
        try:
            broker, on = await asyncio.open_connection("127.0.0.1", self._port)
        except OSError:
            back.close()
            return
        try:
            async with asyncio.TaskGroup() as both:
                both.create_task(self._up(client, on, asked))
                both.create_task(self._down(broker, back, asked))
        except* (OSError, asyncio.IncompleteReadError):  # the end of one is the end of both
            pass
        finally:
            for writer in (on, back):
                writer.close()

    async def _up(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, asked: dict[int, tuple[int, int]]
    ) -> None:
        while True:
            frame = await _frame(reader)
            api, version, correlation = struct.unpack_from(">hhi", frame)
            asked[correlation] = (api, version)
            writer.write(struct.pack(">i", len(frame)) + frame)
            await writer.drain()

    async def _down(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, asked: dict[int, tuple[int, int]]
    ) -> None:
        while True:
            frame = await _frame(reader)
            (correlation,) = struct.unpack_from(">i", frame)
            frame = self._fault.on(*asked.pop(correlation), frame)
            writer.write(struct.pack(">i", len(frame)) + frame)
            await writer.drain()


async def serve(routes: Mapping[int, int]) -> None:
    fault = _Fault()
    for port, target in routes.items():
        await asyncio.start_server(_Link(fault, target).accept, "127.0.0.1", port)
    print(json.dumps({"ready": True}), flush=True)
    loop = asyncio.get_running_loop()
    while line := await loop.run_in_executor(None, sys.stdin.buffer.readline):
        words = json.loads(line)
        print(json.dumps({"hits": fault.set(words["api"], words["code"], words["times"])}), flush=True)
    os._exit(0)  # whatever is open: nobody wants it any more


if __name__ == "__main__":
    asyncio.run(serve({int(a): int(b) for a, b in (route.split(":") for route in sys.argv[1:])}))
