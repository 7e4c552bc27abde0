"""`python -m benchmarks.hostile_client CASE URL SECONDS`: a stranger at the HTTP API, in a process of its own, so that only what it asks for costs the service.

Started by `benchmarks/hostile.py`. What it is answered is counted by the service; it looks at nothing.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import socket
import sys
import time
from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_MIB: Final = 1 << 20
_WAIT_S: Final = 60.0


class Asked(NamedTuple):
    """One request as bytes."""

    method: str
    path: str
    body: bytes = b""
    headers: tuple[str, ...] = ()

    @property
    def raw(self) -> bytes:
        """What goes over the wire, with its length."""
        lines = [f"{self.method} {self.path} HTTP/1.1", "Host: localhost", *self.headers]
        if self.body:
            lines += [f"Content-Length: {len(self.body)}"]
            lines += (
                []
                if any(line.startswith("Content-Type") for line in self.headers)
                else ["Content-Type: application/json"]
            )
        return "\r\n".join((*lines, "", "")).encode("latin-1") + self.body


class Place(NamedTuple):
    """Where to ask, and until when (monotonic seconds)."""

    host: str
    port: int
    until: float

    @property
    def over(self) -> bool:
        """Whether it is time to end."""
        return time.monotonic() > self.until


# --- requests that have an answer ---------------------------------------------------------------------------------------

_PATHS: Final = (
    "runs?limit=200",
    "workflows",
    "stats",
    "approvals",
    "schedules",
    "dead-letters",
    "dead-letters/stats",
    "topics",
    "about",
)


def lists() -> Iterator[Asked]:
    """Everything that a console asks for."""
    return itertools.cycle([*(Asked("GET", f"/api/v1/{path}") for path in _PATHS), Asked("GET", "/")])


def starts() -> Iterator[Asked]:
    """Runs of any of the workflows, and events, some of them waited for."""
    for number in itertools.count():
        yield Asked(
            "POST",
            "/api/v1/runs",
            b'{"workflow":"shop.of-%d","input":{"id":%d}}' % (number % 1_000, 10 * number + 1),
            ("Prefer: wait=5",) if number % 2 else (),
        )
        event = {"specversion": "1.0", "id": str(number), "source": "x", "type": "t1", "data": {"id": 10 * number + 1}}
        yield Asked(
            "POST", "/api/v1/events", json.dumps(event).encode(), ("Content-Type: application/cloudevents+json",)
        )


def bodies() -> Iterator[Asked]:
    """As large, deep and wide as a body may be, and more."""
    units = (b"[],", b"{},", b"1,", b'"",', b'"\\n",', b"[[[[1]]]],", b'{"a":1},')
    texts = [b"[" + unit * (size // len(unit)) + b"0]" for size in (_MIB - 200_000, 4 * _MIB - 10) for unit in units]
    texts += [
        b"[" * _MIB,
        b'{"a":' * _MIB,
        b'"' + b"\\u00e9" * (4 * _MIB // 7) + b'"',
        b"9" * (4 * _MIB - 10),
        b"[" * 60 + b"]" * 60,
    ]
    for text in itertools.cycle(texts):
        yield Asked("POST", "/api/v1/runs", b'{"workflow":"shop.of-1","input":' + text[: 4 * _MIB - 50] + b"}")
        yield Asked("POST", "/api/v1/events?topic=orders", text)
        yield Asked("POST", "/api/v1/events", text, ("Content-Type: application/cloudevents-batch+json",))
        yield Asked("POST", "/api/v1/dead-letters/redrive", text)


def batches() -> Iterator[Asked]:
    """Batches of as many events as are taken: rubbish, then sound ones that start nothing."""
    head = ("Content-Type: application/cloudevents-batch+json",)
    sound = b",".join(
        b'{"specversion":"1.0","id":"%d","source":"x","type":"none","data":{"id":1}}' % number
        for number in range(10_000)
    )
    for _ in itertools.count():
        yield Asked("POST", "/api/v1/events", b"[" + b"{}," * 9_999 + b"{}]", head)
        yield Asked("POST", "/api/v1/events?topic=orders", b"[" + sound + b"]", head)


def forgeries() -> Iterator[Asked]:
    """Cursors, ids, numbers and times that nobody was given."""
    cursors = (
        "AAAA",
        "W10",
        "WzEsIngiXQ",
        "WzFlMzA4LCIiXQ",
        "Wy0xLCJcdTAwMDAiXQ",
        "WzEwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMCwieCJd",
        "%00",
        "A" * 4_000,
    )
    ids = (
        "%0a%0d",
        "1%0aSet-Cookie:x",
        "..%2f..%2f",
        "0." + "a" * 20,
        "9" * 5_000,
        "%ff%fe",
        "-1.x",
        "0." + "%F0%9F%98%80" * 50,
    )
    for cursor, one, digits in itertools.cycle(itertools.product(cursors, ids, ("9" * 5_000, "-1", "1e9", "%D9%A1"))):
        for path in ("runs", "approvals", "dead-letters", f"runs/{one}/history"):
            yield Asked("GET", f"/api/v1/{path}?cursor={cursor}")
            yield Asked("GET", f"/api/v1/{path}?limit={digits}&since={digits}h&status={one}")
        yield Asked("GET", f"/api/v1/runs/{one}")
        yield Asked("GET", f"/api/v1/approvals/{one}")
        yield Asked("GET", f"/api/v1/schedules/{one}/next?count={digits}")
        yield Asked("GET", f"/api/v1/dead-letters/orders.dlq/{digits}/{digits}")
        yield Asked("POST", f"/api/v1/runs/{one}/cancel", b'{"reason":"\\u0000\\n"}')


def contexts() -> Iterator[Asked]:
    """Starts with trace contexts that are not sound."""
    long = f"traceparent: 00-{'a' * 597}"
    many = "tracestate: " + ",".join(f"k{number}=v" for number in range(100))
    sound = f"traceparent: 00-{'a1' * 16}-{'b2' * 8}-01"
    for number, headers in enumerate(itertools.cycle(((long,), (sound, many), (sound, sound)))):
        yield Asked("POST", "/api/v1/runs", b'{"workflow":"shop.of-1","input":{"id":%d}}' % (10 * number + 1), headers)


_REQUESTS: Final[dict[str, tuple[Callable[[], Iterator[Asked]], int]]] = {
    "lists": (lists, 8),
    "starts": (starts, 32),
    "bodies": (bodies, 4),
    "batches": (batches, 2),
    "forgeries": (forgeries, 8),
    "contexts": (contexts, 8),
}


async def asking(place: Place, requests: Iterator[Asked]) -> None:
    """One after the other, on as few connections as there need be."""
    while not place.over:
        with suppress(OSError, asyncio.IncompleteReadError, ValueError, asyncio.LimitOverrunError):
            reader, writer = await asyncio.open_connection(place.host, place.port, limit=_MIB)
            try:
                while not place.over:
                    writer.write(next(requests).raw)
                    await writer.drain()
                    if not await answered(reader):
                        break
            finally:
                writer.close()


async def answered(reader: asyncio.StreamReader) -> bool:
    """Read an answer to its end; whether the connection may be used again."""
    head = (await reader.readuntil(b"\r\n\r\n")).lower()
    size = head.partition(b"content-length: ")[2].partition(b"\r\n")[0]
    left = int(size or 0)
    while left:
        left -= len(await reader.read(min(left, 1 << 16))) or left
    return b"connection: close" not in head


# --- connections that are held ------------------------------------------------------------------------------------------


async def dribbling(place: Place) -> None:
    """300 connections that send a header's next byte every second."""
    with ExitStack() as stack:
        while not place.over:
            peers: list[socket.socket] = []
            for _ in range(300):
                with suppress(OSError):
                    peer = stack.enter_context(socket.create_connection((place.host, place.port), timeout=_WAIT_S))
                    peer.sendall(b"POST /api/v1/runs HTTP/1.1\r\nHost: localhost\r\nX-A: ")
                    peers.append(peer)
            for _ in range(5):
                await asyncio.sleep(1)
                for peer in peers:
                    with suppress(OSError):
                        peer.send(b"a")
            for peer in peers:
                peer.close()


