"""The network between workers and brokers: a TCP proxy in a process of its own that can hold, drop, delay, slow, slice and reset.

`python -m tests.chaos.tcp_proxy LISTEN:TARGET ...`: a command a line on standard input, an answer a line on standard
output. It counts what a fault touched: a fault that touched nothing proves nothing. Loss of packets needs `netem`; here
bytes are late or their connection ends, as TCP shows it.
"""

import asyncio
import json
import os
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import Any, Literal

import msgspec

ROOT = Path(__file__).parents[2]
_CHUNK = 65_536
_QUEUED_CHUNKS_MAX = 512  # a direction, while it is held: 32 MiB


class Kind(StrEnum):
    """What happens to bytes."""

    NONE = "none"
    HOLD = "hold"  # nothing passes, and all of it later: a blackhole; with one direction, a late request
    DROP = "drop"  # swallowed; such a connection ends with the fault
    DELAY = "delay"  # `amount` seconds later
    SLOW = "slow"  # `amount` bytes a second
    SLICE = "slice"  # in pieces of `amount` bytes


class Fault(msgspec.Struct, frozen=True, kw_only=True):
    """Of one listener. `up`: from client to broker."""

    kind: Kind
    direction: Literal["up", "down", "both"] = "both"
    amount: float = 0.0

    def on(self, direction: str) -> bool:
        return self.kind is not Kind.NONE and self.direction in {direction, "both"}


CLEAR = Fault(kind=Kind.NONE)


# --- the parent's side --------------------------------------------------------------------------------------------------


class ProxyProcess:
    """A proxy in a process of its own. `routes`: the port that listens, the port behind it."""

    def __init__(self, module: str, routes: Mapping[int, int]) -> None:
        self.ports = list(routes)
        self._process = subprocess.Popen(
            [sys.executable, "-m", module, *(f"{a}:{b}" for a, b in routes.items())],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        self._answer()

    def close(self) -> None:
        """End the process."""
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            pipe.close()
        self._process.wait(60)

    def _ask(self, **words: Any) -> dict[str, Any]:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(words).encode() + b"\n")
        self._process.stdin.flush()
        return self._answer()

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        return json.loads(self._process.stdout.readline())


class TcpProxy(ProxyProcess):
    """Bytes, whatever they say."""

    def __init__(self, routes: Mapping[int, int]) -> None:
        super().__init__("tests.chaos.tcp_proxy", routes)

    def begin(self, port: int, fault: Fault) -> None:
        """From now on, until `heal` or another fault."""
        self._ask(do="fault", port=port, fault=msgspec.to_builtins(fault))

    def heal(self, port: int) -> int:
        """End the fault: what was held passes. How many chunks it touched."""
        return int(self._ask(do="fault", port=port, fault=msgspec.to_builtins(CLEAR))["hits"])

    def reset(self, port: int) -> int:
        """Reset all connections that there are; how many."""
        return int(self._ask(do="reset", port=port)["hits"])

    def hits(self, port: int) -> int:
        """Chunks that the present fault touched."""
        return int(self._ask(do="hits", port=port)["hits"])


# --- the process --------------------------------------------------------------------------------------------------------


class _Listener:
    def __init__(self, port: int, target: int) -> None:
        self.port = port
        self.target = target
        self.fault = CLEAR
        self.changed = asyncio.Event()
        self.hits = 0
        self.links: set[_Link] = set()

    def set(self, fault: Fault) -> int:
        """The hits of the fault before."""
        hits, self.hits, self.fault = self.hits, 0, fault
        self.changed.set()
        self.changed = asyncio.Event()
        for link in [link for link in self.links if link.spoiled]:
            link.reset()
        return hits

    def reset(self) -> int:
        links = list(self.links)
        for link in links:
            link.reset()
        return len(links)

    async def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            streams = await asyncio.open_connection("127.0.0.1", self.target)
        except OSError:  # as it would see it without us
            _reset(writer)
            return
        link = _Link(self, (reader, writer), streams)
        self.links.add(link)
        try:
            await link.run()
        finally:
            self.links.discard(link)


