"""The API's port: bound before anything else is begun, served while the service runs.

Bounds of a connection: so many at once (the next one is told to come again), so long without a whole request, so many bytes of headers. Bounds of a request are
`dispatch.py`'s. On SIGTERM nothing new is let in, what is open ends, streams are closed.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import socket
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, cast

from aiohttp import web
from aiohttp.web_protocol import RequestHandler

from headrace.service.api.console_files import ConsoleFiles
from headrace.service.api.dispatch import Dispatch, problem_response
from headrace.service.api.facade import Facade
from headrace.service.api.fresh_queries import FreshQueries
from headrace.service.api.guard import Guard
from headrace.service.api.live_runs import LiveRuns
from headrace.service.api.live_stream import LiveStream
from headrace.service.api.problem import HEADERS_TOO_LARGE, MALFORMED, TOO_MANY, ApiError
from headrace.service.client_log import opened
from headrace.service.run_view.queries_log import LogQueries
from headrace.topics.errors import SettingsError

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Generator

    from headrace.observability.forecast import Forecast
    from headrace.observability.snapshot import Snapshot
    from headrace.service.run_view.queries import RunQueries
    from headrace.service.settings import ApiSettings
    from headrace.service.shared import Shared

ADDRESS_REFUSED = "HR1306"
CONNECTIONS_MAX = 256
"""Browsers hold some six each, streams included."""
IDLE_S = 20.0
"""A connection without a whole request for so long is closed: nobody may dribble headers."""
LINE_BYTES_MAX = 8_190
HEADER_BYTES_MAX = 8_190
HEADERS_MAX = 100
STOP_S = 3.0
"""What is open may take so long to end when the service stops."""
LINGER_S = 5.0
"""What is still being sent behind a refusal is read for so long: a connection that is reset takes the refusal with it."""
CROWDED_S = 1.0
"""For a connection too many to read why."""
_BACKLOG = 128


class ApiPortTaken(SettingsError):
    """Something else listens on the API's port."""

    code = "HR1305"


class ApiPort:
    """The port, bound: nobody else can take it, and nothing is answered yet."""

    def __init__(self, bound: socket.socket, host: str) -> None:
        self.socket = bound
        self._host = host

    @property
    def url(self) -> str:
        """Where to point a browser, without path."""
        host = f"[{self._host}]" if ":" in self._host else self._host
        return f"http://{host}:{self.socket.getsockname()[1]}"


@contextmanager
def bound(settings: ApiSettings) -> Generator[ApiPort]:
    """Bind, and judge the settings. Raises ApiPortTaken, or SettingsError for a host that is not ours, or one that lets everybody in."""
    Guard(settings)
    host, port = settings.host, settings.port
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        made = socket.create_server((host, port), family=family, backlog=_BACKLOG)
    except OSError as error:
        taken = error.errno == errno.EADDRINUSE
        raise (ApiPortTaken if taken else SettingsError)(
            f"Cannot listen on {host}:{port} for the API: {error.strerror or error}.",
            code=ApiPortTaken.code if taken else ADDRESS_REFUSED,
            why="Another process listens there: another app, perhaps."
            if taken
            else "The address cannot be bound here.",
            do="Choose another port with --api-port (api.port), 0 for a free one; or api.enabled = false."
            if taken
            else "Correct api.host and api.port.",
        ) from error
    with made:
        made.setblocking(False)  # noqa: FBT003 - the socket's own signature
        yield ApiPort(made, host)