async def never_reading(place: Place) -> None:
    """100 live streams that read nothing, with the smallest buffers."""
    with ExitStack() as stack:
        for _ in range(100):
            peer = stack.enter_context(socket.socket())
            peer.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1024)
            with suppress(OSError):
                peer.connect((place.host, place.port))
                peer.sendall(Asked("GET", "/api/v1/stream").raw)
        while not place.over:
            await asyncio.sleep(0.1)


async def pipelining(place: Place) -> None:
    """Twenty connections that ask without an end and read no answer."""

    async def one() -> None:
        with suppress(OSError):
            _, writer = await asyncio.open_connection(place.host, place.port)
            many = Asked("GET", "/api/v1/about").raw * 1_000
            with suppress(TimeoutError):
                async with asyncio.timeout_at(asyncio.get_running_loop().time() + place.until - time.monotonic()):
                    while True:
                        writer.write(many)
                        await writer.drain()
            writer.transport.abort()

    async with asyncio.TaskGroup() as group:
        for _ in range(20):
            group.create_task(one())


_SHAPES: Final = (
    b"POST /api/v1/runs HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET /x HTTP/1.1\r\n\r\n",
    b"POST /api/v1/runs HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
    b"POST /api/v1/runs HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding : chunked\r\n\r\n0\r\n\r\n",
    b"POST /api/v1/runs HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nabcdef",
    b"POST /api/v1/runs HTTP/1.1\r\nHost: localhost\r\nContent-Length: +5\r\n\r\nabcde",
    b"POST /api/v1/runs HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\nfffffffffffffffff\r\n\r\n",
    b"POST /api/v1/runs HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n5;"
    + b"a" * 20_000
    + b"\r\nabcde\r\n0\r\n\r\n",
    b"GET /api/v1/about HTTP/1.1\r\nHost: localhost\r\nHost: elsewhere\r\n\r\n",
    b"GET /api/v1/about HTTP/1.1\r\nHost: localhost\r\nX: a\r\n b\r\n\r\n",
    b"GET http://elsewhere/api/v1/about HTTP/1.1\r\nHost: localhost\r\n\r\n",
    b"GET /api/v1/about\r\n\r\n",
    b"GET /api/v1/about HTTP/9.9\r\nHost: localhost\r\n\r\n",
    b"GET /api/v1/about HTTP/1.1\nHost: localhost\n\n",
    b"CONNECT elsewhere:443 HTTP/1.1\r\nHost: localhost\r\n\r\n",
    b"GET /api/v1/stream HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
    + b"\x81\xff" * 10_000,
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\x00" * 500,
    b"\x00" * 9_000,
)


async def smuggling(place: Place) -> None:
    """Bytes that two readers of HTTP might understand differently."""

    async def one(shapes: Iterator[bytes]) -> None:
        while not place.over:
            with suppress(OSError, TimeoutError):
                reader, writer = await asyncio.open_connection(place.host, place.port)
                writer.write(next(shapes))
                async with asyncio.timeout(2):
                    await reader.read(1 << 16)
                writer.transport.abort()

    shapes = itertools.cycle(_SHAPES)
    async with asyncio.TaskGroup() as group:
        for _ in range(8):
            group.create_task(one(shapes))


_HELD: Final = {
    "dribbling": dribbling,
    "never-reading": never_reading,
    "pipelining": pipelining,
    "smuggling": smuggling,
}


async def main(case: str, url: str, seconds: float) -> None:
    """Be hostile for so long."""
    host, _, port = url.removeprefix("http://").rstrip("/").rpartition(":")
    place = Place(host, int(port), time.monotonic() + seconds)
    if case in _HELD:
        await _HELD[case](place)
        return
    make, at_once = _REQUESTS[case]
    requests = make()
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds + 2), asyncio.TaskGroup() as group:
            for _ in range(at_once):
                group.create_task(asking(place, requests))


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2], float(sys.argv[3])))