class _Link:
    """Two directions of one connection."""

    def __init__(
        self,
        listener: _Listener,
        client: tuple[asyncio.StreamReader, asyncio.StreamWriter],
        broker: tuple[asyncio.StreamReader, asyncio.StreamWriter],
    ) -> None:
        self.listener = listener
        self.spoiled = False
        self._writers = (client[1], broker[1])
        self._directions = (
            _Direction(self, "up", client[0], broker[1]),
            _Direction(self, "down", broker[0], client[1]),
        )

    async def run(self) -> None:
        async with asyncio.TaskGroup() as group:
            for direction in self._directions:
                group.create_task(direction.fill())
                group.create_task(direction.drain())

    def reset(self) -> None:
        for writer in self._writers:
            _reset(writer)


class _Direction:
    def __init__(self, link: _Link, name: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._link = link
        self._name = name
        self._reader = reader
        self._writer = writer
        self._queue: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(_QUEUED_CHUNKS_MAX)

    async def fill(self) -> None:
        """Read always, so that a delay is a delay and no lack of window; what a dead client had sent stays."""
        data = b"."
        while data:
            try:
                data = await self._reader.read(_CHUNK)
            except ConnectionError:
                data = b""
            await self._queue.put((time.monotonic(), data))

    async def drain(self) -> None:
        while True:
            arrived, data = await self._queue.get()
            if not data:
                break
            try:
                await self._pass(arrived, data)
            except ConnectionError:
                continue  # to the end, which comes
        self._writer.close()

    async def _pass(self, arrived: float, data: bytes) -> None:
        listener = self._link.listener
        fault = listener.fault
        if not fault.on(self._name):
            await self._write(data)
            return
        listener.hits += 1
        match fault.kind:
            case Kind.HOLD:
                await listener.changed.wait()
                await self._pass(arrived, data)
            case Kind.DROP:
                self._link.spoiled = True
            case Kind.DELAY:
                await asyncio.sleep(max(0.0, arrived + fault.amount - time.monotonic()))
                await self._write(data)
            case Kind.SLOW:
                await self._slowly(data, fault)
            case Kind.SLICE:
                size = int(fault.amount)
                for first in range(0, len(data), size):
                    await self._write(data[first : first + size])
            case Kind.NONE:
                raise AssertionError

    async def _slowly(self, data: bytes, fault: Fault) -> None:
        piece = max(1, int(fault.amount / 20))
        for first in range(0, len(data), piece):
            if self._link.listener.fault is not fault:
                await self._write(data[first:])
                return
            await self._write(data[first : first + piece])
            await asyncio.sleep(piece / fault.amount)

    async def _write(self, data: bytes) -> None:
        self._writer.write(data)
        await self._writer.drain()


def _reset(writer: asyncio.StreamWriter) -> None:
    """RST instead of FIN."""
    connection = writer.get_extra_info("socket")
    if connection is not None:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


async def serve(routes: Mapping[int, int]) -> None:
    listeners = {port: _Listener(port, target) for port, target in routes.items()}
    for port, listener in listeners.items():
        await asyncio.start_server(listener.accept, "127.0.0.1", port)
    print(json.dumps({"ready": True}), flush=True)
    loop = asyncio.get_running_loop()
    while line := await loop.run_in_executor(None, sys.stdin.buffer.readline):
        words = json.loads(line)
        listener = listeners[words["port"]]
        match words["do"]:
            case "fault":
                hits = listener.set(msgspec.convert(words["fault"], Fault))
            case "reset":
                hits = listener.reset()
            case _:
                hits = listener.hits
        print(json.dumps({"hits": hits}), flush=True)
    os._exit(0)  # whatever is open: nobody wants it any more


if __name__ == "__main__":
    asyncio.run(serve({int(a): int(b) for a, b in (route.split(":") for route in sys.argv[1:])}))