@asynccontextmanager
async def serving(
    port: ApiPort,
    shared: Shared,
    *,
    stop: asyncio.Event,
    snapshot: Callable[[], Snapshot],
    forecast: Callable[[], Forecast | None],
) -> AsyncGenerator[Facade]:
    """Answer, until the end of the block."""
    settings = shared.settings
    stream = LiveStream()
    live = LiveRuns(settings, shared.partitions, stream, shared.observer)
    queries: RunQueries = LogQueries(partial(opened, settings), settings)
    if shared.history is not None:
        queries = FreshQueries(shared.history.queries, queries)
    facade = Facade(shared, queries, live, stream, snapshot=snapshot, forecast=forecast)
    base_path = settings.api.base_path.rstrip("/") + "/"
    dispatch = Dispatch(facade, Guard(settings.api), ConsoleFiles(base_path))
    server = _Server(dispatch)
    shared.streams = lambda: len(stream)
    loop = asyncio.get_running_loop()
    async with asyncio.TaskGroup() as tasks:
        own = [tasks.create_task(live.run()), tasks.create_task(_drain(stop, dispatch, facade))]
        listening = await loop.create_server(server, sock=port.socket, backlog=_BACKLOG)
        try:
            yield facade
        finally:
            dispatch.draining = True
            facade.stop()
            listening.close()
            server.pre_shutdown()  # idle connections end at once
            await server.shutdown(STOP_S)
            for task in own:
                task.cancel()


async def _drain(stop: asyncio.Event, dispatch: Dispatch, facade: Facade) -> None:
    """Once the service has been asked to stop: nobody new, and nobody waits any more."""
    await stop.wait()
    dispatch.draining = True
    facade.stop()


class _Server(web.Server):
    """Makes a connection for each peer, up to a number."""

    def __init__(self, dispatch: Dispatch) -> None:
        self._bounds: dict[str, Any] = {
            "keepalive_timeout": IDLE_S,
            "max_line_size": LINE_BYTES_MAX,
            "max_field_size": HEADER_BYTES_MAX,
            "max_headers": HEADERS_MAX,
            "lingering_time": LINGER_S,
            "access_log": None,
            "logger": _silent(),
            "auto_decompress": False,
        }
        super().__init__(dispatch.handle, **self._bounds)

    def __call__(self) -> Any:
        if len(self.connections) >= CONNECTIONS_MAX:
            return _Crowded()
        return _Connection(self, loop=asyncio.get_running_loop(), **self._bounds)


class _Connection(RequestHandler):
    """What cannot be read as HTTP is answered as problem details, too."""

    __slots__ = ()

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        too_long = type(exc).__name__ in {"LineTooLong", "TooManyHeaders"} or "Too many" in (message or "")
        self.force_close_after()
        if too_long:
            error = ApiError(
                HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE,
                HEADERS_TOO_LARGE,
                f"The request line or a header has more than {HEADER_BYTES_MAX} bytes, or there are more than {HEADERS_MAX} headers.",
                do="Send less in headers.",
                headers={"Connection": "close"},
            )
        else:
            error = ApiError(
                HTTPStatus.BAD_REQUEST,
                MALFORMED,
                "The request is not HTTP as it should be.",
                do="Ask with an HTTP client.",
                headers={"Connection": "close"},
            )
        return problem_response(error, "")

    def force_close_after(self) -> None:
        """Nothing more is read from this connection."""
        self.keep_alive(False)  # noqa: FBT003 - aiohttp's own signature


class _Crowded(asyncio.Protocol):
    """A connection too many: told so, and closed."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        to_peer = cast("asyncio.WriteTransport", transport)  # uvloop's is one by its methods only
        error = ApiError(
            HTTPStatus.SERVICE_UNAVAILABLE, TOO_MANY, f"{CONNECTIONS_MAX} connections are open.", do="Try again later."
        )
        body = problem_response(error, "").body
        raw = body if isinstance(body, bytes) else b""
        head = (
            "HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/problem+json\r\n"
            f"Content-Length: {len(raw)}\r\nRetry-After: 1\r\nConnection: close\r\n\r\n"
        )
        to_peer.write(head.encode() + raw)
        to_peer.write_eof()
        # closed at once, with its request unread, it would be reset before it has read this
        asyncio.get_running_loop().call_later(CROWDED_S, to_peer.close)


def _silent() -> logging.Logger:
    """Aiohttp's own lines are about peers that went away; what matters we tell the observer."""
    logger = logging.getLogger("headrace.api.aiohttp")
    logger.propagate = False
    if not logger.handlers:
        logger.addHandler(logging.NullHandler())
    return logger
