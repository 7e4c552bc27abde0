"""The proxy does what its faults say, and counts it."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from tests.chaos.tcp_proxy import Fault, Kind, TcpProxy
from tests.kafka_broker.broker import free_port
from tests.service.end_to_end.waiting import eventually_now

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@asynccontextmanager
async def network() -> AsyncIterator[tuple[TcpProxy, int, list[bytes]]]:
    """A proxy before a server that notes what it gets and answers it."""
    got: list[bytes] = []
    ended: list[asyncio.Task[None]] = []

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        ended.extend([task] if (task := asyncio.current_task()) else [])
        try:
            while data := await reader.read(1000):
                got.append(data)
                writer.write(data)
                await writer.drain()
        except ConnectionError:
            pass
        finally:
            writer.transport.abort()

    server = await asyncio.start_server(echo, "127.0.0.1", 0)
    port = free_port()
    proxy = TcpProxy({port: server.sockets[0].getsockname()[1]})
    try:
        yield proxy, port, got
    finally:
        proxy.close()
        server.close()
        await asyncio.gather(*ended)
        await asyncio.sleep(0)  # transports close in the next round of the loop


@asynccontextmanager
async def connected(port: int) -> AsyncIterator[Streams]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        yield reader, writer
    finally:
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()


async def test_without_a_fault_bytes_pass() -> None:
    async with network() as (_, port, _got), connected(port) as (reader, writer):
        writer.write(b"hello")
        assert await reader.readexactly(5) == b"hello"


async def test_held_requests_arrive_after_their_sender_died() -> None:
    async with network() as (proxy, port, got), connected(port) as (_, writer):
        proxy.begin(port, Fault(kind=Kind.HOLD, direction="up"))
        writer.write(b"late")
        await eventually_now(lambda: proxy.hits(port), "a hit")
        writer.transport.abort()
        assert not got
        assert proxy.heal(port) == 1
        await eventually_now(lambda: got, "what was held")
        assert got == [b"late"]


async def test_dropped_answers_reached_the_server_and_end_their_connection() -> None:
    async with network() as (proxy, port, got), connected(port) as (reader, writer):
        proxy.begin(port, Fault(kind=Kind.DROP, direction="down"))
        writer.write(b"asked")
        await eventually_now(lambda: proxy.hits(port), "a hit")
        assert got == [b"asked"]
        proxy.heal(port)
        with pytest.raises(ConnectionError):
            await reader.readexactly(1)


@pytest.mark.parametrize(
    "fault",
    [Fault(kind=Kind.DELAY, amount=0.1), Fault(kind=Kind.SLOW, amount=40), Fault(kind=Kind.SLICE, amount=1)],
    ids=lambda fault: fault.kind,
)
async def test_what_is_late_or_in_pieces_is_whole(fault: Fault) -> None:
    async with network() as (proxy, port, _), connected(port) as (reader, writer):
        proxy.begin(port, fault)
        began = time.monotonic()
        writer.write(b"0123456789")
        assert await reader.readexactly(10) == b"0123456789"
        if fault.kind is not Kind.SLICE:
            assert time.monotonic() - began >= 0.1, "a fault that costs no time is none"
        assert proxy.heal(port) > 0


async def test_a_reset_ends_what_is_open() -> None:
    async with network() as (proxy, port, _), connected(port) as (reader, writer):
        writer.write(b"x")
        await reader.readexactly(1)
        assert proxy.reset(port) == 1
        with pytest.raises(ConnectionError):
            await reader.readexactly(1)
