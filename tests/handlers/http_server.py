"""A real server on a port of its own, which answers as it is told and remembers what it was asked."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from aiohttp import web

Answer = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Server:
    """`answers` by path; `asked`: what came, with its headers."""

    def __init__(self) -> None:
        self.port = 0
        self.answers: dict[str, Answer] = {}
        self.asked: list[web.Request] = []
        self.bodies: list[bytes] = []

    def url(self, path: str) -> str:
        """The address of a path, by number."""
        return f"http://127.0.0.1:{self.port}{path}"

    def answer(self, path: str, status: int = 200, body: bytes = b"", **headers: str) -> str:
        """The same answer to everybody; its address."""

        async def always(_: web.Request) -> web.StreamResponse:
            return web.Response(
                status=status, body=body, headers={name.replace("_", "-"): value for name, value in headers.items()}
            )

        self.answers[path] = always
        return self.url(path)

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Every request."""
        self.asked.append(request)
        self.bodies.append(await request.read())
        return await self.answers[request.path](request)


@asynccontextmanager
async def http_server() -> AsyncIterator[Server]:
    """It answers until the end of the block."""
    server = Server()
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", server.handle)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    (server.port,) = {address[1] for address in runner.addresses}
    try:
        yield server
    finally:
        await runner.cleanup()
